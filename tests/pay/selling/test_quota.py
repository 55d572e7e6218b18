"""Quotas of passes: one count for all connections, that neither a race nor a store that fails forgets."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dtp.chain.firewall import HolderOfPass
from dtp.chain.pass_ import PassAccount
from dtp.pay.errors import StoreError
from dtp.pay.server.quota import LEASE_PART, PassQuotas, period_of
from dtp.pay.store import Store
from dtp.pay.terms import MIB, Usage
from dtp.session.codes import CloseCode, CloseDetail, Refuse

from ..stored import ScriptedStore

PASS = "0x" + "9a" * 32
HOUR = 3_600_000


class Journal:
    """A journal whose work can be held up."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.free = asyncio.Event()
        self.free.set()

    async def run(self, work: Any) -> Any:
        await asyncio.sleep(0)
        await self.free.wait()
        return work(self.store)


class Meter:
    """What a quota knows of a connection."""

    def __init__(self) -> None:
        self.payee = SimpleNamespace(
            used=Usage(), quota=SimpleNamespace(requests=None), set_quota=self._set_quota
        )
        self.ended: Any = None
        self.pending = 0
        self.connection = SimpleNamespace(abort=self._abort)
        self.left: Any = None
        self.turns = 0
        self.tasks: list[Any] = []

    def _set_quota(self, requests: Any, size: Any, now: Any, *, grows: Any) -> None:
        self.grows = grows[0 if size is None else 1]
        used, self.payee.quota.requests = self.payee.used, requests
        self._most = size
        self.left = (
            None if requests is None else requests - used.requests,
            None if size is None else size - used.bytes,
        )

    @property
    def left_now(self) -> Any:
        """Bytes that it may still move."""
        return self._most - self.payee.used.bytes

    def _abort(self, code: Any, reason: Any, *, detail: Any) -> None:
        self.ended = reason

    def process_turn(self) -> None:
        self.turns += 1

    def spawn(self, work: Any) -> None:
        self.tasks.append(asyncio.ensure_future(work))


class Sale:
    """A host that sells passes, as one of its servers has it."""

    def __init__(self, store: Any, requests: int = 1000, size: int = 0, part: int = 1) -> None:
        self.now_ms, self.start = 100 * HOUR, 100 * HOUR
        self.journal = Journal(store)
        plan = SimpleNamespace(quota_requests=requests, quota_bytes=size)
        chain = SimpleNamespace(read=self._plan)
        self._found = plan
        rules = SimpleNamespace(state=SimpleNamespace(now_ms=lambda now: self.now_ms), epoch=5, passes={})
        self.proven = True
        self.rules, self._chain, self._part = rules, chain, part
        self.start_anew()

    def start_anew(self) -> None:
        """Forget what isn't in the store."""
        proofs = SimpleNamespace(load_plan=self._know, has_quota=self._allow)
        rules = SimpleNamespace(rules=self.rules)
        self.quotas = PassQuotas(self._chain, self.journal, rules, proofs, part=self._part)

    @property
    def running(self) -> Any:
        """What is leased of passes, by the pass."""
        return self.quotas._running

    async def _plan(self, schema: Any, cls: Any, id: Any) -> Any:
        return self._found

    async def _know(self, plan: Any) -> None:
        pass

    async def _allow(self, held: Any, plan: Any, period: Any, more: Any) -> Any:
        return self.proven

    @property
    def held(self) -> Any:
        held = HolderOfPass(PASS, "0x1", 7, HOUR, PassAccount("0xc", self.start, 10, 0, False))
        self.rules.passes["0xc"] = [held]
        return held

    async def enter(self) -> Any:
        meter = Meter()
        await self.quotas.lease_part(self.held)
        self.quotas.add_meter(meter, self.held)
        return meter

    def use(self, meter: Any, requests: Any, size: int = 0) -> None:
        more = Usage(requests, size)
        meter.payee.used = meter.payee.used.plus(*more)
        self.quotas.add_usage(meter, more)


def store_away(sale: Any) -> Any:
    """What was used can't be written."""
    return sale.journal.store.failing("add_pass_used", "lease_pass", fault=StoreError("the database is away"))


