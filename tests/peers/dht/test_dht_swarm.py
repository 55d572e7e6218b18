"""Whole networks of the nodes that run for real, on a simulated clock: they find, keep and hand on."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from dtp.peers.dht.limits import DEFAULT_LIMITS, DhtLimits
from dtp.peers.dht.messages import DatagramKind
from dtp.peers.dht.node import DhtNode, ModeChanged
from dtp.peers.dht.records import Mutable, Provider, Record, RecordKind
from dtp.peers.record import PeerRecord
from dtp.testing.dht import UNIX, DhtSwarm, global_host


def grown(count: int, seed: int = 1, **options: object) -> DhtSwarm:
    swarm = DhtSwarm(seed, **options)  # type: ignore[arg-type]
    swarm.add_node()
    swarm.add_nodes(count - 1)
    swarm.run_for(2)
    return swarm


def test_twenty_nodes_know_each_other_and_find_what_one_puts() -> None:
    swarm = grown(20)
    places = list(swarm.nodes)
    assert {len(node.table) for node in swarm.nodes.values()} == {19}
    record = swarm.put_value(places[3], b"21.5")
    swarm.run_for(2)
    assert [swarm.get_value(place, record) for place in places] == [b"21.5"] * 20
    assert sum(record.kind == held.record.kind for node in swarm.nodes.values() for held in node.store) == 19


def test_a_newer_value_replaces_and_an_older_one_does_not() -> None:
    swarm = grown(12)
    here, there, *_ = swarm.nodes
    swarm.put_value(here, b"old", sequence=1)
    swarm.put_value(here, b"new", sequence=2)
    record = swarm.put_value(here, b"older", sequence=1)
    assert swarm.get_value(there, record) == b"new"
    stored = swarm.run_operation(there, lambda node, now: node.put_record(record, now))
    assert (stored.nodes, stored.newer >= DEFAULT_LIMITS.enough) == (0, True)  # said apart


def test_peers_and_providers_are_found() -> None:
    swarm = grown(15)
    here, there, *_ = swarm.nodes
    identity = swarm.nodes[here].identity
    told = Record.from_value(PeerRecord.sign(identity, now=swarm.unix, addresses=["tcp://192.0.2.7:9000"]))
    assert swarm.run_operation(here, lambda node, now: node.publish_record(told, now)).nodes >= 8
    found = swarm.run_operation(there, lambda node, now: node.get_records(RecordKind.PEER, told.target, now))
    assert [each.value.addresses for each in found] == [("tcp://192.0.2.7:9000",)]
    content = bytes(range(32))
    for place in list(swarm.nodes)[:5]:
        offer = Record.from_value(Provider.sign(swarm.nodes[place].identity, content, now=swarm.unix))
        swarm.run_operation(place, lambda node, now, offer=offer: node.publish_record(offer, now))
    found = swarm.run_operation(
        there, lambda node, now: node.get_records(RecordKind.PROVIDER, offer.target, now)
    )
    expected = {swarm.nodes[place].identity.id.key for place in list(swarm.nodes)[:5]}
    assert {each.author for each in found} == expected


def test_what_nobody_has_put_is_not_found() -> None:
    swarm = grown(10)
    target = bytes(32)
    assert (
        swarm.run_operation(
            next(iter(swarm.nodes)), lambda node, now: node.get_records(RecordKind.MUTABLE, target, now)
        )
        == []
    )


@pytest.mark.slow
def test_a_quarter_that_is_switched_off_costs_milliseconds() -> None:
    swarm = grown(40)
    places = list(swarm.nodes)
    records = [swarm.put_value(place, b"%d" % number) for number, place in enumerate(places[:10])]
    swarm.run_for(5)
    for place in places[10:20]:
        swarm.remove_node(place)
    took = []
    for number, record in enumerate(records):
        began = swarm.now
        assert swarm.get_value(places[20 + number], record) == b"%d" % number
        took.append(swarm.now - began)
    assert max(took) < 0.15  # of simulated time: `kademlia` waits 5 s for each


def test_a_first_question_that_is_answered_late_is_no_failure() -> None:
    """It is asked again meanwhile, and so twice for proof: the second time is nobody's fault."""
    slow = False
    swarm = DhtSwarm(3, latency=lambda source, destination: 0.05 if slow else 0.01)
    swarm.add_node()
    places = swarm.add_nodes(39)
    swarm.run_for(5)
    slow = True
    client = swarm.add_node(places[0], client=True)
    swarm.run_for(2)
    for place in [*places[:10], client]:
        swarm.put_value(place, b"here")
        swarm.run_for(1)
    counts = sum((node.counts for node in swarm.nodes.values()), Counter())
    assert counts["answers to nothing"] > 0  # it did happen
    assert counts["wrong answers"] == counts["impostors"] == counts["unanswered"] == 0


