"""What `dtpd status` shows to people: how it stands, what is exposed and forwarded, who is there, what went wrong."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, OverflowMethod, RenderableType
from rich.table import Table
from rich.text import Text

from dtp.cli.daemon_mesh import node_parts
from dtp.cli.output import printable
from dtp.daemon.config.model import OWN
from dtp.daemon.observing import LEANED_ON
from dtp.daemon.observing.requests import BOUNDS, quantile
from dtp.plurals import count_of

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_TIMES = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
#: The newest events that `status` shows.
_EVENTS = 10
_BAD = "red"
#: Columns of a sentence: one that is longer has several lines, or it would make each line of the table as long.
_WIDEST = 100
#: Seconds that a worker has to say how it stands; it is asked once a second at least.
_SILENT = 3.0


def size_text(size: float) -> str:
    """Return bytes as people read them."""
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")


def sui_text(mist: int) -> str:
    """Return MIST as SUI, exactly."""
    return f"{mist // 10**9:,}.{mist % 10**9:09d}".rstrip("0").rstrip(".")


def time_text(seconds: float) -> str:
    """Return seconds as people read them, by their two largest units: "1 d 2 h", "5 min", "3 s"."""
    left = int(seconds)
    parts: list[tuple[int, str]] = []
    for size, name in _TIMES:
        amount, left = divmod(left, size)
        if amount or (parts and len(parts) < 2):
            parts.append((amount, name))
    return " ".join(f"{amount} {name}" for amount, name in parts[:2] if amount) or "0 s"


def latency_text(seconds: float) -> str:
    """Return the time of a request, of which more than the last bound isn't known: "4.2 ms", "1.5 s", "over 10 s"."""
    if seconds >= BOUNDS[-1]:
        return f"over {BOUNDS[-1]:g} s"
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{float(f'{seconds * 1000:.2g}'):g} ms"


def show(status: Mapping[str, Any], console: Console) -> None:
    """Print `Daemon.get_status()`."""
    for part in render(status, rules=True, events=_EVENTS):
        console.print(part)


def render(
    status: Mapping[str, Any], *, rules: bool = False, events: int = 0, callers: int | None = None
) -> list[RenderableType]:
    """Return what to print, from the top down; as many callers and events at most. What peers said is text, never
    markup."""
    parts: list[RenderableType] = [_head(status), *_troubles(status)]
    for key, make in (
        ("exposed", _exposed),
        ("forwarded", _forwarded),
        ("callers", _callers),
        ("workers", _workers),
    ):
        found = status.get(key) or []
        if found:
            shown = found[:callers] if key == "callers" else found
            parts += [Text(), make(shown)]
            if len(shown) < len(found):
                parts.append(Text(f"and {len(found) - len(shown):,} more", style="dim"))
        if key == "forwarded":
            parts += _targets(status, all_=rules)
        if key == "exposed":
            parts += _requests(status)
            parts += _shows(status)
            parts += _backends(status, all_=rules)
    if "node" in status:
        parts += node_parts(status["node"])
    refused = [f"{count:,} by {reason}" for reason, count in status.get("refused", {}).items() if count]
    if refused:
        parts += [Text(), Text(f"refused before they came to a service: {', '.join(refused)}")]
    parts += _dropped(status)
    parts += _tasks(status, all_=rules)
    parts += _money(status)
    parts += [_before(one) for one in status.get("before", ())]
    for caller, until in status.get("bans", {}).items():
        end = "" if until is None else time.strftime(" until %Y-%m-%d %H:%M:%S UTC", time.gmtime(until))
        parts.append(Text(f"banned{end}: {caller}"))
    if not status["callers"] and status["exposed"]:
        parts += [Text(), Text("nobody is connected", style="dim")]
    if rules:
        parts += _rules(status)
    if events and status.get("events"):
        parts += [Text(), _events(status["events"][-events:])]
    return parts


def _before(one: Mapping[str, Any]) -> Text:
    """Return a line for a process whose place was taken at an upgrade."""
    if one["open"]:
        names = ", ".join(f"{count:,} of {printable(name)}" for name, count in one["by_name"].items())
        end = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(one["until"]))
        streams = count_of(one["open"], "stream")
        return Text(f"process {one['pid']}, before the upgrade, finishes {streams} until {end}: {names}")
    cut = one["cut"]
    ended = f"cut off {count_of(cut, 'stream')}" if cut else "has finished all that was open"
    return Text(f"process {one['pid']}, before the upgrade, {ended}", _BAD if cut else "")


def _head(status: Mapping[str, Any]) -> Text:
    words = ["draining" if status["draining"] else "running"]
    words += [f"process {status['pid']}"] if "pid" in status else []  # older daemons don't say
    words.append(f"up {time_text(status['uptime'])}")
    away = _find_away(status)
    words += [f"{what} away" for what in away]
    if status["reloads"]:
        words.append(f"reloaded {count_of(status['reloads'], 'time')}")
    return Text.assemble(
        Text(", ".join(words), style=_BAD if status["draining"] or away else ""),
        "  ",
        Text(status["identity"], "dim"),
    )


