"""Requests of HTTP and JSON-RPC: counted by status and time, told by status and metrics, logged where wanted."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.cli.daemon_status import latency_text
from dtp.daemon.config.model import Log, Telemetry
from dtp.daemon.observing import logs
from dtp.daemon.observing.requests import BOUNDS, FEW, WITHIN, Answered, Requests, log_request, quantile
from dtp.daemon.observing.telemetry import Figures
from dtp.daemon.web.metrics import DaemonCollector, exposition
from dtp.daemon.workers.summing import merge
from dtp.limited_log import OF_ONE, REFUSED, RateLimitedLog

from ..conftest import NEAR, Pair, Run, RunTalk, config
from ..streams.test_daemon_relay import until
from ..talk import Talk
from .test_daemon_http import CALLER, expose, site
from .test_daemon_http_ends import GET
from .test_daemon_http_hostile import OK


def request(status: int = 200, seconds: float = 0.003, **how: Any) -> Answered:
    return Answered("GET", "/", status, 100, seconds, **how)


def told(*seconds: float) -> dict[str, Any]:
    counted = Requests()
    for each in seconds:
        counted.add_request(request(seconds=each))
    return counted.get_status()


# ---- counts ------------------------------------------------------------------------------------------------------


def test_requests_are_counted_by_status_and_time() -> None:
    counted = Requests()
    for status, seconds in ((200, 0.001), (204, 0.0011), (404, 3), (0, 70), (101, 0)):
        counted.add_request(request(status, seconds))
    found = counted.get_status()
    assert (found["count"], found["seconds"]) == (5, 73.0021)
    assert found["statuses"] == {"1xx": 1, "2xx": 2, "4xx": 1, "none": 1}
    assert {name: count for name, count in found["within"].items() if count} == {
        "0.001": 2, "0.0025": 1, "5": 1, "+Inf": 1,
    }  # fmt: skip


def exact(seconds: list[float], part: float) -> float:
    """The time of one of them: at most so long took the given part, and no smaller one has that."""
    return next(
        each for each in sorted(seconds) if sum(one <= each for one in seconds) >= part * len(seconds)
    )


@given(st.lists(st.floats(0, 20).map(lambda each: round(each, 6)), min_size=1, max_size=FEW), st.floats(0, 1))
def test_of_few_requests_a_quantile_is_the_time_of_one(seconds: list[float], part: float) -> None:
    """It was what lay between two bounds: of one request in 1.1 ms "half in 1.8 ms, 99 % in 2.5 ms"."""
    assert quantile(told(*seconds), part) == exact(seconds, part)


@given(st.lists(st.floats(0, 20), min_size=1), st.floats(0, 1))
def test_of_many_a_quantile_lies_between_the_bounds_of_the_request_that_it_is(
    seconds: list[float], part: float
) -> None:
    found = quantile(told(*seconds) | {"times": []}, part)
    assert found is not None
    one = exact(seconds, part)
    upper = next((bound for bound in BOUNDS if one <= bound), BOUNDS[-1])
    lower = max((bound for bound in (0.0, *BOUNDS) if bound < upper), default=0.0)
    assert lower <= found <= upper


def test_no_more_than_the_first_times_are_kept() -> None:
    many = told(*[0.003] * (FEW + 1))
    assert len(many["times"]) == FEW
    middle = quantile(many, 0.5)
    assert middle is not None
    assert 0.0025 <= middle < 0.005  # by the bounds again
    older = told(0.003)
    del older["times"]  # as an older daemon says it
    assert quantile(older, 1) == 0.005


def test_without_requests_there_is_no_time() -> None:
    assert quantile(told(), 0.5) is None


@given(st.lists(st.floats(0, 20), max_size=20), st.lists(st.floats(0, 20), max_size=20))
def test_workers_add_up(some: list[float], others: list[float]) -> None:
    summed = merge([{"requests": told(*some)}, {"requests": told(*others)}])["requests"]
    whole = told(*some, *others)
    assert summed["within"] == whole["within"]
    assert list(summed["within"]) == list(WITHIN)
    assert (summed["count"], summed["statuses"]) == (whole["count"], whole["statuses"])
    assert summed["seconds"] == pytest.approx(whole["seconds"], abs=1e-4)
    assert quantile(summed, 0.99) == quantile(whole, 0.99)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ms"),
        (0.00042, "0.42 ms"),
        (0.0042, "4.2 ms"),
        (0.25, "250 ms"),
        (1.51, "1.5 s"),
        (10.0, "over 10 s"),
    ],
)
def test_times_are_told_as_people_read_them(seconds: float, text: str) -> None:
    assert latency_text(seconds) == text


# ---- through a pair of daemons -----------------------------------------------------------------------------------


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.fields: list[Any] = []
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.fields.append(vars(record)["fields"])
        self.texts.append(record.getMessage())


@pytest.fixture
def access() -> Iterator[Lines]:
    """What the access log gets."""
    logger, lines = logging.getLogger(logs.ACCESS), Lines()
    level = logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(lines)
    logger.setLevel(level)


async def exchange(port: int, data: bytes) -> bytes:
    """All that is answered on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    answer = await reader.read()
    writer.close()
    return answer


