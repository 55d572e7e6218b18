"""What an OpenTelemetry collector is told, parsed by OpenTelemetry's own definitions; from a pair and a process."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from dtp.daemon.config.model import Telemetry
from dtp.daemon.observing.telemetry import MOST, Exporter, Figures, Spans
from dtp.daemon.web.metrics import DaemonCollector

from ..conftest import FAR, NEAR, Backend, Pair, Run, echo
from ..http.test_daemon_http import site
from ..process.test_daemon_programs import ask, connected, echo_server
from ..programs import PATIENCE, Place, place
from ..streams.test_daemon_relay import exchange, expose

__all__ = ["place"]


class Collector:
    """Receives OTLP over HTTP."""

    def __init__(self, status: int | None = 200) -> None:
        self.status = status
        self.told: asyncio.Queue[Any] = asyncio.Queue()

    @contextlib.asynccontextmanager
    async def listen(self) -> AsyncIterator[str]:
        async def take(request: web.Request) -> web.Response:
            assert request.headers["Content-Type"] == "application/json"
            self.told.put_nowait((request.match_info["what"], await request.json()))
            return web.json_response({}, status=self.status)  # type: ignore[arg-type]

        async with site(**{"v1/{what}": take}) as port:
            yield f"http://127.0.0.1:{port}/"


def definitions(what: str) -> type:
    """The message that `what` has to be."""
    package = pytest.importorskip(
        f"opentelemetry.proto.collector.{'trace' if what == 'traces' else what}.v1."
        f"{'trace' if what == 'traces' else what}_service_pb2",
        reason="opentelemetry-proto is not installed",
    )
    found: type = (
        package.ExportTraceServiceRequest if what == "traces" else package.ExportMetricsServiceRequest
    )
    return found


def parsed(what: str, body: dict[str, Any]) -> Any:
    """By protobuf's JSON, for which ids are base64 rather than hexadecimal."""
    json_format = pytest.importorskip("google.protobuf.json_format")

    def rewritten(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: base64.b64encode(bytes.fromhex(one)).decode() if key.endswith("Id") else rewritten(one)
                for key, one in value.items()
            }
        return [rewritten(one) for one in value] if isinstance(value, list) else value

    return json_format.ParseDict(rewritten(body), definitions(what)())


def plain(attributes: Any) -> dict[str, Any]:
    return {one.key: one.value.string_value or one.value.int_value for one in attributes}


