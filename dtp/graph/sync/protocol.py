"""Sync as a value: messages in, messages and wishes out. No IO: any stream, file or topic may carry the messages.

Two sides bring each other to the same frames. Each tells what it has as a vector (author -> the end of its chain) and
sends what the other lacks, in order, in messages of bounded size. When both have the same, 16 bytes show it.
docs/graph.md, "Sync".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from typing import Any, Final

import msgpack

from dtp.core import crdt as core
from dtp.graph.errors import SyncError
from dtp.graph.frames import vector
from dtp.graph.frames.envelope import OVERHEAD
from dtp.graph.frames.vector import Head, Vector
from dtp.graph.sync.choosing import ALL, SyncTerms
from dtp.graph.sync.part import Part
from dtp.graph.sync.reconcile import FIRST, FROM_AUTHORS, SALT, SymbolReader, Teller
from dtp.packing import unpack

VERSION: Final = 7
#: Bytes of envelopes in one message, unless a single one is larger.
MESSAGE_BYTES: Final = 256 * 1024
#: Bytes of one message, at most: an envelope's, or a vector's of 100,000 authors.
MAX_MESSAGE: Final = core.FRAME_BYTES + OVERHEAD + 1024
#: Gaps that a peer is asked for in one sync; for more of them in the next.
MAX_LOST: Final = 4096
#: Authors that a peer may want nothing of, and that one message of it names.
MAX_REFUSED: Final = 65_536
REFUSED_AT_ONCE: Final = 4096
#: A vector of at most so many bytes goes with the greeting; a longer one only after the digests were found to differ.
_SHORT_VECTOR: Final = 256
#: To a peer that was in sync with this side before, and that this side has news for.
_LONG_VECTOR: Final = 16 * 1024


class SyncMessage(IntEnum):
    """What a message is: its first element."""

    HELLO = 0
    VECTOR = 1
    FRAMES = 2
    DONE = 3
    STORED = 4
    SYMBOLS = 5
    MORE = 6
    DIFFERENCE = 7
    LASTS = 8
    OFFER = 9
    WANT = 10
    FORKED = 11
    AGAIN = 12
    LOST = 13
    REFUSED = 14


@dataclass
class SyncStep:
    """What a message asks of its receiver."""

    #: To be taken (`Graph.receive`).
    envelopes: list[bytes] = field(default_factory=list)
    #: To be sent back, once what this step has is taken.
    replies: list[bytes] = field(default_factory=list)
    #: Whether the peer has told what it has just now: `SyncSide.to_send` tells what it lacks.
    told: bool = False
    #: (author, up to which frame, bytes): summaries of everything that the peer would send (`SyncSide.want`).
    offered: tuple[bytes, int, int] | None = None
    #: (author, up to which frame) of what the peer wants of what was offered to it.
    wanted: tuple[bytes, int] | None = None
    #: (author, first, last) of what the peer has lost: it has what is behind that.
    lost: list[tuple[bytes, int, int]] = field(default_factory=list)
    #: Two envelopes or summaries that are said to prove that their author signed two histories.
    forked: tuple[bytes, bytes] | None = None


class SyncSide:
    """One side of a sync of the graph named `graph`. `vector` is what is stored here; with `history`, the peer is
    asked for every frame, not only for what still counts of them.

    Send `start` first. Feed what comes to `receive` and store what it gives before the next. Whenever it has `told`,
    or more was stored here, send `encode_frames` of what `to_send` lists; once, behind the first of them,
    `encode_done`. Finished when `is_done`; a live sync just goes on. Raises `SyncError`.
    """

    def __init__(
        self,
        graph: str,
        *,
        history: bool = False,
        terms: SyncTerms = ALL,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._graph = graph
        self._history = history
        self._terms = terms
        #: What the peer asks for and gives; all, until it has said so.
        self.theirs = ALL
        self._random = random
        #: Whether the peer wants every frame, also those of which nothing counts any more.
        self.wants_history = False
        self._theirs: Vector | None = None
        self._digest = b""  # of what was here when this side began, which salts the marks of its vector
        self._started: Vector = {}  # what was here then: both sides choose by it who tells what to whom
        self._their_digest = b""
        self._greeted = False
        self._sent_vector = False
        self._dones = 1  # that are to come
        self._said_done = False
        self._unstored = 0  # what was said to be done, and isn't stored there yet
        self._authors = 0
        self._teller: Teller | None = None
        self._reader: SymbolReader | None = None
        self._contested: set[bytes] = set()
        #: Authors of whom the peer wants nothing.
        self.refused: set[bytes] = set()

    @property
    def is_done(self) -> bool:
        """Whether the peer has sent all, and stored all that was sent to it before `encode_done`."""
        return not self._dones and self._said_done and not self._unstored

    @property
    def told_all(self) -> bool:
        """Whether the peer has sent all that it has."""
        return self._greeted and not self._dones

    def is_in_sync(self, ours: Vector, without: Collection[bytes] = ()) -> bool:
        """Return whether the peer has what is here, and no more but of authors that it is `without`."""
        if self._theirs is None or not without:
            return self._theirs == ours
        return {author: head for author, head in self._theirs.items() if author not in without} == ours

    @property
    def knows_peer(self) -> bool:
        """Whether it is known what the peer has."""
        return self._theirs is not None

    def start(self, ours: Vector, *, agreed: bytes | None = None) -> bytes:
        """Return the first message, from both sides. `agreed`: the digest of what both had when they last met, if
        they did; when there is more here now, the vector goes along at once, so that one round trip is enough."""
        self._started = ours
        self._digest = vector.digest(ours)
        is_new = agreed is not None and agreed != self._digest
        most = _LONG_VECTOR if is_new else _SHORT_VECTOR
        may_fit = len(ours) * vector.LEAST <= most
        encoded = vector.encode(ours, self._digest) if may_fit else b""
        self._sent_vector = may_fit and len(encoded) <= most
        return _pack(
            SyncMessage.HELLO,
            VERSION,
            self._graph,
            self._digest,
            len(ours),
            encoded if self._sent_vector else b"",
            self._history,
            *_packed_terms(self._terms),
        )

    def receive(self, message: bytes, our_vector: Callable[[], Vector]) -> SyncStep:
        """Take a message, and return what to do then. `our_vector` returns what is stored here."""
        kind, parts = _unpack(message)
        if (kind == SyncMessage.HELLO) == self._greeted:
            raise SyncError("a sync begins with one HELLO")
        step = SyncStep()
        if kind == SyncMessage.HELLO:
            self._on_hello(parts, self._started, step)
        elif kind == SyncMessage.VECTOR:
            (encoded,) = _parts(parts, bytes)
            if self._theirs is not None:
                raise SyncError("the peer goes on telling what is known")
            ours = our_vector()
            self._send_difference(encoded, ours, step)
            self._send_vector(ours, step)
        elif kind == SyncMessage.FRAMES:
            (step.envelopes,) = _parts(parts, list)
            if step.envelopes and not self._terms.takes:
                raise SyncError("the peer sends frames where it was told that they aren't taken")
            if not all(isinstance(one, bytes) for one in step.envelopes):
                raise SyncError("FRAMES has bytes that are not envelopes")
        elif kind == SyncMessage.DONE:
            _parts(parts)
            if not self._dones:
                raise SyncError("the peer says that it has sent all more often than it was asked")
            self._dones -= 1
            step.replies.append(_pack(SyncMessage.STORED))
        elif kind == SyncMessage.STORED:
            _parts(parts)
            if not self._unstored:
                raise SyncError("the peer says that it has stored something that was not sent")
            self._unstored -= 1
        elif kind == SyncMessage.OFFER:
            author, sequence, size = _parts(parts, bytes, int, int)
            step.offered = author, sequence, size
        elif kind == SyncMessage.WANT:
            author, sequence = _parts(parts, bytes, int)
            step.wanted = author, sequence
        elif kind == SyncMessage.AGAIN:
            author, sequence = _parts(parts, bytes, int)
            self._ask_again(author, sequence, step)
        elif kind == SyncMessage.LOST:
            (told,) = _parts(parts, list)
            step.lost = [_part(one) for one in told]
            if any(one[0] == other[0] and one[2] >= other[1] for one, other in pairwise(step.lost)):
                raise SyncError("the peer asks twice for what it has lost")
            if step.lost != sorted(step.lost) or len(step.lost) > MAX_LOST:
                raise SyncError("the peer has lost more than it may ask for, or asks in no order")
        elif kind == SyncMessage.REFUSED:
            (told,) = _parts(parts, list)
            self._on_refused(told)
        elif kind == SyncMessage.FORKED:
            first, second = _parts(parts, bytes, bytes)
            step.forked = first, second
            step.replies.append(_pack(SyncMessage.STORED))
        else:
            self._on_reconcile(kind, parts, self._started, step)
        return step

    def _on_hello(self, parts: list[Any], ours: Vector, step: SyncStep) -> None:
        version = parts[0] if parts else None
        if version != VERSION:
            raise SyncError(f"the peer syncs by version {version}, not {VERSION}")
        kinds = int, str, bytes, int, bytes, bool, bytes, bytes, bool
        _, graph, digest, authors, encoded, history, *terms = _parts(parts, *kinds)
        if graph != self._graph:
            raise SyncError(f"the peer syncs graph {graph!r}, not {self._graph!r}")
        if len(digest) != vector.DIGEST:
            raise SyncError(f"a digest has {vector.DIGEST} bytes, not {len(digest)}")
        self.theirs = _read_terms(*terms)
        self._greeted = True
        self.wants_history = history
        self._authors = authors
        self._their_digest = digest
        own = self._digest
        if digest == own:
            self._theirs = dict(ours)
            step.told = True
            return
        if encoded or digest == vector.digest({}):
            self._send_difference(encoded, ours, step)
        if min(authors, len(ours)) < FROM_AUTHORS:
            self._send_vector(ours, step)
        elif digest < own:
            self._teller = Teller(ours, self._random(SALT))
            step.replies.append(self._encode_symbols(FIRST))

    def _on_refused(self, told: list[Any]) -> None:
        if not all(isinstance(one, bytes) and len(one) == core.AUTHOR_SIZE for one in told):
            raise SyncError("REFUSED has bytes that are not authors")
        self.refused.update(told)
        if len(self.refused) > MAX_REFUSED:
            raise SyncError(f"the peer refuses more than {MAX_REFUSED} authors")

    def _ask_again(self, author: bytes, sequence: int, step: SyncStep) -> None:
        if self._theirs is None or sequence < 0:
            raise SyncError("the peer asks again for something that it was not told of")
        self.refused.discard(author)
        self._theirs.pop(author, None)
        if sequence:
            self._theirs[author] = Head(sequence, vector.OTHER)
        step.told = True

    def _send_vector(self, ours: Vector, step: SyncStep) -> None:
        if not self._sent_vector:
            self._sent_vector = True
            step.replies.append(_pack(SyncMessage.VECTOR, vector.encode(ours, self._digest)))

    def _send_difference(self, encoded: bytes, ours: Vector, step: SyncStep) -> None:
        try:
            self._theirs = vector.decode(encoded, self._their_digest, ours)
        except ValueError as error:
            raise SyncError(f"not a vector: {error}") from error
        step.told = True

    # ---- vectors of many authors: set reconciliation ------------------------------------------------------------

    def _on_reconcile(self, kind: SyncMessage, parts: list[Any], ours: Vector, step: SyncStep) -> None:
        if self._theirs is not None:
            raise SyncError("the peer goes on telling what is known")
        if kind == SyncMessage.SYMBOLS and self._teller is None:
            self._read_difference(parts, ours, step)
        elif kind == SyncMessage.MORE and self._teller is not None:
            (end,) = _parts(parts, int)
            step.replies.append(self._encode_symbols(end))
        elif kind == SyncMessage.DIFFERENCE and self._teller is not None:
            lasts, self._theirs = self._teller.answer_reader(*_parts(parts, bytes, bytes))
            step.replies.append(_pack(SyncMessage.LASTS, lasts))
            step.told = True
        elif kind == SyncMessage.LASTS and self._reader is not None:
            self._theirs = self._reader.learn_vector(*_parts(parts, bytes))
            step.told = True
        else:
            raise SyncError(f"the peer answers with {kind.name} without having been asked")

    def _encode_symbols(self, end: int) -> bytes:
        assert self._teller is not None
        return _pack(SyncMessage.SYMBOLS, self._teller.salt, *self._teller.next_symbols(end))

    def _read_difference(self, parts: list[Any], ours: Vector, step: SyncStep) -> None:
        salt, start, symbols = _parts(parts, bytes, int, bytes)
        if self._reader is None:
            if len(salt) != SALT or min(self._authors, len(ours)) < FROM_AUTHORS or self._sent_vector:
                raise SyncError("the peer tells symbols where vectors are told")
            self._reader = SymbolReader(ours, salt, self._authors)
        difference = self._reader.add_symbols(start, symbols)
        wanted = self._reader.wanted_symbols() if difference is None else 0
        if difference is not None:
            step.replies.append(_pack(SyncMessage.DIFFERENCE, *difference))
        elif wanted:
            step.replies.append(_pack(SyncMessage.MORE, wanted))
        else:
            self._send_vector(ours, step)

    # ---- what the peer lacks ------------------------------------------------------------------------------------

    def to_send(self, ours: Vector) -> list[tuple[bytes, int, int]]:
        """Return (author, first, last) of what the peer lacks. What came from it meanwhile it has; see `took`."""
        if self._theirs is None:
            return []
        out = self._contested | self.refused
        lacking = [part for part in vector.missing_frames(ours, self._theirs) if part[0] not in out]
        # of who has another head there at the same sequence, the last frame goes once: it proves the fork
        self._contested |= {author for author, first, _ in lacking if self.peer_has(author, first)}
        return lacking

    def peer_has(self, author: bytes, sequence: int) -> bool:
        """Return whether the peer is known to have an author's frames up to this one."""
        there = self._theirs.get(author) if self._theirs is not None else None
        return there is not None and there.sequence >= sequence

    def encode_want(self, author: bytes, sequence: int) -> bytes:
        """Return the message that takes an offer. The peer says once more when it is done."""
        self._dones += 1
        return _pack(SyncMessage.WANT, author, sequence)

    def encode_lost(self, parts: list[tuple[bytes, int, int]]) -> bytes:
        """Return the message that these frames were lost here: (author, first, last). The peer says once more when it
        is done."""
        self._dones += 1
        return _pack(SyncMessage.LOST, parts)

    def encode_done(self) -> bytes:
        """Return the message that all was sent, and what was wanted beside."""
        self._said_done = True
        self._unstored += 1
        return _pack(SyncMessage.DONE)

    def encode_again(self, author: bytes, sequence: int) -> bytes:
        """Return the message that asks for the frames of an author behind this one, sent before or not."""
        return _pack(SyncMessage.AGAIN, author, sequence)

    def encode_refusal(self, authors: list[bytes]) -> bytes:
        """Return the message that nothing is wanted of these authors, `REFUSED_AT_ONCE` at most."""
        return _pack(SyncMessage.REFUSED, authors)

    def encode_forked(self, first: bytes, second: bytes) -> bytes:
        """Return the message that one author signed both, which contradict each other. It is answered by STORED."""
        self._unstored += 1
        return _pack(SyncMessage.FORKED, first, second)

    def set_peer_head(self, author: bytes, head: Head) -> None:
        """Note that the peer has this of the author: it was sent, or came from it."""
        if self._theirs is None:
            return
        there = self._theirs.get(author)
        if there is None or head.sequence >= there.sequence:
            self._theirs[author] = head


