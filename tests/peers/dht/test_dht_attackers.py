"""Attackers of the DHT: each gets a named refusal or silence, and a counter, and nobody else is harmed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from random import Random

import pytest
import second_dht as second

from dtp.identity import Identity
from dtp.peers.dht import ids
from dtp.peers.dht.addresses import Endpoint, pack_endpoint
from dtp.peers.dht.limits import DhtLimits
from dtp.peers.dht.messages import (
    DatagramKind,
    DhtAnswer,
    Question,
    StoreVerdict,
    answer_to_sign,
    decode,
    encode,
    pack_entry,
    question_to_sign,
)
from dtp.peers.dht.node import DhtNode, OperationEnded
from dtp.peers.dht.records import Mutable, Provider, Record, RecordKind
from dtp.testing.dht import PORT, UNIX, DhtSwarm, global_host

ALICE = Identity(bytes(range(32)), bytes(32))
MALLORY = Identity(bytes(range(1, 33)), bytes(32))


def a_node(limits: DhtLimits | None = None) -> DhtNode:
    return DhtNode(ALICE, now=1000.0, unix=UNIX + 1000, random=Random(1), limits=limits or DhtLimits())


class Stranger:
    """Talks to one node by hand, from an endpoint of its own."""

    def __init__(
        self, node: DhtNode, identity: Identity = MALLORY, source: Endpoint = ("60.9.9.9", 4000)
    ) -> None:
        self.node, self.identity, self.source, self.now = node, identity, source, 1000.0
        self.token = bytes(16)
        self._count = 0

    def say(self, data: bytes) -> list[tuple[bytes, Endpoint]]:
        self.node.receive_datagram(data, self.source, self.now)
        return self.node.take_sends()

    def question(self, kind: DatagramKind, *args: object, proof: bool = False) -> Question:
        self._count += 1
        asked = Question(kind, self._count.to_bytes(8, "big"), self.identity.id.key, args, self.token)
        if proof:
            asked = replace(
                asked, proof=self.identity.sign(question_to_sign(asked, self.node.identity.id.key))
            )
        return asked

    def answer_to(self, question: Question) -> DhtAnswer | None:
        """Return what the node answers to it here; None for silence."""
        for data, destination in self.say(encode(question)):
            message = decode(data)
            if destination == self.source and isinstance(message, DhtAnswer):
                return message
        return None

    def ask(self, kind: DatagramKind, *args: object) -> DhtAnswer | None:
        return self.answer_to(self.question(kind, *args))

    def prove(self) -> None:
        """Do what an honest node does at first contact."""
        retry = self.ask(DatagramKind.PING)
        assert retry is not None
        assert retry.kind is DatagramKind.RETRY
        self.token = retry.token
        answer = self.answer_to(self.question(DatagramKind.PING, proof=True))
        assert answer is not None
        assert answer.kind is DatagramKind.PONG
        self.token = answer.token

    def store(self, kind: int, encoded: bytes) -> StoreVerdict:
        answer = self.ask(DatagramKind.STORE, kind, encoded)
        assert answer is not None
        assert answer.kind is DatagramKind.STORED
        return StoreVerdict(answer.args[0])


def mutable(author: Identity = MALLORY, now: float = UNIX + 1000, **fields: object) -> Mutable:
    return Mutable.sign(author, b"v", **{"name": "n", "sequence": 5, "now": now, "ttl": 600} | fields)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------- who has not proven anything


@pytest.mark.parametrize(
    "kind",
    [
        DatagramKind.PING,
        DatagramKind.FIND,
        DatagramKind.GET,
        DatagramKind.STORE,
        DatagramKind.CHECK,
        DatagramKind.DIAL,
    ],
)
def test_an_unproven_address_gets_less_than_it_sent(kind: DatagramKind) -> None:
    """Nobody can have this node send more to somebody else's address than they sent themselves."""
    args = {
        DatagramKind.FIND: (bytes(32),),
        DatagramKind.GET: (bytes(32), 2),
        DatagramKind.STORE: (2, mutable().encoded),
        DatagramKind.CHECK: (bytes(8),),
        DatagramKind.DIAL: (pack_endpoint(("60.1.1.1", 53)), bytes(8)),
    }.get(kind, ())
    stranger = Stranger(a_node())
    for question in (
        stranger.question(kind, *args),
        stranger.question(kind, *args, proof=kind is not DatagramKind.STORE),
    ):
        data = encode(question)
        sends = stranger.say(data)
        assert [destination for _, destination in sends] == [stranger.source]
        assert sum(len(sent) for sent, _ in sends) <= len(data)
    assert len(stranger.node.table) == 0
    assert len(stranger.node.store) == 0


