"""Counts dropped datagrams by reason, and logs them from time to time."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import struct
import sys
from collections import Counter
from enum import StrEnum
from typing import ClassVar, Final

from dtp.daemon.config.values import LocalPlace
from dtp.tasks import start_task

log = logging.getLogger("dtpd")

#: Seconds between two log lines of a service or forward. Each has the sums since the last one.
EVERY = 10.0
#: A burst is logged in one line, this many seconds after its first datagram.
_BURST = 1.0

#: Linux's counters for a socket (sock_diag(7), SO_MEMINFO): nine numbers, the last of which counts drops for lack
#: of room.
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("=9I")
#: Where Linux lists these counts for all sockets of the machine (proc_net(5)). The fields are address, inode and
#: count.
_TABLES: Final = ("/proc/net/udp", "/proc/net/udp6")
_PLACE, _INODE, _COUNT = 1, 9, 12
#: Seconds after a datagram until it is checked whether backends have read.
_LOOK: Final = 1.0


class Drop(StrEnum):
    """Why a datagram was dropped."""

    #: Larger than the peer accepts.
    TOO_LARGE = "too-large"
    #: A rule: it exceeded the bandwidth, or its session a quota or limit.
    RULE = "rule"
    #: Its session couldn't be opened, was still opening with many datagrams waiting, or is over.
    NO_SESSION = "no-session"
    #: The connection had no room: its carrier is slow or lost, or this process was busy.
    CONNECTION_FULL = "connection-full"
    #: The kernel had no room, for data that this process should have read or has sent.
    SOCKET_FULL = "socket-full"
    #: The kernel had no room at the backend's socket, since the backend reads too slowly or not at all.
    BACKEND_FULL = "backend-full"
    #: The kernel reports that nobody listens there, or that there is no route.
    UNREACHABLE = "unreachable"


class Dropped:
    """The counts of a service or a forward. Each burst is one log line, at most every `EVERY` seconds."""

    #: Those with something left to log.
    _telling_yet: ClassVar[set[Dropped]] = set()

    def __init__(self, name: str) -> None:
        """`name`, of the service or the forward, begins the line."""
        self.counts: Counter[str] = Counter()
        self._name = name
        self._told: Counter[str] = Counter()
        self._telling: asyncio.TimerHandle | None = None
        self._next = 0.0

    def add_dropped(self, why: Drop, count: int = 1) -> None:
        """Count this many datagrams; does nothing for 0."""
        if not count:
            return
        self.counts[why.value] += count
        if self._telling is None:
            loop = asyncio.get_running_loop()
            self._telling = loop.call_at(max(loop.time() + _BURST, self._next), self._log_burst, loop)
            self._telling_yet.add(self)

    @classmethod
    def tell_all(cls) -> None:
        """Log at once what is left, since this process ends, and its counts with it."""
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
    """What the kernel dropped because a socket's buffer was full. Only Linux reports that."""

    def __init__(self, sock: socket.socket, dropped: Dropped) -> None:
        """Count from now on. A process that was replaced has counted what was dropped before it closed its copy.

        While both processes have the socket, both count.
        """
        self._sock, self._dropped = sock, dropped
        self._seen = self._read_count()

    def count_new(self) -> None:
        """Count what was dropped since the last call."""
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


class BackendDrops:
    """What the kernel dropped because the buffer of a local backend was full, whoever sent it. Only Linux reports
    that of all sockets."""

    def __init__(self, place: LocalPlace, dropped: Dropped) -> None:
        """Count from now on for what listens at `place`, a loopback address."""
        self._dropped = dropped
        self._names = _names_in_tables(place)
        #: By inode, since a backend that restarts counts from 0 again.
        self._seen = self._read_counts()
        self._looking: asyncio.TimerHandle | None = None

    def look_soon(self) -> None:
        """Check in a second; until then further calls do nothing."""
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(_LOOK, self._look_for_drops)

    def _look_for_drops(self) -> None:
        start_task(self.count_new(), name="dtpd-backend-drops")

    async def count_new(self) -> None:
        """Count what was dropped since the last call."""
        self._looking = None
        now = await asyncio.to_thread(self._read_counts)  # a line for each socket
        new = sum(max(0, count - self._seen.get(inode, 0)) for inode, count in now.items())
        self._seen = now
        self._dropped.add_dropped(Drop.BACKEND_FULL, new)

    def _read_counts(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for table in _TABLES:
            try:
                with open(table, encoding="ascii") as lines:
                    for line in lines:
                        fields = line.split()
                        if fields[_PLACE] in self._names:
                            found[fields[_INODE]] = int(fields[_COUNT])
            except (OSError, ValueError, IndexError):  # not on Linux, or not reported here
                continue
        return found


def _names_in_tables(place: LocalPlace) -> frozenset[str]:
    """Return the addresses in the kernel's tables of sockets that receive what is sent to `place`: its own, and the
    wildcard addresses."""
    address = ipaddress.ip_address("127.0.0.1" if place.host == "localhost" else place.host)
    spelled = [address.packed, bytes(len(address.packed)), bytes(16)]
    if address.version == 4:
        spelled.append(ipaddress.IPv6Address(f"::ffff:{address}").packed)
    words = (b"".join(packed[at : at + 4][::-1] for at in range(0, len(packed), 4)) for packed in spelled)
    return frozenset(f"{each.hex().upper()}:{place.port:04X}" for each in words)