@asynccontextmanager
async def opened() -> AsyncIterator[Any]:
    """A store. A lease under way when it is closed would fail, and be told of in whatever test collects it."""
    with ScriptedStore(":memory:") as store:
        yield store
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})


def play(scenario: Any, **options: Any) -> None:
    async def work() -> None:
        async with opened() as store:
            await scenario(Sale(store, **options))

    asyncio.run(work())


def test_a_connection_that_comes_while_the_last_one_leaves() -> None:
    async def scenario(sale: Any) -> None:
        first = await sale.enter()
        sale.use(first, 10)
        await sale.quotas.load_plan(sale.held)  # the second one's ticket is checked ...
        await sale.quotas.remove_meter(first)
        assert (await sale.enter()).left == (990, None)  # ... and it begins when nobody else is left
        await sale.quotas.load_plan(sale.held)
        assert len(sale.running) == 1

    play(scenario)


def test_a_write_that_fails_forgets_nothing() -> None:
    async def scenario(sale: Any) -> None:
        meter = await sale.enter()
        sale.use(meter, 10)
        with store_away(sale), pytest.raises(StoreError):
            await sale.quotas.remove_meter(meter)
        other = await sale.enter()
        assert other.left == (990, None)
        sale.use(other, 5)
        await sale.quotas.remove_meter(other)
        period = period_of(sale.held, sale.now_ms, 5)
        assert sale.journal.store.pass_used(PASS, period) == Usage(15, 0)
        assert (await sale.enter()).left == (985, None)

    play(scenario)


