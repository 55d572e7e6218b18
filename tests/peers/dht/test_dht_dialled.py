"""What strangers can have a node dial, ask or tell, and how seldom."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_dht_attackers import ALICE, Stranger, a_node, mutable

from dtp.carriers.nearness import Nearness
from dtp.identity import Identity
from dtp.peers.dht.addresses import pack_endpoint
from dtp.peers.dht.limits import DhtLimits
from dtp.peers.dht.messages import (
    DatagramKind,
    DhtAnswer,
    Question,
    StoreVerdict,
    decode,
    encode,
)
from dtp.peers.dht.records import Record, RecordKind
from dtp.peers.record import PeerRecord
from dtp.testing.dht import UNIX

# ------------------------------------------------------------------------------------------------------ reflection


def test_dialling_sends_one_small_packet_and_seldom() -> None:
    node = a_node()
    stranger = Stranger(node)
    stranger.prove()
    victim = ("60.77.1.1", 53)
    sent = []
    for _ in range(50):
        question = encode(stranger.question(DatagramKind.DIAL, pack_endpoint(victim), bytes(8)))
        sends = stranger.say(question)
        to_victim = [data for data, destination in sends if destination == victim]
        assert all(len(data) < len(question) for data in to_victim)
        sent += to_victim
    assert 0 < len(sent) <= DhtLimits().checks_per_minute


def test_one_peer_has_few_dialled_however_many_places_it_names() -> None:
    stranger = Stranger(a_node())
    stranger.prove()
    dialled = 0
    for number in range(50):
        question = stranger.question(DatagramKind.DIAL, pack_endpoint((f"60.{number}.1.1", 53)), bytes(8))
        dialled += sum(to != stranger.source for _, to in stranger.say(encode(question)))
    assert dialled == DhtLimits().checks_per_minute


def test_many_peers_have_one_network_dialled_as_seldom_as_one_has() -> None:
    """However many places in it they name: a crowd can't have somebody else's network flooded."""
    node = a_node()
    dialled = 0
    for number in range(20):
        stranger = Stranger(node, Identity(bytes([50 + number] * 32), bytes(32)), (f"61.{number}.1.1", 4000))
        stranger.prove()
        victim = (f"60.77.1.{number + 1}", 53)
        question = stranger.question(DatagramKind.DIAL, pack_endpoint(victim), bytes(8))
        dialled += sum(to == victim for _, to in stranger.say(encode(question)))
    assert dialled == DhtLimits().checks_per_minute


def test_one_peer_has_few_others_asked_to_dial_it() -> None:
    node = a_node()
    for number in range(2):
        Stranger(node, Identity(bytes([50 + number] * 32), bytes(32)), (f"61.{number}.1.1", 4000)).prove()
    stranger = Stranger(node)
    stranger.prove()
    asked = 0
    for _ in range(50):
        sends = stranger.say(encode(stranger.question(DatagramKind.CHECK, bytes(8))))
        asked += sum(to != stranger.source for _, to in sends)
    assert asked == 2 * DhtLimits().checks_per_minute


def test_how_near_the_farthest_is_who_may_have_told_anything() -> None:
    node = a_node()
    near = Stranger(node, Identity(bytes([51] * 32), bytes(32)), ("10.0.0.7", 4000))
    far = Stranger(node)
    assert node.farthest is Nearness.PROCESS
    near.prove()
    far.ask(DatagramKind.PING)  # anybody may say that it comes from there
    assert node.farthest is Nearness.NETWORK
    far.prove()
    far.answer_to(replace(far.question(DatagramKind.PING), client=True))  # in no table, and may store
    assert [each.endpoint for each in node.contacts] == [near.source]
    assert near.ask(DatagramKind.PING) is not None
    assert node.farthest is Nearness.ANYWHERE


def test_questions_that_wait_for_answers_are_bounded_and_end() -> None:
    node = a_node(DhtLimits(pending=5))

    def ask_many() -> int:
        for number in range(50):
            node.ping_node(Identity(bytes([number] * 32), bytes(32)).id.key, (f"60.{number}.1.1", 4000), now)
        return len(node.take_sends())

    now = 1000.0
    assert ask_many() == 5
    assert node.counts["too many questions"] == 45
    while (due := node.next_time()) is not None and due < 1030.0:
        now = due
        node.handle_timers(now)
    node.take_sends()
    assert node.counts["unanswered"] == 5
    assert ask_many() == 5


def test_nobody_far_away_has_us_dial_into_our_own_network() -> None:
    node = a_node()
    stranger = Stranger(node)
    stranger.prove()
    for inside in (("10.0.0.1", 53), ("127.0.0.1", 53), ("192.168.1.1", 80)):
        answer = encode(stranger.question(DatagramKind.DIAL, pack_endpoint(inside), bytes(8)))
        assert [destination for _, destination in stranger.say(answer)] == [stranger.source]


def test_private_addresses_are_told_to_nobody_far_away() -> None:
    node = a_node()
    Stranger(node, source=("10.0.0.7", 4000)).prove()
    far = Stranger(node, Identity(bytes(32), bytes(32)), ("60.1.1.1", 4000))
    far.prove()
    answer = far.ask(DatagramKind.FIND, bytes(32))
    assert answer is not None
    assert pack_endpoint(("10.0.0.7", 4000)) not in answer.args[0]
    near = Stranger(node, Identity(bytes(31) + b"x", bytes(32)), ("10.0.0.9", 4000))
    near.prove()
    answer = near.ask(DatagramKind.FIND, bytes(32))
    assert answer is not None
    assert pack_endpoint(("10.0.0.7", 4000)) in answer.args[0]


@pytest.mark.parametrize("place", ["tcp://10.0.0.1:80", "tcp://printer.example:80"])
def test_what_strangers_say_of_a_network_is_told_to_nobody_there(place: str) -> None:
    node = a_node()
    far, near = Stranger(node), Stranger(node, Identity(bytes(31) + b"x", bytes(32)), ("10.0.0.9", 4000))
    for each in (far, near):
        each.prove()
    record = Record.from_value(PeerRecord.sign(far.identity, now=UNIX + 1000, addresses=[place]))

    def told(asker: Stranger) -> list[bytes]:
        answer = asker.ask(DatagramKind.GET, record.target, int(record.kind))
        assert answer is not None
        return list(answer.args[1])

    assert far.store(record.kind, record.encoded) is StoreVerdict.STORED
    assert told(far) == [record.encoded]
    assert told(near) == []
    assert near.store(record.kind, record.encoded) is StoreVerdict.STORED  # now it is a neighbour's word
    assert far.store(record.kind, record.encoded) is StoreVerdict.STORED
    assert told(near) == [record.encoded]


@pytest.mark.parametrize(
    ("giver", "place", "given"),
    [
        ("60.9.9.9", "tcp://10.0.0.1:80", set()),
        ("60.9.9.9", "tcp://60.9.9.9:80", {"10.0.0.9"}),
        ("10.0.0.7", "tcp://10.0.0.1:80", {"10.0.0.9"}),
    ],
)
def test_what_strangers_say_of_a_network_is_given_on_to_nobody_there(
    giver: str, place: str, given: set[str]
) -> None:
    """Neither when records are given on from time to time, nor where one is missing that was looked up."""
    node = a_node()
    author = Stranger(node, source=(giver, 4000))
    near = Stranger(node, Identity(bytes(31) + b"x", bytes(32)), ("10.0.0.9", 4000))
    author.prove()
    record = Record.from_value(PeerRecord.sign(author.identity, now=UNIX + 1000, addresses=[place], ttl=6000))
    assert author.store(record.kind, record.encoded) is StoreVerdict.STORED
    author.answer_to(replace(author.question(DatagramKind.PING), client=True))  # out of the table
    near.prove()
    (contact,) = node.contacts
    contact.token, contact.proven = bytes([7] * 16), True
    stored_at = set[str]()

    answers: dict[DatagramKind, tuple[DatagramKind, tuple[object, ...]]] = {
        DatagramKind.PING: (DatagramKind.PONG, (pack_endpoint(("10.0.0.5", 4000)),)),
        DatagramKind.FIND: (DatagramKind.NODES, (b"",)),
        DatagramKind.GET: (DatagramKind.FOUND, (b"", [])),
        DatagramKind.STORE: (DatagramKind.STORED, (0, b"")),
    }

    def answer_all(now: float) -> None:
        while sends := node.take_sends():
            for data, (host, port) in sends:
                asked = decode(data)
                assert isinstance(asked, Question)
                stored_at.update({host} if asked.kind is DatagramKind.STORE else ())
                kind, args = answers[asked.kind]
                node.receive_datagram(encode(DhtAnswer(kind, asked.transaction, args)), (host, port), now)

    node.get_records(record.kind, record.target, 1001.0)
    answer_all(1001.0)
    assert stored_at == given
    stored_at.clear()
    for _ in range(400):
        due = node.next_time()
        assert due is not None
        node.handle_timers(due)
        answer_all(due)
    assert stored_at == given


def test_somebody_who_plays_our_own_questions_back_is_nobody() -> None:
    node = a_node()
    node.join_network([("60.1.1.1", 4000)], 1000.0)
    ((data, _),) = node.take_sends()
    node.receive_datagram(data, ("60.1.1.1", 4000), 1000.1)
    assert node.take_sends() == []
    assert node.counts["questions of ourselves"] == 1


def test_a_probe_that_was_not_asked_for_proves_nothing() -> None:
    node = a_node()
    node.receive_datagram(b"\xd7\x07" + bytes(8), ("60.1.1.1", 4000), 1000.0)
    assert node.counts["probes for nothing"] == 1
    assert node.take_events() == []
    assert RecordKind.PEER == 1


def test_a_record_that_has_ended_is_told_to_nobody() -> None:
    node = a_node()
    stranger = Stranger(node)
    stranger.prove()
    value = mutable(ttl=60)
    assert stranger.store(RecordKind.MUTABLE, value.encoded) is StoreVerdict.STORED
    for seconds, told in ((30, [value.encoded]), (31, [])):
        stranger.now += seconds
        answer = stranger.ask(DatagramKind.GET, Record.from_value(value).target, int(RecordKind.MUTABLE))
        assert answer is not None
        assert list(answer.args[1]) == told


def test_a_node_tells_its_own_record_though_it_keeps_an_older_one() -> None:
    node = a_node()
    stranger = Stranger(node)
    stranger.prove()
    assert stranger.store(RecordKind.MUTABLE, mutable(ALICE, sequence=1).encoded) is StoreVerdict.STORED
    own = Record.from_value(mutable(ALICE, sequence=2))
    node.publish_record(own, stranger.now)
    answer = stranger.ask(DatagramKind.GET, own.target, int(own.kind))
    assert answer is not None
    assert list(answer.args[1]) == [own.encoded]
