"""Cost shifting: credits for bytes that were vouched, once, and never above their gas."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.chain import Program
from dtp.chain import channel as channel_module
from dtp.chain import pipe as pipe_module
from dtp.chain.channel import ChannelState
from dtp.chain.errors import MoveAborted
from dtp.chain.events import EventFollower, event_types
from dtp.chain.host import Bearer
from dtp.chain.model import SUI_COIN
from dtp.chain.pipe import CREDIT_BYTES, Direction, Pipe, evidence
from dtp.chain.pipes.gas import frame_credit
from dtp.chain.pipes.opening import Reclaimed, reclaim
from dtp.chain.resolver import HostDirectory
from dtp.net.address import Address
from dtp.net.resolver import HostResolver
from dtp.pay.claims import Action, Policy, at_close, decide
from dtp.pay.costs import (
    accrued,
    agreed_total,
    borne_direction,
    carriage,
    credits,
    pipes_of,
    take_credits,
)
from dtp.pay.errors import PriceTooHigh
from dtp.pay.messages import Agreed
from dtp.pay.server.cashier import Cashier
from dtp.pay.settling import request_close
from dtp.pay.store.journal import Journal
from dtp.pay.terms import MIB, NO_CARRIAGE, Prices, Usage
from dtp.pay.voucher import Voucher
from dtp.session.codes import CloseCode, ConnectionRefused
from dtp.session.limits import Limits

from ..buying.test_paid import fetch, give
from ..conftest import CHEAP, TERMS, Market, Play
from ..dishonest.test_hostile import own_channel
from ..meters import PRICES, Meters
from .test_claims import NOW, channel
from .test_claims import TERMS as PLAIN
from .test_claims import view as voucher_for

#: A frame that a whole credit is for.
FULL = bytes(CREDIT_BYTES)


#: What two requests with as many full frames come to.
USED = Usage(2, 2 * CREDIT_BYTES)


def pipe(
    sent: Any,
    credited: int = 0,
    direction: Any = Direction.TO_CLIENT,
    index: int = 0,
    of: Any = None,
    size: Any = CREDIT_BYTES,
) -> Any:
    """One over which so many frames of `size` have gone, and so many of them were credited."""
    id = "0x" + f"{index:02x}" * 32
    return Pipe(id, of or channel().id, direction, index, sent, sent * size, credited * size, 0, 0)


def borne(bearer: Any = Bearer.CLIENT, credit: int = 50, **changes: Any) -> Any:
    return channel(terms=replace(PLAIN, bearer=bearer, credit=credit), **changes)


def test_split_costs_credit_nobody() -> None:
    assert borne_direction(Bearer.SPLIT) is None
    assert credits(channel(requests=9), [pipe(9)], 7) == []


def test_bytes_need_evidence_and_evidence_serves_once() -> None:
    known = borne(requests=3, bytes=4 * CREDIT_BYTES)
    assert evidence(known) == 4 * CREDIT_BYTES
    (found,) = credits(known, [pipe(10)], 7)
    assert (found.size, found.amount) == (4 * CREDIT_BYTES, 200)
    used_up = replace(known, credited_bytes=4 * CREDIT_BYTES)
    assert evidence(used_up) == 0
    assert credits(used_up, [pipe(10, 4)], 7) == []
    # Two pipes share it.
    first, second = credits(known, [pipe(3), pipe(9, index=1)], 7)
    assert (first.amount, second.amount) == (150, 50)
    # Requests are evidence of no byte.
    assert credits(borne(requests=1000), [pipe(10)], 7) == []


#: Frames of one transaction: single ones, as many as fit, many of a byte, and mixes of what is dear and cheap.
MIXES = (
    *((size,) for size in (0, 1, 100, 1024, 4096, 16_256, CREDIT_BYTES, 65_536, 100_000, 120_000, 125_000)),
    *((size,) * (120_000 // size) for size in (1200, 4096, 12_000, 16_256, 30_000, 60_000)),
    *((1,) * count for count in (20, 100, 250)),
    (120_000, *(1,) * 20),
    (CREDIT_BYTES, 0, 1, CREDIT_BYTES, 1, 65_536),
    (0,) * 20,
)


#: Internal units, thousandths of a gas unit, that the event of a frame costs for each byte, by Sui's protocol:
#: measuring and writing it.
EVENT_BYTE = 12


def test_the_default_credit_is_below_the_price_of_the_event_alone() -> None:
    """However a network rounds computation, and whatever else sending a frame takes."""
    assert 1000 * frame_credit(1) <= 0.8 * EVENT_BYTE * CREDIT_BYTES


@pytest.mark.parametrize("bearer", [Bearer.CLIENT, Bearer.SERVER])
def test_no_transaction_of_frames_is_credited_with_what_it_costs(market: Play, bearer: Any) -> None:
    """By the default credit, whatever frames are in it and even if all of their bytes are vouched.

    So nobody sends them for their credit. What is asked is what the chain would give."""

    async def scenario(market: Market) -> None:
        await market.serve(give, terms=replace(TERMS, bearer=bearer, credit=frame_credit(1000)))
        buyer, purchase = await own_channel(market)
        chain = market.serving.chain if bearer is Bearer.CLIENT else buyer["network"]
        id, program = purchase.channel.id, Program()
        pipe_module.keep(program, pipe_module.open(program, id))
        await chain.execute(program)
        (own,) = await pipes_of(chain, id)
        for mix in MIXES:
            program = Program()
            for size in mix:
                pipe_module.send(program, own.id, id, market.serving.host, bytes(size))
            gas = (await chain.execute(program)).gas
            known, own = own, (await pipes_of(chain, id))[0]
            assert own.metered - known.metered == sum(mix)
            earned = accrued(purchase.channel, [replace(own, credited=known.metered)], Usage(0, 2**40))
            assert earned <= 0.75 * gas.computation, f"{mix[:3]}... of {len(mix)}"
            assert (earned > 0) == any(mix)

    market(scenario)


def test_only_the_side_that_does_not_bear_the_cost_is_credited() -> None:
    both = [pipe(5), pipe(5, direction=Direction.TO_SERVER, index=1)]
    (found,) = credits(borne(Bearer.CLIENT, bytes=9 * CREDIT_BYTES), both, 7)
    assert found.pipe.direction == Direction.TO_CLIENT
    (found,) = credits(borne(Bearer.SERVER, bytes=9 * CREDIT_BYTES), both, 7)
    assert found.pipe.direction == Direction.TO_SERVER


def test_a_server_takes_nothing_that_is_owed_nor_above_the_cap() -> None:
    assert credits(borne(bytes=9 * CREDIT_BYTES, balance=120, owed=0), [pipe(9)], 7)[0].amount == 120
    assert credits(borne(bytes=9 * CREDIT_BYTES, balance=120, owed=80), [pipe(9)], 7)[0].amount == 40
    assert credits(borne(bytes=9 * CREDIT_BYTES, balance=120, owed=120), [pipe(9)], 7) == []
    capped = borne(bytes=9 * CREDIT_BYTES, epoch_spent=900)
    capped = replace(capped, terms=replace(capped.terms, epoch_cap=1000))
    assert credits(capped, [pipe(9)], 7)[0].amount == 100
    assert credits(capped, [pipe(9)], 8)[0].amount == 9 * 50  # a new epoch
    assert credits(borne(bytes=9 * CREDIT_BYTES, state=ChannelState.CLOSED), [pipe(9)], 7) == []
    assert credits(borne(bytes=9 * CREDIT_BYTES), [pipe(9, of="0x9")], 7) == []


@given(
    st.integers(0, 10**6), st.integers(0, 10**6), st.lists(st.integers(0, 10**6), max_size=4),
    st.integers(0, 3000), st.integers(0, 3000),
)  # fmt: skip
def test_credits_are_never_above_evidence_frames_or_money(
    size: Any, used: Any, metered: Any, balance: Any, owed: Any
) -> None:
    known = borne(bytes=size, balance=balance, owed=owed, credited_bytes=min(used, size))
    found = credits(known, [pipe(each, index=n, size=1) for n, each in enumerate(metered)], 7)
    assert sum(each.size for each in found) <= min(evidence(known), sum(metered))
    assert sum(each.amount for each in found) <= max(0, balance - owed)
    assert all(each.size <= each.pipe.metered - each.pipe.credited for each in found)
    assert all(each.amount * CREDIT_BYTES <= each.size * 50 for each in found)


@pytest.mark.parametrize("bearer", [Bearer.CLIENT, Bearer.SERVER])
def test_what_is_foreseen_is_what_the_chain_gives(market: Play, bearer: Any) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give, terms=replace(TERMS, bearer=bearer, credit=70_000))
        buyer, purchase = await own_channel(market)
        server, client = market.serving.chain, buyer["network"]
        sender = server if bearer is Bearer.CLIENT else client
        id = purchase.channel.id
        program = Program()
        pipe_module.keep(program, pipe_module.open(program, id))
        await sender.execute(program)
        (own,) = await pipes_of(sender, id)
        for data in (FULL, b"", b"", FULL, FULL):  # three of them with something in them
            program = Program()
            pipe_module.send(program, own.id, id, market.serving.host, data)
            await sender.execute(program)
        assert await take_credits(sender, purchase.channel, 1) is None  # no evidence yet
        program = Program()
        signed = purchase.in_use.key.sign(Voucher(id, 0, 1, 2000, 2, 2 * CREDIT_BYTES))
        channel_module.claim_for(program, signed.voucher, signed.signature)
        await server.execute(program)
        known = await client.read(channel_module.SCHEMA, channel_module.Channel, id)
        assert await take_credits(sender, known, 140_001) is None  # not worth it
        taken = await take_credits(sender, known, 1)
        assert taken is not None
        assert taken[0] == 2 * 70_000
        after = await client.read(channel_module.SCHEMA, channel_module.Channel, id)
        if bearer is Bearer.CLIENT:
            assert after.credited == taken[0]
        else:
            assert after.credit_due == taken[0]
        assert credits(after, await pipes_of(sender, id), after.epoch) == []

    market(scenario)


async def with_frames(market: Market, sender: Any, purchase: Any, count: Any) -> None:
    """A pipe of the sender's over which so many frames with data have gone."""
    id, program = purchase.channel.id, Program()
    pipe_module.keep(program, pipe_module.open(program, id))
    await sender.execute(program)
    (own,) = await pipes_of(sender, id)
    program = Program()
    for _ in range(count):
        pipe_module.send(program, own.id, id, market.serving.host, FULL)
    await sender.execute(program)


