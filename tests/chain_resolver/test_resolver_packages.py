"""A program that looks a host up is told once who can change the package that the host is of."""

import logging
from dataclasses import replace

import pytest

from dtp.chain import ChainClient, KeySigner, publish
from dtp.chain.packages.deployments import Deployments
from dtp.chain.packages.upgrades import UpgradePolicy
from dtp.chain.resolver import HostDirectory

from .hosts import make_host, run


@pytest.fixture
def deployments(net, network):
    """A package of this test alone: a process says of each only once who can change it."""
    signer = KeySigner.generate()
    net.fund(signer.address)

    async def publish_it():
        async with ChainClient(network, signer, deployments=None) as chain:
            await publish(chain, "transport")
            return chain.deployments

    return run(publish_it())


@pytest.mark.parametrize(
    ("policy", "faucet", "level", "said"),
    [
        (UpgradePolicy.COMPATIBLE, "", logging.WARNING, "can be upgraded (compatible)"),
        (UpgradePolicy.ADDITIVE, "", logging.WARNING, "can be upgraded (additive)"),
        (UpgradePolicy.UNKNOWN, "", logging.WARNING, "couldn't tell"),
        (UpgradePolicy.COMPATIBLE, "http://faucet", logging.INFO, "can be upgraded"),
        (UpgradePolicy.DEPENDENCIES, "", logging.WARNING, None),
        (UpgradePolicy.IMMUTABLE, "", logging.WARNING, None),
    ],
)
def test_who_can_change_the_package_is_told_once(
    client, wallet, network, deployments, caplog, policy, faucet, level, said
):
    async def scenario():
        async with client(wallet()) as owner:
            made = await make_host(owner)
        known = Deployments()
        known.save(replace(deployments.find("transport"), policy=policy))
        there = replace(network, faucet=faucet)
        async with ChainClient(there, KeySigner.generate(), deployments=known) as chain:
            for directory in (HostDirectory(chain, max_age=0.0), HostDirectory(chain, max_age=0.0)):
                for _ in range(2):
                    await directory.find(made.id)

    with caplog.at_level(logging.INFO, logger="dtp.chain"):
        run(scenario())
    told = [each for each in caplog.records if "upgrade" in each.getMessage()]
    if said is None:
        assert told == []
    else:
        (record,) = told
        assert (record.levelno, said in record.getMessage()) == (level, True)
