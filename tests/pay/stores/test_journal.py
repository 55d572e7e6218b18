"""The journal: what waits together is written together, the newest stands for the older ones, nobody harms others."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dtp.pay.errors import MalformedMeter, StoreError
from dtp.pay.store import Store
from dtp.pay.store.journal import Journal, VoucherVerdict
from dtp.pay.terms import Usage
from dtp.pay.voucher import LaneKey

from ..meters import CHANNEL, KEY, voucher
from ..stored import ScriptedStore, alter, no_room_for

KEYS = (KEY.public,)


class Steps(list[tuple[str, bool]]):
    """What the store is asked for: the method, and whether on the loop's thread."""

    @property
    def watching(self) -> Any:
        return {name: partial(self._watch, name) for name in ("receive_now", "sync", "received_all")}

    def _watch(self, name: Any, genuine: Any, *args: Any) -> Any:
        self.append((name, threading.current_thread() is threading.main_thread()))
        return genuine(*args)


@pytest.fixture
def steps() -> Any:
    return Steps()


@pytest.fixture
def play(tmp_path: Path, steps: Any) -> Any:
    def start(scenario: Any, **options: Any) -> Any:
        async def work() -> Any:
            with ScriptedStore(tmp_path / "pay.sqlite", **options) as store:
                store.scripts.update(steps.watching)
                journal = Journal(store)
                try:
                    return await scenario(journal)
                finally:
                    await journal.close()

        return asyncio.run(work())

    return start


def test_the_newest_good_voucher_is_stored_and_covers_the_older_ones(play: Any) -> None:
    async def scenario(journal: Any) -> None:
        signed = [KEY.sign(voucher(n, n)) for n in (1, 2, 3)]
        forged = LaneKey.generate().sign(voucher(4, 4))
        answers = [
            journal.check_voucher(KEYS, each, Usage(each.voucher.requests, 0)) for each in (*signed, forged)
        ]
        verdicts = await asyncio.gather(*answers)
        assert verdicts == [
            VoucherVerdict.SUPERSEDED,
            VoucherVerdict.SUPERSEDED,
            VoucherVerdict.STORED,
            VoucherVerdict.FORGED,
        ]
        assert journal.store.sold_lane(CHANNEL, 0).newest == signed[2]

    play(scenario)


def test_a_newer_voucher_for_less_covers_nothing(play: Any) -> None:
    async def scenario(journal: Any) -> None:
        more, less = KEY.sign(voucher(1, 9)), KEY.sign(voucher(2, 3))
        verdicts = await asyncio.gather(
            *(journal.check_voucher(KEYS, each, Usage()) for each in (more, less))
        )
        assert verdicts == [VoucherVerdict.STORED, VoucherVerdict.SUPERSEDED]
        assert journal.store.sold_lane(CHANNEL, 0).newest == more

    play(scenario)


def test_lanes_do_not_supersede_each_other(play: Any) -> None:
    async def scenario(journal: Any) -> None:
        signed = [KEY.sign(voucher(1, 1, lane=lane)) for lane in range(5)]
        verdicts = await asyncio.gather(*(journal.check_voucher(KEYS, each, Usage()) for each in signed))
        assert verdicts == [VoucherVerdict.STORED] * 5
        assert len(journal.store.sold_lanes(CHANNEL)) == 5

    play(scenario)


def test_an_old_key_is_as_good_while_it_is_honoured(play: Any) -> None:
    async def scenario(journal: Any) -> None:
        old, new = LaneKey.generate(), LaneKey.generate()
        assert (
            await journal.check_voucher((new.public, old.public), old.sign(voucher(1, 1)), Usage())
            is VoucherVerdict.STORED
        )
        assert (
            await journal.check_voucher((new.public,), old.sign(voucher(2, 1)), Usage())
            is VoucherVerdict.FORGED
        )

    play(scenario)


def test_what_cannot_be_written_fails_alone(play: Any) -> None:
    async def scenario(journal: Any) -> None:
        alter(journal.store, no_room_for(7))
        first = journal.check_voucher(
            KEYS, KEY.sign(voucher(1, 1, lane=3)), Usage()
        )  # the others wait for it together
        answers = [
            journal.check_voucher(KEYS, KEY.sign(voucher(1, 1, lane=lane)), Usage()) for lane in (1, 7, 2)
        ]
        found = await asyncio.gather(first, *answers, return_exceptions=True)
        assert [each for each in found if each is not VoucherVerdict.STORED] == [found[2]]
        assert isinstance(found[2], StoreError)
        assert sorted(each.lane for each in journal.store.sold_lanes(CHANNEL)) == [1, 2, 3]

    play(scenario)


