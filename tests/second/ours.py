"""The implementation under test, put on the same footing as `SecondPeer`: bytes in by link, bytes out by link.

Links have the carrier's name here (any number that the test chose), because a server learns a link's own number
only from ATTACH.
"""

from __future__ import annotations

import random
from collections import defaultdict
from typing import TypeVar

from dtp.core import Buffer
from dtp.identity import Identity
from dtp.session import events as ev
from dtp.session.codes import CloseCode, HandshakeError
from dtp.session.exchange import Exchanges
from dtp.session.handshake import ClientHandshake, Established, HandshakeConfig, ServerHandshake
from dtp.session.limits import DEFAULT, Limits
from dtp.session.link import Link
from dtp.session.noise import HandshakePattern, Suite, protocol_name
from dtp.session.receiving import MOST_FRAMES
from dtp.session.session import Session

from .handshake import Handshake, Keys, Person
from .noise import PATTERNS
from .peer import SecondPeer
from .wire import Payload

ALICE, BOB = Person(b"\x01" * 32, b"\x11" * 32), Person(b"\x02" * 32, b"\x22" * 32)
PSK = b"\x77" * 32
SUITES = {protocol_name(HandshakePattern.XX, suite).removeprefix("Noise_XX_"): suite for suite in Suite}
E = TypeVar("E")
#: Small enough that a few hundred frames reach every limit.
SMALL = Limits(stream_window=1024, connection_window=2048, streams=4, datagram=100, record=512, quantum=200)


def endpoint(
    person: Person, limits: Limits = DEFAULT, psk: bytes | None = None, best: Suite = Suite.AESGCM_SHA256
) -> HandshakeConfig:
    """One with the suite `best` and all that are worse."""
    suites = tuple(suite for suite in Suite if suite >= best)
    return HandshakeConfig(Identity(person.seed, person.static), suites, limits, psk=psk)


def params_of(limits: Limits) -> list[int]:
    return [limits.stream_window, limits.connection_window, limits.streams, limits.datagram]


class Ours:
    """A `Session` with its carriers' bytes. The application in it reads at once unless `lazy`."""

    def __init__(self, established: Established, limits: Limits, *, client: bool, lazy: bool = False) -> None:
        person = ALICE if client else BOB
        exchanges = Exchanges(Identity(person.seed, person.static), random.Random("exchanges").randbytes)
        self.now = 1000.0
        self.limits = limits
        self.lazy = lazy
        self.session = Session(established, limits, self.now, client=client, exchanges=exchanges)
        self.links: dict[int, Link] = {0: self.session.link}
        self.tails: dict[int, bytes] = defaultdict(bytes)
        self.events: list[ev.Event] = []
        self.got: dict[int, bytearray] = defaultdict(bytearray)
        self.unread: dict[int, int] = defaultdict(int)
        self.finished: set[int] = set()
        self.resets: dict[int, int] = {}
        self.done: set[int] = set()
        self.into, self.out = Buffer(1 << 18), Buffer(1 << 18)

    def receive(self, name: int, data: bytes) -> None:
        """Bytes from a carrier, however many."""
        count = 0
        while (data or count > MOST_FRAMES) and not self.links[name].lost:
            room = self.into.size - len(self.tails[name])
            part, data = self.tails[name] + data[:room], data[room:]
            self.into.view[: len(part)] = part
            used, count = self.session.receive_records(self.links[name], self.into, 0, len(part), self.now)
            self.tails[name] = bytes(self.into.view[used : len(part)])
            self.collect()

    def take(self, name: int, most: int = 64) -> bytes:
        """All bytes for a carrier. A session that would not stop to send fails the test."""
        out, link = b"", self.links[name]
        for _ in range(most):
            size = self.session.seal_records(link, self.out, self.now)
            if not size:
                self.collect()
                return out
            out += bytes(self.out.view[:size])
        raise AssertionError(f"after {most} calls of seal there is still more: {len(out)} bytes")

    def collect(self) -> None:
        for event in self.session.take_events():
            self.events.append(event)
            if isinstance(event, ev.StreamData):
                assert event.stream_id not in self.finished
                self.got[event.stream_id] += event.data
                self.unread[event.stream_id] += len(event.data)
            elif isinstance(event, ev.StreamFinished):
                assert event.stream_id not in self.finished
                self.finished.add(event.stream_id)
            elif isinstance(event, ev.StreamWasReset):
                self.resets[event.stream_id] = event.error_code
            elif isinstance(event, ev.StreamDone):
                self.done.add(event.stream_id)
        if not self.lazy:
            self.read_all()

    def read_all(self) -> None:
        for stream, size in list(self.unread.items()):
            self.session.consume_data(stream, size)
            del self.unread[stream]

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.session.handle_timer(self.now)
        self.collect()

    def add(self, name: int, established: Established, *, add: bool = False) -> None:
        """Another carrier's finished handshake."""
        self.links[name] = self.session.new_link(established, self.now, add=add)
        self.collect()

    def lose(self, name: int) -> None:
        self.session.link_lost(self.links[name], self.now)
        self.tails.pop(name, None)
        self.collect()

    @property
    def closed_with(self) -> CloseCode | None:
        """The code that this side ended the session with, if it did."""
        ended = self.session.ended
        return None if ended is None or ended.by_peer else CloseCode(ended.close_code)

    def named(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]


