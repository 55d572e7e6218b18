"""Two sessions face to face, without any carrier: what one seals is the other's to receive, byte by byte.

For tests of protocols above sessions, and of the sessions themselves. Time and randomness are arguments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

from dtp.core import Buffer
from dtp.identity import Identity
from dtp.session.events import Event, LinkLost, SessionEnded, SplicedData, StreamData
from dtp.session.exchange import Exchanges
from dtp.session.handshake import ClientHandshake, Established, HandshakeConfig, ServerHandshake, Ticket
from dtp.session.limits import DEFAULT, Limits
from dtp.session.link import Link
from dtp.session.noise import Suite
from dtp.session.session import Session

#: Two identities for tests. Their seeds are public: never use them for anything else.
ALICE = Identity(hashlib.sha256(b"dtp.testing alice").digest(), hashlib.sha256(b"alice static").digest())
BOB = Identity(hashlib.sha256(b"dtp.testing bob").digest(), hashlib.sha256(b"bob static").digest())


def entropy(seed: str) -> Callable[[int], bytes]:
    """Return a source of bytes that look random and are the same each time."""
    counter = 0

    def draw(size: int) -> bytes:
        nonlocal counter
        counter += 1
        return hashlib.shake_256(f"{seed} {counter}".encode()).digest(size)

    return draw


def shake_hands(
    client: HandshakeConfig,
    server: HandshakeConfig,
    *,
    suite: Suite = Suite.AESGCM_SHA256,
    known: bool = False,
    service: str = "",
    ticket: Ticket | None = None,
    resume: bytes = b"",
    seed: str = "handshake",
) -> tuple[Established, Established]:
    """Return a whole handshake in memory; `known` for IK (the client knows the server's static key), else XX."""
    one = ClientHandshake(
        replace(client, suites=tuple(each for each in client.suites if each >= suite)),
        entropy(seed + " client"),
        expected=server.identity.id,
        suite=suite,
        service=service,
        remote_static=server.static.public if known else None,
        ticket=ticket,
        resume=resume,
    )
    other = ServerHandshake(server, entropy(seed + " server"))
    while one.established is None or other.established is None:
        other.receive_data(one.data_to_send())
        one.receive_data(other.data_to_send())
    return one.established, other.established


@dataclass
class Wire:
    """One link between the two: the ends' links, and the bytes under way in each direction."""

    client: Link
    server: Link
    to_server: bytearray = field(default_factory=bytearray)
    to_client: bytearray = field(default_factory=bytearray)
    cut: bool = False


class SessionPair:
    """A client's and a server's session, with wires between them that a test can cut and add.

    `events` collects what each side reports; bytes of streams that are spliced by their own ids
    (`Session.splice_stream`) are copied to `StreamData`. Nothing moves until `deliver` or `settle` is called."""

    def __init__(
        self,
        client_limits: Limits = DEFAULT,
        server_limits: Limits = DEFAULT,
        *,
        suite: Suite = Suite.AESGCM_SHA256,
        known: bool = True,
        psk: bytes | None = None,
    ) -> None:
        self.now = 1000.0
        self._suite = suite
        suites = tuple(Suite)
        self.client_endpoint = HandshakeConfig(ALICE, suites, client_limits, psk=psk)
        self.server_endpoint = HandshakeConfig(BOB, suites, server_limits, psk=psk)
        first, second = shake_hands(self.client_endpoint, self.server_endpoint, suite=suite, known=known)
        self.client = Session(
            first,
            client_limits,
            self.now,
            client=True,
            exchanges=Exchanges(ALICE, entropy("client exchanges")),
        )
        self.server = Session(
            second,
            server_limits,
            self.now,
            client=False,
            exchanges=Exchanges(BOB, entropy("server exchanges")),
        )
        self.wires = [Wire(self.client.link, self.server.link)]
        self.events: dict[Session, list[Event]] = {self.client: [], self.server: []}
        self._out = Buffer(256 * 1024)
        self._in = Buffer(1024 * 1024)
        self._handshakes = 0

    def seal(self, wire: Wire, *, client: bool) -> int:
        """Put one C call's worth of what a side wants to send on a wire; gives its size in bytes."""
        session, link = (self.client, wire.client) if client else (self.server, wire.server)
        size = session.seal_records(link, self._out, self.now)
        if size and not wire.cut:
            (wire.to_server if client else wire.to_client).extend(self._out.view[:size])
        self._collect_events(session)
        return size

    def seal_write(self, wire: Wire, client: bool, stream_id: int, data: bytes) -> int:
        """Put a small write on a wire by `Session.seal_write`; 0 when it has to be queued instead."""
        session, link = (self.client, wire.client) if client else (self.server, wire.server)
        size = session.seal_write(link, stream_id, data, self._out, self.now)
        if not wire.cut:
            (wire.to_server if client else wire.to_client).extend(self._out.view[:size])
        return size

    def seal_pieces(self, wire: Wire, client: bool, pieces: Sequence[tuple[int, bytes]]) -> list[int]:
        """Put many small writes on a wire by `Session.seal_pieces`; gives the streams that queued theirs instead."""
        session, link = (self.client, wire.client) if client else (self.server, wire.server)
        block = b"".join(data for _, data in pieces)
        ends = list(accumulate(len(data) for _, data in pieces))
        spans = [
            (key, end - len(data), len(data)) for (key, data), end in zip(pieces, ends, strict=True) if data
        ]
        size, queued = session.seal_pieces(link, spans, block, self._out, self.now)
        if not wire.cut:
            (wire.to_server if client else wire.to_client).extend(self._out.view[:size])
        return queued

    def deliver(self, wire: Wire, size: int, *, client: bool) -> None:
        """Hand up to `size` bytes that are under way to a side; the start of a record stays under way."""
        session, link = (self.client, wire.client) if client else (self.server, wire.server)
        under_way = wire.to_client if client else wire.to_server
        size = min(size, len(under_way))
        if not size or link.lost:
            return
        self._in.view[:size] = under_way[:size]
        used, _ = session.receive_records(link, self._in, 0, size, self.now)
        del under_way[:used]
        self._collect_events(session)

    def settle(self, *, rounds: int = 1000) -> None:
        """Move everything until nothing moves any more."""
        for _ in range(rounds):
            moved = 0
            for wire in self.wires:
                for client in (True, False):
                    moved += self.seal(wire, client=client)
                    before = len(wire.to_client if client else wire.to_server)
                    self.deliver(wire, before, client=client)
                    moved += before - len(wire.to_client if client else wire.to_server)
            if not moved:
                return
        raise AssertionError(f"still moving after {rounds} rounds")

    def pass_time(self, seconds: float) -> None:
        """Let time pass for both sides."""
        self.now += seconds
        for session in (self.client, self.server):
            session.handle_timer(self.now)
            self._collect_events(session)

    def cut(self, wire: Wire) -> None:
        """Lose a wire with all that is under way on it; both sides notice at once."""
        self._remove_wire(wire)
        self.client.link_lost(wire.client, self.now)
        self.server.link_lost(wire.server, self.now)
        self._collect_events(self.client)
        self._collect_events(self.server)

    def resume(self, *, add: bool = False) -> Wire:
        """Return a new handshake, and a wire that resumes the session (or, with `add`, widens it)."""
        self._handshakes += 1
        first, second = shake_hands(
            self.client_endpoint,
            self.server_endpoint,
            suite=self._suite,
            known=True,
            resume=self.client.connection_id,
            seed=f"resume {self._handshakes}",
        )
        wire = Wire(self.client.new_link(first, self.now, add=add), self.server.new_link(second, self.now))
        if not add:
            for old in list(self.wires):
                self._remove_wire(old)
        self.wires.append(wire)
        self._collect_events(self.client)
        return wire

    def _remove_wire(self, wire: Wire) -> None:
        wire.cut = True
        wire.to_client.clear()
        wire.to_server.clear()
        self.wires.remove(wire)

    def _collect_events(self, session: Session) -> None:
        events = session.take_events()
        for event in events:
            self.events[session] += self._copy_pieces(event) if isinstance(event, SplicedData) else [event]
            if isinstance(event, LinkLost):
                for wire in list(self.wires):
                    if event.link in (wire.client, wire.server) and event.link.lost:
                        self._remove_wire(wire)

    def _copy_pieces(self, event: SplicedData) -> Iterator[StreamData]:
        for splice, start, size in zip(event.splices, event.starts, event.sizes, strict=True):
            assert isinstance(splice, int)
            yield StreamData(splice, bytes(self._in.view[start : start + size]))

    def ended(self, session: Session) -> SessionEnded | None:
        """Return how a side's session ended, if it has."""
        return session.ended
