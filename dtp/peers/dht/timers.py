"""Timers of a value: what is to be called when, without a clock."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

#: Cancelled timers that may stay in the heap before all of them are removed.
_SLACK: Final = 256


class Timer:
    """A call that is due at a time, unless `cancel` is called."""

    __slots__ = ("_timers", "call", "when")

    def __init__(self, timers: Timers, when: float, call: Callable[[float], object]) -> None:
        self._timers = timers
        self.when = when
        self.call: Callable[[float], object] | None = call

    def cancel(self) -> None:
        """Cancel the call. Idempotent."""
        if self.call is not None:
            self.call = None
            self._timers.cancelled += 1


class Timers:
    """All timers of a node."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._count = 0
        #: The number of cancelled timers in the heap.
        self.cancelled = 0

    def __len__(self) -> int:
        return len(self._heap) - self.cancelled

    def start_timer(self, when: float, call: Callable[[float], object]) -> Timer:
        """Return a timer that calls `call(now)` once `run_due` has reached `when`."""
        timer = Timer(self, when, call)
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, timer))
        if self.cancelled > _SLACK and 2 * self.cancelled > len(self._heap):
            self._heap = [each for each in self._heap if each[2].call is not None]
            heapq.heapify(self._heap)
            self.cancelled = 0
        return timer

    def next_time(self) -> float | None:
        """Return the time at which `run_due` is to be called next; None for never."""
        heap = self._heap
        while heap and heap[0][2].call is None:
            heapq.heappop(heap)
            self.cancelled -= 1
        return heap[0][0] if heap else None

    def run_due(self, now: float) -> None:
        """Call what is due, in order."""
        while (when := self.next_time()) is not None and when <= now:
            timer = heapq.heappop(self._heap)[2]
            call, timer.call = timer.call, None
            if call is not None:
                call(now)
