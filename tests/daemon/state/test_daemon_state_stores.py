"""Databases in which counts are shared: what goes wrong with them, and what a daemon makes of it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import postgres
import pytest

from dtp.daemon.config import model
from dtp.daemon.policies import Moment, Move
from dtp.daemon.policies.quota import QuotaPolicy
from dtp.daemon.state import CountKey, Used, make
from dtp.daemon.state.errors import StateError, StateUnusable
from dtp.daemon.workers.sharing import CountSharing

from ..databases import postgresql_url, redis_url, url
from ..programs import place
from .test_daemon_state import _ME, ALICE

__all__ = ["place", "postgresql_url", "redis_url", "url"]


def test_a_store_that_goes_and_comes(caplog: pytest.LogCaptureFixture) -> None:
    class Flaky:
        def __init__(self) -> None:
            self.away, self.tells = True, False
            self.told: dict[Any, Any] = {}

        async def open(self) -> None:
            pass

        async def exchange_counts(self, deltas: dict[CountKey, Used]) -> dict[CountKey, Used]:
            if self.away:
                raise StateError("gone fishing")
            self.told.update(deltas)
            return deltas

        async def forget_periods(self, scope: str, before: int) -> None:
            self.forgotten = scope, before

        async def close(self) -> None:
            pass

    async def scenario() -> None:
        quota, store = QuotaPolicy(model.QuotaRule(None, 100, 1e12)), Flaky()
        work = CountSharing(store, lambda: [("api/0/1e+12", quota)])  # type: ignore[arg-type]
        quota.commit_event(Move(ALICE, 5), Moment(0, 1))
        for _ in range(3):
            await work.exchange_once()
        assert caplog.text.count("counted here alone") == 1
        store.away = False
        quota.commit_event(Move(ALICE, 6), Moment(0, 1))
        await work.exchange_once()
        assert store.told == {CountKey("api/0/1e+12", 0, _ME): Used(0, 11)}
        assert store.forgotten == ("api/0/1e+12", 0)

    asyncio.run(scenario())


def test_what_somebody_wrote_into_redis_by_hand(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is said once for each, and the other bans hold; what else isn't ours is an error of the store's."""
    import redis

    async def scenario() -> None:
        server = redis.from_url(redis_url)
        server.hset("dtpd:host:bans", "0x1", 2e9)
        store = make(redis_url, "host")
        server.hset("dtpd:host:bans", "0x2", "for ever")
        for _ in range(2):
            assert await store.list_bans(1.0) == {"0x1": 2e9}
        (said,) = caplog.records
        assert said.levelname == "WARNING"
        assert "0x2" in said.getMessage()
        assert "for ever" in said.getMessage()
        server.hset("dtpd:host:bans", b"\xff", 2e9)
        server.hset("dtpd:host:bans", "0x3", "nan")
        assert await store.list_bans(1.0) == {"0x1": 2e9}
        assert len(caplog.records) == 3
        server.delete("dtpd:host:bans")
        server.set("dtpd:host:bans", "no hash")
        with pytest.raises(StateError, match="WRONGTYPE"):
            await store.list_bans(1.0)
        # Of counts the others are told, each once: a transaction of Redis does what it can.
        server.hset("dtpd:host:api:1:2", "bytes", "many")
        server.hset("dtpd:host:api:1:3", "requests", "many")
        server.set("dtpd:host:api:1:4", "no hash")
        whole, *broken = (CountKey("api", 1, caller) for caller in "1234")
        caplog.clear()
        for number in (1, 2):
            told = await store.exchange_counts(dict.fromkeys([whole, *broken], Used(1, 10)))
            assert told == {whole: Used(number, 10 * number)}
        assert await store.exchange_counts(dict.fromkeys([whole, *broken], Used())) == {whole: Used(2, 20)}
        assert ["not an integer" in one or "WRONGTYPE" in one for one in caplog.messages] == [True] * 3
        await store.close()
        server.close()

    asyncio.run(scenario())


def test_postgresql_keeps_nobody_waiting(postgresql_url: str) -> None:
    """Neither one that has lost its network without a word, nor somebody who has locked a table."""
    psycopg = pytest.importorskip("psycopg")
    from dtp.daemon.state.postgresql import PostgresCountStore

    async def scenario() -> None:
        store = PostgresCountStore(postgresql_url, "host")
        await store.open()
        assert store._database is not None
        said = store._database.info.get_parameters()
        assert (said["keepalives_idle"], said["tcp_user_timeout"]) == ("5", "10000")
        shown = await (await store._database.execute("SHOW statement_timeout")).fetchone()
        assert shown == ("4s",)
        hasty = PostgresCountStore(postgresql_url, "host", patience=1.0)
        with psycopg.connect(postgresql_url) as other:
            other.execute("LOCK TABLE dtpd_used")
            # Where the machine has much to do, the line is cut before the server says that this takes too long.
            with pytest.raises(StateError, match="PostgreSQL: "):
                await hasty.exchange_counts({CountKey("api", 1, "2"): Used(1, 1)})
        await hasty.close()
        assert await store.exchange_counts({CountKey("api", 1, "2"): Used(1, 1)}) == {
            CountKey("api", 1, "2"): Used(1, 1)
        }
        await store.close()

    asyncio.run(scenario())


