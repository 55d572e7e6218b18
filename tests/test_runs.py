"""What a run of the tests says and leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

PROGRAM = """
import socket
import pytest

@pytest.mark.long
def test_long():
    pass

def test_short(tmp_path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "a name of some length.sock"))
    (tmp_path / "left").write_bytes(bytes(1000))
"""


def run(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """pytest with our configuration and conftest, on a test in `folder`."""
    (folder / "conftest.py").write_text((TESTS / "conftest.py").read_text())
    (folder / "test_some.py").write_text(PROGRAM)
    config = ["-c", str(TESTS.parent / "pyproject.toml"), "--rootdir", str(folder), "-p", "no:cacheprovider"]
    return subprocess.run(
        [sys.executable, "-P", "-m", "pytest", *config, *words, str(folder)],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_run_says_what_it_left_out_and_leaves_nothing(tmp_path: Path, workers: str) -> None:
    """Also with a temporary folder whose path is too long for Unix sockets."""
    folder = tmp_path / ("long" * 30)
    (tmp_path / "tests").mkdir()
    folder.mkdir()
    before = set(Path("/tmp").glob("dtp-*"))
    done = run(tmp_path / "tests", "-n", workers, TMPDIR=str(folder))
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert "1 test was deselected; those that take seconds each run with" in done.stdout
    assert not [path for path in folder.rglob("*") if path.is_file()]
    assert not {path for path in set(Path("/tmp").glob("dtp-*")) - before if list(path.rglob("left"))}


@pytest.mark.parametrize("script", ["run", "nightly"])
def test_a_release_is_tested_where_a_unit_sees_the_program(tmp_path: Path, script: str) -> None:
    """What the unit starts has another /tmp and /var/tmp: below one of these its tests were skipped each time."""
    lines = (TESTS.parent / ".ci" / script).read_text().splitlines()
    (line,) = [each for each in lines if each.startswith("work=")]
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    told = {**os.environ, "HOME": str(home), "TMPDIR": str(temporary)}
    done = subprocess.run(
        ["bash", "-euc", f'{line}; echo "$work"'], env=told, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()).parent == home
