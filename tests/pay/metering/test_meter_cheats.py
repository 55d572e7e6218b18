"""What nobody gets away with at a meter: bad vouchers, and servers that count too much or forget."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dtp.pay import messages
from dtp.pay.client import payer
from dtp.pay.client.lane_start import PayerLane
from dtp.pay.errors import CountsDisputed, Flaw, MalformedMeter
from dtp.pay.messages import VoucherSaid, build
from dtp.pay.server import payee
from dtp.pay.server.stored_vouchers import Floor, PayeeLane
from dtp.pay.terms import MIB, NEVER, Exposure, Prices, Spending, Usage
from dtp.pay.voucher import LaneKey, SignedVoucher

from ..meters import CHANNEL, KEY, PRICES, SECRET, Meters, StoredMeters, flaw_of, lock_of, voucher

# ------------------------------------------------------------------------------------------------ bad vouchers


@pytest.mark.parametrize(
    ("bad", "flaw"),
    [
        (voucher(1, 4, 6 * MIB), Flaw.EQUIVOCAL),
        (voucher(0, 4, 6 * MIB), None),
        (voucher(2, 3, 5 * MIB), Flaw.SHRUNK),
        (voucher(2, 4, 5 * MIB - 1), Flaw.SHRUNK),
        (voucher(2, 4, 5 * MIB, amount=1), Flaw.SHRUNK),
        (voucher(2, 5, 6 * MIB, amount=PRICES.cost_of(Usage(5, 6 * MIB)) - 1), Flaw.UNDERPAID),
        (voucher(2, 5, 6 * MIB, amount=PRICES.cost_of(Usage(5, 6 * MIB)) + 1), Flaw.OVERPRICED),
        (voucher(2, 2_000_000, 5 * MIB), Flaw.OVERDRAWN),
        (voucher(2, 5, 5 * MIB, not_after_ms=9_999), Flaw.SHORT_LIVED),
        (voucher(2, 5, 5 * MIB, hash_lock=lock_of(SECRET)), Flaw.WRONG_LOCK),
    ],
)
def test_a_bad_voucher_is_refused_and_changes_nothing(paid: Any, bad: Any, flaw: Any) -> None:
    paid.payee.least_end_ms = 10_000
    before = (paid.payee.newest, paid.payee.vouchers.paid, paid.payee.send_limit())
    paid.payee.take_events()
    if flaw is None:  # older than what we have: worth nothing, and no crime
        paid.payee.receive_frame(build(VoucherSaid.of(KEY.sign(bad), 0)), paid.now)
    else:
        assert flaw_of(paid, KEY.sign(bad)) is flaw
    assert paid.payee.take_events() == []
    assert (paid.payee.newest, paid.payee.vouchers.paid, paid.payee.send_limit()) == before
    good = KEY.sign(voucher(2, 5, 6 * MIB, not_after_ms=10_000))
    paid.payee.receive_frame(build(VoucherSaid.of(good, 0)), paid.now)
    assert paid.payee.take_events() == [payee.CheckWanted(good, 0)]


def test_nothing_counts_before_it_is_stored(paid: Any) -> None:
    signed = KEY.sign(voucher(2, 5, 6 * MIB))
    before = paid.payee.send_limit()
    paid.payee.receive_frame(build(VoucherSaid.of(signed, 0)), paid.now)
    assert paid.payee.vouchers.paid == Usage(4, 5 * MIB)
    assert paid.payee.send_limit() == before
    paid.payee.voucher_stored(signed, 0, paid.now)
    assert paid.payee.vouchers.paid == Usage(5, 6 * MIB)
    assert paid.payee.send_limit() > before


def test_the_more_moves_while_a_voucher_is_checked_the_sooner_the_next_is_heard() -> None:
    server = payee.Payee(PayeeLane(CHANNEL, 0), PRICES, 10**12, Exposure(64 * MIB, 64 * MIB, 64, 64))
    server.begin(0.0)
    server.receive_frame(build(messages.Heard()), 0.0)

    def check(sequence: Any, used: Any, meanwhile: Any) -> Any:
        server.set_counts(0, used * MIB, 0, 0.0)
        signed = KEY.sign(voucher(sequence, 0, used * MIB))
        server.receive_frame(build(VoucherSaid.of(signed, 0)), 0.0)
        server.set_counts(0, (used + meanwhile) * MIB, 0, 0.0)
        server.voucher_stored(signed, 0, 0.0)
        return (server.patience + meanwhile * MIB) // MIB

    assert check(1, 10, 2) == 48  # a quarter of the exposure is left for it
    assert check(2, 20, 12) == 40  # twice what has moved
    assert check(3, 40, 24) == 32  # but at most half
    assert check(4, 70, 0) == 32
    assert [check(n, 10 * n + 30, 0) for n in range(5, 20)][-1] == 48  # and it is forgotten by and by


def test_what_a_watcher_has_claimed_is_confirmed_by_its_sum() -> None:
    """Its claim says nothing of counts: a client that is never answered would say its newest for ever."""
    signed = KEY.sign(voucher(2, 4, 5 * MIB))
    floor = Floor(2, signed.voucher.amount)
    server = payee.Payee(PayeeLane(CHANNEL, 0, floor=floor), PRICES, 10**12)
    server.receive_frame(build(VoucherSaid.of(signed, 0)), 0.0)
    assert server.take_events() == [messages.SendFrame(build(messages.Stored(2)))]
    server.receive_frame(build(VoucherSaid.of(KEY.sign(voucher(1, 4, 5 * MIB)), 0)), 0.0)
    assert server.take_events() == []


def test_replayed_reordered_and_repeated_vouchers(paid: Any) -> None:
    second, third = (KEY.sign(voucher(n, 4 + n, 6 * MIB)) for n in (2, 3))
    for signed in (third, second, third, second):
        paid.payee.receive_frame(build(VoucherSaid.of(signed, 0)), paid.now)
        for event in paid.payee.take_events():
            if isinstance(event, payee.CheckWanted):
                paid.payee.voucher_stored(event.voucher, 0, paid.now)
    assert paid.payee.newest == third
    # Stored in the other order, as two threads might: the newest stays.
    paid.payee.voucher_stored(second, 0, paid.now)
    assert paid.payee.newest == third


def test_nothing_slips_in_behind_a_voucher_that_is_being_checked(paid: Any) -> None:
    """A newer one for less would be the newest when both are written: the chain, too, takes only the newest."""
    first = KEY.sign(voucher(2, 6, 8 * MIB))
    paid.payee.receive_frame(build(VoucherSaid.of(first, 0)), paid.now)
    assert flaw_of(paid, KEY.sign(voucher(3, 5, 8 * MIB))) is Flaw.SHRUNK
    assert flaw_of(paid, KEY.sign(voucher(2, 7, 8 * MIB))) is Flaw.EQUIVOCAL
    paid.payee.receive_frame(build(VoucherSaid.of(first, 0)), paid.now)  # said again
    assert [e for e in paid.payee.take_events() if isinstance(e, payee.CheckWanted)] == [
        payee.CheckWanted(first, 0)
    ]


def test_vouchers_below_what_the_chain_has_accepted_are_worth_nothing() -> None:
    """A server that has lost its store still knows by the chain what was claimed, and what can't be any more."""
    meters = Meters()
    floor = Floor(9, PRICES.cost_of(Usage(10, MIB)), 10, MIB)
    meters.server_disk = PayeeLane(meters.server_disk.channel, 0, floor=floor)
    meters.client_disk = PayerLane(
        meters.client_disk.channel, 0, KEY.sign(voucher(9, 10, MIB)), Usage(10, MIB)
    )
    meters.connect()
    assert meters.payee.vouchers.paid == meters.payee.used == meters.payer.used == Usage(10, MIB)
    meters.pump()
    assert meters.payer.next_deadline() == NEVER  # it was told that its newest voucher counts
    meters.payee.take_events()
    meters.payee.receive_frame(build(VoucherSaid.of(KEY.sign(voucher(9, 90, MIB)), 0)), meters.now)
    assert meters.payee.take_events() == []
    assert flaw_of(meters, KEY.sign(voucher(10, 9, 2 * MIB))) is Flaw.SHRUNK
    assert meters.stream(4 * MIB) == 4 * MIB
    assert meters.end()
    assert meters.paid == PRICES.cost_of(Usage(10, 5 * MIB))


