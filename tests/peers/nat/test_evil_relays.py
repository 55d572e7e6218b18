"""Relays that mean harm."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from conditions import until
from relay_world import ADDRESS, ALICE, BOB, EVE, RELAY, URL, echo, relaying, reserved

import dtp
import dtp.net.relay
from dtp.errors import CarrierError, DtpError, PeerError
from dtp.identity import Identity
from dtp.net.connection import Connection
from dtp.net.stream import Stream
from dtp.peers.reach.messages import (
    RELAY_SERVICE,
    ReachKind,
    encode,
    expect,
    read,
)
from dtp.testing.clock import run


class EvilRelay:
    """Joins whoever dials with `victim`, does to the bytes what `tamper` says, and says that it sees it at `seen`."""

    def __init__(
        self, tamper: Callable[[bytes], list[bytes]], delay: float = 0.0, seen: str = "nonsense"
    ) -> None:
        self.tamper = tamper
        self.delay = delay
        self.seen = seen
        self.heard = bytearray()
        self._reserved: list[Connection] = []

    async def serve(self, connection: Connection) -> None:
        async with asyncio.TaskGroup() as group:
            async for stream in connection:
                group.create_task(self._answer(connection, stream))

    async def _answer(self, connection: Connection, stream: Stream) -> None:
        kind, _ = await read(stream)
        if kind is ReachKind.RESERVE:
            self._reserved.append(connection)
            stream.write(encode(ReachKind.RESERVED, 3600, "quic://198.51.100.9:1", 1, 1))
            return
        far = await self._reserved[-1].open_stream()
        far.write(encode(ReachKind.INCOMING, EVE.id.key, "nonsense"))
        await expect(far, ReachKind.ACCEPTED)
        stream.write(encode(ReachKind.ACCEPTED, self.seen))
        with pytest.raises(DtpError):
            await asyncio.gather(self._pump(stream, far), self._pump(far, stream))

    async def _pump(self, source: Stream, sink: Stream) -> None:
        while data := await source.read(1000):
            self.heard += data
            await asyncio.sleep(self.delay)
            for piece in self.tamper(data):
                sink.write(piece)
            await sink.drain()
        sink.write_eof()
        await asyncio.sleep(1e5)


def through(
    evil: EvilRelay, talk: Callable[[Connection], Awaitable[None]], *, victim: Identity = BOB
) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            await relaying(stack, evil.serve)
            await reserved(stack, victim)
            connection = await dtp.connect(ADDRESS, identity=ALICE, limits=dtp.Limits(resume=20, dead=5))
            try:
                await talk(connection)
            finally:
                connection.abort()

    run(main())


SECRET = b"what nobody but Bob may read" * 50


async def say_secret(connection: Connection) -> None:
    stream = await connection.open_stream()
    stream.write(SECRET)
    stream.write_eof()
    assert await stream.read() == SECRET


def test_a_relay_sees_ciphertext_and_neither_secrets_nor_names() -> None:
    evil = EvilRelay(lambda data: [data], delay=0.05)
    through(evil, say_secret)
    assert len(evil.heard) > 2 * len(SECRET)
    for plain in (SECRET[:20], ALICE.id.key, BOB.id.key, b"echo"):
        assert plain not in evil.heard


def test_a_relay_that_leads_to_another_is_found_out() -> None:
    with pytest.raises(PeerError) as error:
        through(EvilRelay(lambda data: [data]), say_secret, victim=EVE)
    assert error.value.code == "wrong-identity"


@pytest.mark.parametrize(
    "tamper",
    [
        lambda data: [],  # drops
        lambda data: [data[:1], data[2:], data[1:2]],  # reorders
        lambda data: [bytes(byte ^ 1 for byte in data)],  # lies
        lambda data: [data, data],  # repeats
    ],
    ids=["drops", "reorders", "lies", "repeats"],
)
def test_a_relay_that_tampers_from_the_start_brings_no_connection(
    tamper: Callable[[bytes], list[bytes]],
) -> None:
    with pytest.raises((CarrierError, PeerError)):
        through(EvilRelay(tamper), say_secret)


@pytest.mark.parametrize("how", ["drops", "lies"])
def test_a_relay_that_tampers_later_costs_the_connection_and_no_byte_is_believed(how: str) -> None:
    evil = EvilRelay(lambda data: [data])

    async def talk(connection: Connection) -> None:
        await say_secret(connection)
        evil.tamper = (
            (lambda data: [])
            if how == "drops"
            else (lambda data: [data[:-1] + bytes([data[-1] ^ 1])] if data else [])
        )
        with pytest.raises(DtpError):
            await say_secret(connection)

    through(evil, talk)


def test_a_connection_that_ends_while_it_is_to_become_direct_is_no_error_for_anybody_to_read() -> None:
    """Each that was closed within a second, through NATs that no hole goes through, printed a hundred lines."""
    pytest.importorskip("qh3", reason="qh3 not installed (the extra quic)")

    async def main() -> None:
        faults = list[dict[str, Any]]()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        quiet: dict[str, Any] = {"discover": (), "map_ports": False}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            evil = EvilRelay(lambda data: [data], seen=f"quic://127.0.0.1:{silent.getsockname()[1]}")
            async with (
                await dtp.listen("memory://relay", {RELAY_SERVICE: evil.serve}, identity=RELAY),
                dtp.Node(listen=["memory://hidden", URL], services={"echo": echo}, **quiet) as hidden,
                dtp.Node(listen=["quic://127.0.0.1:0"], **quiet) as asking,
            ):
                await until(lambda: any(url.startswith("relay:") for url in hidden.record.addresses))
                there = dtp.Address.direct(hidden.identity.id, f"{URL}&target={hidden.identity.id}", "echo")
                async with asking.connect(there):
                    await until(lambda: asking.reach.counters["upgrades"] == 2)  # and that of the link
                await until(lambda: bool(faults) or asking.reach.counters["relayed"] == 2)
        assert faults == []

    run(main(), loop_factory=asyncio.SelectorEventLoop)
