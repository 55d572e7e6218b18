"""What a program is told that finds the sources of a checkout, without the C core, before the installed package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_sources_without_their_core_say_why_and_what_to_do(tmp_path: Path) -> None:
    built = shutil.ignore_patterns("__pycache__", "_dtp_core.*.so", "_dtp_core.pyd")
    shutil.copytree(ROOT / "dtp", tmp_path / "dtp", ignore=built)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [sys.executable, "-c", "import dtp; dtp.listen"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    (last,) = done.stderr.splitlines()[-1:]
    assert last.startswith("ImportError: the C core of dtp is not built in")
    assert str(tmp_path / "dtp") in last
    assert "from another folder" in last
    assert "pip install -e ." in last
