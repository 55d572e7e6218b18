"""Combines the statuses of several workers into one: counts are added up, and what all share appears once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: Flags that are true only if they are for all workers. Other flags are true if they are for any.
_OF_ALL = {"connected", "state_up", "chain_up", "vouchers_up"}
#: Numbers of which the largest is used.
_LARGEST = {"failures", "uptime", "reloads"}
#: Lists in which workers see the same things, and what identifies each element.
_SAME = {
    "exposed": ("service",),
    "forwarded": ("listen", "to", "mode"),
    "backends": ("place",),
    "tasks": ("name",),
}
#: Lists whose elements belong to one worker each.
_OWN = {"callers", "events", "times"}
#: What is the same for all workers.
_FIRST = {"bans"}


def merge(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return tables of the same things, such as `Daemon.get_status()`, combined into one."""
    found: dict[str, Any] = {}
    for key in dict.fromkeys(key for part in parts for key in part):
        found[key] = _one(key, [part[key] for part in parts if key in part])
    return found


def _one(key: str, values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, bool):
        return all(values) if key in _OF_ALL else any(values)
    if isinstance(first, int | float):
        return max(values) if key in _LARGEST else sum(values)
    if key in _FIRST:
        return first
    if isinstance(first, dict):
        return merge(values)
    if key in _OWN:
        return [each for value in values for each in value]
    if key in _SAME:
        rows: dict[str, list[Mapping[str, Any]]] = {}
        for value in values:
            for row in value:
                rows.setdefault(_name(key, row), []).append(row)
        return [merge(same) for same in rows.values()]
    return next((value for value in values if value), first)


def still(status: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return `status` without services, backends and forwards that are not in `now` any more, since a reload has
    removed them."""
    kept = dict(status)
    for key in _SAME.keys() & status.keys() & now.keys():
        rows = {_name(key, row): row for row in now[key]}
        kept[key] = [still(row, rows[name]) for row in status[key] if (name := _name(key, row)) in rows]
    return kept


def _name(key: str, row: Mapping[str, Any]) -> str:
    return str([row[name] for name in _SAME[key]])


def ended(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return what remains of the status of a worker that has died: what it had counted, and nothing that was
    open."""
    return {
        "callers": [],
        "tasks": [{**one, "running": 0, "waiting": 0} for one in status.get("tasks", ())],
        "refused": status["refused"],
        "exposed": [
            {
                **one,
                "open": 0,
                "backends": [{**backend, "up": False, "active": 0} for backend in one["backends"]],
            }
            for one in status["exposed"]
        ],
        "forwarded": [{**one, "open": 0, "connected": True, "resumes": 0} for one in status["forwarded"]],
    }