async def claim_for(sender: Any, purchase: Any, sequence: Any, requests: Any) -> None:
    size = requests * CREDIT_BYTES
    signed = purchase.in_use.key.sign(
        Voucher(purchase.channel.id, 0, sequence, 1000 * requests, requests, size)
    )
    program = Program()
    channel_module.claim_for(program, signed.voucher, signed.signature)
    await sender.execute(program)


def test_a_client_that_has_paid_more_itself_owes_the_transport_all_the_same(market: Play) -> None:
    """It takes one MIST, under whatever sequence, before it leaves: the server's voucher is its evidence."""

    async def scenario(market: Market) -> None:
        await market.serve(give, terms=replace(TERMS, bearer=Bearer.CLIENT, credit=1_000_000))
        buyer, purchase = await own_channel(market)
        server, store = market.serving.chain, market.store()
        await with_frames(market, server, purchase, 3)
        await claim_for(buyer["network"], purchase, 2**63 - 1, 3)
        store.received_all(
            [(purchase.in_use.key.sign(Voucher(purchase.channel.id, 0, 1, 2000, 2, USED.bytes)), USED)]
        )
        journal = Journal(store)
        await Cashier(server, journal, market.chain.now_ms, policy=CHEAP).poll(closing=True)
        known = await server.read(channel_module.SCHEMA, channel_module.Channel, purchase.channel.id)
        assert (known.claimed, known.requests, known.credited) == (3000, 2, 2_000_000)
        await journal.close()

    market(scenario)


