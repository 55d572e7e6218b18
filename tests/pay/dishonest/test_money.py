"""Random histories of channels on a chain: whatever happens, no money comes or goes but by vouchers and gas.

The meters are those of `meters.py`, with everything that can be lost; their vouchers are in a server's real store,
and settled by its cashier, by a watcher's, and by hand, over a localnet. After every step the coins of all accounts,
what the channels hold and the gas that was paid come to what there was at first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dtp.chain import ChainClient, KeySigner, Program, find_network, publish
from dtp.chain import channel as module
from dtp.chain.channel import Channel, ChannelState, CloseAgreement, LaneChanged, agreement_bytes
from dtp.chain.errors import MoveAborted
from dtp.chain.host import Terms
from dtp.chain.host_state import service_number
from dtp.localnet.grpc.localnet import LocalnetThread
from dtp.pay import messages
from dtp.pay.claims import Policy, claims_are_over
from dtp.pay.hosting import HostHeartbeat, ensure_service, make_host
from dtp.pay.server.book import affordable
from dtp.pay.server.cashier import Cashier
from dtp.pay.settling import add_money, close_agreed, finalize, open_channel, request_close
from dtp.pay.store import Store
from dtp.pay.store.journal import Journal
from dtp.pay.terms import MIB, Exposure, Prices, Usage
from dtp.pay.voucher import LaneKey

from ..meters import Meters

TERMS = Terms(price_request=1000, price_mib=2_000_000, min_deposit=1000, idle_ms=600_000, claim_ms=120_000)
PRICES = Prices(TERMS.price_request, TERMS.price_mib)
#: Two services: one pays all at once, one at most so much in each epoch.
SERVICES = {"free": TERMS, "capped": replace(TERMS, epoch_cap=3_000_000)}
EXPOSURE = Exposure(MIB, 4 * MIB, 8, 32)
#: Everything is worth its gas here.
GREEDY = Policy(gas_base=0, gas_channel=0, gas_lane=0, gas_coin=0, worth=1)
LANES = 3


class Client(ChainClient):
    """A client that knows the gas of all that it had executed, also by those that pay for it out of an allowance."""

    def __init__(self, network: Any, signer: Any, deployments: Any) -> None:
        super().__init__(network, signer, deployments=deployments)
        self.gas: list[Any] = []

    async def execute(self, *arguments: Any, **options: Any) -> Any:
        executed = await super().execute(*arguments, **options)
        self.gas.append(executed.gas.net)
        return executed


class World:
    """A localnet, and the three who use it: a server with its host, a client, a watcher with neither."""

    def __init__(self, localnet: Any) -> None:
        self.localnet = localnet
        self.loop = asyncio.new_event_loop()
        self.run = self.loop.run_until_complete
        self.run(self._settle_in())

    async def _settle_in(self) -> None:
        network = find_network(self.localnet.url)
        signers = [KeySigner.generate() for _ in range(3)]
        for each in signers:
            self.localnet.fund(each.address, 500_000_000_000, 4)
        self.server_key = signers[0]
        async with ChainClient(network, signers[0], deployments=None) as chain:
            await publish(chain, "transport")
            deployments = chain.deployments
        self.server, self.client, self.watcher = self.clients = [
            await Client(network, each, deployments).__aenter__() for each in signers
        ]
        owned = await make_host(self.server, 86_400_000)
        for name, terms in SERVICES.items():
            owned = await ensure_service(self.server, owned, name, terms)
        self.host = owned.host
        self.heartbeat = HostHeartbeat(self.server, owned, self.server_key.public_key, b"tcp://127.0.0.1:1")
        await self.heartbeat.start()
        await self.heartbeat.stop()

    async def coins(self) -> Any:
        """All that the three have, and the gas that they have paid."""
        return sum([(await each.balance(each.address)).total + sum(each.gas) for each in self.clients])

    def close(self) -> None:
        for each in self.clients:
            self.run(each.__aexit__(None, None, None))
        self.loop.close()


@pytest.fixture(scope="module", autouse=True)
def world() -> Iterator[Any]:
    with LocalnetThread() as localnet:
        Money.world = made = World(localnet)
        yield made
        made.close()


class Line:
    """A channel with its lanes, as both sides see them."""

    def __init__(self, id: Any, key: Any) -> None:
        self.id = id
        self.keys = [key]
        self.meters: list[Any] = []
        self.agreed = None  # the server has signed a total: it serves no more
        self.left_open = True  # nobody has asked for the close yet


class Money(RuleBasedStateMachine):
    """Channels of one client with one server, from opening to the last MIST."""

    #: The chain and who is on it; the fixture of that name makes it.
    world: ClassVar[World]

    @initialize(
        services=st.lists(st.sampled_from(sorted(SERVICES)), min_size=1, max_size=2),
        deposit=st.sampled_from([6_000_000, 30_000_000, 120_000_000]),
        size=st.sampled_from([300_000, 3 * MIB]),
    )
    def begin(self, services: Any, deposit: Any, size: Any) -> None:
        self.run = self.world.run
        self.store = Store(":memory:")
        self.lines: list[Any] = []
        self.late = False  # the server missed the time for a claim
        self.at_first = self.run(self.world.coins())
        for service in services:
            self.open_one(service, deposit)
            self.use_one(self.lines[-1].meters[0], size, 2, lose=False)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.finish()
            self.store.close()

    # ---- what is there

    def chain_of(self, line: Any) -> Any:
        """The channel as it is on chain, None when it was deleted."""
        objects = self.run(self.world.client.objects([line.id]))
        data = objects.get(line.id)
        return None if data is None else self.world.client.decode(module.SCHEMA, Channel, data)

    def lines_that(self, *states: Any) -> Any:
        found = [(line, self.chain_of(line)) for line in self.lines]
        return [(line, channel) for line, channel in found if channel is not None and channel.state in states]

    def pick(self, data: Any, *states: Any) -> Any:
        there = self.lines_that(*states)
        return data.draw(st.sampled_from(there)) if there else (None, None)

    def connected(self, data: Any) -> Any:
        there = [(line, m) for line in self.lines for m in line.meters if m.payer is not None]
        return data.draw(st.sampled_from(there)) if there else (None, None)

    def sold(self, line: Any) -> Any:
        return sum(self.store.vouched_sums(line.id).values())

    # ---- opening, more money, more lanes

    @precondition(lambda self: len(self.lines) < 4)
    @rule(service=st.sampled_from(sorted(SERVICES)), deposit=st.sampled_from([1_500_000, 60_000_000]))
    def open(self, service: Any, deposit: Any) -> None:
        self.open_one(service, deposit)

    def open_one(self, service: Any, deposit: Any) -> None:
        key, number = LaneKey.generate(), service_number(service)
        revision = self.world.host.services[number].terms.revision
        self.run(self.world.heartbeat.send_heartbeat())  # the clock may have gone far since the last one
        id, _ = self.run(
            open_channel(self.world.client, self.world.host, number, revision, deposit, key.public)
        )
        line = Line(id, key)
        self.lines.append(line)
        self.add_meters(line)

    def add_meters(self, line: Any) -> None:
        """Both ends of the newest lane, and a connection on it."""
        number = len(line.meters)
        meters = Meters(PRICES, 0, EXPOSURE, channel=line.id, lane=number, key=line.keys[number])
        genuine = meters.store

        def store(signed: Any, charge: Any) -> None:
            """As the ledger and the journal do: within the deposit, good, newer, and on the disk first."""
            channel = self.chain_of(line)
            within = (
                affordable(channel, number, self.store.vouched_sums(line.id)) if channel is not None else -1
            )
            good = signed.voucher.amount <= within and signed.is_by(meters.key.public)
            if good and self.store.received_all([(signed, meters.payee.used)])[0]:
                genuine(signed, charge)

        meters.store = store
        line.meters.append(meters)
        self.connect(line, meters)

    def connect(self, line: Any, meters: Any) -> None:
        channel = self.chain_of(line)
        if channel is None or channel.state != ChannelState.OPEN or line.agreed is not None:
            return
        meters.deposit = channel.deposited // LANES  # each lane has a part of its own to spend
        meters.affordable = affordable(channel, meters.lane, self.store.vouched_sums(line.id))
        meters.connect()

    @rule(data=st.data(), amount=st.sampled_from([1000, 9_000_000]))
    def top_up(self, data: Any, amount: Any) -> None:
        line, channel = self.pick(data, ChannelState.OPEN)
        if line is None or line.agreed is not None:
            return
        self.run(add_money(self.world.client, channel, amount))
        channel = self.chain_of(line)
        for meters in line.meters:
            if meters.payer is not None:
                meters.deposit = channel.deposited // LANES
                meters.payee.set_affordable(
                    affordable(channel, meters.lane, self.store.vouched_sums(line.id)), meters.now
                )
                meters.payer.update_funds(meters.deposit, meters.now)

    @rule(data=st.data())
    def add_lane(self, data: Any) -> None:
        line, _ = self.pick(data, ChannelState.OPEN)
        if line is None or len(line.keys) == LANES or line.agreed is not None:
            return
        key, program = LaneKey.generate(), Program()
        module.add_lane(program, line.id, key.public)
        executed = self.run(self.world.client.execute(program))
        (made,) = self.world.client.events_in(executed, module.SCHEMA, LaneChanged)
        assert made.lane == len(line.keys)
        line.keys.append(key)
        self.add_meters(line)

    # ---- use, and what goes wrong with it

    @rule(
        data=st.data(),
        size=st.sampled_from([1000, 300_000, 3 * MIB]),
        requests=st.integers(0, 3),
        lose=st.sampled_from([False, False, True]),
    )
    def use(self, data: Any, size: Any, requests: Any, lose: Any) -> None:
        _, meters = self.connected(data)
        if meters is not None:
            self.use_one(meters, size, requests, lose=lose)

    @rule(size=st.sampled_from([100_000, MIB]))
    def use_everything(self, size: Any) -> None:
        """Every lane of every channel, so that there is something to claim of several at once."""
        for line in self.lines:
            for meters in line.meters:
                if meters.payer is None:
                    self.connect(line, meters)
                if meters.payer is not None:
                    self.use_one(meters, size, 1, lose=False)

    def use_one(self, meters: Any, size: Any, requests: Any, *, lose: Any) -> None:
        if requests:
            meters.request(requests)
        meters.stream(size, 256 * 1024)
        meters.serve(size // 4)  # under way when something happens
        meters.pass_time(6.0)
        meters.pump(lose=lose)

    @rule(data=st.data(), how=st.sampled_from(["lose", "crash_client", "crash_server", "end"]))
    def disconnect(self, data: Any, how: Any) -> None:
        _, meters = self.connected(data)
        if meters is not None:
            getattr(meters, how)()

    @rule(data=st.data())
    def reconnect(self, data: Any) -> None:
        there = [(line, m) for line in self.lines for m in line.meters if m.payer is None]
        if there:
            line, meters = data.draw(st.sampled_from(there))
            self.connect(line, meters)

    # ---- the chain

    def look(self, chain: Any, *, closing: bool = False) -> None:
        """A cashier's round over everything in the store: several channels in one transaction."""

        async def work() -> None:
            journal = Journal(self.store)
            cashier = Cashier(chain, journal, self.world.localnet.now_ms, policy=GREEDY)
            await cashier.poll(closing=closing)
            await journal.close()

        self.run(work())

    @rule(watches=st.booleans(), closing=st.booleans())
    def claim(self, watches: Any, closing: Any) -> None:
        self.look(self.world.watcher if watches else self.world.server, closing=closing)

    @rule(data=st.data())
    def claim_an_old_voucher(self, data: Any) -> None:
        """What the chain has is the floor: an older voucher, or the same again, is refused and moves nothing."""
        line, channel = self.pick(data, ChannelState.OPEN, ChannelState.CLOSING)
        if line is None:
            return
        lane = data.draw(st.integers(0, len(line.keys) - 1))
        known = channel.lanes[lane]
        if not known.sequence:
            return
        usage = Usage(known.requests, known.bytes)
        old = module.Voucher(line.id, lane, known.sequence, PRICES.cost_of(usage), *usage)
        signed = line.keys[lane].sign(old)
        program = Program()
        module.claim_for(program, signed.voucher, signed.signature, b"")
        with pytest.raises(MoveAborted):
            self.run(self.world.server.execute(program))

    @rule(data=st.data(), use_it=st.booleans())
    def agree(self, data: Any, use_it: Any) -> None:
        line, channel = self.pick(data, ChannelState.OPEN)
        if line is None:
            return
        for meters in line.meters:
            if meters.payer is not None:
                meters.end()
        total = max(channel.claimed, self.sold(line))
        end = self.store.save_agreement(line.id, total, 2**63 - 1, self.world.server.chain_id)
        line.agreed = end.total
        statement = agreement_bytes(CloseAgreement(line.id, end.total, end.not_after_ms))
        key = self.world.server_key
        said = messages.Agreed(end.total, end.not_after_ms, key.public_key, key.sign_statement(statement))
        if use_it:
            self.run(close_agreed(self.world.client, channel, said))
            assert self.chain_of(line) is None

    @rule(data=st.data())
    def ask_for_the_close(self, data: Any) -> None:
        """By the client alone; whatever it says or hides, the server's newest vouchers count."""
        line, channel = self.pick(data, ChannelState.OPEN)
        if line is not None:
            self.run(request_close(self.world.client, channel))
            line.left_open = False
            for meters in line.meters:
                if meters.payer is not None:
                    meters.lose()

    @rule(data=st.data(), by=st.sampled_from(["client", "watcher"]))
    def end(self, data: Any, by: Any) -> None:
        line, channel = self.pick(data, ChannelState.OPEN, ChannelState.CLOSING)
        if line is None:
            return
        now_ms, chain = self.world.localnet.now_ms(), getattr(self.world, by)
        if channel.state == ChannelState.OPEN:
            if now_ms >= channel.active_ms + channel.terms.idle_ms:
                self.run(request_close(chain, channel))
        elif claims_are_over(channel, now_ms):
            for meters in line.meters:
                if meters.payer is not None:
                    meters.lose()
            if self.sold(line) > channel.claimed:
                self.late = True  # nobody claimed in time, which is the server's own affair
            self.run(finalize(chain, channel))

    @rule(ms=st.sampled_from([1000, 120_000, 600_000]))
    def time_passes(self, ms: Any) -> None:
        self.world.localnet.advance_clock(ms)

    @rule()
    def an_epoch_ends(self) -> None:
        self.world.localnet.advance_epoch()

    # ---- what always holds

    @invariant()
    def money_is_neither_made_nor_lost(self) -> None:
        if not hasattr(self, "lines"):
            return
        held = 0
        for line in self.lines:
            channel = self.chain_of(line)
            if channel is None:
                continue
            held += channel.balance + channel.client_credit
            parts = channel.claimed + channel.credited + channel.refunded
            assert channel.deposited == parts + channel.balance + channel.client_credit
            served = [m.served for m in line.meters]
            assert channel.claimed + channel.owed <= sum(map(PRICES.cost_of, served))  # never paid beyond use
        assert self.run(self.world.coins()) + held == self.at_first

    @invariant()
    def nothing_is_served_beyond_the_exposure_or_the_deposit(self) -> None:
        for line in getattr(self, "lines", ()):
            for meters in line.meters:
                assert meters.refused == []
                if meters.payee is not None:
                    assert meters.payee.unpaid.bytes <= meters.payee.limit.bytes

    # ---- the end of every history

    def finish(self) -> None:
        """Everything that is open is claimed and closed, and everybody has what is theirs to the last MIST."""
        self.look(self.world.server, closing=True)
        for line, channel in self.lines_that(ChannelState.OPEN, ChannelState.CLOSING):
            # What is below the gas of a claim is left to the client.
            small = (
                self.sold(line) - channel.claimed - channel.owed
                <= Policy().gas_in(channel.coin, claims=1).alone
            )
            assert small or channel.state == ChannelState.CLOSING
            if channel.state == ChannelState.OPEN:
                self.run(request_close(self.world.client, channel))
        self.look(self.world.watcher, closing=True)
        self.world.localnet.advance_clock(TERMS.claim_ms)
        for _, channel in self.lines_that(ChannelState.CLOSING):
            self.run(finalize(self.world.client, channel))
        for _ in range(100):
            draining = self.lines_that(ChannelState.DRAINING)
            if not draining:
                break
            self.world.localnet.advance_epoch()
            for _, channel in draining:
                self.run(finalize(self.world.client, channel))
        assert not self.lines_that(ChannelState.OPEN, ChannelState.CLOSING, ChannelState.DRAINING)
        assert self.run(self.world.coins()) == self.at_first


TestMoney = Money.TestCase
TestMoney.settings = settings(max_examples=8, stateful_step_count=20, deadline=None)


@pytest.mark.long
class TestLongMoney(Money.TestCase):  # type: ignore[valid-type]
    settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
