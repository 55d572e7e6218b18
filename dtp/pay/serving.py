"""Serving for money: a listener whose tickets are checked, whose connections are metered, whose vouchers are claimed.

    async with await dtp.serve("files", handler, wallet=me, terms=Terms(price_mib=2_000_000)) as serving:
        print(serving.address)          # dtp://0x<host>/files

The handler gets a `Metered` connection for each client that has opened a channel. Everything on chain is done here:
the host object and its service, heartbeats, the firewall, claims.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final, cast

from dtp.chain.firewall import Firewall, FirewallRefusal, refuse
from dtp.chain.host import ServiceKind, Terms
from dtp.chain.host_state import HINTED, service_number
from dtp.chain.model import Id
from dtp.chain.node.client import ChainClient
from dtp.chain.node.networks import Network
from dtp.chain.pipes.carrier import kind_for
from dtp.chain.pipes.posts import hint_of
from dtp.errors import DtpError, LocalError
from dtp.identity import Identity
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.listener import Listener, Request, listen
from dtp.net.reachable import is_any_url, own_url
from dtp.pay.claims import Policy
from dtp.pay.errors import ChargeDeclined, QuotaUsedUp
from dtp.pay.hosting import (
    HostHeartbeat,
    NoHost,
    Replaced,
    asks_alive,
    ensure_service,
    find_host,
    make_host,
    refuse_apart,
)
from dtp.pay.metered import Metered
from dtp.pay.server.book import BookLimits
from dtp.pay.server.gate import AdmittedClient
from dtp.pay.server.sale import SaleParts, assemble_sale
from dtp.pay.store import Store
from dtp.pay.terms import ASKING, Exposure
from dtp.pay.wallets import Wallet, identity_of, signer_of
from dtp.session.codes import CloseCode, CloseDetail, Refuse
from dtp.session.limits import DEFAULT, Limits
from dtp.tasks import SupervisedTask

log = logging.getLogger("dtp.pay")

#: Serves one client that pays.
PaidHandler = Callable[[Metered], Awaitable[None]]
#: Answers one connection that asks about the service of this name, and pays for nothing.
AskedHandler = Callable[[Connection, str], Awaitable[None]]
#: How long such a connection may last, seconds: anybody may ask, so nobody may stay.
_ASKED: Final = 5.0


@dataclass(frozen=True)
class Selling:
    """How a service is sold, besides its terms.

    `count_streams` says whether each stream of the client's counts as a request; otherwise only explicit charges do.
    `least_revision` refuses channels of older terms. `recheck` and `claim_every` are in seconds.
    """

    exposure: Exposure = field(default_factory=Exposure)
    policy: Policy = field(default_factory=Policy)
    book: BookLimits = field(default_factory=BookLimits)
    count_streams: bool = True
    least_revision: int = 0
    #: Channels in use are read again so often: a client may ask for a close at any time, and be denied.
    recheck: float = 15.0
    #: Other live endpoints of the host have this same store of vouchers. Without that each would take the whole
    #: deposit for its own, so serving beside them is refused (`EndpointsApart`).
    shares_store: bool = False
    claim_every: float = 60.0


class Serving:
    """A paid service that is up. `async with` closes it: what is worth its gas is claimed then."""

    def __init__(
        self,
        chain: ChainClient,
        host: str,
        service: str,
        handler: PaidHandler,
        store: Store,
        parts: SaleParts,
        selling: Selling,
        on_asked: AskedHandler | None = None,
    ) -> None:
        """`parts` are over `store`, and closed with this one; the store isn't."""
        self.chain = chain
        self._on_asked = on_asked
        self.host = host
        self.service = service
        self.store = store
        self._handler = handler
        self._selling = selling
        self.journal, self.firewall, self.book = parts.journal, parts.firewall, parts.book
        self.gate, self.ledger, self.cashier = parts.gate, parts.ledger, parts.cashier
        self._number = service_number(service)
        #: Says that this endpoint is there; None without heartbeats.
        self.heartbeat: HostHeartbeat | None = None
        #: What the host and its service took before they were there as they are, MIST.
        self.host_gas = 0
        self._rechecking = SupervisedTask(self._check_open_channels, name="dtp-pay-recheck")
        self._opened = AsyncExitStack()
        #: True once `close` has begun.
        self.closed = False
        #: Where others dial, as the host's beacon says; "" without heartbeats.
        self.hint = ""
        #: The listener underneath; set by `serve`.
        self.listener: Listener

    @property
    def address(self) -> Address:
        """What clients dial."""
        return Address("dtp", host_object=self.host, service=self.service)

    @property
    def presence_gas(self) -> int:
        """What being there took on chain, MIST."""
        return 0 if self.heartbeat is None else self.heartbeat.gas

    async def wait_replaced(self) -> Replaced:
        """Wait until another process serves as this endpoint: clients find that one, and this one may end."""
        if self.heartbeat is None:
            await asyncio.Event().wait()
        assert self.heartbeat is not None
        return await asyncio.shield(self.heartbeat.replaced)

    async def start(self, listener: Listener, heartbeat: HostHeartbeat | None) -> None:
        """Begin: heartbeats, rechecks, claims."""
        self.listener = listener
        self.heartbeat = heartbeat
        if heartbeat is not None:
            await heartbeat.start()
            if listener.presence is not None:
                listener.presence.announce_host(self.host, heartbeat.generation, self.hint)
        await self.gate.wait_for_closes()
        self._rechecking.start()
        self.cashier.start(self._selling.claim_every)

    async def admit(self, request: Request) -> AdmittedClient | None:
        """Return what the ticket of a request proves, for the listener; None where nothing is to be paid. Raises
        `Refuse`."""
        if request.again:
            # Who has a meter is looked at now and then; a ticket may be used up by what it pays for.
            return None
        if self._on_asked is not None and request.service.startswith(ASKING):
            rules = self.firewall.rules
            if rules is None or request.peer.sui_address in rules.deny:
                raise refuse(FirewallRefusal.DENIED)
            return None
        admission = await self.gate.admit(request)
        if admission.channel.service != self._number:
            raise Refuse(CloseCode.UNKNOWN_SERVICE, f"{self.service!r} is served here")
        return admission

    async def handle(self, connection: Connection) -> None:
        """Meter a connection that the listener has admitted, and let the handler serve it."""
        connection = cast(Metered, connection)  # as the listener makes them
        if self._on_asked is not None and connection.service.startswith(ASKING):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ASKED):
                    await self._on_asked(connection, connection.service.removeprefix(ASKING))
            return
        assert isinstance(connection.admission, AdmittedClient)
        try:
            meter = await self.ledger.open_meter(
                connection, connection.admission, self._selling.exposure, self._selling.count_streams
            )
        except Refuse as refused:
            connection.abort(refused.code, refused.reason, detail=refused.detail)
            return
        if meter is None:
            connection.abort(CloseCode.PAYMENT, "the channel is closed", detail=CloseDetail.CHANNEL_CLOSED)
            return
        connection.meter = meter
        meter.begin()
        if connection.admission.closes:
            await self.ledger.see_out(connection)
        elif not connection.closed:
            try:
                await self._handler(connection)
            except ChargeDeclined as declined:
                # A client's choice, or the end of its money: no fault of the handler.
                log.info("%r: %s", connection, declined)
                used_up = isinstance(declined, QuotaUsedUp)
                detail = CloseDetail.QUOTA_USED_UP if used_up else CloseDetail.CHARGE_DECLINED
                connection.abort(CloseCode.PAYMENT, str(declined), detail=detail)

    async def _check_open_channels(self) -> None:
        """Look again at everything that is in use: closes that were requested, lists, passes."""
        while True:
            await asyncio.sleep(self._selling.recheck)
            try:
                await self.gate.go_on()
                await self.ledger.check_open_channels(await self.firewall.refresh())
            except DtpError as error:
                log.warning("channels in use can't be read again: %s", error)

    def close_with(self, opened: AsyncExitStack) -> None:
        """Close what this was opened with as the last thing that `close` does."""
        self._opened = opened

    async def close(self, *, grace: float | None = 0.0, claim: bool = True) -> None:
        """Stop serving; connections may finish for `grace` seconds. Then claim what is worth its gas. Idempotent."""
        if self.closed:
            return
        self.closed = True
        async with AsyncExitStack() as held:  # which is let go of whatever becomes of the rest
            held.push_async_exit(self._opened)
            held.push_async_callback(self.journal.close)
            held.push_async_callback(self.firewall.close)
            try:
                if self.heartbeat is not None:
                    await self.heartbeat.stop(withdraw=True)
                await self._rechecking.stop()
                await self.listener.close(grace=grace)
                await self.ledger.wait_settled()
                await self.cashier.stop(claim=claim)
                await self.gate.go_on()
            except BaseException:
                # Also if this is cancelled, while a node says nothing: it serves no more all the same.
                await self._rechecking.stop()
                await self.listener.close()
                await self.cashier.stop(claim=False)
                raise

    async def __aenter__(self) -> Serving:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        await self.close()


