"""What queries know of a graph: as many of its nodes as they have asked for, and what changed since.

Nothing is read in advance. A query tells what its patterns can be about; the core finds those nodes by label, value
or link, and they are added to the tables, where later queries find them. What changes afterwards is added as well, so
all that was found once stays whole.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Final, TypeVar

from dtp.crdt import Change, Link, Replica, Value, parts, values
from dtp.graph.query.budget import INSTRUCTIONS, Meter, set_thread_meter
from dtp.graph.query.compiling.scanning import Scan
from dtp.graph.query.errors import QueryError
from dtp.graph.query.lookup.columns import kind_of
from dtp.graph.query.lookup.finding import Finding
from dtp.graph.query.lookup.pattern import Pattern, Sought
from dtp.graph.query.lookup.properties import properties_of, read_relationship
from dtp.graph.query.lookup.scanner import Scanner
from dtp.graph.query.lookup.tables import Tables

_T = TypeVar("_T")
#: Times that what changed meanwhile is looked at beside the loop, before the loop has to wait for it.
_ROUNDS: Final = 5
#: What is wrong with values that can't be looked up, or when SQLite stops.
_FAULTS: Final = (sqlite3.Error, OverflowError, UnicodeEncodeError, values.GraphValueError)


def _here(function: Callable[..., _T], *given: Any) -> _T:
    return function(*given)


class Index:
    """What is known of one replica. All reading of the replica goes through `ask`, and its results are whole."""

    def __init__(
        self,
        replica: Replica,
        revealed: Callable[[], Iterable[str]] = tuple,
        *,
        ask: Callable[..., Any] | None = None,
    ) -> None:
        """`revealed` tells of which souls `replica.reveal` knows more than the replica; `ask` calls a function with
        arguments where the replica may be read, None: that is here. With it, properties are kept here, too."""
        self._replica = replica
        self._meter: Meter | None = None
        #: (kind, key) that ranges were declared for, and full text with the number in its tables' names.
        self._ranges: set[tuple[str, str]] = set()
        self._texts: dict[tuple[str, str], int] = {}
        self._tables = Tables(values_too=ask is not None)
        self._finding = Finding(replica, self._tables, revealed, ask or _here, whole=ask is not None)
        self.scanner = Scanner(replica, self._finding.columns, revealed, ask or _here)
        self._beside = ask is not None
        #: What the query that is compiled will look for, each with its place in the text: what one finds may be where
        #: a later one begins.
        self._expected: list[tuple[int | None, Callable[[], Pattern]]] = []
        #: The properties that were read last.
        self._last: tuple[str, dict[str, Value]] = "", {}
        self.db = self._tables.db

    # ---- declared -------------------------------------------------------------------------------------------

    def declare_index(self, kind: str, key: str, *, full_text: bool) -> str:
        """Have an index of a key of nodes of a kind; its name. See `Graph.index`."""
        if not kind or "\0" in kind + key:
            raise QueryError(
                "an index is for a kind (what is before a soul's first slash) and a key, without NULs"
            )
        if full_text and (kind, key) not in self._texts:
            number = len(self._texts) + 1
            for table, tokens in ((f"words_{number}", "unicode61"), (f"trigrams_{number}", "trigram")):
                self.db.execute(
                    f"CREATE VIRTUAL TABLE {table} USING fts5(soul UNINDEXED, value, tokenize = '{tokens}')"
                )
            self._texts[kind, key] = number
            self._finding.watches_texts = True
            self._finding.added |= self._tables.of_kind(kind)
        elif not full_text and (kind, key) not in self._ranges:
            self._ranges.add((kind, key))
            where = " AND ".join(f"{c} = {_constant(v)}" for c, v in (("kind", kind), ("key", key)))
            self.db.execute(
                f"CREATE INDEX range_{len(self._ranges)} ON properties (kind, key, value) WHERE {where}"
            )
        return f"{kind}.{key}"

    def has_range_index(self, kind: str, key: str) -> bool:
        """Return whether an index of ranges was declared."""
        return (kind, key) in self._ranges

    def text_table(self, kind: str, key: str, *, trigrams: bool = False) -> str | None:
        """Return the table of a full-text index that was declared."""
        number = self._texts.get((kind, key))
        return None if number is None else f"{'trigrams' if trigrams else 'words'}_{number}"

    def search_text(self, name: str, query: str) -> list[tuple[str, float]]:
        """Return (soul, score) of what a full-text index finds for an FTS5 query, best first. Raises `QueryError`."""
        named = {f"{kind}.{key}": (kind, key) for kind, key in self._texts}
        table = self.text_table(*named[name]) if name in named else None
        if table is None:
            known = ", ".join(sorted(named)) or "none"
            raise QueryError(
                f"there is no full-text index {name!r} (there are: {known}); declare it by Graph.index"
            )
        try:
            found = list(
                self.select_rows(
                    f"SELECT soul, -bm25({table}) FROM {table} WHERE {table} MATCH ?1 ORDER BY 2 DESC, soul",
                    [query],
                    Pattern,
                )
            )
        except QueryError as error:
            raise QueryError(f"{query!r} is not a full-text query: {error}") from error
        return found

    # ---- reading --------------------------------------------------------------------------------------------

    def select_rows(
        self, sql: str, parameters: list[Any], about: Callable[[], Pattern]
    ) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a SELECT about a pattern. Raises `QueryError`."""
        try:
            self._load_pattern(about)
            yield from self.db.execute(sql, parameters)
        except _FAULTS as error:
            raise self._translate_error(error) from error

    def scan_rows(self, scan: Scan | None) -> Iterator[tuple[Any, ...]] | None:
        """Return the rows of a SELECT about a pattern, and maybe some more, from the core; None where tables are
        better."""
        if scan is None or self._beside or self._meter is None or scan.nodes > 2:
            return None
        if scan.first is not None or scan.is_known_elsewhere or not self.scanner.may_scan():
            return None
        return self.scanner.scan_rows(scan, self._meter)

    def may_be_first(self, scan: Scan | None) -> frozenset[str] | None:
        """Return the souls of all that a SELECT beside the loop needs of which only the first by a property count,
        and some more; None where that isn't known."""
        if not self._beside or scan is None or scan.order is None or scan.first is not None:
            return None
        return self.scanner.may_be_first(scan, self._finding.ask)

    def _translate_error(self, error: Exception) -> QueryError:
        """Return what an error of SQLite's means."""
        if self._meter is not None and self._meter.limit is not None:
            return self._meter.limit
        return QueryError(f"this can't be worked out: {error}")

    @contextmanager
    def count_with(self, meter: Meter) -> Iterator[None]:
        """Have a meter count what is done meanwhile, and end it."""
        self.db.set_progress_handler(meter.count_instructions, INSTRUCTIONS)
        set_thread_meter(meter)
        self._meter = meter
        self._finding.adding = meter.without_growth
        try:
            yield
        finally:
            self._meter = None
            self._finding.adding = nullcontext
            set_thread_meter(None)
            self.db.set_progress_handler(None, 0)

    def get_link(self, number: int) -> tuple[str, str, str]:
        """Return soul, key and target of a link."""
        try:
            found = self.db.execute("SELECT soul, key, target FROM links WHERE id = ?", (number,)).fetchone()
        except sqlite3.Error as error:
            raise self._translate_error(error) from error
        soul, key, target = found
        return soul, key, target

    def get_property(self, soul: str, key: str) -> Value:
        """Return a property of a node; None if there is none."""
        if not self._beside and not soul.startswith("~"):
            found = self._replica.get(soul, key)
            if found is not None and type(found) is not Link:
                return found
        return self.get_properties(soul).get(key)

    def get_properties(self, soul: str) -> dict[str, Value]:
        """Return all properties of a node."""
        if self._last[0] != soul:
            try:
                known = (
                    self._tables.get_properties(soul) if self._beside else properties_of(self._replica, soul)
                )
            except sqlite3.Error as error:
                raise self._translate_error(error) from error
            self._last = soul, known
        return self._last[1]

    def of_link(self, link: tuple[str, str, str]) -> dict[str, Value]:
        """Return all properties of a relationship (soul, key, target)."""
        part = parts.relationship_soul(*link)
        if not self._beside:
            return read_relationship(self._replica, part)
        try:
            return self._tables.get_properties(part)
        except sqlite3.Error as error:
            raise self._translate_error(error) from error

    # ---- finding ------------------------------------------------------------------------------------------------

    def _load_pattern(self, about: Callable[[], Pattern]) -> None:
        if self._beside or self._finding.has_everything:  # beside the loop it was found beforehand
            return
        if self._meter is None:
            self._finding.load_pattern(about())
        else:
            with self._meter.pause_counting():
                self._finding.load_pattern(about())

    def on_changed(self, changes: Iterable[Change]) -> None:
        """Note that something is different at these souls."""
        self._finding.on_changed(changes)

    def expect_pattern(self, place: int | None, about: Callable[[], Pattern]) -> None:
        """Note that a query will look for a pattern, which is at a place in its text, if that is known."""
        self._expected.append((place, about))

    def searched_pattern(self) -> Pattern:
        """Return all that full-text indexes can find."""
        return Pattern([Sought(kind) for kind, _ in self._texts])

    def refresh(self) -> None:
        """Have what changed as it is now."""
        if self._finding.refresh():
            for number in self._texts.values():
                for table in (f"words_{number}", f"trigrams_{number}"):
                    self.db.execute(f"DELETE FROM {table}")
        for kind, _ in self._texts:
            self._finding.have_kind(kind)
        if self._finding.added:
            stale, self._finding.added = self._finding.added, set()
            self._refresh_texts(stale)

    def begin_query(self) -> None:
        """Begin another query: forget what the one before expected."""
        self._expected.clear()

    def prepare_query(self) -> None:
        """Have what changed as it is now; where the replica goes on meanwhile, also all that is expected, as it is at
        one time: what changes meanwhile is looked at again, until nothing did."""
        self._last = "", {}
        if not self._beside:
            self.refresh()
            return
        placed = sorted((place, at) for at, (place, _) in enumerate(self._expected) if place is not None)
        expected = [self._expected[at][1] for _, at in placed]
        if len(placed) < len(self._expected):
            expected = [lambda: Pattern([Sought()])]
        try:
            for _ in range(_ROUNDS):
                self._load_round(expected)
                if self._finding.ask(self._finding.is_current):
                    return
            self._finding.ask(self._round_there, expected)
        except _FAULTS as error:
            raise self._translate_error(error) from error

    def _load_round(self, expected: Sequence[Callable[[], Pattern]]) -> None:
        self._last = "", {}
        self.refresh()
        self._finding.found.clear()
        for about in expected:
            self._finding.load_pattern(about())

    def _round_there(self, expected: Sequence[Callable[[], Pattern]]) -> None:
        ask, self._finding.ask = self._finding.ask, _here
        try:
            self._load_round(expected)
        finally:
            self._finding.ask = ask

    def _refresh_texts(self, stale: set[str]) -> None:
        """Bring what full-text indexes have of these souls up to now."""
        for (kind, key), number in self._texts.items():
            souls = sorted(soul for soul in stale if kind_of(soul) == kind)
            texts = self._finding.ask(self._read_documents, souls, key)
            with self._tables.transaction():
                self.db.executemany(
                    "INSERT OR IGNORE INTO documents (soul) VALUES (?)", ((soul,) for soul in souls)
                )
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

    def _read_documents(self, souls: Iterable[str], key: str) -> list[tuple[str, str]]:
        """Return (soul, text) of those souls whose property is a text."""
        found = []
        for soul in souls:
            value = properties_of(self._replica, soul).get(key)
            if isinstance(value, str):
                found.append((soul, value))
        return found


def _constant(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
