"""A client whose node lies about its channel: it signs no more than its budget, and forgets no channel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dtp.chain.channel import SCHEMA, Channel, ChannelState, LaneChanged
from dtp.chain.errors import MalformedObject, NodeRefused
from dtp.chain.model import is_type
from dtp.errors import DtpError
from dtp.pay.client.lane_start import Reserved
from dtp.pay.errors import BudgetSpent, ChannelUnusable, CountsDisputed, PriceTooHigh
from dtp.pay.serving import Selling
from dtp.pay.terms import MIB

from ..buying.test_paid import cost_of, fetch, give
from ..conftest import CHEAP, TERMS, Market, Play
from ..meters import KEY


def lying(buyer: Any, **lies: Any) -> Any:
    """Have the buyer's node say this of every channel, until it is given back its honesty."""
    chain = buyer["network"]
    genuine = chain.read

    async def read(schema: Any, cls: Any, id: Any) -> Any:
        found = await genuine(schema, cls, id)
        return replace(found, **lies) if cls is Channel else found

    chain.read = read
    return lambda: setattr(chain, "read", genuine)


@pytest.mark.slow
def test_a_deposit_that_isn_t_there_is_not_signed_for_beyond_the_budget(market: Play) -> None:
    async def scenario(market: Market) -> None:
        # The server's patience is not to end it: whoever is busy would be closed while money is added.
        await market.serve(give, selling=Selling(policy=CHEAP, recheck=3600, claim_every=3600))
        buyer = await market.buyer()
        deposit, budget = cost_of(MIB), cost_of(3 * MIB)
        lying(buyer, deposited=10**15, balance=10**15)
        connection = await market.connect(buyer, budget=budget, deposit=deposit, keep=True)
        with pytest.raises(BudgetSpent):
            await fetch(connection, 8 * MIB)
        assert connection.paid <= budget
        await connection.close()
        (channel,) = await market.channels(buyer)
        assert (
            deposit < channel.deposited <= budget
        )  # what was said to be there wasn't believed, and money added
        assert channel.claimed <= channel.deposited

    market(scenario)


@pytest.mark.parametrize("what", ["key", "state"])
def test_a_channel_that_looks_like_another_one_s_is_not_used_and_not_forgotten(
    market: Play, what: Any
) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        async with market.connect(buyer, keep=True) as connection:
            await fetch(connection, 1000)
        (lane,) = connection.meter.purchase.channel.lanes
        lies = {"key": {"lanes": (replace(lane, key=KEY.public),)}, "state": {"state": ChannelState.CLOSED}}[
            what
        ]
        stop = lying(buyer, **lies)
        with pytest.raises(ChannelUnusable):
            await market.connect(buyer)
        stop()
        first, second = await market.channels(buyer)
        assert (first.state, second.state) == (ChannelState.OPEN, ChannelState.OPEN)
        known = {"key": "open", "state": "closing"}[what]  # which 'dtp channel close' looks at again
        assert [each.state for each in buyer["store"].bought_channels()] == [known, known]

    market(scenario)


