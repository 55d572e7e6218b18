"""`dtp.connect`: to any service, and with a wallet to a paid one - resolved, opened, paid and closed by itself."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, overload

from dtp.errors import CarrierError, ChainError, LocalError, PeerError
from dtp.identity import Identity
from dtp.net import dial as net
from dtp.net import presence
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.dial import Connecting
from dtp.net.resolver import HostResolver, NotResolved, Resolver, StaticResolver
from dtp.pay.errors import UNPAID, ChannelUnusable
from dtp.session.codes import CloseCode, CloseDetail, ConnectionClosed, ConnectionRefused
from dtp.session.handshake import HandshakeConfig, Ticket
from dtp.session.limits import DEFAULT, Limits

if TYPE_CHECKING:
    from dtp.chain.model import Id
    from dtp.chain.node.client import ChainClient
    from dtp.chain.node.networks import Network
    from dtp.pay import messages
    from dtp.pay.client.budget import Budget, OnOpening, Opening
    from dtp.pay.client.channel_purchase import ChannelPurchase
    from dtp.pay.client.client_meter import ClientMeter, OnCharge
    from dtp.pay.client.payer import Payer
    from dtp.pay.metered import Metered
    from dtp.pay.store import Store
    from dtp.pay.store.journal import Journal
    from dtp.pay.terms import Spending
    from dtp.pay.wallets import Wallet

log = logging.getLogger("dtp.pay")

#: Pauses before dialling again when the server's node doesn't know our new channel, or its new money, yet, seconds.
_BEHIND: Final = (0.2, 0.5, 1.0, 2.0)
#: ... and after these while another process of the server has the channel that a connection of ours uses: together
#: longer than one that was killed has it, with its vouchers on a Redis server (5 s).
_HELD: Final = (1.0, 2.0, 3.0)
#: How long a server that has broken off is asked to agree on the close before the chain is, seconds.
_AGREEING: Final = 30.0
#: Makes a `PaidDialer`, from what that takes.
MakeDialer: TypeAlias = "Callable[..., PaidDialer]"
#: Why a server can't be asked that.
_UNREACHED: Final = (CarrierError, PeerError, ConnectionClosed, NotResolved, ChainError, ChannelUnusable)


class PaidConnecting:
    """What `connect` gives with a wallet: `await` it, or use it with `async with`. Closing closes the channel."""

    def __init__(self, dialer: PaidDialer) -> None:
        self._dialer = dialer
        self._connection: Metered | None = None

    def __await__(self) -> Generator[None, None, Metered]:
        return self._dialer.connect().__await__()

    async def __aenter__(self) -> Metered:
        self._connection = await self._dialer.connect()
        return self._connection

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        assert self._connection is not None
        # An error of ours doesn't take back what was used: the rest is paid and the channel closed in order.
        with suppress(*(UNPAID if error is not None else ())):  # there is one that says more
            await self._connection.close(CloseCode.INTERNAL if error is not None else CloseCode.NORMAL)


@overload
def connect(
    address: str | Address,
    *,
    identity: Identity | None = ...,
    service: str | None = ...,
    limits: Limits = ...,
    psk: bytes | None = ...,
    resolvers: Sequence[Resolver] | None = ...,
    ticket: Ticket | None = ...,
    early: bool = ...,
) -> Connecting: ...


@overload
def connect(
    address: str | Address,
    *,
    wallet: Wallet,
    budget: int | str = ...,
    deposit: int | str | None = ...,
    network: str | Network | ChainClient | None = ...,
    host: Id | None = ...,
    keep: bool | None = ...,
    most_per_request: int | str | None = ...,
    most_per_mib: int | str | None = ...,
    most_per_host: int | str | None = ...,
    most_per_day: int | str | None = ...,
    longest_lock: float | None = ...,
    max_gas: int | str | None = ...,
    max_gas_price: int | None = ...,
    coin: str | None = ...,
    on_opening: OnOpening | None = ...,
    on_charge: OnCharge | None = ...,
    spending: Spending | None = ...,
    server_streams: int = ...,
    store: Store | str | os.PathLike[str] | None = ...,
    identity: Identity | None = ...,
    service: str | None = ...,
    limits: Limits = ...,
    psk: bytes | None = ...,
    resolvers: Sequence[Resolver] | None = ...,
    make_dialer: MakeDialer | None = ...,
) -> PaidConnecting: ...


def connect(
    address: str | Address,
    *,
    wallet: Wallet | None = None,
    budget: int | str = 0,
    deposit: int | str | None = None,
    network: str | Network | ChainClient | None = None,
    host: Id | None = None,
    keep: bool | None = False,
    most_per_request: int | str | None = None,
    most_per_mib: int | str | None = None,
    most_per_host: int | str | None = None,
    most_per_day: int | str | None = None,
    longest_lock: float | None = None,
    max_gas: int | str | None = None,
    max_gas_price: int | None = None,
    coin: str | None = None,
    on_opening: OnOpening | None = None,
    on_charge: OnCharge | None = None,
    spending: Spending | None = None,
    server_streams: int = 0,
    store: Store | str | os.PathLike[str] | None = None,
    identity: Identity | None = None,
    service: str | None = None,
    limits: Limits = DEFAULT,
    psk: bytes | None = None,
    resolvers: Sequence[Resolver] | None = None,
    ticket: Ticket | None = None,
    early: bool = False,
    make_dialer: MakeDialer | None = None,
) -> Connecting | PaidConnecting:
    """Connect to a service: `connection = await connect(...)` or `async with connect(...) as connection`.

    `address` is an `Address` or its text. `identity` is who we are; without it a new identity is made for this
    one connection. `service` overrides the one in the address. `psk` (32 bytes) must be the server's, if it has
    one. `resolvers` are asked in order for `dtp:` addresses; by default the static peer table, then the chain. With
    `early` the connection is there a round trip sooner, before the server has let us in: what is written at once goes
    along, is read by the service only if it does, and can't be replayed. A refusal is then `ConnectionClosed`, from
    whatever waits; `await connection.wait_ready()` waits for the verdict alone.

    With a `wallet` the service of a host object (`dtp://0x<host>/<service>`, or any address with `host`) is paid: a
    channel is opened with `deposit` (all of `budget` without) or one that is open is used, more is added up to
    `budget`, and closing the connection closes the channel; `keep` leaves it open for the next time, None where that
    is cheaper. Amounts are MIST
    or text such as "0.5SUI"; for a service that is paid in another `coin` (its type), numbers of its smallest
    unit, or their text. `most_per_request` and `most_per_mib` are the highest prices to agree to, `on_charge` decides
    about explicit charges (without it, and a `spending` with more `charge_units`, only one request for each stream is
    paid), `spending` says when vouchers are signed. The server may have `server_streams` streams of its own open at
    once: what comes on them is paid, too. `store` keeps vouchers. `most_per_host` is what channels with the host
    may lock up, `most_per_day` what goes into channels in 24 hours, `longest_lock` (seconds) how long a server
    may keep what is left, `max_gas` what all transactions may take and `max_gas_price` a unit of it (MIST):
    without them the defaults of `dtp.pay.client.budget.Budget`. `on_opening` is asked before a deposit is made.
    `make_dialer` makes what dials, for tests (`PaidDialer`).

    Raises `CarrierError` (unreachable, refused, `DialTimeout`), `HandshakeError` (`WrongIdentity`,
    `HandshakeRefused`), `ConnectionRefused` (unknown service, not allowed), `NotResolved`, `AddressError`; with a
    wallet also `BudgetSpent`, `PriceTooHigh`, `OtherCoin`, `LockTooLong`, `HostLimit`, `DayLimit`, `NotApproved`,
    `NoPass`, `CountsDisputed`, and `ChainError` (`GasTooHigh`).
    """
    target = Address.of(address)
    if not target.is_direct:
        # As without a wallet: what nobody understands isn't to be overlooked when money is spent.
        known = (StaticResolver, HostResolver) if resolvers is None else resolvers
        target.check_options({name for each in known for name in each.options})
    if wallet is None:
        if budget or deposit or keep or host is not None:
            raise LocalError("a budget needs a wallet that pays: give `wallet`")
        return net.connect(
            target,
            identity=identity,
            service=service,
            limits=limits,
            psk=psk,
            resolvers=resolvers,
            ticket=ticket,
            early=early,
        )
    if early:
        raise LocalError(
            "`early` and `wallet` don't go together: a paid server first says what it has counted"
        )
    from dtp.chain.model import SUI_COIN, canonical_type
    from dtp.chain.wallet import parse_amount
    from dtp.pay.client.budget import Budget

    paid_in = SUI_COIN if coin is None else canonical_type(coin)

    def amount(value: int | str) -> int:
        return parse_amount(value, paid_in) if isinstance(value, str) else value

    def limit(value: int | str | None) -> int | None:
        return None if value is None else amount(value)

    usual = Budget()
    money = Budget(
        amount(budget),
        limit(deposit),
        limit(most_per_request),
        limit(most_per_mib),
        paid_in,
        limit(most_per_host),
        limit(most_per_day),
        usual.longest_lock_ms if longest_lock is None else round(longest_lock * 1000),
        parse_amount(max_gas) if isinstance(max_gas, str) else max_gas,
        max_gas_price,
    )
    dialer = (make_dialer or PaidDialer)(
        target,
        target.service if service is None else service,
        wallet,
        money,
        network=network,
        host=host,
        keep=keep,
        on_opening=on_opening,
        on_charge=on_charge,
        spending=spending,
        server_streams=server_streams,
        store=store,
        identity=identity,
        limits=limits,
        psk=psk,
        resolvers=resolvers,
    )
    return PaidConnecting(dialer)


async def close_with_server(
    chain: ChainClient,
    store: Store,
    id: str,
    *,
    spending: Spending | None = None,
    identity: Identity | None = None,
    psk: bytes | None = None,
) -> ChannelPurchase:
    """Close an open channel of ours by agreement with its server, which is dialled for that; return it as it was.

    Its `closing.closed` says what that paid to whom; None where the server didn't agree: then the chain is to be
    asked, and `disputed` says what the server wants beyond what was signed.
    Raises what dialling raises where the server isn't there, `ChannelUnusable` where a program uses the channel or
    its key isn't in the store, and what the chain and the store raise: then nothing has changed.
    """
    from dtp.chain.host_state import usual_name
    from dtp.pay.client.budget import Budget
    from dtp.pay.client.buying import take_to_close
    from dtp.pay.store.journal import Journal

    known = store.bought_channels(id)
    if not known:
        raise ChannelUnusable(f"channel {id} isn't in {store.path}")
    (ours,) = known
    assert chain.signer is not None  # or it has no channel
    async with AsyncExitStack() as stack:
        journal = Journal(store)
        stack.push_async_callback(journal.close)
        purchase = await take_to_close(chain, journal, id)
        stack.callback(purchase.in_use.lock.release)
        name = ours.name or usual_name(ours.service)
        address = Address("dtp", host_object=ours.host, service=name)
        signer = chain.signer
        dialer = PaidDialer(
            address, name, signer, Budget(), network=chain, spending=spending, identity=identity, psk=psk
        )
        await dialer.check_reachable(chain, closes=True)
        if (agreed := await dialer.request_agreement(purchase)) is not None:
            await purchase.settle(agreed)
        return purchase


async def is_closed_with_server(
    chain: ChainClient, store: Store, id: str, *, spending: Spending | None = None, psk: bytes | None = None
) -> bool:
    """Return whether an open channel of ours was closed by agreement with its server. Raises `StoreError`."""
    try:
        async with asyncio.timeout(_AGREEING):
            purchase = await close_with_server(chain, store, id, spending=spending, psk=psk)
    except (*_UNREACHED, TimeoutError) as fault:
        log.info("channel %s can't be closed by agreement: %s", id, fault)
        return False
    return purchase.closing.closed is not None


class PaidDialer:
    """All that one paid connection needs.

    What others do for it are methods, so that a test may do them otherwise; `clock` is Unix time in seconds.
    """

    #: Pauses before the server's node is asked again for what is new, and a process for a channel that it has, s.
    behind: Sequence[float] = _BEHIND
    held: Sequence[float] = _HELD

    def __init__(
        self,
        address: Address,
        service: str,
        wallet: Wallet,
        budget: Budget,
        *,
        network: str | Network | ChainClient | None = None,
        host: Id | None = None,
        keep: bool | None = False,
        on_opening: OnOpening | None = None,
        on_charge: OnCharge | None = None,
        spending: Spending | None = None,
        server_streams: int = 0,
        store: Store | str | os.PathLike[str] | None = None,
        identity: Identity | None = None,
        limits: Limits = DEFAULT,
        psk: bytes | None = None,
        resolvers: Sequence[Resolver] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._address = address
        self._service = service
        self._wallet = wallet
        self._budget = budget
        self._network = network
        self._host = host if host is not None else address.host_object
        self._keep = keep
        self._on_opening = on_opening
        self._on_charge = on_charge
        self._spending = spending
        self._server_streams = server_streams
        self._store = store
        self._identity = identity
        self._limits = limits
        self._psk = psk
        self._resolvers = resolvers

    def make_client(self, network: str | Network | None) -> ChainClient:
        """Return a client of the network, for the wallet."""
        from dtp.chain.node.client import ChainClient
        from dtp.pay.wallets import signer_of

        return ChainClient(network, signer_of(self._wallet), max_gas_price=self._budget.highest_gas_price)

    def make_dialer(self, **options: Any) -> net.Dialer:
        """Return what dials the server."""
        return net.Dialer(**options)

    def make_payer(self, *args: Any, **options: Any) -> Payer:
        """Return what says when a connection's use of a channel is paid."""
        from dtp.pay.client.payer import Payer

        return Payer(*args, **options)

    def make_meter(self, *args: Any, **options: Any) -> ClientMeter:
        """Return what drives that."""
        from dtp.pay.client.client_meter import ClientMeter

        return ClientMeter(*args, **options)

    async def purchase(self, chain: ChainClient, journal: Journal[Store], **options: Any) -> ChannelPurchase:
        """Return a channel to pay with, as `dtp.pay.client.buying.purchase` does."""
        from dtp.chain.model import canonical_id
        from dtp.pay.client.buying import purchase

        assert self._host is not None
        host = canonical_id(self._host)
        return await purchase(chain, journal, host, self._service, self._budget, keep=self._keep, **options)

    async def close_by_agreement(self, chain: ChainClient, store: Store, id: str) -> bool:
        """Close a channel that was left with its server, if that agrees; return whether it is closed."""
        return await is_closed_with_server(chain, store, id, spending=self._spending, psk=self._psk)

    async def connect(self) -> Metered:
        """Return a metered connection. What it opened is closed with it."""
        from dtp.chain.node.networks import Network
        from dtp.pay.client.disproof import count_disproved_no_more
        from dtp.pay.errors import BudgetTooSmall, PriceTooHigh
        from dtp.pay.passes import NoPass
        from dtp.pay.store import Store
        from dtp.pay.store.journal import Journal

        if self._host is None:
            raise LocalError(
                f"{self._address} names no host object, so nobody knows whom to pay: give `host`"
            )
        async with AsyncExitStack() as stack:
            network = self._network or self._address.options.get("network")
            if network is None or isinstance(network, str | Network):
                chain = await stack.enter_async_context(self.make_client(network))
            else:
                chain = network
            await chain.connect()
            store = self._store
            if not isinstance(store, Store):
                store = stack.enter_context(Store(store, power_safe=False))
            journal = Journal(store)
            stack.push_async_callback(journal.close)
            useless: set[str] = set()
            refusal: ConnectionRefused | None = None
            while True:
                try:
                    purchase = await self.purchase(
                        chain,
                        journal,
                        without=useless,
                        reach=partial(self.check_reachable, chain),
                        agree=partial(self.close_by_agreement, chain, store),
                        on_opening=partial(self._approve_opening, chain)
                        if self._on_opening is not None
                        else None,
                    )
                except (BudgetTooSmall, NoPass, PriceTooHigh) as fault:
                    if refusal is None or (self._budget.most and not isinstance(fault, NoPass)):
                        raise
                    raise refusal from fault
                stack.callback(purchase.in_use.lock.release)
                purchase.redial = self.agree_again
                try:
                    connection = await self._connect_over(purchase)
                    break
                except ConnectionRefused as refused:
                    if _is_held(refused, purchase):
                        # By who serves our other connection, maybe for long, as behind an upgrade of the server.
                        purchase.in_use.lock.release()
                        useless.add(purchase.channel.id)
                        continue
                    if purchase.channel.pass_ is not None and _is_of_pass(refused):
                        # The channel stays for when the pass is good for more; until then another one, or the budget.
                        purchase.in_use.lock.release()
                        useless.add(purchase.channel.pass_)
                        refusal = refused
                        continue
                    if refused.close_code != CloseCode.TICKET or not await self._leave_channel(
                        purchase, refused
                    ):
                        raise
            if purchase.opened_by:  # its server takes it, so that is on the chain
                await count_disproved_no_more(chain, journal, purchase.opened_by)
            connection.at_end(stack.pop_all())
            return connection

    async def _connect_over(self, purchase: ChannelPurchase) -> Metered:
        """Return a metered connection over a channel, tried again while its server may yet give it up."""
        for pause in (*self.held, None):
            try:
                connection = await self.dial(purchase)
                await self.begin(connection, purchase)
                break
            except ConnectionRefused as refused:
                if pause is None or not _is_held(refused, purchase):
                    raise
            await asyncio.sleep(pause)
            await purchase.in_use.read_lane()
        return connection

    async def _approve_opening(self, chain: ChainClient, opening: Opening) -> bool:
        """Ask the caller about an opening, who may ask the server first."""
        assert self._on_opening is not None
        if not self._may_be_piped:
            opening = replace(opening, ask=partial(self._make_connecting, chain))
        answer = self._on_opening(opening)
        return answer if isinstance(answer, bool) else await answer

    def _make_connecting(self, chain: ChainClient) -> Connecting:
        from dtp.pay.terms import ASKING

        return net.connect(
            _without_network(self._address),
            service=ASKING + self._service,
            identity=self._identity,
            limits=self._limits,
            psk=self._psk,
            resolvers=self._unpaid_resolvers(chain),
        )

    @property
    def _may_be_piped(self) -> bool:
        return self._address.options.get("via", "direct") != "direct" or self._address.scheme == "pipe"

    def _unpaid_resolvers(self, chain: ChainClient, *, closes: bool = False) -> Sequence[Resolver]:
        from dtp.chain.resolver import HostDirectory

        return self._resolvers or (
            StaticResolver(),
            HostResolver(HostDirectory(chain, also_closed=closes)),
        )

    async def check_reachable(self, chain: ChainClient, *, closes: bool = False) -> None:
        """Raise as dialling does unless an endpoint of the host answers: the chain knows of its death hours later.

        Not for what may go through the chain itself, which is dialled over the channel that is opened.
        """
        if self._may_be_piped:
            return
        try:
            await presence.ask(
                _without_network(self._address),
                resolvers=self._unpaid_resolvers(chain, closes=closes),
                identity=self._identity,
                limits=self._limits,
                psk=self._psk,
                patience=self._limits.handshake,
            )
        except TimeoutError as fault:
            raise net.DialTimeout(
                f"{self._address}: nobody answered in time; nothing is deposited"
            ) from fault

    async def _leave_channel(self, purchase: ChannelPurchase, refused: ConnectionRefused) -> bool:
        """Part with a channel that its server takes no more: close it by agreement where that is to be had, else give
        it up where another may be opened. True if another may be."""
        replaceable, over = (
            await purchase.can_replace(self._clock()),
            refused.detail == CloseDetail.CHANNEL_CLOSED,
        )
        agreed = None if refused.detail == CloseDetail.CHANNEL_UNKNOWN else await self.agree_again(purchase)
        if agreed is not None:
            purchase.keep = False
            await purchase.settle(agreed)
            return replaceable or (over and not purchase.fresh)
        if replaceable:
            await purchase.in_use.give_up()
        return replaceable

    async def agree_again(self, purchase: ChannelPurchase) -> messages.Agreed | None:
        """Return the server's signature under the close of a channel; None also where it can't be reached."""
        if self._may_be_piped:  # each frame would be a transaction
            return None
        try:
            async with asyncio.timeout(_AGREEING):
                return await self.request_agreement(purchase)
        except (*_UNREACHED, TimeoutError) as fault:
            log.info("channel %s can't be closed by agreement: %s", purchase.channel.id, fault)
        return None

    async def request_agreement(self, purchase: ChannelPurchase) -> messages.Agreed | None:
        """Return the server's signature under the close of a channel, over a connection that is for nothing else;
        None where it gives none. What our lanes have signed and isn't known here any more is asked for first.

        Raises what dialling raises.
        """
        from dtp.pay.client.client_meter import ClientMeter
        from dtp.pay.errors import CountsDisputed
        from dtp.pay.terms import Usage

        for other in await purchase.forgotten_lanes():
            try:
                await (await self._connect_to_close(other)).close()
            finally:
                other.in_use.lock.release()
        await purchase.in_use.read_lane()
        try:
            connection = await self._connect_to_close(purchase)
        except CountsDisputed as disputed:
            purchase.disputed = Usage(disputed.requests, disputed.bytes)
            raise
        try:
            meter = connection.meter
            assert isinstance(meter, ClientMeter)
            agreed = await meter.request_agreement() if await meter.pay_rest() else None
            purchase.signed, purchase.disputed = meter.payer.signed.amount, meter.payer.left
        finally:
            await connection.close()
        return agreed

    async def _connect_to_close(self, purchase: ChannelPurchase) -> Metered:
        """Return a connection of a lane that comes only to close its channel: it is metered, and nothing else."""
        connection = await self.dial(purchase, closes=True)
        await self.begin(connection, purchase, closes=True)
        return connection

    async def dial(self, purchase: ChannelPurchase, *, closes: bool = False) -> Metered:
        """Return a connection to the server with the ticket of a channel's lane; it `closes` where it comes for no
        more."""
        from dtp.chain.resolver import HostDirectory
        from dtp.pay.metered import Metered

        in_use, resolvers = purchase.in_use, self._resolvers
        if resolvers is None:
            # Pipes go over the channel that is paid with: its terms say who bears their cost.
            directory = HostDirectory(in_use.chain, pipe_channel=in_use.channel.id, also_closed=closes)
            resolvers = (StaticResolver(), HostResolver(directory))
        dialer = self.make_dialer(
            address=_without_network(self._address),
            endpoint=HandshakeConfig(
                self._identity or Identity.generate(),
                net.suites(),
                replace(self._limits, streams=self._server_streams),  # what comes on them is paid
                psk=self._psk,
            ),
            service=self._service,
            resolvers=resolvers,
            ticket=lambda binding, peer: in_use.make_ticket(binding, closes=closes),
            make=Metered,
        )
        for pause in (*self.behind, None):
            try:
                connection: Connection = await dialer.connect()
                break
            except ConnectionRefused as refused:
                # The server's node may not have seen yet that the channel was opened, or topped up.
                behind = refused.detail == CloseDetail.CHANNEL_UNKNOWN or (
                    purchase.topped_up and refused.detail == CloseDetail.DEPOSIT_USED_UP
                )
                if not behind or pause is None:
                    raise
                await asyncio.sleep(pause)
        assert isinstance(connection, Metered)
        return connection

    def spending_over(self, connection: Metered) -> Spending:
        """Return what the program chose, or the defaults, fit for what carries the connection: on pipes each frame
        takes seconds, and costs gas."""
        from dtp.pay.drivers import REPEATS
        from dtp.pay.terms import Spending

        chosen, usual, patience = self._spending, Spending(), connection.patience
        if chosen is None:  # `on_charge` is asked about each charge
            chosen = usual if self._on_charge is None else replace(usual, charge_units=0)
        if patience <= self._limits.handshake or chosen.repeat != usual.repeat:
            return chosen
        return replace(chosen, repeat=patience / REPEATS, patience=patience / 2)

    async def begin(self, connection: Metered, purchase: ChannelPurchase, *, closes: bool = False) -> None:
        """Meter a connection over a channel, which gets more money as needed and ends with it; not where it `closes`:
        then whoever has the purchase does that."""
        in_use, lane = purchase.in_use, purchase.in_use.lane
        try:
            await in_use.journal.run(lambda store: store.begin_lane(lane.channel, lane.lane))
        except BaseException:
            connection.abort(CloseCode.INTERNAL, "the store can't be written")
            await connection.wait_gone()
            raise
        payer = self.make_payer(
            lane,
            purchase.prices,
            purchase.money.funds,
            lambda shown: shown.is_by(in_use.key.public),
            self.spending_over(connection),
            renewed=purchase.topped_up,
            coin=purchase.coin,
        )
        meter = connection.meter = self.make_meter(
            connection,
            in_use.journal,
            payer,
            in_use.key,
            on_charge=self._on_charge,
            on_low=None if closes else purchase.money.add_money,
            purchase=None if closes else purchase,
        )
        meter.begin()
        try:
            async with asyncio.timeout(connection.patience):
                await meter.wait_welcome()
        except TimeoutError:
            raise net.DialTimeout(f"{self._address}: the server did not begin to count in time") from None
        except ConnectionClosed as error:
            raise ConnectionRefused(error.close_code, error.reason, error.detail) from None
        finally:
            if not meter.payer.welcomed:
                connection.abort(CloseCode.PAYMENT, "metering did not begin")
                await connection.wait_gone()
                await meter.wait_settled()  # its last counts are written while the store is open


def _is_of_pass(refused: ConnectionRefused) -> bool:
    """Return whether a server refuses what a pass gives, and not its holder: who pays may come in."""
    return refused.detail in (CloseDetail.PASS_OVER, CloseDetail.QUOTA_USED_UP)


def _is_held(refused: ConnectionRefused, purchase: ChannelPurchase) -> bool:
    """Return whether another process of the server has the channel, which another connection of ours uses."""
    return refused.detail == CloseDetail.CHANNEL_ELSEWHERE and purchase.in_use.is_shared


def _without_network(address: Address) -> Address:
    """Return the address without the option that chose the network: the directory is of that network already."""
    return replace(address, query=tuple(each for each in address.query if each[0] != "network"))
