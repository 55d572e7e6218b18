"""Every limit of gossip, with its reason; and the weights of scores. Past a limit something is counted by name."""

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
    """Limits of one node's gossip. Sizes in bytes, times in seconds."""

    #: The longest message, with signature. What is larger belongs into a stream or a blob, whose hash is gossiped.
    message: int = 256 * KIB
    #: Neighbours of a topic up to which everybody sends to everybody in one hop: a mesh of 8 would take two or three.
    full_mesh: int = 50
    #: ... of which at most so many count that are in one network on the internet, or behind one relay: somebody may
    #: be there under many names.
    per_network: int = 8
    #: Seconds from when a neighbour came, or from one record of it that other members of its topics were told of, to
    #: the next one: by then it has linked to those that it can reach, and one that signs without end costs little.
    introduce: float = 10.0
    #: Neighbours that a message is sent to at once in larger topics, and bounds between which that may vary.
    degree: int = 8
    degree_low: int = 6
    degree_high: int = 12
    #: Of these kept by score when there are too many, so that newcomers never push out all that proved themselves.
    degree_score: int = 4
    #: ... and that this side dialled: who chooses to come to us doesn't choose our whole mesh.
    degree_out: int = 2
    #: Neighbours outside the mesh that are told ids at a heartbeat, at least, and the part of them.
    degree_lazy: int = 6
    lazy_part: float = 0.25
    #: Seconds between heartbeats while messages pass; a lost one is repaired after about one.
    heartbeat: float = 0.5
    #: ... and while none do: an idle node shall sleep.
    idle_heartbeat: float = 10.0
    #: Seconds until one that was pruned may be grafted again, and after leaving a topic.
    backoff: float = 60.0
    leave_backoff: float = 10.0
    #: The longest back-off that a neighbour may ask for.
    most_backoff: float = 3600.0
    #: Messages older than this, or further in the future, aren't taken: the seen cache has to cover them.
    stale: float = 120.0
    future: float = 10.0
    #: Messages that are remembered to be known; past it older ones are taken for stale. About 150 bytes each.
    seen: int = 131_072
    #: Messages held for those who ask: bytes in all, and seconds. Late joiners get what is among them.
    held: int = 8 * MIB
    held_time: float = 60.0
    #: Messages that one HISTORY is answered with (by default all that can be asked for; they go as the neighbour
    #: reads), and how often a neighbour may ask for the past of a topic.
    history: int = 65_535
    history_pause: float = 5.0
    #: Bytes that wait for a neighbour: above the first it is busy, at the second messages for it are left out and
    #: told of later, when it has read on.
    queue_soft: int = 256 * KIB
    queue_hard: int = 2 * MIB
    #: Seconds in which a neighbour that has something to read has to read any of it; then it is cut off.
    unread: float = 30.0
    #: ... and after which nobody waits for it any more.
    stalled: float = 2.0
    #: Ids of one IHAVE or IWANT, and IHAVEs of one topic that a neighbour may send in a heartbeat; two would
    #: do. Above: ignored and counted.
    ids: int = 5000
    ihaves: int = 10
    #: How often one neighbour gets one message by IWANT.
    iwants: int = 3
    #: Seconds in which what was promised by IHAVE has to come, before it is asked of others.
    promise: float = 3.0
    #: ... and in which whoever promises has to give any of it, or what is new, or is blamed: links may be slow, or
    #: nodes busy.
    silent: float = 30.0
    #: From this size on others are told not to send a message that has come: below, telling costs more.
    dont_want: int = 1024
    #: Ids that one neighbour may have us not send, at a time.
    dont_wants: int = 1000
    #: Topics of one neighbour, and of this side.
    topics: int = 1024
    #: Neighbours.
    peers: int = 1024
    #: Messages that wait for validators of programs; what comes beyond isn't taken, but can be asked for again.
    validating: int = 1024
    #: GRAFTs, and PRUNEs, of one topic that a neighbour may send in a heartbeat, where one of each is enough.
    grafts: int = 16
    #: Messages written by this side that wait for their signature, in one turn; and at most `message` bytes of them.
    unsigned: int = 64

    def __post_init__(self) -> None:
        if not self.degree_out < self.degree_low <= self.degree <= self.degree_high:
            raise LocalError("limits 'degree_out' < 'degree_low' <= 'degree' <= 'degree_high' don't hold")
        if not 0 < self.heartbeat <= self.idle_heartbeat:
            raise LocalError("limit 'heartbeat' is above 0, and 'idle_heartbeat' not below it")
        if not 2 * KIB <= self.message < 16 * MIB - KIB or self.queue_hard < 3 * self.message:
            raise LocalError(
                "limit 'message' is from 2 KiB to below 16 MiB, and 'queue_hard' three times that at least"
            )
        if self.history > 65_535:
            raise LocalError("limit 'history' is 65,535 at most: a HISTORY has two bytes for it")
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

    Where a weight is 0 by default, the reason is beside it (docs/decisions/0293).
    """

    #: P1: seconds in the mesh, up to a bound.
    time_in_mesh: float = 0.01
    time_in_mesh_cap: float = 300.0
    #: P2: messages that it brought first.
    first_delivery: float = 0.5
    first_delivery_cap: float = 100.0
    #: P3: messages that it should have brought and didn't, as a part of those that came while it was in the mesh; the
    #: square counts. 0: who is further from the author than we are brings none, and is no worse for that.
    mesh_deficit: float = 0.0
    mesh_deficit_part: float = 0.05
    mesh_deficit_after: float = 30.0
    mesh_deficit_least: float = 20.0
    #: P3b: what P3 was when it was pruned. 0 as P3.
    mesh_failure: float = 0.0
    #: P4: invalid messages, squared: forged, malformed, rejected by a validator.
    invalid: float = -10.0
    #: P5: what the program says of a neighbour.
    application: float = 1.0
    #: P6: neighbours of one public address beyond a number, squared. 0: whole offices share one. Diversity of the
    #: mesh is kept by choice instead. Loopback, private and link-local addresses never count.
    shared_address: float = 0.0
    shared_address_free: int = 64
    #: P7: misbehaviour: grafts in back-off, floods, broken promises; beyond what happens by accident, squared.
    behaviour: float = -5.0
    behaviour_free: float = 6.0
    #: What counters keep of themselves in each second.
    decay: float = 0.98
    #: Seconds for which the score of one that went is kept, so that leaving doesn't wash it.
    retained: float = 600.0
    #: Below these: it isn't told ids or asked for them; it doesn't get own messages; nothing of it is read.
    gossip: float = -10.0
    publish: float = -50.0
    graylist: float = -80.0
    #: From here on records that it sends are believed to be of peers that exist. 0: a newcomer's are.
    accept_records: float = 0.0
    #: Mesh whose median is below: better ones are grafted.
    opportunistic: float = 1.0


DEFAULT_WEIGHTS: Final = ScoreWeights()
