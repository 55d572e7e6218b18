"""What neighbours have sent that are compared before one of them is chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from dtp.broadcast import messages as m
from dtp.broadcast.format import Announcement, Flag, Segment
from dtp.broadcast.format.equivocation import check_signed
from dtp.broadcast.parents import LONGEST
from dtp.identity import PeerId
from dtp.net.connection import Connection

#: The most milliseconds by which a neighbour's newest segment may be older than others'. More isn't a slow route,
#: but a show that is sent again or held back.
_STALE: Final = round(1000 * LONGEST)


class Probe:
    """What a neighbour that is being measured has sent."""

    def __init__(self) -> None:
        self.number, self.size, self._missing = -1, 0, -1
        #: When its newest segment was complete, Unix ms; 0 if none has come.
        self.time_ms = 0
        #: By how many ms another neighbour's may still be older.
        self.allowed_ms = _STALE
        self.answered, self.room = False, True
        self.others: tuple[str, ...] = ()
        self.path: tuple[PeerId, ...] = ()
        #: The announcement of the wanted show, once it has come.
        self.announcement: Announcement | None = None

    @property
    def done(self) -> bool:
        """True once a complete segment has come that isn't init data."""
        return self._missing == 0

    def is_far_ahead(self, segment: Segment) -> bool:
        """Return True if its newest segment is much newer than this one of the same stream."""
        announced = self.announcement
        return (
            announced is not None
            and announced.stream == segment.stream
            and segment.time_ms < self.time_ms - self.allowed_ms
        )

    def take_message(self, message: m.Message) -> None:
        """Process its next message. Raise `SegmentError` for a head that the producer didn't sign. Pieces aren't
        checked, since false ones are detected as soon as the neighbour is used."""
        self.answered = True
        match message:
            case m.SenderState(path, others, room):
                self.path, self.others, self.room = path, others, room
            case m.Manifest(data):
                segment = Segment.decode(data)
                if not segment.flags & (Flag.INIT | Flag.KEYS):
                    self._note_segment(segment)
            case m.Piece(number, _, data):
                self.size += len(data)
                if number == self.number:
                    self._missing -= 1

    def _note_segment(self, segment: Segment) -> None:
        self.number, self._missing = segment.number, segment.pieces
        if self.announcement is not None:
            check_signed(self.announcement, segment)
            self.time_ms, self.allowed_ms = segment.time_ms, _STALE + 2 * segment.duration_ms


@dataclass(frozen=True, slots=True)
class Measured:
    """A neighbour that has answered and can be used over the connection that measured it."""

    connection: Connection
    probe: Probe
    #: Closes the connection.
    stack: AsyncExitStack


def put_stale_last(addresses: Sequence[str], measured: Mapping[str, Measured]) -> list[str]:
    """Return the addresses in order, except that those with much older segments than others come last."""
    probes = {each: measured[each].probe for each in addresses}
    newest = max(probes.values(), key=lambda each: each.time_ms, default=None)
    if newest is None:
        return []
    return sorted(addresses, key=lambda each: probes[each].time_ms < newest.time_ms - newest.allowed_ms)
