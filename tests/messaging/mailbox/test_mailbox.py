"""Mailboxes: what they keep and for whom, quotas, strangers, pushes, and callers who mean harm."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from deaths import deaths
from mailbox_stores import (
    ACCESS,
    ALICE,
    BOB,
    CHECKS,
    NOW,
    Registered,
    check_no_quota_is_passed,
    envelope,
    known,
    local,
    register_alice,
)

import dtp
from dtp.carriers.nearness import Nearness
from dtp.identity import Identity
from dtp.messaging.cards import ContactCard
from dtp.messaging.database import Database
from dtp.messaging.ends.device import LocalDevice
from dtp.messaging.ends.keys import LIFETIME_MS
from dtp.messaging.errors import KeysForged, StoreAway, StoreFailed
from dtp.messaging.mailbox import (
    MAILBOX_SERVICE,
    Mailbox,
    MailboxClient,
    MailboxLimits,
    MailboxRefused,
    Refusal,
    SqliteMailbox,
    Tray,
)
from dtp.messaging.mailbox.client import MailboxGone, RoomPrice
from dtp.messaging.mailbox.limits import DAY
from dtp.messaging.mailbox.protocol import (
    REASONS,
    MailboxMalformed,
    MailboxOp,
    encode,
    parse_answer,
    parse_request,
    read,
)
from dtp.messaging.mailbox.stamps import DEFAULT_BITS, make_stamp
from dtp.messaging.mailbox.store import access_hash, piece_hash
from dtp.net.connection import Connection

SERVER = Identity(bytes([3]) * 32, bytes([12]) * 32)
#: Seconds after which a test has failed that waits for something.
LIMIT = 240


def registered(limits: MailboxLimits | None = None, *, bits: int = 0) -> SqliteMailbox:
    store = SqliteMailbox(limits=limits)
    register_alice(store, bits)
    return store


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_store_in_sqlite(check: Callable[[Registered], None]) -> None:
    check(registered)


def test_a_file_gets_smaller_when_what_was_kept_is_over(tmp_path: Path) -> None:
    path = tmp_path / "box.sqlite"
    store = SqliteMailbox(path)
    device = local(ALICE)
    store.publish_keys(ALICE.id.key, device.keys.sequence, device.keys.encoded, [])
    store.set_access(ALICE.id.key, access_hash(ACCESS), 0)
    store.add_envelopes([known(each, 65_536) for each in range(40)], NOW)
    assert store.fetch_envelopes(ALICE.id.key, Tray.KNOWN, 0, 1, 1)
    while store.expire_envelopes(NOW + 1000):
        pass
    for _ in range(8):  # a piece at a time, beside what else it does
        store.add_envelopes([known(99)], NOW)
        store.expire_envelopes(NOW + 1000)
    store.close()
    assert path.stat().st_size < 40 * 65_536 / 4


def test_another_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.sqlite"
    sqlite3.connect(path).execute("CREATE TABLE notes (text)").connection.close()
    with pytest.raises(StoreFailed, match="another kind"):
        SqliteMailbox(path)
    with pytest.raises(StoreFailed):
        SqliteMailbox(tmp_path)


@pytest.mark.slow
def test_killed_at_any_write_it_has_what_it_said_it_has(tmp_path: Path) -> None:
    device = local(ALICE)
    one_time = device.make_one_time_keys(2)

    def live(number: int) -> None:
        store = SqliteMailbox(tmp_path / f"{number}.sqlite")
        said = os.open(tmp_path / f"{number}.said", os.O_CREAT | os.O_WRONLY)
        store.publish_keys(ALICE.id.key, device.keys.sequence, device.keys.encoded, one_time)
        store.set_access(ALICE.id.key, access_hash(ACCESS), 0)
        os.write(said, b"r")
        for each in range(2):
            store.add_envelopes([known(2 * each), known(2 * each + 1)], NOW)
            os.write(said, b"d")
        store.acknowledge_envelopes(ALICE.id.key, [1])
        os.write(said, b"a")
        store.expire_envelopes(NOW + 1000)

    for number, killed in deaths(live):
        try:
            said = (tmp_path / f"{number}.said").read_bytes().decode()
        except FileNotFoundError:
            said = ""
        store = SqliteMailbox(tmp_path / f"{number}.sqlite")
        found = [each.id for each in store.fetch_envelopes(ALICE.id.key, Tray.KNOWN, 0, 99, 1 << 20)]
        told = store.device_status(ALICE.id.key)
        assert (told.count if told else 0) == len(found)
        if "r" in said:
            assert told is not None
            assert told.one_time_keys == 2
        if killed and said:  # before it was expired, or a part of it: what was promised and not acknowledged
            least = {"r": [], "rd": [1, 2], "rdd": [2, 3, 4], "rdda": []}[said]
            assert set(least) <= set(found)
        store.close()
    assert number > 20


# ------------------------------------------------------------------------------------------------ the service


@asynccontextmanager
async def serving(
    store: SqliteMailbox, name: str, **options: object
) -> AsyncIterator[tuple[Mailbox, Callable[..., Awaitable[MailboxClient]]]]:
    mailbox = Mailbox(store, **options)
    clients = []

    async def client(identity: Identity | None = None) -> MailboxClient:
        address = dtp.Address.direct(SERVER.id, f"memory://{name}", MAILBOX_SERVICE)
        clients.append(await MailboxClient.connect(address, identity=identity))
        return clients[-1]

    async with await dtp.listen(f"memory://{name}", {MAILBOX_SERVICE: mailbox.serve}, identity=SERVER):
        try:
            yield mailbox, client
        finally:
            for each in clients:
                await each.close()
            await mailbox.stop()


def run(work: Awaitable[None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(LIMIT):
            await work

    asyncio.run(limited())


async def register(client: MailboxClient, identity: Identity, bits: int = 0) -> LocalDevice:
    device = local(identity, int(time.time() * 1000))
    await client.publish_keys(device.keys.encoded, device.make_one_time_keys(2))
    await client.set_access(access_hash(ACCESS), bits)
    return device


def test_deposited_by_anybody_pushed_to_the_device_and_forgotten_when_acknowledged() -> None:
    async def main() -> None:
        async with serving(SqliteMailbox(), "pushed") as (_, client):
            alice, anybody = await client(ALICE), await client()
            device = await register(alice, ALICE)
            bundle = await anybody.get_keys(ALICE.id.key, int(time.time() * 1000))
            assert bundle.keys == device.keys
            assert bundle.one_time
            await anybody.deposit_envelope(ALICE.id.key, envelope(1), seconds=100, access=ACCESS)
            await alice.watch_tray()
            await asyncio.gather(
                *(
                    anybody.deposit_envelope(ALICE.id.key, envelope(each), seconds=100, access=ACCESS)
                    for each in range(2, 600)
                )
            )
            got = []
            while len(got) < 599:
                tray, kept = await alice.pushes.get() or pytest.fail("the mailbox is gone")
                assert tray is Tray.KNOWN
                got.append(kept.envelope)
                await alice.acknowledge_envelopes([kept.id])
            assert got == [envelope(each) for each in range(1, 600)]
            status = await alice.get_status()
            assert (status.count, status.bytes) == (0, 0)

    run(main())


def test_not_more_is_pushed_than_is_acknowledged() -> None:
    async def main() -> None:
        async with serving(SqliteMailbox(limits=MailboxLimits(pushed=4)), "window") as (_, client):
            alice, anybody = await client(ALICE), await client()
            await register(alice, ALICE)
            for each in range(10):
                await anybody.deposit_envelope(ALICE.id.key, envelope(each), seconds=100, access=ACCESS)
            await alice.watch_tray()
            first = [await alice.pushes.get() for _ in range(4)]
            await alice.get_status()  # an answer that comes after whatever was pushed before
            assert alice.pushes.empty()
            await alice.acknowledge_envelopes([kept.id for _, kept in first if kept])
            assert (await alice.pushes.get())[1].envelope == envelope(4)  # type: ignore[index]

    run(main())


def test_what_is_not_acknowledged_comes_again() -> None:
    async def main() -> None:
        async with serving(SqliteMailbox(), "again") as (_, client):
            alice, anybody = await client(ALICE), await client()
            await register(alice, ALICE)
            await anybody.deposit_envelope(ALICE.id.key, envelope(1), seconds=100, access=ACCESS)
            assert [each.envelope for each in await alice.fetch_envelopes()] == [envelope(1)]
            await alice.close()
            back = await client(ALICE)
            (kept,) = await back.fetch_envelopes()
            assert kept.envelope == envelope(1)
            await back.acknowledge_envelopes([kept.id])
            assert await back.fetch_envelopes() == []
            stranger = await client(BOB)
            assert await stranger.fetch_envelopes() == []  # each has its own
            with pytest.raises(MailboxRefused) as refused:
                await stranger.get_status()
            assert refused.value.refusal is Refusal.UNKNOWN_RECIPIENT

    run(main())


def test_refusals_have_codes_and_the_conversation_goes_on() -> None:
    async def main() -> None:
        limits = MailboxLimits(deposits=7, deposit_pause=1000.0, key_questions=1, key_pause=1000.0)
        async with serving(SqliteMailbox(limits=limits), "refused") as (mailbox, client):
            alice, anybody = await client(ALICE), await client()
            await register(alice, ALICE, bits=12)

            async def refusal(work: Awaitable[object]) -> Refusal:
                with pytest.raises(MailboxRefused) as refused:
                    await work
                return refused.value.refusal

            deposit = anybody.deposit_envelope
            assert await refusal(deposit(ALICE.id.key, b"odd size", seconds=9)) is Refusal.MALFORMED
            assert await refusal(deposit(BOB.id.key, envelope(), seconds=9)) is Refusal.UNKNOWN_RECIPIENT
            assert await refusal(deposit(ALICE.id.key, envelope(), seconds=9)) is Refusal.STAMP_NEEDED
            await deposit(ALICE.id.key, envelope(), seconds=9, stamp=make_stamp(ALICE.id.key, envelope(), 12))
            assert await refusal(anybody.send_signal(ALICE.id.key, envelope(), ACCESS)) is Refusal.AWAY
            assert (
                await refusal(anybody.send_signal(ALICE.id.key, envelope(), b"w" * 16))
                is Refusal.UNKNOWN_RECIPIENT
            )
            assert await refusal(anybody.get_piece(bytes(32))) is Refusal.MISSING
            assert await refusal(anybody.get_keys(BOB.id.key, 0)) is Refusal.UNKNOWN_RECIPIENT
            assert await refusal(anybody.get_keys(BOB.id.key, 0)) is Refusal.TOO_OFTEN
            await deposit(ALICE.id.key, envelope(7), seconds=9, access=ACCESS)
            assert (
                await refusal(deposit(ALICE.id.key, envelope(8), seconds=9, access=ACCESS))
                is Refusal.TOO_OFTEN
            )
            assert await refusal(anybody.publish_keys(local(ALICE).keys.encoded, [])) is Refusal.MALFORMED
            assert await refusal(alice.publish_keys(b"made up", [])) is Refusal.MALFORMED
            assert mailbox.counters["refused:too_often"] == 2
            assert (await alice.get_status()).strangers == 1

    run(main())


def test_a_stamp_of_work_lets_in_an_envelope_once_also_when_it_was_fetched() -> None:
    async def main() -> None:
        limits = MailboxLimits(spent_stamps=2)
        async with serving(SqliteMailbox(limits=limits), "once") as (mailbox, client):
            alice, anybody = await client(ALICE), await client()
            await register(alice, ALICE, bits=4)

            async def deposit(number: int, bits: int = DEFAULT_BITS) -> int:
                """Deposit an envelope, fetch what is there, and return how many envelopes that was."""
                made = envelope(number)
                stamp = make_stamp(ALICE.id.key, made, bits)
                await anybody.deposit_envelope(ALICE.id.key, made, seconds=99, stamp=stamp)
                kept = await alice.fetch_envelopes(Tray.STRANGERS)
                await alice.acknowledge_envelopes([each.id for each in kept])
                return len(kept)

            assert [await deposit(each) for each in (1, 1, 2, 1, 2)] == [1, 0, 1, 0, 0]
            # Who has others' forgotten has to work for each: at a device that asks for less as well.
            assert [await deposit(each, 4) for each in range(10, 15)] == [1] * 5
            assert [await deposit(each) for each in (1, 2)] == [0, 0]
            assert [await deposit(each) for each in (3, 1)] == [1, 1]  # as many as are remembered
            assert mailbox.counters["deposit"] == 14

    run(main())


def test_signals_are_passed_on_and_not_kept() -> None:
    async def main() -> None:
        async with serving(SqliteMailbox(), "signals") as (_, client):
            alice, anybody = await client(ALICE), await client()
            await register(alice, ALICE)
            await alice.watch_tray()
            await anybody.send_signal(ALICE.id.key, envelope(5), ACCESS)
            assert await alice.connection.recv_datagram() == envelope(5)
            assert (await alice.get_status()).count == 0

    run(main())


def test_what_is_kept_is_synced_and_what_is_forgotten_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand members of a group acknowledge one by one: each would wait for the disk, and who writes for it."""
    synced: list[bool] = []
    genuine = Database.transaction

    def transaction(database: Database, **options: bool) -> Any:
        synced.append(options.get("synced", True))
        return genuine(database, **options)

    store = SqliteMailbox()
    register_alice(store)
    monkeypatch.setattr(Database, "transaction", transaction)
    store.add_envelopes([known(1)], NOW)
    store.acknowledge_envelopes(ALICE.id.key, [1])
    assert synced == [True, False]


