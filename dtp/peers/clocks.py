"""What neighbours have said of the time, and whether it is this machine's clock that is wrong."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Final, NamedTuple

from dtp.peers.record import PeerRecord
from dtp.plurals import count_of

#: Seconds by which clocks may differ before that is told: as far ahead as messages of topics are taken.
TOLERANCE: Final = 10.0
#: Seconds that the quickest message of a neighbour takes, at most; and for how long it counts as the quickest: others
#: may have waited, here or there.
LATE: Final = 5.0
QUICKEST: Final = 300.0
#: The part of those that have said something that has to differ in the same way, where they are `LEAST` or more. Of
#: fewer all have to, and it is told that either side may be wrong: they may lie, or be wrong themselves.
LEAST: Final = 3
MOST_OF: Final = 2 / 3


class _Bounds(NamedTuple):
    """Unix time by a neighbour's clock less the steady clock, and when the message came that says so."""

    least: float
    most: float
    at: float


_UNKNOWN: Final = _Bounds(-math.inf, math.inf, -math.inf)


class ClockDifference(NamedTuple):
    """How far neighbours' clocks are from this machine's; as text, a sentence for an operator."""

    #: Seconds that theirs are ahead, at least; below 0 they are behind. The median of those that differ so.
    seconds: float
    #: How many differ so, of how many that said something.
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
    """How far clocks of neighbours are from a steady clock: for each two bounds. A value: times are arguments.

    Nobody is believed, and no clock is set by it: `find_difference` is for people.
    """

    def __init__(self) -> None:
        self._bounds: dict[bytes, _Bounds] = {}

    def __len__(self) -> int:
        return len(self._bounds)

    def note_message(self, peer: bytes, written: float, now: float) -> None:
        """Note that a neighbour itself gave what it wrote at `written` (Unix time). `now` is the steady clock."""
        least, known = written - now, self._bounds.get(peer)
        if known is None or least > known.least or now - known.at > QUICKEST:
            self._bounds[peer] = _Bounds(least, least + LATE, now)

    def note_time(self, peer: bytes, wall: float, now: float) -> None:
        """Note that a neighbour has just said that it is `wall` (Unix time) there, whatever it said before: its clock
        may have been set. `now` is the steady clock."""
        self._bounds[peer] = _Bounds(wall - now, wall - now + LATE, now)

    def note_record(self, record: PeerRecord, now: float) -> None:
        """Note that a neighbour itself gave its own record: it signed it before, and another one before this ends."""
        least, most = record.sequence / 1000 - now, record.expires - now
        known = self._bounds.get(record.peer.key, _UNKNOWN)
        if max(least, known.least) <= min(most, known.most):  # else its clock has been set
            least, most = max(least, known.least), min(most, known.most)
        self._bounds[record.peer.key] = _Bounds(least, most, known.at)

    def forget_peer(self, peer: bytes) -> None:
        """Forget what somebody has said who is not a neighbour any more."""
        self._bounds.pop(peer, None)

    def find_refusal(
        self, peers: Collection[bytes], offset: float, *, ahead: float, behind: float
    ) -> ClockDifference | None:
        """Return how the clocks of all `peers` differ from this machine's, where each refuses what is dated here, as
        more than `ahead` seconds ahead of it or `behind` it; None where somebody takes it, or may."""
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
        """Return how most clocks differ from this machine's, which is `offset` before the steady one, or all where
        they are one or two; None if they don't."""
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
