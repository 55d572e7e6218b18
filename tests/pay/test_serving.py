"""A paid service by itself: whom it lets in and hands on, what it looks at again, and in which order it ends."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dtp.chain import Program
from dtp.chain import host as host_module
from dtp.chain.errors import NodeUnavailable
from dtp.chain.heartbeat import EndpointsApart
from dtp.chain.host import Bearer, HostCreated, Kind, Mode, Terms
from dtp.chain.pipe import CREDIT_BYTES
from dtp.chain.pipes.posts import hint_of
from dtp.chain.resolver import service_number
from dtp.chain.signer import KeySigner
from dtp.errors import ConfigError, LocalError
from dtp.identity import Identity
from dtp.net import reachable
from dtp.net.listener import Listener, Request
from dtp.pay import serving as module
from dtp.pay.claims import Policy
from dtp.pay.client import buying
from dtp.pay.client.payer import said
from dtp.pay.errors import BudgetTooSmall, ChargeDeclined, MalformedMeter, StoreError
from dtp.pay.hosting import NoHost, find_host, make_host
from dtp.pay.messages import build
from dtp.pay.server.book import BookLimits
from dtp.pay.server.gate import Admission
from dtp.pay.serving import Selling, Serving, serve
from dtp.pay.store import Store
from dtp.pay.terms import MIB, Exposure, Usage
from dtp.session.codes import CloseCode, ConnectionRefused, Refuse
from dtp.session.limits import DEFAULT
from dtp.tasks import SupervisedTask, supervised

from .conftest import Market, Play, owned_by
from .meters import CHANNEL, KEY, PRICES, voucher
from .test_claims import TERMS, channel
from .test_costs import pipe
from .test_ledger import Connected
from .test_paid import cost_of, fetch, give

HOST = "0x" + "0a" * 32


class Noted:
    """A part of a server that notes when it is ended."""

    def __init__(self, name: Any, done: Any) -> None:
        self.name, self.done, self.connections = name, done, []

    async def close(self, **options: Any) -> None:
        self.done.append((self.name, options))
        for connection in self.connections:
            connection.abort(0, "")

    async def stop(self, **options: Any) -> None:
        self.done.append((self.name, options))

    async def start(self) -> None:
        pass


def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scenario: Any, **selling: Any) -> None:
    monkeypatch.setattr(module, "Metered", Connected)

    handlers: list[Any] = []

    async def handle(connection: Any) -> None:
        await handlers[-1](connection)

    async def work() -> None:
        signer = KeySigner.generate()
        chain = SimpleNamespace(signer=signer, address=signer.address)
        chain.noted_by = lambda notes: chain
        owned = SimpleNamespace(host=SimpleNamespace(id=HOST))
        with Store(tmp_path / "pay.sqlite") as store:
            made = Serving(chain, owned, "files", handle, store, Selling(**selling), (), lambda: 0.0)
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
    connection.admission = Admission(found, lane, (KEY.public,), PRICES, found.deposited, None)
    return connection


# ---- callers


@pytest.mark.parametrize("name", ["files", "other"])
def test_a_channel_pays_for_the_service_that_is_served_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: Any
) -> None:
    async def scenario(made: Any) -> None:
        admission = caller(made, service=service_number(name)).admission

        async def admit(request: Any) -> Any:
            return admission

        monkeypatch.setattr(made.gate, "admit", admit)
        request = Request(Identity.generate().id, name, b"", b"", "192.0.2.7")
        if name == "files":
            assert await made.admit(request) is admission
        else:
            with pytest.raises(Refuse, match="'files' is served here") as refused:
                await made.admit(request)
            assert refused.value.code == CloseCode.UNKNOWN_SERVICE
        assert await made.admit(replace(request, again=True)) is None  # its ticket is of the handshake before

    play(tmp_path, monkeypatch, scenario)


def test_a_handler_gets_connections_with_a_meter_as_the_service_is_sold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
        assert (payee.exposure, payee.count_streams) == (ours, False)
        assert made.gate._least_revision == 9
        assert made.ledger.channels == [CHANNEL]

    play(
        tmp_path, monkeypatch, scenario, exposure=Exposure(5, 6, 7, 8), count_streams=False, least_revision=9
    )


def test_a_handler_gets_no_connection_that_may_not_begin_or_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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

    play(tmp_path, monkeypatch, scenario)


def test_a_charge_that_a_client_declines_is_no_fault_of_the_handler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(made: Any) -> None:
        async def handler(connection: Any) -> None:
            raise ChargeDeclined("no")

        made.handlers.append(handler)
        connection = caller(made)
        await made.handle(connection)
        assert connection.aborted == "no"

    play(tmp_path, monkeypatch, scenario)


# ---- what goes on meanwhile


def test_no_fault_ends_the_looks_at_channels_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(made: Any) -> None:
        faults = [NodeUnavailable("no node"), StoreError("the disk is gone"), MalformedMeter("a broken row")]
        known, enough = [], asyncio.Event()

        async def refresh() -> Any:
            return len(known)

        async def recheck(rules: Any) -> None:
            known.append(rules)
            if len(known) <= len(faults):
                raise faults[len(known) - 1]
            enough.set()

        async def look(*, closing: bool = False) -> Any:
            return []

        monkeypatch.setattr(made.firewall, "refresh", refresh)
        monkeypatch.setattr(made.ledger, "check_open_channels", recheck)
        monkeypatch.setattr(made.cashier, "poll", look)
        await made.start(made.listener, None)
        async with asyncio.timeout(20):
            await enough.wait()
        assert known[:4] == [0, 1, 2, 3]  # by the rules of each moment

    play(tmp_path, monkeypatch, scenario, recheck=0.0)


#: What works for a server as long as it serves, by the names that its supervisor knows.
BOTH = {"dtp-cashier", "dtp-pay-recheck"}


def test_a_fault_that_nobody_foresaw_ends_neither_claims_nor_looks_unheard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(made: Any) -> None:
        both = asyncio.Event()

        async def fail(*_: Any) -> None:
            if {each.name: each.restarts for each in supervised() if each.restarts >= 1}.keys() >= BOTH:
                both.set()
            raise KeyError("a bug")

        monkeypatch.setattr(made.firewall, "refresh", fail)
        monkeypatch.setattr(made.cashier, "poll", fail)
        await made.start(made.listener, None)
        async with asyncio.timeout(20):
            await both.wait()
        found = {each.name: each for each in supervised() if each.name in BOTH}
        assert found.keys() == BOTH
        assert all("a bug" in each.error for each in found.values())

    play(tmp_path, monkeypatch, scenario, recheck=0.0)


def test_claims_go_by_the_policy_and_know_what_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
        assert made.cashier.pause(10**9) == made.channel.terms.claim_ms / 8000
        assert made.ledger.on_channel == made.cashier.watch_close
        assert made.book.get_known(CHANNEL).channel == made.channel
        made.handlers.append(handler)
        await made.handle(caller(made))
        assert made.cashier.policy == Policy(worth=77)

    play(tmp_path, monkeypatch, scenario, policy=Policy(worth=77))


def test_who_waits_for_a_replacement_may_give_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(made: Any) -> None:
        waiting = asyncio.ensure_future(made.wait_replaced())  # without heartbeats nobody replaces it
        await asyncio.sleep(0)
        waiting.cancel()
        made.heart = Noted("heart", made.done)
        made.heart.replaced = asyncio.get_running_loop().create_future()
        waiting = asyncio.ensure_future(made.wait_replaced())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(0)
        made.heart.replaced.set_result("by another")
        assert await made.wait_replaced() == "by another"

    play(tmp_path, monkeypatch, scenario)


# ---- the end


def test_everything_is_written_before_it_is_claimed_and_all_of_it_ends_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(made: Any) -> None:
        async def handler(connection: Any) -> None:
            connection.on_meter(build(said(KEY.sign(voucher(1, 1)), 0)))
            made.listener.connections.append(connection)

        async def stop(*, claim: Any) -> None:
            made.done.append(("cashier", claim, made.store.vouched_sums(CHANNEL), made.ledger.channels))

        async def looks() -> None:
            await asyncio.Event().wait()

        made.handlers.append(handler)
        made.heart = Noted("heart", made.done)
        made._rechecking = rechecking = SupervisedTask(looks, name="looks")
        rechecking.start()
        monkeypatch.setattr(made.cashier, "stop", stop)
        monkeypatch.setattr(made.firewall, "close", Noted("firewall", made.done).close)
        made._stack = AsyncExitStack()
        made._stack.push_async_callback(Noted("what it was opened with", made.done).close)
        await made.handle(caller(made))
        await made.close(grace=3.0)
        await made.close()
        assert made.done == [
            ("heart", {"withdraw": True}),  # first of all nobody is sent here any more
            ("listener", {"grace": 3.0}),
            ("cashier", True, {0: PRICES.request}, []),
            ("firewall", {}),
            ("what it was opened with", {}),
        ]
        assert not rechecking.running
        assert not rechecking.started
        with pytest.raises(RuntimeError):  # the thread has ended
            await made.journal.run(lambda store: None)

    play(tmp_path, monkeypatch, scenario)


@pytest.mark.parametrize("how", ["cancelled", "fails"])
def test_whatever_becomes_of_its_last_words_nobody_is_served_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Any
) -> None:
    """The beacon is told first, by a node that may say nothing: a listener stayed open for good."""

    class Unheard(Noted):
        async def stop(self, **options: Any) -> None:
            if how == "fails":
                raise StoreError("the disk is gone")
            begun.set()
            await asyncio.Event().wait()

    begun = asyncio.Event()

    async def scenario(made: Any) -> None:
        made.heart = Unheard("heart", made.done)
        closing = asyncio.ensure_future(made.close())
        if how == "cancelled":
            await begun.wait()
            closing.cancel()
        with pytest.raises(StoreError if how == "fails" else asyncio.CancelledError):
            await closing
        assert made.done == [("listener", {})]
        with pytest.raises(RuntimeError):  # the thread has ended
            await made.journal.run(lambda store: None)

    play(tmp_path, monkeypatch, scenario)


def test_what_can_not_be_served_through_the_chain_leaves_nothing_running(
    market: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heartbeats that went on would send clients, and their money, to nobody."""

    async def scenario(market: Market) -> None:
        async def add(self: Any, url: Any, kind: Any = None) -> None:
            if kind is not None:
                raise LocalError("no pipe")
            await genuine(self, url)

        genuine = Listener.add
        network = await market.client(market.server_wallet)
        before = {task.get_name() for task in asyncio.all_tasks()}
        monkeypatch.setattr(Listener, "add", add)
        with pytest.raises(LocalError, match="no pipe"):
            await market.serve(give, pipe=True, network=network)
        after = {task.get_name() for task in asyncio.all_tasks()}
        assert after - before == set()

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
    market: Play, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(market: Market) -> None:
        def refuse(account: Any, host: Any) -> None:
            raise ConfigError("the folder is read-only")

        network = await market.client(market.server_wallet)
        monkeypatch.setattr(network.deployments, "remember_host", refuse)
        serving = await market.serve(give, network=network)
        assert f"name host {serving.host} from now on" in caplog.text

    market(scenario)


