"""`dtp cat`: standard input to a stream, the stream to standard output, both at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading

import click

from dtp.cli.options import (
    IdentitySource,
    address_argument,
    identity_options,
    psk_file_option,
    verbose_option,
)
from dtp.cli.output import json_option
from dtp.cli.run import run
from dtp.net.address import Address
from dtp.net.dial import connect
from dtp.net.relay import PIECE
from dtp.net.stream import Stream


@click.command()
@address_argument
@identity_options("--identity", "-i")
@psk_file_option
@verbose_option
@json_option
def cat(address: Address, identity: IdentitySource, psk: bytes | None) -> None:
    """Connect standard input and output to a service: netcat, by identity and encrypted.

    The end of the input is passed on and output goes on (half close); the command ends when the peer has
    finished. Bytes pass as they are.

    \b
    Examples:
      echo hello | dtp cat dtp+tcp://dtp1...@127.0.0.1:9000/echo
      tar c photos | dtp cat dtp://alice/backup
      ssh -o ProxyCommand='dtp cat dtp://alice/ssh' alice
    """
    run(_cat(address, identity, psk))


async def _cat(address: Address, identity: IdentitySource, psk: bytes | None) -> None:
    async with connect(address, identity=identity.load_or_make(), psk=psk) as connection:
        stream = await connection.open_stream()
        _Input(stream).start()
        try:
            await _to_stdout(stream)
        except BrokenPipeError:  # who reads our output has enough, such as `head`
            _forget_stdout()
            stream.reset()


async def _to_stdout(stream: Stream) -> None:
    """Write all that comes; in a thread, since a slow reader of our output must not stop the event loop."""
    loop = asyncio.get_running_loop()
    while data := await stream.read(PIECE):
        await loop.run_in_executor(None, _write_all, data)


def _write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(sys.stdout.fileno(), view) :]


def _forget_stdout() -> None:
    """Python flushes standard output when it ends, and must not fail at that."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Input(threading.Thread):
    """Reads standard input and writes it to the stream, never more than a piece ahead.

    A daemon thread: a read that blocks can't be interrupted, and must not hold up the end of the program.
    """

    def __init__(self, stream: Stream) -> None:
        super().__init__(name="dtp-stdin", daemon=True)
        self._stream = stream
        self._loop = asyncio.get_running_loop()

    def run(self) -> None:
        """Until the input ends or the stream takes nothing more."""
        with contextlib.suppress(ConnectionError, RuntimeError):  # RuntimeError: the loop has ended
            while data := self._read():
                asyncio.run_coroutine_threadsafe(self._write(data), self._loop).result()
            self._loop.call_soon_threadsafe(self._stream.write_eof)

    def _read(self) -> bytes:
        try:
            return os.read(sys.stdin.fileno(), PIECE)
        except OSError:  # closed, or a terminal that is gone: there is no more
            return b""

    async def _write(self, data: bytes) -> None:
        self._stream.write(data)
        await self._stream.drain()
