"""Bytes through the chain: the pipe carrier over the embedded node, with 1, 4 and 16 pipes.

A process for the node, one for both ends. A transaction on a real network takes about 400 ms, mostly waiting; the
embedded node answers in a few ms of computing. So each number of pipes is measured twice: with `LATENCY` added
in front of every transaction, to show whether pipes run side by side, and without, to show what processors can do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from bench.chain import serve as serve  # the node
from bench.contenders import Contender
from bench.job import SMALL, Job, Meter, Result, percentile

if TYPE_CHECKING:
    from dtp.chain import ChainClient, Network
    from dtp.chain.pipes.carrier import PipeCarrier

MODULE = "bench.pipe"
#: Seconds that a transaction takes on a main network, by its operators' figures.
LATENCY = 0.4
#: Frames of a measured transfer, for each pipe.
FRAMES = 8

#: The rows: how many pipes, and whether transactions take their time.
CONTENDERS = tuple(
    Contender(
        f"{pipes}{suffix}",
        f"{pipes} pipe{'s' if pipes > 1 else ''}, {text}",
        MODULE,
        f"{pipes}{suffix}",
        frozenset({"pipes"}),
    )
    for suffix, text in (
        (" far", f"{LATENCY * 1000:.0f} ms added to each transaction"),
        (" near", "transactions as fast as they are computed"),
    )
    for pipes in (1, 4, 16)
)


class _Sink:
    """Counts what comes in; with `echo` it goes back."""

    def __init__(self, carrier: PipeCarrier, *, echo: bool = False) -> None:
        self._carrier = carrier
        self._echo = echo
        self._buffer = bytearray(1 << 16)
        self._changed = asyncio.Event()
        self.received = 0
        self.writable = asyncio.Event()
        carrier.start(self)

    def carrier_buffer(self) -> memoryview:
        return memoryview(self._buffer)

    def carrier_received(self, size: int) -> None:
        self.received += size
        if self._echo:
            self._carrier.write(memoryview(bytes(self._buffer[:size])))
        self._changed.set()

    def carrier_writable(self) -> None:
        self.writable.set()

    def carrier_packet(self, data: bytes) -> None:
        pass

    def carrier_lost(self, error: Exception | None) -> None:
        if error is not None:
            raise error

    async def until(self, size: int) -> None:
        """Wait until so many bytes came in all."""
        while self.received < size:
            self._changed.clear()
            await self._changed.wait()


def drive(job: Job, where: dict[str, Any]) -> Result:
    """Both ends: round trips, then a transfer."""
    return asyncio.run(_drive(job, where))


async def _drive(job: Job, where: dict[str, Any]) -> Result:
    from dtp.chain.pipes.frames import FRAME_BYTES

    pipes, far = job.variant.split()
    both = Meter((where["pid"],))
    async with _ends(where, LATENCY if far == "far" else 0.0, int(pipes)) as (near, other):
        near_sink, other_sink = _Sink(near), _Sink(other, echo=True)
        took = []
        for number in range(job.count):
            started = time.perf_counter_ns()
            near.write(memoryview(bytes(SMALL)))
            await near_sink.until(SMALL * (number + 1))
            took.append(time.perf_counter_ns() - started)
        other_sink._echo = False
        size = FRAME_BYTES * FRAMES * int(pipes)
        before = other_sink.received
        both.start()
        for at in range(0, size, FRAME_BYTES):
            near_sink.writable.clear()
            if not near.write(memoryview(bytes(FRAME_BYTES))) and at + FRAME_BYTES < size:
                await near_sink.writable.wait()
        await other_sink.until(before + size)
        both.stop()
    _, writer = await asyncio.open_connection("127.0.0.1", where["bell"])
    writer.close()
    return {
        "seconds": both.seconds,
        "cpu": both.cpu,
        "bytes": float(size),
        "p50": percentile(took, 0.5) / 1000,
    }


@asynccontextmanager
async def _ends(
    where: dict[str, Any], latency: float, pipes: int
) -> AsyncIterator[tuple[PipeCarrier, PipeCarrier]]:
    """A dialled carrier and the accepted one, between two accounts."""
    from dtp.chain import KeySigner, Network, publish
    from dtp.chain.pipes.carrier import dial, listen
    from dtp.chain.wallet import request_sui

    network = Network("bench", (where["url"],), faucet=where["faucet"])
    owner, user = KeySigner.generate(), KeySigner.generate()
    for each in (owner, user):
        for _ in range(20):  # frames cost about a SUI for each MiB here
            await request_sui(network, each.address)
    async with _client(network, owner, None, 0.0) as chain:
        await publish(chain, "transport")
        host = await _host(chain)
        deployments = chain.deployments
    accepted: asyncio.Queue[Any] = asyncio.Queue()
    async with (
        _client(network, owner, deployments, latency) as server,
        _client(network, user, deployments, latency) as client,
    ):
        listener = await listen(f"pipe://{host}", accepted.put_nowait, chain=server)
        near = await dial(f"pipe://{host}?service=1&pipes={pipes}", chain=client)
        other = await accepted.get()
        try:
            yield near, other
        finally:
            near.abort()
            other.abort()
            await listener.close()


def _client(network: Network, signer: Any, deployments: Any, latency: float) -> ChainClient:
    from dtp.chain import ChainClient

    class Far(ChainClient):
        """Each transaction is on its way for a while before the node has it."""

        async def execute(self, *arguments: Any, **options: Any) -> Any:
            if latency:
                await asyncio.sleep(latency)
            return await super().execute(*arguments, **options)

    return Far(network, signer, deployments=deployments)


async def _host(chain: ChainClient) -> str:
    """A host with an open service 1 that costs nothing, and a live endpoint."""
    from dtp.chain import Program, host

    program = Program()
    host.create(program, chain.address, ttl_ms=86_400_000, operator=chain.address)
    made = chain.events_in(await chain.execute(program), host.SCHEMA, host.HostCreated)[0]
    (cap,) = await chain.owned(host.SCHEMA, host.HostCap, chain.address)
    (op,) = await chain.owned(host.SCHEMA, host.OpCap, chain.address)
    program = Program()
    host.add_service(program, made.host, cap.id, 1, host.Terms())
    host.set_open(program, made.host, cap.id, 1, True)
    host.enroll(program, made.beacon, op.id, b"e" * 32)
    host.heartbeat(program, made.beacon, op.id, b"e" * 32, 1, 0)
    await chain.execute(program)
    return made.host
