"""Scores of neighbours: P1 to P7 of GossipSub v1.1. They are never sent to others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

from dtp.gossip.limits import ScoreWeights

#: Scores of neighbours that have left which are kept, at most.
_RETAINED: Final = 2048
#: Counters below this count as 0.
_NOTHING: Final = 0.01


@dataclass(slots=True)
class _InTopic:
    """The counters of a neighbour within a topic."""

    grafted: float | None = None
    first: float = 0.0
    delivered: float = 0.0
    expected: float = 0.0
    failure: float = 0.0
    invalid: float = 0.0


@dataclass(slots=True)
class _Neighbour:
    source: str
    is_judged: bool = True
    behaviour: float = 0.0
    application: float = 0.0
    decayed: float = 0.0
    topics: dict[bytes, _InTopic] = field(default_factory=dict)
    #: The score when it was last computed; None if something has changed it since.
    value: float | None = None


def median(values: Iterable[float]) -> float:
    """Return the median of at least one value. `statistics` has a function for it, but loads half a megabyte."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def is_shared_freely(source: str) -> bool:
    """True for an address that doesn't identify its owner: loopback, a LAN's, or none at all."""
    try:
        address = ip_address(source)
    except ValueError:
        return True
    return not address.is_global


class Scores:
    """Scores of neighbours, by opaque names. Counters decay by the time that has passed."""

    def __init__(self, weights: ScoreWeights) -> None:
        self.weights = weights
        self._here: dict[bytes, _Neighbour] = {}
        self._gone: dict[bytes, tuple[float, _Neighbour]] = {}
        self._sources: dict[str, int] = {}
        #: True if a score has fallen since this was last set to False.
        self.has_blamed = False

    def add(self, peer: bytes, source: str, now: float, *, is_judged: bool = True) -> None:
        """Add a neighbour. If it has been here before, it keeps its counters."""
        went, known = self._gone.pop(peer, (0.0, None))
        if known is None or went + self.weights.retained < now:
            known = _Neighbour(source, decayed=now)
        known.source, known.is_judged = source, is_judged
        self._here[peer] = known
        self._sources[source] = self._sources.get(source, 0) + 1
        self._forget_values()

    def remove(self, peer: bytes, now: float) -> None:
        """Remove a neighbour. What counts against it is kept for a while, what counts for it isn't."""
        known = self._here.pop(peer)
        self._sources[known.source] -= 1
        if not self._sources[known.source]:
            del self._sources[known.source]
        self._forget_values()
        for counters in known.topics.values():
            self._end_mesh(counters, now)
            counters.first = 0.0
        if self._compute_score(known, now) < 0:
            self._gone[peer] = (now, known)
            if len(self._gone) > _RETAINED:
                del self._gone[next(iter(self._gone))]

    def count_gone(self) -> int:
        """Return the number of peers that are gone, but whose score is kept."""
        return len(self._gone)

    # ---- events -------------------------------------------------------------------------------------------------

    def on_grafted(self, peer: bytes, topic: bytes, now: float) -> None:
        """Note that a neighbour is in the topic's mesh from now on."""
        counters = self._counters_of(peer, topic)
        counters.grafted = now
        counters.delivered = counters.expected = 0.0

    def on_pruned(self, peer: bytes, topic: bytes, now: float) -> None:
        """Note that a neighbour is no longer in the topic's mesh."""
        if peer in self._here:
            self._end_mesh(self._counters_of(peer, topic), now)

    def _end_mesh(self, counters: _InTopic, now: float) -> None:
        deficit = self._mesh_deficit(counters, now)
        counters.failure += deficit * deficit
        counters.grafted = None

    def count_first_delivery(self, peer: bytes, topic: bytes, mesh: set[bytes]) -> None:
        """Count a message that a neighbour was the first to deliver; the others in `mesh` could have been."""
        here = self._here
        mine = here.get(peer)
        if mine is None:
            return
        counters = mine.topics.get(topic) or self._counters_of(peer, topic)
        mine.value = None
        if counters.first < self.weights.first_delivery_cap:
            counters.first += 1
        counters.delivered += 1
        if self.weights.mesh_deficit:
            for other in mesh:
                self._counters_of(other, topic).expected += 1

    def count_duplicate(self, peer: bytes, topic: bytes) -> None:
        """Count a message that has just come from another: the neighbour forwards what it gets."""
        if self.weights.mesh_deficit and peer in self._here:
            self._counters_of(peer, topic).delivered += 1

    def count_invalid(self, peer: bytes, topic: bytes) -> None:
        """Count an invalid message, which nobody should forward."""
        if peer in self._here:
            self._counters_of(peer, topic).invalid += 1
            self.has_blamed = True

    def count_misbehaviour(self, peer: bytes, times: float = 1.0) -> None:
        """Count a violation of the protocol."""
        if (known := self._here.get(peer)) is not None:
            known.behaviour += times
            known.value = None
            self.has_blamed = True

    def set_application(self, peer: bytes, score: float) -> None:
        """Set the score that the program gives to a neighbour."""
        if (known := self._here.get(peer)) is not None:
            known.application = score
            known.value = None

    def on_topic_left(self, topic: bytes) -> None:
        """Forget the counters of a topic that this side has left, except for invalid messages."""
        for known in self._here.values():
            if (counters := known.topics.get(topic)) is not None:
                if counters.invalid <= _NOTHING:
                    del known.topics[topic]
                else:
                    known.topics[topic] = _InTopic(invalid=counters.invalid)
                known.value = None

    def _counters_of(self, peer: bytes, topic: bytes) -> _InTopic:
        """Return a neighbour's counters within a topic, so that one of them can be changed."""
        known = self._here[peer]
        known.value = None
        counters = known.topics.get(topic)
        if counters is None:
            counters = known.topics[topic] = _InTopic()
        return counters

    def _forget_values(self) -> None:
        """Drop cached scores, since a neighbour has come or gone, which changes the scores of those at the same
        address.
        """
        for known in self._here.values():
            known.value = None

    # ---- scores -------------------------------------------------------------------------------------------------

    def __getitem__(self, peer: bytes) -> float:
        """Return the score of a neighbour as of the last `refresh`; 0 for one that isn't here."""
        known = self._here.get(peer)
        if known is None:
            return 0.0
        if known.value is None:
            known.value = self._compute_score(known, known.decayed)
        return known.value

    def refresh(self, now: float) -> None:
        """Let the counters decay."""
        for known in self._here.values():
            kept = self.weights.decay ** (now - known.decayed)
            known.decayed, known.value = now, None
            known.behaviour *= kept
            for counters in known.topics.values():
                counters.first *= kept
                counters.delivered *= kept
                counters.expected *= kept
                counters.failure *= kept
                counters.invalid *= kept
        for peer in [peer for peer, (went, _) in self._gone.items() if went + self.weights.retained < now]:
            del self._gone[peer]

    def _mesh_deficit(self, counters: _InTopic, now: float) -> float:
        weights = self.weights
        if counters.grafted is None or now - counters.grafted < weights.mesh_deficit_after:
            return 0.0
        if counters.expected < weights.mesh_deficit_least:
            return 0.0
        return max(0.0, counters.expected * weights.mesh_deficit_part - counters.delivered)

    def _compute_score(self, known: _Neighbour, now: float) -> float:
        weights = self.weights
        if not known.is_judged:
            return 0.0
        score = weights.application * known.application
        for counters in known.topics.values():
            if counters.grafted is not None:
                score += weights.time_in_mesh * min(
                    max(0.0, now - counters.grafted), weights.time_in_mesh_cap
                )
            score += weights.first_delivery * counters.first
            if weights.mesh_deficit:
                deficit = self._mesh_deficit(counters, now)
                score += weights.mesh_deficit * deficit * deficit
            score += weights.mesh_failure * counters.failure
            if counters.invalid > _NOTHING:
                score += weights.invalid * counters.invalid * counters.invalid
        if weights.shared_address and not is_shared_freely(known.source):
            surplus = max(0, self._sources.get(known.source, 0) - weights.shared_address_free)
            score += weights.shared_address * surplus * surplus
        surplus_behaviour = max(0.0, known.behaviour - weights.behaviour_free)
        return score + weights.behaviour * surplus_behaviour * surplus_behaviour
