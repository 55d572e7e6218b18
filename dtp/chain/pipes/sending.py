"""What an end sends, and over which of its pipes.

There is one task for each pipe, since a pipe takes one transaction at a time. What a task sends next: control frames,
then the stream in pieces, then acknowledgements. A frame is sent until it is known to be on the chain; the pipe's own
sequence number tells, whatever was lost on the way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from dtp.chain.node.client import ChainClient
from dtp.chain.pipe import Pipe
from dtp.chain.pipes.acks import FrameAcks
from dtp.chain.pipes.frames import Flags
from dtp.chain.pipes.gas import GasGuess
from dtp.chain.pipes.where import PipeEndpoint, PipeRefusedError, Timing
from dtp.chain.pipes.writing import FrameJob, FrameWriter, PipeLink, SendingPipe
from dtp.errors import CarrierError, ChainError, LocalError
from dtp.tasks import SupervisedTask


class FrameSender:
    """Brings frames to the chain: each once, those of one pipe in order, and no more than the window has room for."""

    def __init__(
        self,
        chain: ChainClient,
        where: PipeEndpoint,
        gas: GasGuess,
        timing: Timing,
        acks: FrameAcks,
        *,
        link: Callable[[], PipeLink | None],
        refresh: Callable[[], Awaitable[None]],
        give_up: Callable[[CarrierError], None],
        on_sent: Callable[[], None],
    ) -> None:
        """`link` gives the link that lives on the end; `refresh` has what the chain says of the channel taken note
        of; `give_up` is told why nothing can be sent any more, and `on_sent` that something was."""
        self._where, self._acks = where, acks
        self._link, self._give_up, self._on_sent = link, give_up, on_sent
        #: How many frames of this end are on the chain.
        self.sent = 0
        self._pipes: list[SendingPipe] = []
        self._writer = FrameWriter(
            chain, where, gas, timing, acks, self._pipes, refresh=refresh, check_usable=self._check_usable
        )
        self._controls: deque[FrameJob] = deque()
        self._under_way = 0
        self._failed: CarrierError | None = None
        self._tasks: list[SupervisedTask] = []

    def add_pipes(self, pipes: Sequence[Pipe]) -> None:
        """Send over these, too."""
        for each in pipes:
            out = SendingPipe(each.id, each.index, each.sequence)
            self._pipes.append(out)
            task = SupervisedTask(partial(self._run_pipe, out), name="dtp-pipe-send")
            self._tasks.append(task)
            task.start()

    async def stop(self) -> None:
        """End all tasks. What is under way may still reach the chain."""
        for each in self._tasks:
            each.cancel()
        for each in self._tasks:
            await each.stop()

    def fail(self, error: CarrierError) -> None:
        """Send nothing more, since the end can't be used any more."""
        self._failed = error
        self._controls.clear()

    @property
    def pipe_ids(self) -> tuple[str, ...]:
        """The pipes that it sends over."""
        return tuple(each.id for each in self._pipes)

    @property
    def busy(self) -> bool:
        """Whether something is being sent, or a control frame is to be."""
        return bool(self._controls or self._under_way)

    @property
    def has_controls(self) -> bool:
        """Whether control frames wait to be sent."""
        return bool(self._controls)

    @property
    def stuck(self) -> bool:
        """Whether something is to be sent, and no pipe's window has room."""
        link = self._link()
        waits = self._controls or (link is not None and link.outgoing.ready)
        return bool(waits) and not any(map(self._room_of, self._pipes))

    def send_control(self, flags: Flags, link: int) -> None:
        """Send a frame without bytes of the stream."""
        if self._failed is None:
            self._controls.append(FrameJob(flags, link))
            self.wake_pipes()

    def drop_controls(self) -> None:
        """Send none of the control frames that wait."""
        self._controls.clear()

    def wake_pipes(self) -> None:
        """Note that something may be sent."""
        for out in self._pipes:
            out.wake.set()

    @property
    def taken(self) -> int:
        """Up to where the stream was taken; without a link nobody waits for it."""
        link = self._link()
        return link.incoming.taken if link is not None else 2**64

    def _check_usable(self) -> None:
        """Raise why the end can't be used any more."""
        if self._failed is not None:
            raise self._failed

    def _room_of(self, out: SendingPipe) -> int:
        """Return how many frames the window has room for on a pipe."""
        return max(0, self._acks.window_room(out.index, out.sequence))

    def _next_job(self, out: SendingPipe) -> FrameJob | None:
        if self._failed is not None or not self._room_of(out):
            return None
        if self._controls:
            return self._controls.popleft()
        link = self._link()
        if link is not None and link.outgoing.ready:
            where, frames = self._where, self._room_of(out)
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
        return not self._acks.is_eager or not self._room_of(out)

    async def _run_pipe(self, out: SendingPipe) -> None:
        while True:
            job = self._next_job(out)
            if job is None and self._failed is None and self._acks.list_due(self.taken):
                job = FrameJob(Flags(0), 0, silent=self._acknowledges_silently(out))
            if job is None:
                out.wake.clear()
                await out.wake.wait()
                continue
            self._under_way += 1
            try:
                await self._send_frame(out, job)
            except CarrierError as fault:
                self._give_up(fault)
            except (ChainError, LocalError) as fault:
                refused = PipeRefusedError(f"frames of channel {self._where.channel} can't be sent: {fault}")
                refused.__cause__ = fault
                self._give_up(refused)
            finally:
                self._under_way -= 1
            self._on_sent()

    async def _send_frame(self, out: SendingPipe, job: FrameJob) -> None:
        """Bring one frame to the chain."""
        acks = self._acks.list_due(self.taken)
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
        self.wake_pipes()
