"""What both ends' drivers of a meter share: frames in, counts in, the clock, and tasks that end with the connection.

A driver is where a meter's half meets a connection: `ServerMeter` drives a `Payee`, `ClientMeter` a `Payer`. Counts
come from the connection's traffic, frames go through its METER frames.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any, Final

from dtp.errors import DtpError
from dtp.net.connection import Connection
from dtp.net.watch import ByteWatch
from dtp.pay.errors import CountsDisputed, MalformedMeter, NotMetered, StoreError, VoucherRefused
from dtp.pay.terms import NEVER
from dtp.session.codes import CloseCode, CloseDetail, Refuse
from dtp.session.session import Traffic
from dtp.tasks import start_task

log = logging.getLogger("dtp.pay")

#: Seconds that a server waits at the end for what is unpaid, and a client for an answer about closing; over carriers
#: that are slow by nature half of the connection's patience, if that is more.
END_PATIENCE: Final = 5.0
#: What the other side is told where our store can't be written.
_STORE_AWAY: Final = (
    "vouchers can't be stored here at the moment, which is no fault of yours: what was paid stands, come again "
    "later"
)
#: How often an unanswered frame is said again within the patience of carriers that are slow by nature.
REPEATS: Final = 12


def store_away() -> Refuse:
    """Return what the other side is told where vouchers can't be stored here, by a full disk say."""
    return Refuse(CloseCode.BUSY, _STORE_AWAY, detail=CloseDetail.VOUCHERS_NOT_STORED)


class MeterDriver(ABC):
    """What both ends' drivers share: frames in, counts in, the timer, tasks that end with the connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.loop = asyncio.get_running_loop()
        #: What ended metering, if something of it was wrong.
        self.error: DtpError | None = None
        self._traffic = Traffic(-1, -1, -1)
        #: From which counts on the connection is to tell.
        self.watch = ByteWatch(self._on_bytes_moved)
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed: list[asyncio.Future[None]] = []
        self._over = False

    def start_counting(self) -> None:
        """Begin: from now on everything that moves is counted."""
        self.connection.watch = self.watch
        self._on_bytes_moved()
        self.connection.take_meter(self._on_frame)
        self.connection.add_end_callback(self.on_ended)

    @property
    def deadline(self) -> float | None:
        """When it looks at the time next, by the loop's clock; None where nothing waits for that."""
        return None if self._timer is None else self._timer.when()

    @property
    def end_patience(self) -> float:
        """Seconds that the last words of a connection may take."""
        return max(END_PATIENCE, self.connection.patience / 2)

    def on_ended(self) -> None:
        """Take note that the connection has ended."""
        if self._over:
            return
        self._read_counts()
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        self._wake_waiters()
        self.on_connection_ended()

    @abstractmethod
    def on_connection_ended(self) -> None:
        """Keep what has to be kept of a connection that is over."""

    def _read_counts(self) -> None:
        """Tell the meter the counts."""
        self._traffic = self.connection.traffic
        self.watch.opened = self._traffic.opened
        self._update_counts(*self._traffic)

    @abstractmethod
    def _update_counts(self, opened: int, sent: int, received: int) -> None:
        """Tell the meter these counts."""

    @abstractmethod
    def _receive_frame(self, data: bytes) -> None:
        """Give the meter a frame."""

    @abstractmethod
    def _report_time(self) -> None:
        """Tell the meter the time."""

    @abstractmethod
    def _next_deadline(self) -> float:
        """Return when the meter wants to be told the time."""

    @abstractmethod
    def _process_events(self) -> None:
        """Do what the meter asks for, and say when to look next (`watch`)."""

    def process_turn(self) -> None:
        """Act by what has happened, and set the timer."""
        if self._over:
            return
        self._process_events()
        if self._changed:
            self._wake_waiters()
        deadline = self._next_deadline()
        if self._timer is not None:
            if self._timer.when() <= deadline:
                return  # it comes earlier, looks, and is set again
            self._timer.cancel()
        self._timer = None if deadline == NEVER else self.loop.call_at(deadline, self._on_timer)

    def _on_bytes_moved(self) -> None:
        """Look at what moved, which is so much that it is worth it."""
        if self.connection.traffic != self._traffic and not self._over:
            self._look_at_counts()

    def _look_at_counts(self) -> None:
        """Tell the meter what has moved."""
        self.update_counts()

    def update_counts(self) -> None:
        """Bring the counts up to now, and do what follows."""
        if not self._over:
            self._read_counts()
            self.process_turn()

    def _on_timer(self) -> None:
        self._timer = None
        self._read_counts()
        self._report_time()
        self.process_turn()

    def _on_frame(self, data: bytes) -> None:
        if self._over:
            return
        self._read_counts()
        try:
            self._receive_frame(data)
        except (MalformedMeter, VoucherRefused, CountsDisputed) as error:
            self.fail(error)
            return
        self.process_turn()

    def fail(self, error: DtpError) -> None:
        """End the connection with PAYMENT and the reason: something of metering is wrong."""
        if self.error is None:
            self.error = error
            log.log(
                logging.WARNING if isinstance(error, StoreError) else logging.INFO,
                "%r: %s",
                self.connection,
                error,
            )
        if isinstance(error, StoreError):  # of our disk or database: what is wrong with it is ours to know
            away = store_away()
            self.connection.abort(away.code, away.reason, detail=away.detail)
        else:
            self.connection.abort(CloseCode.PAYMENT, str(error)[:256])

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside; what goes wrong with it, whatever it is, ends the connection."""

        async def guarded() -> None:
            try:
                await work
            except DtpError as error:
                if not self.connection.closed:
                    self.fail(error)
                else:  # such as its last counts on a full disk
                    log.warning("%r: %s", self.connection, error)

        task = start_task(guarded(), name="dtp-pay", loop=self.loop)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        fault = None if task.cancelled() else task.exception()
        if fault is not None:  # of what the program gave us, `on_charge` say; nobody else waits for this task
            message = f"metering of {self.connection!r} has ended by an error of the program"
            self.loop.call_exception_handler({"message": message, "exception": fault, "task": task})
            self.connection.abort(CloseCode.INTERNAL, "metering failed")

    async def wait_settled(self) -> None:
        """Wait until what was begun for this connection is done, such as writing its last counts."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def _send_frame(self, frame: bytes) -> None:
        if not self.connection.closed:
            self.connection.send_meter(frame)

    async def wait_changed(self) -> None:
        """Wait until something has happened. Raises what ended the connection."""
        self._raise_if_over()
        future = self.loop.create_future()
        self._changed.append(future)
        await future
        self._raise_if_over()

    def _raise_if_over(self) -> None:
        if self._over:
            if self.error is not None:
                raise self.error
            if (ended := self.connection.ended_by) is not None:
                raise ended
            raise NotMetered("metering of this connection is over")

    def _wake_waiters(self) -> None:
        waiting, self._changed = self._changed, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
