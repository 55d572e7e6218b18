"""A private network on a LAN: what passes on the wire tells nobody without the key who speaks, nor of what."""

import hashlib
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from nat_lab import lan, missing
from private_node import SAID, SERVICE, TOPIC
from test_nat import Node

from dtp.identity import Identity
from dtp.peers.dht.ids import node_id, peer_target

pytest.importorskip("qh3", reason="qh3 not installed (the extra quic)")
pytest.importorskip("zeroconf", reason="zeroconf is needed: pip install 'dtp-sockets[lan]'")
LACKS = missing()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(LACKS), reason=LACKS)]
PROGRAM = Path(__file__).with_name("private_node.py")
KEY = hashlib.sha256(b"a family").hexdigest()
MEMBERS = [Identity(bytes([seed]) * 32, bytes([seed]) * 32).id for seed in (7, 8)]


def secrets() -> dict[str, bytes]:
    """Return what is not to be found on the wire, by what it is."""
    found = {"service": SERVICE.encode(), "topic": TOPIC.encode(), "said": SAID, "node": b"dtp.node"}
    for number, each in enumerate(MEMBERS):
        found |= {
            f"key {number}": each.key,
            f"text {number}": str(each).encode(),
            f"short {number}": each.short.encode(),
            f"place {number}": node_id(each.key).to_bytes(32),
            f"record's place {number}": peer_target(each.key),
        }
    return found


def source_of_frame(frame: bytes) -> str:
    """Return the address that an IPv4 packet comes from; "" for other frames."""
    return str(IPv4Address(frame[26:30])) if frame[12:14] == b"\x08\x00" else ""


def test_packets_of_a_private_network_say_nothing_and_strangers_learn_nothing(tmp_path: Path) -> None:
    with lan("a", "b", "x") as place:
        tap = Node(place, "switch", "tap", "toa", str(tmp_path / "wire"), program=PROGRAM)
        tap.line()
        first = Node(place, "a", "member", KEY, "7", program=PROGRAM)
        peer = first.line()["peer"]
        second = Node(place, "b", "member", KEY, "8", peer, program=PROGRAM)
        second.line()
        assert second.line() == {"said": SAID.decode(), "contacts": 1}  # by the LAN, with nothing but the key
        stranger = Node(place, "x", "stranger", peer, "10.3.0.1", program=PROGRAM)
        learned = stranger.line()
        assert learned["answers"] == [False]
        assert learned["known"] == []
        assert learned["contacts"] == 0
        assert "connected" not in learned["why"]
        for each in (stranger, second, first, tap):  # goodbyes are packets, too
            each.end()
    frames = [bytes.fromhex(each) for each in (tmp_path / "wire").read_text().split()]
    strangers = {each[6:12] for each in frames if source_of_frame(each) == "10.3.0.3"}  # also by IPv6
    wire = b"\0".join(each for each in frames if each[6:12] not in strangers)
    assert len(wire) > 20_000
    assert b"DTPH" in wire  # it was tapped where they speak
    assert {name for name, each in secrets().items() if each in wire} == set()
