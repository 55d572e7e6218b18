"""One replica of a history: the graph of the package beside what the model knows that it has seen."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agreeing import Waiting
from merging import Shown, counting, show
from plain import Linked, Signed, covered, name_of, read_envelope

from dtp.crdt import Clock, Link
from dtp.graph import Graph, Part
from dtp.identity import Identity

START = 1_700_000_000
DRIFT = 60_000  # milliseconds


class Difference(AssertionError):
    """The package does something else than the documents say."""


def same(what: str, ours: object, theirs: object) -> None:
    """Raise `Difference` unless the model and the package say the same, to the type."""
    if repr(ours) != repr(theirs):
        raise Difference(f"{what}:\n  model   {ours!r}\n  package {theirs!r}")


def plainly(value: Any) -> Any:
    """A value of the package as the model has it."""
    if isinstance(value, Link):
        return Linked(value.soul)
    if isinstance(value, list):
        return [plainly(item) for item in value]
    if isinstance(value, dict):
        return {key: plainly(item) for key, item in value.items()}
    return value


@dataclass
class Seen:
    """What a replica has of each author: a chain, and how much of it has come due."""

    chains: dict[bytes, list[Signed]] = field(default_factory=dict)
    due: dict[bytes, int] = field(default_factory=dict)
    #: Authors that are banned: what is here of them is as though it wasn't.
    hidden: set[bytes] = field(default_factory=set)

    def copy(self) -> Seen:
        chains = {author: list(chain) for author, chain in self.chains.items()}
        return Seen(chains, dict(self.due), set(self.hidden))

    def visible(self) -> dict[bytes, list[Signed]]:
        """The chains that count, and are told to others."""
        return {author: chain for author, chain in self.chains.items() if chain and author not in self.hidden}

    def length(self, author: bytes) -> int:
        return len(self.chains.get(author, ()))

    def applied(self) -> dict[bytes, list[Signed]]:
        return {author: chain[: self.due.get(author, 0)] for author, chain in self.visible().items()}

    def ripen(self, limit: int, own: bytes) -> None:
        """Let in what isn't above a clock, each author's in its order, and all that is its own."""
        for author, chain in self.chains.items():
            due = len(chain) if author == own else self.due.get(author, 0)
            while due < len(chain) and chain[due].last <= limit:
                due += 1
            self.due[author] = due

    def highest(self) -> int:
        """The highest clock that was let in."""
        return max((chain[-1].last for chain in self.applied().values() if chain), default=0)

    def takes(self, author: bytes, other: list[Signed]) -> bool:
        """Take another replica's chain of an author as far as it goes on from here; False if it contradicts."""
        mine = self.chains.setdefault(author, [])
        short = min(len(mine), len(other))
        if short and mine[short - 1].hash != other[short - 1].hash:
            return False
        mine.extend(other[len(mine) :])
        return True


@dataclass
class Replica:
    """A graph, where it is kept, its clock, and what it has seen."""

    number: int
    identity: Identity
    kind: str
    place: str
    name: str
    graph: Graph
    #: Seconds that have passed for everybody.
    passed: Callable[[], float]
    #: A soul of the account whose devices replicas are.
    household: str = ""
    has_part: bool = False
    #: What came and isn't taken, where sums need agreement.
    waiting: Waiting | None = None
    #: Of others' frames (author, sequence) those that are here as a whole, where only a part was asked for.
    kept: set[tuple[bytes, int]] = field(default_factory=set)
    seen: Seen = field(default_factory=Seen)
    skew: float = 0.0
    behind: bool = False
    #: How many of its own frames any copy of it has ever stored.
    signed: int = 0
    #: Whether something was made that isn't in a frame yet.
    dirty: bool = False
    backup: tuple[bytes, Seen] | None = None
    #: What was written to private nodes and isn't in a frame yet, the earliest first.
    whispered: list[Any] = field(default_factory=list)

    @property
    def key(self) -> bytes:
        return self.identity.id.key

    @property
    def limit(self) -> int:
        """The highest clock that isn't in the future for it."""
        return (int(self.wall() * 1000) + DRIFT) << 16

    def wall(self) -> float:
        return START + self.passed() + self.skew

    def now(self) -> int:
        """The clock of what is made now."""
        return max(int(self.wall() * 1000) << 16, self.seen.highest() + 1)

    async def open(self) -> None:
        """Open the graph again."""
        self.graph = await open_graph(self)
        self.whispered.clear()
        if self.waiting is not None:
            self.waiting = Waiting(self.waiting.agreement)

    def shown(self) -> Shown:
        return show(counting(self.seen.applied()))

    async def absorb(self) -> list[Signed]:
        """Take into the model what the replica has signed itself since."""
        own = self.seen.chains.setdefault(self.key, [])
        last = self.graph.frames.vector().get(self.key, 0)
        fresh = []
        for data in await self.graph.frames.read(self.key, len(own) + 1, last):
            frame = read_envelope(data, self.name)
            if frame is None:
                raise Difference("an own frame is stored as a summary at once")
            self.check_link(frame, own[-1] if own else None)
            own.append(frame)
            fresh.append(frame)
        self.seen.due[self.key] = len(own)
        self.signed = max(self.signed, len(own))
        return fresh

    def reopened(self) -> None:
        """What of others' was let in by a clock that was set back since may wait again; nothing of its own does."""
        for author, chain in self.seen.chains.items():
            shown = len(chain) - self.graph.waiting_frames(author)
            if author != self.key and shown < self.seen.due.get(author, 0):
                self.seen.due[author] = shown
        self.ripen()

    def gives(self, other: Replica) -> dict[bytes, list[Signed]]:
        """What another one takes of it: of a part what is whole behind what the other has of each chain."""
        if not self.has_part or other.has_part:
            return self.seen.visible()
        visible = self.seen.visible().items()
        return {author: chain[: self.whole(author, other.seen.length(author))] for author, chain in visible}

    def whole(self, author: bytes, behind: int) -> int:
        """Up to which frame of an author all behind this one are here as a whole."""
        length = self.seen.length(author)
        if not self.has_part or author == self.key:
            return length
        return next((at for at in range(behind, length) if (author, at + 1) not in self.kept), length)

    async def keep(self) -> None:
        """Note which frames came as a whole: what has anything of the part, a frame or a summary of several."""
        if not self.has_part:
            return
        for author, chain in self.seen.chains.items():
            of_part = {frame.sequence for frame in chain if any(in_part(op.soul) for op in frame.ops)}
            for data in await self.graph.frames.read(author, 1, len(chain)):
                first, last = covered(data)
                if not last:  # it was skipped
                    continue
                whole = range(first, last + 1)
                if author != self.key and of_part.isdisjoint(whole):
                    raise Difference(f"frames {first} to {last} came, and have nothing of the part")
                self.kept |= {(author, sequence) for sequence in whole}

    def ripen(self) -> None:
        """Let in what is due by its clock."""
        self.seen.ripen(self.limit, self.key)

    def check_link(self, frame: Signed, before: Signed | None) -> None:
        """A frame goes on from the one before, and its clocks are above all that was seen."""
        same("sequence", before.sequence + 1 if before else 1, frame.sequence)
        same("previous", before.hash if before else bytes(32), frame.previous)
        same("before", before.last if before else 0, frame.before)
        clocks = [op.clock for op in frame.ops]
        if any(b <= a for a, b in zip([frame.before, *clocks], clocks, strict=False)):
            raise Difference("an author's clocks don't rise")

    def check(self) -> None:
        """The package shows what the model does, and has what it has."""
        self.ripen()
        told = {author: len(chain) for author, chain in self.seen.visible().items()}
        same("vector", sorted(told.items()), sorted(self.graph.frames.vector().items()))
        marks = {author: chain[-1].hash[:16] for author, chain in self.seen.visible().items()}
        same(
            "heads", sorted(marks.items()), sorted((a, h.mark) for a, h in self.graph.frames.heads().items())
        )
        ours = contents(self.shown())
        if self.has_part:
            ours = {soul: told for soul, told in ours.items() if in_part(soul)}
        same("souls", sorted(ours), self.graph.souls(internal=True, parts_too=True))
        for soul in ours:
            if not soul.startswith(("%access/", "d/")) and not self.graph.is_private(soul):
                same(f"{self.number} shows {soul}", ours.get(soul, {}), tell(self.graph.everything(soul)))