def test_a_service_begins_with_all_that_it_needs(market: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(market: Market) -> None:
        with pytest.raises(NoHost, match="give terms to have one made"):
            await market.serve(give, terms=None)
        serving = await market.serve(give)
        assert serving.firewall.rules.state.host.id == serving.host  # known before the first client comes
        await serving.close()
        monkeypatch.setattr(module, "identity_of", lambda wallet, signer: None)
        with pytest.raises(LocalError, match="the wallet's key is no identity"):
            await market.serve(give, terms=None)

    market(scenario)


# ---- what a service is begun with, without a network


class World:
    """What `serve` is made of, each part in the place of the real one: it notes what it was given."""

    places = ("tcp://here:1",)

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls, self.apart, self.signer = [], [], KeySigner.generate()
        self.address = self.signer.address
        self.owned = SimpleNamespace(host=SimpleNamespace(id=HOST))
        for name in ("find_host", "ensure_service", "refuse_apart", "listen"):
            monkeypatch.setattr(module, name, getattr(self, name))
        for name in ("Firewall", "Heart"):
            monkeypatch.setattr(module, name, self.part(name))
        monkeypatch.setattr(module, "ChainClient", World)  # this is one
        monkeypatch.setattr(module, "kind_for", lambda chain: "pipes")
        monkeypatch.setattr(module.Cashier, "start", lambda cashier, every: self.note("cashier", every))

    def note(self, *what: Any, **options: Any) -> None:
        self.calls.append((what, options))

    def noted_by(self, notes: Any) -> Any:
        return self

    def given(self, name: Any) -> Any:
        """The arguments of the only call of this name."""
        (found,) = ((what[1:], options) for what, options in self.calls if what[0] == name)
        return found

    def part(self, name: Any) -> Any:
        def make(*given: Any, **options: Any) -> Any:
            self.note(name, *given, **options)
            return SimpleNamespace(
                rules=None,
                refresh=lambda: self.done(f"{name} refreshed"),
                start=lambda: self.done(f"{name} started"),
                stop=lambda **_: self.done(f"{name} stopped"),
                generation=4,
                close=lambda: self.done(f"{name} closed"),
            )

        return make

    async def done(self, what: Any) -> None:
        self.note(what)

    async def connect(self) -> None:
        pass

    async def find_host(self, chain: Any, host: Any) -> Any:
        self.note("find_host", host)
        return self.owned

    async def ensure_service(self, chain: Any, owned: Any, service: Any, terms: Any, **options: Any) -> Any:
        self.note("ensure_service", service, terms, **options)
        return owned

    async def refuse_apart(self, chain: Any, owned: Any, key: Any, clock: Any, *, is_alive: Any) -> None:
        self.note("refuse_apart", key, clock)
        if self.apart and (fault := self.apart.pop(0)) is not None:
            raise fault

    async def listen(self, urls: Any, handler: Any, **options: Any) -> Any:
        self.note("listen", urls, **options)
        self.listener = SimpleNamespace(urls=self.places, connections=[], add=self.add, close=self.close)
        self.listener.presence = SimpleNamespace(announce_host=lambda *what: self.note("serves", *what))
        return self.listener

    async def add(self, url: Any, kind: Any) -> None:
        self.note("add", url, kind)

    async def close(self, *, grace: Any) -> None:
        self.note("listener closed", grace)


def begin(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scenario: Any = None, apart: Any = (), **options: Any
) -> Any:
    """Begin to serve with a world's parts, and end it; the world."""

    async def work() -> Any:
        world = World(monkeypatch)
        world.apart = list(apart)
        options.setdefault("wallet", world.signer)
        serving = await serve("files", give, network=world, store=tmp_path / "pay.sqlite", **options)
        try:
            if scenario is not None:
                await scenario(world, serving)
        finally:
            await serving.close(claim=False)
        with pytest.raises(StoreError):  # what was opened for it is closed with it
            serving.store.sold_lanes()
        return world

    return asyncio.run(work())


def test_what_is_asked_for_is_begun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    me, limits, book = Identity.generate(), replace(DEFAULT, idle=77), BookLimits(channels=3)

    def clock() -> Any:
        return 5.0

    async def scenario(world: Any, serving: Any) -> None:
        assert serving.book.limits == book
        assert (serving.gate.now_ms(), serving.book._clock, serving.gate._quotas._clock) == (
            5000,
            clock,
            clock,
        )

    world = begin(
        monkeypatch,
        tmp_path,
        scenario,
        urls=["tcp://0.0.0.0:7"],
        host=HOST,
        terms=TERMS,
        kind=Kind.HTTP,
        mode=Mode.PASS,
        identity=me,
        hint="tcp://there:1",
        plans=["0xp"],
        selling=Selling(book=book, claim_every=7.0),
        pipe=True,
        limits=limits,
        psk=b"p" * 32,
        clock=clock,
    )
    assert world.given("find_host") == ((HOST,), {})
    assert world.given("ensure_service") == (("files", TERMS), {"kind": Kind.HTTP, "mode": Mode.PASS})
    assert world.given("Firewall") == ((world, HOST), {"plans": ["0xp"], "clock": clock})
    (urls,), listening = world.given("listen")
    assert urls == ["tcp://0.0.0.0:7"]
    assert (listening["identity"], listening["limits"], listening["psk"]) == (me, limits, b"p" * 32)
    given, heart = world.given("Heart")
    assert given[1:] == (world.owned, me.id.key, hint_of("tcp://there:1", me))
    assert callable(heart.pop("is_alive"))
    assert heart == {"alone": True, "clock": clock}
    assert world.given("serves") == ((HOST, 4, "tcp://there:1"), {})
    assert world.given("add") == ((f"pipe://{HOST}?to={me.id.key.hex()}", "pipes"), {})
    assert world.given("cashier") == ((7.0,), {})
    said = [what[0] for what, _ in world.calls]
    # The rules are known before anybody can come, and clients are sent here when somebody listens.
    assert said.index("Firewall refreshed") < said.index("listen") < said.index("Heart started")


def test_others_find_it_where_it_listens_by_its_wallet_s_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = begin(monkeypatch, tmp_path, terms=None)
    given, _ = world.given("Heart")
    assert given[2:] == (world.signer.public_key, b"tcp://here:1")
    assert not any(what[0] in ("ensure_service", "add") for what, _ in world.calls)


@pytest.mark.parametrize(
    ("place", "told"),
    [("tcp://0.0.0.0:7", b"tcp://203.0.113.7:7"), ("ws://[::]:7/a", b"ws://[2001:db8::7]:7/a")],
)
def test_nobody_is_sent_to_an_address_that_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: Any, told: Any
) -> None:
    """What listens at all addresses was announced as 0.0.0.0, which is whoever dials it."""
    own = {"0.0.0.0": "203.0.113.7", "::": "2001:db8::7"}
    monkeypatch.setattr(reachable, "own_ip", own.__getitem__)
    monkeypatch.setattr(World, "places", ("unix:///x", place))
    assert begin(monkeypatch, tmp_path, terms=None).given("Heart")[0][3] == told
    with pytest.raises(LocalError, match="--hint"):
        begin(monkeypatch, tmp_path, terms=None, hint=place)


