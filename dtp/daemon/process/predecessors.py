"""What previous processes still have open after an upgrade, and what they cut off in the end.

Each reports to its successor over a socket pair: a line of JSON each second, including what it has heard from its
own predecessors. When the successor is replaced in turn, it hands on its end of the pair, so that older processes
are still heard after it has ended.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast

log = logging.getLogger("dtpd")

#: Set for a successor: descriptors over which previous processes report, each with its process id (0 if not known).
BEFORE = "DTPD_BEFORE"
#: Seconds between two lines.
EVERY = 1.0
#: The most previous processes that are remembered, the newest ones; and the most services and forwards of each,
#: those with most open.
MOST, MOST_NAMES = 8, 16
_LONGEST_LINE = 1 << 20


@dataclass(frozen=True)
class Left:
    """What a process that accepts nothing new still has open."""

    pid: int
    #: Open streams in all, and by service or forward.
    open: int
    by_name: Mapping[str, int] = field(default_factory=dict)
    #: The Unix time at which it cuts off what is still open, and how many streams it has cut off.
    until: float = 0.0
    cut: int = 0

    @classmethod
    def from_status(cls, status: Mapping[str, Any], open_streams: int, until: float) -> Left:
        """Return what this process has open, by `Daemon.get_status`."""
        names = {one["service"]: int(one["open"]) for one in status.get("exposed", ())}
        names |= {", ".join(one["listen"]) or one["mode"]: one["open"] for one in status.get("forwarded", ())}
        most = sorted(((count, name) for name, count in names.items() if count), reverse=True)[:MOST_NAMES]
        return cls(os.getpid(), open_streams, {name: count for count, name in most}, until)

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Left:
        """Return what was reported. Raise `TypeError`, `ValueError`, `LookupError` or `AttributeError` for anything
        else."""
        names = {str(name): int(count) for name, count in told["by_name"].items()}
        return cls(int(told["pid"]), int(told["open"]), names, float(told["until"]), int(told["cut"]))


class Predecessors:
    """The previous processes, oldest first, as each last reported."""

    def __init__(self) -> None:
        self._known: dict[int, Left] = {}
        self._ends: dict[int, _End] = {}
        #: Processes that reported to us directly and have ended: what others have heard of them is older.
        self._gone: set[int] = set()

    @property
    def ends(self) -> dict[int, int]:
        """The descriptors over which processes report, each with its process id (0 if nothing was heard yet)."""
        return {descriptor: end.teller for descriptor, end in self._ends.items()}

    def pause_reading(self) -> None:
        """Stop reading reports, since another process is about to read them. `go_on` resumes."""
        for end in self._ends.values():
            end.transport.pause_reading()

    def go_on(self) -> None:
        """Resume reading, since nobody else does."""
        for end in self._ends.values():
            end.transport.resume_reading()

    @property
    def known(self) -> list[Left]:
        """The last report of each. A process that has ended has nothing open."""
        return list(self._known.values())

    def list_status(self) -> list[dict[str, Any]]:
        """Return `known` as JSON values."""
        return [asdict(one) for one in self._known.values()]

    async def listen_to(self, descriptor: int, teller: int = 0) -> None:
        """Read the reports of the process at the other end, whose id is `teller` where that is known, until it
        ends."""
        sock = socket.socket(fileno=descriptor)
        sock.set_inheritable(False)
        reader, writer = await asyncio.open_connection(sock=sock, limit=_LONGEST_LINE)
        end = self._ends[descriptor] = _End(cast(asyncio.Transport, writer.transport), teller)
        try:
            while line := await reader.readline():
                told = [Left.from_json(one) for one in json.loads(line)]
                end.teller = told[-1].pid
                self.note_told(told)
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            log.warning("the process before tells otherwise what it has open: %s", error)
        except OSError:
            pass  # it has ended in another way
        finally:
            del self._ends[descriptor]
            self._gone.add(end.teller)
            writer.close()
            if (last := self._known.get(end.teller)) is not None:
                self._known[end.teller] = Left(last.pid, 0, {}, last.until, last.cut)

    def note_told(self, told: list[Left]) -> None:
        """Note what a process reports: itself last, before it what it has heard of others that don't report to
        us."""
        ourselves = {end.teller for end in self._ends.values()} | self._gone
        for one in told:
            if one is told[-1] or one.pid not in ourselves:
                self._known[one.pid] = one
        for pid in list(self._known)[:-MOST]:
            del self._known[pid]


@dataclass
class _End:
    """Our end of a pair, and the process at the other end."""

    transport: asyncio.Transport
    teller: int


class Farewell:
    """Reports to the successor what is open here, until this process ends."""

    def __init__(
        self, sock: socket.socket, before: Predecessors, left: Callable[[], Left], every: float = EVERY
    ) -> None:
        """`left` returns what is open, which is reported every `every` seconds. `sock` is owned by this object from
        now on."""
        self._sock, self._before, self._left, self._every = sock, before, left, every

    async def tell_successor(self, cut: asyncio.Future[int]) -> None:
        """Report repeatedly, and finally how many streams were cut off, which is the result of `cut`."""
        _, writer = await asyncio.open_connection(sock=self._sock)
        try:
            while not cut.done() and not writer.is_closing():  # closing: nobody listens
                if not writer.transport.get_write_buffer_size():  # otherwise the reader is slow
                    self._write_left(writer, self._left())
                await asyncio.wait([cut], timeout=self._every)
            end = self._left()
            self._write_left(writer, Left(end.pid, 0, {}, time.time(), cut.result()))
            async with asyncio.timeout(self._every):
                await writer.drain()
        except (OSError, TimeoutError):
            pass  # the successor has ended or hangs, which is its own problem
        finally:
            writer.close()

    def _write_left(self, writer: asyncio.StreamWriter, left: Left) -> None:
        told = [*self._before.known[-MOST:], left]
        writer.write(json.dumps([asdict(one) for one in told]).encode() + b"\n")


def ends_text(ends: Mapping[int, int]) -> str:
    """Return descriptors and process ids in the format that `inherited_ends` reads."""
    return " ".join(f"{descriptor}={teller}" for descriptor, teller in ends.items())


def inherited_ends() -> dict[int, int]:
    """Return the descriptors over which previous processes report, each with its process id (0 if not known)."""
    told = os.environ.pop(BEFORE, "")
    try:
        return {
            int(descriptor): int(teller) for descriptor, teller in (one.split("=") for one in told.split())
        }
    except ValueError:
        return {}  # another version uses another format: nothing is read
