"""Strangers at a listener's door: silent, slow, garbled and in floods; they keep nobody out."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from dataclasses import replace

import pytest
from echo_service import echo, on_fake_clock, roundtrip
from newcomers import strangers

import dtp
from dtp.net import dial as dialing
from dtp.net.connection import Connection
from dtp.net.driver import LinkDriver
from dtp.session.codes import (
    ConnectionLost,
    HandshakeRefused,
)
from dtp.session.handshake import Established, HandshakeConfig
from dtp.session.limits import DEFAULT
from dtp.session.session import Session
from dtp.testing import clock
from dtp.testing.pairs import ALICE, BOB

# ---- adversaries at the door --------------------------------------------------------------------------------


@on_fake_clock
async def test_silent_and_slow_strangers_are_thrown_out_in_time() -> None:
    async with (
        await dtp.listen("memory://x", echo, identity=BOB) as listener,
        strangers(listener, 3) as guests,
    ):
        silent, slow, half = guests
        start = asyncio.get_running_loop().time()
        half.carrier.write(
            memoryview(b"DTP\x01\x01\x01\x0f\x00\x20" + bytes(32))
        )  # a first message of XX, no more
        for byte in b"DTP\x01\x01\x01\x0f":
            slow.carrier.write(memoryview(bytes([byte])))
            await asyncio.sleep(1)
        await asyncio.gather(*(guest.ended for guest in guests))
        assert asyncio.get_running_loop().time() - start == pytest.approx(DEFAULT.handshake, abs=0.5)
        assert silent.heard == slow.heard == b""
        assert half.heard.startswith(b"\x00")
        assert not listener.half_open
        assert not listener.half_open.by_source


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b""),
        (b"\x16\x03\x01\x02\x00", b""),
        (b"DTP\x02\x01\x01\x0f\x00\x20" + bytes(32), b"\0\0\0\x01"),
        (b"DTP\x01\x09\x01\x0f\x00\x20" + bytes(32), b"\0\0\0\x02"),
        (b"DTP\x01\x03\x01\x0f\x00\x20" + bytes(32), b"\0\0\0\x02"),
        (b"DTP\x01\x01\x09\x0f\x00\x20" + bytes(32), b"\0\0\0\x02"),
        (b"DTP\x01\x02\x01\x0f\x00\x60" + bytes(96), b"\0\0\0\x03"),
        (b"DTP\x01\x01\x01\x0f\xff\xff" + bytes(10), b"\0\0\0\x03"),
        (b"DTP\x01\x01\x01\x0f\x00\x01x", b"\0\0\0\x03"),
        (b"DTP\x01\x01\x01\x0f\x00\x00\x00\x03", b""),
    ],
)
def test_strangers_hear_a_code_or_nothing(said: bytes, heard: bytes) -> None:
    async def main() -> None:
        async with (
            await dtp.listen("memory://x", echo, identity=BOB) as listener,
            strangers(listener, 1) as [guest],
        ):
            guest.carrier.write(memoryview(said))
            await guest.ended
            assert guest.heard == heard
            async with dtp.connect(listener.address()) as connection:
                assert await roundtrip(connection, b"hi") == b"hi"

    clock.run(main())


@on_fake_clock
async def test_flood_of_half_open_carriers_keeps_nobody_out() -> None:
    limits = replace(DEFAULT, half_open=20, half_open_per_source=10)
    async with (
        await dtp.listen("memory://x", echo, identity=BOB, limits=limits) as listener,
        dtp.connect(listener.address()) as connection,
        strangers(listener, 30) as guests,
    ):
        await asyncio.sleep(0.1)
        assert sum(guest.ended.done() for guest in guests) == 20  # they made room, by lot
        assert not guests[-1].ended.done()  # and not who comes
        assert {guest.heard for guest in guests} == {b""}
        assert await roundtrip(connection, b"hi") == b"hi"
        async with dtp.connect(listener.address()) as later:
            assert await roundtrip(later, b"hi") == b"hi"
        await asyncio.sleep(DEFAULT.handshake + 1)
        assert not listener.half_open
        assert not listener.half_open.by_source


def test_strangers_that_were_refused_and_stay_make_room_for_others() -> None:
    """Each has a descriptor until it is gone."""

    async def main() -> None:
        limits = replace(DEFAULT, half_open_per_source=4)
        async with await dtp.listen("tcp://127.0.0.1:0", echo, identity=BOB, limits=limits) as listener:
            port = int(listener.urls[0].rpartition(":")[2])
            guests = []
            for _ in range(12):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                guests.append((reader, writer))
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
                assert await reader.read() == b""
                assert len(listener.half_open) == min(4, len(guests))
            async with dtp.connect(listener.address()) as connection:
                assert await roundtrip(connection, b"hi") == b"hi"
                for _, writer in guests:
                    writer.close()
                while listener.half_open:
                    await asyncio.sleep(0)
                assert await roundtrip(connection, b"hi") == b"hi"

    asyncio.run(main())


@pytest.mark.parametrize("limit", ["half_open", "half_open_per_source", "connections"])
def test_who_may_have_none_half_open_says_so(limit: str) -> None:
    async def main() -> None:
        limits = replace(DEFAULT, **{limit: 0})
        async with await dtp.listen("memory://x", echo, identity=BOB, limits=limits) as listener:
            with pytest.raises(HandshakeRefused, match="BUSY"):
                await dtp.connect(listener.address())

    clock.run(main())


def test_a_flood_from_many_sources_keeps_nobody_out() -> None:
    """As many half-open handshakes as there may be, from each of many addresses, and new ones all the time."""
    limits = replace(DEFAULT, half_open=128, half_open_per_source=16)
    sources = [f"127.0.9.{number}" for number in range(1, 17)]
    count = itertools.count()
    host = port = ""
    writers: list[asyncio.StreamWriter] = []

    async def flood(source: str) -> None:
        for _ in range(30):
            try:
                _, writer = await asyncio.open_connection(host, int(port), local_addr=(source, 0))
            except ConnectionError:  # the lot fell on it before it knew that it had come in
                continue
            some = next(count) % 10  # some say nothing, some a little
            writer.write(b"DTP\x01\x01\x01\x0f\x00\x20"[:some])
            writers.append(writer)

    async def main() -> None:
        nonlocal host, port
        async with await dtp.listen("tcp://127.0.0.1:0", echo, identity=BOB, limits=limits) as listener:
            host, port = listener.urls[0].removeprefix("tcp://").split(":")
            async with contextlib.AsyncExitStack() as stack:
                stack.callback(lambda: [writer.transport.abort() for writer in writers])
                await asyncio.gather(*(flood(source) for source in sources))
                while len(listener.half_open) < limits.half_open:
                    await asyncio.sleep(0)  # the kernel has taken them, and the listener not yet
                floods = asyncio.gather(*(flood(source) for source in sources))
                for number in range(10):
                    async with dtp.connect(listener.address()) as connection:
                        assert await roundtrip(connection, b"%d" % number) == b"%d" % number
                    assert len(listener.half_open) <= limits.half_open
                await floods
                largest = max(listener.half_open.by_source.values())
                assert largest <= limits.half_open_per_source

    asyncio.run(main())


@on_fake_clock
async def test_garbled_bytes_end_the_carrier_and_not_the_connection() -> None:
    async with await dtp.listen("memory://x", echo, identity=BOB) as listener:
        async with dtp.connect(listener.address()) as connection:
            for garbage in (b"\x00\x20" + bytes(32), b"\x00\x01x", b"\xff\xff" + bytes(65535)):
                before = connection.stats.resumes
                connection.outlet.drivers[0].carrier.write(memoryview(garbage))
                while connection.stats.resumes == before:
                    await asyncio.sleep(0.1)
                assert await roundtrip(connection, b"hi") == b"hi"
            assert len(listener.connections) == 1


@on_fake_clock
async def test_someone_else_can_not_take_over_a_connection() -> None:
    mallory = dtp.Identity.generate()
    async with await dtp.listen("memory://x", echo, identity=BOB) as listener:
        async with dtp.connect(listener.address(), identity=ALICE) as connection:
            thief = dialing.Dialer(
                listener.address(), HandshakeConfig(mallory, dialing.suites(), DEFAULT), "", ()
            )
            stolen: list[Connection] = []

            def take_over(driver: LinkDriver, established: Established) -> None:
                session = Session(established, DEFAULT, 0.0, client=True)
                stolen.append(Connection(session, driver, asyncio.get_running_loop(), None))

            await thief.dial_candidates(connection._session.connection_id, take_over)
            [other] = stolen
            with pytest.raises(ConnectionLost, match="no such connection"):
                await other.accept_stream()
            assert await roundtrip(connection, b"hi") == b"hi"
            assert connection.stats.resumes == 0
