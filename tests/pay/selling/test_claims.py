"""When to claim, as transcripts: what is known of a channel goes in, what to do comes out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dtp.chain.channel import Channel, ChannelState, Lane
from dtp.chain.host import NO_CAP, Bearer, Terms
from dtp.pay.claims import (
    MINUTE,
    Action,
    Gas,
    Policy,
    View,
    at_close,
    claimable,
    claims_are_over,
    decide,
    gain_of,
    plan,
    rests,
)
from dtp.pay.server.book import affordable
from dtp.pay.store import End, Sold
from dtp.pay.voucher import LaneKey

from ..meters import CHANNEL, KEY, lock_of, voucher

HOUR = 60 * MINUTE
TERMS = Terms(price_request=1000, price_mib=2_000_000, idle_ms=24 * HOUR, claim_ms=HOUR)
POLICY = Policy(gas_base=1_000_000, gas_channel=500_000, gas_lane=0, gas_coin=0, worth=20, worth_last=1)
NOW = 100 * HOUR


def lane(sequence: int = 0, amount: int = 0, requests: int = 0, size: int = 0) -> Any:
    return Lane(KEY.public, b"", 0, sequence, amount, requests, size)


def channel(**changes: Any) -> Any:
    made = Channel(
        id=CHANNEL, version=1, host="0xa", service=1, client="0xc", server="0x5", terms=TERMS, pass_=None,
        state=ChannelState.OPEN, balance=10**9, client_credit=0, deposited=10**9, claimed=0, credited=0, refunded=0,
        owed=0, credit_due=0, requests=0, bytes=0, credited_bytes=0, epoch=7, epoch_spent=0, lanes=(lane(),),
        acks_to_server=(), acks_to_client=(), free_to_server=(), free_to_client=(),
        opened_ms=NOW, active_ms=NOW, closing_ms=0,
    )  # fmt: skip
    return replace(made, **changes)


def sold(sequence: int = 1, requests: int = 0, number: int = 0, preimage: Any = None, **changes: Any) -> Any:
    return Sold(CHANNEL, number, KEY.sign(voucher(sequence, requests, lane=number, **changes)), preimage)


def view(amount: Any, **changes: Any) -> Any:
    """A channel with one voucher of `amount` (1,000 a request)."""
    end = changes.pop("end", None)
    return View(channel(**changes), (sold(1, amount // 1000),) if amount else (), end)


WORTH_IT = 20 * 1_500_000
#: Worth its gas, and not yet worth claiming by itself.
SOME = 2_000_000
NOT_WORTH = 1_400_000


@pytest.mark.parametrize(
    ("case", "now", "action"),
    [
        (view(0), NOW, Action.WAIT),
        (view(WORTH_IT - 1000), NOW, Action.WAIT),
        (view(WORTH_IT), NOW, Action.CLAIM),
        # Before anyone may ask for its close: a margin of ten minutes.
        (view(SOME), NOW + 24 * HOUR - 10 * MINUTE - 1, Action.WAIT),
        (view(SOME), NOW + 24 * HOUR - 10 * MINUTE, Action.CLAIM),
        (view(NOT_WORTH), NOW + 24 * HOUR, Action.WAIT),
        # Half the time, where that is less than the margin.
        (view(SOME, terms=replace(TERMS, idle_ms=2 * MINUTE)), NOW + MINUTE - 1, Action.WAIT),
        (view(SOME, terms=replace(TERMS, idle_ms=2 * MINUTE)), NOW + MINUTE, Action.CLAIM),
        # The client asked to close: at once, while claims count.
        (view(SOME, state=ChannelState.CLOSING, closing_ms=NOW), NOW, Action.CLAIM),
        (view(NOT_WORTH, state=ChannelState.CLOSING, closing_ms=NOW), NOW, Action.WAIT),
        (view(SOME, state=ChannelState.CLOSING, closing_ms=NOW), NOW + HOUR - 1, Action.CLAIM),
        (view(SOME, state=ChannelState.CLOSING, closing_ms=NOW), NOW + HOUR, Action.WAIT),
        # Too late for claims, but something is owed from before: end it for that.
        (view(0, state=ChannelState.CLOSING, closing_ms=NOW, owed=SOME), NOW + HOUR, Action.FINALIZE),
        (view(0, state=ChannelState.CLOSING, closing_ms=NOW, owed=SOME, balance=5), NOW + HOUR, Action.WAIT),
        # What the epoch cap kept back, an epoch later.
        (view(0, owed=SOME, epoch=7), NOW, Action.WAIT),
        (view(0, owed=SOME, epoch=6), NOW, Action.PAY_OWED),
        (view(0, owed=NOT_WORTH, epoch=6), NOW, Action.WAIT),
        (view(0, owed=SOME, epoch=6, balance=5), NOW, Action.WAIT),
        (view(0, owed=SOME, epoch=6, terms=replace(TERMS, epoch_cap=10)), NOW, Action.WAIT),
        (view(0, state=ChannelState.DRAINING, owed=SOME, epoch=6), NOW, Action.FINALIZE),
        (view(0, state=ChannelState.DRAINING, owed=SOME, epoch=7), NOW, Action.WAIT),
        (
            view(0, state=ChannelState.DRAINING, owed=SOME, epoch=6, terms=replace(TERMS, epoch_cap=10)),
            NOW,
            Action.WAIT,
        ),
        (view(SOME, state=ChannelState.CLOSED), NOW, Action.FORGET),
        # Agreed to be closed: the client does it, until the signature has ended.
        (view(WORTH_IT, end=End(CHANNEL, WORTH_IT, NOW, False)), NOW, Action.WAIT),
        (view(SOME, end=End(CHANNEL, SOME, NOW, False)), NOW + MINUTE, Action.WAIT),
        (view(SOME, end=End(CHANNEL, SOME, NOW, False)), NOW + MINUTE + 1, Action.RELEASE),
        (view(NOT_WORTH, end=End(CHANNEL, NOT_WORTH, NOW, False)), NOW + HOUR, Action.WAIT),
    ],
)
def test_one_channel(case: Any, now: Any, action: Any) -> None:
    assert decide(case, now, 7, POLICY).action is action


@pytest.mark.parametrize(
    ("case", "rests_"),
    [
        (view(0), True),
        (view(NOT_WORTH - 1000), True),
        (view(SOME), False),
        (view(SOME, lanes=(lane(1, SOME),)), True),  # claimed already
        (view(NOT_WORTH - 1000, owed=SOME), False),
        (view(0, state=ChannelState.DRAINING, owed=SOME), False),
        (view(0, state=ChannelState.DRAINING), True),
        (view(NOT_WORTH - 1000, state=ChannelState.CLOSING, closing_ms=NOW), True),
        (view(0, state=ChannelState.CLOSED), False),  # it is forgotten at once
        # The node is behind, and doesn't know the lane.
        (View(channel(), (sold(1, SOME // 1000, 9),)), False),
    ],
)
def test_what_needs_no_looking_at_until_another_voucher_comes(case: Any, rests_: Any) -> None:
    assert rests(case, POLICY) is rests_
    for later in (NOW, NOW + 100 * HOUR) if rests_ else ():
        assert decide(case, later, 9, POLICY).action is Action.WAIT


def test_what_is_worth_claiming_beside_others_is_looked_at() -> None:
    cheap = replace(POLICY, worth=1, gas_base=POLICY.gas_channel)
    assert rests(view(POLICY.gas_channel - 1), cheap)
    assert not rests(view(POLICY.gas_channel), cheap)


def test_what_is_claimable() -> None:
    known = channel(lanes=(lane(3, 3000, 3), lane(), lane(), lane(), lane()))
    older, equal, newer = (
        sold(2, 2),
        sold(3, 3),
        sold(2, 9),
    )  # whatever the sequence: the chain goes by the amount
    locked = sold(1, 5, 1, hash_lock=lock_of(b"k" * 32))
    opened = sold(1, 5, 2, b"k" * 32, hash_lock=lock_of(b"k" * 32))
    ended = sold(1, 5, 3, not_after_ms=NOW - 1)
    nowhere = sold(1, 5, 9)
    everything = View(known, (older, equal, newer, locked, opened, ended, nowhere))
    assert claimable(everything, NOW) == (newer, opened)
    assert gain_of(known, (newer, opened)) == 9000 - 3000 + 5000
    # Never more than is there and not owed already.
    assert gain_of(replace(known, balance=7000, owed=3000), (newer, opened)) == 4000
    assert gain_of(replace(known, balance=7000, owed=9000), (newer, opened)) == 0


def test_counts_alone_are_for_the_server_to_claim() -> None:
    """From anyone else the chain takes no voucher for nothing more, and a refused claim keeps others from it."""
    known = channel(lanes=(lane(3, 3000), lane(), lane(2**63 - 1, 3001)))
    held = _counts, money, _less = sold(3, 3), sold(1, 5, 1), sold(3, 3, 2)
    assert claimable(View(known, held), NOW) == (money,)
    # Also for less than was claimed: a client that has paid more itself would void the evidence for credits.
    assert claimable(View(known, held, ours=True), NOW) == held
    assert gain_of(known, held) == 5000


def test_a_voucher_is_claimed_before_it_ends() -> None:
    ends = View(channel(), (sold(1, SOME // 1000, not_after_ms=NOW + HOUR),))
    assert decide(ends, NOW + 50 * MINUTE - 1, 7, POLICY).action is Action.WAIT
    assert decide(ends, NOW + 50 * MINUTE, 7, POLICY).action is Action.CLAIM
    assert decide(ends, NOW + HOUR + 1, 7, POLICY).action is Action.WAIT


def test_a_voucher_of_a_key_that_was_changed_is_claimed_before_its_grace_ends() -> None:
    """Else a client changes its key, waits for `claim_ms`, and has had everything for nothing."""
    other = LaneKey.generate()
    rotated = replace(lane(), key=other.public, old_key=KEY.public, old_until_ms=NOW + HOUR)
    case = View(channel(lanes=(rotated,)), (sold(1, SOME // 1000),))
    assert decide(case, NOW + 50 * MINUTE - 2, 7, POLICY).action is Action.WAIT
    assert decide(case, NOW + 50 * MINUTE - 1, 7, POLICY).action is Action.CLAIM
    assert claimable(case, NOW + HOUR - 1) == case.lanes
    assert claimable(case, NOW + HOUR) == ()
    # A close that was asked for in the old key's time leaves it the whole window; one behind that time nothing.
    for closing, left in ((NOW + HOUR - 1, case.lanes), (NOW + HOUR, ())):
        late = channel(lanes=(rotated,), state=ChannelState.CLOSING, closing_ms=closing)
        assert claimable(View(late, case.lanes), NOW + HOUR + 1) == left
    # What the new key has signed is as good as ever.
    fresh = Sold(CHANNEL, 0, other.sign(voucher(2, SOME // 1000)), None)
    assert claimable(View(channel(lanes=(rotated,)), (fresh,)), NOW + HOUR) == (fresh,)


def test_small_sums_come_along_with_large_ones() -> None:
    small = replace(view(10_000_000), channel=channel(id="0x" + "02" * 32))
    tiny = replace(view(9_000_000), channel=channel(id="0x" + "03" * 32))
    assert plan([small, tiny], NOW, 7, POLICY) == []
    decisions = plan([tiny, small, view(WORTH_IT)], NOW, 7, POLICY)
    assert [each.gain for each in decisions] == [WORTH_IT, 10_000_000]  # 20 times its share of the gas


def test_at_the_end_of_a_server_everything_worth_its_gas_is_claimed() -> None:
    assert at_close(view(SOME), NOW, POLICY).action is Action.CLAIM
    assert at_close(view(NOT_WORTH), NOW, POLICY).action is Action.WAIT
    assert at_close(view(SOME, state=ChannelState.CLOSED), NOW, POLICY).action is Action.WAIT


@pytest.mark.parametrize(
    ("case", "now", "over"),
    [
        (channel(), NOW + 24 * HOUR, False),
        (channel(state=ChannelState.CLOSING, closing_ms=NOW), NOW + HOUR - 1, False),
        (channel(state=ChannelState.CLOSING, closing_ms=NOW), NOW + HOUR, True),
        (channel(state=ChannelState.DRAINING, closing_ms=NOW), NOW + HOUR, False),
        (channel(state=ChannelState.CLOSED, closing_ms=NOW), NOW + HOUR, False),
    ],
)
def test_when_anyone_may_finalize(case: Any, now: Any, over: Any) -> None:
    assert claims_are_over(case, now) is over


def test_what_a_lane_may_come_to() -> None:
    known = channel(deposited=100, lanes=(lane(1, 10), lane(2, 30), lane()))
    assert affordable(known, 0, {}) == 100 - 30
    assert affordable(known, 0, {0: 50, 1: 40}) == 100 - 40
    assert affordable(known, 2, {0: 50, 1: 20}) == 100 - 50 - 30
    assert affordable(known, 2, {0: 90, 1: 20}) == 0
    assert affordable(known, 0, {5: 25}) == 100 - 30 - 25  # a lane that our copy doesn't know yet
    # Transport credits of the server come out of the same deposit; those of the client don't.
    borne = replace(known, credited=20, terms=replace(TERMS, bearer=1))
    assert affordable(borne, 0, {}) == 50
    assert affordable(replace(borne, terms=replace(TERMS, bearer=2)), 0, {}) == 70
    assert TERMS.epoch_cap == NO_CAP


USDC = "0x" + "ab" * 32 + "::usdc::USDC"


def test_another_coin_is_not_weighed_against_mist() -> None:
    """Eight million units of a coin with six decimals are a fortune beside the gas, and eight million MIST aren't."""
    coins = replace(TERMS, coin=USDC)
    cents = view(NOT_WORTH, terms=coins)
    closing = view(NOT_WORTH, terms=coins, state=ChannelState.CLOSING, closing_ms=NOW)
    # What gas comes to in it isn't known: nothing is left to lie, and nothing is claimed before it has to be.
    assert decide(closing, NOW, 7, POLICY).action is Action.CLAIM
    assert at_close(cents, NOW, POLICY).action is Action.CLAIM
    assert decide(cents, NOW + 24 * HOUR - 10 * MINUTE, 7, POLICY).action is Action.CLAIM
    late = view(0, terms=coins, state=ChannelState.CLOSING, closing_ms=NOW, owed=1)
    assert decide(late, NOW + HOUR, 7, POLICY).action is Action.FINALIZE
    assert decide(view(0, terms=coins, owed=1, epoch=6), NOW, 7, POLICY).action is Action.PAY_OWED
    drained = view(0, terms=coins, state=ChannelState.DRAINING, owed=1, epoch=6)
    assert decide(drained, NOW, 7, POLICY).action is Action.FINALIZE
    unused = view(1000, terms=coins, end=End(CHANNEL, 1000, NOW, False))
    assert decide(unused, NOW + MINUTE + 1, 7, POLICY).action is Action.RELEASE
    assert decide(view(10**9, terms=coins), NOW, 7, POLICY).action is Action.WAIT
    assert len(plan([view(10**9, terms=coins), view(WORTH_IT)], NOW, 7, POLICY)) == 1
    # Where there is nothing to have, nothing is done for it.
    assert at_close(view(0, terms=coins), NOW, POLICY).action is Action.WAIT
    nothing = view(0, terms=coins, state=ChannelState.CLOSING, closing_ms=NOW)
    assert decide(nothing, NOW, 7, POLICY).action is Action.WAIT
    assert rests(nothing, POLICY)
    assert not rests(view(1000, terms=coins), POLICY)


