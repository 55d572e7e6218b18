"""Who holds up all others of a connection: when it is cut off, and who."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from dtp.daemon.reasons import Reason
from dtp.daemon.relays.stuck import StuckStreams
from dtp.session.limits import DEFAULT

MIB = 1024 * 1024


class Session:
    """A stream at work, of which so much was not read."""

    def __init__(self, connection: Any, unread: int) -> None:
        self.stream = SimpleNamespace(connection=connection, unread=unread)
        self.why: Reason | None = None

    def abort(self, reason: Reason) -> None:
        """End as a relay does: what waits is let go."""
        self.why, self.stream.unread = reason, 0


class Connection:
    """A connection whose window is full, where `blocked_at` says so."""

    limits = DEFAULT

    def __init__(self, blocked_at: int | None) -> None:
        self.blocked_at = blocked_at


def look(sessions: list[Session], looks: int) -> list[bool]:
    """Look so often; return who was ended."""
    stuck = StuckStreams(lambda: cast(Any, sessions), 1.0)
    for _ in range(looks):
        stuck.look()
    return [one.why is Reason.IN_THE_WAY for one in sessions]


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
        assert look([Session(full, size * MIB) for size in unread], looks) == found


def test_a_window_that_moves_or_has_room_is_left_alone() -> None:
    moving, free = Connection(16 * MIB), Connection(None)
    sessions = [Session(one, size) for one in (moving, free) for size in (8 * MIB, 0)]
    stuck = StuckStreams(lambda: cast(Any, sessions), 1.0)
    for _ in range(10):
        stuck.look()
        moving.blocked_at = (moving.blocked_at or 0) + 1
    assert not any(one.why for one in sessions)
    for _ in range(2):
        stuck.look()
    moving.blocked_at = None  # somebody has read
    stuck.look()
    moving.blocked_at = 17 * MIB
    stuck.look()
    assert not any(one.why for one in sessions)


def test_who_reads_slowly_is_none_of_those() -> None:
    """Players at 2 Mbit/s each were ended: a connection has credit anew once a quarter of its window was read, which
    takes them 4 s."""
    full = Connection(16 * MIB)
    players, frozen, waiting = (
        [Session(full, 4 * MIB) for _ in range(3)],
        Session(full, 4 * MIB),
        Session(full, 0),
    )
    sessions = [*players, waiting]
    stuck = StuckStreams(lambda: cast(Any, sessions), 1.0)
    for looks in range(20):
        if looks == 10:
            sessions.append(frozen)
        stuck.look()
        for each in players:
            each.stream.unread -= 64 * 1024
    assert [one.why for one in sessions] == [None] * 4 + [Reason.IN_THE_WAY]
