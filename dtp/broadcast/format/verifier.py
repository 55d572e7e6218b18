"""Checks the segments of a stream for a listener or relay: they have to be the producer's, and to fit together."""

from __future__ import annotations

from typing import Final

from dtp.broadcast.errors import ProducerEquivocated
from dtp.broadcast.format.announcement import Announcement
from dtp.broadcast.format.equivocation import Equivocation, are_consistent, check_signed
from dtp.broadcast.format.segment import Segment

#: The number of heads that are kept for comparison: a quarter of an hour with one segment a second.
REMEMBERED: Final = 1024


class Verifier:
    """Checks segments of one stream in any order, from any sender, beginning with any of them.

    Each is compared with known neighbours in the chain. After two segments that can't both be in one chain, nothing
    more is accepted.
    """

    def __init__(self, announcement: Announcement, *, remembered: int = REMEMBERED) -> None:
        self.announcement = announcement
        #: Set once the producer has signed two chains.
        self.proof: Equivocation | None = None
        self._known: dict[int, Segment] = {}
        self._remembered = remembered

    def check(self, manifest: bytes) -> Segment:
        """Return the segment with this head, signature and hashes. Its pieces are checked by `check_piece`.

        Raise `SegmentError`, `SegmentForeign` or `SegmentForged` for what the producer didn't send, which changes
        nothing; raise `ProducerEquivocated` once there is a second chain.
        """
        if self.proof is not None:
            raise self._make_equivocated(self.proof)
        segment = Segment.decode(manifest)
        known = self._known.get(segment.number)
        if known is not None and known.signed == segment.signed:
            return segment
        check_signed(self.announcement, segment)
        self._compare_known(segment)
        # Only heads are compared: the hashes of all pieces would be 64 KiB more for each.
        self._known[segment.number] = segment.with_hashes(())
        while len(self._known) > self._remembered:  # old ones may be sent again to push new ones out
            del self._known[min(self._known)]
        return segment

    def accept_proof(self, proof: Equivocation) -> None:
        """Accept nothing more, since somebody has shown `proof`, which was decoded with this announcement."""
        self.proof = self.proof or proof

    def _compare_known(self, segment: Segment) -> None:
        for number in (segment.number - 1, segment.number, segment.number + 1):
            other = self._known.get(number)
            if other is None:
                continue
            first, second = (other, segment) if other.number <= segment.number else (segment, other)
            if not are_consistent(first, second):
                self.proof = Equivocation(first, second)
                raise self._make_equivocated(self.proof)

    def _make_equivocated(self, proof: Equivocation) -> ProducerEquivocated:
        return ProducerEquivocated(
            f"{self.announcement.producer} signed two chains: segments {proof.first.number} and "
            f"{proof.second.number} can't both be in one show. Nothing more of it is taken",
            proof,
        )
