"""How many streams may be open at once, of one identity and of all callers together."""

from __future__ import annotations

from collections import Counter

from dtp.daemon.config.model import ConcurrencyRule
from dtp.daemon.policies.base import Close, Denial, Event, Moment, Open, Policy
from dtp.daemon.reasons import Reason
from dtp.daemon.state.table import Table, key_of
from dtp.identity import PeerId


class ConcurrencyPolicy(Policy):
    """Counts streams that were opened and not closed."""

    name = "concurrency"
    asks = (Open,)
    counts = (Open, Close)

    def __init__(self, rule: ConcurrencyRule) -> None:
        self._rule = rule
        self._by_peer: Counter[PeerId] = Counter()
        self._all = 0
        self._table: Table | None = None
        self._scope: tuple[object, ...] = ()

    def share_table(self, table: Table, scope: tuple[object, ...]) -> None:
        """Count in `table` under `scope`, together with other processes. Called before anything is counted."""
        self._table, self._scope = table, scope

    def _open_in_all(self, peer: PeerId | None) -> int:
        if self._table is not None:
            return self._table.count_open(key_of(*self._scope, peer))
        return self._all if peer is None else self._by_peer[peer]

    def check_event(self, event: Event, now: Moment) -> Denial | None:
        """Deny a stream that exceeds either limit."""
        rule = self._rule
        if rule.identity is not None and self._open_in_all(event.caller.peer) >= rule.identity:
            return self.make_denial(Reason.TOO_MANY, f"{rule.identity} at once is what an identity may have")
        if rule.service is not None and self._open_in_all(None) >= rule.service:
            return self.make_denial(Reason.TOO_MANY, f"{rule.service} at once is what all callers may have")
        return None

    def commit_event(self, event: Event, now: Moment) -> None:
        """Count one stream more or less."""
        peer, step = event.caller.peer, 1 if isinstance(event, Open) else -1
        if self._table is not None:
            if self._rule.identity is not None:
                self._table.add_open(key_of(*self._scope, peer), step, now.steady)
            if self._rule.service is not None:
                self._table.add_open(key_of(*self._scope, None), step, now.steady)
            return
        self._all += step
        self._by_peer[peer] += step
        if not self._by_peer[peer]:
            del self._by_peer[peer]
