"""What the hostile tests share: the attack, its bystander, and how to speak without being a peer."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator

import pytest

from dtp.session.codes import CloseCode, HandshakeError, Refusal
from dtp.session.handshake import ServerHandshake
from dtp.session.limits import Limits
from dtp.session.noise import Suite

from .handshake import Handshake, Person
from .ours import ALICE, BOB, DEFAULT, PSK, Duo, endpoint, shake
from .test_interop import admitted
from .wire import FIN, Frame, RecordSealer, Type, attach_proof, decode_frames, frame

MALLORY = Person(b"\x09" * 32, b"\x99" * 32)
PLAIN = ("XX", "25519_ChaChaPoly_SHA256")


@pytest.fixture(autouse=True)
def bystander() -> Iterator[None]:
    """Another connection, in use before and after the attack."""
    duo = admitted(Duo(True))
    stream = duo.us.open_stream()
    duo.us.write_stream(stream, b"before")
    duo.settle()
    yield
    duo.us.write_stream(stream, b", after")
    duo.us.finish_stream(stream)
    duo.second.write(stream, b"well", fin=True)
    duo.settle()
    assert bytes(duo.second.archive[stream].got) == b"before, after"
    assert bytes(duo.ours.got[stream]) == b"well"


def stream(number: int, offset: int, data: bytes, fin: bool = False) -> bytes:
    return frame(Type.STREAM, number, offset, flags=FIN if fin else 0, rest=data)


def attack(duo: Duo, *frames: bytes, name: int = 0) -> CloseCode | None:
    """Sends the frames as one record and gives what our side ends the session with; the peer hears the same."""
    for link in duo.second.links.values():
        if link.number == duo.theirs[name]:
            link.send(*frames)
    duo.carry_to_ours(name)
    code = duo.ours.closed_with
    if code is not None:
        duo.carry_to_second(name)
        assert duo.second.closed is not None
        assert duo.second.closed[:2] == (False, int(code))
        assert duo.us.stream_ids == []
    return code


def said(duo: Duo) -> list[Frame]:
    """The frames that our side sends now, which the other side does not get to see."""
    opener = duo.second.links[duo.theirs[0]].opener
    opener.feed(duo.ours.take(0))
    return [got for record in iter(opener.next, None) for got in decode_frames(record)]


def refusal(server: ServerHandshake, data: bytes) -> bytes:
    """What a server says to the bytes, all at once, which it must refuse."""
    with pytest.raises(HandshakeError):
        server.receive_data(data)
    assert server.established is None
    return server.data_to_send()


def say(code: Refusal) -> bytes:
    return b"\x00\x00\x00" + bytes([code])


def listening(
    limits: Limits = DEFAULT, psk: bytes | None = None, suites: tuple[Suite, ...] = tuple(Suite)
) -> ServerHandshake:
    ending = endpoint(BOB, limits, psk)
    object.__setattr__(ending, "suites", suites)
    return ServerHandshake(ending, random.Random(1).randbytes)


def first_message(pattern: str = "XX", server: Person = BOB, **payload: object) -> Handshake:
    psk = PSK if "psk" in pattern else None
    return Handshake(
        True,
        ALICE,
        b"\x42" * 32,
        ALICE.payload(**payload),
        pattern=pattern,
        suite=PLAIN[1],
        server=server,
        psk=psk,
    )


def fresh(duo: Duo) -> tuple[int, RecordSealer, bytes]:
    """Another handshake with ours for the same session; its carrier's name, our peer's sealer, and `h`."""
    duo.names += 1
    name = duo.names
    resume = duo.us.connection_id
    them = BOB if duo.we_dial else ALICE
    established, keys, _ = shake(
        duo.we_dial,
        limits=duo.limits,
        theirs=them.payload(resume=None if duo.we_dial else resume),
        seed=100 + name,
        resume=resume,
    )
    duo.ours.add(name, established)
    return name, RecordSealer(keys.suite, keys.send), keys.h


def attach(duo: Duo, h: bytes, number: int = 1, *, secret: bytes | None = None, flags: int = 0) -> bytes:
    side = "server" if duo.we_dial else "client"
    proof = attach_proof(duo.second.first.secret if secret is None else secret, side, h)
    return frame(Type.ATTACH, duo.us.connection_id, number, proof, flags=flags)


def memory_of(work: Iterator[None]) -> int:
    """Peak bytes that the work had allocated beyond the start."""
    tracemalloc.start()
    try:
        for _ in work:
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