def test_streams_are_spans(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        collector = Collector()
        async with Backend(echo) as backend, collector.listen() as url:
            top = f'[telemetry]\notlp = "{url}"\nevery = "1h"'
            port = await pair.start(expose(backend.port, more='limits = { bytes = "10KB" }'), top=top)
            assert await exchange(port, b"hello") == b"hello"
            with pytest.raises(ConnectionResetError):
                await exchange(port, bytes(100_000))
            await pair.exposed.ledger.wait_empty()
            await pair.far.close()
            what, body = collector.told.get_nowait()
            assert what == "traces"
            (resource,) = parsed(what, body).resource_spans
            who = plain(resource.resource.attributes)
            assert (who["service.name"], who["service.instance.id"]) == ("dtpd", str(FAR.id))
            whole, broken = resource.scope_spans[0].spans
            assert (len(whole.trace_id), len(whole.span_id), whole.kind) == (16, 8, 2)
            assert whole.name == "dtpd api"
            told = plain(whole.attributes)
            assert (told["peer"], told["received"], told["sent"]) == (str(NEAR.id), 5, 5)
            assert told["backend"] == f"127.0.0.1:{backend.port}"
            assert 0 < whole.end_time_unix_nano - whole.start_time_unix_nano < 30e9
            assert whole.status.code == 0
            assert (broken.status.code, broken.status.message) == (2, "more bytes than one request may have")

    run(scenario)


def test_figures_are_those_of_prometheus(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        collector = Collector()
        async with Backend(echo) as backend, collector.listen() as url:
            port = await pair.start(expose(backend.port))
            assert await exchange(port, b"hello") == b"hello"
            await pair.exposed.ledger.wait_empty()
            figures = Figures(Telemetry(url, 3600), "me", DaemonCollector(pair.far).collect)
            await figures.exporter.close()
            (resource,) = parsed(*collector.told.get_nowait()).resource_metrics
            metrics = {one.name: one for one in resource.scope_metrics[0].metrics}
            received = metrics["dtpd_received_bytes"]
            assert (received.unit, received.sum.is_monotonic, received.sum.aggregation_temporality) == (
                "By",
                True,
                2,
            )
            (point,) = received.sum.data_points
            assert (point.as_double, plain(point.attributes)["name"]) == (5, "api")
            assert 0 < point.start_time_unix_nano <= point.time_unix_nano
            assert metrics["dtpd_streams_open"].gauge.data_points[0].as_double == 0

    run(scenario)


@pytest.mark.parametrize("status", [503, None])
def test_a_collector_that_is_away_is_said_once(status: int | None, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        collector = Collector(status)
        async with collector.listen() as url:
            settings = Telemetry(url if status else "http://127.0.0.1:1", 3600)
            exporter = Exporter(settings, "/v1/traces", lambda: {"resourceSpans": []})
            for _ in range(3):
                await exporter._send_once()
            assert caplog.text.count("telemetry is lost") == 1
            collector.status = 200
            exporter._url = f"{url}v1/traces"
            await exporter._send_once()
            collector.status = 500
            await exporter.close()
            assert caplog.text.count("telemetry is lost") == 2

    asyncio.run(scenario())


def test_a_collector_that_does_not_answer_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with Backend(lambda reader, writer: reader.read()) as collector:
            settings = Telemetry(f"http://127.0.0.1:{collector.port}", 3600)
            exporter = Exporter(settings, "/v1/traces", dict, patience=0.01)
            await exporter.close()

    asyncio.run(scenario())
    assert "telemetry is lost: no answer in 0.01 s" in caplog.text


def test_figures_that_can_not_be_told_end_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong with one telling is said, and the next one is tried."""

    async def scenario() -> None:
        collector = Collector()
        async with collector.listen() as url:
            tried = asyncio.Event()

            def make() -> dict[str, list[Any]]:
                if not tried.is_set():
                    tried.set()
                    raise ValueError("a figure that is none")
                return {"resourceSpans": []}

            exporter = Exporter(Telemetry(url, 0.001), "/v1/traces", make)
            async with asyncio.timeout(PATIENCE):
                await tried.wait()
                await collector.told.get()
                await exporter.close()

    asyncio.run(scenario())
    assert caplog.text.count("telemetry is lost: a figure that is none") == 1


def test_what_waits_is_bounded() -> None:
    async def scenario() -> None:
        spans = Spans(Telemetry("http://127.0.0.1:1", 3600), "me")
        for number in range(MOST + 5):
            spans.add_span("name", 1.0, {"number": number}, "")
        body = spans._make_body()
        assert body is not None
        found = body["resourceSpans"][0]["scopeSpans"][0]["spans"]
        assert len(found) == MOST
        assert found[0]["attributes"] == [
            {"key": "number", "value": {"intValue": "5"}},
            {"key": "dtpd.left_out", "value": {"intValue": "5"}},
        ]
        assert spans._make_body() is None
        await spans.exporter.close()

    asyncio.run(scenario())


def test_a_process_tells_until_its_end(place: Place) -> None:
    """Both kinds come from `dtpd run`, the last ones while it ends."""

    async def scenario() -> None:
        collector = Collector()
        async with collector.listen() as url:
            backend = echo_server(place)
            text = f"""[daemon]
listen = ["tcp://127.0.0.1:0"]
[telemetry]
otlp = "{url}"
every = "1h"
[[expose]]
service = "api"
backend = "127.0.0.1:{backend}"
allow = ["{place.identity("near").id}"]
"""

            def use() -> None:
                far, exposed = place.dtpd("far", text)
                to = exposed[0]["address"]
                _, places = place.dtpd("near", f'[[forward]]\nlisten = "127.0.0.1:0"\nto = "{to}"\n')
                with connected(int(places[0]["listen"].rpartition(":")[2])) as client:
                    ask(client, b"hello")
                far.process.terminate()
                far.wait(0)

            await asyncio.to_thread(use)
            told = dict(collector.told.get_nowait() for _ in range(2))
            assert set(told) == {"traces", "metrics"}
            assert "sent_bytes" in json.dumps(told["metrics"])
            assert str(place.identity("near").id) in json.dumps(told["traces"])

    asyncio.run(scenario())
