"""Signed records of peers, with which neighbours name members of small topics. These peers are connected to, in
turns of those who have named them.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final, NamedTuple

from dtp.bounded import BoundedDict
from dtp.carriers.nearness import Nearness, network_of_source
from dtp.errors import DtpError, PeerError
from dtp.gossip.core import RecordsOffered
from dtp.gossip.router import Router
from dtp.identity import PeerId
from dtp.tasks import TaskSet

log = logging.getLogger("dtp.gossip")

#: Dials at once, and how many of them to peers that one network on the internet has named: if nothing answers a
#: dial takes 10 s, and anybody may name any number of peers.
DIALS: Final = 8
DIALS_OF_ONE: Final = DIALS // 2
#: Waiting peers that one network has named: those of a full mesh, and some more.
WAITING: Final = 64
#: Dialled peers that are remembered, and seconds until one may be dialled again.
REMEMBERED: Final = 1024
PAUSE: Final = 60.0

#: Connects to a peer that somebody has named.
ConnectPeer = Callable[[PeerId], Any]
#: Learns a signed record, and returns the peer that it names, or None if it isn't accepted.
LearnRecord = Callable[[bytes, PeerId], PeerId | None]
#: Returns the signed record of a peer that may be sent to another peer, or None.
RecordOf = Callable[[PeerId, PeerId], bytes | None]
#: Returns the networks on the internet and the relays in which a peer is dialled.
NetworksOf = Callable[[PeerId], frozenset[str]]


class Named(NamedTuple):
    """A peer that somebody says has a topic."""

    peer: PeerId
    topic: bytes


class NamedPeers:
    """The peers that neighbours have named and that are to be connected to. `stop` ends this."""

    def __init__(
        self,
        connect: ConnectPeer,
        *,
        is_wanted: Callable[[Named], bool],
        now: Callable[[], float],
        counts: Counter[str],
    ) -> None:
        """`is_wanted` is called right before a peer is dialled; `now` returns the loop's time. Failed dials are
        counted.
        """
        self._connect, self._is_wanted, self._now, self._counts = connect, is_wanted, now, counts
        #: The peers that each network has named, beginning with the network whose turn is next; and the number of
        #: dials under way for each.
        self._waiting: OrderedDict[str, deque[Named]] = OrderedDict()
        self._busy: Counter[str] = Counter()
        self._dialled: BoundedDict[PeerId, float] = BoundedDict(REMEMBERED)
        self._tasks = TaskSet()

    def add(self, named: Named, source: str) -> None:
        """Connect to a peer that a neighbour at `source` has named, when it is its turn, if it is still
        wanted then.
        """
        if not self._is_due(named):
            return
        waiting = self._waiting.setdefault(network_of_source(source), deque())
        if len(waiting) < WAITING and named not in waiting:
            waiting.append(named)
            self._dial_next()

    async def stop(self) -> None:
        """Cancel dials, and forget waiting peers. Idempotent."""
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
        except DtpError as error:  # also if there is no room for a link
            self._counts["dial-failed"] += 1
            log.debug("%s, whom a neighbour named: %s", peer.short, error)
        finally:
            self._busy[teller] -= 1
            if not self._busy[teller]:
                del self._busy[teller]
        self._dial_next()


class RecordExchange:
    """Sends neighbours the records of others, learns those that they send, and connects to the peers that
    these name.
    """

    __slots__ = ("_learn", "_named", "_neighbours", "_networks_of", "_now", "_own", "_router")

    def __init__(
        self, own: PeerId, router: Router, neighbours: Collection[bytes], now: Callable[[], float]
    ) -> None:
        """`neighbours` are the keys of the present neighbours; `now` returns the loop's time."""
        self._own, self._router, self._neighbours, self._now = own, router, neighbours, now
        self._learn: LearnRecord | None = None
        self._networks_of: NetworksOf = lambda peer: frozenset()
        self._named: NamedPeers | None = None

    def begin_exchange(
        self,
        record_of: RecordOf | None,
        learn: LearnRecord | None,
        connect: ConnectPeer | None,
        networks_of: NetworksOf | None,
    ) -> None:
        """Begin the exchange: see `Gossip.exchange_records`."""
        self._learn, self._networks_of = learn, networks_of or self._networks_of
        if connect is not None:
            self._named = NamedPeers(
                connect, is_wanted=self._is_wanted, now=self._now, counts=self._router.counts
            )
        if record_of is not None:
            given, neighbours = record_of, self._neighbours

            def find(peer: bytes, hearer: bytes) -> bytes | None:
                if (
                    peer not in neighbours or hearer not in neighbours
                ):  # a broker is a member, and has no record
                    return None
                return given(PeerId(peer), PeerId(hearer))

            self._router.set_records(find)

    async def stop(self) -> None:
        """Cancel dials. Idempotent."""
        if self._named is not None:
            await self._named.stop()

    def take_offered(self, offered: RecordsOffered) -> None:
        """Learn records that a neighbour has sent, and connect to the peers that they name, if those are wanted."""
        if self._learn is None:
            return
        for record in offered.records:
            try:
                peer = self._learn(record, PeerId(offered.sender))
            except PeerError as error:
                self._router.counts["record-refused"] += 1
                self._router.count_bad_record(offered.sender)
                log.debug("a record that %s gave: %s", PeerId(offered.sender).short, error)
                continue
            if peer is not None and self._named is not None:
                self._named.add(Named(peer, offered.topic), self._router.source_of(offered.sender))

    def _is_wanted(self, named: Named) -> bool:
        """Return True if a named member of a topic should become a neighbour."""
        if named.peer.key in self._neighbours or named.peer == self._own:
            return False
        sources = [self._router.source_of(each) for each in self._router.members_of(named.topic)]
        limits = self._router.limits
        count = count_members(sources, self._networks_of(named.peer), limits.per_network)
        return count < limits.full_mesh


def count_members(sources: Iterable[str], networks: frozenset[str], per_network: int) -> int:
    """Return how many members of a topic count for a peer that is dialled in `networks`. At most `per_network`
    members of each other network on the internet count, so that somebody with many identities at few addresses
    takes nobody's place. All members in this network count, since nobody outside can be there.
    """
    counts = Counter(
        network_of_source(source) if Nearness.of_source(source) is Nearness.ANYWHERE else ""
        for source in sources
    )
    return sum(
        count if not network or network in networks else min(count, per_network)
        for network, count in counts.items()
    )
