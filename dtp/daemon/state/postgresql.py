"""Counts in PostgreSQL: `postgresql://user@host/database`. Takes `pip install 'dtp-sockets[state-postgres]'`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TypeVar

from dtp.daemon.state import CountKey, Used
from dtp.daemon.state.errors import StateError, StateUnusable
from dtp.errors import ConfigError

try:
    import psycopg

    from dtp.postgresql import (
        ALIVE,
        ALIVE_THERE,
        PATIENCE,
        describe_fault,
        find_wrong_setting,
        hang_up,
        limit_there,
        what_mends,
    )
except ImportError as error:
    raise ConfigError(
        "PostgreSQL for [state] takes a package: pip install 'dtp-sockets[state-postgres]'"
    ) from error

_T = TypeVar("_T")

_TABLE = """
CREATE TABLE IF NOT EXISTS dtpd_used (
    host text NOT NULL, scope text NOT NULL, period bigint NOT NULL, caller text NOT NULL,
    requests bigint NOT NULL, data bigint NOT NULL,
    PRIMARY KEY (host, scope, period, caller)
)
"""
_BANS = """
CREATE TABLE IF NOT EXISTS dtpd_bans (
    host text NOT NULL, caller text NOT NULL, until double precision NOT NULL, PRIMARY KEY (host, caller)
)
"""
_BAN = """
INSERT INTO dtpd_bans VALUES (%s, %s, %s) ON CONFLICT (host, caller) DO UPDATE SET until = excluded.until
"""
_BANNED = "SELECT caller, until FROM dtpd_bans WHERE host = %s AND until > %s"
_ADD = """
INSERT INTO dtpd_used AS known VALUES (%s, %s, %s, %s, %s, %s)
ON CONFLICT (host, scope, period, caller)
DO UPDATE SET requests = known.requests + excluded.requests, data = known.data + excluded.data
RETURNING requests, data
"""
_TOTAL = """
SELECT requests, data FROM dtpd_used WHERE host = %s AND scope = %s AND period = %s AND caller = %s
"""
_FORGET = "DELETE FROM dtpd_used WHERE host = %s AND scope = %s AND period < %s"
#: One daemon at a time: if two created the tables at once, they would collide in the catalogue.
_LOCK = "SELECT pg_advisory_xact_lock(7237)"


class PostgresCountStore:
    """One connection, which is made again after it broke."""

    tells = False

    def __init__(self, url: str, host: str, *, patience: float = PATIENCE) -> None:
        """`patience`: seconds for a transaction. Neither the end of a daemon nor a ban waits longer for a silent
        server."""
        self._url, self._host, self._patience = url, host, patience
        self._database: psycopg.AsyncConnection[tuple[int, int]] | None = None
        self._one_at_a_time = asyncio.Lock()

    async def open(self) -> None:
        """Connect and create the tables. Raise `StateError`, or `StateUnusable` where the server refuses
        permanently."""

        async def nothing(database: psycopg.AsyncConnection[tuple[int, int]]) -> None:
            """Do nothing: a new connection creates the tables."""

        try:
            await self._run_transaction(nothing)
        except StateError as error:
            connected = self._database is not None
            mended = await asyncio.to_thread(what_mends, error.__cause__, self._url, connected=connected)
            if mended is None:
                raise
            raise StateUnusable(f"[state] {error}; {mended}") from error

    async def exchange_counts(self, deltas: Mapping[CountKey, Used]) -> Mapping[CountKey, Used]:
        """Add them in one transaction. Raise `StateError`."""

        async def add(database: psycopg.AsyncConnection[tuple[int, int]]) -> dict[CountKey, Used]:
            totals = {}
            # In a fixed order, or two daemons that add to the same rows could deadlock.
            for key in sorted(deltas):
                statement, values = (_ADD, deltas[key]) if any(deltas[key]) else (_TOTAL, ())
                cursor = await database.execute(statement, (self._host, *key, *values))
                totals[key] = Used(*(await cursor.fetchone() or ()))
            return totals

        return await self._run_transaction(add)

    async def forget_periods(self, scope: str, before: int) -> None:
        """Remove the counts of earlier periods. Raise `StateError`."""

        async def delete(database: psycopg.AsyncConnection[tuple[int, int]]) -> None:
            await database.execute(_FORGET, (self._host, scope, before))

        await self._run_transaction(delete)

    async def ban(self, caller: str, until: float) -> None:
        """Ban a caller until then (Unix time). Raise `StateError`."""

        async def insert(database: psycopg.AsyncConnection[tuple[int, int]]) -> None:
            await database.execute(_BAN, (self._host, caller, until))

        await self._run_transaction(insert)

    async def list_bans(self, now: float) -> Mapping[str, float]:
        """Return the bans that hold after `now`, with their ends. Raise `StateError`."""

        async def select(database: psycopg.AsyncConnection[tuple[int, int]]) -> dict[str, float]:
            cursor = await database.execute(_BANNED, (self._host, now))
            return {str(caller): float(until) for caller, until in await cursor.fetchall()}

        return await self._run_transaction(select)

    async def close(self) -> None:
        """Disconnect."""
        if self._database is not None:
            await self._database.close()
            self._database = None

    async def _run_transaction(
        self, work: Callable[[psycopg.AsyncConnection[tuple[int, int]]], Awaitable[_T]]
    ) -> _T:
        try:
            async with self._one_at_a_time:
                if self._database is None or self._database.closed:
                    self._database = await psycopg.AsyncConnection.connect(
                        self._url, autocommit=True, **ALIVE
                    )
                    async with _bounded(self._database, self._patience):
                        await self._database.execute(f"{ALIVE_THERE}; {limit_there(self._patience)}")
                        async with self._database.transaction():
                            for statement in (_LOCK, _TABLE, _BANS):
                                await self._database.execute(statement)
                async with _bounded(self._database, self._patience), self._database.transaction():
                    return await work(self._database)
        except (psycopg.Error, OSError) as error:
            if isinstance(error, psycopg.errors.UndefinedTable):
                await self.close()  # a new, empty database: connecting creates the tables
            raise StateError(f"PostgreSQL: {describe_fault(error, self._url)}") from error


@contextlib.asynccontextmanager
async def _bounded(database: psycopg.AsyncConnection[tuple[int, int]], seconds: float) -> AsyncIterator[None]:
    """Close the connection if the server hasn't answered by then."""
    timer = asyncio.get_running_loop().call_later(seconds, hang_up, database.fileno())
    try:
        yield
    finally:
        timer.cancel()


def make(url: str, host: str) -> PostgresCountStore:
    """Return the store at `url`."""
    return PostgresCountStore(url, host)


def check_url(url: str) -> None:
    """Raise `StateUnusable` for a URL that the client doesn't accept, or that names unusable files. No server is
    asked."""
    if (wrong := find_wrong_setting(url)) is not None:
        raise StateUnusable(f"[state] PostgreSQL: {wrong}")
