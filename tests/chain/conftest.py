"""One localnet for the folder, with published packages; clients that know them."""

import asyncio

import pytest

from dtp.chain import ChainClient, KeySigner, Network, packages, publish
from dtp.localnet.grpc.localnet import LocalnetThread

#: Seconds for anything that has to happen; only a failing test waits so long.
PATIENCE = 60


def run(work):
    async def limited():
        async with asyncio.timeout(PATIENCE):
            return await work

    return asyncio.run(limited())


@pytest.fixture(scope="session")
def net():
    with LocalnetThread() as localnet:
        yield localnet


@pytest.fixture(scope="session")
def network(net):
    return Network("localnet", (net.url,), faucet=net.faucet_url)


@pytest.fixture(scope="session")
def deployments(net, network):
    signer = KeySigner.generate()
    net.fund(signer.address)

    async def publish_all():
        async with ChainClient(network, signer, deployments=None) as chain:
            for name in packages.available():
                await publish(chain, name)
            return chain.deployments

    return run(publish_all())


@pytest.fixture
def wallet(net):
    """Make a funded account."""

    def make(amount=10_000_000_000, coins=1):
        signer = KeySigner.generate()
        net.fund(signer.address, amount, coins)
        return signer

    return make


@pytest.fixture
def client(network, deployments):
    """Make a client that knows the packages."""

    def make(signer=None, **options):
        options.setdefault("deployments", deployments)
        return ChainClient(options.pop("network", network), signer, **options)

    return make
