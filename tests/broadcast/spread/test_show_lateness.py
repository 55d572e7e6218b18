"""How far behind a segment is said to be, also where the newest of all isn't known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shows import ME

from dtp.broadcast.format import Announcement, SegmentSigner
from dtp.broadcast.hearing import Order
from dtp.broadcast.held import HeldSegments
from dtp.broadcast.parents import LONGEST, Pace, Patience
from dtp.broadcast.tree.lateness import Lateness, Overdue

HOUR = 3_600_000


def behind(arrivals):
    """What is said of segments of a second each, that come one by one at these times of the listener's clock."""
    signer = SegmentSigner(ME, Announcement.sign(ME, bytes(32), time_ms=0))
    held, now = HeldSegments(signer.announcement), [0]
    order, said = Order(held, lambda: 0, lambda: now[0]), []
    for number, arrival in enumerate(arrivals):
        now[0] = arrival
        held.add_own(signer.sign(b"data", time_ms=1000 * number), b"data")
        said += [each.behind_ms for each in order.take_ready()]
    return said


@given(difference=st.integers(-(1 << 50), 1 << 50), late=st.lists(st.integers(0, 10_000), min_size=1))
def test_what_differs_between_clocks_is_no_delay(difference, late):
    arrivals = [1000 * number + difference + each for number, each in enumerate(late)]
    assert behind(arrivals) == [each - min(late[: at + 1]) for at, each in enumerate(late)]


def test_a_link_at_half_the_rate_falls_behind_by_as_much():
    """Each segment is the newest that the listener knows of, and half a show is on the way."""
    assert behind([2000 * number for number in range(60)]) == [1000 * number for number in range(60)]


def test_a_producers_clock_that_is_set_back_makes_nothing_late():
    """What is signed stands still until the clock is there again: all would go from one neighbour to the other."""
    signer = SegmentSigner(ME, Announcement.sign(ME, bytes(32), time_ms=0))
    lateness, now = Lateness(), [0.0]
    pace = Pace(Patience(), lambda: now[0])
    for number in range(600):
        now[0] = float(number)
        set_back = 100 <= number < 400
        at = 1000 * (number - 300 if set_back else number)
        segment = signer.sign(b"data", time_ms=at, duration_ms=1000)
        assert segment.time_ms == (99_000 if set_back else at)
        assert lateness.measure_lateness(segment.time_ms, 1000 * number) == 0
        pace.note_head(segment)
        assert pace.quiet_until > now[0] + 1
        pace.note_said()
        pace.note_piece(4)
        pace.note_whole(segment)
        assert not pace.late


@pytest.mark.parametrize(("restless", "allowed"), [(0, 3.0), (1, 6.0), (9, LONGEST)])
@pytest.mark.parametrize("clock", [-1e6, 0.0, 1e6])
def test_a_neighbour_is_late_whose_segments_come_later_than_they_did(restless, allowed, clock):
    """Whatever the producer's clock says; after one that was slow the next has twice the time."""
    signer = SegmentSigner(ME, Announcement.sign(ME, bytes(32), time_ms=0))
    now = [0.0]
    pace = Pace(Patience(late=3.0), lambda: now[0], restless)

    def whole_after(number, delay):
        now[0] = clock + number + delay
        pace.note_whole(signer.sign(b"data", time_ms=1000 * number, duration_ms=1000))
        return pace.late

    assert not whole_after(1, 0.7)
    assert not whole_after(2, 0.5)  # the least
    assert not whole_after(3, 0.5 + allowed - 0.01)
    assert whole_after(4, 0.5 + allowed + 0.01)
    assert not whole_after(5, 0.5)
    assert whole_after(6, 0.6 + allowed)
    pace.note_looked()  # nobody does better: this is how late it is
    assert not whole_after(7, 0.6 + allowed)


