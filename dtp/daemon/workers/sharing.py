"""Reports what quotas and rates have counted to a store, and what others have counted to them, once a second beside
the traffic."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping

from dtp.bounded import BoundedDict
from dtp.daemon.patience import PATIENCE
from dtp.daemon.policies.base import Clock, moment
from dtp.daemon.policies.quota import EVERYBODY, QuotaPolicy
from dtp.daemon.policies.rate import RatePolicy
from dtp.daemon.state import MAX_CALLERS, CountKey, CountStore, Used
from dtp.daemon.state.errors import StateError
from dtp.daemon.state.watched import WatchedStore
from dtp.daemon.workers.inherited import Inherited
from dtp.identity import PeerId
from dtp.tasks import SupervisedTask

#: Seconds between two exchanges among the workers of one daemon.
AMONG_WORKERS = 0.05
#: Counts of rates are stored by the hour, in nanoseconds of their buckets.
_HOUR, _NS = 3600, 1_000_000_000
_NOTHING = Used()

#: The name of a quota in the store, "SERVICE/NUMBER/SECONDS", and the quota.
NamedQuota = tuple[str, QuotaPolicy]
#: The name of a rate, "SERVICE/rate/NUMBER/HASH", and the rate.
NamedRate = tuple[str, RatePolicy]


def is_of_rate(key: CountKey) -> bool:
    """True if a key is of a rate rather than a quota."""
    return "/rate/" in key.scope


class Foreign:
    """Finds what others have added to totals, each addition once: totals minus what was reported from here."""

    def __init__(self, most: int = MAX_CALLERS) -> None:
        """At most `most` keys are remembered."""
        #: What was reported from here, and what others had added by then; the key asked about last is at the end.
        self._seen: BoundedDict[CountKey, tuple[Used, Used]] = BoundedDict(most)

    def find_news(
        self, deltas: Mapping[CountKey, Used], totals: Mapping[CountKey, Used]
    ) -> dict[CountKey, Used]:
        """Return what others have added since the last call, given `deltas` that were reported and the resulting
        `totals`.

        The first total of a key is no news, since it may be old.
        """
        found: dict[CountKey, Used] = {}
        for key, total in totals.items():
            delta = deltas.get(key, _NOTHING)
            told, known = self._seen.get(key, (_NOTHING, None))
            told = _sum(told, delta)
            others = Used(total.requests - told.requests, total.data - told.data)
            if known is None or known == others:
                found[key] = _NOTHING
            else:
                found[key] = Used(max(0, others.requests - known.requests), max(0, others.data - known.data))
            self._seen[key] = told, others
        newest = max((key.period for key in totals), default=0)
        while self._seen and next(iter(self._seen)).period < newest - 1:
            self._seen.popitem(last=False)
        return found


def _sum(one: Used, more: Used) -> Used:
    return Used(one.requests + more.requests, one.data + more.data) if any(more) else one


class CountSharing:
    """Exchanges counts of quotas and rates until closed. While the store is unavailable, they count alone."""

    def __init__(
        self,
        store: CountStore,
        quotas: Callable[[], Iterable[NamedQuota]],
        rates: Callable[[], Iterable[NamedRate]] = tuple,
        *,
        every: float = PATIENCE.exchange,
        on_bans: Callable[[Mapping[str, float]], object] | None = None,
        clock: Clock = moment,
    ) -> None:
        """`every`: seconds between two exchanges. `on_bans` is called with all bans."""
        self._every, self._store, self._clock = every, store, clock
        self._quotas, self._rates = quotas, rates
        self._on_bans = on_bans
        self._foreign = Foreign()
        self._task: SupervisedTask | None = None
        self._stop = asyncio.Event()
        #: Whether the store is available, and why not.
        self.watched = WatchedStore(store, "quotas are counted here alone")
        self._periods: dict[str, int] = {}
        #: Names of callers that are being asked about: making or parsing a name takes some 70 us.
        self._names: dict[PeerId | None, str] = {None: EVERYBODY}
        self._peers: dict[str, PeerId | None] = {EVERYBODY: None}

    async def start(self) -> None:
        """Open the store. Raise `StateError`."""
        await self._store.open()
        await self._read_bans()
        self._task = SupervisedTask(self._exchange_repeatedly, name="dtpd-state")
        self._task.start()

    async def close(self) -> None:
        """Report the last counts, and stop. Idempotent."""
        if self._task is not None:
            # Not cancelled: after an interrupted exchange nobody would know whether it was done.
            self._stop.set()
            await self._task.finish()
            self._task = None
            await self.exchange_once()
        await self._store.close()

    async def take_over(self, inherited: Inherited, on_ban: Callable[[str], object]) -> None:
        """Report what the previous process has counted, see `Inherited.tell_store`."""
        await inherited.tell_store(self._store, on_ban)

    async def ban(
        self, inherited: Inherited, caller: str, until: float, on_ban: Callable[[str], object]
    ) -> None:
        """Report a ban, see `Inherited.ban`."""
        await inherited.ban(self._store, caller, until, on_ban)

    async def _exchange_repeatedly(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._stop.wait()
                    return
            await self.exchange_once()
            try:
                await self._read_bans()
            except StateError as error:
                self.watched.note_failing("bans", error)
            else:
                self.watched.note_working("bans")
            await self.watched.try_writing()

    async def _read_bans(self) -> None:
        if self._on_bans is not None:
            self._on_bans(await self._store.list_bans(self._clock().unix))

    async def exchange_once(self) -> None:
        """Exchange once, now. What can't be reported is kept for the next time."""
        quotas, rates = dict(self._quotas()), dict(self._rates())
        deltas = self._take_deltas(quotas, rates)
        if not deltas and not self._store.tells:
            return
        try:
            totals = await self._store.exchange_counts(deltas)
        except StateError as error:
            self._give_back(deltas, quotas, rates)
            self.watched.note_failing("exchange", error)
            return
        self.watched.note_working("exchange")
        of_rates = {key: used for key, used in totals.items() if is_of_rate(key)}
        if not self._store.tells:
            of_rates = self._foreign.find_news(deltas, of_rates)
        for key, used in of_rates.items():
            if any(used) and key.scope in rates:
                rates[key.scope].advance_buckets(
                    self._parse_peer(key.caller), used.requests / _NS, used.data / _NS, self._clock().steady
                )
        for key, used in totals.items():
            if key.scope in quotas:
                quotas[key.scope].merge_total(key.period, key.caller, used)
        await self._forget_old(deltas)

    def _take_deltas(
        self, quotas: Mapping[str, QuotaPolicy], rates: Mapping[str, RatePolicy]
    ) -> dict[CountKey, Used]:
        now = self._clock().unix
        names: dict[PeerId | None, str] = {None: EVERYBODY}
        deltas: dict[CountKey, Used] = {}
        for scope, quota in quotas.items():
            period, pending = quota.take_pending(now)
            for caller, used in pending.items():
                deltas[CountKey(scope, period, caller)] = used
        for scope, rate in rates.items():
            for peer, (requests, data) in rate.take_pending().items():
                name = names[peer] = self._names.get(peer) or str(peer)
                deltas[CountKey(scope, int(now // _HOUR), name)] = Used(
                    round(requests * _NS), round(data * _NS)
                )
        self._names = names
        self._peers = {name: peer for peer, name in names.items()}
        return deltas

    def _parse_peer(self, name: str) -> PeerId | None:
        return self._peers[name] if name in self._peers else PeerId.parse(name)

    def _give_back(
        self,
        deltas: Mapping[CountKey, Used],
        quotas: Mapping[str, QuotaPolicy],
        rates: Mapping[str, RatePolicy],
    ) -> None:
        for key, used in deltas.items():
            if key.scope in quotas:
                quotas[key.scope].give_back(key.period, key.caller, used)
            elif any(used):
                rates[key.scope].give_back(self._parse_peer(key.caller), used.requests / _NS, used.data / _NS)

    async def _forget_old(self, deltas: Iterable[CountKey]) -> None:
        for key in deltas:
            if self._periods.get(key.scope, key.period) < key.period or key.scope not in self._periods:
                self._periods[key.scope] = key.period
                try:
                    await self._store.forget_periods(key.scope, key.period)
                except StateError as error:
                    self.watched.note_failing("exchange", error)
                    return
