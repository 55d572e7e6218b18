"""Where every task of asyncio begins: nowhere else does anything in dtp create one.

There are three kinds, by whoever looks at the end of it:

- `start_task`: whoever starts it waits for it, and takes its result or its error;
- `TaskSet`: its owner waits for none of them by itself; what goes wrong in one is reported;
- `SupervisedTask`: it works for as long as its owner does. When it ends without being stopped (by an error, by
  itself, or because a library has cancelled it), that is logged and counted, and it begins again after a pause.

`supervised()` says how those stand that the running loop has.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

log = logging.getLogger("dtp.tasks")

T = TypeVar("T")

#: Seconds before a task begins again for the first time, and at most; each pause is twice the one before.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
#: Seconds that a task has to work before its pauses are short again.
_SETTLED: Final = 2 * LONGEST_PAUSE


def start_task(
    work: Coroutine[Any, Any, T], *, name: str, loop: asyncio.AbstractEventLoop | None = None
) -> asyncio.Task[T]:
    """Return a task that does `work`, in the running loop or in `loop`. The caller waits for it, or cancels it."""
    return (loop or asyncio.get_running_loop()).create_task(work, name=name)


def as_future(work: Awaitable[T], *, name: str) -> asyncio.Future[T]:
    """Return a future of what foreign code gave to be awaited: itself where it is one, else a task."""
    if isinstance(work, asyncio.Future):
        return work

    async def wait() -> T:
        return await work

    return start_task(wait(), name=name)


class TaskSet:
    """Tasks that work beside their owner, and end by themselves. An error in one is reported, and ends no other."""

    def __init__(self, on_error: Callable[[asyncio.Task[Any], BaseException], object] | None = None) -> None:
        """`on_error` hears of the errors; without it the loop's exception handler does."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._on_error = on_error or _report

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[asyncio.Task[Any]]:
        return iter(list(self._tasks))

    def start(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Return a task that does `work`, and keep it until it has ended."""
        task = start_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        fault = None if task.cancelled() else task.exception()
        if fault is not None:
            self._on_error(task, fault)

    async def wait(self) -> None:
        """Wait until none is left, nor any that these have started meanwhile."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def cancel(self) -> None:
        """Cancel all of them."""
        for task in self:
            task.cancel()

    async def stop(self) -> None:
        """Cancel all of them, and wait until they have ended."""
        self.cancel()
        current = asyncio.current_task()
        await asyncio.gather(*(each for each in self if each is not current), return_exceptions=True)


def _report(task: asyncio.Task[Any], fault: BaseException) -> None:
    message = f"{task.get_name()} has ended by an error that nobody waits for"
    task.get_loop().call_exception_handler({"message": message, "exception": fault, "task": task})


# -------------------------------------------------------------------------------------------------- supervised ones


@dataclass(frozen=True)
class TaskStatus:
    """How the supervised tasks of one name stand."""

    name: str
    #: Those that work, and those that wait for their next beginning.
    running: int
    waiting: int
    #: How often one has ended without being stopped, since the loop began, and why the last one did; "" before.
    restarts: int
    error: str


@dataclass
class _Known:
    """What a loop's supervised tasks are, and what became of them."""

    tasks: set[SupervisedTask] = field(default_factory=set)
    restarts: Counter[str] = field(default_factory=Counter)
    errors: dict[str, str] = field(default_factory=dict)


_KNOWN: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Known]] = WeakKeyDictionary()


def supervised() -> list[TaskStatus]:
    """Return how the supervised tasks of the running loop stand, by name: those that were started and not stopped,
    and those that had to begin again. Nothing where no loop runs."""
    try:
        known = _KNOWN.get(asyncio.get_running_loop(), _Known())
    except RuntimeError:
        return []
    names = sorted({each.name for each in known.tasks} | known.restarts.keys())
    return [
        TaskStatus(
            name,
            running=sum(each.running for each in known.tasks if each.name == name),
            waiting=sum(not each.running for each in known.tasks if each.name == name),
            restarts=known.restarts[name],
            error=known.errors.get(name, ""),
        )
        for name in names
    ]