def test_dead_contacts_leave_the_tables() -> None:
    swarm = grown(15)
    dead = list(swarm.nodes)[3]
    gone = swarm.remove_node(dead)
    swarm.run_for(120)
    held = [node for node in swarm.nodes.values() if node.table.get_contact(gone.table.own) is not None]
    assert held == []


def test_a_node_that_forgot_everything_is_known_again_at_once() -> None:
    """It restarts: its tokens are of another secret. What it is asked proves who asks, and who it is, anew."""
    swarm = grown(8)
    here, there, *_ = swarm.nodes
    record = swarm.put_value(here, b"kept")
    identity = swarm.remove_node(there).identity
    swarm.add_node(here, identity=identity, host=there[0])
    swarm.run_for(2)
    again = swarm.put_value(here, b"newer", sequence=2)
    swarm.run_for(2)
    assert [held.record for held in swarm.nodes[there].store] == [again]
    assert swarm.get_value(there, record) == b"newer"


def test_another_node_at_a_known_endpoint_is_not_taken_for_the_one_before() -> None:
    swarm = grown(8)
    here, there, *_ = swarm.nodes
    before = swarm.remove_node(there).identity
    swarm.add_node(host=there[0])
    for _ in range(3):
        swarm.put_value(here, b"x")
    assert swarm.nodes[here].counts["impostors"] >= 1
    assert swarm.nodes[here].table.get_contact(swarm.nodes[there].table.own) is None
    swarm.run_for(60)
    assert all(node.table.get_contact(DhtNode(before, now=0, unix=0, random=swarm.random).table.own) is None
               for node in swarm.nodes.values())  # fmt: skip


def test_records_are_published_again_and_outlive_all_that_had_them() -> None:
    swarm = grown(12, limits=DhtLimits(k=4, enough=3, republish=60.0))
    author, *others = list(swarm.nodes)
    record = swarm.put_value(author, b"still here", ttl=400)
    for old in others:  # one after the other everybody is replaced, over eleven minutes
        swarm.remove_node(old)
        swarm.add_node(author)
        swarm.run_for(60)
    newest = list(swarm.nodes)[-1]
    assert swarm.get_value(newest, record) == b"still here"
    found = swarm.run_operation(
        newest, lambda node, now: node.get_records(RecordKind.MUTABLE, record.target, now)
    )
    assert found[0].expires > record.expires  # signed anew, for it would have ended


def test_without_its_author_a_record_lives_until_it_ends() -> None:
    swarm = grown(12, limits=DhtLimits(k=4, enough=3, republish=60.0))
    author, *others = list(swarm.nodes)
    record = swarm.put_value(author, b"orphan", ttl=500)
    swarm.remove_node(author)
    for old in others[:6]:
        swarm.remove_node(old)
        swarm.add_node(others[-1])
        swarm.run_for(60)
    newest = list(swarm.nodes)[-1]
    assert swarm.get_value(newest, record) == b"orphan"
    swarm.run_for(200)
    assert swarm.get_value(newest, record) is None
    assert all(not len(node.store) for node in swarm.nodes.values())


def test_what_is_withdrawn_ends_by_itself() -> None:
    swarm = grown(8, limits=DhtLimits(republish=60.0))
    here, there, *_ = swarm.nodes
    record = swarm.put_value(here, b"x", ttl=300)
    swarm.nodes[here].withdraw_record(record.kind, record.target)
    swarm.run_for(400)
    assert swarm.get_value(there, record) is None


def test_a_client_asks_and_is_in_nobody_s_table() -> None:
    swarm = grown(10)
    here = next(iter(swarm.nodes))
    client = swarm.add_node(here, client=True)
    swarm.run_for(5)
    record = swarm.put_value(client, b"by a client")
    assert swarm.get_value(here, record) == b"by a client"
    assert swarm.get_value(client, record) == b"by a client"
    own = swarm.nodes[client].table.own
    assert all(node.table.get_contact(own) is None for node in swarm.nodes.values())
    assert swarm.nodes[client].client


