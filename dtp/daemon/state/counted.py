"""What a process has counted for its successor in an upgrade: bans, quotas and rates.

It is passed as JSON in a file that only the two processes have. From another version nothing is taken over, which
is logged.
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

#: Set for a successor: the descriptor of the file, and its identity. A process of another version passes the
#: variable on to its own successor, where that descriptor is something else.
COUNTED = "DTPD_COUNTED"
_VERSION = 1
#: The most entries of each kind, those with the largest use. Writing and reading 20,000 take a tenth of a second
#: each.
MOST = 20_000

#: The name of a rate, and a caller; None for all callers together.
Rated = tuple[str, PeerId | None]


@dataclass(frozen=True)
class Counted:
    """Times are of the monotonic clock, which processes share; ends of bans are Unix time."""

    #: Banned callers, with the end of each ban.
    bans: Mapping[str, float] = field(default_factory=dict)
    #: Quotas, where no `[state]` keeps them.
    used: Mapping[CountKey, Used] = field(default_factory=dict)
    #: Rates of a single process: when the buckets of requests and of bytes will be empty.
    rates: Mapping[Rated, tuple[float, float]] = field(default_factory=dict)
    #: The same of workers, by the key in their shared table.
    rows: Mapping[bytes, float] = field(default_factory=dict)
    #: `Config.kept_in` of the previous process. A successor that keeps its bans there, too, finds them there.
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
        """Return what `to_bytes` was called on. Raise `ValueError`, `TypeError` or `LookupError` for anything
        else."""
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
            str(body.get("kept_in", "")),  # older versions only pass on bans in memory
        )  # fmt: skip

    def bans_for(self, kept_in: str, known: Mapping[str, float]) -> dict[str, float]:
        """Return the bans that a successor has to take over, which keeps its own in `kept_in` and has found `known`
        there."""
        if kept_in and kept_in == self.kept_in:  # a ban that was lifted meanwhile must not return
            return {}
        return {caller: until for caller, until in self.bans.items() if until > known.get(caller, 0.0)}


#: For a daemon without a predecessor.
NOTHING = Counted()


def _largest(rows: Iterable[tuple[Any, float]]) -> list[tuple[Any, float]]:
    return heapq.nlargest(MOST, rows, key=itemgetter(1))


def file_of(counted: Counted) -> tuple[BinaryIO, str]:
    """Return a file for another process to read, and the value of `COUNTED` for it, where it has the same
    descriptor."""
    file = os.fdopen(memory_file(), "w+b")
    file.write(counted.to_bytes())
    file.seek(0)
    return file, _name_of(file.fileno())


def _name_of(descriptor: int) -> str:
    found = os.fstat(descriptor)
    return f"{descriptor}:{found.st_dev}:{found.st_ino}"


def inherited() -> Counted:
    """Return what the replaced process has counted; nothing if there is none, or the file can't be understood."""
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
