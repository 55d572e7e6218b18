"""What the parts of a router share: neighbours, topics, and what happened. No IO, no clock, no randomness."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import Final, NamedTuple

from dtp.gossip import frames
from dtp.gossip.frames import SHORT_NAME, GossipFrameType
from dtp.gossip.held import HeldMessages
from dtp.gossip.limits import GossipLimits, ScoreWeights
from dtp.gossip.message import Message, Parsed, SignatureChecks
from dtp.gossip.outbox import Outbox
from dtp.gossip.score import Scores
from dtp.gossip.seen import SeenCache
from dtp.peers.clocks import ClockDifference, PeerClocks

#: The most topics that are remembered, of all neighbours together.
KNOWN_TOPICS: Final = 16_384
#: ... and of each neighbour in any case: neighbours that name a thousand topics each leave room for others.
LEAST_TOPICS: Final = 16
#: Heartbeats after which a message should have reached all of a full mesh: announcing it earlier only doubles
#: traffic.
SETTLED_BEATS: Final = 2
#: Entries kept of each kind for a topic: back-offs, and how far neighbours outside the mesh were told.
KNOWN_NAMES: Final = 4096
#: The least seconds by which a clock was set before others are told; a smaller difference comes from slewing or
#: reading late.
_SET: Final = 1.0


class Verdict(Enum):
    """A validator's verdict on a message."""

    #: Deliver it to the program, and forward it.
    ACCEPT = "accept"
    #: Don't deliver or forward it; nobody is to blame.
    IGNORE = "ignore"
    #: Don't deliver or forward it; the neighbour that sent it loses score.
    REJECT = "reject"


#: Returns the verdict on a message, or None if `Router.set_verdict` gives it later.
Validate = Callable[[Message], Verdict | None]
#: Returns the payload as the program wrote it, or None if it can't be opened.
Open = Callable[[Parsed], bytes | None]


# ---- events ------------------------------------------------------------------------------------------------------


class Delivered(NamedTuple):
    """A message for the program. `sender` is the neighbour that sent it; `is_past` is true for requested history."""

    topic: bytes
    message: Message
    sender: bytes
    is_past: bool = False


@dataclass(frozen=True, slots=True)
class RecordsOffered:
    """A neighbour names others that have a topic, by signed records that weren't checked yet."""

    topic: bytes
    records: tuple[bytes, ...]
    sender: bytes


@dataclass(frozen=True, slots=True)
class MembersChanged:
    """Neighbours have joined or left a topic."""

    topic: bytes


@dataclass(frozen=True, slots=True)
class CutOff:
    """A neighbour has to be cut off: it reads nothing, or its score is too low."""

    peer: bytes
    reason: str


Event = Delivered | RecordsOffered | MembersChanged | CutOff


# ---- neighbours and topics ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class Beat:
    """Counts of what a neighbour did since the last heartbeat; bounded, since only joined topics are counted."""

    #: Ids requested from it, and records of others that it has sent.
    asked: int = 0
    records: int = 0
    #: Frames of a kind and a topic. They are counted for each topic, since a neighbour that has a thousand topics
    #: sends a thousand times as many.
    frames: dict[tuple[GossipFrameType, bytes], int] = field(default_factory=dict)
    #: Peers whose records it was sent as a newcomer: once is enough, however many topics they have in common.
    introduced_to: set[bytes] = field(default_factory=set)

    def count_frame(self, kind: GossipFrameType, topic: bytes) -> int:
        """Return how many frames of a kind and a topic have come, with this one."""
        count = self.frames[kind, topic] = self.frames.get((kind, topic), 0) + 1
        return count

    def clear(self) -> None:
        """Reset the counts, at a heartbeat."""
        self.asked = self.records = 0
        self.frames.clear()
        self.introduced_to.clear()


