"""Peers that come back while an old process finishes what it has: their carriers find it behind the new one."""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import signal
import socket

import pytest

from ..conftest import Backend
from ..programs import Place, Program, free_port, place
from .test_daemon_worker_processes import Cutter, expose, is_running, kill, play, slow_echo, status_of, until

__all__ = ["place"]

#: A program's end of a stream.
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="descriptors of others can't be bounded here")
@pytest.mark.parametrize("spare", [1, 3])
def test_an_upgrade_for_which_there_are_too_few_descriptors_says_so(place: Place, spare: int) -> None:
    """The command was told that the daemon had ended, and the log had a fault of the program."""
    far, _ = place.dtpd("far", expose(place, "127.0.0.1:1", workers=1))
    pid, path = far.process.pid, place.folder / "far.toml"
    used = {int(each) for each in os.listdir(f"/proc/{pid}/fd")}
    limit = next(most for most in range(4096) if most - sum(number < most for number in used) == spare)
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    assert "could not be started: Too many open files. This one goes on" in place.command(
        "upgrade", "-c", path, code=None
    )
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    successor = json.loads(place.command("upgrade", "--json", "-c", path))["pid"]
    place.stack.callback(kill, successor)
    far.wait()
    place.command("drain", "-c", path)
    until(lambda: not is_running(successor))
    assert b"client_connected_cb" not in far.errors  # what asyncio says of a fault of the program there


@pytest.mark.slow
def test_an_upgrade_that_fails_leaves_the_daemon_to_be_asked(place: Place) -> None:
    """The process that did not begin to serve removed the control socket: nothing could be asked any more."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        good = expose(place, "127.0.0.1:1", workers=1)
        far, _ = place.dtpd("far", good)
        path = place.folder / "far.toml"
        place.file("far", f'{good}\n[web]\nlisten = "127.0.0.1:{taken.getsockname()[1]}"\n')
        assert "This one goes on" in place.command("upgrade", "-c", path, code=None)
        assert json.loads(place.command("status", "--json", "-c", path))["pid"] == far.process.pid
        place.file("far", good)
        successor = json.loads(place.command("upgrade", "--json", "-c", path))["pid"]
        place.stack.callback(kill, successor)
        far.wait()
        place.command("drain", "-c", path)
        until(lambda: not is_running(successor))
        assert not (place.folder / "far.sock").exists()


async def upgrade(place: Place) -> int:
    """Replace the far daemon; gives the new process."""
    path = place.folder / "far.toml"
    pid = json.loads(await asyncio.to_thread(place.command, "upgrade", "--json", "-c", path))["pid"]
    place.stack.callback(kill, pid)
    return int(pid)


async def forward(place: Place, to: str) -> tuple[Program, int]:
    """Start the other daemon; return it, and the port from which it forwards `to` an address."""
    near, places = await asyncio.to_thread(
        place.dtpd, "near", f'[[forward]]\nlisten = "127.0.0.1:0"\nto = "{to}"\n'
    )
    return near, int(places[0]["listen"].rpartition(":")[2])


async def write_halves(streams: list[Streams], data: bytes) -> None:
    """Write the data to each stream, and read half of it: the rest is on its way."""
    for reader, writer in streams:
        writer.write(data)
        await reader.readexactly(len(data) // 2)


async def read_rests(streams: list[Streams], data: bytes) -> None:
    """Write the data once more, and read all that has to come."""
    for reader, writer in streams:
        writer.write(data)
        rest = await reader.readexactly(len(data) // 2 + len(data))
        assert rest == data[len(data) // 2 :] + data


async def end_all(place: Place, streams: list[Streams], near: Program, far: Program, pids: list[int]) -> None:
    """End the streams: both old processes end by themselves then, and the rest when it is told to."""
    for reader, writer in streams:
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
    await asyncio.to_thread(until, lambda: not any(map(is_running, pids[:2])))
    near.process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(near.wait)
    await asyncio.to_thread(place.command, "drain", "-c", place.folder / "far.toml")
    await asyncio.to_thread(until, lambda: not is_running(pids[2]))
    assert b"Traceback" not in near.errors + far.errors


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "workers"), [("tcp", 1), ("tcp", 2), ("ws", 1)])
def test_what_an_old_process_has_goes_on_when_its_carrier_is_cut(
    place: Place, scheme: str, workers: int
) -> None:
    """Twice replaced, with a stream in each process; each cut carrier comes back at the newest one."""
    seed = 20261126
    print(f"seed {seed}")
    data = random.Random(seed).randbytes(300_000)

    async def scenario() -> None:
        port = free_port()
        async with Backend(slow_echo) as backend, Cutter(port) as cutter:
            text = expose(
                place, f"127.0.0.1:{backend.port}", workers=workers, listen=f"{scheme}://127.0.0.1:{port}"
            )
            far, exposed = await asyncio.to_thread(place.dtpd, "far", text)
            to = exposed[0]["address"].replace(f":{port}/", f":{cutter.port}/")
            near, local = await forward(place, to)
            streams, pids = [], [far.process.pid]
            for generation in range(3):
                if generation:
                    pids.append(await upgrade(place))
                streams.append(await asyncio.open_connection("127.0.0.1", local))
                await write_halves(streams, data)
                cutter.cut()
                await read_rests(streams, data)
            assert all(is_running(pid) for pid in pids)
            assert backend.connections == 3
            await asyncio.to_thread(until, lambda: len(status_of(place, "far")["before"]) == 2)
            status = await asyncio.to_thread(status_of, place, "far")
            assert [one["cut"] for one in status["before"]] == [0, 0]
            await end_all(place, streams, near, far, pids)

    play(scenario())


@pytest.mark.slow
def test_what_came_by_quic_goes_on_behind_the_new_process(place: Place) -> None:
    """Two processes can't read from one UDP port: an upgrade ends each carrier, and its peer comes back at once."""
    pytest.importorskip("qh3", reason="qh3 not installed (the extra quic)")
    seed = 20261126
    print(f"seed {seed}")
    data = random.Random(seed).randbytes(300_000)

    async def scenario() -> None:
        port = free_port()
        async with Backend(slow_echo) as backend:
            text = expose(place, f"127.0.0.1:{backend.port}", workers=1, listen=f"quic://127.0.0.1:{port}")
            far, exposed = await asyncio.to_thread(place.dtpd, "far", text)
            near, local = await forward(place, exposed[0]["address"])
            streams, pids = [], [far.process.pid]
            for generation in range(3):
                streams.append(await asyncio.open_connection("127.0.0.1", local))
                await write_halves(streams, data)
                if generation < 2:
                    pids.append(await upgrade(place))
                await read_rests(streams, data)
            assert all(is_running(pid) for pid in pids)
            assert backend.connections == 3
            await end_all(place, streams, near, far, pids)

    play(scenario())
