"""The tables that queries run over: nodes, properties and links of a graph, in SQLite in memory.

Made at the first query, and brought up to date before each, in one transaction: what changed since is known from the
graph's changes. What the tables say of a property is what it can be looked up by; its value is read from the graph.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from dtp.core import crdt as core
from dtp.crdt import Change, Link, Replica, Value, values
from dtp.crdt.rules import MARK
from dtp.graph.query.budget import INSTRUCTIONS, Meter, running
from dtp.graph.query.errors import QueryError

_SCHEMA: Final = """
CREATE TABLE nodes (soul TEXT PRIMARY KEY, kind TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX nodes_by_kind ON nodes (kind);
CREATE TABLE properties (
    soul TEXT NOT NULL, key TEXT NOT NULL, kind TEXT NOT NULL, value, PRIMARY KEY (soul, key)
) WITHOUT ROWID;
CREATE INDEX properties_by_value ON properties (key, value);
CREATE TABLE links (id INTEGER PRIMARY KEY, soul TEXT NOT NULL, key TEXT NOT NULL, target TEXT NOT NULL);
CREATE INDEX links_from ON links (soul, key);
CREATE INDEX links_to ON links (target, key);
CREATE TABLE documents (id INTEGER PRIMARY KEY, soul TEXT NOT NULL UNIQUE);
"""
_INT64: Final = 1 << 63


def is_scalar(value: Any) -> bool:
    """Whether it can be looked up: text, a number, a bool, bytes."""
    return isinstance(value, str | bytes | bool | int) or (isinstance(value, float) and not math.isnan(value))


def scalar(value: Any) -> Any:
    """A value as the tables have it, None for what can't be looked up.

    Equal ones are equal, and order is kept among numbers and among texts; some that differ are equal: ints beyond 64
    bits are floats.
    """
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    return value if is_scalar(value) else None


def kind_of(soul: str) -> str:
    """A node's label: what is before the first slash, "" without one; under rules the kind, without the hash."""
    kind = soul.partition("/")[0] if "/" in soul else ""
    return kind[1:].partition(":")[0] if kind.startswith(MARK) else kind


class Index:
    """The tables of one replica."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._meter: Meter | None = None
        self._stale: set[str] = set(replica.souls())
        #: (kind, key) that ranges were declared for, and full text with the number in its tables' names.
        self._ranges: set[tuple[str, str]] = set()
        self._texts: dict[tuple[str, str], int] = {}
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        self.db.executescript(_SCHEMA)

    # ---- declared -------------------------------------------------------------------------------------------

    def declare(self, kind: str, key: str, *, full_text: bool) -> str:
        """Have an index of a key of nodes of a kind; its name. See `Graph.index`."""
        if not kind or "\0" in kind + key:
            raise QueryError(
                "an index is for a kind (what is before a soul's first slash) and a key, without NULs"
            )
        if full_text and (kind, key) not in self._texts:
            number = self._texts[kind, key] = len(self._texts) + 1
            for table, tokens in ((f"words_{number}", "unicode61"), (f"trigrams_{number}", "trigram")):
                self.db.execute(
                    f"CREATE VIRTUAL TABLE {table} USING fts5(soul UNINDEXED, value, tokenize = '{tokens}')"
                )
            self._stale.update(soul for soul in self._replica.souls() if kind_of(soul) == kind)
            self._stale.update(self._replica.souls(f"{MARK}{kind}:"))
        elif not full_text and (kind, key) not in self._ranges:
            self._ranges.add((kind, key))
            where = " AND ".join(f"{c} = {_constant(v)}" for c, v in (("kind", kind), ("key", key)))
            self.db.execute(
                f"CREATE INDEX range_{len(self._ranges)} ON properties (kind, key, value) WHERE {where}"
            )
        return f"{kind}.{key}"

    def has(self, kind: str, key: str) -> bool:
        """Whether an index of ranges was declared."""
        return (kind, key) in self._ranges

    def text_table(self, kind: str, key: str, *, trigrams: bool = False) -> str | None:
        """The table of a full-text index that was declared."""
        number = self._texts.get((kind, key))
        return None if number is None else f"{'trigrams' if trigrams else 'words'}_{number}"

    def search(self, name: str, query: str) -> list[tuple[str, float]]:
        """(soul, score) of what a full-text index finds for a query of FTS5's, the best first. `QueryError`."""
        named = {f"{kind}.{key}": (kind, key) for kind, key in self._texts}
        table = self.text_table(*named[name]) if name in named else None
        if table is None:
            known = ", ".join(sorted(named)) or "none"
            raise QueryError(
                f"there is no full-text index {name!r} (there are: {known}); declare it by Graph.index"
            )
        try:
            found = list(
                self.rows(
                    f"SELECT soul, -bm25({table}) FROM {table} WHERE {table} MATCH ?1 ORDER BY 2 DESC, soul",
                    [query],
                )
            )
        except QueryError as error:
            raise QueryError(f"{query!r} is no full-text query: {error}") from error
        return found

    # ---- reading --------------------------------------------------------------------------------------------

    def rows(self, sql: str, parameters: list[Any]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a SELECT. Raises `QueryError`."""
        try:
            yield from self.db.execute(sql, parameters)
        except (sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
            if self._meter is not None and self._meter.limit is not None:
                raise self._meter.limit from error
            raise QueryError(f"this can't be worked out: {error}") from error

    @contextmanager
    def metered(self, meter: Meter) -> Iterator[None]:
        """Have a meter count what is done meanwhile, and end it."""
        self.db.set_progress_handler(meter.interrupt, INSTRUCTIONS)
        running(meter)
        self._meter = meter
        try:
            yield
        finally:
            self._meter = None
            running(None)
            self.db.set_progress_handler(None, 0)

    def link(self, number: int) -> tuple[str, str, str]:
        """Soul, key and target of a link."""
        ((soul, key, target),) = self.db.execute(
            "SELECT soul, key, target FROM links WHERE id = ?", (number,)
        )
        return soul, key, target

    # ---- bringing up to date --------------------------------------------------------------------------------

    def note(self, changes: Iterable[Change]) -> None:
        """Something is different at these souls."""
        self._stale.update(change.soul for change in changes)

    def refresh(self) -> None:
        """Write anew what is different."""
        if self._texts:  # what was written into a text is no change before its commit
            self._stale.update(soul for soul, _ in self._replica.texts.touched)
        if not self._stale:
            return
        stale, self._stale = self._stale, set()
        self.db.execute("BEGIN")
        before = {
            target
            for soul in stale
            for (target,) in self.db.execute("SELECT DISTINCT target FROM links WHERE soul = ?", (soul,))
        }
        for table in ("nodes", "properties", "links"):
            self.db.executemany(f"DELETE FROM {table} WHERE soul = ?", ((soul,) for soul in stale))
        nodes: list[tuple[str, str]] = []
        properties: list[tuple[str, str, str, Any]] = []
        links: list[tuple[str, str, str]] = []
        for soul in sorted(stale):
            kind = kind_of(soul)
            registers = self._registers(soul)
            properties += [
                (soul, key, kind, scalar(value))
                for key, value in registers.items()
                if not isinstance(value, Link)
            ]
            links += self._links(soul, registers)
            nodes.append((soul, kind))
        # a node is there when it has something, or is linked to
        nodes += [(target, kind_of(target)) for _, _, target in links]
        self.db.executemany("INSERT OR IGNORE INTO nodes VALUES (?, ?)", nodes)
        self.db.executemany("INSERT INTO properties VALUES (?, ?, ?, ?)", properties)
        self.db.executemany("INSERT INTO links (soul, key, target) VALUES (?, ?, ?)", links)
        self.db.executemany(
            "DELETE FROM nodes WHERE soul = ?1 AND NOT EXISTS (SELECT 1 FROM links WHERE target = ?1)",
            ((soul,) for soul in stale | before if not self._has(soul)),
        )
        self._refresh_texts(stale)
        self.db.execute("COMMIT")

    def _refresh_texts(self, stale: set[str]) -> None:
        """What full-text indexes have of these souls."""
        for (kind, key), number in self._texts.items():
            souls = sorted(soul for soul in stale if kind_of(soul) == kind)
            self.db.executemany(
                "INSERT OR IGNORE INTO documents (soul) VALUES (?)", ((soul,) for soul in souls)
            )
            texts = list(self._documents(souls, key))
            for table in (f"words_{number}", f"trigrams_{number}"):
                self.db.executemany(
                    f"DELETE FROM {table} WHERE rowid = (SELECT id FROM documents WHERE soul = ?)",
                    ((soul,) for soul in souls),
                )
                self.db.executemany(
                    f"INSERT INTO {table} (rowid, soul, value) "
                    "VALUES ((SELECT id FROM documents WHERE soul = ?1), ?1, ?2)",
                    texts,
                )

    def _documents(self, souls: Iterable[str], key: str) -> Iterator[tuple[str, str]]:
        """(soul, text): a register's text, or a shared text's."""
        for soul in souls:
            value: Value = self._replica.get(soul, key)
            if isinstance(value, str):
                yield soul, value
            elif key in values.decode(self._replica.core.keys(core.TEXT, values.name(soul))):
                yield soul, str(self._replica.text(soul, key))

    def _has(self, soul: str) -> bool:
        handle, name = self._replica.core, values.name(soul)
        spaces = (core.REGISTER, core.COUNTER, core.SET, core.VALUES, core.LIST, core.TEXT)
        return any(values.decode(handle.keys(space, name)) for space in spaces)

    def _registers(self, soul: str) -> dict[str, Value]:
        opened = self._replica.reveal(soul)
        if opened is not None:
            return opened
        return values.decode(self._replica.core.keys(core.REGISTER, values.name(soul)))  # type: ignore[no-any-return]

    def _links(self, soul: str, registers: dict[str, Value]) -> list[tuple[str, str, str]]:
        handle, name = self._replica.core, values.name(soul)
        found = {(soul, key, value.soul) for key, value in registers.items() if isinstance(value, Link)}
        for key in values.decode(handle.keys(core.SET, name)):
            for _, _, value in values.decode(handle.read(core.SET, name, values.name(key))):
                if isinstance(value, Link):
                    found.add((soul, key, value.soul))
        return sorted(found)


def _constant(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
