"""What happens when somebody goes away, waits too long, or wants more than is due: both get what they are due."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from dataclasses import replace
from itertools import repeat
from typing import Any

import pytest

from dtp.chain import Program
from dtp.chain import channel as channel_module
from dtp.chain.channel import ChannelState, CloseAgreement, agreement_bytes
from dtp.chain.errors import AbortPlace, MoveAborted, NodeRefused, NodeUnavailable, StaleObject
from dtp.errors import DtpError
from dtp.pay import messages
from dtp.pay.client.client_meter import ClientMeter
from dtp.pay.client.payer import Payer
from dtp.pay.errors import ChannelUnusable, NotMetered
from dtp.pay.server.cashier import Cashier
from dtp.pay.server.payee import Payee
from dtp.pay.serving import Selling
from dtp.pay.settling import close_agreed, finalize, key_on_chain, request_close
from dtp.pay.store.journal import Journal
from dtp.pay.terms import MIB, Exposure, Spending, Usage
from dtp.pay.voucher import NO_CAP, Voucher
from dtp.session.codes import CloseCode, ConnectionClosed

from ..buying.test_paid import cost_of, fetch, give
from ..clients import dialer_with
from ..conftest import CHEAP, TERMS, Market, Play
from ..meters import PRICES


async def paid_channel(market: Market, size: Any = 3 * MIB, **options: Any) -> Any:
    """A connection that has fetched, and its channel, with everything vouched."""
    buyer = await market.buyer()
    connection = await market.connect(buyer, **options)
    assert await fetch(connection, size) == size
    meter = connection.meter
    assert await meter.pay_rest()
    (channel,) = await market.channels(buyer)
    return buyer, connection, channel


async def vanish(connection: Any) -> None:
    """The client is gone: no farewell on chain."""
    connection.abort()
    await connection.wait_gone()
    await connection.meter.wait_settled()
    connection.meter.purchase.in_use.lock.release()
    await connection._rest.aclose()


def test_the_client_vanishes_and_the_server_is_paid_what_was_vouched(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, connection, channel = await paid_channel(market)
        await vanish(connection)
        await market.serving.close()  # claims what is worth its gas
        (channel,) = await market.channels(buyer)
        assert channel.claimed == cost_of(3 * MIB)
        assert channel.state == ChannelState.OPEN
        market.chain.advance(TERMS.idle_ms)
        # Whoever comes by ends it, and the rest goes back to the client.
        watcher = await market.client(market.chain.wallet())
        await request_close(watcher, channel)
        market.chain.advance(TERMS.claim_ms)
        paid = await finalize(watcher, channel)
        assert paid.to_client == channel.balance

    market(scenario)


def test_the_server_vanishes_and_the_client_gets_its_deposit_back(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        connection = await market.connect(buyer)
        await fetch(connection, MIB)
        # It dies: no claim, no farewell.
        await market.serving.close(claim=False)
        await connection.close()
        (channel,) = await market.channels(buyer)
        assert channel.state == ChannelState.CLOSING
        assert buyer["store"].bought_channels()[0].state == "closing"
        with pytest.raises(MoveAborted):
            await finalize(buyer["network"], channel)
        market.chain.advance(TERMS.claim_ms)
        paid = await finalize(buyer["network"], channel)
        assert paid.to_client == 500_000_000
        assert await market.channels(buyer) == [None]

    market(scenario)


@pytest.mark.parametrize("by", ["client", "stranger"])
def test_what_an_idle_channel_vouched_for_is_paid_whoever_asks_for_its_close(market: Play, by: Any) -> None:
    """A client that lets its channel lie for `idle_ms`, comes back, and closes behind the server's next claim."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        async with market.connect(buyer, keep=True) as connection:
            await fetch(connection, 1)
        market.chain.advance(TERMS.idle_ms)
        await market.send_heartbeat()
        connection = await market.connect(buyer, keep=True)
        assert await fetch(connection, 3 * MIB) == 3 * MIB
        assert await connection.meter.pay_rest()
        (channel,) = await market.channels(buyer)
        assert (channel.state, channel.claimed) == (ChannelState.OPEN, 0)
        asking = buyer["network"] if by == "client" else await market.client(market.chain.wallet())
        await request_close(asking, channel)
        await vanish(connection)
        with pytest.raises(MoveAborted) as early:
            await finalize(asking, channel)
        assert early.value.error is channel_module.ChannelError.TOO_EARLY
        await market.serving.cashier.poll()
        market.chain.advance(TERMS.claim_ms)
        paid = await finalize(asking, channel)
        assert paid.to_client == 500_000_000 - cost_of(1, 3 * MIB)

    market(scenario)


