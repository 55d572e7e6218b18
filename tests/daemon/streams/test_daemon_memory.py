"""Memory is bounded for each connection by its windows, and in all by closing those that hold most."""

from __future__ import annotations

import asyncio
import gc
import os
import weakref
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from conditions import until

import dtp
from dtp.daemon.process.memory import (
    COLLECT_EVERY,
    CONNECTION,
    LEAST,
    ROOM,
    STREAM,
    Governor,
    bound,
    default,
    measure_held,
    resident,
)
from dtp.daemon.server import LIMITS, Daemon
from dtp.session.codes import CloseCode
from dtp.testing import clock

from ..conftest import NEAR, OTHER, Backend, Pair, Run, echo
from .test_daemon_relay import exchange, expose, reset

OVER: list[Any] = []


async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads the first bytes, and then nothing."""
    await reader.readexactly(1)
    if await reader.read(1) == b"r":  # this one is to be read
        while data := await reader.read(65536):
            writer.write(data)
        writer.write_eof()
    else:
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        over = asyncio.Event()
        OVER.append(over)
        await over.wait()


async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server of HTTP with one answer."""
    while await reader.readuntil(b"\r\n\r\n"):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")


def test_who_holds_most_goes_first(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Two callers: one whose backend doesn't read, so that a window of it waits here; one who holds nothing."""

    async def scenario(pair: Pair) -> None:
        async with Backend(deaf) as backend:
            port = await pair.start(expose(backend.port))
            other = Daemon(pair.near_config(), OTHER)
            await other.start()
            (forwarded,) = other.forwarded.values()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(bytes(16 * 1024 * 1024))
            limits = LIMITS
            await until(lambda: len(pair.far.callers) == 2)
            far = {caller.peer: connection for connection, caller in pair.far.callers.items()}
            hog, modest = far[NEAR.id], far[OTHER.id]
            await until(lambda: hog.held > limits.stream_window // 2)
            # Each connection is bounded by its windows, however much the caller sends.
            assert hog.held <= limits.stream_window
            assert modest.held == 0
            governor = pair.far.governor
            await governor.close()  # a look of its own would find that there is room
            governor.check_memory(lambda: governor.bound)
            assert not hog.closed
            governor.check_memory(lambda: governor.bound + 1)
            assert hog.closed
            assert governor.closed == 1
            assert not modest.closed
            with pytest.raises(ConnectionError):
                await reader.read()
            writer.close()
            with pytest.raises(ConnectionError):
                await exchange(int(forwarded.places[0].rpartition(":")[2]), b"xread")
            assert pair.exposed.denials["memory"] >= 1  # nothing new while it is full
            governor.check_memory(lambda: governor.bound)
            answer = await exchange(int(forwarded.places[0].rpartition(":")[2]), b"xread")
            assert answer == b"ead"
            assert not modest.closed
            await other.close()
            OVER.pop().set()

    caplog.set_level("INFO", "dtpd")
    run(scenario)
    assert "more than it may" in caplog.text
    assert "is sent away: it held" in caplog.text


def test_what_messages_wait_for_is_held_by_who_sends_them(run: Run) -> None:
    """A message of JSON-RPC is kept until all of it is there: a connection may have many streams with one each."""

    async def scenario(pair: Pair) -> None:
        port = await pair.start(expose(1, more='kind = "json-rpc"'))
        other = Daemon(pair.near_config(), OTHER)
        await other.start()
        await until(lambda: len(pair.far.callers) == 2)
        far = {caller.peer: connection for connection, caller in pair.far.callers.items()}
        hog, modest = far[NEAR.id], far[OTHER.id]
        clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
        for _, writer in clients:
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + bytes(900_000))
        await until(lambda: pair.far.governor.held()[hog] >= 3_600_000)
        assert pair.far.governor.held()[modest] == CONNECTION
        governor = pair.far.governor
        governor.check_memory(lambda: governor.bound + 3_600_000)
        assert (hog.closed, modest.closed) == (True, False)
        for reader, writer in clients:
            with pytest.raises(ConnectionError):
                await reader.read()
            writer.close()
        await pair.exposed.ledger.wait_empty()
        await until(lambda: set(pair.far.governor.held().values()) == {CONNECTION})
        await other.close()

    run(scenario)


def test_many_streams_that_say_nothing_are_held_by_who_opened_them(run: Run) -> None:
    """Each takes some KiB, though no byte of it waits anywhere."""

    async def scenario(pair: Pair) -> None:
        port = await pair.start(expose(1, more='kind = "http"'))
        count = LEAST // STREAM
        clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
        for _, writer in clients:
            writer.write(b"GET / HTTP/1.1\r\n")
        await until(lambda: pair.exposed.ledger.received == count * 16)
        (hog,) = pair.far.callers
        assert pair.far.governor.held() == {
            hog: CONNECTION + LEAST + count * 16
        }  # of heads that aren't whole, too
        governor = pair.far.governor
        governor.check_memory(lambda: governor.bound + 1)
        assert hog.closed
        for reader, writer in clients:
            with pytest.raises(ConnectionError):
                await reader.read()
            writer.close()

    run(scenario)


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"])
@pytest.mark.parametrize("breaks_off", [False, True])
def test_a_conversation_that_has_ended_is_freed_without_a_collection(
    run: Run, said: bytes, breaks_off: bool
) -> None:
    """In order or not, idle or within a head: what it had was some 10 KB."""

    async def scenario(pair: Pair) -> None:
        async with Backend(page) as backend:
            port = await pair.start(expose(backend.port, more='kind = "http"'))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(said)
            if b"Host" in said:
                await reader.readuntil(b"done")
            await until(lambda: pair.exposed.ledger.received == len(said))
            (session,) = pair.exposed.ledger.open
            left = weakref.ref(session)
            del session
            if breaks_off:
                reset(writer)
            else:
                writer.write_eof()
                await reader.read()
            await pair.exposed.ledger.wait_empty()
            await until(lambda: left() is None)
            writer.close()

    gc.disable()
    try:
        run(scenario)
    finally:
        gc.enable()


def test_what_has_ended_is_freed_before_anybody_goes() -> None:
    """Else a daemon that refuses all, and so allocates nothing, would stay full. Not at each look: it takes time."""

    class Ended:
        """In a cycle, which only a collection finds."""

        def __init__(self) -> None:
            self.itself = self

    steady = 100.0
    shed = []
    governor = Governor(
        10, lambda: {Mock(): LEAST}, lambda one, size: shed.append(size), clock=lambda: steady
    )

    def left() -> bool:
        """Whether one that has ended is there yet, after a look."""
        known = weakref.ref(Ended())
        governor.check_memory(lambda: 10 if known() is None else 11)
        return known() is not None

    gc.disable()
    try:
        assert not left()
        assert (governor.full, shed) == (False, [])
        assert left()
        assert (governor.full, shed) == (True, [LEAST])
        steady += COLLECT_EVERY
        assert not left()
        assert not governor.full
    finally:
        gc.enable()


def test_sessions_of_a_connection_that_has_just_ended_are_nobodys() -> None:
    """Its streams will end in a moment."""
    here, gone = Mock(held=5), Mock(held=7)
    sessions = [
        Mock(stream=Mock(connection=one), kept=kept) for one, kept in ((here, 1), (gone, 2), (here, 3))
    ]
    assert measure_held([here], sessions) == {here: CONNECTION + 5 + 2 * STREAM + 4}


def test_small_ones_are_not_to_blame() -> None:
    shed = []
    governor = Governor(10, lambda: {Mock(): LEAST - 1}, lambda one, size: shed.append(one))
    governor.check_memory(lambda: 10**9)
    assert governor.full
    assert shed == []
    governor.check_memory(lambda: 10)
    assert not governor.full


def test_what_a_conversation_holds_is_known_to_its_end(run: Run) -> None:
    """Also while it waits whether its client says something yet: the governor looks at any time."""

    async def scenario(pair: Pair) -> None:
        async with Backend(page) as backend:
            port = await pair.start(expose(backend.port, more='kind = "http"'))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"nonsense\r\n\r\n")
            assert b"400" in await reader.read()
            (hog,) = pair.far.callers
            assert pair.far.governor.held() == {hog: CONNECTION + STREAM}
            governor = pair.far.governor
            governor.check_memory(lambda: governor.bound + 1)
            assert governor.full
            governor.check_memory(lambda: governor.bound)
            assert not governor.full
            writer.close()

    run(scenario)