def nat(swarm: DhtSwarm, inside: str, *, by_port: bool) -> None:
    """Let in to `inside` only what comes from where it has sent to less than 30 s ago.

    RFC 4787: address-dependent filtering, or address- and port-dependent.
    """
    opened: dict[object, float] = {}

    def passes(source: tuple[str, int], destination: tuple[str, int], data: bytes) -> bool:
        if source[0] == inside:
            opened[destination if by_port else destination[0]] = swarm.now
            return True
        return (
            destination[0] != inside or swarm.now - opened.get(source if by_port else source[0], -99.0) < 30
        )

    swarm.network.filter = passes


@pytest.mark.slow
def test_a_node_that_others_reach_serves() -> None:
    swarm = grown(40, host=global_host, limits=DhtLimits(k=4, check=60.0, known=4))
    swarm.run_for(180)
    assert [node.client for node in swarm.nodes.values()] == [False] * 40


@pytest.mark.slow
@pytest.mark.parametrize("by_port", [True, False])
def test_a_node_behind_a_nat_becomes_a_client_and_serves_when_it_is_reached(by_port: bool) -> None:
    swarm = grown(60, host=global_host, limits=DhtLimits(k=4, check=60.0, known=4, probe_longest=1e6))
    inside = "60.200.1.1"
    nat(swarm, inside, by_port=by_port)
    hidden = swarm.add_node(next(iter(swarm.nodes)), host=inside)
    swarm.run_for(300)
    node = swarm.nodes[hidden]
    assert node.client
    assert ModeChanged(True) in node.take_events()
    record = swarm.put_value(hidden, b"from inside")
    assert swarm.get_value(next(iter(swarm.nodes)), record) == b"from inside"
    swarm.network.filter = None  # somebody forwards the port
    swarm.run_for(300)
    assert not node.client


def test_a_node_that_is_barred_serves_nobody_whatever_its_own_checks_say() -> None:
    swarm = DhtSwarm(7, limits=DhtLimits(check=60.0))
    first = swarm.add_node()
    node = swarm.nodes[swarm.add_node(first)]
    swarm.run_for(70)
    assert not node.client
    node.set_barred(True)
    assert node.client
    swarm.run_for(130)  # on this network it is reached
    assert node.client
    node.set_barred(False)
    swarm.run_for(70)
    assert not node.client


def test_a_node_without_anybody_tries_again() -> None:
    swarm = DhtSwarm(3)
    alone = swarm.add_node(("127.0.0.99", 4000))
    swarm.run_for(90)
    assert len(swarm.nodes[alone].table) == 0
    swarm.add_node(host="127.0.0.99")
    swarm.run_for(70)
    assert len(swarm.nodes[alone].table) == 1


def test_what_is_kept_ready_alone_is_published_when_others_come() -> None:
    swarm = DhtSwarm(3)
    alone = swarm.add_node()
    identity = swarm.nodes[alone].identity
    record = Record.from_value(Mutable.sign(identity, b"x", name="n", sequence=1, now=swarm.unix))
    swarm.nodes[alone].publish_later(record)
    swarm.run_for(300)
    others = [swarm.add_node(alone) for _ in range(3)]
    swarm.run_for(40)
    assert [swarm.get_value(where, record) for where in others] == [b"x"] * 3


def test_the_only_node_that_serves_tells_of_its_own_records() -> None:
    """One node that can be reached, and others behind NATs: nobody else can keep what it publishes."""
    swarm = DhtSwarm(3)
    seed = swarm.add_node()
    identity = swarm.nodes[seed].identity
    record = Record.from_value(Mutable.sign(identity, b"x", name="n", sequence=1, now=swarm.unix))
    swarm.nodes[seed].publish_later(record)
    clients = [swarm.add_node(seed, client=True) for _ in range(2)]
    swarm.run_for(5)
    assert [swarm.get_value(where, record) for where in clients] == [b"x"] * 2
    swarm.nodes[seed].withdraw_record(record.kind, record.target)
    assert swarm.get_value(clients[0], record) is None


