"""Paying for services that are forwarded: a channel for each, vouchers as they are used, within a budget."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dtp.chain.resolver import HostDirectory
from dtp.daemon.config.model import Budget
from dtp.errors import PeerError
from dtp.identity import Identity
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.resolver import HostResolver, Resolver, StaticResolver
from dtp.pay import dial
from dtp.pay.client_meter import ClientMeter
from dtp.pay.metered import Metered
from dtp.pay.store import Store
from dtp.session.limits import Limits

if TYPE_CHECKING:
    from dtp.chain.client import ChainClient

log = logging.getLogger("dtpd")


class BudgetUsedUp(PeerError):
    """The service was paid as much as the file allows."""

    code = "budget-used-up"


class Wallet:
    """What all forwards of a daemon pay with: an account on chain, and the store of what it signed."""

    def __init__(self, chain: ChainClient, store: Store) -> None:
        """`chain` is connected and signs; `store` is open, and this one's from now on."""
        self.chain, self.store = chain, store
        self.directory = HostDirectory(chain)

    @property
    def resolvers(self) -> Sequence[Resolver]:
        """Who knows where hosts are, by this account's network."""
        return (StaticResolver(), HostResolver(self.directory))

    def close(self) -> None:
        """Close the store."""
        self.store.close()


class Buyer:
    """Dials one service and pays for it: what a pool dials by."""

    def __init__(
        self, wallet: Wallet, budget: Budget, identity: Identity, limits: Limits, psk: bytes | None
    ) -> None:
        self._wallet, self._budget = wallet, budget
        self._identity, self._limits, self._psk = identity, limits, psk
        self._past = 0
        self._meters: dict[ClientMeter, int] = {}

    @property
    def spent(self) -> int:
        """What was signed for since the start, in the smallest unit of the service's coin."""
        return self._past + sum(_signed(meter) - before for meter, before in self._meters.items())

    async def dial(self, address: Address, _: Sequence[Resolver] | None) -> Connection:
        """A connection that pays. Raises `BudgetUsedUp`, and what `dtp.pay.dial.connect` raises."""
        left = self._budget.most - self.spent
        if self._budget.most and left <= 0:
            raise BudgetUsedUp(
                f"{address}: all of the budget of {self._budget.most} is spent; raise it and reload"
            )
        signer = self._wallet.chain.signer
        assert signer is not None, "the client was made with one"
        connection = await dial.connect(
            address,
            wallet=signer,
            budget=left,
            deposit=None if self._budget.deposit is None else min(left, self._budget.deposit),
            network=self._wallet.chain,
            keep=True,
            most_per_request=self._budget.request,
            most_per_mib=self._budget.mib,
            store=self._wallet.store,
            identity=self._identity,
            limits=self._limits,
            psk=self._psk,
            resolvers=self._wallet.resolvers,
        )
        self._count(connection)
        return connection

    def _count(self, connection: Metered) -> None:
        meter = connection.meter
        assert isinstance(meter, ClientMeter)
        self._meters[meter] = _signed(meter)
        before = connection.on_end

        def ended(one: Connection) -> None:
            if before is not None:
                before(one)
            self._past += _signed(meter) - self._meters.pop(meter)

        connection.on_end = ended


def _signed(meter: ClientMeter) -> int:
    newest = meter.payer.newest
    return 0 if newest is None else newest.voucher.amount
