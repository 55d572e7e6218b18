"""What `dtpd status` shows to people: one table for what is exposed, one for what is forwarded, one for callers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def size_text(size: float) -> str:
    """Bytes as people read them."""
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")


def show(status: Mapping[str, Any], console: Console | None = None) -> None:
    """Print `Daemon.status()`."""
    console = console or Console()
    for part in render(status):
        console.print(part)


def render(status: Mapping[str, Any]) -> list[RenderableType]:
    """What to print, from the top down. What peers said is text, never markup."""
    parts: list[RenderableType] = [
        Text(f"{status['identity']}{'  draining' if status['draining'] else ''}"),
        Text(f"up {status['uptime']:.0f} s, reloaded {status['reloads']} times"),
    ]
    if status["exposed"]:
        table = _table("exposed", "open", "streams", "failed", "in", "out", "backends", "denied")
        for one in status["exposed"]:
            backends = ", ".join(f"{b['place']}{'' if b['up'] else ' (down)'}" for b in one["backends"])
            denied = ", ".join(f"{name} {count}" for name, count in one["denials"].items())
            table.add_row(Text(one["service"]), *_figures(one), backends, denied)
        parts.append(table)
    if status["forwarded"]:
        table = _table("forwarded", "open", "streams", "failed", "in", "out", "connected", "to")
        for one in status["forwarded"]:
            state = "yes" if one["connected"] else one["trouble"] or "no"
            table.add_row(", ".join(one["listen"]), *_figures(one), Text(state), Text(", ".join(one["to"])))
        parts.append(table)
    if status["callers"]:
        table = _table("caller", "service", "from", "streams", "resumes")
        for one in status["callers"]:
            table.add_row(
                one["peer"], Text(one["service"]), one["source"], str(one["streams"]), str(one["resumes"])
            )
        parts.append(table)
    return parts


def _figures(one: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        str(one["open"]),
        str(one["streams"]),
        str(one["failed"]),
        size_text(one["received"]),
        size_text(one["sent"]),
    )


def _table(*names: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in names:
        table.add_column(name)
    return table
