"""The router of topics as a value: frames and the time go in, frames and events come out.

GossipSub v1.1 with IDONTWANT of v1.2, and what their users miss: nothing is dropped silently, small topics take one
hop, and late joiners may ask for what is held. No socket, clock or await; randomness is an argument. Neighbours are
opaque names, which are the keys of those that write. docs/gossip.md is the specification.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Final, NamedTuple

from dtp.gossip import frames
from dtp.gossip.asking import HISTORY_PEERS, Asking
from dtp.gossip.core import (
    Core,
    CutOff,
    Delivered,
    Event,
    MembersChanged,
    Neighbour,
    Open,
    TopicState,
    Validate,
    Verdict,
)
from dtp.gossip.errors import GossipFrameError, MessageError
from dtp.gossip.frames import GossipFrameType
from dtp.gossip.held import Held
from dtp.gossip.limits import DEFAULT, DEFAULT_WEIGHTS, GossipLimits, ScoreWeights
from dtp.gossip.meshes import Meshes
from dtp.gossip.message import Message, Parsed, SignatureChecks
from dtp.gossip.outbox import Outbox
from dtp.gossip.score import median
from dtp.peers.clocks import ClockDifference, PeerClocks

#: Frames after which a mesh may need maintenance, and others have to be told.
_CHANGING: Final = frozenset(
    (GossipFrameType.SUBSCRIBE, GossipFrameType.UNSUBSCRIBE, GossipFrameType.GRAFT, GossipFrameType.PRUNE)
)
#: A full neighbour is waited for if it reads at this part of the others' rate, or faster.
_COMPARABLE: Final = 0.5
#: The part of the heartbeat interval after which another one may follow.
_SOON: Final = 0.2
#: Seconds after the newest message in which others are often told what is held.
_LIVELY: Final = 60.0
#: The smallest and largest part of the interval until the next heartbeat. It varies, since nodes that started
#: together would otherwise always be busy at the same moments.
_PAUSE: Final = (0.9, 1.1)
#: The misbehaviour that a malformed frame counts for: it falls below every bound at once.
_BROKEN: Final = 100.0


class _Pending(NamedTuple):
    """A message that waits for its validator."""

    state: TopicState
    parsed: Parsed
    message: Message
    sender: bytes
    is_past: bool


class Router:
    """One node's router. `receive`, `tick` and the program's calls are given the time; `take_frames` and
    `take_events` return the results.

    `now` is the time of any clock that only goes forward, in seconds; `set_wall` tells the Unix time.
    """

    def __init__(
        self,
        me: bytes,
        *,
        random: Random,
        limits: GossipLimits = DEFAULT,
        weights: ScoreWeights = DEFAULT_WEIGHTS,
        checks: SignatureChecks | None = None,
        clocks: PeerClocks | None = None,
    ) -> None:
        checks, clocks = checks or SignatureChecks(), PeerClocks() if clocks is None else clocks
        self._core = Core(me, limits, weights, random, checks, clocks)
        self._meshes = Meshes(self._core)
        self._asking = Asking(self._core)
        self._pending: dict[bytes, _Pending] = {}
        self._last_beat = -limits.heartbeat
        self._next_beat = 0.0
        self._handlers: dict[int, Callable[[Neighbour, bytes, float], None]] = {
            GossipFrameType.SUBSCRIBE: self._receive_subscribe,
            GossipFrameType.UNSUBSCRIBE: self._receive_unsubscribe,
            GossipFrameType.IHAVE: self._asking.receive_ihave,
            GossipFrameType.IWANT: self._asking.receive_iwant,
            GossipFrameType.IDONTWANT: lambda peer, body, now: self._asking.receive_idontwant(peer, body),
            GossipFrameType.GRAFT: lambda peer, body, now: self._meshes.receive_graft(
                peer, frames.read_topic(body)[0], now
            ),
            GossipFrameType.PRUNE: self._meshes.receive_prune,
            GossipFrameType.NEIGHBOURS: lambda peer, body, now: self._meshes.receive_neighbours(peer, body),
            GossipFrameType.PEERS: self._receive_peers,
            GossipFrameType.HISTORY: self._asking.receive_history,
            GossipFrameType.TIME: self._core.receive_time,
        }

    # ---- state --------------------------------------------------------------------------------------------------

    @property
    def limits(self) -> GossipLimits:
        """The limits of this side."""
        return self._core.limits

    @property
    def counts(self) -> Counter[str]:
        """Counts of events by name; docs/gossip.md lists the names."""
        return self._core.counts

    @property
    def checks(self) -> SignatureChecks:
        """The checks of signatures."""
        return self._core.checks

    def joined_topics(self) -> list[bytes]:
        """Return the names of the topics that are joined."""
        return [state.name for state in self._core.topics.values() if state.joined]

    def members_of(self, topic: bytes) -> frozenset[bytes]:
        """Return the neighbours that have a topic."""
        state = self._core.topics.get(topic)
        return frozenset() if state is None else frozenset(state.members)

    def has_members(self, topic: bytes) -> bool:
        """Return True if any neighbour has a topic."""
        state = self._core.topics.get(topic)
        return state is not None and bool(state.members)

    def find_refusing_clocks(self, topic: bytes) -> ClockDifference | None:
        """Return how the clocks of all neighbours with a topic differ from this one, if by what they say all of
        them refuse messages written now. Return None if any of them accepts these.
        """
        state = self._core.topics.get(topic)
        return None if state is None else self._core.find_refusing_clocks(state)

    def mesh_of(self, topic: bytes) -> frozenset[bytes]:
        """Return the neighbours that get a topic's messages at once."""
        state = self._core.topics.get(topic)
        return frozenset() if state is None else frozenset(state.mesh)

    def source_of(self, peer: bytes) -> str:
        """Return the IP address of a neighbour, or another source that its carrier names; "" for an unknown
        neighbour.
        """
        neighbour = self._core.neighbours.get(peer)
        return "" if neighbour is None else neighbour.source

    def score_of(self, peer: bytes) -> float:
        """Return the score of a neighbour; 0 for an unknown one."""
        return self._core.scores[peer]

    def count_kept(self) -> dict[str, int]:
        """Return how many entries are kept now, by kind. All are bounded, whatever others send."""
        core = self._core
        return {
            "topics": len(core.topics),
            "seen": len(core.seen),
            "held": len(core.held),
            "asked": len(self._asking),
            "refused": self._asking.count_refused(),
            "late": self._asking.count_late(),
            "clocks": len(core.clocks),
            "scores-of-gone": core.scores.count_gone(),
            "told": sum(len(state.told) for state in core.topics.values()),
            "backoffs": sum(len(state.backoff) for state in core.topics.values()),
        }

    def count_kept_of(self, peer: bytes) -> dict[str, int]:
        """Return the same for what a neighbour has said or asked for."""
        neighbour = self._core.neighbours[peer]
        return {
            "topics": len(neighbour.topics),
            "served": len(neighbour.served),
            "not-wanted": len(neighbour.outbox.dont_want),
            "neighbours": sum(len(state.theirs.get(peer, ())) for state in self._core.topics.values()),
            "frames": len(neighbour.beat.frames),
        }

    def set_application_score(self, peer: bytes, score: float) -> None:
        """Set the score that the program gives to a neighbour (P5)."""
        self._core.scores.set_application(peer, score)

    def set_wall(self, offset: float) -> None:
        """Set the difference between Unix time and `now`, in seconds."""
        self._core.set_wall(offset)

    def set_records(self, record_of: Callable[[bytes, bytes], bytes | None]) -> None:
        """Set the function that returns the signed record of a neighbour, as it may be sent to another neighbour."""
        self._core.record_of = record_of

    def renew_record(self, peer: bytes, now: float) -> None:
        """Note a neighbour's new record, which is sent to others that share a small topic with it and have no link
        to it.
        """
        if peer in self._core.neighbours:
            self._core.renewed.add(peer)
            self._schedule_heartbeat(now)

    # ---- neighbours ---------------------------------------------------------------------------------------------

    def add_peer(
        self, peer: bytes, now: float, *, outgoing: bool, source: str = "", is_bridge: bool = False
    ) -> bool:
        """Add a neighbour that has a stream to us. `outgoing` says that this side has dialled, `source` is its IP
        address.

        `is_bridge` is True for a broker, which is in every mesh of its topics.

        Return False if there are too many neighbours.
        """
        core = self._core
        if peer in core.neighbours:
            self.remove_peer(peer, now)
        if len(core.neighbours) >= core.limits.peers:
            core.counts["peers-too-many"] += 1
            return False
        outbox = Outbox(core.limits)
        neighbour = Neighbour(peer, outgoing, source, outbox, is_bridge=is_bridge, introduced=now)
        core.neighbours[peer] = neighbour
        core.scores.add(peer, source, now, is_judged=not is_bridge)
        core.send_time(neighbour, now)
        for told in frames.subscriptions(self.joined_topics()):
            core.send_control(neighbour, told, now)
        self._schedule_heartbeat(now)
        return True

    def remove_peer(self, peer: bytes, now: float, *, under_way: int = 0) -> None:
        """Remove a neighbour that is gone. Up to `under_way` bytes of what was taken for it may not have arrived."""
        core = self._core
        neighbour = core.neighbours.get(peer)
        if neighbour is None:
            return
        for name in sorted(neighbour.topics):
            if (state := core.topics.get(name)) is not None:
                self._meshes.remove_member(state, peer, now, lost=neighbour.outbox.size + under_way)
                self._meshes.send_retraction(state, peer, now)
                core.events.append(MembersChanged(name))
        del core.neighbours[peer]
        core.scores.remove(peer, now)
        core.clocks.forget_peer(peer)
        core.ready.pop(peer, None)
        core.owing.discard(peer)
        core.renewed.discard(peer)
        self._asking.on_neighbour_gone(peer, now)
        self._schedule_heartbeat(now)

    # ---- topics -------------------------------------------------------------------------------------------------

    def join(
        self,
        topic: bytes,
        now: float,
        *,
        validate: Validate | None = None,
        open: Open | None = None,
        shown: str | None = None,
        history: float = 0.0,
    ) -> None:
        """Join a topic: its messages come as `Delivered`, with `shown` as the topic's name.

        With `history`, ask neighbours for the messages of so many seconds that they hold.
        """
        core = self._core
        known = core.topics.get(topic)
        if (known is None or not known.joined) and len(self.joined_topics()) >= core.limits.topics:
            raise MessageError(
                f"{core.limits.topics} topics are joined; leave one, or raise GossipLimits.topics"
            )
        state = core.ensure_topic(topic)
        state.validate, state.open = validate, open
        if state.joined:
            return
        state.joined = True
        if shown is not None:
            state.shown = shown
        if history > 0:
            state.history_left = HISTORY_PEERS
            state.history_since = max(0, int((now + core.wall_offset - history) * 1000))
        told = frames.frame(GossipFrameType.SUBSCRIBE, frames.named(topic))
        for neighbour in core.neighbours.values():
            core.send_control(neighbour, told, now)
        members, state.members = state.members, set()
        for peer in sorted(members):
            self._add_member(state, core.neighbours[peer], now)
        self._schedule_heartbeat(now)

    def leave(self, topic: bytes, now: float) -> None:
        """Leave a topic, and tell neighbours."""
        core = self._core
        state = core.topics.get(topic)
        if state is None or not state.joined:
            return
        self._meshes.leave(state, now)
        state.joined = False
        state.validate = state.open = None
        state.history_left = 0
        core.held.drop_topic(topic)
        told = frames.frame(GossipFrameType.UNSUBSCRIBE, frames.named(topic))
        for neighbour in core.neighbours.values():
            neighbour.past_wanted.pop(topic, None)
            neighbour.past.pop(topic, None)
            core.send_control(neighbour, told, now)
        core.forget_if_unused(state)

    def _add_member(self, state: TopicState, neighbour: Neighbour, now: float) -> None:
        self._meshes.add_member(state, neighbour, now)
        if state.joined:
            self._asking.ask_history(state, neighbour, now)
        self._core.events.append(MembersChanged(state.name))

    # ---- publishing ---------------------------------------------------------------------------------------------

    def has_room(self, topic: bytes, now: float) -> bool:
        """True if neighbours have room for more messages of a topic."""
        core = self._core
        state = core.topics.get(topic)
        if state is None or core.owing.isdisjoint(state.members):
            return True
        return not self._is_slow([core.neighbours[peer] for peer in state.members], now)

    def is_congested(self, now: float) -> bool:
        """True while neighbours have no more room. Nothing should be read from others meanwhile."""
        return bool(self._core.owing) and self._is_slow(list(self._core.neighbours.values()), now)

    def _is_slow(self, neighbours: list[Neighbour], now: float) -> bool:
        """True while most of the neighbours that read at all are busy, or while one is full that reads at least
        half as fast as most. Neighbours that read more slowly, or not at all, aren't waited for.
        """
        if not any(each.outbox.is_busy for each in neighbours):
            return False
        reading = [each.outbox for each in neighbours if not each.outbox.is_stalled(now)]
        if 2 * sum(each.is_busy for each in reading) > len(reading):
            return True
        full = [each for each in reading if each.is_full]
        if not full:
            return False
        pace = median(each.rate for each in reading) * _COMPARABLE
        return any(each.rate >= pace for each in full)

    def publish(self, encoded: bytes, now: float) -> int:
        """Send a message of this node to every neighbour that has its topic, and return their number.

        Raise `MessageError` if it isn't a message. Its signature isn't checked, since the caller has made it. A
        message that is known already isn't sent.
        """
        core = self._core
        parsed = Parsed(encoded)
        if parsed.id in core.seen:
            core.counts["duplicate"] += 1
            return 0
        state = core.topics.get(parsed.topic)
        self._remember_message(parsed, b"", now)
        core.counts["published"] += 1
        if state is None:
            return 0
        self._hold_message(state, parsed, now)
        packed = frames.frame(GossipFrameType.MESSAGE, encoded)
        count = 0
        least = core.scores.weights.publish
        for peer in sorted(state.members):
            if core.scores[peer] >= least or peer in state.mesh:
                core.send_message(state, core.neighbours[peer], parsed.id, packed, now)
                count += 1
        return count

    def _remember_message(self, parsed: Parsed, sender: bytes, now: float) -> None:
        core = self._core
        core.seen.add(parsed.id, now + core.wall_offset)
        neighbour = core.neighbours.get(sender)
        if neighbour is not None:  # on a slow link it may have much to send before what it was asked for
            neighbour.silent_since = None
        self._asking.on_arrived(parsed.id, neighbour, now)

    def _hold_message(self, state: TopicState, parsed: Parsed, now: float) -> None:
        if state.joined:
            if not len(self._core.held):
                self._next_beat = min(self._next_beat, now + self.limits.heartbeat)
            self._core.held.add(Held(parsed.id, parsed.topic, parsed.time_ms, now, parsed.encoded))

    # ---- receiving ----------------------------------------------------------------------------------------------

    def receive(self, peer: bytes, received: Sequence[tuple[int, bytes]], now: float) -> None:
        """Process frames of a neighbour, as `split_frames` returns them. The signatures of messages among them are
        checked together.
        """
        core = self._core
        neighbour = core.neighbours.get(peer)
        if neighbour is None:
            return
        if core.scores[peer] < core.scores.weights.graylist:
            core.counts["graylisted"] += len(received)
            return
        messages: list[tuple[int, bytes]] = []
        try:
            for kind, body in received:
                if kind in frames.CARRYING:
                    messages.append((kind, body))
                    continue
                if messages:
                    self._receive_messages(neighbour, messages, now)
                    messages = []
                handler = self._handlers.get(kind)
                if handler is not None:
                    handler(neighbour, body, now)
                    if kind in _CHANGING:
                        self._schedule_heartbeat(now)
                elif kind < frames.IGNORABLE:
                    raise GossipFrameError(f"a frame of unknown type {kind}, which must not be skipped")
                else:
                    core.counts["frame-skipped"] += 1
        except GossipFrameError:
            self.count_broken(peer)
        if messages:
            self._receive_messages(neighbour, messages, now)
        if core.scores.has_blamed:
            core.scores.has_blamed = False
            self._schedule_heartbeat(now)
        elif len(self._asking):
            self._next_beat = min(self._next_beat, now + self.limits.heartbeat)

    def count_broken(self, peer: bytes) -> None:
        """Cut off a neighbour that sent a malformed frame."""
        self._core.count_offence(peer, "frame-broken", _BROKEN)
        self._core.events.append(CutOff(peer, "it sent a malformed frame"))

    def _receive_subscribe(self, neighbour: Neighbour, body: bytes, now: float) -> None:
        core = self._core
        for name in frames.read_topics(body):
            if name in neighbour.topics:
                continue
            if not core.has_room_for(neighbour, name):
                core.counts["topics-too-many"] += 1
                continue
            neighbour.topics.add(name)
            self._add_member(core.ensure_topic(name), neighbour, now)

    def _receive_unsubscribe(self, neighbour: Neighbour, body: bytes, now: float) -> None:
        core = self._core
        for name in frames.read_topics(body):
            if name in neighbour.topics:
                neighbour.topics.discard(name)
                if (state := core.topics.get(name)) is not None:
                    self._meshes.remove_member(state, neighbour.key, now)
                    core.events.append(MembersChanged(name))

    def _receive_peers(self, neighbour: Neighbour, body: bytes, now: float) -> None:
        topic, records = frames.read_peers(body)
        state = self._core.topics.get(topic)
        if state is None or not state.joined:
            self._core.counts["peers-unknown-topic"] += 1
        else:
            self._meshes.offer_records(state, neighbour, records)

    def _receive_messages(
        self, neighbour: Neighbour, messages: Sequence[tuple[int, bytes]], now: float
    ) -> None:
        core = self._core
        fresh: dict[bytes, tuple[Parsed, TopicState, bool]] = {}
        for kind, body in messages:
            try:
                parsed = Parsed(body)
            except MessageError:
                core.counts["message-malformed"] += 1
                core.scores.count_invalid(neighbour.key, b"")
                continue
            if parsed.id in core.seen or parsed.id in fresh or parsed.id in self._pending:
                core.counts["duplicate"] += 1
                core.scores.count_duplicate(neighbour.key, parsed.topic)
                self._asking.on_given(parsed.id, neighbour)
                continue
            state = core.topics.get(parsed.topic)
            is_past = kind == GossipFrameType.PAST
            reason = self._refusal_reason(neighbour, state, parsed, is_past, now)
            if reason:
                core.counts[reason] += 1
                self._asking.on_arrived(parsed.id, neighbour, now)  # it has kept its promise
            else:
                assert state is not None
                fresh[parsed.id] = parsed, state, is_past
        if not fresh:
            return
        verdicts = core.checks.check([parsed for parsed, _, _ in fresh.values()])
        for (parsed, state, is_past), is_genuine in zip(fresh.values(), verdicts, strict=True):
            if is_genuine:
                self._accept_message(neighbour, state, parsed, is_past, now)
            else:
                core.counts["message-forged"] += 1
                core.scores.count_invalid(neighbour.key, parsed.topic)

    def _refusal_reason(
        self, neighbour: Neighbour, state: TopicState | None, parsed: Parsed, is_past: bool, now: float
    ) -> str:
        """Return the name of the count under which a message is refused, or "" if it isn't."""
        core, limits = self._core, self._core.limits
        if state is None or not state.joined:
            return "message-unknown-topic"
        if len(parsed.encoded) > limits.message:
            core.scores.count_invalid(neighbour.key, parsed.topic)
            return "message-oversize"
        if parsed.key == neighbour.key and not is_past:
            core.clocks.note_message(parsed.key, parsed.time_ms / 1000, now)
        reason = core.refusal_by_time(parsed.time_ms, now)
        if is_past and reason != "message-future":
            left = neighbour.past_wanted.get(parsed.topic, 0)
            if not left or parsed.time_ms < state.history_since:
                return "past-unasked"  # this node may have asked before it left and came back
            neighbour.past_wanted[parsed.topic] = left - 1
            return "message-stale" if core.seen.is_too_old(parsed.time_ms, now + core.wall_offset) else ""
        if reason:
            self._asking.note_refused(parsed.id, parsed.time_ms, now)
        return reason

    def _accept_message(
        self, neighbour: Neighbour, state: TopicState, parsed: Parsed, is_past: bool, now: float
    ) -> None:
        """Process a new message whose signature is valid."""
        core = self._core
        if len(parsed.encoded) >= core.limits.dont_want and not is_past:
            self._send_idontwant(state, parsed, neighbour, now)
        data = parsed.data if state.open is None else state.open(parsed)
        if data is None:
            self._remember_message(parsed, neighbour.key, now)
            core.counts["message-not-sealed"] += 1
            core.scores.count_invalid(neighbour.key, parsed.topic)
            return
        if parsed.key == core.me:  # of an earlier run: held for others, but not delivered to its author
            self._remember_message(parsed, neighbour.key, now)
            core.counts["own"] += 1
            self._hold_message(state, parsed, now)
            return
        message = parsed.to_message(state.shown, data)
        pending = _Pending(state, parsed, message, neighbour.key, is_past)
        verdict: Verdict | None = Verdict.ACCEPT
        if state.validate is not None:
            if len(self._pending) >= core.limits.validating:
                self._asking.on_given(parsed.id, neighbour)
                # It isn't remembered, so that it may come again later.
                core.counts["validators-busy"] += 1
                return
            verdict = state.validate(message)
        if verdict is None:
            self._pending[parsed.id] = pending
        else:
            self._apply_verdict(pending, verdict, now)

    def set_verdict(self, message_id: bytes, verdict: Verdict, now: float) -> None:
        """Set the verdict on a message whose validator has returned None."""
        pending = self._pending.pop(message_id, None)
        if pending is not None and pending.state.joined:
            self._apply_verdict(pending, verdict, now)

    def _apply_verdict(self, pending: _Pending, verdict: Verdict, now: float) -> None:
        core, state, parsed = self._core, pending.state, pending.parsed
        self._remember_message(parsed, pending.sender, now)
        if verdict is Verdict.REJECT:
            core.counts["message-rejected"] += 1
            core.scores.count_invalid(pending.sender, parsed.topic)
            return
        if verdict is Verdict.IGNORE:
            core.counts["message-ignored"] += 1
            return
        core.counts["delivered"] += 1
        core.scores.count_first_delivery(pending.sender, parsed.topic, state.mesh)
        self._hold_message(state, parsed, now)
        core.events.append(Delivered(parsed.topic, pending.message, pending.sender, pending.is_past))
        if not pending.is_past:
            self._forward_message(state, parsed, pending.sender, now)

    def _forward_message(self, state: TopicState, parsed: Parsed, sender: bytes, now: float) -> None:
        """Send a message to the mesh, except to those that have it from its author."""
        targets = self._forward_targets(state, sender, parsed.key)
        if not targets:
            return
        packed = frames.frame(GossipFrameType.MESSAGE, parsed.encoded)
        for neighbour in targets:
            self._core.send_message(state, neighbour, parsed.id, packed, now)

    def _forward_targets(self, state: TopicState, sender: bytes, author: bytes) -> tuple[Neighbour, ...]:
        """Return the neighbours that a message is forwarded to, without those to which its author says it sends its
        messages.

        The author is trusted for its own messages only: a lie would harm nobody else.
        """
        has = state.theirs.get(author)
        way = sender, author if has is not None or author in state.mesh else b""
        targets = state.ways.get(way)
        if targets is None:
            core, skipped = self._core, has or frozenset()
            others = [core.neighbours[peer] for peer in sorted(state.mesh - {sender, author})]
            targets = state.ways[way] = tuple(each for each in others if each.short not in skipped)
        return targets

    def _send_idontwant(self, state: TopicState, parsed: Parsed, sender: Neighbour, now: float) -> None:
        """Send IDONTWANT for a large message. Its signature was checked before, so a forged copy can't
        suppress it.
        """
        told = frames.frame(GossipFrameType.IDONTWANT, parsed.id)
        for neighbour in self._forward_targets(state, sender.key, parsed.key):
            self._core.send_hint(neighbour, told, now)

    # ---- time ---------------------------------------------------------------------------------------------------

    def _schedule_heartbeat(self, now: float) -> None:
        """Schedule a heartbeat soon, since others rely on what they were told about this side's neighbours."""
        self._next_beat = min(self._next_beat, max(now, self._last_beat + _SOON * self.limits.heartbeat))

    def next_time(self) -> float:
        """Return the time at which `tick` is to be called next."""
        return self._next_beat

    def tick(self, now: float) -> None:
        """Run a heartbeat, if one is due."""
        if now < self._next_beat:
            return
        core = self._core
        self._last_beat = now
        core.send_new_time(now)
        core.scores.refresh(now)
        core.held.expire(now)
        for neighbour in core.neighbours.values():
            neighbour.beat.clear()
            neighbour.outbox.measure_rate(now)
            if neighbour.outbox.is_dead(now):
                core.counts["cut-off-unread"] += 1
                core.events.append(CutOff(neighbour.key, "it reads nothing"))
            elif core.scores[neighbour.key] < core.scores.weights.graylist:
                core.counts["cut-off-score"] += 1
                core.events.append(CutOff(neighbour.key, "its score is too low"))
        self._meshes.run_heartbeat(now)
        self._asking.run_heartbeat(now)
        is_lively = now < core.held.newest + _LIVELY or core.announces
        is_idle = not (is_lively or len(self._asking) or core.owing or core.renewed)
        pause = self.limits.idle_heartbeat if is_idle else self.limits.heartbeat
        self._next_beat = now + pause * core.random.uniform(*_PAUSE)

    # ---- sending ------------------------------------------------------------------------------------------------

    @property
    def has_ready(self) -> bool:
        """True while there is something for neighbours that `take_ready` hasn't returned yet."""
        return bool(self._core.ready)

    def take_ready(self) -> list[bytes]:
        """Return the neighbours for which something was queued since the last call."""
        found = list(self._core.ready)
        self._core.ready.clear()
        return found

    def take_frames(self, peer: bytes, most: int, now: float) -> bytes:
        """Return the next frames for a neighbour, joined, about `most` bytes; b"" if there are none."""
        neighbour = self._core.neighbours.get(peer)
        if neighbour is None:
            return b""
        taken = neighbour.outbox.take_frames(most, now)
        if neighbour.past:
            self._asking.give_past(neighbour, now)
        if not neighbour.outbox:
            self._core.owing.discard(peer)
        return taken

    def queued_bytes(self, peer: bytes) -> int:
        """Return the number of bytes that wait for a neighbour."""
        neighbour = self._core.neighbours.get(peer)
        return 0 if neighbour is None else neighbour.outbox.size

    def is_stalled(self, peer: bytes, now: float) -> bool:
        """True if a neighbour has taken nothing for so long that nobody should wait for it."""
        neighbour = self._core.neighbours.get(peer)
        return neighbour is None or neighbour.outbox.is_stalled(now)

    def expect_past(self, peer: bytes, topic: bytes, since_ms: int) -> None:
        """Accept a topic's history from a neighbour that wasn't asked: a broker that was away and is back."""
        neighbour, state = self._core.neighbours.get(peer), self._core.topics.get(topic)
        if neighbour is not None and state is not None:
            neighbour.past_wanted[topic] = self.limits.history
            state.history_since = min(state.history_since or since_ms, since_ms)

    def count_bad_record(self, peer: bytes) -> None:
        """Count a malformed, forged or stale record from a neighbour."""
        self._core.scores.count_misbehaviour(peer)

    def take_events(self) -> list[Event]:
        """Return the events since the last call."""
        found, self._core.events = self._core.events, []
        return found
