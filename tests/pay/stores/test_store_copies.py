"""Copies of a store: what they have, what they replace, and that they say what they lack."""

from __future__ import annotations

import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dtp.pay.errors import StoreError
from dtp.pay.store import MovedMoney, Store
from dtp.pay.terms import Usage

from ..meters import CHANNEL, KEY, lock_of, voucher
from ..stored import BOUGHT, PLACE, ScriptedStore, buy, receive


def test_a_copy_has_all_that_was_written_and_the_file_alone_has_not(store: Any, tmp_path: Path) -> None:
    receive(store, KEY.sign(voucher(1, 50)), Usage(50, 0))
    shutil.copy(store.path, tmp_path / "alone.sqlite")
    with Store(tmp_path / "alone.sqlite") as alone:
        assert alone.sold_lanes() == []
    copied = tmp_path / "copy.sqlite"
    store.backup(copied)
    assert stat.S_IMODE(copied.stat().st_mode) == 0o600
    # One that is brought up to date while a watcher has it, and behind one that was killed.
    with Store(copied) as watcher:
        watcher.mark_closed(CHANNEL)
        for amount in (50, 60):
            receive(store, KEY.sign(voucher(amount, amount)), Usage(amount, 0))
            store.backup(copied)
            assert watcher.sold_lanes() == store.sold_lanes()
            with Store(copied) as copy:
                assert copy.sold_lanes() == store.sold_lanes()
    closing = "Store(sys.argv[1]).mark_closed(sys.argv[2])"
    killed = f"import os, sys; from dtp.pay.store import Store; {closing}; os._exit(0)"
    subprocess.run([sys.executable, "-c", killed, copied, CHANNEL], check=True)
    assert Path(f"{copied}-wal").exists()
    store.backup(copied)
    with Store(copied) as copy:
        assert copy.sold_lanes() == store.sold_lanes()
    with pytest.raises(StoreError, match="is the store itself"):
        store.backup(store.path)
    with pytest.raises(StoreError, match="can't copy"):
        store.backup(tmp_path / "nowhere" / "copy.sqlite")


class Killed(Exception):
    """The program is no more."""


