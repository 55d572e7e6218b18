"""The pools of connections that forwards use. Forwards with the same endpoints and budget share one."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator

from dtp.daemon.config.model import BudgetSettings, Forward
from dtp.daemon.patience import PATIENCE, Patience
from dtp.daemon.relays.pool import Dial, Pool
from dtp.identity import Identity
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.dial import connect
from dtp.session.limits import Limits

#: The most services named by programs that stay connected.
MAX_DYNAMIC = 64


class Pools:
    """Pools of forwards live as long as a forward uses them. Of those for services that programs name, the last 64
    are kept."""

    def __init__(
        self,
        identity: Identity,
        limits: Limits,
        psk: bytes | None,
        dial_of: Callable[[Forward], Dial | None],
        dial: Dial | None,
        quiet: float = 0.0,
        patience: Patience = PATIENCE,
    ) -> None:
        """`dial_of` returns how a forward that pays dials; `dial` is how all others do, None for the default.
        `quiet` and `patience` are passed to each `Pool`."""
        self._quiet, self._patience = quiet, patience
        self._identity, self._limits, self._psk = identity, limits, psk
        self._dial_of, self._dial = dial_of, dial
        self._configured: dict[tuple[tuple[Address, ...], BudgetSettings | None], Pool] = {}
        self._named: OrderedDict[Address, Pool] = OrderedDict()

    def __iter__(self) -> Iterator[Pool]:
        return iter([*self._configured.values(), *self._named.values()])

    @property
    def connections(self) -> list[Connection]:
        """The open connections of all pools."""
        return [one for pool in self for one in pool.connections]

    def pool_of(self, forward: Forward) -> Pool | None:
        """Return the pool of a forward; None where programs name the service themselves."""
        if not forward.to:
            return None
        key = (forward.to, forward.budget)
        pool = self._configured.get(key)
        if pool is None:
            pool = self._configured[key] = Pool(
                forward.to,
                identity=self._identity,
                limits=self._limits,
                psk=self._psk,
                dial=self._dial_of(forward) or self._dial,
                quiet=self._quiet,
                patience=self._patience,
            )
        return pool

    def pool_for(self, address: Address) -> Pool:
        """Return the pool for an address that a program has named. The least recently used one makes room."""
        pool = self._named.get(address)
        if pool is None:
            if len(self._named) >= MAX_DYNAMIC:
                self._named.popitem(last=False)[1].retire_pool()
            pool = self._named[address] = Pool(
                (address,),
                identity=self._identity,
                limits=self._limits,
                psk=self._psk,
                dial=self._dial,
                patience=self._patience,
            )
        self._named.move_to_end(address)
        return pool

    async def dial_address(self, address: Address) -> Connection:
        """Return a connection for the caller's use only, resolved and dialled like the others."""
        if self._dial is not None:
            return await self._dial(address, None)
        return await connect(address, identity=self._identity, limits=self._limits, psk=self._psk)

    def keep_used(self, used: Iterable[Pool | None]) -> None:
        """Have the pools in use connect, and retire the others."""
        kept = {id(pool) for pool in used if pool is not None}
        for key, pool in list(self._configured.items()):
            if id(pool) in kept:
                pool.start_connecting()
            else:
                del self._configured[key]
                pool.retire_pool()

    async def go_away(self) -> None:
        """Tell peers that this end opens no new streams."""
        await asyncio.gather(*(pool.go_away() for pool in self))

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(pool.close() for pool in self))
