"""mDNS by zeroconf: records come through, say who it is only to holders of the key, and nonsense is counted."""

from __future__ import annotations

import asyncio
import time

import pytest

from dtp.peers.book import PeerBook
from dtp.peers.private import PrivateNetwork
from dtp.peers.record import PeerRecord
from dtp.testing import clock
from dtp.testing.pairs import ALICE, BOB

pytest.importorskip("zeroconf", reason="zeroconf is needed: pip install 'dtp-sockets[lan]'")

from dtp.peers.lan.mdns import Mdns

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


@pytest.mark.slow
@pytest.mark.parametrize("network", [None, NETWORK])
def test_peer_is_found_by_mdns(network: PrivateNetwork | None) -> None:
    async def main() -> None:
        book = PeerBook()
        async with Mdns(PeerBook(), network=network) as here, Mdns(book, network=network) as there:
            mine = record()
            here.publish(mine)
            async with asyncio.timeout(30):
                while await there.find(ALICE.id) is None:
                    pass
            assert book.get(ALICE.id) == mine
            assert await there.find(BOB.id) is None

    clock.run(main(), loop_factory=asyncio.new_event_loop)