def test_what_a_sui_is_worth_in_another_coin_can_be_said() -> None:
    """Three dollars: the 1,500,000 MIST of a claim are 4,500 millionths of one, and 20 times that is worth it."""
    policy = replace(POLICY, sui_in={USDC: 3_000_000})
    coins = replace(TERMS, coin=USDC)
    assert policy.gas_in(USDC) == Gas(4500, 1500, 90_000, 30_000)
    assert at_close(view(4000, terms=coins), NOW, policy).action is Action.WAIT
    assert at_close(view(5000, terms=coins), NOW, policy).action is Action.CLAIM
    assert decide(view(89_000, terms=coins), NOW, 7, policy).action is Action.WAIT
    assert decide(view(90_000, terms=coins), NOW, 7, policy).action is Action.CLAIM
    assert len(plan([view(30_000, terms=coins), view(WORTH_IT)], NOW, 7, policy)) == 2
    # Types are compared, not texts, and what is left of a division is rounded up.
    assert replace(POLICY, sui_in={"0xab::usdc::USDC": 1}).gas_in("0x00ab::usdc::USDC").alone == 1
    assert policy.gas_in("0x2::sui::SUI") == Gas(1_500_000, 500_000, 30_000_000, 10_000_000)


def test_after_the_time_for_claims_nothing_is_claimable() -> None:
    late = view(SOME, state=ChannelState.CLOSING, closing_ms=NOW)
    assert claimable(late, NOW + HOUR - 1)
    assert claimable(late, NOW + HOUR) == ()
    assert at_close(late, NOW + HOUR, POLICY).action is Action.WAIT


