"""Errors of stores."""

from __future__ import annotations

from dtp.errors import CarrierError, ConfigError


class StateError(CarrierError):
    """The database couldn't be reached or refused the change; nothing was counted there. Trying again may help."""

    code = "state"


class StateUnusable(ConfigError):
    """Raised when the state's file is not a database or may not be used. Trying again does not help."""

    code = "state-unusable"
