"""The newest segments of a stream, checked, that a producer, relay or listener holds within a limit of bytes."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice
from typing import Final

from dtp.broadcast.errors import ProducerEquivocated, SegmentError
from dtp.broadcast.format import NO_INIT, Announcement, Flag, Segment, Verifier
from dtp.broadcast.format.equivocation import Equivocation
from dtp.broadcast.format.segment import pieces_of
from dtp.broadcast.format.verifier import REMEMBERED
from dtp.identity import PeerId

#: Bytes: two minutes of 4 Mbit/s.
HELD: Final = 64 * 1024 * 1024
#: Segments from which the stream's bytes per second are computed.
_NEWEST: Final = 16
#: The most numbers of lost segments that are remembered.
_GAPS: Final = 4096


class HeldSegment:
    """A segment, and the pieces of it that are here."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self._pieces: list[bytes | None] = [None] * segment.pieces
        self._missing = segment.pieces

    @property
    def whole(self) -> bool:
        """True when all pieces are here."""
        return not self._missing

    def get_piece(self, index: int) -> bytes | None:
        """Return a piece, or None while it isn't here."""
        return self._pieces[index]

    @property
    def data(self) -> bytes:
        """All bytes of the segment. Use it only when the segment is whole."""
        return b"".join(each for each in self._pieces if each is not None)

    def add_piece(self, index: int, piece: bytes) -> bool:
        """Add a piece, and return whether it is new. Raise `SegmentForged` if it doesn't match the signed hash."""
        if 0 <= index < len(self._pieces) and self._pieces[index] is not None:
            return False
        self.segment.check_piece(index, piece)
        self._pieces[index] = piece
        self._missing -= 1
        return True