def test_a_full_disk_is_told_to_who_waits(play: Any) -> None:
    async def scenario(journal: Any) -> None:
        alter(journal.store, no_room_for(0))
        with pytest.raises(StoreError):
            await journal.check_voucher(KEYS, KEY.sign(voucher(1, 1)), Usage())
        alter(journal.store, "DROP TRIGGER no_room")
        assert await journal.check_voucher(KEYS, KEY.sign(voucher(1, 1)), Usage()) is VoucherVerdict.STORED

    play(scenario)


def test_other_work_runs_in_order(play: Any) -> None:
    async def scenario(journal: Any) -> None:
        answer = journal.check_voucher(KEYS, KEY.sign(voucher(1, 1)), Usage(1, 0))
        await answer
        assert await journal.run(lambda store: store.vouched_sums(CHANNEL)) == {0: 1000}
        with pytest.raises(ZeroDivisionError):
            await journal.run(lambda store: 1 // 0)

    play(scenario)


# ---- a few vouchers: written on the loop's thread, synced on the other


def test_a_few_are_written_at_once_and_count_when_they_are_synced(play: Any, steps: Any) -> None:
    synced, asked = threading.Event(), threading.Event()

    def sync_data(file: Any) -> None:
        asked.set()
        assert synced.wait(30)

    async def scenario(journal: Any) -> None:
        signed = KEY.sign(voucher(1, 1))
        answer = journal.check_voucher(KEYS, signed, Usage(1, 0))
        await asyncio.to_thread(asked.wait, 30)
        with Store(journal.store.path) as other:  # it is there for whoever looks, and doesn't count yet
            assert other.sold_lane(CHANNEL, 0).newest == signed
        assert not answer.done()
        synced.set()
        assert await answer is VoucherVerdict.STORED

    play(scenario, sync_data=sync_data)
    assert steps == [("receive_now", True), ("sync", False)]


def test_a_forged_one_needs_no_sync(play: Any, steps: Any) -> None:
    async def scenario(journal: Any) -> None:
        assert (
            await journal.check_voucher(KEYS, LaneKey.generate().sign(voucher(1, 1)), Usage())
            is VoucherVerdict.FORGED
        )

    play(scenario)
    assert steps == []


def test_what_comes_while_one_is_written_goes_together_into_the_next(play: Any, steps: Any) -> None:
    begun, free = threading.Event(), threading.Event()

    def sync_data(file: Any) -> None:
        begun.set()
        assert free.wait(30)

    async def scenario(journal: Any) -> None:
        answers = [journal.check_voucher(KEYS, KEY.sign(voucher(1, 1)), Usage())]
        await asyncio.to_thread(begun.wait, 30)
        for lane in (1, 2, 3):
            answers.append(journal.check_voucher(KEYS, KEY.sign(voucher(1, 1, lane=lane)), Usage()))
            await asyncio.sleep(0)  # each in a turn of its own
        free.set()
        assert await asyncio.gather(*answers) == [VoucherVerdict.STORED] * 4

    play(scenario, sync_data=sync_data)
    assert steps == [("receive_now", True), ("sync", False)] * 2


@pytest.mark.parametrize("begun", [True, False])
def test_it_is_closed_when_everything_is_written(tmp_path: Path, begun: Any) -> None:
    async def scenario() -> None:
        with Store(tmp_path / "pay.sqlite") as store:
            journal = Journal(store)
            answer = journal.check_voucher(KEYS, KEY.sign(voucher(1, 1)), Usage())
            if begun:
                await asyncio.sleep(0)
            assert (journal._writing is not None) == begun
            other = asyncio.create_task(journal.run(lambda store: done.append(free.wait())))
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(free.set)
            await journal.close()
            assert done == [True]
            await other
            assert answer.done()
            assert answer.result() is VoucherVerdict.STORED

    done, free = [], threading.Event()
    asyncio.run(scenario())


@pytest.mark.parametrize("fault", [None, ZeroDivisionError])
def test_who_gives_up_keeps_no_answer_from_others(play: Any, fault: Any) -> None:
    async def scenario(journal: Any) -> None:
        def broken(*_: Any) -> None:
            raise ZeroDivisionError

        if fault is not None:
            journal.store.scripts["sync"] = broken
        gone, *others = (
            journal.check_voucher(KEYS, KEY.sign(voucher(1, 1, lane=lane)), Usage()) for lane in range(3)
        )
        gone.cancel()
        async with asyncio.timeout(30):
            found = await asyncio.gather(*others, return_exceptions=True)
        assert [type(each) for each in found] == [fault or VoucherVerdict] * 2

    play(scenario)


def test_many_do_not_stop_the_loop(play: Any, steps: Any) -> None:
    async def scenario(journal: Any) -> None:
        signed = [KEY.sign(voucher(1, 1, lane=lane)) for lane in range(5)]
        assert set(
            await asyncio.gather(*(journal.check_voucher(KEYS, each, Usage()) for each in signed))
        ) == {VoucherVerdict.STORED}

    play(scenario)
    assert steps == [("received_all", False)]


def test_the_loop_does_not_wait_for_another_process(play: Any, steps: Any) -> None:
    waits = threading.Event()

    async def scenario(journal: Any) -> None:
        watched = journal.store.scripts["received_all"]

        def received_all(genuine: Any, received: Any) -> Any:
            waits.set()
            return watched(genuine, received)

        journal.store.scripts["received_all"] = received_all
        with sqlite3.connect(journal.store.path, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            answer = journal.check_voucher(KEYS, KEY.sign(voucher(1, 1)), Usage())
            await asyncio.to_thread(waits.wait, 30)
            assert not answer.done()
            other.execute("COMMIT")
        other.close()
        assert await answer is VoucherVerdict.STORED

    play(scenario)
    assert steps == [("receive_now", True), ("received_all", False)]


def test_what_could_not_be_synced_does_not_count_and_the_next_one_is_stored_the_slow_way(
    play: Any, steps: Any
) -> None:
    def broken(file: Any) -> None:
        raise OSError(5, "Input/output error")

    async def scenario(journal: Any) -> None:
        forged = LaneKey.generate().sign(voucher(1, 1, lane=1))
        answers = [journal.check_voucher(KEYS, each, Usage()) for each in (KEY.sign(voucher(1, 1)), forged)]
        with pytest.raises(StoreError, match="Input/output error"):
            await answers[0]
        assert await answers[1] is VoucherVerdict.FORGED  # whatever the disk does
        assert await journal.check_voucher(KEYS, KEY.sign(voucher(2, 2)), Usage()) is VoucherVerdict.STORED

    play(scenario, sync_data=broken)
    assert steps == [("receive_now", True), ("sync", False), ("receive_now", True), ("received_all", False)]


def test_a_row_that_is_broken_harms_only_its_lane(play: Any) -> None:
    async def scenario(journal: Any) -> None:
        journal.store.received_all([(KEY.sign(voucher(9, 9, lane=1)), Usage())])
        alter(journal.store, "UPDATE sold SET message = x'00' WHERE lane = 1")
        signed = [KEY.sign(voucher(1, 1, lane=lane)) for lane in range(3)]
        answers = [journal.check_voucher(KEYS, each, Usage()) for each in signed]
        verdicts = await asyncio.gather(*answers, return_exceptions=True)
        assert [verdicts[0], verdicts[2]] == [VoucherVerdict.STORED] * 2
        assert isinstance(verdicts[1], MalformedMeter)

    play(scenario)


@pytest.mark.parametrize("count", [1, 20])
def test_nobody_waits_for_ever(play: Any, count: Any) -> None:
    """Whatever goes wrong with the store: a connection that waits for its vouchers would never end."""

    async def scenario(journal: Any) -> None:
        with journal.store.failing("received_all", "sync", fault=ZeroDivisionError()):
            signed = [KEY.sign(voucher(1, 1, lane=lane % 16)) for lane in range(count)]
            answers = [journal.check_voucher(KEYS, each, Usage()) for each in signed]
            verdicts = await asyncio.gather(*answers, return_exceptions=True)
            assert {type(each) for each in verdicts} == {ZeroDivisionError}
        assert await journal.check_voucher(KEYS, KEY.sign(voucher(2, 2)), Usage()) is VoucherVerdict.STORED

    play(scenario)


def test_what_comes_after_the_end_is_told_that_the_store_is_away(play: Any) -> None:
    """It had an error of the thread pool's, which ended connections as a fault of the program."""

    async def scenario(journal: Any) -> None:
        await journal.close()
        with pytest.raises(StoreError, match="closed"):
            await journal.run(lambda store: store.bought_channels())
        with pytest.raises(StoreError, match="closed"):
            await journal.check_voucher(KEYS, KEY.sign(voucher(1, 1)), Usage())
        await journal.close()

    play(scenario)
