"""Who may connect: identities and Sui accounts that are listed and not denied."""

from __future__ import annotations

from dtp.daemon.config.model import AccessRule
from dtp.daemon.policies.base import (
    Arrive,
    Caller,
    Close,
    Denial,
    Event,
    MethodCall,
    Moment,
    Move,
    Open,
    Policy,
)
from dtp.daemon.reasons import Reason


class AccessPolicy(Policy):
    """Asked for each stream, too, so that after a reload it applies to existing connections."""

    name = "access"
    asks = (Arrive, Open)

    def __init__(self, rule: AccessRule) -> None:
        self._rule = rule
        self._allowed: Caller | None = None  # the last one that passed, which usually asks again

    def check_event(self, event: Event, now: Moment) -> Denial | None:
        """Deny callers who are on the deny list, or on no list."""
        assert not isinstance(event, MethodCall | Move | Close)
        rule, caller = self._rule, event.caller
        if caller is self._allowed:
            return None
        if caller.peer in rule.denied_peers or caller.account in rule.denied_accounts:
            return self.make_denial(Reason.DENIED, f"{caller.peer} is denied here")
        if rule.everyone or caller.peer in rule.peers or caller.account in rule.accounts:
            self._allowed = caller
            return None
        return self.make_denial(Reason.DENIED, f"{caller.peer} is not on the list")
