"""Lookups as values: they find the nearest there are, by disjoint paths, whoever lies on the way."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.peers.dht.contacts import NodeContact
from dtp.peers.dht.limits import DhtLimits
from dtp.peers.dht.lookup import Lookup

LIMITS = DhtLimits(k=8)
OWN = 0


def contact(number: int, host: str = "127.0.0.1") -> NodeContact:
    return NodeContact(number.to_bytes(32, "big"), (host, 4000))


class World:
    """Nodes that know some of the others; `answers` may be changed for liars."""

    def __init__(self, count: int, seed: int) -> None:
        random = Random(seed)
        self.nodes = [contact(number) for number in range(1, count + 1)]
        self.dead: set[int] = set()
        self.asked: list[NodeContact] = []
        ordered = sorted(self.nodes, key=lambda node: node.id)
        self.knows: dict[int, list[NodeContact]] = {}
        for place, node in enumerate(ordered):
            near = ordered[max(0, place - 12) : place + 13]
            self.knows[node.id] = [
                each for each in {*near, *random.sample(ordered, min(count, 12))} if each is not node
            ]
        self.answers: Callable[[NodeContact, int], list[NodeContact]] = self.honest

    def honest(self, node: NodeContact, target: int) -> list[NodeContact]:
        return sorted(self.knows[node.id], key=lambda each: each.id ^ target)[: LIMITS.k]

    def nearest(self, target: int) -> list[NodeContact]:
        alive = [each for each in self.nodes if each.id not in self.dead]
        return sorted(alive, key=lambda each: each.id ^ target)[: LIMITS.k]

    def run(self, lookup: Lookup) -> None:
        for _ in range(1000):
            batch = lookup.next_contacts()
            self.asked += batch
            for each in batch:
                if each.id in self.dead:
                    lookup.on_stalled(each)
                    batch += lookup.next_contacts()
                    lookup.on_failed(each)
                else:
                    lookup.on_answered(each, self.answers(each, lookup.target))
            if lookup.finished:
                return
        raise AssertionError("the lookup doesn't end")


@given(st.integers(1, 150), st.integers(0, 5), st.integers(0, 2**256 - 1))
def test_a_lookup_finds_the_nearest_there_are(count: int, seed: int, target: int) -> None:
    world = World(count, seed)
    lookup = Lookup(target, OWN, Random(seed).sample(world.nodes, min(count, 5)), LIMITS)
    world.run(lookup)
    found = lookup.closest_answered(LIMITS.k)
    assert found == world.nearest(target)[: len(found)]
    assert len(found) == min(LIMITS.k, count)
    assert len(world.asked) == len({each.id for each in world.asked})  # nobody twice


@given(st.integers(0, 5), st.integers(0, 2**256 - 1))
def test_dead_nodes_only_cost_questions(seed: int, target: int) -> None:
    world = World(120, seed)
    world.dead = {each.id for each in Random(seed).sample(world.nodes, 30)}
    alive = [each for each in world.nodes if each.id not in world.dead]
    lookup = Lookup(target, OWN, alive[:6], LIMITS)
    world.run(lookup)
    assert set(lookup.closest_answered(LIMITS.k)) <= set(alive)
    assert len(set(lookup.closest_answered(LIMITS.k)) & set(world.nearest(target))) >= LIMITS.k - 1


def test_one_question_is_on_its_way_on_each_path() -> None:
    world = World(60, 1)
    lookup = Lookup(7, OWN, world.nodes[:20], LIMITS)
    first = lookup.next_contacts()
    assert len(first) == LIMITS.alpha
    assert len({lookup.path_of(each) for each in first}) == LIMITS.paths
    assert lookup.next_contacts() == []
    assert not lookup.finished
    lookup.on_stalled(first[0])
    beside = lookup.next_contacts()
    assert len(beside) >= 1
    assert lookup.path_of(beside[0]) == lookup.path_of(first[0])


def test_a_liar_leads_only_its_own_path_astray() -> None:
    """It tells of made-up nodes that are ever nearer; they don't answer, or answer in the same way."""
    world = World(150, 3)
    target = 2**255 + 12345
    made_up: dict[int, list[NodeContact]] = {}

    def lie(node: NodeContact, target: int) -> list[NodeContact]:
        if node is liar or node.id in made_up:
            nearer = sorted(
                (contact(10_000 + 50 * len(made_up) + n) for n in range(50)),
                key=lambda each: each.id ^ target,
            )[:8]
            made_up.update({each.id: [] for each in nearer})
            return nearer
        return world.honest(node, target)

    world.answers = lie
    liar = world.nodes[0]
    lookup = Lookup(target, OWN, world.nodes[:9], LIMITS)
    world.run(lookup)
    honest = world.nearest(target)
    assert len(world.asked) <= LIMITS.lookup_questions
    asked = {each.id for each in world.asked}
    assert {each.id for each in honest[:4]} <= asked  # others' paths came there all the same


