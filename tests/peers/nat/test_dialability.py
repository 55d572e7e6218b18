"""Whether a node can be dialled, as a value: who counts, and what it may ask others to try."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.identity import Identity, PeerId
from dtp.peers.reach.dialability import Dialability, is_outside, urls_to_try

PEERS = [Identity(number.to_bytes(32)).id for number in range(100)]
HERE = "tcp://192.0.2.7:9000"


def test_nobody_has_tried() -> None:
    assert Dialability().verdict is None
    assert Dialability().urls == []


def test_neighbours_count_until_somebody_outside_has_tried() -> None:
    found = Dialability()
    found.add_report(PEERS[0], ["tcp://10.0.0.2:9000"], outside=False)
    assert found.verdict is True
    found.add_report(PEERS[1], [], outside=True)
    assert found.verdict is False
    assert found.urls == []
    found.add_report(PEERS[1], [HERE], outside=True)  # its last word
    assert found.verdict is True
    assert found.urls == [HERE]


def test_one_liar_among_many_decides_nothing() -> None:
    found = Dialability()
    for peer in PEERS[:5]:
        found.add_report(peer, [HERE], outside=True)
    found.add_report(PEERS[6], [], outside=True)
    assert found.verdict is True
    found = Dialability()
    for peer in PEERS[:5]:
        found.add_report(peer, [], outside=True)
    found.add_report(PEERS[6], [HERE], outside=True)
    assert found.verdict is False


@given(st.lists(st.tuples(st.sampled_from(PEERS), st.booleans(), st.booleans())))
def test_it_is_bounded_and_each_counts_once(said: list[tuple[PeerId, bool, bool]]) -> None:
    found = Dialability()
    last: dict[PeerId, tuple[bool, bool]] = {}
    for peer, outside, reached in said:
        found.add_report(peer, [HERE] if reached else [], outside=outside)
        last.pop(peer, None)
        last[peer] = (outside, reached)
    kept = list(last.values())[-Dialability.MOST :]
    counted = [reached for outside, reached in kept if outside] or [reached for _, reached in kept]
    assert len(found) == len(kept) <= Dialability.MOST
    assert found.verdict is (None if not counted else sum(counted) * 2 >= len(counted))
    assert found.urls == ([HERE] if any(counted) else [])


@pytest.mark.parametrize(
    ("seen", "urls", "tried"),
    [
        ("tcp://192.0.2.7:4321", ["tcp://0.0.0.0:9000"], [HERE]),
        ("tcp://192.0.2.7:4321", ["unix:///x", "relay://192.0.2.9:1?relay=x", "memory://a"], []),
        (
            "quic://192.0.2.7:4321",
            ["quic://0.0.0.0:9000", "tcp://0.0.0.0:9000"],
            ["quic://192.0.2.7:4321", "quic://192.0.2.7:9000", HERE],
        ),
        ("quic://192.0.2.7:9000", ["quic://0.0.0.0:9000"], ["quic://192.0.2.7:9000"]),
        ("tcp://[2001:db8::7]:4321", ["ws://[::]:80/dtp"], ["ws://[2001:db8::7]:80/dtp"]),
    ],
)
def test_what_a_peer_is_asked_to_try_is_where_it_sees_the_node(seen, urls, tried) -> None:  # type: ignore[no-untyped-def]
    assert urls_to_try(seen, urls) == tried


def test_ports_of_the_router_are_tried_where_they_are_at_the_same_host() -> None:
    more = ["tcp://192.0.2.7:1000", "tcp://192.0.2.8:1000"]
    assert urls_to_try("tcp://192.0.2.7:4321", [], more) == ["tcp://192.0.2.7:1000"]


@pytest.mark.parametrize(
    ("seen", "outside"),
    [
        ("tcp://192.0.2.7:1", True),
        ("quic://10.0.0.2:1", False),
        ("tcp://127.0.0.1:1", False),
        ("tcp://[::1]:1", False),
        ("relay:dtp1x:dtp1y", False),
        ("memory://a", False),
        ("", False),
    ],
)
def test_outside_is_who_sees_another_address_than_one_of_ours(seen: str, outside: bool) -> None:
    assert is_outside(seen, {"10.0.0.2"}) is outside
