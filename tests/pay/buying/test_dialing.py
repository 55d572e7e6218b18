"""Paid connections that break off at their beginning or at their end: nothing of them stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dtp.carriers.errors import DialError
from dtp.chain import SUI_COIN, KeySigner
from dtp.chain.model import canonical_id, canonical_type
from dtp.errors import DtpError, LocalError
from dtp.identity import Identity
from dtp.net.address import Address, AddressError
from dtp.pay import dial
from dtp.pay.client.budget import Budget
from dtp.pay.client.client_meter import ClientMeter
from dtp.pay.client.lane_start import PayerLane
from dtp.pay.dial import PaidDialer
from dtp.pay.drivers import REPEATS
from dtp.pay.errors import BudgetTooSmall, CountsDisputed, StoreError
from dtp.pay.metered import Metered
from dtp.pay.passes import NoPass
from dtp.pay.terms import MIB, Spending
from dtp.pay.voucher import LaneKey
from dtp.session.codes import CloseCode, CloseDetail, ConnectionClosed, ConnectionRefused
from dtp.session.limits import DEFAULT

from ..clients import RefusedDialer, dialer_with
from ..conftest import Market, Play
from ..meters import KEY, PRICES, voucher
from .test_paid import cost_of, fetch, give


def time_in(hours: float) -> float:
    """The system's time in so many hours."""
    return time.time() + hours * 3600


