"""Hellos on the LAN, as a value: datagrams and time go in, datagrams and records come out. No socket, clock or
randomness.

Source: docs/peers.md, "Hellos". A hello carries a record. An ask requests the records of all peers, or of one,
whose name is hidden from those who don't know that peer. In a private network each datagram is sealed, and all have
the same length.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dtp.identity import PeerId
from dtp.peers.private import NONCE_SIZE, TAG_SIZE, NotOfNetwork, PrivateNetwork
from dtp.peers.record import (
    MAX_BYTES,
    PeerRecord,
    PeerRecordError,
    PeerRecordExpired,
    PeerRecordFromFuture,
)
from dtp.plurals import count_of
from dtp.rates import RateLimiter

MAGIC: Final = b"DTPH\x01"
HELLO, ASK, SEALED = 1, 2, 3
HEAD_SIZE: Final = len(MAGIC) + 1
NONCE: Final = 8
WANTED: Final = 16
#: An ask for one peer is as long as the longest answer, which is sent to an address that nobody has verified.
ASK_SIZE: Final = HEAD_SIZE + MAX_BYTES
#: The size to which contents are padded before sealing: the longest kind and body, and two bytes for their length.
SEALED_INSIDE: Final = 2 + 1 + MAX_BYTES
SEALED_SIZE: Final = HEAD_SIZE + NONCE_SIZE + SEALED_INSIDE + TAG_SIZE
_EVERYBODY: Final = bytes(WANTED)
_NEVER: Final = math.inf

#: The source or destination of a datagram, as host and port. None stands for the group.
Source = tuple[str, int]


@dataclass(frozen=True, slots=True)
class HelloLimits:
    """Limits and times of hellos, each with its reason. In seconds."""

    #: Seconds after the first hello until two more are sent, since Wi-Fi sometimes loses multicast.
    again: tuple[float, ...] = (1.0, 4.0)
    #: Seconds between further hellos, for machines that were asleep. Each is a datagram of some 300 bytes.
    period: float = 300.0
    #: Seconds between two hellos to the group, at least, whoever asks: otherwise each ask of a flood would cause
    #: one.
    pause: float = 1.0
    #: Datagrams of one source that are processed: at once, and per second.
    burst: int = 64
    rate: float = 16.0
    #: ... and of all sources: 200 signatures a second are 1 % of a processor.
    all_burst: int = 512
    all_rate: float = 200.0
    #: Asks, at once and per second, for peers that others or a book have named, and that the program doesn't wait
    #: for. A node that dials hundreds of absent peers thus leaves its neighbours room for its hellos and answers,
    #: and for those of others.
    told_burst: int = 16
    told_rate: float = 4.0
    #: Sources that are counted; the one that was heard longest ago is dropped first.
    sources: int = 1024


class HelloNode:
    """One node's hellos on a LAN.

    `outgoing` has the datagrams to send. Call `send_due` at `next_time`. `random` returns so many random bytes.
    """

    def __init__(
        self,
        *,
        random: Callable[[int], bytes],
        network: PrivateNetwork | None = None,
        limits: HelloLimits | None = None,
    ) -> None:
        self.limits = limits or HelloLimits()
        #: Datagrams to send, and their destinations.
        self.outgoing: list[tuple[bytes, Source | None]] = []
        #: Counts of dropped datagrams, by the reason.
        self.counters: Counter[str] = Counter()
        self._random, self._network = random, network
        self._record: PeerRecord | None = None
        self._to_all = False
        self._again: list[float] = []
        self._next = _NEVER
        self._last = -_NEVER
        own, everybody = 1 / self.limits.rate, 1 / self.limits.all_rate
        self._sources: RateLimiter[str] = RateLimiter(self.limits.burst, own, self.limits.sources)
        self._all: RateLimiter[None] = RateLimiter(self.limits.all_burst, everybody, 1)
        self._told: RateLimiter[None] = RateLimiter(self.limits.told_burst, 1 / self.limits.told_rate, 1)

    # ---- sending ----------------------------------------------------------------------------------------

    def publish_record(self, record: PeerRecord, now: float, *, to_all: bool) -> None:
        """Announce `record` from now on. With `to_all` it is sent to the group and in answer to every ask;
        otherwise only in answer to asks for this peer, whose senders know it.
        """
        self._record, self._to_all = record, to_all
        self._again = [now + each for each in self.limits.again]
        self._next = max(now, self._last + self.limits.pause) if to_all else _NEVER
        self.send_due(now)

    def withdraw_record(self, last: PeerRecord | None = None) -> None:
        """Stop announcing. If the group was told, `last`, a record without addresses, is sent first."""
        if last is not None and self._to_all:
            self._queue_datagram(_head(HELLO) + last.encoded, None)
        self._record, self._next = None, _NEVER

    def send_ask(self, peer: PeerId | None) -> None:
        """Ask the LAN for `peer`, or with None for all peers."""
        nonce = self._random(NONCE)
        body = nonce + (_EVERYBODY if peer is None else blind_peer(peer, nonce))
        size = 0 if peer is None else ASK_SIZE
        self._queue_datagram((_head(ASK) + body).ljust(size, b"\0"), None)

    def try_take_ask(self, now: float) -> bool:
        """Return True if one more ask may be sent for a peer that the program doesn't wait for, and count it."""
        return self._told.try_take(None, now)

    @property
    def clock_advice(self) -> str:
        """A sentence for people about hellos that were dropped for their time, which nothing else shows; "" if
        there were none.
        """
        wrong = self.counters[PeerRecordExpired.code] + self.counters[PeerRecordFromFuture.code]
        if not wrong:
            return ""
        return (
            f"{count_of(wrong, 'hello')} had ended or came from the future: is a clock wrong, here or there?"
        )

    def next_time(self) -> float:
        """Return the time at which `send_due` has something to do; infinity for never."""
        return self._next

    def send_due(self, now: float) -> None:
        """Send the hello that is due, if there is one."""
        if now < self._next or self._record is None:
            return
        self._last = now
        self._queue_datagram(_head(HELLO) + self._record.encoded, None)
        self._again = [each for each in self._again if each > now]
        # Nodes that started together shouldn't send together forever.
        spread = 0.9 + 0.2 * int.from_bytes(self._random(2)) / 0xFFFF
        self._next = self._again[0] if self._again else now + self.limits.period * spread

    # ---- receiving --------------------------------------------------------------------------------------

    def receive_datagram(
        self, data: bytes, source: Source, now: float, unix_time: float
    ) -> PeerRecord | None:
        """Process a datagram. Return the record of a hello; None for an ask, and for a datagram that is dropped and
        counted.
        """
        if not self._is_within_rate(source[0], now):
            self.counters["flood"] += 1
            return None
        kind, body = self._open_datagram(data)
        if kind == HELLO:
            return self._decode_hello(body, unix_time)
        if kind == ASK and len(body) >= NONCE + WANTED:
            self._answer_ask(body[:NONCE], body[NONCE : NONCE + WANTED], len(data), source, now)
        elif kind:
            self.counters["malformed"] += 1
        return None

    def _open_datagram(self, data: bytes) -> tuple[int, bytes]:
        """Return the kind and body of a datagram; kind 0 for one that is dropped."""
        if len(data) < HEAD_SIZE or data[: len(MAGIC)] != MAGIC or len(data) > SEALED_SIZE:
            self.counters["malformed"] += 1
            return 0, b""
        kind, body = data[len(MAGIC)], data[HEAD_SIZE:]
        if (kind == SEALED) != (self._network is not None):
            self.counters["not-of-network"] += 1
            return 0, b""
        if self._network is None:
            return kind or 255, body
        try:
            inside = self._network.open(body, MAGIC)
        except NotOfNetwork as fault:
            self.counters[fault.code] += 1
            return 0, b""
        size = int.from_bytes(inside[:2])
        whole = len(inside) == SEALED_INSIDE and 0 < size <= SEALED_INSIDE - 2
        return (inside[2] or 255, inside[3 : 2 + size]) if whole else (255, b"")

    def _decode_hello(self, data: bytes, unix_time: float) -> PeerRecord | None:
        try:
            record = PeerRecord.decode(data, now=unix_time)
        except PeerRecordError as fault:
            self.counters[fault.code] += 1
            return None
        own = self._record
        # A node receives its own hellos. A newer record is that of another node with the same identity.
        return None if own is not None and record.peer == own.peer and not record.supersedes(own) else record

    def _answer_ask(self, nonce: bytes, wanted: bytes, size: int, source: Source, now: float) -> None:
        record = self._record
        if record is None:
            return
        if wanted == _EVERYBODY:
            if self._to_all:  # to the group, so that no forged source address gets anything
                self._next = min(self._next, max(now, self._last + self.limits.pause))
                self.send_due(now)
        elif wanted == blind_peer(record.peer, nonce):
            answer = self._seal_datagram(_head(HELLO) + record.encoded)
            if len(answer) > size:
                self.counters["short-ask"] += 1
            else:
                self.outgoing.append((answer, source))

    def _is_within_rate(self, host: str, now: float) -> bool:
        return self._sources.try_take(host, now) and self._all.try_take(None, now)

    def _queue_datagram(self, data: bytes, to: Source | None) -> None:
        self.outgoing.append((self._seal_datagram(data), to))

    def _seal_datagram(self, data: bytes) -> bytes:
        """Return the datagram, sealed if this is a private network."""
        if self._network is None:
            return data
        inside = data[len(MAGIC) :]  # the kind and what follows
        padded = (len(inside).to_bytes(2) + inside).ljust(SEALED_INSIDE, b"\0")
        return _head(SEALED) + self._network.seal(padded, self._random(NONCE_SIZE), MAGIC)


def blind_peer(peer: PeerId, nonce: bytes) -> bytes:
    """Return how an ask names a peer: those who know the peer recognize it, and nobody else learns who is
    looked for.
    """
    return hashlib.blake2b(nonce + peer.key, digest_size=WANTED, person=b"dtp.hello.ask").digest()


def _head(kind: int) -> bytes:
    return MAGIC + bytes((kind,))
