"""A chain for tests: a localnet per run (or a real network), published packages, funded wallets, a movable clock.

Comes with dtp: pytest finds it by itself. Nothing is started, and pysui isn't loaded, before a test asks for it.

    def test_pays(dtp_client, dtp_wallet):
        async def scenario():
            async with dtp_client(dtp_wallet()) as chain:
                ...
        asyncio.run(scenario())

`pytest --dtp-network=URL` runs the same tests against another node: wallets are funded by its faucet
(`$DTP_FAUCET`), or out of the account of `$DTP_TEST_KEY` (a `suiprivkey1...`). Tests that move the clock are
skipped there.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from dtp.chain import ChainClient, Deployments, KeySigner, Network
    from dtp.localnet.grpc.localnet import LocalnetThread

_T = TypeVar("_T")

KEY_VARIABLE = "DTP_TEST_KEY"
#: MIST that a wallet gets out of the account of `$DTP_TEST_KEY`.
WALLET_AMOUNT = 1_000_000_000


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that chooses the network."""
    group = parser.getgroup("dtp")
    group.addoption(
        "--dtp-network",
        default="localnet",
        metavar="NETWORK",
        help="Chain for tests: localnet (a new one, in this process) or the URL of a node. [default: localnet]",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse an unknown network before any test runs."""
    name = config.getoption("--dtp-network")
    if name == "localnet":
        return  # nothing of the chain is loaded for runs that don't use it
    from dtp.chain import find_network
    from dtp.chain.errors import NetworkError

    try:
        find_network(name)
    except NetworkError as fault:
        raise pytest.UsageError(f"--dtp-network: {fault}") from fault


@dataclass
class ChainClock:
    """The clock of a localnet."""

    localnet: LocalnetThread

    def advance(self, ms: int) -> None:
        """Move it forward."""
        self.localnet.advance_clock(ms)

    def advance_epoch(self) -> int:
        """End the epoch; the number of the new one."""
        return self.localnet.advance_epoch()

    def now_ms(self) -> int:
        """Return the time on chain."""
        return self.localnet.now_ms()


@pytest.fixture(scope="session")
def dtp_localnet(request: pytest.FixtureRequest) -> Iterator[LocalnetThread | None]:
    """Return the localnet of this run, None with another network."""
    if request.config.getoption("--dtp-network") != "localnet":
        yield None
        return
    from dtp.localnet.grpc.localnet import LocalnetThread

    with LocalnetThread() as localnet:
        yield localnet


@pytest.fixture(scope="session")
def dtp_network(request: pytest.FixtureRequest, dtp_localnet: LocalnetThread | None) -> Network:
    """Return the network of this run."""
    from dtp.chain import find_network

    if dtp_localnet is None:
        return find_network(request.config.getoption("--dtp-network"))
    return replace(find_network(dtp_localnet.url), name="localnet", faucet=dtp_localnet.faucet_url)


@pytest.fixture(scope="session")
def dtp_wallet(dtp_network: Network, dtp_localnet: LocalnetThread | None) -> Callable[[], KeySigner]:
    """Make a new funded wallet."""
    from dtp.chain import ChainClient, KeySigner
    from dtp.chain.wallet import request_sui, send

    async def from_key(key: str, recipient: str) -> None:
        async with ChainClient(dtp_network, KeySigner.from_text(key), deployments=None) as chain:
            await send(chain, recipient, WALLET_AMOUNT)

    def make() -> KeySigner:
        signer = KeySigner.generate()
        key = os.environ.get(KEY_VARIABLE)
        if dtp_localnet is not None:
            dtp_localnet.fund(signer.address)
        elif key:
            _blocking(from_key(key, signer.address))
        elif dtp_network.faucet:
            _blocking(request_sui(dtp_network, signer.address))
        else:
            pytest.fail(
                f"no SUI for tests on {dtp_network.name}: name a faucet with $DTP_FAUCET, or an account with "
                f"${KEY_VARIABLE} (suiprivkey1...)",
                pytrace=False,
            )
        return signer

    return make


@pytest.fixture(scope="session")
def dtp_packages(dtp_network: Network, dtp_wallet: Callable[[], KeySigner]) -> Deployments:
    """Return the packages, published by a wallet of their own."""
    from dtp.chain import ChainClient, packages, publish

    async def all_of_them() -> Deployments:
        async with ChainClient(dtp_network, dtp_wallet(), deployments=None) as chain:
            for name in packages.available():
                await publish(chain, name)
            return chain.deployments

    return _blocking(all_of_them())


def _blocking(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end, also while an event loop runs here: in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


@pytest.fixture
def dtp_client(dtp_network: Network, dtp_packages: Deployments) -> Callable[..., ChainClient]:
    """Make a client that knows the packages, for a signer (or none); use it with `async with`."""
    from dtp.chain import ChainClient

    def make(signer: KeySigner | None = None, **options: Any) -> ChainClient:
        return ChainClient(dtp_network, signer, deployments=dtp_packages, **options)

    return make


@pytest.fixture
def dtp_clock(dtp_localnet: LocalnetThread | None) -> ChainClock:
    """Return the clock of the localnet; a test that needs it is skipped on another network."""
    if dtp_localnet is None:
        pytest.skip("the clock of a real network doesn't move for tests")
    return ChainClock(dtp_localnet)
