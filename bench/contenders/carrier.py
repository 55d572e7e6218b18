"""DTP's TCP carrier with neither session nor cipher: what a connection can get at most."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from bench.job import READ, Job, Meter, Ready, Result, congestion_of


class _End:
    """A receiver that counts: says ACK when it has the warm-up, and again when it has the rest."""

    def __init__(self, on_all: Callable[[], None]) -> None:
        self.buffer = memoryview(bytearray(READ))
        self.wanted = 0
        self.on_all = on_all
        self.lost = asyncio.get_running_loop().create_future()
        self.writable = asyncio.Event()

    def carrier_buffer(self) -> memoryview:
        return self.buffer

    def carrier_received(self, size: int) -> None:
        self.wanted -= size
        if not self.wanted:
            self.on_all()

    def carrier_writable(self) -> None:
        self.writable.set()

    def carrier_packet(self, data: bytes) -> None:
        pass

    def carrier_lost(self, error: Exception | None) -> None:
        self.lost.set_result(error)


def serve(job: Job, ready: Ready) -> Result:
    """The server's side."""
    return asyncio.run(_serve(job, ready))


async def _serve(job: Job, ready: Ready) -> Result:
    from dtp import carriers

    meter, phases = Meter(), [job.warm, job.size]
    accepted: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def accept(carrier: Any) -> None:
        def on_all() -> None:
            phases.pop(0)
            if phases:
                end.wanted = phases[0]
                meter.start()
            else:
                meter.stop()
            carrier.write(memoryview(b"k"))

        end = _End(on_all)
        end.wanted = phases[0]
        carrier.start(end)
        accepted.set_result(end)

    listener = await carriers.listen("tcp://127.0.0.1:0", accept)
    ready({"url": listener.urls[0]})
    await (await accepted).lost
    await listener.close()
    return meter.result


def drive(job: Job, where: dict[str, Any]) -> Result:
    """The client's side."""
    return asyncio.run(_drive(job, where))


async def _drive(job: Job, where: dict[str, Any]) -> Result:
    from dtp import carriers

    carrier: Any = await carriers.dial(where["url"])
    acked = asyncio.Event()
    end = _End(acked.set)
    carrier.start(end)
    piece = memoryview(bytes(job.chunk))
    meter = Meter()
    for size in (job.warm, job.size):
        meter.start()
        acked.clear()
        end.wanted = 1
        while size:
            part = piece[:size]
            size -= len(part)
            end.writable.clear()
            if not carrier.write(part):
                await end.writable.wait()
        await acked.wait()
        meter.stop()
    facts: Result = {"congestion": congestion_of(carrier._sock)}
    carrier.close()
    await end.lost
    return meter.result | facts