def _find_away(status: Mapping[str, Any]) -> list[str]:
    return [what for what in LEANED_ON if not status.get(f"{what}_up", True)]


def _troubles(status: Mapping[str, Any]) -> list[RenderableType]:
    """Return a line for all that is away, with why; older daemons don't say why."""
    told = [(what, status.get(f"{what}_trouble", "")) for what in _find_away(status)]
    return [Text(f"{LEANED_ON[what]} away: {printable(why)}", _BAD) for what, why in told if why]


def _exposed(found: list[Mapping[str, Any]]) -> Table:
    table = _table("exposed", *_FIGURES, "backends", "refused", right=("refused",))
    for one in found:
        up, all_ = sum(backend["up"] for backend in one["backends"]), len(one["backends"])
        state = Text(f"{up} up" if up == all_ else f"{up} of {all_} up", "" if up == all_ else _BAD)
        figures = _figures(one)
        if one.get("kind") in OWN:  # of these no bytes are counted
            figures, state = (*figures[:3], "", ""), Text(one["kind"])
        table.add_row(Text(one["service"]), *figures, state, f"{sum(one['denials'].values()):,}")
    return table


def _requests(status: Mapping[str, Any]) -> list[RenderableType]:
    """Return how requests were answered, of services whose requests are understood."""
    table = _table("requests of", "answered", "half in", "99 % in", "by status", right=("answered",))
    for one in status["exposed"]:
        told = one.get("requests")
        if told and told["count"]:
            times = (latency_text(quantile(told, part) or 0.0) for part in (0.5, 0.99))
            statuses = ", ".join(f"{name} {count:,}" for name, count in told["statuses"].items())
            table.add_row(Text(one["service"]), f"{told['count']:,}", *times, statuses)
    return [Text(), table] if table.row_count else []


def _shows(status: Mapping[str, Any]) -> list[RenderableType]:
    """Return each show: whether it is made here, how it stands, and what is wrong with it."""
    table = _table(
        "show", "role", "title", "state", "listeners", "segments", "sent", right=("listeners", "segments")
    )
    for one in status["exposed"]:
        told = one.get("broadcast")
        if told is None:
            continue
        words = [told["air"]] if "air" in told else []
        words += ["ended"] if told.get("ended") else []
        words += ["sealed"] if told.get("sealed") else []
        words += [told["why"]] if told["why"] else []
        state = Text(printable(", ".join(words)) or "up", _BAD if told["why"] else "")
        figures = f"{told['listeners']:,}", f"{told['segments']:,}", size_text(told["sent"])
        table.add_row(
            Text(one["service"]), told["role"], Text(printable(told.get("title", ""))), state, *figures
        )
    return [Text(), table] if table.row_count else []


def _backends(status: Mapping[str, Any], *, all_: bool) -> list[RenderableType]:
    """Return each backend, or those that are down."""
    table = _table("backend", "of", "kind", "state", "open", "failures")
    for one in status["exposed"]:
        for backend in one["backends"]:
            if all_ or not backend["up"]:
                state = Text("up" if backend["up"] else "down", "" if backend["up"] else _BAD)
                figures = (f"{backend['active']:,}", f"{backend['failures']:,}")
                table.add_row(Text(backend["place"]), Text(one["service"]), one["kind"], state, *figures)
    return [Text(), table] if table.row_count else []


def _forwarded(found: list[Mapping[str, Any]]) -> Table:
    table = _table("forwarded", *_FIGURES, "state")
    for one in found:
        bad = not one["connected"]
        state = Text("away" if bad else "connected" if one["to"] else "ready", _BAD if bad else "")
        table.add_row(Text(", ".join(one["listen"])), *_figures(one), state)
    return table


def _targets(status: Mapping[str, Any], *, all_: bool) -> list[RenderableType]:
    """Return where each forward goes, or those that are away, and what is wrong there."""
    table = _table("forwarded", "to")
    for one in status["forwarded"]:
        bad = not one["connected"]
        if all_ or bad:
            to = Text("\n".join(map(_target, one["to"])) or one["mode"])
            if bad and one["trouble"]:
                to.append(f"\n{printable(one['trouble'])}", _BAD)
            table.add_row(Text(", ".join(one["listen"])), to)
    return [Text(), table] if table.row_count else []


def _target(address: str) -> str:
    """Return an address without what is long: "api at HOST:PORT", "api of dtp1abc..."."""
    where, _, service = address.partition("://")[2].partition("/")
    peer, at, place = where.rpartition("@")
    return f"{service} at {place}" if at and place else f"{service} of {(peer or where)[:12]}"


def _dropped(status: Mapping[str, Any]) -> list[RenderableType]:
    """Return a line for each service and forward of UDP that has dropped datagrams."""
    found = [(one["service"], one.get("dropped", {})) for one in status["exposed"]]
    found += [(", ".join(one["listen"]), one.get("dropped", {})) for one in status["forwarded"]]
    return [
        Text(
            f"datagrams dropped by {name}: " + ", ".join(f"{count:,} {why}" for why, count in counts.items())
        )
        for name, counts in found
        if counts
    ]