@pytest.mark.parametrize(
    ("heartbeat", "shares", "looks", "alone"),
    [(True, False, 2, True), (True, True, 0, False), (False, False, 0, None)],
)
def test_who_shares_a_store_may_serve_beside_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, heartbeat: Any, shares: Any, looks: Any, alone: Any
) -> None:
    world = begin(monkeypatch, tmp_path, heartbeat=heartbeat, selling=Selling(shares_store=shares))
    said = [what[0] for what, _ in world.calls]
    assert said.count("refuse_apart") == looks
    if looks:  # before anything is done for clients, and when others can see us
        first, second = (at for at, each in enumerate(said) if each == "refuse_apart")
        assert first < said.index("Firewall")
        assert said.index("Heart started") < second
    assert ("Heart" in said) == heartbeat
    if heartbeat:
        assert world.given("Heart")[1]["alone"] is alone


@pytest.mark.parametrize("late", [True, False])
def test_who_finds_another_serving_ends_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, late: Any
) -> None:
    worlds, genuine = [], World.__init__

    def made(world: Any, patch: Any) -> None:
        genuine(world, patch)
        worlds.append(world)

    monkeypatch.setattr(World, "__init__", made)
    fault = EndpointsApart("another one")
    with pytest.raises(EndpointsApart):
        begin(monkeypatch, tmp_path, apart=[None, fault] if late else [fault])
    (world,) = worlds
    said = [what[0] for what, _ in world.calls]
    assert ("listen" in said) == late
    assert said[-3:] == (["Heart stopped", "listener closed", "Firewall closed"] if late else said[-3:])
