"""Each guard of the two meters by itself: taken away, a test here fails."""

from __future__ import annotations

from typing import Any

import pytest

from dtp.pay import messages
from dtp.pay.client import payer_events
from dtp.pay.client.lane_start import PayerLane, Reserved
from dtp.pay.client.payer import Payer
from dtp.pay.errors import Flaw, MalformedMeter, NotMetered, VoucherRefused
from dtp.pay.messages import VoucherSaid, build
from dtp.pay.server import payee
from dtp.pay.server.payee import Payee
from dtp.pay.server.stored_vouchers import Floor, PayeeLane
from dtp.pay.terms import MIB, NEVER, Spending, Usage

from ..meters import CHANNEL, KEY, PRICES, SECRET, lock_of, voucher


@pytest.mark.parametrize(
    ("number", "requests", "size"),
    [
        (9, 9, 3 * MIB),  # for more money, but fewer requests
        (9, 5000, 2 * MIB - 1),  # ... or fewer bytes
    ],
)
def test_every_count_rises_by_itself(number: Any, requests: Any, size: Any) -> None:
    """A voucher for more in all and less in one count is refused by the chain."""
    payee = Payee(PayeeLane(CHANNEL, 0, KEY.sign(voucher(5, 10, 2 * MIB))), PRICES, 10**12)
    with pytest.raises(VoucherRefused) as refused:
        payee.receive_frame(build(VoucherSaid.of(KEY.sign(voucher(number, requests, size)), 0)), 0.0)
    assert refused.value.flaw is Flaw.SHRUNK


def test_numbers_begin_at_one() -> None:
    """The chain takes none that isn't above 0."""
    payee = Payee(PayeeLane(CHANNEL, 0), PRICES, 10**12)
    payee.receive_frame(build(VoucherSaid.of(KEY.sign(voucher(0, 20)), 0)), 0.0)
    assert payee.take_events() == []


@pytest.mark.parametrize(("requests", "size"), [(9, 3 * MIB), (5000, 2 * MIB - 1)])
def test_every_count_is_at_least_what_the_chain_has_accepted(requests: Any, size: Any) -> None:
    floor = Floor(5, PRICES.cost_of(Usage(10, 2 * MIB)), 10, 2 * MIB)
    payee = Payee(PayeeLane(CHANNEL, 0, floor=floor), PRICES, 10**12)
    with pytest.raises(VoucherRefused) as refused:
        payee.receive_frame(build(VoucherSaid.of(KEY.sign(voucher(9, requests, size)), 0)), 0.0)
    assert refused.value.flaw is Flaw.SHRUNK


def server(**options: Any) -> Any:
    """A server's half by itself, at the beginning."""
    return Payee(PayeeLane(CHANNEL, 0), PRICES, options.pop("affordable", 10**12), **options)


def say(payee: Any, signed: Any, charge: int = 0) -> None:
    payee.receive_frame(build(VoucherSaid.of(signed, charge)), 0.0)


def asked_to_check(made: Any) -> Any:
    """The vouchers that are to be checked since the last call."""
    return [each.voucher for each in made.take_events() if isinstance(each, payee.CheckWanted)]


def test_what_is_above_the_deposit_waits_where_more_was_added() -> None:
    """Until the chain shows what the client has added, a voucher for it is neither good nor a crime."""
    made = server(affordable=5000)
    with pytest.raises(VoucherRefused) as refused:
        say(made, KEY.sign(voucher(1, 6)))
    assert refused.value.flaw is Flaw.OVERDRAWN
    made.receive_frame(build(messages.Renewed()), 0.0)
    made.take_events()
    say(made, KEY.sign(voucher(1, 6)))
    assert made.take_events() == [payee.LookAgain()]
    with pytest.raises(VoucherRefused):  # what else is wrong with one is a crime all the same
        say(made, KEY.sign(voucher(1, 6, amount=7000)))
    made.set_affordable(6000, 0.0)
    say(made, KEY.sign(voucher(1, 6)))
    assert asked_to_check(made) == [KEY.sign(voucher(1, 6))]


