"""A third of all nodes lies, each in its way and all together: what is found beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from test_dht_attackers import Liar

from dtp.peers.dht.addresses import Endpoint
from dtp.peers.dht.limits import DhtLimits
from dtp.peers.dht.messages import DatagramKind, DhtAnswer, Question, StoreVerdict, pack_entry
from dtp.peers.dht.records import Provider, Record, RecordKind
from dtp.testing.dht import DhtSwarm, global_host

K = 8


def make_liars(swarm: DhtSwarm, places: list[Endpoint], old: dict[bytes, bytes]) -> None:
    """Have the nodes there lie from now on: they keep nothing that they say they store, tell of nobody or of each
    other alone, the nearest first, and of no record or of an `old` one."""

    def lie_of(me: Endpoint, kind: str) -> Callable[[DhtAnswer, Question | None], DhtAnswer]:
        def lie(answer: DhtAnswer, question: Question | None) -> DhtAnswer:
            if question is None or answer.kind not in (DatagramKind.NODES, DatagramKind.FOUND):
                return answer
            target = int.from_bytes(question.args[0], "big")
            near = sorted(set(places) - {me}, key=lambda place: swarm.nodes[place].table.own ^ target)[:K]
            told = b"".join(pack_entry(swarm.nodes[place].identity.id.key, place) for place in near)
            nodes = b"" if kind == "empty" else told
            if answer.kind is DatagramKind.NODES:
                return replace(answer, args=(nodes,))
            records = [old[question.args[0]]] if kind == "stale" and question.args[0] in old else []
            return replace(answer, args=(nodes, records))

        return lie

    for number, place in enumerate(places):
        swarm.nodes[place].store.add_record = lambda *what: StoreVerdict.STORED
        kind = ("neighbours", "empty", "stale")[number % 3]
        swarm.network.add_node(place, Liar(swarm, swarm.nodes[place], lie_of(place, kind)))


def find_values(liars: int) -> Counter[bytes | None]:
    """Return what 15 values come to that were changed beside so many liars of 60, each looked for by 3 nodes."""
    random = Random(5)
    swarm = DhtSwarm(5, host=global_host, limits=DhtLimits(k=K), latency=lambda source, destination: 0.01)
    swarm.add_node()
    swarm.add_nodes(59)
    swarm.run_for(10)
    places = list(swarm.nodes)
    lying = random.sample(places, liars)
    honest = [place for place in places if place not in lying]
    authors = honest[:15]
    records = [swarm.put_value(place, b"old", sequence=1) for place in authors]
    make_liars(swarm, lying, {record.target: record.encoded for record in records})
    for place in authors:
        swarm.put_value(place, b"new", sequence=2)
    swarm.run_for(10)
    return Counter(
        swarm.get_value(asker, record)
        for author, record in zip(authors, records, strict=True)
        for asker in random.sample([place for place in honest if place != author], 3)
    )


@pytest.mark.slow
@pytest.mark.parametrize("liars", [0, 20])
def test_all_values_are_found_and_none_that_is_old(liars: int) -> None:
    assert find_values(liars) == {b"new": 45}


def test_a_crowd_in_one_subnet_hides_no_provider() -> None:
    """Its records were newer, and are kept: an answer has room for seven, and whoever asks looks at twenty."""
    swarm = DhtSwarm(3, host=global_host)
    swarm.add_node()
    swarm.add_nodes(19)
    honest, asker, *_ = swarm.nodes
    crowd = [swarm.add_node(asker, host=f"198.51.100.{number}") for number in range(1, 41)]
    swarm.run_for(5)
    for place in (honest, *crowd):
        offer = Record.from_value(Provider.sign(swarm.nodes[place].identity, bytes(32), now=swarm.unix))
        swarm.run_operation(place, lambda node, now, offer=offer: node.publish_record(offer, now))
    found = swarm.run_operation(
        asker, lambda node, now: node.get_records(RecordKind.PROVIDER, offer.target, now)
    )
    assert swarm.nodes[honest].identity.id.key in {each.author for each in found[:20]}
