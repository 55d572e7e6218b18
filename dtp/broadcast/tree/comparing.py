"""What neighbours that are compared have sent, before one of them is heard."""

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

#: Milliseconds by which what a neighbour has may be older than what others have: more is no slow way, but a show that
#: is sent again, or kept back.
_STALE: Final = round(1000 * LONGEST)


class Probe:
    """What a neighbour that is measured has said."""

    def __init__(self) -> None:
        self.number, self.size, self._missing = -1, 0, -1
        #: When its newest segment was complete, Unix ms; 0 while none has come.
        self.time_ms = 0
        #: How much older another one may be for all that, ms.
        self.allowed_ms = _STALE
        self.answered, self.room = False, True
        self.others: tuple[str, ...] = ()
        self.path: tuple[PeerId, ...] = ()
        #: The announcement of the show that is listened to, once it has come.
        self.announcement: Announcement | None = None

    @property
    def done(self) -> bool:
        """True when a whole segment has come that isn't init data."""
        return self._missing == 0

    def is_far_ahead(self, segment: Segment) -> bool:
        """Return whether its newest segment is much newer than this one of the same stream."""
        announced = self.announcement
        return (
            announced is not None
            and announced.stream == segment.stream
            and segment.time_ms < self.time_ms - self.allowed_ms
        )

    def take_message(self, message: m.Message) -> None:
        """Take its next message. Raise `SegmentError` for a head that the producer didn't sign: its pieces may be
        any, which is found out as soon as they are heard."""
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
    """A neighbour that has answered, and may be heard over the connection that measured it."""

    connection: Connection
    probe: Probe
    #: Ends the connection.
    stack: AsyncExitStack


def put_stale_last(addresses: Sequence[str], measured: Mapping[str, Measured]) -> list[str]:
    """Return the addresses in their order, but those last whose newest segment is much older than that of others."""
    probes = {each: measured[each].probe for each in addresses}
    newest = max(probes.values(), key=lambda each: each.time_ms, default=None)
    if newest is None:
        return []
    return sorted(addresses, key=lambda each: probes[each].time_ms < newest.time_ms - newest.allowed_ms)
