"""What a daemon does on Sui: the host's firewall in front of its services, and its endpoint in the host's
beacon."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from dtp.daemon.config.model import ChainSettings, Expose
from dtp.errors import ChainError, DtpError, LocalError
from dtp.identity import Identity
from dtp.net.listener import Request
from dtp.session.codes import Refuse

if TYPE_CHECKING:
    from dtp.chain.errors import MoveAborted
    from dtp.chain.firewall import Firewall
    from dtp.chain.heartbeat import EndpointsApart, Heartbeats
    from dtp.chain.host import OpCap
    from dtp.chain.node.client import ChainClient

log = logging.getLogger("dtpd")

#: The largest load that a beacon can have.
_FULL = 65_535


class NoOperator(LocalError):
    """The daemon's account has no operator's cap of the host, so it can't announce its endpoint."""

    code = "no-operator"


class QuotaNotCounted(LocalError):
    """Passes with a quota would open a service that counts nothing."""

    code = "quota-not-counted"


class Gate(Protocol):
    """Admits requests by rules that are kept elsewhere."""

    async def start(self) -> None:
        """Get ready, or raise why that isn't possible."""

    async def admit_request(self, request: Request) -> None:
        """Return if the request is admitted; raise `Refuse` otherwise."""

    async def refresh_rules(self) -> None:
        """Read the rules again. Raise `ChainError`."""

    def check_account(self, account: str, service: str) -> Refuse | None:
        """Return why somebody who was admitted has to leave, judging by the rules last read; None if it may stay.
        Counts nothing."""

    async def close(self) -> None:
        """Release what is open. Idempotent."""


async def client_of(config: ChainSettings, identity: Identity) -> ChainClient:
    """Return a connected client of the network in `config`, that signs by its wallet. Raises `ChainError`."""
    from dtp.chain.keystores import load_key
    from dtp.chain.node.client import ChainClient
    from dtp.chain.signer import KeySigner

    signer = KeySigner.from_identity(identity) if config.wallet is None else load_key(config.wallet)
    chain = ChainClient(config.network, signer, max_gas_price=config.max_gas_price)
    try:
        await chain.connect()
    except DtpError:
        chain.close()
        raise
    return chain


class HostGate:
    """The gate of `[chain]`. `dtp.chain`, and with it pysui, is loaded when it starts."""

    def __init__(self, config: ChainSettings, chain: ChainClient) -> None:
        """`chain` is a connected client, which stays its owner's."""
        self._config = config
        self._chain = chain
        self._firewall: Firewall | None = None

    async def start(self) -> None:
        """Read the rules, so that a wrong host is noticed now. Raises `ChainError`."""
        from dtp.chain.firewall import Firewall

        assert self._config.host is not None, "the configuration was checked"
        self._firewall = Firewall(self._chain, self._config.host, plans=self._config.plans)
        await self.refresh_rules()

    @property
    def firewall(self) -> Firewall:
        """The firewall, which decides."""
        assert self._firewall is not None
        return self._firewall

    async def refresh_rules(self) -> None:
        """Read the rules now, rather than when they have expired and somebody asks. Raise `ChainError`."""
        await self.firewall.refresh()

    async def admit_request(self, request: Request) -> None:
        """Admit a caller according to the host's lists, passes and rates. Raise `Refuse`."""
        await self.firewall.admit(request)

    def refuse_uncounted(self, expose: tuple[Expose, ...]) -> None:
        """Raise `QuotaNotCounted` where a pass opens a service to its holder's identity without the channel that
        counts its quota."""
        from dtp.chain.host_state import service_number

        free = {service_number(one.service): one for one in expose if one.on_chain and one.price is None}
        for plan in () if self.firewall.rules is None else self.firewall.rules.plans:
            if plan.service in free and (plan.quota_requests or plan.quota_bytes):
                name = free[plan.service].service
                raise QuotaNotCounted(
                    f"plan {plan.id} has a quota, which nothing counts while service {name!r} has no price: write "
                    "price = { request = 0 } into its [[expose]]; holders come with a channel then, and pay nothing"
                )

    def check_account(self, account: str, service: str) -> Refuse | None:
        """Return why an account may not use a service any more, None if it may.

        What can't be determined is no reason to disconnect anybody.
        """
        from dtp.chain.firewall import decide, refuse

        rules = self.firewall.rules
        if rules is None:
            return None
        decision = decide(rules, service, account, time.time())
        return None if decision.refusal is None else refuse(decision.refusal, decision.plans)

    async def close(self) -> None:
        """Stop reading rules."""
        if self._firewall is not None:
            await self._firewall.close()


