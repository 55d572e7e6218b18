"""Behind an upgrade: what the process before still has open, for how long, and what it cuts off in the end."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.cli.daemon_status import render
from dtp.daemon.process import predecessors
from dtp.daemon.process import program as process
from dtp.daemon.process.predecessors import EVERY, MOST, Farewell, Left, Predecessors
from dtp.daemon.process.program import Process

from .test_daemon_process import Launch, Served, answer, command, serve, until

__all__ = ["serve"]


class Heard:
    """A successor and what it hears over a socket pair, told by `tell`."""

    def __init__(self, before: Predecessors | None = None, every: float = EVERY) -> None:
        self.mine, self.theirs = socket.socketpair()
        self.here = Predecessors()
        self.before = before or Predecessors()
        self.left = Left(7, 3, {"api": 3}, 99.0)
        self.cut = asyncio.get_running_loop().create_future()
        self.hearing = asyncio.ensure_future(self.here.listen_to(self.theirs.detach()))
        self.telling = asyncio.ensure_future(
            Farewell(self.mine, self.before, lambda: self.left, every).tell_successor(self.cut)
        )


def test_it_is_heard_what_is_open_and_what_was_cut_off() -> None:
    async def main() -> None:
        heard = Heard()
        await until(lambda: heard.here.known == [heard.left])
        assert heard.here.list_status() == [
            {"pid": 7, "open": 3, "by_name": {"api": 3}, "until": 99.0, "cut": 0},
        ]
        heard.left = Left(7, 1, {"api": 1}, 99.0)
        heard.cut.set_result(1)
        await asyncio.gather(heard.telling, heard.hearing)
        (last,) = heard.here.known
        assert (last.open, last.by_name, last.cut) == (0, {}, 1)

    asyncio.run(main())


def test_one_that_was_killed_has_nothing_open() -> None:
    async def main() -> None:
        heard = Heard()
        await until(lambda: heard.here.known)
        heard.telling.cancel()
        await heard.hearing
        assert [(one.pid, one.open, one.cut) for one in heard.here.known] == [(7, 0, 0)]

    asyncio.run(main())


def test_those_before_are_passed_on_and_the_oldest_are_forgotten() -> None:
    async def main() -> None:
        before = Predecessors()
        before.note_told([Left(number, number) for number in range(20, 20 + MOST)])
        heard = Heard(before)
        await until(lambda: heard.here.known)
        assert [one.pid for one in heard.here.known] == [*range(21, 20 + MOST), 7]
        heard.telling.cancel()
        await heard.hearing

    asyncio.run(main())


@pytest.mark.parametrize("killed", [False, True])
def test_who_is_replaced_hands_on_who_tells(killed: bool) -> None:
    """The one in between had nothing open and ended; of the first one nothing was heard any more."""

    async def main() -> None:
        heard = Heard()
        await until(lambda: heard.here.known)
        ((descriptor, teller),) = heard.here.ends.items()
        assert teller == 7
        heard.here.pause_reading()
        newest = Predecessors()
        hearing = asyncio.ensure_future(newest.listen_to(os.dup(descriptor), teller))
        await until(lambda: newest.ends)
        if killed:  # what the one in between has heard is older
            heard.telling.cancel()
            await hearing
        newest.note_told([*heard.here.known, Left(8, 0)])
        if not killed:
            heard.left = Left(7, 1, {"api": 1}, 99.0)
            heard.cut.set_result(1)
            await hearing
        newest.note_told([Left(7, 3), Left(8, 0)])
        told = {one.pid: (one.open, one.cut) for one in newest.known}
        assert told == ({8: (0, 0)} if killed else {7: (0, 1), 8: (0, 0)})
        heard.hearing.cancel()
        await asyncio.wait([heard.hearing])

    asyncio.run(main())


def test_an_upgrade_that_fails_goes_on_hearing() -> None:
    async def main() -> None:
        heard = Heard()
        await until(lambda: heard.here.known)
        heard.here.pause_reading()
        heard.left = Left(7, 1, {"api": 1}, 99.0)
        heard.here.go_on()
        heard.cut.set_result(0)
        await asyncio.gather(heard.telling, heard.hearing)
        assert [(one.pid, one.open) for one in heard.here.known] == [(7, 0)]

    asyncio.run(main())


def test_nothing_is_told_when_nobody_hears_it(caplog: pytest.LogCaptureFixture) -> None:
    """It was, once a second, and each time asyncio warned."""

    async def main() -> None:
        heard = Heard(every=0.001)
        await until(lambda: heard.here.known)
        heard.hearing.cancel()
        await asyncio.wait([heard.telling])
        assert not heard.cut.done()

    asyncio.run(main())
    assert caplog.records == []


@given(
    st.binary(max_size=60)
    | st.recursive(st.none() | st.integers() | st.text(max_size=3), st.lists, max_leaves=6).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_a_process_of_another_version_is_not_understood_and_nothing_breaks(line: bytes) -> None:
    async def main() -> None:
        mine, theirs = socket.socketpair()
        here = Predecessors()
        with mine:
            mine.sendall(line + b"\n")
        await here.listen_to(theirs.detach())
        assert here.list_status() == []

    asyncio.run(main())


def test_no_more_names_are_told_than_fit() -> None:
    status = {
        "exposed": [{"service": f"s{number}", "open": number} for number in range(100)],
        "forwarded": [{"listen": ["127.0.0.1:1", "[::1]:1"], "mode": "tcp", "open": 1000}],
    }
    left = Left.from_status(status, 5950, 1.0)
    assert list(left.by_name) == ["127.0.0.1:1, [::1]:1", *(f"s{number}" for number in range(99, 84, -1))]
    assert (left.pid, left.open) == (os.getpid(), 5950)


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (Left(5, 2, {"api": 2}, 0.0), "finishes 2 streams until 1970-01-01 00:00:00 UTC: 2 of api"),
        (Left(5, 0, {}, 0.0, 3), "cut off 3 streams"),
        (Left(5, 0, {}, 0.0), "has finished all that was open"),
    ],
)
def test_the_status_shows_it(one: Left, words: str) -> None:
    here = Predecessors()
    here.note_told([one])
    status = {
        "draining": False, "uptime": 1, "reloads": 0, "identity": "dtp1", "callers": [], "exposed": [],
        "forwarded": [], "before": here.list_status(),
    }  # fmt: skip
    assert f"process 5, before the upgrade, {words}" in [str(part) for part in render(status)]


# ---- the process -------------------------------------------------------------------------------------------------

#: A successor that serves, and passes on what it is told.
TOLD = (
    "import socket; told = socket.socket(fileno=int(os.environ['DTPD_BEFORE'].partition('=')[0])); "
    "out = open({path!r}, 'wb'); "
)
HEARS = "\nwhile data := told.recv(65536):\n    out.write(data); out.flush()"


@pytest.mark.parametrize("grace", [None, 3600])
def test_the_successor_hears_and_the_time_is_that_of_the_command(
    serve: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    grace: int | None,
) -> None:
    path = tmp_path / "told"
    program = answer("b'1'")
    program[-1] += "; " + TOLD.format(path=str(path)) + HEARS
    caplog.set_level(logging.INFO)

    async def scenario(served: Process, daemon: Served) -> None:
        daemon.open_streams = 2
        await command(served, "upgrade", drain=grace)
        await until(lambda: hasattr(daemon, "grace"))
        assert daemon.grace == (process.LONGEST_GRACE if grace is None else grace)  # whatever the file says
        await asyncio.to_thread(_wait_for, path)
        served.stop()

    serve(scenario, Launch(program))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    (first,), (last,) = lines[0], lines[-1]
    assert (first["pid"], first["open"], first["by_name"], first["cut"]) == (os.getpid(), 2, {"api": 2}, 0)
    assert (last["open"], last["cut"]) == (0, 2)
    assert "cut off: 2 streams (2 of api)" in caplog.text


def _wait_for(path: Path) -> None:
    while not path.exists() or not path.stat().st_size:
        os.sched_yield()


@pytest.mark.parametrize("grace", ["1h", True, -1, float("nan"), process.LONGEST_GRACE + 1])
def test_a_time_that_is_none_is_refused_and_nothing_changes(
    serve: Callable[..., Any], grace: float | str
) -> None:
    async def scenario(served: Process, daemon: Served) -> None:
        for each in ("upgrade", "drain"):
            with pytest.raises(process.BadGrace):
                await command(served, each, drain=grace)
        for _ in range(10):
            await asyncio.sleep(0)
        assert daemon.asked == []

    serve(scenario)


@pytest.mark.parametrize(
    ("told", "ends"), [("17=4321", {17: 4321}), ("17=4321 8=0", {17: 4321, 8: 0}), ("17", {}), ("x=1", {})]
)
def test_the_descriptors_are_taken_once(
    monkeypatch: pytest.MonkeyPatch, told: str, ends: dict[int, int]
) -> None:
    monkeypatch.setenv(predecessors.BEFORE, told)
    assert predecessors.inherited_ends() == ends
    assert predecessors.inherited_ends() == {}
    assert not ends or predecessors.ends_text(ends) == told
