"""A paid service by itself: whom it lets in and hands on, what it looks at again, and in which order it ends."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dtp.carriers.errors import ListenError
from dtp.chain import ChainClient, Deployments, Program
from dtp.chain import host as host_module
from dtp.chain.errors import NodeUnavailable
from dtp.chain.firewall import Firewall
from dtp.chain.host import Bearer, HostCreated, Mode, Terms
from dtp.chain.host_state import service_number
from dtp.chain.pipe import CREDIT_BYTES
from dtp.chain.signer import KeySigner, Scheme
from dtp.errors import LocalError
from dtp.identity import Identity
from dtp.net.listener import Request
from dtp.pay.claims import Policy
from dtp.pay.client import buying
from dtp.pay.errors import BudgetTooSmall, ChargeDeclined, MalformedMeter, StoreError
from dtp.pay.hosting import NoHost, find_host, make_host
from dtp.pay.messages import VoucherSaid, build
from dtp.pay.server.cashier import Cashier
from dtp.pay.server.gate import AdmittedClient
from dtp.pay.server.sale import assemble_sale
from dtp.pay.serving import Selling, Serving, serve
from dtp.pay.store import Store
from dtp.pay.terms import MIB, Exposure, Usage
from dtp.session.codes import CloseCode, ConnectionRefused, Refuse
from dtp.tasks import supervised

from ..buying.test_paid import cost_of, fetch, give
from ..conftest import Market, Play, owned_by
from ..meters import CHANNEL, KEY, PRICES, voucher
from .test_claims import TERMS, channel
from .test_costs import pipe
from .test_ledger import Connected

HOST = "0x" + "0a" * 32


class Noted:
    """A part of a server that notes when it is ended."""

    def __init__(self, name: Any, done: Any) -> None:
        self.name, self.done, self.connections = name, done, []
        self.presence, self.generation = None, 1

    async def close(self, **options: Any) -> None:
        self.done.append((self.name, options))
        for connection in self.connections:
            connection.abort(0, "")

    async def stop(self, **options: Any) -> None:
        self.done.append((self.name, options))

    async def start(self) -> None:
        pass


class Made(Serving):
    """A service, with what a test has to know of it."""

    done: list[Any]
    handlers: list[Any]
    channel: Any
    listener: Any


class Asked:
    """In the place of a gate, or of what looks again: what it was asked, and what it answers."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked, self.over = list(answers), 0, asyncio.Event()

    async def admit(self, request: Any) -> Any:
        return self.answers[0]

    async def go_on(self) -> None:
        pass

    wait_for_closes = close = go_on

    async def refresh(self) -> Any:
        return self.asked

    async def check_open_channels(self, rules: Any) -> None:
        self.asked += 1
        assert rules == self.asked - 1  # those of this moment
        if self.answers:
            raise self.answers.pop(0)
        self.over.set()

    async def wait_settled(self) -> None:
        pass


def play(tmp_path: Path, scenario: Any, parts: Any = None, **selling: Any) -> None:
    """Run `scenario` with a service; `parts` gives, for the genuine parts, those that take their place."""
    handlers: list[Any] = []

    async def handle(connection: Any) -> None:
        await handlers[-1](connection)

    async def work() -> None:
        signer = KeySigner.generate()
        chain = SimpleNamespace(signer=signer, address=signer.address)
        chain.noted_by = lambda notes: chain
        how = Selling(**selling)
        with Store(tmp_path / "pay.sqlite") as store:
            clock = lambda: 0.0  # noqa: E731
            genuine = assemble_sale(
                chain,
                Firewall(chain, HOST, clock=clock),
                store,
                how.policy,
                least_revision=how.least_revision,
                clock=clock,
            )
            given = genuine if parts is None else replace(genuine, **parts(genuine))
            made = Made(chain, HOST, "files", handle, store, given, how)
            made.done, made.handlers = [], handlers
            made.listener = Noted("listener", made.done)
            made.channel = channel(server=signer.address, service=service_number("files"))
            try:
                await scenario(made)
            finally:
                await made.close(claim=False)

    asyncio.run(work())


