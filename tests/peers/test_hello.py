"""Hellos as a value: who hears whom, what a key hides, and what floods, forgeries and short asks come to."""

from __future__ import annotations

import itertools
import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dtp.identity import Identity
from dtp.peers.lan import hello as module
from dtp.peers.lan.hello import ASK_SIZE, HEAD_SIZE, MAGIC, SEALED_SIZE, HelloLimits, HelloNode, blind_peer
from dtp.peers.private import NONCE_SIZE, PrivateNetwork
from dtp.peers.record import PeerRecord
from dtp.testing.pairs import ALICE, BOB, entropy

UNIX = 1_800_000_000.0
HERE, THERE = ("192.0.2.1", 6884), ("192.0.2.2", 40_000)
NETWORK, OTHERS = PrivateNetwork(bytes(32)), PrivateNetwork(bytes(range(32)))


def record(identity: Identity = ALICE, at: float = UNIX) -> PeerRecord:
    return PeerRecord.sign(identity, now=at, addresses=["tcp://192.0.2.1:9000"])


def node(network: PrivateNetwork | None = None, **limits: Any) -> HelloNode:
    return HelloNode(random=entropy("hello"), network=network, limits=HelloLimits(**limits))


def sent(node: HelloNode) -> list[tuple[bytes, module.Source | None]]:
    """What it wants to send, once."""
    outgoing, node.outgoing = node.outgoing, []
    return outgoing


def announcing(
    identity: Identity = ALICE, network: PrivateNetwork | None = None, *, to_all: bool = True
) -> HelloNode:
    """A node that has just said its first hello, if it does."""
    made = node(network)
    made.publish_record(record(identity), 0.0, to_all=to_all)
    return made


def hears(listener: HelloNode, data: bytes, now: float = 0.0) -> PeerRecord | None:
    return listener.receive_datagram(data, HERE, now, UNIX)


def test_hello_is_heard_at_once() -> None:
    ((data, to),) = sent(announcing())
    assert to is None
    assert hears(node(), data) == record()


def test_newcomer_hears_everybody_who_says_so_to_all() -> None:
    loud, quiet, newcomer = announcing(), announcing(BOB, to_all=False), node()
    assert len(sent(loud)) == 1
    assert sent(quiet) == []
    newcomer.send_ask(None)
    ((ask, _),) = sent(newcomer)
    for each in (loud, quiet):
        each.receive_datagram(ask, THERE, 10.0, UNIX)
    ((answer, to),) = sent(loud)
    assert to is None  # to the group: an ask with a forged source brings nobody anything
    assert hears(newcomer, answer) == record()
    assert sent(quiet) == []


def test_who_is_known_by_name_answers_to_the_asker_alone() -> None:
    quiet, stranger, asker = announcing(to_all=False), announcing(BOB, to_all=False), node()
    asker.send_ask(ALICE.id)
    ((ask, _),) = sent(asker)
    for each in (quiet, stranger):
        each.receive_datagram(ask, THERE, 1.0, UNIX)
    ((answer, to),) = sent(quiet)
    assert to == THERE
    assert hears(asker, answer) == record()
    assert sent(stranger) == []


def test_ask_does_not_say_whom_it_is_for() -> None:
    asker = node()
    asker.send_ask(ALICE.id)
    asker.send_ask(ALICE.id)
    (one, _), (two, _) = sent(asker)
    assert ALICE.id.key not in one
    assert one != two
    assert one[14:30] == blind_peer(ALICE.id, one[6:14])
    assert one[14:30] != blind_peer(BOB.id, one[6:14])


def test_no_answer_is_longer_than_its_ask() -> None:
    long = PeerRecord.sign(ALICE, now=UNIX, addresses=[f"tcp://{'a' * 200}:{n + 1}" for n in range(4)])
    quiet, asker = node(), node()
    quiet.publish_record(long, 0.0, to_all=False)
    asker.send_ask(ALICE.id)
    ((ask, _),) = sent(asker)
    assert len(ask) == ASK_SIZE
    quiet.receive_datagram(ask, THERE, 0.0, UNIX)
    ((answer, _),) = sent(quiet)
    assert len(long.encoded) + 6 == len(answer) <= len(ask)
    quiet.receive_datagram(ask[: len(answer) - 1], THERE, 0.0, UNIX)
    assert sent(quiet) == []
    assert quiet.counters == {"short-ask": 1}


