"""What people see of a node: the daemon's page in a browser, and the live table of `dtp node` at a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any, cast

import pytest
from browsers import dump
from conditions import until

from dtp.carriers.stream_socket import SocketListener
from dtp.daemon.config.values import LocalPlace
from dtp.daemon.server import Daemon
from dtp.daemon.web.server import WebServer
from dtp.node.node import Node

from ..conftest import FAR, config, listener_of
from ..programs import PATIENCE

#: A node that others can't dial, until its input ends.
HIDDEN = """
import asyncio, sys, dtp
async def main():
    async with dtp.Node(listen=None, discover=(), bootstrap=sys.argv[1:]):
        await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""
DTP = "from dtp.cli import main; main(prog_name='dtp')"


@pytest.mark.slow
def test_the_page_shows_peers_topics_and_the_dht_in_a_browser(tmp_path: Path) -> None:
    key = tmp_path / "family.key"
    key.write_text("a long enough secret\n")
    key.chmod(0o600)
    made = config(
        tmp_path,
        f'[daemon]\nlisten = ["tcp://127.0.0.1:0"]\n[node]\ndiscover = ["dht"]\ndht = "127.0.0.1:0"\n'
        f'store = "{tmp_path}/peers"\ntopics = ["weather"]\n'
        f'[[node.private-topics]]\nname = "family"\nkey-file = "{key}"\n',
    )

    async def main() -> Any:
        daemon = Daemon(made, FAR)
        await daemon.start()
        web = WebServer(daemon, LocalPlace("127.0.0.1", 0))
        await web.start()
        try:
            options: dict[str, Any] = {
                "bootstrap": [str(listener_of(daemon).addresses[0])],
                "discover": (),
                "listen": None,
            }
            async with Node(**options) as one, one.topic("weather") as here:
                await here.publish(b"21.5")
                await until(lambda: daemon.get_status()["node"]["topics"][0]["messages"] == 1)
                page = await asyncio.to_thread(
                    dump, f"http://{cast(SocketListener, web.listener).urls[0]}/", 4000
                )
                return str(one.identity.id), page
        finally:
            await web.close()
            await daemon.close()

    peer, page = asyncio.run(main())
    text = " ".join(re.sub(r"<[^>]*>", " ", page).split())
    assert peer in text
    assert "1 link;" in text
    assert "DHT at 127.0.0.1:" in text
    assert "weather 1 1 4 B" in text
    assert "family (private) 0 0 0 B" in text


class Terminal:
    """`dtp` at a terminal of 120 columns. `shown` is what it has printed so far, without colours and moves."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._near, far = pty.openpty()
        fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        environment = os.environ | {"DTP_HOME": str(folder), "TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", DTP, *arguments],
            stdin=far,
            stdout=far,
            stderr=far,
            env=environment,
            start_new_session=True,
        )
        os.close(far)
        os.set_blocking(self._near, False)
        self.raw = ""

    @property
    def shown(self) -> Any:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.raw)

    def until(self, pattern: str) -> Any:
        """Read until it has shown this; return the match."""
        deadline = time.monotonic() + PATIENCE
        while (found := re.search(pattern, self.shown)) is None:
            assert time.monotonic() < deadline, self.shown
            self._read()
        return found

    def _read(self) -> None:
        time.sleep(0.02)
        with contextlib.suppress(OSError):  # nothing is there, or nobody is at the other end any more
            self.raw += os.read(self._near, 65536).decode(errors="replace")

    def end(self) -> Any:
        """Send what Ctrl-C sends; return how it ended."""
        self.process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            self._read()
        self.process.kill()
        self._read()
        os.close(self._near)
        return self.process.wait()


@pytest.mark.slow
def test_a_terminal_shows_who_is_there(tmp_path: Path) -> None:
    alone = ("node", "--discover", "none", "--listen", "tcp://127.0.0.1:0")
    first = Terminal(tmp_path / "first", *alone)
    try:
        address = first.until(r"dtp\+tcp://dtp1\w+@127\.0\.0\.1:\d+")[0]
        first.until("nobody yet; another 'dtp node' on this network shows up here")
        second = Terminal(tmp_path / "second", *alone, "--echo", "--announce", "echo", "--bootstrap", address)
        hidden = contextlib.ExitStack()
        try:
            first.until(r"1 peer, 1 link")
            first.until(r"dtp1\S+ +from +echo +tcp://127\.0\.0\.1:\d+")
            second.until(r"dtp1\S+ +to +tcp://127\.0\.0\.1:\d+")
            program = [sys.executable, "-P", "-c", HIDDEN, address]
            hidden.enter_context(subprocess.Popen(program, stdin=subprocess.PIPE))
            first.until(r"2 links")
            first.until(r"dtp1\S+ +from +127\.0\.0\.1\s")  # nobody can dial it, and it is linked
        finally:
            with hidden:  # it ends with its input
                assert second.end() == 130
        first.until(r"1 peer, 0 links|0 peers, 0 links")
    finally:
        assert first.end() == 130
    assert "Traceback" not in first.raw + second.raw