def _money(status: Mapping[str, Any]) -> list[RenderableType]:
    """Return what services have earned and forwards have spent, where it is about money."""
    table = _table("money", "SUI", right=("SUI",))
    for one in status["exposed"]:
        others = one.get("earned_in", {})
        if one.get("earned") or ("earned" in one and not others):
            table.add_row(Text(f"earned by {one['service']}"), sui_text(one["earned"]))
        for coin, units in others.items():
            table.add_row(Text(f"earned by {one['service']}"), Text(f"{units:,} of {coin}"))
    if "claimed" in status:
        from dtp.chain.model import SUI_COIN

        for coin, units in status["claimed"].items():
            shown = sui_text(units) if coin == SUI_COIN else f"{units:,} of {coin}"
            table.add_row("claimed on chain, all services", Text(shown))
    for what, gas in status.get("gas_mist", {}).items():
        table.add_row(f"gas for {what}", sui_text(gas))
    for one in status["forwarded"]:
        if "spent" in one:
            budget = f"spent by {', '.join(one['listen'])}, of {sui_text(one['budget'])}"
            table.add_row(Text(budget), sui_text(one["spent"]))
    return [Text(), table] if table.row_count else []


def _callers(found: list[Mapping[str, Any]]) -> Table:
    table = _table("caller", "service", "from", "streams", "resumes")
    for one in found:
        table.add_row(
            Text(one["peer"], overflow="fold"),  # whole, or nobody could ban it by this
            Text(one["service"]),
            Text(one["source"]),
            f"{one['streams']:,}",
            f"{one['resumes']:,}",
        )
    return table


def _workers(found: list[Mapping[str, Any]]) -> Table:
    table = _table("worker", "process", "state", "open", "connections", "died")
    for one in found:
        table.add_row(
            str(one["worker"]),
            str(one["pid"]),
            _state_of_worker(one),
            f"{one['open']:,}",
            f"{one['connections']:,}",
            str(one["deaths"]),
        )
    return table


def _state_of_worker(one: Mapping[str, Any]) -> Text:
    if not one["up"]:
        return Text("down", _BAD)
    silent = one.get("silent", 0.0)  # older daemons don't say
    return Text(f"busy, as it was {time_text(silent)} ago", _BAD) if silent > _SILENT else Text("up")


def _rules(status: Mapping[str, Any]) -> list[RenderableType]:
    table = _table("rules of", "", "refused")
    named: list[tuple[str, list[str], Mapping[str, int]]]
    named = [("everywhere", status.get("everywhere") or [], {})]
    named += [(one["service"], one.get("rules") or [], one["denials"]) for one in status["exposed"]]
    for name, rules, denials in named:
        if rules:
            refused = "\n".join(f"{count:,} by {policy}" for policy, count in denials.items())
            table.add_row(Text(name), Text("\n".join(rules)), Text(refused))
    return [Text(), table] if table.row_count else []


def _tasks(status: Mapping[str, Any], *, all_: bool) -> list[RenderableType]:
    """Return the tasks that work all the time: those that had to begin again, and all of them with `all_`."""
    table = _table("task", "state", "restarts", "last error", right=("restarts",))
    for one in status.get("tasks") or ():
        if all_ or one["restarts"]:
            state = Text("begins again soon", _BAD) if one["waiting"] else Text("works")
            table.add_row(
                Text(one["name"]), state, f"{one['restarts']:,}", Text(printable(one["error"]), _BAD)
            )
    return [Text(), table] if table.row_count else []


def _events(found: list[Mapping[str, Any]]) -> Table:
    table = _table("at", "events")
    for one in found:
        at = time.strftime("%H:%M:%S", time.localtime(one["time"]))
        table.add_row(
            Text(at, no_wrap=True), Text(printable(one["message"]), "" if one["level"] == "info" else _BAD)
        )
    return table


_FIGURES = ("open", "streams", "failed", "in", "out")
#: Columns of numbers.
_RIGHT = {*_FIGURES, "resumes", "process", "connections", "died", "failures"}


def _figures(one: Mapping[str, Any]) -> tuple[str, ...]:
    counts = (f"{one[key]:,}" for key in ("open", "streams", "failed"))
    return (*counts, size_text(one["received"]), size_text(one["sent"]))


def _table(*names: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in names:
        # A number that is cut in two lines is another number.
        number = name in _RIGHT or name in right
        kept = number or name in (
            "exposed",
            "forwarded",
            "backend",
            "backends",
            "kind",
            "of",
            "from",
            "state",
        )
        # What is cut elsewhere, at least says so; names in events are of use only whole, to be copied.
        overflow: OverflowMethod = "ellipsis" if kept else "fold"
        table.add_column(
            name,
            justify="right" if number else "left",
            no_wrap=kept,
            overflow=overflow,
            max_width=None if kept else _WIDEST,
        )
    return table