def test_pieces_over_the_wire() -> None:
    async def main() -> None:
        async with serving(SqliteMailbox(), "pieces") as (_, client):
            alice, anybody = await client(ALICE), await client()
            await register(alice, ALICE)
            piece = os.urandom(256 * 1024)
            await anybody.put_piece(ALICE.id.key, piece, seconds=100, access=ACCESS)
            assert await anybody.has_pieces([piece_hash(piece), bytes(32)]) == [True, False]
            assert await alice.get_piece(piece_hash(piece)) == piece
            with pytest.raises(MailboxRefused):
                await anybody.put_piece(ALICE.id.key, bytes(400_000), seconds=100, access=ACCESS)

    run(main())


def test_room_costs_what_the_mailbox_says_and_is_paid_at_its_door_alone() -> None:
    limits = MailboxLimits(price_mib_month=7, free_bytes=4096, grace=60)

    async def main() -> None:
        async with serving(SqliteMailbox(limits=limits), "paid") as (mailbox, client):
            alice, anybody = await client(ALICE), await client()
            await register(alice, ALICE)
            mailbox.door = "dtp://0x1/dtp.mailbox"
            assert await anybody.get_price() == RoomPrice(7, mailbox.door, 4096, 60, Nearness.PROCESS)
            wrong = ((0, 1), (1, 0), (1, limits.months + 1), (limits.recipient_bytes, 1))
            for mib, months in (*wrong, (1, 1)):
                with pytest.raises(MailboxRefused) as refused:
                    await anybody.reserve_room(ALICE.id.key, mib, months)
                expected = Refusal.NOT_PAID if (mib, months) == (1, 1) else Refusal.MALFORMED
                assert refused.value.refusal is expected
            assert (await alice.get_status()).reserved == 0
        async with serving(SqliteMailbox(), "free") as (_, client):
            assert await (await client()).get_price() is None

    run(main())


