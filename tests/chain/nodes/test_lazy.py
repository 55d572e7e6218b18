"""pysui is slow to import: nothing loads it before a chain is talked to, then only parts; nothing is left at home."""

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


def test_of_pysui_only_what_is_used_is_loaded_and_a_program_that_uses_it_gets_all():
    code = """
import sys
from dtp.chain.node import _pysui
ours = _pysui.library()
assert not {"gql", "httpx", "pysui.sui.sui_common.client"} & set(sys.modules)
import pysui.sui.sui_bcs.bcs
assert pysui.sui.sui_bcs.bcs is ours.bcs and "gql" not in sys.modules
from pysui import PysuiConfiguration, client_factory
assert pysui.PysuiConfiguration is PysuiConfiguration and "gql" in sys.modules
assert pysui.sui.sui_bcs.bcs is ours.bcs and not hasattr(pysui, "nothing_of_this_name")
"""
    assert modules_after(code) == ["True", "True"]


def test_a_program_that_has_imported_pysui_keeps_it():
    code = """
import pysui
from dtp.chain.node import _pysui
assert _pysui.library().bcs is pysui.sui.sui_bcs.bcs and pysui.client_factory
"""
    assert modules_after(code) == ["True", "True"]
