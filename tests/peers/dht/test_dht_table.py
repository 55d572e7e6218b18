"""The routing table as a state machine, and what keeps newcomers from pushing old contacts out."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dtp.peers.dht.contacts import NodeContact
from dtp.peers.dht.ids import BITS, node_id
from dtp.peers.dht.limits import DhtLimits
from dtp.peers.dht.table import RoutingTable

LIMITS = DhtLimits(k=4, per_subnet=2, table_per_subnet=5, replacements=3)
OWN = node_id(bytes(32))


def contact(number: int, host: str = "127.0.0.1", *, seen: float = 0.0) -> NodeContact:
    made = NodeContact(number.to_bytes(32, "big"), (host, 4000 + number % 1000))
    made.seen = seen
    return made


class TableMachine(RuleBasedStateMachine):
    """Contacts come, are silent, fail and go, in any order. The model is a set of those that were let in."""

    @initialize(subnets=st.booleans())
    def begin(self, subnets: bool) -> None:
        self.subnets = subnets
        self.table = RoutingTable(OWN, LIMITS, subnets=subnets)
        self.now = 1000.0
        self.made: dict[tuple[int, str], NodeContact] = {}

    def a_contact(self, number: int, subnet: int) -> NodeContact:
        host = f"60.{subnet}.1.{1 + number % 200}"
        return self.made.setdefault((number, host), contact(number, host))

    @rule(number=st.integers(1, 60), subnet=st.integers(0, 3), wait=st.sampled_from([0.0, 10.0, 400.0]))
    def offer(self, number: int, subnet: int, wait: float) -> None:
        self.now += wait
        before = set(self.table)
        one = self.a_contact(number, subnet)
        one.seen = self.now
        doubtful = self.table.add_contact(one, self.now)
        gone = before - set(self.table)
        # nobody is pushed out, but the same node at another endpoint that has been silent or failing
        assert all(each.id == one.id and each is not one for each in gone)
        if doubtful is not None:
            assert doubtful in self.table
            assert self.now - doubtful.seen > LIMITS.questionable

    @rule(number=st.integers(1, 60), subnet=st.integers(0, 3))
    def remove(self, number: int, subnet: int) -> None:
        one = self.a_contact(number, subnet)
        others = {each for each in self.table if each is not one}
        self.table.remove_contact(one, self.now)
        assert one not in self.table
        assert others <= set(self.table)

    @rule(place=st.integers(0, 2**BITS - 1), count=st.integers(1, 20))
    def nearest(self, place: int, count: int) -> None:
        expected = sorted(self.table, key=lambda each: each.id ^ place)[:count]
        assert self.table.closest_contacts(place, count) == expected
        ours = OWN ^ place
        assert self.table.closer_than_us(place) == sum(each.id ^ place < ours for each in self.table)

    @rule(number=st.integers(1, 60))
    def touch(self, number: int) -> None:
        self.table.touch_bucket(node_id(number.to_bytes(32, "big")), self.now)

    @invariant()
    def holds(self) -> None:
        table = self.table
        contacts = list(table)
        assert len({each.id for each in contacts}) == len(contacts) == len(table)
        in_buckets = [
            each for bucket in table.buckets_by_bits().values() for each in bucket.contacts.values()
        ]
        assert sorted(map(id, in_buckets)) == sorted(map(id, contacts))
        for bits, bucket in table.buckets_by_bits().items():
            assert len(bucket.contacts) <= LIMITS.k
            assert len(bucket.waiting) <= LIMITS.replacements
            assert all(table.shared_bits(each.id) == bits for each in bucket.contacts.values())
            assert not set(bucket.contacts) & set(bucket.waiting)
            if self.subnets:
                subnets = [each.subnet for each in bucket.contacts.values()]
                assert max(map(subnets.count, subnets), default=0) <= LIMITS.per_subnet
        if self.subnets:
            subnets = [each.subnet for each in contacts]
            assert max(map(subnets.count, subnets), default=0) <= LIMITS.table_per_subnet
        silent = table.silent_longest()
        assert (silent is None) == (not contacts)


TestTable = TableMachine.TestCase
TestTable.settings = settings(max_examples=40, stateful_step_count=40)


def fill(table: RoutingTable, *, seen: float = 1000.0) -> list[NodeContact]:
    """Fill the farthest bucket; return those that are in it and those that found no place."""
    number, found = 0, []
    while len(found) < LIMITS.k + 3:
        number += 1
        one = contact(number, seen=seen)
        if table.shared_bits(one.id) == 0:
            found.append(one)
            table.add_contact(one, seen)
    return found


def test_old_contacts_stay_and_newcomers_wait() -> None:
    table = RoutingTable(OWN, LIMITS)
    contacts = fill(table)
    assert list(table) == contacts[: LIMITS.k]
    table.remove_contact(contacts[0], 1001.0)
    assert set(table) == {*contacts[1 : LIMITS.k], contacts[-1]}  # the newest that waited


def test_a_silent_contact_of_a_full_bucket_has_to_answer() -> None:
    table = RoutingTable(OWN, LIMITS)
    contacts = fill(table)
    late = 1000.0 + LIMITS.questionable + 1
    newcomer = contacts[-1]
    assert table.add_contact(newcomer, late) is contacts[0]
    contacts[0].seen = late
    table.add_contact(contacts[0], late)
    assert table.add_contact(newcomer, late) is contacts[1]


def test_a_key_at_another_endpoint_does_not_take_the_place_of_one_that_answers() -> None:
    table = RoutingTable(OWN, LIMITS)
    here, there = contact(1, "127.0.0.1", seen=1000.0), contact(1, "127.0.0.2", seen=1000.0)
    table.add_contact(here, 1000.0)
    table.add_contact(there, 1001.0)
    assert list(table) == [here]
    here.failures = 1
    table.add_contact(there, 1002.0)
    assert list(table) == [there]


def test_our_own_id_is_no_contact() -> None:
    table = RoutingTable(OWN, LIMITS)
    table.add_contact(NodeContact(bytes(32), ("127.0.0.1", 1)), 1.0)
    assert list(table) == []


def test_those_that_did_not_answer_are_told_to_nobody() -> None:
    table = RoutingTable(OWN, LIMITS)
    first, second = contact(1), contact(2)
    table.add_contact(first, 1.0)
    table.add_contact(second, 1.0)
    first.failures = 1
    assert table.closest_contacts(first.id, 4) == [second]
    second.failures = 1
    assert table.closest_contacts(first.id, 4) == [first, second]  # better than nobody


@pytest.mark.parametrize("host", ["127.0.0.1", "10.1.2.3", "192.168.1.7", "fd00::7"])
def test_local_addresses_have_no_subnet_that_counts(host: str) -> None:
    table = RoutingTable(OWN, DhtLimits())
    for number in range(1, 40):
        table.add_contact(contact(number, host), 1.0)
    assert len(table) > 2 * 10
