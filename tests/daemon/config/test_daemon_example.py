"""examples/firewall does what its README says, also in a browser."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from browsers import dump
from example_runs import run_python

from ..programs import PATIENCE

RUN = Path(__file__).parents[3] / "examples" / "firewall" / "run.py"


@pytest.mark.slow
def test_the_calls() -> None:
    printed = run_python(RUN, timeout=PATIENCE)
    lines = dict(line.split("  ", 1) for line in printed)
    assert '"0x10"' in lines["allowed"]
    assert lines["the node knows who asks"].strip() == "true"
    assert "nobody may see this" not in "".join(printed)
    assert '"policy": "methods"' in lines["denied method"]
    assert '"result": "1"' in lines["denied, in a batch"]
    assert "-32005" in lines["too often"]
    assert "-32600" in lines["can be read in two ways"]
    # 2 calls, 1 of a batch, 2 searches: what was refused costs nothing.
    assert lines["what that cost"].strip() == '{"spent": "0.00005 SUI", "budget": "0.05000 SUI"}'


@pytest.mark.slow
def test_the_page() -> None:
    with subprocess.Popen(
        [sys.executable, "-P", RUN, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as serving:
        assert serving.stdin is not None
        assert serving.stdout is not None
        serving.stdout.readline()
        page = serving.stdout.readline().removeprefix("open ").strip()
        shown = dump(page, 10_000, PATIENCE)
        serving.stdin.close()
        serving.wait(PATIENCE)
    assert ">0x10</output>" in shown
    assert ">dtp1" in shown
    assert "is not allowed here" in shown
