"""What a daemon says when its disk is full, or its database takes nothing more: that it is so, and why."""

from __future__ import annotations

import asyncio
import io
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import small_disk
from conditions import until
from rich.console import Console

from dtp.cli.daemon_status import show
from dtp.daemon.patience import PATIENCE, Patience
from dtp.daemon.paying.side import ChainSide
from dtp.daemon.server import Daemon
from dtp.daemon.state.errors import StateError
from dtp.daemon.state.memory import MemoryCountStore
from dtp.daemon.state.watched import LOOKS, WatchedStore
from dtp.daemon.web import metrics
from dtp.daemon.web.server import PATHS
from dtp.daemon.workers.summing import merge
from dtp.pay.errors import StoreError
from dtp.session.limits import DEFAULT
from dtp.testing import clock

from ..conftest import FAR, Pair, Run, config
from ..crew import Crew
from ..process.test_daemon_workers import DIRECT, start, workers_of
from ..streams.test_daemon_relay import expose

SOON = Patience(exchange=0.01, again=0.01)


def health_of(status: dict[str, Any]) -> dict[str, Any]:
    answer = PATHS["/health"](Mock(get_status=lambda **_: status))
    found: dict[str, Any] = json.loads(answer.body)
    return found


def text_of(status: dict[str, Any]) -> str:
    out = io.StringIO()
    show(status, Console(file=out, width=200))
    return out.getvalue()


def test_a_full_disk_is_told_by_a_daemon_that_has_nothing_to_write(run: Run, tmp_path: Path) -> None:
    """It could be read, so all was well until the first ban or count was lost."""
    folder = tmp_path / "small"
    folder.mkdir()

    async def scenario(pair: Pair) -> None:
        pair.make = partial(Daemon, patience=SOON)
        await pair.start(expose(1), top=f'[state]\nurl = "sqlite://{folder}/state.db"')
        status = pair.far.get_status()
        assert (status["state_up"], status["state_trouble"]) == (True, "")
        small_disk.fill(folder)
        await until(lambda: not pair.far.get_status()["state_up"])
        status = pair.far.get_status()
        why = f"{folder}/state.db: the disk is full; make room on it and try again: what was stored is still there"
        assert status["state_trouble"] == why
        assert health_of(status)["state_trouble"] == why
        assert f"state away: {why}" in text_of(status)
        assert "\ndtpd_state_up 0.0\n" in metrics.exposition(Mock(get_status=lambda **_: status)).decode()
        small_disk.make_room(folder)
        await until(lambda: pair.far.get_status()["state_up"])
        assert pair.far.get_status()["state_trouble"] == ""
        assert "state away" not in text_of(pair.far.get_status())

    with small_disk.mounted(folder):
        run(scenario)


class ReadOnly(MemoryCountStore):
    """A store that can be read, and written while there is no `fault`."""

    def __init__(self) -> None:
        super().__init__()
        self.fault: StateError | None = None
        self.tried = 0

    async def ban(self, caller: str, until: float) -> None:
        self.tried += 1
        if self.fault is not None:
            raise self.fault
        await super().ban(caller, until)


def test_a_daemon_of_workers_tells_it_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        crew, store = Crew(), ReadOnly()
        settings = config(tmp_path, f'{DIRECT}\n[state]\nurl = "sqlite:///x"\n')
        parent = workers_of(crew, settings, 2, make_store=lambda url, name: store)
        await start(parent)
        assert parent.get_status()["state_up"] is True
        store.fault = StateError("the disk is full")
        await asyncio.sleep((LOOKS + 1) * PATIENCE.exchange)
        status = parent.get_status()
        assert (status["state_up"], status["state_trouble"]) == (False, "the disk is full")
        store.fault = None
        await asyncio.sleep(2 * PATIENCE.exchange)
        assert parent.get_status()["state_up"] is True
        for channel in crew.channels:  # what could not be counted is known to the workers first
            told = {"state_up": channel is crew.channels[0], "state_trouble": "full"}
            channel.figures = {"refused": {}, "exposed": [], "forwarded": [], **told}
        await parent.refresh_status(callers=False)
        status = parent.get_status()
        assert (status["state_up"], status["state_trouble"]) == (False, "full")
        await parent.close()

    clock.run(scenario())


def test_what_is_written_to_see_whether_it_can_be_is_little_and_bans_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One row that stays one, at every tenth look; at each look while it fails, which is said once."""
    caplog.set_level("INFO", "dtpd")

    async def scenario() -> None:
        store = ReadOnly()
        watched = WatchedStore(store, "alone")
        for _ in range(3 * LOOKS):
            await watched.try_writing()
        assert store.tried == 3
        assert await store.list_bans(0.0) == {}
        store.fault = StateError("the disk is full")
        for _ in range(LOOKS + 4):
            await watched.try_writing()
        assert (store.tried, watched.trouble) == (3 + 5, "the disk is full")
        watched.note_failing("bans", StateError("gone"))
        store.fault = None
        await watched.try_writing()
        assert (watched.up, watched.trouble) == (False, "gone")
        watched.note_working("bans")
        assert watched.get_status() == {"state_up": True, "state_trouble": ""}

    asyncio.run(scenario())
    assert [each.getMessage() for each in caplog.records] == [
        "alone: the disk is full",
        "the state can be shared again",
    ]


def test_vouchers_that_can_not_be_written_are_told(tmp_path: Path) -> None:
    """What is sold for nobody could be counted: callers heard of it, and the operator read it in the log alone."""

    async def scenario() -> dict[str, Any]:
        side = ChainSide(config(tmp_path, DIRECT), FAR, DEFAULT, None)
        fault = StoreError("/var/lib/dtpd/pay.sqlite: database or disk is full")
        seller: Any = SimpleNamespace(claimed={}, gas=0, host_gas=0, journal=SimpleNamespace(fault=None))
        side.seller = seller
        assert (side.get_status()["vouchers_up"], side.get_status()["vouchers_trouble"]) == (True, "")
        seller.journal.fault = fault
        return side.get_status()

    found = asyncio.run(scenario())
    assert (found["vouchers_up"], found["vouchers_trouble"]) == (
        False,
        "/var/lib/dtpd/pay.sqlite: database or disk is full",
    )
    status = {"identity": "dtp1", "uptime": 5, "draining": False, "reloads": 0, "connections": 0, "half_open": 0,
              "exposed": [], "forwarded": [], "refused": {}, "callers": []}  # fmt: skip
    both = merge([status, status | {key: found[key] for key in ("vouchers_up", "vouchers_trouble")}])
    assert health_of(both)["vouchers_trouble"] == found["vouchers_trouble"]
    assert f"store of vouchers away: {found['vouchers_trouble']}" in text_of(both)
    assert "\ndtpd_vouchers_up 0.0\n" in metrics.exposition(Mock(get_status=lambda **_: both)).decode()
