"""The store: what it keeps, what it refuses, and that a process killed at any write leaves what was true."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp import config
from dtp.pay.client.lane_start import PayerLane, Reserved
from dtp.pay.client.payer import Payer
from dtp.pay.client.payer_events import SignWanted
from dtp.pay.errors import StoreError
from dtp.pay.messages import SendFrame
from dtp.pay.server.payee import Payee
from dtp.pay.server.stored_vouchers import PayeeLane
from dtp.pay.store import DoubtedDeposit, End, SentOpening, Store
from dtp.pay.terms import Prices, Usage
from dtp.pay.voucher import LaneKey, SignedVoucher

from ..meters import CHANNEL, KEY, lock_of, voucher
from ..stored import BOUGHT, PLACE, again, alter, buy, no_room_for, receive


def rows_of(store: Any, table: str) -> Any:
    """Everything in a table of the file."""
    with closing(sqlite3.connect(store.path)) as file:
        return file.execute(f"SELECT * FROM {table}").fetchall()


def test_a_channel_with_its_key_comes_back(store: Any) -> None:
    buy(store)
    with again(store) as other:
        assert other.bought_channels() == other.bought_channels(CHANNEL) == [BOUGHT]
        ((key, lane),) = other.payer_lanes(CHANNEL)
        assert key.seed == KEY.seed
        assert lane == PayerLane(CHANNEL, 0)
        assert other.kept_keys() == {}
        other.set_state(CHANNEL, "closing")
    assert store.bought_channels() == [replace(BOUGHT, state="closing")]


def test_it_is_closed_behind_what_another_thread_writes(tmp_path: Path) -> None:
    """SQLite ends the process that takes a connection away from a statement."""
    store = Store(tmp_path / "pay.sqlite")
    begun, go_on = threading.Event(), threading.Event()

    def write() -> None:
        with store._write_transaction():
            begun.set()
            go_on.wait()

    with ThreadPoolExecutor() as threads:
        writing = threads.submit(write)
        begun.wait()
        closing = threads.submit(store.close)
        with pytest.raises(TimeoutError):
            closing.result(timeout=0.05)
        go_on.set()
        writing.result()
        closing.result()
    with pytest.raises(StoreError, match="closed"):
        store.bought_channels()


def test_a_key_is_kept_before_its_channel_is_known(store: Any) -> None:
    store.keep_key(KEY, 1)
    with again(store) as other:
        assert {public: key.seed for public, key in other.kept_keys().items()} == {KEY.public: KEY.seed}
    with pytest.raises(StoreError, match="isn't in"):
        store.add_lane(CHANNEL, 1, bytes(32))
    store.add_bought(BOUGHT, 0, KEY.public)
    with pytest.raises(StoreError):
        store.add_lane(CHANNEL, 1, KEY.public)  # a key is one lane's


def test_a_deposit_is_noted_with_its_channel_and_what_comes_back_with_its_time(store: Any) -> None:
    known = replace(BOUGHT, coin="0x2::sui::SUI", deposited=700, claim_ms=60_000)
    store.keep_key(KEY, 7)
    for _ in range(2):  # noted once, whoever finds it again
        store.add_closing(known, 5)
    assert store.bought_channels()[0] == replace(known, state="closing")
    place = (BOUGHT.chain, BOUGHT.account, known.coin)
    assert [store.deposited_since(*place, each) for each in (5, 6)] == [700, 0]
    store.add_deposit(CHANNEL, 50, 300)
    store.add_deposit(CHANNEL, 60, -900)
    assert [store.deposited_since(*place, each) for each in (0, 6, 55)] == [100, -600, -900]
    assert store.deposited_since("another", *place[1:], 0) == 0
    for digest, gas in (("a", 40), ("b", -15), ("a", 40)):  # told twice it is one
        store.transaction_sent(digest, "pay", CHANNEL, BOUGHT.chain, BOUGHT.account, 70)
        store.transaction_took(digest, gas)
    (found,) = store.bought_channels()
    assert (found.deposited, found.gas) == (100, 25)


def test_a_number_that_is_too_large_changes_nothing(store: Any) -> None:
    """By a node's word: it was no error of ours, and ended the program."""
    store.keep_key(KEY, 7)
    with pytest.raises(StoreError, match="ask another node"):
        store.add_bought(replace(BOUGHT, claim_ms=2**64 - 1), 0, KEY.public)
    assert (store.bought_channels(), list(store.kept_keys())) == ([], [KEY.public])