@pytest.mark.parametrize(("amount", "credits", "action"), [
    (SOME, 0, Action.RELEASE),
    (SOME, 1, Action.CLAIM),  # let go of, the channel pays no transport any more
    (1000, NOT_WORTH, Action.WAIT),
    (1000, SOME, Action.CLAIM),
    (0, SOME, Action.WAIT),  # the evidence is on the chain already
])  # fmt: skip
def test_an_agreement_that_nobody_used_costs_no_transport(amount: Any, credits: Any, action: Any) -> None:
    lapsing = replace(view(amount, end=End(CHANNEL, amount, NOW, False)), credits=credits)
    assert decide(lapsing, NOW + MINUTE + 1, 7, POLICY).action is action
    owing = replace(lapsing, channel=channel(owed=SOME))
    then = Action.PAY_OWED if action is Action.WAIT else action
    assert decide(owing, NOW + MINUTE + 1, 8, POLICY).action is then


def test_what_is_drained_to_the_last_is_not_finalized_again() -> None:
    """There is nothing to have, whatever is owed."""
    empty = view(0, state=ChannelState.DRAINING, owed=SOME, epoch=6, balance=0)
    assert decide(empty, NOW, 7, POLICY).action is Action.WAIT


@pytest.mark.parametrize("bearer", Bearer)
def test_a_server_that_ends_breaks_no_total_that_it_has_signed(bearer: Any) -> None:
    """Where it bears the client's transport the total is less than what the vouchers say."""
    case = View(
        channel(terms=replace(TERMS, bearer=bearer)), (sold(1, SOME // 1000),), End("", 1, NOW, False)
    )
    kept = Action.WAIT if bearer is Bearer.SERVER else Action.CLAIM
    assert at_close(case, NOW + MINUTE, POLICY).action is kept
    assert at_close(case, NOW + MINUTE + 1, POLICY).action is Action.CLAIM  # the client didn't use it
    assert at_close(replace(case, end=None), NOW, POLICY).action is Action.CLAIM


def test_nothing_comes_along_that_may_not_be_claimed() -> None:
    """Neither beside a signed total, nor when the chain takes no claims any more, although no close was asked for."""
    open_, drained = channel(), channel(state=ChannelState.DRAINING)
    many = (sold(1, WORTH_IT // 1000),)
    agreed, over = View(open_, many, End("", 1, NOW, False)), View(drained, many)
    worth = View(open_, many)
    (only,) = plan([agreed, over, worth], NOW, 7, POLICY)
    assert (only.view, only.action) == (worth, Action.CLAIM)
