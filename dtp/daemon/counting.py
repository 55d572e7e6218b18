"""What a daemon has counted for its callers, and whom it bans. Both survive reloads and upgrades, and may be shared
with other daemons or with workers of the same daemon."""

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
    """The policies and bans of a daemon, and the store through which they are shared."""

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
        """`config` is the first configuration: what is read from it here can only be changed by a restart.
        `on_bans` is called when bans have changed and callers may have to leave. The other arguments are those of
        `Daemon`."""
        self._config, self._identity, self._team = config, identity, team
        self._on_bans, self._clock, self._make_store, self._patience = on_bans, clock, make_store, patience
        self.policies = Policies(None if team is None else team.table, find_login)
        self.bans = Bans()
        self._sharing: CountSharing | None = None
        #: Counts and bans of the previous process that those who share the state haven't been told yet.
        self._inherited = Inherited({}, {}, patience.again)

    async def start(self, counted: Counted) -> None:
        """Open the store, and continue from what the previous process had counted. Raise `StateError`."""
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
        """Return what shares the counts with others, or None where nobody shares them."""
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
        """Report what the previous process had counted, which has stopped, to those who share the state."""
        if self._sharing is not None:
            await self._sharing.take_over(self._inherited, self.bans.mark_shared)

    def export_counts(self) -> Counted:
        """Return the counts for the process that replaces this one, which may keep its bans elsewhere."""
        shared, now = self._config.state is not None, self._clock()
        return Counted(
            bans=self.bans.known,
            used=self._inherited.used if shared else self.policies.collect_used(now.unix),
            rates=self.policies.collect_rated(now.steady),
            kept_in=self._config.kept_in(self._identity),
        )

    async def ban(self, caller: str, until: float) -> None:
        """Ban an identity or Sui address until then, and report it to those who share the state. Raise as
        `Daemon.ban`."""
        self.bans.set_ban(caller, until)
        self._on_bans()
        if self._sharing is not None:
            await self._sharing.ban(self._inherited, caller, until, self.bans.mark_shared)

    def set_bans(self, bans: Mapping[str, float]) -> None:
        """Replace all bans by these, which are those that the shared state has."""
        if self.bans.replace_shared(bans):
            self._on_bans()

    def get_status(self) -> dict[str, Any]:
        """Return who is banned and, where the state is shared, whether it can be reached."""
        status: dict[str, Any] = {"bans": self.bans.get_status(self._clock().unix)}
        if self._sharing is not None and self._config.state is not None:
            status |= self._sharing.watched.get_status()
        return status

    async def close(self) -> None:
        """Report the last counts and stop sharing. Idempotent."""
        self._inherited.close()
        if self._sharing is not None:
            await self._sharing.close()
            self._sharing = None
