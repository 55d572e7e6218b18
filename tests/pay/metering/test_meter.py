"""The meter of both ends, face to face: what falls due when, what stops whom, the deposit and the end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dtp.pay import messages
from dtp.pay.client import payer, payer_events
from dtp.pay.client.lane_start import PayerLane, Reserved
from dtp.pay.errors import BudgetSpent, CountsDisputed
from dtp.pay.messages import build
from dtp.pay.server import payee
from dtp.pay.server.payee import QUOTA_PATIENCE
from dtp.pay.server.stored_vouchers import PayeeLane
from dtp.pay.terms import MIB, NEVER, STEP_AMOUNT, Exposure, Prices, Spending, Usage

from ..meters import PRICES, Meters, StoredMeters

# ------------------------------------------------------------------------------------------------- what falls due


def test_a_stream_is_paid_to_the_last_byte() -> None:
    meters = Meters().connect()
    meters.request()
    assert meters.stream(10 * MIB) == 10 * MIB
    assert meters.end()
    assert meters.paid == PRICES.cost_of(Usage(1, 10 * MIB)) == 1000 + 20_000_000
    assert meters.served == meters.arrived


def test_nothing_used_is_nothing_signed() -> None:
    meters = Meters().connect()
    meters.pass_time(1000)
    meters.pump()
    assert meters.end()
    assert meters.server_disk.newest is None


def test_vouchers_come_each_interval_of_bytes() -> None:
    spending = Spending(voucher_bytes=MIB)
    meters = Meters(exposure=Exposure(16 * MIB, 16 * MIB, 8, 8), spending=spending).connect()
    signed = []
    for _ in range(64):
        meters.stream(MIB // 4)
        signed.append(meters.payer.signed.sequence)
    assert signed[3:12:4] == [1, 2, 3]  # one for each MiB
    assert signed[-1] == 16


def wide(**spending: Any) -> Any:
    """A stream far from any limit, with a voucher for each MiB."""
    exposure = Exposure(64 * MIB, 64 * MIB, 64, 64)
    return Meters(exposure=exposure, spending=Spending(voucher_bytes=MIB, **spending)).connect()


def said_bytes(meters: Any) -> Any:
    return [said.bytes // MIB for _, said in sorted(meters.said.items())]


def test_vouchers_signed_ahead_are_let_go_as_their_bytes_come() -> None:
    meters = wide()
    signs = []
    genuine = meters.sign
    meters.sign = lambda wanted: (signs.append(1 + len(wanted.ahead)), genuine(wanted))
    meters.stream(40 * MIB, MIB)
    assert said_bytes(meters) == list(range(1, 41))  # one for each MiB, and none before
    assert signs == [1, 16, 16, 16]  # the first says nothing of what comes next
    assert meters.end()
    assert meters.paid == PRICES.cost_of(Usage(0, 40 * MIB))


def test_of_several_that_fall_due_at_once_only_the_newest_is_sent() -> None:
    meters = wide()
    meters.stream(3 * MIB, MIB)
    meters.serve(5 * MIB)
    meters.arrive()
    meters.pump()
    assert said_bytes(meters) == [1, 2, 3, 8]


@pytest.mark.parametrize("what", ["request", "charge", "finish", "due"])
def test_what_was_signed_ahead_is_forgotten_when_something_else_is_to_be_said(what: Any) -> None:
    meters = wide()
    meters.stream(3 * MIB, MIB)
    assert meters.payer.ahead
    if what == "request":
        meters.request()
        meters.stream(MIB, MIB)
    elif what == "charge":
        meters.charge(2)
    elif what == "due":
        meters.payer.receive_frame(build(messages.Due(0, 3 * MIB)), meters.now)
        meters.serve(1000)
        meters.arrive()
    else:
        meters.serve(1000)
        assert meters.end()
    if meters.payer is not None:
        meters.pump()
        assert not meters.payer.ahead
        meters.stream(20 * MIB, MIB)
        assert meters.end()
    assert meters.paid == PRICES.cost_of(meters.client_disk.used)
    assert meters.client_disk.used == meters.server_disk.used


def test_a_connection_that_signs_nothing_frees_no_number_of_one_that_died() -> None:
    """Else the next voucher would have the number of one that was signed, and lost on its way."""
    meters = Meters().connect()
    meters.serve(65_536)
    meters.arrive()
    meters.pass_time(6.0)
    meters.pump(lose=True)
    assert sorted(meters.said) == [1]
    reserved = meters.client_disk.reserved
    meters.crash_client()
    meters.connect()
    meters.lose()
    assert (meters.client_disk.reserved, meters.client_disk.died) == (reserved, True)
    meters.connect()
    meters.stream(MIB)
    assert meters.end()
    assert sorted(meters.said)[1] > reserved.sequence
    assert not meters.client_disk.died


def test_nothing_is_signed_ahead_beyond_the_money() -> None:
    meters = Meters(
        deposit=4_500_000, exposure=Exposure(64 * MIB, 64 * MIB, 64, 64), spending=Spending(voucher_bytes=MIB)
    ).connect()
    meters.stream(10 * MIB, MIB // 4)
    assert max(said.amount for said in meters.said.values()) <= 4_500_000
    assert meters.client_disk.reserved.amount == 4_500_000


def test_after_a_crash_no_number_is_used_again_and_nothing_is_disputed() -> None:
    meters = wide(reserve=8)
    meters.stream(5 * MIB, MIB)
    meters.serve(MIB // 4)  # arrived behind the newest voucher, and forgotten with the process
    meters.arrive()
    meters.crash_client()
    disk = meters.client_disk
    assert (disk.newest, disk.reserved.sequence, disk.died) == (None, 8, True)
    assert disk.most_signed >= meters.paid == PRICES.cost_of(Usage(0, 5 * MIB))
    meters.connect()
    assert meters.client_disk.newest == meters.server_disk.newest  # shown by the server
    assert meters.payer.used == Usage(0, 5 * MIB + MIB // 4)
    meters.stream(2 * MIB, MIB)
    assert sorted(meters.said)[:6] == [1, 2, 3, 4, 5, 9]
    assert meters.end()
    assert not meters.client_disk.died


def test_a_second_crash_takes_nothing_back_that_a_voucher_shown_by_the_server_pays_for() -> None:
    """The server forgot a request that the client pays: its count alone is less than what is vouched."""
    meters = StoredMeters(Prices(1000, 0)).connect()
    meters.request()
    meters.crash_server()
    meters.connect()
    meters.request()
    meters.pass_time(6.0)
    meters.pump()
    assert (meters.paid, meters.payee.used) == (2000, Usage(1, 0))
    for _ in range(2):
        meters.crash_client()
        meters.connect()
        assert meters.client_disk.newest == meters.server_disk.newest
        assert meters.payer.used == meters.client_disk.used == Usage(2, 0)
    meters.request()
    assert meters.end()
    assert meters.paid == 3000
    meters.close()


@pytest.mark.parametrize("died", [False, True])
@pytest.mark.parametrize(
    ("slack", "prices", "gap", "believed"),
    [
        (None, PRICES, Usage(0, MIB // 4), Usage(0, MIB // 4)),  # a voucher's step
        (None, PRICES, Usage(0, MIB), Usage(0, MIB // 4)),
        (None, PRICES, Usage(8, 0), Usage(4, 0)),
        (None, Prices(1000, 20_000_000), Usage(0, MIB), Usage(0, 39_321)),  # which costs no more than 750,000
        (None, Prices(400_000, 0), Usage(8, 0), Usage(1, 0)),
        (None, Prices(50_000_000, 0), Usage(1, 0), Usage()),
        (60_000_000, Prices(50_000_000, 0), Usage(5, 0), Usage(1, 0)),  # what the program says
        (10_000_000, PRICES, Usage(0, 4 * MIB), Usage(0, 4 * MIB)),
        (0, PRICES, Usage(0, 1), Usage()),
        (None, Prices(0, 0), Usage(8, MIB), Usage(4, MIB // 4)),  # under a pass
    ],
)
def test_after_a_break_a_server_is_believed_a_vouchers_step_in_money(
    died: Any, slack: Any, prices: Any, gap: Any, believed: Any
) -> None:
    """It was 64 requests and 16 MiB, whatever they cost, and more where this side had died."""
    lane = PayerLane("0x" + "c1" * 32, 0, clean=False, reserved=Reserved(8 if died else 0, 100))
    paying = payer.Payer(lane, prices, 10**9, lambda shown: False, Spending(slack_amount=slack))
    served = payee.Payee(
        PayeeLane(lane.channel, 0, used=gap), prices, 10**9, Exposure(MIB + 1, 8 * MIB, 16, 64)
    )
    served.begin(0.0)
    frame, *_ = (each.frame for each in served.take_events() if isinstance(each, messages.SendFrame))
    if gap.above(believed).bytes > MIB:
        with pytest.raises(CountsDisputed):
            paying.receive_frame(frame, 0.0)
        return
    paying.receive_frame(frame, 0.0)
    assert paying.used == paying.believed == believed
    assert paying.left == gap.above(believed)
    assert prices.cost_of(believed) <= (750_000 if slack is None else slack)


def test_without_money_nothing_spins() -> None:
    """A voucher that can't be paid is looked at again after some seconds, not at once."""
    meters = Meters(deposit=1000, exposure=Exposure(MIB, MIB, 8, 8)).connect()
    meters.payee.set_affordable(10**9, meters.now)
    meters.request(3)
    meters.pump()
    meters.pass_time(6)
    meters.pump()
    assert meters.payer.signed.sequence == 0
    assert meters.payer.next_deadline() > meters.now


