"""Bans that outlive the process in which they were set: in a file, in its successor, and in those before it."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest

from dtp.daemon.policies.bans import FOR_EVER
from dtp.daemon.policies.kept_bans import KeptBans
from dtp.daemon.process import program as process
from dtp.daemon.process import systemd
from dtp.daemon.process.program import Process
from dtp.daemon.state.counted import Counted

from ..conftest import NEAR
from .test_daemon_process import Launch, Served, answer, command, serve, until

__all__ = ["serve"]


def test_who_can_not_be_banned(serve: Callable[..., Any]) -> None:
    async def scenario(served: Process, daemon: Served) -> None:
        for caller, seconds in (("*", None), ("alice", None), (None, 1), ("0x" + "1" * 64, "1h")):
            with pytest.raises(process.CantBan):
                await command(served, "ban", caller=caller, seconds=seconds)

    serve(scenario)


def test_a_ban_that_the_next_start_will_not_know_is_said(serve: Callable[..., Any], tmp_path: Path) -> None:
    """The data folder can't be written: it holds here until the daemon stops."""

    async def scenario(served: Process, daemon: Served) -> None:
        assert (await command(served, "ban", caller=str(NEAR.id)))["unkept"] is None
        (file,) = (tmp_path / "data").rglob("*.json")
        file.unlink()
        file.mkdir()  # no file can be put in its place
        assert "Is a directory" in (await command(served, "ban", caller=str(NEAR.id)))["unkept"]

    serve(scenario)


def test_who_is_banned_is_banned_in_the_processes_before_as_well(serve: Callable[..., Any]) -> None:
    """Streams that an upgrade left there went on, for a month."""

    async def scenario(served: Process, daemon: Served) -> None:
        daemon.replaced.ban = AsyncMock()
        await command(served, "ban", caller=str(NEAR.id), seconds=None)
        daemon.replaced.ban.assert_awaited_once_with(str(NEAR.id), FOR_EVER)

    serve(scenario)


def test_bans_outlive_a_stop(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also of a process that was killed after one; whoever takes over from another is told by that."""
    banned = str(NEAR.id)

    async def ban(served: Process, daemon: Served) -> None:
        assert daemon.export_counts() == Counted()
        await command(served, "ban", caller=banned)
        assert KeptBans.of_config(daemon.config.path).read_bans() == Counted(
            {banned: FOR_EVER}, kept_in="here"
        )

    async def begin(served: Process, daemon: Served) -> None:
        assert daemon.export_counts() == Counted({banned: FOR_EVER}, kept_in="here")
        await until(lambda: daemon.asked == ["take over"])
        daemon.export_counts = lambda: Counted({banned: 5.0}, kept_in="there")  # it has ended

    async def begin_without(served: Process, daemon: Served) -> None:
        assert daemon.export_counts() == Counted()
        assert not list((tmp_path / "data").rglob("*.json"))
        await command(served, "ban", caller=banned)

    async def take_over(served: Process, daemon: Served) -> None:
        assert daemon.export_counts() == Counted()
        assert KeptBans.of_config(daemon.config.path).read_bans().bans  # the one before may go on with them
        os.close(read)
        await until(lambda: daemon.asked == ["take over"])
        assert not list((tmp_path / "data").rglob("*.json"))  # it was killed, and has told of none

    for scenario in (ban, begin, begin_without):
        serve(scenario)
    read, write = os.pipe()
    monkeypatch.setenv(systemd.READY, str(write))
    serve(take_over)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"version": 99}', b"\xff", None])
def test_a_file_of_bans_that_can_t_be_used_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, data: bytes | None
) -> None:
    file = tmp_path / "data" / "bans.json"
    kept = KeptBans(file)
    if data is None:
        (tmp_path / "data").write_bytes(b"no folder")
    else:
        kept.write_bans(Counted({"dtp1a": FOR_EVER}))
        file.write_bytes(data)
    assert kept.read_bans() == Counted()
    assert "bans for the next start can't be read" in caplog.text
    kept.write_bans(Counted({"dtp1a": FOR_EVER}))
    if data is None:
        assert "can't be written" in caplog.text
    else:
        assert kept.read_bans().bans == {"dtp1a": FOR_EVER}
        assert os.listdir(tmp_path / "data") == ["bans.json"]
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("state", [None, "sqlite:///tmp/state.db"])
def test_a_ban_that_the_successor_has_not_heard_of_is_asked_for_again(
    serve: Callable[..., Any], state: str | None
) -> None:
    """It holds here at once, and what was handed over is older; the successor's state may be another."""
    told: list[Any] = []
    running: list[Any] = []

    class Banning(Launch):
        def start(self, socks: Any, counted: Counted, *rest: Any) -> tuple[subprocess.Popen[bytes], Any]:
            told.append(counted)
            told.append(asyncio.ensure_future(command(running[0], "ban", caller="0x" + "1" * 64)))
            return super().start(socks, counted, *rest)

    async def scenario(served: Process, daemon: Served) -> None:
        running.append(served)
        daemon.config = replace(daemon.config, state=state)
        daemon.ban = AsyncMock()
        daemon.export_counts = lambda: Counted(bans={"dtp1a": 1e12})
        await command(served, "upgrade")
        with pytest.raises(process.AboutToEnd, match="ask again"):
            await told[1]
        daemon.ban.assert_awaited_once()
        assert told[0] == Counted(bans={"dtp1a": 1e12})

    serve(scenario, Banning(answer("b'1'")))
