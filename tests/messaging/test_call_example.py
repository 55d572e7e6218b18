"""The example of a film that is shown in a call, as it is, between addresses of this machine alone."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "examples" / "call_film.py"
LOOPBACK = f"""
import runpy, aioice.ice
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]
runpy.run_path({str(PROGRAM)!r}, run_name="__main__")
"""


@pytest.mark.slow
def test_an_answering_machine_records_what_is_shown():
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", LOOPBACK],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stderr == ""
    assert sorted(done.stdout.splitlines()) == [
        "it rings: Alice",
        "recorded: something",
        "the call is over: hung up",
        "they are connected",
    ]
    assert done.returncode == 0
