"""The server's driver on a connection that isn't there: when vouchers wait, which is taken, what is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dtp import carriers
from dtp.net.parts.callbacks import Callbacks
from dtp.net.parts.ending import ConnectionEnd
from dtp.pay import messages
from dtp.pay.errors import Flaw, MalformedMeter, StoreError, VoucherRefused
from dtp.pay.messages import Due, Finish, VoucherSaid, build
from dtp.pay.server import payee, server_meter
from dtp.pay.server.held_vouchers import LINGER, MOST_HELD
from dtp.pay.server.payee import Payee
from dtp.pay.server.server_meter import ChannelAccount, ServerMeter
from dtp.pay.server.stored_vouchers import PayeeLane
from dtp.pay.store.journal import Journal
from dtp.pay.terms import LEAST_INTERVAL, MIB, NO_CARRIAGE, QUOTA_USED_UP, Exposure, Usage
from dtp.pay.voucher import LaneKey
from dtp.session.codes import CloseDetail
from dtp.session.limits import Limits
from dtp.session.session import Traffic

from ..meters import CHANNEL, KEY, PRICES, voucher
from ..stored import ScriptedStore


class Wire:
    """As much of a connection as a meter needs. `traffic` is set by the test."""

    def __init__(self) -> None:
        self.traffic = Traffic(0, 0, 0)
        self.sent, self.aborted, self.closed = [], None, False
        self.callbacks: Callbacks[Any] = Callbacks()
        self.end = ConnectionEnd()
        self.watch: Any = None
        self.most: Any = None
        self.limits, self.patience = Limits(), Limits().handshake

    @property
    def moved(self) -> Any:
        return self.traffic.sent + self.traffic.received

    def move(self, *traffic: Any) -> None:
        """So much has moved: the watch is told if it is to know."""
        self.traffic, watch = Traffic(*traffic), self.watch
        opened, _, received = self.traffic
        if self.moved >= watch.total or received > watch.received or opened != watch.opened:
            watch.moved()

    def take_meter(self, on_meter: Any) -> None:
        self.on_meter = on_meter

    def send_meter(self, frame: Any) -> None:
        self.sent.append(frame)

    def limit_sending(self, total: Any) -> None:
        self.most = total

    def limit_receiving(self, total: Any) -> None:
        self.most_received = total

    def add_end_callback(self, callback: Callable[[], object]) -> None:
        if self.closed:
            callback()
        else:
            self.end.add_callback(callback)

    def abort(self, code: Any, reason: Any, *, detail: int = 0) -> None:
        self.aborted, self.detail, self.closed = reason, detail, True


class Lane(ChannelAccount):
    """One lane with all the money there is."""

    def __init__(self) -> None:
        self.kept, self.told, self.fits = [], Usage(), True

    def keys(self, meter: Any) -> Any:
        return (KEY.public,)

    def least_end_ms(self, meter: Any) -> Any:
        return 0

    def carrier_prices(self, meter: Any) -> Any:
        return NO_CARRIAGE

    def reserve(self, meter: Any, amount: Any) -> Any:
        return self.fits

    def voucher_stored(self, meter: Any, signed: Any) -> None:
        self.kept.append(signed.voucher.sequence)

    def add_usage(self, meter: Any, more: Any) -> None:
        self.told = self.told.plus(*more)

    def pending_beside(self, meter: Any) -> Any:
        return 0

    async def make_room(self, meter: Any, requests: Any) -> None:
        pass

    def look_again(self, meter: Any) -> None:
        pass

    def close_asked(self, meter: Any) -> None:
        pass

    async def on_connection_ended(self, meter: Any) -> None:
        self.kept.append("ended")
        lane = meter.payee.lane
        await meter.journal.run(lambda store: store.save_served(lane.channel, lane.lane, meter.payee.used))


def play(tmp_path: Path, scenario: Any, exposure: Any = None, linger: Any = LINGER) -> Any:
    async def work() -> Any:
        with ScriptedStore(tmp_path / "pay.sqlite") as store:
            journal, wire, lane = Journal(store), Wire(), Lane()
            served = Payee(
                PayeeLane(CHANNEL, 0), PRICES, 10**12, exposure or Exposure(64 * MIB, 64 * MIB, 64, 64)
            )
            meter = ServerMeter(wire, journal, served, lane, linger=linger)
            meter.begin()
            wire.on_meter(b"\x91\x06")  # HEARD
            await scenario(meter, wire, lane)
            if not wire.closed:
                wire.closed = True
            meter.on_ended()
            await meter.wait_settled()
            await journal.close()
            return store.sold_lane(CHANNEL, 0)

    return asyncio.run(work())


def frame(sequence: Any, size: Any, key: Any = KEY) -> Any:
    return build(VoucherSaid.of(key.sign(voucher(sequence, 0, size)), 0))


async def stored(meter: Any) -> None:
    await meter.wait_checked()
    await asyncio.sleep(0)


async def heard(meter: Any) -> None:
    """Nothing waits any more, and what was heard is stored or refused."""
    while meter.held:  # noqa: ASYNC110 - there is no event
        await asyncio.sleep(0)
    await stored(meter)


def test_vouchers_wait_while_exposure_is_left_and_only_the_newest_is_written(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        for n in range(1, 6):
            wire.move(0, n * MIB, 0)
            wire.on_meter(frame(n, n * MIB))
        assert (len(meter.held), lane.kept) == (5, [])
        wire.move(0, 60 * MIB, 0)
        await stored(meter)
        assert (len(meter.held), lane.kept) == (0, [5])
        assert meter.payee.vouchers.paid.bytes == 5 * MIB
        assert wire.most == 5 * MIB + 64 * MIB

    assert play(tmp_path, scenario).newest.voucher.sequence == 5


def test_a_voucher_that_waits_is_heard_in_a_moment(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        wire.on_meter(frame(1, 0))
        assert meter.held
        for _ in range(3):
            await asyncio.sleep(0)
        assert not meter.held
        await stored(meter)
        assert lane.kept == [1]

    play(tmp_path, scenario, linger=0.0)


def test_while_one_is_being_checked_nothing_is_looked_at_for_those_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are heard when it is stored, so a stream that goes on meanwhile costs nothing."""

    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        turns = []
        genuine = meter.process_turn
        monkeypatch.setattr(meter, "process_turn", lambda: (turns.append(wire.moved), genuine()))
        wire.move(0, 50 * MIB, 0)
        wire.on_meter(frame(1, 50 * MIB))
        assert meter.checking == 1
        wire.on_meter(frame(2, 51 * MIB))
        for first in (52, 56):
            del turns[:]
            for size in range(first, first + 4):
                wire.move(0, size * MIB, 0)
            assert turns == []
            meter.process_turn()  # for whatever reason: nor after it
        await stored(meter)
        assert lane.kept[0] == 1

    assert play(tmp_path, scenario).newest.voucher.sequence == 2


