"""What neighbours' messages tell about the time, and whether this machine's clock is wrong."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Final, NamedTuple

from dtp.peers.record import PeerRecord
from dtp.plurals import count_of

#: Seconds by which clocks may differ before it is reported: as far ahead as messages of topics may be.
TOLERANCE: Final = 10.0
#: Seconds that a neighbour's quickest message takes, at most; and seconds for which a message counts as the
#: quickest. Others may have waited, here or there.
LATE: Final = 5.0
QUICKEST: Final = 300.0
#: The share of neighbours that have to differ in the same way, if at least `LEAST` are known. If fewer are known,
#: all of them have to, and the report says that either side may be wrong: they may lie, or be wrong themselves.
LEAST: Final = 3
MOST_OF: Final = 2 / 3


class _Bounds(NamedTuple):
    """Bounds of a neighbour's Unix time less the steady clock; and when the message came from which they
    are known.
    """

    least: float
    most: float
    at: float


_UNKNOWN: Final = _Bounds(-math.inf, math.inf, -math.inf)


class ClockDifference(NamedTuple):
    """How far neighbours' clocks are from this machine's. As text it is a sentence for an operator."""

    #: Seconds by which theirs are ahead, at least; negative if they are behind. The median of those that differ.
    seconds: float
    #: How many differ in this way, and of how many something is known.
    differing: int
    told: int

    def __str__(self) -> str:
        way = "behind" if self.seconds > 0 else "ahead of"
        advice = "set it, or have it set by NTP" if self.told >= LEAST else "set the one that is wrong"
        return (
            f"this machine's clock is at least {abs(self.seconds):,.0f} s {way} those of {self.differing} of "
            f"{count_of(self.told, 'neighbour')}: {advice}; until then messages and records "
            "are refused, here or by others"
        )


class PeerClocks:
    """The differences of neighbours' clocks from a steady clock, as two bounds for each. A value: times are
    arguments.

    No neighbour is trusted, and no clock is set from this: `find_difference` is for people.
    """

    def __init__(self) -> None:
        self._bounds: dict[bytes, _Bounds] = {}

    def __len__(self) -> int:
        return len(self._bounds)

    def note_message(self, peer: bytes, written: float, now: float) -> None:
        """Note a message that a neighbour has itself sent, and has written at `written` (Unix time). `now` is the
        steady clock.
        """
        least, known = written - now, self._bounds.get(peer)
        if known is None or least > known.least or now - known.at > QUICKEST:
            self._bounds[peer] = _Bounds(least, least + LATE, now)

    def note_time(self, peer: bytes, wall: float, now: float) -> None:
        """Note that a neighbour has just said that its time is `wall` (Unix time). Earlier messages are
        disregarded, since its clock may have been set. `now` is the steady clock.
        """
        self._bounds[peer] = _Bounds(wall - now, wall - now + LATE, now)

    def note_record(self, record: PeerRecord, now: float) -> None:
        """Note a neighbour's own record, which it has sent itself: it was signed before now, and the next is signed
        before this one expires.
        """
        least, most = record.sequence / 1000 - now, record.expires - now
        known = self._bounds.get(record.peer.key, _UNKNOWN)
        if max(least, known.least) <= min(most, known.most):  # otherwise its clock has been set
            least, most = max(least, known.least), min(most, known.most)
        self._bounds[record.peer.key] = _Bounds(least, most, known.at)

    def forget_peer(self, peer: bytes) -> None:
        """Forget what is known of a peer that is no longer a neighbour."""
        self._bounds.pop(peer, None)

    def find_refusal(
        self, peers: Collection[bytes], offset: float, *, ahead: float, behind: float
    ) -> ClockDifference | None:
        """Return how the clocks of all `peers` differ from this machine's, if each refuses what is dated by this
        machine, as more than `ahead` seconds ahead of its clock or `behind` seconds behind it. Return None if a
        peer accepts it, or may accept it.
        """
        differing = []
        for peer in peers:
            least, most, _ = self._bounds.get(peer, _UNKNOWN)
            if offset - most > ahead:
                differing.append(most - offset)
            elif least - offset > behind:
                differing.append(least - offset)
            else:
                return None
        if not differing:
            return None
        return ClockDifference(sorted(differing)[len(differing) // 2], len(differing), len(differing))

    def find_difference(self, offset: float) -> ClockDifference | None:
        """Return how most clocks differ from this machine's, or all if only one or two are known; None if they
        don't. `offset` is this machine's Unix time less the steady clock.
        """
        ahead, behind = [], []
        for least, most, _ in self._bounds.values():
            if least - offset > TOLERANCE:
                ahead.append(least - offset)
            elif offset - most > TOLERANCE:
                behind.append(most - offset)
        differing = max(ahead, behind, key=len)
        told = len(self._bounds)
        if not told or len(differing) < (MOST_OF * told if told >= LEAST else told):
            return None
        return ClockDifference(sorted(differing)[len(differing) // 2], len(differing), told)
