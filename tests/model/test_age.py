"""Every type lives through a million edits by turns of three: the last costs what the first did, in bytes and work.

Work is counted, not timed: the core is built so that it counts the basic blocks that it runs (`aging.py`).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from aging import EDITS, Cost, age

#: Bytes of memory and of state that may be there beside what each edit leaves, and how many each may leave.
FIXED = 24_000, 1_000
EACH = {
    "map": (200, 0),  # the name of a key that is gone, until the graph is opened again
    "text": (160, 8),  # what is deleted is a number, until it is compacted
    "list": (80, 15),  # a group, an insertion, a deletion: 5 each, as numbers above 16,383 have 3 bytes
    "moves": (290, 25),  # a group, two markers put in and two deleted, 5 each or so
    "marks": (230, 18),
    "undone": (200, 8),
    "documents": (10, 16),  # a list in a document is deleted with its elements
}
#: Bytes of an author's sum that may be there beside what each edit of the three leaves in it, and how many each may
#: leave: what others took away stays until it is let go of, and so do markers about what others made.
FIXED_SUM = 3_000
EACH_SUM = {
    "set": 6,  # who removes what others added says so
    "multi-value": 4,
    "map": 10,
    "text": 4,
    "list": 6,
    "moves": 46,
    "marks": 42,
    "undone": 3,
    "documents": 50,
    "ruled registers": 3,
}


#: How much more work the last edits may take than the first, in short runs. Work goes up and down with how long ago
#: the last compaction was: of marks an edit takes 17,000 blocks at the end of 5,000, 18,900 of 20,000, 18,400 of
#: 60,000.
SHORT, LONG = 1.4, 1.25


def check(kind: str, cost: Cost, turns: int) -> None:
    """A hundred times as many edits cost each the same; what stays is what docs/graph.md says."""
    assert cost.last_bytes <= 1.05 * cost.first_bytes + 2, f"{kind}: frames grow"
    more = SHORT if turns < 100_000 else LONG
    assert cost.last_work <= more * cost.first_work, f"{kind}: edits take more work"
    memory, state = EACH.get(kind, (0, 0))
    assert cost.memory <= FIXED[0] + memory * turns, f"{kind}: memory"
    assert cost.state <= FIXED[1] + state * turns, f"{kind}: the state"
    assert cost.sum <= FIXED_SUM + EACH_SUM.get(kind, 0) * turns, f"{kind}: the sum"


def counted(turns: int) -> None:
    """Let all types age in a program that counts its work."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc, which counts what is run")
    program = [sys.executable, "-P", str(Path(__file__).with_name("aging.py")), str(turns)]
    done = subprocess.run(program, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True, text=True)
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert [kind for kind, *_ in told] == list(EDITS)
    for kind, *numbers in told:
        cost = Cost(*numbers)
        assert cost.first_work > 0
        check(kind, cost, turns)


@pytest.mark.parametrize("kind", EDITS)
def test_a_thousand_edits(kind: str) -> None:
    check(kind, age(kind, 1_000), 1_000)


@pytest.mark.slow
def test_twenty_thousand_edits_are_the_same_work_each() -> None:
    counted(20_000)


@pytest.mark.long
def test_a_million_edits_are_the_same_work_each() -> None:
    counted(1_000_000)