@given(size=st.integers(0, 2000), network=st.booleans())
def test_whatever_is_asked_an_address_gets_no_more_than_it_sent(size: int, network: bool) -> None:
    quiet = announcing(network=NETWORK if network else None, to_all=False)
    asker = node(NETWORK if network else None)
    asker.send_ask(ALICE.id)
    ((ask, _),) = sent(asker)
    data = ask[:size]
    quiet.receive_datagram(data, THERE, 0.0, UNIX)
    assert sum(len(answer) for answer, _ in sent(quiet)) <= len(data)


def test_flood_of_asks_makes_one_hello_a_second() -> None:
    loud, asker, hellos = announcing(), node(), []
    sent(loud)
    for step in range(1000):
        now = 10 + step / 100
        asker.send_ask(None)
        ((ask, _),) = sent(asker)
        loud.receive_datagram(ask, (f"192.0.2.{step % 250}", 1), now, UNIX)
        loud.send_due(now)
        hellos += sent(loud)
    assert len(hellos) == 10


def test_who_looks_for_many_whom_nobody_waits_for_is_still_heard() -> None:
    """As a node that was off for a day: it dials hundreds again, and asked the LAN for each five times a second."""
    busy, listener, asks = announcing(), node(), 0
    (hello, _), *_ = sent(busy)
    for step in range(6000):
        now = step / 100
        if busy.try_take_ask(now):
            busy.send_ask(BOB.id)
        for data, _ in sent(busy):
            listener.receive_datagram(data, HERE, now, UNIX)
            asks += 1
        if step % 100 == 0:
            assert hears(listener, hello, now) == record()
    assert asks >= 60 * HelloLimits().told_rate
    assert not listener.counters["flood"]


def test_flood_of_one_source_leaves_others_heard() -> None:
    listener = node()
    for step in range(10_000):
        listener.receive_datagram(b"nonsense", ("192.0.2.66", step), step / 10_000, UNIX)
    assert listener.counters["flood"] > 9_800
    assert hears(listener, sent(announcing())[0][0], 1.0) == record()


def test_memory_for_sources_is_bounded() -> None:
    listener = node(sources=8)
    for step in range(1000):
        listener.receive_datagram(b"x", (f"198.51.100.{step}", 1), 0.0, UNIX)
    assert len(listener._sources) == 8


def test_flood_of_many_sources_is_bounded_in_sum() -> None:
    listener = node()
    hello = sent(announcing())[0][0]
    heard = [listener.receive_datagram(hello, (f"host{n}", 1), 0.0, UNIX) for n in range(2000)]
    assert sum(each is not None for each in heard) == HelloLimits().all_burst


def test_forged_old_future_and_broken_hellos_are_counted() -> None:
    listener = node()
    good = record().encoded
    head = MAGIC + bytes((module.HELLO,))
    cases = {
        "peer-record-forged": head + good[:-1] + bytes((good[-1] ^ 1,)),
        "peer-record-expired": head + record(at=UNIX - 90_000).encoded,
        "peer-record-future": head + record(at=UNIX + 3600).encoded,
        "peer-record": head + b"\x80" * 200,
        "malformed": b"DTPH\x02\x01" + good,
        "not-of-network": MAGIC + bytes((module.SEALED,)) + bytes(200),
    }
    for data in cases.values():
        assert hears(listener, data) is None
    assert listener.counters == dict.fromkeys(cases, 1)
    assert listener.clock_advice.startswith("2 hellos had ended or came from the future")
    assert node().clock_advice == ""
    assert hears(listener, MAGIC + b"\x09" + good) is None
    assert hears(listener, MAGIC + b"\x00" + good) is None
    assert hears(listener, bytes(SEALED_SIZE + 1)) is None
    assert listener.counters["malformed"] == 4


@given(st.binary(max_size=1300))
def test_noise_is_dropped(data: bytes) -> None:
    for network in (None, NETWORK):
        listener = announcing(network=network)
        sent(listener)
        for each in (data, MAGIC + data):
            assert hears(listener, each) is None


