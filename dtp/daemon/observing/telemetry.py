"""OpenTelemetry: metrics and ended streams are sent to a collector by OTLP over HTTP, as JSON. Only loaded if
configured.

The specification (opentelemetry.io, OTLP 1.x) maps its messages to JSON, with ids in hexadecimal and 64-bit numbers
as strings, and collectors have to accept it. So no library but h11 is needed (docs/decisions/0030).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import h11

from dtp.daemon.config.model import Telemetry
from dtp.tasks import SupervisedTask
from dtp.version import __version__

log = logging.getLogger("dtpd")

#: The most ended streams that wait to be sent. Beyond that the oldest are dropped and counted.
MOST = 4096
#: Seconds for a collector to answer.
_PATIENCE = 5.0
_SERVER, _ERROR, _CUMULATIVE = 2, 2, 2  # SpanKind, StatusCode, AggregationTemporality

_VERSION = __version__
_SCOPE = {"name": "dtpd", "version": _VERSION}

#: Makes the body to send; returns None if there is nothing.
Make = Callable[[], "dict[str, Any] | None"]


class Exporter:
    """Sends what `make` returns to one path of the collector at regular intervals. A failure is logged once."""

    def __init__(self, settings: Telemetry, path: str, make: Make, *, patience: float = _PATIENCE) -> None:
        """`patience` is the seconds that the collector has to answer."""
        self._url = settings.otlp.rstrip("/") + path
        self._every, self._make, self._patience = settings.every, make, patience
        self._away = False
        self._stop = asyncio.Event()
        self._task = SupervisedTask(self._send_repeatedly, name="dtpd-telemetry")
        self._task.start()

    async def close(self) -> None:
        """Send once more, and stop."""
        self._stop.set()
        await self._task.finish()

    async def _send_repeatedly(self) -> None:
        ends = False
        while not ends:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._stop.wait()
            ends = self._stop.is_set()
            await self._send_once()

    async def _send_once(self) -> None:
        try:
            body = self._make()
            if body is None:
                return
            async with asyncio.timeout(self._patience):
                status = await post(self._url, json.dumps(body).encode())
            why = "" if status < 300 else f"it answers {status}"
        except TimeoutError:
            why = f"no answer in {self._patience:g} s"
        except Exception as error:  # noqa: BLE001 - whatever it is, the next report may succeed
            why = str(error) or type(error).__name__
        if why and not self._away:
            log.warning(
                "telemetry is lost: %s", why, extra={"fields": {"event": "telemetry-lost", "why": why}}
            )
        self._away = bool(why)


async def post(url: str, body: bytes) -> int:
    """POST JSON over a new connection, and return the status. Raise `OSError` and `h11.ProtocolError`."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    reader, writer = await asyncio.open_connection(
        parts.hostname, parts.port or (443 if secure else 80), ssl=secure or None
    )
    with contextlib.closing(writer):
        http = h11.Connection(h11.CLIENT)
        headers = [
            ("Host", parts.netloc.rpartition("@")[2]),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("User-Agent", f"dtpd/{_VERSION}"),
            ("Connection", "close"),
        ]
        asked = h11.Request(method="POST", target=parts.path, headers=headers)
        for said in (asked, h11.Data(data=body), h11.EndOfMessage()):
            writer.write(http.send(said) or b"")
        await writer.drain()
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Response):
                return int(event.status_code)
            elif isinstance(event, h11.ConnectionClosed):
                raise ConnectionResetError("it ended without an answer")


