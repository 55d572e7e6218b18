"""Everything that a daemon does with the chain: a client, and built on it the firewall, the endpoint, sales and
purchases.

Each part is made when the configuration first needs it; `dtp.chain` and `dtp.pay`, and with them pysui, are loaded
then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtp.daemon.config.model import BY_CALL, ChainSettings, Config, Expose, Forward
from dtp.daemon.paying.onchain import Announcer, Gate, HostGate, client_of
from dtp.daemon.relays.pool import Dial
from dtp.errors import ChainError, ConfigError, DtpError
from dtp.identity import Identity
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.dial import connect
from dtp.net.listener import Listener, Request
from dtp.net.resolver import Resolver
from dtp.session.codes import Refuse
from dtp.session.limits import Limits
from dtp.tasks import SupervisedTask

if TYPE_CHECKING:
    from dtp.chain.node.client import ChainClient
    from dtp.daemon.paying.buying import Buyer, Wallet
    from dtp.daemon.paying.selling import Seller
    from dtp.pay.store.holding import VoucherStore

log = logging.getLogger("dtpd")


def open_sold(where: Path | str | None, *, make: bool = True) -> VoucherStore:
    """Return the store of received vouchers. With `make` False, raise `NoStore` if there is none.

    Raises `StoreError`, `ConfigError`.
    """
    if isinstance(where, str) and where.startswith("redis"):
        from dtp.daemon.state.redis_vouchers import RedisVouchers

        return RedisVouchers(where, make=make)
    if isinstance(where, str):
        from dtp.daemon.state.vouchers import PostgresVouchers

        return PostgresVouchers(where, make=make)
    from dtp.pay.store import Store

    return Store(where, make=make)


def check_sold(url: str) -> None:
    """Raise `ConfigError` for faults of the voucher store at `url` that show without asking a server."""
    if url.startswith("redis"):
        from dtp.daemon.state.redis_vouchers import check_url
    else:
        from dtp.daemon.state.vouchers import check_url
    check_url(url)


class ChainSide:
    """The chain side of one daemon, begun by `start`. Does nothing without `[chain]`."""

    def __init__(
        self,
        config: Config,
        identity: Identity,
        limits: Limits,
        psk: bytes | None,
        *,
        gate: Gate | None = None,
        client: ChainClient | None = None,
        alone: bool = True,
    ) -> None:
        """`gate` and `client` replace those of `[chain]`; a client stays its owner's. `alone`: this is the one
        process, of possibly several, that announces the endpoint and sells."""
        self._config: ChainSettings | None = config.chain
        self._unannounced = config.unannounced
        self._identity, self._limits, self._psk = identity, limits, psk
        self._client, self._owns_client = client, False
        self.gate = gate
        self._alone = alone
        self.announcer: Announcer | None = None
        self.seller: Seller | None = None
        self._wallet: Wallet | None = None
        self._buyers: dict[Forward, Buyer] = {}
        self._looking: SupervisedTask | None = None
        #: Why the chain couldn't be asked the last time; "" if it could.
        self._chain_trouble = ""

    @property
    def client(self) -> ChainClient | None:
        """The client of the chain; None without `[chain]`."""
        return self._client

    async def start(self, load: Callable[[], float], on_fenced: Callable[[], object]) -> None:
        """Connect, and read the host's rules. Raise `ChainError`, `NoOperator`."""
        self._load, self._on_fenced = load, on_fenced
        if self._config is None:
            return
        if self.gate is None:
            if self._client is None:
                self._client, self._owns_client = await client_of(self._config, self._identity), True
            if self._config.host is not None:
                self.gate = HostGate(self._config, self._client)
        if self.gate is not None:
            await self.gate.start()

    async def announce_daemon(self, listener: Listener | None = None) -> None:
        """Announce the daemon in the beacon, now that it listens, and to whoever dials its `listener`.

        Raise `NoOperator`, `ChainError`, and `EndpointsApart` where another daemon began to sell at the same time.
        """
        if self._unannounced and self._alone:
            log.warning("%s", self._unannounced, extra={"fields": {"event": "unannounced"}})
        if self._config is None or self._config.endpoint is None or not self._alone or self._client is None:
            return
        self.announcer = Announcer(
            self._config,
            self._client,
            self._identity,
            self._load,
            self._on_fenced,
            self._check_apart,
            psk=self._psk,
        )
        await self.announcer.start()
        if listener is not None and listener.presence is not None:
            host, hint = self._config.host or "", self._config.endpoint
            listener.presence.announce_host(host, self.announcer.generation, hint)
        await self._check_apart()

    async def _check_apart(self) -> None:
        if self.seller is not None:
            await self.seller.check_apart()

    def look_again(self, look: Callable[[], Awaitable[None]]) -> None:
        """Query the chain from now on, every `[chain] refresh` seconds, and call `look` each time."""
        if self._config is not None and self._looking is None:
            every = self._config.refresh
            self._looking = SupervisedTask(lambda: self._refresh_repeatedly(look, every), name="dtpd-recheck")
            self._looking.start()

    async def _refresh_repeatedly(self, look: Callable[[], Awaitable[None]], every: float) -> None:
        while True:
            await asyncio.sleep(every)
            try:
                await self.refresh_rules()
            except DtpError as error:  # or from a broken row of the store
                self._chain_trouble = str(error) if isinstance(error, ChainError) else ""
                log.warning("the chain can't be asked again: %s", error)
            else:
                self._chain_trouble = ""
                await look()

    async def refresh_rules(self) -> None:
        """Read rules and the state of channels in use again. Raise `ChainError`, `LocalError`."""
        if self.gate is not None:
            await self.gate.refresh_rules()
        if self.seller is not None:
            await self.seller.recheck_channels()

    # ---- selling --------------------------------------------------------------------------------------------

    async def offer_services(self, expose: tuple[Expose, ...]) -> None:
        """Set the prices of these services at the host object.

        Raise `QuotaNotCounted`, `NoHost`, `EndpointsApart`, `ChainError`, `StoreError`.
        """
        if isinstance(self.gate, HostGate):
            self.gate.refuse_uncounted(expose)
        if not self._alone or (self.seller is None and all(one.price is None for one in expose)):
            return
        if self.seller is None:
            from dtp.daemon.paying.selling import Seller
            from dtp.pay.hosting import asks_alive

            assert self._config is not None, "the configuration was checked"
            if self._client is None or not isinstance(self.gate, HostGate):
                raise ConfigError("a price takes the host of [chain], not another gate")
            store = await asyncio.to_thread(open_sold, self._config.vouchers)
            rules, is_alive = self.gate.firewall, asks_alive(self._identity, self._psk)
            self.seller = Seller(self._config, self._client, rules, store, self._identity.id.key, is_alive)
            await self.seller.start()
        await self.seller.offer_services(expose)

    async def admit_request(self, request: Request, config: Expose) -> object:
        """Admit a caller whom the chain allows, and who comes with a channel where that is wanted. Raise
        `Refuse`."""
        if config.price is not None:
            assert self.seller is not None
            return await self.seller.admit_request(request)
        assert self.gate is not None, "the configuration was checked"
        await self.gate.admit_request(request)
        return None

    def is_to_close(self, request: Request, config: Expose) -> bool:
        """True for a caller of a paid service who connects only to agree on the close of its channel."""
        if config.price is None or request.again:
            return False
        from dtp.pay.ticket import is_to_close

        return is_to_close(request.ticket)

    def is_closing(self, connection: Connection) -> bool:
        """True for a connection that was admitted for that only: nothing is served on it, so no rule ends it."""
        return self.seller is not None and self.seller.is_closing(connection)

    def check_account(self, connection: Connection, account: str) -> Refuse | None:
        """Return why an admitted caller has to leave, judging by the rules last read; None if it may stay."""
        if self.gate is None or self.is_closing(connection):
            return None
        payer = None if self.seller is None else self.seller.find_payer(connection)
        return self.gate.check_account(payer or account, connection.service)

    def charge_of(self, config: Expose) -> Callable[[Connection, int], Awaitable[str]] | None:
        """Return what charges for a service's requests one by one; None where streams are counted.

        This also applies where requests are free: plans and their quotas are read from the chain again and again,
        and each caller's own terms say whether its calls count.
        """
        if self.seller is None or config.price is None or config.kind not in BY_CALL:
            return None
        return self.seller.charge_requests

    @property
    def makes(self) -> type[Connection]:
        """The class of peers' connections. A host's connections can be metered."""
        if self._config is None or self._config.host is None or self._client is None:
            return Connection
        from dtp.pay.metered import Metered

        return Metered

    # ---- buying ---------------------------------------------------------------------------------------------

    def dial_of(self, forward: Forward) -> Dial | None:
        """Return what dials the service of a forward; None for the usual way."""
        if self._config is None or self._client is None or not any(each.host_object for each in forward.to):
            return None
        wallet = self._open_wallet(self._client)
        if forward.budget is None:

            async def find(address: Address, resolvers: Sequence[Resolver] | None) -> Connection:
                return await connect(
                    address,
                    identity=self._identity,
                    limits=self._limits,
                    psk=self._psk,
                    resolvers=resolvers or wallet.resolvers,
                )

            return find
        from dtp.daemon.paying.buying import Buyer

        buyer = Buyer(wallet, forward.budget, self._identity, self._limits, self._psk, forward.to)
        self._buyers[forward] = buyer
        return buyer.dial_paid

    def _open_wallet(self, client: ChainClient) -> Wallet:
        if self._wallet is None:
            from dtp.daemon.paying.buying import Wallet
            from dtp.pay.store import Store

            assert self._config is not None
            where = self._config.vouchers if isinstance(self._config.vouchers, Path) else None
            self._wallet = Wallet(client, Store(where, power_safe=False))
        return self._wallet

    # ---- status ---------------------------------------------------------------------------------------------

    def of_service(self, config: Expose) -> dict[str, Any]:
        """Return what this adds to the status of a service."""
        if config.price is None or self.seller is None:
            return {}
        from dtp.chain.model import SUI_COIN

        earned = self.seller.sum_earned(config.service)
        others = {coin: units for coin, units in earned.items() if coin != SUI_COIN}
        return {"earned": earned.get(SUI_COIN, 0)} | ({"earned_in": others} if others else {})

    def of_forward(self, config: Forward) -> dict[str, Any]:
        """Return what this adds to the status of a forward."""
        buyer = self._buyers.get(config)
        if buyer is None or config.budget is None:
            return {}
        return {"spent": buyer.spent, "budget": config.budget.most, "every": config.budget.every}

    def get_status(self) -> dict[str, Any]:
        """Return what this adds to the status of the daemon."""
        found: dict[str, Any] = {}
        if self.gate is not None:
            found["chain_up"], found["chain_trouble"] = not self._chain_trouble, self._chain_trouble
        gas: dict[str, int] = {}
        if self.seller is not None:
            found["claimed"] = self.seller.claimed
            gas |= {"claims": self.seller.gas, "host": self.seller.host_gas}
            fault = self.seller.journal.fault
            found["vouchers_up"], found["vouchers_trouble"] = (
                fault is None,
                "" if fault is None else str(fault),
            )
        if self.announcer is not None:
            found["fenced"], gas["presence"] = self.announcer.fenced, self.announcer.gas
        return found | ({"gas_mist": gas} if gas else {})

    # ---- the end --------------------------------------------------------------------------------------------

    async def withdraw_endpoint(self, *, withdraw: bool = True) -> None:
        """Have no more callers sent here by the beacon. Idempotent."""
        if self.announcer is not None:
            await self.announcer.stop(withdraw=withdraw)

    async def close(self) -> None:
        """Claim what is worth it, after the last connection has ended, and close everything. Idempotent."""
        if self._looking is not None:
            await self._looking.stop()
            self._looking = None
        await self.withdraw_endpoint()
        if self.seller is not None:
            await self.seller.close()
            self.seller = None
        if self._wallet is not None:
            self._wallet.tell_open()
            self._wallet.close()
            self._wallet = None
        if self.gate is not None:
            await self.gate.close()
        if self._owns_client and self._client is not None:
            self._client.close()
            self._client = None
