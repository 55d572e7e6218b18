"""The daemon's status in Prometheus' text format, collected when it is requested, so that keeping it costs
nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from dtp.daemon.observing import LEANED_ON
from dtp.version import __version__

if TYPE_CHECKING:
    from dtp.daemon.web.server import Watched

#: The content type of `exposition` (Prometheus' text format).
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: The key in the status of a service or forward, the name and help of its metric, and whether it is a counter.
_FIGURES = (
    ("open", "streams_open", "Streams that are open", False),
    ("streams", "streams", "Streams since the start or the last change of the part", True),
    ("failed", "streams_failed", "Streams that were refused or broke off", True),
    ("sent", "sent_bytes", "Bytes from sockets here into streams", True),
    ("received", "received_bytes", "Bytes from streams into sockets here", True),
)


class DaemonCollector(Collector):
    """Metrics `dtpd_...`, by service and by forward."""

    def __init__(self, daemon: Watched) -> None:
        self._daemon = daemon

    def collect(self) -> Iterator[Metric]:
        """Yield metrics from the current `Daemon.get_status`."""
        status = self._daemon.get_status(callers=False)
        info = GaugeMetricFamily(
            "dtpd_build_info", "1, with who it is as labels", labels=["version", "identity"]
        )
        info.add_metric([__version__, status["identity"]], 1)
        yield info
        yield GaugeMetricFamily("dtpd_uptime_seconds", "Seconds since the start", value=status["uptime"])
        yield GaugeMetricFamily("dtpd_draining", "1 while the daemon ends", value=status["draining"])
        yield CounterMetricFamily("dtpd_reloads", "Reloads that succeeded", value=status["reloads"])
        if "workers" in status:
            workers = status["workers"]
            up, deaths, lost = (sum(one[key] for one in workers) for key in ("up", "deaths", "lost"))
            yield GaugeMetricFamily("dtpd_workers", "Processes that serve", value=up)
            yield CounterMetricFamily("dtpd_worker_deaths", "Workers that died", value=deaths)
            yield CounterMetricFamily("dtpd_lost_connections", "Connections lost with them", value=lost)
        refused = CounterMetricFamily(
            "dtpd_refused", "Connections that were refused before they came to a service", labels=["reason"]
        )
        for reason, count in status["refused"].items():
            refused.add_metric([reason], count)
        yield refused
        yield GaugeMetricFamily("dtpd_callers", "Connections from peers", value=status["connections"])
        yield GaugeMetricFamily(
            "dtpd_half_open", "Carriers whose handshake isn't over", value=status["half_open"]
        )
        for what, name in LEANED_ON.items():
            if (key := f"{what}_up") in status:
                yield GaugeMetricFamily(f"dtpd_{key}", f"1 while the {name} can be used", value=status[key])
        if "gas_mist" in status:
            gas = CounterMetricFamily("dtpd_gas_mist", "Gas of transactions on chain, MIST", labels=["for"])
            for what, mist in status["gas_mist"].items():
                gas.add_metric([what], mist)
            yield gas
        yield from self._collect_tasks(status.get("tasks", ()))
        if "node" in status:
            from dtp.daemon.web.mesh_metrics import node_metrics

            yield from node_metrics(status["node"])
        parts = [("exposed", one["service"], one) for one in status["exposed"]]
        parts += [("forwarded", ", ".join(one["listen"]), one) for one in status["forwarded"]]
        for key, name, words, grows in _FIGURES:
            family = CounterMetricFamily if grows else GaugeMetricFamily
            metric = family(f"dtpd_{name}", words, labels=["side", "name"])
            for side, label, one in parts:
                metric.add_metric([side, label], one[key])
            yield metric
        yield self._collect_dropped(parts)
        yield from self._collect_backends(status["exposed"])
        yield from self._collect_shows([one for one in status["exposed"] if "broadcast" in one])
        yield from self._collect_requests([one for one in status["exposed"] if "requests" in one])
        connected = GaugeMetricFamily("dtpd_connected", "1 while the peer is there", labels=["name"])
        for one in status["forwarded"]:
            connected.add_metric([", ".join(one["listen"])], one["connected"])
        yield connected

    @staticmethod
    def _collect_tasks(tasks: Iterable[Mapping[str, Any]]) -> Iterator[Metric]:
        waiting = GaugeMetricFamily(
            "dtpd_tasks_waiting", "Tasks that have ended and wait to begin again", labels=["task"]
        )
        restarts = CounterMetricFamily(
            "dtpd_task_restarts", "How often a task has ended without being stopped", labels=["task"]
        )
        for one in tasks:
            waiting.add_metric([one["name"]], one["waiting"])
            restarts.add_metric([one["name"]], one["restarts"])
        yield from (waiting, restarts)

    @staticmethod
    def _collect_dropped(parts: Iterable[tuple[str, str, Mapping[str, Any]]]) -> Metric:
        dropped = CounterMetricFamily(
            "dtpd_datagrams_dropped",
            "Datagrams that went no further, as far as the daemon knows",
            labels=["side", "name", "reason"],
        )
        for side, label, one in parts:
            for reason, count in one.get("dropped", {}).items():
                dropped.add_metric([side, label, reason], count)
        return dropped

    @staticmethod
    def _collect_shows(exposed: Iterable[Mapping[str, Any]]) -> Iterator[Metric]:
        labels = ["service", "role"]
        up = GaugeMetricFamily("dtpd_show_up", "1 while nothing is wrong with the show", labels=labels)
        on_air = GaugeMetricFamily("dtpd_show_on_air", "1 while it is paid for", labels=labels)
        listeners = GaugeMetricFamily("dtpd_show_listeners", "Who hears it directly from here", labels=labels)
        segments = CounterMetricFamily("dtpd_show_segments", "Segments of the show so far", labels=labels)
        sent = CounterMetricFamily(
            "dtpd_show_sent_bytes", "Bytes of segments, to all listeners", labels=labels
        )
        for one in exposed:
            show, of = one["broadcast"], [one["service"], one["broadcast"]["role"]]
            up.add_metric(of, not show["why"] and show["segments"] > 0)
            if "air" in show:
                on_air.add_metric(of, show["air"] == "on air")
            listeners.add_metric(of, show["listeners"])
            segments.add_metric(of, show["segments"])
            sent.add_metric(of, show["sent"])
        yield from (up, on_air, listeners, segments, sent)

    @staticmethod
    def _collect_requests(exposed: Iterable[Mapping[str, Any]]) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "dtpd_requests", "Requests that are over, by class of the status", labels=["service", "status"]
        )
        seconds = HistogramMetricFamily(
            "dtpd_request_seconds", "From a request's head to the end of its answer", labels=["service"]
        )
        for one in exposed:
            told = one["requests"]
            for status, count in told["statuses"].items():
                requests.add_metric([one["service"], status], count)
            upto = accumulate(told["within"].values())
            buckets = [(name, float(count)) for name, count in zip(told["within"], upto, strict=True)]
            seconds.add_metric([one["service"]], buckets, told["seconds"])
        yield from (requests, seconds)

    @staticmethod
    def _collect_backends(exposed: list[dict[str, object]]) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "dtpd_backend_up", "1 while the backend gets streams", labels=["service", "backend"]
        )
        active = GaugeMetricFamily(
            "dtpd_backend_streams", "Streams that the backend has", labels=["service", "backend"]
        )
        denied = CounterMetricFamily(
            "dtpd_denied",
            "Requests, streams and connections that a policy refused",
            labels=["service", "policy"],
        )
        for one in exposed:
            service, backends, denials = str(one["service"]), one["backends"], one["denials"]
            assert isinstance(backends, list)
            assert isinstance(denials, dict)
            for backend in backends:
                up.add_metric([service, backend["place"]], backend["up"])
                active.add_metric([service, backend["place"]], backend["active"])
            for policy, count in denials.items():
                denied.add_metric([service, policy], count)
        yield from (up, active, denied)


class WorkersCollector(Collector):
    """Metrics `process_...` of several processes. They aren't added up: sums of counters would fall when a worker
    dies."""

    def __init__(self, workers: Iterable[Mapping[str, Any]]) -> None:
        """`workers` comes from `Workers.get_status`."""
        self._pids = {"parent": os.getpid()} | {
            str(one["worker"]): one["pid"] for one in workers if one["up"]
        }

    def collect(self) -> Iterator[Metric]:
        """Yield what Linux reports of them; nothing elsewhere, as for a single process."""
        found: dict[str, Metric] = {}
        for name, pid in self._pids.items():
            for one in ProcessCollector(pid=partial(int, pid), registry=None).collect():
                metric = found.setdefault(one.name, Metric(one.name, one.documentation, one.type))
                for sample in one.samples:
                    metric.add_sample(sample.name, {"worker": name}, sample.value)
        yield from found.values()


def exposition(daemon: Watched) -> bytes:
    """Return all metrics in Prometheus' text format, including those of the process or processes."""
    registry = CollectorRegistry()
    registry.register(DaemonCollector(daemon))
    workers = daemon.get_status(callers=False).get("workers")
    if workers is None:
        ProcessCollector(registry=registry)
    else:
        registry.register(WorkersCollector(workers))
    return generate_latest(registry)
