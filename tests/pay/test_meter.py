"""The meter of both ends, face to face: what falls due when, what stops whom, and what nobody gets away with."""

from dataclasses import replace

import pytest

from dtp.pay import messages, payee, payer
from dtp.pay.errors import BudgetSpent, CountsDisputed, Flaw, MalformedMeter, NotMetered, VoucherRefused
from dtp.pay.messages import build
from dtp.pay.payee import PayeeLane
from dtp.pay.payer import PayerLane, Reserved, said
from dtp.pay.terms import MIB, Exposure, Prices, Spending, Usage
from dtp.pay.voucher import LaneKey, SignedVoucher

from .meters import CHANNEL, KEY, PRICES, Meters, StoredMeters, lock_of, voucher

SECRET = b"s" * 32


def flaw_of(meters, signed, charge=0):
    with pytest.raises(VoucherRefused) as refused:
        meters.payee.receive(build(said(signed, charge)), meters.now)
    return refused.value.flaw


# ------------------------------------------------------------------------------------------------- what falls due


def test_a_stream_is_paid_to_the_last_byte():
    meters = Meters().connect()
    meters.request()
    assert meters.stream(10 * MIB) == 10 * MIB
    assert meters.end()
    assert meters.paid == PRICES.of(Usage(1, 10 * MIB)) == 1000 + 20_000_000
    assert meters.served == meters.arrived


def test_nothing_used_is_nothing_signed():
    meters = Meters().connect()
    meters.pass_time(1000)
    meters.pump()
    assert meters.end()
    assert meters.server_disk.newest is None