class HeldSegments:
    """The newest segments of a stream. `wait_change()` returns when they change.

    Segments are forgotten from the lowest number on, except the newest init data and the newest keys.
    """

    def __init__(self, announcement: Announcement, *, limit: int = HELD) -> None:
        """`limit` is in bytes; the newest segment is held whatever its size. At most `REMEMBERED` segments are
        held."""
        self.announcement = announcement
        self.verifier = Verifier(announcement)
        self._segments: OrderedDict[int, HeldSegment] = OrderedDict()
        self._gaps: OrderedDict[int, None] = OrderedDict()
        #: The segments that have keys, by epoch.
        self._keys: dict[int, int] = {}
        self._limit, self._size = limit, 0
        #: Segments below this number were forgotten, or came before this side began, except init data.
        self._floor: int | None = None
        self._changed = asyncio.Event()
        #: The highest number seen so far; -1 before the first.
        self.edge = -1
        #: The number of the show's last segment, once it is known.
        self.last: int | None = None
        #: The error that ended the stream early, if any.
        self.fault: SegmentError | None = None

    def __len__(self) -> int:
        return len(self._segments)

    def get_segment(self, number: int) -> HeldSegment | None:
        """Return a segment, or None if it isn't here."""
        return self._segments.get(number)

    def has_whole(self, number: int) -> bool:
        """True if the segment is here with all its pieces."""
        each = self._segments.get(number)
        return each is not None and each.whole

    def is_lost(self, number: int) -> bool:
        """True if nobody has the segment any more, or it was forgotten here."""
        return number in self._gaps or (number < self.oldest and number not in self._segments)

    def find_next(self, number: int) -> int:
        """Return the first number above a lost one that isn't lost; `edge + 1` if all are."""
        following = number + 1
        while following <= self.edge and self.is_lost(following):
            # Below the oldest only init data is left: there is no need to count through years of a show.
            kept = (each for each in self._segments if following < each < self.oldest)
            following = following + 1 if following >= self.oldest else min(kept, default=self.oldest)
        return following

    def find_held(self, number: int) -> int:
        """Return the first number from `number` on of which something is here; `edge + 1` if there is none."""
        return min((each for each in self._segments if each >= number), default=self.edge + 1)

    @property
    def oldest(self) -> int:
        """The lowest number that is held, apart from init data; `edge + 1` if nothing is held."""
        return self.edge + 1 if self._floor is None else self._floor

    @property
    def ended(self) -> bool:
        """True when nothing more comes: all segments up to the last one are here or lost, or the producer has signed
        two chains."""
        if self.fault is not None:
            return True
        if self.last is None:
            return False
        held = self._segments.get(self.last)
        return held is not None and held.whole

    @property
    def rate(self) -> float:
        """Bytes per second of the latest segments; 0 if the segments don't say how long they last."""
        newest = [each.segment for each in islice(reversed(self._segments.values()), _NEWEST)]
        seconds = sum(each.duration_ms for each in newest) / 1000
        return sum(each.size for each in newest) / seconds if seconds else 0.0

    def add_manifest(self, data: bytes) -> Segment:
        """Add a manifest. Raise what `Verifier.check` raises; two chains end the stream."""
        try:
            segment = self.verifier.check(data)
        except ProducerEquivocated as fault:
            self._end_by_fault(fault)
            raise
        is_init = bool(segment.flags & (Flag.INIT | Flag.KEYS))
        if self._floor is None and not is_init:
            self._floor = segment.number
        # a segment that was given up stays lost
        known = segment.number in self._segments or segment.number in self._gaps
        if not known and (is_init or segment.number >= self.oldest):
            self._keep_segment(segment)
        return segment

    def _keep_segment(self, segment: Segment) -> None:
        self._segments[segment.number] = HeldSegment(segment)
        if Flag.KEYS in segment.flags:
            self._keys[segment.epoch] = segment.number
        self._size += segment.size
        self.edge = max(self.edge, segment.number)
        if Flag.LAST in segment.flags:
            self.last = segment.number
        while (self._size > self._limit or len(self._segments) > REMEMBERED) and self._forget_one():
            pass
        self._wake_waiting()

    def _forget_one(self) -> bool:
        needed = {self.edge, *(each.segment.number for each in self.needed_by(self.edge))}
        first = next((each for each in self._segments if each not in needed), None)
        if first is None:
            return False
        forgotten = self._segments.pop(first).segment
        self._size -= forgotten.size
        if Flag.KEYS in forgotten.flags:
            self._keys.pop(forgotten.epoch, None)
        self._floor = max(self._floor or 0, first + 1)
        return True

    def add_piece(self, number: int, index: int, piece: bytes) -> bool:
        """Add a piece, and return whether it is new. Raise `SegmentForged`, and `SegmentError` if its manifest didn't
        come before."""
        held = self._segments.get(number)
        if held is None:
            if self.is_lost(number):  # forgotten meanwhile, or given up
                return False
            raise SegmentError(f"a piece of segment {number} came before its manifest")
        if not held.add_piece(index, piece):
            return False
        self._wake_waiting()
        return True

    def add_own(self, segment: Segment, data: bytes) -> None:
        """Add a segment that was just signed here."""
        self.add_manifest(segment.encoded)
        for index, piece in enumerate(pieces_of(data)):
            self.add_piece(segment.number, index, bytes(piece))

    def add_gap(self, first: int, last: int) -> None:
        """Note that segments `first` to `last` are lost. `edge` stays, since nothing about a gap is signed.

        If there are more than a few thousand, those that aren't here count as forgotten, like all before them.
        """
        if last - first >= _GAPS:
            self._floor = max(self._floor or 0, last + 1 - _GAPS)
        for number in range(max(first, last + 1 - _GAPS), last + 1):
            if (held := self._segments.get(number)) is None or not held.whole:
                if held is not None:
                    self._size -= self._segments.pop(number).segment.size
                self._gaps[number] = None
        while len(self._gaps) > _GAPS:
            dropped, _ = self._gaps.popitem(last=False)
            self._floor = max(self._floor or 0, dropped + 1)
        self._wake_waiting()

    def accept_proof(self, data: bytes) -> None:
        """Accept a proof that the producer signed two chains. Raise `SegmentError` if it proves nothing."""
        proof = Equivocation.decode(data, self.announcement)
        self.verifier.accept_proof(proof)
        self._end_by_fault(
            ProducerEquivocated("the producer signed two chains: nothing more of it is taken", proof)
        )

    def _end_by_fault(self, fault: SegmentError) -> None:
        self.fault = self.fault or fault
        self._wake_waiting()

    def live_start(self, back_ms: int) -> int | None:
        """Return the number of the segment to begin with, `back_ms` before the newest one; None if there is none
        yet."""
        starts = [
            each.segment
            for each in self._segments.values()
            if each.whole and Flag.START in each.segment.flags
        ]
        if not starts:
            return None
        newest = max(each.segment.time_ms for each in self._segments.values())
        early = [each.number for each in starts if each.time_ms <= newest - back_ms]
        return max(early, default=min(each.number for each in starts))

    def needed_by(self, number: int) -> list[HeldSegment]:
        """Return the numbers of the segments that segment `number` depends on, as far as they are here: the key of
        its epoch, and init data."""
        held = self._segments.get(number)
        if held is None:
            return []
        wanted = (self._keys.get(held.segment.epoch), held.segment.init)
        found = [self._segments.get(each) for each in wanted if each not in (None, NO_INIT, number)]
        return [each for each in found if each is not None]

    def notify_change(self) -> None:
        """Wake those who wait for a change: something other than the segments has changed."""
        self._wake_waiting()

    def _wake_waiting(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def wait_change(self) -> None:
        """Wait for the next change. Check the state first, and then wait without another `await` between: so no
        change is missed."""
        await self._changed.wait()


class ShowProgress:
    """The progress of a show here: what is held from where listening began, and what is wanted next."""

    def __init__(self, start: int | None = None, limit: int = HELD) -> None:
        self.held: HeldSegments | None = None
        #: The first segment that is heard, apart from init data; None before it is known.
        self.start = start
        self._limit = limit
        #: All segments below this number are here or lost.
        self._passed = 0
        self._opened = asyncio.Event()

    @property
    def announcement(self) -> Announcement | None:
        """The announcement of what is held; None before there is one."""
        return None if self.held is None else self.held.announcement

    @property
    def ended(self) -> bool:
        """True once the end of the show is known."""
        return self.held is not None and self.held.ended

    def open(self, announcement: Announcement) -> HeldSegments:
        """Begin to hold the stream of an announcement. Return the `HeldSegments`, which are empty."""
        self.held = HeldSegments(announcement, limit=self._limit)
        self._opened.set()
        return self.held

    def end(self) -> None:
        """Wake those who wait: nothing more comes."""
        self._opened.set()
        if self.held is not None:
            self.held.notify_change()

    async def wait_opened(self) -> HeldSegments | None:
        """Wait until a stream is held, and return it; None if the show ends without one."""
        await self._opened.wait()
        return self.held

    def is_from_producer(self, path: Sequence[PeerId]) -> bool:
        """True if a neighbour with this path says that it hears the producer."""
        return self.held is not None and tuple(path[:1]) == (self.held.announcement.producer,)

    def first_wanted(self) -> int | None:
        """Return the first segment that is neither here nor lost; None before any is known, and when all are here."""
        held, number = self.held, self.start
        if held is None or number is None:
            return number
        number = max(number, self._passed)
        while (whole := held.has_whole(number)) or held.is_lost(number):
            if held.last is not None and number >= held.last:
                return None
            number = number + 1 if whole else held.find_next(number)
        self._passed = number
        return number

    def give_up_rest(self) -> None:
        """Count segments that aren't whole as lost, so that those behind them are delivered."""
        wanted = self.first_wanted()
        if self.held is not None and wanted is not None and wanted <= self.held.edge:
            self.held.add_gap(wanted, self.held.edge)
