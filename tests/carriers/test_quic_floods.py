"""Packets of QUIC that move nothing, from a client that sends any frame as it likes. In packets and bytes."""

import asyncio
import os
import ssl
import time
from typing import Any

import pytest

pytest.importorskip("qh3", reason="qh3 not installed (the extra quic)")
pytest.importorskip("aioquic", reason="aioquic, which sends any frame, is not installed")

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.tls import Epoch
from test_quic import bound, listening, on_sockets

from dtp.carriers import Carrier, dial
from dtp.carriers.errors import PacketFloodError
from dtp.carriers.quic.carrier import MOST_IDLE, MOST_OF_STRANGERS
from dtp.carriers.quic.idle import DEAR_COUNTS, TAKES
from dtp.testing.carrier_ends import CarrierEnd


def number(value: int) -> bytes:
    return (value | 0x80000000).to_bytes(4)


#: Packets full of one kind of frame, by how many were sent before.
FLOODS = {
    "questions": lambda _: b"".join(b"\x1a" + os.urandom(8) for _ in range(120)),
    "pings": lambda _: b"\x01" * 1100,
    "limits": lambda at: b"".join(b"\x10" + number(2**29 + at * 200 + i) for i in range(200)),
    "stream pieces with gaps": lambda at: b"".join(
        b"\x0e\x02" + number(2 * (at * 100 + i) + 1) + b"\x01x" for i in range(100)
    ),
    "handshake pieces with gaps": lambda at: b"".join(
        b"\x06" + number(100 + 2 * ((at * 90 + i) % 4000)) + b"\x01x" for i in range(90)
    ),
    "identifiers that are retired": lambda at: b"".join(
        b"\x19" + number(1 + at * 200 + i) for i in range(200)
    ),
    "identifiers": lambda at: b"".join(
        b"\x18" + 2 * number(8 + at * 30 + i) + b"\x08" + os.urandom(24) for i in range(30)
    ),
}


class Flooder(QuicConnection):
    """A client on a blocking socket that sends packets of frames as it likes."""

    def __init__(self, endpoint) -> None:
        super().__init__(
            configuration=QuicConfiguration(
                is_client=True,
                alpn_protocols=["dtp/1"],
                verify_mode=ssl.CERT_NONE,
                server_name="dtp",
                max_datagram_frame_size=65535,
            )
        )
        self.sock, self.there = bound("127.0.0.1"), endpoint.address
        self.connect(self.there, now=time.monotonic())

    def turn(self) -> None:
        for data, _ in self.datagrams_to_send(now=time.monotonic()):
            self.sock.sendto(data, self.there)
        while True:
            try:
                data = self.sock.recv(65536)
            except BlockingIOError:
                break
            self.receive_datagram(data, self.there, now=time.monotonic())
        while self.next_event() is not None:
            pass

    async def come_in(self, accepted: asyncio.Queue[Carrier]) -> Carrier:
        """Finish the handshake, and return the other end."""
        async with asyncio.timeout(30):
            while accepted.empty():
                self.turn()
                await asyncio.sleep(0)
        return accepted.get_nowait()

    def peer_id(self) -> bytes:
        """The connection id to which its packets go."""
        return bytes(self._peer_cid.cid)

    def send(self, frames: bytes) -> int:
        builder = QuicPacketBuilder(
            host_cid=self.host_cid,
            peer_cid=self.peer_id(),
            version=self._version,
            is_client=True,
            packet_number=self._packet_number,  # type: ignore[has-type]
            max_datagram_size=1280,
        )
        builder.start_packet(QuicPacketType.ONE_RTT, self._cryptos[Epoch.ONE_RTT])
        builder.start_frame(frames[0], capacity=len(frames)).push_bytes(frames[1:])
        (data,), _ = builder.flush()
        self._packet_number = builder.packet_number
        self.sock.sendto(data, self.there)
        return len(data)


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_that_moves_nothing_ends_after_a_bounded_amount_and_a_visitor_is_served(kind: str) -> None:
    """They went on for ever: a core, and 15 MiB a second of memory that nobody counted."""

    async def main() -> None:
        accepted: asyncio.Queue[Carrier] = asyncio.Queue()
        listener, endpoint = await listening(accepted)
        flooder = Flooder(endpoint)
        carrier = await flooder.come_in(accepted)
        kept: list[int] = []
        carrier.on_kept = lambda: kept.append(carrier.held)
        end = CarrierEnd(carrier).start()
        visitor = CarrierEnd(await dial(listener.urls[0])).start()
        visited = CarrierEnd(await accepted.get()).start()
        sent = trips = packets = 0
        async with asyncio.timeout(60):
            while not end.recorder.ended and sent < 2 * MOST_IDLE:
                for _ in range(8):
                    sent += flooder.send(FLOODS[kind](packets))
                    packets += 1
                await visitor.deliver_message(b"%d" % trips, visited)
                trips += 1
        assert isinstance(end.recorder.lost, PacketFloodError)
        assert sent < MOST_IDLE * 3 // 2
        assert trips == packets // 8
        assert max(kept) <= TAKES * (MOST_IDLE + 8 * DEAR_COUNTS)
        flooder.sock.close()
        visitor.close()
        await visited.until_lost()
        await visitor.until_lost()
        await listener.close()

    on_sockets(main())


