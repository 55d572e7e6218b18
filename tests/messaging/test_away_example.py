"""The example of two people who are never online at once, as it is: processes, of which one is killed."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "examples" / "messages_away.py"


@pytest.mark.slow
def test_each_reads_what_was_written_while_they_were_away():
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", PROGRAM],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "Bob has written, and leaves",
        "the mailbox is killed, and started again",
        "Alice reads from Bob: see you at eight",
        "Alice has written, and leaves",
        "Bob reads from Alice: better at nine",
        "Bob has written, and leaves",
        "Alice reads from Bob: nine it is",
    ]
    assert done.returncode == 0
