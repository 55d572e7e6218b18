"""Nodes that can't be dialled, a node that relays for them, and connections that become direct by themselves."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest
from conditions import PATIENCE, until

import dtp
from dtp.carriers.nearness import Nearness
from dtp.net.connection import Connection
from dtp.net.relay import copy
from dtp.node.node import Node
from dtp.node.reaching import NodeReach
from dtp.peers.links import NODE_SERVICE
from dtp.peers.reach.messages import RELAY_SERVICE
from dtp.peers.reach.relay_client import Reservation
from dtp.peers.record import PeerRecord
from dtp.session.limits import SILENT, WORK_BYTES, WORK_PAUSE
from dtp.testing.clock import run
from dtp.testing.pairs import ALICE, BOB

pytest.importorskip("qh3", reason="qh3 not installed (the extra quic)")

from dtp.carriers.quic import QuicListener


async def echo(connection: Connection) -> None:
    async for stream in connection:
        await copy(stream, stream)


def on_sockets(main: Coroutine[Any, Any, None]) -> None:
    run(main, loop_factory=asyncio.SelectorEventLoop)


def place_at(relay: Node) -> str:
    (quic,) = [url for url in relay.listener.urls if url.startswith("quic:")]
    return f"relay{quic.removeprefix('quic')}?relay={relay.identity.id}&via=quic"


def test_a_relayed_connection_becomes_direct_and_its_stream_goes_on() -> None:
    async def main() -> None:
        quiet: dict[str, Any] = {"discover": (), "lan": None}
        async with Node(listen=["quic://127.0.0.1:0"], relay=True, **quiet) as relay:
            hidden = Node(listen=["quic://127.0.0.1:0", place_at(relay)], services={"echo": echo}, **quiet)
            async with hidden, Node(listen=["quic://127.0.0.1:0"], **quiet) as asking:
                await until(lambda: any(url.startswith("relay:") for url in hidden.record.addresses))
                (place,) = [url for url in hidden.record.addresses if url.startswith("relay:")]
                address = dtp.Address.direct(hidden.identity.id, place, "echo")
                async with asking.connect(address) as connection:
                    assert connection.stats.carriers[0].startswith("relay:")
                    stream = await connection.open_stream()
                    sent = bytearray()

                    async def say() -> None:
                        data = len(sent).to_bytes(4) * 1000
                        sent.extend(data)
                        stream.write(data)
                        assert await stream.readexactly(4000) == data

                    async def is_direct() -> bool:
                        await say()
                        return all(url.startswith("quic:") for url in connection.stats.carriers)

                    async with asyncio.timeout(PATIENCE):
                        while not await is_direct():
                            pass
                    await say()
                    assert len(connection.stats.carriers) == 1
                    assert connection.stats.resumes == 0
                    link = asking.links.get(hidden.identity.id)
                    assert link is not None
                    await until(lambda: link.connection.stats.carriers[0].startswith("quic:"))
                assert asking.reach.counters["direct"] >= 1
                assert hidden.reach.counters["punched"] >= 1

    on_sockets(main())


def end_direct_carriers(node: Node) -> None:
    """End all that goes over the UDP port of a node, which stays open."""
    for listener in node.listener.listeners_of(QuicListener):
        for endpoint in listener.endpoints:
            endpoint.end_carriers()


def test_a_connection_that_has_lost_its_direct_carrier_is_relayed_and_becomes_direct_again() -> None:
    async def main() -> None:
        quiet: dict[str, Any] = {"discover": (), "lan": None}
        async with Node(listen=["quic://127.0.0.1:0"], relay=True, **quiet) as relay:
            hidden = Node(listen=["quic://127.0.0.1:0", place_at(relay)], services={"echo": echo}, **quiet)
            async with hidden, Node(listen=["quic://127.0.0.1:0"], **quiet) as asking:
                await until(lambda: any(url.startswith("relay:") for url in hidden.record.addresses))
                (place,) = [url for url in hidden.record.addresses if url.startswith("relay:")]
                async with asking.connect(
                    dtp.Address.direct(hidden.identity.id, place, "echo")
                ) as connection:

                    def is_direct() -> bool:
                        return [url.partition(":")[0] for url in connection.stats.carriers] == ["quic"]

                    stream = await connection.open_stream()
                    await until(is_direct)
                    end_direct_carriers(hidden)
                    await until(lambda: connection.stats.resumes == 1)
                    stream.write(b"heard")
                    assert await stream.readexactly(5) == b"heard"
                    await until(is_direct)
                    stream.write(b"again")
                    assert await stream.readexactly(5) == b"again"
                    assert connection.stats.resumes == 1

    on_sockets(main())


def test_who_hears_nothing_any_more_asks_its_relay_and_the_peer_s_link() -> None:
    """A NAT that has got another address ends all ways at once. A relay learns of it by the next packet from here."""

    async def main() -> None:
        quiet: dict[str, Any] = {"discover": (), "map_ports": False}
        async with Node(listen=["memory://relay"], relay=True, **quiet) as relay:
            place = f"relay://relay?relay={relay.identity.id}&via=memory"
            hidden = Node(listen=["memory://hidden", place], services={"echo": echo}, **quiet)
            async with hidden, Node(listen=["memory://asking"], **quiet) as asking:
                await until(lambda: any(url.startswith("relay:") for url in hidden.record.addresses))
                link = await asking.links.connect(
                    dtp.Address.direct(hidden.identity.id, "memory://hidden", NODE_SERVICE)
                )
                there = dtp.Address.direct(hidden.identity.id, "memory://hidden", "echo")
                async with asking.connect(there) as connection:
                    stream = await connection.open_stream()
                    await asyncio.sleep(12)  # nodes that have just met tell each other of others
                    stream.write(bytes(WORK_BYTES))
                    await stream.readexactly(WORK_BYTES)
                    (reservation,) = hidden.listener.listeners_of(Reservation)
                    (served,) = [each for each in hidden.listener.connections if each.service == "echo"]
                    await asyncio.sleep(1.5)
                    told = (
                        reservation.connection.stats.bytes_received,
                        link.connection.stats.bytes_received,
                    )
                    for end in (connection, served):
                        for driver in end.outlet.drivers:
                            driver.carrier.write = lambda data: True
                    await asyncio.sleep(WORK_PAUSE + SILENT)
                    assert reservation.connection.stats.bytes_received > told[0]
                    assert link.connection.stats.bytes_received > told[1]
                    stream.write(b"heard")
                    assert await stream.readexactly(5) == b"heard"

    run(main())


def test_whose_record_is_from_before_its_place_is_found_at_the_relay() -> None:
    """As one without UDP, which the DHT doesn't know: nobody has told of its place yet."""

    async def main() -> None:
        quiet: dict[str, Any] = {"discover": (), "map_ports": False}
        async with Node(listen=["tcp://127.0.0.1:0"], relay=True, **quiet) as relay:
            place = f"relay{relay.listener.urls[0].removeprefix('tcp')}?relay={relay.identity.id}"
            hidden = Node(listen=[place], services={"echo": echo}, **quiet)
            async with hidden, Node(listen=None, bootstrap=[relay.address], **quiet) as asking:
                await until(lambda: any(url.startswith("relay:") for url in hidden.record.addresses))
                await until(lambda: asking.book.get(relay.identity.id) is not None)  # it says that it relays
                before = PeerRecord.sign(
                    hidden.identity,
                    now=time.time() - 60,
                    addresses=["tcp://127.0.0.1:1"],
                    services=[NODE_SERVICE],
                )
                asking.book.learn_record(before, "told")
                async with asking.connect(f"dtp://{hidden.identity.id}/echo") as connection:
                    assert connection.stats.carriers[0].startswith("relay:")

    on_sockets(main())


