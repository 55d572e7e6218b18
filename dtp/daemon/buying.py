"""Paying for services that are forwarded: a channel for each, vouchers as they are used, within a budget."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from dtp.chain.resolver import HostDirectory
from dtp.daemon.config.model import Budget
from dtp.daemon.reasons import FREE
from dtp.errors import PeerError
from dtp.identity import Identity
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.dial import connect
from dtp.net.resolver import HostResolver, Resolver, StaticResolver
from dtp.pay import dial
from dtp.pay.buying import Purchase
from dtp.pay.client_meter import ClientMeter
from dtp.pay.errors import BudgetTooSmall
from dtp.pay.metered import Metered
from dtp.pay.passes import NoPass
from dtp.pay.store import Store
from dtp.pay.terms import Spending
from dtp.session.codes import ConnectionRefused
from dtp.session.limits import Limits

if TYPE_CHECKING:
    from dtp.chain.client import ChainClient

log = logging.getLogger("dtpd")

#: Bytes of the shortest call that can be understood, and so be charged: HTTP/2 takes 13, HTTP/1 and JSON-RPC more.
_LEAST_CALL: Final = 12


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


class _Calls:
    """Agrees to explicit charges, for as many calls as what was sent on a connection can have been."""

    def __init__(self) -> None:
        self.connection: Metered | None = None

    def __call__(self, units: int, amount: int, locked: bool) -> bool:
        if self.connection is None or not isinstance(self.connection.meter, ClientMeter):
            return False  # nothing was sent yet
        return self.connection.meter.payer.charged + units <= self.connection.traffic.sent // _LEAST_CALL


class Buyer:
    """Dials one service and pays for it: what a pool dials by.

    An old connection may go on beside a new one, so the budget is lent to them in parts, more as they use it: what
    all may sign together is never above it. What a connection leaves comes back when it ends.
    """

    def __init__(
        self, wallet: Wallet, budget: Budget, identity: Identity, limits: Limits, psk: bytes | None
    ) -> None:
        self._wallet, self._budget = wallet, budget
        self._identity, self._limits, self._psk = identity, limits, psk
        self._past = 0
        self._meters: set[ClientMeter] = set()
        self._lent: dict[object, int] = {}

    @property
    def spent(self) -> int:
        """What was signed for since the start, in the smallest unit of the service's coin."""
        return self._past + sum(map(_spent, self._meters))

    @property
    def _left(self) -> int:
        """What is neither spent nor lent."""
        return self._budget.most - self._past - sum(self._lent.values())

    def _lend(self, borrower: object, amount: int) -> int:
        """Let a connection spend so much more, or what is left; how much it is."""
        amount = max(0, min(amount, self._left))
        self._lent[borrower] = self._lent.get(borrower, 0) + amount
        return amount

    async def dial(self, address: Address, _: Sequence[Resolver] | None) -> Connection:
        """A connection that pays, or needn't. Raises `BudgetUsedUp`, and what `dtp.pay.dial.connect` raises."""
        if self._budget.most and self._left <= 0:
            return await self._dial_for_nothing(address)
        # A half, so that there is something for the connection after it, which may begin while this one lingers.
        first = self._budget.deposit if self._budget.deposit is not None else -(-self._left // 2)
        try:
            try:
                return await self._dial(address, first)
            except BudgetTooSmall as fault:
                if not first < fault.least <= self._left:
                    raise
                return await self._dial(address, fault.least)
        except ConnectionRefused as refused:
            if refused.reason != FREE:
                raise
        return await connect(
            address,
            identity=self._identity,
            limits=self._limits,
            psk=self._psk,
            resolvers=self._wallet.resolvers,
        )

    async def _dial_for_nothing(self, address: Address) -> Connection:
        """A connection under a pass: nothing is left to pay with."""
        try:
            return await self._dial(address, 0)
        except (BudgetTooSmall, NoPass) as fault:
            raise BudgetUsedUp(
                f"{address}: all of the budget of {self._budget.most} is spent; raise it and reload"
            ) from fault

    async def _dial(self, address: Address, amount: int) -> Metered:
        """A connection that may spend so much at first."""
        borrower = object()
        amount = self._lend(borrower, amount)
        try:
            connection = await self._connect(address, amount)
        except BaseException:
            del self._lent[borrower]
            raise
        self._count(connection, borrower)
        return connection

    async def _connect(self, address: Address, amount: int) -> Metered:
        signer = self._wallet.chain.signer
        assert signer is not None, "the client was made with one"
        calls = _Calls()
        calls.connection = await dial.connect(
            address,
            wallet=signer,
            budget=amount,
            network=self._wallet.chain,
            keep=True,
            most_per_request=self._budget.request,
            most_per_mib=self._budget.mib,
            store=self._wallet.store,
            identity=self._identity,
            limits=self._limits,
            psk=self._psk,
            on_charge=calls,
            spending=Spending(charge_units=0, when_answered=self._budget.when_answered),
        )
        return calls.connection

    def _count(self, connection: Metered, borrower: object) -> None:
        meter = connection.meter
        assert isinstance(meter, ClientMeter)
        assert isinstance(meter.deal, Purchase)
        meter.deal.lend = lambda amount: self._lend(borrower, amount)
        self._meters.add(meter)
        before = connection.on_end

        def ended(one: Connection) -> None:
            if before is not None:
                before(one)
            self._meters.remove(meter)
            self._past += _spent(meter)
            del self._lent[borrower]

        if connection.closed:
            ended(connection)
        else:
            connection.on_end = ended


def _spent(meter: ClientMeter) -> int:
    """What was signed on a connection, from its first moment: what the last one left unpaid is signed before a dial
    comes back."""
    assert meter.deal is not None
    newest = meter.payer.newest
    return 0 if newest is None else max(0, newest.voucher.amount - meter.deal.start)