def test_a_connection_whose_beginning_can_t_be_noted_is_not_left_open(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, made = await market.buyer(), []

        class Noting(PaidDialer):
            async def dial(self, *args: Any, **options: Any) -> Any:
                made.append(await super().dial(*args, **options))
                return made[-1]

        with buyer["store"].failing("begin_lane"), pytest.raises(StoreError, match="full"):
            await market.connect(buyer, make_dialer=Noting)
        assert [each.closed for each in made] == [True]
        async with market.connect(buyer) as connection:
            assert await fetch(connection, 1000) == 1000
        assert len(buyer["store"].bought_channels()) == 1

    market(scenario)


class SlowMeter(ClientMeter):
    """A client's meter whose last words and last writes wait until a test says so."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.reached, self.may_end, self.may_settle = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.may_settle.set()

    async def last_words(self) -> Any:
        self.reached.set()
        await self.may_end.wait()
        return await super().last_words()

    async def wait_settled(self) -> None:
        await self.may_settle.wait()
        await super().wait_settled()


def test_a_close_that_is_cancelled_leaves_nothing_open_but_the_channel(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        connection = await market.connect(buyer, make_dialer=dialer_with(make_meter=SlowMeter))
        await fetch(connection, 100_000)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await connection.close()
        assert connection.closed
        (bought,) = buyer["store"].bought_channels()
        ((_, lane),) = buyer["store"].payer_lanes(bought.channel)
        assert (bought.state, lane.used) == ("open", connection.usage)
        async with market.connect(buyer) as again:
            await fetch(again, 1000)
        assert again.meter.purchase.channel.id == bought.channel
        assert again.paid == cost_of(100_000, 1000)
        assert await market.channels(buyer) == [None]

    market(scenario)


def test_a_close_that_is_cancelled_twice_lets_go_of_the_lane(market: Play) -> None:
    """By a timeout, and by the end of the program."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        connection = await market.connect(buyer, make_dialer=dialer_with(make_meter=SlowMeter))
        await fetch(connection, 1000)
        connection.meter.may_settle.clear()
        closing = asyncio.ensure_future(connection.close())
        for _ in range(2):
            await asyncio.sleep(0)
            closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        connection.meter.may_settle.set()
        await connection.meter.wait_settled()
        async with market.connect(buyer) as again:
            await fetch(again, 1000)
        assert again.meter.purchase.channel.id == connection.meter.purchase.channel.id

    market(scenario)


def test_a_close_that_is_cancelled_when_the_server_has_signed_it_gives_the_channel_up(market: Play) -> None:
    """The server takes it no more."""
    signed = asyncio.Event()

    class Late(ClientMeter):
        async def last_words(self) -> Any:
            assert await super().last_words() is not None
            signed.set()
            await asyncio.Event().wait()

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        connection = await market.connect(buyer, make_dialer=dialer_with(make_meter=Late))
        await fetch(connection, 1000)
        closing = asyncio.ensure_future(connection.close())
        await signed.wait()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        (bought,) = buyer["store"].bought_channels()
        assert bought.state == "refused"
        async with market.connect(buyer) as again:
            await fetch(again, 1000)
        assert again.meter.purchase.channel.id != bought.channel

    market(scenario)


def test_an_answer_that_is_bought_while_the_connection_ends_was_not_declined(market: Play) -> None:
    """But what ended the connection is what is wrong."""
    connections = []

    async def sell(connection: Any) -> None:
        connections.append(connection)
        async for request in connection.requests():
            with contextlib.suppress(DtpError):
                await request.deliver(b"secret")

    async def scenario(market: Market) -> None:
        await market.serve(sell)
        buyer, asked = await market.buyer(), asyncio.Event()

        async def decide(units: Any, amount: Any, locked: Any) -> Any:
            asked.set()
            return await asyncio.get_running_loop().create_future()

        connection = await market.connect(buyer, on_charge=decide)
        buying = asyncio.ensure_future(connection.buy(await connection.open_stream()))
        await asked.wait()
        connections[0].abort(CloseCode.INTERNAL, "the power is gone", application=False)
        with pytest.raises(ConnectionClosed, match="the power is gone"):
            await buying
        await connection.close()

    market(scenario)


@pytest.mark.parametrize("used", [False, True])
def test_a_server_that_refuses_every_channel_gets_one_deposit_after_another_only_slowly(
    market: Play, used: Any
) -> None:
    """Or whoever dials again and again, as a daemon does, would have all its money in channels."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        if used:
            async with market.connect(buyer, keep=True) as connection:
                await fetch(connection, 1000)
        known = []
        for hours in (0, 0, 0, 1, 0):
            dialer = partial(RefusedDialer, clock=partial(time_in, hours))
            with pytest.raises(ConnectionRefused, match="go away"):
                await market.connect(buyer, budget=1_000_000, make_dialer=dialer)
            known.append(sorted(each.state for each in buyer["store"].bought_channels()))
        # What it has refused is closed by itself, where it holds more than that costs.
        first = ["closing", "open"] if used else ["open"]
        second = sorted([*first, "refused"])
        assert known == [first, first, first, second, second]

    market(scenario)


def test_a_server_that_lets_each_channel_in_once_gets_one_deposit_after_another_only_slowly(
    market: Play,
) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, known = await market.buyer(), []
        for hours in (0, 0, 0, 1):
            dialer = partial(RefusedDialer, clock=partial(time_in, hours))
            async with market.connect(buyer, budget=1_000_000, keep=True) as connection:
                await fetch(connection, 100)
            with pytest.raises(ConnectionRefused, match="go away"):
                await market.connect(buyer, budget=1_000_000, keep=True, make_dialer=dialer)
            known.append(sorted(each.state for each in buyer["store"].bought_channels()))
        twice = ["open", "refused"]
        assert known == [twice, twice, twice, ["open", "refused", "refused"]]

    market(scenario)


# ---- who is asked for what, without a network

HOST, OTHER = "0x" + "0" * 62 + "ab", "0x" + "0" * 62 + "cd"
TRIES = len(PaidDialer.behind) + 1


class Client:
    """In the place of a chain client: that it was connected is noted."""

    def __init__(self, named: Any) -> None:
        self.named = named

    async def connect(self) -> None:
        self.named.append("connected")

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *_: Any) -> None:
        pass


class Dialled:
    """A server that gives these answers, one after another, and these purchases: what both were asked."""

    def __init__(self, answers: Any, purchases: Any, begun: Any = None) -> None:
        self.answers, self.purchases, self.bought, self.dialers = list(answers), list(purchases), [], []
        self.named, self.without, self.begun = [], [], begun
        self.journal: Any = None

    def make_dialer(self, address: Any, service: Any, wallet: Any, budget: Any, **options: Any) -> Any:
        """What dials it, for `dial.connect`."""
        return DialledDialer(self, address, service, wallet, budget, **options)

    async def connect(self) -> None:
        self.dialers[-1].tries += 1
        raise self.answers.pop(0)


class DialledDialer(PaidDialer):
    """What dials a `Dialled`."""

    behind = (0.0,) * (TRIES - 1)

    def __init__(
        self, there: Any, address: Any, service: Any, wallet: Any, budget: Any, **options: Any
    ) -> None:
        super().__init__(address, service, wallet, budget, **options)
        self.there, self.wanted = there, (service, budget, options["keep"])
        self.max_gas_price, self.host = budget.highest_gas_price, options["host"] or address.host_object

    def make_client(self, network: Any) -> Any:
        self.there.named.append((network, self.max_gas_price))
        return Client(self.there.named)

    def make_payer(self, *args: Any, **options: Any) -> Any:
        return self.there.begun.make_payer(*args, **options)

    def make_meter(self, *args: Any, **options: Any) -> Any:
        return self.there.begun.make_meter(*args, **options)

    def make_dialer(self, **options: Any) -> Any:
        made = SimpleNamespace(**options, tries=0, connect=self.there.connect)
        self.there.dialers.append(made)
        return made

    async def purchase(self, chain: Any, journal: Any, **options: Any) -> Any:
        there = self.there
        there.bought.append((canonical_id(self.host), *self.wanted))
        there.without.append(set(options["without"]))
        purchase = there.purchases[len(there.bought) - 1]
        if isinstance(purchase, Exception):
            raise purchase
        purchase.in_use.journal = there.journal = journal
        return purchase

    async def agree_again(self, purchase: Any) -> None:
        return None

    async def dial(self, purchase: Any, *, closes: bool = False) -> Any:
        if self.there.begun is None:
            return await super().dial(purchase, closes=closes)
        assert not closes
        return self.there.begun


class Bargain:
    """A purchase that was made; whether it was given up, and its lane let go of."""

    def __init__(self, another: bool = False, topped_up: bool = False, under: Any = None) -> None:
        self.another, self.topped_up, self.opened_by = another, topped_up, b""
        self.channel = SimpleNamespace(id="0xc1", pass_=under)
        self.in_use = SimpleNamespace(
            chain=None,
            channel=self.channel,
            lane=PayerLane("0xc1", 0),
            key=KEY,
            lock=self,
            give_up=self.give_up,
            is_shared=False,
        )
        self.money = SimpleNamespace(funds=5, add_money=object())
        self.prices, self.coin = PRICES, SUI_COIN
        self.released = self.given_up = 0

    def release(self) -> None:
        self.released += 1

    async def can_replace(self, now: float) -> Any:
        if isinstance(self.another, Exception):
            raise self.another
        return self.another

    async def give_up(self) -> None:
        self.given_up += 1


def refusal(reason: str = "no", code: Any = CloseCode.TICKET, detail: Any = CloseDetail.NONE) -> Any:
    return ConnectionRefused(code, reason, detail)


def dialling(tmp_path: Path, seen: Any, address: Any = f"dtp://{HOST}/files", **options: Any) -> Any:
    async def work() -> None:
        store, wallet = tmp_path / "pay.sqlite", KeySigner.generate()
        await dial.connect(address, wallet=wallet, store=store, make_dialer=seen.make_dialer, **options)

    with pytest.raises((ConnectionRefused, DialError, StoreError, BudgetTooSmall)) as caught:
        asyncio.run(work())
    return caught.value


def test_all_that_is_asked_for_is_asked_of_the_chain_and_the_server(tmp_path: Path) -> None:
    seen = Dialled([refusal()], [Bargain()])
    me, limits = Identity.generate(), replace(DEFAULT, connection_window=2 * DEFAULT.connection_window)
    dialling(
        tmp_path,
        seen,
        f"dtp://{HOST}/files?network=there&via=pipe",
        identity=me,
        limits=limits,
        psk=b"p" * 32,
        service="other",
        budget=5,
        deposit=0,
        keep=True,
        most_per_request=3,
        most_per_mib=4,
        coin="0x2::other::COIN",
        max_gas_price=6,
    )
    coin = canonical_type("0x2::other::COIN")
    assert seen.bought == [(HOST, "other", Budget(5, 0, 3, 4, coin, highest_gas_price=6), True)]
    assert seen.named == [("there", 6), "connected"]
    (dialer,) = seen.dialers
    assert str(dialer.address) == f"dtp://{HOST}/files?via=pipe"  # the network is the client's affair
    endpoint = dialer.endpoint
    # The server may open no streams: what comes on them would be paid, too.
    assert (endpoint.identity, endpoint.limits, endpoint.psk) == (me, replace(limits, streams=0), b"p" * 32)
    assert (dialer.service, dialer.make) == ("other", Metered)
    assert dialer.resolvers[1].directory.pipe_channel == "0xc1"  # whose terms say who bears the cost of pipes
    assert not seen.journal.store.power_safe  # a server shows what was lost


def test_what_is_named_beside_the_address_counts_more(tmp_path: Path) -> None:
    seen = Dialled([refusal()], [Bargain()])
    dialling(tmp_path, seen, f"dtp://{HOST}/files?network=there", network="here", host="0xcd")
    assert (seen.named, seen.bought[0][0]) == ([("here", None), "connected"], OTHER)


@pytest.mark.parametrize(
    ("answer", "purchase", "tries"),
    [
        (refusal(detail=CloseDetail.CHANNEL_UNKNOWN), {}, TRIES),
        (refusal("there is no such channel"), {}, 1),  # what is said to people decides nothing
        (refusal(detail=CloseDetail.DEPOSIT_USED_UP), {"topped_up": True}, TRIES),
        (refusal(detail=CloseDetail.DEPOSIT_USED_UP), {}, 1),
        (refusal("no"), {"topped_up": True}, 1),
    ],
)
def test_a_server_whose_node_is_behind_is_asked_again(
    tmp_path: Path, answer: Any, purchase: Any, tries: Any
) -> None:
    made = Bargain(**purchase)
    seen = Dialled([answer] * TRIES, [made])
    assert dialling(tmp_path, seen) is answer
    assert [each.tries for each in seen.dialers] == [tries]
    assert (made.released, made.given_up) == (1, 0)


@pytest.mark.parametrize(
    ("answer", "another", "given_up"),
    [
        (refusal(), True, True),
        (refusal(), False, False),
        (refusal("denied", CloseCode.DENIED), True, False),  # another one would fare no better
        (DialError("nobody is there"), True, False),
    ],
)
def test_only_a_channel_that_the_server_takes_no_more_is_given_up(
    tmp_path: Path, answer: Any, another: Any, given_up: Any
) -> None:
    purchases = [Bargain(another), Bargain()]
    seen = Dialled([answer, refusal("at last")], purchases)
    found = dialling(tmp_path, seen)
    assert len(seen.bought) == 1 + given_up
    assert purchases[0].given_up == given_up
    assert [each.released for each in purchases] == [True, given_up]
    assert (found is answer) != given_up


PAID, SHORT = refusal("no", CloseCode.DENIED), BudgetTooSmall("pays for nothing", least=7)


@pytest.mark.parametrize(
    ("budget", "then", "found"),
    [
        (5, Bargain(), PAID),  # it goes on to what the budget pays
        (5, SHORT, SHORT),
        (0, SHORT, "used up"),  # who meant to pay nothing hears why the pass is of no use
        (5, NoPass("no other"), "used up"),
    ],
)
def test_a_pass_of_no_use_makes_room_for_another_and_for_the_budget(
    tmp_path: Path, budget: Any, then: Any, found: Any
) -> None:
    """Its channel stays: in the next period it is of use again."""
    purchases = [Bargain(another=True, under="0x8"), Bargain(another=True, under="0x9"), then]
    over = refusal(detail=CloseDetail.PASS_OVER)
    used_up = refusal("used up", CloseCode.PAYMENT, CloseDetail.QUOTA_USED_UP)
    seen = Dialled([over, used_up, PAID], purchases)
    caught = dialling(tmp_path, seen, budget=budget)
    assert caught is found or str(found) in str(caught)
    assert seen.without == [set(), {"0x8"}, {"0x8", "0x9"}]
    assert [each.given_up for each in purchases[:2]] == [0, 0]
    assert all(each.released for each in purchases[:2])


def test_a_lane_is_let_go_of_where_nobody_can_say_whether_to_open_another(tmp_path: Path) -> None:
    made = Bargain(StoreError("the disk is gone"))
    seen = Dialled([refusal()], [made])
    assert dialling(tmp_path, seen) is made.another
    assert (made.released, made.given_up) == (1, 0)


@pytest.mark.parametrize("option", [{"budget": 5}, {"deposit": 5}, {"keep": True}, {"host": HOST}])
def test_who_means_to_pay_names_a_wallet(option: Any) -> None:
    with pytest.raises(LocalError, match="a budget needs a wallet"):
        dial.connect(f"dtp://{HOST}/files", **option)


def test_an_option_that_nobody_understands_is_not_overlooked_when_money_is_spent() -> None:
    with pytest.raises(AddressError, match="netwrok"):
        dial.connect(f"dtp://{HOST}/files?netwrok=testnet", wallet=KeySigner.generate())


class Begun:
    """In the place of the meter and the connection: what they were made with, and what is done with them."""

    def __init__(self, welcomed: Any) -> None:
        self.done, self.fault = [], welcomed
        self.patience, self.limits = 10.0, DEFAULT

    def make_payer(
        self, lane: Any, prices: Any, funds: Any, is_ours: Any, spending: Any, *, renewed: Any, coin: Any
    ) -> Any:
        self.is_ours, self.spending, self.renewed = is_ours, spending, renewed
        return SimpleNamespace(welcomed=self.fault is None)

    def make_meter(
        self,
        connection: Any,
        journal: Any,
        payer: Any,
        key: Any,
        *,
        on_charge: Any,
        on_low: Any,
        purchase: Any,
    ) -> Any:
        self.payer, self.on_charge, self.on_low, self.journal = payer, on_charge, on_low, journal
        return self

    def begin(self) -> None:
        self.done.append("begun")

    async def wait_welcome(self) -> None:
        if self.fault is not None:
            raise self.fault

    def abort(self, code: Any, reason: Any) -> None:
        self.done.append(reason)

    async def wait_gone(self) -> None:
        self.done.append("gone")

    async def wait_settled(self) -> None:
        self.done.append("settled")
        assert self.journal.store.kept_keys() == {}  # what it writes is written: the store is open

    def at_end(self, rest: Any) -> None:
        self.rest = rest


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        (None, None),
        (CountsDisputed("too much"), CountsDisputed),
        (ConnectionClosed(CloseCode.PAYMENT, "too much", by_peer=True), ConnectionRefused),
    ],
)
def test_a_connection_is_metered_as_the_deal_has_it_or_leaves_nothing_behind(
    tmp_path: Path, fault: Any, raised: Any
) -> None:
    purchase = Bargain(topped_up=True)
    begun, spending = Begun(fault), Spending(voucher_bytes=MIB)
    seen = Dialled([], [purchase], begun)

    async def work() -> None:
        def on_charge(*_: Any) -> Any:
            return True

        connecting = dial.connect(
            f"dtp://{HOST}/files",
            wallet=KeySigner.generate(),
            store=tmp_path / "pay.sqlite",
            make_dialer=seen.make_dialer,
            on_charge=on_charge,
            spending=spending,
        )
        with pytest.raises(raised, match="too much") if raised is not None else contextlib.nullcontext():
            made: object = await connecting
            assert made is begun
        assert (begun.on_charge, begun.on_low, begun.spending) == (
            on_charge,
            purchase.money.add_money,
            spending,
        )
        assert begun.renewed
        assert begun.is_ours(KEY.sign(voucher(1, 1)))
        assert not begun.is_ours(LaneKey.generate().sign(voucher(1, 1)))
        if fault is None:
            assert (begun.done, purchase.released) == (["begun"], 0)
            await begun.rest.aclose()
        else:
            assert begun.done == ["begun", "metering did not begin", "gone", "settled"]
        assert purchase.released == 1
        with pytest.raises(StoreError):
            begun.journal.store.kept_keys()
        with pytest.raises(StoreError, match="closed"):
            await begun.journal.run(lambda store: None)

    asyncio.run(work())


def test_vouchers_are_due_by_what_carries_them() -> None:
    """On pipes each frame takes seconds, and costs gas."""
    limits = DEFAULT
    options = (
        "network",
        "host",
        "keep",
        "on_charge",
        "spending",
        "store",
        "identity",
        "psk",
        "resolvers",
        "server_streams",
    )
    address = Address("dtp", host_object=HOST, service="files")
    made = PaidDialer(address, "files", None, Budget(), limits=limits, **dict.fromkeys(options))
    usual = Spending()
    assert made.spending_over(SimpleNamespace(patience=limits.handshake)) == usual
    slow = limits.handshake * 12
    over_pipes = replace(usual, repeat=slow / REPEATS, patience=slow / 2)
    assert made.spending_over(SimpleNamespace(patience=slow)) == over_pipes


@pytest.mark.parametrize("fault", [None, ZeroDivisionError])
def test_an_error_of_the_program_is_no_normal_end_and_closes_in_order_all_the_same(fault: Any) -> None:
    codes = []

    class Connection:
        async def close(self, code: Any) -> None:
            codes.append(code)

    async def connect() -> Any:
        return Connection()

    async def work() -> None:
        async with dial.PaidConnecting(SimpleNamespace(connect=connect)):
            if fault is not None:
                raise fault

    with pytest.raises(fault) if fault is not None else contextlib.nullcontext():
        asyncio.run(work())
    assert codes == [CloseCode.NORMAL if fault is None else CloseCode.INTERNAL]


@pytest.mark.slow
def test_as_many_as_want_connect_at_once_though_a_channel_has_sixteen_lanes(market: Play) -> None:
    """They add lanes, and take each other's, at the same time."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()

        async def use() -> Any:
            async with market.connect(buyer, keep=True, budget=cost_of(MIB)) as connection:
                return await fetch(connection, 1000)

        await use()
        assert await asyncio.gather(*(use() for _ in range(20))) == [1000] * 20

    market(scenario)
