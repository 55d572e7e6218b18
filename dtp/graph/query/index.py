"""The tables that queries run over: nodes, properties and links of a graph, in SQLite in memory.

Made at the first query, and brought up to date before each: what changed since is known from the graph's changes.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Any, Final

from dtp.core import crdt as core
from dtp.crdt import BlobRef, Change, Link, Replica, Value, values

_SCHEMA: Final = """
CREATE TABLE nodes (soul TEXT PRIMARY KEY, kind TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX nodes_by_kind ON nodes (kind);
CREATE TABLE properties (
    soul TEXT NOT NULL, key TEXT NOT NULL, value, type TEXT NOT NULL, PRIMARY KEY (soul, key)
) WITHOUT ROWID;
CREATE INDEX properties_by_value ON properties (key, value);
CREATE TABLE links (id INTEGER PRIMARY KEY, soul TEXT NOT NULL, key TEXT NOT NULL, target TEXT NOT NULL);
CREATE INDEX links_from ON links (soul, key);
CREATE INDEX links_to ON links (target, key);
"""
_INT64: Final = 1 << 63


def column(value: Value) -> tuple[Any, str]:
    """A value as SQLite has it, and what it is: plain, `bool`, `int` (beyond 64 bits: text), `json`, or `blob`."""
    if isinstance(value, bool):
        return int(value), "bool"
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        return str(value), "int"
    if isinstance(value, list | dict):
        return json.dumps(value, default=_other, ensure_ascii=False), "json"
    if isinstance(value, BlobRef):
        return f"{value.id.hex()} {value.size}", "blob"
    return value, "plain"


def _other(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else str(value)


def restored(value: Any, kind: str | None) -> Value:
    """The value of a `column`."""
    if kind == "bool":
        return bool(value)
    if kind == "int":
        return int(value)
    if kind == "blob":
        key, size = value.split()
        return BlobRef(bytes.fromhex(key), int(size))
    return json.loads(value) if kind == "json" else value


def kind_of(soul: str) -> str:
    """A node's label: what is before the first slash, "" without one."""
    return soul.partition("/")[0] if "/" in soul else ""


class Index:
    """The tables of one replica."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._stale: set[str] = set(replica.souls())
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        self.db.executescript(_SCHEMA)

    def note(self, changes: Iterable[Change]) -> None:
        """Something is different at these souls."""
        self._stale.update(change.soul for change in changes)

    def refresh(self) -> None:
        """Write anew what is different."""
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
        properties: list[tuple[str, str, Any, str]] = []
        links: list[tuple[str, str, str]] = []
        for soul in sorted(stale):
            self._read(soul, properties, links)
            nodes.append((soul, kind_of(soul)))
        # a node is there when it has something, or is linked to
        nodes += [(target, kind_of(target)) for _, _, target in links]
        self.db.executemany("INSERT OR IGNORE INTO nodes VALUES (?, ?)", nodes)
        self.db.executemany("INSERT INTO properties VALUES (?, ?, ?, ?)", properties)
        self.db.executemany("INSERT INTO links (soul, key, target) VALUES (?, ?, ?)", links)
        self.db.executemany(
            "DELETE FROM nodes WHERE soul = ?1 AND NOT EXISTS (SELECT 1 FROM links WHERE target = ?1)",
            ((soul,) for soul in stale | before if not self._has(soul)),
        )
        self.db.execute("COMMIT")

    def _has(self, soul: str) -> bool:
        handle, name = self._replica.core, values.name(soul)
        spaces = (core.REGISTER, core.COUNTER, core.SET, core.VALUES, core.LIST, core.TEXT)
        return any(values.decode(handle.keys(space, name)) for space in spaces)

    def _read(
        self, soul: str, properties: list[tuple[str, str, Any, str]], links: list[tuple[str, str, str]]
    ) -> None:
        handle, name = self._replica.core, values.name(soul)
        for key, value in values.decode(handle.keys(core.REGISTER, name)).items():
            if isinstance(value, Link):
                links.append((soul, key, value.soul))
            else:
                properties.append((soul, key, *column(value)))
        for key in values.decode(handle.keys(core.SET, name)):
            elements = {value for _, _, value in values.decode(handle.read(core.SET, name, values.name(key)))
                        if isinstance(value, Link)}  # fmt: skip
            links += [(soul, key, value.soul) for value in sorted(elements)]
