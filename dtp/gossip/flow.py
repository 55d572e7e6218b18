"""Waiting in gossip: for the router's next time, for room at neighbours, and for slow programs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from dtp.gossip.errors import ClockRefused, TopicError
from dtp.gossip.router import Router
from dtp.gossip.topics import Topic


class RouterTimer:
    """Gives a router the time, and calls `tick` when something is due. It runs from `start` to `stop`."""

    __slots__ = ("_loop", "_on_due", "_router", "_timer", "_wall")

    def __init__(self, router: Router, wall: Callable[[], float], on_due: Callable[[], None]) -> None:
        """`on_due` is called after each `tick`. `wall` returns the time of day."""
        self._router, self._wall, self._on_due = router, wall, on_due
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop that it runs in; None while it doesn't run."""
        return self._loop

    def loop_time(self) -> float:
        """Return the loop's time. Raise `TopicError` while it doesn't run."""
        if self._loop is None:
            raise TopicError("gossip isn't running; use it within 'async with'")
        return self._loop.time()

    def start(self) -> None:
        """Start to run in the present loop."""
        self._loop = asyncio.get_running_loop()
        self._set_wall()
        self.set_due()

    def stop(self) -> None:
        """Stop running. Idempotent."""
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()

    def set_due(self) -> None:
        """Wake up when the router's next time comes, if that is sooner than was known."""
        if self._loop is None:
            return
        due = self._router.next_time()
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._handle_timer)

    def _set_wall(self) -> None:
        self._router.set_wall(self._wall() - self.loop_time())

    def _handle_timer(self) -> None:
        self._timer = None
        self._set_wall()
        self._router.tick(self.loop_time())
        self._on_due()


class Flow:
    """Makes publishers wait until neighbours have room, and neighbours until programs have read."""

    __slots__ = ("_full", "_room", "_router", "_waiters", "is_paused")

    def __init__(self, router: Router) -> None:
        self._router = router
        self._room: dict[bytes, bool] = {}  # topic -> whether there is room in this turn
        self._waiters: list[asyncio.Future[None]] = []
        self._full: set[bytes] = set()
        #: True while nothing is read from neighbours: a program reads too slowly and asked to wait, or most
        #: neighbours read too slowly.
        self.is_paused = False

    @property
    def is_awaited(self) -> bool:
        """True if the end of the turn may wake somebody who waits."""
        return bool(self._room or self._waiters or self.is_paused)

    def has_room(self, topic: bytes, now: float) -> bool:
        """Return True if neighbours have room for another message. The router is asked once in each turn.

        Raise `ClockRefused` if all of them would refuse it for its time.
        """
        has_room = self._room.get(topic)
        if has_room is None:
            if (difference := self._router.find_refusing_clocks(topic)) is not None:
                raise ClockRefused(f"nothing was published: {difference}")
            has_room = self._room[topic] = self._router.has_room(topic, now)
        return has_room

    async def wait_change(self) -> None:
        """Wait until there may be room, or other members of a topic."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def wake_waiters(self) -> None:
        """Wake all waiters, so that they check again."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def note_full(self, topic: bytes) -> None:
        """Stop reading from neighbours: a program that asked for that has too many unread messages of a topic."""
        self._full.add(topic)
        self.is_paused = True

    def note_read(self, topics: Mapping[bytes, Topic]) -> bool:
        """Note that a program has read, or left a topic. Return True if no joined topic is full any more."""
        if not self._full:
            return False
        self._full = {name for name in self._full if name in topics and topics[name].is_full}
        return not self._full

    def end_turn(self, now: float) -> bool:
        """Check again who has to wait. Return True if neighbours can be read again after a pause."""
        self._room.clear()
        was_paused, self.is_paused = self.is_paused, bool(self._full) or self._router.is_congested(now)
        return was_paused and not self.is_paused
