"""A channel is served by one process at a time, wherever several share a store."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dtp.pay.store import Store
from dtp.pay.store.holding import Holds, VoucherStore

from ..meters import CHANNEL

OTHER = "0x" + "d2" * 32
CHILD = textwrap.dedent("""
    import sys
    from dtp.pay.store.holding import Holds
    holds = Holds(sys.argv[1])
    print(holds.hold_channel(sys.argv[2]), flush=True)
    sys.stdin.read()
""")


@contextlib.contextmanager
def other_process(path: Any, channel: Any, how: Any = "ended") -> Iterator[Any]:
    """Another process that holds a channel, if it can, until it is "ended" or "killed"; gives whether it does."""
    command = [sys.executable, "-c", CHILD, path, channel]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:  # its end closes its standard input, by which the process ends
        yield process.stdout.readline().strip() == "True"
        if how == "killed":
            process.kill()


def test_a_store_is_what_a_server_needs(tmp_path: Path) -> None:
    with Store(tmp_path / "pay.sqlite") as store:
        needed: VoucherStore = store
        assert needed.sold_lanes() == []


def test_one_server_at_a_time_in_one_process(tmp_path: Path) -> None:
    path = str(tmp_path / "pay.sqlite")
    first, second = Holds(path), Holds(path)
    assert first.hold_channel(CHANNEL)
    assert first.hold_channel(CHANNEL)  # two lanes of it
    assert not second.hold_channel(CHANNEL)
    assert second.hold_channel(OTHER)
    first.free(CHANNEL)
    assert not second.hold_channel(CHANNEL)
    first.free(CHANNEL)
    assert second.hold_channel(CHANNEL)
    second.close()
    assert first.hold_channel(CHANNEL)
    assert first.hold_channel(OTHER)
    first.close()


def test_stores_in_memory_are_not_shared() -> None:
    first, second = Holds(":memory:"), Holds(":memory:")
    assert first.hold_channel(CHANNEL)
    assert second.hold_channel(CHANNEL)


def test_one_process_at_a_time_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "pay.sqlite")
    for how in ("ended", "killed"):
        mine = Holds(path)
        with other_process(path, CHANNEL, how) as took:
            assert took
            assert not mine.hold_channel(CHANNEL)
            assert mine.hold_channel(OTHER)
        assert mine.hold_channel(CHANNEL)
        with other_process(path, CHANNEL) as took:
            assert not took
        mine.close()
