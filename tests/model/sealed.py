"""Private nodes: what readers read is what was written, by whoever might, and others read nothing."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgpack
from crdt_second import PUT
from edits import KEYS, VALUES, may_write
from histories import Step
from merging import counting
from plain import Signed, read_value
from replicas import Difference, Replica, owned, plainly, same

from dtp.core.errors import NotOwner
from dtp.graph import GraphBehind, NotReader, ReaderUnknown

PATH = "s"


class Whispered(NamedTuple):
    """What was written to a private node: its plain key, and the value in a tuple, None if it was deleted."""

    soul: str
    key: str
    value: tuple[Any, ...] | None


class Ring(NamedTuple):
    """How many keys there are for values, and to whom they are sealed."""

    keys: int
    readers: frozenset[bytes]


def ring_of(replica: Replica, owner: Replica) -> Ring | None:
    """The ring of an owner's private node, as far as a replica knows."""
    found = replica.shown().get((owned(owner, f".rings/{PATH}"), "ring"), {}).get("register")
    if found is None:
        return None
    _, keys, readers, _ = msgpack.unpackb(found[0])
    return Ring(keys, frozenset(readers))


def publish(replica: Replica) -> None:
    """Say which static key is one's own."""
    try:
        replica.graph.access.publish_key()
    except GraphBehind:
        same("behind", True, replica.behind)
        return
    replica.dirty = True


def _may_be_read_by(replica: Replica, other: Replica) -> bool:
    """Whether a replica knows another's static key."""
    return "register" in replica.shown().get((owned(other, "")[:-1], "static"), {})


def seal(replica: Replica, step: Step, everyone: list[Replica]) -> None:
    """Make a private node of one's own, with some readers, or change who reads it. Nothing is uncommitted."""
    other = everyone[step.a % len(everyone)]
    ring, known = ring_of(replica, replica), _may_be_read_by(replica, other)
    is_other = other.key != replica.key
    graph, peer, goes = replica.graph, other.identity.id, step.b % 3 == 0
    allowed = not replica.behind
    try:
        if ring is None:
            allowed = allowed and (known or not is_other)
            graph.private(PATH, readers=[peer] if is_other else [])
        elif is_other and goes and other.key in ring.readers:
            graph.private(PATH).remove_reader(peer)
        elif is_other and not goes:
            allowed = allowed and known
            graph.private(PATH).add_reader(peer)
        else:
            return
    except (ReaderUnknown, GraphBehind) as error:
        if allowed:
            raise Difference(f"{type(error).__name__} though it may be sealed") from None
        return
    if not allowed:
        raise Difference("sealed to whom nothing can be sealed")
    replica.dirty = True


def whisper(replica: Replica, step: Step, everyone: list[Replica]) -> None:
    """Write to somebody's private node. Nothing is uncommitted."""
    owner = everyone[step.a % len(everyone)]
    ring, soul = ring_of(replica, owner), owned(owner, PATH)
    if ring is None:
        return
    key, value = KEYS[step.b % len(KEYS)], VALUES[step.c % len(VALUES)]
    node = replica.graph.private(soul)
    reads, writes = replica.key in ring.readers, may_write(replica, soul) and not replica.behind
    told: Whispered | None = None
    try:
        if step.b % 3:
            node[key] = value
            told = Whispered(soul, key, (plainly(value),))
        elif key in node:
            del node[key]
            told = Whispered(soul, key, None)
    except NotReader:
        same("reads", False, reads)
    except (NotOwner, GraphBehind):
        same("may write", False, writes)
    else:
        if not reads or (told and not writes):
            raise Difference(f"a private node is written by who reads: {reads}, may write: {writes}")
    if told is not None:
        replica.whispered.append(told)
        replica.dirty = True


class Secrets:
    """What was whispered in which op: nobody else could tell."""

    def __init__(self) -> None:
        self.told: dict[tuple[bytes, bytes], Whispered] = {}

    def learn(self, replica: Replica, frames: list[Signed]) -> None:
        """Match what a replica wrote to private nodes with what it signed since."""
        souls = {whispered.soul for whispered in replica.whispered}
        ops = [(frame, op) for frame in frames for op in frame.ops if op.soul in souls and op.kind == PUT]
        for frame, op in ops:
            whispered = replica.whispered.pop(0)
            same("sealed at", whispered.soul, op.soul)
            same("deleted", whispered.value is None, op.value is None)
            self.told[frame.hash, op.clock.to_bytes(8, "big")] = whispered

    def check(self, replica: Replica, everyone: list[Replica]) -> None:
        """Whoever reads, reads what was written; who doesn't is told so."""
        for owner in everyone:
            ring, soul = ring_of(replica, owner), owned(owner, PATH)
            if ring is None:
                continue
            node = replica.graph.private(soul)
            try:
                read = {key: plainly(value) for key, value in node.items()}
            except NotReader:
                same("reader", False, replica.key in ring.readers)
                continue
            same(f"{replica.number} reads {soul}", self.expected(replica, soul, ring), sorted(read.items()))

    def expected(self, replica: Replica, soul: str, ring: Ring) -> list[tuple[str, Any]]:
        frames = {
            (frame.author, op.clock): frame.hash
            for chain in replica.seen.applied().values()
            for frame in chain
            for op in frame.ops
        }
        ops = [op for op in counting(replica.seen.applied()) if op.soul == soul and op.kind == PUT]
        latest = {op.key: op for op in sorted(ops, key=lambda op: (op.clock, op.author))}
        found = []
        for op in latest.values():
            value = read_value(op.value)
            told = self.told[frames[op.author, op.clock], op.clock.to_bytes(8, "big")]
            if told.value is not None and int.from_bytes(value[1:5], "big") <= ring.keys:
                found.append((told.key, told.value[0]))
        return sorted(found, key=lambda pair: pair[0])
