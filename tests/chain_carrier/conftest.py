"""One localnet for the folder, as for the resolver; a host with services, and carriers of two accounts over it."""

from chain_resolver.conftest import client, deployments, net, network, wallet

__all__ = ["client", "deployments", "net", "network", "wallet"]
