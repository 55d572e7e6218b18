"""Whether a show is on air: a value. It is told what the chain says, what is owed, and the time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dtp.chain.show import FIRST_HEAD, Show, ShowState


class Air(StrEnum):
    """How a show stands for its producer."""

    #: Nobody has paid anything.
    OFF = "off"
    #: There is money or there are tickets, and not enough.
    FUNDING = "funding"
    ON_AIR = "on air"
    #: It was on air, and the pot is below one slot; or its producer can't post what was sent.
    PAUSED = "paused"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Hysteresis:
    """How long a show stays on or off the air at least, so that it doesn't flap. In seconds."""

    #: How long it stays on air once it is.
    floor: float = 5.0
    #: How long it has to be unpaid before it goes off.
    linger: float = 1.0


class AirJudge:
    """Says whether to send. What was sent and isn't posted counts as spent: nothing is sent that can't be paid, but
    one slot where a batch can't be posted, since the chain may just be slow."""

    def __init__(self, hysteresis: Hysteresis | None = None) -> None:
        self._hysteresis = hysteresis or Hysteresis()
        #: What holds now.
        self.air = Air.OFF
        self._since = 0.0
        self._unpaid_since: float | None = None

    def judge_show(self, show: Show, owed: int, now: float) -> Air:
        """Return how the show stands, with `owed` slots sent and not posted. `now` is in seconds of one clock."""
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
    """Return how a show stands by the chain alone, and by `owed` slots that aren't posted."""
    if show.state == ShowState.ENDED:
        return Air.ENDED
    begun = show.posted > 0 or show.head != FIRST_HEAD
    if show.state == ShowState.ON_AIR:
        if show.rate and show.paid_slots <= owed:
            return Air.PAUSED
        if show.slots and show.posted + owed >= show.slots:
            return Air.PAUSED
        return Air.ON_AIR if owed <= show.batch else Air.PAUSED  # of what is past the chain takes a batch
    if begun:
        return Air.PAUSED
    return Air.FUNDING if show.pot or show.tickets else Air.OFF


def count_unposted(show: Show, chain_ms: int) -> int:
    """Return how many slots of a show on air are over by the chain's clock, and not posted yet. More than a batch
    means that its producer isn't there, or can't post."""
    if show.state != ShowState.ON_AIR:
        return 0
    return max(0, (chain_ms - show.due_ms) // show.slot_ms + 1)


class Slots:
    """Which slot it is, and what is to be posted for those that are over: a value. Times are Unix ms of the producer.

    The chain counts all time since a show went on air. Here time counts in which there was a producer: what passed
    while none ran isn't posted, and the chain leaves it out with the next batch.
    """

    def __init__(self, sent: int = 0, link: bytes = FIRST_HEAD) -> None:
        """`sent` is the slot of the last segment that a process before has sent, and `link` is its."""
        self._links = {sent: link}
        self._newest = link
        self._sent = sent
        #: When the first slot began that is sent here and isn't posted; None before the first look.
        self._began: int | None = None
        self._posted = 0
        #: By how many ms the chain's clock is ahead of the one here, as far as that is known: a slot whose end the
        #: chain tells has begun before.
        self._ahead = 0

    def update_from_chain(self, show: Show, now_ms: int) -> None:
        """Take what the chain says, and the time: before all else, and again and again."""
        owed_ms = 0
        if show.state != ShowState.ON_AIR:
            self._began = now_ms
        elif self._began is None:  # slots that were sent before are owed, and the last one of these goes on
            owed_ms = max(0, self._sent - show.posted) * show.slot_ms
            self._began = now_ms - owed_ms
        else:
            self._began += (show.posted - self._posted) * show.slot_ms
        begun_there = show.due_ms - show.slot_ms
        self._ahead = max(self._ahead, begun_there + owed_ms - now_ms)
        self._began = max(self._began, begun_there - self._ahead)
        self._posted = show.posted

    def current_slot(self, show: Show, now_ms: int) -> int:
        """Return the number of the slot that now is in; the next one to be posted where none has begun."""
        return show.posted + self._count_whole(show, now_ms) if show.due_ms else 0

    def count_over(self, show: Show, now_ms: int) -> int:
        """Return how many slots are over and not posted."""
        return self._count_whole(show, now_ms) if show.state == ShowState.ON_AIR else 0

    def _count_whole(self, show: Show, now_ms: int) -> int:
        assert self._began is not None, "only behind follow"
        return max(0, (now_ms - self._began) // show.slot_ms)

    def note_sent(self, slot: int, link: bytes) -> None:
        """Note that a segment of this slot was sent; `link` is its."""
        self._links[slot], self._newest = link, link

    def due_hashes(self, show: Show, now_ms: int, *, closing: bool = False) -> list[bytes]:
        """Return the hashes to post now: none while a batch isn't full, but where the money ends or the show does."""
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
        """Forget what was kept for slots below `before`, which were posted."""
        for slot in [each for each in self._links if each < before - 1]:
            del self._links[slot]

    def _slot_hash(self, slot: int) -> bytes:
        """Return the link of the slot's last segment, of the last one before it where it has none; of what a process
        before has sent the last one of all."""
        earlier = [each for each in self._links if each <= slot]
        return self._links[max(earlier)] if earlier else self._newest
