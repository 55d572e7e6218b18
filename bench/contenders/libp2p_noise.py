"""py-libp2p as its own `new_host` makes it, with Noise over TCP and its default multiplexer."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from bench.job import ACK, READ, SMALL, Job, Meter, Progress, Ready, Result, latencies


def _host() -> Any:
    from libp2p import new_host
    from libp2p.crypto.ed25519 import create_new_key_pair
    from libp2p.crypto.x25519 import create_new_key_pair as create_new_static
    from libp2p.security.noise.transport import PROTOCOL_ID, Transport

    keys = create_new_key_pair()
    noise = Transport(keys, noise_privkey=create_new_static().private_key)
    return new_host(key_pair=keys, sec_opt={PROTOCOL_ID: noise})


def serve(job: Job, ready: Ready) -> Result:
    """The server's side."""
    import trio

    result: Result = trio.run(_serve, job, ready)
    return result


async def _serve(job: Job, ready: Ready) -> Result:
    import trio
    from multiaddr import Multiaddr

    host, meter, finished = _host(), Meter(), trio.Event()
    progress = Progress(job.streams, meter)

    async def sink(stream: Any) -> None:
        await _discard(stream, job.warm_per_stream)
        progress.warmed()
        await stream.write(ACK)
        await _discard(stream, job.per_stream)
        progress.done()
        await stream.write(ACK)
        await _gone(stream)
        if progress.ended():
            finished.set()

    async def echo(stream: Any) -> None:
        for count in (job.warm_count, job.count):
            meter.start()
            for _ in range(count):
                await stream.write(await _exactly(stream, SMALL))
            meter.stop()
        await _gone(stream)
        finished.set()

    async with host.run(listen_addrs=[Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        host.set_stream_handler("/bench/1", echo if job.workload == "roundtrip" else sink)
        ready({"address": str(host.get_addrs()[0])})
        await finished.wait()
    return meter.result


async def _gone(stream: Any) -> None:
    """Wait until the client has gone, in whatever way."""
    from libp2p.network.stream.exceptions import StreamError

    with contextlib.suppress(StreamError):
        await stream.read(1)


async def _discard(stream: Any, size: int) -> None:
    while size:
        data = await stream.read(min(READ, size))
        if not data:
            raise EOFError(f"the stream ended {size} bytes early")
        size -= len(data)


async def _exactly(stream: Any, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = await stream.read(size - len(data))
        if not part:
            raise EOFError("the stream ended early")
        data += part
    return data


def drive(job: Job, where: dict[str, Any]) -> Result:
    """The client's side."""
    import trio

    result: Result = trio.run(_drive, job, where)
    return result


async def _drive(job: Job, where: dict[str, Any]) -> Result:
    from libp2p.peer.peerinfo import info_from_p2p_addr
    from multiaddr import Multiaddr

    host = _host()
    async with host.run(listen_addrs=[]):
        peer = info_from_p2p_addr(Multiaddr(where["address"]))
        await host.connect(peer)
        streams = [await host.new_stream(peer.peer_id, ["/bench/1"]) for _ in range(job.streams)]
        result = await (_ask(job, streams[0]) if job.workload == "roundtrip" else _send(job, streams))
        for stream in streams:
            await stream.close()
    return result


async def _ask(job: Job, stream: Any) -> Result:
    question = bytes(SMALL)
    times: list[int] = []
    meter = Meter()
    for count in (job.warm_count, job.count):
        meter.start()
        times.clear()
        for _ in range(count):
            asked = time.perf_counter_ns()
            await stream.write(question)
            await _exactly(stream, SMALL)
            times.append(time.perf_counter_ns() - asked)
        meter.stop()
    return meter.result | latencies(times)


async def _send(job: Job, streams: list[Any]) -> Result:
    import trio

    piece = bytes(SMALL) if job.workload == "messages" else bytes(job.chunk)

    async def transfer(stream: Any, size: int) -> None:
        for _ in range(size // len(piece)):
            await stream.write(piece)
        if size % len(piece):
            await stream.write(piece[: size % len(piece)])
        await _exactly(stream, 1)

    meter = Meter()
    for size in (job.warm_per_stream, job.per_stream):
        meter.start()
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(transfer, stream, size)
        meter.stop()
    return meter.result