def test_what_is_served_was_counted_before_and_a_crash_takes_a_lease() -> None:
    """What dies, whenever that is, gives nothing for nothing, and keeps two leases at most."""

    async def scenario(sale: Any) -> None:
        meter = await sale.enter()
        period, store = period_of(sale.held, sale.now_ms, 5), sale.journal.store
        lease = Usage(10_000 // LEASE_PART + 1, MIB)
        for number in range(1, 200):
            sale.use(meter, 10, 100_000)
            while meter.tasks:
                await asyncio.gather(meter.tasks.pop())
            counted, used = store.pass_used(PASS, period), Usage(10 * number, 100_000 * number)
            assert counted.requests >= used.requests
            assert counted.bytes >= used.bytes
            assert counted.requests - used.requests <= 2 * lease.requests
            assert counted.bytes - used.bytes <= 2 * lease.bytes
        await sale.quotas.remove_meter(meter)
        assert store.pass_used(PASS, period) == Usage(1990, 19_900_000)

    play(scenario, requests=10_000, size=64 * MIB, part=LEASE_PART)


@pytest.mark.parametrize("endpoints", [1, 4])
def test_endpoints_that_share_a_store_serve_one_quota_together(tmp_path: Path, endpoints: Any) -> None:
    """Each served all of it before it looked at what the others had: 32 MiB of 8."""

    async def work() -> None:
        with contextlib.ExitStack() as stack:
            stores = [stack.enter_context(Store(tmp_path / "pay.sqlite")) for _ in range(endpoints)]
            sales = [Sale(store, requests=0, size=8 * MIB, part=LEASE_PART) for store in stores]
            meters = [await sale.enter() for sale in sales for _ in range(2)]
            served = 0
            while True:
                before = served
                for number, meter in enumerate(meters):
                    sale = sales[number // 2]
                    size = max(0, meter.left_now)
                    served += size
                    sale.use(meter, 0, size)
                    while meter.tasks:
                        await asyncio.gather(meter.tasks.pop())
                if served == before:
                    break
            assert 8 * MIB - len(meters) <= served <= 8 * MIB + len(meters)
            assert all([await sale.quotas.used_up(sale.held) for sale in sales])

    asyncio.run(work())


def test_what_an_endpoint_gives_back_another_one_leases() -> None:
    async def scenario(sale: Any) -> None:
        meter = await sale.enter()
        period = period_of(sale.held, sale.now_ms, 5)
        sale.use(meter, 985)
        await asyncio.gather(*meter.tasks)
        other = Sale(sale.journal.store, part=LEASE_PART)
        late = await other.enter()
        assert late.left == (0, None)  # all is leased
        assert await other.quotas.used_up(other.held)
        await sale.quotas.remove_meter(meter)
        assert sale.journal.store.pass_used(PASS, period) == Usage(985, 0)
        await other.quotas.poll()
        assert late.left == (15, None)

    play(scenario)


def test_a_charge_leases_what_it_needs() -> None:
    async def scenario(sale: Any) -> None:
        meter = await sale.enter()
        assert meter.left == (16, None)
        await sale.quotas.make_room(meter, 300)
        assert meter.left == (300, None)
        await sale.quotas.make_room(meter, 5000)
        assert meter.left == (1000, None)  # all that there is

    play(scenario, part=LEASE_PART)


def test_what_other_servers_of_the_host_have_served_counts() -> None:
    """They have the same store: each would give the quota once more."""

    async def scenario(sale: Any) -> None:
        period = period_of(sale.held, sale.now_ms, 5)
        sale.journal.store.add_pass_used(PASS, period, Usage(600, 0))  # by another server
        meter, other = await sale.enter(), await sale.enter()
        sale.use(meter, 100)
        assert meter.left == (400, None) or other.left == (300, None)
        await sale.quotas.poll()
        assert meter.left == other.left == (300, None)

    play(scenario)


def test_what_is_used_while_a_period_ends_counts_in_the_next() -> None:
    async def scenario(sale: Any) -> None:
        meter = await sale.enter()
        sale.use(meter, 500)
        sale.now_ms += HOUR
        sale.journal.free.clear()
        looking = asyncio.ensure_future(sale.quotas.poll())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        sale.use(meter, 7)
        sale.journal.free.set()
        await looking
        assert meter.left == (993, None)
        await sale.quotas.remove_meter(meter)
        assert (await sale.enter()).left == (993, None)

    play(scenario)


def test_a_pass_that_is_bought_anew_after_it_was_over_begins_anew() -> None:
    async def scenario(sale: Any) -> None:
        meter = await sale.enter()
        sale.use(meter, 1000)
        await sale.quotas.remove_meter(meter)
        assert (await sale.enter()).left == (0, None)
        sale.start_anew()
        sale.now_ms += 50 * HOUR
        sale.start = sale.now_ms  # `pass::renew` of one that is over
        assert (await sale.enter()).left == (1000, None)

    play(scenario)


def test_periods_are_told_by_when_they_begin() -> None:
    account = PassAccount("0xc", 1000, 10, 0, False)
    held = HolderOfPass(PASS, "0x1", 7, HOUR, account)
    assert period_of(held, 1000, 0) == 1000
    assert period_of(held, 1000 + HOUR - 1, 0) == 1000
    assert period_of(held, 1000 + HOUR, 0) == 1000 + HOUR
    assert period_of(held, 0, 0) == 1000  # a clock that is behind
    by_epoch = HolderOfPass(PASS, "0x1", 7, 0, PassAccount("0xc", 40, 10, 0, False))
    assert [period_of(by_epoch, 0, epoch) for epoch in (39, 40, 42)] == [40, 40, 42]


def test_bytes_are_counted_as_requests_are() -> None:
    async def scenario(sale: Any) -> None:
        first, second = await sale.enter(), await sale.enter()
        sale.use(first, 0, 300)
        assert first.left == second.left == (None, 350)  # a part each, of which the others hear later
        sale.use(second, 0, 350)
        assert first.left == second.left == (None, 175)
        await sale.quotas.remove_meter(second)
        sale.use(first, 0, 100)
        await sale.quotas.poll()
        assert first.left == (None, 250)

    play(scenario, requests=0, size=1000)


@pytest.mark.parametrize("how", ["over", "revoked", "unknown", "good"])
def test_connections_end_with_their_pass(how: Any) -> None:
    """Another pass of the same holder changes nothing for them."""

    async def scenario(sale: Any) -> None:
        meter = await sale.enter()
        held = sale.held
        other = replace(held, pass_id="0x" + "9b" * 32, account=replace(held.account, periods=1000))
        if how == "over":
            sale.now_ms += 10 * HOUR
        if how == "revoked":
            held = replace(held, account=replace(held.account, revoked=True))
        sale.rules.passes["0xc"] = [other, *([] if how == "unknown" else [held])]
        await sale.quotas.poll()
        assert meter.ended == (None if how == "good" else "the pass is over: renew it")

    play(scenario)


@pytest.mark.parametrize("over", [True, False])
def test_a_pass_that_nobody_uses_any_more_is_forgotten(over: Any) -> None:
    """Once what was used of it is written: its last connection may have left while the store was away."""

    async def scenario(sale: Any) -> None:
        meter = await sale.enter()
        sale.use(meter, 10)

        with store_away(sale):
            with pytest.raises(StoreError):
                await sale.quotas.remove_meter(meter)
            with pytest.raises(StoreError):
                await sale.quotas.poll()
        assert sale.running
        if over:
            sale.rules.passes.clear()
        await sale.quotas.poll()
        assert not sale.running
        assert (await sale.enter()).left == (990, None)

    play(scenario)


def test_what_one_connection_uses_is_told_to_the_others_at_once() -> None:
    async def scenario(sale: Any) -> None:
        meter, other = await sale.enter(), await sale.enter()
        before = meter.turns, other.turns
        sale.use(meter, 10)
        assert other.left == (990, None)
        assert (meter.turns, other.turns) == (before[0], before[1] + 1)  # its limits are set anew

    play(scenario)


def test_a_pass_is_read_again_when_its_last_connection_has_left() -> None:
    """Meanwhile it may have been used elsewhere."""

    async def scenario(sale: Any) -> None:
        meter = await sale.enter()
        sale.use(meter, 10)
        await sale.quotas.remove_meter(meter)
        assert not sale.running
        period = period_of(sale.held, sale.now_ms, 5)
        sale.journal.store.add_pass_used(PASS, period, Usage(90, 0))
        assert (await sale.enter()).left == (900, None)

    play(scenario)


def test_what_is_leased_of_a_period_that_is_over_is_not_left_of_the_next() -> None:
    async def scenario(sale: Any) -> None:
        meter = await sale.enter()
        sale.journal.free.clear()
        sale.use(meter, 16)  # more is leased, of this period
        sale.now_ms += HOUR
        looking = asyncio.ensure_future(sale.quotas.poll())
        await asyncio.sleep(0)
        sale.journal.free.set()
        await looking
        await asyncio.gather(*meter.tasks)
        period = period_of(sale.held, sale.now_ms, 5)
        assert sale.journal.store.pass_used(PASS, period) == Usage(16, 0)
        assert meter.left == (16, None)

    play(scenario, part=LEASE_PART)


def test_a_quota_is_used_up_by_who_is_there_and_who_was_and_until_the_next_period() -> None:
    async def scenario() -> None:
        async with opened() as store:
            sale = Sale(store, requests=10, size=100)
            meter = await sale.enter()
            for use, over in [((9, 99), False), ((0, 1), True)]:
                sale.use(meter, *use)
                assert await sale.quotas.used_up(sale.held) is over
            await sale.quotas.remove_meter(meter)
            assert await sale.quotas.used_up(sale.held)
            sale.now_ms += HOUR
            assert not await sale.quotas.used_up(sale.held)
            sale.use(await sale.enter(), 10)
            assert await sale.quotas.used_up(sale.held)
            free = Sale(store, requests=0)
            free.use(await free.enter(), 1000)
            assert not await free.quotas.used_up(free.held)

    asyncio.run(scenario())


def test_requests_that_wait_beyond_a_quota_do_not_get_it_raised() -> None:
    """Each time that passes were looked at all that waited was served."""

    async def scenario() -> None:
        async with opened() as store:
            sale = Sale(store, requests=3)
            meter, other = await sale.enter(), await sale.enter()
            sale.use(meter, 2)
            sale.use(other, 1)
            sale.use(meter, 5)
            for _ in range(2):
                await sale.quotas.poll()
                assert (meter.left, other.left) == ((-5, None), (0, None))

    asyncio.run(scenario())


_LEASING = """
import sys
from dtp.pay.store import Store
from dtp.pay.terms import Usage
with Store(sys.argv[1]) as store:
    while (given := store.lease_pass("0xpass", 3, Usage(7, 700), Usage(10_000, 1_000_000))).requests:
        print(*given, flush=True)
"""


@pytest.mark.slow
def test_processes_that_are_killed_served_no_more_than_they_leased(tmp_path: Path) -> None:
    """Whichever write they die at: what any of them could serve is in the store, and within the quota."""
    path = tmp_path / "pay.sqlite"
    Store(path).close()
    served = Usage()
    for lines in (1, 2, 3, 5, 8, 13):
        with contextlib.ExitStack() as stack:
            command = [sys.executable, "-c", _LEASING, path]
            running = [
                stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE)) for _ in range(2)
            ]
            for each in running:
                told = [each.stdout.readline() for _ in range(lines)]
                each.kill()
                told += each.communicate()[0].splitlines()
                for line in filter(None, told):
                    served = served.plus(*map(int, line.split()))
        with Store(path) as store:
            counted = store.pass_used("0xpass", 3)
        assert not any(served.above(counted))
        assert not any(counted.above(Usage(10_000, 1_000_000)))


