"""The example of a film that is shown in a call, as it is, between addresses of this machine alone."""

from pathlib import Path

import pytest
from example_runs import run_python

PROGRAM = Path(__file__).parents[3] / "examples" / "call_film.py"
LOOPBACK = f"""
import runpy, aioice.ice
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]
runpy.run_path({str(PROGRAM)!r}, run_name="__main__")
"""


@pytest.mark.slow
def test_an_answering_machine_records_what_is_shown():
    assert sorted(run_python("-c", LOOPBACK)) == [
        "it rings: Alice",
        "recorded: something",
        "the call is over: hung up",
        "they are connected",
    ]