def test_nothing_that_comes_unasked_is_answered_with_more() -> None:
    node, random = a_node(), Random(7)
    stranger = Stranger(node)
    for size in [*range(80), 500, 1192, 1193, 9000]:
        for head in (b"", b"\xd7", b"\xd7\x02", b"\xd7\x81", b"\xd7\xf0", b"\xd7\x07"):
            data = (head + random.randbytes(9000))[:size]
            assert sum(len(sent) for sent, _ in stranger.say(data)) <= len(data)


def test_a_token_of_another_address_or_key_proves_nothing() -> None:
    node = a_node()
    honest = Stranger(node)
    honest.prove()
    thief = Stranger(node, source=("60.8.8.8", 4000))
    thief.token = honest.token
    answer = thief.ask(DatagramKind.FIND, bytes(32))
    assert answer is not None
    assert answer.kind is DatagramKind.RETRY
    other = Stranger(node, identity=Identity(bytes(32), bytes(32)), source=honest.source)
    other.token = honest.token
    answer = other.ask(DatagramKind.FIND, bytes(32))
    assert answer is not None
    assert answer.kind is DatagramKind.RETRY


def test_a_proof_by_another_key_or_for_another_node_is_counted_and_not_answered() -> None:
    node = a_node()
    stranger = Stranger(node)
    retry = stranger.ask(DatagramKind.PING)
    assert retry is not None
    stranger.token = retry.token
    question = stranger.question(DatagramKind.PING)
    for identity, recipient in ((ALICE, ALICE), (MALLORY, MALLORY)):
        proof = identity.sign(question_to_sign(question, recipient.id.key))
        assert stranger.answer_to(replace(question, proof=proof)) is None
    assert node.counts["forged questions"] == 2
    assert len(node.table) == 0


def test_a_proven_question_changed_on_the_way_is_refused() -> None:
    stranger = Stranger(a_node())
    retry = stranger.ask(DatagramKind.PING)
    assert retry is not None
    stranger.token = retry.token
    question = stranger.question(DatagramKind.FIND, bytes(32), proof=True)
    assert stranger.answer_to(replace(question, args=(b"x" * 32,))) is None
    assert stranger.answer_to(question) is not None  # the genuine one that follows is answered


def test_floods_of_strangers_end_at_their_quota() -> None:
    limits = DhtLimits(stranger_rate=5, stranger_burst=20, proof_rate=5, proof_burst=10)
    node = a_node(limits)
    answered = 0
    for number in range(300):
        stranger = Stranger(node, source=(f"60.9.9.{1 + number % 200}", 1024 + number))
        answered += stranger.ask(DatagramKind.PING) is not None
    assert answered == 20
    assert node.counts["strangers over their quota"] == 280
    elsewhere = Stranger(node, source=("60.7.7.7", 4000))
    assert elsewhere.ask(DatagramKind.PING) is not None  # others feel nothing


