"""How much in a period: requests and bytes of an identity, or of all callers of a service."""

from __future__ import annotations

from dataclasses import dataclass

from dtp.daemon.config.model import QuotaRule
from dtp.daemon.policies.base import Arrive, Call, Denial, Event, Moment, Move, Policy
from dtp.daemon.reasons import Reason
from dtp.identity import PeerId


@dataclass(slots=True)
class _Used:
    requests: int = 0
    data: int = 0


class Quota(Policy):
    """Periods begin at multiples of their length since 1970 (UTC), so all daemons agree; then all is forgotten."""

    name = "quota"

    def __init__(self, rule: QuotaRule) -> None:
        self._rule = rule
        moves = (Move,) if rule.data is not None else ()
        self.asks, self.counts = (Arrive, Call, *moves), (Call, *moves)
        self._period = -1
        self._used: dict[PeerId | None, _Used] = {}

    def _of(self, event: Event, now: Moment) -> _Used | None:
        period = int(now.unix // self._rule.every)
        # A clock that is set back does not give a quota anew.
        if period > self._period:
            self._period, self._used = period, {}
        return self._used.get(self._key(event))

    def _key(self, event: Event) -> PeerId | None:
        return event.caller.peer if self._rule.per == "identity" else None

    def check(self, event: Event, now: Moment) -> Denial | None:
        """Whether anything is left."""
        used, rule = self._of(event, now), self._rule
        if used is None:
            return None
        left = (self._period + 1) * rule.every - now.unix
        if rule.data is not None and used.data >= rule.data:
            return self.deny(Reason.QUOTA, f"the quota of {rule.data} bytes is used up", retry=left)
        if rule.requests is not None and used.requests >= rule.requests and not isinstance(event, Move):
            return self.deny(Reason.QUOTA, f"the quota of {rule.requests} requests is used up", retry=left)
        return None

    def commit(self, event: Event, now: Moment) -> None:
        """Count."""
        used = self._of(event, now)
        if used is None:
            used = self._used[self._key(event)] = _Used()
        if isinstance(event, Move):
            used.data += event.size
        else:
            used.requests += 1
