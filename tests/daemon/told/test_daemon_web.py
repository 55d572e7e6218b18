"""The web server of a daemon: page, status, metrics, health; read-only, and for this machine only."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
from typing import cast
from unittest.mock import AsyncMock, Mock, PropertyMock, patch

import aiohttp
import h11
import pytest
from browsers import dump
from prometheus_client.parser import text_string_to_metric_families

from dtp.carriers.stream_socket import SocketListener
from dtp.daemon.config.values import LocalPlace
from dtp.daemon.web import metrics
from dtp.daemon.web.server import PATHS, Answer, WebServer
from dtp.daemon.workers.summing import merge

from ..conftest import Backend, Pair, Run, echo
from ..programs import PATIENCE
from ..streams.test_daemon_relay import reset, until


async def serve(
    pair: Pair, backend_port: int, **options: float
) -> tuple[WebServer, str, asyncio.StreamWriter]:
    port = await pair.start(
        f'[[expose]]\nservice = "api"\nallow = ["*"]\nbackend = ["127.0.0.1:{backend_port}", "127.0.0.1:1"]\n'
    )
    web = WebServer(pair.far, LocalPlace("127.0.0.1", 0), **options)
    await web.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    return web, f"http://{cast(SocketListener, web.listener).urls[0]}", writer


def test_health_names_a_forward_as_the_file_does() -> None:
    forward = {"listen": ["127.0.0.1:8545", "[::1]:8545"], "connected": False}
    daemon = Mock(get_status=lambda **_: {"draining": False, "exposed": [], "forwarded": [forward]})
    answer = PATHS["/health"](daemon)
    assert answer.status == 503
    assert json.loads(answer.body)["faults"] == ["127.0.0.1:8545, [::1]:8545: not connected"]


def test_status_metrics_and_health(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            web, url, writer = await serve(pair, backend.port)
            async with aiohttp.ClientSession() as client:
                async with client.get(f"{url}/status") as answer:
                    status = await answer.json()
                    assert status["exposed"][0]["received"] == 5
                async with client.get(f"{url}/metrics") as answer:
                    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
                    text = await answer.text()
                async with client.get(f"{url}/health") as answer:
                    assert answer.status == 200
                    assert await answer.json() == {"healthy": True, "faults": []}
                pair.far.draining = True
                async with client.get(f"{url}/health") as answer:
                    assert (answer.status, answer.reason) == (503, "Service Unavailable")
                    assert (await answer.json())["faults"] == ["draining"]
                found = {
                    (sample.name, sample.labels.get("name") or sample.labels.get("backend")): sample.value
                    for family in text_string_to_metric_families(text)
                    for sample in family.samples
                }
                assert found["dtpd_received_bytes_total", "api"] == 5
                assert found["dtpd_streams_open", "api"] == 1
                assert found["dtpd_backend_streams", f"127.0.0.1:{backend.port}"] == 1
                assert found["dtpd_callers", None] == 1
                assert found["process_open_fds", None] > 5
            writer.close()
            await web.close()

    run(scenario)


def test_metrics_are_as_prometheus_wants_them(run: Run) -> None:
    """The rules of promtool's linter, and of its naming guide: units, suffixes, help, labels."""

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            web, _, writer = await serve(pair, backend.port)
            pair.far.exposed["api"].denials["rate"] += 1
            text = metrics.exposition(pair.far).decode()
            text += metrics.exposition(pair.near).decode()
            writer.close()
            await web.close()
        families = list(text_string_to_metric_families(text))
        assert len(families) > 20
        for family in families:
            assert re.fullmatch(r"(dtpd|process|python)_[a-z][a-z_]*[a-z]", family.name), family.name
            assert family.name.startswith("process_") or len(family.documentation) > 10, family.name
            assert family.type in ("counter", "gauge", "histogram"), family.name
            # Base units alone, and none in the midst of a name.
            assert not re.search(
                r"_(ms|millis|minutes|hours|kib|mib|kb|mb|kilobytes|percent)(_|$)", family.name
            )
            for unit in ("bytes", "seconds"):
                assert unit not in family.name.removesuffix(unit).split("_"), family.name
            for sample in family.samples:
                assert sample.name.endswith("_total") is (family.type == "counter"), sample.name
                assert ("le" in sample.labels) is sample.name.endswith("_bucket"), sample.labels
                assert not set(sample.labels) & {"quantile", "job", "instance"}, sample.labels
        known = {family.name for family in families}
        assert known >= {
            "dtpd_build_info",
            "dtpd_sent_bytes",
            "dtpd_denied",
            "dtpd_connected",
            "dtpd_uptime_seconds",
        }

    run(scenario)