def test_malformed_requests_end_their_stream_alone() -> None:
    async def main() -> None:
        async with serving(SqliteMailbox(), "malformed") as (mailbox, client):
            alice, mallory = await client(ALICE), await client()
            await register(alice, ALICE)
            bad = [
                b"\xc1",
                b"\x01",
                encode(1, 99)[4:],
                encode(1, int(MailboxOp.KEYS), b"short")[4:],
                b"\x92\x01\x01",
            ]
            for body in [*bad, None]:
                stream = await mallory.connection.open_stream()
                stream.write(
                    (1 << 30).to_bytes(4, "big") if body is None else len(body).to_bytes(4, "big") + body
                )
                with pytest.raises(dtp.StreamReset):
                    await stream.read()
            assert mailbox.counters["malformed"] == len(bad) + 1
            assert (await alice.get_status()).count == 0

    run(main())


@pytest.mark.parametrize(
    ("fault", "refusal"),
    [
        (StoreFailed("the disk is full"), Refusal.NOT_STORED),
        (StoreAway("the server is away"), Refusal.STORE_AWAY),
    ],
    ids=str,
)
def test_what_can_not_be_kept_is_said_and_nothing_is_promised(fault: StoreFailed, refusal: Refusal) -> None:
    class Full(SqliteMailbox):
        def add_envelopes(self, *arguments: object) -> list[object]:  # type: ignore[override]
            raise fault

    async def main() -> None:
        async with serving(Full(), "full") as (_, client):
            alice, anybody = await client(ALICE), await client()
            await register(alice, ALICE)
            with pytest.raises(MailboxRefused) as refused:
                await anybody.deposit_envelope(ALICE.id.key, envelope(1), seconds=9, access=ACCESS)
            assert refused.value.refusal is refusal
            assert REASONS[refusal] in str(refused.value)

    run(main())