def test_who_has_used_the_deposit_up_is_looked_for_money_while_it_is_waited_for() -> None:
    """More may have been added by another connection, which had no time to say so."""
    made = server(affordable=5000)
    made.begin(0.0)
    made.receive_frame(build(messages.Heard()), 0.0)
    made.take_events()
    made.set_counts(3, 0, 0, 1.0)
    assert payee.LookAgain() not in made.take_events()
    made.set_counts(6, 0, 0, 2.0)
    assert payee.LookAgain() in made.take_events()
    for now in (3.0, 4.0):
        assert payee.LookAgain() not in made.take_events()
        made.handle_timer(now)
        assert payee.LookAgain() in made.take_events()
    made.set_affordable(7000, 4.5)
    assert not made.paused
    made.handle_timer(5.0)
    assert payee.LookAgain() not in made.take_events()


@pytest.mark.parametrize(
    ("requests", "size", "inflated"),
    [(64, 1000, False), (65, 0, True), (0, 1001, True)],
)
def test_how_far_counts_that_are_evidence_may_be_ahead(requests: Any, size: Any, inflated: Any) -> None:
    made = server(most_ahead=Usage(64, 1000))
    if inflated:
        with pytest.raises(VoucherRefused) as refused:
            say(made, KEY.sign(voucher(1, requests, size)))
        assert refused.value.flaw is Flaw.INFLATED
    else:
        say(made, KEY.sign(voucher(1, requests, size)))
        assert asked_to_check(made)


def test_a_charge_that_was_asked_for_is_not_ahead() -> None:
    made = server(most_ahead=Usage(64, 1000))
    made.charge(500, 0.0)
    say(made, KEY.sign(voucher(1, 564)), 1)
    assert asked_to_check(made)
    with pytest.raises(VoucherRefused):
        say(made, KEY.sign(voucher(2, 565)), 1)


def test_a_lock_goes_on_until_its_key_is_told() -> None:
    made, lock = server(), lock_of(SECRET)
    made.charge(1, 0.0, SECRET)
    locked = KEY.sign(voucher(1, 1, hash_lock=lock))
    say(made, locked, 1)
    made.voucher_stored(locked, 1, 0.0)
    more = KEY.sign(voucher(2, 1, 5000, hash_lock=lock))
    made.take_events()
    say(made, more, 1)
    assert asked_to_check(made) == [more]
    with pytest.raises(VoucherRefused) as refused:
        say(made, KEY.sign(voucher(3, 1, 6000, hash_lock=lock_of(b"other" * 7))), 1)
    assert refused.value.flaw is Flaw.WRONG_LOCK


def test_what_is_stored_late_lets_nothing_slip_in_behind_what_is_still_checked() -> None:
    made = server()
    first, second = KEY.sign(voucher(5, 5)), KEY.sign(voucher(6, 9))
    say(made, first)
    say(made, second)
    made.voucher_stored(first, 0, 0.0)
    with pytest.raises(VoucherRefused) as refused:
        say(made, KEY.sign(voucher(7, 8)))
    assert refused.value.flaw is Flaw.SHRUNK


def test_a_voucher_that_names_no_charge_pays_none() -> None:
    made = server()
    made.charge(3, 0.0)
    signed = KEY.sign(voucher(1, 50))
    say(made, signed)
    made.voucher_stored(signed, 0, 0.0)
    assert made.pending == 3
    assert payee.ChargePaid(1) not in made.take_events()
    assert made.used == Usage(0, 0)


@pytest.mark.parametrize("units", [0, -1])
def test_a_charge_is_of_something(units: Any) -> None:
    with pytest.raises(NotMetered, match="at least one unit"):
        server().charge(units, 0.0)


# ------------------------------------------------------------------------------------------- a client by itself


def client(funds: Any = 10**12, *, welcome: bool = True, **spending: Any) -> Any:
    """A client's half by itself, welcomed by a server that knows nothing yet."""
    made = Payer(PayerLane(CHANNEL, 0), PRICES, funds, lambda v: v.is_by(KEY.public), Spending(**spending))
    if welcome:
        hear(made, messages.Welcome(1, 0, 0, MIB, 64 * MIB, 16, 1024, True, True, None))
        made.take_events()
    return made