def test_a_postgresql_that_says_nothing_any_more_is_away(postgresql_url: str) -> None:
    """Its processes stopped, or its disk hung: `dtpd ban` and the end of a daemon waited for it for ever."""
    pytest.importorskip("psycopg")
    from dtp.daemon.state.postgresql import PostgresCountStore

    async def scenario() -> None:
        async with postgres.stoppable(postgresql_url) as (url, stop):
            made = make(url, "host")  # the tables
            await made.open()
            await made.close()
            store = PostgresCountStore(url, "host", patience=0.5)
            while True:
                with contextlib.suppress(
                    StateError
                ):  # half a second isn't enough where the machine has much to do
                    await store.open()
                    break
            stop()
            with pytest.raises(StateError, match="PostgreSQL: "):
                await store.ban("dtp1a", 100.0)
            await store.close()

    asyncio.run(scenario())


def test_tables_that_are_gone_are_made_again(postgresql_url: str) -> None:
    """An empty database was put in the place of the one that was lost: all were counted alone until a restart."""
    psycopg = pytest.importorskip("psycopg")

    async def scenario() -> None:
        store, key = make(postgresql_url, "host"), CountKey("api", 1, "2")
        await store.open()
        with psycopg.connect(postgresql_url) as other:
            other.execute("DROP TABLE dtpd_used, dtpd_bans")
        with pytest.raises(StateError, match="does not exist"):
            await store.exchange_counts({key: Used(1, 1)})
        assert await store.exchange_counts({key: Used(1, 1)}) == {key: Used(1, 1)}
        assert await store.list_bans(0.0) == {}
        await store.close()

    asyncio.run(scenario())


def test_a_postgresql_that_takes_no_session_for_good(tmp_path: Path) -> None:
    """It was 'trying again may help', so that a daemon was begun anew each second for ever."""
    pytest.importorskip("psycopg")

    async def why(url: str) -> None:
        store = make(url, "host")
        try:
            await store.open()
        finally:
            await store.close()

    with postgres.server("s3cret") as url:
        asyncio.run(why(url))
        for wrong, words in (
            (url.replace("s3cret", "wrong"), "another name or password"),
            (url.replace(":s3cret", ""), "the URL has none"),
            (url.replace("dtp:", "nobody:"), "another name or password"),
            (url.replace("/postgres", "/nosuch"), "there is no such database"),
        ):
            with pytest.raises(StateUnusable, match=words) as unusable:
                asyncio.run(why(wrong))
            assert "s3cret" not in str(unusable.value)
            assert str(unusable.value).startswith("[state] PostgreSQL: connection failed: ")
        import psycopg

        with psycopg.connect(url) as owner:
            owner.execute("CREATE ROLE guest LOGIN PASSWORD 'g'")
            owner.execute("REVOKE CREATE ON SCHEMA public FROM public")
        with pytest.raises(StateUnusable, match="this user may not do that"):
            asyncio.run(why(url.replace("dtp:s3cret", "guest:g")))


def test_a_redis_without_the_database_is_a_mistake(redis_url: str) -> None:
    store = make(redis_url.replace("/0", "/99"), "host")

    async def scenario() -> None:
        with pytest.raises(StateUnusable, match="no database of this number"):
            await store.open()
        await store.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("fault", ["no database", "no folder"])
def test_a_file_that_only_a_person_mends_is_no_reason_to_try_again(tmp_path: Path, fault: str) -> None:
    """The daemon was begun anew each second for ever, and nothing said what to do."""
    path = tmp_path / "state.db"
    if fault == "no database":
        path.write_bytes(b"x" * 4096)
    else:
        path = tmp_path / "none" / "state.db"

    async def scenario() -> None:
        store = make(f"sqlite:///{path}", "front")  # as SQLAlchemy writes it
        with pytest.raises(StateUnusable, match=r"its folder has to be|move the file away") as unusable:
            await store.open()
        assert str(unusable.value).startswith(f"[state] {path}: ")
        await store.close()

    asyncio.run(scenario())