def test_a_stranger_of_whom_nothing_is_counted_may_send_less() -> None:
    async def main() -> None:
        accepted: asyncio.Queue[Carrier] = asyncio.Queue()
        listener, endpoint = await listening(accepted)
        flooder = Flooder(endpoint)
        end, sent = CarrierEnd(await flooder.come_in(accepted)).start(), 0
        async with asyncio.timeout(30):
            while not end.recorder.ended and sent < 2 * MOST_OF_STRANGERS:
                sent += flooder.send(b"\x01" * 1100)
                await asyncio.sleep(0)
        assert isinstance(end.recorder.lost, PacketFloodError)
        flooder.sock.close()
        await listener.close()

    on_sockets(main())


def test_what_comes_behind_a_flood_is_read_in_the_same_turn() -> None:
    """It waited in the kernel for a turn for each 64 packets before it, and was lost where those had no room."""

    async def main() -> None:
        accepted: asyncio.Queue[Carrier] = asyncio.Queue()
        listener, endpoint = await listening(accepted)
        flooder = Flooder(endpoint)
        (await flooder.come_in(accepted)).on_kept = lambda: None
        visitor = CarrierEnd(await dial(listener.urls[0])).start()
        visited = CarrierEnd(await accepted.get()).start()
        await visitor.deliver_message(b"hello", visited)
        for _ in range(200):
            flooder.send(b"\x01" * 3)
        visitor.write(b"behind them")
        for _ in range(4):
            await asyncio.sleep(0)
        assert visited.recorder.received == b"hellobehind them"
        flooder.sock.close()
        visitor.close()
        await visited.until_lost()
        await visitor.until_lost()
        await listener.close()

    on_sockets(main())


def test_strangers_of_one_source_have_one_account_until_somebody_counts_what_is_kept() -> None:
    """Each that came anew had one of its own, with nothing on it: all of a flood came before a visitor."""

    async def main() -> None:
        accepted: asyncio.Queue[Any] = asyncio.Queue()
        listener, endpoint = await listening(accepted)
        clients = [Flooder(endpoint) for _ in range(2)]
        first, second = [await each.come_in(accepted) for each in clients]
        assert first.account == second.account  # type: ignore[attr-defined]
        assert first.account != first  # type: ignore[attr-defined]
        first.on_kept = lambda: None
        assert first.account is first  # type: ignore[attr-defined]
        for each in (first, second):
            each.abort()
        for each in clients:
            each.sock.close()
        await listener.close()

    on_sockets(main())


def test_the_other_side_may_use_each_identifier_that_it_was_given() -> None:
    """Packets to any but the first were dropped, as if the connection were another's: libraries change them."""

    async def main() -> None:
        accepted: asyncio.Queue[Carrier] = asyncio.Queue()
        listener, endpoint = await listening(accepted)
        client = Flooder(endpoint)
        end = CarrierEnd(await client.come_in(accepted)).start()
        said, used = b"", set()
        async with asyncio.timeout(30):
            for number in range(20):
                client.change_connection_id()
                used.add(client.peer_id())
                client.send_stream_data(2, b"%03d" % number)
                said += b"%03d" % number
                while end.recorder.received != said:
                    client.turn()
                    await asyncio.sleep(0)
        assert len(used) > 10
        client.sock.close()
        end.carrier.abort()
        await listener.close()

    on_sockets(main())
