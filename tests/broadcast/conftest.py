"""The localnet of `chain_resolver`, with published packages, and clients that know them."""

from chain.conftest import calls, client, wallet
from chain_resolver.conftest import deployments, net, network

__all__ = ["calls", "client", "deployments", "net", "network", "wallet"]
