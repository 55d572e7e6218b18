"""The localnet of `chain_resolver`, with published packages, and clients that know them."""

from chain.conftest import client, wallet
from chain_resolver.conftest import deployments, net, network

__all__ = ["client", "deployments", "net", "network", "wallet"]
