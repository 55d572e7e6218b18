"""Datagrams over the lossy path of a carrier: as packets, which hold up nothing and are taken once or not at all."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dtp
from dtp.carriers.memory import PACKET_SIZE, MemoryCarrier
from dtp.core import Buffer
from dtp.identity import Identity
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.session.codes import ConnectionClosed
from dtp.session.datagrams import OVERHEAD, LinkPackets
from dtp.testing.clock import run

ALICE, BOB = Identity.generate(), Identity.generate()
LARGEST = PACKET_SIZE - OVERHEAD


async def pair(options: str = "packets=1", **limits: float) -> tuple[dtp.Listener, Connection, Connection]:
    made = dtp.Limits(**limits)  # type: ignore[arg-type]
    listener = await dtp.listen("memory://x", identity=BOB, limits=made)
    address = Address.direct(BOB.id, f"memory://x?{options}")
    client = await dtp.connect(address, identity=ALICE, limits=made)
    server = await listener.accept()
    await client.ping()  # both have proven themselves
    return listener, client, server


def carrier(connection: Connection) -> MemoryCarrier:
    found = connection.outlet.drivers[0].carrier
    assert isinstance(found, MemoryCarrier)
    return found


def packets_of(connection: Connection) -> LinkPackets:
    link = connection.outlet.drivers[0].link
    assert link is not None
    assert link.packets is not None
    return link.packets


async def received(connection: Connection, seconds: float = 5.0) -> list[bytes]:
    """All datagrams that come in so many seconds."""
    found = []
    try:
        async with asyncio.timeout(seconds):
            while True:
                found.append(await connection.recv_datagram())
    except TimeoutError:
        return found


def talk(
    main: Callable[[Connection, Connection], object], options: str = "packets=1", **limits: float
) -> None:
    async def whole() -> None:
        listener, client, server = await pair(options, **limits)
        await main(client, server)
        client.abort()
        await listener.close()

    run(whole())


def test_datagrams_come_through_both_ways_and_beside_the_records() -> None:
    async def main(client: Connection, server: Connection) -> None:
        records = server.stats.bytes_received
        carrier(client).write = lambda data: pytest.fail("in a record")
        sent = [b"%d" % number for number in range(50)]
        for data in sent:
            client.send_datagram(data)
        assert await received(server, 0.05) == sent
        assert server.stats.bytes_received > records
        del carrier(client).write
        server.send_datagram(b"back")
        assert await client.recv_datagram() == b"back"

    talk(main)


def test_a_stream_that_is_held_up_holds_up_no_datagram() -> None:
    async def main(client: Connection, server: Connection) -> None:
        carrier(server).pause_reading()  # as behind a lost packet of TCP
        stream = await client.open_stream()
        stream.write(b"waits")
        client.send_datagram(b"at once")
        assert await received(server, 0.5) == [b"at once"]
        carrier(server).resume_reading()
        assert await (await server.accept_stream()).read(5) == b"waits"

    talk(main)


def test_what_is_lost_is_lost_and_what_comes_twice_comes_once() -> None:
    async def main(client: Connection, server: Connection) -> None:
        sent = [b"%d" % number for number in range(1000)]
        stream = await client.open_stream()
        for number, data in enumerate(sent):
            client.send_datagram(data)
            if number % 20 == 0:
                await asyncio.sleep(0.01)
        stream.write(b"whole")
        stream.write_eof()
        got = await received(server)
        assert await (await server.accept_stream()).read() == b"whole"
        assert len(got) == len(set(got))
        assert set(got) < set(sent)
        assert got != sorted(got, key=sent.index)  # in another order
        assert 650 < len(got) < 850  # 750 expected, 7 standard deviations
        assert packets_of(server).dropped > 50  # those that came twice

    talk(main, "packets=1&loss=0.25&duplicate=0.25&delay=0.05&jitter=0.05&seed=5", datagrams=2000)


def test_what_is_too_large_for_a_packet_goes_in_a_record() -> None:
    async def main(client: Connection, server: Connection) -> None:
        sizes = []
        plain = carrier(client).write_packet
        carrier(client).write_packet = lambda data: (sizes.append(len(data)), plain(data))[1]
        for size in (LARGEST + 1, 1, LARGEST, LARGEST + 1, 10_000, 2):
            client.send_datagram(bytes(size))
        assert sorted(map(len, await received(server))) == [1, 2, LARGEST, LARGEST + 1, LARGEST + 1, 10_000]
        assert sorted(sizes) == [1 + OVERHEAD, 2 + OVERHEAD, PACKET_SIZE]

    talk(main)


def test_packets_of_others_and_packets_again_change_nothing() -> None:
    async def main(client: Connection, server: Connection) -> None:
        kept: list[bytes] = []
        plain = carrier(client).write_packet

        def keep(data: memoryview) -> None:
            kept.append(bytes(data))
            plain(data)

        carrier(client).write_packet = keep
        client.send_datagram(b"one")
        await received(server, 0.5)
        (packet,) = kept
        forged = [packet[:at] + bytes([packet[at] ^ 1]) + packet[at + 1 :] for at in range(len(packet))]
        for data in [packet, b"", b"\x00", packet[:-1], packet + b"\0", bytes(20_000), *forged]:
            server._received_packet(server.outlet.drivers[0], data)
        assert await received(server, 0.5) == []
        assert packets_of(server).dropped == len(packet) + 6
        client.send_datagram(b"two")
        assert await received(server, 0.5) == [b"two"]

    talk(main)


def test_packets_are_not_taken_from_a_carrier_that_has_not_proven_that_it_belongs_here() -> None:
    async def main(client: Connection, server: Connection) -> None:
        link = server.outlet.drivers[0].link
        assert link is not None
        kept: list[bytes] = []
        carrier(client).write_packet = lambda data: kept.append(bytes(data))
        client.send_datagram(b"early")
        await asyncio.sleep(0)
        link.attached = False
        server._received_packet(server.outlet.drivers[0], kept[0])
        link.attached = True
        link.confirmed = False
        server._received_packet(server.outlet.drivers[0], kept[0])
        link.confirmed = True
        assert await received(server, 0.1) == []
        server._received_packet(server.outlet.drivers[0], kept[0])
        assert await received(server, 0.1) == [b"early"]

    talk(main)


def test_a_flood_of_empty_datagrams_ends_the_session_as_in_records() -> None:
    async def main(client: Connection, server: Connection) -> None:
        with pytest.raises(ConnectionClosed, match="LIMIT"):  # noqa: PT012
            for _ in range(200):
                for _ in range(50):
                    client.send_datagram(b"")
                await asyncio.sleep(0.001)

    talk(main, datagrams=100)


def test_fresh_keys_are_those_of_packets_too_and_late_ones_still_open() -> None:
    async def main(client: Connection, server: Connection) -> None:
        kept: list[bytes] = []
        plain = carrier(client).write_packet
        carrier(client).write_packet = lambda data: kept.append(bytes(data))
        client.send_datagram(b"late")
        await asyncio.sleep(0)
        carrier(client).write_packet = plain
        for number in range(1, 4):
            await asyncio.sleep(11)
            client.send_datagram(b"wakes the exchange")
            await received(server, 1)
            assert packets_of(client)._number == packets_of(server)._number == number
            client.send_datagram(b"there")
            server.send_datagram(b"back")
            assert await received(server, 0.5) == [b"there"]
            assert await received(client, 0.5) == [b"back"]
            if number == 1:
                server._received_packet(server.outlet.drivers[0], kept[0])
                assert await received(server, 0.5) == [b"late"]
        dropped = packets_of(server).dropped
        server._received_packet(server.outlet.drivers[0], kept[0])  # two exchanges old by now
        assert packets_of(server).dropped == dropped + 1

    talk(main, exchange=10)


def test_keys_go_on_with_time() -> None:
    async def main(client: Connection, server: Connection) -> None:
        for number in range(3):
            client.send_datagram(b"%d" % number)
            assert await received(server, 0.5) == [b"%d" % number]
            assert packets_of(server)._openers[0].rekeys == number
            await asyncio.sleep(100)

    talk(main, rekey_time=60, exchange=0)


def test_datagrams_go_in_records_where_there_is_no_lossy_path() -> None:
    async def main(client: Connection, server: Connection) -> None:
        assert client.outlet.drivers[0].link is not None
        assert client.outlet.drivers[0].link.packets is None
        client.send_datagram(b"as ever")
        assert await received(server, 0.5) == [b"as ever"]

    talk(main, "delay=0")


@given(
    st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=60), st.binary(min_size=32, max_size=32)
)
def test_each_packet_opens_once_in_any_order(arrivals: list[tuple[int, bool]], root: bytes) -> None:
    near = LinkPackets("ChaChaPoly", root, 200, client=True)
    far = LinkPackets("ChaChaPoly", root, 200, client=False)
    out = Buffer(300)
    packets = [bytes(out.view[: near.seal_packet(b"%d" % number, out)]) for number in range(31)]
    seen: set[int] = set()
    for number, garbled in arrivals:
        packet = packets[number][:-1] + b"\0" if garbled else packets[number]
        found = far.open_packet(packet)
        genuine = packet == packets[number] and number not in seen
        assert found == ([b"%d" % number] if genuine else [])
        if genuine:
            seen.add(number)
    assert near.open_packet(packets[0]) == []  # one's own come back to nothing: each side has its key


def test_over_quic_datagrams_are_packets() -> None:
    pytest.importorskip("qh3", reason="qh3 not installed (the extra quic)")

    async def main() -> None:
        async with (
            await dtp.listen("quic://127.0.0.1:0", identity=BOB) as listener,
            dtp.connect(listener.address(), identity=ALICE) as client,
        ):
            server = await listener.accept()
            await client.ping()
            sent = []
            driver = client.outlet.drivers[0]
            plain = driver.carrier.write_packet
            driver.carrier.write_packet = lambda data: (sent.append(len(data)), plain(data))[1]
            for number in range(20):
                client.send_datagram(bytes([number]) * 1000)
                assert (await server.recv_datagram())[:1] == bytes([number])
            assert sent == [1000 + OVERHEAD] * 20
            server.send_datagram(b"back")
            assert await client.recv_datagram() == b"back"

    run(main(), loop_factory=asyncio.SelectorEventLoop)
