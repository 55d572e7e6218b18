"""A forward's budget among processes, as while an upgrade is done: what all of them have lent is never above it."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from variants import slow_after

from dtp.chain.host_state import service_number
from dtp.daemon.paying.lender import Lender
from dtp.daemon.paying.signed import PaidService
from dtp.pay.client.lane_start import Reserved
from dtp.pay.errors import StoreError
from dtp.pay.store import Store
from dtp.pay.terms import Usage

from ..http.test_daemon_calls import HOST, TO, buyer, sign, voucher

MOST = 1000
SERVICES = [PaidService(HOST, service_number("api"))]


class Other:
    """A daemon of another process that has the forward, too; it does as it is told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def tell(self, *words: object) -> int:
        """Have it do something; return the number that it answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def kill(self) -> None:
        """Have it end without a word."""
        self._process.kill()
        self._process.wait()


@contextmanager
def other_daemon(path: Path) -> Iterator[Other]:
    with subprocess.Popen(
        [sys.executable, "-c", _OTHER, str(path), str(TO[0]), str(MOST)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        other = Other(process)
        try:
            yield other
        finally:
            process.stdin.close()


def test_what_is_lent_while_a_channel_is_opened_is_lent_by_no_other_process(tmp_path: Path) -> None:
    """It was known to the process alone until the channel was there, some seconds later: at an upgrade the one
    before lent the same rest."""
    path = tmp_path / "pay.sqlite"
    with Store(path) as store, other_daemon(path) as other, other_daemon(path) as third:
        one = buyer(store, MOST, None, [0.0])
        assert one.left == MOST
        assert other.tell("lend", "a", 600) == 600
        assert one.left == 400
        assert third.tell("lend", "a", 500) == 400
        assert other.tell("lend", "b", 1) == 0
        assert third.tell("fail", "a") == 400
        assert other.tell("fail", "a") == 600  # it didn't come about
        assert one.left == MOST
        assert other.tell("lend", "c", 100) == 100
        assert one.left == MOST - 100
        other.kill()
        assert one.left == MOST


def test_what_may_be_added_to_a_channel_of_another_process_is_lent_by_nobody_else(tmp_path: Path) -> None:
    """What the channel held was all that counted."""
    path = tmp_path / "pay.sqlite"
    with Store(path) as store, other_daemon(path) as other:
        one = buyer(store, MOST, None, [0.0])
        _, channel = sign(store, 50)
        assert other.tell("lend", "a", 600) == 600
        assert other.tell("connect", "a", channel, 100) == 50
        assert one.left == MOST - 50 - 600
        assert other.tell("sign", "a", 80) == 130
        assert (one.left, one.spent) == (MOST - 50 - 600, 130)
        assert other.tell("lend", "a", 100) == 100  # what it adds beyond that
        assert one.left == MOST - 50 - 700
        assert other.tell("end", "a") == 130
        assert (one.left, one.spent) == (MOST - 130, 130)


@pytest.mark.parametrize("killed", [False, True])
def test_what_another_process_has_reserved_is_spent_if_it_was_killed_alone(
    tmp_path: Path, killed: bool
) -> None:
    """It counted for good where it was seen once, so each upgrade took as much from a budget as is reserved ahead."""
    path = tmp_path / "pay.sqlite"
    with Store(path) as store, other_daemon(path) as other:
        key, channel = sign(store, 50)
        assert other.tell("lend", "a", 600) == 600
        assert other.tell("connect", "a", channel, 100) == 50
        store.begin_lane(channel, 0)
        store.reserve(channel, 0, Reserved(129, 300))
        one = buyer(store, MOST, None, [0.0])
        assert (one.left, one.spent) == (MOST - 650, 50)
        if killed:
            other.kill()
        else:
            store.end_lane(channel, 0, Usage(3, 3), key.sign(voucher(channel, 2, 80)), clean=True)
            assert other.tell("end", "a") == 50
        assert one.spent == (300 if killed else 80)
        assert one.left == MOST - one.spent


@pytest.mark.parametrize("killed", [False, True])
def test_what_was_reserved_on_a_lane_is_spent_for_who_takes_it_if_that_one_was_killed_alone(
    tmp_path: Path, killed: bool
) -> None:
    """It counted for good where the lane was let go in order, and the store was not read again before it was taken:
    an upgrade under load took up to a deposit from the budget."""
    path = tmp_path / "pay.sqlite"
    with Store(path) as store, other_daemon(path) as other, other_daemon(path) as next_one:
        key, channel = sign(store, 50)
        other.tell("lend", "a", 600)
        other.tell("connect", "a", channel, 100)
        store.begin_lane(channel, 0)
        store.reserve(channel, 0, Reserved(129, 300))
        assert next_one.tell("lend", "b", 100) == 100
        if killed:
            other.kill()
        else:
            store.end_lane(channel, 0, Usage(3, 3), key.sign(voucher(channel, 2, 80)), clean=True)
            other.tell("end", "a")
        next_one.tell("connect", "b", channel, 100)
        assert next_one.tell("spent") == (300 if killed else 80)


def test_what_a_killed_process_had_lent_is_lent_no_more_once_it_could_not_be_forgotten(
    tmp_path: Path,
) -> None:
    """Whoever was to forget it kept its lock, so that it counted as alive: no process could lend it until that one
    ended."""
    path = tmp_path / "pay.sqlite"
    with Store(path) as store, other_daemon(path) as other, closing(sqlite3.connect(path)) as disk:
        one = buyer(store, MOST, None, [0.0])
        assert other.tell("lend", "a", 600) == 600
        other.kill()
        disk.execute("CREATE TRIGGER full BEFORE DELETE ON loans BEGIN SELECT RAISE(ABORT, 'full'); END")
        (killed,) = store.lenders()
        with closing(Lender(store)) as lender:
            with pytest.raises(StoreError, match="full"):
                lender.lend("b", "c", SERVICES, lambda: 1)
            assert one.left == MOST
            disk.execute("DROP TRIGGER full")
            assert lender.lend("b", "c", SERVICES, lambda: 300) == 300
            assert one.left == MOST - 300
            assert killed not in store.lenders()


@pytest.mark.parametrize("seed", slow_after(1, range(3)))
def test_whatever_processes_lend_fail_and_sign_the_budget_holds(tmp_path: Path, seed: int) -> None:
    """Three processes, of which one is killed now and then: in any order, and nothing is kept back for good."""
    draw, path = random.Random(seed), tmp_path / "pay.sqlite"
    with Store(path) as store, ExitStack() as stack:
        one = buyer(store, MOST, None, [0.0])
        others = [stack.enter_context(other_daemon(path)) for _ in range(3)]
        #: What each borrower has been lent beyond where it began, and what it signs on.
        lent: dict[tuple[Other, str], int] = {}
        channels: dict[tuple[Other, str], str] = {}
        signed: dict[str, int] = {}
        for number in range(60):
            other = draw.choice(others)
            mine = [each for each in lent if each[0] is other]
            what = draw.choice(["lend", "more", "connect", "sign", "sign", "end", "kill"])
            if what == "lend":
                lent[other, f"b{number}"] = other.tell("lend", f"b{number}", draw.randrange(400))
            elif what == "kill" and number % 7 == 0:
                other.kill()
                for each in mine:
                    del lent[each]
                    channels.pop(each, None)
                others.remove(other)
                others.append(stack.enter_context(other_daemon(path)))
            elif mine:
                each = draw.choice(mine)
                if what == "more" and each in channels:
                    lent[each] += other.tell("lend", each[1], draw.randrange(200))
                elif what == "connect" and each not in channels:
                    _, channels[each] = sign(store, 0)
                    other.tell("connect", each[1], channels[each], draw.randrange(1 + lent[each]))
                elif what == "sign" and each in channels:
                    channel = channels[each]
                    more = draw.randrange(1 + lent[each] - signed.get(channel, 0))
                    signed[channel] = other.tell("sign", each[1], more)
                elif what == "end":
                    other.tell("end" if each in channels else "fail", each[1])
                    del lent[each]
                    channels.pop(each, None)
            live = set(channels.values())
            over = sum(amount for channel, amount in signed.items() if channel not in live)
            assert over + sum(lent.values()) <= MOST
            assert one.left == MOST - over - sum(lent.values())
        assert sum(signed.values()) == one.spent


#: A daemon that has a forward, lends of its budget and signs as it is told by lines.
_OTHER = """
import sys
from types import SimpleNamespace
from dtp.daemon.config.model import BudgetSettings
from dtp.daemon.paying.buying import Buyer, Wallet
from dtp.identity import Identity
from dtp.net.address import Address
from dtp.pay.client.channel_purchase import ChannelPurchase
from dtp.pay.client.lane_lock import LaneLock
from dtp.pay.store import Store
from dtp.pay.terms import Prices, Usage
from dtp.pay.voucher import Voucher
from dtp.session.limits import DEFAULT

