"""What goes wrong with a store."""

from __future__ import annotations

from dtp.errors import CarrierError


class StateError(CarrierError):
    """The database could not be reached or did not do it; nothing was counted there. Trying again may help."""

    code = "state"
