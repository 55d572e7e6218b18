"""Datagrams that go no further are counted, by why; of a burst the log has a line."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import re
import socket
import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
from rich.console import Console

from dtp.cli.daemon_status import show
from dtp.daemon.config import values
from dtp.daemon.policies import Bounds
from dtp.daemon.relays import udp
from dtp.daemon.relays.dropped import EVERY, BackendDrops, Drop, Dropped, KernelDrops
from dtp.daemon.relays.ledger import Ending
from dtp.daemon.web.metrics import exposition
from dtp.errors import PeerError
from dtp.session.codes import DatagramTooLarge
from dtp.testing import clock

from ..conftest import Pair, Run, printed
from .test_daemon_relay import until
from .test_daemon_udp import Endpoint, Other, of, reading, sources_of, start, tell_readable

# ---- what is dropped is counted ----------------------------------------------------------------------------------


def test_sources_count_what_they_drop() -> None:
    """Those that wait too long in a row, are evicted, or hear that there is no session; new ones beyond the bound."""

    async def scenario() -> None:
        refuse: list[Any]
        dropped, refuse = Dropped("here"), []

        def on_new(source: tuple[str, int]) -> None:
            if refuse:
                sources.note_refused(source)

        sources = sources_of(on_new, dropped, most=3, asking=4)

        def lost(what: Callable[..., Any]) -> int:
            before = dropped.counts["no-session"]
            what()
            return dropped.counts["no-session"] - before

        places = [("127.0.0.1", port) for port in range(1, 8)]
        for _ in range(udp.EARLY):
            sources.receive_datagram(b"x", places[0])
        assert dropped.counts == {}
        assert lost(lambda: sources.receive_datagram(b"one too many", places[0])) == 1
        sources.receive_datagram(b"x", places[1])
        sources.receive_datagram(b"x", places[2])
        assert (
            lost(lambda: sources.receive_datagram(b"x", places[3])) == udp.EARLY
        )  # the first one had to make room
        assert lost(lambda: sources.receive_datagram(b"x", places[4])) == 1  # as many ask as may
        assert lost(lambda: sources.note_refused(places[3])) == 1
        refuse.append(True)
        assert lost(lambda: sources.receive_datagram(b"x", places[5])) == 1  # refused at once
        session = Mock(ended=False, leaving=False, spec=udp.UdpSession)
        assert lost(lambda: sources.note_opened(places[1], session)) == 0
        sources.stop_sources()
        assert lost(lambda: sources.receive_datagram(b"x", places[6])) == 1
        assert set(dropped.counts) == {"no-session"}

    asyncio.run(scenario())


def test_sessions_count_what_they_drop() -> None:
    async def scenario() -> None:
        other = Other()

        def counts() -> dict[str, int]:
            return dict(other.dropped.counts)

        session, _, _ = other.session(1)
        session.send_datagram(b"x")
        assert counts() == {}
        other.connection.datagrams_dropped = 3  # the queue was full: older ones went
        session.send_datagram(b"x")
        assert counts() == {"connection-full": 3}
        other.connection.send_datagram.side_effect = DatagramTooLarge("no")
        session.send_datagram(b"x")
        assert counts() == {"connection-full": 3, "too-large": 1}
        session.finish(Ending())
        await asyncio.sleep(udp.LATE)
        session.send_datagram(b"too late")
        session.receive_datagram(memoryview(b"too late"))
        assert counts()["no-session"] == 2
        bounded, _, _ = other.session(2, bounds=Bounds(data=1))
        bounded.receive_datagram(memoryview(b"12"))
        assert counts()["rule"] == 1
        lost, _, _ = other.session(3)
        other.connection.send_datagram.side_effect = PeerError("it broke")
        lost.send_datagram(b"x")
        assert counts()["no-session"] == 3

    clock.run(scenario())


def test_a_hub_counts_what_it_drops() -> None:
    """What is nobody's, what came too early beyond the bound, and in the end all that waited in vain."""

    async def scenario() -> None:
        other = Other()
        other.session(1)
        for data in (b"short", *(of(number, b"x") for number in range(2, 2 + udp.EARLY + 3))):
            other.datagrams.put_nowait(data)
        await asyncio.sleep(1)
        assert other.dropped.counts == {"no-session": 4}
        other.connection.datagrams_dropped = 5
        other.datagrams.put_nowait(of(1, b"x"))
        await asyncio.sleep(1)
        assert other.dropped.counts == {"no-session": 4, "connection-full": 5}
        other.connection.datagrams_dropped = 7
        other.datagrams.put_nowait(PeerError("it is over"))
        await asyncio.sleep(1)
        assert other.dropped.counts == {"no-session": 4 + udp.EARLY, "connection-full": 7}

    clock.run(scenario())


