"""Bounds memory as a whole: what each connection holds is bounded by its windows, and this bounds all of them
together.

When a process has more than its share, unreachable objects are freed first. Then it closes the connections that
hold most (data that is unread, unacknowledged or part of an incomplete message), as many as it takes. Below the
share, only one number of the system is read.
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

#: Seconds between two checks.
EVERY = 0.25
#: Seconds between two full garbage collections, each of which takes about 0.1 s per million objects. Python starts
#: one by itself only after many allocations; a daemon that refuses everything allocates little, and would stay full
#: of dead objects.
COLLECT_EVERY = 5.0
#: Bytes of a connection itself, including carrier and keys.
CONNECTION = 20 * 1024
#: Bytes of an open stream beside its data: its state, tasks and parsers. One that waits for a request has 10 KB.
STREAM = 8 * 1024
#: A peer whose connections hold less than this together isn't closed.
LEAST = 256 * 1024
#: What a process may use at least beyond what it takes itself; otherwise it would never accept anything.
ROOM = 32 * 1024 * 1024
#: The share of the machine's memory, if the configuration says nothing.
_SHARE = 0.5
_STATM = Path("/proc/self/statm")
#: The control groups of this process, and where they are (cgroups(7)).
_GROUPS, _ROOT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def default(groups: Path = _GROUPS, root: Path = _ROOT) -> int:
    """Return the bytes of half the machine's memory, or half of what the process's control groups allow if that is
    less."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(min([machine, *_limits(groups, root)]) * _SHARE)


def bound(wanted: int | None, workers: int, own: int, most: Callable[[], int] = default) -> tuple[int, str]:
    """Return the bytes that each of `workers` processes may use, and a warning if that is more than `wanted` (""
    otherwise).

    `own` is what an idle process takes, and `most` returns what all may use where nothing is wanted.
    """
    share, least = (wanted or most()) // workers, own + ROOM
    if share >= least:
        return share, ""
    why = f"memory: {share >> 20} MiB for each process, which takes {own >> 20} MiB itself"
    return least, f"{why}: it may have {least >> 20} MiB"


def _limits(groups: Path, root: Path) -> Iterator[int]:
    """Yield the limits of those groups and of the groups that contain them, by version 2 or 1."""
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
    """Return this process's resident memory in bytes; 0 where the system doesn't tell."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux
        return 0


def _total(connections: Iterable[tuple[int, Connection]]) -> int:
    return sum(size for size, _ in connections)


def measure_held(
    connections: Iterable[Connection], sessions: Iterable[ServedSession]
) -> dict[Connection, int]:
    """Return the bytes that each connection holds: itself, its streams, what waits to be sent, and what readers
    keep of it. Sessions of connections that have just ended count for nobody."""
    held = {connection: CONNECTION + connection.held for connection in connections}
    for session in sessions:
        if session.stream.connection in held:
            held[session.stream.connection] += STREAM + session.kept
    return held


class Governor:
    """Checks memory every `EVERY` seconds, once started. `shed` is called with a connection to close, and what it
    holds."""

    def __init__(
        self,
        bound: int,
        held: Callable[[], Mapping[Connection, int]],
        shed: Callable[[Connection, int], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.bound = bound
        #: Bytes that the process uses before it serves anybody.
        self._own = resident()
        #: Returns the bytes that each connection holds.
        self.held = held
        self._shed = shed
        self._clock = clock
        self._task = SupervisedTask(self._look_repeatedly, name="dtpd-memory")
        self._collect_at = 0.0
        #: Whether nothing more should be accepted, and how many connections were closed.
        self.full = False
        self.closed = 0

    def apply_share(self, wanted: int | None, workers: int) -> str:
        """Apply the share of one of `workers` processes; return a warning if it is more than `wanted`, or ""."""
        self.bound, why = bound(wanted, workers, self._own)
        return why

    def start(self) -> None:
        """Start checking."""
        self._task.start()

    async def _look_repeatedly(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            self.check_memory()

    def check_memory(self, resident: Callable[[], int] = resident) -> None:
        """Check once, now."""
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
        # By peer: with many connections one can hold as much as another with one.
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
        """Return what this process may use, whether it uses more now, and how many connections were closed for
        that."""
        return {"bound": self.bound, "full": self.full, "closed": self.closed}

    async def close(self) -> None:
        """Stop checking. Idempotent."""
        await self._task.stop()