def test_a_place_is_asked_for_until_the_relay_is_there() -> None:
    async def main() -> None:
        relay = Node(listen=["quic://127.0.0.1:0"], relay=True, discover=())
        async with relay:
            url = place_at(relay)
        hidden = Node(listen=["quic://127.0.0.1:0", url], discover=())
        async with hidden:
            assert not any(each.startswith("relay:") for each in hidden.record.addresses)
            again = f"quic{url.partition('?')[0].removeprefix('relay')}"
            async with Node(identity=relay.identity, listen=[again], relay=True, discover=()):
                await until(lambda: any(each.startswith("relay:") for each in hidden.record.addresses))

    on_sockets(main())


@pytest.mark.parametrize(("source", "is_asked"), [("8.8.8.8", True), ("relay:dtp1abc", False)])
def test_who_has_come_by_a_relay_is_not_asked_whether_it_reaches_this_node(
    source: str, *, is_asked: bool
) -> None:
    """It sees the node nowhere else, and as many as somebody likes come so: if they lied that it can be dialled, it
    would give its place back."""

    class Link:
        outgoing, peer, nearness, asked = False, BOB.id, Nearness.ANYWHERE, 0

        def __init__(self) -> None:
            self.source = source

        async def open(self, protocol: str) -> None:
            self.asked += 1
            raise EOFError

    async def main() -> None:
        reach = NodeReach(ALICE, psk=None, on_change=lambda: None, record_of=lambda peer: None)
        link = Link()
        async with await dtp.listen("tcp://127.0.0.1:0", {}, identity=ALICE) as listener:
            await reach.open(listener, ())
            reach.on_link(link)  # type: ignore[arg-type]
            for _ in range(3):
                await asyncio.sleep(0)
            await reach.close()
        assert link.asked == is_asked

    on_sockets(main())


def test_only_a_node_that_is_told_to_relays() -> None:
    assert RELAY_SERVICE not in Node().services
    assert RELAY_SERVICE in Node(relay=True).services