def test_floods_of_proofs_end_at_their_quota() -> None:
    node = a_node(DhtLimits(proof_rate=5, proof_burst=10))
    stranger = Stranger(node)
    retry = stranger.ask(DatagramKind.PING)
    assert retry is not None
    stranger.token = retry.token
    answered = [
        stranger.answer_to(stranger.question(DatagramKind.PING, proof=True)) is not None for _ in range(50)
    ]
    assert answered == [True] * 10 + [False] * 40
    assert node.counts["proofs over their quota"] == 40


def test_a_proven_peer_that_asks_too_much_is_refused_and_others_are_not() -> None:
    node = a_node(DhtLimits(peer_rate=10, peer_burst=50))
    greedy, honest = Stranger(node), Stranger(node, Identity(bytes(32), bytes(32)), ("60.7.7.7", 4000))
    greedy.prove()
    honest.prove()
    kinds = [
        answer.kind for _ in range(100) if (answer := greedy.ask(DatagramKind.FIND, bytes(32))) is not None
    ]
    assert kinds.count(DatagramKind.NODES) == 49
    assert kinds.count(DatagramKind.REFUSED) == 51
    answer = honest.ask(DatagramKind.FIND, bytes(32))
    assert answer is not None
    assert answer.kind is DatagramKind.NODES


def test_memory_is_bounded_whatever_strangers_do() -> None:
    limits = DhtLimits(known=50, quota_entries=100, records=20, stranger_rate=1e9, stranger_burst=1e9,
                       proof_rate=1e9, proof_burst=1e9)  # fmt: skip
    node, random = a_node(limits), Random(3)
    for number in range(400):
        identity = Identity(random.randbytes(32), bytes(32))
        stranger = Stranger(node, identity, (global_host(number), 4000))
        stranger.prove()
        stranger.store(2, mutable(identity).encoded)
    assert len(node._network.known) == 50
    assert len(node._server._strangers) == len(node._server._peers) == 100
    assert len(node.store) == 20
    assert len(node.table) < 20 * 10
    assert len(node._exchange) <= limits.pending


# --------------------------------------------------------------------------------------------------------- records


def test_forged_replayed_stale_future_and_oversize_records_are_refused_by_name() -> None:
    node = a_node()
    stranger = Stranger(node)
    stranger.prove()
    good = mutable().encoded
    assert stranger.store(2, good) is StoreVerdict.STORED
    assert stranger.store(2, mutable(sequence=4).encoded) is StoreVerdict.OLDER
    refused = {
        "dht-record-forged": good[:-1] + bytes((good[-1] ^ 1,)),
        "dht-record-expired": mutable(now=UNIX + 1000 - 700).encoded,
        "dht-record-future": mutable(now=UNIX + 1000 + 400).encoded,
        "dht-record": second.mutable(bytes(32), "n", 5, int(UNIX) + 1000, int(UNIX) + 1600, bytes(801)),
    }
    for code, encoded in refused.items():
        assert stranger.store(2, encoded) is StoreVerdict.BAD
        assert node.counts[f"records refused: {code}"] == 1
    assert stranger.store(9, good) is StoreVerdict.BAD
    assert [held.record.encoded for held in node.store] == [good]


def test_a_record_that_others_are_nearer_to_is_not_kept() -> None:
    limits = DhtLimits(k=4, stranger_rate=1e9, stranger_burst=1e9)
    node, random = a_node(limits), Random(5)
    for number in range(400):
        Stranger(node, Identity(random.randbytes(32), bytes(32)), (global_host(number), 4000)).prove()
    verdicts = []
    stranger = Stranger(node, source=("60.250.1.1", 4000))
    stranger.prove()
    for number in range(40):
        verdicts.append(stranger.store(2, mutable(name=f"n{number}").encoded))
    assert verdicts.count(StoreVerdict.FAR) > 20
    assert set(verdicts) == {StoreVerdict.FAR, StoreVerdict.STORED}


