"""What `dtp show broadcast` puts on air: standard input, or what a command writes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import sys
import threading
from collections.abc import Callable

from dtp.broadcast.cutting import Cutter
from dtp.broadcast.source import READ, Source
from dtp.cli.cat import InputError

#: The most reads of standard input that are buffered.
_AHEAD = 4


def source_of(cutter: Callable[[], Cutter], command: str | None) -> Source:
    """Return the source of a show. Raise `InputError` for a command that can't be parsed."""
    if not command:
        return Source(cutter, read=_Stdin().read)
    try:
        return Source(cutter, shlex.split(command))
    except ValueError as fault:
        raise InputError(f"--command {command}: {fault}") from fault


class _Stdin:
    """Standard input, read slightly ahead by a daemon thread, since a blocking read can't be interrupted."""

    def __init__(self) -> None:
        self._read: asyncio.Queue[bytes | OSError] = asyncio.Queue(_AHEAD)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def read(self) -> bytes:
        """Return the next bytes, or b"" at the end. Raise `InputError`."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            threading.Thread(target=self._read_lines, name="dtp-stdin", daemon=True).start()
        data = await self._read.get()
        if isinstance(data, OSError):
            raise InputError(f"can't read the input: {data.strerror}") from data
        return data

    def _read_lines(self) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop has ended
            while True:
                try:
                    data: bytes | OSError = os.read(sys.stdin.fileno(), READ)
                except OSError as fault:
                    data = fault
                asyncio.run_coroutine_threadsafe(self._read.put(data), self._loop).result()
                if not data or isinstance(data, OSError):
                    return
