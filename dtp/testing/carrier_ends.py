"""Ends of carriers for tests: they record what is reported, and complain of what breaks the contract.

A `Bench` makes pairs of them from a kind of carrier; `dtp.testing.carriers` checks the contract with them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from dtp.carriers.base import Carrier, CarrierKind, CarrierListener
from dtp.errors import CarrierError

T = TypeVar("T")

#: The smallest buffer that a receiver may give.
SMALLEST_BUFFER = 65536

#: Seconds to wait for something that has to happen.
PATIENCE = 20.0


class ContractError(AssertionError):
    """A carrier breaks the contract; the message says which clause."""


class PairState:
    """What the two ends of a pair have in common: whether a call is being made, and what went wrong."""

    def __init__(self) -> None:
        self.calling = ""
        self.complaints: list[str] = []
        self._changed = asyncio.Event()

    def check_contract(self) -> None:
        """Raise `ContractError` for what went wrong so far."""
        if self.complaints:
            raise ContractError("; ".join(self.complaints))

    async def wait_until(self, condition: Callable[[], bool], what: str, patience: float) -> None:
        """Wait for `condition`, looking again after each report. Raises `ContractError` when it doesn't
        come."""
        try:
            async with asyncio.timeout(patience):
                while not condition():
                    self.check_contract()
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise ContractError(f"did not happen within {patience} s: {what}") from None
        self.check_contract()

    def note_report(self, what: str, ended: bool) -> None:
        """Note that a report came, and whether the carrier had ended by then."""
        if self.calling:
            self.note_broken(f"{what} from inside a call to {self.calling}")
        if ended:
            self.note_broken(f"{what} after carrier_lost")
        self._changed.set()

    def note_broken(self, text: str) -> None:
        """Note that the contract was broken."""
        self.complaints.append(text)
        self._changed.set()


class RecordingReceiver:
    """A `Receiver` that keeps what it is told and complains about what the contract forbids.

    `received` are all bytes in order, `reads` the size of each report, `lost` what `carrier_lost` said (valid
    once `ended`). The buffer has the smallest size that is allowed and is overwritten after each report.
    """

    def __init__(self, shared: PairState) -> None:
        self.received = bytearray()
        self.reads: list[int] = []
        self.writable = 0
        self.ended = False
        self.lost: CarrierError | None = None
        self.on_received: Callable[[bytes], None] | None = None
        self.packets: list[bytes] = []
        self._shared = shared
        self._buffer = bytearray(SMALLEST_BUFFER)
        self._buffer_given = False

    def carrier_buffer(self) -> memoryview:
        self._shared.note_report("carrier_buffer", self.ended)
        self._buffer_given = True
        return memoryview(self._buffer)

    def carrier_received(self, size: int) -> None:
        self._shared.note_report("carrier_received", self.ended)
        if not self._buffer_given:
            self._shared.note_broken("carrier_received without carrier_buffer before it")
        if not 0 < size <= len(self._buffer):
            self._shared.note_broken(f"carrier_received({size}) with a buffer of {len(self._buffer)} bytes")
        self._buffer_given = False
        data = bytes(self._buffer[:size])
        self._buffer[:size] = b"\xee" * size
        self.received += data
        self.reads.append(size)
        if self.on_received is not None:
            self.on_received(data)

    def carrier_packet(self, data: bytes) -> None:
        self._shared.note_report("carrier_packet", self.ended)
        self.packets.append(data)

    def carrier_writable(self) -> None:
        self._shared.note_report("carrier_writable", self.ended)
        self.writable += 1

    def carrier_lost(self, error: CarrierError | None) -> None:
        self._shared.note_report("carrier_lost", self.ended)
        if error is not None and not isinstance(error, CarrierError):
            self._shared.note_broken(f"carrier_lost({error!r}): neither a CarrierError nor None")
        self.ended = True
        self.lost = error


class CarrierEnd:
    """One end of a pair under check: the carrier, called under watch, and its `RecordingReceiver`. For tests of
    programs too: whatever breaks the contract meanwhile is raised by the next wait."""

    def __init__(self, carrier: Carrier, shared: PairState | None = None, patience: float = PATIENCE) -> None:
        self.carrier = carrier
        self._shared = shared if shared is not None else PairState()
        self.recorder = RecordingReceiver(self._shared)
        self.started = False
        self._patience = patience

    def start(self) -> CarrierEnd:
        """Start, and give this end, so that making and starting is one expression."""
        self.started = True
        self._call_watched("start", lambda: self.carrier.start(self.recorder))
        return self

    def write(self, data: bytes | bytearray) -> bool:
        """Write, and spoil the memory at once: the carrier must have taken it."""
        memory = bytearray(data)
        result = self._call_watched("write", lambda: self.carrier.write(memoryview(memory)))
        memory[:] = b"\xdd" * len(memory)
        return result

    def write_packet(self, data: bytes) -> None:
        """Send a packet over the lossy path, and spoil the memory at once."""
        memory = bytearray(data)
        self._call_watched("write_packet", lambda: self.carrier.write_packet(memoryview(memory)))
        memory[:] = b"\xdd" * len(memory)

    def close(self) -> None:
        """Close the carrier."""
        self._call_watched("close", self.carrier.close)

    def abort(self) -> None:
        """Abort the carrier."""
        self._call_watched("abort", self.carrier.abort)

    async def send_all(self, data: bytes, step: int = 65536) -> None:
        """Write all of `data`, waiting whenever the carrier says so."""
        for at in range(0, len(data), step):
            await self.send_piece(data[at : at + step])

    async def send_piece(self, data: bytes) -> None:
        """Write `data` at once, and wait if the carrier says so."""
        seen = self.recorder.writable
        if not self.write(data):
            await self.wait_until(
                lambda: self.recorder.writable > seen, "carrier_writable after write gave False"
            )

    async def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something that a report brings about. Raises `ContractError` when it doesn't come."""
        await self._shared.wait_until(condition, what, self._patience)

    async def until_received(self, data: bytes) -> None:
        """Wait for as many bytes and compare."""
        await self.wait_until(
            lambda: len(self.recorder.received) >= len(data) or self.recorder.ended,
            f"{len(data)} bytes received",
        )
        compare_bytes(self.recorder.received, data)

    async def deliver_message(self, data: bytes, far: CarrierEnd) -> None:
        """Send one small message to the other end and see it arrive."""
        self.write(data)
        await far.wait_until(lambda: far.recorder.received.endswith(data), f"{data!r} received")

    async def until_lost(self) -> CarrierError | None:
        """Wait for the end; what `carrier_lost` said."""
        return await self.until_lost_within(self._patience)

    async def until_lost_within(self, seconds: float) -> CarrierError | None:
        """Return the same with a patience of its own."""
        await self._shared.wait_until(lambda: self.recorder.ended, "carrier_lost", seconds)
        return self.recorder.lost

    def _call_watched(self, name: str, method: Callable[[], T]) -> T:
        outer, self._shared.calling = self._shared.calling, name
        try:
            return method()
        finally:
            self._shared.calling = outer