@pytest.mark.parametrize("requests", [1000, 0])
def test_nobody_comes_in_under_a_pass_that_the_chain_does_not_know(requests: Any) -> None:
    async def scenario(sale: Any) -> None:
        sale.proven = False
        with pytest.raises(Refuse) as refused:
            await sale.enter()
        assert (refused.value.code, refused.value.detail) == (CloseCode.BUSY, CloseDetail.PASS_UNPROVEN)
        sale.proven = True
        await sale.enter()

    play(scenario, requests=requests)


def test_what_is_not_proven_in_time_is_leased_at_a_later_look() -> None:
    async def scenario(sale: Any) -> None:
        meter = await sale.enter()
        assert meter.left == (16, None)
        sale.proven = False
        sale.use(meter, 10)
        await asyncio.gather(*meter.tasks)
        sale.use(meter, 1)
        assert len(meter.tasks) == 1  # it isn't asked about at each request
        sale.proven = True
        await sale.quotas.poll()
        sale.use(meter, 1)
        await asyncio.gather(*meter.tasks)
        assert meter.left == (20, None)

    play(scenario, part=LEASE_PART)


def test_a_quota_is_used_up_when_the_store_has_no_more_of_it() -> None:
    """Whether it has is asked of a disk, which may take seconds: until then nobody knows."""

    async def scenario(sale: Any) -> None:
        meter = await sale.enter()
        sale.use(meter, 16)
        assert meter.grows
        await asyncio.gather(*meter.tasks)
        assert meter.grows
        sale.use(meter, 16)
        await asyncio.gather(*meter.tasks)
        sale.use(meter, 8)
        await asyncio.gather(*meter.tasks)
        assert not meter.grows
        sale.start += HOUR  # bought anew
        sale.now_ms += HOUR
        await sale.quotas.poll()
        assert meter.grows

    play(scenario, requests=40, part=LEASE_PART)


def test_a_quota_grows_no_more_where_the_chain_doesnt_know_the_pass() -> None:
    async def scenario(sale: Any) -> None:
        meter = await sale.enter()
        sale.proven = False
        sale.use(meter, 16)
        assert meter.grows
        await asyncio.gather(*meter.tasks)
        assert not meter.grows

    play(scenario, part=LEASE_PART)


def test_a_pass_without_a_quota_is_held_against_the_chain_in_each_period() -> None:
    async def scenario(sale: Any) -> None:
        meter = await sale.enter()
        sale.proven = False
        await sale.quotas.poll()
        assert not meter.ended
        sale.now_ms += HOUR
        await sale.quotas.poll()
        assert "looked up" in meter.ended

    play(scenario, requests=0)
