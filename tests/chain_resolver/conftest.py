"""One localnet for the folder, with published packages; clients that know them."""

from __future__ import annotations

from typing import Any

import pytest

from chain_resolver.hosts import run
from dtp.chain import ChainClient, KeySigner, Network, packages, publish
from dtp.localnet.grpc.localnet import LocalnetThread


@pytest.fixture(scope="session")
def net() -> Any:
    with LocalnetThread() as localnet:
        yield localnet


@pytest.fixture(scope="session")
def network(net: Any) -> Any:
    return Network("localnet", (net.url,), faucet=net.faucet_url)


@pytest.fixture(scope="session")
def deployments(net: Any, network: Any) -> Any:
    signer = KeySigner.generate()
    net.fund(signer.address)

    async def publish_all() -> Any:
        async with ChainClient(network, signer, deployments=None) as chain:
            for name in packages.available():
                await publish(chain, name)
            return chain.deployments

    return run(publish_all())


@pytest.fixture
def wallet(net: Any) -> Any:
    """Make a funded account."""

    def make(signer: Any = None, coins: Any = 1) -> Any:
        signer = signer or KeySigner.generate()
        net.fund(signer.address, 1_000_000_000_000, coins)
        return signer

    return make


@pytest.fixture
def client(network: Any, deployments: Any) -> Any:
    """Make a client that knows the packages."""

    def make(signer: Any = None, cls: Any = ChainClient, **options: Any) -> Any:
        return cls(network, signer, **{"deployments": deployments, **options})

    return make
