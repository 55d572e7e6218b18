"""What a daemon does on Sui: the host's firewall before its services, and its endpoint in the host's beacon."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from dtp.daemon.config.model import Chain
from dtp.errors import ChainError, DtpError, LocalError
from dtp.identity import Identity, PeerId
from dtp.net.listener import Request
from dtp.session.codes import CloseCode

if TYPE_CHECKING:
    from dtp.chain.client import ChainClient
    from dtp.chain.firewall import Firewall
    from dtp.chain.host import Beacon, Endpoint, OpCap

log = logging.getLogger("dtpd")

#: A heartbeat each so much of the time that one is good for.
_BEATS = 3
#: The largest load that a beacon has.
_FULL = 65_535


class NoOperator(LocalError):
    """The daemon's account has no operator's cap of the host, so it can't say where it is."""

    code = "no-operator"


class Gate(Protocol):
    """Lets a request in by what somebody else knows."""

    async def start(self) -> None:
        """Get ready; raises why it can't."""

    async def admit(self, request: Request) -> None:
        """Let it in, or raise `Refuse`."""

    async def refresh(self) -> None:
        """Ask again what decides. Raises `ChainError`."""

    def check(self, peer: PeerId, service: str) -> tuple[CloseCode, str] | None:
        """Whether somebody who was let in may stay: why not, by what was asked last. Counts nothing."""

    async def close(self) -> None:
        """Give up what is open. Idempotent."""


async def client_of(config: Chain, identity: Identity) -> ChainClient:
    """A connected client of the network in `config`, that signs by its wallet. Raises `ChainError`."""
    from dtp.chain.client import ChainClient
    from dtp.chain.keystores import load_key
    from dtp.chain.signer import KeySigner

    signer = KeySigner.from_identity(identity) if config.wallet is None else load_key(config.wallet)
    chain = ChainClient(config.network, signer)
    try:
        await chain.connect()
    except DtpError:
        chain.close()
        raise
    return chain


class HostGate:
    """The gate of `[chain]`. `dtp.chain`, and with it pysui, is loaded when it starts."""

    def __init__(self, config: Chain, chain: ChainClient) -> None:
        """`chain` is a client that is connected, and stays its owner's."""
        self._config = config
        self._chain = chain
        self._firewall: Firewall | None = None

    async def start(self) -> None:
        """Read the rules, so that a wrong host is noticed now. Raises `ChainError`."""
        from dtp.chain.firewall import Firewall

        assert self._config.host is not None, "the configuration was checked"
        self._firewall = Firewall(self._chain, self._config.host)
        await self.refresh()

    @property
    def firewall(self) -> Firewall:
        """What decides."""
        assert self._firewall is not None
        return self._firewall

    async def refresh(self) -> None:
        """Read the rules now, rather than when they are old and somebody asks. Raises `ChainError`."""
        await self.firewall.refresh()

    async def admit(self, request: Request) -> None:
        """As the host's lists, passes and rates say. Raises `Refuse`."""
        await self.firewall.admit(request)

    def check(self, peer: PeerId, service: str) -> tuple[CloseCode, str] | None:
        """See `Gate`. What can't be known is no reason to send anybody away."""
        from dtp.chain.firewall import CLOSE_CODES, decide

        rules = self.firewall.rules
        if rules is None:
            return None
        refusal = decide(rules, service, peer.sui_address, time.time()).refusal
        return None if refusal is None else (CLOSE_CODES[refusal], refusal.value)

    async def close(self) -> None:
        """End readings."""
        if self._firewall is not None:
            await self._firewall.close()


