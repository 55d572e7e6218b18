"""Redraw files in a separate process, whose memory and time are bounded. A file of half a megabyte may unpack
to gigabytes in more ways than can be checked for, and a library that crashes ends only that process."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dtp.messaging.tips.errors import MetadataKept, TipError
from dtp.messaging.tips.stripping import strip_file

#: Bytes of address space for redrawing a file: what the largest picture needs as WebP. macOS doesn't enforce
#: it.
MAX_MEMORY: Final = 3 * 1024**3
#: Seconds of processor time for all files of a letter.
MAX_SECONDS: Final = 300
#: The keys of a line of the process's output: a file that was made, or why it wasn't.
_MADE, _KEPT, _FAILED = "made", "kept", "failed"


async def strip_files(
    paths: Sequence[Path], folder: Path, *, memory: int = MAX_MEMORY, seconds: int = MAX_SECONDS
) -> list[Path]:
    """Write copies of files that keep only what one sees to `folder`, under neutral names such as
    `file-1.jpg`. Return their paths.

    Raise `MetadataKept` if a file can't be stripped within `memory` bytes and `seconds` of processor time,
    and `TipError` if one can't be read.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", __spec__.name, str(memory), str(seconds), os.fspath(folder)),
            *map(os.fspath, paths),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as fault:
        raise TipError(f"files can't be drawn anew: {sys.executable}: {fault.strerror}") from fault
    try:
        told, faults = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    lines = [json.loads(line) for line in told.splitlines()]
    for kind, text in lines:
        if kind != _MADE:
            raise (MetadataKept if kind == _KEPT else TipError)(text)
    if len(lines) < len(paths):  # the process has ended in the middle of a file
        if process.returncode == 1:  # Python's exit code for an exception that wasn't caught
            raise TipError(f"files can't be drawn anew: {faults.decode(errors='replace').strip()[-200:]}")
        raise _too_much(paths[len(lines)].name, process.returncode, memory, seconds)
    return [Path(text) for _, text in lines]


def _too_much(name: str, status: int | None, memory: int, seconds: int) -> MetadataKept:
    why = f"it takes more than {memory >> 20} MiB of memory, or is damaged"
    if status == -signal.SIGXCPU:
        why = f"it takes more than {seconds} s of processor time"
    return MetadataKept(f"{name} can't be drawn: {why}. Make it smaller, or send it as it is (--as-is)")


def main(memory: str, seconds: str, folder: str, *paths: str) -> None:
    """Redraw the files, and print the result for each as a line of JSON. Stop at the first one that can't be
    drawn."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the file's contents stay off the disk
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), hard))
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    for number, path in enumerate(map(Path, paths), 1):
        try:
            line = _MADE, str(strip_file(path, Path(folder), f"file-{number}"))
        except MetadataKept as fault:
            line = _KEPT, str(fault)
        except TipError as fault:
            line = _FAILED, str(fault)
        except MemoryError:
            line = _KEPT, str(_too_much(path.name, None, int(memory), int(seconds)))
        print(json.dumps(line), flush=True)
        if line[0] != _MADE:
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
