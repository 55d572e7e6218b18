"""Charges of the server's driver: which become one, what becomes of those that nobody waits for, keys and locks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from counting import counting_lines

from dtp.pay import messages
from dtp.pay.errors import ChargeDeclined, Flaw, NotMetered, StoreError, VoucherRefused
from dtp.pay.messages import VoucherSaid, build
from dtp.pay.server import server_meter
from dtp.pay.server.payee import ChargeOverdue, ChargePaid, ChargeRefused, Payee
from dtp.pay.server.server_meter import ServerMeter
from dtp.pay.server.stored_vouchers import PayeeLane
from dtp.pay.terms import QUOTA_USED_UP, Usage
from dtp.session.session import Traffic

from ..meters import CHANNEL, KEY, PRICES, voucher
from ..selling.test_quota import Sale
from .test_server_meter import Lane, Wire, play, stored


def asked_of(wire: Any) -> Any:
    said_there = [messages.parse(each, from_client=False) for each in wire.sent]
    return [each for each in said_there if isinstance(each, messages.ChargeAsked)]


def test_a_charge_covers_what_was_used_before_it_and_counts_once_paid(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        wire.traffic = Traffic(3, 0, 0)  # nobody was told
        charged = asyncio.ensure_future(meter.charge(2))
        await asyncio.sleep(0)
        (asked,) = asked_of(wire)
        assert (asked.charge, asked.units) == (1, 2)
        wire.on_meter(build(VoucherSaid.of(KEY.sign(voucher(1, 5)), 1)))
        await stored(meter)
        await charged
        assert lane.told == Usage(5, 0)
        # Stored with the voucher: who dies now finds that it was used.
        assert meter.journal.store.sold_lane(CHANNEL, 0).used == Usage(5, 0)

    play(tmp_path, scenario)


async def ask(meter: Any, *units: Any) -> Any:
    """Charges that are begun together, in this order."""
    charges = [asyncio.ensure_future(meter.charge(each)) for each in units]
    await asyncio.sleep(0)
    return charges


async def pay(meter: Any, wire: Any, requests: Any) -> None:
    """The client agrees to what is asked for, and has used so many requests by that."""
    number = asked_of(wire)[-1].charge
    wire.on_meter(build(VoucherSaid.of(KEY.sign(voucher(number, requests)), number)))
    await stored(meter)


def units_of(wire: Any) -> Any:
    return [each.units for each in asked_of(wire)]


def test_charges_that_come_while_one_is_under_way_are_asked_for_as_one(tmp_path: Path) -> None:
    """A round trip for each would keep a connection to few calls a second."""

    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        charges = await ask(meter, 1, 2, 3, 1)
        assert units_of(wire) == [1]
        await pay(meter, wire, 1)
        assert units_of(wire) == [1, 6]
        await charges[0]
        assert [each.done() for each in charges] == [True, False, False, False]
        await pay(meter, wire, 7)
        await asyncio.gather(*charges)
        assert lane.told == Usage(7, 0)

    play(tmp_path, scenario)


def test_a_declined_sum_is_asked_for_by_halves(tmp_path: Path) -> None:
    """The budget may be for some of them: whoever it is for is served, in order."""

    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        charges = await ask(meter, 1, 1, 1, 1, 1)
        await pay(meter, wire, 1)
        (late,) = await ask(meter, 7)
        for used in (0, 3, 0, 4, 0):  # the client has money for two more requests
            if used:
                await pay(meter, wire, used)
            else:
                wire.on_meter(build(messages.Decline(asked_of(wire)[-1].charge)))
        assert units_of(wire) == [1, 4, 2, 2, 1, 1, 7]
        outcomes = await asyncio.gather(*charges, return_exceptions=True)
        assert [isinstance(each, ChargeDeclined) for each in outcomes] == [False] * 4 + [True]
        assert not late.done()
        late.cancel()

    play(tmp_path, scenario)


def test_who_is_cancelled_while_waiting_is_left_out_of_the_sum_or_leaves_its_part_to_the_next(
    tmp_path: Path,
) -> None:
    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        charges = await ask(meter, 1, 2, 3, 4)
        charges[1].cancel()
        await asyncio.wait([charges[1]])
        await pay(meter, wire, 1)
        assert units_of(wire) == [1, 7]
        charges[2].cancel()
        await asyncio.wait([charges[2]])
        await pay(meter, wire, 8)
        await charges[3]
        await asyncio.gather(*await ask(meter, 2, 1))
        assert units_of(wire) == [1, 7]
        assert lane.told == Usage(8, 0)

    play(tmp_path, scenario)


def test_what_is_paid_as_who_asked_is_cancelled_is_for_the_next(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        (charged,) = await ask(meter, 2)
        lane.add_usage = lambda *_: charged.cancel()  # it is paid, and hasn't heard of it
        await pay(meter, wire, 2)
        assert charged.cancelled()
        await meter.charge(2)
        assert units_of(wire) == [2]

    play(tmp_path, scenario)


def test_a_locked_charge_and_others_take_turns(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        first, second = await ask(meter, 1, 2)
        locked = [asyncio.ensure_future(meter.charge(9, bytes([each]) * 32)) for each in (1, 2)]
        (third,) = await ask(meter, 3)
        asked = asyncio.Event()
        wire.send_meter = lambda sent: (wire.sent.append(sent), asked.set())
        await pay(meter, wire, 1)
        while units_of(wire) != [1, 9]:
            asked.clear()
            await asked.wait()
        wire.on_meter(build(messages.Decline(2)))
        await asyncio.wait([locked[0]])
        assert units_of(wire) == [1, 9, 5]
        await pay(meter, wire, 6)
        await asyncio.gather(first, second, third)
        while units_of(wire) != [1, 9, 5, 9]:
            asked.clear()
            await asked.wait()
        locked[1].cancel()
        outcomes = await asyncio.gather(*locked, return_exceptions=True)
        assert [type(each) for each in outcomes] == [ChargeDeclined, asyncio.CancelledError]

    play(tmp_path, scenario)


def test_nothing_is_no_charge(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        with pytest.raises(NotMetered):
            await meter.charge(0)
        assert asked_of(wire) == []

    play(tmp_path, scenario)


def test_a_charge_whose_asker_was_cancelled_is_not_asked_for_twice(tmp_path: Path) -> None:
    """By a timeout, say. The client would pay for both."""

    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        for _ in range(2):
            charged = asyncio.ensure_future(meter.charge(2))
            await asyncio.sleep(0)
            charged.cancel()
            await asyncio.wait([charged])
        wire.on_meter(build(VoucherSaid.of(KEY.sign(voucher(1, 2)), 1)))
        await stored(meter)
        await meter.charge(2)
        assert len(asked_of(wire)) == 1
        assert meter.payee.used == Usage(2, 0)
        other = asyncio.ensure_future(meter.charge(2))
        await asyncio.sleep(0)
        assert [each.charge for each in asked_of(wire)] == [1, 2]
        other.cancel()

    play(tmp_path, scenario)


def test_a_charge_that_was_declined_when_nobody_waited_is_asked_for_again(tmp_path: Path) -> None:
    """By another request, say: the client was not asked about that."""

    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        charged = asyncio.ensure_future(meter.charge(2))
        await asyncio.sleep(0)
        charged.cancel()
        await asyncio.wait([charged])
        wire.on_meter(build(messages.Decline(1)))
        again = asyncio.ensure_future(meter.charge(2))
        await asyncio.sleep(0)
        assert [each.charge for each in asked_of(wire)] == [1, 2]
        wire.on_meter(build(VoucherSaid.of(KEY.sign(voucher(1, 2)), 2)))
        await stored(meter)
        await again

    play(tmp_path, scenario)


def test_a_charge_is_paid_by_its_units_at_least(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        wire.traffic = Traffic(3, 0, 0)
        charged = asyncio.ensure_future(meter.charge(2))
        await asyncio.sleep(0)
        wire.on_meter(build(VoucherSaid.of(KEY.sign(voucher(1, 1)), 1)))
        assert meter.error.flaw is Flaw.CHARGE_UNPAID
        charged.cancel()

    play(tmp_path, scenario)


def test_no_lock_is_asked_for_before_its_key_is_kept(tmp_path: Path) -> None:
    """Who is paid under a lock whose key is forgotten is paid nothing."""

    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        with meter.journal.store.failing("keep_preimage"), pytest.raises(StoreError):
            await meter.charge(1, bytes(32))
        assert asked_of(wire) == []
        asked = asyncio.Event()
        wire.send_meter = lambda sent: (wire.sent.append(sent), asked.set())
        charged = asyncio.ensure_future(meter.charge(1, bytes(32)))
        await asked.wait()
        assert len(asked_of(wire)) == 1
        assert meter.journal.store.sold_lane(CHANNEL, 0).preimage == bytes(32)
        charged.cancel()

    play(tmp_path, scenario)


def test_one_lock_is_asked_for_at_a_time(tmp_path: Path) -> None:
    """Else the key of the second would take the place of the first's, which is to be paid."""

    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        asked = asyncio.Event()
        wire.send_meter = lambda sent: (wire.sent.append(sent), asked.set())
        charges = [asyncio.ensure_future(meter.charge(1, bytes([each]) * 32)) for each in (1, 2)]
        await asked.wait()
        for _ in range(2):
            kept = await meter.journal.run(lambda store: store.sold_lane(CHANNEL, 0).preimage)
            assert kept == b"\1" * 32
        assert len(asked_of(wire)) == 1
        for each in charges:
            each.cancel()

    play(tmp_path, scenario)


