"""Frames in PostgreSQL: many programs share a graph, each as an identity of its own. Extra `graph-postgres`.

Who writes holds the graph's lock until its transaction is over, so frames arrive in one order and none is overlooked.
A session's lock on (graph, identity) keeps two programs from writing as one identity; it goes with the session.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from dtp.graph.errors import GraphError, GraphReadOnly, StoreAway, StoreError
from dtp.graph.frames.envelope import SKIPPED, Signed
from dtp.graph.frames.proving import Proof
from dtp.graph.stores.store import Loaded, Store, fit_sequences

try:
    import psycopg

    from dtp.postgresql import Guard, KeptConnection, describe_fault, what_mends, while_it_answers
except ImportError as error:
    raise GraphError(
        "a graph in PostgreSQL takes a package: pip install 'dtp-sockets[graph-postgres]'"
    ) from error

#: Of the tables below.
#: 3: lists are edited as texts are.
FORMAT: Final = 3
_CHANNEL: Final = "dtp_graph"
#: Two programs that make the tables at once would collide in the catalogue: one at a time.
_TABLES_LOCK: Final = 7238
#: What a program that grows a part may not see beside it: others would go on with what they had read of it.
_SKIPPED_OWN: Final = (
    "frames of this identity were skipped here by another program, which has a part of the graph: open it in a store "
    "of its own"
)
_ALONE: Final = "a part grows only while no other program has the graph in PostgreSQL open to write"

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS dtp_graphs (
    id serial PRIMARY KEY, name text NOT NULL UNIQUE, format integer NOT NULL
);
CREATE TABLE IF NOT EXISTS dtp_graph_frames (
    graph integer NOT NULL REFERENCES dtp_graphs (id), arrival bigint NOT NULL,
    author bytea NOT NULL, sequence bigint NOT NULL, envelope bytea NOT NULL,
    PRIMARY KEY (graph, arrival), UNIQUE (graph, author, sequence)
);
CREATE TABLE IF NOT EXISTS dtp_graph_states (
    graph integer NOT NULL REFERENCES dtp_graphs (id), writer bytea NOT NULL,
    arrival bigint NOT NULL, digest bytea NOT NULL, state bytea NOT NULL,
    PRIMARY KEY (graph, writer)
);
CREATE TABLE IF NOT EXISTS dtp_graph_proofs (
    graph integer NOT NULL REFERENCES dtp_graphs (id), author bytea NOT NULL,
    first bytea NOT NULL, second bytea NOT NULL,
    PRIMARY KEY (graph, author)
);
CREATE TABLE IF NOT EXISTS dtp_graph_policies (
    graph integer PRIMARY KEY REFERENCES dtp_graphs (id), data bytea NOT NULL
);
CREATE TABLE IF NOT EXISTS dtp_graph_parts (
    graph integer PRIMARY KEY REFERENCES dtp_graphs (id), data bytea NOT NULL
);
"""


def _lock_number(*parts: bytes) -> int:
    """Return a number of 64 bits for an advisory lock."""
    digest = hashlib.blake2b(b"\0".join(parts), digest_size=8, person=b"dtp.graph.lock").digest()
    return int.from_bytes(digest, "big", signed=True)


