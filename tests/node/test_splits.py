"""Nodes that a cut has parted are one mesh again when it is over, wherever they are: in a house, at one address of a
provider, at one relay."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable

import pytest
from variants import slow_after

from dtp.identity import Identity, PeerId
from dtp.node.upkeep import PeerUpkeep, UpkeepLimits

LIMITS = UpkeepLimits()
HOUR = 3600.0
LAIR = "6.6.6.0/24"
#: Where a node is, by its number; "" is this network.
PLACES: dict[str, Callable[[int], str]] = {
    "one /24": lambda number: "5.5.5.0/24",
    "one relay": lambda number: "relay:r",
    "a LAN": lambda number: "",
    "a LAN, a /24 and a relay": lambda number: ("", "5.5.5.0/24", "relay:r")[number % 3],
}


def crowd(count: int) -> list[PeerId]:
    return [Identity.generate().id for _ in range(count)]


class World:
    """Nodes that all know each other. Dials take no time."""

    def __init__(self, networks: list[str]) -> None:
        self.nodes = crowd(len(networks))
        self.network = dict(zip(self.nodes, networks, strict=True))
        self.half = {peer: number % 2 for number, peer in enumerate(self.nodes)}
        self.keeps = {peer: PeerUpkeep(peer, LIMITS) for peer in self.nodes}
        #: The links, and who has dialled each.
        self.links = dict[frozenset[PeerId], PeerId]()
        self.now, self.is_cut, self.dials = 0.0, False, 0
        for keep in self.keeps.values():
            for other in random.sample(
                self.nodes, len(self.nodes)
            ):  # each hears of them in an order of its own
                keep.add_peer(other, 0.0, frozenset({self.network[other]} - {""}))
        #: When each dials next, of those that nothing has happened to since.
        self.due = dict[PeerId, float]()

    def is_across(self, link: frozenset[PeerId]) -> bool:
        return len({self.half[each] for each in link}) == 2

    def cut(self) -> None:
        self.is_cut = True
        for link in [each for each in self.links if self.is_across(each)]:
            self.lose(link)

    def lose(self, link: frozenset[PeerId]) -> None:
        del self.links[link]
        one, other = link
        self.keep_of(one).on_lost(other, self.now)
        self.keep_of(other).on_lost(one, self.now)

    def keep_of(self, peer: PeerId) -> PeerUpkeep:
        self.due.pop(peer, None)
        return self.keeps[peer]

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            for peer in self.keeps.keys() - self.due.keys():
                self.due[peer] = self.keeps[peer].next_time()
            soon = min(self.due.values())
            if soon > end:
                self.now = end
                return
            self.now = max(self.now, soon)
            for one in [each for each, at in self.due.items() if at <= self.now]:
                for other in self.keep_of(one).take_due(self.now):
                    assert isinstance(other, PeerId)
                    self.dial(one, other)

    def dial(self, one: PeerId, other: PeerId) -> None:
        self.dials += 1
        link, keep = frozenset({one, other}), self.keep_of(one)
        if self.is_cut and self.is_across(link):
            keep.on_dialled(other, None, self.now)
            return
        if link not in self.links:
            self.links[link] = one
            keep.on_link(other, self.network[other], outgoing=True)
            self.keep_of(other).on_link(one, self.network[one], outgoing=False)
        spare = keep.on_dialled(other, other, self.now)
        if spare is not None:
            self.lose(frozenset({one, spare}))

    def is_one_mesh(self) -> bool:
        reached, more = set[PeerId](), {self.nodes[0]}
        while more:
            reached |= more
            more = {each for link in self.links if link & more for each in link} - reached
        return len(reached) == len(self.nodes)


@pytest.mark.parametrize("count", slow_after(1, [8, 60, 150]))
@pytest.mark.parametrize("place", PLACES)
def test_who_was_parted_is_one_mesh_again(place: str, count: int) -> None:
    world = World([PLACES[place](number // 2) for number in range(count)])
    world.run(60)
    assert world.is_one_mesh()
    world.cut()
    world.run(HOUR)
    assert not world.is_one_mesh()
    world.is_cut = False
    world.run(LIMITS.longest_pause + 5 * LIMITS.further_pause)
    for _ in range(20):  # and stays so
        world.run(LIMITS.further_pause)
        assert world.is_one_mesh()


@pytest.mark.parametrize("count", slow_after(1, [16, 60, 150]))
@pytest.mark.parametrize("place", PLACES)
def test_where_nothing_changes_each_dials_seldom(place: str, count: int) -> None:
    world = World([PLACES[place](number) for number in range(count)])
    world.run(HOUR)
    world.dials = 0
    world.run(HOUR)
    assert world.dials <= 2 * count * HOUR / LIMITS.further_pause
    most = LIMITS.wanted + LIMITS.at_once + LIMITS.further
    assert max(Counter(world.links.values()).values()) <= most


@pytest.mark.parametrize("count", [2, 30])
def test_a_lan_is_linked_in_full_and_then_at_rest(count: int) -> None:
    world = World([""] * count)
    world.run(60)
    assert len(world.links) == count * (count - 1) // 2
    assert min(keep.next_time() for keep in world.keeps.values()) == math.inf


@pytest.mark.slow
def test_a_crowd_at_one_address_gets_few_links_however_long_it_stays() -> None:
    """And keeps a node from nobody else there, by as many as come."""
    keep, sybils = PeerUpkeep(crowd(1)[0], LIMITS), crowd(300)
    for each in sybils[:100]:
        keep.on_link(each, LAIR, outgoing=False)
    for each in sybils[100:]:
        keep.add_peer(each, 0.0, frozenset({LAIR}))
    linked, dials, now = set[PeerId](), 0, 0.0
    while (now := max(now, keep.next_time())) < 24 * HOUR:
        for each in keep.take_due(now):
            assert isinstance(each, PeerId)
            dials += 1
            keep.on_link(each, LAIR)
            linked.add(each)
            spare = keep.on_dialled(each, each, now)
            if spare is not None:
                linked.remove(spare)
                keep.on_lost(spare, now)
    assert len(linked) == LIMITS.per_network + LIMITS.further
    assert dials <= LIMITS.per_network + 24 * 60


def test_who_was_dialled_before_has_its_turn_among_many_that_are_named() -> None:
    keep, friend = PeerUpkeep(crowd(1)[0], LIMITS), crowd(1)[0]
    for each in crowd(LIMITS.per_network):
        keep.on_link(each, LAIR)
    keep.add_peer(friend, 0.0, frozenset({LAIR}), is_met=True)
    for number, each in enumerate(crowd(900)):
        keep.add_peer(each, 0.0, frozenset({LAIR, f"6.6.{number % 250}.0/24"}))
    now, dialled = 0.0, list[object]()
    while friend not in dialled:
        now = max(now, keep.next_time())
        (each,) = keep.take_due(now)
        dialled.append(each)
        keep.on_dialled(each, None, now)
    assert len(dialled) < 60  # by chance: one in a quintillion
