"""Tells a store what quotas have counted, and quotas what the store knows: once a second, beside the traffic."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable

from dtp.daemon.policies.quota import Quota
from dtp.daemon.state import Key, Store, Used
from dtp.daemon.state.errors import StateError

log = logging.getLogger("dtpd")

#: Seconds between two exchanges: how much later a daemon knows what others have counted.
EVERY = 1.0
#: The same among the workers of one daemon.
AMONG_WORKERS = 0.05

#: A quota, and what it is called in the store: "SERVICE/NUMBER/SECONDS".
Named = tuple[str, Quota]


class Sharing:
    """Exchanges for the quotas that `quotas` gives, until closed. While the store is away, they count on alone."""

    def __init__(
        self, store: Store, quotas: Callable[[], Iterable[Named]], every: float | None = None
    ) -> None:
        """`every`: seconds between two exchanges, `EVERY` by default."""
        self._every = EVERY if every is None else every
        self._store = store
        self._quotas = quotas
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._away = False
        self._periods: dict[str, int] = {}

    async def start(self) -> None:
        """Open the store. Raises `StateError`."""
        await self._store.open()
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

    async def _run(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._stop.wait()
                    return
            await self.exchange()

    async def exchange(self) -> None:
        """Once, now. What can't be told stays to be told."""
        named = list(self._quotas())
        deltas: dict[Key, Used] = {}
        owners: dict[Key, Quota] = {}
        now = time.time()
        for scope, quota in named:
            period, pending = quota.take_pending(now)
            for caller, used in pending.items():
                key = Key(scope, period, caller)
                deltas[key], owners[key] = used, quota
        if not deltas and not self._store.tells:
            return
        try:
            totals = await self._store.exchange(deltas)
        except StateError as error:
            for key, used in deltas.items():
                owners[key].give_back(key.period, key.caller, used)
            self._say_away(error)
            return
        if self._away:
            self._away = False
            log.info("the state can be shared again", extra={"fields": {"event": "state-back"}})
        quotas = dict(named)
        for key, used in totals.items():
            if key.scope in quotas:
                quotas[key.scope].merge(key.period, key.caller, used)
        await self._forget_old(deltas)

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