LAST = b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"


def test_each_request_of_http_is_counted_and_logged(run: Run, access: Lines) -> None:
    """Answers of the backend, refusals of our own, and what can't be understood; never what may be a token."""

    async def scenario(pair: Pair) -> None:
        async with site() as backend:
            port = await pair.start(expose(backend, "http", 'methods = { deny = ["DELETE *"] }'))
            asked = [
                (b"GET /nothing?token=secret" + LAST + b"\r\n", 404, "GET", "/nothing"),
                (b"DELETE /x" + LAST + b"\r\n", 403, "DELETE", "/x"),
                (b"CONNECT x:1" + LAST + b"\r\n", 405, "CONNECT", "x:1"),
                (b"GET / HTTP/1.1\r\n\r\n", 400, "-", "-"),
                (b"POST /y" + LAST + b"Content-Length: 2, 3\r\n\r\n", 400, "-", "-"),
            ]
            for number, (data, status, method, path) in enumerate(asked):
                answer = await exchange(port, data)
                assert answer.startswith(b"HTTP/1.1 %d " % status)
                await until(lambda: len(access.fields) == number + 1)  # noqa: B023 - it is awaited here
                fields = access.fields[-1]
                assert (fields["method"], fields["path"], fields["status"]) == (method, path, status)
                assert (fields["service"], fields["peer"], fields["sent"]) == (
                    "api",
                    str(NEAR.id),
                    len(answer),
                )
                assert 0 <= fields["seconds"] < 30
            found = pair.exposed.get_status(0)["requests"]
            assert (found["count"], found["statuses"]) == (5, {"4xx": 5})
            assert "secret" not in "".join(access.texts)

    run(scenario)


def test_a_backend_that_breaks_off_is_a_502_or_no_answer(run: Run, access: Lines) -> None:
    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf" if b"/half" in head else b"")

    from ..conftest import Backend

    async def scenario(pair: Pair) -> None:
        async with Backend(broken) as backend:
            port = await pair.start(expose(backend.port, "http"))
            for path in (b"/at-once", b"/half"):
                try:
                    await exchange(port, b"GET " + path + LAST + b"\r\n")
                except ConnectionResetError:
                    assert path == b"/half"
            await until(lambda: len(access.fields) == 2)
            assert [each["status"] for each in access.fields] == [502, 200]

    run(scenario)


def test_calls_of_json_rpc_are_named(run: Run, access: Lines) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            await reader.read(65536)
            writer.write(OK.replace(b"ok", b"[]"))

    from ..conftest import Backend

    async def scenario(pair: Pair) -> None:
        async with Backend(answer) as backend:
            port = await pair.start(expose(backend.port, "json-rpc"))
            calls = [{"jsonrpc": "2.0", "id": number, "method": f"m{number}"} for number in range(22)]
            body = json.dumps(calls).encode()
            head = (
                b"POST /" + LAST + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            )
            await exchange(port, head + body)
            await until(lambda: access.fields)
            (fields,) = access.fields
            assert fields["calls"] == [f"m{number}" for number in range(20)]
            assert " and 2 more" in access.texts[0]
            assert pair.exposed.get_status(0)["requests"]["statuses"] == {"2xx": 1}

    run(scenario)


