"""Steps of tasks, each of which serves one peer: what they take is charged to it, and in a long turn they wait.

A turn of asyncio runs all tasks that are ready. With a thousand requests under way a hundred answers come in one
turn, and whoever asks for something waits behind all of them, two or three times for one request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from types import TracebackType
from typing import Any, Final, TypeVar

from dtp.net.turns.budget import LITTLE
from dtp.net.turns.clock import LONG, TurnClock
from dtp.net.turns.fair_queue import FairQueue, ProcessorAccount

T = TypeVar("T")

#: How many are woken for a turn at most.
_MOST: Final = 64
#: Seconds of a turn from which on steps wait whoever they are for: what comes in a turn is as much as others like. A
#: request passes two or three steps, and whoever has had least waits for no more than the turns of those.
_FAR_TOO_LONG: Final = 4 * LONG


class Fitting:
    """How many of those that wait for a turn fit the next one, by what those took that were woken for this one."""

    __slots__ = ("_fit", "_most")

    def __init__(self, most: int) -> None:
        self._most = self._fit = most

    def count_fitting(self, woken: int, spent: float) -> int:
        """Return how many are to be woken now: so many were for this turn, and it took so many seconds."""
        if spent < LONG:
            self._fit = min(self._most, 2 * self._fit)
        elif woken:
            self._fit = max(1, int(woken * LONG / spent))
        return self._fit


class Steps:
    """The steps that wait for a turn with time. Those of whoever has had least of the processor come first."""

    __slots__ = ("_at_end", "_done", "_fitting", "_queue", "clock")

    def __init__(self, clock: TurnClock) -> None:
        self.clock = clock
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue(clock.shares)
        self._fitting = Fitting(_MOST)
        self._done = 0  # in this turn, of those that were woken for it
        self._at_end = False  # it is looked at the end of this turn who fits the next

    def __len__(self) -> int:
        return len(self._queue)

    def has_to_wait(self, account: ProcessorAccount) -> bool:
        """True if this turn is long already, and others have had less of the processor; or if it is far too long.
        To be asked while turns are long."""
        clock = self.clock
        return not clock.has_time and (account.is_ahead(LITTLE) or clock.spent >= _FAR_TOO_LONG)

    def has_to_wait_again(self) -> bool:
        """True if there is no time any more for a step that was woken for this turn. One in each turn is done."""
        if self._done and self.clock.spent >= 2 * LONG:
            return True
        self._done += 1
        return False

    def wait_step(self, account: ProcessorAccount) -> asyncio.Future[None]:
        """Return a future that is done in a turn to come, for the next step for `account`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put_item(account, future, little=True)
        self._look_at_end()
        return future

    def _look_at_end(self) -> None:
        if not self._at_end:
            self._at_end = True
            self.clock.call_at_end(self._wake_steps)

    def _wake_steps(self) -> None:
        self._at_end = False
        left = self._fitting.count_fitting(self._done, self.clock.spent)
        self._done = 0
        while self._queue and left:
            _, future = self._queue.take_next()
            if not future.done():  # else it was given up
                future.set_result(None)
                left -= 1
                self._look_at_end()
        if self._queue:
            self._look_at_end()


class Charged(Coroutine[Any, Any, T]):
    """`work`, of which each step is charged to `account` while turns are long, and waits for one that has time."""

    __slots__ = ("_account", "_steps", "_waiting", "_work")

    def __init__(self, work: Coroutine[Any, Any, T], steps: Steps, account: ProcessorAccount) -> None:
        self._work, self._steps, self._account = work, steps, account
        self._waiting = False  # the next step has waited for its turn

    def send(self, value: Any) -> Any:
        steps = self._steps
        clock = steps.clock
        if not clock.busy:
            return self._work.send(value)
        if steps.has_to_wait_again() if self._waiting else steps.has_to_wait(self._account):
            self._waiting = True
            # Whatever the work waits for is done, and stays so: its task is woken once more, later.
            return next(steps.wait_step(self._account).__await__())
        self._waiting = False
        began = clock.read()
        try:
            return self._work.send(value)
        finally:
            self._account.charge_seconds(clock.read() - began)

    def throw(
        self,
        kind: Any,
        value: BaseException | object = None,
        trace: TracebackType | None = None,
    ) -> Any:
        self._waiting = False
        return self._work.throw(kind) if value is None else self._work.throw(kind, value, trace)

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Generator[Any, None, T]:
        return self._work.__await__()

    @property
    def cr_await(self) -> Coroutine[Any, Any, T]:
        """The work: where the task waits is found there."""
        return self._work

    def __getattr__(self, name: str) -> Any:
        """Return what else is asked of a coroutine, such as `__qualname__`: that of the work."""
        return getattr(self._work, name)
