"""End to end over a chain: a client that knows a host object opens, streams, pays and closes; the server is paid."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from dtp.chain import Program
from dtp.chain import pass_ as pass_module
from dtp.chain.host import Mode, Terms
from dtp.net.address import Address
from dtp.pay import answers
from dtp.pay.claims import MINUTE
from dtp.pay.client.lane_lock import LaneLock
from dtp.pay.errors import BudgetSpent, ChargeDeclined, DatagramsNotMetered, PriceTooHigh
from dtp.pay.passes import NoPass, buy, cancel, find_pass, held_passes, renew
from dtp.pay.server.gate import AGREEMENT_MS
from dtp.pay.serving import Selling
from dtp.pay.terms import MIB, Exposure, Prices, Spending, Usage
from dtp.session.codes import CloseCode, ConnectionClosed, ConnectionRefused
from dtp.session.limits import Limits

from ..conftest import TERMS, Market, Play, owned_by

PRICES = Prices(TERMS.price_request, TERMS.price_mib)


async def give(connection: Any) -> None:
    """A handler: each stream says how many bytes it wants."""
    async for stream in connection:
        wanted = int(await stream.readline())
        piece = bytes(64 * 1024)
        while wanted:
            size = min(wanted, len(piece))
            stream.write(piece[:size])
            await stream.drain()
            wanted -= size
        stream.write_eof()


async def fetch(connection: Any, size: Any) -> Any:
    stream = await connection.open_stream()
    stream.write(b"%d\n" % size)
    data = await stream.read()
    stream.close()
    return len(data)


def within(budget: int) -> int:
    """The bytes that a budget pays for together with one request."""
    most = PRICES.bytes_within(budget, 1)
    assert most is not None
    return most


def cost_of(*sizes: Any) -> Any:
    """What `fetch` of these sizes costs: the requests are streams, and their own bytes count, too."""
    return PRICES.cost_of(Usage(len(sizes), sum(size + len(b"%d\n" % size) for size in sizes)))


def test_a_stream_is_paid_and_everything_is_closed_in_two_transactions(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        before = await market.balance(market.server_wallet.address)
        height = market.height() if market.chain.localnet is not None else None
        async with market.connect(buyer) as connection:
            assert await fetch(connection, 5 * MIB) == 5 * MIB
        assert connection.paid == cost_of(5 * MIB)
        if height is not None:
            opened, closed = market.sent(height, buyer["wallet"].address, market.server_wallet.address)
            assert "open" in opened
            assert {"close_agreed", "destroy"} <= set(closed)
        # Closed by agreement, and deleted: the server's balance has risen without a transaction of its own.
        assert await market.channels(buyer) == [None]
        assert await market.balance(market.server_wallet.address) - before == cost_of(5 * MIB)
        (bought,) = buyer["store"].bought_channels()
        assert bought.state == "closed"
        # Its cashier finds nothing to do; when nobody can use the agreement any more, what the server holds is over.
        assert await market.serving.cashier.poll() == []
        if market.chain.localnet is not None:
            market.chain.advance(AGREEMENT_MS + 2 * MINUTE)
            assert await market.serving.cashier.poll() == []
            assert market.serving.store.sold_lanes() == []

    market(scenario)


def test_a_connection_that_loses_its_carriers_is_paid_exactly_once(market: Play) -> None:
    """What was under way is sent again, and counts once on both sides."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        async with market.connect(buyer) as connection:
            stream = await connection.open_stream()
            stream.write(b"%d\n" % (8 * MIB))
            got = 0
            while got < 8 * MIB:
                got += len(await stream.read(MIB))
                if connection.stats.resumes < 3 and connection.outlet.drivers:
                    connection.outlet.drivers[0].carrier.abort()
            assert connection.stats.resumes >= 1
            stream.close()
        assert connection.paid == cost_of(8 * MIB)
        assert await market.channels(buyer) == [None]

    market(scenario)


