"""The example of two people who are never online at once, as it is: processes, of which one is killed."""

from pathlib import Path

import pytest
from example_runs import run_python

PROGRAM = Path(__file__).parents[2] / "examples" / "messages_away.py"


@pytest.mark.slow
def test_each_reads_what_was_written_while_they_were_away():
    assert run_python(PROGRAM) == [
        "Bob has written, and leaves",
        "the mailbox is killed, and started again",
        "Alice reads from Bob: see you at eight",
        "Alice has written, and leaves",
        "Bob reads from Alice: better at nine",
        "Bob has written, and leaves",
        "Alice reads from Bob: nine it is",
    ]
