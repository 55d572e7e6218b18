"""Whether this program stood still for a while, such as one that was stopped, or on a machine that slept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Final

#: Seconds between two looks; one that comes so much too late says that everything stood still.
_LOOK: Final = 2.0


class PauseWatch:
    """Notices that the program stood still, and tells for how long. `async with` opens it.

    The time that others are given to answer doesn't run meanwhile: nothing that they sent was read. It is
    told before timers run that were due since, if they weren't about to pass already.
    """

    def __init__(self, tell: Callable[[float], object]) -> None:
        """`tell` is called with the seconds."""
        self._tell = tell
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> PauseWatch:
        self._begin_look()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _begin_look(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(due := loop.time() + _LOOK, self._check_delay, due)

    def _check_delay(self, due: float) -> None:
        late = asyncio.get_running_loop().time() - due
        if late >= _LOOK:
            self._tell(late)
        self._begin_look()


class LostTimer:
    """Ends its `async with` block by `TimeoutError` where nothing of the producer was heard for too long.

    It begins with the first `say_alive`. While this program stands still no time goes by.
    """

    def __init__(self, within: float) -> None:
        """`within` is the number of seconds for which nothing may be heard, each time."""
        self._within = within
        self._timeout = asyncio.timeout(None)
        self._pauses = PauseWatch(self._give_more_time)

    def say_alive(self, within: float | None = None) -> None:
        """Note that the producer was heard, by this side or by somebody who says so; the next time is given `within`
        seconds, where that isn't as usual."""
        after = self._within if within is None else within
        self._timeout.reschedule(asyncio.get_running_loop().time() + after)

    def _give_more_time(self, seconds: float) -> None:
        if (lost_at := self._timeout.when()) is not None and not self._timeout.expired():
            self._timeout.reschedule(lost_at + seconds)

    async def __aenter__(self) -> LostTimer:
        await self._timeout.__aenter__()
        await self._pauses.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pauses.__aexit__(kind, fault, trace)
        await self._timeout.__aexit__(kind, fault, trace)