@pytest.mark.parametrize(
    ("took", "rests"),
    [([1.0, 1.0], [0, 0]), ([2.0, 2.0], [8, 16]), ([5.0, 5.0, 5.0, 1.0, 2.0], [20, 40, 60, 0, 8])],
)
def test_others_that_take_long_to_answer_are_asked_less_and_less_often(took, rests):
    """They have too little of the processor themselves, and so has whoever sends late."""
    signer = SegmentSigner(ME, Announcement.sign(ME, bytes(32), time_ms=0))
    now, number = [0.0], 0
    pace = Pace(Patience(late=3.0), lambda: now[0])
    for answered, rest in zip(took, rests, strict=True):
        for late in 0.0, 100.0:
            now[0], number = now[0] + 1 + late, number + 1
            pace.note_whole(signer.sign(b"data", time_ms=1000 * number, duration_ms=1000))
        assert pace.late
        assert pace.may_look
        pace.note_looked()
        now[0] += answered
        pace.note_answered(answered)
        pace.note_said()
        assert pace.quiet_until <= now[0] + LONGEST  # then one that is silent is left
        now[0] += rest - 0.01
        pace.note_said()
        assert not rest or not pace.may_look


def test_all_that_comes_at_once_is_behind_its_newest():
    signer = SegmentSigner(ME, Announcement.sign(ME, bytes(32), time_ms=0))
    held = HeldSegments(signer.announcement)
    for number in range(5):
        held.add_own(signer.sign(b"data", time_ms=1000 * number), b"data")
    order = Order(held, lambda: 0, lambda: 77)
    assert [each.behind_ms for each in order.take_ready()] == [4000, 3000, 2000, 1000, 0]


@given(start=st.integers(0, HOUR), drift=st.integers(1, 50))
def test_clocks_that_drift_add_up_to_less_than_half_a_second(start, drift):
    """`drift` is in millionths; a day of segments, one in a minute."""
    lateness = Lateness()
    times = range(start, start + 24 * HOUR, 60_000)
    assert max(lateness.measure_lateness(time - time * drift // 1_000_000, time) for time in times) <= 500


def dated_at(time_ms):
    signer = SegmentSigner(ME, Announcement.sign(ME, bytes(32), time_ms=0))
    return signer.sign(b"data", time_ms=time_ms, duration_ms=500)


def test_others_are_asked_a_second_after_a_segment_could_have_come():
    """Also where the producer's clock is years away, and the last one was late itself."""
    overdue, dated = Overdue(), 10_000_000
    assert overdue.find_due(dated_at(dated), 5.0) == 6.0  # nothing is known yet
    overdue.note_whole(dated_at(dated), 100.0)
    overdue.note_whole(dated_at(dated + 500), 102.0)
    assert overdue.find_due(dated_at(dated + 500), 102.0) == 102.0
    assert overdue.find_due(None, 103.0) == overdue.find_due(None, 103.5) == 104.0  # behind a gap
    overdue.note_whole(dated_at(dated + 1500), 105.0)
    assert overdue.find_due(None, 106.0) == 107.0


def test_others_are_asked_less_and_less_often_where_that_brings_nothing():
    """A producer that pauses for long costs a question a minute, and one that is there again is heard as before."""
    overdue, last = Overdue(), dated_at(0)
    overdue.note_whole(last, 0.0)
    asked, now = [], 0.0
    while now < 600:
        now = overdue.find_due(last, now)
        asked.append(now)
        overdue.note_asked(False, now, now)
    assert asked[:4] == [1.5, 3.5, 7.5, 15.5]
    assert asked[-1] - asked[-2] == 60
    overdue.note_asked(True, now, now)
    assert overdue.find_due(last, now) == now + 1
    later = dated_at(round(1000 * now) + 5000)
    assert overdue.find_due(later, now) == now + 5.75  # what comes in time is asked of nobody
    overdue.note_asked(True, now, now + 7)
    assert overdue.find_due(last, now + 7) == now + 7 + 4 * 7


@pytest.mark.parametrize(("stood_still", "after"), [(300.0, 1.0), (0.5, 60.0)])
def test_others_are_asked_as_soon_as_at_first_when_a_show_that_stood_still_is_on_air_again(
    stood_still, after
):
    overdue = Overdue()
    overdue.note_whole(dated_at(0), 0.0)
    for _ in range(9):  # nobody has more
        overdue.note_asked(False, 0.0, 0.0)
    last = dated_at(round(1000 * stood_still))
    overdue.note_whole(last, stood_still)
    assert overdue.find_due(last, stood_still) == stood_still + 0.5 + after
