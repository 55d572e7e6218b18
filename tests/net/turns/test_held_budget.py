"""Peers that make a listener keep much: who keeps most is ended, who acknowledges nothing too, and visitors stay."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from dataclasses import replace

import pytest
from attackers import OPEN, Attacker
from echo_service import echo, on_fake_clock, roundtrip
from test_intake import until
from websockets.protocol import State
from websockets.server import ServerProtocol

import dtp
from dtp import carriers
from dtp.aio.transport import StreamTransport
from dtp.carriers import memory
from dtp.carriers.base import Carrier
from dtp.carriers.crowd import source_group
from dtp.carriers.websocket_carrier import MAX_MESSAGE, WebSocketCarrier
from dtp.core import Buffer
from dtp.errors import CarrierError
from dtp.net.driver import LinkDriver
from dtp.net.held import STEP, BudgetHolder, HeldBudget
from dtp.session.codes import CloseCode, ConnectionClosed
from dtp.session.frames import PING, FrameType, control
from dtp.session.limits import DEFAULT, MIB
from dtp.testing.pairs import ALICE, BOB

#: Grants credit without end, answers PING, and acknowledges nothing.
GREEDY = replace(DEFAULT, ack_delay=1e6, first_window=2**39, stream_window=2**40, connection_window=2**40)


async def pour(connection: dtp.Connection) -> None:
    """Answer each stream with 700 KiB."""
    async for stream in connection:
        stream.write(bytes(700 * 1024))


async def cut_off(connection: dtp.Connection) -> ConnectionClosed:
    await connection.wait_closed()
    with pytest.raises(ConnectionClosed) as caught:
        connection.try_open_stream()
    return caught.value


@on_fake_clock
async def test_who_acknowledges_nothing_is_ended_and_visitors_are_not() -> None:
    services = {"pour": pour, "echo": echo}
    async with (
        await dtp.listen("memory://x", services, identity=BOB) as listener,
        dtp.connect(listener.address("echo"), identity=ALICE) as visitor,
        dtp.connect(listener.address("pour"), limits=GREEDY) as greedy,
        dtp.connect(listener.address("pour")) as lazy,  # reads nothing, as it may, and says what has come
    ):
        began = asyncio.get_running_loop().time()
        for each in (greedy, lazy):
            (await each.open_stream()).write(b"go")
        error = await cut_off(greedy)
        assert error.by_peer
        assert error.close_code == CloseCode.LIMIT
        assert asyncio.get_running_loop().time() - began < 2 * DEFAULT.dead
        await asyncio.sleep(60)
        assert not lazy.closed
        assert await roundtrip(visitor, b"hi") == b"hi"


@on_fake_clock
async def test_of_many_that_keep_much_the_greediest_goes_first() -> None:
    limits = replace(DEFAULT, held=4 * MIB)
    services = {"pour": pour, "echo": echo}
    async with (
        await dtp.listen("memory://x", services, identity=BOB, limits=limits) as listener,
        dtp.connect(listener.address("echo"), identity=ALICE) as visitor,
        dtp.connect(listener.address("pour"), limits=GREEDY) as first,
        dtp.connect(listener.address("pour"), limits=GREEDY) as second,
    ):
        (await second.open_stream()).write(b"go")
        for _ in range(2):
            (await first.open_stream()).write(b"go")
            await asyncio.sleep(0.1)
            assert await roundtrip(visitor, b"hi") == b"hi"
        error = await cut_off(first)
        assert error.close_code == CloseCode.LIMIT
        assert "kept for it" in error.reason
        assert not second.closed
        assert sum(each.held for each in listener.connections) <= limits.held // 2


@pytest.mark.parametrize("answers", [False, True])
@pytest.mark.parametrize("by_peer", [True, False])
@on_fake_clock
async def test_what_ended_connections_leave_unread_is_bounded_as_well(by_peer: bool, answers: bool) -> None:
    """Whole streams wait for a handler that is slow, of connections that are over; where it answers before it reads,
    both directions of them are over, too."""
    limits = replace(DEFAULT, held=8 * MIB)
    waiting: list[dtp.Stream] = []
    go = asyncio.Event()
    told: list[int | str] = []

    async def slow(connection: dtp.Connection) -> None:
        stream = await connection.accept_stream()
        waiting.append(stream)
        if answers:
            stream.write_eof()
        await go.wait()
        try:
            told.append(len(await stream.read()))
        except ConnectionClosed as error:
            told.append(error.reason)

    async with await dtp.listen("memory://x", slow, identity=BOB, limits=limits) as listener:
        for number in range(24):
            connection = await dtp.connect(listener.address())
            stream = await connection.open_stream()
            stream.write(bytes(200 * 1024))
            connection.send_datagram(bytes(1000))
            await stream.drain()
            stream.write_eof()
            await until(lambda: len(waiting) > number and waiting[-1].buffered == 200 * 1024)  # noqa: B023
            if answers:
                await stream.read()
                await until(lambda: not waiting[-1].connection.streams)
            if by_peer:
                await connection.close()
            else:
                waiting[-1].connection.abort()
                await connection.wait_closed()
        await asyncio.sleep(1)
        assert sum(each.buffered for each in waiting) <= limits.held // 2
        assert listener.held.total <= limits.held // 2
        go.set()
        await until(lambda: len(told) == 24)
        whole = [each for each in told if each == 200 * 1024]
        assert len(whole) >= 15  # what there is room for may still be read
        assert all("others need room" in str(each) for each in told if each != 200 * 1024)
        waiting.clear()
        await asyncio.sleep(60)  # the other sides have left
        gc.collect()
        assert listener.held.total == 0


class Paused(asyncio.Protocol):
    """A protocol of asyncio's that reads nothing until it is told to."""

    def __init__(self) -> None:
        self.got = 0
        self.lost: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, StreamTransport)
        self.transport = transport
        transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        self.got += len(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = exc


@on_fake_clock
async def test_what_paused_protocols_of_ended_connections_have_not_read_is_bounded_as_well() -> None:
    """What has come on a whole stream waits in its transport, not in the stream."""
    limits = replace(DEFAULT, held=8 * MIB)
    protocols: list[Paused] = []
    go = asyncio.Event()

    async def slow(connection: dtp.Connection) -> None:
        protocols.append(Paused())
        StreamTransport(await connection.accept_stream(), protocols[-1])
        await go.wait()

    async with await dtp.listen("memory://x", slow, identity=BOB, limits=limits) as listener:
        for _ in range(24):
            async with dtp.connect(listener.address()) as connection:
                stream = await connection.open_stream()
                stream.write(bytes(200 * 1024))
                stream.write_eof()
                await stream.flush()
        await asyncio.sleep(1)
        assert listener.held.total <= limits.held // 2
        dropped = [each for each in protocols if each.lost is not None]
        assert 4 <= len(dropped) <= 9
        assert all(isinstance(each.lost, ConnectionClosed) for each in dropped)
        for each in protocols:
            each.transport.resume_reading()
        await asyncio.sleep(1)
        assert sum(each.got for each in protocols) == (24 - len(dropped)) * 200 * 1024
        go.set()


@on_fake_clock
async def test_datagrams_that_ended_connections_leave_unread_are_bounded_as_well() -> None:
    limits = replace(DEFAULT, held=2 * MIB)
    ended: list[dtp.Connection] = []

    async def keep(connection: dtp.Connection) -> None:
        ended.append(connection)
        await connection.wait_closed()

    async with await dtp.listen("memory://x", keep, identity=BOB, limits=limits) as listener:
        for _ in range(8):
            async with dtp.connect(listener.address()) as connection:
                for _ in range(10):
                    connection.send_datagram(bytes(30_000))
                await connection.ping()
        await until(lambda: len(ended) == 8 and all(each.closed for each in ended))
        await asyncio.sleep(1)
        assert sum(each.held for each in ended) <= limits.held // 2
        assert len(await ended[-1].recv_datagram()) == 30_000


def test_one_may_stand_for_another_of_the_same_source() -> None:
    budget = HeldBudget[str](100 * STEP, lambda key, size: ended.append(key))
    ended: list[str] = []
    budget.note_kept("open", "192.0.2.1", 40 * STEP)
    budget.pass_on("open", "over", 30 * STEP)
    assert (budget.total, ended) == (30 * STEP, [])
    budget.note_kept("other", "192.0.2.1", 25 * STEP)
    assert ended == ["over"]
    budget.pass_on("over", "rest", 28 * STEP)  # it was ended, and left something: of the same source
    assert ended == ["over", "rest"]
    budget.pass_on("other", "little", 0)
    for key in ("over", "rest", "little"):
        budget.forget_key(key)
    assert budget.total == 0


def test_a_source_has_half_and_all_have_the_whole() -> None:
    ended: list[tuple[str, int]] = []
    budget = HeldBudget[str](10 * STEP, lambda key, size: ended.append((key, size)))
    budget.note_kept("a1", "192.0.2.1", 3 * STEP)
    budget.note_kept("a2", "192.0.2.1", 2 * STEP)
    assert ended == []
    budget.note_kept("a2", "192.0.2.1", 2 * STEP + STEP // 2)  # too little to be counted anew
    assert budget.total == 5 * STEP
    budget.note_kept("a2", "192.0.2.1", 3 * STEP)
    assert ended == [("a1", 3 * STEP)]
    for number in range(4):
        budget.note_kept(f"b{number}", f"198.51.100.{number}", 2 * STEP)
    assert [key for key, _ in ended] == ["a1", "a2"]  # of the source that keeps most
    budget.note_kept("b0", "198.51.100.0", 0)
    for key in ("b0", "b1", "b2", "b3", "b3"):
        budget.forget_key(key)
    assert budget.total == 0


@pytest.mark.parametrize("count", [1, 50])
def test_one_that_has_a_whole_prefix_is_one_source(count: int) -> None:
    ended: list[int] = []
    budget = HeldBudget[int](100 * STEP, lambda key, _: ended.append(key))
    for number in range(count):
        budget.note_kept(number, f"2001:db8:0:1::{number:x}", 60 * STEP // count)
    assert ended
    assert budget.total <= 50 * STEP


def test_sources() -> None:
    assert (
        source_group("2001:db8:0:1::5")
        == source_group("2001:db8:0:1:ffff::")
        != source_group("2001:db8:0:2::")
    )
    assert source_group("192.0.2.1") != source_group("192.0.2.2")
    assert source_group("unix:uid=1000") == "unix:uid=1000"


class Sink:
    """Counts what comes."""

    def __init__(self) -> None:
        self.read = 0
        self._buffer = memoryview(bytearray(1 << 20))

    def carrier_buffer(self) -> memoryview:
        return self._buffer

    def carrier_received(self, size: int) -> None:
        self.read += size

    def carrier_packet(self, data: bytes) -> None:
        """Nobody sends any."""

    def carrier_writable(self) -> None: ...

    def carrier_lost(self, error: object) -> None: ...


# ---- what is kept besides bytes of streams -------------------------------------------------------------------


@on_fake_clock
async def test_streams_that_are_open_and_say_nothing_count() -> None:
    """Each is 2 KiB of memory here, and costs its peer 20 bytes."""
    limits = replace(DEFAULT, held=4 * MIB)
    async with (
        await dtp.listen("memory://x", echo, identity=BOB, limits=limits) as listener,
        dtp.connect(listener.address(), identity=ALICE) as visitor,
        contextlib.AsyncExitStack() as stack,
    ):
        crowd = [await stack.enter_async_context(dtp.connect(listener.address())) for _ in range(4)]
        for each in crowd:
            with contextlib.suppress(ConnectionClosed):
                for _ in range(900):
                    await each.open_stream()
            await asyncio.sleep(1)
            assert await roundtrip(visitor, b"hi") == b"hi"
        assert [(await cut_off(each)).close_code for each in crowd if each.closed] == [CloseCode.LIMIT] * 3


@on_fake_clock
async def test_records_that_never_end_count() -> None:
    """Of each, up to 64 KiB wait for the rest."""
    limits = replace(DEFAULT, held=4 * MIB)
    async with (
        await dtp.listen("memory://x", echo, identity=BOB, limits=limits) as listener,
        dtp.connect(listener.address(), identity=ALICE) as visitor,
    ):
        crowd = []
        for _ in range(60):
            attacker = await Attacker.dial(listener.urls[0])
            await asyncio.sleep(0.1)
            attacker.say([OPEN])
            attacker.write((65_535).to_bytes(2) + bytes(60_000))
            crowd.append(attacker)
        await asyncio.sleep(1)
        assert await roundtrip(visitor, b"hi") == b"hi"
        left = limits.held // 2 // 60_000
        assert len([each for each in crowd if each.ended is None]) <= left
        assert len(listener.connections) <= 1 + left
        for each in crowd:
            each.leave()


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:0", "ws://127.0.0.1:0"])
def test_what_a_carrier_could_not_send_is_known(url: str) -> None:
    """A stream that is given up is kept no more, and what was sealed of it waits for a socket that nobody reads."""
    size = 16 * MIB

    async def main() -> None:
        taken: asyncio.Future[Carrier] = asyncio.get_running_loop().create_future()
        listener = await carriers.listen(url, taken.set_result)
        near = await carriers.dial(listener.urls[0])
        far = await taken
        reader, writer = Sink(), Sink()
        near.start(reader)
        near.pause_reading()
        far.start(writer)
        assert far.held == 0
        assert not far.write(memoryview(bytes(size)))
        assert size // 4 < far.held < 2 * size
        near.resume_reading()
        await until(lambda: reader.read == size)
        assert far.held == 0
        for each in (near, far):
            each.abort()
        await listener.close()

    asyncio.run(main())


class Owner:
    """What a driver passes records to; counts how often it is told of what is kept."""

    closed = False

    def __init__(self) -> None:
        self.told: list[int] = []
        self.driver: LinkDriver | None = None

    def _received_packet(self, driver: LinkDriver, packet: bytes) -> None:
        """Nobody sends any."""

    def _driver_keeps(self) -> None:
        assert self.driver is not None
        self.told.append(self.driver.held)

    def _receive_records(
        self, driver: LinkDriver, buffer: Buffer, start: int, end: int, most: int
    ) -> tuple[int, int]:
        return end, 0

    def _flush_writes(self) -> None: ...

    def _carrier_lost(self, driver: LinkDriver, error: CarrierError | None) -> None: ...


@on_fake_clock
async def test_a_message_that_does_not_end_counts_as_it_comes() -> None:
    """Not only when something else is sent, which is a ping after 15 s."""
    below, far = memory.pair()
    protocol = ServerProtocol(state=State.OPEN, max_size=MAX_MESSAGE)
    carrier = WebSocketCarrier(below, protocol, early=b"", source="memory", remote="memory:")
    owner, sink = Owner(), Sink()
    driver = LinkDriver(asyncio.get_running_loop(), carrier, None, lambda *_: None, lambda *_: None)
    owner.driver = driver
    driver.take_over(owner, None)
    carrier.start(driver)
    far.start(sink)
    head = b"\x82\xff" + MAX_MESSAGE.to_bytes(8) + bytes(4)
    far.write(memoryview(head + bytes(MAX_MESSAGE - 1)))
    await until(lambda: driver.held >= MAX_MESSAGE - 1)
    assert owner.told == sorted(owner.told)
    assert owner.told[-1] == driver.held
    far.write(memoryview(bytes(1)))
    await until(lambda: driver.held == 0)
    carrier.abort()
    far.abort()


@on_fake_clock
async def test_answers_that_wait_count() -> None:
    """Of a peer whose carrier takes nothing more: the answers to its pings are kept."""
    async with (
        await dtp.listen("memory://x", echo, identity=BOB) as listener,
    ):
        attacker = await Attacker.dial(listener.urls[0])
        await asyncio.sleep(0.1)
        attacker.say([OPEN])
        await asyncio.sleep(0.1)
        (connection,) = listener.connections
        budget = HeldBudget[BudgetHolder](1 << 40, lambda *_: None)
        connection.keep_within(budget)
        for driver in connection.outlet.drivers:
            driver.writable = False
        attacker.say([control(FrameType.PING, PING.pack(number)) for number in range(250)])
        await asyncio.sleep(0.01)
        assert budget.total >= 250 * 100
        attacker.leave()