def caller(made: Any, **changes: Any) -> Any:
    """A connection that was admitted."""
    connection = Connected()
    found, lane = replace(made.channel, **changes), made.store.sold_lane(CHANNEL, 0)
    connection.admission = AdmittedClient(found, lane, (KEY.public,), PRICES, found.deposited, None)
    return connection


# ---- callers


@pytest.mark.parametrize("name", ["files", "other"])
def test_a_channel_pays_for_the_service_that_is_served_here(tmp_path: Path, name: Any) -> None:
    gate = Asked()

    async def scenario(made: Any) -> None:
        admission = caller(made, service=service_number(name)).admission
        gate.answers.append(admission)
        request = Request(Identity.generate().id, name, b"", b"", "192.0.2.7")
        if name == "files":
            assert await made.admit(request) is admission
        else:
            with pytest.raises(Refuse, match="'files' is served here") as refused:
                await made.admit(request)
            assert refused.value.code == CloseCode.UNKNOWN_SERVICE
        assert await made.admit(replace(request, again=True)) is None  # its ticket is of the handshake before

    play(tmp_path, scenario, lambda _: {"gate": gate})


def test_a_handler_gets_connections_with_a_meter_as_the_service_is_sold(
    tmp_path: Path,
) -> None:
    async def scenario(made: Any) -> None:
        handled = []

        async def handler(connection: Any) -> None:
            handled.append(connection.meter.payee)

        made.handlers.append(handler)
        await made.handle(caller(made))
        (payee,) = handled
        # The channel's other lanes have a quarter of what may be unpaid at first.
        ours = Exposure(5, 6, 7, 8, first_amount=Exposure().first_amount * 3 // 4)
        assert (payee.exposure, payee.counts.count_streams) == (ours, False)
        assert made.gate._least_revision == 9
        assert made.ledger.channels == [CHANNEL]

    play(tmp_path, scenario, exposure=Exposure(5, 6, 7, 8), count_streams=False, least_revision=9)


def test_a_handler_gets_no_connection_that_may_not_begin_or_is_over(
    tmp_path: Path,
) -> None:
    async def scenario(made: Any) -> None:
        handled = []

        async def handler(connection: Any) -> None:
            handled.append(connection)

        made.handlers.append(handler)
        gone = caller(made)
        gone.abort(0, "it went")
        await made.handle(gone)
        await gone.meter.wait_settled()
        made.store.mark_closed(CHANNEL)
        late = caller(made)
        await made.handle(late)
        assert late.aborted == "the channel is closed"
        assert handled == []

    play(tmp_path, scenario)


def test_a_charge_that_a_client_declines_is_no_fault_of_the_handler(
    tmp_path: Path,
) -> None:
    async def scenario(made: Any) -> None:
        async def handler(connection: Any) -> None:
            raise ChargeDeclined("no")

        made.handlers.append(handler)
        connection = caller(made)
        await made.handle(connection)
        assert connection.aborted == "no"

    play(tmp_path, scenario)


# ---- what goes on meanwhile


def test_no_fault_ends_the_looks_at_channels_in_use(tmp_path: Path) -> None:
    faults = [NodeUnavailable("no node"), StoreError("the disk is gone"), MalformedMeter("a broken row")]
    looks = Asked(*faults)

    async def scenario(made: Any) -> None:
        await made.start(made.listener, None)
        async with asyncio.timeout(20):
            await looks.over.wait()
        assert [each.restarts for each in supervised() if each.name == "dtp-pay-recheck"] == [0]

    play(tmp_path, scenario, lambda _: {"firewall": looks, "ledger": looks}, recheck=0.0)


#: What works for a server as long as it serves, by the names that its supervisor knows.
BOTH = {"dtp-cashier", "dtp-pay-recheck"}


def test_a_fault_that_nobody_foresaw_ends_neither_claims_nor_looks_unheard(
    tmp_path: Path,
) -> None:
    both = asyncio.Event()

    async def fail(*_: Any) -> Any:
        if {each.name: each.restarts for each in supervised() if each.restarts >= 1}.keys() >= BOTH:
            both.set()
        raise KeyError("a bug")

    class Broken(Cashier):
        async def poll(self, *, closing: bool = False) -> Any:
            await fail()

    def parts(genuine: Any) -> Any:
        firewall = SimpleNamespace(refresh=fail, close=Asked().close)
        return {"firewall": firewall, "cashier": Broken(SimpleNamespace(), genuine.journal, lambda: 0)}

    async def scenario(made: Any) -> None:
        await made.start(made.listener, None)
        async with asyncio.timeout(20):
            await both.wait()
        found = {each.name: each for each in supervised() if each.name in BOTH}
        assert found.keys() == BOTH
        assert all("a bug" in each.error for each in found.values())

    play(tmp_path, scenario, parts, recheck=0.0)


def test_claims_go_by_the_policy_and_know_what_is_in_use(
    tmp_path: Path,
) -> None:
    async def scenario(made: Any) -> None:
        made.channel = replace(made.channel, terms=replace(TERMS, bearer=Bearer.CLIENT, credit=100))
        size = 5 * CREDIT_BYTES
        made.store.received_all([(KEY.sign(voucher(1, 5, size)), Usage(5, size))])

        async def objects(ids: Any) -> Any:
            return dict.fromkeys(ids, made.channel)

        async def owned(*_: Any) -> Any:
            return [pipe(9, of=CHANNEL)]

        async def handler(connection: Any) -> None:
            (view,) = await made.cashier.channel_views()
            assert view.credits == 0

        made.chain.owned, made.chain.objects = owned, objects
        made.chain.decode = lambda schema, kind, found: found
        (view,) = await made.cashier.channel_views()
        assert view.credits == 500
        assert made.cashier.pause_between_polls(10**9) == made.channel.terms.claim_ms / 8000
        assert made.ledger.on_channel == made.cashier.watch_close
        assert made.book.get_known(CHANNEL).channel == made.channel
        made.handlers.append(handler)
        await made.handle(caller(made))
        assert made.cashier.policy == Policy(worth=77)

    play(tmp_path, scenario, policy=Policy(worth=77))


def test_who_waits_for_a_replacement_may_give_up(tmp_path: Path) -> None:
    async def scenario(made: Any) -> None:
        waiting = asyncio.ensure_future(made.wait_replaced())  # without heartbeats nobody replaces it
        await asyncio.sleep(0)
        waiting.cancel()
        made.heartbeat = Noted("heartbeat", made.done)
        made.heartbeat.replaced = asyncio.get_running_loop().create_future()
        waiting = asyncio.ensure_future(made.wait_replaced())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(0)
        made.heartbeat.replaced.set_result("by another")
        assert await made.wait_replaced() == "by another"

    play(tmp_path, scenario)


# ---- the end


def test_everything_is_written_before_it_is_claimed_and_all_of_it_ends_once(
    tmp_path: Path,
) -> None:
    done: list[Any] = []

    def parts(genuine: Any) -> Any:
        async def stop(*, claim: Any) -> None:
            done.append(
                ("cashier", claim, genuine.journal.store.vouched_sums(CHANNEL), genuine.ledger.channels)
            )

        cashier = SimpleNamespace(start=lambda interval: None, stop=stop)
        return {"firewall": Noted("firewall", done), "cashier": cashier}

    async def scenario(made: Any) -> None:
        async def handler(connection: Any) -> None:
            connection.on_meter(build(VoucherSaid.of(KEY.sign(voucher(1, 1)), 0)))
            made.listener.connections.append(connection)

        made.handlers.append(handler)
        heartbeat = Noted("heartbeat", done)
        await made.start(Noted("listener", done), heartbeat)
        opened = AsyncExitStack()
        opened.push_async_callback(Noted("what it was opened with", done).close)
        made.close_with(opened)
        assert "dtp-pay-recheck" in [each.name for each in supervised()]
        await made.handle(caller(made))
        await made.close(grace=3.0)
        await made.close()
        assert done == [
            ("heartbeat", {"withdraw": True}),  # first of all nobody is sent here any more
            ("listener", {"grace": 3.0}),
            ("cashier", True, {0: PRICES.request}, []),
            ("firewall", {}),
            ("what it was opened with", {}),
        ]
        assert "dtp-pay-recheck" not in [each.name for each in supervised()]
        with pytest.raises(StoreError, match="closed"):
            await made.journal.run(lambda store: None)

    play(tmp_path, scenario, parts)


@pytest.mark.parametrize("how", ["cancelled", "fails"])
def test_whatever_becomes_of_its_last_words_nobody_is_served_any_more(tmp_path: Path, how: Any) -> None:
    """The beacon is told first, by a node that may say nothing: a listener stayed open for good."""

    class Unheard(Noted):
        async def stop(self, **options: Any) -> None:
            if how == "fails":
                raise StoreError("the disk is gone")
            begun.set()
            await asyncio.Event().wait()

    begun = asyncio.Event()

    async def scenario(made: Any) -> None:
        made.heartbeat = Unheard("heartbeat", made.done)
        closing = asyncio.ensure_future(made.close())
        if how == "cancelled":
            await begun.wait()
            closing.cancel()
        with pytest.raises(StoreError if how == "fails" else asyncio.CancelledError):
            await closing
        assert made.done == [("listener", {})]
        with pytest.raises(StoreError, match="closed"):
            await made.journal.run(lambda store: None)

    play(tmp_path, scenario)


def test_what_can_not_be_served_through_the_chain_leaves_nothing_running(market: Play) -> None:
    """Heartbeats that went on would send clients, and their money, to nobody."""

    async def scenario(market: Market) -> None:
        owner = await market.serve(give)
        owned, operator, program = await owned_by(owner), market.chain.wallet(), Program()
        cap = host_module.new_operator(program, owned.host.id, owned.cap)
        program.transfer([cap], operator.address)
        await owner.chain.execute(program)
        await owner.close()
        network = await market.client(operator)
        place = {"host": owner.host, "network": network, "store": market.store(), "clock": market.chain.now}
        before = {task.get_name() for task in asyncio.all_tasks()}
        with pytest.raises(ListenError, match="only that account can answer on pipes"):
            await serve("files", give, wallet=operator, pipe=True, **place)
        after = {task.get_name() for task in asyncio.all_tasks()}
        # The client's pipes wait 10 s for another user.
        assert after - before <= {"dtp-pipes", "dtp-pipes-look-after", "dtp-node-stream"}

    market(scenario)


@pytest.mark.parametrize("told", ["by the chain", "by the server"])
def test_a_channel_from_when_the_service_was_free_pays_for_nothing(
    market: Play, monkeypatch: pytest.MonkeyPatch, told: Any
) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give, terms=Terms())
        buyer = await market.buyer()
        async with market.connect(buyer, keep=True) as connection:
            if (
                told == "by the server"
            ):  # a new one that was never used isn't replaced when a server refuses it
                assert await fetch(connection, 10) == 10
        await market.serving.close()
        await market.serve(give, store=market.serving.store)
        if told == "by the server":  # the client's node is behind
            monkeypatch.setattr(buying, "is_free_no_more", lambda channel, now: False)
        with pytest.raises((BudgetTooSmall, ConnectionRefused)):
            await market.connect(buyer, budget=0)
        async with market.connect(buyer, keep=True) as connection:
            await fetch(connection, MIB)
        assert connection.paid == cost_of(MIB)
        assert [each.state for each in buyer["store"].bought_channels()] == ["closed", "open"]

    market(scenario)


