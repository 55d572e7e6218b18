"""Who may come in: identities and Sui accounts that are listed, and not denied."""

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
    """The list is asked for each stream, too: after a reload it holds for connections that are there already."""

    name = "access"
    asks = (Arrive, Open)

    def __init__(self, rule: AccessRule) -> None:
        self._rule = rule
        self._allowed: Caller | None = None  # the last one, who mostly asks again

    def check_event(self, event: Event, now: Moment) -> Denial | None:
        """Deny who is on no list, or on the list of the denied, which comes first."""
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