def test_the_next_check_begins_in_time_for_what_moved_during_the_last(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        wire.move(0, 50 * MIB, 0)
        wire.on_meter(frame(1, 50 * MIB))
        wire.move(0, 62 * MIB, 0)  # nobody is told of it
        await stored(meter)
        assert meter._hear_at == (50 + 64 - 2 * 12) * MIB

    play(tmp_path, scenario)


def test_whatever_else_is_said_comes_behind_the_vouchers_before_it(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        wire.traffic = Traffic(0, MIB, 0)
        wire.on_meter(frame(1, MIB))
        wire.on_meter(build(Finish()))
        await stored(meter)
        assert lane.kept == [1]
        wire.on_meter(frame(2, MIB))  # nothing waits any more
        await stored(meter)
        assert lane.kept == [1, 2]

    play(tmp_path, scenario)


def test_nothing_waits_where_little_may_be_unpaid(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        wire.traffic = Traffic(0, 1000, 0)
        wire.on_meter(frame(1, 1000))
        assert not meter.held
        await stored(meter)
        assert lane.kept == [1]

    play(tmp_path, scenario, Exposure(MIB, MIB, 8, 8))


def test_no_more_wait_than_there_is_room_for(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        for n in range(1, MOST_HELD + 2):
            wire.on_meter(frame(n, 0))
            assert len(meter.held) <= MOST_HELD
        await stored(meter)

    assert play(tmp_path, scenario).newest.voucher.sequence == MOST_HELD + 1


def checks_of_a_flood(tmp_path: Path, traffic: Any, paid: Any) -> Any:
    """How many vouchers are stored of 200 that come one by one behind the answer before, each for `paid(n)`, while
    `traffic(n)` has moved: serving is stopped, so none of them has to wait for a better one."""
    checks = []

    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        for n in range(1, 201):
            wire.traffic = Traffic(*traffic(n))
            meter.update_counts()
            wire.on_meter(build(VoucherSaid.of(KEY.sign(voucher(n, *paid(n))), 0)))
            await stored(meter)
        checks.extend(lane.kept)

    # In which the newest of all others is checked.
    newest = play(tmp_path, scenario, Exposure(MIB, MIB, 0, 0), linger=3600.0).newest
    assert newest.voucher.sequence == 200  # at the end at the latest
    return len(checks)


@pytest.mark.parametrize("paid", [lambda n: (0, 0), lambda n: (0, n)], ids=["nothing more", "a byte each"])
def test_who_pays_next_to_nothing_with_each_voucher_has_few_checked(tmp_path: Path, paid: Any) -> None:
    checked = checks_of_a_flood(tmp_path, lambda n: (0, 2 * MIB, 0), paid)
    assert checked == server_meter.AT_ONCE


@pytest.mark.parametrize(
    "use", [lambda n: (n, 0, 0), lambda n: (0, n * LEAST_INTERVAL, 0)], ids=["requests", "bytes"]
)
def test_who_pays_for_what_is_used_has_each_voucher_checked_at_once(tmp_path: Path, use: Any) -> None:
    checked = checks_of_a_flood(tmp_path, use, lambda n: (use(n)[0], use(n)[1]))
    assert checked == 200


def test_reordered_vouchers_that_wait_are_taken_by_their_sequence(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        for n in (200, 70_000, 3, 5_000_000_000, 128):
            wire.on_meter(frame(n, 0))
        await heard(meter)
        assert lane.kept == [5_000_000_000]

    play(tmp_path, scenario, linger=0.0)


def test_a_malformed_one_ends_the_connection_and_the_one_before_it_is_money(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        wire.on_meter(b"\x99\x01")  # as old as can be: skipped unread, as those are that are not newer
        wire.on_meter(b"\x99\x01\xcd\x00")
        wire.on_meter(frame(1, 0))
        wire.on_meter(frame(2, 0))
        wire.on_meter(b"\x99\x01\xcf" + b"\xff" * 8)
        await heard(meter)
        assert isinstance(meter.error, MalformedMeter)
        assert wire.aborted

    assert play(tmp_path, scenario, linger=0.0).newest.voucher.sequence == 2


def test_a_forged_one_ends_the_connection(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        wire.on_meter(frame(1, 0))
        wire.on_meter(frame(2, 0, LaneKey.generate()))
        await heard(meter)
        assert isinstance(meter.error, VoucherRefused)
        assert meter.error.flaw is Flaw.FORGED

    assert play(tmp_path, scenario, linger=0.0).newest is None


def test_what_waits_when_the_connection_ends_is_kept(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        wire.traffic = Traffic(0, 2 * MIB, 0)
        wire.on_meter(frame(1, MIB))
        assert meter.held
        ends.append(lane.kept)

    ends: list[Any] = []
    lane = play(tmp_path, scenario)
    assert ends == [[1, "ended"]]  # in this order: who ends knows nothing of it any more
    assert lane.newest.voucher.sequence == 1
    assert lane.used.bytes == 2 * MIB


def test_what_comes_and_what_goes_use_up_one_exposure(tmp_path: Path) -> None:
    """However the reads fall, sent and received together never pass the limit but by what credit was given for."""

    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        sent = received = 0
        while sent + received < 64 * MIB:
            received += MIB
            wire.move(0, sent, received)
            sent = min(wire.most, sent + 2 * MIB)
            wire.move(0, sent, received)
            assert sent + received <= 64 * MIB + MIB
        assert meter.payee.paused
        assert wire.most <= sent

    play(tmp_path, scenario)


def test_frames_are_said_again_as_seldom_as_the_carrier_is_slow(tmp_path: Path) -> None:
    """Over pipes each costs the server a transaction; what is lost elsewhere is said again after a second."""

    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        served, soon = meter.payee, payee.REPEAT
        wire.traffic = Traffic(0, MIB, 0)
        meter.update_counts()
        assert served.paused
        begun = served.next_deadline()
        for patience, pause in ((wire.limits.handshake, soon), (carriers.patience("pipe"), 5.0)):
            wire.patience = patience
            meter._set_repeat_interval()
            assert served.repeat == pause
            wire.sent.clear()
            served.handle_timer(begun)
            again = served.next_deadline()
            assert again == begun + pause
            meter.process_turn()
            assert [messages.parse(each, from_client=False) for each in wire.sent] == [Due(0, MIB)]
            served.handle_timer(again - 0.01)
            assert served.take_events() == []
            begun = again

    play(tmp_path, scenario, Exposure(MIB, MIB, 8, 8, patience=3600.0))


def test_a_voucher_that_can_not_be_stored_ends_the_connection_and_its_fault_is_the_operators(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        full = StoreError(f"can't write {tmp_path}: is the disk full?")
        wire.traffic = Traffic(0, 1000, 0)
        with meter.journal.store.failing("receive_now", "received_all", fault=full):
            wire.on_meter(frame(1, 1000))
            await stored(meter)
        assert wire.aborted.startswith(
            "vouchers can't be stored here at the moment, which is no fault of yours"
        )
        assert isinstance(meter.error, StoreError)
        assert str(tmp_path) in caplog.text

    assert play(tmp_path, scenario, Exposure(MIB, MIB, 8, 8)).newest is None


def test_what_else_can_not_be_stored_is_the_operators_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The use of a subscription, say."""

    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        async def full() -> None:
            raise StoreError(f"can't write {tmp_path}: is the disk full?")

        meter.spawn(full())
        await meter.wait_settled()
        assert wire.aborted.startswith(
            "vouchers can't be stored here at the moment, which is no fault of yours"
        )
        assert isinstance(meter.error, StoreError)
        assert str(tmp_path) in caplog.text

    play(tmp_path, scenario, Exposure(MIB, MIB, 8, 8))


# ---- what is taken of what waits


def test_of_those_that_wait_the_older_ones_are_never_read(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        wire.on_meter(b"\x99\x01")  # no voucher at all
        wire.on_meter(frame(1, 0))
        await heard(meter)
        assert not wire.closed
        assert lane.kept == [1]

    play(tmp_path, scenario, linger=0.0)


def test_nothing_is_heard_behind_a_voucher_that_was_wrong(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        wire.on_meter(b"\x99\x01\xcf" + b"\xff" * 8)
        wire.on_meter(build(Finish()))
        assert isinstance(meter.error, MalformedMeter)
        assert not meter.payee.finished

    play(tmp_path, scenario)


def test_a_voucher_that_waited_is_held_against_what_was_used_by_then(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        meter.payee.most_ahead = Usage(0, 1000)
        wire.on_meter(frame(1, MIB))
        wire.traffic = Traffic(0, MIB, 0)  # nobody was told
        await heard(meter)
        assert lane.kept == [1]

    play(tmp_path, scenario, linger=0.0)


def test_a_voucher_that_does_not_fit_beside_other_lanes_is_not_stored(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        lane.fits = False
        wire.on_meter(frame(1, 0))
        await heard(meter)
        assert meter.error.flaw is Flaw.OVERDRAWN

    assert play(tmp_path, scenario, linger=0.0).newest is None


# ---- limits


def test_what_is_used_is_told_once(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        for size in (MIB, MIB, 3 * MIB):
            wire.traffic = Traffic(1, size, 0)
            meter.update_counts()
            assert lane.told == Usage(1, size)

    play(tmp_path, scenario)


def test_a_quota_that_others_use_too_is_looked_at_often(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        meter.payee.set_quota(None, 60 * MIB, meter.loop.time())
        wire.traffic = Traffic(0, MIB, 0)
        meter.update_counts()
        assert meter.watch.total == MIB + server_meter.LOOK_EACH

    play(tmp_path, scenario)


def test_what_may_come_uncounted_may_not_go(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        wire.move(0, 0, MIB)
        room = 64 * MIB - MIB
        kept = room // 4
        assert (meter.watch.received, wire.most) == (MIB + kept, room - kept)
        assert wire.most_received == MIB + room  # credit is for whoever uses it first
        turns = []
        wire.watch.moved = lambda: turns.append(True)
        wire.move(0, 0, MIB + kept)
        assert not turns
        wire.move(0, 0, MIB + kept + 1)
        assert turns

    play(tmp_path, scenario)


@pytest.mark.parametrize("come", [MIB, MIB + 1])
def test_requests_wait_where_more_has_come_than_may_be_unpaid(tmp_path: Path, come: Any) -> None:
    """A client has credit for a connection's window before anything is metered, in each connection anew."""

    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        wire.traffic = Traffic(1, 0, come)
        meter.update_counts()
        waiting = asyncio.ensure_future(meter.wait_until_paid())
        await asyncio.sleep(0)
        assert waiting.done() == (come == MIB)
        wire.on_meter(frame(1, 1))
        await stored(meter)
        await waiting

    play(tmp_path, scenario, Exposure(MIB, MIB, 8, 8))


def test_the_pace_is_the_carrier_s_from_the_first_frame_on(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        wire.patience = carriers.patience("pipe")
        meter._report_time()
        assert meter.payee.repeat == 5.0
        slow = Wire()
        slow.patience = wire.patience
        served = Payee(PayeeLane(CHANNEL, 0), PRICES, 10**12)
        again = ServerMeter(slow, meter.journal, served, lane)
        again.begin()
        assert served.next_deadline() > meter.loop.time() + 4
        again.on_ended()
        await again.wait_settled()

    play(tmp_path, scenario)


# ---- the end


def test_who_ends_a_connection_asks_for_what_is_unpaid_and_waits_for_it(tmp_path: Path) -> None:
    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        wire.traffic = Traffic(0, 1000, 0)  # nobody was told
        wire.sent.clear()
        paid = asyncio.ensure_future(meter.paid_up())
        await asyncio.sleep(0)
        assert Due(0, 1000) in [messages.parse(each, from_client=False) for each in wire.sent]
        assert not paid.done()
        wire.on_meter(frame(1, 1000))
        await heard(meter)
        await paid

    play(tmp_path, scenario, linger=0.0)


@pytest.mark.parametrize(
    ("why", "told", "detail"),
    [
        ("deposit", "the deposit is used up", CloseDetail.DEPOSIT_USED_UP),
        ("quota", QUOTA_USED_UP, CloseDetail.QUOTA_USED_UP),
        ("", "not paid within 30 s", CloseDetail.NOT_PAID),
    ],
)
def test_who_is_late_is_told_why(tmp_path: Path, why: Any, told: Any, detail: Any) -> None:
    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        if why == "deposit":
            meter.payee.set_affordable(0, 0.0)
        elif why == "quota":
            meter.payee.set_quota(None, 0, 0.0)
        meter._end_if_late()
        assert wire.aborted.startswith(told)
        assert wire.detail == detail

    play(tmp_path, scenario)


def test_a_frame_behind_the_one_that_ended_metering_is_nobodys(tmp_path: Path) -> None:
    """Frames that came before it began are given one after the other, whatever they do."""

    async def scenario(meter: Any, wire: Any, lane: Any) -> None:
        wire.on_meter(frame(1, MIB))
        wire.on_meter(b"\x91")
        assert wire.closed
        meter.on_ended()
        wire.on_meter(frame(2, 2 * MIB))
        assert not meter.held

    play(tmp_path, scenario)
