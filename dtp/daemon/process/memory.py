"""Bounded memory in all: what connections hold is bounded for each by its windows; this bounds all together.

A process that has more than its share looks whose connections hold most (unread, unacknowledged, or kept until all of
a message is there) and closes as many of them as it takes, once what nobody refers to any more is freed. Below that
nothing is looked at but one number that the system has.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

from dtp.daemon.relays.ledger import ServedSession
from dtp.identity import PeerId
from dtp.net.connection import Connection
from dtp.tasks import SupervisedTask

log = logging.getLogger("dtpd")

#: Seconds between two looks.
EVERY = 0.25
#: Seconds between two full collections: one takes some 0.1 s for each million objects. Python begins one by itself
#: only when much is allocated, and who refuses everything allocates little: it would stay full of what has ended.
COLLECT_EVERY = 5.0
#: What a connection takes by itself, carrier and keys included.
CONNECTION = 20 * 1024
#: What an open stream takes besides bytes: its state, tasks and parsers. One that waits for a request has 10 KB.
STREAM = 8 * 1024
#: A peer whose connections hold less together isn't closed for it.
LEAST = 256 * 1024
#: What a process may have in any case beyond what it takes itself, or it would never take up anything.
ROOM = 32 * 1024 * 1024
#: Of the machine's memory, where the file says nothing.
_SHARE = 0.5
_STATM = Path("/proc/self/statm")
#: Which control groups this process is in, and where they are (cgroups(7)).
_GROUPS, _ROOT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def default(groups: Path = _GROUPS, root: Path = _ROOT) -> int:
    """Return half of what the machine has, or of what its control groups let this process have where that is less,
    bytes."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(min([machine, *_limits(groups, root)]) * _SHARE)


def bound(wanted: int | None, workers: int, own: int, most: Callable[[], int] = default) -> tuple[int, str]:
    """Return what each of so many processes may have, bytes; and in words, if that is more than is `wanted` (""
    otherwise).

    `own` is what one takes that serves nobody, and `most` says what all may have where nothing is wanted.
    """
    share, least = (wanted or most()) // workers, own + ROOM
    if share >= least:
        return share, ""
    why = f"memory: {share >> 20} MiB for each process, which takes {own >> 20} MiB itself"
    return least, f"{why}: it may have {least >> 20} MiB"


def _limits(groups: Path, root: Path) -> Iterator[int]:
    """Yield what those groups may have, and the ones that they are in: by version 2, or 1."""
    try:
        lines = groups.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            top, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        own = Path(path.lstrip("/"))  # unknown in a container whose groups are the only ones to be seen
        for group in (own, *own.parents):
            with contextlib.suppress(OSError, ValueError):  # "max"
                yield int((top / group / name).read_text())


def resident() -> int:
    """Return what this process has in memory, bytes; 0 where the system doesn't tell."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux
        return 0


def _total(connections: Iterable[tuple[int, Connection]]) -> int:
    return sum(size for size, _ in connections)


def measure_held(
    connections: Iterable[Connection], sessions: Iterable[ServedSession]
) -> dict[Connection, int]:
    """Return what each connection holds, bytes: itself, its streams, what waits, and what those who read it keep of
    what was read. Sessions of other connections, which have just ended, are nobody's."""
    held = {connection: CONNECTION + connection.held for connection in connections}
    for session in sessions:
        if session.stream.connection in held:
            held[session.stream.connection] += STREAM + session.kept
    return held


class Governor:
    """Looks every `EVERY` seconds, once started. `shed` is told of a connection that has to go, and what it holds."""

    def __init__(
        self,
        bound: int,
        held: Callable[[], Mapping[Connection, int]],
        shed: Callable[[Connection, int], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.bound = bound
        #: Bytes that the process has before it serves anybody.
        self._own = resident()
        #: What each connection holds, bytes.
        self.held = held
        self._shed = shed
        self._clock = clock
        self._task = SupervisedTask(self._look_repeatedly, name="dtpd-memory")
        self._collect_at = 0.0
        #: Whether nothing more should be taken up, and how many connections were closed.
        self.full = False
        self.closed = 0

    def apply_share(self, wanted: int | None, workers: int) -> str:
        """Go by the share of one of so many processes; return in words if it is more than is `wanted`."""
        self.bound, why = bound(wanted, workers, self._own)
        return why

    def start(self) -> None:
        """Begin to look."""
        self._task.start()

    async def _look_repeatedly(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            self.check_memory()

    def check_memory(self, resident: Callable[[], int] = resident) -> None:
        """Look once, now."""
        excess = resident() - self.bound
        if excess > 0 and (now := self._clock()) >= self._collect_at:
            self._collect_at = now + COLLECT_EVERY
            gc.collect()
            excess = resident() - self.bound
        if excess > 0 and not self.full:
            log.warning(
                "this process has %d MiB more than it may",
                excess >> 20,
                extra={"fields": {"event": "memory"}},
            )
        if excess <= 0:
            self.full = False
            return
        peers: dict[PeerId, list[tuple[int, Connection]]] = {}
        for connection, size in self.held().items():
            peers.setdefault(connection.peer, []).append((size, connection))
        self.full = True
        # By peer: who has many connections may hold as much by them as another by one.
        for connections in sorted(peers.values(), key=_total, reverse=True):
            if _total(connections) < LEAST:
                return
            for size, connection in sorted(connections, key=itemgetter(0), reverse=True):
                if excess <= 0:
                    return
                excess -= size
                self.closed += 1
                self._shed(connection, size)

    def get_status(self) -> dict[str, Any]:
        """Return what this process may have, whether it has more now, and how many connections were closed for it."""
        return {"bound": self.bound, "full": self.full, "closed": self.closed}

    async def close(self) -> None:
        """Look no more. Idempotent."""
        await self._task.stop()
