"""A second implementation of docs/presence.md: states and messages as bytes, and who is there, in plain Python.

It shares no code with the package. What comes is signed, or refused, by PyNaCl and BLAKE3 themselves.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import msgpack
from blake3 import blake3
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

State = tuple[bytes, bytes, int, int, bytes, bytes]
Session = tuple[bytes, bytes]


def signed_bytes(graph: str, author: bytes, session: bytes, sequence: int, date: int, value: bytes) -> bytes:
    name = graph.encode()
    head = b"dtp.graph.presence.v1" + struct.pack("B", len(name)) + name
    return head + author + session + struct.pack(">QQ", sequence, date) + blake3(value).digest()


def sign(
    seed: bytes, graph: str, session: bytes, sequence: int, date: int, says: dict[str, object] | None
) -> State:
    key = SigningKey(seed)
    author, value = key.verify_key.encode(), b"" if says is None else msgpack.packb(says)
    signature = key.sign(signed_bytes(graph, author, session, sequence, date, value)).signature
    return author, session, sequence, date, value, signature


def is_genuine(graph: str, state: State) -> bool:
    author, session, sequence, date, value, signature = state
    try:
        VerifyKey(author).verify(signed_bytes(graph, author, session, sequence, date, value), signature)
    except BadSignatureError:
        return False
    return True


def framed(*parts: object) -> bytes:
    message = msgpack.packb(parts)
    return struct.pack(">I", len(message)) + message


def hello(graph: str) -> bytes:
    return framed(32, 1, graph)


def states(*some: State) -> bytes:
    return framed(33, some)


def gone(*sessions: Session) -> bytes:
    return framed(34, sessions)


@dataclass
class Here:
    state: State
    until: float
    by: set[int]


@dataclass
class Model:
    """Who is there, by the words of the document; room is never short."""

    own: Session
    here: dict[Session, Here] = field(default_factory=dict)
    past: dict[Session, int] = field(default_factory=dict)

    def state(self, by: int, state: State, now: float, wall: int) -> str:
        session = state[:2]
        known = self.here.get(session)
        last = known.state[2] if known else self.past.get(session, 0)
        if known and known.state == state:
            known.by.add(by)
        if session == self.own or state[2] <= last or (not state[4] and known is None):
            return "known"
        if wall - state[3] > 90_000:
            return "late"
        if state[3] - wall > 60_000:
            return "early"
        if not state[4]:
            del self.here[session]
            self.past[session] = state[2]
            return "taken"
        until = now + min(30, (state[3] + 90_000 - wall) / 1000)
        self.here[session] = Here(state, until, {by} | (known.by if known else set()))
        return "taken"

    def gone(self, by: int, session: Session) -> None:
        known = self.here.get(session)
        if known is not None and by in known.by:
            known.by.discard(by)
            if not known.by:
                del self.here[session]
                self.past[session] = known.state[2] - 1

    def ended(self, by: int) -> None:
        for session in list(self.here):
            self.gone(by, session)

    def pass_time(self, now: float) -> None:
        for session, known in list(self.here.items()):
            if known.until <= now:
                del self.here[session]
                self.past[session] = known.state[2]