def test_what_is_signed_counts_until_its_channel_is_noted_or_its_owner_has_looked(store: Any) -> None:
    other, foreign = LaneKey.generate(), LaneKey.generate()
    for number, (key, chain) in enumerate(((KEY, "chain"), (other, "chain"), (foreign, "there"))):
        store.keep_key(key, 7 + number)
        store.key_sent(key.public, SentOpening(f"digest {number}", chain, BOUGHT.account, PLACE[2], 700))
    store.key_denied(other.public)
    assert [store.deposited_since(*PLACE, each) for each in (7, 8, 9)] == [1400, 700, 0]
    assert store.key_kept(KEY.public) == (7, 700)
    store.add_bought(replace(BOUGHT, coin=PLACE[2], deposited=700), 0, KEY.public)
    assert (store.deposited_since(*PLACE, 0), store.unnoted_since(*PLACE, 0)) == (1400, 700)
    keys = store.kept_keys().keys()
    store.believe_denied("chain", keys)
    assert (store.deposited_since(*PLACE, 0), store.unnoted_since(*PLACE, 0)) == (700, 0)
    assert store.unnoted_since("there", *PLACE[1:], 0) == 700
    assert store.key_kept(other.public) == (8, 0)
    with pytest.raises(StoreError):
        store.key_kept(KEY.public)


@pytest.mark.parametrize("end", ["disproved", "noted", "believed"])
def test_what_was_signed_is_kept_until_it_is_known_what_became_of_it(store: Any, end: Any) -> None:
    store.keep_key(KEY, 7)
    store.key_sent(KEY.public, SentOpening("opening", "chain", BOUGHT.account, PLACE[2], 700, b"signed"))
    assert store.unproven_deposits(*PLACE[:2], 7) == [DoubtedDeposit("opening", PLACE[2], 700, b"signed")]
    assert store.unproven_deposits(*PLACE[:2], 8) == store.unproven_deposits("there", PLACE[1], 0) == []
    if end == "disproved":
        store.disprove_deposit("opening")
        assert store.sent_keys("chain", 0, doubted=True) == {}
        assert list(store.kept_keys()) == [KEY.public]
    elif end == "believed":
        store.believe_denied("chain", [KEY.public])
    else:
        store.add_bought(replace(BOUGHT, coin=PLACE[2], deposited=700), 0, KEY.public)
    assert store.unproven_deposits(*PLACE[:2], 0) == []
    assert rows_of(store, "sent") == []
    assert store.deposited_since(*PLACE, 0) == (700 if end == "noted" else 0)


@pytest.mark.parametrize("end", ["disproved", "settled"])
def test_money_that_was_added_is_doubted_until_it_is_settled_or_disproved(store: Any, end: Any) -> None:
    store.keep_key(KEY, 7)
    store.add_bought(replace(BOUGHT, coin=PLACE[2], deposited=700), 0, KEY.public)
    store.add_deposit(CHANNEL, 9, 300, "more", b"signed")
    assert store.unproven_deposits(*PLACE[:2], 0) == [DoubtedDeposit("more", PLACE[2], 300, b"signed")]
    if end == "settled":
        store.settle_deposit(CHANNEL, "more")
    else:
        store.disprove_deposit("more")
    assert store.unproven_deposits(*PLACE[:2], 0) == rows_of(store, "sent") == []
    assert store.deposit_sums(CHANNEL) == [700, 300][: 1 + (end == "settled")]


def test_a_channel_that_was_refused_stays_one_when_it_is_closed(store: Any) -> None:
    store.add_closing(BOUGHT, 5)
    for state in ("refused", "closing", "closed"):
        store.set_state(CHANNEL, state)
    (found,) = store.bought_channels()
    assert (found.state, found.refused) == ("closed", 1)


