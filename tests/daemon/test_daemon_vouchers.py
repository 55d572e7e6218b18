"""Vouchers in PostgreSQL: what `Store` promises of what is sold, by its own tests; two daemons beside each other."""

import threading

import pytest
from pay import test_store
from pay.meters import CHANNEL, KEY, voucher
from pay.test_store import (
    test_a_preimage_is_there_before_its_lock_and_stays_until_it_is_open,
    test_received_vouchers_only_rise,
    test_the_first_agreement_stands,
    test_what_was_served_is_not_forgotten_with_the_connection,
)

from dtp.daemon.config.reading import ConfigMistakes
from dtp.pay.errors import StoreError
from dtp.pay.terms import Usage

from .conftest import config
from .programs import place
from .test_daemon_state import postgresql_url

__all__ = [
    "place",
    "postgresql_url",
    "test_a_preimage_is_there_before_its_lock_and_stays_until_it_is_open",
    "test_received_vouchers_only_rise",
    "test_the_first_agreement_stands",
    "test_what_was_served_is_not_forgotten_with_the_connection",
]


@pytest.fixture
def open_store(postgresql_url):
    from dtp.daemon.state.vouchers import PostgresVouchers

    for attempt in range(100):
        try:
            PostgresVouchers(postgresql_url).close()
            break
        except StoreError:  # the server has only just begun to listen
            if attempt == 99:
                raise
            threading.Event().wait(0.1)
    return lambda: PostgresVouchers(postgresql_url)


@pytest.fixture
def store(open_store, monkeypatch):
    monkeypatch.setattr(test_store, "again", lambda _: open_store())
    with open_store() as opened:
        yield opened


def test_two_daemons_take_vouchers_at_once(open_store):
    """Each voucher is kept by one of them, the newest stands for both, and passes are added up."""
    vouchers = [KEY.sign(voucher(number, number, lane=number % 2)) for number in range(1, 41)]
    kept = [[], []]

    def take(at):
        with open_store() as store:
            for number in range(0, 40, 4):
                batch = vouchers[number : number + 4]
                kept[at] += store.received_all([(each, Usage(1, 1)) for each in batch[:: 1 - 2 * at]])
                store.add_pass_used("0xpass", 3, Usage(1, 10))

    threads = [threading.Thread(target=take, args=(at,)) for at in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    with open_store() as store:
        assert {lane: store.sold_lane(CHANNEL, lane).newest.voucher.sequence for lane in (0, 1)} == {
            0: 40,
            1: 39,
        }
        assert store.pass_used("0xpass", 3) == Usage(20, 200)
        store.add_pass_used("0xpass", 4, Usage(1, 1))
        assert store.pass_used("0xpass", 3) == Usage()
    assert all(len(each) == 40 for each in kept)


def test_one_of_them_claims(open_store):
    first, second = open_store(), open_store()
    assert [first.claims(), second.claims(), first.claims()] == [True, False, True]
    first.close()
    for _ in range(100):
        if second.claims():
            break
        threading.Event().wait(0.05)
    assert second.claims()
    second.close()


def test_a_channel_is_served_by_one_of_them(open_store):
    first, second = open_store(), open_store()
    assert [first.hold(CHANNEL), first.hold(CHANNEL), second.hold(CHANNEL), second.hold("0x2")] == [
        True,
        True,
        False,
        True,
    ]
    first.free(CHANNEL)
    assert not second.hold(CHANNEL)
    first.free(CHANNEL)
    assert second.hold(CHANNEL)
    first.close()
    second.close()


def test_a_database_that_is_away():
    vouchers = pytest.importorskip("dtp.daemon.state.vouchers")
    with pytest.raises(StoreError, match="PostgreSQL") as caught:
        vouchers.PostgresVouchers("postgresql://u:secret@127.0.0.1:1/x")
    assert "secret" not in str(caught.value)


def test_where_vouchers_can_be(tmp_path):
    forward = '[[forward]]\nlisten = "127.0.0.1:0"\nto = "dtp://alice/api"\n'
    found = config(tmp_path, f'[chain]\nvouchers = "postgresql://me@db/money"\n{forward}').chain.vouchers
    assert found == "postgresql://me@db/money"
    assert (
        config(tmp_path, f'[chain]\nvouchers = "x.sqlite"\n{forward}').chain.vouchers == tmp_path / "x.sqlite"
    )
    with pytest.raises(ConfigMistakes, match="a file is meant") as caught:
        config(tmp_path, f'[chain]\nvouchers = "mysql://u:secret@x/y"\n{forward}')
    assert "secret" not in str(caught.value)
