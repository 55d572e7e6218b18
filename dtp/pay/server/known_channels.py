"""What is remembered of channels between two looks at them: how they were, and which are asked about when."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from dtp.chain.channel import Channel, ChannelState
from dtp.pay.claims import MINUTE
from dtp.pay.store.rows import Sold

#: No node is behind for so long, ms: what another has had then, and it hasn't, is deleted.
_BEHIND: Final = 24 * 60 * MINUTE
#: How often channels are asked about whose vouchers aren't worth their gas, ms: each costs as much as one that is.
_RESTING: Final = 60 * MINUTE
#: A channel that is over by what a node said is asked about so long after, ms, and so many at a look: the node may
#: have lied, been behind, or of another chain, and another one may serve by now.
_AGAIN: Final = (10 * MINUTE, 60 * MINUTE, 6 * 60 * MINUTE, 24 * 60 * MINUTE)
_MOST_AGAIN: Final = 64
_MOST_DOUBTED: Final = 10_000


class KnownChannels:
    """Remembers channels that vouchers are held of: how each was when a node was last asked about it, and which are
    not asked about for an hour, since their vouchers aren't worth their gas. Times are the chain's, ms."""

    def __init__(self) -> None:
        #: Each channel as it was seen last, and when that was.
        self.seen: dict[str, tuple[Channel, int]] = {}
        #: Of each channel that isn't asked about: the vouchers that aren't worth it, and until when.
        self.resting: dict[str, tuple[Sequence[Sold], int]] = {}

    def due(self, sold: Mapping[str, Sequence[Sold]], now_ms: int) -> list[str]:
        """Return which of the channels that vouchers are held of are to be asked about."""
        self.resting = {
            id: each for id, each in self.resting.items() if sold.get(id) == each[0] and now_ms < each[1]
        }
        return [id for id in sold if id not in self.resting]

    def rest(self, id: str, sold: Sequence[Sold], now_ms: int) -> None:
        """Leave a channel alone for a while, unless there are other vouchers of it."""
        self.resting[id] = sold, now_ms + _RESTING

    def note_seen(self, channels: Mapping[str, Channel], sold: Collection[str], now_ms: int) -> None:
        """Note channels as they are now, and forget those that no voucher is held of."""
        self.seen = {id: each for id, each in self.seen.items() if id in sold}
        self.seen |= {id: (channel, now_ms) for id, channel in channels.items()}

    def is_gone(self, id: str, sold: Sequence[Sold], now_ms: int) -> bool:
        """Return whether nothing can be claimed any more of a channel that the node doesn't know, wherever it is.

        Of one whose close wasn't agreed on nothing follows from being unknown: the node may be behind, or of another
        chain, and what is forgotten can't be claimed. But the time of its vouchers may be over, or that in which this
        chain takes claims, by what it was when it was seen last. One that was draining takes none any more, and pays
        what it owes as long as it is there.
        """
        now_ms -= MINUTE
        if all(each.newest.voucher.not_after_ms < now_ms for each in sold):
            return True
        if id not in self.seen:
            return False
        seen, seen_ms = self.seen[id]
        if seen.state == ChannelState.DRAINING:
            return now_ms > seen_ms + _BEHIND
        if seen.state == ChannelState.OPEN:
            # Somebody else's claim makes it active later: then it is seen again.
            return now_ms > seen.active_ms + seen.terms.idle_ms + seen.terms.claim_ms
        until = seen.claims_until_ms
        return until is not None and now_ms > until


class DoubtedEnds:
    """Channels that a node says are over: how often they were asked about since, and when they are next. Times are
    those here, ms."""

    def __init__(self) -> None:
        self._asked: dict[str, tuple[int, int]] = {}

    def add(self, id: str, now_ms: int) -> None:
        """Ask about a channel again, by and by."""
        if len(self._asked) < _MOST_DOUBTED:
            self._asked.setdefault(id, (0, now_ms + _AGAIN[0]))

    def due(self, now_ms: int) -> list[str]:
        """Return which are to be asked about at this look."""
        return [id for id, (_, at_ms) in self._asked.items() if now_ms >= at_ms][:_MOST_AGAIN]

    def note_there(self, id: str, now_ms: int) -> bool:
        """Note that a channel isn't over, and ask about it at each look; True if that is news."""
        count, _ = self._asked.pop(id)
        self._asked[id] = len(_AGAIN), now_ms
        return count < len(_AGAIN)

    def note_over(self, id: str, now_ms: int) -> None:
        """Note that a channel is over by what a node says once more; ask later, or no more."""
        count, _ = self._asked.pop(id)
        if count + 1 < len(_AGAIN):
            self._asked[id] = count + 1, now_ms + _AGAIN[count + 1]
