"""Mailboxes whose clocks jump: what waits ages by time that was lived through, whatever the clock says."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mailbox_stores import ALICE, NOW, known, register_alice

from dtp.messaging.mailbox import Mailbox, SqliteMailbox
from dtp.messaging.mailbox.age import RATE, AgeClock
from dtp.messaging.mailbox.limits import DAY

LIFETIME = 30 * DAY


class Told(SqliteMailbox):
    """A store that says when it was looked through."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.times: asyncio.Queue[int] = asyncio.Queue()
        self.loop = asyncio.get_running_loop()

    def expire_envelopes(self, now: int) -> int:
        found = super().expire_envelopes(now)
        self.loop.call_soon_threadsafe(self.times.put_nowait, now)
        return found


async def sweep(path: Path) -> tuple[int, int]:
    """Return by which time a mailbox that is begun forgets, and what it keeps then."""
    with contextlib.closing(Told(path)) as store:
        mailbox = Mailbox(store)
        assert mailbox.keeper is not None
        at = await store.times.get()
        await mailbox.stop()
        status = store.device_status(ALICE.id.key)
        return at, status.count if status else 0


def test_a_mailbox_whose_clock_jumps_ahead_keeps_what_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """All was forgotten at once, for good."""
    path, now = tmp_path / "box.sqlite", [float(NOW)]
    monkeypatch.setattr(time, "time", lambda: now[0])
    with contextlib.closing(SqliteMailbox(path)) as store:
        register_alice(store)
        store.add_envelopes([known(1, seconds=10**9)], NOW)
    assert asyncio.run(sweep(path)) == (NOW, 1)
    now[0] += 400 * DAY
    assert asyncio.run(sweep(path)) == (NOW, 1)
    assert "more than a day ahead" in caplog.text
    now[0] -= 400 * DAY - 60
    assert asyncio.run(sweep(path)) == (NOW, 1)
    with contextlib.closing(SqliteMailbox(path)) as store:
        assert store.expire_envelopes(NOW + LIFETIME) == 1
    now[0] += 400 * DAY  # nothing waits, so nothing is lost by a wrong clock
    assert asyncio.run(sweep(path)) == (NOW + 400 * DAY + 60, 0)


def test_a_mailbox_that_was_away_makes_up_for_it() -> None:
    clock, wall, steady, days = AgeClock(), NOW + 40.0 * DAY, 1000.0, 0
    assert clock.expiry_time(wall, steady, NOW) == NOW
    assert clock.is_behind
    while clock.is_behind:
        days += 1
        wall, steady = wall + DAY, steady + DAY
        clock.expiry_time(wall, steady, NOW)
    assert days == 39
    assert clock.expiry_time(wall + 2 * DAY, steady + 2 * DAY, NOW) == wall + 2 * DAY


def test_a_clock_that_is_behind_for_a_while_holds_nothing_up() -> None:
    clock = AgeClock()
    assert clock.expiry_time(NOW, 0, NOW) == NOW
    assert clock.expiry_time(0, 60, NOW) == 0
    assert clock.expiry_time(NOW + 120, 120, NOW) == NOW + 120


def test_a_mailbox_that_begins_by_a_wrong_clock_believes_it_while_nothing_is_kept() -> None:
    clock = AgeClock()
    assert clock.expiry_time(100, 0, None) == 100
    assert clock.expiry_time(NOW, 60, None) == NOW
    assert clock.expiry_time(NOW + 60, 120, NOW) == NOW + 60
    assert AgeClock().expiry_time(NOW, 0, 0) == NOW  # a file from before this was noted


@given(st.lists(st.tuples(st.integers(0, 3 * DAY), st.integers(-400 * DAY, 400 * DAY), st.booleans())))
def test_nothing_ages_faster_than_it_lives(steps: list[tuple[int, int, bool]]) -> None:
    """Whatever the clock does, and however often the mailbox is begun again."""
    clock, true, steady, noted = AgeClock(), NOW, 5.0, NOW
    most = NOW
    for passed, wrong, begins in steps:
        true, steady = true + passed, steady + passed
        if begins:
            clock, steady = AgeClock(), 3.0
        else:
            most += RATE * passed
        shown = clock.expiry_time(true + wrong, steady, noted)
        noted = max(noted, shown)
        assert shown <= min(most, true + wrong)