def test_whoever_has_many_small_ones_is_to_blame() -> None:
    """As much as another holds by one, and no more of them go than it takes."""
    shed = []
    peer = object()
    many = [Mock(peer=peer) for _ in range(-(-LEAST // CONNECTION))]
    modest = Mock()
    governor = Governor(
        10, lambda: dict.fromkeys((modest, *many), CONNECTION), lambda one, size: shed.append(one)
    )
    governor.check_memory(lambda: 11 + CONNECTION)
    assert shed == many[:2]
    governor.check_memory(lambda: 10**9)
    assert modest not in shed


def test_who_comes_while_memory_is_full_is_sent_away_and_comes_again(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            await pair.start(expose(backend.port))
            address = pair.listener.address("api")
            governor = pair.far.governor
            await governor.close()
            governor.check_memory(lambda: governor.bound + 1)
            assert pair.far.get_status()["memory"] == {"bound": governor.bound, "full": True, "closed": 0}
            with pytest.raises(dtp.ConnectionRefused, match="memory") as refused:
                await dtp.connect(address, identity=OTHER)
            assert refused.value.close_code == CloseCode.BUSY
            governor.check_memory(lambda: governor.bound)
            async with dtp.connect(address, identity=OTHER):
                pass

    run(scenario)


def test_datagrams_that_nobody_reads_are_held_by_who_sends_them(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            port = await pair.start(expose(backend.port))
            await exchange(port, b"x")
            (far,) = pair.far.callers
            (forwarded,) = pair.near.forwarded.values()
            (near,) = forwarded.pool.connections
            for _ in range(20):
                near.send_datagram(bytes(10_000))
            assert pair.near.governor.held()[near] >= CONNECTION + 200_000
            await until(lambda: pair.far.governor.held()[far] >= CONNECTION + 200_000)
            (caller,) = pair.far.get_status()["callers"]
            assert caller["held"] == pair.far.governor.held()[far]

    run(scenario)


def test_no_more_go_than_it_takes(caplog: pytest.LogCaptureFixture) -> None:
    """The largest first, until what they held makes up for it; it is said when it begins."""
    shed = []
    held = [Mock() for _ in range(4)]
    sizes = dict(zip(held, (LEAST, 4 * LEAST, 2 * LEAST, 3 * LEAST), strict=True))
    governor = Governor(10, lambda: sizes, lambda one, size: shed.append((one, size)))  # type: ignore[arg-type, return-value]
    governor.check_memory(lambda: 10 + 6 * LEAST)
    assert shed == [(held[1], 4 * LEAST), (held[3], 3 * LEAST)]
    governor.check_memory(lambda: 10 + 4 * LEAST)
    assert shed[2:] == [(held[1], 4 * LEAST)]
    assert governor.closed == 3
    assert len(caplog.records) == 1


def test_it_looks_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        governor = Governor(-1, dict, Mock())
        governor.start()
        await asyncio.sleep(1)
        assert governor.full
        await governor.close()
        await governor.close()

    clock.run(scenario())


MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("wanted", "workers", "found"),
    [(256, 1, 256), (256, 2, 128), (142, 2, 71), (64, 1, 71), (512, 16, 71), (16, 1, 71)],
)
def test_the_bound_leaves_room_beyond_what_the_process_takes_itself(
    wanted: int, workers: int, found: int
) -> None:
    """Or it would be full from the beginning, and refuse everybody for ever."""
    own = 39 * MIB
    bounded, why = bound(wanted * MIB, workers, own)
    assert bounded == found * MIB
    assert bounded >= own + ROOM
    share = wanted // workers
    said = f"memory: {share} MiB for each process, which takes 39 MiB itself: it may have 71 MiB"
    assert why == (said if found > share else "")


def test_where_nothing_is_wanted_the_default_is_bounded_alike() -> None:
    assert bound(None, 1, 39 * MIB, lambda: 32 * MIB)[0] == 71 * MIB
    assert bound(None, 2, 39 * MIB, lambda: 320 * MIB) == (160 * MIB, "")


def test_a_bound_below_its_own_size_is_raised_and_said(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """At the start and by a reload; what a daemon takes itself is what it took before it served anybody."""

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            pair.top = 'memory = "1MiB"'
            port = await pair.start(expose(backend.port), top=pair.top)
            governor = pair.far.governor
            own = governor.bound - ROOM
            assert 10 * MIB < own <= resident()
            governor.check_memory(lambda: own)
            assert await exchange(port, b"served") == b"served"
            assert len(said()) == 1
            ballast = b"x" * (64 * MIB)
            await pair.far.reload(pair.far_config(pair.expose))
            assert governor.bound == own + ROOM
            assert len(said()) == 2
            del ballast
            pair.top = 'memory = "20GiB"'
            await pair.far.reload(pair.far_config(pair.expose))
            assert governor.bound == 20 * 1024 * MIB
            assert len(said()) == 2

    def said() -> list[str]:
        return [one for one in caplog.messages if "memory: 1 MiB for each process" in one]

    run(scenario)


MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_what_the_system_says(tmp_path: Path) -> None:
    assert resident() > 10_000_000
    assert default() > resident()
    assert default() <= MACHINE / 2
    assert 2 * default(tmp_path / "missing") == pytest.approx(MACHINE, abs=2)


@pytest.mark.parametrize(
    ("groups", "limits", "found"),
    [
        ("0::/a/b", {"a/b/memory.max": "1000"}, 500),
        ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": "2000", "memory.max": "4000"}, 1000),
        ("0::/", {"memory.max": "1000"}, 500),  # a container, which sees its own group as the root
        ("0::/a", {"a/memory.max": "max"}, MACHINE // 2),
        ("0::/a", {"b/memory.max": "1000"}, MACHINE // 2),
        ("5:cpu,memory:/a\n1:name=systemd:/x\n0::/a", {"memory/a/memory.limit_in_bytes": "1000"}, 500),
        ("5:memory:/outside", {"memory/memory.limit_in_bytes": "1000"}, 500),
        ("5:memory:/a", {"memory/a/memory.limit_in_bytes": "9223372036854771712"}, MACHINE // 2),
    ],
)
def test_a_control_group_may_have_less_than_the_machine(
    tmp_path: Path, groups: str, limits: dict[str, str], found: int
) -> None:
    """As containers and services of systemd do: a daemon with half of the machine's would be killed before it."""
    (tmp_path / "groups").write_text(f"{groups}\n")
    for name, limit in limits.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{limit}\n")
    assert default(tmp_path / "groups", tmp_path / "root") == found
