"""Paying for services that are forwarded: a channel for each, and vouchers as the services are used, within a
budget."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from dtp.chain.host_state import service_number
from dtp.chain.model import SUI_COIN, canonical_id
from dtp.chain.resolver import HostDirectory
from dtp.chain.wallet import money
from dtp.daemon.config.model import BudgetSettings
from dtp.daemon.paying.calls import ChargedCalls, count_on
from dtp.daemon.paying.lender import Lender
from dtp.daemon.paying.signed import PaidService, SignedSums
from dtp.errors import LimitError
from dtp.identity import Identity
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.dial import connect
from dtp.net.resolver import HostResolver, Resolver, StaticResolver
from dtp.pay import dial
from dtp.pay.client.budget import span
from dtp.pay.client.channel_purchase import ChannelPurchase
from dtp.pay.client.client_meter import ClientMeter
from dtp.pay.errors import BudgetTooSmall, StoreBusy
from dtp.pay.metered import Metered
from dtp.pay.passes import NoPass
from dtp.pay.store import Store
from dtp.pay.store.file import PATIENCE
from dtp.pay.terms import Spending
from dtp.session.codes import CloseDetail, ConnectionRefused
from dtp.session.limits import Limits

if TYPE_CHECKING:
    from dtp.chain.node.client import ChainClient

log = logging.getLogger("dtpd")

T = TypeVar("T")

#: Seconds that the event loop waits for other writers of the store, who usually take no longer; and seconds until
#: the next attempt where they do.
_AT_ONCE: Final = 0.05
_AGAIN: Final = 0.1

#: The most that unused channels may lock up at a host: this many budgets, or this much in MIST.
_BUDGETS_LOCKED: Final = 3
_LEAST_LOCKED: Final = 1_000_000_000


class BudgetUsedUp(LimitError):
    """The service was paid as much as the configuration allows."""

    code = "budget-used-up"


class Wallet:
    """What all forwards of a daemon pay with: an account on the chain, and the store of what it has signed."""

    def __init__(self, chain: ChainClient, store: Store) -> None:
        """`chain` is connected and signs; `store` is open, and owned by this object from now on."""
        self.chain, self.store = chain, store
        #: The same file, opened so that it doesn't wait: budgets are checked on the event loop, while another
        #: thread stores what is signed and other processes write, too.
        self.store_at_once = (
            store if store.path == ":memory:" else Store(store.path, power_safe=False, patience=_AT_ONCE)
        )
        self.directory = HostDirectory(chain)
        self._lender = Lender(self.store_at_once)
        self._sums: dict[frozenset[PaidService], SignedSums] = {}

    def signed_for(self, services: Iterable[PaidService]) -> SignedSums:
        """Return the sums of these services, one object for all who pay for them. The client has to be
        connected."""
        key = frozenset(services)
        if key not in self._sums:
            self._sums[key] = SignedSums(
                self.store_at_once, self.chain.chain_id, key, self._lender, self._sums.values()
            )
        return self._sums[key]

    @property
    def resolvers(self) -> Sequence[Resolver]:
        """Resolvers that find hosts on this account's network."""
        return (StaticResolver(), HostResolver(self.directory))

    def tell_open(self) -> None:
        """Log which channels are left open, what they hold, and how to get it back."""
        ours = self.chain.chain_id, self.chain.address
        for each in self.store.bought_channels():
            if (each.chain, each.account) != ours or each.state == "closed":
                continue
            signed = sum(lane.most_signed for _, lane in self.store.payer_lanes(each.channel))
            left = money(max(0, each.deposited - signed), each.coin)
            log.info(
                "channel %s is left %s and holds %s of yours, and gas for its storage: the next start uses it where "
                "it is open; 'dtp channel close %s --store %s' brings that back, at once where the server agrees, "
                "else %s later",
                *(each.channel, each.state, left, each.channel, self.store.path, span(each.claim_ms)),
                extra={"fields": {"event": "channel", "channel": each.channel, "state": each.state}},
            )

    def close(self) -> None:
        """Close the store. Everything that pays by it has to be over."""
        self._lender.close()
        self.store_at_once.close()
        self.store.close()