def test_a_backend_s_socket_counts_what_it_drops() -> None:
    async def scenario() -> None:
        sock, dropped, watcher = Mock(fileno=lambda: 5, getsockopt=lambda *_: b""), Dropped("api"), Mock()
        backend = udp.BackendSocket(sock, dropped, watcher)
        refused = ConnectionRefusedError()
        for errors, counts in (
            ([BlockingIOError(errno.EAGAIN, "full")], {"socket-full": 1}),
            ([OSError(errno.ENOBUFS, "full")], {"socket-full": 1}),
            ([OSError(errno.ENETUNREACH, "no way")], {"unreachable": 1}),
            ([refused, None], {"unreachable": 1}),  # an earlier one
            ([refused, refused], {"unreachable": 3}),  # two earlier ones, and this one
        ):
            dropped.counts.clear()
            sock.send.side_effect = errors
            backend.deliver_datagram(memoryview(b"x"))
            assert dropped.counts == counts
        backend.start_reading(Mock(ended=False))
        dropped.counts.clear()
        sock.recv.side_effect = [refused, b"one", BlockingIOError]
        tell_readable(watcher)
        assert dropped.counts == {"unreachable": 1}

    asyncio.run(scenario())


def test_answers_that_no_program_can_be_sent_are_counted() -> None:
    async def scenario() -> None:
        dropped = Dropped("here")
        end = reading(sources_of(), dropped)
        end.answer_source(("255.255.255.255", 9), memoryview(b"x"))  # a broadcast, which takes a permission
        assert dropped.counts == {"unreachable": 1}
        end.close()

    asyncio.run(scenario())


@pytest.mark.skipif(sys.platform != "linux", reason="Linux counts what it drops")
def test_what_the_kernel_had_no_room_for_is_counted() -> None:
    """As while this process was busy or stopped: nobody reads, until all is there or gone."""

    async def scenario() -> None:
        dropped, watcher = Dropped("here"), Mock()
        sock, sources = udp.bind(values.place("127.0.0.1:0")), sources_of(dropped=dropped, asking=0)
        end = udp.SourceSocket(sock, sources, dropped, watcher)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:
            program.connect(sock.getsockname())
            for _ in range(100):
                program.send(bytes(1000))
        for _ in range(10):
            tell_readable(watcher)
        assert dropped.counts["socket-full"] > 50
        assert sum(dropped.counts.values()) == 100
        later = Dropped("after an upgrade")
        KernelDrops(sock, later).count_new()
        assert later.counts == {}
        end.close()

    asyncio.run(scenario())


@pytest.mark.skipif(sys.platform != "linux", reason="Linux counts what it drops")
def test_what_nobody_reads_any_more_is_counted() -> None:
    """As at an upgrade: what the kernel dropped since the last look, and answers for a session that is over."""

    async def scenario() -> None:
        dropped, here, answers = Dropped("here"), Dropped("there"), 3
        sources = sources_of(dropped=dropped)
        end = reading(sources, dropped)
        end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as program,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        ):
            program.connect(end.sock.getsockname())
            for _ in range(100):
                program.send(bytes(1000))
            sources.stop_sources()
            assert dropped.counts["socket-full"] > 50
            server.bind(("127.0.0.1", 0))
            sock = udp.connect(values.place(f"127.0.0.1:{server.getsockname()[1]}"))
            backend = udp.BackendSocket(sock, here)
            for _ in range(answers):
                server.sendto(b"late", sock.getsockname())
            backend.close()
            assert here.counts == {"no-session": answers}

    asyncio.run(scenario())