def shake(
    we_dial: bool,
    *,
    pattern: str = "XX",
    suite: str = "25519_ChaChaPoly_SHA256",
    limits: Limits = DEFAULT,
    theirs: Payload | None = None,
    seed: int = 0,
    resume: bytes = b"",
    cuts: random.Random | None = None,
) -> tuple[Established, Keys, bytes]:
    """A handshake between ours (Alice when we dial, else Bob) and the second implementation.

    Gives both results and the bytes behind the handshake that ours has not taken. `cuts` splits the bytes.
    """
    rng = random.Random(f"{pattern} {suite} {seed}")
    psk = PSK if "psk" in pattern else None
    us, them = (ALICE, BOB) if we_dial else (BOB, ALICE)
    ending = endpoint(us, limits, psk, SUITES[suite] if we_dial else Suite.AESGCM_SHA256)
    ours: ClientHandshake | ServerHandshake
    payload = theirs or them.payload(resume=resume or None if not we_dial else None)
    if we_dial:
        ours = ClientHandshake(
            ending,
            rng.randbytes,
            expected=endpoint(BOB).identity.id,
            suite=SUITES[suite],
            remote_static=BOB.static_public if PATTERNS[pattern][0] else None,
            resume=resume,
        )
        second = Handshake(False, them, rng.randbytes(32), payload, psk=psk)
    else:
        ours = ServerHandshake(ending, rng.randbytes)
        second = Handshake(
            True, them, rng.randbytes(32), payload, pattern=pattern, suite=suite, server=BOB, psk=psk
        )
    tail = b""
    while True:
        data, second.out = second.out, b""
        data = tail + data
        back = b""
        for part in pieces(data, cuts):
            back += part
            used = ours.receive_data(back)
            back = back[used:]
        tail = back
        for part in pieces(ours.data_to_send(), cuts):
            second.feed(part)
        if not second.out and ours.established is not None and second.keys is not None:
            return ours.established, second.keys, tail


def pieces(data: bytes, cuts: random.Random | None) -> list[bytes]:
    if cuts is None:
        return [data]
    out = []
    while data:
        size = cuts.randint(1, 20)
        out.append(data[:size])
        data = data[size:]
    return out


