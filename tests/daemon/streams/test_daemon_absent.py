"""Callers that die without a word: what they had open holds nobody up, themselves least of all."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import dtp
from dtp.daemon.patience import PATIENCE, Patience
from dtp.daemon.server import LIMITS, Daemon
from dtp.identity.keys import Identity
from dtp.session.codes import StreamReset
from dtp.session.limits import Limits

from ..conftest import FAR, NEAR, OTHER, Backend, config, echo, listener_of

ONE = "concurrency = { identity = 1 }"
#: Opens a stream at the address that it is told, says that it has an answer, and does nothing more.
CALLER = """
import asyncio, sys
import dtp
from dtp.identity import Identity

async def main():
    async with dtp.connect(sys.argv[1], identity=Identity(bytes([1]) * 32)) as connection:
        stream = await connection.open_stream()
        stream.write(b"first")
        await stream.readexactly(5)
        print("there", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def exposing(backend: Backend, more: str = ONE, daemon: str = "") -> str:
    return (
        f'[daemon]\nlisten = ["tcp://127.0.0.1:0"]\n{daemon}\n'
        f'[[expose]]\nservice = "api"\nbackend = ["127.0.0.1:{backend.port}"]\nallow = ["*"]\n{more}'
    )


@contextlib.asynccontextmanager
async def caller(daemon: Daemon) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that has a stream open there."""
    address = str(listener_of(daemon).address("api"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-c", CALLER, address), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"there\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def run(
    tmp_path: Path,
    text_of: Callable[..., Any],
    scenario: Callable[..., Coroutine[Any, Any, Any]],
    limits: Limits = LIMITS,
    patience: Patience = PATIENCE,
) -> None:
    async def main() -> None:
        async with Backend(echo) as backend, asyncio.timeout(120):
            daemon = Daemon(config(tmp_path, text_of(backend)), FAR, limits=limits, patience=patience)
            await daemon.start()
            try:
                await scenario(daemon)
            finally:
                await daemon.close()

    asyncio.run(main())


async def without_carriers(daemon: Daemon) -> None:
    """Wait until all who are known there are gone."""
    while any(each.source for each in listener_of(daemon).connections):  # noqa: ASYNC110 - nobody is told
        await asyncio.sleep(0.01)


async def asks(daemon: Daemon, identity: Identity = NEAR) -> bytes:
    """What comes back on a stream of a new connection."""
    async with dtp.connect(listener_of(daemon).address("api"), identity=identity) as connection:
        stream = await connection.open_stream()
        stream.write(b"again")
        return await stream.readexactly(5)


def test_a_caller_that_was_killed_is_let_in_at_once(tmp_path: Path) -> None:
    async def scenario(daemon: Daemon) -> None:
        async with caller(daemon) as process:
            process.kill()
            await without_carriers(daemon)
            assert daemon.open_streams == 1  # it may be resumed
            assert await asks(daemon) == b"again"
            (exposed,) = daemon.exposed.values()
            assert exposed.denials == {}
            await exposed.wait_empty()

    run(tmp_path, exposing, scenario)


def test_a_caller_that_answers_no_more_is_taken_for_gone(tmp_path: Path) -> None:
    """Its carrier is there: a machine that lost its power says nothing."""

    async def scenario(daemon: Daemon) -> None:
        async with caller(daemon) as process:
            process.send_signal(signal.SIGSTOP)
            assert await asks(daemon) == b"again"
            assert daemon.exposed["api"].denials == {}

    # It is not the ping that all connections have that finds it.
    run(tmp_path, exposing, scenario, replace(LIMITS, keepalive=0, dead=0.5))


@pytest.mark.parametrize("more", [ONE, "concurrency = { service = 1 }"])
def test_who_is_there_keeps_its_place(tmp_path: Path, more: str) -> None:
    async def scenario(daemon: Daemon) -> None:
        async with caller(daemon):
            for identity in (NEAR, OTHER):
                if identity is NEAR or "service" in more:
                    with pytest.raises(StreamReset):
                        await asks(daemon, identity)
                else:
                    assert await asks(daemon, identity) == b"again"
            assert daemon.open_streams == 1

    run(tmp_path, lambda backend: exposing(backend, more), scenario)


def test_one_identity_makes_no_room_by_anothers_streams(tmp_path: Path) -> None:
    async def scenario(daemon: Daemon) -> None:
        async with caller(daemon) as process:
            process.kill()
            await without_carriers(daemon)
            with pytest.raises(StreamReset):
                await asks(daemon, OTHER)
            assert daemon.open_streams == 1
            assert await asks(daemon, NEAR) == b"again"

    run(tmp_path, lambda backend: exposing(backend, "concurrency = { service = 1 }"), scenario)


def test_several_that_want_the_room_wait_for_one_answer(tmp_path: Path) -> None:
    async def scenario(daemon: Daemon) -> None:
        async with caller(daemon) as process:
            process.kill()
            await without_carriers(daemon)
            answers = await asyncio.gather(*(asks(daemon) for _ in range(3)), return_exceptions=True)
            assert b"again" in answers
            assert all(each == b"again" or isinstance(each, StreamReset) for each in answers)

    run(tmp_path, exposing, scenario)


def test_a_drain_does_not_wait_for_who_is_gone(tmp_path: Path) -> None:
    async def scenario(daemon: Daemon) -> None:
        async with caller(daemon) as process:
            process.kill()
            await without_carriers(daemon)
            assert await daemon.drain(3600)
            assert daemon.open_streams == 0

    run(tmp_path, lambda backend: exposing(backend, ""), scenario, patience=Patience(carrier=0.1))


def test_a_process_that_gave_way_keeps_who_is_gone_as_ever(tmp_path: Path) -> None:
    """Nobody waits for its end, and who comes back is sent on to it by the process that has its place."""

    async def scenario(daemon: Daemon) -> None:
        async with caller(daemon) as process:
            process.kill()
            await without_carriers(daemon)
            await daemon.hand_over()
            assert not await daemon.drain(1.5)
            assert daemon.open_streams == 1

    run(tmp_path, lambda backend: exposing(backend, ""), scenario, patience=Patience(carrier=0.1))


def test_a_drain_waits_for_who_is_there(tmp_path: Path) -> None:
    async def scenario(daemon: Daemon) -> None:
        async with dtp.connect(listener_of(daemon).address("api"), identity=NEAR) as connection:
            stream = await connection.open_stream()
            stream.write(b"first")
            assert await stream.readexactly(5) == b"first"
            draining = asyncio.ensure_future(daemon.drain(3600))
            while not connection.peer_away:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.01)
            stream.write(b"there")
            assert await stream.readexactly(5) == b"there"
            assert not draining.done()
            stream.write_eof()
            assert await draining

    run(tmp_path, lambda backend: exposing(backend, ""), scenario, patience=Patience(carrier=0.1))


def test_a_lost_peer_is_kept_as_long_as_the_file_says(tmp_path: Path) -> None:
    async def scenario(daemon: Daemon) -> None:
        async with caller(daemon) as process:
            process.kill()
            (exposed,) = daemon.exposed.values()
            await exposed.wait_empty()

    run(tmp_path, lambda backend: exposing(backend, "", 'resume-timeout = "200ms"'), scenario)