def hear(made: Any, message: Any, now: float = 0.0) -> None:
    made.receive_frame(build(message), now)


def wanted(made: Any) -> Any:
    """The vouchers to sign that are asked for since the last call."""
    return [each for each in made.take_events() if isinstance(each, payer_events.SignWanted)]


def sign_one(made: Any, now: float = 0.0) -> Any:
    (one,) = wanted(made)
    made.voucher_signed(KEY.sign(one.voucher), one.charge, now)
    return one.voucher


def test_only_what_was_asked_for_is_signed() -> None:
    made = client()
    with pytest.raises(NotMetered):
        made.voucher_signed(KEY.sign(voucher(1, 5)), 0, 0.0)
    made.set_counts(16, 0, 0.0)
    (one,) = wanted(made)
    with pytest.raises(NotMetered):
        made.voucher_signed(KEY.sign(voucher(one.voucher.sequence + 1, 16)), 0, 0.0)
    assert made.newest is None


@pytest.mark.parametrize(
    ("counted", "units", "agreed"), [(True, 1, 0), (True, 3, 6), (False, 1, 3), (False, 3, 9), (False, 0, 0)]
)
def test_charges_are_agreed_to_unasked_as_far_as_streams_were_opened(
    counted: Any, units: Any, agreed: Any
) -> None:
    made = client(welcome=False, charge_units=units)
    hear(made, messages.Welcome(1, 0, 0, MIB, 64 * MIB, 16, 1024, counted, True, None))
    hear(made, messages.ChargeAsked(1, 1, None))  # before anything was opened
    made.answer_charge(1, False, 0.0)
    made.set_counts(3, 0, 0.0)
    for number in range(2, 22):
        hear(made, messages.ChargeAsked(number, 1, None))
        made.answer_charge(number, False, 0.0)
    assert made.counts.charged == agreed
    assert made.used.requests == agreed + 3 * counted


def test_a_charge_that_is_being_decided_is_not_asked_about_twice() -> None:
    made = client(charge_units=1)
    hear(made, messages.ChargeAsked(1, 5, None))
    assert len(made.take_events()) == 1
    hear(made, messages.ChargeAsked(1, 5, None))
    assert made.take_events() == []
    made.answer_charge(2, True, 0.0)  # of another number
    assert made.take_events() == []
    made.answer_charge(1, True, 0.0)
    assert sign_one(made).requests == 5
    made.answer_charge(1, False, 0.0)  # it is decided
    hear(made, messages.ChargeAsked(2, 3, None))
    made.take_events()
    made.answer_charge(2, False, 0.0)
    hear(made, messages.ChargeAsked(1, 5, None))  # an old one, said again
    assert [each for each in made.take_events() if not isinstance(each, messages.SendFrame)] == []
    assert made.used == Usage(5, 0)


def test_a_second_lock_is_refused_before_the_first_is_open() -> None:
    made = client()
    hear(made, messages.ChargeAsked(1, 1, lock_of(SECRET)))
    made.answer_charge(1, True, 0.0)
    sign_one(made)
    with pytest.raises(MalformedMeter, match="second hash lock"):
        hear(made, messages.ChargeAsked(2, 1, lock_of(b"t" * 32)))


def test_only_the_key_that_was_paid_for_opens_the_lock() -> None:
    made = client()
    hear(made, messages.ChargeAsked(1, 1, lock_of(SECRET)))
    made.take_events()
    hear(made, messages.Reveal(SECRET))  # before anything is signed under it
    assert [each for each in made.take_events() if isinstance(each, payer_events.Revealed)] == []
    made.answer_charge(1, True, 0.0)
    hear(
        made, messages.Reveal(SECRET)
    )  # agreed to, not signed: its key would be told without having been paid
    one, *others = made.take_events()
    assert (isinstance(one, payer_events.SignWanted), others) == (True, [])
    made.voucher_signed(KEY.sign(one.voucher), one.charge, 0.0)
    made.take_events()
    hear(made, messages.Reveal(b"x" * 32))
    assert made.take_events() == []
    hear(made, messages.Reveal(SECRET))
    assert payer_events.Revealed(SECRET) in made.take_events()


