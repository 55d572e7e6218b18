"""The timers of sessions behind one of the loop's: each comes up in time, and what is over leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.net.parts.deadline import Deadline, Deadlines
from dtp.session.limits import DEFAULT, NEVER
from dtp.testing.clock import FakeClockLoop


class Session:
    """Something that is due at times which others set; it counts as done what was due when it looked."""

    limits = DEFAULT

    def __init__(self) -> None:
        self.due: list[float] = []
        self.looked: list[float] = []

    def next_deadline(self) -> float:
        return min(self.due, default=NEVER)

    def handle_timer(self, now: float) -> None:
        self.looked.append(now)
        self.due = [at for at in self.due if at > now]


def deadline_of(session: Any, loop: asyncio.AbstractEventLoop, due: Any) -> Deadline:
    """The timer of such a session."""
    return Deadline(session, loop, due)


def nothing(now: float) -> None:
    """What a connection does when its session has something due: here nothing."""


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.sampled_from((0.1, 0.25, 5.0, 15.0)), st.sampled_from((0.0, 0.05, 0.3))
        ),
        max_size=40,
    )
)
def test_each_comes_up_in_time_whatever_else_is_due(happenings: Any) -> None:
    loop = FakeClockLoop()

    async def run() -> None:
        sessions = [Session() for _ in range(4)]
        late: list[float] = []
        deadlines: list[Deadline] = []

        def make(session: Session) -> Deadline:
            def due(now: float) -> None:
                late.extend(at for at in session.due if at < now)
                made.reset_timer(now)

            made = deadline_of(session, loop, due)
            return made

        deadlines = [make(session) for session in sessions]
        for which, after, pause in happenings:
            now = loop.time()
            sessions[which].due.append(now + after)
            deadlines[which].reset_timer(now)
            await asyncio.sleep(pause)
        await asyncio.sleep(20.0)
        assert not late
        assert not any(session.due for session in sessions)
        assert len(Deadlines.of_loop(loop)) == 0

    loop.run_until_complete(run())
    loop.close()


def test_what_is_over_is_thrown_out_and_keeps_no_connection() -> None:
    loop = FakeClockLoop()
    gone = []
    for _ in range(1000):
        session = Session()
        session.due.append(15.0)
        deadline = deadline_of(session, loop, nothing)
        deadline.reset_timer(0.0)
        gone.append(weakref.ref(session))
        deadline.cancel()
        deadline.cancel()
        deadline.reset_timer(0.0)  # a word that comes late sets nothing
    del session, deadline
    gc.collect()
    assert not any(each() for each in gone)
    assert len(Deadlines.of_loop(loop)) == 0
    loop.close()


def test_among_those_that_go_on_few_are_kept_that_are_over() -> None:
    loop = FakeClockLoop()
    kept = Session()
    kept.due.append(1.0)
    goes_on = deadline_of(kept, loop, nothing)
    goes_on.reset_timer(0.0)
    for _ in range(5000):
        session = Session()
        session.due.append(15.0)
        deadline = deadline_of(session, loop, nothing)
        deadline.reset_timer(0.0)
        deadline.cancel()
        assert len(Deadlines.of_loop(loop)) < 300
    loop.close()


def test_often_earlier_and_later_again_adds_up_to_nothing() -> None:
    loop = FakeClockLoop()

    async def run() -> None:
        session = Session()
        deadline: Deadline = deadline_of(session, loop, lambda now: deadline.reset_timer(now))
        for _ in range(500):
            now = loop.time()
            session.due = [now + 0.1, now + 15.0]  # an acknowledgement, and a keepalive that moves
            deadline.reset_timer(now)
            await asyncio.sleep(0.2)
            assert len(Deadlines.of_loop(loop)) < 5
        deadline.cancel()

    loop.run_until_complete(run())
    loop.close()


def test_one_that_fails_holds_up_no_other() -> None:
    loop = FakeClockLoop()
    told: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: told.append(context))

    async def run() -> None:
        def fail(now: float) -> None:
            raise RuntimeError("this one fails")

        failing, other = Session(), Session()
        failing.due, other.due = [1.0], [1.0]
        first, second = deadline_of(failing, loop, fail), deadline_of(other, loop, nothing)
        first.reset_timer(0.0)
        second.reset_timer(0.0)
        await asyncio.sleep(2.0)
        assert other.looked == pytest.approx([1.0])
        assert [str(context["exception"]) for context in told] == ["this one fails"]

    loop.run_until_complete(run())
    loop.close()


def test_a_loop_that_is_over_is_forgotten() -> None:
    loop = asyncio.new_event_loop()
    session = Session()
    session.due.append(loop.time() + 1000.0)
    deadline = deadline_of(session, loop, nothing)
    deadline.reset_timer(loop.time())
    found = weakref.ref(Deadlines.of_loop(loop))
    loop.close()
    del deadline
    gc.collect()
    assert found() is None
