"""Whom a node dials and when: both sides of a pair dial once, failures wait longer, and a crowd is bounded."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from dtp.carriers.nearness import Nearness
from dtp.identity import Identity, PeerId
from dtp.net.address import Address
from dtp.node.upkeep import PeerUpkeep, Target, UpkeepLimits
from dtp.testing.pairs import ALICE, BOB

SMALL, LARGE = sorted([ALICE.id, BOB.id])
SEED = Address.direct(BOB.id, "tcp://192.0.2.1:9000")


def crowd(count: int) -> list[PeerId]:
    return [Identity.generate().id for _ in range(count)]


def test_who_was_told_of_from_afar_is_dialled_at_once_when_somebody_nearer_tells() -> None:
    keep, now = PeerUpkeep(SMALL), 0.0
    keep.add_peer(LARGE, now)
    for _ in range(12):
        now = max(now, keep.next_time())
        assert keep.take_due(now) == [LARGE]
        keep.on_dialled(LARGE, None, now, Nearness.ANYWHERE)
    keep.on_told(LARGE, Nearness.ANYWHERE, now + 1)
    assert keep.take_due(now + 1) == []
    keep.on_told(LARGE, Nearness.NETWORK, now + 1)
    assert keep.take_due(now + 1) == [LARGE]
    keep.on_dialled(LARGE, None, now + 1, Nearness.NETWORK)
    keep.on_told(LARGE, Nearness.NETWORK, now + 2)  # once: its record may be of an address that is another's
    assert keep.next_time() == now + 1 + UpkeepLimits().longest_unmet
    keep.on_told(crowd(1)[0], Nearness.NETWORK, now + 2)  # nobody that is to be dialled


def test_smaller_identity_dials_and_the_larger_waits() -> None:
    small, large = PeerUpkeep(SMALL), PeerUpkeep(LARGE)
    small.add_peer(LARGE, 10.0)
    large.add_peer(SMALL, 10.0)
    assert small.take_due(10.0) == [LARGE]
    assert large.take_due(10.0) == []
    assert large.next_time() == 10.0 + UpkeepLimits().courtesy
    small.on_link(LARGE)
    large.on_link(SMALL)
    assert large.take_due(99.0) == []
    assert large.next_time() == math.inf


def test_each_is_dialled_once_at_a_time() -> None:
    keep = PeerUpkeep(SMALL)
    keep.add_peer(LARGE, 0.0)
    assert keep.take_due(0.0) == [LARGE]
    assert keep.take_due(0.0) == []
    keep.add_peer(LARGE, 0.0)
    assert keep.take_due(0.0) == []


@pytest.mark.parametrize("order", [[SEED, BOB.id], [BOB.id, SEED]])
def test_a_peer_that_is_known_by_an_address_too_is_dialled_once_at_a_time(order: list[Target]) -> None:
    """Two links came about each time, of which the newer took the other's place in the middle of its work."""
    keep = PeerUpkeep(ALICE.id, UpkeepLimits(courtesy=0.0))
    for each in order:
        if isinstance(each, Address):
            keep.add_bootstrap(each, 0.0)
        else:
            keep.add_peer(each, 0.0, is_met=True)
    (first,) = keep.take_due(0.0)
    assert keep.take_due(0.0) == []
    assert keep.next_time() == math.inf
    keep.on_dialled(first, None, 0.0)
    (second,) = keep.take_due(0.0)
    assert {first, second} == set(order)
    keep.on_link(BOB.id)
    keep.on_dialled(second, BOB.id, 0.0)
    assert keep.take_due(99.0) == []


@pytest.mark.parametrize("met", [True, False])
def test_failures_wait_longer_each_time(*, met: bool) -> None:
    """Above all with peers that nobody here has met: they may not be, and their address another's."""
    keep, limits, now, pauses = PeerUpkeep(SMALL), UpkeepLimits(), 0.0, []
    keep.add_peer(LARGE, now)
    if met:
        keep.on_link(LARGE)
        keep.on_lost(LARGE, now)
        now = keep.next_time()
    for _ in range(14):
        assert keep.take_due(now) == [LARGE]
        keep.on_dialled(LARGE, None, now)
        pauses.append(keep.next_time() - now)
        now = keep.next_time()
    assert pauses[:3] == [limits.first_pause, 2 * limits.first_pause, 4 * limits.first_pause]
    assert pauses[-1] == (limits.longest_pause if met else limits.longest_unmet)


def test_link_that_is_lost_is_dialled_again() -> None:
    keep = PeerUpkeep(SMALL)
    keep.add_peer(LARGE, 0.0)
    keep.take_due(0.0)
    keep.on_link(LARGE)
    keep.on_dialled(LARGE, LARGE, 0.1)
    assert keep.next_time() == math.inf
    keep.on_lost(LARGE, 50.0)
    assert keep.take_due(50.0) == []
    assert keep.take_due(keep.next_time()) == [LARGE]


