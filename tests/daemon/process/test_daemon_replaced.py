"""What a process says to those that it has replaced, and hears of them, whichever version they are of."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any
from unittest.mock import Mock

import pytest

from dtp.daemon.process import replaced
from dtp.daemon.process.replaced import ReplacedProcesses, Successors, inherited_sockets
from dtp.daemon.workers.channel import WorkerChannel
from dtp.daemon.workers.handover import Handover
from dtp.session.handshake import Established, HandshakeConfig
from dtp.session.noise import Suite
from dtp.testing.pairs import shake_hands

from ..conftest import FAR, NEAR


class Holder:
    """In place of an old daemon: has one connection, and keeps what comes."""

    def __init__(self, connection: bytes) -> None:
        self.connection = connection
        self.carriers: list[Any] = []
        self.bans: list[Any] = []

    async def has_connection(self, connection_id: bytes) -> bool:
        return connection_id == self.connection

    def take_carrier(self, fields: dict[str, bytes], descriptors: list[int]) -> None:
        for each in descriptors:
            os.close(each)
        self.carriers.append(dict(fields))

    async def ban(self, caller: str, until: float) -> None:
        self.bans.append((caller, until))


def play(scenario: Callable[..., Coroutine[Any, Any, Any]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            with contextlib.ExitStack() as stack:
                await scenario(stack)

    asyncio.run(main())


def meet(stack: ExitStack, *holders: Holder) -> ReplacedProcesses:
    """A process that has replaced these."""
    reached = []
    for holder in holders:
        here, there = socket.socketpair()
        successors = Successors(holder)  # type: ignore[arg-type]
        successors.meet(there)
        stack.callback(successors.close)
        reached.append(here.detach())
    found = ReplacedProcesses()
    found.reach(reached)
    stack.callback(found.close)
    return found


def test_a_carrier_goes_to_the_process_that_has_its_connection() -> None:
    async def scenario(stack: ExitStack) -> None:
        first, second = Holder(b"first"), Holder(b"second")
        newest = meet(stack, first, second)
        assert await newest.find_owner(b"neither") is None
        owner = await newest.find_owner(b"second")
        read, write = os.pipe()
        newest.give_carrier(owner, [read], {"connection": b"second"})  # type: ignore[arg-type]
        assert await newest.find_owner(b"first") != owner  # answered in order: the carrier has come
        assert (first.carriers, second.carriers) == ([], [{"connection": b"second"}])
        for each in (read, write):
            os.close(each)

    play(scenario)


def test_whoever_is_replaced_in_its_turn_makes_its_successor_known() -> None:
    async def scenario(stack: ExitStack) -> None:
        oldest = Holder(b"first")
        middle = meet(stack, oldest)
        newest = ReplacedProcesses()
        newest.reach([each.detach() for each in middle.introduce()])
        stack.callback(newest.close)
        assert await newest.find_owner(b"first") is not None
        middle.close()  # it has ended
        assert await newest.find_owner(b"first") is not None

    play(scenario)


def test_one_that_has_ended_has_nothing() -> None:
    async def scenario(stack: ExitStack) -> None:
        here, there = socket.socketpair()
        found = ReplacedProcesses()
        found.reach([here.detach()])
        asking = asyncio.ensure_future(found.find_owner(b"first"))
        await asyncio.sleep(0)
        there.close()
        assert await asking is None
        found.give_carrier(-1, [], {})
        assert await found.find_owner(b"first") is None

    play(scenario)


def test_one_that_does_not_answer_has_nothing() -> None:
    async def scenario(stack: ExitStack) -> None:
        here, there = socket.socketpair()
        stack.enter_context(there)
        found = ReplacedProcesses(0.01)
        found.reach([here.detach()])
        stack.callback(found.close)
        assert await found.find_owner(b"first") is None

    play(scenario)


def test_one_that_knows_less_says_so_and_goes_on() -> None:
    """A newer version asks for what an older one can't do."""

    async def scenario(stack: ExitStack) -> None:
        here, there = socket.socketpair()
        other = WorkerChannel(there, {"has": lambda _, __: True}, lambda: None)
        stack.callback(other.close)
        found = ReplacedProcesses()
        found.reach([here.detach()])
        stack.callback(found.close)
        read, write = os.pipe()
        found.give_carrier(-1, [read], {})
        os.close(read)
        await found.ban("dtp1", 1.0)
        assert await found.find_owner(b"first") == -1
        with pytest.raises(BrokenPipeError):  # the copy that went there is closed
            os.write(write, b"x")
        os.close(write)

    play(scenario)


def test_who_is_banned_is_banned_where_its_streams_are() -> None:
    async def scenario(stack: ExitStack) -> None:
        first, second = Holder(b"first"), Holder(b"second")
        await meet(stack, first, second).ban("dtp1", 7.0)
        assert first.bans == second.bans == [("dtp1", 7.0)]

    play(scenario)


def handshake() -> Established:
    suites = (Suite.AESGCM_SHA256,)
    _, server = shake_hands(
        HandshakeConfig(NEAR, suites), HandshakeConfig(FAR, suites), service="api", resume=bytes(16)
    )
    return server


def test_a_handshake_comes_out_as_it_went() -> None:
    assert Established.from_message(handshake().to_message()) == handshake()


@pytest.mark.parametrize(
    "change",
    [
        {"split": {}},
        {"split": {"more": b""}},
        {"payload": b"?"},
        {"payload": 1},
        {"suite": 99},
        {"pattern": "XX"},
    ],
)
def test_a_carrier_of_a_version_that_is_not_understood_is_closed(
    change: Any, caplog: pytest.LogCaptureFixture
) -> None:
    here, there = socket.socketpair()
    handover = Handover(ReplacedProcesses())
    handover.listener = Mock()
    handover.take_carrier({"established": handshake().to_message() | change}, [there.detach()])
    with here:
        assert here.recv(1) == b""
    handover.listener.adopt_carrier.assert_not_called()
    assert "a carrier of another process is closed" in caplog.text


@pytest.mark.parametrize(
    ("told", "found"), [("17 8", [17, 8]), ("17", [17]), ("", []), ("17=3", []), ("x", [])]
)
def test_the_descriptors_are_taken_once(monkeypatch: pytest.MonkeyPatch, told: str, found: list[int]) -> None:
    monkeypatch.setenv(replaced.REPLACED, told)
    assert inherited_sockets() == found
    assert inherited_sockets() == []