def test_what_somebody_else_claimed_is_the_floor_from_then_on(paid: Any) -> None:
    paid.payee.raise_floor(Floor(5, PRICES.cost_of(Usage(6, 7 * MIB)), 6, 7 * MIB), paid.now)
    assert paid.payee.vouchers.paid == Usage(6, 7 * MIB)
    paid.payee.take_events()
    paid.payee.receive_frame(build(VoucherSaid.of(KEY.sign(voucher(5, 90, 9 * MIB)), 0)), paid.now)
    assert paid.payee.take_events() == []


def test_a_forged_voucher_does_not_count(paid: Any) -> None:
    forged = LaneKey.generate().sign(voucher(2, 5, 6 * MIB))
    paid.to_server.append(build(VoucherSaid.of(forged, 0)))
    paid.pump()
    assert "forged" in paid.told
    assert paid.payee.newest.voucher.sequence == 1


def test_inflated_counts_are_refused_where_they_are_evidence() -> None:
    """Where the server bears transport cost, each vouched request and 16 KiB is worth a credit to the client."""
    meters = Meters(Prices(0, 2_000_000)).connect()
    meters.payee.most_ahead = Usage(4, MIB)
    free = SignedVoucher(voucher(1, 5, 0, amount=0), bytes(64))
    assert flaw_of(meters, free) is Flaw.INFLATED
    meters.payee.receive_frame(
        build(VoucherSaid.of(SignedVoucher(voucher(1, 4, 0, amount=0), bytes(64)), 0)), meters.now
    )