#: What a replica with a part asks for: one node, and all that is somebody's own.
PART = Part(souls=["n/1"], prefixes=["~"])


def in_part(soul: str) -> bool:
    """Whether a soul is in that part: it is named, or the graph's book-keeping."""
    return soul == "n/1" or soul.startswith(("~", "%"))


def contents(shown: Shown) -> dict[str, dict[str, dict[str, Any]]]:
    """What the model shows, by soul, as `tell` has what the package shows."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for (soul, key), kinds in sorted(shown.items()):
        told = {
            kind: value[0] if kind == "register" else _ordered(kind, value)
            for kind, value in sorted(kinds.items())
            if value
        }
        if told:
            found.setdefault(soul, {})[key] = told
    return found


def tell(everything: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What the package shows at a soul: kinds and keys in order, without what is empty."""
    found: dict[str, dict[str, Any]] = {}
    for key, kinds in sorted(everything.items()):
        told = {
            kind: _ordered(kind, plainly(value))
            for kind, value in sorted(kinds.items())
            if kind == "register" or value
        }
        if told:
            found[key] = told
    return found


def _ordered(kind: str, value: Any) -> Any:
    return sorted(value, key=repr) if kind == "set" else value


async def open_graph(replica: Replica) -> Graph:
    """Open a replica's graph with its clock."""
    clock = Clock(wall=replica.wall)
    # whenever it has grown; who is asked for agreement then signs something by itself
    prune = replica.number == 1 and not replica.has_part and replica.waiting is None
    part = PART if replica.has_part else None
    return await Graph.open(
        replica.place, identity=replica.identity, name=replica.name, clock=clock, prune=prune, part=part
    )


def image(place: str) -> dict[str, bytes]:
    """All files of a SQLite store as they are."""
    return {end: Path(place + end).read_bytes() for end in ("", "-wal") if os.path.exists(place + end)}


def put_image(place: str, files: Mapping[str, bytes]) -> None:
    """Put a store's files back, in place: it goes on as the same file."""
    for end in ("-wal", "-shm"):
        Path(place + end).unlink(missing_ok=True)
    for end, data in files.items():
        with open(place + end, "r+b" if os.path.exists(place + end) else "wb") as file:
            file.write(data)
            file.truncate()


def lose(place: str, author: bytes, number: int) -> int:
    """Take some of what an author signed last out of a store, and the kept state; how many of its frames are left."""
    of = "author = (SELECT id FROM authors WHERE key = ?)"
    with closing(sqlite3.connect(place, isolation_level=None)) as file:
        stored = file.execute(
            f"SELECT sequence FROM frames WHERE {of} ORDER BY sequence", (author,)
        ).fetchall()
        left: int = [0, *(last for (last,) in stored)][number % len(stored)]
        file.execute(f"DELETE FROM frames WHERE {of} AND sequence > ?", (author, left))
        file.execute("DELETE FROM state")
    return left


def owned(replica: Replica, path: str) -> str:
    """The soul of a replica's own at a path."""
    return f"~{name_of(replica.key)}/{path}"