def test_what_a_node_denied_is_doubted_until_a_later_one_is_noted(store: Any) -> None:
    made, other = LaneKey.generate(), LaneKey.generate()
    for key, chain in ((KEY, "here"), (made, "here"), (other, "there")):
        store.keep_key(key, 1)
        store.key_sent(key.public, SentOpening("digest", chain))
    for key in (KEY, other):
        store.key_denied(key.public)
    assert set(store.sent_keys("here", 0, doubted=True)) == {KEY.public, made.public}
    store.add_bought(BOUGHT, 0, made.public)
    store.key_denied(KEY.public)  # once more, by who asks for it
    assert store.sent_keys("here", 0, doubted=True) == {}
    assert set(store.sent_keys("here", 0)) == {KEY.public}
    assert set(store.sent_keys("there", 0, doubted=True)) == {other.public}


def test_what_was_reserved_and_counted_before_stays(store: Any) -> None:
    buy(store)
    store.reserve(CHANNEL, 0, Reserved(10, 500))
    store.reserve(CHANNEL, 0, Reserved(12, 100))
    store.save_signed(KEY.sign(voucher(1, 3, 30)), Usage(3, 30))
    store.save_signed(KEY.sign(voucher(2, 4, 20)), Usage(2, 20))
    ((_, lane),) = store.payer_lanes(CHANNEL)
    assert (lane.reserved, lane.used) == (Reserved(12, 500), Usage(3, 30))


def test_signed_vouchers_only_rise(store: Any) -> None:
    buy(store)
    first, second = KEY.sign(voucher(1, 3)), KEY.sign(voucher(2, 4, 100))
    store.save_signed(second, Usage(4, 100))
    store.save_signed(first, Usage(9, 9))
    store.save_signed(second, Usage(4, 100))
    ((_, lane),) = store.payer_lanes(CHANNEL)
    assert (lane.newest, lane.used) == (second, Usage(4, 100))
    with pytest.raises(StoreError, match="signed otherwise"):
        store.save_signed(KEY.sign(voucher(2, 5, 100)), Usage(5, 100))
    with pytest.raises(StoreError, match="isn't in"):
        store.save_signed(KEY.sign(voucher(1, 3, lane=3)), Usage())


def test_a_connection_that_never_ended_is_not_clean(store: Any) -> None:
    buy(store)
    store.begin_lane(CHANNEL, 0)
    ((_, lane),) = store.payer_lanes(CHANNEL)
    assert not lane.clean
    store.end_lane(CHANNEL, 0, Usage(5, 6), None, clean=True)
    ((_, lane),) = store.payer_lanes(CHANNEL)
    assert (lane.clean, lane.used) == (True, Usage(5, 6))


def test_what_one_that_died_reserved_stays_until_a_voucher_above_it_is_signed(store: Any) -> None:
    buy(store)
    before = Reserved(64, 7000)
    store.reserve(CHANNEL, 0, Reserved(192, 900))
    store.end_lane(CHANNEL, 0, Usage(5, 100), KEY.sign(voucher(3, 4, 100)), clean=False, before=before)
    ((_, lane),) = store.payer_lanes(CHANNEL)
    assert (lane.reserved, lane.died, lane.most_signed) == (before, True, 7000)
    store.reserve(CHANNEL, 0, Reserved(192, 900))
    store.end_lane(CHANNEL, 0, Usage(5, 100), KEY.sign(voucher(65, 4, 100)), clean=False, before=before)
    ((_, lane),) = store.payer_lanes(CHANNEL)
    assert (lane.reserved.sequence, lane.died) == (65, False)


def test_what_is_reserved_is_there_until_the_connection_ends_in_order(store: Any) -> None:
    buy(store)
    newest = KEY.sign(voucher(3, 4, 100))
    store.save_signed(newest, Usage(4, 100))
    store.reserve(CHANNEL, 0, Reserved(64, 70_000))
    store.reserve(CHANNEL, 0, Reserved(9, 90_000))  # never less than before
    with again(store) as other:
        ((_, lane),) = other.payer_lanes(CHANNEL)
        assert (lane.newest, lane.reserved) == (newest, Reserved(64, 90_000))
        assert (lane.died, lane.most_signed) == (True, 90_000)
    last = KEY.sign(voucher(7, 5, 100))
    store.end_lane(CHANNEL, 0, Usage(5, 100), last, clean=False)
    ((_, lane),) = store.payer_lanes(CHANNEL)
    assert (lane.newest, lane.reserved) == (last, Reserved(7, last.voucher.amount))
    assert (lane.died, lane.most_signed) == (False, last.voucher.amount)
    with pytest.raises(StoreError, match="isn't in"):
        store.reserve(CHANNEL, 5, Reserved(1, 1))