def compare_bytes(got: bytes | bytearray, wanted: bytes) -> None:
    if got == wanted:
        return
    at = next(
        (i for i, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), min(len(got), len(wanted))
    )
    raise ContractError(f"received {len(got)} bytes of {len(wanted)}, different from byte {at} on")


class Bench:
    """Makes pairs of one kind of carrier, one after another. `listener` is set by whoever uses it, and accepts
    into `accepted`."""

    def __init__(self, kind: CarrierKind, dial_url: Callable[[str], str], patience: float) -> None:
        self.kind = kind
        self.dial_url = dial_url
        self.patience = patience
        self.accepted: asyncio.Queue[Carrier] = asyncio.Queue()
        self.listener: CarrierListener

    async def dial(self) -> Carrier:
        return await self.kind.dial(self.dial_url(self.listener.urls[0]))

    @asynccontextmanager
    async def pair(self, swapped: bool = False) -> AsyncIterator[tuple[CarrierEnd, CarrierEnd]]:
        """Yield a dialled carrier and the accepted one (or `swapped`), not started. Ended and verified
        afterwards."""
        shared = PairState()
        dialled = await self.dial()
        try:
            async with asyncio.timeout(self.patience):
                accepted = await self.accepted.get()
        except TimeoutError:
            dialled.abort()
            raise ContractError(f"dialled, but nothing was accepted within {self.patience} s") from None
        ends = [CarrierEnd(carrier, shared, self.patience) for carrier in (dialled, accepted)]
        if swapped:
            ends.reverse()
        try:
            yield ends[0], ends[1]
            for end in ends:
                end.abort()
                if end.started:
                    await end.until_lost()
            await settle()
            shared.check_contract()
        finally:
            for end in ends:
                end.carrier.abort()


async def settle() -> None:
    """Let everything happen that is due now, such as a second `carrier_lost`."""
    for _ in range(5):
        await asyncio.sleep(0)
