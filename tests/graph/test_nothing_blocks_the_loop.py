"""Nothing that an open graph does waits for the disk or its store in the thread of its loop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("graph_calls.py")


def waiting_calls(home: Path, *arguments: str) -> list[list[Any]]:
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
    found: list[list[Any]] = json.loads(done.stdout)
    return found


def test_graphs_on_disk_wait_for_nothing(tmp_path: Path) -> None:
    """Commits, syncs, offers, blobs, grants, queries, pruning, checks, files, closing; in new stores and others."""
    assert waiting_calls(tmp_path) == []


def test_what_would_wait_is_found(tmp_path: Path) -> None:
    found = {event for event, _, _ in waiting_calls(tmp_path, "--wrong")}
    assert found == {"open", "fsync", "stat", "sqlite3.execute"}