def test_nothing_is_paid_ahead_that_the_money_does_not_cover() -> None:
    made = client(PRICES.cost_of(Usage(20, 0)), ahead_requests=100)
    made.set_counts(10, 0, 0.0)
    made.handle_timer(100.0)
    assert sign_one(made, 100.0).requests == 10


def test_no_voucher_is_signed_ahead_beyond_the_money() -> None:
    funds = PRICES.cost_of(Usage(1, 3 * MIB))
    made = client(funds, voucher_bytes=MIB // 4)
    ahead, moved = (), 0
    while not ahead and moved < 3 * MIB:
        moved += MIB // 4
        made.set_counts(1, moved, 0.0)
        for each in wanted(made):
            ahead = each.ahead
            made.voucher_signed(KEY.sign(each.voucher), each.charge, 0.0)
    assert 0 < len(ahead) < 15
    assert all(each.amount <= funds for each in ahead)


def test_the_end_waits_until_the_last_voucher_is_stored() -> None:
    made = client()
    made.set_counts(3, 0, 0.0)
    made.finish(0.0)
    last = sign_one(made)
    hear(made, messages.Bill(3, 0))
    assert payer_events.Finished(True) not in made.take_events()
    hear(made, messages.Stored(last.sequence))
    assert payer_events.Finished(True) in made.take_events()


def test_what_is_under_way_beyond_the_money_leaves_nothing_of_the_money_unpaid() -> None:
    """Both ends stop where it ends, but neither knows what is under way to it: no voucher was signed then."""
    made = client(PRICES.cost_of(Usage(1, MIB)))
    made.set_counts(1, MIB + 65_536, 0.0)
    made.finish(0.0)
    last = sign_one(made)
    assert (last.requests, last.bytes, last.amount) == (1, MIB, made.funds.most)
    hear(made, messages.Bill(1, MIB + 65_536))
    hear(made, messages.Stored(last.sequence))
    assert payer_events.Finished(True) in made.take_events()
    assert made.unpaid == Usage(0, 65_536)


def test_no_bytes_are_signed_for_that_requests_leave_no_money_for() -> None:
    made = client(PRICES.cost_of(Usage(2, 0)))
    made.set_counts(2, 0, 0.0)
    made.finish(0.0)
    assert sign_one(made).requests == 2
    made.set_counts(3, 50, 0.0)
    assert wanted(made) == []


def test_a_lack_of_money_is_told_once() -> None:
    made = client(PRICES.cost_of(Usage(4, 0)))
    told = []
    for opened in range(1, 9):
        made.set_counts(opened, 0, 0.0)
        made.handle_timer(opened * 10.0)
        for each in made.take_events():
            if isinstance(each, payer_events.SignWanted):
                made.voucher_signed(KEY.sign(each.voucher), each.charge, opened * 10.0)
            elif isinstance(each, payer_events.FundsLow):
                told.append(each)
    assert len(told) == 1
    made.update_funds(made.funds.most + 1, 100.0)
    assert any(isinstance(each, payer_events.FundsLow) for each in made.take_events())


def test_what_is_reserved_bounds_number_and_sum() -> None:
    reserved = Reserved(5, 5000)
    assert reserved.may_sign(voucher(5, 5))
    assert not reserved.may_sign(voucher(6, 5))
    assert not reserved.may_sign(voucher(5, 6))


def test_a_bill_that_was_not_asked_for_is_none() -> None:
    made = client()
    hear(made, messages.Bill(500, 0))
    assert made.take_events() == []
    made.set_counts(3, 0, 0.0)
    made.finish(0.0)
    sign_one(made)
    hear(made, messages.Bill(3, 0))
    assert payer_events.Finished(True) not in made.take_events()  # the voucher isn't stored


def test_the_end_is_asked_for_again() -> None:
    made = client(repeat=2.0)
    made.finish(10.0)
    finish = messages.SendFrame(build(messages.Finish()))
    assert made.take_events() == [finish]
    assert made.next_deadline() == 12.0
    made.handle_timer(11.9)
    assert made.take_events() == []
    made.handle_timer(12.0)
    assert made.take_events() == [finish]


def test_a_voucher_for_one_unit_too_much_is_not_signed() -> None:
    made = client(PRICES.cost_of(Usage(5, 0)) - 1)
    made.set_counts(5, 0, 0.0)
    made.handle_timer(100.0)
    assert wanted(made) == []


def test_nobody_is_woken_when_nothing_is_owed() -> None:
    made = client()
    made.set_counts(1, 0, 0.0)
    made.handle_timer(5.0)
    last = sign_one(made, 5.0)
    hear(made, messages.Stored(last.sequence), 5.0)
    made.handle_timer(made.next_deadline())
    assert made.next_deadline() == NEVER


def test_a_server_that_has_an_older_voucher_is_given_the_newest() -> None:
    older, newest = KEY.sign(voucher(3, 3)), KEY.sign(voucher(5, 5))
    made = Payer(PayerLane(CHANNEL, 0, newest, Usage(5, 0)), PRICES, 10**12, lambda v: v.is_by(KEY.public))
    hear(made, messages.Welcome(1, 3, 0, MIB, 64 * MIB, 16, 1024, True, True, VoucherSaid.of(older, 0)))
    assert messages.SendFrame(build(VoucherSaid.of(newest, 0))) in made.take_events()
    assert (made.newest, made.next_deadline()) == (newest, made.schedule.spending.repeat)


def ready(**spending: Any) -> Any:
    """A client on a stream, with vouchers that are signed ahead; and how much has moved by then, all of it paid."""
    made, moved = client(voucher_bytes=MIB, **spending), 0
    while not made.ahead:
        moved += MIB
        made.set_counts(0, moved, 0.0)
        for each in wanted(made):
            made.voucher_signed(
                *map(KEY.sign, [each.voucher]), each.charge, 0.0, [KEY.sign(a) for a in each.ahead]
            )
    made.take_events()
    assert not any(made.unpaid)
    return made, moved


def test_what_is_demanded_goes_before_what_was_signed_ahead() -> None:
    """The server has stopped, and waits for all of it."""
    made, moved = ready()
    hear(made, messages.Due(0, moved))
    assert made.take_events() == []  # all is paid
    moved += MIB + 5000
    assert made.take_signed_frame(moved, 1.0) is None
    made.set_counts(0, moved, 1.0)
    assert [each.voucher.bytes for each in wanted(made)] == [moved]


def test_at_the_end_everything_is_paid_behind_what_was_signed_ahead() -> None:
    made, moved = ready()
    made.finish(1.0)
    moved += MIB + 5000
    made.set_counts(0, moved, 1.0)
    assert [each.voucher.bytes for each in wanted(made)] == [moved]


def test_time_counts_from_the_last_voucher_that_was_let_go() -> None:
    made, moved = ready()
    assert made.take_signed_frame(moved + MIB, 100.0) is not None
    made.set_counts(0, moved + MIB + 1, 101.0)
    made.handle_timer(104.0)
    assert wanted(made) == []
    made.handle_timer(105.0)
    assert [each.voucher.bytes for each in wanted(made)] == [moved + MIB + 1]


def test_where_money_is_short_no_voucher_waits_for_company() -> None:
    made = client(welcome=False, voucher_bytes=MIB)
    hear(made, messages.Welcome(1, 0, 0, 64 * MIB, 64 * MIB, 16, 1024, True, True, None))
    made.set_counts(0, 1, 0.0)
    assert made.leeway > MIB
    made.update_funds(PRICES.cost_of(Usage(0, 2 * MIB)), 0.0)
    assert made.leeway == 0


def test_a_charge_that_is_agreed_to_while_another_is_signed_for_is_not_owed_yet() -> None:
    made = client()
    hear(made, messages.ChargeAsked(1, 5, None))
    made.answer_charge(1, True, 0.0)
    (first,) = wanted(made)
    hear(made, messages.ChargeAsked(2, 7, None))
    made.answer_charge(2, True, 0.0)
    made.voucher_signed(KEY.sign(first.voucher), first.charge, 0.0)
    assert (made.used, made.owed) == (Usage(12, 0), Usage(5, 0))


def test_a_voucher_that_was_forgotten_makes_an_end_no_clean_one() -> None:
    """What came behind it may be forgotten, too."""
    made = client(welcome=False)
    shown = KEY.sign(voucher(1, 3))
    hear(made, messages.Welcome(1, 5, 0, MIB, 64 * MIB, 16, 1024, True, True, VoucherSaid.of(shown, 0)))
    assert made.used == Usage(5, 0)


def test_the_lock_of_a_voucher_that_was_forgotten_stays() -> None:
    """Or the next one would pay for an answer whose key was never told."""
    made = client(welcome=False)
    shown = KEY.sign(voucher(1, 3, hash_lock=lock_of(SECRET)))
    hear(made, messages.Welcome(1, 3, 0, MIB, 64 * MIB, 16, 1024, True, True, VoucherSaid.of(shown, 0)))
    made.set_counts(1, 0, 0.0)
    made.finish(0.0)
    assert sign_one(made).hash_lock == lock_of(SECRET)


def test_the_end_waits_for_the_voucher_that_takes_a_lock_away() -> None:
    made = client()
    hear(made, messages.ChargeAsked(1, 1, lock_of(SECRET)))
    made.answer_charge(1, True, 0.0)
    locked = sign_one(made)
    hear(made, messages.Stored(locked.sequence))
    hear(made, messages.Reveal(SECRET))
    made.finish(0.0)
    hear(made, messages.Bill(1, 0))
    asked = made.take_events()
    assert payer_events.Finished(True) not in asked
    (unlocks,) = [each for each in asked if isinstance(each, payer_events.SignWanted)]
    assert unlocks.voucher.hash_lock is None
    made.voucher_signed(KEY.sign(unlocks.voucher), unlocks.charge, 0.0)
    hear(made, messages.Stored(unlocks.voucher.sequence))
    assert payer_events.Finished(True) in made.take_events()


def test_the_end_waits_for_the_key_that_is_paid_for() -> None:
    """A server that is paid by an agreed close would never have to tell it."""
    made = client()
    hear(made, messages.ChargeAsked(1, 1, lock_of(SECRET)))
    made.answer_charge(1, True, 0.0)
    locked = sign_one(made)
    hear(made, messages.Stored(locked.sequence))
    made.finish(0.0)
    hear(made, messages.Bill(1, 0))
    assert not [each for each in made.take_events() if isinstance(each, payer_events.Finished)]
    made.handle_timer(made.schedule.spending.patience)
    assert payer_events.Finished(False) in made.take_events()


@pytest.mark.parametrize("renewed", [True, False])
def test_a_server_is_told_of_money_before_any_voucher_needs_it(renewed: Any) -> None:
    made = Payer(PayerLane(CHANNEL, 0), PRICES, 10**12, lambda v: True, renewed=renewed)
    hear(made, messages.Welcome(1, 0, 0, MIB, 64 * MIB, 16, 1024, True, True, None))
    said_at_once = [messages.parse(each.frame, from_client=True) for each in made.take_events()]
    assert said_at_once == [messages.ToldBudget(10**12), messages.Heard(), messages.Renewed()][: 2 + renewed]


def test_a_server_is_told_of_a_larger_budget_again_while_it_waits() -> None:
    """The frame that told it may be lost with its link, and nothing would be served then."""
    made = client(funds=1000)
    hear(made, messages.Due(0, 0))
    assert made.take_events() == []
    made.update_funds(2000, 0.0)
    for _ in range(2):
        assert messages.SendFrame(build(messages.ToldBudget(2000))) in made.take_events()
        hear(made, messages.Due(0, 0))