def hint_among(urls: Sequence[str]) -> str:
    """Return where others dial what listens at these URLs: the first that other machines reach, with this one's
    address towards the internet in place of 0.0.0.0 and [::]."""
    return own_url(next((each for each in urls if each.startswith(HINTED)), urls[0]))


async def serve(
    service: str,
    handler: PaidHandler,
    *,
    wallet: Wallet,
    urls: str | Sequence[str] = "tcp://127.0.0.1:0",
    network: str | Network | ChainClient | None = None,
    host: Id | None = None,
    terms: Terms | None = None,
    kind: int = ServiceKind.TCP,
    mode: int | None = None,
    identity: Identity | None = None,
    hint: str | None = None,
    plans: Iterable[Id] = (),
    store: Store | str | os.PathLike[str] | None = None,
    selling: Selling | None = None,
    heartbeat: bool = True,
    pipe: bool = False,
    limits: Limits = DEFAULT,
    psk: bytes | None = None,
    max_gas_price: int | None = None,
    on_asked: AskedHandler | None = None,
    clock: Callable[[], float] = time.time,
) -> Serving:
    """Serve `service` for money under the wallet's host object, and claim what is paid.

    `wallet` owns or operates the host; without `host` it is the only one that it made from here. With `terms` the
    host, the service and its terms are made or changed to fit; without, the service has to be there and open.
    `identity` proves this endpoint (the wallet's key without), `hint` is where others dial it: without, the first of
    `urls` that other machines reach, with this one's address towards the internet in place of 0.0.0.0 and [::].
    `plans` are those whose passes let in. With `pipe` it is also served through the chain itself (`?via=pipe`).
    `network` is a name, a URL, or a client that stays the caller's; `max_gas_price` is for one that isn't the
    caller's (MIST a unit of gas; None: a safe default). `store` holds the vouchers (see `dtp.pay.store`).
    `on_asked` answers connections that ask what there is, before they pay: nothing that is for sale.
    The rest is as for `listen`.

    Raises `NoHost`, `EndpointsApart`, and what the chain, the store and `listen` raise.
    """
    selling = selling or Selling()
    if hint is not None and is_any_url(hint):
        raise LocalError(f"nobody can dial {hint}: the hint (--hint) is where others reach this machine")
    async with AsyncExitStack() as stack:
        signer = signer_of(wallet)
        if isinstance(network, ChainClient):
            chain = network
        else:
            chain = await stack.enter_async_context(ChainClient(network, signer, max_gas_price=max_gas_price))
        await chain.connect()
        kept = store if isinstance(store, Store) else stack.enter_context(Store(store))
        owned = await find_host(chain, host)
        if owned is None:
            if terms is None:
                raise NoHost(
                    f"{chain.address} has no host: give terms to have one made, or 'dtp host create'"
                )
            owned = await make_host(chain)
        if terms is not None:
            owned = await ensure_service(chain, owned, service, terms, kind=kind, mode=mode)
        me = identity or identity_of(wallet, signer)
        if me is None:
            raise LocalError(
                "the wallet's key is not an identity: give `identity`, whom clients will find here"
            )
        alone, is_alive = heartbeat and not selling.shares_store, asks_alive(me, psk)
        gas = owned.gas
        if alone:
            gas += await refuse_apart(chain, owned, me.id.key, clock, is_alive=is_alive)
        parts = assemble_sale(
            chain,
            Firewall(chain, owned.host.id, plans=plans, clock=clock),
            kept,
            selling.policy,
            limits=selling.book,
            least_revision=selling.least_revision,
            clock=clock,
        )
        serving = Serving(chain, owned.host.id, service, handler, kept, parts, selling, on_asked)
        serving.host_gas = gas
        await serving.firewall.refresh()
        listener = await listen(
            urls,
            serving.handle,  # every name: a path may follow the service's
            identity=me,
            limits=limits,
            psk=psk,
            admit=serving.admit,
            make=Metered,
        )
        serving.listener = listener
        stack.push_async_callback(serving.close, claim=False)  # nothing happens where it was closed by itself
        beats = None
        if heartbeat:
            serving.hint = hint or hint_among(listener.urls)
            place = hint_of(serving.hint, me)
            beats = HostHeartbeat(chain, owned, me.id.key, place, is_alive=is_alive, alone=alone, clock=clock)
        await serving.start(listener, beats)
        if pipe:
            await listener.add(f"pipe://{serving.host}?to={me.id.key.hex()}", kind_for(chain))
        serving.close_with(stack.pop_all())
    if alone:  # of two that begin at once at least one sees the other
        try:
            gas = await refuse_apart(chain, owned, me.id.key, clock, is_alive=is_alive)
            serving.host_gas += gas
        except BaseException:
            await serving.close(claim=False)
            raise
    return serving
