"""What goes wrong with a store."""

from __future__ import annotations

from dtp.errors import CarrierError, ConfigError


class StateError(CarrierError):
    """The database could not be reached or did not do it; nothing was counted there. Trying again may help."""

    code = "state"


class StateUnusable(ConfigError):
    """The database is none, or may not be used: only a person mends it."""

    code = "state-unusable"