@pytest.mark.parametrize("died", [False, True])
def test_claims_that_are_made_up_are_not_signed_for(market: Play, died: Any) -> None:
    """A server that is in it would claim the voucher: its counts went on from those that the node made up."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        async with market.connect(buyer, keep=True) as connection:
            await fetch(connection, 1000)
        (lane,) = connection.meter.purchase.channel.lanes
        store, id = buyer["store"], connection.meter.purchase.channel.id
        if died:  # so much may have been signed
            store.begin_lane(id, 0)
            store.reserve(id, 0, Reserved(100, cost_of(8 * MIB)))
        made_up = replace(lane, sequence=50, amount=cost_of(4 * MIB), requests=1, bytes=4 * MIB)
        lying(buyer, lanes=(made_up,))
        with pytest.raises(CountsDisputed if died else ChannelUnusable):
            await market.connect(buyer, keep=True)
        newest = [each.newest.voucher for _, each in store.payer_lanes(id)]
        assert [each.amount for each in newest] == [cost_of(1000)]

    market(scenario)


def test_other_parties_change_nothing_that_is_signed(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        lying(buyer, server="0x" + "5" * 64, client="0x" + "6" * 64, host="0x" + "7" * 64, service=9)
        async with market.connect(buyer) as connection:
            assert await fetch(connection, MIB) == MIB
        assert connection.paid == cost_of(MIB)
        assert await market.channels(buyer) == [None]
        assert connection.meter.purchase.closing.closed.to_server == cost_of(MIB)

    market(scenario)


def test_prices_that_are_made_up_are_refused_by_the_limit_or_by_the_server(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        lying(buyer, terms=replace(TERMS, price_mib=10 * TERMS.price_mib, revision=1))
        with pytest.raises(PriceTooHigh):
            await market.connect(buyer, most_per_mib=TERMS.price_mib)
        connection = await market.connect(buyer)
        with pytest.raises(DtpError, match="above what requests and bytes cost"):
            await fetch(connection, 2 * MIB)
        await connection.close()

    market(scenario)


def test_money_that_was_added_counts_whatever_the_node_says_of_the_channel_then(market: Play) -> None:
    """Else the connection would end as one that got no more, with that money in its channel."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        deposit, budget = cost_of(MIB), cost_of(12 * MIB)
        async with market.connect(buyer, budget=budget, deposit=deposit, keep=True) as connection:
            purchase, chain = connection.meter.purchase, buyer["network"]
            genuine, known = chain.object, purchase.channel

            async def another(id: Any, version: Any = None) -> Any:
                found = await genuine(id, version)
                other = replace(found.ref, id="0x" + "5" * 64)
                return replace(found, ref=other) if id == known.id else found

            chain.object = another
            with pytest.raises(MalformedObject):
                await chain.read(SCHEMA, Channel, known.id)
            added = await purchase.money.add_money(deposit)
            assert 2 * deposit <= added < budget
            assert purchase.money.funds == added
            assert purchase.channel == known
            chain.object = genuine
            assert await purchase.money.add_money(budget) == budget
        (channel,) = await market.channels(buyer)
        assert channel.deposited == budget

    market(scenario)


#: What a node may tell of the event that a lane was added: the contents of each event, of the genuine one's.
TOLD_OF_A_LANE: dict[str, Any] = {
    "nothing": lambda lane: [],
    "twice": lambda lane: [lane, lane],
    "another channel": lambda lane: [replace(lane, channel="0x" + "5" * 64)],
    "another key": lambda lane: [replace(lane, key=KEY.public)],
}


@pytest.mark.parametrize("told", TOLD_OF_A_LANE)
def test_a_lane_whose_event_is_made_up_is_a_named_error_and_is_found_later(market: Play, told: Any) -> None:
    """Its key is kept until a node says of the transaction what it did."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        chain, store = buyer["network"], buyer["store"]

        async def lie(genuine: Any, *arguments: Any) -> Any:
            outcome = await genuine(*arguments)
            (event,) = outcome.executed.events
            if not is_type(event.type, chain.type_of(SCHEMA, LaneChanged)):  # money that is added
                return outcome
            lanes = TOLD_OF_A_LANE[told](SCHEMA.decode(LaneChanged, event.contents))
            events = tuple(replace(event, contents=SCHEMA.encode(each)) for each in lanes)
            return replace(outcome, executed=replace(outcome.executed, events=events))

        async with market.connect(buyer, keep=True) as first:
            with chain.node.answering(execute=lie), pytest.raises(NodeRefused, match="it was executed"):
                await market.connect(buyer, keep=True)
            id = first.meter.purchase.channel.id
            assert [lane.lane for _, lane in store.payer_lanes(id)] == [0]
            assert len(store.kept_keys()) == 1
            async with market.connect(buyer, keep=True) as second:
                assert await fetch(second, 1000) == 1000
            assert second.meter.purchase.in_use.lane.lane == 1
        assert not store.kept_keys()
        (channel,) = await market.channels(buyer)
        assert len(channel.lanes) == 2  # no other was added

    market(scenario)
