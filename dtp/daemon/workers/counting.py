"""The joint counts of all workers, and bans: in their parent's store, which may be shared with other daemons."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from dtp.daemon import state
from dtp.daemon.config.model import Config
from dtp.daemon.patience import PATIENCE
from dtp.daemon.policies import Clock, Policies
from dtp.daemon.policies.bans import Bans
from dtp.daemon.state.counted import Counted
from dtp.daemon.state.errors import StateError
from dtp.daemon.state.memory import MemoryCountStore
from dtp.daemon.state.renamed import take_over_bans
from dtp.daemon.state.table import Table
from dtp.daemon.state.watched import WatchedStore
from dtp.daemon.workers.exchanging import CountExchange
from dtp.daemon.workers.inherited import Inherited
from dtp.identity import PeerId
from dtp.tasks import SupervisedTask

#: The consequence, for the log, while the state is unavailable.
_ALONE = "quotas are counted here alone, and bans of others aren't known"


class WorkersCounting:
    """The store, what it hasn't been told yet, and the table of what is limited for all workers together."""

    def __init__(
        self,
        config: Config,
        identity: PeerId,
        table: Table,
        tell_bans: Callable[[], object],
        clock: Clock,
        make_store: state.MakeStore,
    ) -> None:
        """`config` is the first configuration: what is read from it here can only be changed by a restart.
        `tell_bans` tells workers of bans that others have set. The other arguments are those of `Workers`."""
        self._config, self._identity, self._table = config, identity, table
        self._tell_bans, self._clock, self._make_store = tell_bans, clock, make_store
        self._store: state.CountStore = MemoryCountStore()
        self._exchange = CountExchange()
        self.bans = Bans()
        self._inherited = Inherited({}, {})
        self._watched = WatchedStore(self._store, _ALONE)
        #: Polls the bans of other daemons.
        self.polling = SupervisedTask(self._poll_bans, name="dtpd-bans")

    async def start(self, counted: Counted) -> None:
        """Open the store, and continue from what the previous process has counted: in the store, if that wasn't
        there already, and in the table. Raise `StateError`."""
        config, identity = self._config, self._identity
        await take_over_bans(config, identity)
        if config.state is not None:
            self._store = self._make_store(config.state, config.counted_as(identity))
            self._watched = WatchedStore(self._store, _ALONE)
        await self._store.open()
        known = await self._store.list_bans(self._clock().unix)
        bans = counted.bans_for(config.kept_in(identity), known)
        for caller, until in bans.items():
            self.bans.set_ban(caller, until)
        self._inherited = Inherited(counted.used, bans)
        if config.state is None:  # the store is this process's own
            await self.take_over()
        now = self._clock()
        for key, time_ in counted.rows.items():
            self._table.push_arrival(key, time_ - now.steady, now.steady)
        policies = Policies(self._table)
        policies.make_all(config)
        policies.resume_counts({}, counted.rates, now)
        self.bans.replace_shared(await self._store.list_bans(self._clock().unix))

    async def _poll_bans(self) -> None:
        while True:
            await asyncio.sleep(PATIENCE.exchange)
            await self._watched.try_writing()
            try:
                news = self.bans.replace_shared(await self._store.list_bans(self._clock().unix))
            except StateError as error:
                self._watched.note_failing("bans", error)
                continue
            self._watched.note_working("bans")
            if news:
                self._tell_bans()

    async def take_over(self) -> None:
        """Do as `Daemon.take_over` does."""
        await self._inherited.tell_store(self._store, self.bans.mark_shared)

    def export_counts(self) -> Counted:
        """Return as `Daemon.export_counts` does."""
        return Counted(
            bans=self.bans.known,
            used=self._store.used if isinstance(self._store, MemoryCountStore) else self._inherited.used,
            rows=self._table.list_arrivals(self._clock().steady),
            kept_in=self._config.kept_in(self._identity),
        )

    async def share_ban(self, caller: str, until: float) -> None:
        """Report a ban that was set here, see `Inherited.ban`."""
        await self._inherited.ban(self._store, caller, until, self.bans.mark_shared)

    def begin_worker(self, number: int) -> dict[str, Callable[[Any, Any], Awaitable[Any]]]:
        """Return what a new worker may ask of the store, by message name."""
        self._exchange.begin(number)
        return {
            "exchange": lambda fields, _: self._exchange.exchange_counts(
                self._store, number, fields["deltas"]
            ),
            "forget": lambda fields, _: self._store.forget_periods(fields["scope"], fields["before"]),
        }

    def end_worker(self, number: int) -> None:
        """Free the table entries of a worker that is gone; its counts stay."""
        self._table.clear_worker(number)
        self._exchange.end(number)

    def get_status_with(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return bans, and the status of the state where it is shared; `found` is what workers report of it."""
        shared = self._watched.get_status_with(found) if self._config.state else {}
        return {"bans": self.bans.get_status(self._clock().unix), **shared}

    async def close(self) -> None:
        """Report nothing more, and close the store."""
        self._inherited.close()
        await self._store.close()
