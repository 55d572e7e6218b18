"""Paid services: callers come with a channel, and their vouchers are stored and claimed (all by `dtp.pay`)."""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from dtp.chain.heartbeat import EndpointsApart
from dtp.chain.host import Mode, ServiceKind, Terms
from dtp.chain.host_state import service_number
from dtp.chain.model import canonical_type
from dtp.chain.wallet import money
from dtp.daemon.config.model import BY_CALL, ChainSettings, Expose, Price
from dtp.errors import DtpError
from dtp.net.connection import Connection
from dtp.net.listener import Request
from dtp.pay.claims import Policy
from dtp.pay.errors import ChargeDeclined, QuotaUsedUp
from dtp.pay.hosting import NoHost, Owned, ensure_service, find_host, refuse_apart
from dtp.pay.server.gate import AdmittedClient
from dtp.pay.server.sale import assemble_sale
from dtp.pay.server.server_meter import ServerMeter
from dtp.pay.store.holding import VoucherStore
from dtp.pay.terms import Exposure
from dtp.plurals import count_of
from dtp.session.codes import CloseCode, CloseDetail, Refuse
from dtp.tasks import TaskSet

if TYPE_CHECKING:
    from dtp.chain.firewall import Firewall
    from dtp.chain.heartbeat import IsAlive
    from dtp.chain.node.client import ChainClient
    from dtp.pay.metered import Metered

log = logging.getLogger("dtpd")

#: Seconds between two checks for what is worth claiming.
CLAIM_EVERY = 60.0
_KINDS = {
    "tcp": ServiceKind.TCP,
    "http": ServiceKind.HTTP,
    "json-rpc": ServiceKind.JSON_RPC,
    "grpc": ServiceKind.GRPC,
}


@dataclass(eq=False)
class _Sale:
    """A paying connection, and what its lane had come to before."""

    service: str
    meter: ServerMeter
    before: int

    @property
    def coin(self) -> str:
        """The type of coin that it pays with."""
        admission = self.meter.connection.admission
        assert isinstance(admission, AdmittedClient)
        return canonical_type(admission.channel.coin)

    @property
    def earned(self) -> int:
        newest = self.meter.payee.newest
        return 0 if newest is None else max(0, newest.voucher.amount - self.before)


