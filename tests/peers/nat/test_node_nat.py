"""Whole nodes behind NATs: they find out that nobody can dial them, take a place at a relay and are found there."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from nat_lab import Lab, lab, missing
from test_nat import Node

from dtp.identity import PeerId
from dtp.net.address import Address

pytest.importorskip("qh3", reason="qh3 not installed (the extra quic)")
LACKS = missing()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(LACKS), reason=LACKS)]
PROGRAM = Path(__file__).with_name("nat_whole_node.py")


@pytest.mark.parametrize("kind", ["restricted", "port-restricted"])
def test_a_hidden_node_is_found_at_a_relay_and_reached_directly(kind: str) -> None:
    with lab(kind, kind) as place:
        public = Node(place, "pub", "public", program=PROGRAM)
        bootstrap = json.dumps(public.line()["bootstrap"])
        hidden = Node(place, "b", "hidden", bootstrap, program=PROGRAM)
        said = hidden.line()
        assert said["verdict"] is False
        assert any(url.startswith("relay://203.0.113.1:7000") for url in said["addresses"])
        asking = Node(place, "a", "asking", bootstrap, said["peer"], program=PROGRAM)
        reached = asking.line()
        assert reached["first"][0].startswith("relay://203.0.113.1:7000")
        assert reached["last"][0].startswith("quic://203.0.113.12:")
        assert reached["said"] == "throughdirectly"
        asking.end()
        hidden.end()
        (told,) = public.end()
        assert told["serves"]


def test_two_in_one_network_whose_nat_leads_nobody_back_in_reach_each_other_there() -> None:
    """Dialled at a relay's address, and no hole can be made: they stayed relayed for good."""
    with lab("symmetric", "symmetric") as place:
        place.connect_hosts()
        public = Node(place, "pub", "public", program=PROGRAM)
        bootstrap = json.dumps(public.line()["bootstrap"])
        hidden = Node(place, "b", "hidden", bootstrap, program=PROGRAM)
        said = hidden.line()
        relay, *_ = [url for url in said["addresses"] if url.startswith("relay://")]
        address = str(Address.direct(PeerId.parse(said["peer"]), relay, "echo"))
        dialling = Node(place, "a", "dialling", bootstrap, address, program=PROGRAM)
        reached = dialling.line()
        assert [url.partition("?")[0] for url in reached["first"]] == [relay.partition("?")[0]]
        assert reached["last"] == ["quic://10.9.0.2:9000"]
        assert reached["said"] == "throughdirectly"
        for each in (dialling, hidden, public):
            each.end()


def test_hidden_members_of_a_topic_are_told_where_each_other_is_and_link_directly() -> None:
    """Both have the topic with the public node at first: when each learns of the other, neither has a place yet."""
    with lab("port-restricted", "restricted") as place:
        public = Node(place, "pub", "public", "stock", program=PROGRAM)
        bootstrap = json.dumps(public.line()["bootstrap"])
        members = [Node(place, host, "member", bootstrap, program=PROGRAM) for host in "ab"]
        for each, other in zip(members, ("203.0.113.12", "203.0.113.11"), strict=True):
            assert each.line()["carriers"][0].startswith(f"quic://{other}:")
        for each in members:
            each.end()
        public.end()


def test_a_node_that_others_reach_takes_no_place() -> None:
    """The NAT sends all that comes to the node."""
    with lab("full-cone", "full-cone") as place:
        place.forward_tcp("natb", "10.2.0.2")
        public = Node(place, "pub", "public", program=PROGRAM)
        hidden = Node(place, "b", "hidden", json.dumps(public.line()["bootstrap"]), program=PROGRAM)
        said = hidden.line()
        assert said["verdict"] is True
        assert "tcp://203.0.113.12:9000" in said["addresses"]
        assert not any(url.startswith("relay:") for url in said["addresses"])
        hidden.end()
        public.end()


def await_carriers(talking: Node, wanted: Callable[[list[str]], bool], made: int = 0) -> list[str]:
    """Return the carriers of a node that talks as soon as they are so, and it has become direct so often."""
    while not wanted((said := talking.line())["carriers"]) or said["made"] < made:
        pass
    return said["carriers"]


def is_direct(carriers: list[str]) -> bool:
    return [url.partition(":")[0] for url in carriers] == ["quic"]


def is_relayed(carriers: list[str]) -> bool:
    return [url.partition(":")[0] for url in carriers] == ["relay"]


@contextmanager
def talking_through(place: Lab) -> Iterator[Node]:
    """A node on `a` that talks to one on `b`; at the end all has to have come back, by one connection. Whether
    another carrier is there before the silent one counts as dead depends on the machine:
    `tests/net/losses/test_silence.py` has that in virtual time."""
    public = Node(place, "pub", "public", program=PROGRAM)
    bootstrap = json.dumps(public.line()["bootstrap"])
    hidden = Node(place, "b", "hidden", bootstrap, program=PROGRAM)
    peer = hidden.line()["peer"]
    talking = Node(place, "a", "talking", bootstrap, peer, program=PROGRAM)
    yield talking
    (*_, last) = talking.end()
    assert last["pieces"] > 0
    hidden.end()
    public.end()


@pytest.mark.parametrize("nat", ["nata", "natb"])
def test_where_a_nat_gets_another_address_the_connection_goes_on_and_is_direct_again(nat: str) -> None:
    """The link to the same peer isn't waited for: where a try fails it is made again half a minute later."""
    with lab("port-restricted", "port-restricted") as place, talking_through(place) as talking:
        await_carriers(talking, is_direct, made=1)
        place.move_nat(nat, {"nata": "203.0.113.11", "natb": "203.0.113.12"}[nat], "203.0.113.77")
        (direct,) = await_carriers(talking, is_direct, made=2)
        assert direct.startswith("quic://203.0.113.77:" if nat == "natb" else "quic://203.0.113.12:")


def test_where_the_direct_way_swallows_all_the_relay_goes_on() -> None:
    with lab("port-restricted", "port-restricted") as place, talking_through(place) as talking:
        await_carriers(talking, is_direct)
        place.swallow_udp("nata", to="203.0.113.12")
        await_carriers(talking, is_relayed)


@pytest.mark.parametrize("nats", [("nata",), ("natb",), ("nata", "natb")])
def test_who_has_no_udp_reaches_and_is_reached_at_a_relay(nats: tuple[str, ...]) -> None:
    with lab("port-restricted", "port-restricted") as place:
        for nat in nats:
            place.swallow_udp(nat)
        with talking_through(place) as talking:
            await_carriers(talking, is_relayed)
