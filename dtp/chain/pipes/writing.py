"""Brings frames to the chain: until one is known to be there, whatever is lost on the way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

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
from dtp.chain.firewall import Gcra
from dtp.chain.node.client import ChainClient
from dtp.chain.node.commands import Program
from dtp.chain.pipe import Pipe, PipeError
from dtp.chain.pipes.acks import FrameAcks, SomeAcks
from dtp.chain.pipes.frames import Flags, Header, IncomingPipe, OutgoingPipe, PipePiece, encode
from dtp.chain.pipes.gas import GasGuess
from dtp.chain.pipes.where import PipeEndpoint, PipeRefusedError, PipeStalledError, Timing
from dtp.errors import CarrierError, ChainError

log = logging.getLogger("dtp.chain")

_NS: Final = 1_000_000_000


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
class SendingPipe:
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
class FrameJob:
    """What is sent next: frames of a link, or acknowledgements alone."""

    flags: int
    link: int
    cut: PipePiece | None = None
    owner: PipeLink | None = None
    #: Acknowledgements only, without a frame.
    silent: bool = False
    #: How many frames it is.
    count: int = 1


class FrameWriter:
    """Writes the frames of one end to the chain, within its service's rate and with budgets learnt from before."""

    def __init__(
        self,
        chain: ChainClient,
        where: PipeEndpoint,
        gas: GasGuess,
        timing: Timing,
        acks: FrameAcks,
        pipes: Sequence[SendingPipe],
        *,
        refresh: Callable[[], Awaitable[None]],
        check_usable: Callable[[], None],
    ) -> None:
        """`pipes` are those that the end sends over by now; `refresh` has what the chain says of the channel taken
        note of; `check_usable` raises why the end can't be used any more."""
        self._chain, self._where, self._gas, self._timing, self._acks = chain, where, gas, timing, acks
        self._pipes, self._refresh, self._check_usable = pipes, refresh, check_usable
        self._careful = False

    async def write_frame(self, out: SendingPipe, job: FrameJob, acks: SomeAcks) -> SomeAcks:
        """Try until the frame is there; return the acknowledgements that went with it. Raise what it fails by."""
        since = asyncio.get_running_loop().time()
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
                await self._refresh()  # the channel may be closed, or its pipes destroyed
                self._check_usable()
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
        if asyncio.get_running_loop().time() - since > self._timing.stall:
            raise PipeStalledError(f"no frame got on the chain in {self._timing.stall:g} s: {lost}") from lost
        await asyncio.sleep(self._timing.pause)

    async def _execute_frame(self, out: SendingPipe, job: FrameJob, acks: SomeAcks) -> None:
        where = self._where
        frames = self._build_frames(job, acks)
        size = sum(len(frame) for _, frame in frames)
        limited = not job.silent and await self._wait_for_rate(out, size, job.count)
        program = Program()
        for index, sequence in acks:
            pipe_module.ack(program, where.channel, index, sequence, coin=where.coin)
        if job.silent:
            if acks:
                await self._chain.execute(program)
            return
        for flags, frame in frames:
            pipe_module.send(program, out.id, where.channel, where.host, frame, flags=flags, coin=where.coin)
        budget = None if self._careful or limited else self._gas.budget_for(size)
        self._gas.add_sample(size, await self._chain.execute(program, gas_budget=budget))

    def _build_frames(self, job: FrameJob, acks: SomeAcks) -> list[tuple[int, bytes]]:
        """Return flags and bytes of a job's frames; the first tells of the acknowledgements."""
        where = self._where
        to = Flags.TO if where.is_client else Flags(0)
        pieces = job.cut.split_into(where.piece) if job.cut is not None else [PipePiece(0, b"")]
        made = []
        for number, each in enumerate(pieces):
            header = Header(job.link, each.offset, () if number else acks, where.to, max(1, len(self._pipes)))
            flags = to | (job.flags if number == len(pieces) - 1 else Flags(0))
            made.append((int(flags), encode(header, flags, each.data)))
        return made

    async def _wait_for_rate(self, out: SendingPipe, size: int, count: int) -> bool:
        """Wait until the service's rate has room; return whether there is a rate at all."""
        rate = self._where.rate
        if not self._where.is_client or not (rate.requests.interval_ns or rate.bytes.interval_ns):
            return False
        while True:
            now = round(asyncio.get_running_loop().time() * _NS)
            waits = (
                out.requests.wait_ns(rate.requests, now, count),
                out.bytes.wait_ns(rate.bytes, now, size),
            )
            if None in waits:
                raise PipeRefusedError(
                    f"a frame of {size} bytes is over the burst of service {self._where.service}"
                )
            longest = max(each or 0 for each in waits)
            if not longest:
                break
            await asyncio.sleep(longest / _NS)
        out.requests = out.requests.consume(rate.requests, now, count) or out.requests
        out.bytes = out.bytes.consume(rate.bytes, now, size) or out.bytes
        return True

    async def _after_abort(
        self, out: SendingPipe, fault: MoveAborted, acks: SomeAcks, since: float
    ) -> SomeAcks:
        """Wait until another attempt makes sense; return the acknowledgements that are still to be made.

        Raises `PipeStalledError` when attempts since `since` were in vain for too long.
        """
        if fault.error is PipeError.OVER_WINDOW:
            # There was room by what is known of acknowledgements, which only rise: the node lags behind, or the other
            # side has told of more than it has acknowledged.
            out.doubted = out.doubted or asyncio.get_running_loop().time()
            await self._wait_before_retry(out.doubted, fault)
        elif fault.error is PipeError.OVER_RATE:
            # Runs before this one may have used it up.
            await self._wait_before_retry(since + self._where.recovery, fault)
        elif fault.error is ChannelError.STALE_ACK:
            await self._refresh()
            if self._acks.list_undone(acks) == acks:
                # The node that was read lags behind the one that refuses.
                await self._wait_before_retry(since, fault)
        else:
            raise PipeRefusedError(
                f"the chain refuses frames of channel {self._where.channel}: {fault}"
            ) from fault
        self._check_usable()
        return self._acks.list_undone(acks)

    async def _resolve_outcome(
        self,
        out: SendingPipe,
        job: FrameJob,
        acks: SomeAcks,
        unknown: OutcomeUnknown,
        since: float,
    ) -> bool:
        """Return whether a transaction was executed, once that is certain.

        The identical bytes can be sent at any time. Another transaction may be made only when it is known that these
        were not executed, or the frame would be there twice.
        """
        while True:
            refused = False
            try:
                await self._chain.resubmit(unknown)
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

    async def _was_executed(self, out: SendingPipe, job: FrameJob, acks: SomeAcks) -> bool:
        """Return whether the chain has what a transaction was to do."""
        if not job.silent:
            found = await self._chain.read(pipe_module.SCHEMA, Pipe, out.id)
            return found.sequence > out.sequence
        channel = await self._chain.read(channel_module.SCHEMA, Channel, self._where.channel)
        theirs = channel.acks_to_client if self._where.is_client else channel.acks_to_server
        return all(theirs[index] >= sequence for index, sequence in acks)
