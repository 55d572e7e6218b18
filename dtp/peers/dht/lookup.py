"""A lookup: it decides which node to ask next on the way to the nodes nearest to a target. A value; it sends
nothing.

It uses disjoint paths (S/Kademlia, 4.4): each node belongs to the path that has found it first, and a path asks
only its own nodes. When every path has asked the nearest nodes that it knows, or has no more, all nearest ones are
asked together (Kademlia, 2.3). What a node says about others is a claim: only nodes that have answered count in the
result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import Enum

from dtp.peers.dht.contacts import NodeContact
from dtp.peers.dht.limits import DhtLimits

#: The path of contacts that were known before. Any path that has no more takes from them.
_SEEDS = -1


class _State(Enum):
    HEARD = 0
    ASKED = 1
    #: It takes longer than expected: another one is asked as well.
    STALLED = 2
    ANSWERED = 3
    FAILED = 4


class _Candidate:
    __slots__ = ("contact", "distance", "heard_on", "path", "state")

    def __init__(self, contact: NodeContact, distance: int, path: int) -> None:
        self.contact = contact
        self.distance = distance
        self.path = self.heard_on = path
        self.state = _State.HEARD


class Lookup:
    """A lookup of `target`. `seeds` are known contacts, in any order; `subnets` is the same as for `RoutingTable`.

    The ids in `left_out` are never asked, whoever names them.
    """

    def __init__(
        self,
        target: int,
        own: int,
        seeds: Iterable[NodeContact],
        limits: DhtLimits,
        *,
        subnets: bool = True,
        left_out: frozenset[int] = frozenset(),
    ) -> None:
        self.target = target
        self._left_out = left_out | {own}
        self._limits = limits
        self._subnets = subnets
        self._candidates: dict[int, _Candidate] = {}
        #: Nearest first, without those that failed.
        self._nearest: list[_Candidate] = []
        #: Candidates of each path and subnet: a liar who invents nodes in many subnets can crowd out others on one
        #: path only.
        self._of_subnet: Counter[tuple[int, bytes]] = Counter()
        self._asked = 0
        self._together = False
        for each in seeds:
            self._add_candidate(each, _SEEDS)
        self._sort_nearest()

    # --------------------------------------------------------------------------------------------- what to do

    def next_contacts(self) -> list[NodeContact]:
        """Return the contacts to ask now. Each has to be followed by `on_answered`, `on_stalled` or `on_failed`."""
        chosen: list[_Candidate] = []
        if not self._together:
            chosen = self._by_paths()
            waiting = any(each.state is _State.ASKED for each in self._nearest)
            self._together = not chosen and not waiting
        if self._together:
            chosen = [each for each in self._nearest[: self._limits.k] if each.state is _State.HEARD]
        chosen = chosen[: max(0, self._limits.lookup_questions - self._asked)]
        for each in chosen:
            each.state = _State.ASKED
        self._asked += len(chosen)
        return [each.contact for each in chosen]

    def _by_paths(self) -> list[_Candidate]:
        """Return the next candidate of each path on which nobody is being asked, as many as alpha allows."""
        chosen: list[_Candidate] = []
        busy = sum(each.state is _State.ASKED for each in self._nearest)
        stalled = sum(each.state is _State.STALLED for each in self._nearest)
        for path in range(self._limits.paths):
            while (
                busy + len(chosen) < self._limits.alpha + stalled and (one := self._next_of(path)) is not None
            ):
                one.path = path
                one.state = _State.ASKED  # so that the next path takes another seed
                chosen.append(one)
        return chosen

    def _next_of(self, path: int) -> _Candidate | None:
        """Return the candidate that a path asks next: one at a time, and one more for each that stalls."""
        own = [each for each in self._nearest if each.path == path]
        stalled = sum(each.state is _State.STALLED for each in own)
        if sum(each.state is _State.ASKED for each in own) > min(stalled, self._limits.alpha):
            return None
        for each in own[: self._limits.path_width + stalled]:
            if each.state is _State.HEARD:
                return each
        if len(own) >= self._limits.path_width + stalled:
            return None  # it has asked the nearest nodes that it knows
        return next((each for each in self._nearest if each.path == _SEEDS), None)

    def mark_asked(self, contacts: Iterable[NodeContact]) -> list[NodeContact]:
        """Mark those of `contacts` that are candidates as asked, and return them."""
        chosen = [c for each in contacts if (c := self._candidates.get(each.id)) and c.state is _State.HEARD]
        for number, each in enumerate(chosen):
            each.state = _State.ASKED
            each.path = number % self._limits.paths
        self._asked += len(chosen)
        return [each.contact for each in chosen]

    @property
    def finished(self) -> bool:
        """True if there is no candidate left to ask, or the limit is reached, and no answer is awaited."""
        if any(each.state in (_State.ASKED, _State.STALLED) for each in self._nearest[: self._limits.k]):
            return False
        if any(each.state is _State.ASKED for each in self._nearest):
            return False
        if self._asked >= self._limits.lookup_questions:
            return True
        return not any(each.state is _State.HEARD for each in self._nearest[: self._limits.k])

    def closest_answered(self, count: int) -> list[NodeContact]:
        """Return the `count` nearest contacts that have answered, the nearest first, with a limited number of each
        subnet.
        """
        found: list[NodeContact] = []
        of_subnet: Counter[bytes] = Counter()
        for each in self._nearest:
            subnet = each.contact.subnet if self._subnets else b""
            if each.state is not _State.ANSWERED or (subnet and of_subnet[subnet] >= self._limits.per_subnet):
                continue
            of_subnet[subnet] += 1
            found.append(each.contact)
            if len(found) == count:
                break
        return found

    def path_of(self, contact: NodeContact) -> int:
        """Return the path that a contact belongs to."""
        return self._candidates[contact.id].path

    @property
    def asked(self) -> int:
        """The number of contacts that were asked."""
        return self._asked

    @property
    def asked_ids(self) -> frozenset[int]:
        """The ids of the contacts that were asked, whatever the outcome."""
        return frozenset(
            number for number, each in self._candidates.items() if each.state is not _State.HEARD
        )

    # ------------------------------------------------------------------------------------------- what happened

    def on_answered(self, contact: NodeContact, told: Iterable[NodeContact]) -> None:
        """Note that `contact` has answered, and add the contacts that it has named."""
        candidate = self._candidates[contact.id]
        if candidate.state is _State.FAILED:
            return
        candidate.state = _State.ANSWERED
        before = len(self._nearest)
        for each, _ in zip(told, range(self._limits.k), strict=False):
            self._add_candidate(each, candidate.path)
        if len(self._nearest) != before:
            self._sort_nearest()

    def on_stalled(self, contact: NodeContact) -> None:
        """Note that `contact` takes longer than expected. It may still answer."""
        candidate = self._candidates[contact.id]
        if candidate.state is _State.ASKED:
            candidate.state = _State.STALLED

    def on_failed(self, contact: NodeContact) -> None:
        """Note that `contact` hasn't answered, or has another identity than was claimed."""
        candidate = self._candidates[contact.id]
        if candidate.state is not _State.FAILED:
            candidate.state = _State.FAILED
            self._nearest.remove(candidate)
            self._of_subnet[candidate.heard_on, contact.subnet] -= 1

    def _add_candidate(self, contact: NodeContact, path: int) -> None:
        if contact.id in self._candidates or contact.id in self._left_out:
            return
        if (
            self._subnets
            and contact.subnet
            and self._of_subnet[path, contact.subnet] >= self._limits.per_subnet
        ):
            return
        self._of_subnet[path, contact.subnet] += 1
        candidate = _Candidate(contact, contact.id ^ self.target, path)
        self._candidates[contact.id] = candidate
        self._nearest.append(candidate)

    def _sort_nearest(self) -> None:
        self._nearest.sort(key=lambda each: each.distance)
