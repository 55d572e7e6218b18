"""Guards of a server by itself: when it stops, what it says of that, and when it goes on."""

from __future__ import annotations

from typing import Any

import pytest

from dtp.pay import messages
from dtp.pay.errors import NotMetered
from dtp.pay.messages import build
from dtp.pay.server import payee
from dtp.pay.server.payee import Payee
from dtp.pay.server.stored_vouchers import Floor, PayeeLane
from dtp.pay.terms import MIB, NEVER, Exposure, Usage

from ..meters import CHANNEL, EXPOSURE, KEY, PRICES, SECRET, lock_of, voucher
from .test_guards import server


def locked_server() -> Any:
    """A server whose newest voucher is locked."""
    newest = KEY.sign(voucher(1, 1, hash_lock=lock_of(SECRET)))
    return Payee(PayeeLane(CHANNEL, 0, newest, Usage(1, 0), SECRET), PRICES, 10**12)


def revealed(made: Any) -> Any:
    frames = [each.frame for each in made.take_events() if isinstance(each, messages.SendFrame)]
    return [each for each in map(parsed, frames) if isinstance(each, messages.Reveal)]


def parsed(frame: Any) -> Any:
    return messages.parse(frame, from_client=False)


def test_no_lock_is_asked_for_behind_one_that_is_not_open() -> None:
    made = locked_server()
    assert not made.may_charge(locked=True)
    assert made.may_charge(locked=False)
    with pytest.raises(NotMetered):
        made.charge(1, 0.0, SECRET)
    made.charge(1, 0.0)
    assert not made.may_charge(locked=False)


def test_only_the_charge_that_is_asked_for_is_declined() -> None:
    made = server()
    made.charge(1, 0.0)
    made.take_events()
    made.receive_frame(build(messages.Decline(7)), 0.0)
    assert made.take_events() == []
    assert not made.may_charge(locked=False)
    made.receive_frame(build(messages.Decline(1)), 0.0)
    assert made.take_events() == [payee.ChargeRefused(1)]
    assert made.may_charge(locked=False)


def test_a_key_is_told_of_a_locked_voucher_only() -> None:
    made = locked_server()
    made.begin(0.0)
    assert revealed(made) == [messages.Reveal(SECRET)]
    asked_only = Payee(PayeeLane(CHANNEL, 0, KEY.sign(voucher(1, 1)), Usage(1, 0), SECRET), PRICES, 10**12)
    asked_only.begin(0.0)
    assert revealed(asked_only) == []


def test_the_floor_only_rises() -> None:
    made = server()
    made.raise_floor(Floor(5, 5000, 5, 0), 0.0)
    made.raise_floor(Floor(4, 4000, 4, 0), 0.0)
    assert made.vouchers.floor == Floor(5, 5000, 5, 0)
    assert made.vouchers.paid == Usage(5, 0)


def test_requests_that_nobody_can_pay_stop_what_comes_and_what_goes() -> None:
    made = server(affordable=2500, exposure=Exposure(MIB, MIB, 100, 100))
    made.begin(0.0)
    made.set_counts(2, 50, 70, 0.0)
    assert made.serving
    assert made.send_limit() > 50
    assert made.receive_limit() > 70
    made.set_counts(3, 50, 70, 0.0)
    assert not made.serving
    assert (made.send_limit(), made.receive_limit()) == (50, 70)


@pytest.mark.parametrize(
    "what", ["nothing", "not heard", "a charge", "a lock", "finished", "requests", "paused"]
)
def test_when_a_voucher_counts_at_once(what: Any) -> None:
    """Vouchers wait while much of the exposure is left, and never where somebody waits for one."""
    most = Exposure(64 * MIB, 64 * MIB, 16, 16)
    newest = KEY.sign(voucher(1, 0, 0, hash_lock=lock_of(SECRET))) if what == "a lock" else None
    made = Payee(PayeeLane(CHANNEL, 0, newest), PRICES, 10**12, most)
    made.begin(0.0)
    if what != "not heard":
        made.receive_frame(build(messages.Heard()), 0.0)
    if what == "a charge":
        made.charge(1, 0.0)
    if what == "finished":
        made.stop_sending()
    if what == "requests":
        made.set_counts(8, 0, 0, 0.0)
    if what == "paused":
        made.set_counts(0, 64 * MIB, 0, 0.0)
    assert (made.patience > 0) is (what == "nothing")


