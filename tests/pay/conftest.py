"""A market for tests: a chain, a server with a host and a paid service, clients with money.

Everything that uses it runs on a localnet of its own, and once more against a real node when `DTP_SUI_URL` names one
and `DTP_TEST_KEY` (a `suiprivkey1...`) has SUI there; without them those are skipped by name.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from dtp.chain import ChainClient, KeySigner, find_network, packages, publish
from dtp.chain import channel as channel_module
from dtp.chain.channel import Channel
from dtp.chain.host import Terms
from dtp.chain.packages.deployments import Deployments
from dtp.chain.signer import Scheme
from dtp.chain.wallet import send
from dtp.localnet.grpc.localnet import LocalnetThread
from dtp.pay import dial
from dtp.pay.claims import Policy
from dtp.pay.client.lane_start import PayerLane
from dtp.pay.hosting import find_host
from dtp.pay.server.stored_vouchers import PayeeLane
from dtp.pay.serving import Selling, Serving, serve
from dtp.pay.store import Store
from dtp.pay.terms import MIB, Exposure, Usage

from .clients import ScriptedClient
from .dishonesty import BOUNDS, rows
from .homes import Home
from .meters import KEY, Meters, voucher
from .stored import ScriptedStore

#: Seconds for anything that has to happen; only a failing test waits so long.
PATIENCE = 120
#: MIST that a wallet of these tests gets: enough for every deposit and its gas.
POCKET_MONEY = 3_000_000_000
#: ... and what stays there when the rest is given back, for the gas of that.
GAS = 10_000_000
#: Of a server that knows its clients: a MiB at a time, where the default is less than a channel costs.
TRUSTING = Exposure(first_amount=3_000_000)
#: Small sums are worth claiming in these tests.
CHEAP = Policy(gas_base=1_000_000, gas_channel=500_000)
TERMS = Terms(price_request=1000, price_mib=2_000_000, min_deposit=1000, idle_ms=600_000, claim_ms=120_000)


@contextmanager
def withheld(chain: Any, call: str = "execute") -> Iterator[Any]:
    """Transactions whose answers wait: an event that one was executed, and the one that lets the answers go."""
    executed, answered = asyncio.Event(), asyncio.Event()

    async def answer(genuine: Any, *arguments: Any, **options: Any) -> Any:
        outcome = await genuine(*arguments, **options)
        executed.set()
        await answered.wait()
        return outcome

    with chain.node.answering(**{call: answer}):
        yield executed, answered


def run(work: Any, patience: Any = PATIENCE) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(patience):
            return await work

    return asyncio.run(limited())


async def owned_by(serving: Any) -> Any:
    """The host that somebody serves under, with the caps for it."""
    return await find_host(serving.chain, serving.host)


#: Runs a scenario with a market, for so many seconds at the most: what the fixture `market` gives.
Play: TypeAlias = Callable[..., Any]


class Chain:
    """Where the tests are: a network, its packages, wallets with money, and maybe its clock."""

    def __init__(self, network: Any, fund: Any, localnet: Any, bank: Any = None) -> None:
        self.network, self._fund, self.localnet, self._bank = network, fund, localnet, bank
        self.deployments: Deployments | None = None
        self._wallets: list[Any] = []

    def wallet(self, scheme: Scheme = Scheme.ED25519) -> Any:
        signer = KeySigner.generate(scheme)
        self._fund(signer.address)
        self._wallets.append(signer)
        return signer

    def collect(self) -> None:
        """Give back what the wallets still have, where money is short: on a real network."""
        wallets, self._wallets = self._wallets, []
        for signer in wallets if self._bank is not None else ():
            _blocking(self._give_back(signer))

    async def _give_back(self, signer: Any) -> None:
        async with ChainClient(self.network, signer, deployments=None) as chain:
            left = (await chain.balance(signer.address)).total - GAS
            if left > 0:
                await send(chain, self._bank, left)

    def client(self, signer: Any = None) -> Any:
        return ScriptedClient(self.network, signer, deployments=self.deployments)

    async def publish(self) -> None:
        async with ChainClient(self.network, self.wallet(), deployments=None) as chain:
            for name in packages.available():
                await publish(chain, name)
            self.deployments = chain.deployments

    def advance(self, ms: Any) -> None:
        if self.localnet is None:
            pytest.skip("the clock of a real network doesn't move for tests")
        self.localnet.advance_clock(ms)

    def now(self) -> Any:
        """Unix time of the chain, for servers that are to see its clock move."""
        return self.now_ms() / 1000

    def now_ms(self) -> Any:
        """The same in ms."""
        return self.localnet.now_ms() if self.localnet is not None else round(time.time() * 1000)


def _blocking(work: Any) -> Any:
    """Run a coroutine to its end, from wherever: in a thread and loop of its own."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result(PATIENCE)


