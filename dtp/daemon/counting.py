"""What a daemon has counted of its callers, and whom it keeps out: over reloads, upgrades, and with others that share
the state, or are workers of the same daemon."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from dtp.daemon import state
from dtp.daemon.config.model import Config
from dtp.daemon.patience import Patience
from dtp.daemon.policies import Clock, FindLogin, Policies
from dtp.daemon.policies.bans import Bans
from dtp.daemon.state.counted import Counted
from dtp.daemon.state.renamed import take_over_bans
from dtp.daemon.workers.inherited import Inherited
from dtp.daemon.workers.sharing import AMONG_WORKERS, CountSharing
from dtp.daemon.workers.team import Team
from dtp.identity import PeerId


class Counting:
    """Policies and bans, and the store by which others know of them."""

    def __init__(
        self,
        config: Config,
        identity: PeerId,
        team: Team | None,
        find_login: FindLogin,
        *,
        on_bans: Callable[[], object],
        clock: Clock,
        make_store: state.MakeStore,
        patience: Patience,
    ) -> None:
        """`config` is the first one: what is gone by here takes a restart to change. `on_bans` is called when others
        may have to go. The rest is as of `Daemon`."""
        self._config, self._identity, self._team = config, identity, team
        self._on_bans, self._clock, self._make_store, self._patience = on_bans, clock, make_store, patience
        self.policies = Policies(None if team is None else team.table, find_login)
        self.bans = Bans()
        self._sharing: CountSharing | None = None
        #: What those who share the state are to be told yet.
        self._inherited = Inherited({}, {}, patience.again)

    async def start(self, counted: Counted) -> None:
        """Open the store, and go on with what the process before has counted. Raises `StateError`."""
        if self._team is None:
            await take_over_bans(self._config, self._identity)
        self._sharing = self._make_sharing()
        if self._sharing is not None:
            await self._sharing.start()
        self.policies.make_all(self._config)
        self.policies.resume_counts(counted.used, counted.rates, self._clock())
        bans = counted.bans_for(self._config.kept_in(self._identity), self.bans.known)
        for caller, until in bans.items():
            self.bans.set_ban(caller, until)
        if self._sharing is not None:
            self._inherited = Inherited(counted.used, bans, self._patience.again)

    def _make_sharing(self) -> CountSharing | None:
        """Return what tells others of what is counted here."""
        shared, every = self._config.state is not None, self._patience.exchange
        rates = self.policies.iter_rates if shared else tuple
        make = partial(CountSharing, quotas=self.policies.iter_quotas, rates=rates, clock=self._clock)
        if self._team is not None:
            return make(self._team.store, every=every if shared else AMONG_WORKERS)
        if self._config.state is None:
            return None
        store = self._make_store(self._config.state, self._config.counted_as(self._identity))
        return make(store, every=every, on_bans=self.set_bans)

    async def take_over(self) -> None:
        """Tell those who share the state what the process before had counted, which has given way."""
        if self._sharing is not None:
            await self._sharing.take_over(self._inherited, self.bans.mark_shared)

    def export_counts(self) -> Counted:
        """Return what was counted, for the process that takes the place of this one and may keep bans elsewhere."""
        shared, now = self._config.state is not None, self._clock()
        return Counted(
            bans=self.bans.known,
            used=self._inherited.used if shared else self.policies.collect_used(now.unix),
            rates=self.policies.collect_rated(now.steady),
            kept_in=self._config.kept_in(self._identity),
        )

    async def ban(self, caller: str, until: float) -> None:
        """Keep an identity or Sui address out until then, and have others told. Raises as `Daemon.ban`."""
        self.bans.set_ban(caller, until)
        self._on_bans()
        if self._sharing is not None:
            await self._sharing.ban(self._inherited, caller, until, self.bans.mark_shared)

    def set_bans(self, bans: Mapping[str, float]) -> None:
        """Take over all bans that there are, as those who share the state know them."""
        if self.bans.replace_shared(bans):
            self._on_bans()

    def get_status(self) -> dict[str, Any]:
        """Return who is kept out, and how the state stands where it is shared."""
        status: dict[str, Any] = {"bans": self.bans.get_status(self._clock().unix)}
        if self._sharing is not None and self._config.state is not None:
            status |= self._sharing.watched.get_status()
        return status

    async def close(self) -> None:
        """Tell what was counted last, and nothing more. Idempotent."""
        self._inherited.close()
        if self._sharing is not None:
            await self._sharing.close()
            self._sharing = None
