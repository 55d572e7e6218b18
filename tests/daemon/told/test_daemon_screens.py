"""`dtpd status` and `dtpd top` where nobody reads on, there is no terminal, or its encoding knows few characters."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import pytest
from children import child_process

from dtp.daemon.process.control import Control

#: Seconds; only a failing test waits so long.
PATIENCE = 120
STATUS = {
    "identity": "dtp1me",
    "uptime": 5.0,
    "draining": False,
    "reloads": 0,
    "listen": [],
    "callers": [
        {"peer": "dtp1" + "x" * 200, "service": "\u2603", "source": "192.0.2.1", "streams": 1, "resumes": 0}
    ],
    "exposed": [],
    "forwarded": [],
}


@pytest.fixture
def screen(short: Path) -> Callable[..., Any]:
    """Run a coroutine function with a file whose daemon answers `STATUS`."""
    file = short / "dtpd.toml"
    file.write_text('[daemon]\ncontrol = "c"\n')

    async def answer(request: Mapping[str, Any]) -> dict[str, Any]:
        return STATUS

    def run(scenario: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        async def main() -> None:
            control = Control(short / "c", {"status": answer})
            await control.start()
            try:
                async with asyncio.timeout(2 * PATIENCE):
                    found: None = await scenario(file)
                    return found
            finally:
                await control.close()

        return asyncio.run(main())

    return run


def dtpd(*arguments: Path | str, **how: Any) -> Any:
    """Run `dtpd` until the block ends."""
    command = (sys.executable, "-P", "-c", "from dtp.cli.daemon import main; main()", *map(str, arguments))
    env = {**os.environ, **how.pop("env", {})}
    return child_process(*command, stdin=asyncio.subprocess.DEVNULL, env=env, **how)


@pytest.mark.parametrize("arguments", [("status",), ("status", "--json"), ("top",), ("top", "--json")])
def test_a_screen_that_nobody_reads_ends_like_sigpipe(
    screen: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    async def scenario(file: Path) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "wb") as closed:
            pipes = {"stdout": closed, "stderr": asyncio.subprocess.PIPE}
            async with dtpd(*arguments, "-c", file, **pipes) as shown:
                closed.close()
                _, errors = await shown.communicate()
        assert (shown.returncode, errors) == (141, b"")

    screen(scenario)


def test_top_without_a_terminal_prints_each_look(screen: Callable[..., Any]) -> None:
    async def scenario(file: Path) -> None:
        reading, writing = os.pipe()
        with os.fdopen(writing, "wb") as closed, os.fdopen(reading, "rb") as shown:
            async with dtpd("top", "--interval", "0.1", "-c", file, stdout=closed) as top:
                closed.close()
                watchdog = asyncio.get_running_loop().call_later(PATIENCE, top.kill)
                looks = 0
                while looks < 2:
                    line = await asyncio.to_thread(shown.readline)
                    assert line, "it has ended"
                    looks += line.startswith(b"in 0 B/s")
                shown.close()
                assert await top.wait() == 141
                watchdog.cancel()

    screen(scenario)


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1"])
def test_what_an_encoding_does_not_know_is_spelled_out(screen: Callable[..., Any], encoding: str) -> None:
    env = {"PYTHONIOENCODING": encoding, "COLUMNS": "60"}

    async def scenario(file: Path) -> None:
        async with dtpd("status", "-c", file, stdout=asyncio.subprocess.PIPE, env=env) as shown:
            said, _ = await shown.communicate()
        assert shown.returncode == 0
        assert b"\\u2603" in said

    screen(scenario)


def test_top_gives_the_cursor_back_when_it_is_ended(screen: Callable[..., Any]) -> None:
    async def scenario(file: Path) -> None:
        ours, its = os.openpty()
        with os.fdopen(its, "wb") as closed, os.fdopen(ours, "rb", buffering=0) as terminal:
            async with dtpd("top", "-c", file, stdout=closed, env={"TERM": "xterm"}) as top:
                closed.close()
                watchdog = asyncio.get_running_loop().call_later(PATIENCE, top.kill)
                shown = b""
                while b"in 0 B/s" not in shown:
                    shown += await asyncio.to_thread(terminal.read, 4096)
                top.send_signal(signal.SIGTERM)
                with contextlib.suppress(OSError):  # what a terminal says whose other end is closed
                    while more := await asyncio.to_thread(terminal.read, 4096):
                        shown += more
                assert await top.wait() == 143
                watchdog.cancel()
        assert shown.rfind(b"\x1b[?25h") > shown.rfind(b"\x1b[?25l") >= 0

    screen(scenario)