def test_a_stranger_who_asks_for_the_close_takes_no_transport_from_the_server(market: Play) -> None:
    """... beside an agreement that its client may still use: nobody may be the first to give that up."""

    async def scenario(market: Market) -> None:
        await market.serve(give, terms=replace(TERMS, bearer=Bearer.CLIENT, credit=1_000_000))
        _, purchase = await own_channel(market)
        server, store, stranger = market.serving.chain, market.store(), await market.buyer()
        await with_frames(market, server, purchase, 3)
        store.received_all(
            [(purchase.in_use.key.sign(Voucher(purchase.channel.id, 0, 1, 2000, 2, USED.bytes)), USED)]
        )
        market.chain.advance(TERMS.idle_ms + 1)
        until = market.chain.now_ms() + TERMS.claim_ms // 2
        store.save_agreement(purchase.channel.id, 2_002_000, until, server.chain_id)
        await request_close(stranger["network"], purchase.channel)
        journal, busy = Journal(store), [purchase.channel.id]
        await Cashier(server, journal, market.chain.now_ms, policy=CHEAP, busy=lambda: busy).poll()
        known = await server.read(channel_module.SCHEMA, channel_module.Channel, purchase.channel.id)
        assert (known.state, known.claimed, known.credited) == (ChannelState.CLOSING, 2000, 2_000_000)
        # And its client doesn't use what was agreed, which has the same in it.
        public, total = market.server_wallet.public_key, 2_002_000
        await purchase.in_use.journal.run(
            lambda each: each.save_signed(store.sold_lanes(purchase.channel.id)[0].newest, USED)
        )
        assert not await purchase.closing.is_fair(Agreed(total, until, public, bytes(64)))
        await journal.close()

    market(scenario)


