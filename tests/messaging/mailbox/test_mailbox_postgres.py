"""A mailbox in PostgreSQL: the contract of stores, several processes that are one mailbox, and what breaks."""

from __future__ import annotations

import asyncio
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import postgres
import pytest
from mailbox_stores import (
    ACCESS,
    ALICE,
    CHECKS,
    NOW,
    Registered,
    check_a_stamp_is_used_up_once,
    check_no_quota_is_passed,
    check_store,
    known,
    register_alice,
)

pytest.importorskip("psycopg")

import psycopg

import dtp
from dtp.identity import Identity
from dtp.messaging.errors import StoreAway, StoreFailed, StoreUnusable
from dtp.messaging.mailbox import MAILBOX_SERVICE, Mailbox, MailboxLimits, Tray, open_store
from dtp.messaging.mailbox.postgres_store import PostgresMailbox
from dtp.messaging.person.messenger import Messenger
from dtp.postgresql import while_it_answers

pytestmark = pytest.mark.slow
#: Seconds after which a test has failed that waits for something.
LIMIT = 120


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres.server() as url:
        yield url


@pytest.fixture
def url(server: str, request: pytest.FixtureRequest) -> str:
    name = f"m{zlib.crc32(request.node.name.encode()):x}"
    with psycopg.connect(server, autocommit=True) as database:
        database.execute(f"CREATE DATABASE {name}")
    return urlsplit(server)._replace(path=name).geturl()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_store_in_postgres(check: Callable[[Registered], None], url: str) -> None:
    check_store(check, lambda limits: open_store(url, limits))


def test_several_writers_overlook_and_double_nothing(url: str) -> None:
    stores = [PostgresMailbox(url) for _ in range(4)]
    register_alice(stores[0])

    def write(number: int) -> None:
        for at in range(20):
            stores[number].add_envelopes([known(1000 * number + 10 * at + each) for each in range(5)], NOW)
            stores[number].add_envelopes([known(7)], NOW)  # all of them

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for each in writers:
        each.start()
    found: list[bytes] = []
    after = 0
    while len(found) < 4 * 100 + 1:  # read beside the writers: what is passed over never comes
        kept = stores[0].fetch_envelopes(ALICE.id.key, Tray.KNOWN, after, 64, 1 << 20)
        found += [each.envelope for each in kept]
        after = kept[-1].id if kept else after
        if not kept and not any(each.is_alive() for each in writers):
            kept = stores[0].fetch_envelopes(ALICE.id.key, Tray.KNOWN, after, 1, 1 << 20)
            assert kept, f"{len(found)} of 401"
    for each in writers:
        each.join()
    assert len(set(found)) == len(found) == 401
    status = stores[1].device_status(ALICE.id.key)
    assert status is not None
    assert (status.count, status.bytes) == (401, 401 * 512)
    for store in stores:
        store.close()


def test_several_writers_pass_no_quota_by_each_other(url: str) -> None:
    stores = [PostgresMailbox(url, MailboxLimits(envelopes=50, recipient_bytes=40 * 512)) for _ in range(3)]
    register_alice(stores[0])
    check_no_quota_is_passed(stores, 40)
    for store in stores:
        store.close()


def test_a_paid_stamp_is_used_by_one_of_several_processes(url: str) -> None:
    limits = MailboxLimits(price_mib_month=1, stamp_uses=10, strangers=1000, free_bytes=1 << 20)
    stores = [PostgresMailbox(url, limits) for _ in range(3)]
    register_alice(stores[0])
    check_a_stamp_is_used_up_once(stores, 10)
    for store in stores:
        store.close()


