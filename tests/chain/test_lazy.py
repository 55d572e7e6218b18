"""pysui takes 0.3 s to import: nothing loads it before a chain is talked to, and it leaves no trace at home."""

import subprocess
import sys

import pytest


def modules_after(code, env=None):
    done = subprocess.run(
        [
            sys.executable,
            "-P",
            "-c",
            f"{code}\nimport sys\nprint('pysui' in sys.modules, 'grpclib' in sys.modules)",
        ],
        capture_output=True,
        text=True,
        check=True,
        env=env,
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    "code",
    [
        "import dtp",
        "import dtp.chain",
        "from dtp.chain import host, channel, pass_, pipe, lock, ChainClient; ChainClient('localnet')",
        "import dtp.cli, dtp.cli.move, dtp.cli.wallet, dtp.cli.hosts, dtp.cli.chain, dtp.cli.localnet",
        "import dtp.testing.pytest_plugin",
        "import dtp.localnet.node",
    ],
)
def test_nothing_loads_pysui_before_it_is_needed(code):
    assert modules_after(code) == ["False", "False"]


def test_a_client_writes_nothing_into_the_home_folder(tmp_path, net, deployments):
    """pysui's own configuration would write keys there, readable by everybody."""
    code = f"""
import asyncio
from dtp.chain import ChainClient
async def main():
    async with ChainClient("{net.url}", deployments=None) as chain:
        assert (await chain.balance("0x" + "d7" * 32)).total == 0  # nobody sends anything there
asyncio.run(main())
"""
    import os

    env = {**os.environ, "HOME": str(tmp_path)}
    assert modules_after(code, env) == ["True", "True"]
    assert list(tmp_path.iterdir()) == []
