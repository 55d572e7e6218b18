"""Dialing: an address becomes candidates, a candidate a carrier, a carrier a connection."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from dtp import carriers
from dtp.carriers.base import Carrier
from dtp.carriers.nearness import Nearness, dialled_as_told, who_tells
from dtp.core import served_suites
from dtp.errors import CarrierError, PeerError
from dtp.identity import Identity, PeerId
from dtp.net.address import Address, AddressError, check_told
from dtp.net.connection import Connection
from dtp.net.driver import ClosedInHandshake, LinkDriver, OnEstablished
from dtp.net.resolver import Candidate, Resolver, default_resolvers, in_order, resolve_all, resolve_others
from dtp.net.static_keys import KNOWN, StaticKeys
from dtp.session.codes import ConnectionClosed, ConnectionRefused, HandshakeError, HandshakeRefused, Refusal
from dtp.session.exchange import Exchanges
from dtp.session.handshake import ClientHandshake, Established, HandshakeConfig, Ticket
from dtp.session.limits import DEFAULT, Limits
from dtp.session.noise import Suite
from dtp.session.session import Session
from dtp.tasks import start_task

#: Seconds until the next candidate is dialled beside those that haven't answered. A peer's address in its own network
#: leads nowhere from others, and mostly nobody says so: what comes behind it would wait for `limits.handshake` (RFC
#: 8305 has 0.25 s). One of a slow carrier, where each message costs money, waits for all before it.
STAGGER: Final = 0.3


class DialTimeout(CarrierError, TimeoutError):
    """Nobody finished a handshake within `limits.handshake` seconds."""

    code = "dial-timeout"


class NotReached(CarrierError):
    """There was nowhere left to dial."""

    code = "not-reached"


def suites() -> tuple[Suite, ...]:
    """Return the cipher suites that this machine can do, best first: AES only where the hardware has it."""
    available = served_suites()
    return tuple(suite for suite in Suite if suite.cipher in available)


@dataclass(frozen=True)
class Dialer:
    """All that is needed to dial one address again and again."""

    address: Address
    endpoint: HandshakeConfig
    service: str
    resolvers: Sequence[Resolver]
    ticket: Ticket | None = None
    make: type[Connection] = Connection
    #: Give the connection when it has its keys, before the server has admitted it.
    early: bool = False
    #: Dials a carrier's URL.
    dial_carrier: Callable[[str], Awaitable[Carrier]] | None = None
    #: Keys that peers have proven before.
    known: StaticKeys = KNOWN
    #: How near they are who told of the address, also when it is dialled again; None where nobody else did.
    teller: Nearness | None = field(default_factory=who_tells)

    async def connect(self) -> Connection:
        """Return a connection that the server has admitted, or with `early` one whose first words go along with the
        record that the server waits for. Raises the last candidate's error when none works."""
        loop = asyncio.get_running_loop()
        made: list[Connection] = []

        def take_over(driver: LinkDriver, established: Established) -> None:
            exchanges = Exchanges(self.endpoint.identity, os.urandom)
            session = Session(
                established, self.endpoint.limits, loop.time(), client=True, exchanges=exchanges
            )
            made.append(self.make(session, driver, loop, self.dial_candidates))

        try:
            await self.dial_candidates(b"", take_over)
            if self.early:
                return made[0]
            async with asyncio.timeout(made[0].patience):
                await made[0].wait_ready()
        except ConnectionClosed as error:
            if not error.by_peer:  # it broke the protocol, before it had decided
                raise
            raise ConnectionRefused(error.close_code, error.reason, error.detail) from None
        except TimeoutError:
            if not made:  # `DialTimeout`, which is one too: nobody has answered yet
                raise
            made[0].abort()
            raise DialTimeout(f"{self.address}: the peer did not admit us in time") from None
        except asyncio.CancelledError:
            for connection in made:
                connection.abort()
            raise
        return made[0]

    async def dial_candidates(
        self, resume: bytes, take_over: OnEstablished, candidate: Candidate | None = None
    ) -> None:
        """Dial the candidates, or `candidate` alone, in order until a handshake succeeds; `take_over` is called then
        and there, because records may follow at once. Whoever hasn't answered after `STAGGER` seconds has the next
        one dialled beside it. Where none leads anywhere resolvers are asked for others, once. Raises the last
        candidate's error, or what `take_over` raised; `AddressError` where somebody else told of what isn't dialled
        for them."""
        if self.teller is not None:
            check_told(self.address)
        with dialled_as_told(self.teller):
            if candidate is not None:
                await self._dial_first(self._keep_told([candidate]), resume, take_over)
                return
            found = self._keep_told(await resolve_all(self.address, self.resolvers))
            try:
                await self._dial_first(found, resume, take_over)
            except HandshakeRefused:  # it is there, and has said no
                raise
            except (CarrierError, PeerError):
                others = self._keep_told(await resolve_others(self.address, self.resolvers, found))
                if not others:
                    raise
                await self._dial_first(others, resume, take_over)

    def _keep_told(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return those that are dialled where somebody else told of the address: none that costs money, or is nearer
        than whoever tells, whatever this side knows of the peer. Raise `AddressError` where none is left."""
        if self.teller is None:
            return list(candidates)
        kept = [
            each
            for each in candidates
            if not each.address.costs_money and each.address.nearness >= self.teller
        ]
        if candidates and not kept:
            raise AddressError(
                f"{self.address} was told by somebody else, and leads to what costs money to dial, or is nearer than "
                "they are: dial it yourself if that is meant"
            )
        return kept

    async def _dial_first(
        self, candidates: Sequence[Candidate], resume: bytes, take_over: OnEstablished
    ) -> None:
        """Dial candidates until one is taken over. Raises the last one's error."""
        order = in_order(candidates, Random(os.urandom(8)), time.time())
        if len(order) == 1:  # as most addresses have: whoever dials goes on in the next turn of the loop
            await self._dial_candidate(order[0], resume, take_over)
            return None
        waiting = deque(enumerate(order))
        failures: dict[int, Exception] = {
            -1: NotReached(f"{self.address}: all that is known of it has expired")
        }
        is_taken = False

        def take_first(driver: LinkDriver, established: Established) -> None:
            nonlocal is_taken
            if is_taken:
                driver.close_carrier()
            else:
                take_over(driver, established)
                is_taken = True

        dialling: dict[asyncio.Task[None], int] = {}
        try:
            while dialling or waiting:
                if waiting and not is_taken:
                    number, one = waiting.popleft()
                    work = self._dial_candidate(one, resume, take_first)
                    dialling[start_task(work, name="dtp-dial")] = number
                pause = STAGGER if waiting and not _patience_of(waiting[0][1]) else None
                done, _ = await asyncio.wait(dialling, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    number = dialling.pop(task)
                    try:
                        return task.result()
                    except (CarrierError, PeerError) as error:
                        failures[number] = error
            raise failures[max(failures)]
        finally:
            for task in dialling:
                task.cancel()
            await asyncio.gather(*dialling, return_exceptions=True)

    async def _dial_candidate(self, candidate: Candidate, resume: bytes, take_over: OnEstablished) -> None:
        patience = max(self.endpoint.limits.handshake, _patience_of(candidate))
        try:
            async with asyncio.timeout(patience) as limit:
                await self._try_handshakes(candidate, resume, take_over)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise DialTimeout(f"{candidate.address}: no answer in {patience:g} s") from error

    async def _try_handshakes(self, candidate: Candidate, resume: bytes, take_over: OnEstablished) -> None:
        """Try what is best first: IK with a key known from before, then XX; each suite until one is accepted.

        A server with a pre-shared key doesn't answer what it can't read, whether the key, the suite or the static key
        is the reason: so each is tried.
        """
        peer = self.address.peer or candidate.address.peer
        failure: HandshakeError | None = None
        for suite in self.endpoint.suites:
            static = self.known.get_key(peer)
            for known in (None,) if static is None else (static, None):
                try:
                    return await self._attempt_handshake(candidate, peer, suite, known, resume, take_over)
                except HandshakeRefused as error:
                    if error.refusal == Refusal.FAILED and known is not None:
                        self.known.forget_key(peer)
                        continue
                    if error.refusal != Refusal.SUITE:
                        raise
                    failure = error
                    break
                except ClosedInHandshake as error:
                    if self.endpoint.psk is None:
                        raise ClosedInHandshake(f"{error}; it may want a pre-shared key") from None
                    self.known.forget_key(peer)
                    failure = HandshakeError(
                        f"{error}, without a word: its pre-shared key must be another one, or it has none"
                    )
                    failure.__cause__ = error
        assert failure is not None  # there is always a suite to try
        raise failure

    async def _attempt_handshake(
        self,
        candidate: Candidate,
        peer: PeerId | None,
        suite: Suite,
        static: bytes | None,
        resume: bytes,
        take_over: OnEstablished,
    ) -> None:
        if candidate.dial is not None:
            carrier = await candidate.dial()
        else:
            carrier = await (self.dial_carrier or carriers.dial)(candidate.address.carrier_url)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def established(driver: LinkDriver, result: Established) -> None:
            if done.done():  # nobody waits any more
                driver.close_carrier()
                return
            self.known.learn_key(result.peer, result.split.remote_static)
            try:
                take_over(driver, result)
            except PeerError as error:
                driver.close_carrier()
                done.set_exception(error)
            else:
                done.set_result(None)

        def failed(driver: LinkDriver, error: Exception) -> None:
            if not done.done():
                done.set_exception(error)

        handshake = ClientHandshake(
            self.endpoint,
            os.urandom,
            expected=peer,
            suite=suite,
            service=self.service,
            remote_static=static,
            ticket=self.ticket,
            resume=resume,
        )
        driver = LinkDriver(loop, carrier, handshake, established, failed)
        driver.start_carrier()
        try:
            await done
        except asyncio.CancelledError:
            carrier.abort()
            raise


def _patience_of(candidate: Candidate) -> float:
    """Return the seconds that an answer may take that comes by a carrier which is slow by nature; 0 by others."""
    return carriers.patience(candidate.address.carrier_url.partition(":")[0])


class Connecting:
    """What `connect` gives: `await` it, or use it with `async with`, which closes the connection at the end."""

    def __init__(self, dialer: Dialer, on_connected: Callable[[Connection], object] | None = None) -> None:
        self._dialer = dialer
        self._on_connected = on_connected
        self._connection: Connection | None = None

    async def _connect_once(self) -> Connection:
        connection = await self._dialer.connect()
        if self._on_connected is not None:
            self._on_connected(connection)
        return connection

    def __await__(self) -> Generator[None, None, Connection]:
        return self._connect_once().__await__()

    async def __aenter__(self) -> Connection:
        self._connection = await self._connect_once()
        return self._connection

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        assert self._connection is not None
        await self._connection.__aexit__(kind, error, trace)


def connect(
    address: str | Address,
    *,
    identity: Identity | None = None,
    service: str | None = None,
    limits: Limits = DEFAULT,
    psk: bytes | None = None,
    resolvers: Sequence[Resolver] | None = None,
    ticket: Ticket | None = None,
    early: bool = False,
    dial_carrier: Callable[[str], Awaitable[Carrier]] | None = None,
    on_connected: Callable[[Connection], object] | None = None,
) -> Connecting:
    """Connect to the service of a peer: `connection = await connect(...)` or `async with connect(...) as ...`.

    `address` is an `Address` or its text. `identity` is who we are; without it a new identity is made for this
    one connection. `service` overrides the one in the address. `psk` (32 bytes) must be the server's, if it has
    one. `resolvers` are asked in order for `dtp:` addresses; by default the static peer table, the
    chain for host objects, and the LAN for identities.

    With `early` the connection is there a round trip sooner, before the server has let us in:
    what is written at once goes along, is read by the service only if it does, and can't be replayed. A refusal
    is then `ConnectionClosed`, from whatever waits; `await connection.wait_ready()` waits for the verdict alone.

    `dial_carrier` dials carriers' URLs instead of `dtp.carriers.dial`, from a socket of its own, say. `on_connected`
    is called with the connection when there is one.

    Raises `CarrierError` (unreachable, refused, `DialTimeout`), `HandshakeError` (`WrongIdentity`,
    `HandshakeRefused`), `ConnectionRefused` (unknown service, not allowed), `NotResolved`, `AddressError`.
    """
    target = Address.of(address)
    asked = default_resolvers() if resolvers is None else resolvers
    target.check_options(() if target.is_direct else {name for each in asked for name in each.options})
    endpoint = HandshakeConfig(identity or Identity.generate(), suites(), limits, psk=psk)
    return Connecting(
        Dialer(
            address=target,
            endpoint=endpoint,
            service=target.service if service is None else service,
            resolvers=asked,
            ticket=ticket,
            early=early,
            dial_carrier=dial_carrier,
        ),
        on_connected,
    )