def test_the_interval_follows_a_small_exposure() -> None:
    spending = Spending()
    assert spending.voucher_interval(Usage(8, MIB)) == Usage(2, MIB // 4)
    assert spending.voucher_interval(Usage(1024, 64 * MIB)) == Usage(16, 8 * MIB)
    assert spending.voucher_interval(Usage(0, 0)) == Usage(1, 16 * 1024)


def test_vouchers_come_each_interval_of_requests_and_by_time() -> None:
    meters = Meters().connect()
    meters.request()
    meters.pump()
    assert meters.payer.signed.sequence == 0
    assert meters.payer.next_deadline() == meters.now + 5.0
    meters.pass_time(4.9)
    meters.pump()
    assert meters.payer.signed.sequence == 0
    meters.pass_time(0.1)
    meters.pump()
    assert (meters.payer.signed.sequence, meters.paid) == (1, 1000)
    meters.request(2)  # two of eight: a quarter of the exposure
    meters.pump()
    assert (meters.payer.signed.sequence, meters.paid) == (2, 3000)


def test_streams_count_only_where_the_server_says_so() -> None:
    meters = Meters(count_streams=False).connect()
    meters.request(5)
    meters.stream(MIB)
    assert meters.end()
    assert meters.paid == PRICES.cost_of(Usage(0, MIB))


def test_under_a_pass_vouchers_are_receipts_without_an_amount() -> None:
    meters = Meters(Prices(0, 0), deposit=0).connect()
    meters.request()
    assert meters.stream(3 * MIB) == 3 * MIB
    assert meters.end()
    newest = meters.server_disk.newest.voucher
    assert (newest.amount, newest.requests, newest.bytes) == (0, 1, 3 * MIB)


# ------------------------------------------------------------------------------------------------------- exposure


def test_serving_stops_at_the_exposure_to_the_byte_and_goes_on() -> None:
    meters = Meters().connect()
    assert meters.serve(50 * MIB) == MIB
    assert meters.payee.send_limit() == MIB
    assert meters.payee.paused
    meters.pump(lose=True)
    assert meters.serve(1) == 0
    meters.arrive()
    meters.pump()
    assert not meters.payee.paused
    assert meters.serve(50 * MIB) == MIB  # half of what was paid is less than what it began with


def test_trust_grows_with_what_was_paid() -> None:
    exposure = Exposure(MIB, 4 * MIB, 8, 32)
    assert exposure.after_payment(Usage()) == Usage(8, MIB)
    assert exposure.after_payment(Usage(40, 6 * MIB)) == Usage(20, 3 * MIB)
    assert exposure.after_payment(Usage(10_000, 2**40)) == Usage(32, 4 * MIB)
    meters = Meters().connect()
    meters.stream(20 * MIB)
    assert meters.serve(50 * MIB) <= 4 * MIB
    assert meters.most_unpaid.bytes <= 4 * MIB


def test_what_is_unpaid_at_first_costs_little_whatever_the_prices_are() -> None:
    """By counts alone a request of 0.05 SUI is 16 times as much for nothing, of a channel that costs 0.003 in gas;
    and each count by itself gave it twice."""
    assert Exposure().at_prices(Prices(1000, 2_000_000)).after_payment(Usage()) == Usage(16, 24_641)
    exposure = Exposure(first_amount=3_000_000)
    assert exposure.at_prices(PRICES) == exposure
    assert exposure.at_prices(Prices(0, 0)) == exposure
    assert exposure.at_prices(Prices(300_000, 6_000_000)).after_payment(Usage()) == Usage(5, MIB // 4)
    dear = exposure.at_prices(Prices(3_000_001, 10**12))
    assert dear.after_payment(Usage()) == Usage(0, 0)
    assert dear.after_payment(Usage(100, 10 * MIB)) == exposure.after_payment(
        Usage(100, 10 * MIB)
    )  # trust is earned as ever
    assert replace(exposure, first_bytes=100).at_prices(Prices(1, 10**9)).first_bytes == 100
    for request in (0, 1, 10**5, 10**6, 10**7):
        for mib in (0, 10**6, 10**7, 10**8, 10**9):
            prices = Prices(request, mib)
            assert prices.cost_of(exposure.at_prices(prices).after_payment(Usage())) <= exposure.first_amount


def test_a_request_that_costs_more_than_is_given_on_trust_is_paid_when_it_is_made() -> None:
    """Without a wait for the clock, and by a client that pays nothing ahead."""
    prices = Prices(50_000_000, 10**9)
    meters = Meters(prices=prices, deposit=10**12, exposure=Exposure().at_prices(prices)).connect()
    for number in range(1, 6):
        meters.request()
        assert meters.payee.serving is (number > 2)  # half of what is paid is on trust
        meters.pump()
        assert meters.payee.serving
        assert meters.payee.vouchers.paid.requests == number
        assert meters.stream(MIB) == MIB
    assert meters.most_unpaid.bytes <= meters.payee.vouchers.paid.bytes // 2
    assert meters.end()


def test_unpaid_requests_stop_the_answers() -> None:
    meters = Meters().connect()
    meters.request(9)
    assert not meters.payee.serving
    assert meters.serve(100) == 0
    meters.pump()
    assert meters.payee.serving
    assert meters.serve(100) == 100


def test_a_client_that_stops_paying_is_told_and_then_left() -> None:
    meters = Meters().connect()
    meters.serve(50 * MIB)
    meters.pump(lose=True)
    told = 0
    for _ in range(29):
        meters.now += 1.0
        meters.payee.handle_timer(meters.now)
        told += sum(isinstance(messages.parse(e.frame, from_client=False), messages.Due)
                    for e in meters.payee.take_events() if isinstance(e, messages.SendFrame))  # fmt: skip
        assert not meters.told_of(payee.Late)
    assert told >= 28
    meters.now += 1.0
    meters.payee.handle_timer(meters.now)
    assert payee.Late() in meters.payee.take_events()
    meters.now += 100.0
    meters.payee.handle_timer(meters.now)
    assert payee.Late() not in meters.payee.take_events()  # said once


def test_a_late_payment_starts_serving_again() -> None:
    meters = Meters().connect()
    meters.serve(50 * MIB)
    meters.arrive()
    meters.pump(lose=True)  # the voucher is lost with its carrier
    assert meters.payee.paused
    meters.pass_time(1.0)  # it is said again
    meters.pump()
    assert not meters.payee.paused
    assert meters.told_of(payee.Paused) == [payee.Paused(True), payee.Paused(False)]


def test_everything_paid_ahead() -> None:
    """With an exposure of nothing a server serves only what is signed before."""
    exposure = Exposure(0, 0, 0, 0)
    meters = Meters(exposure=exposure, spending=Spending(ahead_bytes=MIB, ahead_requests=4)).connect()
    meters.pass_time(5.0)
    meters.pump()
    assert meters.paid == PRICES.cost_of(Usage(4, MIB))
    meters.request()
    assert meters.stream(5 * MIB) == 5 * MIB
    assert meters.most_unpaid == Usage()
    ahead = meters.payer.signed.usage.above(meters.payer.used)
    assert ahead.bytes <= MIB
    assert ahead.requests <= 4


@pytest.mark.parametrize(("first", "most"), [(0, 0), (0, MIB), (MIB, 0)])
def test_a_server_that_serves_nothing_unpaid_is_paid_ahead_by_a_client_that_chose_nothing(
    first: Any, most: Any
) -> None:
    """It waited for ever. What it can lose begins with the price of 4 KiB, and is half of what came."""
    meters = Meters(exposure=Exposure(first, most, first, most)).connect()
    meters.pump()
    assert meters.paid == PRICES.cost_of(Usage(0, 4096))
    meters.request()
    meters.pump()
    assert meters.stream(5 * MIB) == 5 * MIB
    assert meters.payer.signed.usage.above(meters.payer.used).bytes <= (MIB if most == 0 else 4096)
    assert meters.most_unpaid.bytes <= most
    assert meters.end()


def test_where_bytes_are_dear_a_client_pays_ahead_for_no_more_than_a_step() -> None:
    prices = Prices(0, 100 * STEP_AMOUNT)
    meters = Meters(prices=prices, exposure=Exposure(0, 0, 0, 0)).connect()
    meters.request()
    meters.pump()
    assert meters.stream(MIB) == MIB
    ahead = meters.payer.signed.usage.above(meters.payer.used)
    assert 0 < prices.cost_of(ahead) <= STEP_AMOUNT


def test_a_client_pays_ahead_to_the_last_of_its_money() -> None:
    meters = Meters(deposit=PRICES.cost_of(Usage(1, 10_000)), exposure=Exposure(0, 0, 0, 0)).connect()
    meters.request()
    meters.pump()
    assert meters.stream(MIB) == 10_000
    assert meters.payer.spent


def test_who_is_paid_ahead_waits_without_complaint() -> None:
    meters = Meters(exposure=Exposure(0, 0, 0, 0)).connect()
    for _ in range(100):
        meters.pass_time(1.0)
        meters.pump()
    assert not meters.told_of(payee.Late)


def test_uploads_use_the_same_exposure() -> None:
    meters = Meters().connect()
    assert meters.payee.receive_limit() == MIB
    meters.payee.set_counts(1, 0, 3 * MIB, meters.now)
    assert meters.payee.receive_limit() == MIB
    assert meters.payee.send_limit() == 0
    assert meters.payee.paused


# --------------------------------------------------------------------------------------------------- the deposit


def test_never_more_than_the_deposit() -> None:
    deposit = PRICES.cost_of(Usage(1, 3 * MIB)) + 17
    meters = Meters(deposit=deposit).connect()
    meters.request()
    served = meters.stream(50 * MIB)
    most = PRICES.bytes_within(deposit, 1)
    assert served == most
    assert PRICES.cost_of(Usage(1, most)) <= deposit < PRICES.cost_of(Usage(1, most + 1))
    assert meters.paid <= deposit
    assert meters.told_of(payer_events.FundsLow)
    assert meters.payee.spent
    meters.pass_time(30.0)
    meters.pump()
    assert meters.told_of(payee.Late)


def test_a_top_up_goes_on() -> None:
    meters = Meters(deposit=PRICES.cost_of(Usage(0, 2 * MIB))).connect()
    assert meters.stream(50 * MIB) == 2 * MIB
    more = PRICES.cost_of(Usage(0, 6 * MIB))
    meters.payer.update_funds(more, meters.now)
    meters.pump()
    assert meters.told_of(payee.LookAgain)
    meters.payee.set_affordable(more, meters.now)
    assert meters.stream(50 * MIB) == 4 * MIB


def test_a_request_that_the_budget_does_not_cover_is_not_made() -> None:
    meters = Meters(deposit=2500).connect()
    meters.payer.check_request(2)
    with pytest.raises(BudgetSpent, match=r"may spend 0\.0000025 SUI"):
        meters.payer.check_request(3)
    meters.request(2)
    meters.pump()
    with pytest.raises(BudgetSpent) as spent:
        meters.payer.check_request()
    assert (spent.value.paid, spent.value.requests, spent.value.bytes) == (2000, 2, 0)


def test_money_that_ends_before_all_that_has_moved_is_paid_says_how_much_more_that_is() -> None:
    """ "0 SUI of 0.0000025 SUI are paid" explained nothing."""
    meters = Meters(deposit=2500).connect()
    meters.request(2)
    meters.pump()
    assert "more" not in str(meters.payer.out_of_money())
    meters.request(2)
    assert "; with what has moved since it would be 0.0000015 SUI more;" in str(meters.payer.out_of_money())


def test_quotas_of_a_subscription() -> None:
    meters = Meters(Prices(0, 0), deposit=0).connect()
    meters.payee.set_quota(3, 2 * MIB, meters.now)
    assert meters.stream(50 * MIB) == 2 * MIB
    assert meters.payee.spent
    meters.payee.set_quota(3, 5 * MIB, meters.now)
    assert meters.stream(50 * MIB) == 3 * MIB
    meters.payee.set_quota(3, None, meters.now)
    meters.request(4)
    meters.pump()
    assert not meters.payee.serving
    assert meters.serve(1) == 0


@pytest.mark.parametrize("quota", [(3, None), (None, MIB)])
def test_who_wants_more_than_a_quota_is_refused_soon(quota: Any) -> None:
    """No payment raises it, and a client waited 25 s to hear that."""
    meters = Meters(Prices(0, 0), deposit=0).connect()
    meters.payee.set_quota(*quota, meters.now)
    meters.request(4)
    meters.stream(2 * MIB)
    assert any(meters.payee.quota.spent_counts(meters.payee.used))
    meters.payee.take_events()
    stopped = meters.payee.next_deadline()
    meters.payee.handle_timer(meters.now + QUOTA_PATIENCE)
    assert stopped <= meters.now + QUOTA_PATIENCE
    assert payee.Late() in meters.payee.take_events()


def test_another_lease_in_time_keeps_a_connection_whose_quota_was_used_up() -> None:
    meters = Meters(Prices(0, 0), deposit=0).connect()
    meters.payee.set_quota(None, MIB, meters.now)
    meters.stream(2 * MIB)
    meters.payee.set_quota(None, 3 * MIB, meters.now)
    meters.payee.take_events()
    meters.payee.handle_timer(meters.now + QUOTA_PATIENCE)
    assert payee.Late() not in meters.payee.take_events()


def test_who_waits_for_another_lease_is_not_refused_as_one_whose_quota_is_used_up() -> None:
    """The disk was busy for more than a second, and a subscriber was told to come back in a month."""
    meters = Meters(Prices(0, 0), deposit=0).connect()
    meters.payee.set_quota(None, MIB, meters.now, grows=(True, True))
    meters.stream(2 * MIB)
    meters.payee.take_events()
    patience = meters.payee.exposure.patience
    meters.payee.handle_timer(meters.now + patience - 1)
    assert payee.Late() not in meters.payee.take_events()
    meters.payee.set_quota(None, MIB, meters.now, grows=(True, False))
    meters.payee.handle_timer(meters.now + QUOTA_PATIENCE)
    assert payee.Late() in meters.payee.take_events()


# --------------------------------------------------------------------------------------------------- the end


def test_an_orderly_end_waits_for_what_is_under_way() -> None:
    meters = Meters().connect()
    meters.request()
    meters.serve(700_000)
    meters.payer.finish(meters.now)
    meters.pump()
    assert not meters.told_of(payer_events.Finished)
    assert meters.serve(1) == 0  # the bill is made out: nothing more is sent
    meters.arrive()
    meters.pump()
    assert meters.told_of(payer_events.Finished) == [payer_events.Finished(True)]
    assert meters.paid == PRICES.cost_of(Usage(1, 700_000))


def test_an_end_that_nobody_answers_is_given_up() -> None:
    meters = Meters().connect()
    meters.stream(100_000)
    meters.payer.finish(meters.now)
    for _ in range(10):
        assert not meters.told_of(payer_events.Finished)
        meters.now += 1.0
        meters.payer.handle_timer(meters.now)
        for event in meters.payer.take_events():
            if not isinstance(event, messages.SendFrame | payer_events.SignWanted):
                meters.told.append(event)
    assert meters.told_of(payer_events.Finished) == [payer_events.Finished(False)]
    assert meters.payer.next_deadline() == NEVER


def test_the_end_survives_lost_frames() -> None:
    meters = Meters().connect()
    meters.stream(100_000)
    meters.payer.finish(meters.now)
    meters.pump(lose=True)
    meters.pass_time(1.0)
    meters.pump()
    meters.pass_time(1.0)
    meters.pump()
    assert meters.told_of(payer_events.Finished) == [payer_events.Finished(True)]


def test_an_agreed_close_is_asked_for_and_given() -> None:
    meters = Meters().connect()
    meters.payer.ask_close()
    meters.pump()
    assert meters.told_of(payee.CloseAsked)
    agreed = messages.Agreed(5, 6, bytes(32), bytes(64))
    meters.payee.send_agreement(agreed)
    meters.pump()
    assert meters.told_of(payer_events.AgreementGiven) == [payer_events.AgreementGiven(agreed)]
