"""The proof that a producer signed two chains of one stream: two heads that can't both be in one chain."""

from __future__ import annotations

from dataclasses import dataclass

from dtp.broadcast.errors import SegmentError, SegmentForeign, SegmentForged
from dtp.broadcast.format.announcement import Announcement
from dtp.broadcast.format.segment import SIGNED_SIZE, Segment, signed_message
from dtp.identity.keys import SIGNATURE_SIZE


def check_signed(announcement: Announcement, segment: Segment) -> None:
    """Raise `SegmentForeign` for a segment of another stream, `SegmentForged` for one that the producer didn't
    sign."""
    if segment.stream != announcement.stream:
        raise SegmentForeign(f"segment {segment.number} is of another stream")
    head, signature = segment.signed[:-SIGNATURE_SIZE], segment.signed[-SIGNATURE_SIZE:]
    if not announcement.producer.verify(signature, signed_message(head)):
        raise SegmentForged(f"segment {segment.number} was not signed by {announcement.producer}")


def are_consistent(first: Segment, second: Segment) -> bool:
    """True if both may be in one chain, as far as these two can tell. `first` must not have the higher number."""
    if first.number == second.number:
        return first.link == second.link
    if first.number + 1 < second.number:
        return True
    return first.link == second.previous and first.slot <= second.slot and first.time_ms <= second.time_ms


@dataclass(frozen=True, slots=True)
class Equivocation:
    """Two heads of one stream that have the same number, or consecutive numbers but don't link to each other."""

    first: Segment
    second: Segment

    def encode(self) -> bytes:
        """Return the proof as bytes: both heads with their signatures."""
        return self.first.signed + self.second.signed

    @classmethod
    def decode(cls, data: bytes, announcement: Announcement) -> Equivocation:
        """Return the proof that was encoded. Raise `SegmentError` or a subclass if it proves nothing."""
        if len(data) != 2 * SIGNED_SIZE:
            raise SegmentError(f"a proof of two chains has {2 * SIGNED_SIZE} bytes, not {len(data)}")
        first, second = (Segment.decode_signed(data[at : at + SIGNED_SIZE]) for at in (0, SIGNED_SIZE))
        for each in (first, second):
            check_signed(announcement, each)
        if first.number > second.number or are_consistent(first, second):
            raise SegmentError("these two segments may be in one chain: they prove nothing")
        return cls(first, second)