def test_a_malformed_frame_changes_nothing(paid: Any) -> None:
    for frame in (b"", b"\x90", b"\x91\x01", build(messages.Due(1, 1)), b"\xff" * 100):
        with pytest.raises(MalformedMeter):
            paid.payee.receive_frame(frame, paid.now)
    for frame in (b"", b"\x90", build(messages.Finish()), b"\xff" * 100):
        with pytest.raises(MalformedMeter):
            paid.payer.receive_frame(frame, paid.now)
    assert paid.stream(3 * MIB) == 3 * MIB


# ------------------------------------------------------------------------------------------- servers that cheat


def test_a_server_cannot_make_a_client_pay_for_what_did_not_come() -> None:
    meters = Meters().connect()
    meters.stream(MIB)
    for _ in range(5):
        meters.payer.receive_frame(build(messages.Due(1_000, 2**40)), meters.now)
        meters.pump()
    assert meters.payer.signed.usage == meters.arrived
    assert meters.paid == PRICES.cost_of(meters.arrived)


def test_a_server_that_remembers_too_much_is_not_paid_for_it() -> None:
    """It goes on as long as that is within what it serves unpaid, and asks for money no further."""
    meters = Meters().connect()
    meters.stream(MIB)
    assert meters.end()
    meters.server_disk = replace(meters.server_disk, used=Usage(0, MIB + MIB // 2))
    meters.connect()
    assert meters.payer.left == Usage(0, MIB // 2)
    assert meters.stream(MIB) == MIB
    assert meters.end()
    assert meters.paid == PRICES.cost_of(Usage(0, 2 * MIB))
    meters.server_disk = replace(meters.server_disk, used=Usage(0, 3 * MIB))
    with pytest.raises(CountsDisputed, match="bytes more") as disputed:
        meters.connect()
    assert disputed.value.bytes == MIB
    assert disputed.value.amount == 2_000_001
    assert "a slack of 0.002000001 SUI (--slack 2000001)" in str(disputed.value)


def test_after_a_break_the_server_is_believed_a_little() -> None:
    meters = Meters().connect()
    meters.stream(3 * MIB)
    meters.serve(MIB // 2)  # under way when the connection breaks
    meters.lose()
    meters.connect()
    believed = meters.payer.believed
    assert 0 < believed.bytes < MIB // 2
    assert PRICES.cost_of(believed) <= 750_000
    assert meters.payer.used == Usage(0, 3 * MIB + believed.bytes)
    assert meters.stream(MIB) == MIB  # the rest is the server's, which goes on
    assert meters.end()
    assert meters.paid == PRICES.cost_of(Usage(0, 4 * MIB + believed.bytes))
    meters.client_disk = replace(meters.client_disk, clean=False)
    meters.server_disk = replace(meters.server_disk, used=Usage(0, 12 * MIB))
    with pytest.raises(CountsDisputed) as disputed:
        meters.connect()
    meters.spending = Spending(slack_amount=disputed.value.amount)
    meters.connect()
    assert meters.payer.left == Usage()


@pytest.mark.parametrize("arrives", [0, 4 * MIB, 40 * MIB])
@pytest.mark.parametrize("dies", [False, True])
def test_a_server_that_breaks_off_again_and_again_is_believed_one_step_in_all(
    arrives: Any, dies: Any
) -> None:
    """It would be paid for nothing, by whoever dials again by himself, or is killed again and again."""
    meters = StoredMeters().connect()
    meters.stream(arrives)
    for _ in range(8):
        (meters.crash_client if dies else meters.lose)()
        meters.server_disk = replace(meters.server_disk, used=meters.server_disk.used.plus(2, MIB // 8))
        try:
            meters.connect()
        except CountsDisputed:
            break
        meters.pass_time(6.0)
        meters.pump()
        assert PRICES.cost_of(meters.payer.believed) <= 750_000
    assert meters.paid <= PRICES.cost_of(Usage(0, arrives)) + 750_000
    assert PRICES.cost_of(meters.server_disk.used) > meters.paid
    meters.close()


def test_who_is_killed_again_and_again_goes_on() -> None:
    """What it forgot is the server's beyond one voucher's step: a part of what that trusts a client with."""
    meters = Meters().connect()
    for _ in range(8):
        meters.stream(MIB)
        meters.crash_client()
        meters.connect()
        assert PRICES.cost_of(meters.payer.believed) <= 750_000
    assert meters.stream(MIB) == MIB
    assert meters.most_unpaid.bytes <= max(MIB, meters.payee.vouchers.paid.bytes // 2)
    assert meters.end()


def test_a_foreign_voucher_of_the_server_is_no_debt() -> None:
    meters = Meters()
    foreign = LaneKey.generate().sign(voucher(9, 10, 0))
    meters.server_disk = replace(meters.server_disk, newest=foreign)
    with pytest.raises(CountsDisputed, match="did not sign"):
        meters.connect()


def test_an_old_copy_of_the_store_never_signs_a_sequence_twice() -> None:
    meters = Meters().connect()
    old = meters.client_disk
    meters.stream(2 * MIB)
    meters.lose()
    meters.client_disk = replace(old, clean=False)
    meters.connect()
    assert meters.payer.signed.sequence == meters.server_disk.newest.voucher.sequence
    assert meters.client_disk.newest == meters.server_disk.newest
    meters.stream(2 * MIB)
    assert meters.end()
    assert meters.refused == []
    assert meters.paid == PRICES.cost_of(Usage(0, 4 * MIB))


def test_two_vouchers_of_one_sequence_end_it() -> None:
    meters = Meters()
    meters.client_disk = replace(meters.client_disk, newest=KEY.sign(voucher(3, 1)), used=Usage(1, 0))
    meters.server_disk = replace(meters.server_disk, newest=KEY.sign(voucher(3, 2)), used=Usage(2, 0))
    with pytest.raises(CountsDisputed, match="same sequence"):
        meters.connect()


def test_a_server_that_lost_vouchers_gets_them_again() -> None:
    meters = Meters().connect()
    meters.stream(2 * MIB)
    meters.lose()
    meters.server_disk = PayeeLane(meters.server_disk.channel, 0)
    meters.connect()
    assert meters.server_disk.newest == meters.client_disk.newest
    assert meters.paid == PRICES.cost_of(Usage(0, 2 * MIB))


def test_a_server_confirms_no_voucher_that_was_not_signed() -> None:
    meters = Meters().connect()
    with pytest.raises(MalformedMeter, match="were signed"):
        meters.payer.receive_frame(build(messages.Stored(1)), meters.now)


def test_nothing_is_believed_before_the_welcome() -> None:
    meters = Meters().connect()
    meters.payer = payer.Payer(meters.client_disk, PRICES, 1000, lambda v: True)
    with pytest.raises(MalformedMeter, match="before the welcome"):
        meters.payer.receive_frame(build(messages.Due(1, 1)), meters.now)
    with pytest.raises(MalformedMeter, match="version 2"):
        meters.payer.receive_frame(
            build(messages.Welcome(2, 0, 0, 0, 0, 0, 0, True, False, None)), meters.now
        )


def test_a_lost_welcome_is_said_again() -> None:
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