def test_a_mailbox_that_answers_nonsense_is_found_out() -> None:
    async def lying(connection: Connection) -> None:
        async for stream in connection:
            await stream.readexactly(4)
            stream.write(encode(1, 0, b"made up", b""))

    async def main() -> None:
        address = dtp.Address.direct(SERVER.id, "memory://lying", MAILBOX_SERVICE)
        async with await dtp.listen("memory://lying", {MAILBOX_SERVICE: lying}, identity=SERVER):
            for ask, fault in (("get_keys", KeysForged), ("fetch", MailboxMalformed)):
                client = await MailboxClient.connect(address, identity=ALICE)
                with pytest.raises(fault):
                    await (client.get_keys(BOB.id.key, 0) if ask == "get_keys" else client.fetch_envelopes())
                await client.close()

    run(main())


@asynccontextmanager
async def flooded(size: int) -> AsyncIterator[MailboxClient]:
    """A client of a mailbox that answers its first request, and pushes what it likes."""

    async def flood(connection: Connection) -> None:
        async for stream in connection:
            await read(stream, 1000)
            stream.write(encode(1, 0))
            for number in range(1, 600):
                stream.write(encode(0, 0, number, 0, bytes(size)))
                await stream.drain()

    address = dtp.Address.direct(SERVER.id, "memory://flooding", MAILBOX_SERVICE)
    async with await dtp.listen("memory://flooding", {MAILBOX_SERVICE: flood}, identity=SERVER):
        yield await MailboxClient.connect(address, identity=ALICE)