path, to, most = sys.argv[1:]
store = Store(path)
wallet = Wallet(SimpleNamespace(chain_id="c"), store)
buyer = Buyer(wallet, BudgetSettings(int(most), None), Identity.generate(), DEFAULT, None, (Address.parse(to),))
borrowers, meters, locks, keys = {}, {}, {}, {}

def connect(name, channel, held):
    lock = locks[name] = LaneLock(store.path, channel, 0)
    assert lock.try_acquire()
    ((keys[name], lane),) = store.payer_lanes(channel)
    in_use = SimpleNamespace(channel=SimpleNamespace(id=channel), lane=lane)
    money = SimpleNamespace(start=lane.newest.voucher.amount, lend=None)
    purchase = ChannelPurchase(in_use, money, Prices(1000, 0), False)
    meter = SimpleNamespace(payer=SimpleNamespace(newest=lane.newest), purchase=purchase)
    store.hold_deposit(channel, 0, lambda others: meter.purchase.start + int(held))
    class Meter:
        payer, purchase = meter.payer, meter.purchase
    meters[name] = Meter()
    buyer._sums.add_meter(meters[name], borrowers[name])
    return meter.purchase.start

def sign(name, more):
    meter = meters[name]
    before = meter.payer.newest.voucher
    amount = before.amount + int(more)
    made = Voucher(before.channel, 0, before.sequence + 1, amount, 1, 1, None, 2**64 - 1)
    meter.payer.newest = keys[name].sign(made)
    store.save_signed(meter.payer.newest, Usage(1, 1))
    return amount

def end(name):
    meter = meters.pop(name)
    buyer._sums.end_meter(meter)
    locks.pop(name).release()
    return meter.payer.newest.voucher.amount

def fail(name):
    amount = buyer._sums._lent[borrowers[name]]
    buyer._sums.take_back(borrowers[name])
    return amount

def lend(name, amount):
    return buyer._lend_amount(borrowers.setdefault(name, object()), int(amount))

for line in sys.stdin:
    what, *words = line.split()
    does = {"lend": lend, "connect": connect, "sign": sign, "end": end, "fail": fail, "spent": lambda: buyer.spent}
    print(does[what](*words), flush=True)
"""
