"""What may go wrong: floods, garbage, slow clients, limits that are reached, and whether anything is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import random
import socket
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from dtp.daemon.config.values import LocalPlace
from dtp.daemon.patience import Patience
from dtp.daemon.policies import Moment
from dtp.daemon.reasons import Reason
from dtp.daemon.relays.backends.dialer import BackendDialer
from dtp.daemon.relays.forward import SAME_REASON
from dtp.daemon.relays.pool import Pool
from dtp.daemon.server import LIMITS, Daemon
from dtp.limited_log import OF_ONE, REFUSED

from .. import programs
from ..conftest import NEAR, Backend, Pair, Run, config, cut, echo, run_scenario
from ..process.test_daemon_drains import Waiting
from ..process.test_daemon_programs import ask, connected, echo_server
from ..programs import DTPD, PATIENCE, place
from .test_daemon_relay import exchange, expose, reset, until

__all__ = ["place"]


async def flood(pair: Pair, count: int, first: bytes = b"") -> list[tuple[Any, ...]]:
    """Connections from another address of loopback that say nothing, or garbage."""
    host, port = pair.listener.urls[0].removeprefix("tcp://").split(":")
    return [await asyncio.open_connection(host, int(port), local_addr=("127.0.0.2", 0)) for _ in range(count)]


def test_a_caller_gets_through_a_flood_of_silent_ones(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            await pair.start(expose(backend.port))
            silent = await flood(pair, 200)
            near = pair.near
            await near.close()
            pair.near = type(near)(near.config, near.identity)
            await pair.near.start()
            assert await exchange(pair.port, b"hello") == b"hello"
            assert len(pair.listener.half_open) <= LIMITS.half_open_per_source
            for _, writer in silent:
                writer.close()

    run(scenario)


def test_garbage_is_survived(run: Run) -> None:
    seed = 20261121
    print(f"seed {seed}")

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            port = await pair.start(expose(backend.port))
            noise = random.Random(seed)
            for _ in range(60):
                for reader, writer in await flood(pair, 5):
                    writer.write(noise.randbytes(noise.randrange(1, 400)))
                    writer.write_eof()
                    await reader.read()
                    writer.close()
            assert await exchange(port, b"hello") == b"hello"
            assert not pair.listener.half_open

    run(scenario)


def test_a_head_that_trickles_in_is_cut_off(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        pair.make = partial(Daemon, patience=Patience(head=0.1))
        port = await pair.start(expose(1, more='kind = "http"'))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.closing(writer):  # whatever comes, or the warning about it hides what came
            writer.write(b"GET / HTTP/1.1\r\n")
            with pytest.raises(ConnectionResetError):
                await reader.read()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        assert pair.exposed.ledger.failed == 1

    run(scenario)


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ('bytes = "100KB"', "more bytes than one request may have"),
        ('time = "100ms"', "longer than one request may take"),
        ('idle = "100ms"', "no bytes for too long"),
    ],
)
def test_limits_of_a_stream(run: Run, limits: str, why: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            port = await pair.start(expose(backend.port, more=f"limits = {{ {limits} }}"))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.suppress(ConnectionError):
                for _ in range(200 if "bytes" in limits else 1):
                    writer.write(bytes(1000))
                    await writer.drain()
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()
        assert why in [
            vars(record)["fields"].get("why") for record in caplog.records if record.name == "dtpd"
        ]

    caplog.set_level("INFO", "dtpd")
    run(scenario)


def test_bandwidth_slows_down_and_loses_nothing(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            port = await pair.start(expose(backend.port, more='rate = { bandwidth = "8MB/s" }'))
            loop = asyncio.get_running_loop()
            began = loop.time()
            data = bytes(range(256)) * 16_000
            assert await exchange(port, data) == data  # 4 MB there and 4 MB back
            assert loop.time() - began > 0.5

    run(scenario)


@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_bandwidth_is_not_multiplied_by_streams(run: Run, kind: str) -> None:
    """The first bytes of a stream are there before anybody is asked: another stream has to wait for what is owed."""

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got = 0
        while got < 60_000:
            got += len(await reader.read(65536))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async def scenario(pair: Pair) -> None:
        async with Backend(swallow) as backend:
            rate = 'rate = { bandwidth = "4MB/s" }'
            port = await pair.start(expose(backend.port, more=f'kind = "{kind}"\n{rate}'))
            loop = asyncio.get_running_loop()
            began = loop.time()
            for _ in range(50):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" + bytes(60_000))
                assert (await reader.readline()).startswith(b"HTTP/1.1 200")
                writer.close()
            assert loop.time() - began > 0.5  # 0.75 s, less what may be ahead

    run(scenario)


def test_streams_that_wait_for_bandwidth_end_with_the_daemon(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            port = await pair.start(expose(backend.port, more='rate = { bandwidth = "1B/h" }'))
            first = await asyncio.open_connection("127.0.0.1", port)
            first[1].write(b"x")
            assert await first[0].read(1) == b"x"
            ends = [first, await asyncio.open_connection("127.0.0.1", port)]
            ends[1][1].write(b"x")
            await until(lambda: pair.exposed.active == 2)
            assert backend.connections == 1
            pair.exposed.abort_streams(Reason.DRAINING)
            for reader, writer in ends:
                with pytest.raises(ConnectionResetError):
                    await reader.read()
                writer.close()
            assert pair.exposed.active == 0

    run(scenario)


@pytest.mark.parametrize(
    ("host", "more"),
    [("localhost", ""), ("127.0.0.1", 'kind = "http"'), ("127.0.0.1", 'rate = { bandwidth = "1B/h" }')],
)
def test_a_stream_that_is_ended_before_it_has_begun(run: Run, host: str, more: str) -> None:
    """In the same turn: a task that has taken no step can't clean up after itself."""

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            port = await pair.start(expose(backend.port, more=more).replace("127.0.0.1", host))
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"x")  # is more than the rate allows
            await until(lambda: pair.exposed.active)
            exposed, take = pair.exposed, pair.exposed.take_stream
            exposed.take_stream = lambda *which: (take(*which), exposed.abort_streams(Reason.DRAINING))
            with pytest.raises(ConnectionResetError):
                await exchange(port, b"x")
            await until(lambda: exposed.active == 0)
            writer.close()

    run(scenario)