@dataclass(slots=True)
class Neighbour:
    """A peer with a stream to us."""

    key: bytes
    outgoing: bool
    source: str
    outbox: Outbox
    topics: set[bytes] = field(default_factory=set)
    beat: Beat = field(default_factory=Beat)
    #: How often it was sent a message, by id, because it asked.
    served: OrderedDict[bytes, int] = field(default_factory=OrderedDict)
    #: When it last asked for the past of a topic; and the topics whose past it was asked for.
    history: dict[bytes, float] = field(default_factory=dict)
    past_wanted: dict[bytes, int] = field(default_factory=dict)
    #: The history that it requested and is sent as it reads: by topic, the range of numbers, and since when.
    past: dict[bytes, tuple[int, int, int]] = field(default_factory=dict)
    #: Topics of which it is sent NEIGHBOURS once it has read on: only the newest ones count.
    untold: set[bytes] = field(default_factory=set)
    #: True if there was no room for a frame that it must have: it is cut off.
    is_lost: bool = False
    #: When it was asked by IWANT, if it has sent nothing of that and nothing new since; otherwise None.
    silent_since: float | None = None
    #: True for this side's end of a broker: always in the mesh, never scored.
    is_bridge: bool = False
    #: When others were last sent its record; at first the time when it came, since it links to the others by itself.
    introduced: float = 0.0

    @property
    def short(self) -> bytes:
        """Its name in NEIGHBOURS."""
        return self.key[:SHORT_NAME]


@dataclass(slots=True)
class TopicState:
    """What is known of a topic, joined or not."""

    name: bytes
    shown: str
    joined: bool = False
    #: Neighbours that have it, and those of them that get messages at once.
    members: set[bytes] = field(default_factory=set)
    mesh: set[bytes] = field(default_factory=set)
    #: True while the topic is small enough for everybody to send to everybody.
    is_full: bool = True
    #: By neighbour, the peers to which it sends its own messages, as it says.
    theirs: dict[bytes, frozenset[bytes]] = field(default_factory=dict)
    announced: frozenset[bytes] = frozenset()
    #: When members were told of `announced`.
    announced_at: float = -math.inf
    #: Peers that must not be grafted, and until when.
    backoff: dict[bytes, float] = field(default_factory=dict)
    #: The number up to which a neighbour was told what is held.
    told: dict[bytes, int] = field(default_factory=dict)
    #: The numbers up to which messages were held at the last heartbeats.
    ends: deque[int] = field(default_factory=lambda: deque(maxlen=SETTLED_BEATS))
    #: The number from which on a neighbour in the mesh has to be told, since messages for it were left out.
    owed: dict[bytes, int] = field(default_factory=dict)
    #: How many neighbours are still to be asked for the past, and since when that is wanted (Unix ms).
    history_left: int = 0
    history_since: int = 0
    validate: Validate | None = None
    open: Open | None = None
    #: Cached targets of a message, by its sender and its author; forgotten when the mesh changes.
    ways: dict[tuple[bytes, bytes], tuple[Neighbour, ...]] = field(default_factory=dict)


