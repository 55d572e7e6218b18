"""Who has logged in: by name and password, at the login server of the same daemon."""

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
    """Asked for all that happens, bytes too: a login that was ended, since it was stolen, is over at once."""

    name = "login"
    asks = (Arrive, Open, MethodCall, Move)

    def __init__(self, rule: str) -> None:
        self.rule = rule
        self._find: FindLogin = find_nobody

    def ask_logins(self, find: FindLogin) -> None:
        """Go by what `find` says of who is logged in."""
        self._find = find

    def check_event(self, event: Event, now: Moment) -> Denial | None:
        """Deny unless the caller's key has logged in, or is the identity of an account that is logged in."""
        assert not isinstance(event, Close)
        if self._find(event.caller.peer.key, now.unix) is None:
            return self.make_denial(Reason.NOT_LOGGED_IN, f"{event.caller.peer} is not logged in")
        return None
