"""The benchmark of shows ends by its limit, and leaves no process behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = (
    sys.executable,
    "-P",
    "-m",
    "bench.shows",
    "--listeners",
    "2",
    "--processes",
    "1",
    "--rate",
    "80000",
)


def begin(*options):
    """Start the benchmark. Its children have its standard error: that ends when the last of them has."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*COMMAND, "--seconds", "600", *options], env=environment, stdout=-1, stderr=-1, text=True
    )


@pytest.mark.slow
def test_it_ends_by_its_limit_with_its_children():
    with begin("--limit", "4") as program:
        output, errors = program.communicate(timeout=120)
    assert program.returncode == 1
    assert output == ""
    assert "isn't over after 4 s" in errors


@pytest.mark.slow
def test_its_children_end_when_it_is_killed():
    with begin("--limit", "8") as program:
        children = Path(f"/proc/{program.pid}/task/{program.pid}/children")
        while not children.read_text():
            assert program.poll() is None
            time.sleep(0.01)
        program.send_signal(signal.SIGKILL)
        _, errors = program.communicate(timeout=120)
    assert program.returncode == -signal.SIGKILL
    assert "isn't over after 8 s" in errors


@pytest.mark.slow
def test_the_way_of_money_is_measured():
    command = (sys.executable, "-P", "-m", "bench.shows_money", "--runs", "1")
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    told = json.loads(done.stdout)
    assert told["contribution to first segment, median s"] >= told["a transaction, s"]
