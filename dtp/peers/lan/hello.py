"""Hellos on the LAN as a value: datagrams and time in, datagrams and records out. No socket, clock or randomness.

Source: docs/peers.md, "Hellos". A hello carries a record. An ask wants everybody's, or that of one peer, whose name
it hides from those who don't know the peer. In a private network each is sealed, and all are of one length.
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
#: An ask for one peer is as long as the longest answer, which goes to an address that nobody has proven.
ASK_SIZE: Final = HEAD_SIZE + MAX_BYTES
#: What is sealed is padded to this: the longest kind and body, and two bytes that say their length.
SEALED_INSIDE: Final = 2 + 1 + MAX_BYTES
SEALED_SIZE: Final = HEAD_SIZE + NONCE_SIZE + SEALED_INSIDE + TAG_SIZE
_EVERYBODY: Final = bytes(WANTED)
_NEVER: Final = math.inf

#: Where a datagram comes from and goes to: host and port. None is the group.
Source = tuple[str, int]


@dataclass(frozen=True, slots=True)
class HelloLimits:
    """Limits and times of hellos; each has its reason. Seconds."""

    #: After the first hello, two more: Wi-Fi loses multicast now and then.
    again: tuple[float, ...] = (1.0, 4.0)
    #: Then one each so often, for those that were asleep; each is a datagram of some 300 bytes.
    period: float = 300.0
    #: No hello to the group sooner than this after the one before, whoever asks: a flood of asks makes one each.
    pause: float = 1.0
    #: Datagrams of one source that are looked at: at once, and a second.
    burst: int = 64
    rate: float = 16.0
    #: ... and of all sources: 200 signatures a second are 1 % of a processor.
    all_burst: int = 512
    all_rate: float = 200.0
    #: Asks for peers that others have named, or a book, and that nobody here waits for: at once, and a second. So a
    #: node that dials hundreds that are gone leaves neighbours room for its hellos and answers, and for those of
    #: others.
    told_burst: int = 16
    told_rate: float = 4.0
    #: Sources that are counted; the one heard longest ago goes first.
    sources: int = 1024


class HelloNode:
    """What one node says and hears on a LAN.

    `outgoing` has what is to be sent; `send_due` is called at `next_time`. `random` gives so many random bytes.
    """

    def __init__(
        self,
        *,
        random: Callable[[int], bytes],
        network: PrivateNetwork | None = None,
        limits: HelloLimits | None = None,
    ) -> None:
        self.limits = limits or HelloLimits()
        #: Datagrams to send, and where to.
        self.outgoing: list[tuple[bytes, Source | None]] = []
        #: What was dropped, by why.
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

    # ---- what is said -----------------------------------------------------------------------------------

    def publish_record(self, record: PeerRecord, now: float, *, to_all: bool) -> None:
        """Announce `record` from now on: with `to_all` to the group and to asks for everybody, else only to asks for
        this peer, whose senders know it."""
        self._record, self._to_all = record, to_all
        self._again = [now + each for each in self.limits.again]
        self._next = max(now, self._last + self.limits.pause) if to_all else _NEVER
        self.send_due(now)

    def withdraw_record(self, last: PeerRecord | None = None) -> None:
        """Announce nothing from now on, after `last`: a record without addresses, sent if the group was told."""
        if last is not None and self._to_all:
            self._queue_datagram(_head(HELLO) + last.encoded, None)
        self._record, self._next = None, _NEVER

    def send_ask(self, peer: PeerId | None) -> None:
        """Ask the LAN for `peer`, or with None for everybody."""
        nonce = self._random(NONCE)
        body = nonce + (_EVERYBODY if peer is None else blind_peer(peer, nonce))
        size = 0 if peer is None else ASK_SIZE
        self._queue_datagram((_head(ASK) + body).ljust(size, b"\0"), None)

    def try_take_ask(self, now: float) -> bool:
        """Return True if one more ask may be sent for a peer that nobody here waits for; it counts as sent."""
        return self._told.try_take(None, now)

    @property
    def clock_advice(self) -> str:
        """What a person is told where hellos were dropped for their time, which nothing else shows; "" if none."""
        wrong = self.counters[PeerRecordExpired.code] + self.counters[PeerRecordFromFuture.code]
        if not wrong:
            return ""
        return (
            f"{count_of(wrong, 'hello')} had ended or came from the future: is a clock wrong, here or there?"
        )

    def next_time(self) -> float:
        """Return when `send_due` has something to do; infinity for never."""
        return self._next

    def send_due(self, now: float) -> None:
        """Send the hello that is due, if one is."""
        if now < self._next or self._record is None:
            return
        self._last = now
        self._queue_datagram(_head(HELLO) + self._record.encoded, None)
        self._again = [each for each in self._again if each > now]
        # Nodes that began together must not go on together.
        spread = 0.9 + 0.2 * int.from_bytes(self._random(2)) / 0xFFFF
        self._next = self._again[0] if self._again else now + self.limits.period * spread

    # ---- what is heard ----------------------------------------------------------------------------------

    def receive_datagram(
        self, data: bytes, source: Source, now: float, unix_time: float
    ) -> PeerRecord | None:
        """Return the record of a hello; None for an ask, and for a datagram that is dropped and counted."""
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
        """Return kind and body of a datagram; kind 0 for one that is dropped."""
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
        # Its own record comes back; a newer one is that of another node with the same identity.
        return None if own is not None and record.peer == own.peer and not record.supersedes(own) else record

    def _answer_ask(self, nonce: bytes, wanted: bytes, size: int, source: Source, now: float) -> None:
        record = self._record
        if record is None:
            return
        if wanted == _EVERYBODY:
            if self._to_all:  # to the group: nobody's address gets what it hasn't asked for
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
        """Return the datagram, sealed if the network has a key."""
        if self._network is None:
            return data
        inside = data[len(MAGIC) :]  # the kind and what follows
        padded = (len(inside).to_bytes(2) + inside).ljust(SEALED_INSIDE, b"\0")
        return _head(SEALED) + self._network.seal(padded, self._random(NONCE_SIZE), MAGIC)


def blind_peer(peer: PeerId, nonce: bytes) -> bytes:
    """Return what an ask calls a peer: those who know it can tell, and nobody else learns whom somebody looks for."""
    return hashlib.blake2b(nonce + peer.key, digest_size=WANTED, person=b"dtp.hello.ask").digest()


def _head(kind: int) -> bytes:
    return MAGIC + bytes((kind,))