class Core:
    """The state that all parts of a router have in common."""

    def __init__(
        self,
        me: bytes,
        limits: GossipLimits,
        weights: ScoreWeights,
        random: Random,
        checks: SignatureChecks,
        clocks: PeerClocks,
    ) -> None:
        self.me = me
        self.limits = limits
        self.random = random
        self.checks = checks
        self.scores = Scores(weights)
        self.neighbours: dict[bytes, Neighbour] = {}
        self.topics: dict[bytes, TopicState] = {}
        self.seen = SeenCache(limits)
        self.held = HeldMessages(limits)
        self.counts: Counter[str] = Counter()
        self.events: list[Event] = []
        #: Neighbours for which there is something new, in that order; and those that haven't taken all there was.
        self.ready: dict[bytes, None] = {}  # ordered, so that runs of a simulation are alike
        self.owing: set[bytes] = set()
        #: Neighbours that have signed a new record, of which others haven't been told yet.
        self.renewed: set[bytes] = set()
        #: True while NEIGHBOURS has to be sent soon to members of a topic.
        self.announces = False
        #: What neighbours have said about the time.
        self.clocks = clocks
        #: Unix time less the clock of `now`, seconds; and what neighbours were told of it.
        self.wall_offset = self._told_offset = 0.0
        #: The record of a neighbour, as it is sent to another.
        self.record_of: Callable[[bytes, bytes], bytes | None] = lambda peer, hearer: None

    def refusal_by_time(self, time_ms: int, now: float) -> str:
        """Return the name of the count under which a message with this time is refused, or "" if it isn't. Nobody is
        blamed: this side's clock may be wrong."""
        wall = now + self.wall_offset
        if time_ms > (wall + self.limits.future) * 1000:
            return "message-future"
        if time_ms < (wall - self.limits.stale) * 1000 or self.seen.is_too_old(time_ms, wall):
            return "message-stale"
        return ""

    def set_wall(self, offset: float) -> None:
        """Set the difference between Unix time and `now`, in seconds. Neighbours are told at the next heartbeat."""
        self.wall_offset = offset
        if not self.neighbours:
            self._told_offset = offset

    def find_refusing_clocks(self, state: TopicState) -> ClockDifference | None:
        """Return how the clocks of a topic's neighbours differ from this one if by what they say all of them refuse
        messages written now. Return None if any of them accepts these, or there are no neighbours."""
        limits = self.limits
        return self.clocks.find_refusal(
            state.members, self.wall_offset, ahead=limits.future, behind=limits.stale
        )

    def send_time(self, neighbour: Neighbour, now: float) -> None:
        """Tell a neighbour the time here, since it refuses messages with another time."""
        if not neighbour.is_bridge:
            self.send_control(neighbour, frames.time(max(0, int((now + self.wall_offset) * 1000))), now)

    def send_new_time(self, now: float) -> None:
        """Tell all neighbours the time here, if the clock was set."""
        if abs(self.wall_offset - self._told_offset) > _SET:
            self._told_offset = self.wall_offset
            for neighbour in self.neighbours.values():
                self.send_time(neighbour, now)

    def receive_time(self, neighbour: Neighbour, body: bytes, now: float) -> None:
        """Process TIME, by which a neighbour tells its time."""
        self.clocks.note_time(neighbour.key, frames.read_time(body) / 1000, now)

    def ensure_topic(self, name: bytes) -> TopicState:
        """Return the state of a topic, new if there was none."""
        state = self.topics.get(name)
        if state is None:
            state = self.topics[name] = TopicState(name, name.decode("utf-8", "backslashreplace"))
        return state

    def has_room_for(self, neighbour: Neighbour, name: bytes) -> bool:
        """True if a neighbour may name one more topic."""
        count = len(neighbour.topics)
        is_full = len(self.topics) >= KNOWN_TOPICS and name not in self.topics
        return count < (LEAST_TOPICS if is_full else self.limits.topics)

    def forget_if_unused(self, state: TopicState) -> None:
        """Forget a topic that nobody here or nearby has."""
        if not state.joined and not state.members:
            self.topics.pop(state.name, None)

    def send_control(self, neighbour: Neighbour, frame: bytes, now: float) -> None:
        """Queue a control frame, which isn't a message. A neighbour without room for it is cut off, since it would
        never get the frame; when it is back it is told everything anew."""
        if not neighbour.outbox.try_put_control(frame, now):
            self.counts["control-lost"] += 1
            if not (neighbour.is_lost or neighbour.is_bridge):
                neighbour.is_lost = True
                self.events.append(CutOff(neighbour.key, "it doesn't read control frames"))
        self.mark_ready(neighbour)

    def send_hint(self, neighbour: Neighbour, frame: bytes, now: float) -> None:
        """Queue a control frame that only saves traffic. It is left out if much waits already: others can make us
        send many of these, which is no reason to cut a neighbour off."""
        if neighbour.outbox.is_busy:
            self.counts["hint-left-out"] += 1
        else:
            self.send_control(neighbour, frame, now)

    def mark_ready(self, neighbour: Neighbour) -> None:
        """Note that there is something to send to a neighbour."""
        self.ready[neighbour.key] = None
        self.owing.add(neighbour.key)

    def send_message(
        self, state: TopicState, neighbour: Neighbour, message_id: bytes, frame: bytes, now: float
    ) -> None:
        """Queue a message, or note that it has to be announced to the neighbour later."""
        if message_id in neighbour.outbox.dont_want:
            self.counts["not-wanted"] += 1
            return
        if neighbour.outbox.try_put_message(message_id, frame, now):
            self.counts["sent"] += 1
            self.mark_ready(neighbour)
            return
        self.counts["left-out"] += 1
        # The message is already held, as the last one.
        state.owed.setdefault(neighbour.key, max(0, self.held.next_number(state.name) - 1))

    def count_offence(self, peer: bytes, what: str, times: float = 1.0) -> None:
        """Count an offence of a neighbour, by the name of its count."""
        self.counts[what] += 1
        self.scores.count_misbehaviour(peer, times)

    def trim_table(self, names: dict[bytes, int] | dict[bytes, float]) -> None:
        """Remove the oldest entries of a table that grows with neighbours."""
        while len(names) > KNOWN_NAMES:
            del names[next(iter(names))]