def test_uploads_are_paid_too(market: Play) -> None:
    async def take(connection: Any) -> None:
        async for stream in connection:
            size = 0
            async for piece in stream:
                size += len(piece)
            stream.write(b"%d" % size)
            stream.write_eof()

    async def scenario(market: Market) -> None:
        await market.serve(take)
        buyer = await market.buyer()
        async with market.connect(buyer) as connection:
            stream = await connection.open_stream()
            for _ in range(100):
                stream.write(bytes(64 * 1024))
                await stream.drain()
            stream.write_eof()
            assert await stream.read() == b"6553600"
        assert connection.paid == PRICES.cost_of(Usage(1, 6_553_600 + 7))

    market(scenario)


def test_the_same_service_is_paid_for_through_the_chain_itself(market: Play) -> None:
    async def scenario(market: Market) -> None:
        limits = Limits(handshake=60)
        await market.serve(give, pipe=True, limits=limits)
        buyer = await market.buyer()
        address = Address.parse(f"{market.serving.address}?via=pipe")
        async with market.connect(buyer, address=address, limits=limits) as connection:
            assert connection.stats.carriers[0].startswith("pipe:")
            assert await fetch(connection, 20_000) == 20_000
        assert connection.paid == cost_of(20_000)
        assert await market.channels(buyer) == [None]

    market(scenario)


