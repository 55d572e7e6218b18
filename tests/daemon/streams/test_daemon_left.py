"""The last bytes for a backend whose caller has gone: delivered to whoever reads, dropped where nobody does."""

from __future__ import annotations

import asyncio
import socket

import pytest

import dtp
from dtp.daemon.reasons import Reason
from dtp.daemon.relays.relay import StreamRelay
from dtp.net.connection import Connection

ALICE, BOB = (dtp.Identity.generate() for _ in range(2))
#: More than the buffers of a pair of sockets take.
SAID = bytes(range(256)) * 4000


async def read_all(backend: socket.socket) -> bytes:
    got = bytearray()
    while piece := await asyncio.get_running_loop().sock_recv(backend, 10_000):
        got += piece
    return bytes(got)


async def left_by(patience: float, how: str, *, reads: bool) -> tuple[StreamRelay, bytes]:
    """A relay to a backend by which a caller says `SAID` and goes, once it is over, and what the backend `reads`."""
    backend, here = socket.socketpair()
    for each in (backend, here):
        each.setblocking(False)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    over, relays = asyncio.Event(), list[StreamRelay]()

    async def serve(connection: Connection) -> None:
        stream = await connection.accept_stream()
        relays.append(
            StreamRelay(
                stream, here, broken=Reason.BACKEND_BROKE, on_end=lambda _: over.set(), patience=patience
            )
        )
        await over.wait()

    async with await dtp.listen("memory://left", serve, identity=ALICE) as listener:
        async with dtp.connect(listener.address(), identity=BOB) as caller:
            stream = await caller.open_stream()
            stream.write(SAID)
            stream.write_eof()
            await stream.flush()
            if how == "wants no answer":
                stream.stop()
        if how == "the backend has said all":
            backend.shutdown(socket.SHUT_WR)
        got = await read_all(backend) if reads else b""
        await asyncio.wait_for(over.wait(), 60)
    backend.close()
    return relays[0], got


@pytest.mark.parametrize("how", ["goes", "wants no answer", "the backend has said all"])
def test_what_nobody_reads_is_dropped_and_why_is_said(how: str) -> None:
    relay, _ = asyncio.run(left_by(0.01, how, reads=False))
    assert relay.why == "the backend broke off: it took nothing for 0.01 s, and all else is over"


def test_whoever_reads_gets_all_of_it() -> None:
    relay, got = asyncio.run(left_by(1000.0, "goes", reads=True))
    assert (relay.why, got) == ("", SAID)
