"""Announced and requested messages: IHAVE, IWANT, IDONTWANT, promises; and the history for late joiners."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from dtp.bounded import BoundedDict
from dtp.gossip import frames
from dtp.gossip.core import SETTLED_BEATS, Core, Neighbour, TopicState
from dtp.gossip.frames import GossipFrameType

#: Neighbours that are asked for a topic's history.
HISTORY_PEERS: Final = 3
#: Ids announced to a neighbour in a full mesh at a heartbeat: it should have them already.
_FULL_IDS: Final = 200
#: Ids whose IWANTs are counted for one neighbour; the one that was requested longest ago is dropped first.
_SERVED: Final = 8192
#: The most heartbeats of a neighbour within one of ours.
_BEATS: Final = 3
#: Ids requested from all neighbours at a time: beyond this, IHAVEs wait for the next heartbeat.
_ASKED: Final = 20_000
#: The most messages that are announced to a neighbour again.
_TOLD_AGAIN: Final = 131_072
#: Neighbours that are remembered as having a message that was requested from another: each announces it once, and may
#: not send it.
_OTHERS: Final = 8


@dataclass(slots=True)
class _Asked:
    """A requested message: from whom it was requested, by when it has to come, and who else has it."""

    peer: bytes
    until: float
    others: list[bytes]


class Asking:
    """The requests to neighbours."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._asked: dict[bytes, _Asked] = {}
        #: Messages that came from others or too late: from whom they were requested, and until when they may still
        #: come.
        self._late: BoundedDict[bytes, tuple[bytes, float]] = BoundedDict(_ASKED)
        #: Messages that were refused for their time, which an id always has: until when they may be offered, and that
        #: time.
        self._refused: BoundedDict[bytes, tuple[float, int]] = BoundedDict(_ASKED)

    def __len__(self) -> int:
        return len(self._asked)

    def count_refused(self) -> int:
        """Return the number of messages that were refused for their time and may still be offered."""
        return len(self._refused)

    def count_late(self) -> int:
        """Return the number of messages that may still come from neighbours that were asked for them."""
        return len(self._late)

    # ---- frames of neighbours -----------------------------------------------------------------------------------

    def receive_ihave(self, neighbour: Neighbour, body: bytes, now: float) -> None:
        """Process IHAVE, which names messages that a neighbour has: request missing ones, each from one neighbour."""
        core, limits = self._core, self._core.limits
        topic, rest = frames.read_topic(body)
        state = core.topics.get(topic)
        if state is None or not state.joined:
            core.counts["ihave-unknown-topic"] += 1
            return
        if neighbour.beat.count_frame(GossipFrameType.IHAVE, topic) > limits.ihaves:
            core.counts["ihave-flood"] += 1  # nobody is blamed: after a stall much comes at once
            return
        ids = frames.read_ids(rest)
        if core.scores[neighbour.key] < core.scores.weights.gossip:
            core.counts["ihave-low-score"] += 1
            return
        wanted = []
        for message_id in ids:
            if message_id in core.seen or (self._refused and self._would_be_refused(message_id, now)):
                continue
            asked = self._asked.get(message_id)
            if asked is not None:
                if len(asked.others) < _OTHERS and neighbour.key not in (asked.peer, *asked.others):
                    asked.others.append(neighbour.key)
                continue
            if neighbour.beat.asked >= _BEATS * limits.ids or len(self._asked) >= _ASKED:
                core.counts["ihave-too-many"] += 1
                break
            neighbour.beat.asked += 1
            wanted.append(message_id)
            self._asked[message_id] = _Asked(neighbour.key, now + limits.promise, [])
        if wanted:
            if neighbour.silent_since is None:
                neighbour.silent_since = now
            core.counts["asked"] += len(wanted)
            core.send_control(neighbour, frames.frame(GossipFrameType.IWANT, *wanted), now)

    def note_refused(self, message_id: bytes, time_ms: int, now: float) -> None:
        """Note that a message was refused for its time: it isn't requested while it would be refused again."""
        limits = self._core.limits
        self._refused[message_id] = now + max(limits.stale, limits.held_time), time_ms

    def _would_be_refused(self, message_id: bytes, now: float) -> bool:
        """True if a message was refused for its time and would be refused now: one from the future may be accepted
        later, and this side's clock may have been set."""
        refused = self._refused.get(message_id)
        return refused is not None and self._core.refusal_by_time(refused[1], now) != ""

    def receive_iwant(self, neighbour: Neighbour, body: bytes, now: float) -> None:
        """Process IWANT, by which a neighbour asks for messages by id: each is sent to it a few times at most."""
        core, limits = self._core, self._core.limits
        if core.scores[neighbour.key] < core.scores.weights.gossip:
            core.counts["iwant-low-score"] += 1
            return
        for message_id in frames.read_ids(body):
            held = core.held.get(message_id)
            if held is None:
                core.counts["iwant-not-held"] += 1
                continue
            if neighbour.served.get(message_id, 0) >= limits.iwants:
                core.counts["iwant-flood"] += 1  # nobody is blamed: slow answers make neighbours ask again
                continue
            neighbour.served[message_id] = neighbour.served.pop(message_id, 0) + 1
            if len(neighbour.served) > _SERVED:
                neighbour.served.popitem(last=False)
            neighbour.outbox.dont_want.pop(message_id, None)
            if neighbour.outbox.try_put_message(
                message_id, frames.frame(GossipFrameType.MESSAGE, held.encoded), now
            ):
                core.counts["answered"] += 1
                core.mark_ready(neighbour)
            else:
                neighbour.served[message_id] -= 1
                core.counts["left-out"] += 1
                self._mark_owed(held.topic, neighbour, now)

    def _mark_owed(self, topic: bytes, neighbour: Neighbour, now: float) -> None:
        """Announce everything that is held and not stale to a neighbour again: there was no room for what it
        requested."""
        state = self._core.topics.get(topic)
        if state is not None and neighbour.key in state.members and neighbour.key not in state.owed:
            core = self._core
            since_ms = int((now + core.wall_offset - core.limits.stale) * 1000)
            state.owed[neighbour.key] = core.held.number_since(topic, since_ms, _TOLD_AGAIN)

    def receive_idontwant(self, neighbour: Neighbour, body: bytes) -> None:
        """Process IDONTWANT, by which a neighbour says which messages it has already."""
        if surplus := neighbour.outbox.mark_unwanted(frames.read_ids(body)):
            self._core.counts["idontwant-too-many"] += surplus

    # ---- outcomes -----------------------------------------------------------------------------------------------

    def on_arrived(self, message_id: bytes, sender: Neighbour | None, now: float) -> None:
        """Note that a message has arrived, which keeps its promise. `sender` is None if it was written here."""
        asked = self._asked.pop(message_id, None) if self._asked else None
        if asked is not None:
            self._expect_late(message_id, asked.peer, now)
        if sender is not None:
            self.on_given(message_id, sender)

    def on_given(self, message_id: bytes, sender: Neighbour) -> None:
        """Note that a neighbour gave a message, whether or not it was of use."""
        asked = self._asked.get(message_id) if self._asked else None
        if asked is not None and asked.peer == sender.key:
            sender.silent_since = None
        elif self._late and self._late.get(message_id, (b"",))[0] == sender.key:
            del self._late[message_id]
            sender.silent_since = None

    def _expect_late(self, message_id: bytes, peer: bytes, now: float) -> None:
        self._late[message_id] = peer, now + self._core.limits.stale

    def run_heartbeat(self, now: float) -> None:
        """Count broken promises, ask others instead, and send neighbours IHAVE."""
        core = self._core
        self._forget_old(now)
        broken = [message_id for message_id, asked in self._asked.items() if asked.until <= now]
        blamed: set[bytes] = set()
        for message_id in broken:
            asked = self._asked[message_id]
            core.counts["promise-broken"] += 1
            self._expect_late(message_id, asked.peer, now)
            promised = core.neighbours.get(asked.peer)
            # A neighbour that sent some of them is slow, or we are; one that sent none has promised what it doesn't
            # have.
            since = None if promised is None else promised.silent_since
            if since is not None and now - since > core.limits.silent:
                blamed.add(asked.peer)
        for peer in blamed:
            core.scores.count_misbehaviour(peer)
        self._ask_others(broken, now)
        for state in core.topics.values():
            if state.joined:
                self._announce_held(state, now)

    def on_neighbour_gone(self, peer: bytes, now: float) -> None:
        """Request from others what was requested from a neighbour that is gone. A message that nobody else has
        announced is requested at its next announcement, such as by this neighbour once it is back."""
        self._ask_others([each for each, asked in self._asked.items() if asked.peer == peer], now)

    def _ask_others(self, ids: Iterable[bytes], now: float) -> None:
        """Request messages from another neighbour than before, if another one has announced them."""
        core = self._core
        again: dict[bytes, list[bytes]] = {}
        for message_id in ids:
            others = [peer for peer in self._asked.pop(message_id).others if peer in core.neighbours]
            if others:
                again.setdefault(others[0], []).append(message_id)
                self._asked[message_id] = _Asked(others[0], now + core.limits.promise, others[1:])
        most = core.limits.ids
        for peer, found in again.items():
            if core.neighbours[peer].silent_since is None:
                core.neighbours[peer].silent_since = now
            # The former neighbours may have announced them in many frames.
            for at in range(0, len(found), most):
                some = frames.frame(GossipFrameType.IWANT, *found[at : at + most])
                core.send_control(core.neighbours[peer], some, now)

    def _forget_old(self, now: float) -> None:
        """Forget messages that no neighbour offers, sends or requests any more."""
        while self._refused and next(iter(self._refused.values()))[0] <= now:
            self._refused.popitem(last=False)
        while self._late and next(iter(self._late.values()))[1] <= now:
            self._late.popitem(last=False)
        for neighbour in self._core.neighbours.values():
            served = neighbour.served
            while served and self._core.held.get(next(iter(served))) is None:
                served.popitem(last=False)

    def _announce_held(self, state: TopicState, now: float) -> None:
        """Send IHAVE to neighbours for which messages were left out, to some outside the mesh, and within a full
        mesh."""
        for peer in [peer for peer in state.owed if self._may_tell(peer)]:
            number = state.owed.pop(peer)
            rest = self._send_ihave(state, peer, number, self._core.limits.ids, now)
            if rest < self._core.held.next_number(state.name):
                state.owed[peer] = rest
        self._announce_outside(state, now)
        if state.is_full:
            self._announce_to_mesh(state, now)

    def _may_tell(self, peer: bytes) -> bool:
        core = self._core
        return core.scores[peer] >= core.scores.weights.gossip and not core.neighbours[peer].outbox.is_busy

    def _order_by_last_told(self, state: TopicState, peers: Iterable[bytes], end: int) -> list[bytes]:
        """Return the neighbours that weren't told of all messages below `end`, the one that was told longest ago
        first."""
        fit = [
            peer
            for peer in sorted(peers)
            if peer not in state.owed and state.told.setdefault(peer, end) < end and self._may_tell(peer)
        ]
        self._core.random.shuffle(fit)
        fit.sort(key=lambda peer: state.told[peer])
        return fit

    def _announce_outside(self, state: TopicState, now: float) -> None:
        """Send IHAVE to some neighbours outside the mesh each time, so that each is told of everything."""
        limits = self._core.limits
        fit = self._order_by_last_told(
            state, state.members - state.mesh, self._core.held.next_number(state.name)
        )
        for peer in fit[: max(limits.degree_lazy, int(len(fit) * limits.lazy_part))]:
            state.told[peer] = self._send_ihave(state, peer, state.told[peer], limits.ids, now)

    def _announce_to_mesh(self, state: TopicState, now: float) -> None:
        """Send IHAVE to one neighbour in a full mesh, where all get messages at once, in case one was lost."""
        settled = state.ends[0] if len(state.ends) == SETTLED_BEATS else 0
        state.ends.append(self._core.held.next_number(state.name))
        for peer in self._order_by_last_told(state, state.mesh, settled)[:1]:
            number = max(state.told[peer], settled - _FULL_IDS)
            self._send_ihave(state, peer, number, settled - number, now, has_most=True)
            state.told[peer] = settled

    def _send_ihave(
        self, state: TopicState, peer: bytes, number: int, most: int, now: float, *, has_most: bool = False
    ) -> int:
        """Send IHAVE with ids from a number on, and return the number after the last one."""
        core = self._core
        ids, number, lost = core.held.ids_since(state.name, number, most)
        if lost and not has_most:
            core.counts["untold"] += lost
        if ids:
            core.counts["told"] += len(ids)
            core.send_control(core.neighbours[peer], frames.ihave(state.name, ids), now)
        return number

    # ---- history ------------------------------------------------------------------------------------------------

    def ask_history(self, state: TopicState, neighbour: Neighbour, now: float) -> None:
        """Ask a neighbour for the messages that it holds, if history is wanted and not enough neighbours were
        asked."""
        if state.history_left and state.name not in neighbour.past_wanted:
            state.history_left -= 1
            most = self._core.limits.history
            neighbour.past_wanted[state.name] = most
            self._core.send_control(neighbour, frames.history(state.name, state.history_since, most), now)

    def receive_history(self, neighbour: Neighbour, body: bytes, now: float) -> None:
        """Process HISTORY, by which a neighbour asks for the messages that are held."""
        core = self._core
        topic, since_ms, most = frames.read_history(body)
        last = neighbour.history.get(topic)
        if last is not None and now - last < core.limits.history_pause:
            core.counts["history-flood"] += 1
            return
        state = core.topics.get(topic)
        if state is None or not state.joined or neighbour.key not in state.members:
            core.counts["history-unknown-topic"] += 1
            return
        neighbour.history[topic] = now  # at most as many as it has topics
        number = core.held.number_since(topic, since_ms, min(most, core.limits.history))
        neighbour.past[topic] = number, core.held.next_number(topic), since_ms
        self.give_past(neighbour, now)

    def give_past(self, neighbour: Neighbour, now: float) -> None:
        """Send a neighbour the history that it requested, as fast as it reads: call it again when there is room."""
        held_messages, outbox = self._core.held, neighbour.outbox
        for topic, (start, end, since_ms) in list(neighbour.past.items()):
            for number, held in held_messages.from_number(topic, start):
                if number >= end:
                    break
                if outbox.is_busy or outbox.is_full:
                    neighbour.past[topic] = number, end, since_ms
                    return
                if held.time_ms >= since_ms and outbox.try_put_message(
                    held.id, frames.frame(GossipFrameType.PAST, held.encoded), now
                ):
                    self._core.counts["answered"] += 1
                    self._core.mark_ready(neighbour)
            del neighbour.past[topic]