def test_no_datagram_is_looked_at_that_is_longer_than_any_may_be() -> None:
    for network in (None, NETWORK):
        ((hello, _),) = sent(announcing(network=network))
        listener = node(network)
        assert hears(listener, hello.ljust(SEALED_SIZE + 1, b"\0")) is None
        assert listener.counters == {"malformed": 1}


def test_own_hello_is_not_news() -> None:
    loud = announcing()
    assert hears(loud, sent(loud)[0][0]) is None


# ---- private networks -----------------------------------------------------------------------------------------


def test_holders_of_the_key_find_each_other() -> None:
    quiet, asker = announcing(network=NETWORK, to_all=False), node(NETWORK)
    asker.send_ask(ALICE.id)
    ((ask, _),) = sent(asker)
    quiet.receive_datagram(ask, THERE, 0.0, UNIX)
    ((answer, to),) = sent(quiet)
    assert to == THERE
    assert hears(asker, answer) == record()


def test_others_learn_nothing_and_tell_nothing() -> None:
    loud = announcing(network=NETWORK)
    ((hello, _),) = sent(loud)
    assert ALICE.id.key not in hello
    assert b"192.0.2.1" not in hello
    for stranger in (node(), node(OTHERS)):
        assert hears(stranger, hello) is None
        assert stranger.counters == {"not-of-network": 1}
        stranger.send_ask(ALICE.id)
        stranger.send_ask(None)
        for ask, _ in sent(stranger):
            loud.receive_datagram(ask, THERE, 5.0, UNIX)
        assert sent(loud) == []


def test_all_that_is_sealed_is_of_one_length() -> None:
    one, asker = announcing(network=NETWORK), node(NETWORK)
    asker.send_ask(None)
    asker.send_ask(BOB.id)
    assert {len(data) for data, _ in [*sent(one), *sent(asker)]} == {SEALED_SIZE}


def test_sealed_hello_that_was_changed_is_dropped() -> None:
    ((hello, _),) = sent(announcing(network=NETWORK))
    for at in (6, 30, len(hello) - 1):
        changed = bytearray(hello)
        changed[at] ^= 1
        listener = node(NETWORK)
        assert hears(listener, bytes(changed)) is None
        assert listener.counters == {"not-of-network": 1}


def test_what_is_sealed_in_another_length_is_refused() -> None:
    """A member whose hellos are short would tell everybody which hellos are whose."""
    ((hello, _),) = sent(announcing(network=NETWORK))
    inside = NETWORK.open(hello[HEAD_SIZE:], MAGIC)
    for size in (len(inside) - 1, 500, 2, 0):
        sealed = hello[:HEAD_SIZE] + NETWORK.seal(inside[:size], bytes(NONCE_SIZE), MAGIC)
        listener = node(NETWORK)
        assert hears(listener, sealed) is None
        assert listener.counters == {"malformed": 1}


# ---- times ----------------------------------------------------------------------------------------------------


def test_hellos_come_again_and_then_seldom() -> None:
    loud, times = announcing(), [0.0]
    for _ in range(12):
        times.append(loud.next_time())
        loud.send_due(times[-1])
    assert len(sent(loud)) == 13
    assert times[:3] == [0.0, 1.0, 4.0]
    assert all(270 <= later - earlier <= 330 for earlier, later in itertools.pairwise(times[2:]))


def test_quiet_node_never_wakes() -> None:
    assert announcing(to_all=False).next_time() == math.inf
    loud = announcing()
    loud.withdraw_record()
    assert loud.next_time() == math.inf
    loud.send_due(1e9)
    assert len(sent(loud)) == 1


def test_new_record_is_said_within_a_second() -> None:
    loud = announcing()
    newer = record(at=UNIX + 1)
    loud.publish_record(newer, 0.2, to_all=True)
    assert loud.next_time() == 1.0
    loud.send_due(1.0)
    assert [data for data, _ in sent(loud)][-1].endswith(newer.encoded)


def test_goodbye_is_said_at_once() -> None:
    loud, quiet = announcing(), announcing(to_all=False)
    last = PeerRecord.sign(ALICE, now=UNIX + 1, ttl=60)
    for each in (loud, quiet):
        sent(each)
        each.withdraw_record(last)
    ((goodbye, to),) = sent(loud)
    assert (goodbye[6:], to) == (last.encoded, None)
    assert sent(quiet) == []  # nobody was told that it is here