@pytest.mark.parametrize(
    ("method", "path", "host", "status"),
    [
        ("GET", "/", None, 200),
        ("HEAD", "/", None, 200),
        ("GET", "/page.js?x", None, 200),
        ("GET", "/../server.py", None, 404),
        ("GET", "/x", None, 404),
        ("POST", "/status", None, 405),
        ("GET", "/status", "evil.example", 421),
        ("GET", "/status", "localhost:1", 200),
        ("GET", "/status", "[::1]", 200),
    ],
)
def test_what_is_answered(run: Run, method: str, path: str, host: str | None, status: int) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            web, url, writer = await serve(pair, backend.port)
            reader, asking = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            asking.write(
                f"{method} {path} HTTP/1.1\r\nHost: {host or '127.0.0.1'}\r\nConnection: close\r\n\r\n".encode()
            )
            answer = await reader.read()
            assert answer.startswith(f"HTTP/1.1 {status} ".encode())
            assert b"content-security-policy: default-src 'none'" in answer.lower()
            for field in (b"x-content-type-options: nosniff", b"referrer-policy: no-referrer", b"no-store"):
                assert field in answer.lower()
            if method == "HEAD":
                assert answer.endswith(b"\r\n\r\n")
            asking.close()
            writer.close()
            await web.close()

    run(scenario)


@pytest.mark.parametrize(
    ("place", "host", "status"),
    [
        (LocalPlace("127.0.0.2", 80), "127.0.0.2:80", 200),
        (LocalPlace("127.0.0.2", 80), "127.0.0.3:80", 421),
        (LocalPlace("::1", 80), "[::1]:80", 200),
        (LocalPlace(path="/run/page"), "any.example", 200),
    ],
)
def test_names_that_lead_to_the_page(place: LocalPlace, host: str, status: int) -> None:
    """A socket in a folder has none, and no browser comes to it by itself."""
    request = h11.Request(method="GET", target="/", headers=[("host", host)])
    assert WebServer(Mock(), place)._find_answer(request).status == status


def test_health_is_one_backend_of_each_service() -> None:
    def one(service: str, *up: bool) -> dict[str, list[dict[str, bool]] | str]:
        return {"service": service, "backends": [{"up": each} for each in up]}

    status = {"draining": False, "exposed": [one("a", True, False), one("b", False, False)], "forwarded": []}
    answer = PATHS["/health"](Mock(get_status=lambda **_: status))
    assert json.loads(answer.body)["faults"] == ["service b: no backend is up"]


def test_metrics_of_several_processes() -> None:
    workers = [{"up": True, "deaths": 1, "lost": 2, "worker": 0, "pid": os.getpid()},
               {"up": False, "deaths": 3, "lost": 4, "worker": 1, "pid": 0}]  # fmt: skip
    status = {"identity": "dtp1", "uptime": 5, "draining": True, "reloads": 2, "workers": workers,
              "connections": 5, "half_open": 3, "callers": [], "exposed": [], "forwarded": [],
              "refused": {"handshake": 7}}  # fmt: skip
    text = metrics.exposition(Mock(get_status=lambda **_: status)).decode()
    for line in (
        "dtpd_draining 1.0",
        "dtpd_reloads_total 2.0",
        "dtpd_workers 1.0",
        "dtpd_worker_deaths_total 4.0",
        "dtpd_lost_connections_total 6.0",
        'dtpd_refused_total{reason="handshake"} 7.0',
        "dtpd_callers 5.0",
        "dtpd_half_open 3.0",
    ):
        assert f"\n{line}\n" in text
    found = {(sample.name, sample.labels["worker"]): sample.value for family in text_string_to_metric_families(text)
             for sample in family.samples if sample.name.startswith("process_")}  # fmt: skip
    assert {worker for _, worker in found} == {"parent", "0"}
    for name in ("process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"):
        assert found[name, "0"] > 0
        assert found[name, "parent"] > 0


@pytest.mark.parametrize("path", ["/health", "/metrics"])
def test_probes_ask_about_no_caller(run: Run, path: str) -> None:
    """Ten thousand of them held the daemon for 0.4 s."""

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            web, url, writer = await serve(pair, backend.port)
            pair.far.refresh_status = AsyncMock()
            (connection,) = pair.far.callers
            asked = PropertyMock(return_value=connection.stats)
            with patch.object(type(connection), "stats", asked):
                async with aiohttp.ClientSession() as client, client.get(f"{url}{path}") as answer:
                    assert answer.status == 200
                    if path == "/metrics":
                        assert "\ndtpd_callers 1.0\n" in await answer.text()
            pair.far.refresh_status.assert_awaited_once_with(callers=False)
            writer.close()
            await web.close()
            asked.assert_not_called()

    run(scenario)


