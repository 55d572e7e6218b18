"""How much of whom a graph takes: limits and counts as values, no IO. docs/keeping-graphs.md, "Quotas"."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, Final

from dtp.core.varint import read_varint
from dtp.graph.errors import GraphError
from dtp.graph.frames.envelope import Envelope, Summary

#: Where the number of ops is in a frame: behind its flags and the clock before it.
_OPS_AT: Final = 9
#: Bytes of an envelope beside its body.
_AROUND: Final = 144
#: Authors of whom it is remembered what was refused; of others only how much in all.
MAX_NAMED: Final = 256


@dataclass(frozen=True)
class Quotas:
    """How much is taken of each author, None for no limit. What is beyond is refused, counted and named.

    A stranger is an author whom neither the program nor its identity knows (`Admission.know`). The defaults keep a
    disk and memory from being filled, and 20,000 made-up authors from being taken at once; none is near what a person
    writes.
    """

    #: Of an author who is known: bytes of envelopes, ops, frames.
    author_bytes: int | None = None
    author_ops: int | None = None
    author_frames: int | None = None
    #: Bytes of memory that the whole graph may take with what is taken of those who are known, counted as
    #: `strangers_memory` is: a device that somebody has taken over, or a peer that was dialled, is known as well.
    #: What is stored is loaded whatever this says, however much memory it takes.
    authors_memory: int | None = 4 << 30
    #: Of each stranger.
    stranger_bytes: int | None = 256 << 20
    stranger_ops: int | None = 10_000_000
    stranger_frames: int | None = 1_000_000
    #: Of all strangers together.
    strangers_bytes: int | None = 4 << 30
    #: Bytes of memory that the whole graph may take with what is taken of strangers, where what isn't merged yet
    #: counts as the most that it may take: in 56 bytes of an envelope there may be a text, which takes 7 KB.
    strangers_memory: int | None = 1 << 30
    #: Strangers of whom nothing was here before, in so many seconds.
    new_strangers: int | None = 4096
    new_strangers_seconds: float = 3600.0

    def __post_init__(self) -> None:
        for each in fields(self):
            limit = getattr(self, each.name)
            is_number = type(limit) is int or (each.name == "new_strangers_seconds" and type(limit) is float)
            if limit is not None and not (is_number and limit >= 0):
                raise GraphError(f"{each.name} is a number from 0 on, or None, not {limit!r}")

    @cached_property
    def limits_of_known(self) -> StoredUsage:
        """The limits of one author who is known."""
        return _limits(self.author_bytes, self.author_ops, self.author_frames)

    @cached_property
    def limits_of_stranger(self) -> StoredUsage:
        """The limits of one author who isn't."""
        return _limits(self.stranger_bytes, self.stranger_ops, self.stranger_frames)

    def to_map(self) -> dict[str, Any]:
        """Return a dict of its fields."""
        return asdict(self)


_UNLIMITED: Final = 1 << 63


@dataclass
class StoredUsage:
    """What an author's envelopes take."""

    bytes: int = 0
    ops: int = 0
    frames: int = 0

    def add_usage(self, other: StoredUsage) -> None:
        """Add `other` to this."""
        self.bytes += other.bytes
        self.ops += other.ops
        self.frames += other.frames

    def exceeded_limit(self, more: StoredUsage, limits: StoredUsage) -> str:
        """Return which of the limits is passed with this more, in words; "" if none is."""
        if self.bytes + more.bytes > limits.bytes:
            return f"more than {limits.bytes} bytes"
        if self.ops + more.ops > limits.ops:
            return f"more than {limits.ops} ops"
        if self.frames + more.frames > limits.frames:
            return f"more than {limits.frames} frames"
        return ""


def _limits(*most: int | None) -> StoredUsage:
    return StoredUsage(*(_UNLIMITED if each is None else each for each in most))


def usage_of(envelope: Envelope | Summary) -> StoredUsage:
    """Return what an envelope takes; its bytes to within some 20."""
    size = len(envelope.body) + _AROUND
    return StoredUsage(size, ops_in(envelope.body), envelope.sequence - envelope.first_sequence + 1)


def ops_in(body: bytes) -> int:
    """Return the number of ops that a frame says it has, 0 for none and for what is not a frame."""
    try:
        return read_varint(body, _OPS_AT)[0]
    except (ValueError, IndexError):
        return 0


@dataclass
class Refused:
    """What was not taken: of whom, why, how much."""

    #: Why -> (envelopes, bytes), of all.
    reasons: dict[str, tuple[int, int]] = field(default_factory=dict)
    #: Author -> (why, envelopes), of the first 256.
    authors: dict[bytes, tuple[str, int]] = field(default_factory=dict)

    @property
    def envelopes(self) -> int:
        """How many, of all."""
        return sum(count for count, _ in self.reasons.values())

    def count_refused(self, author: bytes, reason: str, size: int) -> bool:
        """Count an envelope; return whether it is the first for this reason."""
        count, total = self.reasons.get(reason, (0, 0))
        self.reasons[reason] = count + 1, total + size
        named = self.authors.get(author)
        if named is not None or len(self.authors) < MAX_NAMED:
            self.authors[author] = reason, (named[1] if named else 0) + 1
        return not count

    def forget_author(self, author: bytes) -> None:
        """Forget what was refused of an author by name; it still counts."""
        self.authors.pop(author, None)

    def save(self) -> list[Any]:
        """Return it as lists, for `load`."""
        reasons = [[why, *counts] for why, counts in sorted(self.reasons.items())]
        return [reasons, [[author, *told] for author, told in sorted(self.authors.items())]]

    @classmethod
    def load(cls, saved: list[Any]) -> Refused:
        """Return what `save` gave."""
        reasons, authors = saved
        return cls(
            {why: (count, size) for why, count, size in reasons},
            {author: (why, count) for author, why, count in authors},
        )


class Arrivals:
    """When strangers came of whom nothing was here before."""

    def __init__(self) -> None:
        self._came: deque[float] = deque()

    def has_room(self, quotas: Quotas, now: float) -> bool:
        """True if one more may come now (seconds)."""
        while self._came and not now - quotas.new_strangers_seconds < self._came[0] <= now:
            self._came.popleft()
        return quotas.new_strangers is None or len(self._came) < quotas.new_strangers

    def note_arrival(self, now: float) -> None:
        """Note that one has come."""
        self._came.append(now)


def read_quotas(saved: Mapping[str, Any]) -> Quotas:
    """Return what `Quotas.to_map` gave. Raises `GraphError`, `TypeError`."""
    return Quotas(**saved)
