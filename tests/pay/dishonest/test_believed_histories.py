"""How far a deposit is believed (decision 0184), in random histories against a second model: a plain sum of money.

Real meters of several lanes serve a client that signs for all that it uses, whatever the channel holds. The chain
here has a deposit that the server never sees; a node that lies shows any. The model knows what was served and what
the chain has paid, and no rule of the meters.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.chain.channel import Claimed
from dtp.pay.claims import Policy
from dtp.pay.server.backing import came_to_nothing, contradiction
from dtp.pay.server.ledger import _Entry
from dtp.pay.server.payee import Payee
from dtp.pay.server.stored_vouchers import PayeeLane
from dtp.pay.terms import MIB, Exposure, Usage

from ..meters import CHANNEL, KEY, PRICES, voucher
from ..selling.test_claims import channel, lane

LIMIT = 10_000_000
POLICY = Policy(most_unclaimed=LIMIT)
EXPOSURE = Exposure(MIB, MIB, 8, 8, 30.0)
#: What a lane may use unpaid, and half a request by which each sum is rounded.
UNPAID = PRICES.cost_of(Usage(9, MIB)) + 1
SHOWN = 10**15


@dataclass
class World:
    """A channel with lanes at a server, and what the chain holds in truth."""

    deposit: int
    lanes: int
    lies: str  # "", "deposit": it shows a larger one, "paid": and claims as paid that weren't
    paid: int = 0
    is_over: bool = False
    sequence: int = 0
    used: dict[Any, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.entry = _Entry(self.show(channel(lanes=(lane(),) * self.lanes)), {})
        self.payees = []
        for number in range(self.lanes):
            payee = Payee(PayeeLane(CHANNEL, number), PRICES, SHOWN, EXPOSURE)
            payee.begin(0.0)
            self.payees.append(payee)
            self.used[number] = Usage()
        self.spread()

    def show(self, found: Any) -> Any:
        """The channel as the node shows it."""
        held = SHOWN if self.lies else self.deposit - self.paid
        return replace(found, deposited=held + found.claimed, balance=held)

    def spread(self) -> None:
        for number, payee in enumerate(self.payees):
            affordable = self.entry.affordable_amount(number)
            payee.set_affordable(affordable, 0.0, self.entry.trusted_amount(number, POLICY))

    def serve(self, number: Any, requests: Any, wanted: Any) -> None:
        """Serve what the meter lets: requests while it serves, and bytes up to its allowance."""
        payee, used = self.payees[number], self.used[number]
        for _ in range(requests * (not self.is_over)):
            if payee.serving:
                used = Usage(used.requests + 1, used.bytes)
                payee.set_counts(used.requests, used.bytes, 0, 0.0)
        if not self.is_over:
            used = Usage(used.requests, max(used.bytes, min(used.bytes + wanted, payee.send_limit())))
            payee.set_counts(used.requests, used.bytes, 0, 0.0)
        self.used[number] = used

    def vouch(self, number: Any) -> None:
        """The client signs for all that it used, whatever is in the channel, if the server takes it."""
        self.sequence += 1
        said = voucher(self.sequence, *self.used[number], lane=number)
        if self.is_over or said.amount > self.entry.affordable_amount(number):
            return
        self.payees[number].voucher_stored(KEY.sign(said), 0, 0.0)
        self.entry.vouched[number] = said.amount
        self.spread()

    def claim(self) -> None:
        """The chain pays what it holds, and its events say so; objects are as the node likes."""
        shown = self.entry.channel
        amounts = [self.entry.vouched.get(number, 0) for number in range(self.lanes)]
        more = sum(amounts) - sum(each.amount for each in shown.lanes)
        if self.is_over or not more:
            return
        paid = min(more, self.deposit - self.paid)
        self.paid += paid
        lanes = tuple(replace(one, amount=amount) for one, amount in zip(shown.lanes, amounts, strict=True))
        told, owed = (more, 0) if self.lies == "paid" else (paid, more - paid)
        found = self.show(replace(shown, lanes=lanes, claimed=shown.claimed + told, owed=owed))
        changed = [number for number, one in enumerate(shown.lanes) if amounts[number] > one.amount]
        events = [
            Claimed(CHANNEL, number, self.sequence, amounts[number], paid, b"", found.coin)
            for number in changed
        ]
        if came_to_nothing(shown, events) or contradiction(found) is not None:
            self.is_over = True
        self.entry.channel = found
        self.spread()

    @property
    def lost(self) -> Any:
        """What was served and the chain will never pay: vouchers above the deposit are worth nothing."""
        served = sum(PRICES.cost_of(each) for each in self.used.values())
        return served - min(self.deposit, sum(self.entry.vouched.values()))


LIES = {"": 0, "deposit": LIMIT, "paid": 2 * LIMIT}


@given(
    st.data(), st.sampled_from(sorted(LIES)), st.integers(1, 3), st.sampled_from([0, 3_000_000, 40_000_000])
)
def test_a_server_loses_what_is_believed_and_an_exposure_for_each_lane_in_any_history(
    data: Any, lies: Any, lanes: Any, deposit: Any
) -> None:
    world = World(deposit, lanes, lies)
    steps = st.tuples(
        st.integers(0, lanes - 1),
        st.integers(0, 4),
        st.integers(0, 3 * MIB),
        st.sampled_from(["", "vouch", "claim"]),
    )
    for number, requests, size, then in data.draw(st.lists(steps, max_size=40)):
        world.serve(number, requests, size)
        if then:
            world.vouch(number)
        if then == "claim":
            world.claim()
        assert world.lost <= LIES[lies] + lanes * UNPAID


@pytest.mark.parametrize(("lies", "least"), [("deposit", LIMIT), ("paid", 2 * LIMIT)])
def test_who_lies_gets_no_less_than_that(lies: Any, least: Any) -> None:
    """Else the histories above would show nothing."""
    world = World(1, 1, lies)
    for _ in range(60):
        before = world.used[0]
        world.serve(0, 0, MIB)
        world.vouch(0)
        if world.used[0] == before:  # nothing more before it is claimed
            world.claim()
    assert world.is_over
    assert 0.9 * least <= world.lost <= least + UNPAID


@pytest.mark.parametrize("lanes", [1, 3])
def test_an_honest_client_is_served_all_of_its_deposit(lanes: Any) -> None:
    world = World(40_000_000, lanes, "")
    for _ in range(60):
        for number in range(lanes):
            world.serve(number, 0, MIB)
            world.vouch(number)
            world.claim()
    assert not world.is_over
    assert world.paid > 0.9 * world.deposit