def test_keys_and_reservations_are_synced_also_where_nothing_else_is(tmp_path: Path) -> None:
    with Store(tmp_path / "pay.sqlite", power_safe=False) as store:
        modes = []
        store._db.set_trace_callback(lambda statement: modes.append(statement))
        store.keep_key(KEY, 1)
        store.key_sent(KEY.public, SentOpening("digest", "here"))
        store.add_bought(BOUGHT, 0, KEY.public)
        store.reserve(CHANNEL, 0, Reserved(64, 1))
        store.begin_lane(CHANNEL, 0)
    synced = ["PRAGMA synchronous=FULL", "COMMIT", "PRAGMA synchronous=NORMAL"]
    found = [each for each in modes if each.startswith(("PRAGMA", "COMMIT"))]
    assert found == [*synced, *synced, "COMMIT", *synced, "COMMIT"]


def test_received_vouchers_only_rise(store: Any) -> None:
    first, second = KEY.sign(voucher(1, 3)), KEY.sign(voucher(2, 4, 100))
    assert store.sold_lane(CHANNEL, 0) == PayeeLane(CHANNEL, 0)
    assert store.received_all([(second, Usage(6, 200)), (first, Usage(1, 1))]) == [True, False]
    assert not receive(store, KEY.sign(voucher(2, 9, 100)), Usage())
    assert receive(store, second, Usage())  # the same again is there
    with again(store) as other:
        lane = other.sold_lane(CHANNEL, 0)
        assert (lane.newest, lane.used) == (second, Usage(6, 200))
        assert [(each.channel, each.lane, each.newest) for each in other.sold_lanes()] == [
            (CHANNEL, 0, second)
        ]
    # Newer and for less, in any count: never in the place of more.
    for less in (voucher(9, 3, 200, amount=10**6), voucher(9, 9, 99), voucher(9, 5, 200, amount=1)):
        assert not receive(store, KEY.sign(less), Usage())
    assert not receive(store, SignedVoucher(second.voucher, bytes(64)), Usage())
    assert store.sold_lane(CHANNEL, 0).newest == second
    third = KEY.sign(voucher(3, 6, 300))
    assert receive(store, third, Usage(1, 1))
    for less in (voucher(9, 5, 400, amount=10**6), voucher(9, 9, 200, amount=10**6)):
        assert not receive(store, KEY.sign(less), Usage())
    assert store.sold_lane(CHANNEL, 0) == PayeeLane(CHANNEL, 0, third, Usage(6, 200))
    other_lane = KEY.sign(voucher(1, 1, lane=2))
    receive(store, other_lane, Usage())
    assert store.vouched_sums(CHANNEL) == {0: third.voucher.amount, 2: 1000}
    assert [each.lane for each in store.sold_lanes(CHANNEL)] == [0, 2]


def test_prompt_vouchers_only_rise_as_well(store: Any) -> None:
    first, second, less = (KEY.sign(each) for each in (voucher(1, 1), voucher(2, 5), voucher(3, 2)))
    assert store.receive_now([(first, Usage()), (second, Usage(7, 8))]) == [True, True]
    assert store.receive_now([(first, Usage(3, 3)), (less, Usage())]) == [False, False]
    assert store.sold_lane(CHANNEL, 0) == PayeeLane(CHANNEL, 0, second, Usage(7, 8))


#: Batches of (lane, sequence, bytes, signed by whom it has to be, used): few values, so that they meet.
BATCHES = st.lists(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 6), st.integers(0, 6), st.booleans(), st.integers(0, 3)),
        max_size=5,
    ),
    max_size=6,
)


@given(BATCHES, st.lists(st.booleans(), min_size=6, max_size=6))
def test_a_prompt_write_keeps_what_a_synced_one_keeps(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[list[tuple[int, int, int, bool, int]]],
    prompt: list[bool],
) -> None:
    """In any order of both, with the same answers: and what is in the file is the same, too."""
    with TemporaryDirectory(dir=tmp_path_factory.getbasetemp()) as folder:
        mixed, synced = (
            Store(Path(folder) / name, sync_data=lambda file: None)
            for name in ("mixed.sqlite", "synced.sqlite")
        )
        with mixed, synced:
            for batch, now in zip(batches, prompt, strict=False):
                received = []
                for lane, sequence, size, good, used in batch:
                    signed = KEY.sign(voucher(sequence, 1, size, lane=lane))
                    if not good:
                        signed = SignedVoucher(signed.voucher, bytes(64))
                    received.append((signed, Usage(used, 10 * used)))
                expected = synced.received_all(received)
                assert (mixed.receive_now(received) if now else mixed.received_all(received)) == expected
                if now:
                    mixed.sync()
                assert mixed.sold_lanes() == synced.sold_lanes()
            assert rows_of(mixed, "sold") == rows_of(synced, "sold")


