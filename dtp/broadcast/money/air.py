"""Whether a show is on air, as a value: it is given the chain's state, what is owed, and the time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dtp.chain.show import FIRST_HEAD, Show, ShowState


class Air(StrEnum):
    """The state of a show, as its producer sees it."""

    #: Nobody has paid anything.
    OFF = "off"
    #: There is some money, or there are some tickets, but not enough.
    FUNDING = "funding"
    ON_AIR = "on air"
    #: It was on air, and the pot is now below one slot, or its producer can't post what was sent.
    PAUSED = "paused"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Hysteresis:
    """How long a show stays on or off air at least, in seconds, so that it doesn't switch back and forth."""

    #: Seconds that it stays on air at least.
    floor: float = 5.0
    #: Seconds that it has to be unpaid before it goes off air.
    linger: float = 1.0


class AirJudge:
    """Decides whether to send. Slots that were sent but aren't posted count as spent, so that nothing is sent that
    can't be paid, except one slot while a batch can't be posted, since the chain may just be slow."""

    def __init__(self, hysteresis: Hysteresis | None = None) -> None:
        self._hysteresis = hysteresis or Hysteresis()
        #: The current state.
        self.air = Air.OFF
        self._since = 0.0
        self._unpaid_since: float | None = None

    def judge_show(self, show: Show, owed: int, now: float) -> Air:
        """Return the show's state, with `owed` slots sent but not posted. `now` is in seconds of one clock."""
        told = state_on_chain(show, owed)
        if self.air != Air.ON_AIR or told == Air.ENDED:
            if told != self.air:
                self.air, self._since, self._unpaid_since = told, now, None
            return self.air
        if told == Air.ON_AIR:
            self._unpaid_since = None
        else:
            self._unpaid_since = now if self._unpaid_since is None else self._unpaid_since
            if now >= max(self._unpaid_since + self._hysteresis.linger, self._since + self._hysteresis.floor):
                self.air, self._since, self._unpaid_since = told, now, None
        return self.air


def state_on_chain(show: Show, owed: int) -> Air:
    """Return the state of a show by the chain alone, and by `owed` slots that aren't posted."""
    if show.state == ShowState.ENDED:
        return Air.ENDED
    begun = show.posted > 0 or show.head != FIRST_HEAD
    if show.state == ShowState.ON_AIR:
        if show.rate and show.paid_slots <= owed:
            return Air.PAUSED
        if show.slots and show.posted + owed >= show.slots:
            return Air.PAUSED
        return Air.ON_AIR if owed <= show.batch else Air.PAUSED  # the chain accepts a batch of past slots
    if begun:
        return Air.PAUSED
    return Air.FUNDING if show.pot or show.tickets else Air.OFF


def count_unposted(show: Show, chain_ms: int) -> int:
    """Return how many slots of a show on air are over by the chain's clock and not posted yet. More than a batch
    means that its producer is away, or can't post."""
    if show.state != ShowState.ON_AIR:
        return 0
    return max(0, (chain_ms - show.due_ms) // show.slot_ms + 1)


class Slots:
    """Determines the current slot, and what has to be posted for past ones, as a value. Times are the producer's
    Unix ms.

    The chain counts all time since a show went on air. Here only time counts in which there was a producer: time
    without one isn't posted, and the chain leaves it out with the next batch.
    """

    def __init__(self, sent: int = 0, link: bytes = FIRST_HEAD) -> None:
        """`sent` is the slot of the last segment that a previous process has sent, and `link` is that segment's
        link."""
        self._links = {sent: link}
        self._newest = link
        self._sent = sent
        #: When the first slot began that was sent here and isn't posted; None before the first update.
        self._began: int | None = None
        self._posted = 0
        #: How many ms the chain's clock is ahead, as far as that is known: a slot that the chain says is over has
        #: begun earlier.
        self._ahead = 0

    def update_from_chain(self, show: Show, now_ms: int) -> None:
        """Apply the state of the chain, and the time. Call this first, and then repeatedly."""
        owed_ms = 0
        if show.state != ShowState.ON_AIR:
            self._began = now_ms
        elif self._began is None:  # earlier slots are owed, and the last of them goes on
            owed_ms = max(0, self._sent - show.posted) * show.slot_ms
            self._began = now_ms - owed_ms
        else:
            self._began += (show.posted - self._posted) * show.slot_ms
        begun_there = show.due_ms - show.slot_ms
        self._ahead = max(self._ahead, begun_there + owed_ms - now_ms)
        self._began = max(self._began, begun_there - self._ahead)
        self._posted = show.posted

    def current_slot(self, show: Show, now_ms: int) -> int:
        """Return the number of the current slot, or of the next one to be posted if none has begun."""
        return show.posted + self._count_whole(show, now_ms) if show.due_ms else 0

    def count_over(self, show: Show, now_ms: int) -> int:
        """Return how many slots are over but not posted."""
        return self._count_whole(show, now_ms) if show.state == ShowState.ON_AIR else 0

    def _count_whole(self, show: Show, now_ms: int) -> int:
        assert self._began is not None, "only behind follow"
        return max(0, (now_ms - self._began) // show.slot_ms)

    def note_sent(self, slot: int, link: bytes) -> None:
        """Note that a segment of this slot was sent; `link` is the segment's."""
        self._links[slot], self._newest = link, link

    def due_hashes(self, show: Show, now_ms: int, *, closing: bool = False) -> list[bytes]:
        """Return the hashes to post now. There are none until a batch is full, or the money or the show ends."""
        count = min(self.count_over(show, now_ms), show.batch)
        if show.slots:
            count = min(count, show.slots - show.posted)
        elif show.rate:
            count = min(count, show.paid_slots)
        if not count:
            return []
        spent = bool(show.rate) and show.paid_slots <= count
        finished = bool(show.slots) and show.posted + count >= show.slots
        if not (closing or spent or finished or count >= max(1, show.batch - 1)):
            return []
        return [self._slot_hash(show.posted + at) for at in range(count)]

    def note_posted(self, before: int) -> None:
        """Forget slots below `before`, which were posted."""
        for slot in [each for each in self._links if each < before - 1]:
            del self._links[slot]

    def _slot_hash(self, slot: int) -> bytes:
        """Return the link of the slot's last segment, or of the last one before it if it has none; for a previous
        process's slots, the last link of all."""
        earlier = [each for each in self._links if each <= slot]
        return self._links[max(earlier)] if earlier else self._newest