def test_who_serves_again_lets_in_whom_the_host_does(market: Play) -> None:
    """Not everybody at each start, though its terms change: an allow-list or passes are the owner's to end."""

    async def scenario(market: Market) -> None:
        serving = await market.serve(give)
        chain = serving.chain
        owned = await find_host(chain, serving.host)
        program, number = Program(), service_number("files")
        host_module.set_mode(program, owned.host.id, owned.cap, number, Mode.ALLOW_LIST)
        await chain.execute(program)
        await serving.close()
        for mode, found in ((None, Mode.ALLOW_LIST), (Mode.OPEN, Mode.OPEN)):
            again = await market.serve(give, terms=replace(TERMS, price_mib=7), mode=mode)
            owned = await find_host(again.chain, again.host)
            service = owned.host.services[number]
            assert (service.mode, service.terms.price_mib) == (found, 7)
            await again.close()

    market(scenario)


def test_a_service_that_its_owner_closed_stays_closed(market: Play, caplog: pytest.LogCaptureFixture) -> None:
    """Each start opened it again: whoever drains a service, or has ended it, says so on chain."""

    async def scenario(market: Market) -> None:
        serving = await market.serve(give)
        owned = await find_host(serving.chain, serving.host)
        program, number = Program(), service_number("files")
        host_module.set_open(program, owned.host.id, owned.cap, number, False)
        await serving.chain.execute(program)
        await serving.close()
        again = await market.serve(give, terms=replace(TERMS, price_mib=7))
        service = (await find_host(again.chain, again.host)).host.services[number]
        assert (service.open, service.terms.price_mib) == (False, 7)
        assert "'dtp host service files --open'" in caplog.text

    market(scenario)