def test_a_channel_that_is_kept_serves_again(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        for _ in range(3):
            async with market.connect(buyer, keep=True) as connection:
                assert await fetch(connection, MIB) == MIB
        assert connection.paid == cost_of(MIB, MIB, MIB)
        (channel,) = await market.channels(buyer)
        assert (channel.state, channel.claimed) == (0, 0)
        # Who doesn't keep it uses it, too, and closes it.
        async with market.connect(buyer) as connection:
            await fetch(connection, 10)
        assert await market.channels(buyer) == [None]

    market(scenario)


def test_connections_at_the_same_time_have_lanes_of_one_channel(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        async with (
            market.connect(buyer, budget=100_000_000, keep=True) as first,
            market.connect(buyer, budget=100_000_000, keep=True) as second,
        ):
            sizes = await asyncio.gather(fetch(first, 3 * MIB), fetch(second, 2 * MIB))
            assert list(sizes) == [3 * MIB, 2 * MIB]
        (channel,) = await market.channels(buyer)
        assert len(channel.lanes) == 2
        vouched = market.serving.store.vouched_sums(channel.id)
        assert vouched == {0: cost_of(3 * MIB), 1: cost_of(2 * MIB)}
        # Both are claimed at once, when the server ends.
        await market.serving.close()
        (channel,) = await market.channels(buyer)
        assert channel.claimed == cost_of(3 * MIB) + cost_of(2 * MIB)

    market(scenario)


def test_a_lane_is_locked_among_processes(tmp_path: Path) -> None:
    path = str(tmp_path / "pay.sqlite")
    first, second = LaneLock(path, "0x" + "ab" * 32, 0), LaneLock(path, "0x" + "ab" * 32, 0)
    other = LaneLock(path, "0x" + "ab" * 32, 1)
    assert first.try_acquire()
    assert not second.try_acquire()
    assert other.try_acquire()
    first.release()
    first.release()
    assert second.try_acquire()
    second.release()
    other.release()
    assert list(tmp_path.iterdir()) == []


def test_a_channel_that_is_gone_is_not_asked_for_again(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        async with market.connect(buyer) as connection:
            await fetch(connection, 10)
        (bought,) = buyer["store"].bought_channels()
        buyer["store"].set_state(bought.channel, "open")  # as if the answer had been lost
        async with market.connect(buyer) as connection:
            await fetch(connection, 10)
        assert [each.state for each in buyer["store"].bought_channels()] == ["refused", "closed"]

    market(scenario)


@pytest.mark.slow
def test_a_small_deposit_is_topped_up_within_the_budget(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        deposit = cost_of(3 * MIB)
        async with market.connect(buyer, budget=5 * deposit, deposit=deposit) as connection:
            assert await fetch(connection, 8 * MIB) == 8 * MIB
            (channel,) = await market.channels(buyer)
            assert deposit < channel.deposited <= 5 * deposit
        assert connection.paid == cost_of(8 * MIB)
        assert await market.channels(buyer) == [None]

    market(scenario)


def test_serving_stops_where_the_budget_ends(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        budget = cost_of(2 * MIB)
        async with market.connect(buyer, budget=budget) as connection:
            stream = await connection.open_stream()
            stream.write(b"%d\n" % (50 * MIB))
            got = 0
            most = within(budget) - len(b"%d\n" % (50 * MIB))
            while got < most:
                got += len(await stream.read(MIB))
            assert got == most
            assert connection.meter.payer.funds.lacking_for(connection.meter.payer.used) <= 0
            with pytest.raises(BudgetSpent):
                await connection.open_stream()
        assert connection.paid <= budget
        assert await market.channels(buyer) == [None]

    market(scenario)


def test_a_client_that_waits_for_more_than_its_budget_is_told_at_once(market: Play) -> None:
    """Not after the server's patience; all that came can be read, is paid, and the channel is closed by agreement."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        budget, wanted = cost_of(2 * MIB), b"%d\n" % (50 * MIB)
        most = within(budget)
        async with market.connect(buyer, budget=budget) as connection:
            begun = connection.loop.time()
            stream = await connection.open_stream()
            stream.write(wanted)
            pieces = []

            async def read() -> None:
                while True:
                    pieces.append(await stream.read(MIB))

            with pytest.raises(BudgetSpent, match="larger budget") as spent:
                await read()
            assert connection.loop.time() - begun < Exposure().patience / 2
            assert sum(map(len, pieces)) == most - len(wanted)
            assert (spent.value.requests, spent.value.bytes) == (1, most)
            assert budget - 2 < spent.value.paid == connection.paid <= budget
            with pytest.raises(BudgetSpent):
                await connection.open_stream()
        assert await market.channels(buyer) == [None]

    market(scenario)


def test_what_fits_the_budget_to_the_byte_ends_in_order(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        async with market.connect(buyer, budget=cost_of(2 * MIB)) as connection:
            assert await fetch(connection, 2 * MIB) == 2 * MIB
            assert connection.meter.payer.spent
        assert connection.paid == cost_of(2 * MIB)
        assert connection.meter.error is None
        assert await market.channels(buyer) == [None]

    market(scenario)


def test_what_costs_too_much_is_not_begun(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        with pytest.raises(PriceTooHigh, match=r"a MiB costs 0\.002 SUI"):
            await market.connect(buyer, most_per_mib=1_999_999)
        with pytest.raises(PriceTooHigh, match=r"a request costs 0\.000001 SUI"):
            await market.connect(buyer, most_per_request=999)
        with pytest.raises(BudgetSpent, match=r"at least 0\.000001"):
            await market.connect(buyer, budget=999)
        assert buyer["store"].bought_channels() == []

    market(scenario)


def test_a_charge_above_the_budget_ends_with_what_is_missing(market: Play) -> None:
    async def answer(connection: Any) -> None:
        async for request in connection.requests():
            await request.charge(1000)

    async def scenario(market: Market) -> None:
        await market.serve(answer)
        buyer = await market.buyer()
        options = {"budget": 100_000, "on_charge": lambda *_: True}
        async with market.connect(buyer, **options) as connection:
            stream = await connection.open_stream()
            stream.write(b"a")
            with pytest.raises(BudgetSpent, match=r"a charge of 0\.001 SUI is 0\.000901\d* SUI more"):
                await stream.read()

    market(scenario)


def test_explicit_charges(market: Play) -> None:
    outcomes = []

    async def answer(connection: Any) -> None:
        async for request in connection.requests():
            units = int(await request.stream.readline())
            try:
                await request.charge(units)
            except ChargeDeclined:
                outcomes.append("declined")
            else:
                outcomes.append(connection.paid)
            request.stream.write_eof()

    async def scenario(market: Market) -> None:
        await market.serve(answer, selling=Selling(count_streams=False, recheck=3600, claim_every=3600))
        buyer = await market.buyer()
        asked = []

        async def decide(units: Any, amount: Any, locked: Any) -> Any:
            asked.append((units, amount, locked))
            return units < 100

        spending = Spending(charge_units=10)
        async with market.connect(buyer, on_charge=decide, spending=spending) as connection:
            for units in (10, 50, 100):
                stream = await connection.open_stream()
                stream.write(b"%d\n" % units)
                assert await stream.read() == b""
        assert [each for each in outcomes if each != "declined"] == sorted(set(outcomes) - {"declined"})
        assert outcomes[-1] == "declined"
        assert asked == [(50, 50_000, False), (100, 100_000, False)]
        assert connection.usage.requests == 60

    market(scenario)


@pytest.mark.parametrize("count_streams", [True, False])
def test_unasked_a_stream_pays_for_one_request(market: Play, count_streams: Any) -> None:
    """Else a server could take the whole budget before a byte has come."""
    declined = []

    async def take(connection: Any) -> None:
        async for request in connection.requests():
            for units in (1, 1, 100_000):
                try:
                    await request.charge(units)
                except ChargeDeclined as error:
                    declined.append(str(error))
            request.stream.write_eof()

    async def scenario(market: Market) -> None:
        await market.serve(take, selling=Selling(count_streams=count_streams, recheck=3600, claim_every=3600))
        async with market.connect(await market.buyer()) as connection:
            for _ in range(3):
                assert await (await connection.open_stream()).read() == b""
        assert connection.usage.requests == 3
        assert len(declined) == (9 if count_streams else 6)
        assert all("`on_charge`" in each for each in declined)

    market(scenario)


def test_who_decides_about_charges_is_asked_about_each(market: Play) -> None:
    async def answer(connection: Any) -> None:
        async for request in connection.requests():
            with pytest.raises(ChargeDeclined):
                await request.charge(1)
            request.stream.write_eof()

    async def scenario(market: Market) -> None:
        await market.serve(answer)
        buyer, asked = await market.buyer(), []
        async with market.connect(
            buyer, on_charge=lambda *charge: asked.append(charge) or False
        ) as connection:
            assert await (await connection.open_stream()).read() == b""
        assert asked == [(1, 1000, False)]
        assert connection.usage.requests == 1

    market(scenario)


def test_an_answer_is_sold_for_its_key(market: Play) -> None:
    secret = bytes(range(256)) * 1000
    sold = []

    async def sell(connection: Any) -> None:
        async for request in connection.requests():
            await request.deliver(secret, amount=7000)
            sold.append(connection.paid)
            with pytest.raises(Exception, match="multiple of the price"):
                await request.charge(amount=1500)
            request.stream.write_eof()

    async def scenario(market: Market) -> None:
        await market.serve(sell)
        buyer = await market.buyer()
        async with market.connect(buyer) as connection:
            for _ in range(3):
                stream = await connection.open_stream()
                assert await connection.buy(stream, most=7000) == secret
            assert len(sold) == 3
            stream = await connection.open_stream()
            with pytest.raises(PriceTooHigh):
                await connection.buy(stream, most=6999)
        assert connection.usage.requests == 4 + 3 * 7
        assert (
            market.serving.store.sold_lane(buyer["store"].bought_channels()[0].channel, 0).newest is not None
        )

    market(scenario)


def test_who_buys_no_more_keeps_nobody_from_charging(market: Play) -> None:
    """Cancelled while the answer comes, say: the server waits to hear whether it is paid."""

    async def sell(connection: Any) -> None:
        async for request in connection.requests():
            with contextlib.suppress(ChargeDeclined):
                await request.deliver(bytes(100_000))

    async def scenario(market: Market) -> None:
        await market.serve(sell)
        buyer = await market.buyer()
        async with market.connect(buyer) as connection:
            for asked in (False, True):
                stream = await connection.open_stream()
                with pytest.MonkeyPatch.context() as patch:
                    reached = asyncio.Event()

                    async def read(*_: Any, reached: Any = reached) -> None:
                        reached.set()
                        await asyncio.Event().wait()

                    patch.setattr(answers, "read_answer", read)
                    buying = asyncio.ensure_future(connection.buy(stream))
                    await reached.wait()
                    while asked and not connection.meter.sealed.offers:
                        await connection.meter.wait_changed()
                    buying.cancel()
                    await asyncio.wait([buying])
                assert await connection.buy(await connection.open_stream()) == bytes(100_000)

    market(scenario)


def test_a_client_has_to_be_metered_to_buy(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        from dtp.pay.errors import NotMetered

        async with market.connect(buyer) as connection:
            with pytest.raises(NotMetered):
                await connection.charge(1)

    market(scenario)


def test_nobody_gets_in_without_a_ticket_and_it_costs_nothing(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        asked = []
        genuine = market.serving.chain.read

        async def counted(*arguments: Any) -> Any:
            asked.append(arguments)
            return await genuine(*arguments)

        market.serving.chain.read = counted
        from dtp.net.dial import connect

        with pytest.raises(ConnectionRefused, match="is paid") as refused:
            await connect(market.serving.listener.address("files"))
        assert refused.value.close_code == CloseCode.TICKET
        assert asked == []

    market(scenario)


# ------------------------------------------------------------------------------------------------- subscriptions


async def sell_plan(
    market: Market, price: int = 1_000_000, period_ms: int = 600_000, requests: int = 0, size: int = 0
) -> Any:
    chain, serving = market.serving.chain, market.serving
    number = serving.gate.firewall.rules.state.find_service("files")[0]
    program, owned = Program(), await owned_by(serving)
    made = pass_module.new_plan(
        program, serving.host, owned.cap, number, price=price, period_ms=period_ms,
        quota_requests=requests, quota_bytes=size,
    )  # fmt: skip
    pass_module.share(program, made)
    executed = await chain.execute(program)
    (created,) = chain.events_in(executed, pass_module.SCHEMA, pass_module.PlanCreated)
    return created.plan


async def serve_subscribers(market: Market, **quota: Any) -> Any:
    """Serve in pass mode: the plan needs the service first, and the server needs the plan."""
    await market.serve(give, mode=Mode.PASS)
    plan = await sell_plan(market, **quota)
    await market.serving.close()
    await market.serve(give, mode=Mode.PASS, plans=[plan])
    return plan


def test_a_subscriber_uses_its_quota_over_all_connections_and_renews(market: Play) -> None:
    async def scenario(market: Market) -> None:
        plan = await serve_subscribers(market, requests=3, size=2 * MIB)
        buyer = await market.buyer()
        with pytest.raises(NoPass):
            await market.connect(buyer)
        await buy(buyer["network"], plan, 2)
        async with market.connect(buyer, budget=0) as connection:
            assert await fetch(connection, MIB) == MIB
            assert connection.paid == 0
        # Connecting again, on a channel of its own, gives no second quota.
        async with market.connect(buyer, budget=0) as connection:
            assert await fetch(connection, MIB // 2) == MIB // 2
            stream = await connection.open_stream()
            stream.write(b"%d\n" % MIB)
            left = 2 * MIB - MIB - MIB // 2 - len(b"1048576\n524288\n1048576\n")
            got = 0
            while got < left:
                got += len(await stream.read(MIB))
            assert got == left
        if market.chain.localnet is None:
            return
        market.chain.advance(600_000)  # the next period begins
        await market.send_heartbeat()
        await market.serving.firewall.refresh()
        async with market.connect(buyer, budget=0) as connection:
            assert await fetch(connection, MIB) == MIB

    market(scenario)


def test_a_pass_that_is_over_ends_its_connections_and_opens_none(market: Play) -> None:
    async def scenario(market: Market) -> None:
        plan = await serve_subscribers(market)
        buyer = await market.buyer()
        await buy(buyer["network"], plan, 1)
        connection = await market.connect(buyer, budget=0)
        assert await fetch(connection, MIB) == MIB
        market.chain.advance(600_001)
        await market.serving.ledger.check_open_channels(await market.serving.firewall.refresh())
        with pytest.raises(ConnectionClosed) as closed:
            await fetch(connection, 10)
        assert closed.value.close_code == CloseCode.PAYMENT
        await connection.close()
        with pytest.raises(NoPass):
            await market.connect(buyer, budget=0)

    market(scenario)


def test_renewing_cancelling_and_getting_back(market: Play) -> None:
    async def scenario(market: Market) -> None:
        plan = await serve_subscribers(market, price=5_000_000)
        buyer = await market.buyer()
        chain = buyer["network"]
        id, _ = await buy(chain, plan, 3)
        number = market.serving.gate.firewall.rules.state.find_service("files")[0]
        held = await find_pass(chain, market.serving.host, number, market.serving.gate.now_ms())
        assert (held.pass_.id, held.account.periods) == (id, 3)
        await renew(chain, held, 2)
        (held,) = [each async for each in held_passes(chain, chain.address)]
        assert held.account.periods == 5
        before = (await chain.balance(chain.address)).total
        periods, executed = await cancel(chain, held)
        assert periods == 4  # the running one is used
        assert (await chain.balance(chain.address)).total - before == 4 * 5_000_000 - executed.gas.net

    market(scenario)


def test_terms_of_an_open_channel_stay_when_the_price_changes(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        async with market.connect(buyer, keep=True) as connection:
            await fetch(connection, MIB)
        await market.serving.close()
        dearer = Terms(
            price_request=5000, price_mib=9_000_000, min_deposit=1000, idle_ms=600_000, claim_ms=120_000
        )
        await market.serve(give, terms=dearer, store=market.serving.store)
        async with market.connect(buyer) as connection:
            await fetch(connection, MIB)
        assert connection.paid == cost_of(MIB, MIB)
        async with market.connect(buyer) as connection:
            await fetch(connection, MIB)
        assert connection.paid == Prices(5000, 9_000_000).cost_of(Usage(1, MIB + len(b"1048576\n")))

    market(scenario)


def test_exposure_is_the_servers_choice(market: Play) -> None:
    """Paid ahead: a server that trusts nobody, and a client that pays before it gets."""

    async def scenario(market: Market) -> None:
        selling = Selling(exposure=Exposure(0, 0, 0, 0), recheck=3600, claim_every=3600)
        await market.serve(give, selling=selling)
        buyer = await market.buyer()
        ahead = Spending(ahead_bytes=MIB, ahead_requests=2)
        async with market.connect(buyer, spending=ahead) as connection:
            assert await fetch(connection, 4 * MIB) == 4 * MIB
        assert cost_of(4 * MIB) <= connection.paid <= cost_of(4 * MIB) + PRICES.cost_of(Usage(2, MIB))

    market(scenario)


def test_a_metered_connection_carries_no_datagrams(market: Play) -> None:
    async def scenario(market: Market) -> None:
        asked = asyncio.get_running_loop().create_future()

        async def handler(connection: Any) -> None:
            with pytest.raises(DatagramsNotMetered):
                connection.send_datagram(b"free")
            asked.set_result(True)
            await give(connection)

        await market.serve(handler)
        async with market.connect(await market.buyer()) as connection:
            with pytest.raises(DatagramsNotMetered, match="use a stream"):
                connection.send_datagram(b"free")
            with pytest.raises(DatagramsNotMetered):
                await connection.recv_datagram()
            assert await asked

    market(scenario)


def test_a_client_that_runs_out_of_money_in_a_charge_reads_why(market: Play) -> None:
    """The handler needs no care for it: the connection ends, and nothing is logged as a failure."""

    async def scenario(market: Market) -> None:
        async def handler(connection: Any) -> None:
            async for request in connection.requests():
                await request.charge(3)
                request.stream.write(await request.stream.readline())
                request.stream.write_eof()

        await market.serve(handler)

        async def spend() -> None:
            spending = Spending(charge_units=4)
            async with market.connect(await market.buyer(), budget=10_000, spending=spending) as connection:
                for _ in range(10):
                    stream = await connection.open_stream()
                    stream.write(b"x\n")
                    await stream.read()

        with pytest.raises(BudgetSpent, match=r"a charge of 0\.000003 SUI .* was declined"):
            await spend()

    market(scenario)