def test_a_program_that_is_ended_before_it_is_served(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            await pair.start(expose(backend.port))
            (forwarded,) = pair.near.forwarded.values()
            forwarded.pool = cast(Pool, Waiting(pair.pool, pair.pool.get_stream))  # so that a task is needed
            here, there = socket.socketpair()
            with here:
                there.setblocking(False)
                forwarded._on_socket(there)
                forwarded.abort_streams(Reason.DRAINING)
                await until(lambda: there.fileno() < 0)
                assert here.recv(1) == b""
                assert not forwarded.active

    run(scenario)


def test_concurrency_is_given_back(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            port = await pair.start(expose(backend.port, more="concurrency = { identity = 2 }"))
            kept = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
            for reader, writer in kept:
                writer.write(b"x")
                assert await reader.readexactly(1) == b"x"
            with pytest.raises(ConnectionResetError):
                await exchange(port, b"too many")
            assert pair.exposed.denials == {"concurrency": 1}
            kept[0][1].close()
            reset(kept[1][1])
            await pair.exposed.ledger.wait_empty()
            assert await exchange(port, b"again") == b"again"

    run(scenario)


def test_what_was_counted_of_a_service_goes_with_it(run: Run) -> None:
    """Services that come and go must not leave their counts behind; one of that name begins anew."""

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            rules = expose(backend.port, more='rate = { requests = "1/h" }')
            port = await pair.start(rules)
            assert await exchange(port, b"hello") == b"hello"
            with pytest.raises(ConnectionResetError):
                await exchange(port, b"too early")
            for text in (rules.replace('"api"', '"other"'), rules):
                await pair.far.reload(pair.far_config(text))
            assert await exchange(port, b"anew") == b"anew"
            assert {key[0] for key in pair.far.counting.policies._made} == {"", "api"}

    run(scenario)


def test_a_backend_that_does_not_answer_is_given_up(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """As one behind a filter that drops all: neither there nor refused."""

    async def connect(place: LocalPlace) -> socket.socket:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    caplog.set_level("INFO", "dtpd")

    async def scenario(pair: Pair) -> None:
        pair.make = partial(Daemon, dialer=BackendDialer(lambda place: None, connect))
        port = await pair.start(expose(1, more='connect-timeout = "50ms"'))
        with pytest.raises(ConnectionResetError):
            await exchange(port, b"hello")
        (backend,) = pair.exposed.backends.balancer.backends
        assert (backend.failures, backend.active, pair.exposed.active) == (1, 0, 0)
        assert "no answer in 0.05 s" in [vars(record)["fields"].get("why") for record in caplog.records]

    run(scenario)


def test_a_stream_that_a_later_rule_refuses_is_not_one_of_those_at_once(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            rules = 'concurrency = { identity = 1 }\nrate = { requests = "1/h" }'
            port = await pair.start(expose(backend.port, more=rules))
            assert await exchange(port, b"hello") == b"hello"
            await pair.exposed.ledger.wait_empty()
            for _ in range(2):
                with pytest.raises(ConnectionResetError):
                    await exchange(port, b"too early")
            assert pair.exposed.denials == {"rate": 2}
            assert pair.exposed.active == 0

    run(scenario)


def test_callers_who_are_not_on_the_list_never_get_a_connection(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            text = expose(backend.port).replace('"*"', f'"dtp1{"q" * 58}"')
            with pytest.raises(Exception, match="dtp1qqq"):  # the list itself is checked
                await pair.start(text)
            me = "0x" + "ab" * 32
            port = await pair.start(expose(backend.port).replace('"*"', f'"{me}"'))
            with pytest.raises(ConnectionResetError):
                await exchange(port, b"hello")
            assert "is not on the list" in pair.near.get_status()["forwarded"][0]["trouble"]
            assert backend.connections == 0

    run(scenario)


def test_denials_dont_fill_the_log(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    second = 0.0

    async def scenario(pair: Pair) -> None:
        nonlocal second
        # All in one second, however long it takes.
        pair.make = partial(Daemon, clock=lambda: Moment(1000 + second, 0.0))
        async with Backend(echo) as backend:
            port = await pair.start(expose(backend.port, more='rate = { requests = "1/d" }'))
            assert await exchange(port, b"x") == b"x"
            for _ in range(100):
                with pytest.raises(ConnectionResetError):
                    await exchange(port, b"x")
            assert pair.exposed.denials == {"rate": 100}
            second = 1.0
            with pytest.raises(ConnectionResetError):
                await exchange(port, b"x")

    caplog.set_level("INFO", "dtpd")
    run(scenario)
    told = [line for line in caplog.messages if "refused by rate" in line or "more denials" in line]
    assert "refused by rate" in told[-1]  # the next second has its own
    logged = caplog.text.count("refused by rate")
    assert logged == OF_ONE + 1
    assert f"{100 - OF_ONE} more denials were not logged" in caplog.text


def test_programs_whose_peer_nobody_finds_dont_fill_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    second = 0.0

    async def ask_often(port: int) -> None:
        for _ in range(30):
            with pytest.raises(ConnectionResetError):
                await exchange(port, b"x")

    async def scenario() -> None:
        nonlocal second
        text = '[[forward]]\nlisten = "127.0.0.1:0"\nto = "dtp://nobody/api"\n'
        near = Daemon(config(tmp_path, text), NEAR, clock=lambda: Moment(1000 + second, 0.0))
        await near.start()
        try:
            (forwarded,) = near.forwarded.values()
            port = int(forwarded.places[0].rpartition(":")[2])
            await ask_often(port)
            second = SAME_REASON
            await ask_often(port)
            assert forwarded.ledger.failed == 60
        finally:
            await near.close()

    caplog.set_level("INFO", "dtpd")
    run_scenario(scenario)
    told = [line for line in caplog.messages if "127.0.0.1:0: can't find dtp://nobody/api" in line]
    assert len(told) == 2, told[:3]
    assert "127.0.0.1:0: 29 more programs that got no stream were not logged" in caplog.messages


def test_streams_that_peers_reset_dont_fill_the_log(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(pair: Pair) -> None:
        # All in one second for who exposes, however long it takes.
        pair.make = partial(Daemon, clock=lambda: Moment(1000.0, 0.0))
        async with Backend(echo) as backend:
            port = await pair.start(expose(backend.port))
            for _ in range(100):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"x")
                assert await reader.readexactly(1) == b"x"
                reset(writer)
            await until(lambda: not pair.exposed.ledger.open)

    caplog.set_level("INFO", "dtpd")
    run(scenario)
    exposed = [line for line in caplog.messages if "stream of" in line]
    assert len(exposed) == OF_ONE, exposed[:1]
    assert sum("a stream broke off" in line for line in caplog.messages) >= REFUSED


def test_a_program_waits_no_longer_for_a_peer_that_allows_no_stream(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(pair: Pair) -> None:
        pair.make = partial(Daemon, limits=replace(LIMITS, streams=1), patience=Patience(stream=0.05))
        async with Backend(echo) as backend:
            port = await pair.start(expose(backend.port))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            with pytest.raises(ConnectionResetError):
                await exchange(port, b"x")
            writer.close()
            (forwarded,) = pair.near.forwarded.values()
            await until(lambda: forwarded.active == 0)
            assert forwarded.ledger.failed == 1
            assert "has allowed no further stream for 0.05 s" in caplog.text

    run(scenario)


def test_streams_have_a_budget(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            port = await pair.start(expose(backend.port))
            pair.far.room.most = 1
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            with pytest.raises(ConnectionResetError):
                await exchange(port, b"too many")
            assert pair.exposed.denials == {"streams": 1}
            writer.close()
            await pair.exposed.ledger.wait_empty()
            assert await exchange(port, b"again") == b"again"

    run(scenario)


async def say_nothing(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.closing(writer):
        await reader.read()


def test_programs_have_a_budget(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """What a forward has counts as what is exposed does, also of programs that have yet to say whom they want."""

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            port = await pair.start(expose(backend.port))
            pair.near.room.most = 1
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            pair.far.room.most = 4
            assert [one.get_status()["streams"] for one in (pair.near, pair.far)] == [
                {"active": 1, "from_peers": 0, "most": 1},
                {"active": 1, "from_peers": 1, "most": 4},
            ]
            with pytest.raises(ConnectionResetError):
                await say_nothing(port)
            assert backend.connections == 1
            (forwarded,) = pair.near.forwarded.values()
            assert (forwarded.ledger.streams, forwarded.ledger.failed) == (2, 1)
            writer.close()
            await forwarded.ledger.wait_empty()
            assert await exchange(port, b"again") == b"again"
            governor = pair.near.governor
            governor.check_memory(lambda: governor.bound + 1)
            with pytest.raises(ConnectionResetError):
                await exchange(port, b"no memory")
            governor.check_memory(lambda: governor.bound)
            waiting = asyncio.Event()
            forwarded._start_serving(waiting.wait(), lambda: None)  # type: ignore[arg-type]
            with pytest.raises(ConnectionResetError):
                await exchange(port, b"too many")
            waiting.set()

    run(scenario)
    assert "the daemon has 1 stream open" in caplog.text
    assert "the daemon has used up its memory" in caplog.text


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_nothing_is_left_behind(run: Run) -> None:
    """Many streams that end in every way; then tasks, descriptors and books are as before."""
    seed = 7
    print(f"seed {seed}")

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            port = await pair.start(expose(backend.port, 1))
            chance = random.Random(seed)
            await exchange(port, b"warm")
            await pair.exposed.ledger.wait_empty()

            async def one() -> None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(chance.randbytes(chance.randrange(1, 60_000)))
                way = chance.randrange(4)
                if way == 0:
                    writer.write_eof()
                    await reader.read()
                elif way == 1:
                    await reader.read(1)
                if way == 2:
                    reset(writer)
                else:
                    writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()

            tasks, before = len(asyncio.all_tasks()), descriptors()
            for number in range(12):
                await asyncio.gather(*(one() for _ in range(25)))
                if number % 4 == 3:
                    cut(pair.listener.connections)
            for ledger in (pair.exposed.ledger, *(one.ledger for one in pair.near.forwarded.values())):
                await ledger.wait_empty()
            # Carriers and connections that were cut are closed when both sides have noticed.
            while len(asyncio.all_tasks()) > tasks or descriptors() > before + 2:
                gc.collect()
                await asyncio.sleep(0)
            assert sum(one.active for one in pair.exposed.backends.balancer.backends) == 0
            assert pair.exposed.active == 0
            assert await exchange(port, b"still") == b"still"

    run(scenario)


@pytest.mark.slow
def test_out_of_descriptors_and_back(place: programs.Place) -> None:
    """Half of the clients can't be served; once they are gone, all is well."""
    backend = echo_server(place)
    far, _ = place.dtpd(
        "far",
        f"""[daemon]
listen = ["tcp://127.0.0.1:0"]
[[expose]]
service = "api"
backend = "127.0.0.1:{backend}"
allow = ["*"]
""",
        preexec_fn=few_descriptors,
    )
    status = json.loads(place.command("status", "--json", "-c", place.folder / "far.toml"))
    to = status["listen"][0] + "/api"
    _, places = place.dtpd("near", f'[[forward]]\nlisten = "127.0.0.1:0"\nto = "{to}"')
    port = int(places[0]["listen"].rpartition(":")[2])
    clients = [connected(port) for _ in range(80)]
    served = 0
    for client in clients:
        try:
            client.sendall(b"x")
            served += client.recv(1) == b"x"
        except ConnectionError:
            pass
    assert 10 <= served <= 40
    for client in clients:
        client.close()
    while json.loads(place.command("status", "--json", "-c", place.folder / "far.toml"))["exposed"][0][
        "open"
    ]:
        pass
    with connected(port) as client:
        ask(client, b"well again")
    assert far.process.poll() is None


def few_descriptors() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def test_a_full_disk_does_not_stop_it(place: programs.Place) -> None:
    """Standard error goes nowhere (/dev/full): logging fails, serving doesn't."""
    backend = echo_server(place)
    path = place.file(
        "far",
        f"""[daemon]
listen = ["tcp://127.0.0.1:0"]
[[expose]]
service = "api"
backend = "127.0.0.1:{backend}"
allow = ["*"]
""",
    )
    with open("/dev/full", "w") as full:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", DTPD, "run", "--json", "-c", path],
            stdout=subprocess.PIPE,
            stderr=full,
        )
    place.stack.callback(process.stdout.close)
    place.stack.callback(process.wait)
    place.stack.callback(process.kill)
    to = json.loads(process.stdout.readline())["address"]
    _, places = place.dtpd("near", f'[[forward]]\nlisten = "127.0.0.1:0"\nto = "{to}"')
    with connected(int(places[0]["listen"].rpartition(":")[2])) as client:
        ask(client, b"hello")
    with socket.create_connection(
        ("127.0.0.1", int(to.rpartition(":")[2].partition("/")[0])), PATIENCE
    ) as noise:
        noise.sendall(b"garbage that is logged")
    with connected(int(places[0]["listen"].rpartition(":")[2])) as client:
        ask(client, b"still here")
