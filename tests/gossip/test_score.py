"""Scores: each of P1 to P7 alone, by the formula of GossipSub v1.1 with figures worked out here."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.gossip.limits import ScoreWeights
from dtp.gossip.score import Scores, median

PEER, OTHER, T = b"p" * 32, b"o" * 32, b"weather"
#: What counts, and here doesn't: each test gives the weight that it is about. Nothing decays, unless a test says so.
WEIGHTS = ("time_in_mesh", "first_delivery", "mesh_deficit", "mesh_failure", "invalid", "application")
NONE = ScoreWeights(**dict.fromkeys((*WEIGHTS, "shared_address", "behaviour"), 0.0), decay=1.0)  # type: ignore[arg-type]


def scores(*peers, source="192.0.2.1", **weights):
    made = Scores(dataclasses.replace(NONE, **weights))
    for peer in peers or (PEER,):
        made.add(peer, source, 0.0)
    return made


def test_p1_time_in_the_mesh_counts_up_to_a_bound():
    made = scores(time_in_mesh=0.01, time_in_mesh_cap=300.0)
    made.on_grafted(PEER, T, 10.0)
    for now, expected in ((10.0, 0.0), (60.0, 0.5), (310.0, 3.0), (5000.0, 3.0)):
        made.refresh(now)
        assert made[PEER] == pytest.approx(expected)
    made.on_pruned(PEER, T, 5000.0)
    assert made[PEER] == 0


def test_p2_first_deliveries_count_up_to_a_bound_and_decay():
    made = scores(first_delivery=0.5, first_delivery_cap=100.0, decay=0.9)
    for _ in range(40):
        made.count_first_delivery(PEER, T, set())
    assert made[PEER] == pytest.approx(20.0)
    made.refresh(2.0)
    assert made[PEER] == pytest.approx(20.0 * 0.81)
    for _ in range(1000):
        made.count_first_delivery(PEER, T, set())
    assert 50.0 <= made[PEER] < 50.5


def test_p3_who_brings_less_than_its_part_loses_by_the_square():
    made = scores(
        PEER,
        OTHER,
        mesh_deficit=-1.0,
        mesh_deficit_part=0.5,
        mesh_deficit_after=30.0,
        mesh_deficit_least=20.0,
    )
    made.on_grafted(PEER, T, 0.0)
    for _ in range(19):
        made.count_first_delivery(OTHER, T, {PEER})
    made.refresh(60.0)
    assert made[PEER] == 0  # too few to tell
    made.count_first_delivery(OTHER, T, {PEER})
    assert made[PEER] == pytest.approx(-(10.0**2))
    for _ in range(7):
        made.count_duplicate(PEER, T)
    assert made[PEER] == pytest.approx(-(3.0**2))
    for _ in range(7):
        made.count_duplicate(PEER, T)
    assert made[PEER] == 0


def test_p3_a_newcomer_to_the_mesh_has_time_to_begin():
    made = scores(
        PEER, OTHER, mesh_deficit=-1.0, mesh_deficit_part=1.0, mesh_deficit_after=30.0, mesh_deficit_least=1.0
    )
    made.on_grafted(PEER, T, 0.0)
    made.count_first_delivery(OTHER, T, {PEER})
    made.refresh(29.0)
    assert made[PEER] == 0
    made.refresh(30.0)
    assert made[PEER] == pytest.approx(-1.0)


def test_p3b_what_was_missing_stays_when_it_is_pruned():
    made = scores(
        PEER,
        OTHER,
        mesh_deficit=-1.0,
        mesh_failure=-1.0,
        mesh_deficit_part=0.5,
        mesh_deficit_least=1.0,
        decay=0.99,
    )
    made.on_grafted(PEER, T, 0.0)
    for _ in range(20):
        made.count_first_delivery(OTHER, T, {PEER})
    made.on_pruned(PEER, T, 60.0)
    assert made[PEER] == pytest.approx(-(10.0**2))
    made.refresh(100.0)
    assert -100 < made[PEER] < -30


def test_p4_invalid_messages_count_by_the_square():
    made = scores(invalid=-10.0)
    made.count_invalid(PEER, T)
    assert made[PEER] == pytest.approx(-10.0)
    made.count_invalid(PEER, T)
    made.count_invalid(PEER, T)
    assert made[PEER] == pytest.approx(-90.0)
    assert made.has_blamed


def test_p5_is_what_the_program_says():
    made = scores(application=2.0)
    made.set_application(PEER, -3.0)
    assert made[PEER] == pytest.approx(-6.0)


@pytest.mark.parametrize(
    ("source", "expected"),
    [("198.51.100.7", 0.0), ("8.8.8.8", -4.0), ("127.0.0.1", 0.0), ("10.0.0.3", 0.0), ("fe80::1", 0.0)],
)
def test_p6_counts_public_addresses_beyond_a_number_alone(source, expected):
    peers = [bytes([number]) * 32 for number in range(5)]
    made = scores(*peers, source=source, shared_address=-1.0, shared_address_free=3)
    assert made[peers[0]] == pytest.approx(expected)
    for peer in peers[3:]:
        made.remove(peer, 1.0)
    assert made[peers[0]] == 0


def test_p7_misbehaviour_counts_by_the_square_beyond_what_happens_by_accident():
    made = scores(behaviour=-5.0, behaviour_free=6.0)
    made.count_misbehaviour(PEER, 6.0)
    assert made[PEER] == 0
    made.count_misbehaviour(PEER, 2.0)
    assert made[PEER] == pytest.approx(-20.0)


def test_by_default_no_neighbour_loses_for_where_it_is_or_how_far_from_authors():
    peers = [bytes([number]) * 32 for number in range(200)]
    made = Scores(ScoreWeights())
    for peer in peers:
        made.add(peer, "8.8.8.8", 0.0)
        made.on_grafted(peer, T, 0.0)
    for _ in range(500):
        made.count_first_delivery(peers[0], T, set(peers[1:]))
    made.refresh(120.0)
    assert min(made[peer] for peer in peers) >= 0


def test_what_counts_against_it_is_kept_while_it_is_gone_and_what_counts_for_it_is_not():
    made = scores(invalid=-10.0, first_delivery=0.5, retained=600.0)
    made.count_first_delivery(PEER, T, set())
    made.count_invalid(PEER, T)
    made.remove(PEER, 10.0)
    assert made[PEER] == 0  # nobody asks for one that is gone
    made.add(PEER, "192.0.2.9", 20.0)
    assert made[PEER] == pytest.approx(-10.0)
    made.remove(PEER, 30.0)
    made.add(PEER, "192.0.2.9", 1000.0)
    assert made[PEER] == 0


def test_the_end_of_a_broker_is_never_judged():
    made = Scores(ScoreWeights())
    made.add(PEER, "", 0.0, is_judged=False)
    made.count_invalid(PEER, T)
    made.count_misbehaviour(PEER, 100)
    assert made[PEER] == 0


def test_leaving_a_topic_forgets_all_but_what_was_invalid():
    made = scores(invalid=-10.0, first_delivery=0.5)
    made.count_first_delivery(PEER, T, set())
    made.on_topic_left(T)
    assert made[PEER] == 0
    made.count_first_delivery(PEER, T, set())
    made.count_invalid(PEER, T)
    made.on_topic_left(T)
    assert made[PEER] == pytest.approx(-10.0)


def test_medians():
    assert median([3.0, 1.0, 2.0]) == 2
    assert median([4.0, 1.0]) == 2.5


#: Everything counts, and changes what others are worth as well.
ALL = ScoreWeights(
    mesh_deficit=-1.0, mesh_deficit_least=2.0, mesh_failure=-1.0, shared_address=-1.0, shared_address_free=1
)
HAPPENINGS = {
    "add": lambda made, peer, now: made.add(peer, "8.8.8.8", now),
    "remove": lambda made, peer, now: made.remove(peer, now),
    "graft": lambda made, peer, now: made.on_grafted(peer, T, now),
    "prune": lambda made, peer, now: made.on_pruned(peer, T, now),
    "deliver": lambda made, peer, now: made.count_first_delivery(peer, T, {PEER, OTHER} - {peer}),
    "deliver-again": lambda made, peer, now: made.count_duplicate(peer, T),
    "invalid": lambda made, peer, now: made.count_invalid(peer, T),
    "misbehave": lambda made, peer, now: made.count_misbehaviour(peer, 10.0),
    "application": lambda made, peer, now: made.set_application(peer, 3.0),
    "leave": lambda made, peer, now: made.on_topic_left(T),
    "refresh": lambda made, peer, now: made.refresh(now),
}


@given(st.lists(st.tuples(st.sampled_from(sorted(HAPPENINGS)), st.sampled_from((PEER, OTHER)))))
def test_a_score_that_is_asked_for_often_is_what_one_is_that_is_asked_for_once(happenings):
    asked, silent, here = Scores(ALL), Scores(ALL), set()
    for now, (what, peer) in enumerate(happenings):
        if (what == "add") == (peer in here) and what != "refresh":
            continue  # comes once, and does something while it is here
        if what == "deliver" and here != {PEER, OTHER}:
            continue
        for each in (asked, silent):
            HAPPENINGS[what](each, peer, float(now * 10))
        here = here | {peer} if what == "add" else here - {peer} if what == "remove" else here
        for key in (PEER, OTHER):
            before = asked[key]
            assert asked[key] == before
    assert [asked[each] for each in (PEER, OTHER)] == [silent[each] for each in (PEER, OTHER)]
