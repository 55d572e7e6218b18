"""Whether a node can be dialled, as a value: who counts, and what it may ask others to try."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.identity import Identity, PeerId
from dtp.peers.reach.dialability import Dialability, DialOrigin, DialReport, is_outside, urls_to_try

PEERS = [Identity(number.to_bytes(32)).id for number in range(100)]
HERE = "tcp://192.0.2.7:9000"


def test_nobody_has_tried() -> None:
    assert Dialability().verdict is None
    assert Dialability().urls == []


def said(*reports: DialReport) -> Dialability:
    found = Dialability()
    for peer, each in zip(PEERS, reports, strict=False):
        found.add_report(peer, each)
    return found


def outside(*reached: str, network: str = "", has_come: bool = False) -> DialReport:
    return DialReport(DialOrigin.BEHIND_NAT, reached, network, has_come)


def afar(number: int, *reached: str, has_come: bool = False) -> DialReport:
    return DialReport(DialOrigin.AFAR, reached, f"5.0.{number}.0/24", has_come)


def test_neighbours_count_until_somebody_outside_has_tried() -> None:
    found = said(DialReport(DialOrigin.HERE, ("tcp://10.0.0.2:9000",)))
    assert found.verdict is True
    found.add_report(PEERS[1], outside())
    assert found.verdict is False
    assert found.urls == []
    found.add_report(PEERS[1], outside(HERE))  # its last word
    assert found.verdict is True
    assert found.urls == [HERE]


@pytest.mark.parametrize(("honest", "liars", "verdict"), [(HERE, (), True), ("", (HERE,), False)])
def test_fewer_liars_than_others_decide_nothing(honest: str, liars: tuple[str, ...], verdict: object) -> None:
    told, lied = (honest,) * bool(honest), liars
    assert said(*[outside(*told)] * 5, *[outside(*lied)] * 4).verdict is verdict
    near = [afar(number, *told) for number in range(5)]
    assert said(*near, *[afar(number, *lied) for number in range(5, 9)]).verdict is verdict


@pytest.mark.parametrize(("honest", "liar"), [((HERE,), ()), ((), (HERE,))])
def test_as_many_identities_as_one_likes_are_one_voice(
    honest: tuple[str, ...], liar: tuple[str, ...]
) -> None:
    others = [afar(number, *honest) for number in range(2)]
    assert said(*others, *[afar(9, *liar) for _ in range(50)]).verdict is bool(honest)


def test_who_says_to_be_outside_does_not_outweigh_those_whose_address_shows_it() -> None:
    """Where a node has a public address of its own, honest peers see it there, and a liar sees it elsewhere."""
    honest = [afar(number, HERE) for number in range(3)]
    assert said(*honest, outside(), outside()).verdict is True
    assert said(*honest, afar(9)).verdict is True


def test_who_has_come_shows_that_one_can_whatever_it_says() -> None:
    assert said(afar(1, has_come=True), afar(2, HERE), afar(3), afar(4)).verdict is True
    assert said(afar(1, has_come=True), afar(2), afar(3, HERE), afar(4), afar(5)).verdict is False


def test_who_has_come_at_a_port_that_this_node_does_not_know_leaves_it_hidden() -> None:
    """As where a container's port is another outside: it would give back the place at which others find it."""
    found = said(*[afar(number, has_come=True) for number in range(5)])
    assert found.verdict is False
    found.add_report(PEERS[0], afar(0, HERE, has_come=True))
    assert found.verdict is True
    assert found.urls == [HERE]


REPORTS = st.builds(
    DialReport,
    st.sampled_from(DialOrigin),
    st.sampled_from([(), (HERE,)]),
    st.sampled_from(["", "5.0.1.0/24", "5.0.2.0/24"]),
    st.booleans(),
)


def test_many_of_one_network_keep_nobody_else_from_being_asked() -> None:
    found = said(*[afar(1, HERE)] * 8, DialReport(DialOrigin.HERE, (HERE,)))
    assert found.count_voices(DialOrigin.AFAR) == 1
    assert found.count_voices(DialOrigin.HERE) == 2


@given(st.lists(st.tuples(st.sampled_from(PEERS), REPORTS)))
def test_it_is_bounded_and_each_counts_once(told: list[tuple[PeerId, DialReport]]) -> None:
    found = Dialability()
    last: list[tuple[PeerId, DialReport]] = []
    for peer, report in told:
        found.add_report(peer, report)
        last = [each for each in last if each[0] != peer] + [(peer, report)]
    kept = last[-Dialability.MOST :]
    assert len(found) == len(kept) <= Dialability.MOST
    counted = [
        report
        for at, (_, report) in enumerate(kept)
        if all(report.origin >= other.origin for _, other in kept)
        and not any(
            report.network and (later.network, later.origin) == (report.network, report.origin)
            for _, later in kept[at + 1 :]
        )
    ]
    dialled = [bool(each.reached) or each.has_come for each in counted]
    assert found.urls == ([HERE] if any(each.reached for each in counted) else [])
    is_enough = bool(found.urls) and sum(dialled) * 2 >= len(dialled)
    assert found.verdict is (is_enough if counted else None)


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
def test_what_a_peer_is_asked_to_try_is_where_it_sees_the_node(
    seen: str, urls: list[str], tried: list[str]
) -> None:
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


@pytest.mark.parametrize("seen", ["tcp://[192.0.2.7", "tcp://", "nowhere"])
def test_who_says_that_it_sees_the_node_nowhere_has_nothing_to_try(seen: str) -> None:
    """What a peer says is any text; one that fails here would end the search for a relay."""
    assert urls_to_try(seen, [HERE]) == []
    assert not is_outside(seen, [])
