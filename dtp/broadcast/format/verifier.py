"""What a listener or a relay has checked of a stream: segments that are the producer's, and fit together."""

from __future__ import annotations

from typing import Final

from dtp.broadcast.errors import ProducerEquivocated
from dtp.broadcast.format.announcement import Announcement
from dtp.broadcast.format.equivocation import Equivocation, are_consistent, check_signed
from dtp.broadcast.format.segment import Segment

#: Heads that are kept to compare others with: a quarter of an hour of one a second.
REMEMBERED: Final = 1024


class Verifier:
    """Takes segments of one stream in any order, from anybody; begin with any.

    Each is held against its neighbours that are known already. After two that can't both be in one chain nothing is
    taken any more.
    """

    def __init__(self, announcement: Announcement, *, remembered: int = REMEMBERED) -> None:
        self.announcement = announcement
        #: Set once the producer has signed two chains.
        self.proof: Equivocation | None = None
        self._known: dict[int, Segment] = {}
        self._remembered = remembered

    def check(self, manifest: bytes) -> Segment:
        """Return the segment whose head, signature and hashes these are; its pieces are checked by `check_piece`.

        Raise `SegmentError`, `SegmentForeign` and `SegmentForged` for what the producer didn't send, which changes
        nothing, and `ProducerEquivocated` from the second chain on.
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
        while len(self._known) > self._remembered:  # the newest stay: old ones may be sent again to hide them
            del self._known[min(self._known)]
        return segment

    def accept_proof(self, proof: Equivocation) -> None:
        """Take nothing any more: somebody has shown `proof`, which was decoded with this announcement."""
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
