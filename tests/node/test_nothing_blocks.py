"""Nothing that a node does waits in the thread of its loop: no file, no name, no socket, no program, no sleep."""

from __future__ import annotations

from pathlib import Path

import pytest
from waiting import run_watched

pytest.importorskip("zeroconf", reason="zeroconf not installed (the extra lan)")
pytest.importorskip("qh3", reason="qh3 not installed (the extra quic)")

PROGRAM = Path(__file__).with_name("waiting_calls.py")


def test_nodes_with_all_that_there_is_wait_for_nothing(tmp_path: Path) -> None:
    """LAN, mDNS, DHT, TCP, QUIC, a relay, a private network, a book on disk; topics, graphs, providers."""
    assert run_watched(PROGRAM, tmp_path) == {"calls": [], "sockets": []}


def test_what_would_wait_is_found(tmp_path: Path) -> None:
    found = {event for event, _, _ in run_watched(PROGRAM, tmp_path, "--wrong")["calls"]}
    assert sorted(found) == ["open", "socket.getaddrinfo", "time.sleep"]
