"""Which neighbour a listener uses next, and how fast the current one sends, as values that are told what
happened."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from dtp.broadcast.format import Segment
from dtp.carriers.nearness import Nearness
from dtp.net.address import is_dialled_as_told

#: The most addresses that are remembered.
MOST: Final = 64
#: Seconds until a neighbour is tried again that was full, could not be reached, or lied. Doubled each time.
FULL, FAILED, LIED = 1.0, 0.5, 600.0
#: A listener gives up a show after a minute, and tries a neighbour that was away for long often enough until then.
LONGEST: Final = 15.0
#: Seconds within which a neighbour sends something, if only that it is there (see `feeding`). After that others are
#: asked; it is left when one of those does better, or after `LONGEST`.
ALIVE: Final = 3.0
#: Neighbours that take longer than this to answer, in seconds, are overloaded. They are asked again after this many
#: times as long, and twice that each time, up to `_STEADY`.
_BUSY: Final = 1.0
_REST: Final = 4.0
#: Seconds for which a neighbour has to be used until those left before it for being slow are forgiven.
_STEADY: Final = 60.0


@dataclass(slots=True)
class _Known:
    address: str
    #: One of the addresses that the listener was given, which is never forgotten.
    given: bool
    #: How near the nearest are who reported it; None if nobody else did.
    teller: Nearness | None = None
    #: Bytes a second that it has sent; 0 if that isn't known.
    rate: float = 0.0
    failures: int = 0
    #: How often in a row it was full.
    refusals: int = 0
    #: How often it was left for a faster one, although it was fast when it was measured.
    slow: int = 0
    #: Don't try it before this time.
    not_before: float = 0.0
    #: The number of its last report: one that was reported recently is more likely to have room.
    told: int = 0
    #: Whether it has sent what the producer didn't sign, or another show.
    lied: bool = False

    def get_rank(self, refusals: int) -> tuple[float, ...]:
        """Return a sort key, best first. One that was full often is no better than one that failed."""
        return self.failures + refusals + self.slow, -self.rate, -self.told


class Parents:
    """The addresses that have a show, and what was measured of each. Times are seconds of one clock."""

    def __init__(
        self,
        given: Iterable[str],
        teller: Nearness | None = None,
        nearest: Nearness = Nearness.ANYWHERE,
    ) -> None:
        """`given` are the addresses that the listener was given, by the user or by somebody as near as `teller`.
        Whoever reports others counts as at least as near as `nearest`."""
        self._own: frozenset[str] = frozenset()
        self._learned, self._nearest = 0, nearest
        told_by = None if teller is None else min(teller, nearest)
        self._known = {each: _Known(each, True, told_by) for each in given}
        #: How often a neighbour could not be reached, or was left for what it did.
        self.failures = 0

    def __len__(self) -> int:
        return len(self._known)

    @property
    def addresses(self) -> list[str]:
        """All known addresses, best first."""
        return [each.address for each in self._rank_known()]

    @property
    def useful(self) -> list[str]:
        """Addresses that have sent something, and given ones, best first: these are told to others."""
        return [each.address for each in self._rank_known() if each.given or each.rate]

    @property
    def all_lied(self) -> bool:
        """True if every neighbour has sent what the producer didn't sign, or another show."""
        return all(each.lied for each in self._known.values())

    @property
    def given(self) -> list[str]:
        """The addresses that the listener was given."""
        return [each.address for each in self._known.values() if each.given]

    def is_given(self, address: str) -> bool:
        """Return True if the listener was given this address."""
        return (known := self._known.get(address)) is not None and known.given

    def avoid_addresses(self, own: Iterable[str]) -> None:
        """Never try these addresses, which are the listener's own."""
        self._own = frozenset(own)
        for each in self._own:
            self._known.pop(each, None)

    def get_teller(self, address: str) -> Nearness | None:
        """Return how near the nearest are who reported an address; None if the user named it. One that was
        forgotten since may have been reported by anybody."""
        known = self._known.get(address)
        return Nearness.ANYWHERE if known is None else known.teller

    def learn_addresses(self, addresses: Iterable[str], teller: Nearness = Nearness.ANYWHERE) -> None:
        """Add addresses reported by somebody as near as `teller`. Addresses nearer than that are ignored. Beyond
        the limit, those that were never of use are dropped."""
        self._learned += 1
        teller = min(teller, self._nearest)
        for each in addresses:
            if each not in self._own and is_dialled_as_told(each, teller):
                known = self._known.setdefault(each, _Known(each, False, teller))
                known.told = self._learned
                if known.teller is not None:
                    known.teller = min(known.teller, teller)
        while len(self._known) > MOST:
            worst = [each for each in self._rank_known() if not each.given]
            if not worst:
                return
            del self._known[worst[-1].address]

    def _rank_known(self) -> list[_Known]:
        return sorted(self._known.values(), key=lambda each: each.get_rank(each.refusals))

    def list_due(self, now: float, count: int) -> list[str]:
        """Return up to `count` addresses to try now: first those that have neither failed nor been full, then
        faster ones.

        If several are compared, one of them is a given one, if it may be tried: it knows where there is room, and
        may have been full only while many others were there that have left since.
        """
        return _choose([each for each in self._rank_known() if each.not_before <= now], count)

    def list_first(self, now: float, count: int) -> list[str]:
        """Return the addresses to try at the start: all given ones that may be tried now, and others up to `count`,
        but at least one. Which of the given ones has an older stream isn't known before."""
        due = [each for each in self._rank_known() if each.not_before <= now]
        given = [each.address for each in due if each.given]
        others = [each.address for each in due if not each.given]
        return given + others[: max(count - len(given), 1)]

    def list_others(self, address: str, count: int) -> list[str]:
        """Return up to `count` others than `address` to ask for what it doesn't have, for which they need no room.
        One of them is a given one: as a rule it began earlier, and has more."""
        others = [each for each in self._known.values() if each.address != address and not each.lied]
        return _choose(sorted(others, key=lambda each: each.get_rank(0)), count)

    def next_time(self, now: float) -> float:
        """Return when a neighbour may be tried; `now` if one already may."""
        return max(now, min((each.not_before for each in self._known.values()), default=now + LONGEST))

    def note_rate(self, address: str, rate: float) -> None:
        """Note that `address` has sent `rate` bytes a second for a while. This counts as much as everything
        before."""
        if (known := self._known.get(address)) is not None:
            known.rate = rate if not known.rate else (known.rate + rate) / 2
            known.failures = 0

    def note_full(self, address: str, now: float) -> None:
        """Note that `address` accepts nobody now. Those that weren't asked come first, or a newcomer would ask the
        same ones again and again."""
        if (known := self._known.get(address)) is not None:
            known.refusals += 1
            known.not_before = now + min(FULL * 2 ** (known.refusals - 1), LONGEST)

    def has_room(self, address: str) -> None:
        """Note that `address` has accepted this side and sent it a segment. Mere words count for nothing."""
        if (known := self._known.get(address)) is not None:
            known.refusals = 0

    def note_failed(self, address: str, now: float) -> None:
        """Note that `address` can't be reached, has ended, or is too slow."""
        self.failures += 1
        if (known := self._known.get(address)) is not None:
            known.failures += 1
            known.not_before = now + min(FAILED * 2 ** (known.failures - 1), LONGEST)
            if known.failures > 6 and not known.given:
                del self._known[address]

    def note_slow(self, address: str, now: float) -> None:
        """Note that `address` was left since another one is faster. However fast it is measured to be, it now comes
        after those that weren't left."""
        if (known := self._known.get(address)) is not None:
            known.slow += 1
        self.note_failed(address, now)

    def forget_slow(self) -> None:
        """Take measured speeds at face value again, since what made neighbours slow may be over."""
        for each in self._known.values():
            each.slow = 0

    def note_forged(self, address: str, now: float) -> None:
        """Note that `address` has sent what the producer didn't sign."""
        if (known := self._known.get(address)) is not None:
            known.failures += 1
            known.lied = True
            known.not_before = now + LIED


