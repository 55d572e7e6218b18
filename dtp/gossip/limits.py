"""Every limit of gossip, with its reason, and the weights of scores. What exceeds a limit is counted by name."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from dtp.errors import LocalError
from dtp.gossip.frames import MAX_CONTROL, SHORT_NAME
from dtp.gossip.message import ID_SIZE, MAX_TOPIC_BYTES

KIB: Final = 1024
MIB: Final = 1024 * KIB


@dataclass(frozen=True, slots=True)
class GossipLimits:
    """The limits of one node's gossip. Sizes in bytes, times in seconds."""

    #: The longest message, with signature. Larger contents belong in a stream or a blob, whose hash is gossiped.
    message: int = 256 * KIB
    #: Neighbours of a topic up to which everybody sends to everybody in one hop: a mesh of 8 would take two or
    #: three.
    full_mesh: int = 50
    #: ... of which so many count, at most, that are in one network on the internet, or behind one relay: somebody
    #: may be there under many names.
    per_network: int = 8
    #: Seconds between the times that other members of its topics are sent a neighbour's new record, counted from
    #: its arrival: by then it has linked to those that it can reach, and one that signs records without end costs
    #: little.
    introduce: float = 10.0
    #: Neighbours that a message is sent to at once in larger topics, and the bounds of that number.
    degree: int = 8
    degree_low: int = 6
    degree_high: int = 12
    #: Of these, the number kept by score when there are too many, so that newcomers never replace all proven ones.
    degree_score: int = 4
    #: ... and the number that this side has dialled, so that peers which come to us can't choose our whole mesh.
    degree_out: int = 2
    #: Neighbours outside the mesh that are told ids at a heartbeat: at least so many, and this part of them.
    degree_lazy: int = 6
    lazy_part: float = 0.25
    #: Seconds between heartbeats while there are messages. A lost message is repaired after about one heartbeat.
    heartbeat: float = 0.5
    #: ... and while there are none, so that an idle node can sleep.
    idle_heartbeat: float = 10.0
    #: Seconds until a pruned neighbour may be grafted again, after pruning and after leaving a topic.
    backoff: float = 60.0
    leave_backoff: float = 10.0
    #: The longest back-off that a neighbour may ask for.
    most_backoff: float = 3600.0
    #: Messages older than this, or further in the future, are refused. The seen cache has to cover this time.
    stale: float = 120.0
    future: float = 10.0
    #: Messages whose ids are remembered. Beyond that, older messages count as stale. About 150 bytes each.
    seen: int = 131_072
    #: Bytes, and seconds, for which messages are held for those who ask. Late joiners get these messages.
    held: int = 8 * MIB
    held_time: float = 60.0
    #: Messages in answer to one HISTORY (by default as many as can be asked for; they are sent as the neighbour
    #: reads); and seconds between two such requests of a neighbour for a topic.
    history: int = 65_535
    history_pause: float = 5.0
    #: Bytes that wait for a neighbour. Above the first it is busy; at the second messages for it are left out, and
    #: announced to it later, when it has read on.
    queue_soft: int = 256 * KIB
    queue_hard: int = 2 * MIB
    #: Seconds within which a neighbour has to read some of what waits for it, or be cut off.
    unread: float = 30.0
    #: ... and after which others no longer wait for it.
    stalled: float = 2.0
    #: Ids of one IHAVE or IWANT, and IHAVEs of one topic that a neighbour may send in a heartbeat; two would be
    #: enough. Others are ignored and counted.
    ids: int = 5000
    ihaves: int = 10
    #: How often one neighbour may get the same message by IWANT.
    iwants: int = 3
    #: Seconds in which a message promised by IHAVE has to come before it is requested from others.
    promise: float = 3.0
    #: ... and in which the neighbour has to send any promised or new message before it is blamed: links may be
    #: slow, and nodes busy.
    silent: float = 30.0
    #: From this size on others are told not to send a message that has come. For smaller messages telling costs
    #: more.
    dont_want: int = 1024
    #: Ids of messages that one neighbour may ask us not to send, at a time.
    dont_wants: int = 1000
    #: Topics of one neighbour, and of this side.
    topics: int = 1024
    #: Neighbours.
    peers: int = 1024
    #: Messages that wait for programs' validators. Further ones are refused, but can be requested again.
    validating: int = 1024
    #: GRAFTs, and PRUNEs, of one topic that a neighbour may send in a heartbeat. One of each is enough.
    grafts: int = 16
    #: Messages of this side that wait for their signature in one turn; their bytes are bounded by `message`.
    unsigned: int = 64

    def __post_init__(self) -> None:
        if not self.degree_out < self.degree_low <= self.degree <= self.degree_high:
            raise LocalError("limits have to be 'degree_out' < 'degree_low' <= 'degree' <= 'degree_high'")
        if not 0 < self.heartbeat <= self.idle_heartbeat:
            raise LocalError("limit 'heartbeat' has to be above 0, and 'idle_heartbeat' not below it")
        if not 2 * KIB <= self.message < 16 * MIB - KIB or self.queue_hard < 3 * self.message:
            raise LocalError(
                "limit 'message' has to be from 2 KiB to below 16 MiB, and 'queue_hard' at least three times that"
            )
        if self.history > 65_535:
            raise LocalError("limit 'history' can be 65,535 at most: a HISTORY has two bytes for it")
        room = MAX_CONTROL - 1 - MAX_TOPIC_BYTES
        for name, size in (("ids", ID_SIZE), ("full_mesh", SHORT_NAME)):
            if getattr(self, name) > (most := room // size - 1):
                raise LocalError(f"limit {name!r} is {most:,} at most: a frame has no room for more")
        for each in fields(self):
            if getattr(self, each.name) < 0:
                raise LocalError(f"limit {each.name!r} can't be negative")


DEFAULT: Final = GossipLimits()


@dataclass(frozen=True, slots=True)
class ScoreWeights:
    """Weights and bounds of a neighbour's score (GossipSub v1.1, "Peer Scoring"), the same for each topic.

    If a weight is 0 by default, the reason is beside it (docs/decisions/0293).
    """

    #: P1: seconds in the mesh, up to a bound.
    time_in_mesh: float = 0.01
    time_in_mesh_cap: float = 300.0
    #: P2: messages that it was the first to deliver.
    first_delivery: float = 0.5
    first_delivery_cap: float = 100.0
    #: P3: messages that it should have delivered and didn't, as a part of those that came while it was in the mesh,
    #: squared. 0: a neighbour that is further from the author than we are delivers none, and is no worse for it.
    mesh_deficit: float = 0.0
    mesh_deficit_part: float = 0.05
    mesh_deficit_after: float = 30.0
    mesh_deficit_least: float = 20.0
    #: P3b: the value of P3 when it was pruned. 0 for the same reason.
    mesh_failure: float = 0.0
    #: P4: invalid messages, squared: forged, malformed, rejected by a validator.
    invalid: float = -10.0
    #: P5: the score that the program gives to a neighbour.
    application: float = 1.0
    #: P6: neighbours of one public address beyond a number, squared. 0: whole offices share one. The mesh is kept
    #: diverse by how it is chosen instead. Loopback, private and link-local addresses never count.
    shared_address: float = 0.0
    shared_address_free: int = 64
    #: P7: misbehaviour, which is grafts in back-off, floods and broken promises, beyond what happens by accident,
    #: squared.
    behaviour: float = -5.0
    behaviour_free: float = 6.0
    #: The factor by which counters decay in each second.
    decay: float = 0.98
    #: Seconds for which the score of a neighbour that has left is kept, so that leaving doesn't reset it.
    retained: float = 600.0
    #: Below the first, a neighbour is neither told nor asked about ids; below the second, it isn't sent own
    #: messages; below the third, nothing from it is read.
    gossip: float = -10.0
    publish: float = -50.0
    graylist: float = -80.0
    #: From this score on its records of peers are accepted. 0: a newcomer's are.
    accept_records: float = 0.0
    #: If the median of a mesh is below this, better neighbours are grafted.
    opportunistic: float = 1.0


DEFAULT_WEIGHTS: Final = ScoreWeights()