def test_what_the_daemon_goes_on_without_is_said_and_no_fault() -> None:
    status = {"identity": "dtp1", "uptime": 5, "draining": False, "reloads": 0, "state_up": False, "chain_up": True,
              "connections": 0, "half_open": 0, "exposed": [], "forwarded": [], "refused": {}}  # fmt: skip
    answer = PATHS["/health"](Mock(get_status=lambda **_: status))
    assert answer.status == 200
    assert json.loads(answer.body) == {"healthy": True, "faults": [], "state_up": False, "chain_up": True}
    text = metrics.exposition(Mock(get_status=lambda **_: status)).decode()
    assert "\ndtpd_state_up 0.0\n" in text
    assert "\ndtpd_chain_up 1.0\n" in text
    assert [merge([status, status | {"state_up": up}])["state_up"] for up in (True, False)] == [False, False]


def test_clients_at_once_have_a_bound(run: Run) -> None:
    """Of those beyond it, each is closed; a place is free again when one of the others has gone."""

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            web, url, writer = await serve(pair, backend.port)
            port = int(url.rpartition(":")[2])
            quiet = [await asyncio.open_connection("127.0.0.1", port) for _ in range(32)]
            await until(lambda: web.clients == 32)
            reader, late = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b""
            quiet[0][1].close()
            await until(lambda: web.clients == 31)
            async with aiohttp.ClientSession() as client, client.get(f"{url}/health") as answer:
                assert answer.status == 200
            await web.close()
            for reader, _ in quiet[1:]:
                assert await reader.read() == b""
            for _, one in [*quiet, (reader, late), (reader, writer)]:
                one.close()

    run(scenario)


def test_a_client_may_ask_again_and_is_let_go_when_it_does_not(run: Run) -> None:

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            web, url, writer = await serve(pair, backend.port, patience=0.2)
            reader, asking = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            for _ in range(2):
                asking.write(b"HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            assert await reader.read() == b""
            asking.close()
            writer.close()
            await web.close()

    run(scenario)


def test_who_takes_no_answer_keeps_neither_it_nor_the_connection(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 8 * 1024 * 1024
    monkeypatch.setitem(PATHS, "/large", lambda daemon: Answer(bytes(size), "text/plain"))

    async def scenario(pair: Pair) -> None:
        web = WebServer(Mock(), LocalPlace("127.0.0.1", 0), patience=0.2)
        await web.start()
        loop = asyncio.get_running_loop()
        with socket.socket() as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.setblocking(False)
            await loop.sock_connect(
                stalled, ("127.0.0.1", int(cast(SocketListener, web.listener).urls[0].rpartition(":")[2]))
            )
            stalled.send(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
            taken = len(await loop.sock_recv(stalled, 1))
            await until(lambda: not web.clients)
            with contextlib.suppress(ConnectionResetError):
                while data := await loop.sock_recv(stalled, 65536):
                    taken += len(data)
        assert taken < size
        await web.close()

    run(scenario)


def test_who_breaks_off_or_speaks_no_http_is_let_go(run: Run) -> None:
    """No callback raises, and whoever comes next is served, by figures of now."""

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            web, url, writer = await serve(pair, backend.port)
            for said in (b"GET /health HT", b"\xff\r\n\r\n"):
                reader, asking = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
                await until(lambda: web.clients == 1)
                asking.write(said)
                if said.startswith(b"GET"):
                    reset(asking)
                else:
                    assert await reader.read() == b""
                    asking.close()
                await until(lambda: not web.clients)
            pair.far.refresh_status = AsyncMock()
            async with aiohttp.ClientSession() as client, client.get(f"{url}/status") as answer:
                assert answer.status == 200
            pair.far.refresh_status.assert_awaited_once_with(callers=True)
            writer.close()
            await web.close()

    run(scenario)


@pytest.mark.slow
def test_the_page_in_a_browser(run: Run) -> None:
    """Headless Chromium runs the page; its script has put in what `/status` says."""

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            web, url, writer = await serve(pair, backend.port)
            shown = await asyncio.to_thread(dump, url, 4000, PATIENCE)
            assert 'data-ready="yes"' in shown
            assert str(pair.far.identity.id) in shown
            assert f"127.0.0.1:{backend.port}" in shown
            assert str(pair.near.identity.id) in shown
            assert re.search(r'id="rate-in">[0-9.]+ [KMi]*B/s<', shown)
            assert "for everyone" in shown
            assert "<h2>Events</h2>" in shown
            writer.close()
            await web.close()

    run(scenario)


def test_every_path_is_there() -> None:
    assert set(PATHS) == {"/", "/page.js", "/page.css", "/status", "/metrics", "/health"}
