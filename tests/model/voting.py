"""What is made under rules: refused where the model says that it wouldn't count, and made where it would."""

from __future__ import annotations

import msgpack
from crdt_second import PUT, Op
from histories import Step
from replicas import Difference, Replica
from verdicts import Author

from dtp.graph import Graph, GraphBehind, Rule, RuleBroken, Rules, Schema

POLL = Rules(
    "poll",
    [
        Rule(path="votes/*", key="{author}", value=Schema(one_of=("yes", "no")), once="soul"),
        Rule(path="log", rate=(2, 30.0), value=Schema(type="int", min=0)),
        Rule(path="tags", space="set", value=Schema(type="text", size=(1, 8)), removes="own"),
        Rule(path="first/**", once="rule", removes="any"),
        Rule(path="mine", key="{author}"),
        Rule(path="mine"),
    ],
)


def _tries(replica: Replica, step: Step) -> tuple[str, str, str | int | None]:
    """Path, key and value of a register; None deletes it."""
    me = str(replica.identity.id)
    return (
        ("votes/x", me, "yes"),
        ("votes/x", me, "maybe"),
        ("votes/y", "a", "no"),
        ("votes/y", me, None),
        ("votes/y/z", me, "yes"),
        ("log", "abc"[step.c % 3], step.c % 5 - 1),
        ("first/a", "k", step.c % 3),
        ("first/b", "k", None),
        ("mine", me, "x"),
        ("mine", me, None),
        ("mine", "b", "x"),
        ("mine", "b", None),
        ("other", "k", 1),
    )[step.b % 13]


def _would_count(replica: Replica, soul: str, key: str, value: str | int | None) -> bool:
    judge = Author(replica.key, {}, {})
    for frame in replica.seen.chains.get(replica.key, ()):
        for op in frame.ops:
            judge.take(op)
    now = max(int(replica.wall() * 1000) << 16, replica.seen.highest() + 1)
    ships = Op(PUT, POLL.root, "rules", replica.key, now, msgpack.packb(POLL.document))
    data = None if value is None else msgpack.packb(value)
    return judge.take(ships) and judge.take(Op(PUT, soul, key, replica.key, now + 1, data))


async def vote(replica: Replica, step: Step) -> None:
    """Write a register under the rules."""
    path, key, value = _tries(replica, step)
    soul = POLL.soul(path)
    expected = _would_count(replica, soul, key, value)
    try:
        made = _write(replica.graph, soul, key, value)
    except GraphBehind:
        if not replica.behind:
            raise
        return
    except RuleBroken:
        if expected:
            raise Difference(f"rules refuse {path} {key} {value}") from None
        return
    if made and not expected:
        raise Difference(f"rules let {path} {key} {value} in")
    replica.dirty = True


def _write(graph: Graph, soul: str, key: str, value: str | int | None) -> bool:
    graph.access.allow(POLL)
    node = graph.node(soul)
    if value is not None:
        node[key] = value
    elif key in node:
        del node[key]
    else:
        return False
    return True


def tag(replica: Replica, step: Step) -> None:
    """Add to, or remove from, a set under the rules: what is refused isn't there, what is made has to count."""
    graph = replica.graph
    try:
        graph.access.allow(POLL)
        tags = graph.set(POLL.soul("tags"))
        if step.b % 3:
            tags.add("t" * (step.c % 12))
        else:
            for value in list(tags)[:1]:
                tags.discard(value)
    except (GraphBehind, RuleBroken):
        return
    replica.dirty = True