def test_poisoned_providers_are_only_those_who_sign_for_themselves() -> None:
    """Mallory claims that Alice has something, which is refused, and that she has: that is her own word."""
    node = a_node()
    stranger = Stranger(node)
    stranger.prove()
    own = Provider.sign(MALLORY, bytes(32), now=UNIX + 1000)
    other = Provider.sign(ALICE, bytes(32), now=UNIX + 1000)
    poisoned = other.encoded[:-64] + MALLORY.sign(b"anything")
    assert stranger.store(3, own.encoded) is StoreVerdict.STORED
    assert stranger.store(3, poisoned) is StoreVerdict.BAD
    answer = stranger.ask(DatagramKind.GET, own.target, 3)
    assert answer is not None
    assert answer.args[1] == [own.encoded]
    for number in range(200):
        stranger.store(3, Provider.sign(MALLORY, number.to_bytes(32, "big"), now=UNIX + 1000).encoded)
    assert len(node.store) == DhtLimits().per_author


# -------------------------------------------------------------------------- nodes that answer wrong, never or late


class Liar:
    """A node whose answers are changed before they leave. `lie` returns what is sent instead; None for nothing."""

    def __init__(
        self, swarm: DhtSwarm, node: DhtNode, lie: Callable[[DhtAnswer, Question | None], DhtAnswer | None]
    ) -> None:
        self._swarm, self._node, self._lie = swarm, node, lie
        self._questions: dict[bytes, Question] = {}

    def receive_datagram(self, data: bytes, source: Endpoint, now: float) -> None:
        try:
            message = decode(data)
            if isinstance(message, Question):
                self._questions[message.transaction] = message
        finally:
            self._node.receive_datagram(data, source, now)

    def handle_timers(self, now: float) -> None:
        self._node.handle_timers(now)

    def next_time(self) -> float | None:
        return self._node.next_time()

    def take_sends(self) -> list[tuple[bytes, Endpoint]]:
        changed = []
        for data, destination in self._node.take_sends():
            message = decode(data)
            if isinstance(message, DhtAnswer) and message.kind is not DatagramKind.RETRY:
                question = self._questions.get(message.transaction)
                said = self._lie(message, question)
                if said is not None and said.proof and question is not None:
                    said = replace(said, proof=self._node.identity.sign(answer_to_sign(said, question.key)))
                if said is not None:
                    changed.append((encode(said), destination))
            else:
                changed.append((data, destination))
        return changed


def swarm_with(
    honest: int, liars: int, lie: Callable[[DhtAnswer, Question | None], DhtAnswer | None], **options: object
) -> tuple[DhtSwarm, list[Endpoint]]:
    """Return a swarm of both; the liars lie once all have met."""
    swarm = DhtSwarm(11, **options)  # type: ignore[arg-type]
    swarm.add_node()
    swarm.add_nodes(honest + liars - 1)
    swarm.run_for(5)
    places = list(swarm.nodes)
    for place in places[honest:]:
        swarm.network.add_node(place, Liar(swarm, swarm.nodes[place], lie))
    return swarm, places[:honest]


def found_by_all(swarm: DhtSwarm, honest: Iterable[Endpoint], record: Record) -> list[bytes | None]:
    return [swarm.get_value(place, record) for place in honest]


def test_nodes_that_never_answer_cost_time_only() -> None:
    swarm, honest = swarm_with(14, 5, lambda answer, question: None)
    record = swarm.put_value(honest[0], b"here")
    assert found_by_all(swarm, honest, record) == [b"here"] * 14


def test_who_did_not_answer_is_not_asked_again_for_a_minute_though_others_tell_of_it() -> None:
    swarm = DhtSwarm(3)
    swarm.add_nodes(20)
    swarm.run_for(5)
    here, gone, *_ = swarm.nodes
    target = Record.from_value(mutable()).target
    swarm.remove_node(gone)
    asked: list[float] = []

    def passes(source: Endpoint, destination: Endpoint, data: bytes) -> bool:
        if (source, destination) == (here, gone):
            asked.append(swarm.now)
        return True

    swarm.network.filter = passes
    for _ in range(8):
        swarm.run_operation(here, lambda node, now: node.get_records(RecordKind.MUTABLE, target, now))
    assert len(asked) == 2  # one question, sent twice


