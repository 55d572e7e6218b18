"""Counts in PostgreSQL: `postgresql://user@host/database`. Takes `pip install 'dtp-sockets[state-postgres]'`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from dtp.daemon.state import Key, Used
from dtp.daemon.state.alive import ALIVE, ALIVE_THERE
from dtp.daemon.state.errors import StateError, StateUnusable
from dtp.errors import ConfigError

try:
    import psycopg
    from psycopg import conninfo
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
#: Two daemons that make the table at once would collide in the catalogue: one at a time.
_LOCK = "SELECT pg_advisory_xact_lock(7237)"
#: Milliseconds for one statement: one that waits for somebody's lock must not keep a daemon from ending.
_PATIENCE = "SET statement_timeout = 10000"


class PostgresStore:
    """One connection, made again after it broke."""

    tells = False

    def __init__(self, url: str, host: str) -> None:
        self._url, self._host = url, host
        self._database: psycopg.AsyncConnection[tuple[int, int]] | None = None
        self._one_at_a_time = asyncio.Lock()

    async def open(self) -> None:
        """Connect and make the table. Raises `StateError`."""

        async def create(database: psycopg.AsyncConnection[tuple[int, int]]) -> None:
            await database.execute(_LOCK)
            await database.execute(_TABLE)
            await database.execute(_BANS)

        await self._transaction(create)

    async def exchange(self, deltas: Mapping[Key, Used]) -> Mapping[Key, Used]:
        """In one transaction. Raises `StateError`."""

        async def add(database: psycopg.AsyncConnection[tuple[int, int]]) -> dict[Key, Used]:
            totals = {}
            # In one order, or two daemons that add to the same rows could wait for each other.
            for key in sorted(deltas):
                statement, values = (_ADD, deltas[key]) if any(deltas[key]) else (_TOTAL, ())
                cursor = await database.execute(statement, (self._host, *key, *values))
                totals[key] = Used(*(await cursor.fetchone() or ()))
            return totals

        return await self._transaction(add)

    async def forget(self, scope: str, before: int) -> None:
        """Raises `StateError`."""

        async def delete(database: psycopg.AsyncConnection[tuple[int, int]]) -> None:
            await database.execute(_FORGET, (self._host, scope, before))

        await self._transaction(delete)

    async def ban(self, caller: str, until: float) -> None:
        """Raises `StateError`."""

        async def insert(database: psycopg.AsyncConnection[tuple[int, int]]) -> None:
            await database.execute(_BAN, (self._host, caller, until))

        await self._transaction(insert)

    async def bans(self, now: float) -> Mapping[str, float]:
        """Raises `StateError`."""

        async def select(database: psycopg.AsyncConnection[tuple[int, int]]) -> dict[str, float]:
            cursor = await database.execute(_BANNED, (self._host, now))
            return {str(caller): float(until) for caller, until in await cursor.fetchall()}

        return await self._transaction(select)

    async def close(self) -> None:
        """Disconnect."""
        if self._database is not None:
            await self._database.close()
            self._database = None

    async def _transaction(
        self, work: Callable[[psycopg.AsyncConnection[tuple[int, int]]], Awaitable[_T]]
    ) -> _T:
        try:
            async with self._one_at_a_time:
                if self._database is None or self._database.closed:
                    self._database = await psycopg.AsyncConnection.connect(
                        self._url, autocommit=True, **ALIVE
                    )
                    await self._database.execute(f"{ALIVE_THERE}; {_PATIENCE}")
                async with self._database.transaction():
                    return await work(self._database)
        except (psycopg.Error, OSError) as error:
            # The text of an error of libpq may have the URL's password in it; its first line has the fault.
            raise StateError(
                f"PostgreSQL: {str(error).splitlines()[0] if str(error) else error!r}"
            ) from error


def make(url: str, host: str) -> PostgresStore:
    """The store at `url`."""
    return PostgresStore(url, host)


def check_url(url: str) -> None:
    """Raise `StateUnusable` for a URL that the client doesn't take; nobody is asked."""
    try:
        conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:  # its words are not quoted: a password may be in them
        example = "postgresql://USER@HOST/DATABASE"
        raise StateUnusable(f"[state] PostgreSQL doesn't take this URL: it is as in {example}") from None