class Announcer:
    """Says in the host's beacon where this daemon is, and that it is alive, until it is fenced off or stopped.

    Each start takes the endpoint over by a higher generation. Who is told that a higher one is there has been
    replaced by another process of the same identity, and must not serve beside it: `on_fenced`. One that was silent
    for longer than its heartbeat is good for was dead to others: it asks `check_apart` before it is alive again.
    """

    def __init__(
        self,
        config: Chain,
        chain: ChainClient,
        key: bytes,
        load: Callable[[], float],
        on_fenced: Callable[[], object],
        check_apart: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`key` is the identity's; `load` says how much of what it can take it has, 0 to 1; `check_apart` raises
        `EndpointsApart` where another daemon of the host sells by a store of its own."""
        self._check_apart, self._clock = check_apart, clock
        self._ttl = self._beaten = 0.0
        self._config, self._chain, self._key = config, chain, key
        self._load, self._on_fenced = load, on_fenced
        self._beacon, self._operator = "", ""
        self._task: asyncio.Task[None] | None = None
        self.generation = 0
        self.fenced = False

    async def start(self) -> None:
        """The first heartbeat, of an endpoint as the configuration has it. Raises `NoOperator`, `ChainError`."""
        from dtp.chain import Program, host

        beacon, self._operator = await self._find()
        self._beacon = beacon.id
        known = next((each for each in beacon.endpoints if each.key == self._key), None)
        program = Program()
        role = host.Role[self._config.role.upper()]
        hint = (self._config.endpoint or "").encode()
        if known is None:
            host.enroll(
                program,
                beacon.id,
                self._operator,
                self._key,
                weight=self._config.weight,
                role=role,
                hint=hint,
            )
        else:
            self.generation = known.generation + 1
            if (known.weight, known.role, known.hint) != (self._config.weight, role, hint):
                host.configure(
                    program,
                    beacon.id,
                    self._operator,
                    self._key,
                    weight=self._config.weight,
                    role=role,
                    hint=hint,
                )
        host.heartbeat(program, beacon.id, self._operator, self._key, self.generation, self._how_full())
        self._ttl, self._beaten = beacon.ttl_ms / 1000, self._clock()
        await self._chain.execute(program)
        self._task = asyncio.create_task(self._beats(beacon.ttl_ms / 1000 / _BEATS), name="dtpd-heartbeat")

    async def _find(self) -> tuple[Beacon, str]:
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
        return await self._chain.read(host.SCHEMA, host.Beacon, found.beacon), caps[0].id

    def _how_full(self) -> int:
        return round(_FULL * min(1.0, max(0.0, self._load())))

    async def beat(self) -> None:
        """One heartbeat, now. Raises `ChainError`; the refusal of one that was fenced off is acted on, not raised."""
        from dtp.chain import Program, host
        from dtp.chain.errors import MoveAborted

        now = self._clock()
        if now - self._beaten > self._ttl and not await self._is_alone():
            return
        program = Program()
        host.heartbeat(program, self._beacon, self._operator, self._key, self.generation, self._how_full())
        try:
            await self._chain.execute(program)
        except MoveAborted as error:
            if error.error not in (host.HostError.FENCED, host.HostError.NO_ENDPOINT):
                raise
            self._fence("another process has taken this endpoint over, or its host has removed it", error)
        else:
            self._beaten = now

    async def _is_alone(self) -> bool:
        from dtp.pay.hosting import EndpointsApart

        try:
            await self._check_apart()
        except EndpointsApart as error:
            self._fence("another daemon began to sell while no heartbeat of this one came", error)
        return not self.fenced

    def _fence(self, what: str, error: Exception) -> None:
        self.fenced = True
        log.error(
            "%s: %s",
            what,
            error,
            extra={"fields": {"event": "fenced", "generation": self.generation, "why": str(error)}},
        )
        self._on_fenced()

    async def _beats(self, interval: float) -> None:
        while not self.fenced:
            await asyncio.sleep(interval)
            try:
                await self.beat()
            except ChainError as error:
                log.warning("no heartbeat of host %s: %s", self._config.host, error)

    async def endpoint(self) -> Endpoint | None:
        """This endpoint as the beacon has it now. Raises `ChainError`."""
        from dtp.chain import host

        beacon = await self._chain.read(host.SCHEMA, host.Beacon, self._beacon)
        return next((each for each in beacon.endpoints if each.key == self._key), None)

    async def stop(self, *, withdraw: bool) -> None:
        """No further heartbeat; `withdraw`: and nobody is sent here any more. Idempotent. Raises nothing: a beacon
        that can't be told goes stale by itself."""
        from dtp.chain import Program, host

        task, self._task = self._task, None
        if task is None:
            return
        if task is not asyncio.current_task():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if not withdraw or self.fenced:
            return
        try:
            # Another process may have taken it over a moment ago: its endpoint stays.
            known = await self.endpoint()
            if known is not None and known.generation == self.generation:
                program = Program()
                host.withdraw(program, self._beacon, self._operator, self._key)
                await self._chain.execute(program)
        except ChainError as error:
            log.warning("the beacon of host %s can't be told: %s", self._config.host, error)
