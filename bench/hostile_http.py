"""A `dtpd` that lets anybody in, in front of a backend that speaks HTTP/1.1, and callers who talk nonsense to it.

For `bench.hostile_side`, which runs each in a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from pathlib import Path

import dtp
from dtp.daemon.config.load import load_text
from dtp.daemon.server import Daemon
from dtp.identity import Identity

#: What visitors ask for, and the end of what they are answered.
ASKED = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
ANSWER_END = b"\r\n\r\nok"
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2" + ANSWER_END
#: Nonsense: no request line.
_NONSENSE = b"GE\x01T / HTTP/1.1\r\nHost: bench\r\n\r\n"
#: Streams that one attacker has open at a time.
STREAMS = 64

_CONFIG = """
[identity]
file = "unused.pem"

[daemon]
listen = ["tcp://127.0.0.1:0"]

[[expose]]
service = "web"
kind = "http"
allow = ["*"]
backend = ["127.0.0.1:{port}"]
"""


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.closing(writer), contextlib.suppress(OSError, EOFError):
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(_ANSWER)


async def back() -> None:
    """Serve as the backend; prints the port, and ends with the standard input."""
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, input_ended)
    os._exit(0)


def input_ended() -> None:
    """Wait for the end of standard input."""
    while os.read(0, 4096):
        pass


async def start_daemon(port: int) -> str:
    """Start the daemon before the backend at `port`; return the address of its service."""
    with tempfile.TemporaryDirectory() as folder:
        config = load_text(_CONFIG.format(port=port), Path(folder) / "dtpd.toml")
    daemon = Daemon(config, Identity.generate())
    await daemon.start()
    assert daemon.listener is not None
    return str(daemon.listener.address("web"))


async def _talk_nonsense(connection: dtp.Connection) -> None:
    async with await connection.open_stream() as stream:
        stream.write(_NONSENSE)
        stream.write_eof()
        with contextlib.suppress(dtp.StreamReset):
            await stream.read()


async def _give_up(connection: dtp.Connection) -> None:
    stream = await connection.open_stream()
    stream.write(ASKED)
    await stream.flush()
    stream.reset()


async def _ask(connection: dtp.Connection) -> None:
    async with await connection.open_stream() as stream:
        stream.write(ASKED)
        await stream.readuntil(ANSWER_END)


#: What the streams of an attacker do again and again.
ATTACKS = {"malformed HTTP": _talk_nonsense, "HTTP given up": _give_up, "busy HTTP": _ask}


async def attack(name: str, address: str, count: int) -> None:
    """Attack as so many callers of one identity, each with streams that do the same as fast as they are taken."""
    identity = Identity.generate()

    async def stream(connection: dtp.Connection) -> None:
        while True:
            await ATTACKS[name](connection)

    async def one() -> None:
        while True:
            try:
                async with (
                    dtp.connect(address, identity=identity) as connection,
                    asyncio.TaskGroup() as group,
                ):
                    for _ in range(STREAMS):
                        group.create_task(stream(connection))
            except* dtp.DtpError:
                await asyncio.sleep(0.05)

    await asyncio.gather(*(one() for _ in range(count)))
