"""How long a damaged store takes to be whole again: `python -m bench.graph.damage`.

One author's frames in a file that wasn't closed, some bytes of it flipped; opened, then synced with a peer.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import tempfile
import time
from pathlib import Path

import dtp

_FLIPS = 100
_COMMIT = 2000


async def fill(folder: Path, frames: int) -> None:
    """Write a graph of so many frames, and copy its files while it is open, as a kill would leave them."""
    async with await dtp.Graph.open(
        str(folder / "whole.db"), identity=dtp.Identity.generate(), name="g"
    ) as graph:
        for number in range(frames):
            graph.node(f"n/{number % 5000}")[f"k{number % 7}"] = number
            graph.sign()
            if number % _COMMIT == _COMMIT - 1:
                await graph.commit()
        await graph.commit()
        for end in ("", "-wal"):
            shutil.copy(folder / f"whole.db{end}", folder / f"killed.db{end}")


def flip(path: Path, count: int) -> None:
    """Change so many bytes behind the file's header; the same ones each time."""
    chosen = random.Random(1)
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        for _ in range(count):
            at = chosen.randrange(100, size)
            file.seek(at)
            (byte,) = file.read(1)
            file.seek(at)
            file.write(bytes((byte ^ 1 << chosen.randrange(8),)))


async def heal(folder: Path) -> tuple[float, float, int]:
    """Return the seconds for opening and for syncing, and the frames that were lost."""
    me = dtp.Identity.generate()
    async with await dtp.Graph.open(str(folder / "whole.db"), identity=dtp.Identity.generate()) as peer:
        began = time.perf_counter()
        async with await dtp.Graph.open(str(folder / "killed.db"), identity=me) as graph:
            opened = time.perf_counter()
            async with (
                await dtp.listen("memory://damage", peer.serve, identity=peer.identity) as listener,
                dtp.connect(listener.address(), identity=me) as connection,
            ):
                await graph.sync(connection)
            synced = time.perf_counter()
            if graph.frames.gaps() or graph.frames.vector() != peer.frames.vector():
                raise SystemExit("the sync did not bring back what was lost")
            return opened - began, synced - opened, graph.damage.frames if graph.damage else 0


def main() -> None:
    """Run it, and print a line."""
    parser = argparse.ArgumentParser(prog="python -m bench.graph.damage", description=__doc__)
    parser.add_argument("--frames", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-damage-") as name:
        os.environ["DTP_HOME"] = name
        folder = Path(name)
        asyncio.run(fill(folder, options.frames))
        flip(folder / "killed.db", _FLIPS)
        opening, syncing, lost = asyncio.run(heal(folder))
    print(
        f"{options.frames:,} frames, {_FLIPS} flipped bytes, {lost} frames lost: opened in {opening:.1f} s, "
        f"whole again {syncing:.1f} s later (at most 30 s for both with 1,000,000)"
    )


if __name__ == "__main__":
    main()