@pytest.mark.parametrize(("watched", "size"), [(False, 512), (True, 1 << 20)])
def test_a_mailbox_that_pushes_what_nobody_asked_for_is_left(watched: bool, size: int) -> None:
    """A stranger's card names mailboxes: of each 1,024 pushes of 2 MiB were put by, where nobody takes any."""

    async def main() -> None:
        async with flooded(size) as client:
            await (client.watch_tray() if watched else client.forget_device())
            with pytest.raises(MailboxGone):
                await client.get_status()
            assert await client.pushes.get() is None

    run(main())


def test_a_mailbox_that_pushes_more_than_is_acknowledged_is_left() -> None:
    """Its answers stood behind what it had pushed, and were waited for before more of that was taken."""

    async def main() -> None:
        async with flooded(512) as client:
            await client.watch_tray()
            assert await client.pushes.get()
            with pytest.raises(MailboxGone):
                await client.acknowledge_envelopes([1])

    run(main())


def test_who_takes_what_is_pushed_learns_of_the_end_however_much_waits() -> None:
    """It waited for the next for ever, and came to this mailbox no more."""

    async def main() -> None:
        async with flooded(512) as client:
            await client.watch_tray()
            while not client.pushes.full():
                await asyncio.to_thread(bool)
            await client.close()
            taken = [client.pushes.get_nowait() for _ in range(client.pushes.qsize())]
            assert taken[-1] is None
            assert len(taken) == 256

    run(main())