def test_caps_that_others_send_are_not_used_unasked(market: Play) -> None:
    """Who is paid is in the host, and whoever made it may have kept rights to it."""

    async def plant(stranger: Any, victim: Any) -> Any:
        program = Program()
        host_module.create(program, victim, operator=victim)
        (made,) = stranger.events_in(await stranger.execute(program), host_module.SCHEMA, HostCreated)
        return made.host

    async def scenario(market: Market) -> None:
        stranger, victim = await market.client(market.chain.wallet()), market.server_wallet.address
        planted = await plant(stranger, victim)
        with pytest.raises(NoHost, match=f"made from here.*--host.*{planted}"):
            await market.serve(give)
        network = await market.client(market.server_wallet)
        own = await make_host(network)
        for _ in range(2):  # by the first start, and by the next
            serving = await market.serve(give)
            assert (serving.host, (await owned_by(serving)).host.owner) == (own.host.id, victim)
            await serving.close()
        assert (
            await find_host(network, planted)
        ).host.owner == stranger.address  # named, it is theirs to choose

    market(scenario)


def test_a_host_that_can_not_be_noted_is_served_all_the_same(
    market: Play, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(market: Market) -> None:
        assert market.chain.deployments is not None
        kept = Deployments(market.chain.deployments.chain_id, tmp_path / "packages.json")
        for each in market.chain.deployments.list_all():
            kept.save(each)
        (tmp_path / "packages.json").unlink()
        (tmp_path / "packages.json").mkdir()  # it can't be written any more
        network = await market.stack.enter_async_context(
            ChainClient(market.chain.network, market.server_wallet, deployments=kept)
        )
        serving = await market.serve(give, network=network)
        assert f"name host {serving.host} from now on" in caplog.text

    market(scenario)


def test_all_that_serving_takes_is_told(market: Play) -> None:
    """The host, its service and changed terms were left out: most of what a first start takes."""

    async def scenario(market: Market) -> None:
        network = await market.client(market.server_wallet)

        async def left() -> int:
            return int((await network.balance(network.address)).total)

        dearer = replace(TERMS, price_mib=TERMS.price_mib + 1)
        for terms, changes in ((TERMS, True), (TERMS, False), (dearer, True)):
            before = await left()
            serving = await market.serve(give, terms=terms, network=network)
            await serving.close()
            assert (serving.host_gas > 0) == changes
            assert before - await left() == serving.cashier.gas + serving.presence_gas + serving.host_gas

    market(scenario)


def test_a_service_begins_with_all_that_it_needs(market: Play) -> None:
    async def scenario(market: Market) -> None:
        with pytest.raises(NoHost, match="give terms to have one made"):
            await market.serve(give, terms=None)
        serving = await market.serve(give)
        assert serving.firewall.rules.state.host.id == serving.host  # known before the first client comes
        await serving.close()
        other = market.chain.wallet(Scheme.SECP256K1)
        place = {"network": await market.client(other), "store": market.store(), "terms": TERMS}
        with pytest.raises(LocalError, match="the wallet's key is not an identity"):
            await serve("files", give, wallet=other, **place)

    market(scenario)
