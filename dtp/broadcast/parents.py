"""Whom a listener hears next, and how fast the one that it hears sends: values, which are told what happened."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from dtp.broadcast.format import Segment
from dtp.carriers.nearness import Nearness
from dtp.net.address import is_dialled_as_told

#: Addresses that are remembered.
MOST: Final = 64
#: Seconds until a neighbour is tried again: one that was full, that could not be reached, that lied. Doubled each
#: time.
FULL, FAILED, LIED = 1.0, 0.5, 600.0
#: A listener gives a show up after a minute: one that was away for long is tried often enough before.
LONGEST: Final = 15.0
#: Seconds within which a neighbour says something, be it that it is there (see `feeding`). After them others are
#: asked; it is left when one of those does better, or after `LONGEST`.
ALIVE: Final = 3.0
#: Others that take longer to answer, in seconds, have too much to do. They are asked again after so many times as
#: long, and twice that each time, up to `_STEADY`.
_BUSY: Final = 1.0
_REST: Final = 4.0
#: Seconds that a neighbour is heard after which those that were left before it for being slow are forgiven.
_STEADY: Final = 60.0


@dataclass(slots=True)
class _Known:
    address: str
    #: One of the addresses that the listener was given: it is never forgotten.
    given: bool
    #: How near the nearest are who told of it; None where nobody else did.
    teller: Nearness | None = None
    #: Bytes a second that it has sent, 0 while that isn't known.
    rate: float = 0.0
    failures: int = 0
    #: How often it was full, since it had room.
    refusals: int = 0
    #: How often it was left for one that was faster, though it was fast when it was measured.
    slow: int = 0
    #: Not to be tried before.
    not_before: float = 0.0
    #: When somebody has told of it last, counted: one that was told of recently is likelier to have room.
    told: int = 0
    #: It has sent what the producer didn't sign, or another show.
    lied: bool = False

    def get_rank(self, refusals: int) -> tuple[float, ...]:
        """Return the key that sorts the best first; one that was full so often is no better than one that failed."""
        return self.failures + refusals + self.slow, -self.rate, -self.told


class Parents:
    """The addresses that have a show, and what was measured of each. Times are seconds of one clock."""

    def __init__(
        self,
        given: Iterable[str],
        teller: Nearness | None = None,
        nearest: Nearness = Nearness.ANYWHERE,
    ) -> None:
        """`given` are the addresses that the listener was told: by the user, or by somebody as near as `teller`.
        Whoever tells of others counts as at least as near as `nearest`."""
        self._own: frozenset[str] = frozenset()
        self._learned, self._nearest = 0, nearest
        told_by = None if teller is None else min(teller, nearest)
        self._known = {each: _Known(each, True, told_by) for each in given}
        #: How many times one could not be reached, or was left for what it did.
        self.failures = 0

    def __len__(self) -> int:
        return len(self._known)

    @property
    def addresses(self) -> list[str]:
        """All that are known, the best first."""
        return [each.address for each in self._rank_known()]

    @property
    def useful(self) -> list[str]:
        """Those that have sent something, and those that were given, the best first: what others are told."""
        return [each.address for each in self._rank_known() if each.given or each.rate]

    @property
    def all_lied(self) -> bool:
        """True when nobody is left who hasn't sent what the producer didn't sign, or another show."""
        return all(each.lied for each in self._known.values())

    @property
    def given(self) -> list[str]:
        """The addresses that the listener was told."""
        return [each.address for each in self._known.values() if each.given]

    def is_given(self, address: str) -> bool:
        """Return whether the listener was told this address."""
        return (known := self._known.get(address)) is not None and known.given

    def avoid_addresses(self, own: Iterable[str]) -> None:
        """Never try these addresses: they are the listener's own."""
        self._own = frozenset(own)
        for each in self._own:
            self._known.pop(each, None)

    def get_teller(self, address: str) -> Nearness | None:
        """Return how near the nearest are who told of an address; None where the user named it. Anybody may have told
        of one that was forgotten since."""
        known = self._known.get(address)
        return Nearness.ANYWHERE if known is None else known.teller

    def learn_addresses(self, addresses: Iterable[str], teller: Nearness = Nearness.ANYWHERE) -> None:
        """Add addresses that somebody as near as `teller` has told of. What is nearer than that doesn't count. Past
        the bound those go that were never of use."""
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
        """Return up to `count` addresses to try now: first those that have neither failed nor been full, then the
        faster ones.

        Where several are compared, one is of those that were given, if it may be tried: it knows where there is room,
        and was full itself perhaps, when many others that were told of since have gone.
        """
        return _choose([each for each in self._rank_known() if each.not_before <= now], count)

    def list_first(self, now: float, count: int) -> list[str]:
        """Return whom to try in the beginning: all that were given, if they may be tried now, and others up to
        `count`, but one at least. Which of those that were given has an older stream isn't known before."""
        due = [each for each in self._rank_known() if each.not_before <= now]
        given = [each.address for each in due if each.given]
        others = [each.address for each in due if not each.given]
        return given + others[: max(count - len(given), 1)]

    def list_others(self, address: str, count: int) -> list[str]:
        """Return up to `count` others than `address` to ask for what it doesn't have: they don't need room
        for that. One is of those that were given: it began before the others as a rule, and has more."""
        others = [each for each in self._known.values() if each.address != address and not each.lied]
        return _choose(sorted(others, key=lambda each: each.get_rank(0)), count)

    def next_time(self, now: float) -> float:
        """Return when somebody may be tried; `now` where that is so already."""
        return max(now, min((each.not_before for each in self._known.values()), default=now + LONGEST))

    def note_rate(self, address: str, rate: float) -> None:
        """Note that `address` has sent `rate` bytes a second for a while, which counts as much as all before."""
        if (known := self._known.get(address)) is not None:
            known.rate = rate if not known.rate else (known.rate + rate) / 2
            known.failures = 0

    def note_full(self, address: str, now: float) -> None:
        """Note that `address` takes nobody now: those that haven't been asked come first, or a newcomer would ask the
        same ones again and again."""
        if (known := self._known.get(address)) is not None:
            known.refusals += 1
            known.not_before = now + min(FULL * 2 ** (known.refusals - 1), LONGEST)

    def has_room(self, address: str) -> None:
        """Note that `address` has let this side in, and sent it a segment: words alone count for nothing."""
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
        """Note that `address` was left since another one is faster: however fast it is when it is measured again, it
        comes behind those that weren't."""
        if (known := self._known.get(address)) is not None:
            known.slow += 1
        self.note_failed(address, now)

    def forget_slow(self) -> None:
        """Take all for as fast as they are when they are measured: what made them slow may be over."""
        for each in self._known.values():
            each.slow = 0

    def note_forged(self, address: str, now: float) -> None:
        """Note that `address` has sent what the producer didn't sign."""
        if (known := self._known.get(address)) is not None:
            known.failures += 1
            known.lied = True
            known.not_before = now + LIED


