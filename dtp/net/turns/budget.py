"""What the connections of one event loop do in one turn of it, so that nobody waits long behind anybody.

A frame costs 1 to 5 us, so a flood of tiny ones holds up the loop: whoever reads more than its share keeps the rest
for turns to come, in which it reads nothing more from its carrier (docs/decisions/0260). One frame may open all the
streams that a peer is allowed, and each asks rules, connects to a backend and begins what it is for: 0.1 to 1 ms.
What is above the number waits for the next turns, connection by connection (docs/decisions/0260). Those who wait come
last in each turn, behind whoever says little (docs/decisions/0260); among them whoever has had least of the processor
comes first, and once a turn has taken long they have one step of it (docs/decisions/0260).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from dtp.net.turns.clock import LONG, TurnClock
from dtp.net.turns.fair_queue import FairQueue, ProcessorAccount

#: Frames of one connection in a turn, before others have theirs. What a record has beyond it is kept.
SHARE: Final = 256
#: ... and at once where turns have become long: behind them it is looked at how long this one is. Each may end a
#: request, which takes 0.1 to 0.3 ms.
STEP_FRAMES: Final = 16
#: ... and of all connections together; those that just came from a carrier have `LEAST` all the same.
TURN: Final = 256
#: What a connection reads at once however full the turn is: the request of somebody who waits.
LEAST: Final = 32
#: Seconds for which whoever brought more than `LEAST` at once waits where a turn is full: many who bring as much in
#: the same turn would make it long.
HEAVY: Final = 10.0
#: Bytes of a request: 120 frames at most, and mostly one.
REQUEST: Final = 512
#: Seconds by which who asks for no more may be ahead of others and need not wait in a long turn: what it takes to
#: answer some. Of those who move much each is that near to the others.
LITTLE: Final = 0.001
#: Frames of them that a turn has at most, beyond its own.
REQUESTS: Final = 8 * TURN
#: Reads of so few frames aren't counted: as many of them as a turn has sockets cost no more than their system calls.
FEW: Final = 8

#: Streams that a turn takes up: each takes up to 0.4 ms, of HTTP, and whoever is served waits for several turns.
STREAMS: Final = 16
#: With so many left a new number is asked for, so that only turns which use up more than half are ever counted.
LOW: Final = STREAMS // 2

#: First messages of handshakes that a turn answers as a server, 0.2 to 0.5 ms each: strangers can have any number of
#: them under way, and whoever is connected waits for no more than these, and as many last messages. Those have a
#: number of their own: in one line with the first messages of a flood a newcomer would have to come through it twice.
HANDSHAKES: Final = 2
#: First records of those that have just proven who they are: each asks rules, of a paid service a signature, and
#: begins a handler, 0.1 to 0.3 ms. As many as are half-open can have theirs ready for the same turn.
FIRST_RECORDS: Final = 4
#: Seconds for which a turn that is long already passes over those who have given up: in a flood most have by the time
#: it is their turn, and if each were the one step of a turn, nobody behind them would come in.
PASSING: Final = LONG / 2


class TurnBudget:
    """A number that each turn of the loop has anew, and who waits for a turn with room. Used within the loop.

    Who waits is called once; a True from it puts it behind all others of its account, for another call, and a None
    says that there was nothing to do any more, which counts for nothing. What a call takes of the processor is
    charged to its account, and accounts are called as they have had of it: nobody waits behind the crowd of another.
    A turn that has taken long calls one of them that has something to do, whatever is left of the number.
    """

    __slots__ = ("_clock", "_each", "_keep", "_queue", "_renewing", "_size", "left")

    def __init__(self, size: int, *, each: int, keep: int, clock: TurnClock | None = None) -> None:
        """`size` is the number, of which those that waited take it up while more than `keep` is left; each call of
        one counts `each` off before it counts more itself."""
        #: How much may still be done now; who does something counts it off.
        self.left = size
        self._size, self._each, self._keep = size, each, keep
        self._clock = clock or TurnClock.of_loop(asyncio.get_running_loop())
        self._renewing = False
        self._queue: FairQueue[Callable[[], bool | None]] = FairQueue(self._clock.shares)

    def wait_turn(
        self,
        go_on: Callable[[], bool | None],
        account: ProcessorAccount | None = None,
        *,
        little: bool = False,
    ) -> None:
        """Call `go_on` in a turn to come that has room, behind those that wait for this account already. It is
        `little` if it takes no more than a request does."""
        self._queue.put_item(account or self._clock.shares.get_account(""), go_on, little=little)
        self.renew_soon()

    def try_take(self) -> bool:
        """Return True, and count one off, if somebody may go on at once: the number isn't used up, and nobody waits.
        In a flood whoever comes would go on before those who wait, and each turn be longer by that."""
        self.renew_soon()
        if self.left <= 0 or self._queue:
            return False
        self.left -= 1
        return True

    def renew_soon(self) -> None:
        """Have the whole number again in the next turn. Idempotent within a turn."""
        if not self._renewing:
            self._renewing = True
            self._clock.call_at_end(self._renew_budget)

    def _renew_budget(self) -> None:
        self._renewing = False
        self.left = self._size
        queue, clock = self._queue, self._clock
        first = clock.read()
        try:
            while queue and self.left > self._keep:
                self.left -= self._each
                account, go_on = queue.take_next()
                began = clock.read()
                again = go_on()
                now = clock.read()
                account.charge_seconds(now - began)
                if again is None:
                    self.left += self._each
                elif again:
                    queue.put_item(account, go_on)
                if not clock.has_time and (again is not None or now - first >= PASSING):
                    break
        finally:
            if queue:
                self.renew_soon()


class FrameBudget(TurnBudget):
    """The frames of a turn."""

    __slots__ = ()

    def __init__(self, clock: TurnClock | None = None) -> None:
        super().__init__(TURN, each=0, keep=LEAST, clock=clock)

    def has_room(self, size: int, heavy: bool) -> bool:
        """True if `size` bytes may be read at once. In a full turn, of those who aren't `heavy`: as much again, and
        of requests more than that."""
        if self.left >= LEAST:
            return True
        return not heavy and self.left > (-REQUESTS if size <= REQUEST else -TURN)

    @property
    def share(self) -> int:
        """Return how many frames a connection may read now."""
        return max(LEAST, min(SHARE, self.left))

    def count_frames(self, frames: int) -> None:
        """Note that so many were read."""
        self.left -= frames
        self.renew_soon()


class MoverCount:
    """How many moved much in a turn, told at its end."""

    __slots__ = ("_count", "_counting", "_tell")

    def __init__(self, tell: Callable[[int], object]) -> None:
        """`tell` is called at the end of each turn in which somebody did, and of the first in which nobody did."""
        self._count, self._counting = 0, False
        self._tell = tell

    def count_mover(self) -> None:
        """Count a stream that moved something."""
        self._count += 1
        if not self._counting:
            self._counting = True
            self._call_at_end()

    def _call_at_end(self) -> None:
        loop = asyncio.get_running_loop()
        loop.call_at(loop.time(), self._at_end)

    def _at_end(self) -> None:
        count, self._count = self._count, 0
        self._tell(count)
        self._counting = count > 0
        if count:
            self._call_at_end()


class StreamBudget(TurnBudget):
    """The streams that a turn takes up. Above `LOW` there is nothing to do but to count one off `left`."""

    __slots__ = ()

    def __init__(self, clock: TurnClock | None = None) -> None:
        super().__init__(STREAMS, each=1, keep=0, clock=clock)

    def has_room(self, account: ProcessorAccount | None = None) -> bool:
        """True if, with `left` at `LOW` or less, one may be taken up all the same."""
        self.renew_soon()
        return self.left > 0 and not (account is not None and self._clock.has_to_wait(account))

    async def wait_room(self, account: ProcessorAccount | None = None) -> None:
        """Wait for a turn that has room for one, and count it off."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def take() -> bool | None:
            if future.done():  # it was given up
                return None
            future.set_result(None)
            return False

        self.wait_turn(take, account)
        await future