def test_nodes_that_answer_something_else_are_counted() -> None:
    swarm, honest = swarm_with(
        14,
        5,
        lambda answer, question: replace(answer, kind=DatagramKind.CHECKING, args=(1,)) if question else None,
    )
    record = swarm.put_value(honest[0], b"here")
    assert found_by_all(swarm, honest, record) == [b"here"] * 14
    assert sum(swarm.nodes[place].counts["wrong answers"] for place in honest) > 0


def test_nodes_that_tell_of_malformed_nodes_leave_the_table() -> None:
    def lie(answer: DhtAnswer, question: Question | None) -> DhtAnswer:
        return (
            replace(answer, args=(b"\x04short", *answer.args[1:]))
            if answer.kind is DatagramKind.NODES
            else answer
        )

    swarm, honest = swarm_with(15, 5, lie)
    swarm.run_operation(honest[0], lambda node, now: node.find_nodes(bytes(32), now))
    node = swarm.nodes[honest[0]]
    assert node.counts["wrong answers"] == 5
    liars = [place for place in swarm.nodes if place not in honest]
    assert not any(contact.endpoint in liars for contact in node.contacts)


def test_nodes_that_hide_a_record_hide_it_from_nobody() -> None:
    def lie(answer: DhtAnswer, question: Question | None) -> DhtAnswer:
        return replace(answer, args=(answer.args[0], [])) if answer.kind is DatagramKind.FOUND else answer

    swarm, honest = swarm_with(14, 5, lie)
    record = swarm.put_value(honest[0], b"here")
    assert found_by_all(swarm, honest, record) == [b"here"] * 14


def test_nodes_that_say_that_they_store_and_don_t_are_made_up_for() -> None:
    def lie(answer: DhtAnswer, question: Question | None) -> DhtAnswer:
        return replace(answer, args=(answer.args[0], [])) if answer.kind is DatagramKind.FOUND else answer

    swarm, honest = swarm_with(14, 5, lie)
    for place in [each for each in swarm.nodes if each not in honest]:
        swarm.nodes[place].store.add_record = lambda *what: StoreVerdict.STORED
    record = swarm.put_value(honest[0], b"here")
    assert found_by_all(swarm, honest, record) == [b"here"] * 14


def test_an_old_record_told_again_doesn_t_pass_for_the_newest() -> None:
    old: list[bytes] = []

    def lie(answer: DhtAnswer, question: Question | None) -> DhtAnswer:
        return (
            replace(answer, args=(answer.args[0], old))
            if answer.kind is DatagramKind.FOUND and old
            else answer
        )

    swarm, honest = swarm_with(14, 5, lie)
    record = swarm.put_value(honest[0], b"old", sequence=1)
    old.append(record.encoded)
    swarm.put_value(honest[0], b"new", sequence=2)
    assert found_by_all(swarm, honest, record) == [b"new"] * 14


def test_the_two_nodes_nearest_to_a_value_can_t_pass_an_old_one_for_the_newest() -> None:
    """Who asks keeps nothing itself, and asks those two first: the third path tells of the newest."""
    old: list[bytes] = []

    def lie(answer: DhtAnswer, question: Question | None) -> DhtAnswer:
        return (
            replace(answer, args=(answer.args[0], old))
            if answer.kind is DatagramKind.FOUND and old
            else answer
        )

    swarm, (author, *_) = swarm_with(19, 0, lie)
    record = swarm.put_value(author, b"old", sequence=1)
    swarm.put_value(author, b"new", sequence=2)
    place = int.from_bytes(record.target, "big")
    nearest = sorted(set(swarm.nodes) - {author}, key=lambda where: swarm.nodes[where].table.own ^ place)
    client = swarm.add_node(author, client=True)
    swarm.run_for(2)
    for where in nearest[:2]:
        swarm.network.add_node(where, Liar(swarm, swarm.nodes[where], lie))
    old.append(record.encoded)
    assert swarm.get_value(client, record) == b"new"


