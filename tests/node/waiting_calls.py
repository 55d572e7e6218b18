"""Nodes with all that a node can do, while every call that may wait is noted which their loop's own thread makes.

Prints them as JSON (see `waiting`). Sockets that would wait are found by their timeouts at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import json
import socket
import sys
import tempfile
import threading
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from waiting import Watch

import dtp
from dtp.net.connection import Connection

#: Events of calls that wait for a disk, a network, another program or a clock.
WAITING = {
    "open",
    "os.listdir",
    "os.scandir",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.system",
    "socket.getaddrinfo",
    "socket.gethostbyaddr",
    "socket.gethostbyname",
    "socket.getnameinfo",
    "socket.gethostname",
    "sqlite3.connect",
    "subprocess.Popen",
    "time.sleep",
    "urllib.Request",
}
#: Events of calls that wait where the socket, their first argument, does.
ON_SOCKETS = {"socket.connect", "socket.sendto", "socket.sendmsg"}


def may_wait(event: str, arguments: tuple[Any, ...]) -> bool:
    """Return whether a call waits for something: a name is looked up only where it is no address, and what the kernel
    tells in files is on no disk."""
    if event == "open" and str(arguments[0]).startswith("/proc/"):
        return False
    if event in ON_SOCKETS:
        return bool(arguments[0].type == socket.SOCK_STREAM and arguments[0].gettimeout() != 0)
    if event == "socket.getaddrinfo":
        host = arguments[0].decode() if isinstance(arguments[0], bytes) else arguments[0]
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(host)
            return False
    return event in WAITING


watch = Watch(may_wait)


async def echo(connection: Connection) -> None:
    async for stream in connection:
        stream.write(await stream.read(-1))
        stream.write_eof()


async def until(holds: Any) -> None:
    while not holds():  # noqa: ASYNC110 - what is waited for has no event of its own
        await asyncio.sleep(0.01)


def options(folder: Path, name: str, port: int) -> dict[str, Any]:
    """Every way to be found and reached that one machine has."""
    return {
        "identity": dtp.Identity.generate(),
        "listen": ["tcp://127.0.0.1:0", "quic://127.0.0.1:0"],
        "discover": ["lan", "mdns", "dht"],
        "lan": {"interfaces": ("lo",), "port": port},
        "private": "a network of this test alone",
        "relay": True,
        "store": folder / f"{name}.peers",
        "services": {"echo": echo},
    }


async def use(first: dtp.Node, second: dtp.Node, graphs: list[dtp.Graph]) -> None:
    """Have both do all that programs ask of nodes."""
    await until(lambda: len(first.links) and len(second.links))
    async with first.topic("weather") as here, second.topic("weather") as there:
        await here.publish(b"21.5")
        assert (await there.read()).data == b"21.5"
    async with first.share(graphs[0], topic="notes"), second.share(graphs[1], topic="notes"):
        graphs[0].node("note")["text"] = "shared"
        await until(lambda: graphs[1].node("note").get("text") == "shared")
    async with second.connect(f"dtp://{first.identity.id}/echo") as connection:
        stream = await connection.open_stream()
        stream.write(b"hello")
        stream.write_eof()
        assert await stream.read(-1) == b"hello"
    await first.dht.provide(bytes(32))
    while not await second.dht.providers(bytes(32)):  # where it is may be on its way  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def wait_wrongly(file: Path) -> None:
    """What is to be found."""
    file.write_bytes(b"")
    time.sleep(0.001)
    socket.getaddrinfo("localhost", 80)


def sleep(seconds: float) -> None:
    """In place of `time.sleep`, which has no audit event in every Python."""
    watch.note("time.sleep", (seconds,))
    threading.Event().wait(seconds)


async def main() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with tempfile.TemporaryDirectory() as name:
        nodes = [dtp.Node(**options(Path(name), each, port)) for each in ("first", "second")]
        async with AsyncExitStack() as stack:
            opened = [await dtp.Graph.open("memory:", identity=each.identity, name="notes") for each in nodes]
            graphs = [await stack.enter_async_context(graph) for graph in opened]
            watch.begin()
            if sys.argv[1:] == ["--wrong"]:
                wait_wrongly(Path(name, "file"))
            async with asyncio.timeout(240), nodes[0] as first, nodes[1] as second:
                await use(first, second, graphs)
                sockets = [each for each in gc.get_objects() if isinstance(each, socket.socket)]
                waiting = [repr(each) for each in sockets if each.fileno() >= 0 and each.gettimeout() != 0]
            watch.end()
    print(json.dumps({"calls": watch.found, "sockets": waiting}))


time.sleep = sleep
asyncio.run(main())
