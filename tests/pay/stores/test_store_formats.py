"""What a store of an older format knows, and doesn't, once it is brought up to date."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from dtp.pay.client.lane_start import Reserved
from dtp.pay.store import End, SentOpening, Store
from dtp.pay.terms import Usage

from ..meters import CHANNEL, KEY, voucher
from ..stored import BOUGHT, PLACE, again, alter, buy


def drop_loans(store: Any) -> None:
    """A store as it was up to format 13."""
    alter(store, "DROP TABLE loans")


def test_nothing_of_the_format_before_is_lent(store: Any) -> None:
    drop_loans(store)
    alter(store, "PRAGMA user_version=13")
    with again(store) as other:
        assert other.lenders() == set()
        assert other.lend("one", "here", "c", [("0xa", 1)], lambda: 7) == 7
        assert [each.amount for each in other.loans_for("c", [("0xa", 1)])] == [7]


def drop_waits(store: Any) -> None:
    """A store as it was up to format 12."""
    drop_loans(store)
    alter(store, "DROP TABLE waits")


def drop_spent(store: Any) -> None:
    """A store as it was up to format 11."""
    drop_waits(store)
    alter(store, "DROP TABLE spent")
    alter(store, "CREATE TABLE failed (digest TEXT PRIMARY KEY, at_ms INTEGER, gas INTEGER)")


def test_gas_of_the_format_before_stays(store: Any) -> None:
    store.keep_key(KEY, 7)
    store.add_bought(replace(BOUGHT, gas=30), 0, KEY.public)
    drop_spent(store)
    alter(store, "INSERT INTO failed VALUES ('failed', 5, 7)")
    alter(store, "PRAGMA user_version=11")
    with again(store) as other:
        assert other.spent_beside("pay") == [(5, 7)]
        other.transaction_sent("more", "pay", CHANNEL, BOUGHT.chain, BOUGHT.account, 70)
        assert other.bought_channels()[0].gas == 30
        assert [each.digest for each in other.unsettled_transactions(BOUGHT.chain, BOUGHT.account)] == [
            "more"
        ]
        other.transaction_took("more", 4)
        assert (other.bought_channels()[0].gas, other.unsettled_transactions()) == (34, [])


def drop_transactions(store: Any) -> None:
    """A store as it was up to format 10."""
    drop_spent(store)
    alter(store, "DROP TABLE sent")


def test_deposits_of_the_format_before_can_t_be_disproved(store: Any) -> None:
    store.keep_key(KEY, 7)
    drop_transactions(store)
    alter(store, "PRAGMA user_version=10")
    with again(store) as other:
        other.key_sent(KEY.public, SentOpening("digest", "chain", BOUGHT.account, PLACE[2], 700))
        assert other.unproven_deposits(*PLACE[:2], 0) == []
        assert other.deposited_since(*PLACE, 0) == 700


def drop_unnoted(store: Any) -> None:
    """A store as it was up to format 9."""
    drop_transactions(store)
    for each in ("unnoted", "counted"):
        alter(store, f"DROP TABLE {each}")


def test_copies_of_the_format_before_lack_what_was_put_in_since(store: Any, tmp_path: Path) -> None:
    store.backup(tmp_path / "copy.sqlite")
    with Store(tmp_path / "copy.sqlite") as copy:
        drop_unnoted(copy)
        alter(copy, "PRAGMA user_version=9")
        with again(copy) as other:
            assert other.lacks_deposits(*PLACE[:2])
            assert other.unnoted_since(*PLACE, 0) == 0


def drop_names(store: Any) -> None:
    """Channels as they were up to format 8."""
    drop_unnoted(store)
    alter(store, "ALTER TABLE bought DROP COLUMN name")
    alter(store, "DROP TABLE failed")


def test_channels_of_the_format_before_are_of_a_service_without_a_name(store: Any) -> None:
    store.keep_key(KEY, 7)
    store.add_bought(BOUGHT, 0, KEY.public)
    drop_names(store)
    alter(store, "PRAGMA user_version=8")
    with again(store) as other:
        assert (other.bought_channels()[0].name, other.spent_beside("pay")) == ("", [])


def drop_deposits(store: Any) -> None:
    """Channels as they were up to format 6."""
    drop_names(store)
    for each in ("coin", "claim_ms", "gas", "refused"):
        alter(store, f"ALTER TABLE bought DROP COLUMN {each}")
    alter(store, "DROP TABLE deposits")
    alter(store, "DROP TABLE budgets")


def drop_sent(store: Any) -> None:
    """Keys as they were up to format 4."""
    drop_deposits(store)
    for each in ("digest", "chain", "denied"):
        alter(store, f"ALTER TABLE keys DROP COLUMN {each}")


def test_keys_of_the_format_before_were_sent_by_nobody_knows_what(store: Any) -> None:
    store.keep_key(KEY, 7)
    drop_sent(store)
    alter(store, "PRAGMA user_version=4")
    with again(store) as other:
        assert other.sent_keys("", 0) == {}
        assert list(other.kept_keys()) == [KEY.public]
        other.key_sent(KEY.public, SentOpening("digest", "here"))
        assert other.sent_keys("here", 7) == {KEY.public: "digest"}
        assert other.sent_keys("here", 8) == {}


def test_channels_of_the_format_before_hold_what_nobody_noted(store: Any) -> None:
    store.keep_key(KEY, 7)
    store.add_bought(BOUGHT, 0, KEY.public)
    drop_deposits(store)
    alter(store, "PRAGMA user_version=6")
    with again(store) as other:
        assert other.bought_channels() == [BOUGHT]
        other.add_deposit(CHANNEL, 9, 500)
        assert other.bought_channels()[0].deposited == 500


def drop_columns(store: Any, *columns: Any) -> None:
    for each in columns:
        alter(store, f"ALTER TABLE lanes DROP COLUMN {each}")


def drop_believed(store: Any) -> None:
    """Lanes as they were up to format 3, and keys as up to format 4."""
    drop_sent(store)
    drop_columns(store, "believed_requests", "believed_bytes", "held")


def drop_chain(store: Any) -> None:
    """Ends as they were up to format 2."""
    alter(store, "DROP TABLE ends")
    alter(
        store,
        "CREATE TABLE ends (channel TEXT PRIMARY KEY, total INTEGER NOT NULL, not_after_ms TEXT NOT NULL, "
        "state TEXT NOT NULL) WITHOUT ROWID",
    )


def test_a_store_of_the_format_before_goes_on(store: Any, tmp_path: Path) -> None:
    buy(store)
    newest = KEY.sign(voucher(3, 4, 100))
    store.save_signed(newest, Usage(4, 100))
    drop_columns(store, "reserved_sequence", "reserved_amount")
    drop_believed(store)
    drop_chain(store)
    alter(store, "PRAGMA user_version=1")
    with again(store) as other:
        ((_, lane),) = other.payer_lanes(CHANNEL)
        assert (lane.newest, lane.reserved, lane.died) == (newest, Reserved(), False)
        other.reserve(CHANNEL, 0, Reserved(5, 5))


def test_lanes_of_the_format_before_believed_nothing(store: Any) -> None:
    buy(store)
    drop_believed(store)
    alter(store, "PRAGMA user_version=3")
    with again(store) as other:
        ((_, lane),) = other.payer_lanes(CHANNEL)
        assert lane.believed == Usage()
        assert other.hold_deposit(CHANNEL, 0, lambda others: 5) == 5


def test_agreements_of_the_format_before_are_of_no_known_chain(store: Any) -> None:
    drop_believed(store)
    drop_chain(store)
    alter(store, "INSERT INTO ends VALUES (?, 500, '7', 'agreed')", (CHANNEL,))
    alter(store, "PRAGMA user_version=2")
    with again(store) as other:
        assert other.end_of(CHANNEL) == End(CHANNEL, 500, 7, False)


def test_a_key_that_was_sent_is_one_chain_s(store: Any) -> None:
    """What is left of a localnet that is gone would count on every other chain."""
    store.keep_key(KEY, 7)
    store.key_sent(KEY.public, SentOpening("digest", "gone"))
    assert (store.sent_keys("here", 0), store.sent_keys("gone", 0)) == ({}, {KEY.public: "digest"})
    drop_sent(store)
    alter(store, "ALTER TABLE keys ADD COLUMN digest TEXT NOT NULL DEFAULT ''")
    alter(store, "UPDATE keys SET digest = 'digest'")
    alter(store, "PRAGMA user_version=5")
    with again(store) as other:  # nobody knows of which
        assert other.sent_keys("here", 0) == {KEY.public: "digest"}
