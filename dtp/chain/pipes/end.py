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
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

from dtp.carriers.errors import BrokenError
from dtp.chain import channel as channel_module
from dtp.chain import pipe as pipe_module
from dtp.chain.channel import Channel, ChannelError
from dtp.chain.errors import (
    InsufficientFunds,
    MoveAborted,
    NodeRefused,
    NodeUnavailable,
    NotFound,
    OutcomeUnknown,
    TransactionFailed,
    TransactionRefused,
)
from dtp.chain.events import Cursor
from dtp.chain.firewall import Gcra
from dtp.chain.host import Rate
from dtp.chain.node.client import ChainClient
from dtp.chain.node.commands import Program
from dtp.chain.pipe import Pipe, PipeError, PipeFrame
from dtp.chain.pipes.frames import (
    MAX_PIPES,
    Acks,
    Flags,
    Header,
    IncomingPipe,
    OutgoingPipe,
    PipeFrameError,
    PipeGapError,
    PipePiece,
    ReceivedSequences,
    decode,
    encode,
    frames_ahead,
    newest,
)
from dtp.chain.pipes.gas import GasGuess
from dtp.chain.pipes.where import PipeEndpoint, PipeRefusedError, PipeStalledError, Timing
from dtp.errors import CarrierError, ChainError, LocalError
from dtp.tasks import SupervisedTask

__all__ = ["ChannelEnd", "PipeLink"]

log = logging.getLogger("dtp.chain")

_NS: Final = 1_000_000_000
#: Answers to frames of links that nobody here knows: they cost gas, and whoever sends such frames decides how many.
_RESETS: Final = Rate(10 * _NS, 3)


class PipeLink(Protocol):
    """The carrier of an end, as the end sees it."""

    number: int
    outgoing: OutgoingPipe
    incoming: IncomingPipe

    @property
    def ending(self) -> bool:
        """Whether nobody uses it any more: it may still say its last words."""

    def was_accepted(self) -> None:
        """Take note that the server takes it."""

    def data_came(self) -> None:
        """Take note that `incoming` has something new."""

    def frame_sent(self) -> None:
        """Take note that a frame of `outgoing` is on the chain."""

    def on_link_broken(self, error: CarrierError) -> None:
        """Take note that it has ended by `error`."""


@dataclass
class _Out:
    """One of our pipes."""

    id: str
    index: int
    sequence: int
    requests: Gcra = field(default_factory=Gcra)
    bytes: Gcra = field(default_factory=Gcra)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    #: Since when the chain says that the window is full and the acknowledgements that we know say it isn't.
    doubted: float | None = None