def test_a_prompt_write_waits_for_nobody_and_leaves_nothing_behind(store: Any) -> None:
    signed = KEY.sign(voucher(1, 1))
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert store.receive_now([(signed, Usage())]) is None
    with store._prompt_lock:  # another thread is at it
        assert store.receive_now([(signed, Usage())]) is None
    assert store.sold_lanes() == []
    assert store.receive_now([(signed, Usage())]) == [True]
    with Store(":memory:") as memory:
        assert memory.receive_now([(signed, Usage())]) is None


def test_a_prompt_write_neither_waits_nor_syncs_nor_moves_what_is_in_the_log(store: Any) -> None:
    assert store.receive_now([(KEY.sign(voucher(1, 1)), Usage())]) == [True]
    found = {
        name: store._prompt.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("busy_timeout", "synchronous", "wal_autocheckpoint")
    }
    assert found == {"busy_timeout": 0, "synchronous": 1, "wal_autocheckpoint": 0}


def test_a_prompt_write_that_fails_is_taken_back_whole(store: Any) -> None:
    alter(store, no_room_for(1))
    both = [(KEY.sign(voucher(1, 1, lane=lane)), Usage()) for lane in (0, 1)]
    with pytest.raises(StoreError, match="no room"):
        store.receive_now(both)
    assert store.sold_lanes() == []
    alter(store, "DROP TRIGGER no_room")
    assert store.receive_now(both) == [True, True]


def test_the_log_of_prompt_writes_does_not_grow_for_ever(tmp_path: Path) -> None:
    sizes = []
    with Store(tmp_path / "pay.sqlite", sync_data=lambda file: None) as store:
        for number in range(1, 1000):
            assert store.receive_now([(KEY.sign(voucher(number, number)), Usage())]) == [True]
            store.sync()
            sizes.append(os.path.getsize(f"{store.path}-wal"))
    assert sizes[300] == sizes[-1] > 0


@pytest.mark.parametrize("power_safe", [True, False])
def test_prompt_writes_are_synced_as_the_others_are(tmp_path: Path, power_safe: Any) -> None:
    synced = []

    def sync_data(file: Any) -> None:
        synced.append(os.fstat(file).st_ino)

    with Store(tmp_path / "pay.sqlite", power_safe=power_safe, sync_data=sync_data) as store:
        assert store.receive_now([(KEY.sign(voucher(1, 1)), Usage())]) == [True]
        store.sync()
        log = os.stat(f"{store.path}-wal").st_ino
    assert synced == ([log] if power_safe else [])


def test_what_was_served_is_not_forgotten_with_the_connection(store: Any) -> None:
    store.save_served(CHANNEL, 0, Usage(5, 500))
    assert store.sold_lane(CHANNEL, 0) == PayeeLane(CHANNEL, 0, None, Usage(5, 500))
    assert store.sold_lanes() == []
    assert store.vouched_sums(CHANNEL) == {0: 0}
    assert receive(store, KEY.sign(voucher(1, 3)), Usage(3, 0))
    store.save_served(CHANNEL, 0, Usage(4, 600))
    assert store.sold_lane(CHANNEL, 0).used == Usage(5, 600)


def test_a_preimage_is_there_before_its_lock_and_stays_until_it_is_open(store: Any) -> None:
    secret = b"k" * 32
    store.keep_preimage(CHANNEL, 0, secret)
    assert store.sold_lane(CHANNEL, 0).preimage == secret
    receive(store, KEY.sign(voucher(1, 3, hash_lock=lock_of(secret))), Usage(3, 0))
    with pytest.raises(StoreError, match="still locked"):
        store.keep_preimage(CHANNEL, 0, b"o" * 32)
    (sold,) = store.sold_lanes()
    assert sold.preimage == secret
    receive(store, KEY.sign(voucher(2, 3)), Usage(3, 0))
    store.keep_preimage(CHANNEL, 0, b"o" * 32)
    assert store.sold_lane(CHANNEL, 0).preimage == b"o" * 32


