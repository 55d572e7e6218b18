"""Whether a peer is alive: it is dialled, proves its key, and gives its own statement (`dtp.identity.presence`).

Every listener answers the service `dtp.presence` by itself: no handler, price or rule of a program stands before it,
since it says no more than the handshake proves, and who it is that a host's beacon names.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from dtp.errors import CarrierError, PeerError
from dtp.identity import Identity, PeerId
from dtp.identity.presence import MAX_BYTES, PresenceError, PresenceStatement
from dtp.net.address import Address
from dtp.session.codes import CloseCode, ConnectionRefused
from dtp.session.limits import DEFAULT, Limits

if TYPE_CHECKING:
    from dtp.net.connection import Connection
    from dtp.net.resolver import Resolver

#: The service that every listener answers by itself.
SERVICE: Final = "dtp.presence"
#: How long a statement is good for, ms: whoever dials is told a new one.
LIFETIME_MS: Final = 60_000
#: Seconds that one is waited for.
PATIENCE: Final = 5.0


class Announcing:
    """What a listener says of itself; `announce_host` once it serves a host object."""

    def __init__(self, identity: Identity, clock: Callable[[], float] = time.time) -> None:
        self._identity, self._clock = identity, clock
        self._sequence = itertools.count(1)
        self._host, self._generation = "", 0
        # Strangers aren't told where else it listens, unless it is announced to everybody.
        self._hints: tuple[str, ...] = ()

    def announce_host(self, host: str, generation: int, hint: str) -> None:
        """Say from now on that it serves this host object, as this generation, and where it is dialled."""
        self._host, self._generation, self._hints = host, generation, (hint,)

    def sign_statement(self) -> bytes:
        """Return a new statement, signed."""
        now = round(self._clock() * 1000)
        until, sequence = now + LIFETIME_MS, next(self._sequence)
        said = PresenceStatement(
            self._identity.id, self._host, self._generation, sequence, now, until, self._hints
        )
        return said.sign(self._identity)

    async def answer_connection(self, connection: Connection) -> None:
        """Give the statement on the first stream: a handler, as a listener has them.

        Anybody may ask, so nobody may stay.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                stream = await connection.accept_stream()
                async with stream:
                    stream.write(self.sign_statement())
                    stream.write_eof()


async def ask(
    address: Address,
    *,
    resolvers: Sequence[Resolver] = (),
    identity: Identity | None = None,
    limits: Limits = DEFAULT,
    psk: bytes | None = None,
    patience: float = PATIENCE,
) -> PresenceStatement | None:
    """Return what the peer at `address` says of itself now; None where it has proven who it is, and says nothing.

    Raise `CarrierError` and `PeerError` as `connect` does, `TimeoutError` after `patience` seconds, and
    `PresenceError` for a statement that isn't its own.
    """
    from dtp.net.dial import Dialer, suites  # which the listener's module needs, and that one this
    from dtp.session.handshake import HandshakeConfig

    endpoint = HandshakeConfig(identity or Identity.generate(), suites(), limits, psk=psk)
    dialer = Dialer(address=address, endpoint=endpoint, service=SERVICE, resolvers=resolvers)
    async with asyncio.timeout(patience):
        try:
            connection = await dialer.connect()
        except ConnectionRefused as refused:
            if refused.close_code == CloseCode.UNKNOWN_SERVICE:
                return None
            raise
        async with connection:
            stream = await connection.open_stream()
            stream.write_eof()
            data = bytearray()
            while len(data) <= MAX_BYTES and (more := await stream.read(MAX_BYTES + 1)):
                data += more
            said = PresenceStatement.parse(bytes(data))
            if said.peer != connection.peer:
                raise PresenceError(f"{connection.peer} gives the statement of {said.peer}")
            return said


async def is_alive(
    key: bytes,
    url: str,
    *,
    generation: int = 0,
    identity: Identity | None = None,
    psk: bytes | None = None,
) -> bool:
    """True when the peer of this Ed25519 key (32 bytes) answers at a carrier URL, and proves that it is it.

    Not where only a process of a lower `generation` is left there, which another one has replaced.
    """
    try:
        said = await ask(Address.direct(PeerId(key), url), identity=identity, psk=psk)
    except ConnectionRefused:  # by the peer itself, whatever for
        return True
    except (CarrierError, PeerError, TimeoutError):
        return False
    return said is None or not said.host or said.generation >= generation
