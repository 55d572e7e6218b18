"""People who write to each other: through mailboxes, from several devices, in groups; and who means them harm."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import zlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from post_office import PostOffice, acquainted, known_identity, post_office, take, wait_notice

from dtp.identity import Account, Device, Identity
from dtp.messaging.cards import ContactCard
from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.errors import ConsentNeeded, MessageError, MessageTooLong, UnknownContact
from dtp.messaging.mailbox import MailboxClient
from dtp.messaging.mailbox.store import Tray
from dtp.messaging.person.attachments import PIECE, AttachmentGone, AttachmentTooLarge
from dtp.messaging.person.delivery import now_ms
from dtp.messaging.person.messenger import Messenger
from dtp.messaging.person.notices import What
from dtp.messaging.person.storage.store import MessageStore

Test = Callable[[Callable[[PostOffice], Awaitable[None]]], None]


@pytest.fixture
def office(tmp_path: Path, request: pytest.FixtureRequest) -> Test:
    name = str(zlib.crc32(request.node.name.encode()))  # short enough for a host
    return lambda test: post_office(test, tmp_path, name)


async def texts(messenger: Messenger, conversation: object) -> list[str]:
    return [each.text for each in await messenger.history(conversation)]  # type: ignore[arg-type]


def test_two_people_who_are_never_there_at_once(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        async with at.messenger("alice", box) as alice:
            await alice.wait_reached()
            alices_card = alice.card
        async with at.messenger("bob", box) as bob:
            await bob.wait_reached()
            await bob.send(alices_card, "see you at eight")
            await bob.wait_delivered()
        async with at.messenger("alice", box) as alice:
            (message,) = await take(alice, 1)
            assert (message.text, message.sender_name) == ("see you at eight", "bob")
            assert message.group is None
            await message.reply("I'll be there")
            await alice.wait_delivered()
        async with at.messenger("bob", box) as bob:
            (answer,) = await take(bob, 1)
            assert answer.text == "I'll be there"
            assert answer.reply_to == message.id
            assert await texts(bob, alices_card) == ["see you at eight", "I'll be there"]

    office(main)


def test_a_message_is_delivered_whatever_waits_for_somebody_else(office: Test) -> None:
    """One mailbox that was gone had each message to anybody count as kept, and waited for."""

    async def main(at: PostOffice) -> None:
        alice, carol = (
            await at.begin("alice", await at.open()),
            await at.begin("carol", await at.open("away")),
        )
        await at.shut("away")
        async with at.messenger("bob") as bob:
            kept = await bob.send(carol.card, "you are away")
            sent = await bob.send(alice.card, "you are there")
            await bob.wait_delivered(message=sent)
            assert [await bob.delivery.count_unsent(message=each.id) for each in (sent, kept)] == [0, 1]
        assert [each.text for each in await take(alice, 1)] == ["you are there"]

    office(main)


def test_what_was_on_its_way_when_a_program_ended_goes_out_the_next_time(office: Test) -> None:
    """It counted as sent, though no mailbox had it, and waited for five minutes of a program that ran for seconds."""
    started = asyncio.Event()

    class Waiting(MailboxClient):
        async def deposit_envelope(self, *told: Any, **options: Any) -> None:
            started.set()
            await asyncio.Event().wait()

    async def connect(address: str, identity: Identity | None) -> MailboxClient:
        return await Waiting.connect(address, identity=identity)

    async def main(at: PostOffice) -> None:
        box = await at.open()
        async with at.messenger("alice", box) as alice:
            await alice.wait_reached()
            card = alice.card
        async with at.messenger("bob", box, connect=connect) as bob:
            await bob.send(card, "on its way")
            await started.wait()
        async with at.messenger("bob", box) as bob:
            assert await bob.delivery.count_unsent() == 2  # and his card
            await bob.wait_delivered()
        async with at.messenger("alice", box) as alice:
            (got,) = await take(alice, 1)
            assert got.text == "on its way"

    office(main)


def test_receipts_edits_deletions_reactions_and_replies(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        async with acquainted(at, await at.open()) as (alice, bob):
            sent = await alice.send("bob", "at seven")
            (got,) = await take(bob, 1)
            notice = await wait_notice(alice, What.READ)
            assert (notice.message, notice.person) == (sent.id, bob.card.person)
            assert await sent.receipts() == {bob.card.person: True}
            await sent.edit("at eight")
            await wait_notice(bob, What.CHANGED)
            await got.react("👍")
            await wait_notice(alice, What.CHANGED)
            for each in (alice, bob):
                (shown,) = await each.history(alice.card.person if each is bob else bob.card.person)
                assert (shown.text, shown.edited) == ("at eight", True)
                assert shown.reactions == {bob.card.person: "👍"}
            with pytest.raises(MessageError, match="only the person who wrote"):
                await got.edit("forged")
            await sent.delete()
            await wait_notice(bob, What.CHANGED)
            (shown,) = await bob.history(alice.card)
            assert (shown.text, shown.deleted) == ("", True)

    office(main)


def test_what_was_not_marked_as_read_is_given_again_and_what_was_is_not(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        alice = await at.begin("alice", box)
        async with at.messenger("bob", box) as bob:
            await bob.wait_reached()
            for number in range(3):
                await alice.send(bob.card, str(number))
            seen = []
            async for message in bob:
                seen.append(message.text)
                if message.text == "0":
                    await message.mark_read()
                if len(seen) == 3:
                    break
        async with at.messenger("bob", box) as bob:
            assert [each.text for each in await take(bob, 2)] == ["1", "2"]
        async with at.messenger("bob", box) as bob:
            await alice.send("bob", "3")
            assert [each.text for each in await take(bob, 1)] == ["3"]

    office(main)


def test_a_message_takes_no_longer_the_more_was_said_before(
    office: Test, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(at: PostOffice) -> None:
        async with acquainted(at, await at.open()) as (alice, bob):
            read: list[int] = []
            genuine = MessageStore.read_events

            def counted(*arguments: Any, **options: Any) -> Any:
                found = genuine(*arguments, **options)
                read.append(len(found))
                return found

            monkeypatch.setattr(MessageStore, "read_events", counted)
            for number in range(8):
                sent = await alice.send("bob", str(number))
                assert (sent.id, sent.text, sent.own) == (sent.id, str(number), True)
                assert [each.text for each in await take(bob, 1)] == [str(number)]
            await alice.send("bob", "unread")
            assert [each.text for each in await take(bob, 1)] == ["unread"]
            assert [each.text for each in await bob.unread()] == []
            await sent.edit("8")
            await wait_notice(bob, What.CHANGED)
            assert max(read) == 1

    office(main)


@pytest.mark.slow
def test_who_can_keep_nothing_more_is_told_why_nothing_comes(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        async with acquainted(at, await at.open()) as (alice, bob):
            other = sqlite3.connect(at.folder / "bob.db", isolation_level=None)
            try:
                other.execute("BEGIN EXCLUSIVE")
                await alice.send("bob", "hello")
                assert "locked" in (await wait_notice(bob, What.STORE_FAILED)).detail
            finally:
                other.close()
            assert [each.text for each in await take(bob, 1)] == ["hello"]

    office(main)


def test_typing_is_of_the_moment(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        async with acquainted(at, await at.open()) as (alice, bob):
            await alice.send("bob", "a session to say it by")
            await take(bob, 1)
            await alice.set_typing("bob")
            notice = await wait_notice(bob, What.TYPING)
            assert (notice.person, notice.detail) == (alice.card.person, "on")
            await alice.send("bob", "after it")
            assert [each.text for each in await take(bob, 1)] == ["after it"]

    office(main)


def test_messages_that_disappear(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        async with acquainted(at, await at.open()) as (alice, bob):
            await alice.send("bob", "for a moment", disappear=timedelta(seconds=30))
            (message,) = await take(bob, 1)
            assert message.disappear == 30
            for each in (alice, bob):  # by when delivery looks at it: it did every five minutes
                at_ms = await each.delivery.run_in_thread(each.correspondence.store.next_vanishing)
                assert at_ms is not None
                assert at_ms - message.sent_at.timestamp() * 1000 >= 29_999
            later = 10**9
            for each, other in ((alice, bob), (bob, alice)):
                assert await texts(each, other.card) == ["for a moment"]
                now = int(message.sent_at.timestamp() * 1000)
                assert await each.delivery.run_in_thread(each.correspondence.keep_up, now) == 0
                assert await each.delivery.run_in_thread(each.correspondence.keep_up, now + later) == 1
                assert await texts(each, other.card) == []
                assert await each.delivery.run_in_thread(each.correspondence.store.next_vanishing) is None

    office(main)


def test_an_upload_goes_on_where_it_broke_off(office: Test, tmp_path: Path) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        async with acquainted(at, box) as (alice, bob):
            counts = at.mailboxes["box"].counters
            data = os.urandom(20 * PIECE + 1)
            (tmp_path / "film").write_bytes(data)
            await alice.send("bob", "first", attachments=[tmp_path / "film"])
            assert counts["put_piece"] == 22  # and the index
            store = at.mailboxes["box"].store
            (first,) = await alice.history("bob")
            gone = [
                each for number, each in enumerate(await first.attachments[0]._read_index()) if number % 2
            ]
            with store._database.transaction() as db:  # type: ignore[attr-defined]  # as if it had broken off
                db.executemany("DELETE FROM pieces WHERE hash = ?", [(each,) for each in gone])
            client = alice.delivery.own[box]
            await client.connection.close()  # and nobody has noticed yet
            await alice.send("bob", "again", attachments=[tmp_path / "film"])
            assert counts["put_piece"] == 22 + len(gone) == 32
            _, message = await take(bob, 2)
            saved = await message.attachments[0].save(tmp_path / "saved")
            assert saved.read_bytes() == data
            (tmp_path / "film").write_bytes(data[:-1] + b"?")
            await alice.send("bob", "another", attachments=[tmp_path / "film"])
            (other,) = await take(bob, 1)
            assert other.attachments[0].key != message.attachments[0].key
            await alice.send("bob", "by another", attachments=[tmp_path / "film"])
            await bob.send("alice", "mine", attachments=[tmp_path / "film"])
            (theirs,) = await take(alice, 1)
            assert theirs.attachments[0].key != other.attachments[0].key  # each device has its own

    office(main)


def test_a_file_that_changes_while_it_is_read_is_not_sent(office: Test, tmp_path: Path) -> None:
    async def main(at: PostOffice) -> None:
        async with acquainted(at, await at.open()) as (alice, _):
            film = tmp_path / "film"
            film.write_bytes(os.urandom(18 * PIECE))
            client = next(iter(alice.delivery.own.values()))
            put = client.put_piece

            async def put_and_change(*told: object, **options: object) -> None:
                with film.open("r+b") as file:
                    file.seek(17 * PIECE)
                    file.write(b"other")
                await put(*told, **options)  # type: ignore[arg-type]

            client.put_piece = put_and_change
            with pytest.raises(MessageError, match="has changed while it was read"):
                await alice.send("bob", "x", attachments=[film])
            assert await alice.history("bob") == []

    office(main)


def test_attachments_are_sealed_resumed_and_bounded(office: Test, tmp_path: Path) -> None:
    async def main(at: PostOffice) -> None:
        async with acquainted(at, await at.open()) as (alice, bob):
            data = os.urandom(2 * PIECE + 1000)
            (tmp_path / "map.png").write_bytes(data)
            (tmp_path / "empty").write_bytes(b"")
            await alice.send("bob", "the map", attachments=[tmp_path / "map.png", tmp_path / "empty"])
            (message,) = await take(bob, 1)
            big, empty = message.attachments
            assert (big.name, big.size) == ("map.png", len(data))
            kept = at.folder.joinpath("box.sqlite").read_bytes()
            assert data[:64] not in kept
            with pytest.raises(AttachmentTooLarge):
                await big.save(tmp_path / "got", limit=1000)
            part = tmp_path / f"got.{big.mark}.dtp-part"
            part.write_bytes(data[:PIECE] + b"half of a piece")
            assert (await big.save(tmp_path / "got")).read_bytes() == data
            assert not part.exists()
            assert (await empty.save(tmp_path / "none")).read_bytes() == b""
            await message.forward(bob.card.person)
            copy = (await bob.history(bob.card.person))[-1]
            assert copy.forwarded_from == alice.card.person
            store = at.mailboxes["box"].store
            store.expire_envelopes(10**11)
            with pytest.raises(AttachmentGone):
                await big.save(tmp_path / "later")

    office(main)


def test_what_others_call_their_files_replaces_and_hides_nothing(office: Test, tmp_path: Path) -> None:
    async def main(at: PostOffice) -> None:
        async with acquainted(at, await at.open()) as (alice, bob):
            mine, theirs, kept = tmp_path / "mine", tmp_path / "theirs", tmp_path / "kept"
            for folder in (mine, theirs, kept):
                folder.mkdir()
            (mine / "map.png").write_bytes(os.urandom(PIECE + 1))
            (mine / ".profile").write_text("echo stolen")
            (mine / ("ü" * 120 + ".txt")).write_text("long")
            (theirs / "map.png").write_bytes(os.urandom(PIECE + 2))
            await alice.send("bob", "", attachments=sorted(mine.iterdir()))
            await alice.send("bob", "", attachments=[theirs / "map.png"])
            (first, second) = await take(bob, 2)
            hidden, own, long = sorted(first.attachments, key=lambda each: each.name)
            (kept / "map.png").write_text("what Bob has")
            theirs_part = kept / f"map (3).png.{second.attachments[0].mark}.dtp-part"
            theirs_part.write_bytes((theirs / "map.png").read_bytes()[: PIECE + 1])  # it broke off
            (kept / "map (2).png.part").write_text("what Bob's browser is loading")
            assert await own.save(kept) == kept / "map (2).png"
            assert (kept / "map (2).png").read_bytes() == (mine / "map.png").read_bytes()
            assert await second.attachments[0].save(kept) == kept / "map (3).png"
            assert (kept / "map (3).png").read_bytes() == (theirs / "map.png").read_bytes()
            assert (kept / "map.png").read_text() == "what Bob has"
            assert (await hidden.save(kept)).name == "profile"
            assert (await long.save(kept)).read_text() == "long"
            assert [each.read_text() for each in kept.glob("*part")] == ["what Bob's browser is loading"]
            assert (
                await own.save(kept / "map.png") == kept / "map.png"
            )  # the program names it: it is replaced
            assert (kept / "map.png").read_bytes() == (mine / "map.png").read_bytes()
            with pytest.raises(MessageError, match="can't be stored"):
                await own.save(kept / "nowhere" / "map.png")

    office(main)


def test_several_mailboxes_each_message_once_and_one_that_dies(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        first, second = await at.open("one"), await at.open("two")
        alice = await at.begin("alice", second)
        bob = await at.begin("bob", first, second)
        while len(bob.delivery.own) < 2:
            bob.delivery.reached.clear()
            await bob.delivery.reached.wait()
        await alice.send(bob.card, "by the first")
        assert [each.text for each in await take(bob, 1)] == ["by the first"]
        await at.shut("one")
        await alice.send("bob", "by the second")
        assert [each.text for each in await take(bob, 1)] == ["by the second"]
        # A mailbox that keeps what it said it forgot, and gives it again: from both.
        await at.open("one")
        assert await texts(bob, alice.card) == ["by the first", "by the second"]

    office(main)


def test_strangers_pay_with_work_and_wait_in_their_own_tray(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        bob = await at.begin("bob", box, stamp_bits=10)
        eve = await at.begin("eve", box)
        await eve.send(bob.card.public(), "you don't know me")
        (message,) = await take(bob, 1)
        sender = message.sender
        assert sender is not None
        assert sender.stranger
        store = at.mailboxes["box"].store
        assert at.mailboxes["box"].counters["refused:stamp_needed"] == 2  # the card, and the text
        while store.fetch_envelopes(bob.identity.id.key, Tray.STRANGERS, 0, 9, 1 << 20):
            bob.delivery.took.clear()
            await bob.delivery.took.wait()
        await message.reply("now I do")
        await take(eve, 1)
        known = bob.find_contact(eve.card.person)
        assert known is not None
        assert not known.stranger
        await bob.block("eve")
        await eve.send("bob", "unheard")
        await eve.wait_delivered()
        await bob.wait_collected()
        await bob.unblock("eve")
        await eve.send("bob", "heard")
        assert [each.text for each in await take(bob, 1)] == ["heard"]

    office(main)


def account_of(*names: str) -> Account:
    devices = [Device(known_identity(each).id.key, each) for each in names]
    return Account.create(known_identity("key"), known_identity("recovery").id, devices)


def test_several_devices_of_each_person_one_approved_and_one_revoked(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        desktop = await at.begin("alice-desktop", box, account=account_of("alice-desktop"))
        phone = await at.begin("alice-phone")
        bob = await at.begin("bob", box)
        await desktop.add_contact(bob.card)
        await desktop.send("bob", "from the desktop")
        await take(bob, 1)
        card = await desktop.approve_device(phone.identity.id, "phone", history=timedelta(days=1))
        assert len(card.devices) == 2
        await phone.join(card)
        assert phone.card.person == desktop.card.person
        await wait_notice(bob, What.CONTACT_CHANGED)
        # What was said before comes to the new device, and what is said now comes to both.
        while await texts(phone, bob.card) != ["from the desktop"]:
            await wait_notice(phone, What.CHANGED)
        await bob.send(desktop.card.person, "to both")
        for each in (desktop, phone):
            assert [one.text for one in await take(each, 1)] == ["to both"]
        await phone.send("bob", "from the phone")
        assert [one.text for one in await take(bob, 1)] == ["from the phone"]
        while (await texts(desktop, bob.card))[-1] != "from the phone":
            await wait_notice(desktop, What.CHANGED)
        assert await texts(desktop, bob.card) == await texts(phone, bob.card)
        # The phone is lost.
        await desktop.revoke_device(phone.identity.id)
        await wait_notice(bob, What.CONTACT_CHANGED)
        await bob.send(desktop.card.person, "not for the phone")
        await bob.wait_delivered()
        assert [one.text for one in await take(desktop, 1)] == ["not for the phone"]
        await phone.send("bob", "the thief writes")
        await phone.wait_delivered()
        await desktop.send("bob", "the owner writes")
        assert [one.text for one in await take(bob, 1)] == ["the owner writes"]
        assert "not for the phone" not in await texts(phone, bob.card)
        assert "the thief writes" not in await texts(bob, desktop.card)

    office(main)


@pytest.mark.parametrize("consent", ["tell", "ask"])
def test_a_replaced_key_is_noticed(office: Test, consent: str) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        before = account_of("alice")
        alice = await at.begin("alice", box, account=before)
        bob = await at.begin("bob", box, consent=consent)
        await bob.add_contact(alice.card)
        await alice.add_contact(bob.card)
        number = bob.safety_number("alice")
        assert number == alice.safety_number("bob")
        assert await bob.verify("alice", alice.safety_code("bob"))
        assert bob.contacts[0].verified
        after = Account.rotate(
            before.card,
            known_identity("recovery"),
            known_identity("key2"),
            known_identity("recovery2").id,
            [*before.card.devices, Device(known_identity("thief").id.key)],
        )
        other = ContactCard(after.identity.id.key, after.card, 1, 0, "alice", (box,)).signed_by(
            after.identity
        )
        thief = await at.begin("thief", box, account=after)
        await thief.add_contact(bob.card)
        await thief.send("bob", "it's me, with another key")
        what = await wait_notice(bob, What.KEY_REPLACED, What.CONSENT_NEEDED)
        assert bob.safety_number(alice.card) != number
        if consent == "tell":
            assert what.what is What.KEY_REPLACED
            assert not bob.contacts[0].verified
            assert [each.text for each in await take(bob, 1)] == ["it's me, with another key"]
            return
        assert what.what is What.CONSENT_NEEDED
        with pytest.raises(ConsentNeeded):
            await bob.send(alice.card.person, "who are you?")
        assert await texts(bob, other) == []
        await bob.accept_key(alice.card.person)
        assert [each.text for each in await take(bob, 1)] == ["it's me, with another key"]
        await bob.send(alice.card.person, "welcome back")

    office(main)


def test_an_older_card_changes_nothing(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        alice = await at.begin("alice", box)
        bob = await at.begin("bob", box)
        old = alice.card
        await alice.delivery.run_in_thread(
            alice.correspondence.set_profile, "Alice", (box,), 2 * old.sequence
        )
        await bob.add_contact(alice.card)
        await bob.add_contact(old)
        assert bob.contacts[0].card.name == "Alice"
        with pytest.raises(MessageError, match="your own"):
            await bob.add_contact(bob.card)

    office(main)


def test_a_restored_backup_reuses_no_key_and_loses_nothing_that_was_not_read(
    office: Test, tmp_path: Path
) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        bob = await at.begin("bob", box)
        async with at.messenger("alice", box) as alice:
            await alice.wait_reached()
            await alice.add_contact(bob.card)
            await alice.send("bob", "one")
            await take(bob, 1)
            instance = alice.correspondence.desk.local.instance
        shutil.copy(tmp_path / "alice.db", tmp_path / "backup.db")
        async with at.messenger("alice", box) as alice:
            assert alice.correspondence.desk.renewed == ""
            await alice.send("bob", "two, after the backup")
            await take(bob, 1)
            await bob.send(alice.card, "an answer")
            await take(alice, 1)
        for end in ("", "-wal", "-shm"):
            Path(f"{tmp_path}/alice.db{end}").unlink(missing_ok=True)  # noqa: ASYNC240  # nothing else runs
        shutil.copy(tmp_path / "backup.db", tmp_path / "alice.db")
        async with at.messenger("alice", box) as alice:
            told = (await wait_notice(alice, What.RENEWED)).detail
            assert "restored" in told
            assert "frame" not in told  # which are of graphs
            assert alice.correspondence.desk.local.instance != instance
            await alice.wait_reached()
            await alice.send("bob", "three, from the restored one")
            assert [each.text for each in await take(bob, 1)] == ["three, from the restored one"]
            await bob.send(alice.card.person, "still there")
            found = [each.text for each in await take(alice, 1)]
            while "still there" not in found:  # what Bob wasn't told of before comes again
                found += [each.text for each in await take(alice, 1)]
            assert found in (["an answer", "still there"], ["still there"])
            assert (await texts(alice, bob.card)).count("one") == 1

    office(main)


@pytest.mark.parametrize("restored", [False, True], ids=["empty", "from before the card"])
def test_a_device_that_begins_anew_is_told_again_whose_messages_they_are(
    office: Test, tmp_path: Path, restored: bool
) -> None:
    """Of what it had acknowledged nothing comes again; without Bob's card it would take nothing of his any more."""

    async def main(at: PostOffice) -> None:
        box = await at.open()
        bob = await at.begin("bob", box)
        async with at.messenger("alice", box) as alice:
            await alice.wait_reached()
            await alice.add_contact(bob.card)
        shutil.copy(tmp_path / "alice.db", tmp_path / "backup.db")
        async with at.messenger("alice", box) as alice:
            await alice.wait_reached()
            await alice.send("bob", "one")
            await take(bob, 1)
            await bob.send(alice.card, "an answer")
            await take(alice, 1)
            waiting = bob.correspondence.store.count_waiting
            while await bob.delivery.run_in_thread(waiting, alice.identity.id.key):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        for end in ("", "-wal", "-shm"):
            Path(f"{tmp_path}/alice.db{end}").unlink(missing_ok=True)  # noqa: ASYNC240
        if restored:
            shutil.copy(tmp_path / "backup.db", tmp_path / "alice.db")
        async with at.messenger("alice", box) as alice:
            await alice.wait_reached()
            await alice.add_contact(bob.card)
            await alice.send("bob", "from anew")
            assert [each.text for each in await take(bob, 1)] == ["from anew"]
            await bob.send(alice.card.person, "still there")
            assert [each.text for each in await take(alice, 1)] == ["still there"]

    office(main)


