"""Who holds up all others of a connection: when it is cut off, and who."""

from __future__ import annotations

import logging
from typing import Any, cast

import pytest

from dtp.net.stuck import StuckStreams
from dtp.session.limits import DEFAULT

MIB = 1024 * 1024


class Stream:
    """A stream at work, of which so much was not read."""

    def __init__(self, connection: Any, unread: int) -> None:
        self.connection, self.unread = connection, unread
        self.is_cut = False

    def cut(self) -> None:
        """End: what waits is let go."""
        self.is_cut, self.unread = True, 0


class Connection:
    """A connection whose window is full, where `full_at` says so; `asked` counts who wants to know."""

    limits = DEFAULT

    def __init__(self, full_at: int | None) -> None:
        self.full_at, self.asked = full_at, 0

    @property
    def blocked_at(self) -> int | None:
        self.asked += 1
        return self.full_at


def watch(streams: list[Stream], *, others_come: bool = False) -> StuckStreams:
    """Return what looks for those that are stuck."""
    return StuckStreams(
        lambda: {cast(Any, each): each for each in streams},
        Stream.cut,
        logging.getLogger(__name__),
        others_come=others_come,
    )


def look(streams: list[Stream], looks: int, *, others_come: bool = False) -> list[bool]:
    """Look so often; return who was ended."""
    stuck = watch(streams, others_come=others_come)
    for _ in range(looks):
        stuck.end_stuck()
    return [each.is_cut for each in streams]


@pytest.mark.parametrize(
    ("unread", "ended"),
    [
        ([4, 4, 4, 4, 0], [True, True, True, True, False]),
        ([4, 1, 4, 0, 1, 1], [True, False, True, False, False, False]),
        ([4, 4, 4, 4], [False] * 4),  # they hold up nobody but themselves
        ([1] * 16 + [0], [True] * 16 + [False]),
        ([0, 0], [False, False]),
    ],
)
def test_those_who_hold_most_are_ended_where_somebody_waits(unread: list[int], ended: list[bool]) -> None:
    """After two looks that found the window full already, no sooner: half a window at least is free then."""
    for looks, found in ((2, [False] * len(unread)), (3, ended)):
        full = Connection(16 * MIB)
        assert look([Stream(full, size * MIB) for size in unread], looks) == found


def test_where_somebody_may_always_come_those_who_are_alone_are_ended_too() -> None:
    full = Connection(16 * MIB)
    assert look([Stream(full, size * MIB) for size in (4, 4, 4, 4)], 3, others_come=True) == [True] * 4


def test_where_no_window_is_full_nothing_is_done_for_each_stream() -> None:
    """All that are open are looked at in one turn of the loop: 2,000 took up to 12 ms of it, each second."""

    free = Connection(None)
    streams = [Stream(free, 0) for _ in range(2000)]
    for each in streams:
        del each.unread  # which nobody asks for
    watch(streams).end_stuck()
    assert free.asked == 1


def test_a_window_that_moves_or_has_room_is_left_alone() -> None:
    moving, free = Connection(16 * MIB), Connection(None)
    streams = [Stream(one, size) for one in (moving, free) for size in (8 * MIB, 0)]
    stuck = watch(streams)
    for _ in range(10):
        stuck.end_stuck()
        moving.full_at = (moving.full_at or 0) + 1
    assert not any(each.is_cut for each in streams)
    for _ in range(2):
        stuck.end_stuck()
    moving.full_at = None  # somebody has read
    stuck.end_stuck()
    moving.full_at = 17 * MIB
    stuck.end_stuck()
    assert not any(each.is_cut for each in streams)


def test_who_reads_slowly_is_none_of_those() -> None:
    """Players at 2 Mbit/s each were ended: a connection has credit anew once a quarter of its window was read, which
    takes them 4 s."""
    full = Connection(16 * MIB)
    players, frozen, waiting = (
        [Stream(full, 4 * MIB) for _ in range(3)],
        Stream(full, 4 * MIB),
        Stream(full, 0),
    )
    streams = [*players, waiting]
    stuck = watch(streams)
    for looks in range(20):
        if looks == 10:
            streams.append(frozen)
        stuck.end_stuck()
        for each in players:
            each.unread -= 64 * 1024
    assert [each.is_cut for each in streams] == [False] * 4 + [True]
