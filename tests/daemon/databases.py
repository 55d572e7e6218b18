"""Stores that several daemons share, as fixtures: Redis and PostgreSQL, real ones, and a file."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import postgres
import pytest

from dtp.daemon.state import CountKey

from .programs import Place, free_port, need, wait_for_port


@pytest.fixture
def redis_url(place: Place) -> str:
    pytest.importorskip("redis")
    port = free_port()
    wait_for_port(
        port, place.program(need("redis-server"), "--port", port, "--save", "", "--dir", place.folder)
    )
    return f"redis://127.0.0.1:{port}/0"


@pytest.fixture
def postgresql_url() -> Iterator[str]:
    with postgres.server() as url:
        yield url


@pytest.fixture(params=["sqlite", "redis", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}/state.db"
    return str(request.getfixturevalue(f"{request.param}_url"))


def kept(url: str, key: CountKey) -> int:
    """How many counts of a caller are there, by another client."""
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite://"))) as database:
            return int(
                database.execute("SELECT count(*) FROM used WHERE caller = ?", (key.caller,)).fetchone()[0]
            )
    if url.startswith("redis"):
        import redis

        with redis.from_url(url) as server:
            return len(list(server.scan_iter(f"*:{key.caller}")))
    import psycopg

    with psycopg.connect(url) as database:
        said = database.execute("SELECT count(*) FROM dtpd_used WHERE caller = %s", (key.caller,))
        return sum(count for (count,) in said.fetchall())
