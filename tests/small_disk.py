"""A file system that can be filled."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """One of 16 MiB at `folder`, which is there. The test is skipped where none can be mounted."""
    mounting = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True, timeout=60, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=60)


def fill(folder: Path) -> None:
    """Leave no room in the file system."""
    with contextlib.suppress(OSError), open(folder / "rest", "wb", buffering=0) as rest:
        while rest.write(bytes(4096)):
            pass


def make_room(folder: Path) -> None:
    """Take back what `fill` took."""
    (folder / "rest").unlink()
