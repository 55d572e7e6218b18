"""What the chain's events say of pipes, followed without a gap: frames, and channels that are opened.

Frames that a node forgets to tell of are read out of its history, from where all pipes are whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from typing import Final

from dtp.chain import channel as channel_module
from dtp.chain import pipe as pipe_module
from dtp.chain.channel import ChannelOpened
from dtp.chain.errors import HistoryPruned, MalformedObject
from dtp.chain.events import Cursor, EventFollower, EventSource, Followed, event_types
from dtp.chain.node.client import ChainClient
from dtp.chain.pipe import PipeFrame
from dtp.chain.pipes.end import ChannelEnd
from dtp.chain.pipes.frames import PipeGapError
from dtp.chain.pipes.where import Timing
from dtp.errors import ChainError, LocalError
from dtp.tasks import SupervisedTask, start_task

log = logging.getLogger("dtp.chain")

#: Readings of history for one gap.
_FILLS: Final = 5
#: The longest time without an event until history is read again, seconds.
_LONGEST_QUIET: Final = 300.0

#: Makes an event source: client, types, and the cursor to go on from.
Follow = Callable[[ChainClient, Iterable[str], "Cursor | None"], EventSource]


def follow_events(chain: ChainClient, types: Iterable[str], cursor: Cursor | None) -> EventSource:
    return EventFollower(chain, types, cursor=cursor)


class FrameFeed:
    """Events of pipes from a moment on, for ever, to `on_frame` and `on_opened`; `ends` are asked what they lack.

    It runs from `begin` to `stop`, and may begin again then.
    """

    def __init__(
        self,
        chain: ChainClient,
        timing: Timing,
        follow: Follow,
        ends: Callable[[], Collection[ChannelEnd]],
        on_frame: Callable[[PipeFrame, Cursor], None],
        on_opened: Callable[[ChannelOpened], None],
    ) -> None:
        self.chain = chain
        self.timing = timing
        #: Up to where events were handed on.
        self.cursor: Cursor | None = None
        self._follow_events = follow
        self._ends = ends
        self._on_frame = on_frame
        self._on_opened = on_opened
        self._loop = asyncio.get_running_loop()
        self._following = SupervisedTask(self._follow_chain, name="dtp-pipes")
        self._looking_after = SupervisedTask(self._look_after, name="dtp-pipes-look-after")
        self._filling: asyncio.Task[None] | None = None
        self._begun: asyncio.Future[Cursor] | None = None
        self._heard, self._patience = self._loop.time(), timing.quiet
        self._frame_type = ""

    async def begin(self) -> None:
        """Follow, if nobody has begun: from then on no event is missed. Raises what following raises."""
        if self._begun is None:
            self._begun = self._loop.create_future()
            self._following.start()
        await asyncio.shield(self._begun)

    def stop(self) -> None:
        """Follow no more."""
        self._following.cancel()
        self._looking_after.cancel()
        if self._filling is not None:
            self._filling.cancel()
        self._filling = self._begun = self.cursor = None

    def _event_types(self) -> tuple[str, ...]:
        frames = event_types(self.chain, pipe_module.SCHEMA, PipeFrame)
        (self._frame_type,) = frames
        return frames + event_types(self.chain, channel_module.SCHEMA, ChannelOpened)

    async def _follow_chain(self) -> None:
        begun = self._begun
        assert begun is not None
        while True:
            try:
                if not self.chain.chain_id:
                    await self.chain.connect()
                source = self._follow_events(self.chain, self._event_types(), self.cursor)
                self.cursor = await source.begin()
                if not begun.done():
                    begun.set_result(self.cursor)
                    self._looking_after.start()
                async for found in source:
                    self._on_event(found)
            except HistoryPruned as fault:
                # What was missed is lost: what waits for it ends, and the rest goes on from now.
                log.warning("events of pipes were missed: %s", fault)
                self.cursor = None
                for end in list(self._ends()):
                    end.give_up(PipeGapError(f"the node has forgotten frames: {fault}"))
            except (ChainError, LocalError) as fault:
                if not begun.done():
                    begun.set_exception(fault)
                    begun.exception()  # seen, also when whoever waited has given up
                    self._begun = None
                    self._following.retire()
                    return
                log.warning("events of pipes can't be followed for now: %s", fault)
            await self.chain.endpoints.sleep(self.timing.pause)

    def _on_event(self, found: Followed) -> None:
        self.cursor = found.cursor
        self._heard, self._patience = self._loop.time(), self.timing.quiet
        self.process_event(found)
        if self._filling is None and any(end.missing for end in self._ends()):
            self._filling = start_task(self._fill_gaps(), name="dtp-pipes-fill")

    async def _look_after(self) -> None:
        """Read history again for what no later frame shows to be missing: when bytes wait for earlier ones, and when
        nothing came for long."""
        while True:
            await asyncio.sleep(self.timing.check)
            ends = list(self._ends())
            quiet = self._loop.time() - self._heard >= self._patience
            if self._filling is not None or not any(
                end.gap or (quiet and end.link is not None) for end in ends
            ):
                continue
            if quiet:
                self._heard, self._patience = self._loop.time(), min(2 * self._patience, _LONGEST_QUIET)
            await self._read_again()

    async def _read_again(self) -> None:
        """Feed the ends with history from where they are whole; they know what they have."""
        ends = [end for end in self._ends() if end.gap or end.link is not None]
        known = [place for end in ends if (place := end.history.whole_until()) is not None]
        if not known:
            return
        source = self._follow_events(
            self.chain, self._event_types(), min(known, key=lambda cursor: cursor.place)
        )
        until = await source.begin()
        try:
            async for found in source.past_events():
                until = found.cursor
                self.process_event(found)
        except ChainError as fault:
            log.info("history of pipes can't be read for now: %s", fault)
            return
        for end in ends:
            end.history_read(until)

    def process_event(self, found: Followed) -> None:
        """Hand on what an event says."""
        event = found.event
        try:
            if event.type == self._frame_type:
                self._on_frame(pipe_module.SCHEMA.decode(PipeFrame, event.contents), found.cursor)
            else:
                self._on_opened(channel_module.SCHEMA.decode(ChannelOpened, event.contents))
        except MalformedObject as fault:
            log.warning("an event of another release: %s", fault)

    async def _fill_gaps(self) -> None:
        """Fill what the pipes' numbers show to be missing, or end the links that can't be whole any more."""
        try:
            for attempt in range(_FILLS):
                await self._read_again()
                if not any(end.missing for end in self._ends()):
                    return
                await self.chain.endpoints.sleep(self.chain.endpoints.retry.pause(attempt))
            for end in list(self._ends()):
                if end.missing:
                    end.give_up(PipeGapError("frames are missing, and the node's history doesn't have them"))
        finally:
            self._filling = None