def _choose(ranked: list[_Known], count: int) -> list[str]:
    """Return the first `count` of these, with a given one among them."""
    chosen = ranked[:count]
    if count > 1 and not any(each.given for each in chosen):
        chosen[count - 1 :] = [each for each in ranked[count:] if each.given][:1] or chosen[count - 1 :]
    return [each.address for each in chosen]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a listener waits, in seconds."""

    #: For the answer of a neighbour that it dials.
    answer: float = 5.0
    #: Without a byte, beyond twice a segment's duration, before it uses another neighbour.
    silence: float = 1.5
    #: How much later than usual segments may come before the neighbour counts as too slow.
    late: float = 3.0
    #: For any neighbour at all, at the start.
    anybody: float = 60.0
    #: For a new segment, or for a neighbour that says that it hears the producer, before the show is lost.
    lost: float = 60.0


class Pace:
    """How fast a neighbour sends: its rate, its silence, and whether it falls behind. Times are of one clock."""

    def __init__(self, patience: Patience, clock: Callable[[], float], restless: int = 0) -> None:
        """With `restless` slow neighbours before it, it has twice the time for each."""
        factor = 2.0 ** min(restless, 32)
        self._late_after = min(patience.late * factor, max(patience.late, LONGEST))
        self._patience, self._factor = patience, factor
        self.now = clock
        self._began = self._last = self._said = clock()
        self._size = 0
        #: How often others were asked since a piece came.
        self.looks = 0
        #: How often in a row those that were asked were overloaded, and until when they are left alone.
        self.busy_looks = 0
        self._rests_until = -math.inf
        self._least: float | None = None
        #: When the newest segment was complete, by the producer's clock in ms. While a clock that was set back
        #: catches up, signed times stand still and don't tell how late segments are.
        self._time_ms = -1
        #: Whether segments come later than they did.
        self.late = False
        self._duration = 0.0
        #: When the segment whose pieces are coming counts as too slow, if it can.
        self._due = math.inf
        self.segments = 0

    @property
    def rate(self) -> float:
        """Bytes a second since it began."""
        return self._size / max(self._last - self._began, 1e-6)

    @property
    def steady(self) -> bool:
        """True if it has been used for long, and isn't late."""
        return not self.late and self.now() - self._began > _STEADY

    @property
    def was_tried(self) -> bool:
        """True once it has been used for as long as segments may be late."""
        return self.now() - self._began > self._patience.late

    def note_said(self) -> None:
        """Note that it has sent something."""
        self._said = self.now()

    @property
    def silence(self) -> float:
        """Seconds for which it has sent nothing at all."""
        return self.now() - self._said

    def note_piece(self, size: int) -> None:
        """Note that a piece of `size` bytes has come."""
        self._last = self.now()
        self.looks = 0
        self._size += size

    def note_head(self, segment: Segment) -> None:
        """Note that the pieces of a segment come next. A large one would stall if each of them was held back for as
        long as allowed."""
        self._due = self.now() + LONGEST * self._factor
        if self._least is not None and segment.time_ms > self._time_ms:
            allowed = self._late_after + self._patience.silence + 2 * segment.duration_ms / 1000
            self._due = min(self._due, segment.time_ms / 1000 + self._least + allowed)

    def note_whole(self, segment: Segment) -> None:
        """Note that a segment is complete. Lateness is measured against other segments, whatever the producer's
        clock shows."""
        self.segments += 1
        self._due = math.inf
        self._duration = segment.duration_ms / 1000
        if segment.time_ms <= self._time_ms:
            return
        self._time_ms = segment.time_ms
        offset = self.now() - segment.time_ms / 1000
        self._least = offset if self._least is None else min(self._least, offset)
        self.late = offset > self._least + self._late_after

    @property
    def quiet_until(self) -> float:
        """When to ask others whether they are ahead, if nothing comes until then: it is silent, or a piece or
        segment takes longer than it should. The next time waits twice as long."""
        factor = self._factor * 2.0 ** min(self.looks, 32)
        piece = self._patience.silence + 2 * self._duration
        said = ALIVE if self.segments else self._patience.answer
        quiet_until = min(
            self._due,
            self._last + max(piece, min(piece * factor, LONGEST)),
            self._said + max(said, min(said * factor, LONGEST)),
        )
        left_at = self._said + (LONGEST if self.segments else self._patience.answer)
        return max(quiet_until, min(self._rests_until, left_at))

    @property
    def may_look(self) -> bool:
        """True if others should be asked now whether they are ahead."""
        return self.now() >= (self._rests_until if self.late else self.quiet_until)

    @property
    def required_lead(self) -> int:
        """By how many segments another neighbour has to be ahead: one, plus what plays for a second."""
        return 1 + int(1 / self._duration) if self._duration else 1

    def note_looked(self) -> None:
        """Note that others were asked, and mostly had nothing either: wait longer before the next time."""
        self._last = self.now()
        self.looks += 1
        self._due = self.now() + LONGEST * self._factor
        self.late, self._least = False, None

    def note_answered(self, took: float) -> None:
        """Note that others had nothing either, and took this many seconds to say so. If all lack processor time,
        requests take the rest of it, and segments come even later."""
        self.busy_looks = self.busy_looks + 1 if took > _BUSY else 0
        if self.busy_looks:
            rest = _REST * took * 2.0 ** min(self.busy_looks - 1, 32)
            self._rests_until = self.now() + min(rest, _STEADY)
