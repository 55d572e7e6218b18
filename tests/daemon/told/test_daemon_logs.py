"""Logs: nobody can fill the disk with them, drive a terminal, end a line, or read a secret in them."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from dtp.daemon.config import model
from dtp.daemon.observing import logs
from dtp.identity import Identity

from ..process.test_daemon_programs import connected, echo_server
from ..programs import Place, free_port, place

__all__ = ["place"]


@pytest.fixture
def log() -> Iterator[Callable[..., Any]]:
    """Set up for a test; the root logger is as before afterwards."""
    names = ("", "dtp", "dtpd", "hpack")
    before = [(logging.getLogger(name), logging.getLogger(name).level) for name in names]
    root = logging.getLogger()
    handlers, stream = list(root.handlers), io.StringIO()

    def set_up(format_: Any, level: Any = "info", clock: Callable[..., Any] = time.monotonic) -> io.StringIO:
        logs.set_up(model.Log(format=format_, level=level), stream, clock)
        return stream

    yield set_up
    root.handlers[:] = handlers
    for logger, level in before:
        logger.setLevel(level)


def test_a_flood_of_one_kind_is_counted(log: Callable[..., Any]) -> None:
    now = [100.0]
    stream = log("json", clock=lambda: now[0])

    def refuse(why: int | str) -> None:
        logging.getLogger("dtp.net.listener").warning("refused a carrier from %s", why)

    for number in range(10_000):
        refuse(number)
    logging.getLogger("dtpd").info("another kind")
    now[0] += 1
    refuse("the next second")
    refuse("and again")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) == logs.LOGGED + 3
    assert lines[-3]["message"] == "another kind"
    assert lines[-2]["left_out"] == 10_000 - logs.LOGGED
    assert "left_out" not in lines[-1]


def test_people_are_told_the_number_too(log: Callable[..., Any]) -> None:
    now = [100.0]
    stream = log("human", clock=lambda: now[0])
    for number in range(logs.LOGGED + 8):
        now[0] += 2 * (number == logs.LOGGED + 7)
        logging.getLogger("dtpd").info("again")
    assert stream.getvalue().splitlines()[-1].endswith(" INFO again (and 7 more like this)")


@pytest.mark.parametrize("level", ["debug", "info"])
def test_libraries_are_never_asked_for_details(log: Callable[..., Any], level: str) -> None:
    """hpack and others log what they handle, such as tokens in headers."""
    stream = log("json", level)
    for name in ("hpack.hpack", "h2", "asyncio", "psycopg", "redis"):
        logging.getLogger(name).debug("authorization: Bearer secret")
        logging.getLogger(name).info("authorization: Bearer secret")
        logging.getLogger(name).warning("trouble")
    assert "secret" not in stream.getvalue()
    assert stream.getvalue().count("trouble") == 5


def test_what_peers_say_stays_in_its_line(log: Callable[..., Any]) -> None:
    stream = log("human")
    logging.getLogger("dtpd").info("said %s", "a\x1b[31m\rb\nc\u202e\ud800")
    (line,) = stream.getvalue().splitlines()
    assert line.endswith("said a\\x1b[31m\\rb\\nc\\u202e\\ud800")


def test_texts_of_their_own_are_one_kind(log: Callable[..., Any]) -> None:
    """asyncio puts what went wrong into the text: by that, a flood would be none, and each line take memory."""
    stream = log("human", clock=lambda: 100.0)
    for number in range(1000):
        logging.getLogger("asyncio").error(f"Task {number} was destroyed")
    assert len(stream.getvalue().splitlines()) == logs.LOGGED
    (bounded,) = logging.getLogger().handlers[0].filters
    assert len(cast(logs.Bounded, bounded)._counts) == 1


def test_nobody_waits_for_a_log(log: Callable[..., Any]) -> None:
    """A pipe whose reader sleeps: lines are left out, and their number is told once there is room."""
    log("json")
    read, write = os.pipe()
    os.set_blocking(write, False)  # else what waits would wait here
    with open(read, "rb", buffering=0) as reader, open(write, "w") as stream:
        logs.set_up(model.Log(format="json"), stream)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(write, b"x" * 4096)
        for number in range(3):
            logging.getLogger("dtpd").info("lost %d", number)
        while reader.read(65536)[-4096:] == b"x" * 4096 and select.select([reader], [], [], 0)[0]:
            pass
        logging.getLogger("dtpd").info("there is room")
        logging.getLogger("dtpd").info("and again")
        first, second = map(json.loads, reader.read(65536).splitlines())
        logging.getLogger().handlers[0].close()
    assert (first["message"], first["left_out"]) == ("there is room", 3)
    assert "left_out" not in second


@pytest.mark.parametrize("format_", ["json", "human"])
def test_a_long_record_waits_for_nobody_either(log: Callable[..., Any], format_: Any) -> None:
    """Room is promised for a page; of what is longer only so much is written, with a mark, and JSON stays JSON."""
    log(format_)
    read, write = os.pipe()
    os.set_blocking(write, False)  # else what waits would wait here
    with open(read, "rb", buffering=0) as reader, open(write, "w", encoding="utf-8") as stream:
        logs.set_up(model.Log(format=format_), stream)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(write, b"x" * 4096)
        assert len(reader.read(4096)) == 4096
        logging.getLogger("dtpd").info("long " + "\u00fc" * 4096)
        found = b""
        while select.select([reader], [], [], 0)[0]:
            found += reader.read(65536)
        logging.getLogger().handlers[0].close()
    line = found.lstrip(b"x").decode()
    assert 1000 < len(line.encode()) <= select.PIPE_BUF
    assert line.endswith("\n")
    if format_ == "json":
        assert json.loads(line)["message"].startswith("long \u00fc")
        assert json.loads(line)["cut"] is True
    else:
        assert "\u00fc (cut) \u00fc" in line


@pytest.mark.parametrize("format_", ["json", "human"])
def test_the_end_of_a_long_traceback_is_kept(log: Callable[..., Any], format_: Any) -> None:
    """Its last line says what went wrong, and its first ones where it began."""

    log(format_)
    read, write = os.pipe()
    with open(read, encoding="utf-8") as reader, open(write, "w", encoding="utf-8") as stream:
        logs.set_up(model.Log(format=format_), stream)
        error = LookupError("\u00fc\n" * 9999 + "the last line")
        try:
            raise error
        except LookupError:
            logging.getLogger("dtpd").exception("a bug")
        logging.getLogger().handlers[0].close()
        stream.close()
        line = reader.read()
    assert 1000 < len(line.encode()) <= select.PIPE_BUF
    told = json.loads(line)["traceback"] if format_ == "json" else line.rstrip("\n")
    assert "Traceback" in told
    assert told.endswith("the last line")
    assert "a bug" in line


def test_a_file_gets_all_of_a_long_record(log: Callable[..., Any], tmp_path: Path) -> None:
    log("human")
    with open(tmp_path / "log", "w+") as stream:
        logs.set_up(model.Log(), stream)
        logging.getLogger("dtpd").info("x" * 8192)
        stream.seek(0)
        assert stream.read().endswith("x" * 8192 + "\n")


@pytest.mark.parametrize("is_journal", [True, False])
def test_the_journal_gets_levels_and_no_times(
    log: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_journal: bool
) -> None:
    """Where it is the journal that reads: its variable is inherited by whatever a desktop's terminal starts."""
    log("human")
    with open(tmp_path / "log", "w+") as stream:
        found = os.fstat((stream if is_journal else sys.__stdin__).fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        logs.set_up(model.Log(level="debug"), stream)
        dtpd = logging.getLogger("dtpd")
        for level in (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG):
            dtpd.log(level, "words")
        stream.seek(0)
        lines = stream.read().splitlines()
    if is_journal:
        assert lines == ["<3>words", "<4>words", "<6>words", "<7>words"]
    else:
        assert next(line.split()[2:] for line in lines) == ["ERROR", "words"]


def test_a_second_set_up_replaces_the_first(log: Callable[..., Any]) -> None:
    """As after a reload: each line once, at the level of the new file."""
    first, second = log("json", "debug"), io.StringIO()
    assert logging.getLogger("dtp").level == logging.DEBUG
    logs.set_up(model.Log(format="json", level="warning"), second)
    assert logging.getLogger("dtp").level == logging.WARNING
    assert logging.getLogger().level == logging.WARNING
    logging.getLogger("dtpd").info("no more")
    try:
        raise OSError("why")
    except OSError:
        logging.getLogger("dtpd").exception("once")
    assert first.getvalue() == ""
    (line,) = map(json.loads, second.getvalue().splitlines())
    assert line["message"] == "once"
    assert "OSError: why" in line["traceback"]


def test_what_is_worth_seeing_is_kept(log: Callable[..., Any]) -> None:
    """Warnings, refusals and what broke off, as people read them; an orderly end is no news. Bounded."""
    log("json", "debug")
    dtpd, shown = logging.getLogger("dtpd"), logs.Recent()
    dtpd.addHandler(shown)
    dtpd.info("ended", extra={"fields": {"event": "ended", "why": ""}})
    dtpd.info("broke off", extra={"fields": {"event": "ended", "why": "reset"}})
    dtpd.info("draining")
    dtpd.info("asked for what is not here", extra={"fields": {"event": "unknown-service"}})
    dtpd.warning("backend %s", "down")
    assert [(one["level"], one["message"]) for one in shown.kept] == [
        ("info", "broke off"),
        ("info", "asked for what is not here"),
        ("warning", "backend down"),
    ]
    for number in range(2 * logs.RECENT):
        dtpd.warning("number %d", number)
    assert len(shown.kept) == logs.RECENT
    assert shown.kept[-1]["message"] == f"number {2 * logs.RECENT - 1}"
    dtpd.removeHandler(shown)


@pytest.mark.slow
def test_no_secret_is_ever_written(place: Place) -> None:
    """At the level that says most, over a whole life: keys, passphrases, pre-shared keys, tokens of those who call.

    Looked for in all that leaves the process: its log, what it prints, its status, its metrics.
    """
    for name in ("far", "near"):
        identity = place.identities[name] = Identity.generate()
        identity.save(place.folder / f"{name}.pem", passphrase="correct-horse-battery")
    (place.folder / "pass").write_text("correct-horse-battery\n")
    psk = bytes(range(200, 232)).hex()
    (place.folder / "psk").write_text(psk)
    for name in ("pass", "psk"):
        (place.folder / name).chmod(0o600)
    web = free_port()
    head = '[log]\nformat = "json"\nlevel = "debug"\n'
    secret = 'passphrase-file = "pass"\npsk-file = "psk"\n'
    far, exposed = place.dtpd(
        "far",
        f"""{secret}{head}[daemon]
listen = ["tcp://127.0.0.1:0"]
[web]
listen = "127.0.0.1:{web}"
[[expose]]
service = "api"
kind = "http"
backend = "127.0.0.1:{echo_server(place)}"
allow = ["{place.identity("near").id}"]
""",
    )
    to = exposed[0]["address"]
    near, places = place.dtpd(
        "near", f'{secret}{head}[daemon]\n[[forward]]\nlisten = "127.0.0.1:0"\nto = "{to}"\n'
    )
    port = int(places[0]["listen"].rpartition(":")[2])
    for request in (
        b"GET /x?token=sesame HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sesame\r\n\r\n",
        b"\xffsesame\r\n\r\n",
    ):
        with connected(port) as client:
            client.sendall(request)
            client.settimeout(120)
            with contextlib.suppress(OSError):
                client.recv(1000)
    with connected(int(to.rpartition(":")[2].partition("/")[0])) as stranger:
        stranger.sendall(b"sesame" * 100)
    place.command("reload", "-c", place.folder / "far.toml")
    left = json.dumps(
        [place.command("status", "--json", "-c", place.folder / f"{one}.toml") for one in ("far", "near")]
    )
    left += fetched(web, "/metrics") + fetched(web, "/status") + json.dumps(exposed)
    for program in (near, far):
        program.process.terminate()
        program.wait(0)
        left += program.errors.decode()
    assert "draining" in left
    secrets = ["correct-horse", psk, "sesame", base64.b64encode(bytes.fromhex(psk)).decode()]
    for name in ("far", "near"):
        for key in (place.identities[name].seed, place.identities[name].static_private):
            secrets += [key.hex(), base64.b64encode(key).decode(), repr(key)[2:-1]]
    for one in secrets:
        assert one not in left, left[max(0, left.find(one) - 200) : left.find(one) + 100]


def fetched(port: int, path: str) -> str:
    with connected(port) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        return client.makefile("rb").read().decode()
