"""The client's driver on a connection that isn't there: vouchers go along with what is sent anyway."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conditions import until

from dtp.net.watch import NO_COUNT
from dtp.pay import messages
from dtp.pay.client.client_meter import ClientMeter
from dtp.pay.client.lane_start import UNRESERVED
from dtp.pay.client.payer import Payer
from dtp.pay.errors import BudgetSpent, StoreError
from dtp.pay.messages import ChargeAsked, VoucherSaid, Welcome, build, parse
from dtp.pay.store import Bought
from dtp.pay.store.journal import Journal
from dtp.pay.terms import KIB, MIB, Spending, Usage
from dtp.pay.voucher import LaneKey
from dtp.session.codes import CloseCode, CloseDetail, ConnectionClosed
from dtp.session.session import Traffic

from ..meters import CHANNEL, KEY, PRICES, voucher
from ..stored import ScriptedStore
from .test_server_meter import Wire


class Client(Wire):
    """A client's connection. `move` is a read, `flush` is something that is sealed, as `Connection` does both."""

    def __init__(self) -> None:
        super().__init__()
        self.streams: list[Any] = []

    def wait_for_more(self) -> None:
        """Have a stream of which more is to come."""
        self.streams = [SimpleNamespace(waiting=True)]

    def flush(self) -> None:
        if self.moved >= self.watch.along:
            frame = self.watch.going(self.moved, asyncio.get_running_loop().time())
            if frame is not None:
                self.send_meter(frame)

    @property
    def vouchers(self) -> Any:
        said = [parse(frame, from_client=True) for frame in self.sent]
        return [each for each in said if isinstance(each, VoucherSaid)]


def play(
    tmp_path: Path,
    scenario: Any,
    most_bytes: Any = 64 * MIB,
    shown: Any = None,
    on_charge: Any = None,
    key: LaneKey = KEY,
    funds: int = 10**15,
    **spending: Any,
) -> Any:
    async def work() -> Any:
        with ScriptedStore(tmp_path / "pay.sqlite") as store:
            store.keep_key(KEY, 1)
            store.add_bought(Bought(CHANNEL, "c", "0xa", 1, "0xb", "open", 1), 0, KEY.public)
            journal, wire = Journal(store), Client()
            ((_, lane),) = store.payer_lanes(CHANNEL)
            payer = Payer(lane, PRICES, funds, lambda shown: shown.is_by(key.public), Spending(**spending))
            meter = ClientMeter(wire, journal, payer, key, on_charge=on_charge)
            meter.begin()
            newest = VoucherSaid.of(shown, 0) if shown is not None else None
            wire.on_meter(build(Welcome(1, 0, 0, most_bytes, most_bytes, 64, 64, False, False, newest)))
            await meter.wait_settled()  # numbers are reserved
            await scenario(meter, wire)
            wire.closed = True
            meter.on_ended()
            await meter.wait_settled()
            await journal.close()
            ((_, lane),) = store.payer_lanes(CHANNEL)
            return lane

    return asyncio.run(work())


async def stream(meter: Any, wire: Any, size: Any, step: Any = 256 * KIB) -> None:
    """So much comes, and credit is given for each MiB."""
    while wire.moved < size:
        before = wire.moved
        wire.move(0, 0, before + step)
        await asyncio.sleep(0)
        if wire.moved // MIB > before // MIB:
            wire.flush()
        await meter.wait_settled()


def test_a_stream_s_vouchers_go_with_its_credit_and_say_what_came(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any) -> None:
        alone = []
        meter._look_now = lambda genuine=meter._look_now: (alone.append(wire.moved), genuine())
        await stream(meter, wire, 64 * MIB)
        assert [each.bytes for each in wire.vouchers] == [n * MIB for n in range(1, 65)]
        assert all(count < 3 * MIB for count in alone)  # the first bytes, before it is known that more come
        assert meter.payer.signed.usage.bytes == 64 * MIB

    assert play(tmp_path, scenario, voucher_bytes=MIB).newest.voucher.bytes == 64 * MIB


