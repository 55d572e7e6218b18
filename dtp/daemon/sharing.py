"""Tells a store what quotas and rates have counted, and them what others have: once a second, beside the traffic."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping

from dtp.daemon.policies.quota import EVERYBODY, Quota
from dtp.daemon.policies.rate import Rate
from dtp.daemon.state import Key, Store, Used
from dtp.daemon.state.errors import StateError
from dtp.identity import PeerId

log = logging.getLogger("dtpd")

#: Seconds between two exchanges: how much later a daemon knows what others have counted.
EVERY = 1.0
#: The same among the workers of one daemon.
AMONG_WORKERS = 0.05
#: What rates have counted is kept by the hour, nanoseconds of their buckets.
_HOUR, _NS = 3600, 1_000_000_000

#: A quota, and what it is called in the store: "SERVICE/NUMBER/SECONDS".
NamedQuota = tuple[str, Quota]
#: A rate, and what it is called: "SERVICE/rate/NUMBER/HASH".
NamedRate = tuple[str, Rate]


def is_of_rate(key: Key) -> bool:
    """Whether a key is of a rate rather than a quota."""
    return "/rate/" in key.scope


class Foreign:
    """What others have added to totals, each part of it once: totals less what was told from here."""

    def __init__(self) -> None:
        self._told: dict[Key, Used] = {}
        self._known: dict[Key, Used] = {}

    def news(self, deltas: Mapping[Key, Used], totals: Mapping[Key, Used]) -> dict[Key, Used]:
        """After `deltas` were told, and `totals` given for them: what others have added since the last time.

        What is seen of a key for the first time is no news: it may have been counted long ago.
        """
        found: dict[Key, Used] = {}
        for key, total in totals.items():
            delta, told = deltas.get(key, Used()), self._told.get(key)
            now_told = Used(*(a + b for a, b in zip(told or Used(), delta, strict=True)))
            others = Used(*(a - b for a, b in zip(total, now_told, strict=True)))
            known = others if told is None else self._known[key]
            found[key] = Used(*(max(0, a - b) for a, b in zip(others, known, strict=True)))
            self._told[key], self._known[key] = now_told, others
        newest = max((key.period for key in totals), default=0)
        if any(key.period < newest - 1 for key in self._told):
            for kept in (self._told, self._known):
                for key in [key for key in kept if key.period < newest - 1]:
                    del kept[key]
        return found


class Sharing:
    """Exchanges for quotas and rates, until closed. While the store is away, they count on alone."""

    def __init__(
        self,
        store: Store,
        quotas: Callable[[], Iterable[NamedQuota]],
        rates: Callable[[], Iterable[NamedRate]] = tuple,
        *,
        every: float | None = None,
        on_bans: Callable[[Mapping[str, float]], object] | None = None,
    ) -> None:
        """`every`: seconds between two exchanges, `EVERY` by default. `on_bans` gets all bans that there are."""
        self._every = EVERY if every is None else every
        self._store = store
        self._quotas, self._rates = quotas, rates
        self._on_bans = on_bans
        self._foreign = Foreign()
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._away = False
        self._periods: dict[str, int] = {}

    async def start(self) -> None:
        """Open the store. Raises `StateError`."""
        await self._store.open()
        await self._read_bans()
        self._task = asyncio.create_task(self._run(), name="dtpd-state")

    async def close(self) -> None:
        """Tell what was counted last, and end. Idempotent."""
        if self._task is not None:
            # Not cancelled: an exchange under way would be told or not, and nobody would know.
            self._stop.set()
            await self._task
            self._task = None
            await self.exchange()
        await self._store.close()

    async def ban(self, caller: str, until: float) -> None:
        """Tell of a ban. Raises `StateError`."""
        await self._store.ban(caller, until)

    async def _run(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._stop.wait()
                    return
            await self.exchange()
            try:
                await self._read_bans()
            except StateError as error:
                self._say_away(error)

    async def _read_bans(self) -> None:
        if self._on_bans is not None:
            self._on_bans(await self._store.bans(time.time()))

    async def exchange(self) -> None:
        """Once, now. What can't be told stays to be told."""
        quotas, rates = dict(self._quotas()), dict(self._rates())
        deltas = self._take(quotas, rates)
        if not deltas and not self._store.tells:
            return
        try:
            totals = await self._store.exchange(deltas)
        except StateError as error:
            self._give_back(deltas, quotas, rates)
            self._say_away(error)
            return
        if self._away:
            self._away = False
            log.info("the state can be shared again", extra={"fields": {"event": "state-back"}})
        of_rates = {key: used for key, used in totals.items() if is_of_rate(key)}
        if not self._store.tells:
            of_rates = self._foreign.news(deltas, of_rates)
        for key, used in of_rates.items():
            if key.scope in rates:
                rates[key.scope].advance(
                    _peer(key.caller), used.requests / _NS, used.data / _NS, time.monotonic()
                )
        for key, used in totals.items():
            if key.scope in quotas:
                quotas[key.scope].merge(key.period, key.caller, used)
        await self._forget_old(deltas)

    @staticmethod
    def _take(quotas: Mapping[str, Quota], rates: Mapping[str, Rate]) -> dict[Key, Used]:
        now = time.time()
        deltas: dict[Key, Used] = {}
        for scope, quota in quotas.items():
            period, pending = quota.take_pending(now)
            for caller, used in pending.items():
                deltas[Key(scope, period, caller)] = used
        for scope, rate in rates.items():
            for peer, (requests, data) in rate.take_pending().items():
                key = Key(scope, int(now // _HOUR), EVERYBODY if peer is None else str(peer))
                deltas[key] = Used(round(requests * _NS), round(data * _NS))
        return deltas

    @staticmethod
    def _give_back(
        deltas: Mapping[Key, Used], quotas: Mapping[str, Quota], rates: Mapping[str, Rate]
    ) -> None:
        for key, used in deltas.items():
            if key.scope in quotas:
                quotas[key.scope].give_back(key.period, key.caller, used)
            elif any(used):
                rates[key.scope].give_back(_peer(key.caller), used.requests / _NS, used.data / _NS)

    def _say_away(self, error: StateError) -> None:
        if not self._away:
            self._away = True
            fields = {"event": "state-away", "why": str(error)}
            log.warning("quotas are counted here alone: %s", error, extra={"fields": fields})

    async def _forget_old(self, deltas: Iterable[Key]) -> None:
        for key in deltas:
            if self._periods.get(key.scope, key.period) < key.period or key.scope not in self._periods:
                self._periods[key.scope] = key.period
                try:
                    await self._store.forget(key.scope, key.period)
                except StateError as error:
                    self._say_away(error)
                    return


def _peer(caller: str) -> PeerId | None:
    return None if caller == EVERYBODY else PeerId.parse(caller)
