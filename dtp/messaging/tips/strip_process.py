"""Files are drawn anew in a process of its own, whose memory and time are bounded: a file of half a megabyte may
unpack to gigabytes, in more ways than can be looked for, and a fault of a library ends that process alone."""

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

#: Bytes of address space in which a file is drawn: what the largest picture needs, as WebP. macOS doesn't count them.
MAX_MEMORY: Final = 3 * 1024**3
#: Seconds of processor time for all files of a letter.
MAX_SECONDS: Final = 300
#: What a line of the process's output says: a file that is made, or why there is none.
_MADE, _KEPT, _FAILED = "made", "kept", "failed"


async def strip_files(
    paths: Sequence[Path], folder: Path, *, memory: int = MAX_MEMORY, seconds: int = MAX_SECONDS
) -> list[Path]:
    """Return files in `folder` with what one sees of others, under names that say nothing: `file-1.jpg`.

    Raise `MetadataKept` if one can't be stripped, or not within `memory` bytes and `seconds` of processor time;
    `TipError` if one can't be read.
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
    if len(lines) < len(paths):  # it has ended in the midst of one
        if process.returncode == 1:  # Python's own, of a fault that nobody has caught
            raise TipError(f"files can't be drawn anew: {faults.decode(errors='replace').strip()[-200:]}")
        raise _too_much(paths[len(lines)].name, process.returncode, memory, seconds)
    return [Path(text) for _, text in lines]


def _too_much(name: str, status: int | None, memory: int, seconds: int) -> MetadataKept:
    why = f"it takes more than {memory >> 20} MiB of memory, or is damaged"
    if status == -signal.SIGXCPU:
        why = f"it takes more than {seconds} s of processor time"
    return MetadataKept(f"{name} can't be drawn: {why}. Make it smaller, or send it as it is (--as-is)")


def main(memory: str, seconds: str, folder: str, *paths: str) -> None:
    """Draw the files, and print what became of each as a line of JSON, up to the first that can't be drawn."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # what is in the file stays off the disk
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