def test_a_server_that_slept_claims_within_the_time_for_it(market: Play) -> None:
    """The client asks to close while the server is down; its store claims when it is up again, or a watcher does."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, connection, channel = await paid_channel(market)
        await vanish(connection)
        await market.serving.close(claim=False)
        await request_close(buyer["network"], channel)
        watcher = await market.client(market.chain.wallet())  # needs no right: who is paid is fixed
        journal = Journal(market.serving.store)
        cashier = Cashier(watcher, journal, market.chain.now_ms, policy=CHEAP)
        (paid,) = await cashier.poll()
        assert paid.to_server == cost_of(3 * MIB)
        market.chain.advance(TERMS.claim_ms)
        paid = await finalize(buyer["network"], channel)
        assert paid.to_client == 500_000_000 - cost_of(3 * MIB)
        await journal.close()

    market(scenario)


@pytest.mark.parametrize("late", [False, True])
def test_a_window_for_claims_ends_when_it_ends(market: Play, late: Any) -> None:
    """Until then nobody takes the rest, and from then on nobody claims: who slept through it has lost that."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, connection, channel = await paid_channel(market)
        await vanish(connection)
        await market.serving.close(claim=False)
        await request_close(buyer["network"], channel)
        watcher = await market.client(market.chain.wallet())
        (channel,) = await market.channels(buyer)
        # Some seconds before its end, since the clock of a localnet goes on by itself.
        market.chain.advance(channel.claims_until_ms - market.chain.now_ms() - 20_000)
        with pytest.raises(MoveAborted):
            await finalize(buyer["network"], channel)
        if late:
            market.chain.advance(20_001)
        journal = Journal(market.serving.store)
        found = await Cashier(watcher, journal, market.chain.now_ms, policy=CHEAP).poll()
        await journal.close()
        claimed = 0 if late else cost_of(3 * MIB)
        assert sum(each.to_server for each in found) == claimed
        if not late:
            market.chain.advance(20_001)
        (channel,) = await market.channels(buyer)
        if channel is not None:  # else whoever looked has ended it
            await finalize(buyer["network"], channel)
        assert await market.channels(buyer) == [None]
        assert sum(each.to_client for each in found) in (0, 500_000_000 - claimed)

    market(scenario)