def test_forged_records_and_others_records_in_answers_are_refused() -> None:
    forged = mutable(now=UNIX + 1000, ttl=86_400).encoded

    def lie(answer: DhtAnswer, question: Question | None) -> DhtAnswer:
        said = [forged] if swarm.random.random() < 0.5 else [forged[:-1] + b"x"]
        return replace(answer, args=(b"", said)) if answer.kind is DatagramKind.FOUND else answer

    swarm, honest = swarm_with(14, 5, lie)
    record = swarm.put_value(honest[0], b"here")
    assert found_by_all(swarm, honest, record) == [b"here"] * 14
    counts = sum((swarm.nodes[place].counts for place in honest), swarm.nodes[honest[0]].counts.copy())
    assert counts["answers refused: another record"] > 0
    assert counts["answers refused: dht-record-forged"] > 0


def test_lies_about_distance_lead_to_nobody() -> None:
    """Liars tell of made-up nodes right beside the target, at addresses of others: they can't prove those keys."""
    random = Random(5)

    def lie(answer: DhtAnswer, question: Question | None) -> DhtAnswer:
        if answer.kind not in (DatagramKind.NODES, DatagramKind.FOUND) or question is None:
            return answer
        target = int.from_bytes(question.args[0], "big")
        keys = sorted((random.randbytes(32) for _ in range(300)), key=lambda key: ids.node_id(key) ^ target)
        hosts = [f"127.9.{random.randrange(256)}.{1 + random.randrange(250)}" for _ in range(10)]
        near = b"".join(pack_entry(key, (host, PORT)) for key, host in zip(keys, hosts, strict=False))
        return replace(answer, args=(near, *answer.args[1:]))

    swarm, honest = swarm_with(14, 5, lie)
    record = swarm.put_value(honest[0], b"here")
    assert found_by_all(swarm, honest, record) == [b"here"] * 14
    real = {node.table.own for node in swarm.nodes.values()}
    for place in honest:
        assert {contact.id for contact in swarm.nodes[place].contacts} <= real


def surrounded(*, all_lie: bool) -> tuple[DhtSwarm, Endpoint, Record, Counter[Endpoint]]:
    """Return a swarm, an honest node in it, a record that is there, and how often each liar was asked for it.

    Liars are those that the node knows nearest to the record, or all that it could ask. They tell of each other
    alone, and of no record.
    """
    swarm = DhtSwarm(11, limits=DhtLimits(k=4), host=global_host)
    swarm.add_node()
    swarm.add_nodes(59)
    swarm.run_for(5)
    record = swarm.put_value(next(iter(swarm.nodes)), b"here")
    keeps = {where for where, node in swarm.nodes.items() if node.store.list_held(record.kind, record.target)}
    place = int.from_bytes(record.target, "big")

    def first_of(where: Endpoint) -> set[Endpoint]:
        return {each.endpoint for each in swarm.nodes[where].table.closest_contacts(place, 4)}

    asker = next(each for each in swarm.nodes if each not in keeps and not first_of(each) & keeps)
    liars = set(swarm.nodes) - {asker} if all_lie else first_of(asker)
    told = b"".join(pack_entry(swarm.nodes[each].identity.id.key, each) for each in sorted(liars)[:4])
    asked: Counter[Endpoint] = Counter()

    def liar(where: Endpoint) -> Liar:
        def lie(answer: DhtAnswer, question: Question | None) -> DhtAnswer:
            if answer.kind is not DatagramKind.FOUND:
                return answer
            asked[where] += 1
            return replace(answer, args=(told, []))

        return Liar(swarm, swarm.nodes[where], lie)

    for each in liars:
        swarm.network.add_node(each, liar(each))
    return swarm, asker, record, asked


