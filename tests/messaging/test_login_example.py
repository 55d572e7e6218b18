"""The example of a dApp with user names, as it is: a back end, a daemon, a chain, two wallets."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "examples" / "dapp_login.py"


@pytest.mark.slow
def test_two_wallets_are_one_account():
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", PROGRAM],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "without a login the daemon refuses: the caller is not logged in",
        "alice has an account, and writes the recovery code down",
        "the back end has of alice: with wallet 1",
        "the chain knows 1 of its wallets",
        "the back end has of alice: with wallet 1, with wallet 2",
        "the chain knows 2 of its wallets",
    ]
    assert done.returncode == 0