@pytest.mark.parametrize("trick", ["decline", "another"])
def test_a_key_is_told_for_its_price_only(tmp_path: Path, trick: Any) -> None:
    """A client that means the charge by a voucher, and then says that it doesn't, while that is being stored."""

    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        wire.move(1, 100, 0)
        for number in range(1, 4):
            used, asked = meter.payee.used, asyncio.Event()
            wire.send_meter = lambda sent, asked=asked: (wire.sent.append(sent), asked.set())
            sold = asyncio.ensure_future(meter.charge(5, bytes([number]) * 32))
            await asked.wait()
            terms = (used.requests + 5, used.bytes)
            lock = asked_of(wire)[-1].hash_lock
            wire.on_meter(
                build(VoucherSaid.of(KEY.sign(voucher(3 * number, *terms, hash_lock=lock)), number))
            )
            if trick == "another":
                again = KEY.sign(voucher(3 * number + 1, *terms, hash_lock=lock))
                wire.on_meter(build(VoucherSaid.of(again, 0)))
                wire.on_meter(build(messages.Heard()))
            wire.on_meter(build(messages.Decline(number)))
            await stored(meter)
            await sold
            assert meter.payee.used == used.plus(5, 0)
            assert lane.told == meter.payee.used
            assert meter.journal.store.sold_lane(CHANNEL, 0).used == meter.payee.used
            wire.on_meter(build(VoucherSaid.of(KEY.sign(voucher(3 * number + 2, *terms)), 0)))
            await stored(meter)
        assert wire.aborted is None

    play(tmp_path, scenario)