async def claim_is_late(server: Any, known: Any) -> None:
    """The chain gives no credit after the time for claims."""
    (own,) = await pipes_of(server, known.id)
    program = Program()
    program.transfer([pipe_module.collect_credit(program, own.id, known.id)], server.address)
    with pytest.raises(MoveAborted) as late:
        await server.execute(program)
    assert late.value.error is channel_module.ChannelError.CLAIM_WINDOW_OVER


@pytest.mark.parametrize("bearer", [Bearer.SPLIT, Bearer.CLIENT])
def test_a_server_keeps_pipes_of_a_closing_channel_until_nothing_can_be_credited(
    market: Play, bearer: Any
) -> None:
    """A client that asks for the close before its server claims had the bytes, and the transport would be lost."""

    async def scenario(market: Market) -> None:
        await market.serve(give, terms=replace(TERMS, bearer=bearer, credit=70_000 if bearer else 0))
        _, purchase = await own_channel(market)
        server = market.serving.chain
        await with_frames(market, server, purchase, 3)
        assert await reclaim(server) == Reclaimed((), 0)
        await request_close(purchase.in_use.chain, purchase.channel)
        if bearer is Bearer.SPLIT:
            assert await reclaim(server) == Reclaimed((), 1)
            return
        assert await reclaim(server) == Reclaimed((), 0)
        await claim_for(server, purchase, 1, 2)
        known = await server.read(channel_module.SCHEMA, channel_module.Channel, purchase.channel.id)
        taken = await take_credits(server, known, 1)
        assert taken is not None
        assert taken[0] == 2 * 70_000
        assert await reclaim(server) == Reclaimed((), 0)  # a third frame was sent, and evidence may come
        market.chain.advance(TERMS.claim_ms)
        await claim_is_late(server, known)
        assert await reclaim(server) == Reclaimed((), 1)

    market(scenario)


def test_a_client_that_gives_its_pipes_back_notes_what_they_are_credited_with(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give, terms=replace(TERMS, bearer=Bearer.SERVER, credit=70_000))
        _, purchase = await own_channel(market)
        await with_frames(market, purchase.in_use.chain, purchase, 3)
        await claim_for(market.serving.chain, purchase, 1, 2)
        assert await reclaim(purchase.in_use.chain, close=True) == Reclaimed((purchase.channel.id,), 1)
        known = await purchase.in_use.chain.read(
            channel_module.SCHEMA, channel_module.Channel, purchase.channel.id
        )
        assert (known.state, known.credit_due) == (ChannelState.CLOSING, 2 * 70_000)

    market(scenario)


#: About what a frame costs, so that nineteen of them are within the deposit.
CREDIT = 20_000_000


async def through_pipes(market: Market, bearer: Any, size: Any) -> Any:
    """Buy `size` bytes through the chain, and close: the connection, and what the chain said of the end."""
    limits = Limits(handshake=60)
    await market.serve(
        give, pipe=True, limits=limits, terms=replace(TERMS, bearer=bearer, credit=CREDIT if bearer else 0)
    )
    buyer = await market.buyer()
    address = Address.parse(f"{market.serving.address}?via=pipe")
    async with market.connect(buyer, address=address, limits=limits) as connection:
        assert await fetch(connection, size) == size
    assert await market.channels(buyer) == [None]
    chain = buyer["network"]
    events = EventFollower(chain, event_types(chain, channel_module.SCHEMA), start=0)
    found = [
        channel_module.SCHEMA.decode(kind, each.event.contents)
        async for each in events.past_events()
        for kind in (channel_module.Settled, channel_module.ChannelOpened)
        if each.event.type.endswith(f"::{kind.__name__}")
    ]
    (opened,) = (
        each
        for each in found
        if isinstance(each, channel_module.ChannelOpened) and each.client == chain.address
    )  # one channel: pipes go over the one that pays
    (settled,) = (
        each for each in found if isinstance(each, channel_module.Settled) and each.channel == opened.channel
    )
    assert await pipes_of(chain, opened.channel) == []  # their storage deposits came back
    return connection, settled


