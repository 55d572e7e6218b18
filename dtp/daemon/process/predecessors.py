"""What the processes before this one still have open after an upgrade, and what they had to cut off in the end.

Each tells the process that took its place over a socket pair: a line of JSON a second, with what it has heard itself
of those before it. Where that one is replaced in its turn it hands its end of the pair on, so that those that are
left are heard of although the one in between has ended.
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

#: Set for a process that takes over: descriptors over which those before tell, each with who it is (0: not known).
BEFORE = "DTPD_BEFORE"
#: Seconds between two lines.
EVERY = 1.0
#: Processes before this one that are remembered, the newest, and services and forwards of each, those with most open.
MOST, MOST_NAMES = 8, 16
_LONGEST_LINE = 1 << 20


@dataclass(frozen=True)
class Left:
    """What a process has open that takes nothing new."""

    pid: int
    #: Streams, and how many of them are of which service or forward.
    open: int
    by_name: Mapping[str, int] = field(default_factory=dict)
    #: When it cuts off what is open by then, Unix time; and how many it has cut off.
    until: float = 0.0
    cut: int = 0

    @classmethod
    def from_status(cls, status: Mapping[str, Any], open_streams: int, until: float) -> Left:
        """Return what this process has, by `Daemon.get_status`."""
        names = {one["service"]: int(one["open"]) for one in status.get("exposed", ())}
        names |= {", ".join(one["listen"]) or one["mode"]: one["open"] for one in status.get("forwarded", ())}
        most = sorted(((count, name) for name, count in names.items() if count), reverse=True)[:MOST_NAMES]
        return cls(os.getpid(), open_streams, {name: count for count, name in most}, until)

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Left:
        """Return what was told. Raises `TypeError`, `ValueError`, `LookupError` or `AttributeError` for what no
        process tells."""
        names = {str(name): int(count) for name, count in told["by_name"].items()}
        return cls(int(told["pid"]), int(told["open"]), names, float(told["until"]), int(told["cut"]))


class Predecessors:
    """The processes before this one, the oldest first, as each was heard of last."""

    def __init__(self) -> None:
        self._known: dict[int, Left] = {}
        self._ends: dict[int, _End] = {}
        #: Those that told us themselves and have ended: what others heard of them is older.
        self._gone: set[int] = set()

    @property
    def ends(self) -> dict[int, int]:
        """The descriptors over which it is told now, each with who tells (0: nothing was heard yet)."""
        return {descriptor: end.teller for descriptor, end in self._ends.items()}

    def pause_reading(self) -> None:
        """Read nothing more of what is told: another process is about to. `go_on` takes it back."""
        for end in self._ends.values():
            end.transport.pause_reading()

    def go_on(self) -> None:
        """Read again, since nobody else does."""
        for end in self._ends.values():
            end.transport.resume_reading()

    @property
    def known(self) -> list[Left]:
        """What was heard of each last; one that has ended has nothing open."""
        return list(self._known.values())

    def list_status(self) -> list[dict[str, Any]]:
        """Return `known` as JSON has it."""
        return [asdict(one) for one in self._known.values()]

    async def listen_to(self, descriptor: int, teller: int = 0) -> None:
        """Hear what the process at the other end tells, which is `teller` where that is known, until it ends."""
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
        """Note what one tells of itself, last, and what it has heard of others that don't tell us themselves."""
        ourselves = {end.teller for end in self._ends.values()} | self._gone
        for one in told:
            if one is told[-1] or one.pid not in ourselves:
                self._known[one.pid] = one
        for pid in list(self._known)[:-MOST]:
            del self._known[pid]


@dataclass
class _End:
    """Our end of a pair, and who is at the other one."""

    transport: asyncio.Transport
    teller: int


class Farewell:
    """Tells the successor what is open here, until this process ends."""

    def __init__(
        self, sock: socket.socket, before: Predecessors, left: Callable[[], Left], every: float = EVERY
    ) -> None:
        """`left` gives what there is now, told `every` so many seconds; `sock` is this one's from now on."""
        self._sock, self._before, self._left, self._every = sock, before, left, every

    async def tell_successor(self, cut: asyncio.Future[int]) -> None:
        """Tell it again and again, and at last how many streams were cut off, which `cut` is set to."""
        _, writer = await asyncio.open_connection(sock=self._sock)
        try:
            while not cut.done() and not writer.is_closing():  # which it is when nobody hears it any more
                if not writer.transport.get_write_buffer_size():  # else it takes its time
                    self._write_left(writer, self._left())
                await asyncio.wait([cut], timeout=self._every)
            end = self._left()
            self._write_left(writer, Left(end.pid, 0, {}, time.time(), cut.result()))
            async with asyncio.timeout(self._every):
                await writer.drain()
        except (OSError, TimeoutError):
            pass  # the successor has ended, or is stuck: its affair
        finally:
            writer.close()

    def _write_left(self, writer: asyncio.StreamWriter, left: Left) -> None:
        told = [*self._before.known[-MOST:], left]
        writer.write(json.dumps([asdict(one) for one in told]).encode() + b"\n")


def ends_text(ends: Mapping[int, int]) -> str:
    """Return descriptors, each with who tells, as `inherited_ends` reads them."""
    return " ".join(f"{descriptor}={teller}" for descriptor, teller in ends.items())


def inherited_ends() -> dict[int, int]:
    """Return the descriptors over which processes before tell what they have open, each with who it is (0: not
    known)."""
    told = os.environ.pop(BEFORE, "")
    try:
        return {
            int(descriptor): int(teller) for descriptor, teller in (one.split("=") for one in told.split())
        }
    except ValueError:
        return {}  # another version says it otherwise: nothing is heard
