"""One side's end of a channel: its pipes, the frames of the other side, and the carrier that lives on them now."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from dtp.carriers.errors import BrokenError
from dtp.chain import channel as channel_module
from dtp.chain.channel import Channel
from dtp.chain.errors import NodeRefused, NodeUnavailable
from dtp.chain.events import Cursor
from dtp.chain.node.client import ChainClient
from dtp.chain.pipe import Pipe, PipeFrame
from dtp.chain.pipes.acks import FrameAcks, PipeHistory
from dtp.chain.pipes.frames import Flags, Header, PipeFrameError, PipeGapError, decode
from dtp.chain.pipes.gas import GasGuess
from dtp.chain.pipes.resets import LinkNumbers
from dtp.chain.pipes.sending import FrameSender
from dtp.chain.pipes.where import PipeEndpoint, PipeRefusedError, Timing
from dtp.chain.pipes.writing import PipeLink
from dtp.errors import CarrierError
from dtp.tasks import SupervisedTask

__all__ = ["ChannelEnd", "PipeLink"]

log = logging.getLogger("dtp.chain")


class ChannelEnd:
    """One end of a pipe: what is read from its channel on the chain, and what is written to it.

    A server's end has `on_open`, which gets the header that begins a link, and `answers`, which tells whether the
    endpoint of a key is served here. `on_idle` hears when a link is gone and nothing of it is under way.
    """

    def __init__(
        self,
        chain: ChainClient,
        where: PipeEndpoint,
        gas: GasGuess,
        *,
        timing: Timing,
        on_open: Callable[[ChannelEnd, Header], None] | None = None,
        on_idle: Callable[[ChannelEnd], None] | None = None,
        answers: Callable[[bytes], bool] | None = None,
        since: Cursor | None = None,
    ) -> None:
        self.where = where
        self.chain = chain
        self.timing = timing
        self.link: PipeLink | None = None
        #: Held while a link is being taken.
        self.accepting = asyncio.Lock()
        #: How many links wait for that, with the one that has it.
        self.opening = 0
        #: What keeps other programs from sending over its pipes until it has stopped.
        self.locked = ExitStack()
        #: Why the end can't be used any more.
        self.failed: CarrierError | None = None
        #: Of the other side's pipes.
        self.history = PipeHistory(since)
        self._acks = FrameAcks(where)
        self._on_open = on_open
        self._on_idle = on_idle
        self._stuck = False
        self._numbers = LinkNumbers(answers)
        self._sender = FrameSender(
            chain,
            where,
            gas,
            timing,
            self._acks,
            link=lambda: self.link,
            refresh=self._refresh_channel,
            give_up=self.give_up,
            on_sent=self.tell_idle,
        )
        self._watching = SupervisedTask(self._watch_for_stalls, name="dtp-pipe-watch")

    # ------------------------------------------------------------------------------------------ beginning, ending

    def start_sending(self, pipes: Sequence[Pipe], past: Channel | None = None) -> None:
        """Start to send over `pipes`. `past` is the channel where it has one; without it all counts from 1."""
        self._acks.is_fresh = past is None
        if past is not None:
            self._acks.learn_channel(past)
        self.add_pipes(pipes)
        self._watching.start()

    def add_pipes(self, pipes: Sequence[Pipe]) -> None:
        """Send over these, too."""
        self._sender.add_pipes(pipes)

    async def stop(self) -> None:
        """End all tasks. What is under way may still reach the chain."""
        self._watching.cancel()
        await self._sender.stop()
        await self._watching.stop()
        self.locked.close()

    def give_up(self, error: CarrierError) -> None:
        """Give up this end and its link for good."""
        if self.failed is None:
            log.info("channel %s: %s", self.where.channel, error)
            self.failed = error
            self._sender.fail(error)
        if self.link is not None:
            self.link.on_link_broken(error)
        else:
            self.tell_idle()

    @property
    def pipes(self) -> int:
        """How many pipes it sends over."""
        return len(self._sender.pipe_ids)

    @property
    def pipe_ids(self) -> tuple[str, ...]:
        """The pipes that it sends over."""
        return self._sender.pipe_ids

    @property
    def sent(self) -> int:
        """How many frames of this end are on the chain."""
        return self._sender.sent

    def note_opened(self) -> None:
        """Note that the transaction that opened its pipes sent a frame over them as well."""
        self._sender.sent += 1

    @property
    def last_link(self) -> int:
        """The newest link that was begun, or was told that it is over."""
        return self._numbers.last

    def note_link(self, number: int) -> None:
        """Note that a link was begun."""
        self._numbers.last = number

    @property
    def used(self) -> bool:
        """Whether somebody uses the link that lives on it."""
        return self.link is not None and not self.link.ending

    @property
    def idle(self) -> bool:
        """Whether another link may begin."""
        return self.quiet and self.failed is None

    def leads_to(self, host: str, service: int, to: bytes) -> bool:
        """Return whether its frames are for this endpoint."""
        return (self.where.host, self.where.service, self.where.to) == (host, service, to)

    def attach_link(self, link: PipeLink) -> None:
        """Let a link live on it, instead of the one before."""
        self.link = link
        self.note_link(link.number)

    def detach_link(self, link: PipeLink) -> None:
        """Note that the link has ended."""
        if self.link is link:
            self.link = None
            self._acks.release()
            self.wake_senders()
            self.tell_idle()

    def send_control(self, flags: Flags, link: int) -> None:
        """Send a frame without bytes of the stream."""
        self._sender.send_control(flags, link)

    def wake_senders(self) -> None:
        """Note that something may be sent."""
        self._sender.wake_pipes()

    @property
    def quiet(self) -> bool:
        """Whether no link lives on it and nothing of one is under way."""
        return self.link is None and not self._sender.busy and not self.opening

    def tell_idle(self) -> None:
        """Say so if it is quiet."""
        if self._on_idle is not None and self.quiet:
            self._on_idle(self)

    # -------------------------------------------------------------------------------------------------- receiving

    def on_frame(self, frame: PipeFrame, place: Cursor | None = None) -> None:
        """Take a frame of the other side, in whatever order and however often it comes; `place` is its event's."""
        try:
            if not self._acks.take_frame(frame, self._sender.taken):
                return
            self.history.note_frame(frame.index, place, is_whole=not self._acks.has_gap(frame.index))
            header, data = decode(frame.flags, frame.data)
        except PipeGapError as fault:
            self.give_up(fault)
            return
        except PipeFrameError as fault:
            self._fail_link(fault)
            return
        self._acks.note_peer_acks(header.acks)
        self._handle_header(frame, header, data)
        self.wake_senders()

    def _handle_header(self, frame: PipeFrame, header: Header, data: memoryview) -> None:
        link = self.link
        if frame.flags & Flags.OPEN:
            if self._on_open is not None and header.link > self.last_link:
                self.history.expect_pipes(header.pipes)
                self._on_open(self, header)
            return
        if link is None or header.link != link.number:
            shown = data or frame.flags & Flags.END
            if shown and self._numbers.note_unknown(header, asyncio.get_running_loop().time()):
                self.send_control(Flags.RESET, header.link)
            return
        if frame.flags & Flags.RESET:
            link.on_link_broken(BrokenError("the other side broke the carrier off"))
            return
        link.was_accepted()
        try:
            link.incoming.add_piece(header.offset, data, end=bool(frame.flags & Flags.END))
        except PipeFrameError as fault:
            self._fail_link(fault)
            return
        self._acks.note_bytes(frame, header.offset + len(data), any_came=bool(data))
        link.data_came()

    def _fail_link(self, fault: PipeFrameError) -> None:
        """End the link of another side that breaks the rules, and tell it."""
        link = self.link
        if link is not None and self._numbers.note_broken(link.number):
            self.send_control(Flags.RESET, link.number)
            link.on_link_broken(fault)

    @property
    def gap(self) -> bool:
        """Whether the node seems to have left out frames."""
        return self.missing or (self.failed is None and self._stuck)

    @property
    def missing(self) -> bool:
        """Whether a pipe's numbers show that a frame is missing."""
        return self.failed is None and self._acks.missing

    @property
    def came(self) -> int:
        """How many frames of the other side have come."""
        return self._acks.came

    def history_read(self, until: Cursor) -> None:
        """Note that history was read up to there."""
        if not self.gap:
            self.history.note_read(until)

    # --------------------------------------------------------------------------------------------------- watching

    async def _refresh_channel(self) -> None:
        """Read the channel: what the chain has of acknowledgements is what counts."""
        try:
            found = await self.chain.read(channel_module.SCHEMA, Channel, self.where.channel)
        except (NodeUnavailable, NodeRefused) as fault:
            log.info("channel %s can't be read: %s", self.where.channel, fault)
            return
        if found.state != channel_module.ChannelState.OPEN:
            self.give_up(PipeRefusedError(f"channel {self.where.channel} is closed"))
        self._acks.learn_channel(found)
        self.wake_senders()

    async def _watch_for_stalls(self) -> None:
        """Give up on bytes that never come, and on last words that find no room; look again at a window that stays
        full."""
        now = asyncio.get_running_loop().time
        complete, since = -1, now()
        unsaid = since
        while True:
            await asyncio.sleep(self.timing.check)
            link = self.link
            if link is None or not link.incoming.hole or link.incoming.complete != complete:
                complete, since = link.incoming.complete if link is not None else -1, now()
                self._stuck = False
            else:
                self._stuck = True
            if link is not None and self._stuck and now() - since >= self.timing.gap:
                self.send_control(Flags.RESET, link.number)
                link.on_link_broken(
                    PipeGapError(f"the bytes at {complete} didn't come in {self.timing.gap:g} s")
                )
            if link is not None or not self._sender.has_controls:
                unsaid = now()
            elif now() - unsaid >= self.timing.linger:
                # Who never acknowledges is gone, or wants the chain to be asked for ever.
                self._sender.drop_controls()
                self.tell_idle()
            if self._sender.stuck:
                await self._refresh_channel()
