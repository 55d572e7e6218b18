"""The localnet of `chain_resolver`, with published packages; clients that know them."""

import asyncio
import inspect
from collections import Counter

import pytest
from chain_resolver.conftest import deployments, net, network
from chain_resolver.hosts import PATIENCE, run

from dtp.chain import ChainClient, KeySigner, Program
from dtp.chain.errors import NodeUnavailable
from dtp.testing.nodes import ScriptedNode

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
def client(network, deployments, calls):
    """Make a client that knows the packages."""

    def make(signer=None, **options):
        options.setdefault("rpc", calls)
        options.setdefault("deployments", deployments)
        return ChainClient(options.pop("network", network), signer, **options)

    return make


async def no_pause(seconds):
    await asyncio.sleep(0)


class Calls(ScriptedNode):
    """Counts the calls to a node, and can lose answers: each entry of `lose` is (method, before or after)."""

    def __init__(self):
        super().__init__()
        self.count = Counter()
        self.lose = []
        self.sent = []  # the transactions that were to be executed

    def answer_to(self, name, genuine):
        answer = super().answer_to(name, genuine)
        if not inspect.iscoroutinefunction(genuine):  # what is read of a stream isn't counted
            return answer

        async def call(*arguments, **options):
            self.count[name] += 1
            if name == "execute":
                self.sent.append(arguments[0])
            fault = next((each for each in self.lose if each[0] == name), None)
            if fault is not None:
                self.lose.remove(fault)
                if fault[1] == "after":
                    await genuine(*arguments, **options)
                raise NodeUnavailable("the test lost this")
            return await answer(*arguments, **options)

        return call

    def trips(self):
        found, self.count = sum(self.count.values()), Counter()
        return found


@pytest.fixture
def calls():
    """What clients call, and what answers them."""
    return Calls()


def idle_coins(chain):
    """The coins that a client has for gas, and that no transaction uses now."""
    return chain._gas.idle


def give(recipient="0x5", amount=1000):
    program = Program()
    program.transfer(list(program.split(program.gas, [amount])), recipient)
    return program