def test_groups_in_which_members_come_and_go(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        alice, bob, carol, dan = [await at.begin(each, box) for each in ("alice", "bob", "carol", "dan")]
        for each in (bob, carol):
            await alice.add_contact(each.card)
        group = await alice.create_group("choir", ["bob", "carol"])
        await group.send("rehearsal moved")
        for each in (bob, carol):
            (message,) = await take(each, 1)
            assert message.group is not None
            assert (message.text, message.group.name) == ("rehearsal moved", "choir")
        # Bob and Carol don't know each other but by the group.
        (bobs,) = bob.groups
        await bobs.send("where to?")
        for each in (alice, carol):
            assert [one.text for one in await take(each, 1)] == ["where to?"]
        with pytest.raises(MessageError, match="only administrators"):
            await bobs.add(carol.card)
        await alice.add_contact(dan.card)
        await group.add("dan")
        await group.remove("carol")
        await group.rename("small choir")
        await group.send("without Carol")
        for each in (bob, dan):
            assert [one.text for one in await take(each, 1)] == ["without Carol"]
        (dans,) = dan.groups
        assert [each.text for each in await dans.history()] == ["without Carol"]  # nothing of before
        assert dans.name == bobs.name == "small choir"
        assert carol.card.person not in bobs.members
        # Carol was told, and goes on by other means: nobody shows it.
        (carols,) = carol.groups
        with pytest.raises(MessageError, match="any more"):
            await carols.send("am I still here?")
        await carol.delivery.run_in_thread(speak_anyway, carol, group.id, "am I still here?")
        carol.delivery.wake_up()
        await carol.wait_delivered()
        await dans.send("hello")
        for each in (alice, bob):
            assert [one.text for one in await take(each, 1)] == ["hello"]
        assert "am I still here?" not in await texts(bob, bobs.id)
        assert "without Carol" not in await texts(carol, carols.id)
        assert await texts(alice, group.id) == ["rehearsal moved", "where to?", "without Carol", "hello"]

    office(main)


def speak_anyway(messenger: Messenger, group: bytes, text: str) -> None:
    """What a program would do that somebody has changed."""
    mail = messenger.correspondence
    event = Event(EventKind.TEXT, group, 99, now_ms(), {"text": text})
    with mail.desk.transaction():
        mail.desk.enqueue_event(mail.devices_of(group), event)


def test_what_can_not_be_sent(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        alice = await at.begin("alice")
        with pytest.raises(UnknownContact):
            await alice.send("nobody", "x")
        with pytest.raises(MessageTooLong):
            await alice.send(alice.card, "x" * 70_000)
        with pytest.raises(MessageError, match="no mailbox"):
            await alice.send(alice.card, "x", attachments=["nothing"])
        await alice.send(alice.card, "a note to myself")
        assert await texts(alice, alice.card) == ["a note to myself"]
        with pytest.raises(MessageError, match="account's key"):
            await alice.revoke_device(alice.identity.id)

    office(main)
