"""A server's backup put back, by the commands."""

from __future__ import annotations

import os
import shutil
from typing import Any

import pytest

from ..homes import PRICED, Home, site


@pytest.mark.slow
def test_new_channels_are_served_at_once_behind_a_backup_and_those_from_before_wait(
    net: Any, homes: Any
) -> None:
    server, client = homes
    other = Home(net, server.folder.parent / "other")
    folder = site(server, **{"big.iso": os.urandom(100_000)})
    copy = server.folder / "copy.sqlite"
    with server.serving("--http", folder, "--service", "files", *PRICED) as (address, _):
        client.run("recv", f"{address}/big.iso", "--budget", "0.5SUI", "--keep-channel")
    server.run("channel", "backup", str(copy))
    for each in (server.folder / "data").glob("pay.sqlite*"):
        each.unlink()
    shutil.copy(copy, server.folder / "data" / "pay.sqlite")
    with server.serving("--http", folder, "--service", "files", *PRICED) as (address, _):
        got = other.run("recv", f"{address}/big.iso", "--budget", "0.5SUI")
        assert [each["event"] for each in got if each["event"] in ("paid", "settled")] == ["paid", "settled"]
        kept = other.run("recv", f"{address}/big.iso", "--force", "--budget", "0.5SUI", "--keep-channel")
        assert "paid" in [each["event"] for each in kept]
    # Also by a server that starts once more: what it has agreed on since is in its store.
    with server.serving("--http", folder, "--service", "files", *PRICED) as (address, _):
        (other.folder / "big.iso").unlink()
        assert "paid" in [
            each["event"] for each in other.run("recv", f"{address}/big.iso", "--budget", "0.5SUI")
        ]
        (client.folder / "big.iso").unlink()
        fault = client.failing("recv", f"{address}/big.iso", "--budget", "0.5SUI", code=4)
        assert "restored from a backup" in fault["message"]
