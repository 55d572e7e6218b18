"""Nothing that a node does waits in the thread of its loop: no file, no name, no socket, no program, no sleep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("zeroconf", reason="zeroconf not installed (the extra lan)")
pytest.importorskip("qh3", reason="qh3 not installed (the extra quic)")

PROGRAM = Path(__file__).with_name("waiting_calls.py")


def waiting_calls(home: Path, *arguments: str) -> dict[str, Any]:
    """What the program found."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": str(home), "XDG_DATA_HOME": str(home), "XDG_STATE_HOME": str(home)},
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_nodes_with_all_that_there_is_wait_for_nothing(tmp_path: Path) -> None:
    """LAN, mDNS, DHT, TCP, QUIC, a relay, a private network, a book on disk; topics, graphs, providers."""
    assert waiting_calls(tmp_path) == {"calls": [], "sockets": []}


def test_what_would_wait_is_found(tmp_path: Path) -> None:
    found = {event for event, _, _ in waiting_calls(tmp_path, "--wrong")["calls"]}
    assert sorted(found) == ["open", "socket.getaddrinfo", "time.sleep"]