class Duo:
    """Ours and the second implementation, joined by carriers 0, 1, 2... that are cut and added at will."""

    def __init__(
        self,
        we_dial: bool,
        *,
        pattern: str = "XX",
        suite: str = "25519_ChaChaPoly_SHA256",
        limits: Limits = DEFAULT,
        params: list[int] | None = None,
        lazy: bool = False,
        chunk: int = 300,
        cuts: random.Random | None = None,
    ) -> None:
        self.we_dial, self.suite, self.limits = we_dial, suite, limits
        self.params = params or params_of(limits)
        self.cuts = cuts
        self.names = 0
        self.theirs: dict[int, int] = {0: 0}  # carrier's name -> the second implementation's number for it
        them = BOB if we_dial else ALICE
        established, keys, tail = shake(
            we_dial,
            pattern=pattern,
            suite=suite,
            limits=limits,
            theirs=them.payload(params=self.params),
            cuts=cuts,
        )
        self.ours = Ours(established, limits, client=we_dial, lazy=lazy)
        self.second = SecondPeer(keys, chunk=chunk)
        self.ours.receive(0, tail)
        self.to_ours: dict[int, bytes] = {0: b""}
        self.to_second: dict[int, bytes] = {0: b""}

    @property
    def us(self) -> Session:
        return self.ours.session

    def carry_to_ours(self, name: int, most: int | None = None) -> int:
        """Hands over what the second implementation has said on a carrier, at most `most` bytes of it."""
        number = self.theirs[name]
        if number in self.second.links:
            self.to_ours[name] += self.second.take(number)
        data = self.to_ours[name][:most]
        self.to_ours[name] = self.to_ours[name][len(data) :]
        for part in pieces(data, self.cuts):
            self.ours.receive(name, part)
        return len(data)

    def carry_to_second(self, name: int, most: int | None = None) -> int:
        self.to_second[name] += self.ours.take(name)
        data = self.to_second[name][:most]
        self.to_second[name] = self.to_second[name][len(data) :]
        for part in pieces(data, self.cuts):
            number = self.theirs[name]
            if number in self.second.links:
                link = self.second.links[number]
                self.second.receive(number, part)
                self.theirs[name] = link.number
        return len(data)

    def settle(self, rounds: int = 2000) -> None:
        """Carries bytes and lets time pass until nothing moves any more."""
        quiet = 0
        for _ in range(rounds):
            moved = 0
            for name in list(self.theirs):
                if name not in self.theirs:
                    continue  # given up while another's bytes were carried
                number = self.theirs[name]
                if number in self.second.links and self.second.links[number].attached:
                    self.second.pump(number)
                moved += self.carry_to_ours(name) + self.carry_to_second(name)
                self.sweep()
            quiet = 0 if moved or self.hang_up() else quiet + 1
            if quiet > 1:
                return
            if not moved:
                self.ours.wait(0.2)
        raise AssertionError(f"still moving after {rounds} rounds")

    def sweep(self) -> None:
        """A carrier that both sides have dropped is no more."""
        for name, number in list(self.theirs.items()):
            if number not in self.second.links and self.ours.links[name].lost:
                self.cut(name)

    def hang_up(self) -> bool:
        """A carrier that one side has dropped is closed for the other, too; True when there was one."""
        left = [
            n
            for n, number in self.theirs.items()
            if number not in self.second.links or self.ours.links[n].lost
        ]
        for name in left:
            self.cut(name)
        return bool(left)

    def cut(self, name: int) -> None:
        """The carrier is gone with all that was under way, and both sides know."""
        number = self.theirs.pop(name)
        self.to_ours.pop(name)
        self.to_second.pop(name)
        self.ours.lose(name)
        if number in self.second.links:
            self.second.lose(number)

    def dial(self, *, add: bool = False, pattern: str = "IK") -> int:
        """A new carrier and handshake that resumes the session; its name. The client has sent its ATTACH."""
        self.names += 1
        name = self.names
        resume = self.us.connection_id
        them = BOB if self.we_dial else ALICE
        payload = them.payload(params=self.params, resume=None if self.we_dial else resume)
        established, keys, tail = shake(
            self.we_dial,
            pattern=pattern,
            suite=self.suite,
            limits=self.limits,
            theirs=payload,
            seed=name,
            resume=resume,
            cuts=self.cuts,
        )
        if self.we_dial:
            self.ours.add(name, established, add=add)
            self.theirs[name] = self.second.accept(keys)
        else:
            self.theirs[name] = self.second.attach(keys, add=add)
            self.ours.add(name, established)
        self.to_ours[name], self.to_second[name] = b"", b""
        self.ours.receive(name, tail)
        return name


__all__ = ["ALICE", "BOB", "DEFAULT", "PSK", "SMALL", "SUITES", "Duo", "HandshakeError", "Ours", "shake"]
