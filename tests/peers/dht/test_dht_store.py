"""What a node keeps is bounded for each author, each sender and in sum; quotas, tokens and timers besides."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dtp.identity import Identity
from dtp.peers.dht import addresses
from dtp.peers.dht.addresses import Scope, may_tell, pack_endpoint, scope_of, subnet_of, unpack_endpoint
from dtp.peers.dht.admission import NONE, Tokens, TokenStanding
from dtp.peers.dht.contacts import RoundTrips
from dtp.peers.dht.limits import DhtLimits
from dtp.peers.dht.messages import StoreVerdict
from dtp.peers.dht.records import Mutable, Provider, Record, RecordKind
from dtp.peers.dht.store import RecordStore
from dtp.peers.dht.timers import Timers

NOW = 1_700_000_000.0
CONTENT = bytes(32)


def people(count: int, seed: int = 0) -> list[Identity]:
    random = Random(seed)
    return [Identity(random.randbytes(32), random.randbytes(32)) for _ in range(count)]


def mutable(author: Identity, name: str = "x", sequence: int = 1, size: int = 4, ttl: float = 3600) -> Record:
    return Record.from_value(
        Mutable.sign(author, bytes(size), name=name, sequence=sequence, now=NOW, ttl=ttl)
    )


def provider(author: Identity, content: bytes = CONTENT) -> Record:
    return Record.from_value(Provider.sign(author, content, now=NOW))


def test_the_newest_sequence_stays() -> None:
    (alice,) = people(1)
    store = RecordStore(0, DhtLimits())
    new, old = mutable(alice, sequence=2), mutable(alice, sequence=1)
    assert store.add_record(old, b"", 1.0) is StoreVerdict.STORED
    assert store.add_record(new, b"", 2.0) is StoreVerdict.STORED
    assert store.add_record(old, b"", 3.0) is StoreVerdict.OLDER  # a replay
    assert [each.record for each in store.list_held(RecordKind.MUTABLE, new.target)] == [new]
    assert len(store) == 1
    assert store.size == len(new.encoded)


def test_an_author_and_a_sender_use_up_only_their_own_room() -> None:
    alice, bob, *others = people(12)
    store = RecordStore(0, DhtLimits(per_author=3, per_source=5))
    for number in range(3):
        assert store.add_record(mutable(alice, f"n{number}"), b"a", 1.0) is StoreVerdict.STORED
    assert store.add_record(mutable(alice, "n3"), b"b", 1.0) is StoreVerdict.FULL
    assert store.add_record(mutable(bob), b"b", 1.0) is StoreVerdict.STORED
    verdicts = [store.add_record(mutable(each), b"c", 1.0) for each in others]
    assert verdicts == [StoreVerdict.STORED] * 5 + [StoreVerdict.FULL] * 5
    assert store.add_record(mutable(others[-1]), b"d", 1.0) is StoreVerdict.STORED


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 400)), max_size=40))
@example(
    [
        (0, 0, 0),
        (0, 1, 0),
        (0, 2, 128),
        (0, 3, 256),
        (1, 0, 128),
        (1, 1, 352),
        (1, 2, 400),
        (2, 0, 400),
        (0, 0, 400),
    ]
)
def test_bounds_and_sums_hold_whatever_comes(stored: list[tuple[int, int, int]]) -> None:
    limits = DhtLimits(records=10, record_bytes=3000, per_author=4)
    store = RecordStore(77, limits)
    authors = people(6)
    for number, name, size in stored:
        store.add_record(mutable(authors[number], f"n{name}", sequence=size, size=size), b"", 1.0)
        assert len(store) <= limits.records
        assert store.size <= limits.record_bytes
        assert store.size == sum(len(held.record.encoded) for held in store)
        assert len(store) == len(list(store))


def test_the_farthest_makes_place_for_what_is_nearer() -> None:
    store = RecordStore(0, DhtLimits(records=5))
    records = sorted((mutable(each) for each in people(12)), key=lambda each: each.target)  # our id is 0
    for each in records[3:8]:
        store.add_record(each, b"", 1.0)
    assert store.add_record(records[9], b"", 1.0) is StoreVerdict.FULL
    assert store.add_record(records[0], b"", 1.0) is StoreVerdict.STORED
    assert store.list_held(RecordKind.MUTABLE, records[7].target) == []
    assert len(store) == 5


def test_many_providers_of_one_content_push_out_their_own_kind() -> None:
    honest, *sybils = people(12)
    store = RecordStore(0, DhtLimits(providers=6))
    store.add_record(provider(honest), b"honest", 1.0)
    verdicts = [store.add_record(provider(each), b"sybils", 1.0) for each in sybils]
    assert verdicts[:5] == [StoreVerdict.STORED] * 5
    assert set(verdicts[5:]) == {StoreVerdict.FULL}
    late = people(1, seed=9)[0]
    assert store.add_record(provider(late), b"elsewhere", 1.0) is StoreVerdict.STORED
    authors = {each.record.author for each in store.list_held(RecordKind.PROVIDER, provider(honest).target)}
    assert {honest.id.key, late.id.key} < authors
    assert len(authors) == 6


def test_what_has_ended_is_forgotten() -> None:
    alice, bob = people(2)
    store = RecordStore(0, DhtLimits())
    store.add_record(mutable(alice, ttl=60), b"", 1.0)
    store.add_record(mutable(bob, ttl=600), b"", 1.0)
    assert store.drop_expired(NOW + 59) == 0
    assert store.drop_expired(NOW + 60) == 1
    assert [held.record.author for held in store] == [bob.id.key]


# ------------------------------------------------------------------------------------------------------------- tokens


def test_a_token_is_good_for_its_address_and_key_and_for_two_lifetimes() -> None:
    tokens = Tokens(bytes(range(32)), 100.0)
    here, there, key = b"here42", b"there4", bytes(32)
    peer, address = tokens.peer_token(here, key, 10.0), tokens.address_token(here, key, 10.0)
    assert tokens.check_token(peer, here, key, 50.0) is TokenStanding.PEER
    assert tokens.check_token(address, here, key, 50.0) is TokenStanding.ADDRESS
    assert tokens.check_token(peer, here, key, 150.0) is TokenStanding.PEER_BEFORE
    assert tokens.check_token(address, here, key, 150.0) is TokenStanding.ADDRESS
    assert tokens.check_token(peer, here, key, 250.0) is TokenStanding.NOTHING
    assert tokens.check_token(peer, there, key, 50.0) is TokenStanding.NOTHING
    assert tokens.check_token(peer, here, bytes(31) + b"x", 50.0) is TokenStanding.NOTHING
    assert tokens.check_token(NONE, here, key, 50.0) is TokenStanding.NOTHING
    assert Tokens(bytes(32), 100.0).check_token(peer, here, key, 50.0) is TokenStanding.NOTHING


# ------------------------------------------------------------------------------------------------------------- timers


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=60))
def test_timers_are_called_in_order_and_once(planned: list[tuple[float, bool]]) -> None:
    timers, called = Timers(), []
    for number, (when, cancelled) in enumerate(planned):
        timer = timers.start_timer(when, lambda now, number=number: called.append(number))
        if cancelled:
            timer.cancel()
            timer.cancel()
    kept = [number for number, (_, cancelled) in enumerate(planned) if not cancelled]
    assert len(timers) == len(kept)
    timers.run_due(100.0)
    assert called == sorted(kept, key=lambda number: planned[number][0])
    assert timers.next_time() is None


def test_cancelled_timers_don_t_pile_up() -> None:
    timers = Timers()
    for _ in range(10_000):
        timers.start_timer(1e9, lambda now: None).cancel()
    assert len(timers._heap) < 1000
    assert len(timers) == 0


def test_timeouts_follow_the_round_trips() -> None:
    limits, trips = DhtLimits(), RoundTrips()
    assert trips.current_timeout(limits) == limits.first_timeout
    for _ in range(50):
        trips.observe_round_trip(0.08)
    # All alike: later than any of them by something, or a question is asked again as its answer comes.
    assert 0.08 + limits.shortest_timeout <= trips.current_timeout(limits) < 0.1
    for _ in range(50):
        trips.observe_round_trip(0.0001)
    assert trips.current_timeout(limits) == pytest.approx(limits.shortest_timeout, abs=0.001)
    trips.observe_round_trip(60.0)
    assert trips.current_timeout(limits) == limits.longest_timeout


# ---------------------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("host", "scope"),
    [
        ("127.0.0.1", Scope.LOOPBACK),
        ("::1", Scope.LOOPBACK),
        ("10.0.0.1", Scope.PRIVATE),
        ("192.168.7.7", Scope.PRIVATE),
        ("100.64.0.1", Scope.PRIVATE),
        ("fd00::1", Scope.PRIVATE),
        ("60.1.2.3", Scope.GLOBAL),
        ("2a00::1", Scope.GLOBAL),
        ("::ffff:60.1.2.3", Scope.GLOBAL),
        ("0.0.0.0", None),
        ("224.0.0.1", None),
        ("255.255.255.255", None),
        ("250.1.2.3", None),
        ("fe80::1%eth0", None),
        ("example.net", None),
    ],
)
def test_scopes(host: str, scope: Scope | None) -> None:
    assert scope_of((host, 4000)) is scope
    assert scope_of((host, 0)) is None


def test_subnets_are_of_global_addresses() -> None:
    assert subnet_of(("60.1.2.3", 1)) == subnet_of(("60.1.2.200", 2)) != subnet_of(("60.1.3.3", 1))
    assert (
        subnet_of(("2a00:1:2:3::4", 1)) == subnet_of(("2a00:1:2:ffff::4", 1)) != subnet_of(("2a00:1:3::4", 1))
    )
    assert subnet_of(("10.0.0.1", 1)) == subnet_of(("127.0.0.1", 1)) == b""


def test_nobody_far_away_sends_us_into_our_own_network() -> None:
    far, lan, here = ("60.1.2.3", 1), ("10.0.0.1", 1), ("127.0.0.1", 1)
    assert [may_tell(told, far) for told in (far, lan, here)] == [True, False, False]
    assert [may_tell(told, lan) for told in (far, lan, here)] == [True, True, False]
    assert [may_tell(told, here) for told in (far, lan, here)] == [True, True, True]


@given(st.ip_addresses(), st.integers(0, 65535))
def test_endpoints_are_packed_and_unpacked(address: object, port: int) -> None:
    packed = pack_endpoint((str(address), port))
    assert len(packed) in (6, 18)
    assert pack_endpoint(unpack_endpoint(packed)) == packed


@pytest.mark.parametrize("size", [0, 5, 7, 17, 19])
def test_other_lengths_are_no_endpoints(size: int) -> None:
    with pytest.raises(ValueError, match="6 or 18"):
        addresses.unpack_endpoint(bytes(size))


class Counting(int):
    """A node's id that counts how often a distance from it was computed."""

    times: list[int]

    def __rxor__(self, other: int) -> int:
        self.times.append(other)
        return int(self) ^ other


