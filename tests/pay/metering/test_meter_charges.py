"""Charges at a meter: asked about, paid, refused, and exchanged fairly for a key under a lock."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dtp.pay import messages
from dtp.pay.client import payer_events
from dtp.pay.errors import Flaw, MalformedMeter, NotMetered
from dtp.pay.messages import VoucherSaid, build
from dtp.pay.server import payee
from dtp.pay.terms import MIB, Spending, Usage

from ..meters import KEY, SECRET, Meters, flaw_of, lock_of, voucher

# ------------------------------------------------------------------------------------------------------- charges


def test_a_charge_is_paid_at_once() -> None:
    meters = Meters().connect()
    number = meters.charge(5)
    assert meters.told_of(payee.ChargePaid) == [payee.ChargePaid(number)]
    assert meters.paid == 5000
    assert meters.payee.used == meters.payer.used == Usage(5, 0)
    assert meters.charge(1) == number + 1
    assert meters.paid == 6000


def test_a_large_charge_is_asked_about() -> None:
    meters = Meters(spending=Spending(charge_units=10)).connect()
    meters.auto_agree = False
    number = meters.charge(11)
    assert meters.told_of(payer_events.ChargeOffered) == [
        payer_events.ChargeOffered(number, 11, 11_000, None)
    ]
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


def test_a_charge_beyond_the_money_is_asked_about_and_can_be_funded() -> None:
    meters = Meters(deposit=3000).connect()
    meters.auto_agree = False
    number = meters.charge(4)
    assert meters.told_of(payer_events.ChargeOffered)
    meters.payer.answer_charge(number, True, meters.now)  # without the money: declined
    meters.pump()
    assert meters.told_of(payee.ChargeRefused) == [payee.ChargeRefused(number)]
    second = meters.charge(4)
    meters.payer.update_funds(5000, meters.now)
    meters.payee.set_affordable(5000, meters.now)
    meters.payer.answer_charge(second, True, meters.now)
    meters.pump()
    assert meters.paid == 4000


def test_a_charge_survives_lost_frames() -> None:
    meters = Meters().connect()
    meters.payee.charge(3, meters.now)
    meters.pump(lose=True)
    meters.pass_time(1.0)
    meters.pump(lose=True)  # now the answer is lost
    meters.pass_time(1.0)
    meters.pump()
    assert meters.told_of(payee.ChargePaid)
    assert meters.paid == 3000


def test_requests_made_while_a_charge_is_on_its_way_do_no_harm() -> None:
    meters = Meters().connect()
    meters.payee.charge(3, meters.now)
    frames = [e.frame for e in meters.payee.take_events() if isinstance(e, messages.SendFrame)]
    for frame in frames:
        meters.payer.receive_frame(frame, meters.now)
    meters.request(2)  # reach the server before the voucher does
    meters.pump()
    assert meters.refused == []
    assert meters.told_of(payee.ChargePaid)


def test_an_agreement_without_the_money_is_refused(paid: Any) -> None:
    paid.payee.charge(3, paid.now)
    cheap = KEY.sign(voucher(2, 6, 5 * MIB))
    assert flaw_of(paid, cheap, 1) is Flaw.CHARGE_UNPAID
    assert flaw_of(paid, KEY.sign(voucher(2, 9, 5 * MIB)), 2) is Flaw.CHARGE_UNPAID
    assert flaw_of(paid, paid.payee.newest, 1) is Flaw.CHARGE_UNPAID
    assert not paid.payee.may_charge(locked=False)


# ------------------------------------------------------------------------------------------------- fair exchange


def test_a_locked_charge_reveals_the_key_and_unlocks() -> None:
    meters = Meters().connect()
    meters.charge(2, SECRET)
    assert meters.told_of(payee.ChargePaid)
    assert meters.told_of(payer_events.Revealed) == [payer_events.Revealed(SECRET)]
    newest = meters.server_disk.newest.voucher
    assert (newest.amount, newest.hash_lock) == (2000, None)
    assert meters.charge(1, b"t" * 32)
    assert len(meters.told_of(payer_events.Revealed)) == 2


def test_the_key_is_not_told_before_the_locked_voucher_is_stored() -> None:
    meters = Meters().connect()
    meters.payee.charge(2, meters.now, SECRET)
    asked = [e.frame for e in meters.payee.take_events() if isinstance(e, messages.SendFrame)]
    assert not any(SECRET in frame for frame in asked)
    for frame in asked:
        meters.payer.receive_frame(frame, meters.now)
    assert not [e for e in meters.payer.take_events() if isinstance(e, payer_events.SignWanted)]
    meters.payer.answer_charge(1, True, meters.now)  # what it is for has arrived
    (wanted,) = [e for e in meters.payer.take_events() if isinstance(e, payer_events.SignWanted)]
    assert wanted.voucher.hash_lock == lock_of(SECRET)
    signed = KEY.sign(wanted.voucher)
    meters.payee.receive_frame(build(VoucherSaid.of(signed, 1)), meters.now)
    assert not any(
        isinstance(e, messages.SendFrame) and SECRET in e.frame for e in meters.payee.take_events()
    )
    meters.payee.voucher_stored(signed, 1, meters.now)
    assert any(isinstance(e, messages.SendFrame) and SECRET in e.frame for e in meters.payee.take_events())


def test_a_lock_without_its_charge_gets_no_key() -> None:
    """Declined, and then a voucher under the lock that leaves the units out: the key must not come."""
    meters = Meters(spending=Spending(charge_units=1)).connect()
    meters.auto_agree = False
    number = meters.charge(2, SECRET)
    meters.payer.answer_charge(number, False, meters.now)
    meters.pump()
    assert flaw_of(meters, KEY.sign(voucher(1, 1, hash_lock=lock_of(SECRET))), 0) is Flaw.WRONG_LOCK
    assert flaw_of(meters, KEY.sign(voucher(1, 2, hash_lock=lock_of(SECRET))), 5) is Flaw.CHARGE_UNPAID
    assert not any(SECRET in frame for frame in meters.to_client)


def test_a_locked_charge_is_agreed_to_under_its_lock() -> None:
    meters = Meters().connect()
    meters.payee.charge(2, meters.now, SECRET)
    assert flaw_of(meters, KEY.sign(voucher(1, 2)), 1) is Flaw.WRONG_LOCK
    assert flaw_of(meters, KEY.sign(voucher(1, 2, hash_lock=bytes(32))), 1) is Flaw.WRONG_LOCK
    # Whatever charge it names.
    assert flaw_of(meters, KEY.sign(voucher(1, 1, hash_lock=lock_of(SECRET))), 0) is Flaw.CHARGE_UNPAID


def test_a_key_that_was_lost_on_its_way_is_told_again_also_after_a_restart() -> None:
    meters = Meters().connect()
    meters.server_disk = replace(meters.server_disk, preimage=SECRET)
    meters.payee.charge(2, meters.now, SECRET)
    for frame in [e.frame for e in meters.payee.take_events() if isinstance(e, messages.SendFrame)]:
        meters.payer.receive_frame(frame, meters.now)
    while meters.process_client_events():
        pass
    for frame in meters.to_server:
        meters.payee.receive_frame(frame, meters.now)
    meters.process_server_events()
    assert meters.server_disk.newest.voucher.hash_lock == lock_of(SECRET)
    meters.lose()
    meters.connect()
    assert meters.told_of(payer_events.Revealed) == [payer_events.Revealed(SECRET)]
    meters.pass_time(1.0)
    meters.pump()
    assert meters.server_disk.newest.voucher.hash_lock is None


def test_no_second_lock_before_the_first_is_open() -> None:
    meters = Meters().connect()
    meters.payer.receive_frame(build(messages.ChargeAsked(1, 1, lock_of(SECRET))), meters.now)
    with pytest.raises(MalformedMeter):
        meters.payer.receive_frame(build(messages.ChargeAsked(2, 1, lock_of(SECRET))), meters.now)
    meters.payer.receive_frame(build(messages.Reveal(bytes(32))), meters.now)  # opens nothing
    assert not meters.told_of(payer_events.Revealed)


@pytest.mark.parametrize(("charge", "units"), [(0, 1), (2, 1), (1, 0)])
def test_charges_out_of_turn(charge: Any, units: Any) -> None:
    meters = Meters().connect()
    with pytest.raises(MalformedMeter):
        meters.payer.receive_frame(build(messages.ChargeAsked(charge, units, None)), meters.now)