def said_by(made: Any) -> Any:
    """What the server says since the last call, by kind."""
    found = [
        messages.parse(each.frame, from_client=False)
        for each in made.take_events()
        if isinstance(each, messages.SendFrame)
    ]
    return [type(each) for each in found]


def test_a_lane_that_begins_above_its_exposure_is_told_so_at_once() -> None:
    """Whatever is said to the meter before it begins, the welcome comes first."""
    made = Payee(PayeeLane(CHANNEL, 0, used=Usage(0, 2 * MIB)), PRICES, 10**12)
    made.set_affordable(10**11, 0.0)
    assert made.take_events() == []
    made.begin(0.0)
    assert said_by(made) == [messages.Welcome, messages.Due]
    assert made.paused


@pytest.mark.parametrize("what", ["deposit", "quota", "floor"])
def test_serving_goes_on_as_soon_as_there_is_more(what: Any) -> None:
    made = server(affordable=1000 if what == "deposit" else 10**12)
    made.begin(0.0)
    if what == "quota":
        made.set_quota(None, MIB, 0.0)
    made.set_counts(1, 1 if what == "deposit" else MIB, 0, 0.0)
    made.take_events()
    assert made.paused
    match what:
        case "deposit":
            made.set_affordable(10**12, 0.0)
        case "quota":
            made.raise_floor(Floor(1, 1000, 1, MIB), 0.0)
            assert made.paused
            made.set_quota(None, 2 * MIB, 0.0)
        case _:
            made.raise_floor(Floor(1, 1000, 1, MIB), 0.0)
    assert made.take_events() == [payee.Paused(False)]
    assert not made.paused


def test_what_is_due_is_said_when_serving_stops_and_again_until_the_client_is_late() -> None:
    made = server(exposure=Exposure(patience=2.5))
    made.begin(0.0)
    made.receive_frame(build(messages.Heard()), 0.0)
    made.take_events()
    made.set_counts(0, MIB, 0, 10.0)
    assert said_by(made) == [messages.Due]
    assert made.next_deadline() == 11.0  # and not from the last thing that was repeated
    made.handle_timer(11.0)
    made.handle_timer(12.0)
    assert said_by(made) == [messages.Due] * 2
    assert made.next_deadline() == 12.5
    made.handle_timer(12.5)
    assert made.take_events() == [payee.Late()]
    made.handle_timer(12.6)
    assert made.take_events() == []


def test_nothing_that_is_paid_is_demanded() -> None:
    made = server()
    made.request_voucher()
    assert made.take_events() == []
    made.set_counts(1, 0, 0, 0.0)
    made.request_voucher()
    assert said_by(made) == [messages.Due]


def test_who_was_stopped_by_an_end_in_order_is_not_late() -> None:
    """The money is used up and all of it paid: the client asks for the close, and waits for the signature."""
    made = server(affordable=1000, exposure=Exposure(patience=2.5))
    made.begin(0.0)
    made.receive_frame(build(messages.Heard()), 0.0)
    made.set_counts(1, 0, 0, 0.0)
    made.voucher_stored(KEY.sign(voucher(1, 1)), 0, 0.0)
    made.set_counts(1, 0, 1024 * 1024, 0.0)
    assert made.paused
    made.stop_sending()
    made.take_events()
    made.handle_timer(3.0)
    assert made.take_events() == [payee.Paused(False)]
    assert made.next_deadline() == NEVER