@pytest.mark.parametrize("data", [b"\x90", b"\x92\xc2\x01", b"\x92\x01\xc3", b"\x92\x01\xff", b"\x80"])
def test_requests_and_answers_are_checked(data: bytes) -> None:
    for parse in (parse_request, parse_answer):
        with pytest.raises(MailboxMalformed):
            parse(data)


def test_new_devices_of_one_source_and_keys_from_the_future_are_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        limits = MailboxLimits(new_devices=1, new_device_pause=1000.0)
        async with serving(SqliteMailbox(limits=limits), "new") as (_, client):
            alice, bob = await client(ALICE), await client(BOB)
            await register(alice, ALICE)
            await register(alice, ALICE)  # it has its place
            with pytest.raises(MailboxRefused) as refused:
                await register(bob, BOB)
            assert refused.value.refusal is Refusal.TOO_OFTEN
            for away in (7200, -61 * DAY):  # seconds that its clock is away from the mailbox's
                keys = local(ALICE, (int(time.time()) + away) * 1000).keys
                with pytest.raises(MailboxRefused) as refused:
                    await alice.publish_keys(keys.encoded, [])
                assert refused.value.refusal is Refusal.CLOCK_DIFFERS

    run(main())
    assert (
        caplog.text.count(f"the clock of {ALICE.id} is 0.1 days ahead of this machine's") == 1
    )  # once an hour
    assert caplog.text.count("set the clock of this machine") == 1


def test_a_device_puts_there_only_a_card_that_names_it() -> None:
    async def main() -> None:
        async with serving(SqliteMailbox(), "card") as (_, client):
            alice = await client(ALICE)
            await register(alice, ALICE)
            own, bobs = (
                ContactCard(each.id.key, None, 1, 0, "", ()).signed_by(each) for each in (ALICE, BOB)
            )
            with pytest.raises(MailboxRefused) as refused:
                await alice.put_card(bobs)
            assert refused.value.refusal is Refusal.MALFORMED
            await alice.put_card(own)
            assert await alice.get_card(ALICE.id.key) == own

    run(main())


def test_one_source_leaves_so_many_bytes_whatever_devices_it_has() -> None:
    async def main() -> None:
        limits = MailboxLimits(source_bytes=3 * 1024)
        async with serving(SqliteMailbox(limits=limits), "volume") as (_, client):
            alice, bob = await client(ALICE), await client(BOB)
            for each, who in ((alice, ALICE), (bob, BOB)):
                await register(each, who)
                await each.put_piece(who.id.key, who.id.key * 30, seconds=9, access=ACCESS)
            await alice.deposit_envelope(ALICE.id.key, envelope(), seconds=9, access=ACCESS)
            with pytest.raises(MailboxRefused) as refused:
                await bob.deposit_envelope(BOB.id.key, envelope(), seconds=9, access=ACCESS)
            assert refused.value.refusal is Refusal.TOO_OFTEN
            with pytest.raises(MailboxRefused) as refused:
                await bob.put_piece(BOB.id.key, b"x", seconds=9, access=ACCESS)
            assert refused.value.refusal is Refusal.TOO_OFTEN

    run(main())


def test_one_source_never_has_all_places() -> None:
    """It had them in half an hour, for two months."""
    limits = MailboxLimits()
    places_later = limits.recipients - limits.new_devices
    assert places_later * limits.new_device_pause > LIFETIME_MS / 1000


def test_who_reads_no_answers_is_given_few() -> None:
    """Answers of a MiB each were put by for as many requests as came."""

    async def main() -> None:
        async with serving(SqliteMailbox(limits=MailboxLimits(requests=1)), "unread") as (mailbox, client):
            alice, other = await client(ALICE), await client()
            await register(alice, ALICE)
            await asyncio.gather(
                *(
                    other.deposit_envelope(ALICE.id.key, envelope(each, 65_536), seconds=99, access=ACCESS)
                    for each in range(20)
                )
            )
            reading = await client(ALICE)
            for _ in range(40):
                stream = await alice.connection.open_stream()
                for number in range(1, 11):
                    stream.write(encode(number, int(MailboxOp.FETCH), 0, 0, 20))
            for _ in range(200):
                await reading.get_status()
            assert 0 < mailbox.counters["fetch"] < 30  # what a client's window takes, and one more

    run(main())