def encode_offer(author: bytes, sequence: int, size: int) -> bytes:
    """Return the message that there is a summary of all of an author's frames up to this one, of so many bytes."""
    return _pack(SyncMessage.OFFER, author, sequence, size)


def encode_frames(envelopes: Iterable[bytes]) -> Iterator[bytes]:
    """Yield messages with these envelopes, in order."""
    batch: list[bytes] = []
    size = 0
    for one in envelopes:
        if batch and size + len(one) > MESSAGE_BYTES:
            yield _pack(SyncMessage.FRAMES, batch)
            batch, size = [], 0
        batch.append(one)
        size += len(one)
    if batch:
        yield _pack(SyncMessage.FRAMES, batch)


_KINDS: Final = frozenset(SyncMessage)


def _pack(*parts: Any) -> bytes:
    return msgpack.packb(parts)  # type: ignore[no-any-return]


def _unpack(message: bytes) -> tuple[SyncMessage, list[Any]]:
    if len(message) > MAX_MESSAGE:
        raise SyncError(f"a message of {len(message)} bytes; at most {MAX_MESSAGE} are taken")
    match unpack(message, SyncError, "a message of sync"):
        case [int(kind), *parts] if kind in _KINDS:
            return SyncMessage(kind), parts
    raise SyncError("a message of sync is of no kind that is known here")


def _packed_terms(terms: SyncTerms) -> tuple[bytes, bytes, bool]:
    part, gives = (b"" if one is None else one.encode() for one in (terms.part, terms.gives))
    return part, gives, terms.takes


def _read_terms(part: bytes, gives: bytes, takes: bool) -> SyncTerms:
    read = [Part.decode(one) if one else None for one in (part, gives)]
    return SyncTerms(read[0], read[1], takes)


def _part(told: Any) -> tuple[bytes, int, int]:
    author, first, last = _parts(told if isinstance(told, list) else [], bytes, int, int)
    if len(author) != core.AUTHOR_SIZE or not 1 <= first <= last:
        raise SyncError("the peer has lost frames that there can't be")
    return author, first, last


def _parts(parts: list[Any], *kinds: type) -> list[Any]:
    if len(parts) != len(kinds) or not all(type(p) is k for p, k in zip(parts, kinds, strict=True)):
        raise SyncError("a message of sync has other parts than it should")
    return parts