class Announcer:
    """Announces this daemon in the host's beacon, and keeps it alive there, until it is fenced off or stopped.

    `on_fenced` is called when another process has taken this endpoint, or has begun to sell meanwhile: this daemon
    must not serve beside it.
    """

    def __init__(
        self,
        config: ChainSettings,
        chain: ChainClient,
        identity: Identity,
        load: Callable[[], float],
        on_fenced: Callable[[], object],
        check_apart: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = time.time,
        *,
        psk: bytes | None = None,
    ) -> None:
        """`load` returns the used share of capacity, 0 to 1.

        `check_apart` raises `EndpointsApart` where another daemon of the host sells by a store of its own.
        """
        self._config, self._chain, self._identity = config, chain, identity
        self._load, self._on_fenced = load, on_fenced
        self._check_apart, self._clock, self._psk = check_apart, clock, psk
        self._beats: Heartbeats | None = None

    async def start(self) -> None:
        """Send the first heartbeat, for the endpoint in the configuration. Raise `NoOperator`, `ChainError`."""
        from dtp.chain import host
        from dtp.chain.heartbeat import Heartbeats
        from dtp.chain.pipes.posts import hint_of
        from dtp.pay.hosting import asks_alive

        beats = Heartbeats(
            self._chain,
            *await self._find_beacon(),
            self._identity.id.key,
            self._on_lost,
            check_apart=self._check_apart,
            is_alive=asks_alive(self._identity, self._psk),
            load=self._how_full,
            clock=self._clock,
        )
        role = host.Role[self._config.role.upper()]
        hint = hint_of(self._config.endpoint or "", self._identity)
        await beats.start(hint, weight=self._config.weight, role=role)
        self._beats = beats

    async def _find_beacon(self) -> tuple[str, str]:
        """Return the host's beacon, and an operator's cap for it."""
        from dtp.chain import host

        assert self._config.host is not None, "the configuration was checked"
        found = await self._chain.read(host.SCHEMA, host.Host, self._config.host)
        wanted = host.Rights.HEARTBEAT | host.Rights.ENDPOINTS
        caps: list[OpCap] = [
            each
            for each in await self._chain.owned(host.SCHEMA, host.OpCap, self._chain.address)
            if each.host == found.id
            and each.generation == found.op_generation
            and each.rights & wanted == wanted
        ]
        if not caps:
            raise NoOperator(
                f"{self._chain.address} has no operator's cap of host {found.id}: its owner gives one, "
                "or leave endpoint out of [chain]"
            )
        return found.beacon, caps[0].id

    def _how_full(self) -> int:
        return round(_FULL * min(1.0, max(0.0, self._load())))

    def _on_lost(self, error: MoveAborted | EndpointsApart) -> None:
        apart = isinstance(error, LocalError)
        log.error(
            "%s: %s",
            "another daemon began to sell while nobody could reach this one"
            if apart
            else "another process has taken this endpoint over, or its host has removed it",
            error,
            extra={"fields": {"event": "fenced", "generation": self.generation, "why": str(error)}},
        )
        self._on_fenced()

    @property
    def generation(self) -> int:
        """How often the endpoint was taken over before."""
        return 0 if self._beats is None else self._beats.generation

    @property
    def gas(self) -> int:
        """What heartbeats have cost since the start, in MIST."""
        return 0 if self._beats is None else self._beats.gas

    @property
    def fenced(self) -> bool:
        """Whether another process has taken this one's place."""
        return self._beats is not None and self._beats.lost

    async def send_heartbeat(self) -> None:
        """Send one heartbeat now. Raise `ChainError`; if this daemon was fenced off, act on that instead of raising
        it."""
        assert self._beats is not None, "it was started"
        await self._beats.send_heartbeat()

    async def stop(self, *, withdraw: bool) -> None:
        """Send no more heartbeats; with `withdraw`, also have nobody sent here any more. Idempotent. Raises
        nothing: a beacon that can't be updated goes stale by itself."""
        beats, self._beats = self._beats, None
        if beats is None:
            return
        await beats.stop()
        if not withdraw:
            return
        try:
            await beats.withdraw()
        except ChainError as error:
            log.warning("the beacon of host %s can't be told: %s", self._config.host, error)