def test_a_record_is_found_though_all_that_are_asked_first_are_liars() -> None:
    swarm, asker, record, asked = surrounded(all_lie=False)
    assert swarm.get_value(asker, record) == b"here"
    assert set(asked.values()) == {1}  # all four were asked, and none again
    assert len(asked) == 4
    assert swarm.nodes[asker].counts["lookups once more"] == 1


def test_a_lookup_begins_once_more_only_once_and_asks_nobody_twice() -> None:
    swarm, asker, record, asked = surrounded(all_lie=True)
    assert swarm.get_value(asker, record) is None
    assert max(asked.values()) == 1
    assert 4 < len(asked) <= 16
    assert swarm.nodes[asker].counts["lookups once more"] == 1


def test_who_knows_nobody_does_not_begin_once_more() -> None:
    node = a_node()
    node.get_records(RecordKind.MUTABLE, bytes(32), 1000.0)
    assert [event.result for event in node.take_events() if isinstance(event, OperationEnded)] == [[]]
    assert not node.counts["lookups once more"]


def test_entries_at_an_honest_node_s_address_under_another_key_are_found_out() -> None:
    """Mallory tells of keys of hers at honest endpoints, to have all ask there for her: it is not her who answers."""
    random = Random(6)

    def lie(answer: DhtAnswer, question: Question | None) -> DhtAnswer:
        if answer.kind is not DatagramKind.NODES:
            return answer
        hosts = [place[0] for place in list(swarm.nodes)[:10]]
        return replace(
            answer, args=(b"".join(pack_entry(random.randbytes(32), (host, PORT)) for host in hosts),)
        )

    swarm, honest = swarm_with(20, 5, lie)
    for place in honest[:5]:
        swarm.run_operation(place, lambda node, now: node.find_nodes(bytes(32), now))
    assert sum(swarm.nodes[place].counts["impostors"] for place in honest) > 0
    real = {node.table.own for node in swarm.nodes.values()}
    for place in honest:
        assert {contact.id for contact in swarm.nodes[place].contacts} <= real


def test_answers_that_nobody_asked_for_change_nothing() -> None:
    node = a_node()
    stranger = Stranger(node)
    stranger.prove()
    for kind, args in (
        (DatagramKind.NODES, (b"",)),
        (DatagramKind.PONG, (bytes(6),)),
        (DatagramKind.FOUND, (b"", [])),
        (DatagramKind.STORED, (0, b"")),
    ):
        stranger.say(encode(DhtAnswer(kind, bytes(8), args)))
    stranger.say(encode(DhtAnswer(DatagramKind.RETRY, bytes(8), token=bytes(16), key=bytes(32))))
    assert node.counts["answers to nothing"] == 5


def test_an_answer_from_another_address_is_not_the_answer() -> None:
    node = a_node()
    node.join_network([("60.1.1.1", 4000)], 1000.0)
    ((data, _),) = node.take_sends()
    question = decode(data)
    assert isinstance(question, Question)
    retry = encode(DhtAnswer(DatagramKind.RETRY, question.transaction, token=bytes(16), key=MALLORY.id.key))
    node.receive_datagram(retry, ("60.2.2.2", 4000), 1000.1)
    assert node.take_sends() == []
    assert node.counts["answers to nothing"] == 1