# ---- who declines, or says nothing -------------------------------------------------------------------------------


def test_to_decline_again_and_again_costs_as_much_however_many_wait(tmp_path: Path) -> None:
    """Each took steps by all that waited, of which a client needs 14 bytes."""

    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        charges = await ask(meter, *[1] * 4000)
        await pay(meter, wire, 1)
        await asyncio.gather(charges[0])
        with counting_lines("dtp/pay") as lines:
            for number in range(2, 1002):
                wire.on_meter(build(messages.Decline(number)))
        assert len(asked_of(wire)) == 1002
        assert lines[0] < 1000 * 500
        for each in charges:
            each.cancel()
        with counting_lines("dtp/pay") as lines:
            await asyncio.gather(*charges, return_exceptions=True)
        assert lines[0] < 4000 * 50

    play(tmp_path, scenario)


def test_a_frame_wakes_only_those_that_it_decides(tmp_path: Path) -> None:
    """... and these by and by: each goes on with its work then. One round trip pays for a thousand of them."""

    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        charges = await ask(meter, *[1] * 1001)
        wire.on_meter(build(messages.Heard()))
        assert not meter._changed
        await pay(meter, wire, 1)
        await charges[0]
        assert units_of(wire) == [1, 1000]
        number = asked_of(wire)[-1].charge
        wire.on_meter(build(VoucherSaid.of(KEY.sign(voucher(number, 1001)), number)))
        await meter.wait_checked()
        done, most = 1, 0
        while done < 1001:
            await asyncio.sleep(0)
            before, done = done, sum(each.done() for each in charges)
            most = max(most, done - before)
        assert most == server_meter.TOLD_PER_TURN

    play(tmp_path, scenario)


