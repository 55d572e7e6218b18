"""Streams that the peer has opened and nobody has taken up yet: by whom they are taken, and how many in a turn."""

from __future__ import annotations

import bisect
from collections.abc import Callable

from dtp.net.parts.waiters import Waiters
from dtp.net.stream import Stream
from dtp.net.turns.budget import LOW, StreamBudget
from dtp.net.turns.fair_queue import ProcessorAccount


class StreamIntake:
    """In the order in which they were opened they go to `accept_stream`, or each to the function that `take_streams`
    was given.

    Of all connections of a loop 16 are taken up in a turn; the rest waits here, with what has come on it.
    """

    __slots__ = ("_budget", "_failed", "_on_stream", "_over", "_waiters", "_waiting", "account")

    def __init__(
        self,
        budget: StreamBudget,
        waiters: Waiters,
        account: ProcessorAccount,
        failed: Callable[[Exception], object],
    ) -> None:
        """`failed` is told what foreign code raised that was given a stream after `take_streams` had returned."""
        self._budget, self._waiters, self._failed = budget, waiters, failed
        #: For whom streams are taken up.
        self.account = account
        self._waiting: list[Stream] = []
        self._on_stream: Callable[[Stream], None] | None = None
        self._over = False

    @property
    def taking(self) -> bool:
        """True if streams wait for a turn in which the function of `take_streams` gets them."""
        return self._on_stream is not None and bool(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    async def accept_stream(self, check: Callable[[], None]) -> Stream:
        """Return the next one. While there is none, what `check` raises."""
        has_room = False
        while not self._waiting or not has_room:
            if not self._waiting:
                check()
                await self._waiters.wait_for("accept")
            elif self._has_room():
                self._budget.left -= 1
                has_room = True
            else:
                await self._budget.wait_room(self.account)
                has_room = True
        return self._waiting.pop(0)

    def put_back(self, stream: Stream) -> None:
        """Put one that was accepted where it was, for whoever asks next."""
        bisect.insort(self._waiting, stream, key=lambda each: each.id)
        self._waiters.wake_for("accept")

    def take_streams(self, on_stream: Callable[[Stream], None]) -> None:
        """Give each from now on to `on_stream`, those that wait first. Raises what it raises until this returns."""
        self._on_stream = on_stream
        while self._waiting:
            if not self._has_room():
                self._budget.wait_turn(self._take_waiting, self.account)
                break
            self._budget.left -= 1
            on_stream(self._waiting.pop(0))

    def note_opened(self, stream: Stream) -> None:
        """Note that the peer has opened it."""
        if self._on_stream is None:
            self._waiting.append(stream)
            self._waiters.wake_for("accept")
        elif self._has_room():
            self._budget.left -= 1
            self._give_stream(self._on_stream, stream)
        else:
            if not self._waiting:
                self._budget.wait_turn(self._take_waiting, self.account)
            self._waiting.append(stream)

    def keep_whole(self, *, by_peer: bool) -> None:
        """Keep what is still wanted when the connection has ended. If the peer closed it, that is what it had
        finished, or all where the program accepts streams one by one; else what isn't broken off where the program
        accepts them, and nothing where a function is given them."""
        if self._on_stream is None and by_peer:
            return
        wanted = by_peer or self._on_stream is None
        self._waiting = [each for each in self._waiting if wanted and not each.broken]

    def let_go(self) -> None:
        """Take nothing more that comes: the connection is over. What waits for a turn is taken up all the same."""
        self._over = True
        if not self.taking:
            self._on_stream, self._failed = None, _do_nothing

    def _has_room(self) -> bool:
        return self._budget.left > LOW or self._budget.has_room(self.account)

    def _take_waiting(self) -> bool:
        """Take up one that waits for a turn of the loop; return whether others do."""
        if self._waiting and self._on_stream is not None:
            stream = self._waiting.pop(0)
            if stream.broken:  # the peer has given it up
                stream.reset()
            else:
                self._give_stream(self._on_stream, stream)
        if self._waiting:
            return True
        self._waiters.wake_for("taken")
        if self._over:
            self.let_go()
        return False

    def _give_stream(self, on_stream: Callable[[Stream], None], stream: Stream) -> None:
        try:
            on_stream(stream)
        except Exception as error:  # noqa: BLE001 - foreign code: what came with the stream is still to be told
            self._failed(error)


def _do_nothing(error: Exception) -> None:
    """Do nothing: the connection is over."""