@pytest.fixture(scope="session", params=["localnet", "node"])
def chain(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "localnet":
        with LocalnetThread() as localnet:
            network = find_network(localnet.url)
            made = Chain(network, lambda address: localnet.fund(address, POCKET_MONEY, 3), localnet)
            _blocking(made.publish())
            yield made
        return
    url, key = os.environ.get("DTP_SUI_URL"), os.environ.get("DTP_TEST_KEY")
    if not url or not key:
        pytest.skip("against a real node: set DTP_SUI_URL and DTP_TEST_KEY")
    network = find_network(url)

    def fund(address: Any) -> None:
        async def give() -> None:
            async with ChainClient(network, KeySigner.from_text(key), deployments=None) as rich:
                await send(rich, address, POCKET_MONEY)

        _blocking(give())

    made = Chain(network, fund, None, KeySigner.from_text(key).address)
    _blocking(made.publish())
    yield made
    made.collect()


class Market:
    """A server and its clients in one event loop; closed with the stack."""

    #: What was served last.
    serving: Serving

    def __init__(self, chain: Any, stack: Any, tmp_path: Path) -> None:
        self.chain, self.stack, self.tmp_path = chain, stack, tmp_path
        self.server_wallet = chain.wallet()
        self._stores = 0

    def store(self) -> Any:
        self._stores += 1
        return self.stack.enter_context(ScriptedStore(self.tmp_path / f"{self._stores}.sqlite"))

    async def client(self, signer: Any) -> Any:
        return await self.stack.enter_async_context(self.chain.client(signer))

    async def serve(self, handler: Any, service: str = "files", terms: Any = TERMS, **options: Any) -> Any:
        options.setdefault(
            "selling", Selling(exposure=TRUSTING, policy=CHEAP, recheck=3600, claim_every=3600)
        )
        options.setdefault("store", self.store())
        if "network" not in options:
            options["network"] = await self.client(self.server_wallet)
        if self.chain.localnet is not None:
            options.setdefault("clock", self.chain.now)
        self.serving = await serve(service, handler, wallet=self.server_wallet, terms=terms, **options)
        self.stack.push_async_callback(self.serving.close)
        return self.serving

    async def send_heartbeat(self) -> None:
        """Have the server announce itself on the chain now, rather than when it is due."""
        await self.serving.heartbeat.send_heartbeat()

    async def buyer(self, signer: Any = None) -> Any:
        """A client's chain, wallet and store, for `connect`."""
        signer = signer or self.chain.wallet()
        return {"wallet": signer, "network": await self.client(signer), "store": self.store()}

    def connect(self, buyer: Any, budget: int = 500_000_000, **options: Any) -> Any:
        return dial.connect(options.pop("address", self.serving.address), budget=budget, **buyer, **options)

    async def channels(self, buyer: Any) -> Any:
        """The channels of a buyer's store as the chain has them now, None for those that are gone."""
        found = []
        for each in buyer["store"].bought_channels():
            objects = await buyer["network"].objects([each.channel])
            data = objects.get(each.channel)
            found.append(
                None if data is None else buyer["network"].decode(channel_module.SCHEMA, Channel, data)
            )
        return found

    def height(self) -> Any:
        """The newest checkpoint of a localnet."""
        if self.chain.localnet is None:
            pytest.skip("what is in checkpoints is read in a localnet of this process")
        return self.chain.localnet.run(lambda node: node.find_checkpoint().sequence)

    def sent(self, since: Any, *addresses: Any) -> Any:
        """What these accounts' transactions after a checkpoint of a localnet call, heartbeats aside."""

        def read(node: Any) -> Any:
            numbers = range(since + 1, node.find_checkpoint().sequence + 1)
            return [each.transaction.data for one in numbers for each in node.checkpoint_transactions(one)]

        ours = [data for data in self.chain.localnet.run(read) if f"0x{data.sender.hex()}" in addresses]
        commands = ([getattr(each, "function", "") for each in data.kind.commands] for data in ours)
        calls = [[name for name in names if name] for names in commands]
        return [names for names in calls if names != ["heartbeat"]]

    async def balance(self, address: Any) -> Any:
        chain = self.serving.chain
        return (await chain.balance(address)).total


@pytest.fixture
def market(chain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Run a scenario: `market(scenario)` with `async def scenario(market)`."""
    monkeypatch.setenv("DTP_HOME", str(tmp_path / "home"))

    @asynccontextmanager
    async def opened() -> AsyncIterator[Any]:
        async with AsyncExitStack() as stack:
            yield Market(chain, stack, tmp_path)

    def play(scenario: Any, patience: Any = PATIENCE) -> Any:
        async def work() -> Any:
            async with opened() as made:
                return await scenario(made)

        return run(work(), patience)

    yield play
    chain.collect()


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A localnet with the packages, and where their ids are remembered."""
    packages = tmp_path_factory.mktemp("cli") / "packages.json"

    class Net(LocalnetThread):
        """A localnet that knows where the ids of its packages are."""

        packages: Path

    with Net() as localnet:
        publisher = KeySigner.generate()
        localnet.fund(publisher.address)

        async def publish_all() -> None:
            async with ChainClient(find_network(localnet.url), publisher, deployments=packages) as chain:
                await publish(chain, "transport")

        run(publish_all())
        localnet.packages = packages
        yield localnet


@pytest.fixture
def homes(net: Any, tmp_path: Path) -> Any:
    return Home(net, tmp_path / "server"), Home(net, tmp_path / "client")


@pytest.fixture
def paid() -> Any:
    """A lane with a voucher of sequence 1 for 4 requests and 5 MiB, used to the same."""
    meters = Meters()
    meters.server_disk = PayeeLane(
        meters.server_disk.channel, 0, KEY.sign(voucher(1, 4, 5 * MIB)), Usage(4, 5 * MIB)
    )
    meters.client_disk = PayerLane(
        meters.client_disk.channel, 0, meters.server_disk.newest, Usage(4, 5 * MIB)
    )
    return meters.connect()


@pytest.fixture
def bound(request: pytest.FixtureRequest) -> Any:
    """What the other side may lose by the row that names this test, in the coin's smallest unit."""
    name = request.function.__name__
    (words,) = {row[2] for row in rows() if row[4] == name}
    return BOUNDS[words]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Any]:
    with Store(tmp_path / "pay.sqlite") as opened:
        yield opened