def test_ever_nearer_nodes_end_at_the_limit_of_questions() -> None:
    made = iter(range(10, 10**9))
    limits = DhtLimits(k=8, lookup_questions=12)
    lookup = Lookup(5, OWN, [contact(1)], limits)
    asked = 0
    while not lookup.finished:
        for each in lookup.next_contacts():
            asked += 1
            lookup.on_answered(
                each, sorted((contact(next(made)) for _ in range(200)), key=lambda c: c.id ^ 5)[:8]
            )
    assert asked == 12


def test_an_answer_with_more_than_k_nodes_brings_k() -> None:
    lookup = Lookup(5, OWN, [contact(1)], LIMITS)
    (first,) = lookup.next_contacts()
    lookup.on_answered(first, [contact(number) for number in range(2, 200)])
    while not lookup.finished:
        for each in lookup.next_contacts():
            lookup.on_answered(each, [])
    assert lookup.asked <= 1 + LIMITS.k


@pytest.mark.parametrize("subnets", [True, False])
def test_few_of_a_subnet_are_asked_and_count(subnets: bool) -> None:
    sybils = [contact(number, f"60.1.2.{number}") for number in range(1, 100)]
    honest = [contact(1000 + number, f"61.{number}.1.1") for number in range(30)]
    target = sybils[0].id
    lookup = Lookup(target, OWN, honest[:6], LIMITS, subnets=subnets)
    near = sorted(sybils, key=lambda each: each.id ^ target)
    while not lookup.finished:
        for each in lookup.next_contacts():
            lookup.on_answered(each, near[:8] if each in sybils or each is honest[0] else honest[:8])
    found = lookup.closest_answered(LIMITS.k)
    assert sum(each in sybils for each in found) <= (2 if subnets else LIMITS.k)
    if not subnets:
        assert sum(each in sybils for each in found) > 2


def test_few_of_a_subnet_count_though_each_path_brings_some() -> None:
    honest = [contact(1000 + number, f"61.{number}.1.1") for number in range(6)]
    sybils = [contact(number, f"60.1.2.{number}") for number in range(1, 100)]
    target = sybils[0].id
    near = sorted(sybils, key=lambda each: each.id ^ target)
    lookup = Lookup(target, OWN, honest, LIMITS)
    asked = []
    while not lookup.finished:
        for each in lookup.next_contacts():
            asked.append(each)
            part = lookup.path_of(each) * 2
            lookup.on_answered(each, near[part : part + 2] if each in honest else [])
    assert sum(each in sybils for each in asked) > LIMITS.per_subnet
    assert sum(each in sybils for each in lookup.closest_answered(LIMITS.k)) == LIMITS.per_subnet


def test_a_late_answer_still_counts() -> None:
    lookup = Lookup(5, OWN, [contact(1)], LIMITS)
    (one,) = lookup.next_contacts()
    lookup.on_stalled(one)
    assert not lookup.finished
    lookup.on_answered(one, [])
    assert lookup.finished
    assert lookup.closest_answered(8) == [one]


def test_we_never_ask_ourselves() -> None:
    own = contact(3).id
    lookup = Lookup(5, own, [contact(1)], LIMITS)
    (one,) = lookup.next_contacts()
    lookup.on_answered(one, [contact(3)])
    assert lookup.next_contacts() == []
    assert lookup.finished


def test_nobody_known_is_the_end() -> None:
    lookup = Lookup(5, OWN, [], LIMITS)
    assert lookup.next_contacts() == []
    assert lookup.finished
    assert lookup.closest_answered(8) == []