def test_no_more_wait_than_a_connection_may_have_waiting(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        charges = await ask(meter, *[1] * (1 + server_meter.MOST_WAITING))
        with pytest.raises(ChargeDeclined, match="ask for less"):
            await meter.charge(1)
        charges[2].cancel()
        await asyncio.wait([charges[2]])
        charges += await ask(meter, 1)
        assert not charges[-1].done()
        for each in charges:
            each.cancel()

    play(tmp_path, scenario)


def test_nobody_waits_for_a_client_that_says_nothing(tmp_path: Path) -> None:
    """What it pays all the same is the next one's."""

    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        meter.payee.charges.patience = 0.0
        charges = await ask(meter, 1, 2)
        for each in await asyncio.gather(*charges, return_exceptions=True):
            assert isinstance(each, ChargeDeclined)
            assert "within" in str(each)
        for preimage in (None, bytes(32)):
            with pytest.raises(ChargeDeclined):
                await meter.charge(1, preimage)
        assert units_of(wire) == [1]
        await pay(meter, wire, 1)
        await meter.charge(1)
        assert lane.told == Usage(1, 0)
        meter.payee.charges.patience = 30.0
        (charged,) = await ask(meter, 5)
        assert units_of(wire) == [1, 5]
        charged.cancel()

    play(tmp_path, scenario)


def test_who_waits_when_the_connection_ends_is_told_why(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        charges = await ask(meter, 1, 2, 3)
        meter.fail(VoucherRefused(Flaw.FORGED))
        meter.on_ended()
        outcomes = await asyncio.gather(*charges, return_exceptions=True)
        assert [type(each) for each in outcomes] == [VoucherRefused] * 3

    play(tmp_path, scenario)


def asking(lock: Any = None) -> Any:
    """A server that has asked for 5 units at 100.0 s, and has 30 s of patience."""
    served = Payee(PayeeLane(CHANNEL, 0), PRICES, 10**12, charge_patience=30.0)
    served.begin(100.0)
    served.receive_frame(build(messages.Heard()), 100.0)
    served.charge(5, 100.0, lock)
    served.take_events()
    return served


def overdue(served: Any, now: Any) -> Any:
    served.handle_timer(now)
    return [each for each in served.take_events() if isinstance(each, ChargeOverdue)]


def test_a_charge_is_overdue_once_and_can_be_decided_yet() -> None:
    for answer, outcome in (("declines", ChargeRefused(1)), ("pays", ChargePaid(1))):
        served = asking()
        assert overdue(served, 129.5) == []
        assert served.next_deadline() == 130.0
        assert overdue(served, 130.0) == [ChargeOverdue(1)]
        assert served.charges.is_overdue
        assert overdue(served, 131.0) == []
        assert not served.may_charge(locked=False)
        if answer == "declines":
            served.receive_frame(build(messages.Decline(1)), 132.0)
        else:
            signed = KEY.sign(voucher(1, 5))
            served.receive_frame(build(VoucherSaid.of(signed, 1)), 132.0)
            served.voucher_stored(signed, 1, 132.0)
        assert outcome in served.take_events()
        assert not served.charges.is_overdue


def test_no_charge_is_overdue_that_waits_for_us_or_for_all_of_an_answer() -> None:
    served = asking()
    served.receive_frame(build(VoucherSaid.of(KEY.sign(voucher(1, 5)), 1)), 101.0)
    assert overdue(served, 200.0) == []
    assert overdue(asking(bytes(32)), 200.0) == []


def test_what_a_pass_does_not_give_is_not_asked_for(tmp_path: Path) -> None:
    """Served, it could only be stopped, and its connection with it."""

    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        meter.payee.set_quota(5, None, 0.0)
        first, second, third, more = await ask(meter, 3, 1, 3, 1)
        assert units_of(wire) == [3]
        await pay(meter, wire, 3)
        await first
        assert units_of(wire) == [3, 2]
        with pytest.raises(ChargeDeclined, match=QUOTA_USED_UP):
            await third
        await pay(meter, wire, 5)
        await asyncio.gather(second, more)
        for preimage in (None, bytes(32)):
            with pytest.raises(ChargeDeclined, match=QUOTA_USED_UP):
                await meter.charge(1, preimage)
        assert units_of(wire) == [3, 2]

    play(tmp_path, scenario)


class Shared(Lane):
    """A lane under a pass."""

    def __init__(self, quotas: Any) -> None:
        super().__init__()
        self.quotas = quotas

    def add_usage(self, meter: Any, more: Any) -> None:
        self.quotas.add_usage(meter, more)

    def pending_beside(self, meter: Any) -> Any:
        return self.quotas.pending_beside(meter)

    async def make_room(self, meter: Any, requests: Any) -> None:
        await self.quotas.make_room(meter, requests)


@pytest.mark.parametrize("end", ["paid", "paid late", "declined", "ended"])
def test_a_quota_is_not_given_again_to_each_connection_of_its_pass(tmp_path: Path, end: Any) -> None:
    """What one may pay yet is not the other's, until it is declined or its connection has ended."""

    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        sale = Sale(meter.journal.store, requests=3)
        meters, wires = [], []
        for number in range(2):
            payee = Payee(PayeeLane(CHANNEL, number), PRICES, 10**12)
            wires.append(Wire())
            meters.append(ServerMeter(wires[-1], meter.journal, payee, Shared(sale.quotas)))
            meters[-1].begin()
            wires[-1].on_meter(build(messages.Heard()))
            await sale.quotas.lease_part(sale.held)
            sale.quotas.add_meter(meters[-1], sale.held)
        first, second = meters
        first.payee.charges.patience = 0.0 if end == "paid late" else 30.0
        (charged,) = await ask(first, 3)
        for preimage in (None, bytes(32)):
            with pytest.raises(ChargeDeclined, match=QUOTA_USED_UP):
                await second.charge(1, preimage)
        if end == "declined":
            wires[0].on_meter(build(messages.Decline(1)))
        elif end == "ended":
            first.fail(VoucherRefused(Flaw.FORGED))
            first.on_ended()
        else:
            if end == "paid late":
                with pytest.raises(ChargeDeclined, match="within"):
                    await charged
            await pay(first, wires[0], 3)
        (other,) = await ask(second, 3)
        assert units_of(wires[1]) == ([3] if end in ("declined", "ended") else [])
        if "paid" in end:
            with pytest.raises(ChargeDeclined, match=QUOTA_USED_UP):
                await other
            assert wires[1].aborted is None
        for each in (charged, other):
            each.cancel()
        for each, its in zip(meters, wires, strict=True):
            its.closed = True
            each.on_ended()
            await each.wait_settled()

    play(tmp_path, scenario)
