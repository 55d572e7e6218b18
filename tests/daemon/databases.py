"""Stores that several daemons share, as fixtures: Redis and PostgreSQL, real ones, and a file."""

import contextlib
import sqlite3

import postgres
import pytest

from .programs import free_port, need, wait_for_port


@pytest.fixture
def redis_url(place):
    pytest.importorskip("redis")
    port = free_port()
    wait_for_port(
        port, place.program(need("redis-server"), "--port", port, "--save", "", "--dir", place.folder)
    )
    return f"redis://127.0.0.1:{port}/0"


@pytest.fixture
def postgresql_url():
    with postgres.server() as url:
        yield url


@pytest.fixture(params=["sqlite", "redis", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}/state.db"
    return request.getfixturevalue(f"{request.param}_url")


def kept(url, key):
    """How many counts of a caller are there, by another client."""
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite://"))) as database:
            return database.execute("SELECT count(*) FROM used WHERE caller = ?", (key.caller,)).fetchone()[0]
    if url.startswith("redis"):
        import redis

        with redis.from_url(url) as server:
            return len(list(server.scan_iter(f"*:{key.caller}")))
    import psycopg

    with psycopg.connect(url) as database:
        (count,) = database.execute(
            "SELECT count(*) FROM dtpd_used WHERE caller = %s", (key.caller,)
        ).fetchone()
        return count
