"""The same bytes through each layer in one process, so that the cost of a layer is a subtraction; and handshakes.

Times are of the processor, so others on the machine do little to them. The carrier alone and the whole connection are
in the table of contenders: they take two processes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from bench.job import READ
from dtp.core import Buffer, LinkOpener, Sealer
from dtp.identity import Identity
from dtp.session.events import StreamData
from dtp.session.frames import FrameType
from dtp.session.handshake import ClientHandshake, Established, HandshakeConfig, ServerHandshake
from dtp.session.limits import DEFAULT
from dtp.session.noise import HandshakePattern, Suite
from dtp.session.session import Session

#: Handed to a layer at a time: what one write of a connection seals.
PIECE = READ - 4096
SUITES = {"AESGCM": Suite.AESGCM_SHA256, "ChaChaPoly": Suite.CHACHAPOLY_SHA256}


def memcpy(size: int) -> float:
    """Processor seconds to copy `size` bytes, a piece at a time, within the cache."""
    source, target = Buffer(PIECE).view, Buffer(PIECE).view
    started = time.process_time()
    for _ in range(size // PIECE):
        target[:] = source
    return time.process_time() - started


def records(size: int, cipher: str) -> tuple[float, float]:
    """Processor seconds to seal `size` bytes into records and to open them."""
    key, piece = os.urandom(32), os.urandom(PIECE)
    sealer, opener = Sealer(cipher, key), LinkOpener(cipher, key)
    out, read = Buffer(READ + 4096), Buffer(READ + 4096)
    sealing = opening = 0.0
    clock = time.process_time
    for index in range(size // PIECE):
        before = clock()
        length = sealer.seal([(FrameType.STREAM, 0, 0, index * PIECE, piece)], out, DEFAULT.record)
        sealed = clock()
        read.view[:length] = out.view[:length]  # the network's part
        copied = clock()
        opener.open(read, 0, length)
        opening += clock() - copied
        sealing += sealed - before
    return sealing, opening


def handshake(
    client: HandshakeConfig, server: HandshakeConfig, static: bytes | None
) -> tuple[Established, Established]:
    """One whole handshake in memory: IK when the server's static key is given, else XX."""
    ours = ClientHandshake(
        client, os.urandom, expected=server.identity.id, suite=client.suites[0], remote_static=static
    )
    theirs = ServerHandshake(server, os.urandom)
    while ours.established is None or theirs.established is None:
        theirs.receive_data(ours.data_to_send())
        ours.receive_data(theirs.data_to_send())
    return ours.established, theirs.established


def endpoints(suite: Suite = Suite.AESGCM_SHA256) -> tuple[HandshakeConfig, HandshakeConfig]:
    """A client's and a server's."""
    return HandshakeConfig(Identity.generate(), (suite,)), HandshakeConfig(Identity.generate(), (suite,))


def handshakes_per_second(pattern: HandshakePattern, seconds: float) -> float:
    """Handshakes per processor second, both ends, one after another for about `seconds` of those."""
    client, server = endpoints()
    static = server.static.public if pattern is HandshakePattern.IK else None
    made, started, now = 0, time.process_time(), 0.0
    while now < seconds:
        handshake(client, server, static)
        made += 1
        now = time.process_time() - started
    return made / now


class Pair:
    """Two sessions joined by copies in memory; no carrier, no event loop."""

    def __init__(self, suite: Suite) -> None:
        ours, theirs = handshake(*endpoints(suite), None)
        self.client = Session(ours, DEFAULT, 0.0, client=True)
        self.server = Session(theirs, DEFAULT, 0.0, client=False)
        self._out, self._in = Buffer(READ), Buffer(READ)
        self.server.admit_client()
        self.exchange()
        self.stream = self.client.open_stream()

    def exchange(self) -> int:
        """Carry everything both ways until nothing is left; gives how many bytes of streams the server got."""
        received, moved = 0, True
        while moved:
            moved = False
            for source, target in ((self.client, self.server), (self.server, self.client)):
                while size := source.seal_records(source.link, self._out, 0.0):
                    self._in.view[:size] = self._out.view[:size]
                    target.receive_records(target.link, self._in, 0, size, 0.0)
                    moved = True
                for event in target.take_events():
                    if type(event) is StreamData:
                        received += len(event.data)
                        target.consume_data(event.stream_id, len(event.data))
        return received

    def send(self, data: bytes) -> int:
        """Write on the client's stream and carry it over."""
        self.client.write_stream(self.stream, data)
        return self.exchange()


def session(size: int, cipher: str) -> float:
    """Processor seconds for `size` bytes through two sessions."""
    pair, piece = Pair(SUITES[cipher]), os.urandom(PIECE)
    started = time.process_time()
    for _ in range(size // PIECE):
        if pair.send(piece) != PIECE:
            raise RuntimeError("the sessions lost bytes")
    return time.process_time() - started


def small_messages(count: int, cipher: str) -> float:
    """Processor microseconds per 64-byte message that is sealed, opened and read by itself, through two sessions."""
    pair, piece = Pair(SUITES[cipher]), bytes(64)
    started = time.process_time()
    for _ in range(count):
        pair.send(piece)
    return (time.process_time() - started) / count * 1e6


def rows(ciphers: tuple[str, ...]) -> dict[str, Callable[[int], float]]:
    """What `layers` measures in this process, by the name of the row."""
    made: dict[str, Callable[[int], float]] = {"memcpy": memcpy}
    for cipher in ciphers:
        made[f"seal {cipher}"] = lambda size, cipher=cipher: records(size, cipher)[0]  # type: ignore[misc]
        made[f"open {cipher}"] = lambda size, cipher=cipher: records(size, cipher)[1]  # type: ignore[misc]
        made[f"seal and open {cipher}"] = lambda size, cipher=cipher: sum(records(size, cipher))  # type: ignore[misc]
        made[f"session pair in memory {cipher}"] = lambda size, cipher=cipher: session(size, cipher)  # type: ignore[misc]
    return made
