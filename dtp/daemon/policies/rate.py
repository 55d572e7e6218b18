"""How much may be used in a time: requests beyond it are refused, bytes are slowed down. By the generic cell rate
algorithm.

GCRA (ITU-T I.371, annex A) keeps one number for each caller, the theoretical arrival time: when a steadily leaking
bucket would be empty. A request is too early when that time is further ahead than the burst allows.
"""

from __future__ import annotations

from dtp.bounded import BoundedDict
from dtp.daemon.config.model import RateRule
from dtp.daemon.config.values import AllowedRate
from dtp.daemon.policies.base import (
    Arrive,
    Caller,
    Denial,
    Event,
    HeldCalls,
    MethodCall,
    Moment,
    Move,
    Policy,
)
from dtp.daemon.policies.methods import Net
from dtp.daemon.reasons import Reason
from dtp.daemon.state import MAX_CALLERS
from dtp.daemon.state.table import Table, key_of
from dtp.identity import PeerId
from dtp.plurals import count_of

#: For how many exchanges after a caller's last event others are still asked what they have counted for it.
_LOOKS = 10
#: The number of callers whose keys in a shared table are cached.
_KEYS = 4096


class ArrivalTimes:
    """Theoretical arrival times by caller, in seconds of the monotonic clock. A time in the past counts as none."""

    def __init__(self, most: int = MAX_CALLERS) -> None:
        self._most = most
        self._times: dict[PeerId | None, float] = {}
        self._sweep_at = 1024

    def get_arrival(self, key: PeerId | None, now: float) -> float:
        """Return when the bucket of `key` will be empty; `now` if it is."""
        time = self._times.get(key)
        return now if time is None or time < now else time

    def push_arrival(self, key: PeerId | None, seconds: float, now: float) -> None:
        """Fill the bucket of `key` by this many seconds."""
        time = self._times.get(key)
        self._times[key] = (now if time is None or time < now else time) + seconds
        if len(self._times) > self._sweep_at:
            self._times = {key: time for key, time in self._times.items() if time > now}
            self._sweep_at = max(1024, 2 * len(self._times))

    def list_arrivals(self, now: float) -> dict[PeerId | None, float]:
        """Return when those buckets will be empty that aren't yet."""
        return {key: time for key, time in self._times.items() if time > now}

    def full_for(self, key: PeerId | None, now: float) -> bool:
        """True if an unknown caller has to wait until others are forgotten."""
        if len(self._times) < self._most or key in self._times:
            return False
        self._times = {key: time for key, time in self._times.items() if time > now}
        return len(self._times) >= self._most


class SharedArrivals(ArrivalTimes):
    """The same in a table that is shared with other processes."""

    def __init__(self, table: Table, scope: tuple[object, ...]) -> None:
        super().__init__()
        self._table, self._scope = table, scope
        self._keys: BoundedDict[PeerId | None, bytes] = BoundedDict(_KEYS)

    def _row_key(self, key: PeerId | None) -> bytes:
        known = self._keys.get(key)
        if known is None:
            known = self._keys[key] = key_of(*self._scope, key)
        return known

    def get_arrival(self, key: PeerId | None, now: float) -> float:
        """Return when the bucket of `key` in the shared table will be empty; `now` if it is."""
        return self._table.get_arrival(self._row_key(key), now)

    def push_arrival(self, key: PeerId | None, seconds: float, now: float) -> None:
        """Fill the bucket of `key` by this many seconds, for all workers."""
        self._table.push_arrival(self._row_key(key), seconds, now)

    def full_for(self, key: PeerId | None, now: float) -> bool:
        """True if the table has no row left for an unknown caller."""
        return not self._table.has_room(self._row_key(key), now)