def test_a_key_is_told_again_until_a_voucher_without_its_lock_comes() -> None:
    made = server()
    made.begin(0.0)
    made.receive_frame(build(messages.Heard()), 0.0)
    made.charge(1, 0.0, SECRET)
    made.voucher_stored(KEY.sign(voucher(1, 1, hash_lock=lock_of(SECRET))), 1, 0.0)
    assert messages.Reveal in said_by(made)
    assert made.next_deadline() == 1.0
    made.handle_timer(1.0)
    assert said_by(made) == [messages.Reveal]
    made.voucher_stored(KEY.sign(voucher(2, 1)), 1, 1.0)
    made.take_events()
    assert made.next_deadline() == NEVER


def test_credit_for_what_comes_ends_where_the_money_does() -> None:
    """Whatever may be unpaid: the last part of an upload is paid, or not taken."""
    made = server(affordable=PRICES.cost_of(Usage(0, 2 * MIB)))
    made.begin(0.0)
    made.set_counts(0, 0, MIB + MIB // 2, 0.0)
    made.voucher_stored(KEY.sign(voucher(1, 0, MIB + MIB // 2)), 0, 0.0)
    assert made.limit.bytes == MIB
    assert made.receive_limit() == 2 * MIB


@pytest.mark.parametrize(
    ("vouched", "opened", "moved", "owed"),
    [
        (MIB, 1, MIB + 65_536, Usage()),  # what was under way when the deposit ended
        (MIB - 9, 1, MIB + 65_536, Usage(0, 9)),
        (MIB - 9, 1, MIB - 5, Usage(0, 4)),
        (MIB, 2, MIB, Usage(1, 0)),
    ],
)
def test_nothing_is_owed_that_the_deposit_does_not_pay_for(
    vouched: int, opened: int, moved: int, owed: Usage
) -> None:
    """A channel that was used up while bytes were under way was closed by the chain only, a claim time later."""
    newest = KEY.sign(voucher(1, 1, vouched))
    made = Payee(PayeeLane(CHANNEL, 0, newest), PRICES, PRICES.cost_of(Usage(1, MIB)))
    made.set_counts(opened, moved, 0, 0.0)
    assert made.owed == owed


@pytest.mark.parametrize(
    ("told", "moved", "most", "owed"),
    [
        (1000, 0, 1000, Usage(0, 0)),
        (1000, 1500, 1500, Usage(0, 1500)),  # what was served before it was told is owed all the same
        (0, 1500, 1500, Usage(0, 1500)),
        (3 * MIB, 0, 2 * MIB, Usage(0, 0)),  # no more than the deposit
    ],
)
def test_nothing_is_served_or_owed_beyond_the_budget_that_a_client_tells(
    told: int, moved: int, most: int, owed: Usage
) -> None:
    """Where a channel held more, a server sent beyond the budget: that stayed unpaid, so no close was agreed on."""
    made = server(affordable=PRICES.cost_of(Usage(0, 2 * MIB)), exposure=EXPOSURE)
    made.begin(0.0)
    made.voucher_stored(KEY.sign(voucher(1, 0, 0)), 0, 0.0)
    made.set_counts(0, moved, 0, 0.0)
    made.receive_frame(build(messages.ToldBudget(PRICES.cost_of(Usage(0, told)))), 0.0)
    assert made.owed == owed
    assert made.send_limit() == min(most, EXPOSURE.first_bytes)
    made.set_counts(0, moved, 4 * MIB, 0.0)
    assert made.owed == Usage(0, most)
    assert made.spent


def test_a_budget_that_is_used_up_is_not_what_waits_for_a_claim() -> None:
    made = server(affordable=10**9)
    made.begin(0.0)
    made.set_affordable(10**9, 0.0, believed=PRICES.cost_of(Usage(0, MIB)))
    made.receive_frame(build(messages.ToldBudget(PRICES.cost_of(Usage(0, MIB)))), 0.0)
    made.set_counts(0, MIB, 0, 0.0)
    assert made.spent
    assert not made.unproven
