"""Whole nodes behind NATs: they find out that nobody can dial them, take a place at a relay and are found there."""

import json
from pathlib import Path

import pytest
from nat_lab import lab, missing
from test_nat import Node

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
