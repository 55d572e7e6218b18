"""The suite against a node of its own, by `DTP_SUI_URL` and `DTP_TEST_KEY`, as against a real one.

No real node is needed for that: `dtp localnet` in another process is one, as far as these tests can see. What only
works with a chain in this process - its clock, its faucet - shows here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dtp.chain import KeySigner
from dtp.identity import bech32

ROOT = Path(__file__).parents[2]
#: Seconds until a run that hangs is given up.
PATIENCE = 1200


@contextmanager
def node() -> Iterator[Any]:
    """A node in a process of its own: what a run against it has in its environment."""
    signer = KeySigner.generate()
    command = (
        sys.executable,
        "-m",
        "dtp",
        "localnet",
        "--json",
        "--until-eof",
        "--port=0",
        "--faucet-port=0",
    )
    process = subprocess.Popen(
        [*command, *["--fund", signer.address] * 20],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    try:
        said = json.loads(process.stdout.readline())
        key = bech32.encode("suiprivkey", signer.flagged, variant="bech32")
        yield {"DTP_SUI_URL": said["url"], "DTP_TEST_KEY": key}
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


def passed(*what: Any) -> Any:
    """How many tests of `what` passed against such a node; none may fail."""
    with node() as variables:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *what],
            cwd=ROOT,
            env=os.environ | variables,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert variables["DTP_TEST_KEY"] not in said
    found = re.search(r"(\d+) passed", said)
    return int(found[1]) if found else 0


@pytest.mark.slow
def test_a_stream_is_paid_over_another_process_node() -> None:
    name = "test_a_stream_is_paid_and_everything_is_closed_in_two_transactions"
    assert passed(f"tests/pay/buying/test_paid.py::{name}[node]") == 1


@pytest.mark.long
def test_all_of_it_over_another_process_node() -> None:
    assert passed("tests/pay", "-k", "[node]") > 30
