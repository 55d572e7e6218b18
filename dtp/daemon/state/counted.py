"""What a process has counted, for the one that takes its place at an upgrade: bans, quotas and rates.

It goes in a file that only the two have, as JSON; of another version, nothing is taken over and that is said.
"""

from __future__ import annotations

import heapq
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, BinaryIO

from dtp.daemon.state import CountKey, Used
from dtp.daemon.state.table import memory_file
from dtp.identity import PeerId

log = logging.getLogger("dtpd")

#: Set for a process that takes over: the file's descriptor, and which file it is. A process of another version leaves
#: the variable to its own successor, which has something else at that number.
COUNTED = "DTPD_COUNTED"
_VERSION = 1
#: Rows of each kind: those who have used most. Writing and reading 20,000 takes a tenth of a second each.
MOST = 20_000

#: A rate by its name, and a caller of it; None: all together.
Rated = tuple[str, PeerId | None]


@dataclass(frozen=True)
class Counted:
    """Times are of the steady clock, which processes share; those of bans are Unix time."""

    #: Until when callers are kept out.
    bans: Mapping[str, float] = field(default_factory=dict)
    #: Quotas, where no `[state]` keeps them.
    used: Mapping[CountKey, Used] = field(default_factory=dict)
    #: Rates of one process: when the buckets of requests and of bytes are empty.
    rates: Mapping[Rated, tuple[float, float]] = field(default_factory=dict)
    #: Rates of workers: the same, by the key in their table.
    rows: Mapping[bytes, float] = field(default_factory=dict)
    #: `Config.kept_in` of who tells: a process that keeps bans there, too, finds them there.
    kept_in: str = ""

    def to_bytes(self) -> bytes:
        """Return it as JSON."""
        used = heapq.nlargest(MOST, self.used.items(), key=itemgetter(1))
        rates = heapq.nlargest(MOST, self.rates.items(), key=itemgetter(1))
        body = {
            "version": _VERSION,
            "kept_in": self.kept_in,
            "bans": _largest(self.bans.items()),
            "used": [[*key, *amount] for key, amount in used],
            "rates": [[name, peer.key.hex() if peer else "", *times] for (name, peer), times in rates],
            "rows": [[key.hex(), time] for key, time in _largest(self.rows.items())],
        }
        return json.dumps(body).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Counted:
        """Return what `to_bytes` was made of. Raises `ValueError`, `TypeError` or `LookupError` for anything else."""
        body = json.loads(data)
        if body["version"] != _VERSION:
            raise ValueError(f"version {body['version']}")
        return cls(
            {str(caller): float(until) for caller, until in body["bans"]},
            {CountKey(scope, int(period), caller): Used(int(requests), int(size))
             for scope, period, caller, requests, size in body["used"]},
            {(name, PeerId(bytes.fromhex(key)) if key else None): (float(requests), float(size))
             for name, key, requests, size in body["rates"]},
            {bytes.fromhex(key): float(time) for key, time in body["rows"]},
            str(body.get("kept_in", "")),  # versions that don't say so tell bans of memory alone
        )  # fmt: skip

    def bans_for(self, kept_in: str, known: Mapping[str, float]) -> dict[str, float]:
        """Return those that a process has to take over which keeps its bans in `kept_in` and finds `known` there."""
        if kept_in and kept_in == self.kept_in:  # one that others have ended since must not begin again
            return {}
        return {caller: until for caller, until in self.bans.items() if until > known.get(caller, 0.0)}


#: Where there is no process before.
NOTHING = Counted()


def _largest(rows: Iterable[tuple[Any, float]]) -> list[tuple[Any, float]]:
    return heapq.nlargest(MOST, rows, key=itemgetter(1))


def file_of(counted: Counted) -> tuple[BinaryIO, str]:
    """Return a file for another process to read, and what `COUNTED` is there, where it has the same descriptor."""
    file = os.fdopen(memory_file(), "w+b")
    file.write(counted.to_bytes())
    file.seek(0)
    return file, _name_of(file.fileno())


def _name_of(descriptor: int) -> str:
    found = os.fstat(descriptor)
    return f"{descriptor}:{found.st_dev}:{found.st_ino}"


def inherited() -> Counted:
    """Return what the process that this one replaces has counted; nothing without one, or where it can't be
    understood."""
    name = os.environ.pop(COUNTED, "")
    try:
        descriptor = int(name.partition(":")[0])
        if _name_of(descriptor) != name:
            return NOTHING
    except (ValueError, OSError):
        return NOTHING
    with os.fdopen(descriptor, "rb") as file:
        data = file.read()
    try:
        return Counted.from_bytes(data)
    except (ValueError, TypeError, LookupError) as error:
        log.warning(
            "bans, quotas and rates of the process before are lost: it tells them otherwise (%s)", error
        )
        return NOTHING