def test_the_first_agreement_stands(store: Any) -> None:
    assert store.end_of(CHANNEL) is None
    assert store.save_agreement(CHANNEL, 500, 2**64 - 1, "this") == End(
        CHANNEL, 500, 2**64 - 1, False, "this"
    )
    assert store.save_agreement(CHANNEL, 900, 1, "that") == End(CHANNEL, 500, 2**64 - 1, False, "this")
    receive(store, KEY.sign(voucher(1, 3)), Usage())
    assert len(store.sold_lanes()) == 1
    store.mark_closed(CHANNEL)
    assert store.end_of(CHANNEL).over
    assert store.sold_lanes() == []
    assert len(store.sold_lanes(CHANNEL)) == 1
    receive(store, KEY.sign(voucher(2, 4)), Usage())
    assert store.sold_lanes() == []  # whatever comes late
    store.mark_closed("0x2")  # which nobody agreed on
    assert store.end_of("0x2") == End("0x2", 0, 0, True)


def test_the_file_is_its_owners(store: Any) -> None:
    assert stat.S_IMODE(os.stat(store.path).st_mode) == 0o600


def test_a_second_store_of_a_process_leaves_the_first_its_locks(store: Any) -> None:
    with again(store):
        code = "import sys; from dtp.pay.store import Store; Store(sys.argv[1]).close()"
        subprocess.run([sys.executable, "-c", code, store.path], check=True, timeout=60)
        # Whoever takes itself for the last one to close the file deletes the log.
        assert os.path.exists(f"{store.path}-wal")


def test_the_path_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DTP_PAY_STORE", str(tmp_path / "x.sqlite"))
    assert config.pay_store_path() == tmp_path / "x.sqlite"
    monkeypatch.delenv("DTP_PAY_STORE")
    monkeypatch.setenv("DTP_HOME", str(tmp_path))
    with Store() as made:
        assert made.path == str(tmp_path / "data" / "pay.sqlite")


def test_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="can't open"):
        Store(tmp_path)
    (tmp_path / "text").write_text("this is no database, but long enough to look like one" * 20)
    with pytest.raises(StoreError):
        Store(tmp_path / "text")
    newer = tmp_path / "newer"
    with sqlite3.connect(newer) as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(StoreError, match="format 99"):
        Store(newer)


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "pay.sqlite")
    store.close()
    with pytest.raises(StoreError):
        receive(store, KEY.sign(voucher(1, 1)), Usage())
    with pytest.raises(StoreError):
        store.sold_lanes()


# ------------------------------------------------------------------------------------------ killed at every write

# A process that does what both sides do, writes down each step that is done, and dies at the Nth statement. It is
# forked for each N, so that only the first one has to load Python.
_CHILD = textwrap.dedent("""
    import os, sqlite3, sys
    from dtp.pay.client.lane_start import Reserved
    from dtp.pay.store import Bought, Store
    from dtp.pay.terms import Usage
    from dtp.pay.voucher import LaneKey, Voucher

    folder = sys.argv[1]
    channel, key = "0x" + "c1" * 32, LaneKey(bytes(range(32)))
    genuine = sqlite3.connect

    def live_and_die(number):
        left = number

        class Dying(sqlite3.Connection):
            def execute(self, *arguments):
                nonlocal left
                left -= 1
                if left < 0:
                    os._exit(9)
                return super().execute(*arguments)

        sqlite3.connect = lambda *a, **k: genuine(*a, factory=Dying, **k)
        said = open(f"{folder}/{number}.said", "w", buffering=1)
        store = Store(f"{folder}/{number}.sqlite")
        print("opened", file=said)
        store.keep_key(key, 1)
        print("key", file=said)
        store.add_bought(Bought(channel, "chain", "0xa", 7, "0xb", "open", 5), 0, key.public)
        print("bought", file=said)
        store.begin_lane(channel, 0)
        for n in range(1, 6):
            if n % 2:  # two vouchers for each write
                store.reserve(channel, 0, Reserved(n + 1, 10 * n + 10))
            signed = key.sign(Voucher(channel, 0, n, 10 * n, n, 100 * n))
            print("sent", n, file=said)
            if n % 2:
                store.received_all([(signed, Usage(n, 100 * n))])
            else:
                assert store.receive_now([(signed, Usage(n, 100 * n))]) == [True]
                store.sync()
            print("received", n, file=said)
        store.end_lane(channel, 0, Usage(5, 500), signed, clean=True)
        print("ended", file=said)
        store.save_agreement(channel, 500, 7, "chain")
        print("agreed", file=said)
        os._exit(0)

    status, number = 1, -1
    while status:
        number += 1
        child = os.fork()
        if not child:
            live_and_die(number)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, 9), status
    print(number)
""")


