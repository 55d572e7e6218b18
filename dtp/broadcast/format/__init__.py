"""What a show is made of, as values: announcements, segments, their chain and their pieces. No IO.

`docs/broadcast.md` is the specification, exact to the byte.
"""

from __future__ import annotations

from dtp.broadcast.format.announcement import Announcement
from dtp.broadcast.format.equivocation import Equivocation
from dtp.broadcast.format.segment import FIRST_LINK, NO_INIT, PIECE_SIZE, Flag, Segment
from dtp.broadcast.format.signing import Position, SegmentSigner
from dtp.broadcast.format.verifier import Verifier

__all__ = [
    "FIRST_LINK",
    "NO_INIT",
    "PIECE_SIZE",
    "Announcement",
    "Equivocation",
    "Flag",
    "Position",
    "Segment",
    "SegmentSigner",
    "Verifier",
]
