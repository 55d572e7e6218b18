"""How much may be used in a period: requests and bytes of an identity, or of all callers of a service."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from dtp.daemon.config.model import QuotaRule
from dtp.daemon.policies.base import Arrive, Denial, Event, HeldCalls, MethodCall, Moment, Move, Policy
from dtp.daemon.reasons import Reason
from dtp.daemon.state import MAX_CALLERS, Used
from dtp.plurals import count_of

#: Stands for all callers, where a quota is for a service.
EVERYBODY = "*"
#: For how many exchanges after a caller's last event its total is still asked for: others may be counting it.
_LOOKS = 10


@dataclass(slots=True)
class _Count:
    """What is used as far as known here, and how much of it the store hasn't been told."""

    requests: int = 0
    data: int = 0
    new_requests: int = 0
    new_data: int = 0


#: The count of a caller who has used nothing.
_NONE = _Count()


class QuotaPolicy(Policy):
    """Periods begin at multiples of their length since 1970 (UTC), so that all daemons agree. With each one counts
    start again.

    `take_pending`, `merge_total` and `give_back` let a store add up what several daemons count.
    """

    name = "quota"

    def __init__(self, rule: QuotaRule, most: int = MAX_CALLERS) -> None:
        """At most `most` callers are remembered."""
        self.rule, self._most = rule, most
        # Arrivals don't count, but the store is asked about whoever arrives, so that a restart forgets nobody.
        moves = (Move,) if rule.data is not None else ()
        self.asks, self.counts = (Arrive, MethodCall, *moves), (Arrive, MethodCall, *moves)
        self._period = -1
        #: Callers who have used something, in the order in which they first did.
        self._counts: OrderedDict[str, _Count] = OrderedDict()
        self._pending: dict[str, int] = {}
        self.held = HeldCalls()

    def _begin_period(self, unix: float) -> None:
        """Begin a new period when it is time. Setting the clock back doesn't renew a quota."""
        period = int(unix // self.rule.every)
        if period > self._period:
            self._period, self._counts, self._pending = period, OrderedDict(), {}
        elif period < self._period - 1:
            # It had been far ahead. What was counted meanwhile counts now, rather than when the clock gets there
            # again.
            self._period = period

    def _caller_key(self, event: Event) -> str:
        return str(event.caller.peer) if self.rule.per == "identity" else EVERYBODY

    def check_event(self, event: Event, now: Moment) -> Denial | None:
        """Deny if nothing is left."""
        self._begin_period(now.unix)
        count, rule = self._counts.get(self._caller_key(event), _NONE), self.rule
        held = self.held.count_of(event.caller) if isinstance(event, MethodCall) else 0
        left = (self._period + 1) * rule.every - now.unix
        if rule.data is not None and count.data >= rule.data:
            return self.make_denial(Reason.QUOTA, f"the quota of {rule.data} bytes is used up", retry=left)
        used_up = rule.requests is not None and count.requests + held >= rule.requests
        if used_up and not isinstance(event, Move):
            allowed = count_of(rule.requests or 0, "request")
            return self.make_denial(Reason.QUOTA, f"the quota of {allowed} is used up", retry=left)
        return None

    def commit_event(self, event: Event, now: Moment) -> None:
        """Count an event."""
        self._begin_period(now.unix)
        key = self._caller_key(event)
        if isinstance(event, Arrive):
            if len(self._pending) < self._most:  # otherwise it is asked about when it uses something
                self._pending[key] = _LOOKS
            return
        count = self._counts.get(key) or self._add_caller(key)
        self._pending[key] = _LOOKS
        if isinstance(event, Move):
            count.data += event.size
            count.new_data += event.size
        elif isinstance(event, MethodCall):
            count.requests += 1
            count.new_requests += 1

    def hold_call(self, event: MethodCall) -> None:
        """Check the caller's other calls as if this one had happened."""
        self.held.add_calls(event.caller, 1)

    def release_call(self, event: MethodCall) -> None:
        """Stop counting it as on hold; `commit_event` follows if it has happened."""
        self.held.add_calls(event.caller, -1)

    def _add_caller(self, key: str) -> _Count:
        """Return the count of a new caller. The oldest one is dropped for it: whoever has that many identities has
        as many quotas anyway."""
        if len(self._counts) >= self._most:
            oldest, _ = self._counts.popitem(last=False)
            self._pending.pop(oldest, None)
        count = self._counts[key] = _Count()
        return count

    # ---- across an upgrade ------------------------------------------------------------------------------------

    def collect_used(self, unix: float) -> tuple[int, dict[str, Used]]:
        """Return the period, and what each caller has used in it."""
        self._begin_period(unix)
        return self._period, {key: Used(one.requests, one.data) for key, one in self._counts.items()}

    def resume_count(self, period: int, caller: str, used: Used, unix: float) -> None:
        """Continue from what the previous process has counted, unless its period is over."""
        self._begin_period(unix)
        self.merge_total(period, caller, used)

    # ---- sharing ----------------------------------------------------------------------------------------------

    def take_pending(self, unix: float) -> tuple[int, dict[str, Used]]:
        """Return the period, and what was counted in it since the last call, by caller; zeros for callers who only
        arrived."""
        self._begin_period(unix)
        taken = {}
        for key in self._pending:
            count = self._counts.get(key)
            if count is None:
                taken[key] = Used()
                continue
            taken[key] = Used(count.new_requests, count.new_data)
            count.new_requests = count.new_data = 0
        self._pending = {key: left - 1 for key, left in self._pending.items() if left > 1 or key == EVERYBODY}
        return self._period, taken

    def merge_total(self, period: int, caller: str, total: Used) -> None:
        """Take over the total of all daemons, which includes what was last taken from here."""
        if period != self._period:
            return
        count = self._counts.get(caller)
        if count is None and any(total):
            count = self._add_caller(caller)
        if count is not None:
            count.requests = total.requests + count.new_requests
            count.data = total.data + count.new_data

    def give_back(self, period: int, caller: str, used: Used) -> None:
        """Take back what couldn't be reported, to report it again."""
        if period != self._period:
            return
        if any(used):
            count = self._counts.get(caller) or self._add_caller(caller)
            count.new_requests += used.requests
            count.new_data += used.data
        self._pending[caller] = _LOOKS