def test_a_process_that_ends_tells_what_it_has_dropped(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Its counts end with it: of an upgrade nobody heard what the old one dropped in its last second."""

    async def scenario(pair: Pair) -> None:
        server = await Endpoint(lambda data: data).open()
        place = await start(pair, server)
        client = await Endpoint().open(to=place)
        assert await client.ask(b"one") == b"one"
        client.transport.sendto(bytes(udp._MOST))
        await until(lambda: pair.near.get_status()["forwarded"][0]["dropped"])
        await pair.near.hand_over()
        await pair.near.close()
        assert [line for line in caplog.messages if "1 too-large" in line]
        client.close()
        server.close()

    caplog.set_level("INFO", "dtpd")
    run(scenario)


def test_a_line_for_a_burst(caplog: pytest.LogCaptureFixture) -> None:
    """However many are dropped: a line with the sums a second later, and the next after `EVERY`, of what is new."""

    async def scenario() -> None:
        dropped = Dropped("api")
        for _ in range(1000):
            dropped.add_dropped(Drop.TOO_LARGE)
            dropped.add_dropped(Drop.SOCKET_FULL, 2)
            dropped.add_dropped(Drop.RULE, 0)
        assert caplog.messages == []
        await asyncio.sleep(1.5)
        assert caplog.messages == ["api: datagrams dropped: 1,000 too-large, 2,000 socket-full"]
        for _ in range(30):
            dropped.add_dropped(Drop.RULE)
            await asyncio.sleep(1)
        lines = caplog.messages[1:]
        assert 2 <= len(lines) <= 30 / EVERY + 1
        await asyncio.sleep(EVERY)
        assert sum(int(line.split()[-2]) for line in caplog.messages[1:]) == 30
        assert dropped.counts == {"too-large": 1000, "socket-full": 2000, "rule": 30}
        await asyncio.sleep(10 * EVERY)
        assert len(caplog.messages) <= 2 + 30 / EVERY + 1

    with caplog.at_level("INFO", "dtpd"):
        clock.run(scenario())


def test_a_frozen_backend_costs_its_datagrams_and_what_the_daemon_drops_is_counted(run: Run) -> None:
    """Nobody is told what the kernel drops at another program's socket; what goes on later passes again."""

    async def scenario(pair: Pair) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as frozen:
            frozen.bind(("127.0.0.1", 0))
            frozen.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            place = await start(pair, Mock(port=frozen.getsockname()[1]))
            client = await Endpoint().open(to=place)
            for number in range(1, 51):
                client.transport.sendto(bytes(1000))
                await until(lambda there=1000 * number: pair.exposed.ledger.received == there)
            frozen.setblocking(False)
            read = 0
            with contextlib.suppress(BlockingIOError):
                while frozen.recv(2000):
                    read += 1
            assert 0 < read < 50
            assert pair.near.get_status()["forwarded"][0]["dropped"] == {}
            assert pair.far.get_status()["exposed"][0]["dropped"] == {}
            client.close()

    run(scenario)


def test_counts_are_in_the_metrics_and_the_status(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        server = await Endpoint(lambda data: data).open()
        client = await Endpoint().open(to=await start(pair, server))
        client.transport.sendto(bytes(65_000))
        assert await client.ask(b"small") == b"small"
        text = exposition(pair.near).decode()
        assert re.search(
            r'dtpd_datagrams_dropped_total\{name="udp:127\.0\.0\.1:\d+",reason="too-large",side="forwarded"\} 1\.0',
            text,
        )
        console = Console(file=io.StringIO(), width=200)
        show(pair.near.get_status(), console)
        assert re.search(r"datagrams dropped by udp:127\.0\.0\.1:\d+: 1 too-large", printed(console))
        client.close()
        server.close()

    run(scenario)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems don't tell it")
@pytest.mark.parametrize(
    ("family", "bound", "asked"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET, "0.0.0.0", "localhost"),
        (socket.AF_INET6, "::1", "[::1]"),
        (socket.AF_INET6, "::", "127.0.0.1"),
    ],
)
def test_what_a_frozen_backend_has_no_room_for_is_counted(family: int, bound: str, asked: str) -> None:
    """Only its own socket knew of it: nothing was said of a backend that was stopped."""

    async def scenario() -> None:
        dropped = Dropped("api")
        with contextlib.closing(socket.socket(family, socket.SOCK_DGRAM)) as frozen:
            frozen.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            frozen.bind((bound, 0))
            place = values.place(f"{asked}:{frozen.getsockname()[1]}")
            full = BackendDrops(place, dropped)
            backend = udp.BackendSocket(udp.connect(place), dropped, full=full)
            for _ in range(40):
                backend.deliver_datagram(memoryview(bytes(1000)))
            await full.count_new()
            frozen.setblocking(False)
            kept = sum(1 for _ in iter(lambda: taken(frozen), False))
            assert 0 < kept < 40
            assert dropped.counts == {"backend-full": 40 - kept}
            await full.count_new()
            assert dropped.counts.total() == 40 - kept
            backend.close()

    asyncio.run(scenario())


def taken(sock: socket.socket) -> bool:
    """Take a datagram; False where none is there."""
    try:
        return bool(sock.recv(2000))
    except BlockingIOError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="other systems don't tell it")
def test_a_daemon_says_what_a_frozen_backend_has_no_room_for(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as frozen:
            frozen.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            frozen.bind(("127.0.0.1", 0))
            place = await start(pair, Mock(port=frozen.getsockname()[1]))
            client = await Endpoint().open(to=place)
            for _ in range(40):
                client.transport.sendto(bytes(1000))
            await until(lambda: pair.exposed.dropped.counts["backend-full"])
            client.close()

    run(scenario)
