"""The example of a tip line, as it is: a newspaper, a stranger and a relayer, each command a process."""

from pathlib import Path

import pytest
from example_runs import run_python

PROGRAM = Path(__file__).parents[3] / "examples" / "tip_line.py"


@pytest.mark.slow
def test_a_stranger_is_answered_and_rewarded():
    assert run_python(PROGRAM) == [
        "the stranger has 12 words, and leaves",
        "the Herald reads: the bridge is cracked",
        "its photograph doesn't name the camera",
        "the stranger comes back, and reads: which bridge?",
        "the Herald reads: the one at the mill",
        "a relayer has 4900000000 MIST paid to the stranger's address, for 100000000",
    ]
