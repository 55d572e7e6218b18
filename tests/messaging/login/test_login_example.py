"""The example of a dApp with user names, as it is: a back end, a daemon, a chain, two wallets."""

from pathlib import Path

import pytest
from example_runs import run_python

PROGRAM = Path(__file__).parents[3] / "examples" / "dapp_login.py"


@pytest.mark.slow
def test_two_wallets_are_one_account():
    assert run_python(PROGRAM) == [
        "without a login the daemon refuses: the caller is not logged in",
        "alice has an account, and writes the recovery code down",
        "the back end has of alice: with wallet 1",
        "the chain knows 1 of its wallets",
        "the back end has of alice: with wallet 1, with wallet 2",
        "the chain knows 2 of its wallets",
    ]
