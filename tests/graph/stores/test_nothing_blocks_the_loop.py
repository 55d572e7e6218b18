"""Nothing that an open graph does waits for the disk or its store in the thread of its loop."""

from __future__ import annotations

from pathlib import Path

from waiting import run_watched

PROGRAM = Path(__file__).with_name("graph_calls.py")


def test_graphs_on_disk_wait_for_nothing(tmp_path: Path) -> None:
    """Commits, syncs, offers, blobs, grants, queries, pruning, checks, files, closing; in new stores and others."""
    assert run_watched(PROGRAM, tmp_path) == []


def test_what_would_wait_is_found(tmp_path: Path) -> None:
    found = {event for event, _, _ in run_watched(PROGRAM, tmp_path, "--wrong")}
    assert found == {"open", "fsync", "stat", "sqlite3.execute"}