@pytest.mark.slow
def test_frames_that_are_sent_for_their_credit_alone_cost_more_than_they_save(market: Play) -> None:
    """The server bears transport, and all goes by TCP: the client sends frames of a byte, and closes by agreement."""

    async def scenario(market: Market) -> None:
        terms = replace(TERMS, bearer=Bearer.SERVER, credit=frame_credit(1000), price_mib=2_000_000_000)
        await market.serve(give, terms=terms)
        buyer = await market.buyer()
        chain, gas = buyer["network"], 0
        async with market.connect(buyer, budget=2_500_000_000) as connection:
            assert await fetch(connection, MIB) == MIB
            purchase, program = connection.meter.purchase, Program()
            pipe_module.keep(program, pipe_module.open(program, purchase.channel.id))
            await chain.execute(program)
            (own,) = await pipes_of(chain, purchase.channel.id)
            for _ in range(3):
                program = Program()
                for _ in range(20):
                    pipe_module.send(program, own.id, purchase.channel.id, market.serving.host, b"x")
                gas += (await chain.execute(program)).gas.net
        claimed = market.serving.cashier.claimed[SUI_COIN]
        saved = connection.paid - purchase.closing.closed.to_server - claimed
        assert 0 < saved < 0.75 * gas

    market(scenario)


@pytest.mark.parametrize("bearer", list(Bearer))
def test_a_close_by_agreement_has_the_cost_of_transport_in_it(market: Play, bearer: Any) -> None:
    async def scenario(market: Market) -> None:
        connection, settled = await through_pipes(market, bearer, 300_000)
        paid, used = connection.paid, connection.usage
        assert paid > 0
        if bearer is Bearer.SPLIT:
            assert settled.to_server == paid
        elif bearer is Bearer.CLIENT:
            # All of the bytes are credited, and nothing beyond the evidence.
            most = used.bytes * CREDIT // CREDIT_BYTES
            assert 0.95 * most < settled.to_server - paid <= most
        else:
            assert settled.to_server == 0  # the client's frames came to more than it had to pay

    market(scenario)


def test_pipes_of_a_channel_that_does_not_pay_are_refused_where_the_client_bears_transport(
    market: Play,
) -> None:
    """As they come without `pipe_channel`: of a channel with the least deposit, which no voucher is for."""

    async def scenario(market: Market) -> None:
        limits = Limits(handshake=60)
        terms = replace(TERMS, bearer=Bearer.CLIENT, credit=CREDIT)
        await market.serve(give, pipe=True, limits=limits, terms=terms)
        buyer = await market.buyer()
        address = Address.parse(f"{market.serving.address}?via=pipe")
        resolvers = (HostResolver(HostDirectory(buyer["network"])),)
        with pytest.raises(ConnectionRefused, match="those of the channel that pays") as refused:
            await market.connect(buyer, address=address, limits=limits, resolvers=resolvers)
        assert refused.value.close_code == CloseCode.PAYMENT

    market(scenario)


def test_a_server_that_wants_more_for_transport_than_it_sent_gets_no_signature_used(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give, terms=replace(TERMS, bearer=Bearer.CLIENT, credit=CREDIT))
        _, purchase = await own_channel(market)
        chain, id = market.serving.chain, purchase.channel.id
        program = Program()
        pipe_module.keep(program, pipe_module.open(program, id))
        await chain.execute(program)
        (own,) = await pipes_of(chain, id)
        for data in (b"", b"", FULL, b"", FULL):
            program = Program()
            pipe_module.send(program, own.id, id, market.serving.host, data)
            await chain.execute(program)

        def asks(total: int) -> Agreed:
            return Agreed(total, 2**63, b"", b"")

        # Nothing was used, so nothing is owed, however much was sent.
        assert await agreed_total(purchase.in_use.chain, purchase.channel, 0, Usage()) == 0
        assert not await purchase.closing.is_fair(asks(1))
        # Two frames had data, so no more is credited however much was used; and requests credit nothing.
        for used in (2, 100):
            assert await agreed_total(
                purchase.in_use.chain, purchase.channel, 1000, Usage(0, used * CREDIT_BYTES)
            ) == (1000 + 2 * CREDIT)
        assert (
            await agreed_total(purchase.in_use.chain, purchase.channel, 1000, Usage(9, CREDIT_BYTES))
            == 1000 + CREDIT
        )
        assert await agreed_total(purchase.in_use.chain, purchase.channel, 1000, Usage(9, 0)) == 1000

    market(scenario)


