"""Requires callers to be logged in, by name and password, at the login server of the same daemon."""

from __future__ import annotations

from dtp.daemon.policies.base import (
    Arrive,
    Close,
    Denial,
    Event,
    FindLogin,
    MethodCall,
    Moment,
    Move,
    Open,
    Policy,
    find_nobody,
)
from dtp.daemon.reasons import Reason


class LoggedInPolicy(Policy):
    """Asked for every event, including bytes: when a stolen login is ended, that takes effect at once."""

    name = "login"
    asks = (Arrive, Open, MethodCall, Move)

    def __init__(self, rule: str) -> None:
        self.rule = rule
        self._find: FindLogin = find_nobody

    def ask_logins(self, find: FindLogin) -> None:
        """Use `find` to look up logins."""
        self._find = find

    def check_event(self, event: Event, now: Moment) -> Denial | None:
        """Deny unless the caller's key has logged in, or is the identity of an account that is logged in."""
        assert not isinstance(event, Close)
        if self._find(event.caller.peer.key, now.unix) is None:
            return self.make_denial(Reason.NOT_LOGGED_IN, f"{event.caller.peer} is not logged in")
        return None