def test_an_old_voucher_claims_nothing_once_a_newer_was(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        async with market.connect(buyer, keep=True) as connection:
            await fetch(connection, 3 * MIB)
        (old,) = market.serving.store.sold_lanes()
        async with market.connect(buyer, keep=True) as connection:
            await fetch(connection, 2 * MIB)
        await market.serving.close()
        program = Program()
        channel_module.claim_for(program, old.newest.voucher, old.newest.signature)
        with pytest.raises(MoveAborted) as refused:
            await market.serving.chain.execute(program)
        assert refused.value.error is channel_module.ChannelError.SHRUNK_VOUCHER

    market(scenario)


def test_the_epoch_cap_drains_over_epochs(market: Play) -> None:
    async def scenario(market: Market) -> None:
        if market.chain.localnet is None:
            pytest.skip("epochs of a real network take a day")
        cap = (cost_of(3 * MIB) + 1) // 2
        await market.serve(give, terms=replace(TERMS, epoch_cap=cap))
        buyer, connection, channel = await paid_channel(market)
        await vanish(connection)
        await market.serving.close()
        (channel,) = await market.channels(buyer)
        assert (channel.claimed, channel.owed) == (cap, cost_of(3 * MIB) - cap)
        await request_close(buyer["network"], channel)
        market.chain.advance(TERMS.claim_ms)
        paid = await finalize(buyer["network"], channel)
        # The client has its rest at once; what is owed waits for the next epoch.
        assert paid.to_client == 500_000_000 - cost_of(3 * MIB)
        market.chain.localnet.advance_epoch()
        journal = Journal(market.serving.store)
        cashier = Cashier(market.serving.chain, journal, market.chain.now_ms, policy=CHEAP)
        await market.serving.chain.epoch()
        (paid,) = await cashier.poll()
        assert paid.to_server == cost_of(3 * MIB) - cap
        await journal.close()

    market(scenario)


def test_an_agreed_close_is_used_once_and_not_for_more_than_was_signed(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, connection, channel = await paid_channel(market)
        purchase, chain = connection.meter.purchase, buyer["network"]
        agreed = await connection.meter.request_agreement()
        assert agreed.total == cost_of(3 * MIB)
        payer = connection.meter.payer  # its newest voucher is in the store when the connection has ended
        await purchase.in_use.journal.run(lambda store: store.save_signed(payer.newest, payer.used))
        assert await purchase.closing.is_fair(agreed)
        greedy = replace(agreed, total=agreed.total + 1)
        assert not await purchase.closing.is_fair(greedy)
        with pytest.raises(ChannelUnusable, match="does not verify"):
            await close_agreed(chain, channel, greedy)
        await close_agreed(chain, channel, agreed)
        with pytest.raises(Exception, match=r"no object|not|deleted"):
            await close_agreed(chain, channel, agreed)
        buyer["store"].set_state(channel.id, "closed")
        await connection.close()

    market(scenario)


def test_nothing_is_served_once_a_close_was_agreed(market: Play) -> None:
    """A later voucher would not be in the total that the server has signed."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, connection, channel = await paid_channel(market)
        agreed = await connection.meter.request_agreement()
        stream = await connection.open_stream()
        stream.write(b"1000\n")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await stream.read(1)
        await vanish(connection)
        # Nor on a new connection of the same channel: it is refused, and so the client opens another.
        async with market.connect(buyer, keep=True) as other:
            assert other.meter.payer.lane.channel != channel.id
        # The same agreement is given again, and no other.
        end = market.serving.store.save_agreement(channel.id, 1, 1, market.serving.chain.chain_id)
        assert (end.total, end.not_after_ms) == (agreed.total, agreed.not_after_ms)

    market(scenario)


@pytest.mark.parametrize("arrives", [False, True])
def test_a_signature_that_is_lost_beside_a_close_that_fails_keeps_no_money(
    market: Play, arrives: Any
) -> None:
    """The channel is as open as before, for all the client knows: the next connection finds out, and uses another."""

    class Losing(ClientMeter):
        async def request_agreement(self) -> Any:
            assert await super().request_agreement() is not None
            self.agreed = None

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, connection, channel = await paid_channel(market, make_dialer=dialer_with(make_meter=Losing))
        away = repeat(NodeUnavailable("no node"))
        with buyer["network"].failing("request_close", away, late=arrives), pytest.raises(NodeUnavailable):
            await connection.close()
        assert [each.state for each in buyer["store"].bought_channels()] == ["open"]
        async with market.connect(buyer) as other:
            assert await fetch(other, 10) == 10
            assert other.meter.payer.lane.channel != channel.id
        # By the signature, which is given again; else its close was asked for by then, and whatever looks next
        # finishes it.
        ends = ["closing" if arrives else "closed", "closed"]
        assert [each.state for each in buyer["store"].bought_channels()] == ends

    market(scenario)


def test_an_agreement_that_the_client_does_not_use_ends_in_a_claim(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        _, connection, _ = await paid_channel(market)
        await connection.meter.request_agreement()
        await vanish(connection)
        assert await market.serving.cashier.poll() == []  # it may still be used
        market.chain.advance(11 * 60_000)
        (paid,) = await market.serving.cashier.poll()
        assert (paid.to_server, paid.to_client) == (cost_of(3 * MIB), 500_000_000 - cost_of(3 * MIB))

    market(scenario)


def aborted(error: Any, executed: Any = None) -> Any:
    place = AbortPlace("0x" + "7" * 64, "channel", "close_agreed", 0)
    return MoveAborted("refused", place=place, raw=error, number=error, error=error, executed=executed)


@pytest.mark.parametrize(
    "fault",
    [
        aborted(channel_module.ChannelError.AGREED_TOO_LOW),  # in the simulation
        aborted(channel_module.ChannelError.AGREEMENT_EXPIRED, object()),  # in time for the simulation only
    ],
)
def test_an_agreement_that_the_chain_does_not_take_ends_in_asking(market: Play, fault: Any) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, connection, _ = await paid_channel(market)
        with buyer["network"].failing("close_agreed", repeat(fault)):
            await connection.close()
        (channel,) = await market.channels(buyer)
        assert channel.state == ChannelState.CLOSING
        assert [each.state for each in buyer["store"].bought_channels()] == ["closing"]
        assert connection.meter.purchase.closing.closed is None

    market(scenario)


def test_an_agreement_that_is_not_signed_ends_in_asking(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, connection, _ = await paid_channel(market)
        agreed = await connection.meter.request_agreement()
        connection.meter.agreed = replace(agreed, signature=bytes(64))
        await connection.close()
        (channel,) = await market.channels(buyer)
        assert channel.state == ChannelState.CLOSING
        assert [each.state for each in buyer["store"].bought_channels()] == ["closing"]

    market(scenario)


def test_who_is_late_for_an_agreed_close_asks_for_it(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, connection, _ = await paid_channel(market)
        assert await connection.meter.request_agreement() is not None
        market.chain.advance(11 * 60_000)
        await connection.close()
        (channel,) = await market.channels(buyer)
        assert channel.state == ChannelState.CLOSING
        assert [each.state for each in buyer["store"].bought_channels()] == ["closing"]

    market(scenario)


@pytest.mark.parametrize(
    "fault",
    [
        NodeUnavailable("no node"),
        aborted(channel_module.ChannelError.AGREED_TOO_LOW, object()),  # whatever is wrong costs gas
    ],
)
def test_a_channel_whose_agreed_close_fails_is_not_used_again(market: Play, fault: Any) -> None:
    """The server refuses it from then on. Left open, it would keep an honest client out, and its money in."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, connection, channel = await paid_channel(market)
        with buyer["network"].failing("close_agreed", repeat(fault)), pytest.raises(type(fault)):
            await connection.close()
        # 'dtp channel close' asks for it.
        assert [each.state for each in buyer["store"].bought_channels()] == ["refused"]
        async with market.connect(buyer) as other:
            assert other.meter.purchase.fresh
            assert other.meter.purchase.channel.id != channel.id
            assert await fetch(other, 1000) == 1000

    market(scenario)


def test_a_close_without_an_agreement_that_fails_leaves_the_channel_open(market: Play) -> None:
    """The server still takes it."""

    class Silent(ClientMeter):
        async def last_words(self) -> None:
            return None

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, connection, channel = await paid_channel(market, make_dialer=dialer_with(make_meter=Silent))
        away = repeat(NodeUnavailable("no node"))
        with buyer["network"].failing("request_close", away), pytest.raises(NodeUnavailable):
            await connection.close()
        assert [each.state for each in buyer["store"].bought_channels()] == ["open"]
        async with market.connect(buyer) as other:
            assert other.meter.purchase.channel.id == channel.id

    market(scenario)


def test_a_client_that_asks_to_close_on_chain_is_noticed(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, connection, channel = await paid_channel(market)
        await request_close(buyer["network"], channel)
        await market.serving.ledger.refresh(channel.id)
        await connection.wait_closed()
        with pytest.raises(ConnectionClosed) as closed:
            await fetch(connection, 10)
        assert closed.value.close_code == CloseCode.PAYMENT
        await vanish(connection)

    market(scenario)


def test_a_channel_whose_close_another_has_asked_for_is_noted_as_closing(market: Play) -> None:
    """As anyone may once it was idle on chain: the rest comes back by 'dtp channel close', which looks for those."""
    no = repeat(aborted(channel_module.ChannelError.AGREED_TOO_LOW))

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, connection, channel = await paid_channel(market)
        connection.meter.purchase.keep = False
        await request_close(buyer["network"], channel)
        with buyer["network"].failing("close_agreed", no):
            await connection.close()
        (kept,) = buyer["store"].bought_channels()
        assert (kept.channel, kept.state) == (channel.id, "closing")

    market(scenario)


def test_an_agreement_by_somebody_else_is_no_use(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, connection, channel = await paid_channel(market)
        stranger = market.chain.wallet()
        statement = agreement_bytes(CloseAgreement(channel.id, 0, 2**64 - 1))
        forged = messages.Agreed(0, 2**64 - 1, stranger.public_key, stranger.sign_statement(statement))
        with pytest.raises(MoveAborted) as refused:
            await close_agreed(buyer["network"], channel, forged)
        assert refused.value.error is channel_module.ChannelError.WRONG_SIGNER
        await connection.close()

    market(scenario)


def test_several_channels_are_claimed_in_one_transaction(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        channels = []
        for _ in range(3):
            _, connection, channel = await paid_channel(market)
            await vanish(connection)
            channels.append(channel)
        views = await market.serving.cashier.channel_views()
        assert {view.channel.id for view in views} == {channel.id for channel in channels}
        market.serving.cashier.policy = replace(CHEAP, worth=1)
        (paid,) = await market.serving.cashier.poll()
        assert paid.to_server == 3 * cost_of(3 * MIB)
        assert await market.serving.cashier.poll() == []

    market(scenario)


def test_a_close_that_is_asked_for_twice_moves_no_date_and_pays_once(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, connection, _ = await paid_channel(market)
        await vanish(connection)
        await market.serving.close()  # claims
        (channel,) = await market.channels(buyer)
        await request_close(buyer["network"], channel)
        (closing,) = await market.channels(buyer)
        market.chain.advance(TERMS.claim_ms // 2)
        with pytest.raises(MoveAborted):
            await request_close(buyer["network"], closing)
        assert await market.channels(buyer) == [closing]
        market.chain.advance(TERMS.claim_ms // 2)
        before = await market.balance(market.server_wallet.address)
        paid = await finalize(buyer["network"], closing)
        assert (paid.to_client, paid.state) == (500_000_000 - cost_of(3 * MIB), ChannelState.CLOSED)
        with pytest.raises(StaleObject):
            await finalize(buyer["network"], closing)
        assert await market.balance(market.server_wallet.address) == before

    market(scenario)


@pytest.mark.parametrize("agrees", [True, False])
def test_who_keeps_a_key_is_paid_by_a_claim_that_tells_it(
    market: Play, monkeypatch: pytest.MonkeyPatch, agrees: Any
) -> None:
    """And not by agreement, which tells nothing."""

    async def sell(connection: Any) -> None:
        async for request in connection.requests():
            await request.deliver(b"a secret", units=7000)

    async def scenario(market: Market) -> None:
        await market.serve(sell)
        buyer = await market.buyer()
        monkeypatch.setattr(Payee, "_reveal_if_locked", lambda payee: None)
        connection = await market.connect(buyer, spending=Spending(patience=0.0))
        meter, chain = connection.meter, buyer["network"]
        buying = asyncio.ensure_future(connection.buy(await connection.open_stream()))
        while meter.payer.newest is None or meter.payer.signed.is_unstored:
            await meter.wait_changed()
        if agrees:
            agreed = await meter.request_agreement()
            assert agreed.total == connection.paid
        buying.cancel()
        await connection.close()
        (bought,), (answer,) = buyer["store"].bought_channels(), connection.unopened
        assert (bought.state, meter.purchase.closing.closed) == ("closing", None)
        assert await key_on_chain(chain, bought.channel, answer.lock) is None
        if not agrees:
            await market.serving.close()
            (channel,) = await market.channels(buyer)
            assert channel.claimed == connection.paid > 7_000_000
            assert answer.open(await key_on_chain(chain, bought.channel, answer.lock)) == b"a secret"
            assert await key_on_chain(chain, bought.channel, bytes(32)) is None

            async def no_change(genuine: Any, digest: str) -> Any:
                outcome = await genuine(digest)
                return replace(outcome, executed=replace(outcome.executed, changes=()))

            async def the_same_version(genuine: Any, digest: str) -> Any:
                outcome = await genuine(digest)
                changes = tuple(
                    replace(each, input_version=each.output and each.output.version)
                    for each in outcome.executed.changes
                )
                return replace(outcome, executed=replace(outcome.executed, changes=changes))

            for lie in (no_change, the_same_version):  # for which it was looked without an end
                with chain.node.answering(transaction=lie), pytest.raises(NodeRefused, match="another node"):
                    await key_on_chain(chain, bought.channel, bytes(32))

    market(scenario)


def test_an_answer_whose_key_the_connection_took_with_it_opens_on_the_next(market: Play) -> None:
    connections = []

    async def sell(connection: Any) -> None:
        connections.append(connection)
        async for request in connection.requests():
            with contextlib.suppress(DtpError):
                await request.deliver(b"a secret", units=7)

    async def scenario(market: Market) -> None:
        await market.serve(sell)
        buyer = await market.buyer()
        connection = await market.connect(buyer, keep=True)
        loop = asyncio.get_running_loop()

        def receive_and_break_off(genuine: Any, *args: Any) -> Any:
            loop.call_soon_threadsafe(connections[0].abort)  # before the journal says that it is stored
            return genuine(*args)

        store: Any = market.serving.store
        stored = store.doing(received_all=receive_and_break_off, receive_now=receive_and_break_off)
        with stored:
            with pytest.raises(ConnectionClosed):
                await connection.buy(await connection.open_stream())
            await connection.close()
        (answer,) = connection.unopened
        async with market.connect(buyer, keep=True) as again:
            assert await again.open_answer(answer) == b"a secret"
            assert again.unopened == ()
            assert await again.buy(await again.open_stream()) == b"a secret"
        with pytest.raises(NotMetered, match="only the client"):
            await connections[0].open_answer(answer)

    market(scenario)


async def claimed_by_the_client(buyer: Any, connection: Any, requests: Any, size: Any) -> None:
    """A voucher of the client's own making, under a sequence above all others, that it claims itself."""
    purchase = connection.meter.purchase
    voucher = Voucher(
        purchase.channel.id, 0, 2**63 - 1, PRICES.cost_of(Usage(requests, 0)), requests, size, None, NO_CAP
    )
    program = Program()
    channel_module.claim_for(program, voucher, purchase.in_use.key.sign(voucher).signature)
    await buyer["network"].execute(program)


def test_what_a_client_claims_itself_voids_nothing(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, connection, channel = await paid_channel(market)
        with pytest.raises(MoveAborted) as refused:
            await claimed_by_the_client(buyer, connection, 0, 2**63 - 1)
        assert refused.value.error is channel_module.ChannelError.STALE_VOUCHER
        await claimed_by_the_client(buyer, connection, 1, 2**63 - 1)
        await vanish(connection)
        await market.serving.close()
        (channel,) = await market.channels(buyer)
        assert channel.claimed == cost_of(3 * MIB)
        assert (channel.requests, channel.bytes) == (1, 3 * MIB + 8)

    market(scenario)


def test_what_a_client_claims_itself_is_no_payment_for_what_it_gets(market: Play) -> None:
    class Unpaying(Payer):
        def _pay_if_due(self, *_: Any) -> None:
            """Sign nothing, ever."""

    async def scenario(market: Market) -> None:
        exposure = Exposure(MIB, 4 * MIB, 8, 32, patience=0.2)
        await market.serve(give, selling=Selling(exposure=exposure, recheck=3600, claim_every=3600))
        buyer = await market.buyer()
        connection = await market.connect(buyer, make_dialer=dialer_with(make_payer=Unpaying))
        await claimed_by_the_client(buyer, connection, 1, 2**63 - 1)
        connection.send_meter(messages.build(messages.Renewed()))
        with pytest.raises(ConnectionClosed, match="not paid within"):
            await fetch(connection, 100 * MIB)
        assert connection.usage.bytes < 2 * MIB

    market(scenario)


@pytest.mark.parametrize("attack", [False, True])
def test_a_watcher_goes_on_claiming_where_a_lane_has_nothing_more_to_claim(market: Play, attack: Any) -> None:
    """It rests since the watcher's last look, or its client has claimed it itself: the other lane's money counts."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        connect = functools.partial(market.connect, buyer, budget=100_000_000, keep=True)
        async with connect() as first, connect() as second:
            await asyncio.gather(fetch(first, 3 * MIB), fetch(second, 2 * MIB))
        watcher = await market.client(market.chain.wallet())
        journal = Journal(market.serving.store)
        cashier = Cashier(watcher, journal, market.chain.now_ms, policy=CHEAP)
        if attack:
            _, sold = market.serving.store.sold_lanes()
            program = Program()
            channel_module.claim_for(program, sold.newest.voucher, sold.newest.signature)
            await buyer["network"].execute(program)
        else:
            await cashier.poll(closing=True)
            async with connect() as first:
                await fetch(first, 3 * MIB)
        await market.serving.close(claim=False)
        await cashier.poll(closing=True)
        (channel,) = await market.channels(buyer)
        assert channel.claimed == sum(market.serving.store.vouched_sums(channel.id).values())
        await journal.close()

    market(scenario)
