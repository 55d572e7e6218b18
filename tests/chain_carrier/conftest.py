"""One localnet for the folder, as for the resolver; a host with services, and carriers of two accounts over it."""

import pytest
from chain_resolver.conftest import client, deployments, net, network, wallet

__all__ = ["client", "deployments", "net", "network", "wallet"]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Where programs of these tests keep their locks."""
    monkeypatch.setenv("DTP_HOME", str(tmp_path / "home"))
