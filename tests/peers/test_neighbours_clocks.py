"""Whose clock is wrong: this machine's, where most neighbours' differ from it in the same way."""

from __future__ import annotations

import logging
import math

import pytest

from dtp.identity import Identity
from dtp.node.watches import ClockWatch
from dtp.peers.clocks import LATE, LEAST, QUICKEST, TOLERANCE, PeerClocks
from dtp.peers.record import PeerRecord
from dtp.testing.pairs import ALICE

#: Unix time when the steady clock is 0, by the clock of this machine.
OFFSET = 1_800_000_000.0
NOW = 1000.0


def note(clocks: PeerClocks, count: int, ahead: float, first: int = 0) -> None:
    """Have neighbours write a message by clocks that are so far ahead."""
    for number in range(first, first + count):
        clocks.note_message(bytes([number]) * 32, OFFSET + NOW + ahead, NOW)


@pytest.mark.parametrize(("ahead", "at_least", "way"), [(61.0, 61.0, "behind"), (-200.0, -195.0, "ahead of")])
def test_most_neighbours_differ_in_the_same_way(ahead: float, at_least: float, way: str) -> None:
    clocks = PeerClocks()
    note(clocks, 4, ahead)
    note(clocks, 2, 0.0, first=4)
    found = clocks.find_difference(OFFSET)
    assert found == (at_least, 4, 6)
    assert f"is at least {abs(at_least):.0f} s {way} those of 4 of 6 neighbours" in str(found)
    assert (
        clocks.find_difference(OFFSET + ahead) is None
    )  # this clock was set right: the others are two of six


@pytest.mark.parametrize("count", [1, LEAST - 1])
def test_one_or_two_neighbours_that_all_differ_are_told_without_a_word_on_who_is_wrong(count: int) -> None:
    """Who reads alone with a wrong clock would be told nothing, and hear nothing."""
    clocks = PeerClocks()
    note(clocks, count, 500.0)
    found = clocks.find_difference(OFFSET)
    assert found == (500.0, count, count)
    assert "set the one that is wrong" in str(found)
    note(clocks, LEAST, 500.0)
    assert "set it, or have it set by NTP" in str(clocks.find_difference(OFFSET))


@pytest.mark.parametrize(
    "said",
    [
        [],
        [(1, 500.0), (1, 0.0)],  # of two one is wrong, and nobody can tell which
        [(1, 500.0), (1, -500.0)],
        [(4, 500.0), (3, 0.0)],  # not two thirds
        [(3, 500.0), (3, -500.0)],  # not in the same way
        [(5, TOLERANCE)],
        [(5, -LATE - TOLERANCE)],
    ],
)
def test_few_or_little_is_nothing(said: list[tuple[int, float]]) -> None:
    clocks, first = PeerClocks(), 0
    for count, ahead in said:
        note(clocks, count, ahead, first)
        first += count
    assert clocks.find_difference(OFFSET) is None


def test_the_quickest_message_counts_for_a_while() -> None:
    """What waited for long, as with a program that reads slowly, says nothing of a clock."""
    clocks = PeerClocks()
    note(clocks, 3, 0.0)
    for number in range(3):
        clocks.note_message(bytes([number]) * 32, OFFSET + NOW, NOW + 100.0)
    assert clocks.find_difference(OFFSET) is None
    for number in range(3):
        clocks.note_message(bytes([number]) * 32, OFFSET + NOW + 100.0, NOW + QUICKEST + 101.0)
    found = clocks.find_difference(OFFSET)
    assert found is not None
    assert found.seconds == 100.0 - QUICKEST - 101.0 + LATE


def test_a_neighbours_own_record_bounds_its_clock() -> None:
    clocks, who = PeerClocks(), [Identity.generate() for _ in range(3)]

    def give(signed: float) -> None:
        for each in who:
            clocks.note_record(PeerRecord.sign(each, now=signed, ttl=600), NOW)

    give(OFFSET + NOW - 500)  # holds still: says nothing
    assert clocks.find_difference(OFFSET) is None
    found = clocks.find_difference(OFFSET + 3600)
    assert found is not None
    assert found.seconds == -3500
    give(OFFSET + NOW + 3600)  # as after all three were set
    assert clocks.find_difference(OFFSET + 3600) is None
    found = clocks.find_difference(OFFSET)
    assert found is not None
    assert found.seconds == 3600
    for each in who[1:]:
        clocks.forget_peer(each.id.key)
    assert clocks.find_difference(OFFSET) == (3600, 1, 1)
    clocks.forget_peer(who[0].id.key)
    assert clocks.find_difference(OFFSET) is None


def test_a_record_does_not_widen_what_a_message_says() -> None:
    clocks = PeerClocks()
    clocks.note_message(ALICE.id.key, OFFSET + NOW + 60, NOW)
    note(clocks, 2, 60.0)
    clocks.note_record(PeerRecord.sign(ALICE, now=OFFSET + NOW, ttl=600), NOW)
    found = clocks.find_difference(OFFSET)
    assert found is not None
    assert found.differing == 3


PAUSE = 60.0


def test_a_difference_that_lasts_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    unix = OFFSET + NOW
    watch = ClockWatch(PAUSE, lambda: unix)

    def told() -> list[object]:
        return [each.__dict__["fields"] for each in caplog.records]

    with caplog.at_level(logging.WARNING, logger="dtp.node"):
        assert watch.check_clock(NOW, 0) == math.inf
        assert watch.check_clock(NOW, 1) == NOW + PAUSE
        assert watch.check_clock(NOW, 3) == NOW + PAUSE
        note(watch.clocks, 3, 90.0)
        watch.check_clock(NOW, 3)
        unix += PAUSE / 2
        watch.check_clock(NOW + PAUSE / 2, 3)
        assert told() == []
        for step in (1, 2, 3):
            unix = OFFSET + NOW + step * PAUSE
            assert watch.check_clock(NOW + step * PAUSE, 3) == NOW + (step + 1) * PAUSE
        assert told() == [{"event": "clock-differs", "seconds": 90}]
        unix += 90  # the clock is set; and later back
        watch.check_clock(NOW + 4 * PAUSE - PAUSE, 3)
        unix -= 90
        watch.check_clock(NOW + 4 * PAUSE, 3)
        assert len(told()) == 1