def test_a_node_that_asks_as_somebody_else_does_not_tell_whose_records_it_publishes() -> None:
    swarm = DhtSwarm(3)
    author = swarm.new_identity()
    made = DhtNode(swarm.new_identity(), now=swarm.now, unix=swarm.unix, random=Random(1), author=author)
    hidden = ("127.0.9.1", 4000)
    swarm.network.add_node(hidden, made)
    record = Record.from_value(Mutable.sign(author, b"x", name="n", sequence=1, now=swarm.unix))
    made.publish_later(record)
    asker = swarm.add_node(hidden, client=True)
    swarm.run_for(5)
    assert len(swarm.nodes[asker].contacts) == 1
    assert swarm.get_value(asker, record) is None


def test_loss_is_made_up_for() -> None:
    swarm = DhtSwarm(5, loss=0.05, latency=lambda source, destination: 0.03)
    swarm.add_node()
    swarm.add_nodes(29, settle=3)
    places = list(swarm.nodes)
    for number in range(10):
        record = swarm.put_value(places[number], b"%d" % number)
        assert swarm.get_value(places[-1 - number], record) == b"%d" % number


def test_the_same_seed_gives_the_same_run() -> None:
    first, second = grown(15, seed=4, loss=0.02), grown(15, seed=4, loss=0.02)
    assert first.network.counts == second.network.counts
    assert first.network.counts["datagrams"] > 500


def test_a_record_too_large_beside_a_proof_is_fetched_all_the_same() -> None:
    swarm = grown(6)
    here, there, *_ = swarm.nodes
    addresses = [f"tcp://192.0.2.7:9000/{number}{'x' * 100}" for number in range(7)]
    record = Record.from_value(
        PeerRecord.sign(swarm.nodes[here].identity, now=swarm.unix, addresses=addresses)
    )
    assert len(record.encoded) > 900
    swarm.run_operation(here, lambda node, now: node.publish_record(record, now))
    swarm.run_for(1)
    newcomer = swarm.add_node()  # knows nobody, so its first questions go with proofs
    for place in (here, there):
        swarm.nodes[newcomer].ping_node(swarm.nodes[place].identity.id.key, place, swarm.now)
    swarm.network.carry_due(newcomer)
    swarm.run_for(1)
    for each in swarm.nodes[newcomer].contacts:
        each.token, each.proven = bytes(16), False
    found = swarm.run_operation(
        newcomer, lambda node, now: node.get_records(RecordKind.PEER, record.target, now)
    )
    assert [each.encoded for each in found] == [record.encoded]


def test_values_are_kept_as_large_as_they_may_be() -> None:
    swarm = grown(6)
    here, there, *_ = swarm.nodes
    record = swarm.put_value(here, bytes(800), name="n" * 64)
    assert swarm.get_value(there, record) == bytes(800)


@pytest.mark.slow
def test_idle_nodes_are_nearly_silent() -> None:
    swarm = grown(20)
    swarm.run_for(1800)
    before = swarm.network.counts.copy()
    swarm.run_for(3600)
    spent = swarm.network.counts - before
    assert spent["datagrams"] / 20 < 900  # an hour, for each node
    assert spent["bytes"] / 20 < 200_000


def test_clocks_that_are_set_don_t_hold_anything_up() -> None:
    swarm = grown(6)
    here, there, *_ = swarm.nodes
    swarm.nodes[there].set_unix(swarm.now, UNIX + swarm.now + 200_000)  # two days ahead
    record = swarm.put_value(here, b"x")
    signed = Mutable.sign(swarm.nodes[here].identity, b"x", name="value", sequence=1, now=swarm.unix)
    assert swarm.get_value(there, record) is None  # for that clock it has ended
    assert record.value.value == signed.value
    assert swarm.nodes[there].counts["records refused: dht-record-expired"] >= 1
    assert swarm.nodes[there].counts["answers refused: dht-record-expired"] >= 1
    assert len(swarm.nodes[there].table) == 5  # whoever told of it has done nothing wrong
    swarm.nodes[there].set_unix(swarm.now, swarm.unix)
    assert swarm.get_value(there, record) == b"x"


def test_kinds_of_questions_and_answers_go_together() -> None:
    answers = {
        DatagramKind.PING: DatagramKind.PONG,
        DatagramKind.FIND: DatagramKind.NODES,
        DatagramKind.GET: DatagramKind.FOUND,
        DatagramKind.STORE: DatagramKind.STORED,
    }
    answers |= {DatagramKind.CHECK: DatagramKind.CHECKING, DatagramKind.DIAL: DatagramKind.DIALLED}
    assert all(answer == question + 0x80 for question, answer in answers.items())