@given(
    st.sampled_from(Bearer),
    st.integers(0, 50),
    st.integers(0, 1 << 20),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60), st.sampled_from(Direction)), max_size=4),
)
def test_what_accrues_is_never_above_evidence_or_frames_with_data(
    bearer: Any, requests: Any, size: Any, sent: Any
) -> None:
    pipes = [
        pipe(max(frames, credited), min(frames, credited), direction, index)
        for index, (frames, credited, direction) in enumerate(sent)
    ]
    amount = accrued(borne(bearer), pipes, Usage(requests, size))
    sent = sum(each.metered - each.credited for each in pipes if each.direction == borne_direction(bearer))
    assert amount == 50 * min(sent, size) // CREDIT_BYTES


def test_credits_are_worth_a_claim_that_vouchers_alone_are_not() -> None:
    policy = Policy(gas_base=1_000_000, gas_channel=500_000, gas_lane=0, gas_coin=0, worth=20)
    held = voucher_for(1000)
    assert decide(held, NOW, 7, policy).action is Action.WAIT
    worth_it = replace(held, credits=20 * 1_500_000)
    assert decide(worth_it, NOW, 7, policy).action is Action.CLAIM
    closing = replace(held, channel=replace(held.channel, state=ChannelState.CLOSING, closing_ms=NOW))
    assert decide(closing, NOW + 1, 7, policy).action is Action.WAIT
    assert decide(replace(closing, credits=1_500_000), NOW + 1, 7, policy).action is Action.CLAIM
    assert at_close(replace(held, credits=1_500_000), NOW, policy).action is Action.CLAIM
    # Without a voucher to claim they are evidence of nothing.
    assert at_close(replace(held, lanes=(), credits=10**18), NOW, policy).action is Action.WAIT


def test_the_deposit_covers_transport_that_the_client_bears() -> None:
    """Serving stops where vouchers and credits together would be more than the deposit."""
    per_mib = 64 * 1_000_000
    terms = replace(PLAIN, bearer=Bearer.CLIENT, credit=1_000_000)
    assert carriage(terms) == Prices(0, per_mib)
    assert carriage(replace(terms, bearer=Bearer.SERVER)) == carriage(replace(terms, credit=0)) == NO_CARRIAGE
    deposit = Prices(PRICES.request, PRICES.mib + per_mib).cost_of(Usage(1, 3 * MIB))
    meters = Meters(deposit=deposit).connect()
    meters.payee = replace_carriage(meters.payee, carriage(terms))
    meters.request()
    assert meters.stream(50 * MIB) == 3 * MIB
    assert meters.payee.spent
    assert meters.paid <= PRICES.cost_of(Usage(1, 3 * MIB))
    assert deposit - PRICES.cost_of(Usage(1, 3 * MIB)) == 3 * per_mib


@pytest.mark.parametrize("believed", [None, 10**6, 10**12])
def test_the_deposit_ends_what_transport_takes_where_bytes_have_no_price(believed: Any) -> None:
    """Whatever of the deposit is served for before more is claimed: the bytes were without any end there."""
    per_mib = 64_000_000
    meters = Meters(prices=Prices(1000, 0)).connect()
    meters.payee.deposit.keep_for(Prices(0, per_mib))
    meters.payee.set_affordable(1000 + 3 * per_mib, meters.now, believed)
    meters.request()
    assert meters.stream(50 * MIB) == 3 * MIB
    assert meters.payee.spent


def replace_carriage(payee: Any, prices: Any) -> Any:
    payee.deposit.keep_for(prices)
    return payee


def test_a_price_cap_minds_what_transport_may_come_to(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give, terms=replace(TERMS, bearer=Bearer.CLIENT, credit=1000))
        buyer = await market.buyer()
        with pytest.raises(PriceTooHigh, match=r"up to 0\.000064 SUI for transport"):
            await market.connect(buyer, most_per_mib=2_063_999)
        async with market.connect(buyer, most_per_mib=2_064_000, most_per_request=2000) as connection:
            assert await fetch(connection, 1000) == 1000

    market(scenario)