def _choose(ranked: list[_Known], count: int) -> list[str]:
    """Return the first `count` of these, one of those that were given among them."""
    chosen = ranked[:count]
    if count > 1 and not any(each.given for each in chosen):
        chosen[count - 1 :] = [each for each in ranked[count:] if each.given][:1] or chosen[count - 1 :]
    return [each.address for each in chosen]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a listener waits. Seconds."""

    #: ... for the answer of one that it dials.
    answer: float = 5.0
    #: ... without a byte, beside twice what a segment lasts, before it hears somebody else.
    silence: float = 1.5
    #: How much later than usual segments may come before the neighbour counts as too slow.
    late: float = 3.0
    #: ... for anybody at all, in the beginning.
    anybody: float = 60.0
    #: ... for a new segment, or for a neighbour that says that it hears the producer, before the show is lost.
    lost: float = 60.0


class Pace:
    """How fast a neighbour sends: its rate, its silence, and whether it falls behind. Times are of one clock."""

    def __init__(self, patience: Patience, clock: Callable[[], float], restless: int = 0) -> None:
        """With `restless` neighbours that were slow before it, it has twice the time for each."""
        factor = 2.0 ** min(restless, 32)
        self._late_after = min(patience.late * factor, max(patience.late, LONGEST))
        self._patience, self._factor = patience, factor
        self.now = clock
        self._began = self._last = self._said = clock()
        self._size = 0
        #: How often others were asked, since a piece came.
        self.looks = 0
        #: How often in a row those that were asked had too much to do; and until when they are left alone.
        self.busy_looks = 0
        self._rests_until = -math.inf
        self._least: float | None = None
        #: When the newest segment was complete, by the producer's clock, ms. One that is set back stands still in
        #: what is signed until it is there again: of how late those segments are it tells nothing.
        self._time_ms = -1
        #: True when segments come later than they did.
        self.late = False
        self._duration = 0.0
        #: When the segment of which pieces come counts as too slow, as far as one does.
        self._due = math.inf
        self.segments = 0

    @property
    def rate(self) -> float:
        """Bytes a second since it began."""
        return self._size / max(self._last - self._began, 1e-6)

    @property
    def steady(self) -> bool:
        """True if it is heard for long, and not late."""
        return not self.late and self.now() - self._began > _STEADY

    @property
    def was_tried(self) -> bool:
        """True once it is heard for as long as segments may be late."""
        return self.now() - self._began > self._patience.late

    def note_said(self) -> None:
        """Note that it has said something."""
        self._said = self.now()

    @property
    def silence(self) -> float:
        """Seconds for which it has said nothing at all."""
        return self.now() - self._said

    def note_piece(self, size: int) -> None:
        """Note that a piece of `size` bytes has come."""
        self._last = self.now()
        self.looks = 0
        self._size += size

    def note_head(self, segment: Segment) -> None:
        """Note that the pieces of a segment come next: a large one would stall if each was kept back as long as it
        may."""
        self._due = self.now() + LONGEST * self._factor
        if self._least is not None and segment.time_ms > self._time_ms:
            allowed = self._late_after + self._patience.silence + 2 * segment.duration_ms / 1000
            self._due = min(self._due, segment.time_ms / 1000 + self._least + allowed)

    def note_whole(self, segment: Segment) -> None:
        """Note that a segment is complete. How late it is counts by the difference to others, whatever the
        producer's clock."""
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
        """When others are to be asked whether they are ahead, if nothing comes until then: it says nothing, a piece
        or a segment takes longer than it should. The next time that is for twice as long."""
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
        """True if others are to be asked now whether they are ahead."""
        return self.now() >= (self._rests_until if self.late else self.quiet_until)

    @property
    def required_lead(self) -> int:
        """By how many segments another one has to be ahead: one, and what plays for a second."""
        return 1 + int(1 / self._duration) if self._duration else 1

    def note_looked(self) -> None:
        """Note that others were asked, and mostly had nothing either: wait longer before the next time."""
        self._last = self.now()
        self.looks += 1
        self._due = self.now() + LONGEST * self._factor
        self.late, self._least = False, None

    def note_answered(self, took: float) -> None:
        """Note that others had nothing either, and took so many seconds to say so. Where all have too little of the
        processor, asking takes the rest of it, and what comes is later still."""
        self.busy_looks = self.busy_looks + 1 if took > _BUSY else 0
        if self.busy_looks:
            rest = _REST * took * 2.0 ** min(self.busy_looks - 1, 32)
            self._rests_until = self.now() + min(rest, _STEADY)
