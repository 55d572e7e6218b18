"""An event loop whose clock is virtual: it jumps to the next timer as soon as nothing is left to do.

For programs that live in memory only. Hours of timeouts pass in milliseconds, and every run is the same. What
would wait for ever is reported as `DeadlockError`, with the tasks and where they wait; what would go round for ever
as `LivelockError`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import threading
from asyncio import base_events
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, TypeVar

from dtp.errors import LocalError

T = TypeVar("T")


class DeadlockError(LocalError):
    """Every task waits, and no timer is set that could wake one."""

    code: ClassVar[str] = "deadlock"


class LivelockError(LocalError):
    """The program goes on and on: no time passes, or it is nothing but timers that pass."""

    code: ClassVar[str] = "livelock"


class VirtualTimeError(LocalError):
    """Something was asked of the virtual loop that only real time and real sockets have."""

    code: ClassVar[str] = "virtual-time"


class _Jumper:
    """Stands where asyncio's loop expects a selector: instead of waiting, it moves the clock."""

    def __init__(self, loop: FakeClockLoop) -> None:
        self._loop = loop
        self._turns = 0  # since the clock has moved
        self._jumps = 0

    def select(self, timeout: float | None) -> list[object]:
        if timeout is None:
            raise DeadlockError(f"Every task waits and no timer is set. {_waiting(self._loop)}")
        if timeout > 0:
            self._loop.jump()
            self._turns = 0
            self._jumps += 1
            if self._jumps > self._loop.most_jumps:
                jumps = f"the clock has jumped {self._jumps:,} times, and it is {self._loop.time():g} s"
                why = "somebody may wait for ever beside timers that go on, such as a connection's keepalive"
                raise LivelockError(f"{jumps}: {why}. {_waiting(self._loop)}")
            return []
        self._turns += 1
        if self._turns > self._loop.most_turns:
            now = f"{self._loop.time():g} s"
            turns = f"{self._turns:,} turns of the loop have passed"
            raise LivelockError(f"{turns}, and it is still {now}. {_waiting(self._loop)}")
        return []


class FakeClockLoop(base_events.BaseEventLoop):
    """The loop. `time()` starts at `start` seconds and moves only when nothing is ready to run.

    `LivelockError` ends a program that takes more than `most_turns` turns of the loop at one and the same time, or
    for which the clock has to jump more than `most_jumps` times.

    It has no sockets, pipes or signals. `run_in_executor` (and so `asyncio.to_thread`) runs the function at
    once, in the loop's own thread.
    """

    def __init__(self, start: float = 0.0, most_turns: int = 1_000_000, most_jumps: int = 1_000_000) -> None:
        super().__init__()
        self.most_turns, self.most_jumps = most_turns, most_jumps
        self._set_time(start)
        self._worked = 0.0
        self._selector = _Jumper(self)
        self._scheduled: list[asyncio.TimerHandle]
        self._home = threading.get_ident()

    def time(self) -> float:
        return self._now

    def jump(self) -> None:
        """Move the clock to the earliest timer. The time is taken over, not added up: no rounding."""
        self._set_time(max(self._now, self._scheduled[0].when()))

    def advance(self, seconds: float) -> None:
        """Move the clock without letting timers run in between: the machine slept, or a callback took
        long."""
        self._set_time(self._now + seconds)

    def work(self, seconds: float) -> None:
        """Move the clock as `advance` does, and the processor time with it: a callback has worked for so long."""
        self._worked += seconds
        self.advance(seconds)

    def processor_time(self) -> float:
        """Return the seconds of processor time that were taken, which are those of `work`: every run is the same."""
        return self._worked

    def _set_time(self, now: float) -> None:
        self._now = now
        # asyncio runs the timers before `time() + _clock_resolution`. One step of the float keeps timers
        # apart that are apart, and is never so small that the sum is no later than the time itself.
        self._clock_resolution = math.ulp(now)

    def run_in_executor(  # type: ignore[override]
        self, executor: concurrent.futures.Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except StopIteration as error:
            future.set_exception(RuntimeError(f"a thread's function raised {error!r}"))
        except Exception as error:  # noqa: BLE001  # belongs to whoever awaits the future
            future.set_exception(error)
        return future

    def _process_events(self, event_list: list[object]) -> None:
        """Do nothing: the jumper has no events."""

    def _write_to_self(self) -> None:
        """Do nothing: `call_soon_threadsafe` wakes the selector so, and this one never sleeps."""
        if threading.get_ident() != self._home:
            raise VirtualTimeError("other threads can't reach a loop with virtual time")


def run(
    main: Coroutine[Any, Any, T], *, loop_factory: Callable[[], asyncio.AbstractEventLoop] = FakeClockLoop
) -> T:
    """Run `main` to its end on a fresh loop and give its result: `asyncio.run` for tests.

    Stricter than that: what a callback or a forgotten task raised fails the run too, as an `ExceptionGroup`,
    where asyncio would only log it. Raises `DeadlockError` when `main` can't get on, and `LivelockError` when it
    goes on without end. With `loop_factory` the same strictness is had on a loop with real time.
    """
    stray: list[Exception] = []

    def collect(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        stray.append(
            error if isinstance(error, Exception) else RuntimeError(f"{context['message']}: {error!r}")
        )

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.get_loop().set_exception_handler(collect)
        try:
            result = runner.run(main)
        except Exception as error:
            for other in stray:
                error.add_note(f"raised in a callback meanwhile: {other!r}")
            raise
    if stray:
        raise ExceptionGroup("raised in callbacks", stray)
    return result


def _waiting(loop: asyncio.AbstractEventLoop) -> str:
    lines = ["The tasks and where they are:"]
    for task in sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name()):
        lines.append(f"  {task.get_name()} at {_innermost(task)}")
    return "\n".join(lines)


def _innermost(task: asyncio.Task[Any]) -> str:
    """Return where a suspended task waits: file, line and function of the last coroutine in its chain of awaits."""
    place = "?"
    step: Any = task.get_coro()
    while step is not None:
        frame = getattr(step, "cr_frame", None) or getattr(step, "gi_frame", None)
        if frame is not None:
            place = f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_qualname})"
        step = getattr(step, "cr_await", None) or getattr(step, "gi_yieldfrom", None)
    return place