def test_peer_that_has_no_place_is_dialled_less_and_less() -> None:
    """Every two seconds it was dialled, let in and thrown out again."""
    keep, limits, now, pauses = PeerUpkeep(SMALL), UpkeepLimits(), 0.0, []
    keep.add_peer(LARGE, now)
    for _ in range(10):
        assert keep.take_due(now) == [LARGE]
        keep.on_link(LARGE)
        keep.on_dialled(LARGE, LARGE, now)
        keep.on_lost(LARGE, now, unwanted=True)
        pauses.append(keep.next_time() - now)
        now = keep.next_time()
    assert pauses[:3] == [limits.first_pause, 2 * limits.first_pause, 4 * limits.first_pause]
    assert pauses[-1] == limits.longest_pause
    keep.take_due(now)
    keep.on_link(LARGE)
    keep.on_dialled(LARGE, LARGE, now)
    keep.on_lost(LARGE, now)  # for another reason
    assert keep.next_time() == now + limits.first_pause


def test_where_the_machine_has_moved_all_are_dialled_again_at_once() -> None:
    """A laptop that was in no network for an hour waited five minutes more for those that it knows."""
    keep, peers, now = PeerUpkeep(SMALL), crowd(3), 0.0
    keep.add_bootstrap(SEED, now)
    for each in peers:
        keep.add_peer(each, now, is_met=True)
    while now < 3600:
        for target in keep.take_due(now):
            keep.on_dialled(target, None, now)
        now = keep.next_time()
    keep.on_moved(now - 100)
    assert set(keep.take_due(now - 100)) == {SEED, *peers}
    for target in (SEED, *peers):
        keep.on_dialled(target, None, now - 90)
    assert keep.next_time() == now - 90 + UpkeepLimits().first_pause


def test_networks_that_come_and_go_have_whom_nobody_has_reached_dialled_once_a_minute() -> None:
    """Anybody may name peers at somebody else's address; a host of containers has other networks each second."""
    keep, named, (met,), dials = PeerUpkeep(SMALL), crowd(20), crowd(1), Counter[Target]()
    keep.add_peer(met, 0.0, is_met=True)
    for each in named:
        keep.add_peer(each, 0.0)
    for second in range(600):
        keep.on_moved(float(second))
        while due := keep.take_due(float(second)):
            for each in due:
                dials[each] += 1
                keep.on_dialled(each, None, float(second))
    assert dials[met] == 600
    assert (
        max(dials[each] for each in named) <= 10 * 6
    )  # each minute after 0, 2, 6, 14 and 30 s, and where it began


def test_peer_that_said_goodbye_is_not() -> None:
    keep = PeerUpkeep(SMALL)
    keep.add_peer(LARGE, 0.0)
    keep.remove_peer(LARGE)
    assert keep.take_due(10.0) == []


def test_bootstrap_is_kept_whatever_else_there_is() -> None:
    limits = UpkeepLimits(wanted=2, remembered=4)
    keep = PeerUpkeep(ALICE.id, limits)
    keep.add_bootstrap(SEED, 0.0)
    for each in crowd(10):
        keep.add_peer(each, 0.0)
        keep.on_link(each)
    assert keep.take_due(5.0) == [SEED]
    keep.on_dialled(SEED, None, 5.0)
    assert keep.next_time() == 5.0 + limits.first_pause


def test_a_node_dials_for_so_many_links_and_so_many_at_once() -> None:
    limits = UpkeepLimits(wanted=3, at_once=2, courtesy=0.0)
    keep = PeerUpkeep(ALICE.id, limits)
    for each in crowd(20):
        keep.add_peer(each, 0.0)
    linked: list[PeerId] = []
    for _ in range(5):
        due = keep.take_due(0.0)
        assert len(due) <= limits.at_once
        for target in due:
            assert isinstance(target, PeerId)
            keep.on_link(target)
            keep.on_dialled(target, target, 0.0)
            linked.append(target)
    assert limits.wanted <= len(linked) < limits.wanted + limits.at_once


def test_who_is_heard_of_is_bounded() -> None:
    keep = PeerUpkeep(ALICE.id, UpkeepLimits(remembered=8))
    for each in crowd(100):
        keep.add_peer(each, 0.0)
    assert len(keep._wishes) == 8


def test_oneself_is_not_dialled() -> None:
    keep = PeerUpkeep(SMALL)
    keep.add_peer(SMALL, 0.0)
    assert keep.take_due(10.0) == []
