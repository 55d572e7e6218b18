"""What is passed on of authors who may be away: their summaries of everything, beside the frames.

Only an author can sum up its frames. So that others needn't send all that it ever made when it isn't there, it offers
them the summary of all of them now and then, when it is half as large or less. docs/graph.md, "Offers".
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dtp.bounded import BoundedDict
from dtp.crdt.permission.owners import owner_name
from dtp.graph.errors import EnvelopeError, StoreError, SyncError
from dtp.graph.frames import envelope as envelopes
from dtp.graph.frames import summaries
from dtp.graph.frames.envelope import NONE_BEFORE, Envelope, Summary
from dtp.identity.private import make_private_folder
from dtp.replacing import replace_file

if TYPE_CHECKING:
    from dtp.graph.graph import Graph

log = logging.getLogger("dtp.graph")

#: What the file of an author's is called.
_NAME: Final = re.compile("[0-9a-f]{64}")
#: Bytes of frames for which a summary is worth the trouble.
LEAST: Final = 64 * 1024
#: Bytes of a summary of everything, at most: it is held in memory while it comes.
MOST: Final = 256 << 20

#: Offers that are remembered, for each peer and author.
_REMEMBERED: Final = 4096
#: How often an author's sum is taken for one's word while about as much is stored of it. It makes another when that
#: has doubled, or to save a fifth; a liar might with each frame, and everybody would load it.
_OF_ONE_SIZE: Final = 4

Signed = Envelope | Summary


class Passed:
    """The summary of everything that each author offered last: up to which of its frames, and what stands for them.

    In a folder, which is made with the first one: a file for each author, replaced as a whole; None: in memory.
    """

    def __init__(self, folder: Path | None, graph_name: str) -> None:
        self._folder = folder
        self._graph_name = graph_name
        self._known: dict[bytes, tuple[int, int]] = {}
        self._parts: dict[bytes, list[bytes]] = {}
        if folder is not None and folder.is_dir():
            for path in folder.iterdir():
                self._read_head(path)

    def _read_head(self, path: Path) -> None:
        if path.suffix:
            path.unlink(missing_ok=True)  # of a writer that was killed
            return
        if not _NAME.fullmatch(path.name):
            return  # another program's
        try:
            with path.open("rb") as file:
                self._known[bytes.fromhex(path.name)] = (
                    int.from_bytes(file.read(8), "big"),
                    path.stat().st_size - 8,
                )
        except OSError as error:
            raise StoreError(f"a summary that was kept can't be read: {error}") from error

    def last_of(self, author: bytes) -> int:
        """Return the last of the author's frames that it stands for; 0 when there is none."""
        return self._known.get(author, (0, 0))[0]

    def size_of(self, author: bytes) -> int:
        """Return bytes of it."""
        return self._known.get(author, (0, 0))[1]

    def list_authors(self) -> list[bytes]:
        """Return the authors of whom there is one."""
        return sorted(self._known)

    def parts_of(self, author: bytes) -> list[bytes]:
        """Return its envelopes and summaries, in order. None where its file is damaged, which a line in the log says:
        it is removed then. Raises `StoreError`."""
        if self._folder is None:
            return self._parts.get(author, [])
        try:
            data = (self._folder / author.hex()).read_bytes()
        except OSError as error:
            raise StoreError(f"a summary that was kept can't be read: {error.strerror}") from error
        parts = list(_cut(data, 8))
        taking, is_whole = Taking(author, self.last_of(author), len(data)), False
        try:
            for part in parts:
                is_whole = taking.add_part(decode_part(self._graph_name, part), part)
        except (EnvelopeError, SyncError):
            is_whole = False
        if is_whole:
            return parts
        log.warning("the sum of frames of %s was damaged, and is removed", owner_name(author))
        self.remove_summary(author)
        return []

    def put_summary(self, author: bytes, sequence: int, parts: list[bytes]) -> None:
        """Keep an author's summary of everything instead of the last one. Raises `StoreError`."""
        data = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        if self._folder is None:
            self._parts[author] = parts
        else:
            path = self._folder / author.hex()
            try:
                make_private_folder(self._folder)
                replace_file(path, sequence.to_bytes(8, "big") + data)
            except OSError as error:
                raise StoreError(f"a summary could not be kept: {error.strerror}") from error
        self._known[author] = sequence, len(data)

    def remove_summary(self, author: bytes) -> None:
        """Remove an author's summary of everything. Raises `StoreError`."""
        self._known.pop(author, None)
        self._parts.pop(author, None)
        if self._folder is not None:
            try:
                (self._folder / author.hex()).unlink(missing_ok=True)
            except OSError as error:
                raise StoreError(f"a summary that was kept can't be removed: {error.strerror}") from error