def test_what_devices_say_of_themselves_is_limited_by_source() -> None:
    """Each waits for the disk, in front of others' deposits."""

    async def main() -> None:
        limits = MailboxLimits(changes=4, change_pause=1000.0)
        async with serving(SqliteMailbox(limits=limits), "changes") as (_, client):
            alice = await client(ALICE)
            await register(alice, ALICE)  # keys and settings
            await register(alice, ALICE)
            for ask in (alice.set_access(b"", 0), alice.publish_keys(b"", []), alice.forget_device()):
                with pytest.raises(MailboxRefused) as refused:
                    await ask
                assert refused.value.refusal is Refusal.TOO_OFTEN
            await alice.deposit_envelope(ALICE.id.key, envelope(1), seconds=9, access=ACCESS)
            assert (await alice.get_status()).count == 1

    run(main())


@pytest.mark.parametrize("step", [1, 7])
def test_a_disk_that_gets_full_within_a_write_has_all_that_was_promised(tmp_path: Path, step: int) -> None:
    """Any deposit may find it full: what was said to be kept is there, and it goes on afterwards."""
    path, said = tmp_path / "box.sqlite", tmp_path / "said"

    def fill() -> None:
        store = SqliteMailbox(path)
        register_alice(store)
        most = 200_000 + 4096 * step
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
        kept = 0
        with contextlib.suppress(StoreFailed):
            while kept < 1000:
                outcomes = store.add_envelopes([known(kept + each, 4096) for each in range(step)], NOW)
                assert {each.refusal for each in outcomes} == {Refusal.DONE}
                kept += step
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert 0 < kept < 1000
        said.write_text(str(kept))
        assert store.add_envelopes([known(5000)], NOW)[0].refusal is Refusal.DONE  # room again

    child = os.fork()
    if not child:
        status = 1
        try:
            fill()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with contextlib.closing(SqliteMailbox(path)) as store:
        found = store.fetch_envelopes(ALICE.id.key, Tray.KNOWN, 0, 2000, 1 << 30)
        kept = int(said.read_text())
        expected = [known(each, 4096).envelope for each in range(kept)]
        assert [each.envelope for each in found[:kept]] == expected
        told = store.device_status(ALICE.id.key)
        assert told is not None
        assert (told.count, told.bytes) == (len(found), sum(len(each.envelope) for each in found))


def test_two_processes_with_one_file_pass_no_quota_by_each_other(tmp_path: Path) -> None:
    limits = MailboxLimits(envelopes=50, recipient_bytes=40 * 512)
    stores = [SqliteMailbox(tmp_path / "box.sqlite", limits) for _ in range(2)]
    register_alice(stores[0])
    check_no_quota_is_passed(stores, 40)
    for each in stores:
        each.close()


def test_a_disk_that_is_nearly_full_takes_nothing_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqliteMailbox(tmp_path / "box.sqlite", MailboxLimits(disk_free=1 << 62))
    register_alice(store)
    assert [each.refusal for each in store.add_envelopes([known(1), known(2)], NOW)] == [
        Refusal.NOT_STORED
    ] * 2
    assert store.put_piece(ALICE.id.key, b"piece", 1000, ACCESS, NOW).refusal is Refusal.NOT_STORED
    assert store.put_card(ALICE.id.key, b"card").refusal is Refusal.NOT_STORED
    assert store.device_status(ALICE.id.key) is None  # nor a new device
    assert caplog.text.count("have to stay") == 1  # who runs it is told, once
    store.close()
    store = SqliteMailbox(tmp_path / "box.sqlite", MailboxLimits(disk_free=1))
    register_alice(store)
    assert [each.refusal for each in store.add_envelopes([known(1)], NOW)] == [Refusal.DONE]
    assert store.put_piece(ALICE.id.key, b"piece", 1000, ACCESS, NOW).refusal is Refusal.DONE
    store.close()