class Buyer:
    """Dials one service and pays for it. A pool uses it to dial.

    An old connection may go on beside a new one. So the budget is lent to connections in parts, and they get more
    as they use it: together they can never sign more than the budget. What a connection hasn't used is returned
    when it ends.
    """

    def __init__(
        self,
        wallet: Wallet,
        budget: BudgetSettings,
        identity: Identity,
        limits: Limits,
        psk: bytes | None,
        to: Sequence[Address],
        clock: Callable[[], float] = time.time,
        passed: Callable[[], float] = time.monotonic,
    ) -> None:
        """`to` are the addresses of the service, under which payments are remembered. `clock` is Unix time,
        `passed` a monotonic clock in seconds."""
        self._wallet, self._budget = wallet, budget
        self._identity, self._limits, self._psk = identity, limits, psk
        self._clock, self._passed = clock, passed
        self._name = " ".join(sorted(map(str, to)))
        self._services = [
            PaidService(canonical_id(each.host_object), service_number(each.service))
            for each in to
            if each.host_object
        ]
        #: The current period of the budget, and what had been signed when it began.
        self._period, self._before = -1, 0
        #: Since when the clock has shown an earlier period; None where it doesn't.
        self._behind_since: float | None = None

    @property
    def spent(self) -> int:
        """What was signed since the period began, in the smallest unit of the service's coin, including what
        earlier runs have signed."""
        with contextlib.suppress(StoreBusy):  # otherwise it begins, or is read, a moment later
            self._look_at_clock()
            self._sums.read_others()
        return self._sums.most_signed - self._before

    @property
    def _sums(self) -> SignedSums:
        return self._wallet.signed_for(self._services)

    def _look_at_clock(self) -> None:
        """Begin a new period when it is time, and store that, so that a restart doesn't begin another.

        The period begins at what was certainly signed: if a server later shows less than was reserved, the budget
        must not become larger for it. A clock that is set back begins no period, unless it stays behind for the
        length of a period, since that much time has passed all the same.
        """
        every = self._budget.every
        if every is None:
            return
        store, name, period = self._wallet.store_at_once, f"{self._name} {every}", int(self._clock() // every)
        if period > self._period:
            noted, begins = store.signed_before(name, period, self._sums.surely_signed)
            self._before = self._sums.most_signed if begins else noted
            self._period = store.budget_period(name)
            self._behind_since = None
        if period == self._period:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = self._passed()
        elif self._passed() - self._behind_since >= every:
            if store.budget_period(name) < self._period:  # another forward has begun the period
                self._period = -1
                self._look_at_clock()
                return
            store.begin_earlier(name, period, self._sums.surely_signed)
            self._period, self._before, self._behind_since = period, self._sums.most_signed, None

    @property
    def left(self) -> int:
        """What is neither spent nor lent."""
        self._look_at_clock()
        return self._read_left()

    def _read_left(self) -> int:
        sums = self._sums
        sums.read_store()
        return self._budget.most - (sums.most_signed - self._before - sums.live) - sums.lent

    def _lend_amount(self, borrower: object, amount: int) -> int:
        """Let a connection spend that much more, or what is left; return how much it is."""
        self._look_at_clock()
        return self._sums.lend(borrower, lambda: max(0, min(amount, self._read_left())))

    async def lend_more(self, borrower: object, amount: int) -> int:
        """Let an open connection spend that much more, or what is left, as soon as the store is free. Return how
        much it is, or 0 if the connection is over by then. Raise `StoreError`."""
        return await _when_free(
            lambda: self._lend_amount(borrower, amount) if self._sums.has_lent(borrower) else 0
        )

    async def dial_paid(self, address: Address, _: Sequence[Resolver] | None) -> Connection:
        """Return a connection that pays, or that needs no payment. Raise `BudgetUsedUp`, and what
        `dtp.pay.dial.connect` raises."""
        left = await _when_free(lambda: self.left)
        if self._budget.most and left <= 0:
            return await self._dial_for_nothing(address)
        # Half of it, so that something is left for the next connection, which may begin while this one lingers.
        first = self._budget.deposit if self._budget.deposit is not None else -(-left // 2)
        try:
            try:
                return await self._dial_metered(address, first)
            except BudgetTooSmall as fault:
                if not first < fault.least <= await _when_free(lambda: self.left):
                    raise
                return await self._dial_metered(address, fault.least)
        except ConnectionRefused as refused:
            if refused.detail != CloseDetail.SERVICE_FREE:
                raise
        return await connect(
            address,
            identity=self._identity,
            limits=self._limits,
            psk=self._psk,
            resolvers=self._wallet.resolvers,
        )

    async def _dial_for_nothing(self, address: Address) -> Connection:
        """Return a connection under a pass, since nothing is left to pay with."""
        try:
            return await self._dial_metered(address, 0)
        except (BudgetTooSmall, NoPass) as fault:
            raise BudgetUsedUp(
                f"{address}: all of the budget of {money(self._budget.most, SUI_COIN)} is spent"
                f"{self._period_text()}; raise `most` of the forward's `budget`, and reload"
            ) from fault

    def _period_text(self) -> str:
        every = self._budget.every
        if every is None:
            return ""
        left = (self._period + 1) * every - self._clock()
        return f" for another {span(round(left * 1000))}"

    async def _dial_metered(self, address: Address, wanted: int) -> Metered:
        """Return a connection that may spend this much at first."""
        borrower = object()
        amount = await _when_free(lambda: self._lend_amount(borrower, wanted))
        try:
            connection = await self._connect_metered(address, amount)
        except BaseException:
            self._sums.take_back(borrower)
            raise
        self._count_spending(connection, borrower)
        return connection

    async def _connect_metered(self, address: Address, amount: int) -> Metered:
        signer = self._wallet.chain.signer
        assert signer is not None, "the client was made with one"
        calls = ChargedCalls(self._budget.calls, asyncio.get_running_loop().time)
        connection = await dial.connect(
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
            most_per_host=self._per_host,
            most_per_day=self._budget.per_day,
            longest_lock=self._budget.longest_lock,
            max_gas=self._budget.max_gas,
            on_charge=lambda units, amount, locked: calls.agrees_to(units),
            spending=Spending(charge_units=0, when_answered=self._budget.when_answered),
        )
        count_on(connection, calls)
        return connection

    @property
    def _per_host(self) -> int:
        if self._budget.per_host is not None:
            return self._budget.per_host
        return max(_BUDGETS_LOCKED * self._budget.most, _LEAST_LOCKED)

    def _count_spending(self, connection: Metered, borrower: object) -> None:
        meter = connection.meter
        assert isinstance(meter, ClientMeter)
        assert isinstance(meter.purchase, ChannelPurchase)
        meter.purchase.money.lend = lambda amount: self.lend_more(borrower, amount)
        sums = self._sums
        sums.add_meter(meter, borrower)
        connection.add_end_callback(lambda: sums.end_meter(meter))


async def _when_free(work: Callable[[], T]) -> T:
    """Return what `work` with the store returns, once other writers have left it. Raise `StoreBusy` when they take
    long."""
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE
    while True:
        try:
            return work()
        except StoreBusy:
            if loop.time() >= until:
                raise
        await asyncio.sleep(_AGAIN)