class PostgresStore(Store):
    """The store at `url` for the graph of this name, for a program that writes as `writer` (a public key).

    A connection that broke is made again by the next call. Raises `StoreError`, also when another program writes as
    `writer`, and `StoreAway` while the server doesn't answer (`guard` finds out). Blobs are not kept in it.
    """

    def __init__(self, url: str, name: str, writer: bytes, *, guard: Guard = while_it_answers) -> None:
        self.name = name
        self._writer = writer
        self._graph = 0
        self._schema = b""
        #: All frames that arrived up to here were loaded, added here, or are in `_news`.
        self._arrival = 0
        self._news: list[bytes] = []
        self._url, self._connection = url, KeptConnection(url, guard, self._begin_store)
        try:
            with self._use_connection("opened"):
                pass
        except StoreError as error:
            if (mended := what_mends(error.__cause__, url, connected=self._connection.was_made)) is not None:
                raise StoreError(f"{error}; {mended}") from error
            raise

    # ---- the connection -------------------------------------------------------------------------------------

    @contextmanager
    def _use_connection(self, what: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        try:
            with self._connection.use() as database:
                yield database
        except psycopg.Error as error:
            kind = StoreAway if isinstance(error, psycopg.OperationalError) else StoreError
            words = describe_fault(error, self._url)
            raise kind(f"the graph in PostgreSQL could not be {what}: {words}") from error

    def _begin_store(self, database: psycopg.Connection[tuple[Any, ...]]) -> None:
        with database.transaction():
            database.execute("SELECT pg_advisory_xact_lock(%s)", (_TABLES_LOCK,))
            database.execute(_SCHEMA)
            database.execute(
                "INSERT INTO dtp_graphs (name, format) VALUES (%s, %s) ON CONFLICT DO NOTHING",
                (self.name, FORMAT),
            )
            database.execute(
                "UPDATE dtp_graphs SET format = %s WHERE name = %s AND format = 2", (FORMAT, self.name)
            )
            row = database.execute(
                "SELECT id, format, current_schema()::text FROM dtp_graphs WHERE name = %s", (self.name,)
            ).fetchone()
        assert row is not None
        if row[1] != FORMAT:
            raise StoreError(f"the graph {self.name!r} in PostgreSQL is not of format {FORMAT}")
        self._graph, self._schema = row[0], row[2].encode()
        lock = self._lock_key(b"writer", self._writer)
        held = database.execute("SELECT pg_try_advisory_lock(%s)", (lock,)).fetchone()
        if held != (True,):
            raise StoreError(
                "another program writes to this graph as this identity; give each one of its own"
            )
        database.execute("SELECT pg_advisory_lock_shared(%s)", (self._lock_key(b"writers"),))

    @contextmanager
    def _open_transaction(self, *, synced: bool) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """Give one that nobody else has for this graph at the same time."""
        with self._use_connection("written") as database, database.transaction():
            if not synced:
                database.execute("SET LOCAL synchronous_commit = off")
            database.execute("SELECT pg_advisory_xact_lock(%s)", (self._lock_key(b"graph"),))
            yield database

    def _lock_key(self, what: bytes, *of: bytes) -> int:
        """Return the number of an advisory lock; the schema is in it, as all of a database share those numbers."""
        return _lock_number(what, self._schema, self.name.encode(), *of)

    # ---- frames ---------------------------------------------------------------------------------------------

    def load_saved(self) -> Loaded:
        with self._open_transaction(synced=False) as database:
            row = database.execute(
                "SELECT arrival, digest, state FROM dtp_graph_states WHERE graph = %s AND writer = %s",
                (self._graph, self._writer),
            ).fetchone()
            if row is not None and hashlib.blake2b(row[2], digest_size=32).digest() != row[1]:
                row = None  # damaged: the frames give it again
            arrival, state = (row[0], row[2]) if row is not None else (0, None)
            later, last = self._read_after(database, arrival)
        self._arrival = last
        return Loaded(state, iter(later))

    def _read_after(
        self, database: psycopg.Connection[tuple[Any, ...]], arrival: int
    ) -> tuple[list[bytes], int]:
        """Return what arrived after that, and the number of the last of it: up to there all is known once the
        transaction has ended well."""
        rows = database.execute(
            "SELECT arrival, envelope FROM dtp_graph_frames WHERE graph = %s AND arrival > %s ORDER BY arrival",
            (self._graph, arrival),
        ).fetchall()
        return [envelope for _, envelope in rows], rows[-1][0] if rows else arrival

    def last_sequences(self) -> dict[bytes, int]:
        with self._use_connection("read") as database:
            return dict(
                database.execute(
                    "SELECT author, MAX(sequence) FROM dtp_graph_frames WHERE graph = %s GROUP BY author",
                    (self._graph,),
                ).fetchall()
            )

    def newest_envelopes(self) -> Iterator[bytes]:
        with self._use_connection("read") as database:
            rows = database.execute(
                "SELECT DISTINCT ON (author) envelope FROM dtp_graph_frames WHERE graph = %s "
                "ORDER BY author, sequence DESC",
                (self._graph,),
            ).fetchall()
        return (envelope for (envelope,) in rows)

    def add_frames(self, envelopes: Iterable[Signed], *, synced: bool) -> None:
        with self._open_transaction(synced=synced) as database:
            others, arrival = self._read_after(database, self._arrival)
            added = 0
            for one in envelopes:
                done = database.execute(
                    "INSERT INTO dtp_graph_frames VALUES (%s, %s, %s, %s, %s) "
                    "ON CONFLICT (graph, author, sequence) DO NOTHING",
                    (self._graph, arrival + 1, one.author, one.sequence, one.encode()),
                )
                arrival, added = arrival + done.rowcount, added + done.rowcount
            if added:
                database.execute("SELECT pg_notify(%s, %s)", (_CHANNEL, str(self._graph)))
        self._arrival = arrival
        self._news += others

    def read_frames(self, author: bytes, first: int, last: int) -> list[bytes]:
        with self._use_connection("read") as database:
            rows = database.execute(
                "SELECT envelope FROM dtp_graph_frames "
                "WHERE graph = %s AND author = %s AND sequence BETWEEN %s AND %s ORDER BY sequence",
                (self._graph, author, first, min(last, (1 << 63) - 1)),
            ).fetchall()
            return [envelope for (envelope,) in rows]

    def find_covering(self, author: bytes, sequence: int) -> bytes | None:
        with self._use_connection("read") as database:
            row = database.execute(
                "SELECT envelope FROM dtp_graph_frames "
                "WHERE graph = %s AND author = %s AND sequence >= %s ORDER BY sequence LIMIT 1",
                (self._graph, author, sequence),
            ).fetchone()
            return None if row is None else row[0]

    def replace_frames(self, parts: list[Signed]) -> int:
        author, upto = parts[0].author, parts[-1].sequence
        with self._open_transaction(synced=True) as database:
            rows = database.execute(
                "SELECT sequence, arrival FROM dtp_graph_frames WHERE graph = %s AND author = %s AND sequence <= %s "
                "ORDER BY sequence",
                (self._graph, author, upto),
            ).fetchall()
            places = fit_sequences(parts, [sequence for sequence, _ in rows])
            if not places:
                return 0
            database.execute(
                "DELETE FROM dtp_graph_frames WHERE graph = %s AND author = %s AND sequence <= %s",
                (self._graph, author, upto),
            )
            for part, at in zip(parts, places, strict=True):
                database.execute(
                    "INSERT INTO dtp_graph_frames VALUES (%s, %s, %s, %s, %s)",
                    (self._graph, rows[at][1], author, part.sequence, part.encode()),
                )
        return len(rows) - len(parts)

    def read_part(self) -> bytes | None:
        with self._use_connection("read") as database:
            if database.execute("SELECT to_regclass('dtp_graph_parts')").fetchone() == (None,):
                return None  # only read, and not written since there is one
            row = database.execute(
                "SELECT data FROM dtp_graph_parts WHERE graph = %s", (self._graph,)
            ).fetchone()
            if row is None:
                return None
            skipped = database.execute(
                "SELECT 1 FROM dtp_graph_frames "
                "WHERE graph = %s AND author = %s AND substr(envelope, 1, 2) = %s LIMIT 1",
                (self._graph, self._writer, SKIPPED),
            ).fetchone()
        if skipped is not None:
            raise GraphError(_SKIPPED_OWN)
        return bytes(row[0])

    def set_part(self, part: bytes, own: bytes) -> None:
        with self._open_transaction(synced=True) as database:
            if self._has_company(database):
                raise GraphError(_ALONE)
            database.execute(
                "INSERT INTO dtp_graph_parts VALUES (%(g)s, %(d)s) ON CONFLICT (graph) DO UPDATE SET data = %(d)s",
                {"g": self._graph, "d": part},
            )
            dropped = database.execute(
                "DELETE FROM dtp_graph_frames AS frame USING ("
                "SELECT author, MIN(sequence) AS first FROM dtp_graph_frames "
                "WHERE graph = %(g)s AND substr(envelope, 1, 2) = %(s)s AND author <> %(o)s GROUP BY author"
                ") AS skipped WHERE frame.graph = %(g)s AND frame.author = skipped.author "
                "AND frame.sequence >= skipped.first",
                {"g": self._graph, "s": SKIPPED, "o": own},
            ).rowcount
            if dropped:
                database.execute("DELETE FROM dtp_graph_states WHERE graph = %s", (self._graph,))

    def _has_company(self, database: psycopg.Connection[tuple[Any, ...]]) -> bool:
        """Return whether another program has the graph open to write: each has a lock that others can share."""
        lock = self._lock_key(b"writers")
        return database.execute("SELECT pg_try_advisory_xact_lock(%s)", (lock,)).fetchone() != (True,)

    def release_space(self) -> None:
        with self._use_connection("shrunk") as database:
            database.execute("VACUUM dtp_graph_frames")

    def save_state(self, state: bytes) -> None:
        if self._news:  # what isn't taken in yet is not in the state either
            return
        digest = hashlib.blake2b(state, digest_size=32).digest()
        with self._open_transaction(synced=False) as database:
            database.execute(
                "INSERT INTO dtp_graph_states VALUES (%(g)s, %(w)s, %(a)s, %(d)s, %(s)s) "
                "ON CONFLICT (graph, writer) DO UPDATE SET arrival = %(a)s, digest = %(d)s, state = %(s)s",
                {"g": self._graph, "w": self._writer, "a": self._arrival, "d": digest, "s": state},
            )

    def author_sizes(self) -> dict[bytes, int]:
        with self._use_connection("read") as database:
            rows = database.execute(
                "SELECT author, SUM(LENGTH(envelope)) FROM dtp_graph_frames WHERE graph = %s GROUP BY author",
                (self._graph,),
            ).fetchall()
        return {author: int(size) for author, size in rows}

    def read_policy(self) -> bytes | None:
        with self._use_connection("read") as database:
            if database.execute("SELECT to_regclass('dtp_graph_policies')").fetchone() == (None,):
                return None  # only read, and not written since there is one
            row = database.execute(
                "SELECT data FROM dtp_graph_policies WHERE graph = %s", (self._graph,)
            ).fetchone()
        return None if row is None else row[0]

    def save_policy(self, policy: bytes, forget_state: bool) -> None:
        with self._open_transaction(synced=True) as database:
            database.execute(
                "INSERT INTO dtp_graph_policies VALUES (%(g)s, %(d)s) "
                "ON CONFLICT (graph) DO UPDATE SET data = %(d)s",
                {"g": self._graph, "d": policy},
            )
            if forget_state:
                database.execute("DELETE FROM dtp_graph_states WHERE graph = %s", (self._graph,))
                database.execute("SELECT pg_notify(%s, %s)", (_CHANNEL, str(self._graph)))

    def purge_author(self, author: bytes) -> None:
        with self._open_transaction(synced=True) as database:
            # the last number of arrival stays given: by it other programs know what is new
            database.execute(
                "UPDATE dtp_graph_frames SET arrival = "
                "(SELECT MAX(arrival) + 1 FROM dtp_graph_frames WHERE graph = %(g)s) "
                "WHERE graph = %(g)s AND arrival = "
                "(SELECT MAX(arrival) FROM dtp_graph_frames WHERE graph = %(g)s AND author <> %(a)s)",
                {"g": self._graph, "a": author},
            )
            for table in ("dtp_graph_frames", "dtp_graph_proofs"):
                database.execute(
                    f"DELETE FROM {table} WHERE graph = %s AND author = %s", (self._graph, author)
                )
            database.execute("DELETE FROM dtp_graph_states WHERE graph = %s", (self._graph,))

    def add_proof(self, proof: Proof) -> None:
        with self._open_transaction(synced=True) as database:
            database.execute(
                "INSERT INTO dtp_graph_proofs VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
                (self._graph, proof.author, proof.first.encode(), proof.second.encode()),
            )

    def read_proofs(self) -> list[tuple[bytes, bytes]]:
        with self._use_connection("read") as database:
            return database.execute(
                "SELECT first, second FROM dtp_graph_proofs WHERE graph = %s ORDER BY author", (self._graph,)
            ).fetchall()

    # ---- what others add ------------------------------------------------------------------------------------

    def read_added(self) -> list[bytes]:
        with self._open_transaction(synced=False) as database:
            found, arrival = self._read_after(database, self._arrival)
        found, self._news, self._arrival = self._news + found, [], arrival
        return found

    def return_added(self, envelopes: list[bytes]) -> None:
        self._news = envelopes + self._news

    def watch_news(self, on_news: Callable[[], None]) -> None:
        def on_notified(notified: psycopg.Notify | None) -> None:
            if notified is None or (
                notified.payload == str(self._graph) and notified.pid != self._connection.backend_pid
            ):
                on_news()

        self._connection.listen(_CHANNEL, on_notified, name="dtp-graph-listen")

    def close(self) -> None:
        # The server's end of a session may outlive it for a moment.
        self._connection.close(last="SELECT pg_advisory_unlock_all()")


class PostgresReader(PostgresStore):
    """The store at `url`, to read beside the programs that write. Raise `StoreError` where there is no such graph.

    What opening reads is of one moment: a transaction, which lasts until `loaded` and takes no lock.
    """

    def __init__(self, url: str, name: str, writer: bytes) -> None:
        self._is_loaded = False
        super().__init__(url, name, writer)

    def _begin_store(self, database: psycopg.Connection[tuple[Any, ...]]) -> None:
        if self._connection.was_made and not self._is_loaded:
            raise StoreError("the connection to PostgreSQL was lost while a graph was opened; open it again")
        database.execute("SET default_transaction_read_only = on")
        if not self._is_loaded:
            database.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        there = database.execute("SELECT to_regclass('dtp_graphs')").fetchone()
        row = (
            database.execute("SELECT id, format FROM dtp_graphs WHERE name = %s", (self.name,)).fetchone()
            if there != (None,)
            else None
        )
        if row is None:
            raise StoreError(f"there is no graph {self.name!r} in PostgreSQL")
        if row[1] != FORMAT:
            raise StoreError(
                f"the graph {self.name!r} in PostgreSQL is not of format {FORMAT}; opened to write, an older one is "
                "taken over"
            )
        self._graph = row[0]

    def load_saved(self) -> Loaded:
        with self._use_connection("read") as database:
            row = database.execute(
                "SELECT arrival, digest, state FROM dtp_graph_states WHERE graph = %s ORDER BY arrival DESC LIMIT 1",
                (self._graph,),
            ).fetchone()
            if row is not None and hashlib.blake2b(row[2], digest_size=32).digest() != row[1]:
                row = None  # damaged: the frames give it again
            arrival, state = (row[0], row[2]) if row is not None else (0, None)
            later, self._arrival = self._read_after(database, arrival)
            return Loaded(state, iter(later))

    def on_loaded(self) -> None:
        self._is_loaded = True
        with self._use_connection("read") as database:
            if database.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                database.execute("COMMIT")

    @contextmanager
    def _open_transaction(self, *, synced: bool) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        raise GraphReadOnly("the graph in PostgreSQL was opened to read")
        yield

    def read_added(self) -> list[bytes]:
        return []

    def watch_news(self, on_news: Callable[[], None]) -> None:
        return
