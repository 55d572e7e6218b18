"""Headless Chromium, whose profile and other files are gone with the test."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from os import environ
from typing import Any

import pytest


def dump(url: str, budget: int, timeout: float = 60) -> str:
    """Return the page at `url` as it is after `budget` ms of its own time. Skip where no Chromium is installed.

    Its own time leaps while it waits for nothing but timers: what is decoded meanwhile may not be ready. For that
    there is `dump_when`.
    """
    with _command() as command:
        done = subprocess.run(
            [*command, f"--virtual-time-budget={budget}", "--dump-dom", url],
            env=_environment(command),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    assert done.stdout, done.stderr
    return done.stdout


def dump_when(url: str, condition: str, timeout: float = 50, *, first: str = "", width: int = 0) -> str:
    """Return the page at `url` once `condition`, an expression of JavaScript, holds there; as it is after `timeout`
    seconds where it doesn't. What somebody does there before is `first`, statements. With a `width` the page is on a
    phone of so many pixels. Skip where no Chromium is installed."""
    found = f"""new Promise((done) => {{
        {first}
        const look = () => ({condition}) ? done(document.documentElement.outerHTML) : setTimeout(look, 20);
        setTimeout(() => done(document.documentElement.outerHTML), {1000 * timeout});
        look();
    }})"""
    with _command() as command, _DevTools(command) as tools:
        pages = tools.call("Target.getTargets")["targetInfos"]
        page = next(each["targetId"] for each in pages if each["type"] == "page")
        session = tools.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        tools.call("Page.enable", session)
        if width:
            phone = {"width": width, "height": 2 * width, "deviceScaleFactor": 1, "mobile": True}
            tools.call("Emulation.setDeviceMetricsOverride", session, **phone)
        tools.call("Page.navigate", session, url=url)
        tools.wait("Page.loadEventFired")
        answer = tools.call("Runtime.evaluate", session, expression=found, awaitPromise=True)
        return str(answer["result"]["value"])


class _DevTools:
    """Chromium, driven by its DevTools protocol on a pair of pipes: JSON with a zero byte behind each message."""

    def __init__(self, command: list[str]) -> None:
        reads, self._write = os.pipe()
        self._read, writes = os.pipe()
        # It reads from its descriptor 3, and writes to 4: neither of which may be one of these, on the way there.
        read, write = (fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 10) for each in (reads, writes))
        shell = ["bash", "-c", f'exec "$@" 3<&{read} 4>&{write}', "bash", *command]
        self._process = subprocess.Popen(
            [*shell, "--remote-debugging-pipe", "about:blank"],
            pass_fds=(read, write),
            env=_environment(command),
            stderr=subprocess.DEVNULL,
        )
        for each in (reads, writes, read, write):
            os.close(each)
        self._watchdog = threading.Timer(90, self._process.kill)
        self._kept, self._last = b"", 0

    def __enter__(self) -> _DevTools:
        self._watchdog.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._watchdog.cancel()
        self._process.kill()
        self._process.wait()
        os.close(self._read)
        os.close(self._write)

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Return what a command gives."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next_message()).get("id") != self._last:
            pass
        return dict(answer["result"])

    def wait(self, event: str) -> None:
        """Wait for an event."""
        while self._next_message().get("method") != event:
            pass

    def _next_message(self) -> dict[str, Any]:
        while b"\0" not in self._kept:
            read = os.read(self._read, 65536)
            assert read, "Chromium has ended"
            self._kept += read
        message, _, self._kept = self._kept.partition(b"\0")
        return dict(json.loads(message))


@contextlib.contextmanager
def _command() -> Iterator[list[str]]:
    """Give the command that starts the browser, with a profile that is gone at the end."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("chromium is not installed")
    with tempfile.TemporaryDirectory(prefix="dtp-browser-", ignore_cleanup_errors=True) as folder:
        yield [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            f"--user-data-dir={folder}",
        ]  # fmt: skip


def _environment(command: list[str]) -> dict[str, str]:
    folder = command[-1].partition("=")[2]
    return {**environ, "TMPDIR": folder, "HOME": folder}
