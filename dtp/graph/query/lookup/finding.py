"""Which nodes of a graph a pattern can be about, and having them in the tables, up to date."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

from dtp.crdt import Change, Link, Replica, Value, parts, values
from dtp.graph.query.lookup.columns import Columns, FoundSouls, kind_of, rows_of
from dtp.graph.query.lookup.pattern import Pattern, Sought, Walk
from dtp.graph.query.lookup.properties import (
    Name,
    add_written,
    assemble_properties,
    names_in,
    read_relationship,
)
from dtp.graph.query.lookup.properties import read_property as read_name
from dtp.graph.query.lookup.tables import SoulRow, Tables

#: What `rows_of` gives of a node.
_Read = tuple[str, dict[str, Any], list[Any], list[Any]]
#: Texts and lists that are read at once.
_TEXTS: Final = 64
#: Nodes that are read at once: a call that reads them takes a few milliseconds.
_BATCH: Final = 4096
#: Adding once costs as much as so many nodes of many: who adds often has everything at last, at twice the cost.
_AN_ADD: Final = 6
#: Changed nodes from which on it is cheaper to begin anew.
_MANY: Final = 50_000
#: Answers that are remembered to be in the tables.
_REMEMBERED: Final = 100_000


class Finding:
    """What of a replica is in the tables. It is read by `ask` alone, which calls a function with arguments."""

    def __init__(
        self,
        replica: Replica,
        tables: Tables,
        revealed: Callable[[], Iterable[str]],
        ask: Callable[..., Any],
        *,
        whole: bool,
    ) -> None:
        """`revealed` tells of which souls `replica.reveal` knows more than the replica; `whole`: nodes that are only
        named are of no use."""
        self._replica = replica
        #: What the core looks up.
        self.columns = Columns(replica)
        self._tables = tables
        self._revealed = revealed
        self.ask = ask
        #: What surrounds each adding of nodes.
        self.adding: Callable[[], AbstractContextManager[None]] = nullcontext
        self._whole = whole
        self._stale: set[str] = set(revealed())
        self._anew = False
        #: What the souls of private nodes say; and texts and lists (space, key) that were written, and not committed.
        self._opened: dict[str, dict[str, Value]] = {}
        self._written: dict[str, list[tuple[int, str]]] = {}
        self._version = -1
        #: Questions of which all that the core found is in the tables.
        self._answered: set[tuple[object, ...]] = set()
        self._everything = False
        #: How often nodes were added.
        self._adds = 0
        #: Texts that aren't committed are looked at, too; and souls that were added since, for whoever looks at them.
        self.watches_texts = False
        self.added: set[str] = set()
        #: All that was found; for patterns that begin with it.
        self.found: set[str] = set()

    # ---- what changes -------------------------------------------------------------------------------------------

    def on_changed(self, changes: Iterable[Change]) -> None:
        """Note that something is different at these souls."""
        souls = {change.soul for change in changes}
        self.columns.on_changed(souls)
        self._stale |= souls
        if len(self._stale) > _MANY:
            self._stale.clear()
            self._anew = True

    def is_current(self) -> bool:
        """Return whether nothing was noted or written since the last `refresh`."""
        unwritten = not self._replica.sequences.has_unsent or self._replica.version == self._version
        return unwritten and not self._stale and not self._anew

    def refresh(self) -> bool:
        """Have what changed as it is now. True if the tables were emptied: it was too much."""
        stale, anew = self.ask(self._take_changed)
        with self._or_anew():
            if anew:
                self._tables.forget_all()
                self._answered.clear()
                self._everything = False
                self._adds = 0
            if stale:
                with self._tables.transaction():
                    self._reload_stale(stale)
        return bool(anew)

    def _reload_stale(self, stale: set[str]) -> None:
        adds, named = self._adds, self._tables.linked_by_name(stale)
        self._tables.forget_souls(stale)
        self._load_nodes(self.ask(self.columns.find_numbers, stale))
        self._add_rows([(soul, {}, [], []) for soul in self._written if not self._tables.is_whole(soul)])
        # those that are linked to no more may have something all the same
        self._ensure_souls(named)
        self._tables.forget_souls([soul for soul in named if not self._tables.is_whole(soul)])
        self._adds = adds
        if self.watches_texts:
            self.added |= stale

    @contextmanager
    def _or_anew(self) -> Iterator[None]:
        """Forget the tables that the block was filling when it ends in the middle: nothing is known of them."""
        try:
            yield
        except BaseException:
            self._anew = True
            raise

    def _take_changed(self) -> tuple[set[str], bool]:
        taken, self._stale = self._stale, set()
        anew, self._anew = self._anew, False
        if anew:
            taken.update(self._revealed())
        self._written, self._version = {}, self._replica.version
        for space, soul, key in self._replica.sequences.edited_names:  # it is not a change before its commit
            self._written.setdefault(soul, []).append((space, key))
        taken.update(self._written)
        for soul in taken:
            opened = self._replica.reveal(soul) if soul.startswith("~") else None
            if opened is not None:
                self._opened[soul] = opened
        return taken, anew

    # ---- adding -------------------------------------------------------------------------------------------------

    def _load_nodes(self, found: FoundSouls, kind: str = "") -> None:
        """Have the nodes that were found, and have a label ("" is any), whole."""
        if not found.numbers:
            return
        self._adds += 1
        if self._adds * _AN_ADD > self.ask(self.columns.estimate_size) + _BATCH and not self._everything:
            self.have_everything()
            return
        with self.adding():
            self._add_batches(found, kind)

    def _add_batches(self, found: FoundSouls, kind: str) -> None:
        empty = self._tables.is_empty  # and nothing is found twice
        shows = self._replica.shows
        for first in range(0, len(found.numbers), _BATCH):
            data = self.ask(self.columns.read_rows, found, first, first + _BATCH)
            self._add_rows(
                [
                    row
                    for row in rows_of(data)
                    if (shows is None or shows(row[0]))
                    and (not kind or kind_of(row[0]) == kind)
                    and (empty or not self._tables.is_whole(row[0]))
                ]
            )

    def _add_rows(self, rows: list[_Read]) -> None:
        for soul, _, _, others in rows:
            if soul in self._written:
                add_written(others, self._written[soul])
        names = [name for soul, _, _, others in rows if others for name in names_in(soul, others)]
        read: dict[Name, Value] = {}
        for first in range(0, len(names), _TEXTS):
            some = names[first : first + _TEXTS]
            read.update(zip(some, self.ask(self._read_names, some), strict=True))
        made = [self._make_row(row, read) for row in rows]
        self._tables.add_nodes(made)
        if self._whole:
            self._add_relationships(made)
        if self.watches_texts:
            self.added.update(soul for soul, _, _, _ in rows)

    def _add_relationships(self, rows: list[SoulRow]) -> None:
        """Have the properties of the links of these."""
        souls = [parts.relationship_soul(soul, *link) for soul, _, links in rows for link in links]
        for first in range(0, len(souls), _BATCH):
            self._tables.add_relationships(self.ask(self._read_relationships, souls[first : first + _BATCH]))

    def _read_relationships(self, souls: list[str]) -> list[tuple[str, dict[str, Value]]]:
        read = ((soul, read_relationship(self._replica, soul)) for soul in souls)
        return [(soul, found) for soul, found in read if found]

    def _read_names(self, names: list[Name]) -> list[Value]:
        return [read_name(self._replica, name) for name in names]

    def _make_row(self, row: _Read, read: dict[Name, Value]) -> SoulRow:
        soul, registers, members, others = row
        if soul in self._opened:
            registers, others = self._opened[soul], []
        links = {(key, link.soul) for key, link in zip(members[::2], members[1::2], strict=True)}
        links.update((key, one.soul) for key, one in registers.items() if type(one) is Link)
        return soul, assemble_properties(soul, registers, others, read.__getitem__), sorted(links)

    def _ensure_souls(self, souls: Iterable[str]) -> None:
        missing = [soul for soul in souls if not self._tables.is_whole(soul)]
        if missing:
            self._load_nodes(self.ask(self.columns.find_numbers, missing))

    def _have_linking(self, souls: Collection[str]) -> None:
        """Have all that links to these."""
        asked = [soul for soul in souls if self._is_new("to", soul)]
        if asked:
            self._load_nodes(self.ask(self.columns.find_linking, asked))

    def _is_new(self, *question: object) -> bool:
        """Return whether a question is asked for the first time; from now on it isn't."""
        if question in self._answered:
            return False
        if len(self._answered) >= _REMEMBERED:
            self._answered.clear()
        self._answered.add(question)
        return True

    def have_kind(self, kind: str) -> None:
        """Have all nodes with a label whole."""
        if not self._everything and self._is_new("kind", kind):
            self._load_nodes(self.ask(self.columns.of_kind, kind), kind)
            self._load_nodes(self.ask(self.columns.find_naming, kind))

    def _have_names(self, kind: str) -> None:
        """Have all nodes with a label, by name."""
        if ("kind", kind) not in self._answered and self._is_new("names", kind):
            with self.adding():
                self._tables.ensure_nodes(self.ask(self.columns.list_souls, kind))
            self._load_nodes(self.ask(self.columns.find_naming, kind))

    @property
    def has_everything(self) -> bool:
        """Whether the whole graph is in the tables."""
        return self._everything

    def have_everything(self) -> None:
        """Have the whole graph."""
        if not self._everything:
            self._everything = True
            self._load_nodes(self.ask(self.columns.of_kind, ""))

    # ---- finding ------------------------------------------------------------------------------------------------

    def load_pattern(self, pattern: Pattern) -> None:
        """Have all that a pattern can be about."""
        with self._or_anew():
            self._load_pattern_now(pattern)

    def _load_pattern_now(self, pattern: Pattern) -> None:
        if self._everything:
            return
        found: dict[int, set[str]] = {}
        for place in sorted(range(len(pattern.nodes)), key=lambda place: _rank(pattern.nodes[place])):
            if place not in found:
                if _rank(pattern.nodes[place]) == _UNKNOWN:
                    self.have_everything()
                    return
                linked = any(place in (walk.left, walk.right) for walk in pattern.walks)
                found[place] = self._load_node(pattern.nodes[place], linked=linked)
                self._load_walks(pattern, place, found)
        if self._whole:
            self.found.update(*found.values())

    def _load_node(self, node: Sought, *, linked: bool) -> set[str]:
        """Have all that a node can be; which that is, if it is linked or all is kept."""
        if node.souls is None and node.bound:
            return set(self.found)
        if node.souls is not None:
            self._ensure_souls(node.souls)
            self._have_linking([soul for soul in node.souls if not self._tables.is_whole(soul)])
            return set(node.souls)
        wanted = linked or self._whole
        if node.items and not any(one.is_equality for one in node.ranges.values()):
            key, item = next(iter(node.items.items()))
            if ("kind", node.label) not in self._answered and self._is_new(
                "containing", node.label, key, values.encode(item)
            ):
                self._load_nodes(self.ask(self.columns.find_containing, key, item), node.label)
            return self._tables.find_containing(node.label, key, item) if wanted else set()
        if node.ranges:
            key, wanted_range = min(node.ranges.items(), key=lambda item: not item[1].is_equality)
            if ("kind", node.label) not in self._answered and self._is_new(
                "having", node.label, key, values.encode(wanted_range)
            ):
                self._load_nodes(self.ask(self.columns.find_having, key, wanted_range), node.label)
            return self._tables.find_having(node.label, key, wanted_range) if wanted else set()
        if wanted:
            self.have_kind(node.label)
            return self._tables.of_kind(node.label)
        self._have_names(node.label)
        return set()

    def _load_walks(self, pattern: Pattern, start: int, found: dict[int, set[str]]) -> None:
        """Have all that can be found by following the walks from a node."""
        walked: set[int] = set()
        waiting = [start]
        while waiting:
            here = waiting.pop()
            for at, walk, other, ways in pattern.steps_from(here):
                if at in walked:
                    continue
                walked.add(at)
                if other in found and not walk.variable:
                    continue
                reached = self._ensure_walk(found[here], walk, ways, pattern.nodes[other].label)
                if other not in found:
                    found[other] = reached
                    waiting.append(other)

    def _ensure_walk(self, souls: set[str], walk: Walk, ways: tuple[bool, ...], label: str) -> set[str]:
        """Have all that is on a walk from these souls; its other ends with a label."""
        reached, frontier, seen = set[str](), souls, set(souls)
        for _ in range(walk.hops):
            if False in ways:
                self._have_linking(frontier)
            near = {
                other
                for soul in frontier
                for way in ways
                for other in self._tables.linked_nodes(soul, walk.keys, forwards=way)
                if walk.variable or not label or kind_of(other) == label
            }
            self._ensure_souls(near)
            reached |= near
            frontier = near - seen
            seen |= near
            if not frontier:
                break
        if walk.variable:  # it may have no link at all
            if self._whole:
                self.found |= reached
            reached = {soul for soul in reached | souls if not label or kind_of(soul) == label}
        return reached


_KNOWN, _EQUAL, _RANGED, _FOUND, _LABELLED, _UNKNOWN = range(6)


def _rank(node: Sought) -> int:
    """Return how much is known of a node: the lower, the fewer there will be."""
    if node.souls is not None:
        return _KNOWN
    if node.items or any(one.is_equality for one in node.ranges.values()):
        return _EQUAL
    if node.ranges:
        return _RANGED
    if node.bound:
        return _FOUND
    return _LABELLED if node.label else _UNKNOWN
