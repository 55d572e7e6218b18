"""`dtpd top`: what a daemon does, live in the terminal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from dtp.cli.daemon_status import render, size_text
from dtp.cli.output import wants_json
from dtp.daemon.process.control import ask


class Rates:
    """Speeds, out of two statuses: bytes a second in and out, streams a second."""

    def __init__(self) -> None:
        self._last: tuple[float, Mapping[str, int]] | None = None

    def compute_rates(self, status: Mapping[str, Any], now: float) -> dict[str, float]:
        """Since the status before; zeros at first. A part that a reload has replaced counts from 0 again."""
        parts = [*status["exposed"], *status["forwarded"]]
        sums = {key: sum(part[key] for part in parts) for key in ("received", "sent", "streams")}
        last, self._last = self._last, (now, sums)
        if last is None or now <= last[0]:
            return dict.fromkeys(sums, 0.0)
        return {key: max(0, sums[key] - last[1][key]) / (now - last[0]) for key in sums}


#: What a screen has room for.
_CALLERS, _EVENTS = 12, 5


def _screen(status: Mapping[str, Any], rates: Mapping[str, float]) -> Group:
    speeds = Text(
        f"in {size_text(rates['received'])}/s   out {size_text(rates['sent'])}/s   "
        f"{rates['streams']:,.0f} new streams/s",
        style="bold",
    )
    return Group(speeds, *render(status, events=_EVENTS, callers=_CALLERS))


async def watch(path: Path, interval: float, count: int | None, console: Console) -> None:
    """Ask every `interval` seconds, `count` times (None: until interrupted). Where there is no terminal, one screen
    is printed below the other. Raises what `ask` does."""
    rates = Rates()
    shown = 0
    with contextlib.ExitStack() as stack:
        live = None
        if console.is_terminal and not wants_json():
            live = stack.enter_context(Live(console=console, auto_refresh=False, transient=False))
        while True:
            status = await ask(path, "status")
            speeds = rates.compute_rates(status, time.monotonic())
            if wants_json():
                click.echo(json.dumps({"status": status, "rates": speeds}))
            elif live is None:
                console.print(_screen(status, speeds), end="\n\n")
            else:
                live.update(_screen(status, speeds), refresh=True)
            shown += 1
            if shown == count:
                return
            await asyncio.sleep(interval)
