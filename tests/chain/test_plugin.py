"""The fixtures that users' tests get: `pytest` in a folder of its own, as they run it."""

import os
import subprocess
import sys

import pytest

from dtp.chain import KeySigner
from dtp.identity import bech32
from dtp.localnet.grpc.localnet import LocalnetThread

TESTS = """
import asyncio

from dtp.chain import Program, host


def test_without_a_chain():
    assert True


def test_pays(dtp_client, dtp_wallet):
    async def scenario():
        async with dtp_client(dtp_wallet()) as chain:
            program = Program()
            program.transfer(list(program.split(program.gas, [1000])), "0x5")
            await chain.execute(program)
            assert (await chain.balance("0x5")).total >= 1000

    asyncio.run(scenario())


def test_packages_are_there(dtp_client, dtp_wallet, dtp_packages):
    async def scenario():
        async with dtp_client(dtp_wallet()) as chain:
            program = Program()
            host.create(program, chain.address)
            made = chain.events_in(await chain.execute(program), host.SCHEMA, host.HostCreated)
            assert len(made) == 1

    assert {each.package for each in dtp_packages.list_all()} >= {"transport", "escrow"}
    asyncio.run(scenario())


def test_time_moves(dtp_clock):
    before = dtp_clock.now_ms()
    dtp_clock.advance(60_000)
    assert dtp_clock.now_ms() >= before + 60_000
    assert dtp_clock.advance_epoch() == 1


async def inside(dtp_wallet, dtp_client):
    async with dtp_client(dtp_wallet()) as chain:
        return (await chain.balance(chain.address)).total


def test_fixtures_in_a_running_event_loop(request):
    async def scenario():
        fixtures = [request.getfixturevalue(name) for name in ("dtp_wallet", "dtp_client")]
        assert await inside(*fixtures) > 0

    asyncio.run(scenario())
"""


@pytest.fixture
def run(tmp_path):
    """Run the tests above in a folder of their own; gives the exit code and what pytest said."""
    (tmp_path / "test_mine.py").write_text(TESTS)

    def start(*arguments, **variables):
        env = {name: value for name, value in os.environ.items() if not name.startswith("DTP_")}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *arguments],
            cwd=tmp_path,
            env=env | variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return start


@pytest.fixture(scope="module")
def other():
    with LocalnetThread() as net:
        yield net


@pytest.mark.slow
def test_a_localnet_of_its_own(run):
    code, said = run()
    assert (code, "5 passed" in said) == (0, True), said


@pytest.mark.slow
def test_a_node_with_a_faucet(run, other):
    code, said = run(f"--dtp-network={other.url}", DTP_FAUCET=other.faucet_url)
    assert code == 0, said
    assert "4 passed, 1 skipped" in said
    assert "the clock of a real network doesn't move for tests" in said


@pytest.mark.slow
def test_a_node_with_an_account(run, other):
    signer = KeySigner.generate()
    other.fund(signer.address)
    key = bech32.encode("suiprivkey", signer.flagged, variant="bech32")
    code, said = run(f"--dtp-network={other.url}", DTP_TEST_KEY=key)
    assert (code, "4 passed, 1 skipped" in said) == (0, True), said
    assert key not in said


@pytest.mark.slow
def test_what_is_missing_is_said_in_a_line(run, other):
    code, said = run("--dtp-network=nonsense")
    assert code == 4
    assert "--dtp-network: no network 'nonsense'" in said
    assert "Traceback" not in said
    code, said = run(f"--dtp-network={other.url}", "-k", "pays")
    assert code == 1
    assert "name a faucet with $DTP_FAUCET" in said
    assert "pytest_plugin.py" not in said