@pytest.mark.parametrize("own_name", [False, True])
def test_whoever_names_the_key_that_is_looked_for_has_to_sign_with_it(own_name: bool) -> None:
    """Mallory is asked in the place of another, names the other's key, and signs: with her own, under either name."""
    node, other = a_node(), Identity(bytes(31) + b"o", bytes(32))
    there = ("60.1.1.1", 4000)
    node.ping_node(other.id.key, there, 1000.0)
    question = decode(node.take_sends()[0][0])
    assert isinstance(question, Question)
    retry = DhtAnswer(DatagramKind.RETRY, question.transaction, token=b"t" * 16, key=other.id.key)
    node.receive_datagram(encode(retry), there, 1000.1)
    question = decode(node.take_sends()[0][0])
    assert isinstance(question, Question)
    name = MALLORY if own_name else other
    answer = DhtAnswer(DatagramKind.PONG, question.transaction, (bytes(6),), b"n" * 16, name.id.key)
    answer = replace(answer, proof=MALLORY.sign(answer_to_sign(answer, question.key)))
    node.receive_datagram(encode(answer), there, 1000.2)
    assert node.counts["impostors"] == 1
    assert len(node.table) == 0


def test_a_node_that_asks_for_proof_again_and_again_gets_one() -> None:
    node = a_node()
    node.join_network([("60.1.1.1", 4000)], 1000.0)
    ((data, there),) = node.take_sends()
    question = decode(data)
    assert isinstance(question, Question)
    retry = encode(DhtAnswer(DatagramKind.RETRY, question.transaction, token=b"t" * 16, key=MALLORY.id.key))
    node.receive_datagram(retry, there, 1000.1)
    assert len(node.take_sends()) == 1
    node.receive_datagram(retry, there, 1000.2)
    assert node.take_sends() == []
    assert node.counts["answers to nothing"] == 1
    for later in (1010.0, 1020.0):
        node.handle_timers(later)
    assert node.counts["unanswered"] == 1


# ---------------------------------------------------------------------------------------------- eclipse and sybils


def test_sybils_of_one_subnet_can_neither_fill_a_table_nor_surround_a_record() -> None:
    swarm = DhtSwarm(21, host=global_host, limits=DhtLimits(k=8, enough=5))
    swarm.add_node()
    swarm.add_nodes(29)
    honest = list(swarm.nodes)
    swarm.run_for(5)
    target = ids.mutable_target(swarm.nodes[honest[0]].identity.id.key, "value")
    place = int.from_bytes(target, "big")
    # many keys tried for each sybil, so that all are nearer to the record than anybody honest
    keys = sorted(
        (swarm.new_identity() for _ in range(400)), key=lambda each: ids.node_id(each.id.key) ^ place
    )
    for number, identity in enumerate(keys[:14]):
        where = swarm.add_node(honest[1], identity=identity, host=f"60.66.6.{1 + number}")
        swarm.network.add_node(
            where,
            Liar(swarm, swarm.nodes[where], lambda answer, question: replace(answer, args=(answer.args[0], []))
                 if answer.kind is DatagramKind.FOUND else answer),
        )  # fmt: skip
        swarm.run_for(0.5)
    sybils = {ids.node_id(identity.id.key) for identity in keys[:14]}
    for where in honest:
        assert sum(contact.id in sybils for contact in swarm.nodes[where].contacts) <= 10
    record = swarm.put_value(honest[0], b"not surrounded")
    assert record.target == target
    assert [swarm.get_value(where, record) for where in honest[5:15]] == [b"not surrounded"] * 10


def test_newcomers_can_t_push_old_contacts_out_of_a_node() -> None:
    """An eclipse: hundreds of keys in hundreds of subnets talk to a node that knows a few honest ones."""
    limits = DhtLimits(stranger_rate=1e9, stranger_burst=1e9, proof_rate=1e9, proof_burst=1e9)
    node, random = a_node(limits), Random(9)
    for number in range(40):
        Stranger(node, Identity(random.randbytes(32), bytes(32)), (f"61.{number}.1.1", 4000)).prove()
    honest = {contact.id for contact in node.contacts}
    assert len(honest) > 30
    for number in range(600):
        Stranger(node, Identity(random.randbytes(32), bytes(32)), (global_host(number), 4000)).prove()
    assert honest <= {contact.id for contact in node.contacts}
