"""Members of small topics whom neighbours name: they are connected to, those of one neighbour beside another's."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from dtp.bounded import BoundedDict
from dtp.carriers.nearness import Nearness, network_of_source
from dtp.errors import DtpError
from dtp.identity import PeerId
from dtp.tasks import TaskSet

log = logging.getLogger("dtp.gossip")

#: Dials at once, and of them those of peers that one network on the internet has named: where nothing answers
#: each takes 10 s, and anybody may name as many as they like.
DIALS: Final = 8
DIALS_OF_ONE: Final = DIALS // 2
#: Peers that one network has named and that wait: those of a full mesh, and some more.
WAITING: Final = 64
#: Peers that are remembered to have been dialled, and seconds until one may be again.
REMEMBERED: Final = 1024
PAUSE: Final = 60.0

#: Connects to a peer that somebody has named.
ConnectPeer = Callable[[PeerId], Any]


class Named(NamedTuple):
    """A peer that is said to have a topic."""

    peer: PeerId
    topic: bytes


class NamedPeers:
    """The peers that neighbours have named and that are to be connected to. `stop` ends it."""

    def __init__(
        self,
        connect: ConnectPeer,
        *,
        is_wanted: Callable[[Named], bool],
        now: Callable[[], float],
        counts: Counter[str],
    ) -> None:
        """`is_wanted` is asked right before one is dialled; `now` gives the loop's time. Failed dials are counted."""
        self._connect, self._is_wanted, self._now, self._counts = connect, is_wanted, now, counts
        #: What each network has named, the one first whose turn is next; and how many are dialled of each.
        self._waiting: OrderedDict[str, deque[Named]] = OrderedDict()
        self._busy: Counter[str] = Counter()
        self._dialled: BoundedDict[PeerId, float] = BoundedDict(REMEMBERED)
        self._tasks = TaskSet()

    def add(self, named: Named, source: str) -> None:
        """Connect to a peer that a neighbour at `source` has named, in its turn, if it is still wanted then."""
        if not self._is_due(named):
            return
        waiting = self._waiting.setdefault(network_of_source(source), deque())
        if len(waiting) < WAITING and named not in waiting:
            waiting.append(named)
            self._dial_next()

    async def stop(self) -> None:
        """End what is under way, and forget what waits. Idempotent."""
        self._waiting.clear()
        await self._tasks.stop()

    def _is_due(self, named: Named) -> bool:
        last = self._dialled.get(named.peer)
        return (last is None or last + PAUSE <= self._now()) and self._is_wanted(named)

    def _dial_next(self) -> None:
        while self._busy.total() < DIALS:
            teller = next((each for each in self._waiting if self._busy[each] < DIALS_OF_ONE), None)
            if teller is None:
                return
            named = self._waiting[teller].popleft()
            if self._waiting[teller]:
                self._waiting.move_to_end(teller)
            else:
                del self._waiting[teller]
            if self._is_due(named):
                self._dialled[named.peer] = self._now()
                self._busy[teller] += 1
                self._tasks.start(self._dial(named.peer, teller), name="dtp-gossip-dial")

    async def _dial(self, peer: PeerId, teller: str) -> None:
        try:
            await self._connect(peer)
        except DtpError as error:  # also where there is no room for a link
            self._counts["dial-failed"] += 1
            log.debug("%s, whom a neighbour named: %s", peer.short, error)
        finally:
            self._busy[teller] -= 1
            if not self._busy[teller]:
                del self._busy[teller]
        self._dial_next()


def count_members(sources: Iterable[str], networks: frozenset[str], per_network: int) -> int:
    """Return how many members of a topic count for a peer that is dialled in `networks`: of others on the internet no
    more than `per_network` each, so that one who has many identities at few addresses takes nobody's place. Members
    in this network all count, since nobody outside can be there."""
    counts = Counter(
        network_of_source(source) if Nearness.of_source(source) is Nearness.ANYWHERE else ""
        for source in sources
    )
    return sum(
        count if not network or network in networks else min(count, per_network)
        for network, count in counts.items()
    )