def test_vouchers_come_each_interval_of_bytes():
    spending = Spending(voucher_bytes=MIB)
    meters = Meters(exposure=Exposure(16 * MIB, 16 * MIB, 8, 8), spending=spending).connect()
    signed = []
    for _ in range(64):
        meters.stream(MIB // 4)
        signed.append(meters.payer.sequence)
    assert signed[3:12:4] == [1, 2, 3]  # one for each MiB
    assert signed[-1] == 16


def wide(**spending):
    """A stream far from any limit, with a voucher for each MiB."""
    exposure = Exposure(64 * MIB, 64 * MIB, 64, 64)
    return Meters(exposure=exposure, spending=Spending(voucher_bytes=MIB, **spending)).connect()


def said_bytes(meters):
    return [said.bytes // MIB for _, said in sorted(meters.said.items())]


def test_vouchers_signed_ahead_are_let_go_as_their_bytes_come():
    meters = wide()
    signs = []
    genuine = meters.sign
    meters.sign = lambda wanted: (signs.append(1 + len(wanted.ahead)), genuine(wanted))
    meters.stream(40 * MIB, MIB)
    assert said_bytes(meters) == list(range(1, 41))  # one for each MiB, and none before
    assert signs == [1, 16, 16, 16]  # the first says nothing of what comes next
    assert meters.end()
    assert meters.paid == PRICES.of(Usage(0, 40 * MIB))


def test_of_several_that_fall_due_at_once_only_the_newest_is_sent():
    meters = wide()
    meters.stream(3 * MIB, MIB)
    meters.serve(5 * MIB)
    meters.arrive()
    meters.pump()
    assert said_bytes(meters) == [1, 2, 3, 8]


@pytest.mark.parametrize("what", ["request", "charge", "finish", "due"])
def test_what_was_signed_ahead_is_forgotten_when_something_else_is_to_be_said(what):
    meters = wide()
    meters.stream(3 * MIB, MIB)
    assert meters.payer._ready
    if what == "request":
        meters.request()
        meters.stream(MIB, MIB)
    elif what == "charge":
        meters.charge(2)
    elif what == "due":
        meters.payer.receive(build(messages.Due(0, 3 * MIB)), meters.now)
        meters.serve(1000)
        meters.arrive()
    else:
        meters.serve(1000)
        assert meters.end()
    if meters.payer is not None:
        meters.pump()
        assert not meters.payer._ready
        meters.stream(20 * MIB, MIB)
        assert meters.end()
    assert meters.paid == PRICES.of(meters.client_disk.used)
    assert meters.client_disk.used == meters.server_disk.used


def test_a_connection_that_signs_nothing_frees_no_number_of_one_that_died():
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


def test_nothing_is_signed_ahead_beyond_the_money():
    meters = Meters(
        deposit=4_500_000, exposure=Exposure(64 * MIB, 64 * MIB, 64, 64), spending=Spending(voucher_bytes=MIB)
    ).connect()
    meters.stream(10 * MIB, MIB // 4)
    assert max(said.amount for said in meters.said.values()) <= 4_500_000
    assert meters.client_disk.reserved.amount == 4_500_000


def test_after_a_crash_no_number_is_used_again_and_nothing_is_disputed():
    meters = wide(reserve=8)
    meters.stream(5 * MIB, MIB)
    meters.serve(MIB // 2)  # arrived behind the newest voucher, and forgotten with the process
    meters.arrive()
    meters.crash_client()
    disk = meters.client_disk
    assert (disk.newest, disk.reserved.sequence, disk.died) == (None, 8, True)
    assert disk.most_signed >= meters.paid == PRICES.of(Usage(0, 5 * MIB))
    meters.connect()
    assert meters.client_disk.newest == meters.server_disk.newest  # shown by the server
    assert meters.payer.used == Usage(0, 5 * MIB + MIB // 2)
    meters.stream(2 * MIB, MIB)
    assert sorted(meters.said)[:6] == [1, 2, 3, 4, 5, 9]
    assert meters.end()
    assert not meters.client_disk.died


def test_a_second_crash_takes_nothing_back_that_a_voucher_shown_by_the_server_pays_for():
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


def test_a_process_that_died_believes_a_vouchers_interval_more():
    spending = Spending(voucher_bytes=MIB, slack_bytes=MIB)
    for more, died in ((MIB, False), (2 * MIB, True)):
        for disputed in (False, True):
            lane = PayerLane("0x" + "c1" * 32, 0, clean=False, reserved=Reserved(8 if died else 0, 100))
            paying = payer.Payer(lane, PRICES, 10**9, lambda shown: False, spending)
            served = payee.Payee(
                PayeeLane(lane.channel, 0, used=Usage(0, more + disputed)), PRICES, 10**9, Exposure()
            )
            served.begin(0.0)
            frame, *_ = (each.frame for each in served.events() if isinstance(each, payee.Send))
            if disputed:
                with pytest.raises(CountsDisputed):
                    paying.receive(frame, 0.0)
            else:
                paying.receive(frame, 0.0)
                assert paying.used == Usage(0, more)


def test_without_money_nothing_spins():
    """A voucher that can't be paid is looked at again after some seconds, not at once."""
    meters = Meters(deposit=1000, exposure=Exposure(MIB, MIB, 8, 8)).connect()
    meters.payee.set_affordable(10**9, meters.now)
    meters.request(3)
    meters.pump()
    meters.pass_time(6)
    meters.pump()
    assert meters.payer.sequence == 0
    assert meters.payer.deadline() > meters.now


def test_the_interval_follows_a_small_exposure():
    spending = Spending()
    assert spending.interval(Usage(8, MIB)) == Usage(2, MIB // 4)
    assert spending.interval(Usage(1024, 64 * MIB)) == Usage(16, 8 * MIB)
    assert spending.interval(Usage(0, 0)) == Usage(1, 16 * 1024)


def test_vouchers_come_each_interval_of_requests_and_by_time():
    meters = Meters().connect()
    meters.request()
    meters.pump()
    assert meters.payer.sequence == 0
    assert meters.payer.deadline() == meters.now + 5.0
    meters.pass_time(4.9)
    meters.pump()
    assert meters.payer.sequence == 0
    meters.pass_time(0.1)
    meters.pump()
    assert (meters.payer.sequence, meters.paid) == (1, 1000)
    meters.request(2)  # two of eight: a quarter of the exposure
    meters.pump()
    assert (meters.payer.sequence, meters.paid) == (2, 3000)


def test_streams_count_only_where_the_server_says_so():
    meters = Meters(count_streams=False).connect()
    meters.request(5)
    meters.stream(MIB)
    assert meters.end()
    assert meters.paid == PRICES.of(Usage(0, MIB))


def test_under_a_pass_vouchers_are_receipts_without_an_amount():
    meters = Meters(Prices(0, 0), deposit=0).connect()
    meters.request()
    assert meters.stream(3 * MIB) == 3 * MIB
    assert meters.end()
    newest = meters.server_disk.newest.voucher
    assert (newest.amount, newest.requests, newest.bytes) == (0, 1, 3 * MIB)


# ------------------------------------------------------------------------------------------------------- exposure


def test_serving_stops_at_the_exposure_to_the_byte_and_goes_on():
    meters = Meters().connect()
    assert meters.serve(50 * MIB) == MIB
    assert meters.payee.allowance() == MIB
    assert meters.payee.paused
    meters.pump(lose=True)
    assert meters.serve(1) == 0
    meters.arrive()
    meters.pump()
    assert not meters.payee.paused
    assert meters.serve(50 * MIB) == MIB  # half of what was paid is less than what it began with


def test_trust_grows_with_what_was_paid():
    exposure = Exposure(MIB, 4 * MIB, 8, 32)
    assert exposure.after(Usage()) == Usage(8, MIB)
    assert exposure.after(Usage(40, 6 * MIB)) == Usage(20, 3 * MIB)
    assert exposure.after(Usage(10_000, 2**40)) == Usage(32, 4 * MIB)
    meters = Meters().connect()
    meters.stream(20 * MIB)
    assert meters.serve(50 * MIB) <= 4 * MIB
    assert meters.most_unpaid.bytes <= 4 * MIB


def test_what_is_unpaid_at_first_costs_little_whatever_the_prices_are():
    """By counts alone a request of 0.05 SUI is 16 times as much for nothing, of a channel that costs 0.02 in gas."""
    exposure = Exposure()
    assert exposure.within(PRICES) == exposure
    assert exposure.within(Prices(0, 0)) == exposure
    assert exposure.within(Prices(4_000_000, 80_000_000)).after(Usage()) == Usage(5, MIB // 4)
    dear = exposure.within(Prices(20_000_001, 10**12))
    assert dear.after(Usage()) == Usage(0, 32 * 1024)
    assert dear.after(Usage(100, 10 * MIB)) == exposure.after(Usage(100, 10 * MIB))  # trust is earned as ever
    assert Exposure(100, 0, 0, 0).within(Prices(1, 10**12)).first_bytes == 100


def test_a_request_that_costs_more_than_is_given_on_trust_is_paid_when_it_is_made():
    """Without a wait for the clock, and by a client that pays nothing ahead."""
    prices = Prices(50_000_000, 10**9)
    meters = Meters(prices=prices, deposit=10**12, exposure=Exposure().within(prices)).connect()
    for number in range(1, 6):
        meters.request()
        assert meters.payee.serving is (number > 2)  # half of what is paid is on trust
        meters.pump()
        assert meters.payee.serving
        assert meters.payee.paid.requests == number
        assert meters.stream(MIB) == MIB
    assert meters.most_unpaid.bytes <= max(20 * MIB // 1000, meters.payee.paid.bytes // 2)
    assert meters.end()


def test_unpaid_requests_stop_the_answers():
    meters = Meters().connect()
    meters.request(9)
    assert not meters.payee.serving
    assert meters.serve(100) == 0
    meters.pump()
    assert meters.payee.serving
    assert meters.serve(100) == 100


def test_a_client_that_stops_paying_is_told_and_then_left():
    meters = Meters().connect()
    meters.serve(50 * MIB)
    meters.pump(lose=True)
    told = 0
    for _ in range(29):
        meters.now += 1.0
        meters.payee.tick(meters.now)
        told += sum(isinstance(messages.parse(e.frame, from_client=False), messages.Due)
                    for e in meters.payee.events() if isinstance(e, payee.Send))  # fmt: skip
        assert not meters.told_of(payee.Late)
    assert told >= 28
    meters.now += 1.0
    meters.payee.tick(meters.now)
    assert payee.Late() in meters.payee.events()
    meters.now += 100.0
    meters.payee.tick(meters.now)
    assert payee.Late() not in meters.payee.events()  # said once


def test_a_late_payment_starts_serving_again():
    meters = Meters().connect()
    meters.serve(50 * MIB)
    meters.arrive()
    meters.pump(lose=True)  # the voucher is lost with its carrier
    assert meters.payee.paused
    meters.pass_time(1.0)  # it is said again
    meters.pump()
    assert not meters.payee.paused
    assert meters.told_of(payee.Paused) == [payee.Paused(True), payee.Paused(False)]


def test_everything_paid_ahead():
    """With an exposure of nothing a server serves only what is signed before."""
    exposure = Exposure(0, 0, 0, 0)
    meters = Meters(exposure=exposure, spending=Spending(ahead_bytes=MIB, ahead_requests=4)).connect()
    meters.pass_time(5.0)
    meters.pump()
    assert meters.paid == PRICES.of(Usage(4, MIB))
    meters.request()
    assert meters.stream(5 * MIB) == 5 * MIB
    assert meters.most_unpaid == Usage()
    ahead = meters.payer.signed_usage.beyond(meters.payer.used)
    assert ahead.bytes <= MIB
    assert ahead.requests <= 4


@pytest.mark.parametrize("most", [0, MIB])
def test_a_server_that_serves_nothing_unpaid_is_paid_ahead_by_a_client_that_chose_nothing(most):
    """It waited for ever. What it can lose begins with the price of 4 KiB, and is half of what came."""
    meters = Meters(exposure=Exposure(0, most, 0, most)).connect()
    meters.pump()
    assert meters.paid == PRICES.of(Usage(0, 4096))
    meters.request()
    meters.pump()
    assert meters.stream(5 * MIB) == 5 * MIB
    assert meters.payer.signed_usage.beyond(meters.payer.used).bytes <= (MIB if most == 0 else 4096)
    assert meters.most_unpaid.bytes <= most
    assert meters.end()


def test_a_client_pays_ahead_to_the_last_of_its_money():
    meters = Meters(deposit=PRICES.of(Usage(1, 10_000)), exposure=Exposure(0, 0, 0, 0)).connect()
    meters.request()
    meters.pump()
    assert meters.stream(MIB) == 10_000
    assert meters.payer.spent


def test_who_is_paid_ahead_waits_without_complaint():
    meters = Meters(exposure=Exposure(0, 0, 0, 0)).connect()
    for _ in range(100):
        meters.pass_time(1.0)
        meters.pump()
    assert not meters.told_of(payee.Late)


def test_uploads_use_the_same_exposure():
    meters = Meters().connect()
    assert meters.payee.reception() == MIB
    meters.payee.count(1, 0, 3 * MIB, meters.now)
    assert meters.payee.reception() == MIB
    assert meters.payee.allowance() == 0
    assert meters.payee.paused


# --------------------------------------------------------------------------------------------------- the deposit


def test_never_more_than_the_deposit():
    deposit = PRICES.of(Usage(1, 3 * MIB)) + 17
    meters = Meters(deposit=deposit).connect()
    meters.request()
    served = meters.stream(50 * MIB)
    most = PRICES.bytes_within(deposit, 1)
    assert served == most
    assert PRICES.of(Usage(1, most)) <= deposit < PRICES.of(Usage(1, most + 1))
    assert meters.paid <= deposit
    assert meters.told_of(payer.FundsLow)
    assert meters.payee.spent
    meters.pass_time(30.0)
    meters.pump()
    assert meters.told_of(payee.Late)


def test_a_top_up_goes_on():
    meters = Meters(deposit=PRICES.of(Usage(0, 2 * MIB))).connect()
    assert meters.stream(50 * MIB) == 2 * MIB
    more = PRICES.of(Usage(0, 6 * MIB))
    meters.payer.funded(more, meters.now)
    meters.pump()
    assert meters.told_of(payee.LookAgain)
    meters.payee.set_affordable(more, meters.now)
    assert meters.stream(50 * MIB) == 4 * MIB


def test_a_request_that_the_budget_does_not_cover_is_not_made():
    meters = Meters(deposit=2500).connect()
    meters.payer.check_request(2)
    with pytest.raises(BudgetSpent, match="2500"):
        meters.payer.check_request(3)
    meters.request(2)
    with pytest.raises(BudgetSpent):
        meters.payer.check_request()


def test_quotas_of_a_subscription():
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


# ------------------------------------------------------------------------------------------------ bad vouchers


@pytest.fixture
def paid():
    """A lane with a voucher of sequence 1 for 4 requests and 5 MiB, used to the same."""
    meters = Meters()
    meters.server_disk = PayeeLane(
        meters.server_disk.channel, 0, KEY.sign(voucher(1, 4, 5 * MIB)), Usage(4, 5 * MIB)
    )
    meters.client_disk = PayerLane(
        meters.client_disk.channel, 0, meters.server_disk.newest, Usage(4, 5 * MIB)
    )
    return meters.connect()


@pytest.mark.parametrize(
    ("bad", "flaw"),
    [
        (voucher(1, 4, 6 * MIB), Flaw.EQUIVOCAL),
        (voucher(0, 4, 6 * MIB), None),
        (voucher(2, 3, 5 * MIB), Flaw.SHRUNK),
        (voucher(2, 4, 5 * MIB - 1), Flaw.SHRUNK),
        (voucher(2, 4, 5 * MIB, amount=1), Flaw.SHRUNK),
        (voucher(2, 5, 6 * MIB, amount=PRICES.of(Usage(5, 6 * MIB)) - 1), Flaw.UNDERPAID),
        (voucher(2, 5, 6 * MIB, amount=PRICES.of(Usage(5, 6 * MIB)) + 1), Flaw.OVERPRICED),
        (voucher(2, 2_000_000, 5 * MIB), Flaw.OVERDRAWN),
        (voucher(2, 5, 5 * MIB, not_after_ms=9_999), Flaw.SHORT_LIVED),
        (voucher(2, 5, 5 * MIB, hash_lock=lock_of(SECRET)), Flaw.WRONG_LOCK),
    ],
)
def test_a_bad_voucher_is_refused_and_changes_nothing(paid, bad, flaw):
    paid.payee.least_end_ms = 10_000
    before = (paid.payee.newest, paid.payee.paid, paid.payee.allowance())
    paid.payee.events()
    if flaw is None:  # older than what we have: worth nothing, and no crime
        paid.payee.receive(build(said(KEY.sign(bad), 0)), paid.now)
    else:
        assert flaw_of(paid, KEY.sign(bad)) is flaw
    assert paid.payee.events() == []
    assert (paid.payee.newest, paid.payee.paid, paid.payee.allowance()) == before
    good = KEY.sign(voucher(2, 5, 6 * MIB, not_after_ms=10_000))
    paid.payee.receive(build(said(good, 0)), paid.now)
    assert paid.payee.events() == [payee.CheckWanted(good, 0)]


def test_nothing_counts_before_it_is_stored(paid):
    signed = KEY.sign(voucher(2, 5, 6 * MIB))
    before = paid.payee.allowance()
    paid.payee.receive(build(said(signed, 0)), paid.now)
    assert paid.payee.paid == Usage(4, 5 * MIB)
    assert paid.payee.allowance() == before
    paid.payee.stored(signed, 0, paid.now)
    assert paid.payee.paid == Usage(5, 6 * MIB)
    assert paid.payee.allowance() > before


def test_the_more_moves_while_a_voucher_is_checked_the_sooner_the_next_is_heard():
    server = payee.Payee(PayeeLane(CHANNEL, 0), PRICES, 10**12, Exposure(64 * MIB, 64 * MIB, 64, 64))
    server.begin(0.0)
    server.receive(build(messages.Heard()), 0.0)

    def check(sequence, used, meanwhile):
        server.count(0, used * MIB, 0, 0.0)
        signed = KEY.sign(voucher(sequence, 0, used * MIB))
        server.receive(build(said(signed, 0)), 0.0)
        server.count(0, (used + meanwhile) * MIB, 0, 0.0)
        server.stored(signed, 0, 0.0)
        return (server.patience + meanwhile * MIB) // MIB

    assert check(1, 10, 2) == 48  # a quarter of the exposure is left for it
    assert check(2, 20, 12) == 40  # twice what has moved
    assert check(3, 40, 24) == 32  # but at most half
    assert check(4, 70, 0) == 32
    assert [check(n, 10 * n + 30, 0) for n in range(5, 20)][-1] == 48  # and it is forgotten by and by


def test_what_a_watcher_has_claimed_is_confirmed_by_its_sum():
    """Its claim says nothing of counts: a client that is never answered would say its newest for ever."""
    signed = KEY.sign(voucher(2, 4, 5 * MIB))
    floor = payee.Floor(2, signed.voucher.amount)
    server = payee.Payee(PayeeLane(CHANNEL, 0, floor=floor), PRICES, 10**12)
    server.receive(build(said(signed, 0)), 0.0)
    assert server.events() == [payee.Send(build(messages.Stored(2)))]
    server.receive(build(said(KEY.sign(voucher(1, 4, 5 * MIB)), 0)), 0.0)
    assert server.events() == []


def test_replayed_reordered_and_repeated_vouchers(paid):
    second, third = (KEY.sign(voucher(n, 4 + n, 6 * MIB)) for n in (2, 3))
    for signed in (third, second, third, second):
        paid.payee.receive(build(said(signed, 0)), paid.now)
        for event in paid.payee.events():
            if isinstance(event, payee.CheckWanted):
                paid.payee.stored(event.voucher, 0, paid.now)
    assert paid.payee.newest == third
    # Stored in the other order, as two threads might: the newest stays.
    paid.payee.stored(second, 0, paid.now)
    assert paid.payee.newest == third


def test_nothing_slips_in_behind_a_voucher_that_is_being_checked(paid):
    """A newer one for less would be the newest when both are written: the chain, too, takes only the newest."""
    first = KEY.sign(voucher(2, 6, 8 * MIB))
    paid.payee.receive(build(said(first, 0)), paid.now)
    assert flaw_of(paid, KEY.sign(voucher(3, 5, 8 * MIB))) is Flaw.SHRUNK
    assert flaw_of(paid, KEY.sign(voucher(2, 7, 8 * MIB))) is Flaw.EQUIVOCAL
    paid.payee.receive(build(said(first, 0)), paid.now)  # said again
    assert [e for e in paid.payee.events() if isinstance(e, payee.CheckWanted)] == [
        payee.CheckWanted(first, 0)
    ]


def test_vouchers_below_what_the_chain_has_accepted_are_worth_nothing():
    """A server that has lost its store still knows by the chain what was claimed, and what can't be any more."""
    meters = Meters()
    floor = payee.Floor(9, PRICES.of(Usage(10, MIB)), 10, MIB)
    meters.server_disk = PayeeLane(meters.server_disk.channel, 0, floor=floor)
    meters.client_disk = PayerLane(
        meters.client_disk.channel, 0, KEY.sign(voucher(9, 10, MIB)), Usage(10, MIB)
    )
    meters.connect()
    assert meters.payee.paid == meters.payee.used == meters.payer.used == Usage(10, MIB)
    meters.pump()
    assert meters.payer.deadline() == payer.NEVER  # it was told that its newest voucher counts
    meters.payee.events()
    meters.payee.receive(build(said(KEY.sign(voucher(9, 90, MIB)), 0)), meters.now)
    assert meters.payee.events() == []
    assert flaw_of(meters, KEY.sign(voucher(10, 9, 2 * MIB))) is Flaw.SHRUNK
    assert meters.stream(4 * MIB) == 4 * MIB
    assert meters.end()
    assert meters.paid == PRICES.of(Usage(10, 5 * MIB))


def test_what_somebody_else_claimed_is_the_floor_from_then_on(paid):
    paid.payee.raise_floor(payee.Floor(5, PRICES.of(Usage(6, 7 * MIB)), 6, 7 * MIB), paid.now)
    assert paid.payee.paid == Usage(6, 7 * MIB)
    paid.payee.events()
    paid.payee.receive(build(said(KEY.sign(voucher(5, 90, 9 * MIB)), 0)), paid.now)
    assert paid.payee.events() == []


def test_a_forged_voucher_does_not_count(paid):
    forged = LaneKey.generate().sign(voucher(2, 5, 6 * MIB))
    paid.to_server.append(build(said(forged, 0)))
    paid.pump()
    assert "forged" in paid.told
    assert paid.payee.newest.voucher.sequence == 1


def test_inflated_counts_are_refused_where_they_are_evidence():
    """Where the server bears transport cost, each vouched request and 16 KiB is worth a credit to the client."""
    meters = Meters(Prices(0, 2_000_000)).connect()
    meters.payee.most_ahead = Usage(4, MIB)
    free = SignedVoucher(voucher(1, 5, 0, amount=0), bytes(64))
    assert flaw_of(meters, free) is Flaw.INFLATED
    meters.payee.receive(build(said(SignedVoucher(voucher(1, 4, 0, amount=0), bytes(64)), 0)), meters.now)


def test_a_malformed_frame_changes_nothing(paid):
    for frame in (b"", b"\x90", b"\x91\x01", build(messages.Due(1, 1)), b"\xff" * 100):
        with pytest.raises(MalformedMeter):
            paid.payee.receive(frame, paid.now)
    for frame in (b"", b"\x90", build(messages.Finish()), b"\xff" * 100):
        with pytest.raises(MalformedMeter):
            paid.payer.receive(frame, paid.now)
    assert paid.stream(3 * MIB) == 3 * MIB


# ------------------------------------------------------------------------------------------- servers that cheat


def test_a_server_cannot_make_a_client_pay_for_what_did_not_come():
    meters = Meters().connect()
    meters.stream(MIB)
    for _ in range(5):
        meters.payer.receive(build(messages.Due(1_000, 2**40)), meters.now)
        meters.pump()
    assert meters.payer.signed_usage == meters.arrived
    assert meters.paid == PRICES.of(meters.arrived)


def test_a_server_that_remembers_too_much_is_not_paid_for_it():
    meters = Meters().connect()
    meters.stream(MIB)
    assert meters.end()
    meters.server_disk = replace(meters.server_disk, used=Usage(0, MIB + 1))
    with pytest.raises(CountsDisputed, match="1 bytes"):
        meters.connect()


def test_after_a_break_the_server_is_believed_a_little():
    meters = Meters().connect()
    meters.stream(3 * MIB)
    meters.serve(MIB // 2)  # under way when the connection breaks
    meters.lose()
    meters.connect()
    assert meters.payer.used == meters.payee.used == Usage(0, 3 * MIB + MIB // 2)
    assert meters.end()
    meters.client_disk = replace(meters.client_disk, clean=False)
    meters.server_disk = replace(meters.server_disk, used=Usage(0, 12 * MIB))
    with pytest.raises(CountsDisputed):
        meters.connect()


@pytest.mark.parametrize(("arrives", "breaks"), [(0, 2), (4 * MIB, 2), (40 * MIB, 4)])
def test_a_server_that_breaks_off_again_and_again_is_believed_little_in_all(arrives, breaks):
    """It would be paid for nothing, by whoever dials again by himself."""
    meters = Meters(spending=Spending(slack_bytes=16 * MIB)).connect()
    believed = 0
    meters.stream(arrives)
    for _ in range(breaks):
        meters.lose()
        meters.server_disk = replace(meters.server_disk, used=meters.server_disk.used.plus(0, 6 * MIB))
        meters.connect()
        believed += 6 * MIB
        assert meters.payer.believed == Usage(0, believed)
    meters.lose()
    meters.server_disk = replace(meters.server_disk, used=meters.server_disk.used.plus(0, 6 * MIB))
    with pytest.raises(CountsDisputed, match=f"{6 * MIB} bytes more"):
        meters.connect()
    assert meters.client_disk.believed == Usage(0, believed)


def test_what_a_process_forgot_when_it_died_is_not_only_believed():
    """It has arrived: who is killed again and again goes on."""
    meters = Meters(spending=Spending(slack_bytes=MIB)).connect()
    for _ in range(8):
        meters.stream(MIB)
        meters.crash_client()
        meters.connect()
        assert meters.payer.believed == Usage()
    assert meters.payer.used == Usage(0, 8 * MIB)


def test_a_foreign_voucher_of_the_server_is_no_debt():
    meters = Meters()
    foreign = LaneKey.generate().sign(voucher(9, 10, 0))
    meters.server_disk = replace(meters.server_disk, newest=foreign)
    with pytest.raises(CountsDisputed, match="did not sign"):
        meters.connect()


def test_an_old_copy_of_the_store_never_signs_a_sequence_twice():
    meters = Meters().connect()
    old = meters.client_disk
    meters.stream(2 * MIB)
    meters.lose()
    meters.client_disk = replace(old, clean=False)
    meters.connect()
    assert meters.payer.sequence == meters.server_disk.newest.voucher.sequence
    assert meters.client_disk.newest == meters.server_disk.newest
    meters.stream(2 * MIB)
    assert meters.end()
    assert meters.refused == []
    assert meters.paid == PRICES.of(Usage(0, 4 * MIB))


def test_two_vouchers_of_one_sequence_end_it():
    meters = Meters()
    meters.client_disk = replace(meters.client_disk, newest=KEY.sign(voucher(3, 1)), used=Usage(1, 0))
    meters.server_disk = replace(meters.server_disk, newest=KEY.sign(voucher(3, 2)), used=Usage(2, 0))
    with pytest.raises(CountsDisputed, match="same sequence"):
        meters.connect()


def test_a_server_that_lost_vouchers_gets_them_again():
    meters = Meters().connect()
    meters.stream(2 * MIB)
    meters.lose()
    meters.server_disk = PayeeLane(meters.server_disk.channel, 0)
    meters.connect()
    assert meters.server_disk.newest == meters.client_disk.newest
    assert meters.paid == PRICES.of(Usage(0, 2 * MIB))


def test_a_server_confirms_no_voucher_that_was_not_signed():
    meters = Meters().connect()
    with pytest.raises(MalformedMeter, match="were signed"):
        meters.payer.receive(build(messages.Stored(1)), meters.now)


def test_nothing_is_believed_before_the_welcome():
    meters = Meters().connect()
    meters.payer = payer.Payer(meters.client_disk, PRICES, 1000, lambda v: True)
    with pytest.raises(MalformedMeter, match="before the welcome"):
        meters.payer.receive(build(messages.Due(1, 1)), meters.now)
    with pytest.raises(MalformedMeter, match="version 2"):
        meters.payer.receive(build(messages.Welcome(2, 0, 0, 0, 0, 0, 0, True, False, None)), meters.now)


def test_a_lost_welcome_is_said_again():
    meters = Meters()
    meters.connect()
    meters.payer = payer.Payer(meters.client_disk, PRICES, 10**9, lambda v: v.is_by(KEY.public))
    meters.payee = payee.Payee(meters.server_disk, PRICES, 10**9)
    meters.payee.begin(meters.now)
    meters.pump(lose=True)
    assert not meters.payer.welcomed
    meters.pass_time(1.0)
    meters.pump()
    assert meters.payer.welcomed
    assert meters.payee.heard


# ------------------------------------------------------------------------------------------------------- charges


def test_a_charge_is_paid_at_once():
    meters = Meters().connect()
    number = meters.charge(5)
    assert meters.told_of(payee.ChargePaid) == [payee.ChargePaid(number)]
    assert meters.paid == 5000
    assert meters.payee.used == meters.payer.used == Usage(5, 0)
    assert meters.charge(1) == number + 1
    assert meters.paid == 6000


def test_a_large_charge_is_asked_about():
    meters = Meters(spending=Spending(charge_units=10)).connect()
    meters.auto_agree = False
    number = meters.charge(11)
    assert meters.told_of(payer.ChargeOffered) == [payer.ChargeOffered(number, 11, 11_000, None)]
    assert not meters.payee.may_charge(locked=False)
    with pytest.raises(NotMetered):
        meters.payee.charge(1, meters.now)
    meters.payer.answer_charge(number, False, meters.now)
    meters.pump()
    assert meters.told_of(payee.ChargeRefused) == [payee.ChargeRefused(number)]
    assert meters.paid == 0
    meters.payer.answer_charge(number, True, meters.now)  # too late
    meters.pump()
    assert meters.paid == 0


def test_a_charge_beyond_the_money_is_asked_about_and_can_be_funded():
    meters = Meters(deposit=3000).connect()
    meters.auto_agree = False
    number = meters.charge(4)
    assert meters.told_of(payer.ChargeOffered)
    meters.payer.answer_charge(number, True, meters.now)  # without the money: declined
    meters.pump()
    assert meters.told_of(payee.ChargeRefused) == [payee.ChargeRefused(number)]
    second = meters.charge(4)
    meters.payer.funded(5000, meters.now)
    meters.payee.set_affordable(5000, meters.now)
    meters.payer.answer_charge(second, True, meters.now)
    meters.pump()
    assert meters.paid == 4000


def test_a_charge_survives_lost_frames():
    meters = Meters().connect()
    meters.payee.charge(3, meters.now)
    meters.pump(lose=True)
    meters.pass_time(1.0)
    meters.pump(lose=True)  # now the answer is lost
    meters.pass_time(1.0)
    meters.pump()
    assert meters.told_of(payee.ChargePaid)
    assert meters.paid == 3000


def test_requests_made_while_a_charge_is_on_its_way_do_no_harm():
    meters = Meters().connect()
    meters.payee.charge(3, meters.now)
    frames = [e.frame for e in meters.payee.events() if isinstance(e, payee.Send)]
    for frame in frames:
        meters.payer.receive(frame, meters.now)
    meters.request(2)  # reach the server before the voucher does
    meters.pump()
    assert meters.refused == []
    assert meters.told_of(payee.ChargePaid)


def test_an_agreement_without_the_money_is_refused(paid):
    paid.payee.charge(3, paid.now)
    cheap = KEY.sign(voucher(2, 6, 5 * MIB))
    assert flaw_of(paid, cheap, 1) is Flaw.CHARGE_UNPAID
    assert flaw_of(paid, KEY.sign(voucher(2, 9, 5 * MIB)), 2) is Flaw.CHARGE_UNPAID
    assert flaw_of(paid, paid.payee.newest, 1) is Flaw.CHARGE_UNPAID
    assert not paid.payee.may_charge(locked=False)


# ------------------------------------------------------------------------------------------------- fair exchange


def test_a_locked_charge_reveals_the_key_and_unlocks():
    meters = Meters().connect()
    meters.charge(2, SECRET)
    assert meters.told_of(payee.ChargePaid)
    assert meters.told_of(payer.Revealed) == [payer.Revealed(SECRET)]
    newest = meters.server_disk.newest.voucher
    assert (newest.amount, newest.hash_lock) == (2000, None)
    assert meters.charge(1, b"t" * 32)
    assert len(meters.told_of(payer.Revealed)) == 2


def test_the_key_is_not_told_before_the_locked_voucher_is_stored():
    meters = Meters().connect()
    meters.payee.charge(2, meters.now, SECRET)
    asked = [e.frame for e in meters.payee.events() if isinstance(e, payee.Send)]
    assert not any(SECRET in frame for frame in asked)
    for frame in asked:
        meters.payer.receive(frame, meters.now)
    assert not [e for e in meters.payer.events() if isinstance(e, payer.SignWanted)]
    meters.payer.answer_charge(1, True, meters.now)  # what it is for has arrived
    (wanted,) = [e for e in meters.payer.events() if isinstance(e, payer.SignWanted)]
    assert wanted.voucher.hash_lock == lock_of(SECRET)
    signed = KEY.sign(wanted.voucher)
    meters.payee.receive(build(said(signed, 1)), meters.now)
    assert not any(isinstance(e, payee.Send) and SECRET in e.frame for e in meters.payee.events())
    meters.payee.stored(signed, 1, meters.now)
    assert any(isinstance(e, payee.Send) and SECRET in e.frame for e in meters.payee.events())


def test_a_lock_without_its_charge_gets_no_key():
    """Declined, and then a voucher under the lock that leaves the units out: the key must not come."""
    meters = Meters(spending=Spending(charge_units=1)).connect()
    meters.auto_agree = False
    number = meters.charge(2, SECRET)
    meters.payer.answer_charge(number, False, meters.now)
    meters.pump()
    assert flaw_of(meters, KEY.sign(voucher(1, 1, hash_lock=lock_of(SECRET))), 0) is Flaw.WRONG_LOCK
    assert flaw_of(meters, KEY.sign(voucher(1, 2, hash_lock=lock_of(SECRET))), 5) is Flaw.CHARGE_UNPAID
    assert not any(SECRET in frame for frame in meters.to_client)


def test_a_locked_charge_is_agreed_to_under_its_lock():
    meters = Meters().connect()
    meters.payee.charge(2, meters.now, SECRET)
    assert flaw_of(meters, KEY.sign(voucher(1, 2)), 1) is Flaw.WRONG_LOCK
    assert flaw_of(meters, KEY.sign(voucher(1, 2, hash_lock=bytes(32))), 1) is Flaw.WRONG_LOCK
    # Whatever charge it names.
    assert flaw_of(meters, KEY.sign(voucher(1, 1, hash_lock=lock_of(SECRET))), 0) is Flaw.CHARGE_UNPAID


def test_a_key_that_was_lost_on_its_way_is_told_again_also_after_a_restart():
    meters = Meters().connect()
    meters.server_disk = replace(meters.server_disk, preimage=SECRET)
    meters.payee.charge(2, meters.now, SECRET)
    for frame in [e.frame for e in meters.payee.events() if isinstance(e, payee.Send)]:
        meters.payer.receive(frame, meters.now)
    while meters._client_events():
        pass
    for frame in meters.to_server:
        meters.payee.receive(frame, meters.now)
    meters._server_events()
    assert meters.server_disk.newest.voucher.hash_lock == lock_of(SECRET)
    meters.lose()
    meters.connect()
    assert meters.told_of(payer.Revealed) == [payer.Revealed(SECRET)]
    meters.pass_time(1.0)
    meters.pump()
    assert meters.server_disk.newest.voucher.hash_lock is None


def test_no_second_lock_before_the_first_is_open():
    meters = Meters().connect()
    meters.payer.receive(build(messages.ChargeAsked(1, 1, lock_of(SECRET))), meters.now)
    with pytest.raises(MalformedMeter):
        meters.payer.receive(build(messages.ChargeAsked(2, 1, lock_of(SECRET))), meters.now)
    meters.payer.receive(build(messages.Reveal(bytes(32))), meters.now)  # opens nothing
    assert not meters.told_of(payer.Revealed)


@pytest.mark.parametrize(("charge", "units"), [(0, 1), (2, 1), (1, 0)])
def test_charges_out_of_turn(charge, units):
    meters = Meters().connect()
    with pytest.raises(MalformedMeter):
        meters.payer.receive(build(messages.ChargeAsked(charge, units, None)), meters.now)


# --------------------------------------------------------------------------------------------------- the end


def test_an_orderly_end_waits_for_what_is_under_way():
    meters = Meters().connect()
    meters.request()
    meters.serve(700_000)
    meters.payer.finish(meters.now)
    meters.pump()
    assert not meters.told_of(payer.Finished)
    assert meters.serve(1) == 0  # the bill is made out: nothing more is sent
    meters.arrive()
    meters.pump()
    assert meters.told_of(payer.Finished) == [payer.Finished(True)]
    assert meters.paid == PRICES.of(Usage(1, 700_000))


def test_an_end_that_nobody_answers_is_given_up():
    meters = Meters().connect()
    meters.stream(100_000)
    meters.payer.finish(meters.now)
    for _ in range(10):
        assert not meters.told_of(payer.Finished)
        meters.now += 1.0
        meters.payer.tick(meters.now)
        for event in meters.payer.events():
            if not isinstance(event, payer.Send | payer.SignWanted):
                meters.told.append(event)
    assert meters.told_of(payer.Finished) == [payer.Finished(False)]
    assert meters.payer.deadline() == payer.NEVER


def test_the_end_survives_lost_frames():
    meters = Meters().connect()
    meters.stream(100_000)
    meters.payer.finish(meters.now)
    meters.pump(lose=True)
    meters.pass_time(1.0)
    meters.pump()
    meters.pass_time(1.0)
    meters.pump()
    assert meters.told_of(payer.Finished) == [payer.Finished(True)]


def test_an_agreed_close_is_asked_for_and_given():
    meters = Meters().connect()
    meters.payer.ask_close()
    meters.pump()
    assert meters.told_of(payee.CloseAsked)
    agreed = messages.Agreed(5, 6, bytes(32), bytes(64))
    meters.payee.agree(agreed)
    meters.pump()
    assert meters.told_of(payer.AgreementGiven) == [payer.AgreementGiven(agreed)]