def _cut(data: bytes, at: int) -> Iterator[bytes]:
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 4 + length]
        at += 4 + length


class Offering:
    """When to sum up all own frames for others to pass on, and how often others' sums are taken for one's word."""

    def __init__(self) -> None:
        self._seen = 0  # up to which own frame sizes are counted
        #: Bytes of frames for which a summary is worth the trouble.
        self.least = LEAST
        self._size = 0
        self._tried = 0
        self._made: BoundedDict[tuple[bytes, bytes, bool], int] = BoundedDict(_REMEMBERED)
        self._offered: _OfferedSum | None = None
        #: Author -> how much was stored of it when its sum was taken, and how often it was since.
        self._taken: BoundedDict[bytes, tuple[int, int]] = BoundedDict(_REMEMBERED)
        #: Peer -> the first and the last of the own frames that it was sent last, and the last of those it took none
        #: of, 0 if it took all so far.
        self._sent: BoundedDict[bytes, tuple[int, int, int]] = BoundedDict(_REMEMBERED)

    def parts_for(self, peer: bytes, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Yield the parts in which a peer is sent own frames, each summed up apart: what it didn't take, since it was
        dated ahead, is due before what came later, which would hold it up for ever where somebody writes on."""
        cut = self._sent.get(peer, (0, 0, 0))[2]
        if first <= cut < last:
            yield first, cut
            first = cut + 1
        yield first, last

    def note_sent(self, peer: bytes, first: int, last: int) -> None:
        """Note that a peer was sent these own frames."""
        self._sent[peer] = first, last, self._sent.get(peer, (0, 0, 0))[2]

    def note_refusal(self, peer: bytes) -> None:
        """Note that a peer took none of the own frames that it was sent last."""
        first, last, cut = self._sent.get(peer, (0, 0, 0))
        if cut < first:  # else it may have taken those up to there
            self._sent[peer] = first, last, last

    def to_make(self, passed: Passed, peer: bytes, *, wants_frames: bool) -> Iterator[tuple[bytes, int]]:
        """Yield what a peer wasn't offered: of which author, up to which frame. One that `wants_frames` may want
        what it didn't want before, as others ask for its word."""
        for author in passed.list_authors():
            upto = passed.last_of(author)
            if upto > self._made.get((peer, author, wants_frames), 0):
                yield author, upto

    def add_taken(self, peer: bytes, offered: dict[bytes, int], *, wants_frames: bool) -> None:
        """Note that a peer took what it wanted of this: it need not be offered once more."""
        self._made |= {(peer, author, wants_frames): upto for author, upto in offered.items()}

    def may_take_again(self, author: bytes, stored: int) -> bool:
        """Return whether another sum of an author, of whom so many bytes are stored, is taken for one's word: a few
        are until that has changed by a quarter."""
        return self._times_taken(author, stored)[1] < _OF_ONE_SIZE

    def count_taken(self, author: bytes, stored: int) -> None:
        """Count a sum that was taken as a whole."""
        before, times = self._times_taken(author, stored)
        self._taken[author] = before, times + 1

    def forget_taken(self, author: bytes) -> None:
        """Note that frames of an author were dropped for its sum: who writes no more than before makes the next one
        when as much is stored again."""
        self._taken.pop(author, None)

    def _times_taken(self, author: bytes, stored: int) -> tuple[int, int]:
        before, times = self._taken.get(author, (stored, 0))
        return (before, times) if abs(stored - before) <= before // 4 else (stored, 0)

    async def refresh_offer(self, graph: Graph, *, at_once: bool = False) -> None:
        """Sum up all own frames, if they have become more than twice what stood the last time; or `at_once`, if that
        saves a fifth."""
        own = graph.identity.id.key
        last = graph.frames.last_of(own)
        seen = max(self._seen, graph.passed.last_of(own))
        if last <= seen and not (at_once and last > graph.passed.last_of(own)):
            return
        if await self._awaits_words(graph, last):
            return
        counted, more = self._seen, await graph.frames.stored_bytes(own, seen + 1, last)
        if self._seen == counted:  # else another session has counted them meanwhile
            self._size, self._seen = self._size + more, last
        if at_once:
            self._size = await graph.frames.stored_bytes(own, 1, last)
        elif self._size < self.least or self._size < 2 * max(self._tried, graph.passed.size_of(own)):
            return
        parts = [part async for some in summaries.own(graph, 1, last) for part in some]
        if sum(map(len, parts)) * (5 if at_once else 8) > self._size * 4:
            self._tried = self._size
            return
        if not _goes_on(graph, parts):
            return  # frames were pruned while they were read
        await graph.frames.ask_store(graph.passed.put_summary, own, last, parts)
        self._size = 0

    async def _awaits_words(self, graph: Graph, last: int) -> bool:
        """Return whether own frames are to be dropped for what was offered last, once others agree to that.

        If another took its place meanwhile, words for it would come too late, each time. When what is stored has
        doubled, one does.
        """
        own, upto = graph.identity.id.key, graph.passed.last_of(graph.identity.id.key)
        if graph.admission.agreement is None or not upto:
            return False
        if self._offered is None or self._offered.upto != upto:
            self._offered = _OfferedSum(upto, await graph.frames.stored_bytes(own, 1, upto), upto)
        offered, first = self._offered, self._offered.counted + 1
        if last >= first:
            offered.counted = last
            more = await graph.frames.stored_bytes(own, first, last)
            offered.bytes_since += more
        return saves_enough(graph.passed.size_of(own), offered.bytes) and offered.bytes_since < offered.bytes

    def on_replaced(self) -> None:
        """Note that own frames were dropped for what was offered."""
        self._offered = None


@dataclass
class _OfferedSum:
    """What is stored in the place of what was offered last, and since: it is counted once, however often it is asked
    for."""

    upto: int
    #: Of the frames up to there.
    bytes: int
    #: Up to which frame those behind it are counted.
    counted: int
    bytes_since: int = 0


def saves_enough(sum_size: int, size: int) -> bool:
    """Return whether a sum saves a fifth of the bytes that are stored; it doesn't where it is what is stored."""
    return sum_size * 5 <= size * 4


def are_due(graph: Graph, parts: Iterable[Signed]) -> bool:
    """Return whether no sum among these is dated ahead. One that is takes no place of frames, which wait each by
    itself: a newcomer would refuse it, and a store has it taken whatever the clock says when it is opened."""
    latest = graph.replica.clock.highest_clock()
    return not any(isinstance(one, Summary) and one.last > latest for one in parts)


def _goes_on(graph: Graph, parts: list[bytes]) -> bool:
    """Return whether each part begins where the one before it ended, the first with the first frame."""
    end = 0
    for part in parts:
        one = envelopes.decode(graph.name, part)
        if one.first_sequence != end + 1:
            return False
        end = one.sequence
    return True


class Taking:
    """A summary of everything that was wanted, as it comes: of which author, up to which frame, at most so large."""

    def __init__(self, author: bytes, sequence: int, size: int) -> None:
        self.author = author
        self.sequence = sequence
        self._left = size
        self._parts: list[bytes] = []
        self._end = 0
        self._hash = NONE_BEFORE

    @property
    def has_begun(self) -> bool:
        """Whether a part of it has come."""
        return self._end > 0

    def is_next(self, one: Signed) -> bool:
        """Return whether it goes on from the parts that came."""
        return one.first_sequence == self._end + 1 and one.previous == self._hash

    def add_part(self, one: Signed, data: bytes) -> bool:
        """Take the next part, which is genuine; whether it was the last one. Raises `SyncError`."""
        self._left -= len(data) + 4
        if (
            self._left < 0
            or one.author != self.author
            or not self.is_next(one)
            or one.sequence > self.sequence
        ):
            raise SyncError("the peer offered another summary than it sends")
        self._parts.append(data)
        self._end, self._hash = one.sequence, one.hash
        return self._end == self.sequence

    def keep_passed(self, passed: Passed, known: Callable[[bytes, int], Signed | None]) -> None:
        """Keep it, unless it is of another history than what is here. It waits for the disk."""
        here = known(self.author, self.sequence)
        if here is None or here.hash == self._hash:
            passed.put_summary(self.author, self.sequence, self._parts)


def decode_part(graph_name: str, data: bytes) -> Signed:
    """Return a part, which is genuine. Raises `SyncError`, `EnvelopeError`."""
    one = envelopes.decode(graph_name, data)
    if not one.is_genuine():
        raise SyncError("a part of a summary is not signed by its author")
    return one
