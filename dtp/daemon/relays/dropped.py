"""Datagrams that were dropped: counted by why, and told in the log now and then."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import sys
from collections import Counter
from enum import StrEnum
from typing import ClassVar

log = logging.getLogger("dtpd")

#: Seconds between two lines of a service or a forward; each has the sums since the one before.
EVERY = 10.0
#: A burst is told in one line: this many seconds behind its first datagram.
_BURST = 1.0

#: What Linux counts for a socket (sock_diag(7), SO_MEMINFO): nine numbers, the last one what it had no room for.
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("=9I")


class Drop(StrEnum):
    """Why a datagram went no further."""

    #: More than the peer takes in one.
    TOO_LARGE = "too-large"
    #: A rule: over the bandwidth, or the one with which a session was over its quota or its limits.
    RULE = "rule"
    #: Its session could not be had, was not there yet with many waiting already, or is over.
    NO_SESSION = "no-session"
    #: The connection had no room: its carrier is slow or away, or this process was busy.
    CONNECTION_FULL = "connection-full"
    #: The kernel had no room, for what this process should have read or for what it sent.
    SOCKET_FULL = "socket-full"
    #: The kernel says that nobody is there, or no way leads there.
    UNREACHABLE = "unreachable"


class Dropped:
    """The counts of a service or of a forward. Each burst is a line of the log, every `EVERY` seconds at most."""

    #: Those that have something to tell yet.
    _telling_yet: ClassVar[set[Dropped]] = set()

    def __init__(self, name: str) -> None:
        """`name`, of the service or the forward, is in front of the line."""
        self.counts: Counter[str] = Counter()
        self._name = name
        self._told: Counter[str] = Counter()
        self._telling: asyncio.TimerHandle | None = None
        self._next = 0.0

    def add_dropped(self, why: Drop, count: int = 1) -> None:
        """Count so many datagrams; none where `count` is 0."""
        if not count:
            return
        self.counts[why.value] += count
        if self._telling is None:
            loop = asyncio.get_running_loop()
            self._telling = loop.call_at(max(loop.time() + _BURST, self._next), self._log_burst, loop)
            self._telling_yet.add(self)

    @classmethod
    def tell_all(cls) -> None:
        """Tell now what there is to tell: this process ends, and with it the counts."""
        loop = asyncio.get_running_loop()
        for each in list(cls._telling_yet):
            each._log_burst(loop)

    def _log_burst(self, loop: asyncio.AbstractEventLoop) -> None:
        self._telling_yet.discard(self)
        if self._telling is not None:
            self._telling.cancel()
        self._telling = None
        self._next = loop.time() + EVERY
        news, self._told = self.counts - self._told, self.counts.copy()
        log.info(
            "%s: datagrams dropped: %s",
            self._name,
            ", ".join(f"{count:,} {why}" for why, count in news.items()),
            extra={"fields": {"event": "dropped", "name": self._name, **news}},
        )


class KernelDrops:
    """What the kernel dropped since a socket's buffer was full. Linux counts that, others don't say."""

    def __init__(self, sock: socket.socket, dropped: Dropped) -> None:
        """Count from now on: the process that was replaced has counted what was dropped before it closed its copy.

        Of the moment in which both have the socket both count.
        """
        self._sock, self._dropped = sock, dropped
        self._seen = self._read_count()

    def count_new(self) -> None:
        """Count what is new."""
        now = self._read_count()
        self._dropped.add_dropped(Drop.SOCKET_FULL, (now - self._seen) % 2**32)
        self._seen = now

    def _read_count(self) -> int:
        if sys.platform != "linux":
            return 0
        try:
            told = self._sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        except OSError:  # an old kernel
            return 0
        return int(_MEMINFO.unpack(told)[-1]) if len(told) == _MEMINFO.size else 0
