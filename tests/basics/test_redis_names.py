"""Which server a URL of Redis names, as errors say it."""

from __future__ import annotations

import asyncio

import pytest

redis = pytest.importorskip("redis")

from dtp.daemon.state.errors import StateError  # noqa: E402
from dtp.daemon.state.redis import RedisCountStore, describe_fault, name_server  # noqa: E402


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("redis://me:secret@box:7000/3", "box:7000"),
        ("rediss://box", "box:6379"),
        ("redis://[::1]:7000", "::1:7000"),
        ("unix:///run/redis.sock?db=1", "/run/redis.sock"),
    ],
)
def test_the_server_is_named_without_what_is_secret(url: str, named: str) -> None:
    assert name_server(redis.Redis.from_url(url).connection_pool) == named


def test_a_line_that_is_gone_is_said_with_its_server_and_what_a_server_says_is_not() -> None:
    pool = redis.Redis.from_url("redis://me:secret@box:7000").connection_pool
    gone = redis.ConnectionError("Connection closed by server.")
    assert describe_fault(gone, pool) == "box:7000: Connection closed by server."
    assert describe_fault(redis.ResponseError("wrong kind of value"), pool) == "wrong kind of value"
    refused = redis.ConnectionError("Error 111 connecting to box:7000. Connection refused.")
    assert describe_fault(refused, pool) == str(refused)


def test_a_server_of_counts_that_hangs_up_is_named() -> None:
    async def main() -> None:
        async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        store = RedisCountStore(f"redis://127.0.0.1:{port}/0", "host")
        with pytest.raises(StateError, match=f"Redis: .*127.0.0.1:{port}"):
            await store.list_bans(0.0)
        await store.close()
        server.close()

    asyncio.run(main())
