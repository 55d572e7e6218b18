"""No claim by the default policy costs more than it brings, whatever gas comes to."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dtp.chain.channel import ChannelState
from dtp.chain.host import NO_CAP
from dtp.pay.claims import Action, Decision, Policy, View, at_close, claimable, gain_of, plan, worthwhile
from dtp.pay.settling import settle
from dtp.pay.store import Sold

from ..clients import MovingOne
from ..meters import KEY, voucher
from .test_claims import HOUR, NOW, TERMS, channel, lane

POLICY = Policy()
SERVER = "0x5"
#: MIST of gas of a transaction, each channel and each lane in it: as the embedded node has it, and 30 times that.
GENUINE = (1_000_000, 63_080, 5_700)


def channel_of(number: Any, requests: Any, **changes: Any) -> Any:
    """A channel with a voucher for so many requests, of 1,000 MIST each, on each of its lanes."""
    id = f"0x{number + 1:064x}"
    made = channel(id=id, lanes=tuple(lane() for _ in requests), server=SERVER, **changes)
    sold = tuple(
        Sold(id, at, KEY.sign(voucher(1, each, lane=at, channel=id)), None)
        for at, each in enumerate(requests)
    )
    return View(made, sold, ours=True)


class Chain(MovingOne):
    """A chain that notes what the transactions that it executes cost."""

    address = SERVER
    max_gas_price = 10_000

    def __init__(self, gas: Any) -> None:
        self.gas, self.costs = gas, {}

    def cost(self, program: Any) -> Any:
        base, each, per_claim = self.gas
        claims = sum(
            getattr(one, "function", "") == "new_voucher" for one in program.commands(lambda _: "0x0")
        )
        channels = len(program.objects) - 1  # the clock is one
        return base + each * channels + per_claim * claims

    async def simulate(self, program: Any) -> Any:
        return SimpleNamespace(cost=self.cost(program), price=1000)

    def paying_from(self, allowance: Any) -> Any:
        assert allowance.highest_price == 1000
        return self

    async def execute(self, program: Any) -> Any:
        digest = str(len(self.costs))
        self.costs[digest] = self.cost(program)
        return self.executed(program, digest)


def executed(chain: Any, decisions: Any) -> Any:
    """What the transactions of these decisions brought and cost."""
    done = asyncio.run(settle(chain, decisions, POLICY.batch, policy=POLICY))
    return [(sum(each.worth for each in part), chain.costs[paid.digest]) for paid, part in done]


LANES = st.lists(st.integers(0, 40_000), min_size=1, max_size=16)
CHANNELS = st.lists(st.tuples(LANES, st.booleans()), min_size=1, max_size=12)


@given(
    channels=CHANNELS,
    late=st.booleans(),
    closing=st.booleans(),
    gas=st.sampled_from([GENUINE, (30_000_000, 2_000_000, 200_000), (1, 1, 6_000_000)]),
)
def test_no_claim_costs_more_than_it_brings(channels: Any, late: Any, closing: Any, gas: Any) -> None:
    views = [
        channel_of(at, lanes, **({"state": ChannelState.CLOSING, "closing_ms": NOW} if asked else {}))
        for at, (lanes, asked) in enumerate(channels)
    ]
    now = NOW + 24 * HOUR if late else NOW
    decisions = plan(views, now, 7, POLICY)
    if closing:
        planned = {each.view.channel.id for each in decisions}
        rest = (view for view in views if view.channel.id not in planned)
        decisions += [each for view in rest if (each := at_close(view, now, POLICY)).action is Action.CLAIM]
    for brought, cost in executed(Chain(gas), decisions):
        assert brought > cost


@given(channels=st.lists(LANES, min_size=1, max_size=12))
def test_each_lane_and_each_channel_brings_more_than_its_own_gas(channels: Any) -> None:
    """As the embedded node has it: what comes along with others pays for itself, too."""
    views = [channel_of(at, lanes) for at, lanes in enumerate(channels)]
    for decision in plan(views, NOW, 7, POLICY):
        known = decision.view.channel
        assert gain_of(known, decision.lanes) > GENUINE[1]
        for sold in decision.lanes:
            assert gain_of(known, [sold]) > GENUINE[2]


def test_lanes_that_bring_nothing_are_left_out() -> None:
    view = channel_of(1, [100_000, *[3] * 15])
    assert [each.lane for each in worthwhile(view, claimable(view, NOW), POLICY)] == [0]
    (decision,) = plan([view], NOW, 7, POLICY)
    assert [each.lane for each in decision.lanes] == [0]


def test_sixteen_lanes_that_are_worth_little_wait() -> None:
    """0.0092 SUI on 16 lanes were claimed for 0.101."""
    view = channel_of(1, [575] * 16)
    assert plan([view], NOW, 7, POLICY) == []
    (last,) = plan([view], NOW + 24 * HOUR, 7, POLICY)
    dear, cheap = Chain((1_000_000, 63_080, 6_000_000)), Chain(GENUINE)
    assert executed(dear, [last]) == []
    ((brought, cost),) = executed(cheap, [last])
    assert (brought, cost) == (16 * 575_000, 1_000_000 + 63_080 + 16 * 5_700)


def test_a_voucher_that_ends_is_claimed_where_most_of_it_is_left() -> None:
    """Of an hour's vouchers all that they were worth was spent on gas."""

    def ends(requests: Any) -> Any:
        sold = Sold("0x1", 0, KEY.sign(voucher(1, requests, not_after_ms=NOW + HOUR)), None)
        return View(channel(terms=replace(TERMS, epoch_cap=NO_CAP), server=SERVER), (sold,), ours=True)

    soon = NOW + HOUR - 60_000
    assert plan([ends(1_500)], soon, 7, POLICY) == []
    (decision,) = plan([ends(3_000)], soon, 7, POLICY)
    assert decision.gain >= POLICY.worth_last * POLICY.gas_in("0x2::sui::SUI", 1).alone


def test_who_names_a_channel_has_it_claimed_whatever_it_costs() -> None:
    view = channel_of(1, [1])
    decision = Decision(view, Action.CLAIM, view.lanes, 1000)
    chain = Chain(GENUINE)
    assert len(asyncio.run(settle(chain, [decision], 32))) == 1
    assert asyncio.run(settle(chain, [decision], 32, policy=POLICY)) == []
