"""`python -m bench.shows`: a show of 4 Mbit/s from one producer through listeners to listeners, over TCP on loopback.

The producer has a process of its own, the listeners share some: each has a node, an identity, and connections of its
own, and passes the show on. Measured are gaps and the time from signing a segment until it is whole at each listener
(one clock: all are on this machine), the producer's upload in multiples of the stream, and processor time for a
listener. Beside it, what checking alone costs: signatures, hashes and holding, without a network.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from dtp.broadcast.errors import ShowLost, ShowUnreachable
from dtp.broadcast.format import Announcement, SegmentSigner
from dtp.broadcast.format.segment import pieces_of
from dtp.broadcast.hearing import listen_to
from dtp.broadcast.held import HeldSegments
from dtp.broadcast.places import Place
from dtp.broadcast.producing import Broadcast
from dtp.identity import Identity

#: Where this package is; what it measures is the `dtp` that is installed (see `bench/__init__.py`).
ROOT = Path(__file__).parents[1]
HERE = Place(listen=("tcp://127.0.0.1:0",))
#: Seconds that a segment lasts.
SEGMENT = 0.5
#: Seconds between two listeners, of all processes: each measures three places, which takes some 30 ms of processor.
JOIN = 0.1
#: Seconds beside those that are measured, after which the run is ended: all join, and the last segments come.
SPARE = 180.0


def verify(rate: int, seconds: int) -> float:
    """Return the processor time of checking a stream, as a part of one core."""
    identity = Identity.generate()
    signer = SegmentSigner(identity, Announcement.sign(identity, bytes(32), time_ms=0))
    size = int(rate / 8 * SEGMENT)
    made = []
    for at in range(int(seconds / SEGMENT)):
        body = os.urandom(size)
        made.append((signer.sign(body, time_ms=at).encoded, [bytes(each) for each in pieces_of(body)]))
    held = HeldSegments(signer.announcement)
    began = time.process_time()
    for number, (manifest, pieces) in enumerate(made):
        held.add_manifest(manifest)
        for index, piece in enumerate(pieces):
            held.add_piece(number, index, piece)
    return (time.process_time() - began) / seconds


async def _listeners(addresses: list[str], count: int, processes: int, limit: float) -> dict[str, Any]:
    """Hear the show `count` times, for `limit` seconds at most; return delays and gaps."""
    delays: list[float] = []
    gaps = segments = 0
    lost: list[str] = []

    async def hear() -> None:
        nonlocal gaps, segments
        try:
            async for each in listen_to(*addresses, place=HERE):
                gaps += len(each.missed)
                if len(each.data) >= 8:
                    segments += 1
                    delays.append(time.monotonic() - int.from_bytes(each.data[:8]) / 1e9)
        except (ShowLost, ShowUnreachable) as fault:  # it counts, and the others go on
            lost.append(f"{fault.code}: {fault}")

    used_before = time.process_time()  # what Python and its modules have taken, who listens has not
    async with asyncio.timeout(limit), asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(hear())
            await asyncio.sleep(JOIN * processes)  # as people come: not all in the same turn
    used = time.process_time() - used_before
    return {"delays": sorted(delays), "gaps": gaps, "segments": segments, "lost": lost, "processor": used}


@contextlib.asynccontextmanager
async def _started(command: list[str], count: int) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """Start processes, and end those that are left at the end, however that comes."""
    children: list[asyncio.subprocess.Process] = []
    try:
        for _ in range(count):
            children.append(
                await asyncio.create_subprocess_exec(
                    *command,
                    stdout=asyncio.subprocess.PIPE,
                    env={
                        **os.environ,
                        "PYTHONPATH": str(ROOT),
                    },  # $PYTHONSAFEPATH keeps the folder itself out
                )
            )
        yield children
    finally:
        for each in children:
            if each.returncode is None:
                each.kill()
        await asyncio.gather(*(each.wait() for each in children))


async def _produce(count: int, processes: int, rate: int, seconds: int, limit: float) -> dict[str, Any]:
    command = [sys.executable, "-P", "-m", "bench.shows", "--limit", str(limit)]
    command += ["--child", str(count // processes), "--processes", str(processes)]
    async with (
        asyncio.timeout(limit),
        Broadcast(place=HERE) as on_air,
        _started([*command, *on_air.addresses], processes) as children,
    ):
        size = int(rate / 8 * SEGMENT)
        loop = asyncio.get_running_loop()
        settle = loop.time() + JOIN * count + 5.0
        at, sent_before, used_before, written = loop.time(), 0, 0.0, 0
        end = settle + seconds
        counting = False
        while loop.time() < end:
            if not counting and loop.time() >= settle:
                counting, sent_before, used_before = True, on_air.feeder.sent, time.process_time()
            body = time.monotonic_ns().to_bytes(8) + os.urandom(size - 8)
            await on_air.write(body, duration_ms=int(1000 * SEGMENT))
            written += size if counting else 0
            at += SEGMENT
            await asyncio.sleep(max(0.0, at - loop.time()))
        upload = (on_air.feeder.sent - sent_before) / written
        used = (time.process_time() - used_before) / seconds
        await on_air.end()
        told = await asyncio.gather(*(_result(each) for each in children))
    delays = sorted(each for one in told for each in one["delays"])
    lasted = end - settle + 5.0
    return {
        "listeners": processes * (count // processes),
        "segments heard": sum(one["segments"] for one in told),
        "gaps": sum(one["gaps"] for one in told),
        "listeners that lost the show": sum(len(one["lost"]) for one in told),
        "why they lost it": sorted({why for one in told for why in one["lost"]}),
        "delay p50 s": round(statistics.median(delays), 3),
        "delay p95 s": round(delays[int(len(delays) * 0.95)], 3),
        "delay most s": round(delays[-1], 3),
        "producer's upload, x the stream": round(upload, 2),
        "producer, % of a core": round(100 * used, 1),
        "a listener that passes it on, % of a core": round(
            100 * sum(o["processor"] for o in told) / count / lasted, 2
        ),
    }


async def _result(child: asyncio.subprocess.Process) -> Any:
    output, _ = await child.communicate()
    return json.loads(output)


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.shows", description=__doc__)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--listeners", type=int, default=200)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--rate", type=int, default=4_000_000, help="bits a second")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--limit", type=float, help="end after so many seconds, measured or not")
    parser.add_argument("addresses", nargs="*")
    given = parser.parse_args()
    limit = given.seconds + SPARE if given.limit is None else given.limit
    try:
        _measure(given, limit)
    except TimeoutError:
        sys.exit(f"the run isn't over after {limit:g} s, and was ended: fewer listeners may do")


def _measure(given: argparse.Namespace, limit: float) -> None:
    if given.child:
        print(json.dumps(asyncio.run(_listeners(given.addresses, given.child, given.processes, limit))))
        return
    checking = [100 * verify(given.rate, 20) for _ in range(5)]
    result = {
        "checking alone, % of a core": round(statistics.median(checking), 3),
        "load": os.getloadavg()[0],
    }
    result |= asyncio.run(_produce(given.listeners, given.processes, given.rate, given.seconds, limit))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