def test_a_websocket_is_counted_when_it_opens(talk: RunTalk) -> None:
    """It may take hours, which would say nothing of how soon requests are answered."""

    async def scenario(talk: Talk) -> None:
        talk.client.say(
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        backend = await talk.asked()
        backend.say(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        while not talk.exposed.get_status(0)["requests"]["count"]:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.01)
        await asyncio.sleep(1000)
        talk.client.mouth.feed_eof()
        backend.mouth.feed_eof()
        await talk.ended()
        found = talk.exposed.get_status(0)["requests"]
        assert found["statuses"] == {"1xx": 1}
        assert found["seconds"] < 1

    talk(scenario, kind="websocket")


def test_the_time_is_from_the_head_to_the_end_of_the_answer(talk: RunTalk) -> None:
    async def scenario(talk: Talk) -> None:
        await asyncio.sleep(10)  # nobody asks
        talk.client.say(GET)
        backend = await talk.asked()
        await asyncio.sleep(2)
        backend.say(OK[:-1])
        await asyncio.sleep(1)
        backend.say(OK[-1:])
        await talk.answered()
        while not talk.exposed.get_status(0)["requests"]["count"]:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.01)
        assert talk.exposed.get_status(0)["requests"]["seconds"] == pytest.approx(3, abs=0.1)

    talk(scenario)


def test_metrics_have_requests_as_a_histogram(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with site() as backend:
            port = await pair.start(expose(backend, "http"))
            await exchange(port, b"GET /nothing" + LAST + b"\r\n")
            await until(lambda: pair.exposed.get_status(0)["requests"]["count"])
            text = exposition(pair.far).decode()
            assert 'dtpd_requests_total{service="api",status="4xx"} 1.0' in text
            assert 'dtpd_request_seconds_bucket{le="+Inf",service="api"} 1.0' in text
            assert 'dtpd_request_seconds_count{service="api"} 1.0' in text
            figures = Figures(Telemetry("http://127.0.0.1:1"), "me", DaemonCollector(pair.far).collect)
            ((_, metrics),) = [
                (scope["scope"], scope["metrics"])
                for scope in figures._make_body()["resourceMetrics"][0]["scopeMetrics"]
            ]
            (found,) = [each for each in metrics if each["name"] == "dtpd_request_seconds"]
            (point,) = found["histogram"]["dataPoints"]
            assert point["explicitBounds"] == list(BOUNDS)
            assert sum(map(int, point["bucketCounts"])) == int(point["count"]) == 1
            assert len(point["bucketCounts"]) == len(BOUNDS) + 1
            await figures.exporter.close()

    run(scenario)


# ---- the file ----------------------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Log into a file, by `how` as in `[log]`; what was set up before is there again afterwards."""
    root, access = logging.getLogger(), logging.getLogger(logs.ACCESS)
    before = (
        list(root.handlers),
        root.level,
        logging.getLogger("dtpd").level,
        logging.getLogger("dtp").level,
    )

    def begin(**how: str) -> Path:
        logs.set_up(Log(access=tmp_path / "access.log", **how))  # type: ignore[arg-type]
        return tmp_path / "access.log"

    yield begin
    logs.set_up(Log())
    root.handlers[:], level, dtpd, dtp = before
    root.setLevel(level)
    logging.getLogger("dtpd").setLevel(dtpd)
    logging.getLogger("dtp").setLevel(dtp)
    assert not access.handlers


def test_lines_for_programs(written: Callable[..., Any]) -> None:
    path = written(format="json")
    log_request("api", CALLER, request(calls=["eth_call"]))
    found = json.loads(path.read_text())
    assert (found["event"], found["status"], found["calls"]) == ("request", 200, ["eth_call"])
    assert path.stat().st_mode & 0o777 == 0o640 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_lines_for_people_are_one_line_each(written: Callable[..., Any]) -> None:
    path = written()
    log_request("api", CALLER, Answered("GET", "/\n\x1b[31m" + "x" * 5000, 0, 0, 0.5))
    (line,) = path.read_text().splitlines()
    assert "GET /\\n\\x1b[31mxxx" in line
    assert "no answer, 0 bytes, 0.5000 s" in line
    assert len(line) < 1500


def test_a_file_that_was_moved_away_is_opened_anew(written: Callable[..., Any]) -> None:
    path = written()
    log_request("api", CALLER, request())
    path.rename(path.with_suffix(".1"))
    log_request("api", CALLER, request())
    log_request("api", CALLER, request())
    assert path.with_suffix(".1").read_text().count("\n") == 1
    assert path.read_text().count("\n") == 2


def test_a_file_that_cannot_be_written_is_said_once(
    written: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The requests go on; when there is room again the number of lines that are missing is said."""
    path = written()
    path.symlink_to("/dev/full")
    logging.getLogger().addHandler(caplog.handler)
    for _ in range(3):
        log_request("api", CALLER, request())
    assert caplog.text.count("can't be written") == 1
    path.unlink()
    log_request("api", CALLER, request())
    assert path.read_text().count("\n") == 1
    assert "3 lines were left out" in caplog.text


def test_a_line_for_which_there_is_half_the_room_is_left_out_whole(
    written: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A half of it stayed, which no program can read."""
    path = written(format="json")
    logging.getLogger().addHandler(caplog.handler)
    log_request("api", CALLER, request())
    whole = path.read_bytes()
    _, most = limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 20, most))
    try:
        log_request("api", CALLER, request())
        log_request("api", CALLER, request())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert path.read_bytes() == whole
    assert caplog.text.count("can't be written") == 1
    log_request("api", CALLER, request())
    assert [json.loads(line)["event"] for line in path.read_text().splitlines()] == ["request"] * 2
    assert "2 lines were left out" in caplog.text


