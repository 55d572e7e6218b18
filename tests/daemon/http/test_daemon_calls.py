"""What a forward takes for a call: whatever its programs send, in pieces of any size."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dtp.chain.host_state import service_number
from dtp.daemon.config import values
from dtp.daemon.config.model import BudgetSettings
from dtp.daemon.config.reading import Wrong
from dtp.daemon.config.values import AllowedRate
from dtp.daemon.paying.buying import Buyer, Wallet
from dtp.daemon.paying.calls import CallReader, ChargedCalls
from dtp.daemon.paying.signed import PaidService
from dtp.net.address import Address
from dtp.pay.client.channel_purchase import ChannelPurchase
from dtp.pay.client.lane_lock import LaneLock
from dtp.pay.client.lane_start import PayerLane, Reserved
from dtp.pay.store import Bought, Store
from dtp.pay.terms import Prices, Usage
from dtp.pay.voucher import LaneKey, Voucher
from dtp.session.limits import DEFAULT

from ..conftest import NEAR


def http(body: bytes = b"", *fields: str, method: str = "POST") -> bytes:
    head = [f"{method} / HTTP/1.1", "Host: a", *fields]
    return "\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body


def frame(kind: int, size: int, stream: int) -> bytes:
    return size.to_bytes(3) + bytes([kind, 4]) + stream.to_bytes(4) + bytes(size)


def batch(count: int) -> bytes:
    return json.dumps([{"jsonrpc": "2.0", "method": 'a"]', "id": each} for each in range(count)]).encode()


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CHUNKED = (
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nGET /\r\n1\r\n\n\r\n0\r\nA: b\r\n\r\n"
)
UPGRADE = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "calls"),
    [
        (b"", 0),
        (b"G", 0),
        (b"\x16\x03\x01 anything at all, " * 1000, 1),
        (b"SSH-2.0-x\r\n" * 100, 1),
        (http(), 1),
        (http(bytes(300_000)), 1),  # an upload is one, however long
        (http(b"GET / HTTP/1.1\r\n\r\n" * 50) + http(method="GET"), 2),
        (http(batch(7), "Content-Type: application/json"), 7),
        (http(b" \n" + batch(3), "Content-Type: application/json") + http(), 4),
        (http(b'{"a": [1, 2, 3]}', "Content-Type: application/json"), 1),
        (http(b"[1, 2", "Content-Type: application/json"), 1),
        (http(b"[]", "Content-Type: application/json"), 1),
        (http(batch(7)), 1),
        (CHUNKED * 3, 3),
        (UPGRADE, 1),
        (UPGRADE + b"\x81\x83mask" + b"abc" + b"\x82\xfe\x01\x00mask" + bytes(256) + b"\x89\x80mask", 3),
        (PREFACE + frame(4, 0, 0) + frame(1, 30, 1) + frame(0, 5000, 1) + frame(1, 3, 3), 2),
        (b"POST / HTTP/1.1\r\nContent-Length: none\r\n\r\n" + http() * 9, 1),
    ],
)
@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_what_is_a_call_is_counted_once(sent: bytes, calls: int, piece: int) -> None:
    counted = ChargedCalls(None, lambda: 0.0)
    reader = CallReader(counted)
    for at in range(0, len(sent), piece):
        reader.feed_data(sent[at : at + piece])
    assert counted.sent == calls


def test_calls_that_were_sent_are_agreed_to_and_no_more() -> None:
    calls = ChargedCalls(None, lambda: 0.0)
    CallReader(calls).feed_data(http() * 5)
    assert [calls.agrees_to(each) for each in (3, 3, 2, 1)] == [True, False, True, False]
    assert calls.declined == {"calls": 4, "rate": 0}


def test_calls_are_paid_at_the_highest_rate_that_is_said() -> None:
    now = [100.0]
    calls = ChargedCalls(AllowedRate(10, 2.0), lambda: now[0])
    CallReader(calls).feed_data(http() * 100)
    assert [calls.agrees_to(each) for each in (8, 3, 2, 1)] == [True, False, True, False]
    now[0] += 1.0
    assert [calls.agrees_to(each) for each in (6, 5)] == [False, True]
    now[0] += 1000.0
    assert [calls.agrees_to(each) for each in (10, 1)] == [True, False]
    assert calls.declined["rate"] == 3 + 1 + 6 + 1


def test_a_budget_is_for_a_time() -> None:
    assert values.money_per("0.5SUI a day") == (500_000_000, 86_400.0)
    assert values.money_per("1 SUI per month") == (10**9, 30 * 86_400.0)
    assert values.money_per("0.25SUI an hour") == (250_000_000, 3600.0)
    assert values.money_per("2SUI each week") == (2 * 10**9, 7 * 86_400.0)
    assert values.money_per("2SUI") == (2 * 10**9, None)
    assert values.money_per(7) == (7, None)
    for wrong in ("0.5SUI a dya", "much a day", "0.5SUI day"):
        with pytest.raises(Wrong):
            values.money_per(wrong)


# ---- budgets for a time

HOST = "0x" + "a" * 64
TO = (Address.parse(f"dtp://{HOST}/api"),)
DAY = 86_400.0


def buyer(
    store: Store, most: int, every: float | None, now: list[float], passed: list[float] | None = None
) -> Buyer:
    wallet = Wallet(SimpleNamespace(chain_id="c"), store)  # type: ignore[arg-type]
    settings, ticks = BudgetSettings(most, every), passed or [0.0]
    return Buyer(wallet, settings, NEAR, DEFAULT, None, TO, lambda: now[0], lambda: ticks[0])


def sign(store: Store, amount: int, *, host: str = HOST) -> tuple[LaneKey, str]:
    """A channel for the service, of which this much was signed for."""
    key = LaneKey.generate()
    channel = "0x" + key.public.hex()
    store.keep_key(key, 1)
    store.add_bought(Bought(channel, "c", host, service_number("api"), "0xb", "open", 1), 0, key.public)
    store.save_signed(key.sign(voucher(channel, 1, amount)), Usage(1, 1))
    return key, channel


def voucher(channel: str, sequence: int, amount: int) -> Voucher:
    return Voucher(channel, 0, sequence, amount, 1, 1, None, 2**64 - 1)


def test_what_was_paid_is_remembered_over_restarts_until_the_time_is_over(tmp_path: Path) -> None:
    now = [10 * DAY + 5]
    with Store(tmp_path / "pay.sqlite") as store:
        sign(store, 50)
        assert buyer(store, 1000, DAY, now).spent == 0  # it begins now
        sign(store, 300)
        sign(store, 77, host="0x" + "b" * 64)
        assert buyer(store, 1000, DAY, now).spent == 300
        now[0] += DAY
        assert buyer(store, 1000, DAY, now).spent == 0
        sign(store, 20)
        now[0] -= DAY  # a clock that was wrong begins nothing again
        assert buyer(store, 1000, DAY, now).spent == 20
        assert buyer(store, 1000, None, now).spent == 370  # for ever


def test_a_budget_begins_anew_while_its_program_runs(tmp_path: Path) -> None:
    now = [10 * DAY]
    with Store(tmp_path / "pay.sqlite") as store:
        one = buyer(store, 1000, DAY, now)
        assert one.spent == 0
        sign(store, 400)
        again = buyer(store, 1000, DAY, now)
        assert again.spent == 400
        now[0] += DAY
        assert again.spent == 0


@pytest.mark.parametrize("restarted", [False, True])
def test_a_clock_that_was_ahead_once_ends_a_budget_for_no_longer_than_its_time(
    tmp_path: Path, restarted: bool
) -> None:
    """One that was a year ahead for a moment, as before it was set, ended the forward for a year."""
    now, passed = [10 * DAY + 5], [100.0]
    with Store(tmp_path / "pay.sqlite") as store:
        one = buyer(store, 1000, DAY, now, passed)
        assert one.spent == 0
        now[0] += 365 * DAY
        assert one.spent == 0
        sign(store, 900)
        now[0] -= 365 * DAY
        one = buyer(store, 1000, DAY, now, passed) if restarted else one
        one.left  # noqa: B018 - reads the store
        assert one.spent == 900
        for _ in range(23):  # forward and back again, it is one budget
            now[0] += 3600
            passed[0] += 3600
            assert one.spent == 900
            now[0] += 300 * DAY
            assert one.spent == 900
            now[0] -= 300 * DAY
        passed[0] += 3600
        now[0] += 3600
        assert one.spent == 0
        sign(store, 7)
        assert one.left == 993
        assert one.spent == 7
        assert buyer(store, 1000, DAY, now, passed).spent == 7


def test_forwards_to_one_service_begin_a_time_together_where_a_clock_was_ahead_once(tmp_path: Path) -> None:
    """Each began one for itself when it looked: what the other had paid in it was of the time before."""
    now, passed = [375 * DAY + 5], [100.0]
    with Store(tmp_path / "pay.sqlite") as store:
        one, second = (buyer(store, 1000, DAY, now, passed) for _ in range(2))
        assert (one.spent, second.spent) == (0, 0)
        sign(store, 900)
        now[0] -= 365 * DAY
        assert [each.left for each in (one, second)] == [100, 100]
        now[0] += DAY
        passed[0] += DAY
        assert one.left == 1000
        sign(store, 800)
        assert [each.left for each in (one, second)] == [200, 200]
        now[0] += DAY
        assert [each.left for each in (one, second)] == [1000, 1000]


@pytest.mark.parametrize("when", [0, 1])
def test_a_program_that_is_killed_at_a_write_forgets_nothing_that_was_paid(tmp_path: Path, when: int) -> None:
    """Before the period is noted, and behind it."""
    now = [10 * DAY]
    path = tmp_path / "pay.sqlite"
    with Store(path) as store:
        if when:
            assert buyer(store, 1000, DAY, now).spent == 0
        sign(store, 400)
    with Store(path) as store:  # without a word of the one before
        assert buyer(store, 1000, DAY, now).spent == (400 if when else 0)
        assert buyer(store, 1000, None, now).spent == 400


def test_a_day_that_begins_behind_a_kill_has_no_larger_budget(tmp_path: Path) -> None:
    """All that was reserved counted as signed before the day, and when the server had shown how little was, the day
    had that much more: up to what a channel holds."""
    now = [10 * DAY]
    path = tmp_path / "pay.sqlite"
    with Store(path) as store:
        assert buyer(store, 1000, DAY, now).spent == 0
        key, channel = sign(store, 50)
        store.begin_lane(channel, 0)
        store.reserve(channel, 0, Reserved(129, 900))  # and it is killed when 80 are signed
    now[0] += DAY
    with Store(path) as store:
        one = buyer(store, 1000, DAY, now)
        assert one.spent == 0
        ((_, lane),) = store.payer_lanes(channel)
        store.save_signed(key.sign(voucher(channel, 2, 80)), Usage(2, 2))  # the server has shown it
        store.end_lane(
            channel, 0, Usage(3, 3), key.sign(voucher(channel, 130, 100)), clean=True, before=lane.reserved
        )
    with Store(path) as store:
        assert 20 <= buyer(store, 1000, DAY, now).spent <= 50
        now[0] += DAY
        assert buyer(store, 1000, DAY, now).spent == 0
        sign(store, 7)
        assert buyer(store, 1000, DAY, now).spent == 7


def test_what_another_process_may_yet_sign_is_lent_by_nobody_else(tmp_path: Path) -> None:
    """As one whose upgrade is done, and which has streams yet: what it counts on, and what it has signed since."""
    path = tmp_path / "pay.sqlite"
    with Store(path) as store:
        key, channel = sign(store, 50)
        one = buyer(store, 1000, None, [0.0])
        assert one.left == 950
        with subprocess.Popen(
            [sys.executable, "-c", _TAKE, str(path), channel], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other:
            assert other.stdin is not None
            assert other.stdout is not None
            assert other.stdout.readline() == b"taken\n"
            assert (one.left, one.spent) == (700, 50)
            store.save_signed(key.sign(voucher(channel, 2, 80)), Usage(2, 2))
            assert (one.left, one.spent) == (700, 80)
            other.stdin.close()
            assert other.wait() == 0
        assert (one.left, one.spent) == (920, 80)


class LiveMeter:
    """The meter of a connection that goes on, and has begun where `start` is."""

    def __init__(self, channel: str, start: int) -> None:
        self.payer = SimpleNamespace(newest=None)
        in_use = SimpleNamespace(channel=SimpleNamespace(id=channel), lane=PayerLane(channel, 0))
        money = SimpleNamespace(start=start, lend=None)
        self.purchase = ChannelPurchase(in_use, money, Prices(1000, 0), False)  # type: ignore[arg-type]


def test_what_a_forward_to_several_services_may_sign_for_one_is_lent_by_no_other(tmp_path: Path) -> None:
    """Both had sums of their own: each connection signed up to all of the budget, beside the other."""
    other = "0x" + "b" * 64
    with Store(tmp_path / "pay.sqlite") as store:
        wallet = Wallet(SimpleNamespace(chain_id="c"), store)  # type: ignore[arg-type]
        both = (*TO, Address.parse(f"dtp://{other}/api"))
        settings = BudgetSettings(1000, None)
        one, second = (Buyer(wallet, settings, NEAR, DEFAULT, None, to) for to in (TO, both))
        borrower, another = object(), object()
        sums = wallet.signed_for(PaidService(each, service_number("api")) for each in (HOST, other))
        assert (one.left, second.left) == (1000, 1000)
        sums.lend(borrower, lambda: 400)
        assert (one.left, second.left) == (600, 600)  # where it dials isn't known yet
        key, channel = sign(store, 50)
        _, elsewhere = sign(store, 10, host=other)
        locks = [LaneLock(store.path, each, 0) for each in (channel, elsewhere)]
        assert all(each.try_acquire() for each in locks)
        meter: Any = LiveMeter(channel, 50)
        sums.add_meter(meter, borrower)
        sums.lend(another, lambda: 100)
        sums.add_meter(cast(Any, LiveMeter(elsewhere, 10)), another)
        assert (one.left, second.left) == (550, 440)
        meter.payer.newest = key.sign(voucher(channel, 2, 350))
        assert (one.left, second.left) == (550, 440)
        sums.end_meter(meter)
        assert (one.left, second.left) == (650, 540)
        store.save_signed(meter.payer.newest, Usage(2, 2))
        locks[0].release()
        assert (one.left, second.left) == (650, 540)
        locks[1].release()


def test_a_connection_that_is_over_borrows_no_more(tmp_path: Path) -> None:
    """Money that was being added to its channel yet, behind another transaction, was lent to it for ever."""
    with Store(tmp_path / "pay.sqlite") as store:
        wallet = Wallet(SimpleNamespace(chain_id="c"), store)  # type: ignore[arg-type]
        one = Buyer(wallet, BudgetSettings(1000, None), NEAR, DEFAULT, None, TO)
        sums, borrower = wallet.signed_for([PaidService(HOST, service_number("api"))]), object()
        _, channel = sign(store, 50)
        assert one.left == 950
        meter: Any = LiveMeter(channel, 50)
        meter.purchase.money.lend = lambda amount: one.lend_more(borrower, amount)
        sums.lend(borrower, lambda: 400)
        sums.add_meter(meter, borrower)
        assert one.left == 550
        lend = meter.purchase.money.lend
        sums.end_meter(meter)
        assert meter.purchase.money.lend is None
        assert asyncio.run(lend(100)) == 0  # it waited for the store meanwhile
        assert one.left == 950


def test_nothing_else_waits_while_others_write_to_the_store(tmp_path: Path) -> None:
    """The whole daemon stood still for up to ten seconds, while a connection waited for a part of the budget."""
    with Store(tmp_path / "pay.sqlite") as store:
        wallet = Wallet(SimpleNamespace(chain_id="c"), store)  # type: ignore[arg-type]
        one = Buyer(wallet, BudgetSettings(1000, None), NEAR, DEFAULT, None, TO)
        sums, borrower = wallet.signed_for([PaidService(HOST, service_number("api"))]), object()
        sums.lend(borrower, lambda: 400)
        other = sqlite3.connect(store.path, isolation_level=None)
        key = LaneKey.generate()

        async def scenario() -> None:
            other.execute("BEGIN IMMEDIATE")
            # A thread of this program waits for it, as the one does that keeps vouchers.
            keeping = asyncio.create_task(asyncio.to_thread(store.keep_key, key, 1))
            lending = asyncio.create_task(one.lend_more(borrower, 700))
            for _ in range(20):
                await asyncio.sleep(0)
                assert (one.left, one.spent) == (600, 0)
            assert not lending.done()
            assert not keeping.done()
            other.execute("ROLLBACK")
            assert await lending == 600
            await keeping

        asyncio.run(scenario())
        other.close()
        wallet.close()


#: Takes the first lane of a channel, and counts on 300 of it, until it is told to end.
_TAKE = """
import sys
from dtp.pay.client.lane_lock import LaneLock
from dtp.pay.store import Store
path, channel = sys.argv[1:]
with Store(path) as store:
    lock = LaneLock(store.path, channel, 0)
    assert lock.try_acquire()
    store.hold_deposit(channel, 0, lambda others: 300)
    print("taken", flush=True)
    sys.stdin.read()
    lock.release()
"""