class Spans:
    """A span for each stream of an exposed service that has ended."""

    def __init__(self, settings: Telemetry, identity: str) -> None:
        self._waiting: deque[dict[str, Any]] = deque(maxlen=MOST)
        self._resource = _resource(identity)
        self._left_out = 0
        self.exporter = Exporter(settings, "/v1/traces", self._make_body)

    def add_span(self, name: str, seconds: float, attributes: Mapping[str, str | int], why: str) -> None:
        """Add a span for a stream that has ended now, after `seconds`; `why` says why it broke off, if it did."""
        self._left_out += len(self._waiting) == MOST
        end = time.time_ns()
        span = {
            "traceId": secrets.token_hex(16),
            "spanId": secrets.token_hex(8),
            "name": name,
            "kind": _SERVER,
            "startTimeUnixNano": str(end - int(seconds * 1e9)),
            "endTimeUnixNano": str(end),
            "attributes": _attributes(attributes),
        }
        if why:
            span["status"] = {"code": _ERROR, "message": why}
        self._waiting.append(span)

    def _make_body(self) -> dict[str, Any] | None:
        if not self._waiting:
            return None
        spans = list(self._waiting)
        self._waiting.clear()
        if self._left_out:
            spans[0]["attributes"] += _attributes({"dtpd.left_out": self._left_out})
            self._left_out = 0
        return {
            "resourceSpans": [
                {"resource": self._resource, "scopeSpans": [{"scope": _SCOPE, "spans": spans}]},
            ]
        }


class Figures:
    """The metrics that Prometheus also gets."""

    def __init__(self, settings: Telemetry, identity: str, collect: Callable[[], Iterable[Any]]) -> None:
        """`collect` returns metric families of prometheus_client."""
        self._collect, self._began = collect, str(time.time_ns())
        self._resource = _resource(identity)
        self.exporter = Exporter(settings, "/v1/metrics", self._make_body)

    def _make_body(self) -> dict[str, Any]:
        now = str(time.time_ns())
        metrics = [self._make_metric(family, now) for family in self._collect()]
        return {
            "resourceMetrics": [
                {"resource": self._resource, "scopeMetrics": [{"scope": _SCOPE, "metrics": metrics}]},
            ]
        }

    def _make_metric(self, family: Any, now: str) -> dict[str, Any]:
        if family.type == "histogram":
            return self._make_histogram(family, now)
        counter = family.type == "counter"
        points = [
            {
                "attributes": _attributes(sample.labels),
                "timeUnixNano": now,
                "asDouble": float(sample.value),
                **({"startTimeUnixNano": self._began} if counter else {}),
            }
            for sample in family.samples
        ]
        told: dict[str, Any] = {"dataPoints": points}
        if counter:
            told |= {"aggregationTemporality": _CUMULATIVE, "isMonotonic": True}
        return {
            "name": family.name,
            "description": family.documentation,
            "unit": "By" if family.name.endswith("_bytes") else "1",
            "sum" if counter else "gauge": told,
        }

    def _make_histogram(self, family: Any, now: str) -> dict[str, Any]:
        """Return the samples of a name as points: `_bucket` (whose counts are cumulative and in order), `_sum` and
        `_count`."""
        points: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
        for sample in family.samples:
            labels = {key: value for key, value in sample.labels.items() if key != "le"}
            point = points.setdefault(
                tuple(labels.items()),
                {
                    "attributes": _attributes(labels),
                    "startTimeUnixNano": self._began,
                    "timeUnixNano": now,
                    "bucketCounts": [],
                    "explicitBounds": [],
                },
            )
            if sample.name.endswith("_bucket"):
                before = sum(map(int, point["bucketCounts"]))
                point["bucketCounts"].append(str(int(sample.value) - before))
                if sample.labels["le"] != "+Inf":
                    point["explicitBounds"].append(float(sample.labels["le"]))
            elif sample.name.endswith("_sum"):
                point["sum"] = float(sample.value)
            else:
                point["count"] = str(int(sample.value))
        told = {"dataPoints": list(points.values()), "aggregationTemporality": _CUMULATIVE}
        return {"name": family.name, "description": family.documentation, "unit": "s", "histogram": told}


def _resource(identity: str) -> dict[str, Any]:
    """Return the resource that reports: each process for itself."""
    return {
        "attributes": _attributes(
            {
                "service.name": "dtpd",
                "service.version": _VERSION,
                "service.instance.id": identity,
                "process.pid": os.getpid(),
            }
        )
    }


def _attributes(values: Mapping[str, str | int]) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}
        for key, value in values.items()
    ]