def test_without_company_a_voucher_is_sent_by_itself(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any) -> None:
        for n in range(1, 4 * 12):
            wire.move(0, 0, n * MIB // 4)
            await asyncio.sleep(0)
            unpaid = wire.moved - (wire.vouchers[-1].bytes if wire.vouchers else 0)
            assert unpaid < 5 * MIB // 2  # an interval, and as much as one waits
        assert wire.vouchers

    play(tmp_path, scenario, voucher_bytes=MIB)


def test_a_small_exposure_waits_for_nothing(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any) -> None:
        for n in range(1, 17):
            wire.move(0, 0, n * 64 * KIB)
            await asyncio.sleep(0)
            assert wire.watch.along == NO_COUNT
            assert len(wire.vouchers) == n // 4  # a quarter of a MiB

    play(tmp_path, scenario, most_bytes=MIB)


def test_a_voucher_that_was_demanded_doesn_t_wait_and_is_for_everything(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any) -> None:
        await stream(meter, wire, 4 * MIB)
        wire.move(0, 0, 4 * MIB + 1000)
        wire.on_meter(build(messages.Due(0, 4 * MIB + 1000)))
        assert wire.vouchers[-1].bytes == 4 * MIB + 1000

    play(tmp_path, scenario, voucher_bytes=MIB)


def test_the_last_voucher_that_went_along_is_said_again_until_it_is_stored(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any) -> None:
        await stream(meter, wire, 8 * MIB)
        last = wire.vouchers[-1]
        assert meter.deadline <= meter.loop.time() + meter.payer.schedule.spending.repeat
        meter.payer.handle_timer(meter.payer.next_deadline())
        meter.process_turn()
        assert wire.vouchers[-1] == last
        assert len([each for each in wire.vouchers if each == last]) == 2

    play(tmp_path, scenario, voucher_bytes=MIB)


def test_a_voucher_that_went_along_after_a_rest_is_said_again_as_soon(tmp_path: Path) -> None:
    """While everything was stored the timer waited for the voucher that is due by time, which comes later."""

    async def scenario(meter: Any, wire: Any) -> None:
        await stream(meter, wire, 8 * MIB)
        wire.on_meter(build(messages.Stored(meter.payer.signed.sequence)))
        meter._timer.cancel()
        meter._on_timer()
        assert meter.deadline > meter.loop.time() + 500
        before = len(wire.vouchers)
        wire.traffic = Traffic(0, 0, 9 * MIB)
        wire.flush()
        assert len(wire.vouchers) == before + 1
        assert meter.deadline <= meter.loop.time() + meter.payer.schedule.spending.repeat

    play(tmp_path, scenario, voucher_bytes=MIB, voucher_seconds=1000.0)


def test_a_voucher_that_the_server_shows_is_kept_at_once_with_the_count_it_pays_for(tmp_path: Path) -> None:
    """Else whoever dies again would count less than it has paid for, and not pay what comes next."""
    shown = KEY.sign(voucher(1, 3, MIB))

    async def scenario(meter: Any, wire: Any) -> None:
        ((_, lane),) = meter.journal.store.payer_lanes(CHANNEL)
        assert (lane.newest, lane.used) == (shown, Usage(3, MIB))

    play(tmp_path, scenario, shown=shown)


def test_an_error_of_the_program_in_a_charge_ends_the_connection_and_is_told(tmp_path: Path) -> None:
    """Else the server would wait for an answer, and nobody would know of the error."""
    told = []

    def on_charge(units: Any, amount: Any, locked: Any) -> None:
        raise ZeroDivisionError(f"{units} units")

    async def scenario(meter: Any, wire: Any) -> None:
        meter.loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        wire.on_meter(build(ChargeAsked(1, 500, None)))
        await meter.wait_settled()
        assert wire.aborted == "metering failed"
        assert [str(each) for each in told] == ["500 units"]

    play(tmp_path, scenario, on_charge=on_charge, charge_units=100)


def test_nobody_waits_for_an_answer_about_a_charge_when_the_connection_is_over(tmp_path: Path) -> None:
    """A program that asks its user, say: `close` would wait for the user, too."""
    asked, begun = [], asyncio.Event()

    async def on_charge(units: Any, amount: Any, locked: Any) -> Any:
        asked.append(asyncio.current_task())
        begun.set()
        return await asyncio.get_running_loop().create_future()

    async def scenario(meter: Any, wire: Any) -> None:
        wire.on_meter(build(ChargeAsked(1, 500, None)))
        await begun.wait()
        wire.closed = True
        meter.on_ended()
        await meter.wait_settled()
        assert [each.cancelled() for each in asked] == [True]
        assert meter.payer.charges.agreed != 1

    play(tmp_path, scenario, on_charge=on_charge, charge_units=100)


def test_nobody_is_asked_about_a_charge_that_came_with_the_end(tmp_path: Path) -> None:
    asked: list[Any] = []

    async def scenario(meter: Any, wire: Any) -> None:
        wire.on_meter(build(ChargeAsked(1, 500, None)))
        wire.closed = True
        meter.on_ended()
        await meter.wait_settled()
        assert asked == []

    play(tmp_path, scenario, on_charge=lambda *charge: asked.append(charge), charge_units=100)


def test_last_counts_that_can_t_be_written_are_told_and_leave_what_was_reserved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise StoreError("is the disk full?")

    async def scenario(meter: Any, wire: Any) -> None:
        await stream(meter, wire, 4 * MIB)
        assert wire.vouchers
        meter.journal.store.scripts["end_lane"] = full

    lane = play(tmp_path, scenario, voucher_bytes=MIB)
    assert (lane.newest, lane.clean, lane.died) == (None, True, True)
    assert "is the disk full?" in caplog.text


@pytest.mark.parametrize(
    "spending", [{"reserve": 3, "voucher_bytes": MIB}, {"reserve": 1, "ahead_bytes": 500 * MIB}]
)
def test_nothing_is_signed_that_is_not_reserved_on_the_disk(tmp_path: Path, spending: Any) -> None:
    signed, opened = [], []

    class Key(LaneKey):
        def sign_all(self, vouchers: Any) -> Any:
            for store in opened:
                ((_, lane),) = store.payer_lanes(CHANNEL)
                assert all(map(lane.reserved.may_sign, vouchers))
            signed.extend(vouchers)
            return super().sign_all(vouchers)

    async def scenario(meter: Any, wire: Any) -> None:
        opened.append(meter.journal.store)
        async with asyncio.timeout(20):
            await stream(meter, wire, 16 * MIB)
        assert signed
        assert meter.error is None

    play(tmp_path, scenario, key=Key(KEY.seed), **spending)


def test_numbers_are_reserved_before_the_last_is_used(tmp_path: Path) -> None:
    """Else each time they are used up whoever waits for a voucher waits for the disk as well."""
    waits = []

    async def scenario(meter: Any, wire: Any) -> None:
        def reserve(genuine: Any, channel: Any, lane: Any, more: Any) -> None:
            waits.append(meter.signer.is_waiting)
            genuine(channel, lane, more)

        meter.journal.store.scripts["reserve"] = reserve
        for number in range(1, 200):
            wire.move(0, 0, number * MIB)
            await asyncio.sleep(0)
            await meter.wait_settled()
        assert wire.vouchers

    play(tmp_path, scenario, voucher_bytes=MIB, reserve=64)
    assert len(waits) >= 3
    assert not any(waits)


def test_what_is_reserved_when_the_connection_is_over_is_not_signed(tmp_path: Path) -> None:
    """Its end is written by then: the voucher would be known to nobody, and count all the same."""

    async def scenario(meter: Any, wire: Any) -> None:
        loop, reserved, free = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

        def reserve(genuine: Any, *args: Any) -> None:
            loop.call_soon_threadsafe(reserved.set)
            free.wait()
            genuine(*args)

        meter.journal.store.scripts["reserve"] = reserve
        meter.signer.reserved = UNRESERVED
        wire.move(0, 0, 4 * MIB)
        await reserved.wait()
        assert meter.signer.is_waiting
        wire.closed = True
        meter.on_ended()
        free.set()
        await meter.wait_settled()
        assert (meter.payer.newest, wire.vouchers) == (None, [])

    assert play(tmp_path, scenario, voucher_bytes=MIB).newest is None


def test_an_end_that_the_server_has_not_agreed_to_is_no_clean_one(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any) -> None:
        await stream(meter, wire, MIB)
        meter.payer.finish(meter.loop.time())
        meter.payer.handle_timer(meter.payer.next_deadline() + 1e6)
        meter.process_turn()

    assert not play(tmp_path, scenario).clean


def test_whose_deposit_is_used_up_is_told_that_its_budget_is(tmp_path: Path) -> None:
    """Where nothing is waited for when the money ends, the server is the one that ends the connection."""
    used_up = ConnectionClosed(CloseCode.PAYMENT, "used up", True, False, CloseDetail.DEPOSIT_USED_UP)

    async def scenario(meter: Any, wire: Any) -> None:
        wire.move(0, 0, MIB - 1)
        await until(lambda: meter.payer.used.bytes == MIB - 1)
        assert meter.explain_end(used_up) is None  # it isn't, whatever the server says
        wire.move(0, 0, MIB)
        await until(lambda: wire.vouchers and wire.vouchers[-1].bytes == MIB)
        told = meter.explain_end(used_up)
        assert isinstance(told, BudgetSpent)
        assert (told.paid, told.bytes) == (PRICES.cost_of(Usage(0, MIB)), MIB)
        late = ConnectionClosed(CloseCode.PAYMENT, "late", True, False, CloseDetail.NOT_PAID)
        assert meter.explain_end(late) is None

    play(tmp_path, scenario, funds=PRICES.cost_of(Usage(0, MIB)), voucher_seconds=0.0)


def said(wire: Any) -> list[Any]:
    return [parse(frame, from_client=True) for frame in wire.sent]