def test_a_full_store_looks_at_what_it_keeps_no_more_than_once_for_a_record() -> None:
    """A flood of records would cost a look at all 4,096 for each."""
    own = Counting(0)
    own.times = []
    store = RecordStore(own, DhtLimits(records=500, per_author=1 << 20))
    (alice,) = people(1)
    records = [mutable(alice, f"n{number}") for number in range(1500)]
    for record in records[:500]:
        assert store.add_record(record, b"", 1.0) is StoreVerdict.STORED
    own.times.clear()
    for record in records[500:]:
        store.add_record(record, b"", 1.0)
    assert len(own.times) <= 3 * 1000
    nearest = sorted(records, key=lambda record: int.from_bytes(record.target, "big"))[:500]
    assert {held.record for held in store} == set(nearest)


def test_records_that_are_replaced_or_end_leave_nothing() -> None:
    (alice,) = people(1)
    store = RecordStore(0, DhtLimits(records=40))
    for sequence in range(1, 2000):
        store.add_record(mutable(alice, f"n{sequence % 30}", sequence, ttl=60 + sequence % 30), b"", 1.0)
        if not sequence % 500:
            store.drop_expired(NOW + 75)
    kept = {held.record.target for held in store}
    assert len(store) == len(kept) <= 30
    for number in range(100):
        store.add_record(mutable(alice, f"m{number}"), b"", 1.0)
    assert len(store) == 40


def test_a_record_that_is_replaced_again_and_again_makes_room_for_nearer_ones() -> None:
    """It was forgotten as one that may go, and with others of its kind nobody else had room."""
    (alice,) = people(1)
    near, far = sorted((mutable(alice, name) for name in "ab"), key=lambda record: record.target)
    (name,) = [each for each in "ab" if mutable(alice, each).target == far.target]
    versions = [mutable(alice, name, sequence) for sequence in range(1, 200)]
    for times in range(1, 200):
        store = RecordStore(0, DhtLimits(records=1))
        for each in versions[:times]:
            assert store.add_record(each, b"", 1.0) is StoreVerdict.STORED
        assert store.add_record(near, b"", 1.0) is StoreVerdict.STORED
        assert [held.record for held in store] == [near]
