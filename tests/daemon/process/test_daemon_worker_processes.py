"""Workers that are real processes: they die, hang and are replaced; what they count and who is where is common."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import time
import urllib.request
from collections.abc import Callable, Coroutine
from typing import Any, Self

import pytest

from ..conftest import OTHER, Backend
from ..programs import DTPD, PATIENCE, Place, free_port, place
from ..streams.test_daemon_relay import exchange

__all__ = ["place"]


WORKERS = 4


def expose(
    place: Place,
    backend: str,
    *,
    workers: int = WORKERS,
    listen: str = "tcp://127.0.0.1:0",
    more: str = "",
    top: str = "",
) -> str:
    return f"""[daemon]
workers = {workers}
listen = ["{listen}"]
{top}
[[expose]]
service = "api"
backend = ["{backend}"]
allow = ["*"]
{more}
"""


def until(condition: Callable[..., Any], what: str = "it never held") -> Any:
    """Until a condition holds that nothing reports."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return found


# ---- processes ---------------------------------------------------------------------------------------------------


class Cutter:
    """A TCP proxy that passes bytes on, and cuts all it has when told."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._writers: set[Any] = set()
        self.carriers = 0
        self.came = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        self._writers |= {writer, far_writer}
        self.carriers += 1
        self.came.set()

        async def pump(source: Any, sink: Any) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    def cut(self) -> None:
        """End all carriers that there are."""
        writers, self._writers = self._writers, set()
        for writer in writers:
            writer.transport.abort()

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        self._server.close()


async def slow_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """In pieces, so that a stream lasts for many cuts."""
    while data := await reader.read(16384):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


def status_of(place: Place, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(place.command("status", "--json", "-c", place.folder / f"{name}.toml"))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "cuts"), [("tcp", 60), ("ws", 15)])
def test_a_connection_finds_its_worker_whenever_it_is_cut(place: Place, scheme: str, cuts: int) -> None:
    """Each new carrier lands on any of the workers; the streams go on where they were, bytes equal."""
    seed = 20261121
    print(f"seed {seed}")

    async def scenario() -> None:
        async with Backend(slow_echo) as backend:
            far, exposed = await asyncio.to_thread(
                place.dtpd, "far",
                expose(place, f"127.0.0.1:{backend.port}", listen=f"{scheme}://127.0.0.1:0"),
            )  # fmt: skip
            address = exposed[0]["address"]
            port = int(address.rpartition(":")[2].partition("/")[0])
            async with Cutter(port) as cutter:
                to = address.replace(f":{port}/", f":{cutter.port}/")
                near, places = await asyncio.to_thread(
                    place.dtpd, "near", f'[[forward]]\nlisten = "127.0.0.1:0"\nto = "{to}"\n'
                )
                local = int(places[0]["listen"].rpartition(":")[2])
                data = random.Random(seed).randbytes(4_000_000)
                step = len(data) // cuts
                reader, writer = await asyncio.open_connection("127.0.0.1", local)
                got = bytearray()
                for begin in range(0, len(data), step):
                    writer.write(data[begin : begin + step])
                    # Half of it is on its way when the cut comes; what was on its way before has arrived.
                    got += await reader.readexactly(begin + min(step, len(data) - begin) // 2 - len(got))
                    cutter.came.clear()
                    cutter.cut()
                    await cutter.came.wait()
                writer.write_eof()
                got += await reader.read()
                assert got == data
                writer.close()
                assert backend.connections == 1
            status = await asyncio.to_thread(status_of, place, "far")
            assert status["handed_over"] >= cuts // 2  # 3 of 4 carriers come to another worker
            assert status["exposed"][0]["received"] == status["exposed"][0]["sent"] == len(data)
            for program in (near, far):
                program.process.send_signal(signal.SIGTERM)
            for program in (near, far):
                await asyncio.to_thread(program.wait)
                assert b"Traceback" not in program.errors

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


class Far:
    """A daemon of several workers, and a service of a test behind it."""

    def __init__(self, place: Place, backend: Backend, *, code: str = DTPD, **options: Any) -> None:
        self.place = place
        self.nears: list[Any] = []
        text = expose(place, f"127.0.0.1:{backend.port}", **options)
        self.program, exposed = place.dtpd("far", text, code=code)
        self.address = exposed[0]["address"]

    def status(self) -> dict[str, Any]:
        return status_of(self.place, "far")

    def near(self, name: str = "near") -> int:
        """A daemon of a caller of its own; gives its port."""
        text = f'[[forward]]\nlisten = "127.0.0.1:0"\nto = "{self.address}"\n'
        program, places = self.place.dtpd(name, text)
        self.nears.append(program)
        return int(places[0]["listen"].rpartition(":")[2])


def play(scenario: Coroutine[Any, Any, object]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 2 * PATIENCE))


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_and_nothing_else_is_dropped(place: Place) -> None:
    async def scenario() -> None:
        async with Backend(slow_echo) as backend:
            far = await asyncio.to_thread(Far, place, backend)
            ports = [await asyncio.to_thread(far.near, f"near{number}") for number in range(3)]
            streams = []
            for port in ports:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"hello")
                assert await reader.readexactly(5) == b"hello"
                streams.append((reader, writer))
            before = await asyncio.to_thread(far.status)
            assert len(before["callers"]) == 3
            assert len(before["workers"]) == WORKERS
            victim = next(one for one in before["workers"] if one["connections"])
            others = {one["pid"] for one in before["workers"]} - {victim["pid"]}
            os.kill(victim["pid"], signal.SIGKILL)
            kept = 0
            for reader, writer in streams:
                writer.write(b"again")
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    kept += await reader.readexactly(5) == b"again"
            assert kept == 3 - victim["connections"]
            for port in ports:  # those whose connection is gone have another
                assert await exchange(port, b"anew") == b"anew"
            after = await asyncio.to_thread(
                until, lambda: (now := far.status()) and all(one["up"] for one in now["workers"]) and now
            )
            assert others < {one["pid"] for one in after["workers"]}
            assert sum(one["deaths"] for one in after["workers"]) == 1
            assert sum(one["lost"] for one in after["workers"]) == victim["connections"]
            # What the dead one had counted by the last look stays in the sums.
            assert after["exposed"][0]["streams"] >= before["exposed"][0]["streams"]
            for _, writer in streams:
                writer.close()

    play(scenario())


@pytest.mark.slow
def test_a_worker_that_hangs_is_killed_and_replaced(place: Place) -> None:
    """One that is stopped answers nothing: it is ended after a limit, here of 2 s; others serve all the while."""

    async def scenario() -> None:
        async with Backend(slow_echo) as backend:
            code = f"import dtp.daemon.workers.parent; dtp.daemon.workers.parent.HUNG = 2.0; {DTPD}"
            far = await asyncio.to_thread(Far, place, backend, workers=2, code=code)
            port = await asyncio.to_thread(far.near)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            before = {one["worker"]: one for one in (await asyncio.to_thread(far.status))["workers"]}
            (victim,) = [one for one in before.values() if not one["connections"]]
            os.kill(victim["pid"], signal.SIGSTOP)
            await asyncio.to_thread(far.program.log, f"(process {victim['pid']}) doesn't answer")

            def replaced() -> Any:
                found = {one["worker"]: one for one in far.status()["workers"]}
                one = found[victim["worker"]]
                return found if one["up"] and one["pid"] != victim["pid"] else None

            after = await asyncio.to_thread(until, replaced)
            assert {number: one["deaths"] for number, one in after.items()} == {
                number: int(number == victim["worker"]) for number in before
            }
            writer.write(b"again")  # the other one's streams are as they were
            assert await reader.readexactly(5) == b"again"
            writer.close()

    play(scenario())


@pytest.mark.slow
def test_workers_are_replaced_when_the_process_they_are_made_of_dies_too(place: Place) -> None:
    """However often, as long as there is somebody to make another; what is open in the others goes on."""

    async def scenario() -> None:
        async with Backend(slow_echo) as backend:
            far = await asyncio.to_thread(Far, place, backend, workers=2)
            port = await asyncio.to_thread(far.near)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            workers = (await asyncio.to_thread(far.status))["workers"]
            idle = next(one["worker"] for one in workers if not one["connections"])
            for deaths in (1, 2):
                victim = workers[idle]["pid"]
                zygote = parent_of(victim)
                assert zygote != far.program.process.pid
                kill(zygote)
                kill(victim)

                def replaced(deaths: Any = deaths) -> Any:
                    found = far.status()["workers"]
                    return found if found[idle]["up"] and found[idle]["deaths"] == deaths else None

                workers = await asyncio.to_thread(until, replaced)
            writer.write(b"again")
            assert await reader.readexactly(5) == b"again"
            writer.close()
            far.program.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(far.program.wait)
            assert b"can't begin" not in far.program.errors

    play(scenario())


def parent_of(pid: int) -> Any:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def test_workers_whose_parent_dies_finish_what_they_have(place: Place) -> None:
    """They take nothing new, so that a daemon which is started in its place has all who come; then they end."""

    async def scenario() -> None:
        async with Backend(slow_echo) as backend:
            far = await asyncio.to_thread(Far, place, backend, workers=2)
            port = await asyncio.to_thread(far.near)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            workers = [one["pid"] for one in (await asyncio.to_thread(far.status))["workers"]]
            far.program.process.kill()
            await asyncio.to_thread(far.program.log, "the parent is gone: worker 0 finishes what it has")
            await asyncio.to_thread(far.program.log, "the parent is gone: worker 1 finishes what it has")
            writer.write(b"still there")
            assert await reader.readexactly(11) == b"still there"
            await asyncio.to_thread(until, lambda: not answers(far.address))
            assert any(map(is_running, workers))
            writer.close()
            await asyncio.to_thread(until, lambda: not any(map(is_running, workers)))

    play(scenario())


@pytest.mark.slow
def test_limits_hold_for_all_workers(place: Place) -> None:
    """Callers with connections of their own land on several workers; together they get what one would."""

    async def scenario() -> None:
        more = 'rate = { requests = "5/h", per = "service" }\nconcurrency = { service = 3 }'
        async with Backend(slow_echo) as backend:
            far = await asyncio.to_thread(Far, place, backend, more=more)
            ports = [await asyncio.to_thread(far.near, f"near{number}") for number in range(5)]
            held = []
            for port in ports:
                # Who is refused may see the reset while asyncio still looks whether it is connected.
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.write(b"hello")
                    assert await reader.readexactly(5) == b"hello"
                    held.append(writer)
            assert len(held) == 3
            for writer in held:
                writer.close()
            await asyncio.to_thread(until, lambda: not far.status()["exposed"][0]["open"])
            passed = 0
            for port in ports:
                with contextlib.suppress(ConnectionError):
                    passed += await exchange(port, b"x") == b"x"
            assert passed == 2  # of 5 requests, 3 were made before
            denials = (await asyncio.to_thread(far.status))["exposed"][0]["denials"]
            assert denials == {"concurrency": 2, "rate": 3}

    play(scenario())


@pytest.mark.slow
def test_a_caller_that_was_killed_is_let_in_at_once_by_whichever_worker(place: Place) -> None:
    """Its connections come to one of them, which knows that nobody is at the old one any more."""

    async def scenario() -> None:
        async with Backend(slow_echo) as backend:
            more = "concurrency = { identity = 1 }"
            far = await asyncio.to_thread(Far, place, backend, workers=3, more=more)
            port = await asyncio.to_thread(far.near)
            for _ in range(4):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"hello")
                assert await reader.readexactly(5) == b"hello"
                with pytest.raises(ConnectionError):
                    await exchange(port, b"one more")
                far.nears[-1].process.kill()
                writer.close()
                port = await asyncio.to_thread(far.near)
            assert await exchange(port, b"again") == b"again"
            denials = (await asyncio.to_thread(far.status))["exposed"][0]["denials"]
            assert denials == {"concurrency": 4}

    play(scenario())


@pytest.mark.slow
def test_a_quota_holds_for_all_workers(place: Place) -> None:
    async def scenario() -> None:
        more = 'quota = { requests = 4, every = "365d", per = "service" }'
        async with Backend(slow_echo) as backend:
            far = await asyncio.to_thread(Far, place, backend, more=more)
            ports = [await asyncio.to_thread(far.near, f"near{number}") for number in range(4)]
            passed = 0
            for port in ports * 3:
                with contextlib.suppress(ConnectionError):
                    passed += await exchange(port, b"x") == b"x"
                await asyncio.sleep(0.15)  # workers tell each other 20 times a second
            assert passed == 4

    play(scenario())


@pytest.mark.slow
def test_reload_drain_page_and_udp_with_workers(place: Place) -> None:
    """A reload changes all workers at once, and what is open stays; the page and its metrics add up."""

    async def scenario() -> None:
        web = free_port()
        async with Backend(slow_echo) as backend:
            far = await asyncio.to_thread(
                Far, place, backend, top=f'[web]\nlisten = "127.0.0.1:{web}"\n', workers=3
            )
            text = f'workers = 2\n[[forward]]\nlisten = "127.0.0.1:0"\nto = "{far.address}"\n'
            near, places = await asyncio.to_thread(place.dtpd, "near", f"[daemon]\n{text}")
            # A worker of it that comes while nobody may would be refused, and come again at its leisure.
            await asyncio.to_thread(until, lambda: status_of(place, "near")["forwarded"][0]["connected"])
            port = int(places[0]["listen"].rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            path = place.folder / "far.toml"
            whole = path.read_text()
            path.write_text(whole.replace('allow = ["*"]', f'allow = ["{OTHER.id}"]'))
            await asyncio.to_thread(place.command, "reload", "-c", path)
            writer.write(b"still")
            assert await reader.readexactly(5) == b"still"
            path.write_text(whole.replace("workers = 3", "workers = 5"))
            told = await asyncio.to_thread(place.command, "reload", "-c", path, code=None)
            assert "workers has changed: that takes 'dtpd upgrade' or a restart" in told
            path.write_text(whole)
            await asyncio.to_thread(place.command, "reload", "-c", path)
            answers = await asyncio.gather(*(exchange(port, bytes(100_000)) for _ in range(20)))
            assert answers == [bytes(100_000)] * 20

            def get(what: str) -> Any:
                with urllib.request.urlopen(f"http://127.0.0.1:{web}{what}", timeout=PATIENCE) as answer:
                    return answer.read().decode()

            # 20 streams since the reload. A worker that is too busy to say so within a second is shown as it was.
            status = await asyncio.to_thread(
                until, lambda: (now := json.loads(get("/status")))["exposed"][0]["streams"] >= 20 and now
            )
            assert status["exposed"][0]["streams"] == 20
            assert status["reloads"] == 2
            metrics = await asyncio.to_thread(get, "/metrics")
            assert 'dtpd_streams_total{name="api",side="exposed"} 20.0' in metrics
            assert "dtpd_workers 3.0" in metrics
            assert json.loads(await asyncio.to_thread(get, "/health"))["healthy"]
            await asyncio.to_thread(place.command, "drain", "-c", path)
            writer.write(b"last")
            assert await reader.readexactly(4) == b"last"
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            await asyncio.to_thread(far.program.wait)
            near.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(near.wait)
            for program in (far.program, near):
                assert b"Traceback" not in program.errors

    play(scenario())


@pytest.mark.slow
def test_an_upgrade_of_workers(place: Place) -> None:
    """Other workers take the places over, also more of them; clients come all the while."""

    async def scenario() -> None:
        port = free_port()
        async with Backend(slow_echo) as backend:
            far = await asyncio.to_thread(Far, place, backend, listen=f"tcp://127.0.0.1:{port}", workers=2)
            local = await asyncio.to_thread(far.near)
            path = place.folder / "far.toml"
            path.write_text(path.read_text().replace("workers = 2", "workers = 3"))
            over = asyncio.Event()

            async def come() -> Any:
                count = 0
                while not over.is_set():
                    assert await exchange(local, b"hello") == b"hello"
                    count += 1
                return count

            coming = asyncio.ensure_future(come())
            pid = json.loads(await asyncio.to_thread(place.command, "upgrade", "--json", "-c", path))["pid"]
            place.stack.callback(kill, pid)
            await asyncio.to_thread(far.program.wait)
            over.set()
            assert await coming > 0
            assert await exchange(local, b"after") == b"after"
            status = await asyncio.to_thread(far.status)
            assert len(status["workers"]) == 3
            await asyncio.to_thread(place.command, "drain", "-c", path)
            await asyncio.to_thread(until, lambda: not is_running(pid))

    play(scenario())


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def answers(address: str) -> bool:
    """Whether anybody listens where an address leads."""
    with socket.socket() as sock:
        return not sock.connect_ex(("127.0.0.1", int(address.rpartition(":")[2].partition("/")[0])))


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_bans_hold_in_all_workers(place: Place) -> None:
    """By the command, at once, also for what is open; over a restart with a state."""

    async def scenario() -> None:
        top = f'[state]\nurl = "sqlite://{place.folder}/state.db"\n'
        async with Backend(slow_echo) as backend:
            far = await asyncio.to_thread(Far, place, backend, top=f"\n{top}")
            ports = [await asyncio.to_thread(far.near, f"near{number}") for number in range(3)]
            streams = []
            for port in ports:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"hello")
                assert await reader.readexactly(5) == b"hello"
                streams.append((reader, writer))
            path, banned = place.folder / "far.toml", place.identity("near1").id
            await asyncio.to_thread(place.command, "ban", banned, "--time", "1h", "-c", path)
            with pytest.raises(ConnectionError):
                await streams[1][0].readexactly(1)
            for number in (0, 2):
                streams[number][1].write(b"still")
                assert await streams[number][0].readexactly(5) == b"still"
            with pytest.raises(ConnectionError):
                await exchange(ports[1], b"anew")
            shown = await asyncio.to_thread(place.command, "status", "-c", path)
            assert f"{banned}"[:20] in shown
            await asyncio.to_thread(place.command, "ban", "nobody", "-c", path, code=None)
            for _, writer in streams:
                writer.close()
            far.program.process.terminate()
            await asyncio.to_thread(far.program.wait)
            far = await asyncio.to_thread(Far, place, backend, top=f"\n{top}")
            assert list(far.status()["bans"]) == [str(banned)]
            for said in ("is banned no more", "was not banned"):
                assert (
                    await asyncio.to_thread(place.command, "unban", banned, "-c", path)
                    == f"{banned} {said}\n"
                )
            assert far.status()["bans"] == {}

    play(scenario())


@pytest.mark.slow
def test_udp_sources_stay_with_their_worker(place: Place) -> None:
    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, address: Any) -> None:
            self.transport.sendto(data, address)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
        backend = transport.get_extra_info("sockname")[1]
        _, exposed = await asyncio.to_thread(
            place.dtpd, "far", expose(place, f"127.0.0.1:{backend}", more='kind = "udp"')
        )
        text = f"""[daemon]
workers = 3
[[forward]]
kind = "udp"
listen = "127.0.0.1:0"
to = "{exposed[0]["address"]}"
"""
        _, places = await asyncio.to_thread(place.dtpd, "near", text)
        port = int(places[0]["listen"].rpartition(":")[2])
        socks = []
        for number in range(12):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", port))
            socks.append(sock)
            for turn in range(3):
                await loop.sock_sendall(sock, b"%d %d" % (number, turn))
        for number, sock in enumerate(socks):
            got = [await loop.sock_recv(sock, 100) for _ in range(3)]
            assert got == [b"%d %d" % (number, turn) for turn in range(3)]
            sock.close()
        status = await asyncio.to_thread(status_of, place, "near")
        assert status["forwarded"][0]["streams"] == 12
        transport.close()

    play(scenario())
