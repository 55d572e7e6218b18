"""How tests run what documents and examples show: by an interpreter of its own, with warnings as errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

#: Beginnings of the names of examples that have a test of their own beside that of all (`tests/test_docs.py`).
HAVE_THEIR_OWN_TEST = ("mesh_", "messages_", "dapp_", "call_", "show_")


def run_python(*arguments: str | Path, timeout: float = 300, cwd: Path | None = None) -> list[str]:
    """Return the lines that Python prints for `arguments`: a file, or `-c` and a program.

    Fails where it ends with another code than 0, or says anything on standard error; `timeout` is in seconds.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
        check=False,
    )
    assert done.stderr == "", done.stderr
    assert done.returncode == 0, done.stdout
    return done.stdout.splitlines()
