"""What a MATCH looks for, in the words of the index: enough to know what of the graph it can be about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Range(NamedTuple):
    """Values that are looked for, both ends included; None means no bound, and both the same is equality."""

    low: Any
    high: Any

    def narrowed_by(self, operator: str, value: Any) -> Range:
        """Return the same with one more condition."""
        low = value if operator in ("=", ">", ">=") and self.low is None else self.low
        high = value if operator in ("=", "<", "<=") and self.high is None else self.high
        return Range(low, high)

    @property
    def is_equality(self) -> bool:
        """Whether it is about one value."""
        return type(self.low) is type(self.high) and bool(self.low == self.high)


@dataclass
class Sought:
    """A node of a pattern. There may be conditions that aren't here: then more is looked at than need be."""

    #: The label that it has to have; "" for any.
    label: str = ""
    #: Where it can only be; None if that isn't known.
    souls: frozenset[str] | None = None
    #: What holds of its properties, and an item of those that are lists.
    ranges: dict[str, Range] = field(default_factory=dict)
    items: dict[str, Any] = field(default_factory=dict)
    #: Whether it was found before, by another pattern of the query.
    bound: bool = False


class Walk(NamedTuple):
    """Links from one node of a pattern (its place) to another: "right" (from left to right), "left", or "both"."""

    left: int
    right: int
    direction: str
    #: Of any key if there is none.
    keys: tuple[str, ...]
    #: Whether there may be several links in a row, or none; and how many, at most.
    variable: bool
    hops: int


@dataclass
class Pattern:
    """Nodes and the links between them."""

    nodes: list[Sought] = field(default_factory=list)
    walks: list[Walk] = field(default_factory=list)

    def steps_from(self, node: int) -> Iterator[tuple[int, Walk, int, tuple[bool, ...]]]:
        """Yield each walk of a node: (its place, walk, the node at its other end, for each way that it goes whether
        that is forwards)."""
        for at, walk in enumerate(self.walks):
            if node == walk.left:
                yield at, walk, walk.right, _WAYS[walk.direction]
            elif node == walk.right:
                yield at, walk, walk.left, tuple(not way for way in _WAYS[walk.direction])


_WAYS = {"right": (True,), "left": (False,), "both": (True, False)}