class RatePolicy(Policy):
    """One rule. Without `burst`, the requests of a whole period may come at once."""

    name = "rate"

    def __init__(self, rule: RateRule, most: int = MAX_CALLERS) -> None:
        """At most `most` callers are remembered."""
        self._per_identity = rule.per == "identity"
        self._net = Net(rule.methods) if rule.methods else None
        self.by_method = self._net is not None
        self._rule = rule
        self.asks = (MethodCall,) if rule.requests is not None else ()
        # A policy that counts bytes is called for each read, so only where there is something to count.
        # Arrivals don't count, but others are asked at once what they have counted for whoever arrives.
        self.counts = (Arrive, *self.asks, *((Move,) if rule.bandwidth is not None else ()))
        self._requests, self._bytes = ArrivalTimes(most), ArrivalTimes(most)
        self.held = HeldCalls()
        self._pending: dict[PeerId | None, tuple[float, float, int]] | None = None
        self._interval = self._tolerance = 0.0
        if rule.requests is not None:
            self._interval = rule.requests.seconds / rule.requests.amount
            # The first request of a burst is never early; each further one uses up some tolerance.
            self._tolerance = self._interval * ((rule.burst or rule.requests.amount) - 1)
        #: Whether every request counts, whatever its method.
        self._every = self._interval > 0 and self._net is None

    # ---- sharing with other daemons --------------------------------------------------------------------------

    def take_pending(self) -> dict[PeerId | None, tuple[float, float]]:
        """Return by how many seconds buckets were filled since the last call, for requests and for bytes.

        Zeros for callers that were active recently, since others may have counted them. From the first call on,
        fillings are recorded for the next one.
        """
        pending, self._pending = self._pending or {}, {}
        taken = {key: (requests, data) for key, (requests, data, _) in pending.items()}
        for key, (_, _, looks) in pending.items():
            if looks > 1 or key is None:
                self._pending[key] = (0.0, 0.0, looks - 1)
        if not self._per_identity:
            taken.setdefault(None, (0.0, 0.0))
        return taken

    def give_back(self, key: PeerId | None, requests: float, data: float) -> None:
        """Take back what couldn't be reported, to report it again."""
        self._note_pending(key, requests, data)

    def advance_buckets(self, key: PeerId | None, requests: float, data: float, now: float) -> None:
        """Fill the buckets by what others have counted."""
        if requests > 0:
            self._requests.push_arrival(key, requests, now)
        if data > 0:
            self._bytes.push_arrival(key, data, now)

    def collect_arrivals(self, now: float) -> dict[PeerId | None, tuple[float, float]]:
        """Return when those buckets will be empty that aren't yet, of requests and of bytes, for the next
        process."""
        requests, data = self._requests.list_arrivals(now), self._bytes.list_arrivals(now)
        return {key: (requests.get(key, now), data.get(key, now)) for key in requests | data}

    def _note_pending(self, key: PeerId | None, requests: float, data: float) -> None:
        if self._pending is not None:
            known = self._pending.get(key, (0.0, 0.0, 0))
            self._pending[key] = (known[0] + requests, known[1] + data, _LOOKS)

    def share_table(self, table: Table, scope: tuple[object, ...]) -> None:
        """Count in `table` under `scope`, together with other processes. Called before anything is counted."""
        self._requests = SharedArrivals(table, (*scope, "requests"))
        self._bytes = SharedArrivals(table, (*scope, "bytes"))

    def _bucket_key(self, caller: Caller) -> PeerId | None:
        return caller.peer if self._per_identity else None

    def _concerns_call(self, call: MethodCall) -> bool:
        return self._interval > 0 and (
            self._net is None or any(map(self._net.matches_method, (call.method, *call.also)))
        )

    def check_event(self, event: Event, now: Moment) -> Denial | None:
        """Deny a request that comes too early."""
        assert isinstance(event, MethodCall)
        if not self._every and not self._concerns_call(event):
            return None
        key = event.caller.peer if self._per_identity else None
        held = self.held.count_of(event.caller) * self._interval
        early = self._requests.get_arrival(key, now.steady) + held - now.steady - self._tolerance
        # Floats add up inexactly: a nanosecond early is in time.
        if early > 1e-9:
            return self.make_denial(Reason.RATE, self._describe_limit(self._rule.requests), retry=early)
        if self._requests.full_for(key, now.steady):
            return self.make_denial(Reason.RATE, "too many callers at once", retry=1.0)
        return None

    def _describe_limit(self, amount: AllowedRate | None) -> str:
        assert amount is not None
        whose = "an identity" if self._per_identity else "all callers together"
        return f"{count_of(round(amount.amount), 'request')} in {amount.seconds:g} s is what {whose} may make"

    def commit_event(self, event: Event, now: Moment) -> None:
        """Count a request, or bytes."""
        key = event.caller.peer if self._per_identity else None
        if isinstance(event, MethodCall):
            if self._every or self._concerns_call(event):
                self._requests.push_arrival(key, self._interval, now.steady)
                if self._pending is not None:
                    self._note_pending(key, self._interval, 0.0)
        elif isinstance(event, Move) and (amount := self._rule.bandwidth) is not None:
            seconds = event.size * amount.seconds / amount.amount
            self._bytes.push_arrival(key, seconds, now.steady)
            self._note_pending(key, 0.0, seconds)
        elif isinstance(event, Arrive):
            self._note_pending(key, 0.0, 0.0)

    def hold_call(self, event: MethodCall) -> None:
        """Check the caller's other calls as if this one had happened."""
        if self._concerns_call(event):
            self.held.add_calls(event.caller, 1)

    def release_call(self, event: MethodCall) -> None:
        """Stop counting it as on hold; `commit_event` follows if it has happened."""
        if self._concerns_call(event):
            self.held.add_calls(event.caller, -1)

    def compute_delay(self, event: Move, now: Moment) -> float:
        """Return how long to wait for what is ahead of the rate by more than a tenth of a second."""
        if self._rule.bandwidth is None:
            return 0.0
        ahead = self._bytes.get_arrival(self._bucket_key(event.caller), now.steady) - now.steady
        return ahead if ahead > _AHEAD else 0.0


#: Seconds that bytes may be ahead of their rate. This smooths the pieces in which they are read.
_AHEAD = 0.1
