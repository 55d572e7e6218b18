"""The meshes: which neighbours get a topic's messages at once. Grafting, pruning, back-off, and what neighbours say
about their meshes.

GossipSub v1.1: peers are grafted below `degree_low` and pruned above `degree_high`, and kept by score and by who
has dialled. Up to `full_mesh` neighbours everybody is in everybody's mesh.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import chain
from typing import Final

from dtp.gossip import frames
from dtp.gossip.core import Core, Neighbour, RecordsOffered, TopicState
from dtp.gossip.frames import GossipFrameType
from dtp.gossip.score import is_shared_freely, median

#: A full mesh is given up above `full_mesh` members, and used again below this part of it.
_BACK: Final = 0.8
#: Heartbeats between two searches for better neighbours; and how many are grafted then.
_OPPORTUNISTIC_BEATS: Final = 60
_OPPORTUNISTIC_PEERS: Final = 2
#: Seconds by which the other side's back-off may end earlier than ours.
_SLACK: Final = 1.0
#: Records of others that a neighbour may send between two heartbeats, each of which costs a signature check: those
#: of a full mesh to a newcomer, as many renewed ones at once, and as many with PRUNE.
_MOST_RECORDS: Final = 200
#: Seconds between two announcements to members that own messages are sent to more peers. Until then others send
#: these as well.
_ANNOUNCE_PAUSE: Final = 1.0
#: Messages that may have been under way when a neighbour left the mesh or its link broke.
_UNDER_WAY: Final = 64


class Meshes:
    """The meshes of all topics."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._beats = 0

    # ---- members ------------------------------------------------------------------------------------------------

    def add_member(self, state: TopicState, neighbour: Neighbour, now: float) -> None:
        """Add a neighbour that has the topic."""
        core = self._core
        if neighbour.key in state.members:
            return
        state.members.add(neighbour.key)
        if state.joined:
            state.told.setdefault(neighbour.key, core.held.next_number(state.name))
            core.trim_table(state.told)
            if len(state.members) > core.limits.full_mesh:  # else the next heartbeat checks that
                state.is_full = False
            if self._may_graft(state, neighbour.key, now) and self._wants_more(state, neighbour):
                self.graft(state, neighbour, now)
            self._send_member_records(state, neighbour, now)

    def remove_member(self, state: TopicState, peer: bytes, now: float, *, lost: int = 0) -> None:
        """Remove a neighbour that no longer has the topic, or is gone. In that case `lost` bytes may not have
        reached it, and it is told of them when it is back.
        """
        if peer not in state.members:
            return
        state.members.discard(peer)
        self._remove_from_mesh(state, peer, now)
        if lost and (told := state.told.get(peer)) is not None:
            state.told[peer] = min(told, self._core.held.number_behind(state.name, lost))
        state.theirs.pop(peer, None)
        state.owed.pop(peer, None)
        state.ways.clear()
        self._core.forget_if_unused(state)

    def _send_member_records(self, state: TopicState, newcomer: Neighbour, now: float) -> None:
        """Send a newcomer the records of other members of a small topic, as everybody is to be its neighbour."""
        core = self._core
        if not state.is_full or newcomer.outbox.is_busy:
            return
        known = newcomer.beat.introduced_to
        if records := self._records_of_members(state, newcomer, {newcomer.key, *known}):
            core.send_control(newcomer, frames.peers(state.name, records), now)
            known.update(state.members)

    def _records_of_members(self, state: TopicState, hearer: Neighbour, besides: set[bytes]) -> list[bytes]:
        core = self._core
        others = sorted(peer for peer in state.members - besides if core.scores[peer] >= 0)
        core.random.shuffle(others)
        found = (core.record_of(peer, hearer.key) for peer in others)
        return [record for record in found if record is not None][: frames.MAX_RECORDS]

    # ---- in and out of the mesh ---------------------------------------------------------------------------------

    def graft(self, state: TopicState, neighbour: Neighbour, now: float) -> None:
        """Add a neighbour to the mesh, and send it GRAFT."""
        self._add_to_mesh(state, neighbour, now)
        self._core.send_control(neighbour, frames.graft(state.name), now)

    def _add_to_mesh(self, state: TopicState, neighbour: Neighbour, now: float) -> None:
        core = self._core
        told = state.told.get(neighbour.key)
        if told is not None and told < core.held.next_number(state.name):
            state.owed.setdefault(neighbour.key, told)
        state.mesh.add(neighbour.key)
        state.ways.clear()
        core.scores.on_grafted(neighbour.key, state.name, now)

    def prune(self, state: TopicState, neighbour: Neighbour, now: float, backoff: float) -> None:
        """Remove a neighbour from the mesh, and send it PRUNE, with records of others."""
        core = self._core
        self._remove_from_mesh(state, neighbour.key, now)
        self._back_off(state, neighbour.key, now + backoff)
        records = (
            self._records_of_members(state, neighbour, {neighbour.key})
            if core.scores[neighbour.key] >= 0 and not neighbour.outbox.is_busy
            else []
        )
        core.send_control(neighbour, frames.prune(state.name, int(backoff), records), now)

    def _remove_from_mesh(self, state: TopicState, peer: bytes, now: float) -> None:
        if peer not in state.mesh:
            return
        core = self._core
        state.mesh.discard(peer)
        state.ways.clear()
        core.scores.on_pruned(peer, state.name, now)
        under_way = max(0, core.held.next_number(state.name) - _UNDER_WAY)
        state.told[peer] = min(state.owed.pop(peer, under_way), under_way)
        core.trim_table(state.told)

    def _back_off(self, state: TopicState, peer: bytes, until: float) -> None:
        state.backoff[peer] = max(until, state.backoff.get(peer, 0.0))
        self._core.trim_table(state.backoff)

    def _may_graft(self, state: TopicState, peer: bytes, now: float) -> bool:
        return (
            peer not in state.mesh
            and state.backoff.get(peer, 0.0) <= now
            and self._core.scores[peer] >= 0
            and not self._core.neighbours[peer].outbox.is_stalled(now)
        )

    def _wants_more(self, state: TopicState, neighbour: Neighbour) -> bool:
        return state.is_full or neighbour.is_bridge or len(state.mesh) < self._core.limits.degree

    def _set_fullness(self, state: TopicState) -> None:
        """Update whether the topic is small: whether this node and its neighbours together know of few members."""
        most = self._core.limits.full_mesh
        if not state.is_full:
            most = int(most * _BACK)
        here = {peer[: frames.SHORT_NAME] for peer in state.members} | {self._core.me[: frames.SHORT_NAME]}
        known = here.union(*state.theirs.values())
        if len(here) <= 1 + most < len(known):  # a single liar doesn't decide it
            tellers = Counter(chain.from_iterable(state.theirs.values()))
            alone = {name for name, count in tellers.items() if count == 1} - here
            most += max(len(alone & names) for names in state.theirs.values())
        state.is_full = len(known) <= 1 + most

    # ---- frames of neighbours -----------------------------------------------------------------------------------

    def receive_graft(self, neighbour: Neighbour, topic: bytes, now: float) -> None:
        """Process GRAFT, by which a neighbour asks for messages of a topic at once."""
        core, limits = self._core, self._core.limits
        state = core.topics.get(topic)
        if state is None or not state.joined:
            core.counts["graft-unknown-topic"] += 1  # not answered: answers would help to find out topics
            return
        if neighbour.beat.count_frame(GossipFrameType.GRAFT, topic) > limits.grafts:
            core.count_offence(neighbour.key, "graft-flood")
            return
        self.add_member_by_graft(state, neighbour, now)
        if neighbour.key in state.mesh:
            return
        until = state.backoff.get(neighbour.key, 0.0)
        if until > now + _SLACK:
            core.count_offence(neighbour.key, "graft-in-backoff")
            self.prune(state, neighbour, now, max(limits.backoff, until - now))
        elif core.scores[neighbour.key] < 0:
            core.counts["graft-low-score"] += 1
            self.prune(state, neighbour, now, limits.backoff)
        elif (
            not state.is_full
            and len(state.mesh) >= limits.degree_high
            and not (neighbour.outgoing and self._count_outgoing(state) < limits.degree_out)
        ):
            core.counts["graft-full"] += 1
            self.prune(state, neighbour, now, limits.backoff)
        else:
            self._add_to_mesh(state, neighbour, now)

    def add_member_by_graft(self, state: TopicState, neighbour: Neighbour, now: float) -> None:
        """Add a neighbour that grafts as a member of the topic. Bounded as subscriptions are."""
        if state.name not in neighbour.topics and len(neighbour.topics) < self._core.limits.topics:
            neighbour.topics.add(state.name)
            state.members.add(neighbour.key)
            state.told.setdefault(neighbour.key, self._core.held.next_number(state.name))

    def receive_prune(self, neighbour: Neighbour, body: bytes, now: float) -> None:
        """Process PRUNE, by which a neighbour stops sending a topic's messages at once. It may name others."""
        core, limits = self._core, self._core.limits
        topic, backoff, records = frames.read_prune(body)
        state = core.topics.get(topic)
        if state is None or not state.joined:
            core.counts["prune-unknown-topic"] += 1
            return
        if neighbour.beat.count_frame(GossipFrameType.PRUNE, topic) > limits.grafts:
            core.count_offence(neighbour.key, "prune-flood")
            return
        self._remove_from_mesh(state, neighbour.key, now)
        wait = min(float(backoff) or limits.backoff, limits.most_backoff)
        self._back_off(state, neighbour.key, now + wait)
        self.offer_records(state, neighbour, records)

    def offer_records(self, state: TopicState, neighbour: Neighbour, records: list[bytes]) -> None:
        """Offer records from a neighbour to the program, if the neighbour's score allows."""
        core = self._core
        if not records:
            return
        neighbour.beat.records += len(records)
        if (
            core.scores[neighbour.key] < core.scores.weights.accept_records
            or neighbour.beat.records > _MOST_RECORDS
        ):
            core.counts["records-refused"] += 1
            return
        core.events.append(RecordsOffered(state.name, tuple(records), neighbour.key))

    def receive_neighbours(self, neighbour: Neighbour, body: bytes) -> None:
        """Process NEIGHBOURS, by which a neighbour names the peers to which it sends its own messages."""
        topic, names = frames.read_neighbours(body)
        state = self._core.topics.get(topic)
        if state is None or not state.joined:
            self._core.counts["neighbours-unknown-topic"] += 1
        elif neighbour.key in state.members:
            state.theirs[neighbour.key] = frozenset(names[: self._core.limits.full_mesh + 1])
            state.ways.clear()

    # ---- heartbeat ----------------------------------------------------------------------------------------------

    def run_heartbeat(self, now: float) -> None:
        """Bring every mesh to its size."""
        self._beats += 1
        self._core.announces = False
        for neighbour in self._core.neighbours.values():
            self._announce_untold(neighbour, now)
        for state in self._core.topics.values():
            if state.joined:
                self._maintain_mesh(state, now)
        for peer in sorted(self._core.renewed):
            self._send_new_record(self._core.neighbours[peer], now)

    def _send_new_record(self, neighbour: Neighbour, now: float) -> None:
        """Send a neighbour's new record, once, to other members of its small topics to which it says it
        has no link.
        """
        core = self._core
        if now < neighbour.introduced + core.limits.introduce:
            return
        core.renewed.discard(neighbour.key)
        neighbour.introduced = now
        if core.scores[neighbour.key] < 0:
            return
        told = {neighbour.key}
        for name in sorted(neighbour.topics):
            state = core.topics.get(name)
            if state is None or not (state.joined and state.is_full):
                continue
            theirs = state.theirs.get(neighbour.key, frozenset())
            for peer in sorted(state.members - told):
                if peer[: frames.SHORT_NAME] in theirs:
                    continue
                told.add(peer)
                if (record := core.record_of(neighbour.key, peer)) is not None:
                    core.send_hint(core.neighbours[peer], frames.peers(name, [record]), now)

    def _maintain_mesh(self, state: TopicState, now: float) -> None:
        core, limits = self._core, self._core.limits
        for peer in [peer for peer, until in state.backoff.items() if until + _SLACK < now]:
            del state.backoff[peer]
        if len(state.told) > len(state.members) and not core.held.has_any(state.name):
            state.told = {peer: number for peer, number in state.told.items() if peer in state.members}
        self._set_fullness(state)
        for peer in sorted(peer for peer in state.mesh if core.scores[peer] < 0):
            core.counts["pruned-low-score"] += 1
            self.prune(state, core.neighbours[peer], now, limits.backoff)
        if state.is_full:
            self._graft_some(state, now, len(state.members))
        else:
            if len(state.mesh) < limits.degree_low:
                self._graft_some(state, now, limits.degree - len(state.mesh))
            elif len(state.mesh) > limits.degree_high:
                self._prune_some(state, now)
            self._keep_outgoing(state, now)
            if self._beats % _OPPORTUNISTIC_BEATS == 0:
                self._graft_better(state, now)
        self._announce_neighbours(state, now)

    def _graft_some(self, state: TopicState, now: float, count: int, least: float = 0.0) -> None:
        core = self._core
        fit = [
            peer
            for peer in sorted(state.members)
            if self._may_graft(state, peer, now) and core.scores[peer] >= least
        ]
        if not fit:
            return
        core.random.shuffle(fit)
        for peer in self._order_diverse(state, fit)[:count]:
            self.graft(state, core.neighbours[peer], now)

    def _order_diverse(self, state: TopicState, peers: Iterable[bytes]) -> list[bytes]:
        """Return the peers, those first whose public address is rare in the mesh."""
        core = self._core
        here: dict[str, int] = {}
        for peer in state.mesh:
            source = core.neighbours[peer].source
            if not is_shared_freely(source):
                here[source] = here.get(source, 0) + 1
        order = []
        for peer in peers:
            source = core.neighbours[peer].source
            rank = 0
            if not is_shared_freely(source):
                rank = here.get(source, 0)
                here[source] = rank + 1
            order.append((rank, peer))
        return [peer for _, peer in sorted(order, key=lambda each: each[0])]

    def _count_outgoing(self, state: TopicState) -> int:
        return sum(self._core.neighbours[peer].outgoing for peer in state.mesh)

    def _prune_some(self, state: TopicState, now: float) -> None:
        """Prune down to the best by score and others at random, with `degree_out` that this side has dialled."""
        core, limits = self._core, self._core.limits
        order = sorted(peer for peer in state.mesh if not core.neighbours[peer].is_bridge)
        core.random.shuffle(order)
        order.sort(key=lambda peer: -core.scores[peer])
        best, rest = order[: limits.degree_score], order[limits.degree_score :]
        core.random.shuffle(rest)
        kept = best + rest[: limits.degree - len(best)]
        missing = limits.degree_out - sum(core.neighbours[peer].outgoing for peer in kept)
        if missing > 0:
            dialled = [peer for peer in rest if peer not in kept and core.neighbours[peer].outgoing][:missing]
            replaced = [peer for peer in reversed(kept) if not core.neighbours[peer].outgoing]
            kept = [peer for peer in kept if peer not in replaced[: len(dialled)]] + dialled
        for peer in sorted(set(order) - set(kept)):
            self.prune(state, core.neighbours[peer], now, limits.backoff)

    def _keep_outgoing(self, state: TopicState, now: float) -> None:
        """Graft neighbours that this side has dialled if the mesh has too few of them, so that others can't fill
        all of it.
        """
        core = self._core
        missing = core.limits.degree_out - self._count_outgoing(state)
        if missing <= 0 or len(state.mesh) < core.limits.degree_low:
            return
        fit = [
            peer
            for peer in sorted(state.members)
            if core.neighbours[peer].outgoing and self._may_graft(state, peer, now)
        ]
        core.random.shuffle(fit)
        for peer in fit[:missing]:
            self.graft(state, core.neighbours[peer], now)

    def _graft_better(self, state: TopicState, now: float) -> None:
        """Graft neighbours that are better than the mesh, if the mesh is poor."""
        core = self._core
        if len(state.mesh) < 2:
            return
        middle = median(core.scores[peer] for peer in state.mesh)
        if middle < core.scores.weights.opportunistic:
            self._graft_some(state, now, _OPPORTUNISTIC_PEERS, middle + 1e-9)

    def _announce_neighbours(self, state: TopicState, now: float) -> None:
        """Send NEIGHBOURS to members if the set of peers that are sent own messages has changed."""
        core = self._core
        least = core.scores.weights.publish
        sent_to = [peer for peer in sorted(state.members) if core.scores[peer] >= least]
        names = frozenset(peer[: frames.SHORT_NAME] for peer in sent_to[: core.limits.full_mesh + 1])
        if names == state.announced:
            return
        has_less = any(peer[: frames.SHORT_NAME] in state.announced - names for peer in state.members)
        if now < state.announced_at + _ANNOUNCE_PAUSE and not has_less:
            core.announces = True
            return
        state.announced, state.announced_at = names, now
        self._send_neighbours(state, now)

    def send_retraction(self, state: TopicState, peer: bytes, now: float) -> None:
        """Send NEIGHBOURS without a peer at once, since others rely on own messages being sent to it."""
        if peer[: frames.SHORT_NAME] in state.announced:
            state.announced -= {peer[: frames.SHORT_NAME]}
            self._send_neighbours(state, now)

    def _send_neighbours(self, state: TopicState, now: float) -> None:
        """Send NEIGHBOURS to members, but later to those for whom much waits: when many peers come and go, each of
        a thousand topics causes hundreds of bytes each time.
        """
        told = frames.neighbours(state.name, state.announced)
        for neighbour in (self._core.neighbours[peer] for peer in sorted(state.members)):
            if neighbour.outbox.is_busy:
                neighbour.untold.add(state.name)
                self._core.announces = True
            else:
                neighbour.untold.discard(state.name)
                self._core.send_control(neighbour, told, now)

    def _announce_untold(self, neighbour: Neighbour, now: float) -> None:
        """Send a neighbour the NEIGHBOURS that were put off, as far as it has read on."""
        for name in sorted(neighbour.untold):
            if neighbour.outbox.is_busy:
                self._core.announces = True
                return
            neighbour.untold.discard(name)
            state = self._core.topics.get(name)
            if state is not None and state.joined and neighbour.key in state.members:
                self._core.send_control(neighbour, frames.neighbours(name, state.announced), now)

    def leave(self, state: TopicState, now: float) -> None:
        """Prune all neighbours of a topic that this side leaves, and clear its tables."""
        core = self._core
        for peer in sorted(state.mesh):
            self.prune(state, core.neighbours[peer], now, core.limits.leave_backoff)
        core.scores.on_topic_left(state.name)
        for table in (state.told, state.owed, state.theirs, state.ways, state.ends):
            table.clear()
        state.announced = frozenset()