def test_a_copy_says_that_it_is_one_whenever_its_program_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two a server that was restored from it took channels whose close it may have agreed on since."""
    calls = []

    class Connection(sqlite3.Connection):
        def execute(self, *arguments: Any) -> Any:
            return die_or_do(super().execute, *arguments)

        def backup(self, *arguments: Any, **options: Any) -> Any:
            return die_or_do(super().backup, *arguments, **options)

    def die_or_do(work: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(work)
        if len(calls) == number:
            raise Killed
        return work(*arguments, **options)

    number, ended = -1, False
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Connection))
    with Store(tmp_path / "pay.sqlite") as store:
        receive(store, KEY.sign(voucher(1, 50)), Usage(50, 0))
        number = 0
        while not ended:
            path = tmp_path / f"{number}.sqlite"
            number += 1
            calls.clear()
            try:
                store.backup(path)
                ended = True
            except Killed:
                pass
            number, kept = -1, number
            if path.exists():
                with Store(path) as copy:
                    assert copy.is_copy() == bool(copy.sold_lanes())
                    assert copy.is_copy() or not ended
            number = kept
    assert number > 4


@pytest.mark.parametrize("what", ["a channel", "a newer voucher", "something else"])
def test_a_copy_replaces_nothing_but_an_older_copy(store: Any, tmp_path: Path, what: Any) -> None:
    """As when the store and its copy are taken for one another."""
    receive(store, KEY.sign(voucher(1, 50)), Usage(50, 0))
    path = tmp_path / "other.sqlite"
    if what == "something else":
        path.write_bytes(b"no database")
    else:
        with Store(path) as other:
            if what == "a channel":
                buy(other)
            else:
                receive(other, KEY.sign(voucher(2, 60)), Usage(60, 0))
    before = path.read_bytes()
    with pytest.raises(
        StoreError, match="can't open the store" if what == "something else" else "no older copy"
    ):
        store.backup(path)
    assert path.read_bytes() == before


@pytest.mark.slow
def test_a_copy_that_others_write_to_all_the_time_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "copy.sqlite"
    with ScriptedStore(tmp_path / "pay.sqlite") as store:
        store.backup(path)
        with closing(sqlite3.connect(path, isolation_level=None)) as writer:

            def begin(genuine: Any) -> Any:  # the copy is open by then
                writer.execute("BEGIN IMMEDIATE")
                return genuine()

            with store.doing(_lane_numbers=begin), pytest.raises(StoreError, match="all the time"):
                store.backup(path, patience=0.0)


def test_a_restored_store_waits_once_and_its_copies_wait_anew(store: Any, tmp_path: Path) -> None:
    store.backup(tmp_path / "copy.sqlite")
    with Store(tmp_path / "copy.sqlite") as copy:
        assert copy.begin_wait(5, 65) == (5, 65)
        assert copy.begin_wait(7, 67) == (5, 65)
        copy.backup(tmp_path / "second.sqlite")
        with Store(tmp_path / "second.sqlite") as second:
            assert second.begin_wait(9, 69) == (9, 69)
        copy.go_on_with_copy()
        assert not copy.is_copy()


def test_a_copy_counts_once_what_its_account_has_moved_since(store: Any, tmp_path: Path) -> None:
    known = replace(BOUGHT, coin=PLACE[2], deposited=700)
    store.keep_key(KEY, 7)
    store.add_bought(known, 0, KEY.public)
    assert (store.is_new(), store.lacks_deposits(*PLACE[:2])) == (True, True)  # another may have been lost
    store.count_moved(*PLACE[:2], {}, 8)
    assert not store.lacks_deposits(*PLACE[:2])
    store.backup(tmp_path / "copy.sqlite")
    with Store(tmp_path / "copy.sqlite") as copy:
        assert not copy.is_new()
        copy.go_on_with_copy()  # as server: what its clients put in is unknown all the same
        assert copy.lacks_deposits(*PLACE[:2])
        moved = {
            CHANNEL: MovedMoney(PLACE[2], 1000, 5000),  # more came back than went in, says the node
            "0xf1": MovedMoney(PLACE[2], 400, 100),
            "0xf2": MovedMoney(PLACE[2], 400, 400),
        }
        for _ in range(2):
            copy.count_moved(*PLACE[:2], moved, 50)
        assert not copy.lacks_deposits(*PLACE[:2])
        assert copy.lacks_deposits("another", PLACE[1])
        assert [copy.deposited_since(*PLACE, each) for each in (0, 50, 51)] == [300, -400, 0]
        copy.add_closing(replace(known, channel="0xf1", deposited=400), 60)
        assert (copy.deposited_since(*PLACE, 0), copy.unnoted_since(*PLACE, 0)) == (400, 0)
        copy.backup(tmp_path / "again.sqlite")
    with Store(tmp_path / "again.sqlite") as again:
        assert again.lacks_deposits(*PLACE[:2])
        assert again.is_copy()


def test_a_copy_of_another_store_takes_nothing_back(store: Any, tmp_path: Path) -> None:
    """Also where the other has lost its newest, which is when the copy is needed."""
    locked = KEY.sign(voucher(2, 2, hash_lock=lock_of(b"k" * 32)))
    store.keep_preimage(CHANNEL, 0, b"k" * 32)
    for signed in (locked, KEY.sign(voucher(1, 5, lane=1))):
        receive(store, signed, Usage(7, 70))
    with Store(tmp_path / "copy.sqlite") as copy:
        receive(copy, KEY.sign(voucher(1, 1, hash_lock=lock_of(b"o" * 32))), Usage(9, 1))
        newer = KEY.sign(voucher(4, 6, lane=1))
        receive(copy, newer, Usage(1, 1))
        for _ in range(2):
            copy.copy_sold(store)
            assert [each.newest for each in copy.sold_lanes()] == [locked, newer]
        assert copy.sold_lane(CHANNEL, 0).preimage == b"k" * 32
        assert copy.sold_lane(CHANNEL, 0).used == Usage(9, 70)
        agreed = store.save_agreement(CHANNEL, 5, 6, "chain")
        copy.copy_sold(store)
        assert copy.end_of(CHANNEL) == agreed
        store.mark_closed(CHANNEL)
        copy.copy_sold(store)
        assert (copy.end_of(CHANNEL).over, copy.sold_lanes()) == (True, [])
