"""What was: every op that the stored frames hold about a node, and the node as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dtp.core.crdt import VOID
from dtp.crdt import Kind, Op, Value, clock, values
from dtp.crdt.access import Access
from dtp.crdt.ops import ops_of
from dtp.crdt.replica import may_write
from dtp.crdt.rules import MARK
from dtp.graph import envelope as envelopes

if TYPE_CHECKING:
    from dtp.graph.graph import Graph

#: Envelopes that are read from the store at once.
_READ = 256


class Version(NamedTuple):
    """One op about a node, and, of a register, what was there before."""

    op: Op
    #: The how-manieth frame of its author it was in, or the last one that a summary stands for.
    sequence: int
    #: A register's value before; None when there was none (see `had_value`).
    before: Value
    had_value: bool

    @property
    def when(self) -> float:
        """Seconds since 1970, by its author's clock."""
        return clock.seconds(self.op.clock)


async def history(graph: Graph, soul: str, key: str | None) -> list[Version]:
    """See `Graph.history`."""
    found: list[tuple[Op, int]] = []
    for author, last in sorted(graph.vector().items()):
        ruled = soul.startswith(MARK) or not may_write(author, soul)
        known = Access(graph.name, graph.replica.access.again().cuts)
        for first in range(1, last + 1, _READ):
            for data in await graph.read(author, first, min(last, first + _READ - 1)):
                envelope = envelopes.decode(graph.name, data)
                if not envelope.body:
                    continue  # a summary of what doesn't count any more
                ops = ops_of(graph.replica.core, author, envelope.body)
                if ruled:  # what is void there depends on what its author made before
                    ruling = known.rule(author, ops)
                    ruling.stands()
                    ops = [op for op, one in zip(ops, ruling.verdicts, strict=True) if one != VOID]
                found += [(op, envelope.sequence) for op in ops if op.soul == soul and key in (None, op.key)]
    found.sort(key=lambda pair: (pair[0].clock, pair[0].author))
    versions = []
    standing: dict[str, Op] = {}
    for op, sequence in found:
        before = standing.get(op.key) if op.kind is Kind.REGISTER_PUT else None
        versions.append(
            Version(op, sequence, before.value if before else None, before is not None and before.has_value)
        )
        if op.kind is Kind.REGISTER_PUT:
            standing[op.key] = op
    return versions


async def as_of(graph: Graph, soul: str, seconds: float) -> dict[str, Value]:
    """See `Graph.as_of`."""
    limit = clock.at(seconds, 0xFFFF)
    standing: dict[str, Op] = {}
    for version in await history(graph, soul, None):
        if version.op.kind is Kind.REGISTER_PUT and version.op.clock <= limit:
            standing[version.op.key] = version.op
    return {key: op.value for key, op in standing.items() if op.has_value}


class Difference(NamedTuple):
    """A register that was another at two times. A value is None also where there was none: see `had_` and `has_`."""

    before: Value
    after: Value
    had_value: bool
    has_value: bool


async def diff(graph: Graph, soul: str, first: float, second: float) -> dict[str, Difference]:
    """See `Graph.diff`."""
    then, later = await as_of(graph, soul, first), await as_of(graph, soul, second)
    return {
        key: Difference(then.get(key), later.get(key), key in then, key in later)
        for key in sorted(then.keys() | later.keys())
        if key not in then or key not in later or values.encode(then[key]) != values.encode(later[key])
    }


async def restore(graph: Graph, soul: str, seconds: float) -> None:
    """See `Graph.restore`."""
    then = await as_of(graph, soul, seconds)
    now = graph.replica.node(soul).to_dict()
    rows: list[tuple[str, str, Value] | tuple[str, str]] = [(soul, key) for key in now if key not in then]
    rows += [(soul, key, value) for key, value in then.items() if key not in now or now[key] != value]
    graph.replica.put_many(rows)
