"""The localnet of `chain_resolver`, with published packages; clients that know them."""

import pytest
from chain_resolver.conftest import deployments, net, network
from chain_resolver.hosts import PATIENCE, run

from dtp.chain import ChainClient, KeySigner

__all__ = ["PATIENCE", "client", "deployments", "net", "network", "run", "wallet"]


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