@dataclass(frozen=True)
class _Job:
    flags: int
    link: int
    cut: PipePiece | None = None
    owner: PipeLink | None = None
    #: Acknowledgements only, without a frame.
    silent: bool = False
    #: How many frames it is.
    count: int = 1


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
        #: How many pipes the other side has at most.
        self.peer_pipes = MAX_PIPES
        #: Frames of this end that are on the chain, and frames of the other side that came.
        self.sent = 0
        self.came = 0
        self._gas = gas
        self._on_open = on_open
        self._on_idle = on_idle
        self._answers = answers
        self._since = since
        self._places: dict[int, Cursor | None] = {}
        self._stuck = False
        self._loop = asyncio.get_running_loop()
        self._pipes: list[_Out] = []
        self._tasks: list[SupervisedTask] = []
        self._orders: dict[int, ReceivedSequences] = {}
        self._acks: dict[int, Acks] = {}
        self._peer_acks: dict[int, int] = {}
        self._controls: deque[_Job] = deque()
        self._under_way = 0
        self._acking = False
        self._eager = False
        self._careful = False
        self._fresh = False
        self._resets = Gcra()
        self._broken = 0

    # ------------------------------------------------------------------------------------------ beginning, ending

    def start_sending(self, pipes: Sequence[Pipe], past: Channel | None = None) -> None:
        """Start to send over `pipes`. `past` is the channel where it has one; without it all counts from 1."""
        self._fresh = past is None
        if past is not None:
            self._learn_acks(past)
        self.add_pipes(pipes)
        self._start_supervised(self._watch_for_stalls, "dtp-pipe-watch")

    def add_pipes(self, pipes: Sequence[Pipe]) -> None:
        """Send over these, too."""
        for each in pipes:
            out = _Out(each.id, each.index, each.sequence)
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
            for each in self._acks.values():
                each.release()
            self.wake_senders()
            self.tell_idle()

    def send_control(self, flags: Flags, link: int) -> None:
        """Send a frame without bytes of the stream."""
        if self.failed is None:
            self._controls.append(_Job(flags, link))
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
        order = self._orders.setdefault(frame.index, ReceivedSequences(started=self._fresh))
        acks = self._acks.setdefault(frame.index, Acks())
        try:
            if not order.add_sequence(frame.sequence):
                return
            if not acks.started:
                acks.begin(order.last - 1 if not order.gap else order.last)
            if acks.crowded:
                acks.sequence_to_acknowledge(min(order.last, frame.sequence - 1), self._taken)
            acks.frame_received(frame.sequence, 0)
            self.came += 1
            self._note_place(frame.index, order, place)
            header, data = decode(frame.flags, frame.data)
        except PipeGapError as fault:
            self.give_up(fault)
            return
        except PipeFrameError as fault:
            self._fail_link(fault)
            return
        newest(header.acks, self._peer_acks)
        self._handle_header(frame, header, data, acks)
        self.wake_senders()

    def _note_place(self, index: int, order: ReceivedSequences, place: Cursor | None) -> None:
        """Remember up to where in the chain's history a pipe is known to be whole."""
        before = self._places.setdefault(index, self._since)
        if place is not None and not order.gap and (before is None or before.place < place.place):
            self._places[index] = place

    def _handle_header(self, frame: PipeFrame, header: Header, data: memoryview, acks: Acks) -> None:
        link = self.link
        if frame.flags & Flags.OPEN:
            if self._on_open is not None and header.link > self.last_link:
                self.peer_pipes = max(header.pipes, len(self._places))
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
        acks.frame_received(frame.sequence, header.offset + len(data))
        self._eager |= bool(data)
        link.data_came()

    def _answer_unknown(self, header: Header) -> None:
        """Tell the client, a few times, that the server was started anew."""
        if self._answers is None or header.link <= self.last_link:
            return
        if not self._answers(header.to):  # another server of this host knows it
            return
        after = self._resets.consume(_RESETS, round(self._loop.time() * _NS) + 1)
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
        return self.failed is None and any(each.gap for each in self._orders.values())

    def whole_until(self) -> Cursor | None:
        """Return from where on history may have frames that didn't come."""
        places = [*self._places.values()]
        if len(places) < self.peer_pipes:
            places.append(self._since)  # the first frame of a pipe may be missing
        known = [place for place in places if place is not None]
        return min(known, key=lambda cursor: cursor.place, default=None)

    def history_read(self, until: Cursor) -> None:
        """Note that history was read up to there."""
        if not self.gap:
            self._since = until
            for index, place in self._places.items():
                if place is None or place.place < until.place:
                    self._places[index] = until

    # ---------------------------------------------------------------------------------------------------- sending

    def _window_room(self, out: _Out) -> int:
        """Return how many frames the window has room for."""
        # Who tells of more than there is gets no more at once than a window.
        unacknowledged = max(0, out.sequence - self._peer_acks.get(out.index, 0))
        return frames_ahead(self.where.window) - unacknowledged

    def _has_room(self, out: _Out) -> bool:
        return self._window_room(out) > 0

    @property
    def _taken(self) -> int:
        """Up to where the stream was taken; without a link nobody waits for it."""
        return self.link.incoming.taken if self.link is not None else 2**64

    def _due_acks(self) -> tuple[tuple[int, int], ...]:
        """Return what may be acknowledged, once it is half a window of any pipe."""
        due = {
            index: each.sequence_to_acknowledge(self._orders[index].last, self._taken)
            for index, each in self._acks.items()
            if each.started
        }
        if all(
            due[each] - self._acks[each].acked < max(1, frames_ahead(self.where.window) // 2) for each in due
        ):
            return ()
        return tuple((each, due[each]) for each in due if due[each] > self._acks[each].acked)

    def _next_job(self, out: _Out) -> _Job | None:
        if self.failed is not None or not self._has_room(out):
            return None
        if self._controls:
            return self._controls.popleft()
        link = self.link
        if link is not None and link.outgoing.ready:
            where, frames = self.where, self._window_room(out)
            if where.is_client and where.rate.requests.interval_ns:
                frames = min(frames, where.rate.requests.burst)
            cut = link.outgoing.cut_next(frames * where.piece)
            count = max(1, -(-len(cut.data) // where.piece))
            return _Job(Flags.END if cut.end else Flags(0), link.number, cut, link, count=count)
        return None

    def _acknowledges_silently(self, out: _Out) -> bool:
        """Return whether to acknowledge without a frame: nobody waits for word of it, or there is no room for one.

        Else two sides would acknowledge each other's acknowledgements for ever.
        """
        return not self._eager or not self._has_room(out)

    async def _run_sender(self, out: _Out) -> None:
        while True:
            job = self._next_job(out)
            if job is None and not self._acking and self.failed is None and self._due_acks():
                job = _Job(Flags(0), 0, silent=self._acknowledges_silently(out))
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

    async def _send_frame(self, out: _Out, job: _Job) -> None:
        """Bring one frame to the chain."""
        acks = () if self._acking else self._due_acks()
        acknowledges = bool(acks)
        if acknowledges:  # one task at a time, or two would make the same ones
            self._acking, self._eager = True, False
        try:
            acks = await self._until_on_chain(out, job, acks)
        finally:
            if acknowledges:
                self._acking = False
        for index, sequence in acks:
            self._acks[index].acked = max(self._acks[index].acked, sequence)
        out.doubted = None
        if not job.silent:
            out.sequence += job.count
            self.sent += job.count
        if job.cut is not None and job.owner is not None:
            job.owner.outgoing.mark_on_chain(job.cut)
            job.owner.frame_sent()
        self.wake_senders()

    async def _until_on_chain(
        self, out: _Out, job: _Job, acks: tuple[tuple[int, int], ...]
    ) -> tuple[tuple[int, int], ...]:
        """Try until the frame is there; the acknowledgements that went with it."""
        since = self._loop.time()
        while True:
            try:
                await self._execute_frame(out, job, acks)
                self._careful = False
                return acks
            except MoveAborted as fault:
                self._careful = True  # an abort that isn't simulated first costs gas
                acks = await self._after_abort(out, fault, acks, since)
                continue
            except OutcomeUnknown as unknown:
                if await self._resolve_outcome(out, job, acks, unknown, since):
                    return acks
                continue
            except InsufficientFunds:
                if self._careful:
                    raise
                self._gas.clear()
                self._careful = True
                continue
            except TransactionRefused as fault:
                await self._refresh_channel()  # the channel may be closed, or its pipes destroyed
                if self.failed is not None:
                    raise self.failed from fault
                await self._wait_before_retry(since, fault)
            except NodeUnavailable as fault:
                await self._wait_before_retry(since, fault)
            except TransactionFailed as fault:
                if fault.kind != "INSUFFICIENT_GAS" or self._careful:
                    raise
                self._gas.clear()
                self._careful = True

    async def _wait_before_retry(self, since: float, lost: ChainError) -> None:
        """Wait before the next try. Raises `PipeStalledError` when it took too long already."""
        if self._loop.time() - since > self.timing.stall:
            raise PipeStalledError(f"no frame got on the chain in {self.timing.stall:g} s: {lost}") from lost
        await asyncio.sleep(self.timing.pause)

    async def _execute_frame(self, out: _Out, job: _Job, acks: tuple[tuple[int, int], ...]) -> None:
        where = self.where
        frames = self._build_frames(job, acks)
        size = sum(len(frame) for _, frame in frames)
        limited = not job.silent and await self._wait_for_rate(out, size, job.count)
        program = Program()
        for index, sequence in acks:
            pipe_module.ack(program, where.channel, index, sequence, coin=where.coin)
        if job.silent:
            if acks:
                await self.chain.execute(program)
            return
        for flags, frame in frames:
            pipe_module.send(program, out.id, where.channel, where.host, frame, flags=flags, coin=where.coin)
        budget = None if self._careful or limited else self._gas.budget_for(size)
        self._gas.add_sample(size, await self.chain.execute(program, gas_budget=budget))

    def _build_frames(self, job: _Job, acks: tuple[tuple[int, int], ...]) -> list[tuple[int, bytes]]:
        """Return flags and bytes of a job's frames; the first tells of the acknowledgements."""
        where = self.where
        to = Flags.TO if where.is_client else Flags(0)
        pieces = job.cut.split_into(where.piece) if job.cut is not None else [PipePiece(0, b"")]
        made = []
        for number, each in enumerate(pieces):
            header = Header(job.link, each.offset, () if number else acks, where.to, max(1, self.pipes))
            flags = to | (job.flags if number == len(pieces) - 1 else Flags(0))
            made.append((int(flags), encode(header, flags, each.data)))
        return made

    async def _wait_for_rate(self, out: _Out, size: int, count: int) -> bool:
        """Wait until the service's rate has room; whether there is a rate at all."""
        rate = self.where.rate
        if not self.where.is_client or not (rate.requests.interval_ns or rate.bytes.interval_ns):
            return False
        while True:
            now = round(self._loop.time() * _NS)
            waits = (
                out.requests.wait_ns(rate.requests, now, count),
                out.bytes.wait_ns(rate.bytes, now, size),
            )
            if None in waits:
                raise PipeRefusedError(
                    f"a frame of {size} bytes is over the burst of service {self.where.service}"
                )
            longest = max(each or 0 for each in waits)
            if not longest:
                break
            await asyncio.sleep(longest / _NS)
        out.requests = out.requests.consume(rate.requests, now, count) or out.requests
        out.bytes = out.bytes.consume(rate.bytes, now, size) or out.bytes
        return True

    async def _after_abort(
        self, out: _Out, fault: MoveAborted, acks: tuple[tuple[int, int], ...], since: float
    ) -> tuple[tuple[int, int], ...]:
        """Wait until another attempt makes sense; the acknowledgements that are still to be made.

        Raises `PipeStalledError` when attempts since `since` were in vain for too long.
        """
        if fault.error is PipeError.OVER_WINDOW:
            # There was room by what is known of acknowledgements, which only rise: the node lags behind, or the other
            # side has told of more than it has acknowledged.
            out.doubted = out.doubted or self._loop.time()
            await self._wait_before_retry(out.doubted, fault)
        elif fault.error is PipeError.OVER_RATE:
            # Runs before this one may have used it up.
            await self._wait_before_retry(since + self.where.recovery, fault)
        elif fault.error is ChannelError.STALE_ACK:
            await self._refresh_channel()
            if all(sequence > self._acks[index].acked for index, sequence in acks):
                await self._wait_before_retry(
                    since, fault
                )  # the node that was read lags behind the one that refuses
        else:
            raise PipeRefusedError(
                f"the chain refuses frames of channel {self.where.channel}: {fault}"
            ) from fault
        if self.failed is not None:
            raise self.failed
        return tuple((index, sequence) for index, sequence in acks if sequence > self._acks[index].acked)

    async def _resolve_outcome(
        self,
        out: _Out,
        job: _Job,
        acks: tuple[tuple[int, int], ...],
        unknown: OutcomeUnknown,
        since: float,
    ) -> bool:
        """Find out what became of a transaction, for certain: whether it was executed.

        The identical bytes can be sent at any time. Another transaction may be made only when it is known that these
        were not executed, or the frame would be there twice.
        """
        while True:
            refused = False
            try:
                await self.chain.resubmit(unknown)
                return True
            except TransactionFailed:
                self._careful = True
                return False
            except OutcomeUnknown as again:
                unknown = again
            except (TransactionRefused, NotFound):
                refused = True
            except NodeUnavailable as fault:
                log.info("transaction %s: %s", unknown.digest, fault)
            try:
                if await self._was_executed(out, job, acks):
                    return True
                if refused:
                    return False
            except (NodeUnavailable, NodeRefused) as fault:
                log.info("transaction %s: %s", unknown.digest, fault)
            await self._wait_before_retry(since, unknown)

    async def _was_executed(self, out: _Out, job: _Job, acks: tuple[tuple[int, int], ...]) -> bool:
        """Return whether the chain has what a transaction was to do."""
        if not job.silent:
            found = await self.chain.read(pipe_module.SCHEMA, Pipe, out.id)
            return found.sequence > out.sequence
        channel = await self.chain.read(channel_module.SCHEMA, Channel, self.where.channel)
        theirs = channel.acks_to_client if self.where.is_client else channel.acks_to_server
        return all(theirs[index] >= sequence for index, sequence in acks)

    # --------------------------------------------------------------------------------------------------- watching

    def _learn_acks(self, found: Channel) -> None:
        own, theirs = found.acks_to_server, found.acks_to_client
        if not self.where.is_client:
            own, theirs = theirs, own
        newest(enumerate(own), self._peer_acks)
        for index, sequence in enumerate(theirs):
            each = self._acks.setdefault(index, Acks(sequence))
            each.acked = max(each.acked, sequence)

    async def _refresh_channel(self) -> None:
        """Read the channel: what the chain has of acknowledgements is what counts."""
        try:
            found = await self.chain.read(channel_module.SCHEMA, Channel, self.where.channel)
        except (NodeUnavailable, NodeRefused) as fault:
            log.info("channel %s can't be read: %s", self.where.channel, fault)
            return
        if found.state != channel_module.ChannelState.OPEN:
            self.give_up(PipeRefusedError(f"channel {self.where.channel} is closed"))
        self._learn_acks(found)
        self.wake_senders()

    async def _watch_for_stalls(self) -> None:
        """Give up on bytes that never come, and on last words that find no room; look again at a window that stays
        full."""
        complete, since = -1, self._loop.time()
        unsaid = since
        while True:
            await asyncio.sleep(self.timing.check)
            link = self.link
            if link is None or not link.incoming.hole or link.incoming.complete != complete:
                complete, since = link.incoming.complete if link is not None else -1, self._loop.time()
                self._stuck = False
            else:
                self._stuck = True
            if link is not None and self._stuck and self._loop.time() - since >= self.timing.gap:
                self.send_control(Flags.RESET, link.number)
                link.on_link_broken(
                    PipeGapError(f"the bytes at {complete} didn't come in {self.timing.gap:g} s")
                )
            if link is not None or not self._controls:
                unsaid = self._loop.time()
            elif self._loop.time() - unsaid >= self.timing.linger:
                # Who never acknowledges is gone, or wants the chain to be asked for ever.
                self._controls.clear()
                self.tell_idle()
            if (self._controls or (link is not None and link.outgoing.ready)) and not any(
                map(self._has_room, self._pipes)
            ):
                await self._refresh_channel()
