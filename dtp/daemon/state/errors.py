"""What goes wrong with a store."""

from __future__ import annotations

from dtp.errors import CarrierError, ConfigError


class StateError(CarrierError):
    """The database could not be reached or did not do it; nothing was counted there. Trying again may help."""

    code = "state"


class StateUnusable(ConfigError):
    """Raised when the state's file is not a database or may not be used. Trying again does not help."""

    code = "state-unusable"
