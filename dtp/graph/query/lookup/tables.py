"""The tables that queries run over: nodes, properties and links of a graph, in SQLite in memory.

What they say of a property is what it can be looked up by; its value is read from the graph, or, for queries beside
the event loop, from the table of what they are, encoded.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from dtp.crdt import Value, parts, values
from dtp.crdt.temporal import PYTHON, TEMPORAL, Temporal, as_temporal, name_of
from dtp.graph.query.lookup.columns import kind_of
from dtp.graph.query.lookup.pattern import Range
from dtp.graph.query.values.temporal_parts import sort_parts

_SCHEMA: Final = """
CREATE TABLE nodes (soul TEXT PRIMARY KEY, kind TEXT NOT NULL, whole INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX nodes_by_kind ON nodes (kind);
CREATE TABLE properties (
    soul TEXT NOT NULL, key TEXT NOT NULL, kind TEXT NOT NULL, value, PRIMARY KEY (soul, key)
) WITHOUT ROWID;
CREATE INDEX properties_by_value ON properties (key, value);
CREATE TABLE items (soul TEXT NOT NULL, key TEXT NOT NULL, value, PRIMARY KEY (soul, key, value)) WITHOUT ROWID;
CREATE INDEX items_by_value ON items (key, value);
CREATE TABLE links (id INTEGER PRIMARY KEY, soul TEXT NOT NULL, key TEXT NOT NULL, target TEXT NOT NULL);
CREATE INDEX links_from ON links (soul, key);
CREATE INDEX links_to ON links (target, key);
CREATE TABLE documents (id INTEGER PRIMARY KEY, soul TEXT NOT NULL UNIQUE);
CREATE TABLE encoded (soul TEXT PRIMARY KEY, properties BLOB NOT NULL) WITHOUT ROWID;
"""
_INT64: Final = 1 << 63

#: Letters of a text, and bytes, that it is looked up by.
_PREFIX: Final = 1024
#: Numbers of dates, times and durations have fewer bytes, with a sign.
_WIDTH: Final = 16
_MIDDLE: Final = 1 << 8 * _WIDTH - 1

#: A soul, its properties, and (key, target) of its links, each once.
SoulRow = tuple[str, dict[str, Value], list[tuple[str, str]]]


def is_scalar(value: Any) -> bool:
    """Return whether it can be looked up: text, a number, a bool, bytes, a date, a time, a duration."""
    if isinstance(value, (str, bytes, bool, int, *TEMPORAL, *PYTHON)):
        return True
    return isinstance(value, float) and not math.isnan(value)


def to_column(value: Any) -> Any:
    """Return a value as the tables have it, None for what can't be looked up.

    Equal ones are equal, and order is kept among numbers and among texts; some that differ are equal: ints beyond 64
    bits are floats, and of texts and bytes there is the beginning.
    """
    if isinstance(value, str | bytes):
        return value[:_PREFIX]
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if isinstance(value, (*TEMPORAL, *PYTHON)):
        return _temporal(as_temporal(value))
    return value if is_scalar(value) else None


def _temporal(value: Temporal) -> bytes:
    """Return bytes in the order of values of one kind: see `sort_parts`. Moments that are the same are the same."""
    first: int = sort_parts(value)[0]
    return name_of(value).encode() + (first + _MIDDLE).to_bytes(_WIDTH, "big")


class Tables:
    """Some of a graph's nodes: those that are `whole` with all of their properties and links, others by name only."""

    def __init__(self, *, values_too: bool) -> None:
        """`values_too`: whether the values of properties are kept, too."""
        self.db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self.db.executescript(_SCHEMA)
        self._values_too = values_too
        #: Whether no node is whole.
        self.is_empty = True

    def forget_all(self) -> None:
        """Forget all nodes."""
        for table in ("nodes", "properties", "items", "links", "encoded"):
            self.db.execute(f"DELETE FROM {table}")
        self.is_empty = True

    # ---- writing --------------------------------------------------------------------------------------------

    def add_nodes(self, rows: Collection[SoulRow]) -> None:
        """Have these nodes whole, of which there is nothing but maybe the name."""
        nodes: list[tuple[str, str, int]] = []
        properties: list[tuple[str, str, str, Any]] = []
        items: list[tuple[str, str, Any]] = []
        links: list[tuple[str, str, str]] = []
        for soul, found, leading in rows:
            kind = kind_of(soul)
            for key, value in found.items():
                properties.append((soul, key, kind, to_column(value)))
                if type(value) is list:
                    items += [(soul, key, to_column(one)) for one in value if is_scalar(one)]
            links += [(soul, key, target) for key, target in leading]
            nodes.append((soul, kind, 1))
        self.is_empty = self.is_empty and not rows
        run = self.db.executemany
        with self.transaction():
            run("INSERT INTO nodes VALUES (?, ?, ?) ON CONFLICT (soul) DO UPDATE SET whole = 1", nodes)
            run("INSERT INTO properties VALUES (?, ?, ?, ?)", properties)
            run("INSERT OR IGNORE INTO items VALUES (?, ?, ?)", items)
            run("INSERT INTO links (soul, key, target) VALUES (?, ?, ?)", links)
            # a node is there when it has something, or is linked to
            self.ensure_nodes(target for _, _, target in links)
            if self._values_too:
                kept = ((soul, values.encode(found)) for soul, found, _ in rows)
                run("INSERT INTO encoded VALUES (?, ?)", kept)

    def add_relationships(self, found: Iterable[tuple[str, dict[str, Value]]]) -> None:
        """Have properties of relationships, each at its soul: see `parts.relationship`."""
        kept = ((part, values.encode(properties)) for part, properties in found)
        with self.transaction():
            self.db.executemany("INSERT OR REPLACE INTO encoded VALUES (?, ?)", kept)

    def ensure_nodes(self, souls: Iterable[str]) -> None:
        """Have nodes by name, unless they are there."""
        named = ((soul, kind_of(soul)) for soul in souls)
        with self.transaction():
            self.db.executemany("INSERT OR IGNORE INTO nodes VALUES (?, ?, 0)", named)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Have what is written meanwhile be one transaction, or part of the one that there is."""
        if self.db.in_transaction:
            yield
            return
        self.db.execute("BEGIN")
        try:
            yield
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def forget_souls(self, souls: Collection[str]) -> None:
        """Forget what is at these souls; as nodes they stay as long as they are linked to."""
        for table in ("properties", "items", "links", "encoded"):
            self.db.executemany(f"DELETE FROM {table} WHERE soul = ?", ((soul,) for soul in souls))
        if self._values_too:
            of_links = (parts.relationships_of(soul) for soul in souls)
            self.db.executemany("DELETE FROM encoded WHERE soul >= ? AND soul < ?", of_links)
        self.db.executemany(
            "DELETE FROM nodes WHERE soul = ?1 AND NOT EXISTS (SELECT 1 FROM links WHERE target = ?1)",
            ((soul,) for soul in souls),
        )
        self.db.executemany("UPDATE nodes SET whole = 0 WHERE soul = ?", ((soul,) for soul in souls))

    # ---- reading --------------------------------------------------------------------------------------------

    def is_whole(self, soul: str) -> bool:
        """Return whether all of a node is here."""
        found = self.db.execute("SELECT whole FROM nodes WHERE soul = ?", (soul,)).fetchone()
        return found is not None and bool(found[0])

    def linked_by_name(self, souls: Iterable[str]) -> set[str]:
        """Return what these link to and is here by name only."""
        return {
            target
            for soul in souls
            for (target,) in self.db.execute(
                "SELECT target FROM links JOIN nodes ON nodes.soul = target WHERE links.soul = ? AND NOT whole",
                (soul,),
            )
        }

    def linked_nodes(self, soul: str, keys: tuple[str, ...], *, forwards: bool) -> Iterator[str]:
        """Yield what a node links to, or is linked from, by any of some keys (all if there are none)."""
        at, to = ("soul", "target") if forwards else ("target", "soul")
        only = f" AND key IN ({', '.join('?' * len(keys))})" if keys else ""
        for (other,) in self.db.execute(f"SELECT {to} FROM links WHERE {at} = ?{only}", (soul, *keys)):
            yield other

    def of_kind(self, kind: str) -> set[str]:
        """Return the nodes with a label."""
        return {soul for (soul,) in self.db.execute("SELECT soul FROM nodes WHERE kind = ?", (kind,))}

    def find_having(self, kind: str, key: str, wanted: Range) -> set[str]:
        """Return the nodes with a label ("" is any) whose property may be in a range."""
        said, given = ["key = ?"], [key]
        for column, value in (
            ("kind = ?", kind or None),
            ("value >= ?", wanted.low),
            ("value <= ?", wanted.high),
        ):
            if value is not None:
                said.append(column)
                given.append(to_column(value))
        sql = f"SELECT soul FROM properties WHERE {' AND '.join(said)}"
        return {soul for (soul,) in self.db.execute(sql, given)}

    def find_containing(self, kind: str, key: str, item: Value) -> set[str]:
        """Return the nodes with a label ("" is any) whose property may be a list with an item."""
        found = self.db.execute("SELECT soul FROM items WHERE key = ? AND value = ?", (key, to_column(item)))
        return {soul for (soul,) in found if not kind or kind_of(soul) == kind}

    def get_properties(self, soul: str) -> dict[str, Value]:
        """Return the properties of a node, or of a relationship by its soul, where they are kept."""
        found = self.db.execute("SELECT properties FROM encoded WHERE soul = ?", (soul,)).fetchone()
        return values.decode(found[0]) if found else {}
