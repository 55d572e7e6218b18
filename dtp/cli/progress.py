"""How far a transfer is: a bar at a terminal, lines of JSON after `--json`, else nothing."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import TYPE_CHECKING

from dtp.cli.output import print_line, printable, wants_json
from dtp.files import Progress
from dtp.identity import PeerId
from dtp.net.connection import Connection
from dtp.tasks import start_task

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

#: Seconds between two lines of JSON.
_LINES_EVERY = 0.5
#: Seconds between two looks at whether the connection has a carrier.
_LOOK_EVERY = 0.5
#: Renderings of the bar per second: each costs the event loop a few milliseconds.
_REFRESH = 5
_WORDS = {"check": "comparing", "move": ""}


class ProgressMeter:
    """Call it with each `Progress`; `with` shows and removes the bar.

    `seconds` and `moved` are of the bytes that this run moved. At most one at a time may show a bar.
    """

    def __init__(
        self, verb: str, *, bar: bool = True, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._verb, self._clock = verb, clock
        self._wants_bar = bar and sys.stderr.isatty() and not wants_json()
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        self._phase = ""
        self._next_line = 0.0
        self._began = 0.0
        self._ended = 0.0
        self.moved = 0

    @property
    def seconds(self) -> float:
        """From the first byte to the last one so far."""
        return self._ended - self._began

    @property
    def speed(self) -> float:
        """Bytes per second; 0 when nothing had to move."""
        return self.moved / self.seconds if self.moved and self.seconds else 0.0

    @property
    def began(self) -> bool:
        """Whether this attempt has come to comparing or moving bytes."""
        return bool(self._phase)

    def restart_timing(self) -> None:
        """Note that another attempt begins; what is counted and timed is that."""
        self._phase, self.moved = "", 0

    def print_event(self, event: str, words: str, peer: PeerId) -> None:
        """Tell something that happened on the way, above the bar where there is one."""
        if self._bars is not None:
            self._bars.print(f"dtp: {words}", markup=False, highlight=False)
        else:
            print_line({"event": event, "peer": str(peer)}, f"dtp: {words}", err=True)

    def finish(self) -> None:
        """Note that the other side has confirmed: that is the end of the time it took."""
        if self.moved:
            self._ended = self._clock()

    def __call__(self, progress: Progress) -> None:
        """Take note, and show it now and then."""
        now = self._clock()
        if progress.phase == "move":
            if self._phase != "move":
                self._began = now
            self._ended = now
            self.moved = progress.done - progress.begin
        if self._bars is not None:
            self._show_progress(progress)
        elif wants_json() and (progress.phase != self._phase or now >= self._next_line):
            self._next_line = now + _LINES_EVERY
            print_line(
                {
                    "event": "progress",
                    "phase": progress.phase,
                    "name": progress.file.name,
                    "bytes": progress.done,
                    "size": progress.file.size,
                },
                None,
            )
        self._phase = progress.phase

    def _show_progress(self, progress: Progress) -> None:
        assert self._bars is not None
        if self._task is None or progress.phase != self._phase:
            if self._task is not None:
                self._bars.remove_task(self._task)
            words = f"{_WORDS[progress.phase] or self._verb} {printable(progress.file.name)}"
            # The speed is of what moves now: bytes from before count as done, not as fast.
            self._task = self._bars.add_task(words, total=progress.file.size, completed=progress.begin)
        self._bars.update(self._task, completed=progress.done)

    @contextlib.asynccontextmanager
    async def watch_carriers(self, connection: Connection) -> AsyncIterator[None]:
        """Tell, while the block runs, when the connection has lost its carrier, and when it has another."""
        task = start_task(self._print_carriers(connection), name="dtp-progress")
        try:
            yield
        finally:
            task.cancel()

    async def _print_carriers(self, connection: Connection) -> None:
        attached = True
        while not connection.closed:
            await asyncio.sleep(_LOOK_EVERY)
            if bool(connection.stats.carriers) == attached or connection.closed:
                continue
            attached = not attached
            if attached:
                self.print_event("resumed", "connected again", connection.peer)
            else:
                words = f"the connection is cut; trying for {connection.limits.resume:g} s to get it back"
                self.print_event("detached", words, connection.peer)

    def __enter__(self) -> ProgressMeter:
        if self._wants_bar:
            self._bars = _bars()
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar away, before something else is printed. Idempotent."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


def _bars() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars
    from rich.table import Column

    return Bars(
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=2)),
        BarColumn(bar_width=None, table_column=Column(ratio=2)),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        refresh_per_second=_REFRESH,
        transient=True,
        expand=True,
    )


def size_text(size: float) -> str:
    """Return a size in bytes for people: `1.5 GiB`."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def speed_text(speed: float) -> str:
    """Return a speed in bytes per second for people: `750 MB/s`, in powers of ten as networks are counted."""
    for unit in ("B/s", "kB/s", "MB/s"):
        if speed < 1000:
            return f"{speed:.0f} {unit}"
        speed /= 1000
    return f"{speed:.2f} GB/s"
