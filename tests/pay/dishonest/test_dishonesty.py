"""Every way to be dishonest that `docs/paying.md` lists, played against real programs: nobody loses more than that.

The table there is the data: each row names its test here or elsewhere, and the tests here get their bound from it.
"""

from __future__ import annotations

import ast
from typing import Any

import pytest
from variants import slow_after

from dtp.chain import Program
from dtp.chain import channel as channel_module
from dtp.chain import host as host_module
from dtp.chain.channel import ChannelOpened, CloseAgreement, agreement_bytes
from dtp.chain.host import Host
from dtp.pay.client.budget import Budget
from dtp.pay.client.buying import purchase
from dtp.pay.errors import CountsDisputed
from dtp.pay.serving import Selling
from dtp.pay.store.journal import Journal
from dtp.pay.terms import MIB, Exposure, Prices, Spending, Usage
from dtp.pay.ticket import MAX_LANES
from dtp.pay.voucher import LaneKey
from dtp.session.codes import CloseCode, ConnectionClosed

from ..buying.test_paid import PRICES, fetch, give
from ..clients import pay_and_break_off
from ..conftest import TERMS, Market, Play
from ..dishonesty import BOUNDS, PAGE, ROOT, rows
from .test_hostile import frames_of, honest, knock, own_channel


def functions_of(path: Any) -> Any:
    found = list(ast.walk(ast.parse((ROOT / path).read_text())))
    return {each.name: each for each in found if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}


# ------------------------------------------------------------------------------------------------------ the table


def test_every_row_has_its_test_and_every_bound_is_one() -> None:
    table = rows()
    assert len(table) == PAGE.read_text().count("::test_") >= 30
    assert {row[0] for row in table} == {"client", "server", "third party", "node"}
    for who, what, words, path, name in table:
        functions = functions_of(path)
        assert name in functions, f"{who}, {what}: {path} has no {name}"
        assert words in BOUNDS, f"{who}, {what}: {words!r} is no bound"
        if BOUNDS[words]:  # compared with what the test plays
            arguments = [each.arg for each in functions[name].args.args]
            assert "bound" in arguments, f"{name} doesn't look at its bound"


def test_every_test_here_is_a_row() -> None:
    ours = {
        name for name in functions_of("tests/pay/dishonest/test_dishonesty.py") if name.startswith("test_")
    }
    listed = {row[4] for row in rows() if row[3] == "tests/pay/dishonest/test_dishonesty.py"}
    assert ours - listed == {
        "test_every_row_has_its_test_and_every_bound_is_one",
        "test_every_test_here_is_a_row",
        "test_a_server_may_open_streams_where_the_client_says_so",
    }


# ------------------------------------------------------------------------------------------------------- servers


async def broken_off(market: Market, buyer: Any, size: Any = MIB) -> Any:
    """A lane whose connection broke off behind a download that was paid; gives its channel and what that cost."""
    connection = await market.connect(buyer, keep=True)
    await fetch(connection, size)
    await pay_and_break_off(connection)
    paid = connection.paid
    await connection.meter.wait_settled()
    await connection.close()
    await market.serving.ledger.wait_settled()
    (channel,) = await market.channels(buyer)
    return channel, paid


def newest_of(buyer: Any, channel: Any) -> Any:
    return buyer["store"].payer_lanes(channel.id)[0][1].newest.voucher


