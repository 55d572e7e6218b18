"""One side's end of a channel: its pipes, the frames of the other side, and the carrier that lives on them now.

An end sends with one task for each of its pipes, since a pipe takes one transaction at a time. What a task sends
next: control frames, then the stream in pieces, then acknowledgements. A frame is sent until it is known to be on the
chain; the pipe's own sequence number tells, whatever was lost on the way.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

from dtp.carriers.errors import BrokenError
from dtp.chain import channel as channel_module
from dtp.chain.channel import Channel
from dtp.chain.errors import NodeRefused, NodeUnavailable
from dtp.chain.events import Cursor
from dtp.chain.firewall import Gcra
from dtp.chain.host import Rate
from dtp.chain.node.client import ChainClient
from dtp.chain.pipe import Pipe, PipeFrame
from dtp.chain.pipes.acks import FrameAcks, PipeHistory
from dtp.chain.pipes.frames import Flags, Header, PipeFrameError, PipeGapError, decode
from dtp.chain.pipes.gas import GasGuess
from dtp.chain.pipes.where import PipeEndpoint, PipeRefusedError, Timing
from dtp.chain.pipes.writing import FrameJob, FrameWriter, PipeLink, SendingPipe
from dtp.errors import CarrierError, ChainError, LocalError
from dtp.tasks import SupervisedTask

__all__ = ["ChannelEnd", "PipeLink"]

log = logging.getLogger("dtp.chain")

_NS: Final = 1_000_000_000
#: Answers to frames of links that nobody here knows: they cost gas, and whoever sends such frames decides how many.
_RESETS: Final = Rate(10 * _NS, 3)


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
        self.last_link = 0
        #: Held while a link is being taken.
        self.accepting = asyncio.Lock()
        #: How many links wait for that, with the one that has it.
        self.opening = 0
        #: What keeps other programs from sending over its pipes until it has stopped.
        self.locked = ExitStack()
        #: Why the end can't be used any more.
        self.failed: CarrierError | None = None
        #: Frames of this end that are on the chain.
        self.sent = 0
        #: Of the other side's pipes.
        self.history = PipeHistory(since)
        self._acks = FrameAcks(where)
        self._pipes: list[SendingPipe] = []
        self._writer = FrameWriter(
            chain,
            where,
            gas,
            timing,
            self._acks,
            self._pipes,
            refresh=self._refresh_channel,
            check_usable=self._check_usable,
        )
        self._on_open = on_open
        self._on_idle = on_idle
        self._answers = answers
        self._stuck = False
        self._tasks: list[SupervisedTask] = []
        self._controls: deque[FrameJob] = deque()
        self._under_way = 0
        self._resets = Gcra()
        self._broken = 0

    # ------------------------------------------------------------------------------------------ beginning, ending

    def start_sending(self, pipes: Sequence[Pipe], past: Channel | None = None) -> None:
        """Start to send over `pipes`. `past` is the channel where it has one; without it all counts from 1."""
        self._acks.is_fresh = past is None
        if past is not None:
            self._acks.learn_channel(past)
        self.add_pipes(pipes)
        self._start_supervised(self._watch_for_stalls, "dtp-pipe-watch")

    def add_pipes(self, pipes: Sequence[Pipe]) -> None:
        """Send over these, too."""
        for each in pipes:
            out = SendingPipe(each.id, each.index, each.sequence)
            self._pipes.append(out)
            self._start_supervised(partial(self._run_sender, out), "dtp-pipe-send")

    def _start_supervised(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        task = SupervisedTask(work, name=name)
        self._tasks.append(task)
        task.start()

    async def stop(self) -> None:
        """End all tasks. What is under way may still reach the chain."""
        for each in self._tasks:
            each.cancel()
        for each in self._tasks:
            await each.stop()
        self.locked.close()

    def give_up(self, error: CarrierError) -> None:
        """Give up this end and its link for good."""
        if self.failed is None:
            log.info("channel %s: %s", self.where.channel, error)
            self.failed = error
            self._controls.clear()
        if self.link is not None:
            self.link.on_link_broken(error)
        else:
            self.tell_idle()

    @property
    def pipes(self) -> int:
        """How many pipes it sends over."""
        return len(self._pipes)

    @property
    def pipe_ids(self) -> tuple[str, ...]:
        """The pipes that it sends over."""
        return tuple(each.id for each in self._pipes)

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
        self.last_link = link.number

    def detach_link(self, link: PipeLink) -> None:
        """Note that the link has ended."""
        if self.link is link:
            self.link = None
            self._acks.release()
            self.wake_senders()
            self.tell_idle()

    def send_control(self, flags: Flags, link: int) -> None:
        """Send a frame without bytes of the stream."""
        if self.failed is None:
            self._controls.append(FrameJob(flags, link))
            self.wake_senders()

    def wake_senders(self) -> None:
        """Note that something may be sent."""
        for out in self._pipes:
            out.wake.set()

    @property
    def quiet(self) -> bool:
        """Whether no link lives on it and nothing of one is under way."""
        return self.link is None and not self._controls and not self._under_way and not self.opening

    def tell_idle(self) -> None:
        """Say so if it is quiet."""
        if self._on_idle is not None and self.quiet:
            self._on_idle(self)

    # -------------------------------------------------------------------------------------------------- receiving

    def on_frame(self, frame: PipeFrame, place: Cursor | None = None) -> None:
        """Take a frame of the other side, in whatever order and however often it comes; `place` is its event's."""
        try:
            if not self._acks.take_frame(frame, self._taken):
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
            if data or frame.flags & Flags.END:
                self._answer_unknown(header)
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

    def _answer_unknown(self, header: Header) -> None:
        """Tell the client, a few times, that the server was started anew."""
        if self._answers is None or header.link <= self.last_link:
            return
        if not self._answers(header.to):  # another server of this host knows it
            return
        after = self._resets.consume(_RESETS, round(asyncio.get_running_loop().time() * _NS) + 1)
        if after is not None:
            self._resets, self.last_link = after, header.link
            self.send_control(Flags.RESET, header.link)

    def _fail_link(self, fault: PipeFrameError) -> None:
        """End the link of another side that breaks the rules, and tell it."""
        link = self.link
        if link is not None and link.number != self._broken:
            self._broken = link.number  # told once: answers cost gas
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

    # ---------------------------------------------------------------------------------------------------- sending

    def _has_room(self, out: SendingPipe) -> bool:
        return self._acks.window_room(out.index, out.sequence) > 0

    @property
    def _taken(self) -> int:
        """Up to where the stream was taken; without a link nobody waits for it."""
        return self.link.incoming.taken if self.link is not None else 2**64

    def _next_job(self, out: SendingPipe) -> FrameJob | None:
        if self.failed is not None or not self._has_room(out):
            return None
        if self._controls:
            return self._controls.popleft()
        link = self.link
        if link is not None and link.outgoing.ready:
            where, frames = self.where, self._acks.window_room(out.index, out.sequence)
            if where.is_client and where.rate.requests.interval_ns:
                frames = min(frames, where.rate.requests.burst)
            cut = link.outgoing.cut_next(frames * where.piece)
            count = max(1, -(-len(cut.data) // where.piece))
            return FrameJob(Flags.END if cut.end else Flags(0), link.number, cut, link, count=count)
        return None

    def _acknowledges_silently(self, out: SendingPipe) -> bool:
        """Return whether to acknowledge without a frame: nobody waits for word of it, or there is no room for one.

        Else two sides would acknowledge each other's acknowledgements for ever.
        """
        return not self._acks.is_eager or not self._has_room(out)

    async def _run_sender(self, out: SendingPipe) -> None:
        while True:
            job = self._next_job(out)
            if job is None and self.failed is None and self._acks.list_due(self._taken):
                job = FrameJob(Flags(0), 0, silent=self._acknowledges_silently(out))
            if job is None:
                out.wake.clear()
                await out.wake.wait()
                continue
            self._under_way += 1
            try:
                await self._send_frame(out, job)
            except CarrierError as fault:
                self.give_up(fault)
            except (ChainError, LocalError) as fault:
                refused = PipeRefusedError(f"frames of channel {self.where.channel} can't be sent: {fault}")
                refused.__cause__ = fault
                self.give_up(refused)
            finally:
                self._under_way -= 1
            self.tell_idle()

    async def _send_frame(self, out: SendingPipe, job: FrameJob) -> None:
        """Bring one frame to the chain."""
        acks = self._acks.list_due(self._taken)
        with self._acks.acknowledge(acks):
            acks = await self._writer.write_frame(out, job, acks)
        self._acks.note_acknowledged(acks)
        out.doubted = None
        if not job.silent:
            out.sequence += job.count
            self.sent += job.count
        if job.cut is not None and job.owner is not None:
            job.owner.outgoing.mark_on_chain(job.cut)
            job.owner.frame_sent()
        self.wake_senders()

    # --------------------------------------------------------------------------------------------------- watching

    def _check_usable(self) -> None:
        """Raise why the end can't be used any more."""
        if self.failed is not None:
            raise self.failed

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
            if link is not None or not self._controls:
                unsaid = now()
            elif now() - unsaid >= self.timing.linger:
                # Who never acknowledges is gone, or wants the chain to be asked for ever.
                self._controls.clear()
                self.tell_idle()
            if (self._controls or (link is not None and link.outgoing.ready)) and not any(
                map(self._has_room, self._pipes)
            ):
                await self._refresh_channel()