def test_two_processes_are_one_mailbox_and_push_what_the_other_took(url: str, tmp_path: Path) -> None:
    async def main() -> None:
        alice, bob = Identity.generate(), Identity.generate()
        boxes = [Mailbox(PostgresMailbox(url)) for _ in range(2)]
        listeners = [
            await dtp.listen("tcp://127.0.0.1:0", {MAILBOX_SERVICE: box.serve}, identity=Identity.generate())
            for box in boxes
        ]
        at = [str(each.address(MAILBOX_SERVICE)) for each in listeners]
        async with (
            Messenger(identity=alice, store=tmp_path / "alice", mailboxes=at[:1], name="alice") as one,
            Messenger(identity=bob, store=tmp_path / "bob", mailboxes=at[1:], name="bob") as other,
        ):
            await one.wait_reached()
            await other.wait_reached()
            elsewhere = other.card
            await other.add_contact(one.card)
            for number in range(3):
                await one.send(elsewhere, str(number))
                async for message in other:
                    assert message.text == str(number)
                    await message.mark_read()
                    break
        for listener in listeners:
            await listener.close()
        for box in boxes:
            await box.stop()
            box.store.close()

    asyncio.run(asyncio.wait_for(main(), LIMIT))


def test_a_lost_connection_is_made_again_and_a_server_that_is_away_is_said(url: str) -> None:
    store = PostgresMailbox(url)
    register_alice(store)
    with psycopg.connect(url, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
        with pytest.raises(StoreFailed, match="could not be"):
            store.add_envelopes([known(1)], NOW)
    assert (
        store.fetch_envelopes(ALICE.id.key, Tray.KNOWN, 0, 9, 9) == []
    )  # nothing was promised, nothing is there
    store.add_envelopes([known(1)], NOW)
    assert len(store.fetch_envelopes(ALICE.id.key, Tray.KNOWN, 0, 9, 9)) == 1
    assert store.has_access(ALICE.id.key, ACCESS)
    store.close()
    with pytest.raises(StoreFailed, match="closed"):
        store.add_envelopes([known(1)], NOW)
    with pytest.raises(StoreAway, match=r'could not be opened: .*"127\.0\.0\.1", port 1 failed') as away:
        open_store("postgresql://dtp:secret@127.0.0.1:1/none")
    assert "secret" not in str(away.value)


def test_a_server_that_refuses_for_good_is_told_from_one_that_is_away() -> None:
    with postgres.server("s3cret") as url:
        open_store(url).close()
        for wrong, words in (
            (url.replace("s3cret", "wrong"), "another name or password"),
            (url.replace("/postgres", "/nosuch"), "there is no such database"),
        ):
            with pytest.raises(StoreUnusable, match=words) as unusable:
                open_store(wrong)
            assert "s3cret" not in str(unusable.value)


def test_a_server_that_says_nothing_any_more_is_away(url: str) -> None:
    """Its processes stopped, or its disk hung: deposits and the end of a daemon waited for it for ever."""

    async def main() -> None:
        async with postgres.stoppable(url) as (way, stop):
            store = await asyncio.to_thread(PostgresMailbox, way, guard=partial(while_it_answers, every=0.05))
            await asyncio.to_thread(register_alice, store)
            stop()
            with pytest.raises(StoreAway, match=r"could not be written: 127\.0\.0\.1:\d+: "):
                await asyncio.to_thread(store.add_envelopes, [known(1)], NOW)
            await asyncio.to_thread(store.close)

    asyncio.run(asyncio.wait_for(main(), LIMIT))


def test_what_takes_long_is_waited_for_while_the_server_answers(url: str) -> None:
    looks = threading.Semaphore(0)

    def answers(where: str) -> bool:
        looks.release()
        return True

    guard = partial(while_it_answers, every=0.01, ask=answers)
    with closing(PostgresMailbox(url, guard=guard)) as store:
        register_alice(store)
        with psycopg.connect(url) as other:
            other.execute("LOCK TABLE dtp_mailbox_recipients")
            depositing = threading.Thread(target=store.add_envelopes, args=([known(1)], NOW))
            depositing.start()
            for _ in range(3):
                assert looks.acquire(timeout=LIMIT)
        depositing.join(LIMIT)
        assert len(store.fetch_envelopes(ALICE.id.key, Tray.KNOWN, 0, 9, 9)) == 1