@pytest.mark.parametrize("times", [1, 4])
def test_a_server_that_counts_more_after_breaks_is_paid_a_step(market: Play, bound: Any, times: Any) -> None:
    """It got 64 requests and 16 MiB, whatever they cost, for each."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        channel, paid = await broken_off(market, buyer)
        for _ in range(times):
            (sold,) = market.serving.store.sold_lanes(channel.id)
            lane = market.serving.store.sold_lane(channel.id, sold.lane)
            market.serving.store.save_served(channel.id, 0, lane.used.plus(2, MIB // 8))
            connection = await market.connect(buyer, keep=True)
            await pay_and_break_off(connection)
            await connection.close()
            await market.serving.ledger.wait_settled()
        assert 0 < newest_of(buyer, channel).amount - paid <= bound

    market(scenario)


def test_a_server_that_counts_more_on_each_lane_is_paid_a_step_by_each(market: Play, bound: Any) -> None:
    """What is believed on one lane another one doesn't count."""

    async def break_off(connections: Any) -> None:
        for each in connections:
            await pay_and_break_off(each)
            await each.meter.wait_settled()
            await each.close()

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        connections = [await market.connect(buyer, keep=True) for _ in range(2)]
        for each in connections:
            await fetch(each, MIB)
        await break_off(connections)
        await market.serving.ledger.wait_settled()
        (channel,) = await market.channels(buyer)
        store, paid = market.serving.store, sum(each.paid for each in connections)
        for number in range(2):
            store.save_served(
                channel.id, number, store.sold_lane(channel.id, number).used.plus(2, 3 * MIB // 8)
            )
        connections = [await market.connect(buyer, keep=True) for _ in range(2)]
        await break_off(connections)
        assert bound / 2 < sum(PRICES.cost_of(each.meter.payer.used) for each in connections) - paid <= bound

    market(scenario)


def test_a_server_that_wants_all_paid_after_a_break_is_asked_about(market: Play, bound: Any) -> None:
    """Nothing is signed before the program has said so, and then no more than that."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        channel, paid = await broken_off(market, buyer)
        market.serving.store.save_served(channel.id, 0, Usage(1, 16 * MIB))
        with pytest.raises(CountsDisputed) as asked:
            await market.connect(buyer, keep=True)
        assert asked.value.code == "counts-disputed"
        assert newest_of(buyer, channel).amount - paid <= bound
        assert asked.value.amount > bound
        spending = Spending(slack_amount=asked.value.amount)
        async with market.connect(buyer, keep=True, spending=spending) as connection:
            assert connection.unpaid == Usage() or await connection.meter.pay_rest()
        assert bound < newest_of(buyer, channel).amount - paid <= asked.value.amount

    market(scenario)


def test_data_on_streams_that_the_server_opens_ends_the_connection_unpaid(market: Play, bound: Any) -> None:
    """Nobody accepted them, and 0.8 of a budget of 1 SUI went for what came on them."""
    pushed = []

    async def push(connection: Any) -> None:
        stream = await connection.accept_stream()
        stream.write(b"hello")
        stream.write_eof()
        await stream.read()
        # A server of our own making, which doesn't care how many streams it was allowed.
        connection._session.streams.numbers.own_allowed = 1000
        for _ in range(8):
            unasked = await connection.open_stream()
            unasked.write(bytes(MIB))
            pushed.append(unasked)
        await connection.wait_closed()

    async def scenario(market: Market) -> None:
        exposure = Exposure(64 * MIB, 64 * MIB, 64, 64, first_amount=10**9)
        await market.serve(push, selling=Selling(exposure=exposure, recheck=3600, claim_every=3600))
        buyer = await market.buyer()
        connection = await market.connect(buyer, keep=True)
        stream = await connection.open_stream()
        stream.write_eof()
        assert await stream.read() == b"hello"
        await connection.wait_closed()
        with pytest.raises(ConnectionClosed) as closed:
            await connection.open_stream()
        assert closed.value.close_code == CloseCode.LIMIT
        await connection.close()
        assert PRICES.cost_of(connection.meter.payer.used) - PRICES.cost_of(Usage(1, 5)) <= bound
        assert len(pushed) == 8

    market(scenario)


def test_a_server_may_open_streams_where_the_client_says_so(market: Play) -> None:
    async def tell(connection: Any) -> None:
        stream = await connection.open_stream()
        stream.write(b"news")
        stream.write_eof()
        await connection.wait_closed()

    async def scenario(market: Market) -> None:
        await market.serve(tell)
        buyer = await market.buyer()
        async with market.connect(buyer, server_streams=1) as connection:
            stream = await connection.accept_stream()
            assert await stream.read() == b"news"
            stream.write_eof()
        assert connection.paid == PRICES.cost_of(Usage(0, 4))

    market(scenario)


def test_a_server_that_takes_what_is_paid_ahead_and_gives_nothing(market: Play, bound: Any) -> None:
    """One that moves nothing unpaid gets a little ahead of use: as much as a voucher's step costs."""

    async def nothing(connection: Any) -> None:
        async for stream in connection:
            await stream.readline()

    async def scenario(market: Market) -> None:
        ahead = Exposure(0, MIB, 0, 64, first_amount=0)
        await market.serve(nothing, selling=Selling(exposure=ahead, recheck=3600, claim_every=3600))
        buyer = await market.buyer()
        connection = await market.connect(buyer, keep=True)
        stream = await connection.open_stream()
        stream.write(b"1000000\n")
        await stream.drain()
        while not connection.paid:
            await connection.meter.wait_changed()
        connection.abort()
        await connection.wait_gone()
        await connection.close()
        (channel,) = await market.channels(buyer)
        newest = buyer["store"].payer_lanes(channel.id)[0][1].newest
        assert newest is not None
        assert newest.voucher.amount - PRICES.cost_of(Usage(1, 8)) <= bound

    market(scenario)


def test_a_request_that_is_never_answered_is_not_paid_where_the_client_chooses_so(
    market: Play, bound: Any
) -> None:
    async def some(connection: Any) -> None:
        number = 0
        async for stream in connection:
            number += 1
            await stream.readline()
            if number == 1:
                stream.write(b"answer")
                stream.write_eof()
            elif number == 2:
                stream.reset(7)

    async def scenario(market: Market) -> None:
        await market.serve(some)
        buyer = await market.buyer()
        spending = Spending(when_answered=True)
        connection = await market.connect(buyer, keep=True, spending=spending)
        answered = await connection.open_stream()
        answered.write(b"1\n")
        answered.write_eof()
        assert await answered.read() == b"answer"
        for _ in range(2):  # one that is refused, and one that nobody answers
            other = await connection.open_stream()
            other.write(b"2\n")
        await connection.ping()
        assert connection.usage == Usage(1, 6 + 2 + 2 + 2)
        assert await connection.meter.pay_rest()
        assert connection.paid - PRICES.cost_of(Usage(1, 12)) <= bound
        assert market.serving.store.sold_lane(connection.meter.payer.lane.channel, 0).newest is not None
        await connection.close()

    market(scenario)


# ------------------------------------------------------------------------------------------------------- clients


async def unpaid_on(market: Market, ticket: Any) -> Any:
    """Take all that is given without a voucher: how many requests are served, and bytes come."""
    connection = await knock(market, ticket)
    await frames_of(connection)
    got = 0

    async def take_all() -> None:
        nonlocal got
        while True:
            stream = await connection.open_stream()
            stream.write(b"%d\n" % (4 * MIB))
            got += len(b"%d\n" % (4 * MIB))
            while data := await stream.read(MIB):
                got += len(data)

    with pytest.raises(ConnectionClosed):
        await take_all()
    await connection.wait_gone()
    return got


@pytest.mark.parametrize("prices", [PRICES, Prices(1_000_000, 2_000_000), Prices(100_000, 100_000_000)])
def test_a_client_that_never_pays_takes_an_exposure(market: Play, bound: Any, prices: Any) -> None:
    """Requests and bytes together: each by itself was worth `first_amount`."""
    served = []

    async def serve(connection: Any) -> None:
        async for stream in connection:
            served.append(1)
            wanted = int(await stream.readline())
            stream.write(bytes(wanted))
            stream.write_eof()

    async def scenario(market: Market) -> None:
        from dataclasses import replace

        terms = replace(TERMS, price_request=prices.request, price_mib=prices.mib)
        selling = Selling(exposure=Exposure(patience=0.3), recheck=3600, claim_every=3600)
        await market.serve(serve, terms=terms, selling=selling)
        buyer = await market.buyer()
        journal = Journal(buyer["store"])
        market.stack.push_async_callback(journal.close)
        bought = await purchase(buyer["network"], journal, market.serving.host, "files", Budget(500_000_000))
        got = 0
        for _ in range(3):  # coming again gives nothing again
            got += await unpaid_on(market, honest(bought))
        assert 0 < prices.cost_of(Usage(len(served), got)) <= bound

    market(scenario)


def test_one_lane_on_two_connections_takes_one_exposure(market: Play, bound: Any) -> None:
    """As two programs do that have one store's copies: the older one ends unpaid, and nothing adds up."""
    served, waiting = [], []

    async def serve(connection: Any) -> None:
        async for stream in connection:
            served.append(1)
            stream.write(bytes(int(await stream.readline())))
            stream.write_eof()

    async def take(connection: Any) -> Any:
        got, size = 0, 2 * 1024
        stream = await connection.open_stream()
        stream.write(b"%d\n" % size)
        while data := await stream.read(size):
            got += len(data)
        return got + len(b"%d\n" % size)

    async def scenario(market: Market) -> None:
        selling = Selling(exposure=Exposure(patience=0.5), recheck=3600, claim_every=3600)
        await market.serve(serve, selling=selling)
        _, bought = await own_channel(market)
        got = 0
        for _ in range(4):
            connection = await knock(market, honest(bought))
            await frames_of(connection)
            if waiting:  # the one before had the lane
                await waiting[-1].wait_closed()
                assert not connection.closed
            got += await take(connection)
            waiting.append(connection)
        assert market.serving.ledger.channels == [bought.channel.id]
        got += await unpaid_on(market, honest(bought))
        assert got > 4 * 2 * 1024
        assert 0 < PRICES.cost_of(Usage(len(served), got)) <= bound

    market(scenario)


async def open_many(market: Market, chain: Any, count: Any) -> Any:
    """Open channels by one transaction; gives their ids and what was done."""
    host = await chain.read(host_module.SCHEMA, Host, market.serving.host)
    (number,) = host.services
    revision, key = host.services[number].terms.revision, LaneKey.generate().public
    program = Program()
    for money in program.split(program.gas, [TERMS.min_deposit] * count):
        made = channel_module.open(program, host.id, host.beacon, number, revision, money, key)
        channel_module.share(program, made)
    executed = await chain.execute(program)
    opened = chain.events_in(executed, channel_module.SCHEMA, ChannelOpened)
    return [each.channel for each in opened], executed


def close_agreed(market: Market, program: Any, id: Any) -> None:
    signer, agreement = market.server_wallet, CloseAgreement(id, 0, 2**63)
    signature = signer.sign_statement(agreement_bytes(agreement))
    channel_module.close_agreed(program, agreement, signer.public_key, signature)
    channel_module.destroy(program, id)


async def close_many(market: Market, chain: Any, ids: Any, agreed: Any) -> Any:
    """Close channels by as few transactions as there may be, and delete them; what was done."""
    program, done = Program(), []
    for id in ids:
        if agreed:
            close_agreed(market, program, id)
        else:
            channel_module.request_close(program, id)
    done.append(await chain.execute(program))
    if not agreed:
        market.chain.advance(TERMS.claim_ms)
        program = Program()
        for id in ids:
            channel_module.finalize(program, id)
            channel_module.destroy(program, id)
        done.append(await chain.execute(program))
    return done


async def merge_made(chain: Any, done: Any) -> Any:
    """Put the coins that transactions made into the one that pays gas: their storage deposit comes back."""
    program = Program()
    made = [each.id for some in done for each in some.changes if each.operation == "created"]
    program.merge(program.gas, [program.object(id) for id in made])
    return await chain.execute(program)


@pytest.mark.parametrize("end", ["agreed", "asked", "never"])
@pytest.mark.parametrize("count", slow_after(1, [8, 1, 48, 120]))
def test_channels_opened_at_once_cost_more_each_than_not_paying_brings(
    market: Play, bound: Any, count: Any, end: Any
) -> None:
    """Whatever the gas price and however the computation is shared, and also where that were free: Sui keeps a part
    of what storage costs. 64 channels by one transaction cost 0.020 SUI, and left 0.098 unpaid."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        chain = (await market.buyer())["network"]
        before = (await chain.balance(chain.address)).total
        ids, opened = await open_many(market, chain, count)
        assert len(set(ids)) == count
        done, locked = [opened], TERMS.min_deposit * count
        if end != "never":
            done += await close_many(market, chain, ids, end == "agreed")
            done.append(await merge_made(chain, done[1:]))
            assert not await chain.objects(ids)
            locked = 0
        spent = before - (await chain.balance(chain.address)).total - locked
        computation = sum(each.gas.computation for each in done)
        assert 0 < computation < spent
        assert spent - computation >= count * bound

    market(scenario)


@pytest.mark.slow
def test_more_lanes_take_no_second_exposure(market: Play, bound: Any) -> None:
    """All 16 lanes of a channel together."""

    async def scenario(market: Market) -> None:
        from functools import partial

        from dtp.chain.node.commitment import to_its_end
        from dtp.pay.client.buying import _add_lane
        from dtp.pay.ticket import make_ticket

        selling = Selling(exposure=Exposure(patience=0.2), recheck=3600, claim_every=3600)
        await market.serve(give, selling=selling)
        buyer = await market.buyer()
        journal = Journal(buyer["store"])
        market.stack.push_async_callback(journal.close)
        bought = await purchase(buyer["network"], journal, market.serving.host, "files", Budget(500_000_000))
        for _ in range(MAX_LANES - 1):
            await to_its_end(partial(_add_lane, buyer["network"], journal, bought.channel))
        for key, lane in journal.store.payer_lanes(bought.channel.id):
            await unpaid_on(
                market, lambda b, p, key=key, lane=lane: make_ticket(key, bought.channel.id, lane.lane, b)
            )
        await market.serving.ledger.wait_settled()
        store = market.serving.store
        used = [store.sold_lane(bought.channel.id, lane).used for lane in range(MAX_LANES)]
        assert min(each.bytes for each in used) > 0
        assert sum(PRICES.cost_of(each) for each in used) <= bound

    market(scenario)