class SupervisedTask:
    """A task that works until it is stopped. What ends it otherwise is logged and counted, and it begins again.

    `work` is called for each beginning. The first pause is `first_pause` seconds, each further one twice as long, up
    to `longest_pause`; a beginning that has lasted makes them short again.

    `foreseen` are errors that are no fault of the program, such as a peer that is gone: they are told without a
    traceback, the first one as a warning, and those that follow in further beginnings as information.
    """

    def __init__(
        self,
        work: Callable[[], Coroutine[Any, Any, object]],
        *,
        name: str,
        first_pause: float = FIRST_PAUSE,
        longest_pause: float = LONGEST_PAUSE,
        foreseen: tuple[type[Exception], ...] = (),
    ) -> None:
        self.name = name
        self._foreseen = foreseen
        self._work = work
        self._pauses = (first_pause, longest_pause)
        self._pause = first_pause
        self._began = 0.0
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        #: How often it has ended without being stopped, and why it did last; "" before.
        self.restarts = 0
        self.error = ""

    @property
    def started(self) -> bool:
        """True from `start` until it is stopped."""
        return self._loop is not None

    @property
    def running(self) -> bool:
        """True while it works: started, and not in a pause."""
        return self._task is not None

    def start(self) -> None:
        """Begin. Nothing happens where it has."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            _KNOWN.setdefault(self._loop, _Known()).tasks.add(self)
            self._begin()

    def _begin(self) -> None:
        assert self._loop is not None
        self._timer = None
        self._began = self._loop.time()
        self._task = self._loop.create_task(self._work(), name=self.name)
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._task = None
        fault = None if task.cancelled() else task.exception()
        loop = self._loop
        if loop is None:  # it was stopped
            if fault is not None:
                _report(task, fault)
            return
        why = "it was cancelled" if task.cancelled() else _words(fault)
        first, longest = self._pauses
        if loop.time() - self._began >= _SETTLED:
            self._pause = first
        pause, self._pause = self._pause, min(2 * self._pause, longest)
        self.restarts += 1
        self.error = why
        known = _KNOWN[loop]
        known.restarts[self.name] += 1
        known.errors[self.name] = why
        if task.cancelled():
            # When a program ends, asyncio cancels everything: that is said only where the loop goes on.
            self._timer = loop.call_later(pause, self._begin_after_cancel)
        else:
            words = f"{why}; it begins again in {pause:g} s"
            if isinstance(fault, self._foreseen):
                level = logging.WARNING if pause == first else logging.INFO
                log.log(level, "%s: %s", self.name, words, extra={"fields": self._fields()})
            else:
                self._report_end(words, fault)
            self._timer = loop.call_later(pause, self._begin)

    def _begin_after_cancel(self) -> None:
        self._report_end(f"{self.error}; it begins again", None)
        self._begin()

    def _fields(self) -> dict[str, object]:
        return {"event": "task-restarted", "task": self.name, "why": self.error, "restarts": self.restarts}

    def _report_end(self, what: str, fault: BaseException | None) -> None:
        message = "%s has ended without being stopped: %s"
        log.error(message, self.name, what, exc_info=fault, extra={"fields": self._fields()})

    def retire(self) -> None:
        """Don't begin again: it ends by itself, or has. For what works as well as for its owner."""
        if self._loop is not None:
            _KNOWN[self._loop].tasks.discard(self)
            self._loop = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def cancel(self) -> None:
        """End it now, without waiting for that."""
        self.retire()
        if self._task is not None:
            self._task.cancel()

    async def stop(self) -> None:
        """End it now, and wait until it has ended. It may be started again. Idempotent."""
        self.cancel()
        await self._wait_ended()

    async def finish(self) -> None:
        """Wait until it ends by itself, for it was told to otherwise, and don't begin again. Idempotent."""
        self.retire()
        await self._wait_ended()

    async def _wait_ended(self) -> None:
        task = self._task
        if task is not None and task is not asyncio.current_task():
            await asyncio.wait([task])


def _words(fault: BaseException | None) -> str:
    return "it came to its end" if fault is None else str(fault) or type(fault).__name__