class Seller:
    """Sells the services that have a price, under the host of `[chain]`."""

    def __init__(
        self,
        config: ChainSettings,
        chain: ChainClient,
        firewall: Firewall,
        store: VoucherStore,
        key: bytes,
        is_alive: IsAlive,
    ) -> None:
        """`chain` is connected and signs; `store` is open, and closed together with this object; `key` is the
        identity's; `is_alive` asks other endpoints."""
        self._config = config
        self._key, self._is_alive = key, is_alive
        self._chain = chain
        self._firewall = firewall
        self._store = store
        # Of several daemons with one store only one claims, and the others can't make it claim at once.
        policy = Policy(most_unclaimed=None) if store.is_shared else Policy()
        parts = assemble_sale(chain, firewall, store, policy, unclaimed_in=Policy().unclaimed_in)
        self.journal, self.book, self.gate = parts.journal, parts.book, parts.gate
        self.ledger, self.cashier = parts.ledger, parts.cashier
        self._sales: set[_Sale] = set()
        self._earned: Counter[tuple[str, str]] = Counter()  # by service and coin
        self._leaving = TaskSet()
        #: Connections that were told to reconnect, since their passes are used up.
        self._used_up: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._offered: dict[str, Price] = {}
        #: What setting prices, and marking another seller as dead, have cost on the chain, in MIST.
        self.host_gas = 0
        #: What callers of a service may owe, and whether each of their streams is a request.
        self._sold: dict[str, tuple[Exposure, bool]] = {}

    async def start(self) -> None:
        """Begin to claim, including what an earlier run has left. Raise `StoreError`."""
        await self.gate.wait_for_closes()
        self.cashier.start(CLAIM_EVERY)

    async def offer_services(self, expose: tuple[Expose, ...]) -> None:
        """Set the prices of these services at the host object. Raise `NoHost`, `EndpointsApart`, `ChainError`."""
        wanted = {one.service: one for one in expose if one.price is not None}
        prices = {name: one.price for name, one in wanted.items() if one.price is not None}
        if prices != self._offered:
            await self._offer_prices(wanted)
            self._offered = prices
            await self._firewall.refresh()
        self._sold = {name: (one.exposure, one.kind not in BY_CALL) for name, one in wanted.items()}

    async def _offer_prices(self, wanted: dict[str, Expose]) -> None:
        owned = await find_host(self._chain, self._config.host)
        if owned is None:
            raise NoHost(f"{self._chain.address} has no host: dtp host create")
        if wanted:
            await self._refuse_apart(owned)
        for name, one in wanted.items():
            if self._offered.get(name) != one.price:
                owned = await self._offer_one(owned, name, one)

    async def check_apart(self) -> None:
        """Refuse to sell beside another seller, once this daemon is announced: if two begin at once, at least one
        of them sees the other.

        Raises `EndpointsApart`, `ChainError`.
        """
        if self._offered:
            owned = await find_host(self._chain, self._config.host)
            if owned is not None:
                await self._refuse_apart(owned)

    async def _refuse_apart(self, owned: Owned) -> None:
        if self._store.is_shared:
            return
        try:
            gas = await refuse_apart(self._chain, owned, self._key, time.time, is_alive=self._is_alive)
        except EndpointsApart as error:
            raise EndpointsApart(
                f"another daemon serves host {owned.host.id} and doesn't share the vouchers of this one: each would "
                "take a caller's whole deposit for its own. Write one database into the files of all of them, "
                '[chain] vouchers = "postgresql://USER@HOST/DATABASE" or "redis://HOST:PORT/NUMBER", '
                "or stop the other"
            ) from error
        self.host_gas += gas  # others may have added theirs by now

    async def _offer_one(self, owned: Owned, name: str, one: Expose) -> Owned:
        known = owned.host.services.get(service_number(name))
        price = one.price
        assert price is not None
        amounts = {"price_request": price.request, "price_mib": price.mib, "min_deposit": price.deposit}
        said: dict[str, Any] = {field: amount for field, amount in amounts.items() if amount is not None}
        before = Terms() if known is None else known.terms
        terms = replace(before, revision=0, **said)
        found = await ensure_service(
            self._chain, owned, name, terms, kind=_KINDS.get(one.kind, ServiceKind.OTHER)
        )
        self.host_gas += found.gas - owned.gas
        for field, amount in said.items():
            if known is not None and getattr(before, field) != amount:
                was, now = (money(each, terms.coin) for each in (getattr(before, field), amount))
                log.info("service %r: %s was %s, is %s", name, field, was, now)
        return found

    # ---- callers --------------------------------------------------------------------------------------------

    async def admit_request(self, request: Request) -> AdmittedClient:
        """Check the ticket of a caller. Raise `Refuse`."""
        return await self.gate.admit(request)

    async def meter_connection(self, connection: Connection) -> bool:
        """Meter an admitted connection; return False if it has ended meanwhile. Raise `Refuse`."""
        admission = connection.admission
        assert isinstance(admission, AdmittedClient)
        exposure, by_stream = self._sold.get(connection.service, (Exposure(), True))
        meter = await self.ledger.open_meter(connection, admission, exposure, by_stream)
        if meter is None:
            raise Refuse(CloseCode.PAYMENT, "the channel is closed", detail=CloseDetail.CHANNEL_CLOSED)
        cast("Metered", connection).meter = meter
        newest = meter.payee.newest
        sale = _Sale(connection.service, meter, 0 if newest is None else newest.voucher.amount)
        self._sales.add(sale)
        meter.begin()
        connection.add_end_callback(lambda: self._start_leaving(self._leave_channel(sale)))
        if admission.closes:
            await self.ledger.see_out(connection)
        return not connection.closed

    def is_metered(self, connection: Connection, config: Expose) -> bool:
        """True if a connection is metered in the way its service is sold now, or isn't metered yet."""
        meter = cast("Metered", connection).meter
        if not isinstance(meter, ServerMeter):
            return True
        return config.price is not None and meter.payee.counts.count_streams == (config.kind not in BY_CALL)

    def find_payer(self, connection: Connection) -> str | None:
        """Return the account whose channel pays for a connection, or None."""
        admission = connection.admission
        return admission.channel.client if isinstance(admission, AdmittedClient) else None

    def is_closing(self, connection: Connection) -> bool:
        """True for a connection that was made only to agree on a close."""
        admission = connection.admission
        return isinstance(admission, AdmittedClient) and admission.closes

    async def wait_for_leaving(self) -> None:
        """Return when nothing is left to do for connections that are over."""
        await asyncio.gather(*self._leaving)

    def _start_leaving(self, work: Coroutine[Any, Any, None]) -> None:
        self._leaving.start(work, name="dtpd-leave")

    async def _leave_channel(self, sale: _Sale) -> None:
        """Count what an ended connection has paid, once all of it is stored."""
        await sale.meter.wait_settled()
        self._sales.discard(sale)
        self._earned[sale.service, sale.coin] += sale.earned

    async def charge_requests(self, connection: Connection, units: int) -> str:
        """Charge for this many requests, and wait until they are paid. Return "", or why they weren't paid."""
        metered = cast("Metered", connection)
        admission, meter = metered.admission, metered.meter
        assert isinstance(admission, AdmittedClient)
        counted = isinstance(meter, ServerMeter) and meter.payee.quota.requests is not None
        if not admission.prices.request and not counted:
            return ""  # the host says that requests are free, and no quota counts them
        try:
            await metered.charge(units)
        except DtpError as error:
            if (
                isinstance(error, QuotaUsedUp)
                and connection not in self._used_up
                and self._others_pay(connection)
            ):
                self._used_up.add(connection)
                self._start_leaving(connection.go_away())  # it reconnects, to pay like callers without a pass
            if isinstance(error, ChargeDeclined) and not isinstance(error, QuotaUsedUp):
                asked = money(units * admission.prices.request, admission.channel.coin)
                count = count_of(units, "request")
                return (
                    f"{error.code}: {asked} for {count} wasn't agreed to by the caller's end: it is more than its "
                    "budget has left, or than what it was set to pay"
                )
            return str(error)
        return ""

    def _others_pay(self, connection: Connection) -> bool:
        """True if its service is also open to callers without a pass."""
        rules = self._firewall.rules
        return rules is not None and rules.state.find_service(connection.service)[1].mode != Mode.PASS

    async def recheck_channels(self) -> None:
        """Check the channels in use again, for requested closes and denied callers. Raise `ChainError`, and
        `StoreError` for the store."""
        await self.gate.go_on()
        await self.ledger.check_open_channels(self._firewall.rules)

    # ---- figures --------------------------------------------------------------------------------------------

    def sum_earned(self, service: str) -> dict[str, int]:
        """Return what callers have vouched for a service since the start, by coin, in its smallest unit."""
        found = Counter({coin: units for (name, coin), units in self._earned.items() if name == service})
        for sale in self._sales:
            if sale.service == service:
                found[sale.coin] += sale.earned
        return dict(found)

    @property
    def claimed(self) -> dict[str, int]:
        """What was claimed on the chain since the start, by coin, in its smallest unit."""
        return dict(self.cashier.claimed)

    @property
    def gas(self) -> int:
        """What claims have cost since the start, in MIST."""
        return self.cashier.gas

    async def close(self) -> None:
        """Claim what is worth its gas, after the last connection has ended, and close."""
        await self.wait_for_leaving()
        await self.ledger.wait_settled()  # including callers that left before they were served
        await self.cashier.stop(claim=True)
        await self.journal.close()
        self._store.close()
