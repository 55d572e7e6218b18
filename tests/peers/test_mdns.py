"""mDNS by zeroconf: records come through, say who it is only to holders of the key, and nonsense is counted."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from ipaddress import IPv4Network
from typing import Any

import pytest
from conditions import PATIENCE

from dtp.peers.book import PeerBook
from dtp.peers.private import PrivateNetwork
from dtp.peers.record import PeerRecord
from dtp.testing import clock
from dtp.testing.pairs import ALICE, BOB

pytest.importorskip("zeroconf", reason="zeroconf is needed: pip install 'dtp-sockets[lan]'")

from zeroconf import DNSOutgoing, ServiceInfo  # type: ignore[attr-defined]
from zeroconf.const import _FLAGS_AA, _FLAGS_QR_RESPONSE

from dtp.peers.lan.mdns import TYPE, Mdns
from dtp.peers.lan.on_link import LinkFilter

NETWORK = PrivateNetwork(bytes(32))


def record() -> PeerRecord:
    return PeerRecord.sign(ALICE, now=time.time(), addresses=["tcp://192.0.2.1:9000"])


def said(network: PrivateNetwork | None) -> dict[bytes, bytes | None]:
    """The TXT of a node, as a reader gets it."""
    given = Mdns(PeerBook(), network=network)._encode_properties(record())
    return {_bytes(key): _bytes(value) for key, value in given.items() if value is not None}


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def test_txt_leads_back_and_fits() -> None:
    for network in (None, NETWORK):
        properties = said(network)
        assert all(len(key) + 1 + len(value or b"") <= 255 for key, value in properties.items())
        reader = Mdns(PeerBook(), network=network)
        heard = reader.receive_properties(properties)
        assert heard is not None
        assert heard.peer == ALICE.id
        assert reader.book.get(ALICE.id) == heard


def test_network_s_key_hides_who_it_is() -> None:
    sealed = said(NETWORK)
    assert ALICE.id.key not in b"".join(value or b"" for value in sealed.values())
    for stranger in (Mdns(PeerBook()), Mdns(PeerBook(), network=PrivateNetwork(bytes(range(32))))):
        assert stranger.receive_properties(sealed) is None
        assert stranger.counters == {"not-of-network": 1}
    insider = Mdns(PeerBook(), network=NETWORK)
    assert insider.receive_properties(said(None)) is None
    assert insider.counters == {"not-of-network": 1}


def test_nonsense_is_counted() -> None:
    reader = Mdns(PeerBook())
    for properties in ({}, {b"r0": b"x" * 250}, {b"r0": None}, {b"r%d" % n: bytes(250) for n in range(9)}):
        assert reader.receive_properties(dict(properties)) is None
    assert reader.counters == {"peer-record": 4}


def answer_of_a_node() -> bytes:
    """Return the packet by which a node says its record to all."""
    place: dict[str, Any] = {"addresses": [bytes((127, 0, 0, 9))], "port": 9, "server": "here.local."}
    info = ServiceInfo(TYPE, f"here.{TYPE}", properties=dict(said(None)), **place)
    answer = DNSOutgoing(_FLAGS_QR_RESPONSE | _FLAGS_AA)
    for each in (info.dns_pointer(), info.dns_service(), info.dns_text(), *info.dns_addresses()):
        answer.add_answer_at_time(each, 0)
    (packet,) = answer.packets()
    return packet


@pytest.mark.parametrize("network", ["127.0.0.0/8", "10.0.0.0/8"])
def test_who_is_not_on_this_link_is_no_neighbour(network: str) -> None:
    """A packet to the port of mDNS comes from anywhere."""

    async def main() -> None:
        here = Mdns(PeerBook(), interfaces=("lo",), list_networks=lambda: [IPv4Network(network)])
        async with here, asyncio.timeout(PATIENCE):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as says:
                says.bind(("127.0.0.9", 0))
                says.sendto(answer_of_a_node(), ("127.0.0.1", 5353))
            while here.book.get(ALICE.id) is None and not here.counters["off-link"]:  # noqa: ASYNC110 - none tells
                await asyncio.sleep(0.01)
            assert (here.book.get(ALICE.id) is None) is (network == "10.0.0.0/8")

    asyncio.run(main())


def test_who_has_moved_to_another_network_hears_its_new_neighbours() -> None:
    networks = [IPv4Network("192.168.1.0/24")]
    heard = list[str]()

    class Listener(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            heard.append(addr[0])

    async def main() -> None:
        counters = Counter[str]()
        link = LinkFilter(Listener(), counters, lambda: list(networks))
        for each in ("192.168.1.7", "192.168.2.7"):
            link.datagram_received(b"", (each, 5353))
        networks[0] = IPv4Network("192.168.2.0/24")
        link.datagram_received(b"", ("192.168.2.8", 5353))  # asked for seldom
        await asyncio.sleep(10)
        for each in ("192.168.2.9", "192.168.1.9"):
            link.datagram_received(b"", (each, 5353))
        assert heard == ["192.168.1.7", "192.168.2.9"]
        assert counters == {"off-link": 3}

    clock.run(main())


@pytest.mark.parametrize(
    ("host", "is_heard"),
    [
        ("fe80::7", True),
        ("fe80::7%eth0", True),
        ("2001:db8::7", False),
        ("::1", False),
        ("::ffff:192.168.1.7", True),
        ("::ffff:192.168.2.7", False),
    ],
)
def test_by_ipv6_those_are_heard_whom_no_router_passes_on(host: str, is_heard: bool) -> None:
    heard = list[bytes]()

    class Listener(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
            heard.append(data)

    async def main() -> None:
        counters = Counter[str]()
        link = LinkFilter(Listener(), counters, lambda: [IPv4Network("192.168.1.0/24")])
        link.datagram_received(b"said", (host, 5353, 0, 2))  # type: ignore[arg-type]
        assert heard == ([b"said"] if is_heard else [])
        assert counters["off-link"] == (not is_heard)

    clock.run(main())


@pytest.mark.slow
@pytest.mark.parametrize("network", [None, NETWORK])
def test_peer_is_found_by_mdns(network: PrivateNetwork | None) -> None:
    async def main() -> None:
        book = PeerBook()
        async with Mdns(PeerBook(), network=network) as here, Mdns(book, network=network) as there:
            mine = record()
            here.publish_record(mine)
            async with asyncio.timeout(PATIENCE):
                while await there.find_record(ALICE.id) is None:
                    pass
            assert book.get(ALICE.id) == mine
            assert await there.find_record(BOB.id) is None

    clock.run(main(), loop_factory=asyncio.new_event_loop)
