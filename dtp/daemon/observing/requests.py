"""Statistics of a service's requests: how many there were, with which status and duration; and a log line for each
if configured."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from dtp.daemon.observing import logs
from dtp.escaping import escape_text

if TYPE_CHECKING:
    from dtp.daemon.policies import Caller

#: Upper bounds of the histogram in seconds. What takes longer counts as "+Inf".
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: The bounds as `Requests.get_status` names them.
WITHIN = (*(f"{bound:g}" for bound in BOUNDS), "+Inf")
#: Up to this many requests, each one's duration is reported.
FEW = 100
#: The most characters of a path and of a method, and methods of a batch, that are logged.
_PATH, _METHOD, _METHODS = 1024, 100, 20

_log = logging.getLogger(logs.ACCESS)


@dataclass(frozen=True, slots=True)
class Answered:
    """A request that has been answered."""

    method: str
    #: The target without its query, which may contain tokens.
    path: str
    #: The status of the answer; 0 if there was none.
    status: int
    #: Bytes of the answer, including its head.
    sent: int
    #: Seconds from the request's head to the end of the answer.
    seconds: float
    #: Methods of JSON-RPC.
    calls: Sequence[str] = ()


class Requests:
    """The requests of one service, since it was exposed or changed."""

    def __init__(self) -> None:
        #: Counts by class of status, such as "2xx"; "none" where nothing was answered.
        self._statuses: Counter[str] = Counter()
        self._within = [0] * len(WITHIN)
        self._seconds = 0.0
        #: The durations of the first requests.
        self._times: list[float] = []

    def add_request(self, request: Answered) -> None:
        """Count a request."""
        self._statuses[f"{request.status // 100}xx" if request.status else "none"] += 1
        self._within[bisect_left(BOUNDS, request.seconds)] += 1
        self._seconds += request.seconds
        if len(self._times) < FEW:
            self._times.append(round(request.seconds, 6))

    def get_status(self) -> dict[str, Any]:
        """Return counts as JSON values: `within` counts the requests that took longer than the previous bound, and
        at most this one; `times` has the durations of the first `FEW` requests."""
        return {
            "count": sum(self._within),
            "seconds": round(self._seconds, 6),
            "statuses": dict(sorted(self._statuses.items())),
            "within": dict(zip(WITHIN, self._within, strict=True)),
            "times": list(self._times),
        }


def quantile(told: Mapping[str, Any], part: float) -> float | None:
    """Return the seconds within which `part` (0 to 1) of the requests in a `Requests.get_status` were answered;
    None without requests.

    With all durations known, it is one of those. Otherwise durations are taken to be spread evenly between two
    bounds, and the last bound stands for whatever took longer.
    """
    if not told["count"]:
        return None
    times: list[float] = sorted(told.get("times", ()))
    if len(times) == told["count"]:
        return times[max(0, ceil(part * len(times)) - 1)]
    left: float = part * told["count"]
    below, within = 0.0, told["within"]
    for name, bound in zip(WITHIN, BOUNDS, strict=False):
        count: int = within[name]
        if count and count >= left:
            return below + (bound - below) * left / count
        left, below = left - count, bound
    return BOUNDS[-1]


def log_request(service: str, caller: Caller, request: Answered) -> None:
    """Write a line to the access log, if there is one (`[log] access`)."""
    if not _log.isEnabledFor(logging.INFO):
        return
    path, method = request.path[:_PATH], request.method[:_METHOD]
    fields = {
        "event": "request",
        "service": service,
        **logs.of_caller(caller),
        "method": method,
        "path": path,
        "status": request.status,
        "sent": request.sent,
        "seconds": round(request.seconds, 6),
    }
    asked = f"{method} {path}"
    if request.calls:
        calls = [escape_text(each[:_METHOD]) for each in request.calls[:_METHODS]]
        fields["calls"] = calls
        more = len(request.calls) - len(calls)
        asked += f" {' '.join(calls)}{f' and {more} more' if more else ''}"
    _log.info(
        "%s: %s %s: %s, %d bytes, %.4f s",
        *(service, logs.name_of(caller), asked, request.status or "no answer", request.sent, request.seconds),
        extra={"fields": fields},
    )
