"""The localnet of `chain_resolver`, with published packages; clients that know them."""

import asyncio
from collections import Counter

import pytest
from chain_resolver.conftest import deployments, net, network
from chain_resolver.hosts import PATIENCE, run

from dtp.chain import ChainClient, KeySigner, Program
from dtp.chain.errors import NodeUnavailable
from dtp.chain.node._wire import NodeRpc

__all__ = [
    "PATIENCE",
    "Calls",
    "calls",
    "client",
    "deployments",
    "give",
    "net",
    "network",
    "no_pause",
    "run",
    "wallet",
]


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


async def no_pause(seconds):
    await asyncio.sleep(0)


class Calls:
    """Counts the calls to a node, and can lose answers: each entry of `lose` is (method, before or after)."""

    def __init__(self, monkeypatch):
        self.count = Counter()
        self.lose = []
        self.sent = []
        plain = NodeRpc._call

        async def call(wire, service, method, message):
            self.count[method] += 1
            if method == "execute_transaction":
                self.sent.append(bytes(message))
            fault = next((each for each in self.lose if each[0] == method), None)
            if fault is not None:
                self.lose.remove(fault)
                if fault[1] == "after":
                    await plain(wire, service, method, message)
                raise NodeUnavailable("the test lost this")
            return await plain(wire, service, method, message)

        monkeypatch.setattr(NodeRpc, "_call", call)

    def trips(self):
        found, self.count = sum(self.count.values()), Counter()
        return found


@pytest.fixture
def calls(monkeypatch):
    return Calls(monkeypatch)


def give(recipient="0x5", amount=1000):
    program = Program()
    program.transfer(list(program.split(program.gas, [amount])), recipient)
    return program