def test_killed_at_every_write(tmp_path: Path) -> None:
    """Whatever the process said is there afterwards, and no more than the one step that it was in."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", _CHILD, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    deaths = int(done.stdout)
    assert deaths > 20
    for number in range(deaths + 1):
        said = (tmp_path / f"{number}.said").read_text().splitlines()
        with Store(tmp_path / f"{number}.sqlite") as store:
            check_survivors(store, said)
    assert "agreed" in said


def check_the_next_voucher(store: Any, sent: Any, taken: Any) -> None:
    """Who goes on with this store signs no sequence again, and knows the most that can be claimed."""
    ((key, lane),) = store.payer_lanes(CHANNEL)
    assert lane.newest is None or lane.newest.is_by(key.public)
    assert lane.most_signed >= 10 * sent
    payer = Payer(lane, Prices(10, 0), 1000, lambda shown: shown.is_by(key.public))
    payee = Payee(store.sold_lane(CHANNEL, 0), Prices(10, 0), 1000)
    payee.begin(0.0)
    for event in payee.take_events():
        if isinstance(event, SendFrame):
            payer.receive_frame(event.frame, 0.0)
    assert payer.newest == taken or payer.newest == lane.newest
    payer.set_counts(1, 0, 0.0)
    payer.finish(0.0)
    (wanted,) = (each for each in payer.take_events() if isinstance(each, SignWanted))
    assert wanted.voucher.sequence > sent
    assert wanted.voucher.requests > sent - 1  # what is known of it is paid no second time


def check_survivors(store: Any, said: Any) -> None:
    bought = store.bought_channels()
    keys = set(store.kept_keys())
    if "bought" in said:
        assert [each.channel for each in bought] == [CHANNEL]
    if "key" in said:
        assert KEY.public in keys or bought
    sent = max((int(line.split()[1]) for line in said if line.startswith("sent")), default=0)
    received = max((int(line.split()[1]) for line in said if line.startswith("received")), default=0)
    taken = store.sold_lane(CHANNEL, 0).newest
    assert received <= (taken.voucher.sequence if taken else 0) <= sent
    assert taken is None or taken.is_by(KEY.public)
    if bought:
        check_the_next_voucher(store, sent, taken)
    if "ended" in said:
        assert store.payer_lanes(CHANNEL)[0][1] == PayerLane(
            CHANNEL, 0, taken, Usage(5, 500), True, Reserved(5, 50)
        )
    if "agreed" in said:
        assert store.end_of(CHANNEL) == End(CHANNEL, 500, 7, False, "chain")


def foreign(path: Any, *statements: Any) -> Any:
    """A database of another program's, or another file, which others may read."""
    if statements:
        with closing(sqlite3.connect(path)) as db:
            for each in statements:
                db.execute(each)
            db.commit()
    else:
        path.write_bytes(b"a name of a machine")
    path.chmod(0o644)
    return path.read_bytes()


@pytest.mark.parametrize("make", [False, True])
@pytest.mark.parametrize(
    "statements",
    [(), ("CREATE TABLE other (a)",), ("CREATE TABLE other (a)", "PRAGMA user_version=5")],
)
def test_a_file_that_is_something_else_stays_as_it_is(tmp_path: Path, make: Any, statements: Any) -> None:
    """Naming it took it away from everybody else, whatever it was; and tables of ours were put into a database."""
    path = tmp_path / "other"
    before = foreign(path, *statements)
    with pytest.raises(StoreError):
        Store(path, make=make)
    assert path.read_bytes() == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [each.name for each in tmp_path.iterdir()] == ["other"]