def test_nothing_is_written_where_nobody_wants_it(tmp_path: Path) -> None:
    log_request("api", CALLER, request())
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_named_by_the_configuration(tmp_path: Path) -> None:
    found = config(
        tmp_path, '[daemon]\nlisten = ["tcp://127.0.0.1:0"]\n[log]\naccess = "a.log"\n' + expose(1, "http")
    )
    assert found.log.access == tmp_path / "a.log"


# ---- one noisy caller --------------------------------------------------------------------------------------------


def record(peer: str, message: str) -> logging.LogRecord:
    made = logging.LogRecord("dtpd", logging.INFO, "x.py", 1, message, (), None)
    made.fields = {"event": "denied", "peer": peer} if peer else {"event": "reloaded"}
    return made


def test_a_noisy_caller_does_not_push_out_what_is_shown_of_others() -> None:
    shown = logs.Recent()
    shown.emit(record("", "reloaded"))
    shown.emit(record("bob", "bob was refused"))
    for number in range(1000):
        shown.emit(record("eve", f"eve {number}"))
    messages = [each["message"] for each in shown.kept]
    assert messages == ["reloaded", "bob was refused", *(f"eve {990 + number}" for number in range(10))]


def test_a_noisy_caller_does_not_keep_others_out_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    caplog.set_level("INFO", "dtpd")
    limited = RateLimitedLog(logging.getLogger("dtpd"), "api", clock=lambda: now)
    assert sum(limited.may_log("eve") for _ in range(1000)) == OF_ONE
    assert limited.may_log("bob")
    assert sum(limited.may_log(f"stranger {number}") for number in range(1000)) == REFUSED - OF_ONE - 1
    now += 1.0
    assert limited.may_log("eve")
    assert "api: 1981 more denials were not logged" in caplog.text
