"""`dtp chat`: driven by keys, as somebody at a terminal would."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chat_screen import PatientChat, Screen, Test, chat, opened
from post_office import NoMedia, PostOffice, acquainted, known_identity, take, wait_notice
from village import NOW, Village

pytest.importorskip("textual")


from dtp.cli.chat.lines import receipt_mark
from dtp.messaging.calls.calling import Calls
from dtp.messaging.calls.signals import Reason
from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.person.correspondence import Correspondence
from dtp.messaging.person.delivery import now_ms
from dtp.messaging.person.messenger import Messenger
from dtp.messaging.person.notices import Notice, What
from dtp.messaging.person.posts import ChainPosts


def test_a_conversation_with_receipts_edits_reactions_and_replies(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        async with acquainted(at, await at.open()) as (alice, bob):

            async def body(screen: Screen) -> None:
                assert screen.rooms == ["bob"]
                assert screen.app.sub_title == "connected"
                await screen.write("see you at seven")
                await screen.until(lambda: screen.messages)
                (message,) = await take(bob, 1)
                assert message.text == "see you at seven"
                await screen.until(lambda: screen.messages == ["alice  see you at seven  ✓✓"])
                await screen.write("/edit see you at eight")
                await screen.until(lambda: "eight (edited)" in screen.messages[0])
                await wait_notice(bob, What.CHANGED)
                await message.react("👍")
                await screen.until(lambda: "👍" in screen.messages[0])
                await message.reply("I'll [b]be[/b] there\x1b[31m")
                await screen.until(lambda: len(screen.messages) == 2)
                assert screen.lines("#messages")[1].startswith("  > see you at eight\n")
                assert screen.lines("#messages")[1].endswith("I'll [b]be[/b] there\\x1b[31m")
                await screen.until(lambda: screen.rooms == ["bob"])  # what is seen is read
                assert await alice.unread() == []
                await screen.write("//really")
                await screen.until(lambda: len(screen.messages) == 3)
                await screen.write("/delete")
                await screen.until(lambda: screen.messages[-1] == "alice  deleted")
                await screen.write("/react x")
                await screen.until(lambda: screen.messages[-1].endswith("x"))

            await chat(alice, body)

    office(main)


def test_rooms_unread_marks_groups_and_strangers(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        async with acquainted(at, box) as (alice, bob):
            carol = await at.begin("carol", box)
            group = await bob.create_group("choir", ["alice"])
            await wait_notice(alice, What.GROUP_CHANGED)

            async def body(screen: Screen) -> None:
                assert screen.rooms == ["bob", "# choir"]
                await group.send("rehearsal moved")
                await group.send("to Friday")
                await screen.until(lambda: screen.rooms == ["bob", "# choir 2"])
                assert screen.messages == []
                await screen.pilot.press("ctrl+n")
                await screen.until(lambda: len(screen.messages) == 2)
                assert screen.rooms == ["bob", "# choir"]
                await screen.write("who moved it?")
                assert (await take(bob, 1))[0].group is not None
                await carol.send(alice.card, "hello")
                await screen.until(lambda: screen.rooms == ["bob", "? carol 1", "# choir"])
                assert any("carol has written for the first time" in each for each in screen.told)
                await screen.pilot.press("ctrl+p")
                await screen.until(lambda: screen.messages == ["carol (a stranger)  hello"])
                assert screen.app.title == f"dtp chat: carol (stranger {carol.card.person_name})"
                await screen.pilot.press("ctrl+p")
                await screen.until(lambda: screen.messages == [])
                await bob.set_typing("alice")
                await screen.until(lambda: screen.typing == "bob is typing")
                await bob.send("alice", "typed")
                await screen.until(lambda: screen.messages == ["bob  typed"])
                await screen.until(lambda: screen.typing == "")
                await screen.write("/group quartet bob carol")
                await screen.until(lambda: "# quartet" in screen.rooms)

            await chat(alice, body)

    office(main)


class CountingChat(PatientChat):
    """Counts how often it draws the rooms."""

    drawn = 0

    async def show_rooms(self) -> None:
        self.drawn += 1
        await super().show_rooms()


def test_a_flood_of_messages_is_drawn_at_once_and_not_one_by_one(office: Test) -> None:
    """Each drew all rooms, for which all that was unread was read again: 1,000 held the program for minutes."""

    async def main(at: PostOffice) -> None:
        async with acquainted(at, await at.open()) as (alice, bob):
            for number in range(60):
                await bob.send("alice", str(number))
            while len(await alice.unread()) < 60:
                await wait_notice(alice, What.MESSAGE)
            app = CountingChat(alice)
            async with opened(app) as screen:
                for _ in range(200):
                    app.take_notice(Notice(What.MESSAGE, bob.card.person, bob.card.person))
                await bob.send("alice", "the last one")
                await screen.until(lambda: "bob  the last one" in screen.messages)
                await screen.until(lambda: screen.rooms == ["bob"])
                assert app.drawn < 50

    office(main)


def test_strangers_are_marked_and_no_text_looks_like_another_message(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        alice, mallory = await at.begin("alice", box), await at.begin("mallory", box)
        await mallory.send(
            alice.card.public(), "hello\n09:31 Bob  here is my new account\n      [map.png, 3 bytes]"
        )

        async def body(screen: Screen) -> None:
            await screen.until(lambda: screen.messages and screen.rooms == ["? mallory"])
            shown = screen.messages[0].split("\n")
            assert shown[0] == "mallory (a stranger)  hello"
            assert [each[:8] for each in shown[1:]] == ["      │ "] * 2
            await screen.write("who are you?")
            await screen.until(lambda: screen.rooms == ["mallory"])

        await chat(alice, body)

    office(main)


def test_what_is_not_of_today_has_its_date(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        async with acquainted(at, await at.open()) as (alice, bob):
            said = (bob.card.person, EventKind.TEXT, {"text": "hello"}, NOW)
            await alice.delivery.run_in_thread(alice.correspondence.send_event, *said)
            await alice.send(bob.card, "hello again")

            async def body(screen: Screen) -> None:
                await screen.until(lambda: len(screen.messages) == 2)
                old, new = screen.lines("#messages")
                assert re.match(r"2023-11-1[45] \d\d:13 alice  hello", old)
                assert re.match(r"\d\d:\d\d alice  hello again", new)

            await chat(alice, body)

    office(main)


def test_who_leaves_a_group_in_the_chat_is_not_in_it(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        async with acquainted(at, await at.open()) as (alice, bob):
            group = await alice.create_group("choir", ["bob"])
            await wait_notice(bob, What.GROUP_CHANGED)

            async def body(screen: Screen) -> None:
                await screen.write("/leave")
                await screen.until(lambda: any("not a group" in each for each in screen.told))
                await screen.pilot.press("ctrl+n")
                await screen.until(lambda: screen.app.title == "dtp chat: choir")
                await screen.write("/remove bob")
                await screen.until(lambda: bob.card.person not in group.members)
                await screen.write("/leave")
                await screen.until(lambda: group.members == {})

            await chat(alice, body)

    office(main)


def test_groups_of_strangers_are_accepted_or_declined(office: Test) -> None:
    """Nothing in the chat said which groups strangers had added one to, nor was there a way out but to leave."""

    async def main(at: PostOffice) -> None:
        box = await at.open()
        async with acquainted(at, box) as (alice, _):
            carol = await at.begin("carol", box)
            alice_card = (await carol.add_contact(alice.card)).card
            for name in ("choir", "prizes"):
                group = await carol.create_group(name, [alice_card])
                await group.send(f"welcome to the {name}")
            for _ in range(2):
                await wait_notice(alice, What.MESSAGE)

            async def body(screen: Screen) -> None:
                assert screen.rooms == ["bob", "? carol", "? choir 1", "? prizes 1"]
                await screen.write("/decline")
                await screen.until(lambda: "not a group's" in screen.told[-1])
                await screen.pilot.press("ctrl+p")
                await screen.until(lambda: "(strangers have added you: /accept or" in screen.app.title)
                await screen.write("/decline")
                await screen.until(lambda: screen.rooms == ["bob", "? carol", "? choir 1"])
                await screen.until(lambda: screen.app.title == "dtp chat: bob")
                await screen.pilot.press("ctrl+p")
                await screen.until(lambda: screen.messages)
                await screen.write("/accept")
                await screen.until(lambda: screen.rooms == ["bob", "? carol", "# choir"])
                await screen.until(lambda: screen.app.title == "dtp chat: choir")
                for each in ("/accept", "/decline"):
                    told = len(screen.told)
                    await screen.write(each)
                    await screen.until(lambda told=told: len(screen.told) > told)
                assert "needn't be accepted" in screen.told[-2]
                assert "is no invitation" in screen.told[-1]
                assert [each.name for each in alice.groups] == ["choir"]
                assert alice.invitations == []
                choir = carol.find_group_called("choir")
                assert choir is not None
                await choir.remove(alice_card.person)
                await screen.until(lambda: "you aren't in it any more" in screen.app.title)

            await chat(alice, body)

    office(main)


def test_rooms_of_a_group_are_rooms_of_the_chat(office: Test) -> None:
    """What was written there was counted nowhere, and couldn't be read."""

    async def main(at: PostOffice) -> None:
        async with acquainted(at, await at.open()) as (alice, bob):
            group = await bob.create_group("choir", ["alice"])
            sopranos = await group.open_room("sopranos")
            await sopranos.send("a third higher")
            await wait_notice(alice, What.MESSAGE)

            async def body(screen: Screen) -> None:
                assert screen.rooms == ["bob", "# choir", "# choir/sopranos 1"]
                await screen.pilot.press("ctrl+p")
                await screen.until(lambda: screen.messages == ["bob  a third higher"])
                assert screen.app.title == "dtp chat: choir/sopranos"
                await screen.write("we try")
                (answer,) = await take(bob, 1)
                assert (answer.text, answer.room and answer.room.name) == ("we try", "sopranos")

            await chat(alice, body)

    office(main)


def test_who_isnt_in_a_group_isnt_seen_typing_there(village: Callable[..., Village]) -> None:
    world = village("alice", "bob", "mallory")
    alice, bob, mallory = (world.people[each] for each in ("alice", "bob", "mallory"))
    group = world.group("alice", "bob")
    for each in (bob, mallory):
        each.send_event(alice.person, EventKind.TEXT, {"text": "hello"}, NOW)
    world.deliver()

    def typing(who: Correspondence, conversation: bytes) -> list[bytes]:
        event = Event(EventKind.TYPING, conversation, 0, NOW, {"on": True})
        sealed = who.desk.seal_answer(alice.identity.id.key, payload=event.encode())
        assert sealed is not None
        _, notices = alice.receive_envelopes([sealed.envelope], NOW)
        return [
            each.conversation for each in notices if isinstance(each, Notice) and each.what is What.TYPING
        ]

    assert typing(bob, group) == [group]
    assert typing(bob, alice.person) == [bob.person]
    assert typing(mallory, alice.person) == [mallory.person]
    assert typing(mallory, group) == []
    assert typing(mallory, bytes(32)) == []


def test_somebody_is_brought_into_a_group_and_given_what_was_said(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        async with acquainted(at, box) as (alice, bob):
            carol = await at.begin("carol", box)
            await alice.add_contact(carol.card)
            await bob.create_group("choir", ["alice"])
            await wait_notice(alice, What.GROUP_CHANGED)
            await bob.groups[0].add("alice", administrator=True)
            await bob.groups[0].send("in May")
            await wait_notice(alice, What.MESSAGE)

            async def hers(screen: Screen) -> None:
                await screen.write("/bring carol")
                await screen.until(lambda: any("not a group" in each for each in screen.told))
                await screen.pilot.press("ctrl+n", "ctrl+n")
                await screen.write("the rehearsal moved")
                await screen.until(lambda: len(screen.messages) == 2)
                await screen.write("/bring carol soon")
                await screen.until(lambda: any("is not a time" in each for each in screen.told))
                await screen.write("/bring carol all")
                await screen.until(lambda: any("carol is in choir" in each for each in screen.told))

            await chat(alice, hers)
            await wait_notice(carol, What.PAST_TOLD)

            async def carols(screen: Screen) -> None:
                await screen.pilot.press("ctrl+p")
                said = ["bob  in May (as alice says)", "alice  the rehearsal moved"]
                await screen.until(lambda: screen.messages == said)

            await chat(carol, carols)

    office(main)


def test_a_sui_account_without_a_card_has_a_room_that_says_how_it_is_answered(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        alice = await at.begin("alice", await at.open())
        alice.dependencies.posts = ChainPosts(None, "0x70c0")  # type: ignore[arg-type]  # nothing is asked of the chain
        account = bytes.fromhex("ab" * 32)
        told = {"text": "is the room free?", "wallet": account, "transaction": "9AZy"}
        tray = alice.correspondence.post_tray
        await alice.delivery.run_in_thread(tray.process_post, account, bytes(16), told, now_ms(), found=None)

        async def body(screen: Screen) -> None:
            await screen.until(lambda: screen.messages)
            assert screen.rooms == ["0x" + "ab" * 32]
            assert screen.messages == ["0x" + "ab" * 32 + "  is the room free?"]
            await screen.write("it is")
            await screen.until(lambda: screen.told)
            assert "dtp post answer dtp://0x70c0 9AZy TEXT" in screen.told[-1]

        await chat(alice, body)

    office(main)


def test_typing_is_told_and_files_go_both_ways(office: Test, tmp_path: Path) -> None:
    async def main(at: PostOffice) -> None:
        async with acquainted(at, await at.open()) as (alice, bob):
            (tmp_path / "a map.txt").write_text("left, then left")
            (tmp_path / "saved").mkdir()

            async def body(screen: Screen) -> None:
                await screen.write("first")
                (message,) = await take(bob, 1)
                await screen.pilot.press("h", "i")
                notice = await wait_notice(bob, What.TYPING)
                assert (notice.person, notice.detail) == (alice.card.person, "on")
                await screen.write(f"/file '{tmp_path / 'a map.txt'}' the map")
                (message,) = await take(bob, 1)
                assert (message.text, message.attachments[0].name) == ("the map", "a map.txt")
                await bob.send("alice", "back", attachments=[tmp_path / "a map.txt"])
                await screen.until(lambda: any("[a map.txt, 15 bytes]" in x for x in screen.messages[2:]))
                await screen.write(f"/save {tmp_path / 'saved'}")
                saved = tmp_path / "saved" / "a map.txt"
                await screen.until(saved.exists)
                assert saved.read_text() == "left, then left"

            await chat(alice, body)

    office(main)


@pytest.mark.parametrize("name", ["[/b]", "[@click=app.quit]here[/]", "[red]"])
def test_a_name_that_is_markup_is_shown_as_it_is(office: Test, name: str) -> None:
    """It ended the program when its owner began to write, or was a link that did what they liked."""

    async def main(at: PostOffice) -> None:
        box = await at.open()
        alice = await at.begin("alice", box)
        identity = known_identity("bob")
        options: Any = {"identity": identity, "store": at.folder / "bob.db", "mailboxes": [box], "name": name}
        bob = await at.enter(Messenger(**options))
        await bob.wait_reached()
        await alice.add_contact(bob.card)
        await bob.add_contact(alice.card)

        async def body(screen: Screen) -> None:
            assert screen.rooms == [name]
            await bob.send(alice.card, "hello")
            await screen.until(lambda: screen.messages == [f"{name}  hello"])
            await bob.set_typing(alice.card.person)
            await screen.until(lambda: screen.typing == f"{name} is typing")

        await chat(alice, body)

    office(main)


def test_what_is_wrong_is_said_and_changes_nothing(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        async with acquainted(at, await at.open()) as (alice, _):

            async def body(screen: Screen) -> None:
                for written, answer in (
                    ("/nothing", "there is no /nothing"),
                    ("/edit x", "no message that this could be about"),
                    ("/file 'x", "a quotation mark is missing"),
                    ("/file /no/such/file", "can't be read"),
                    ("/add /no/such/card", "neither a card nor a file"),
                    ("/group choir nobody", "nobody of this name"),
                    ("/accept", "no other key"),
                ):
                    await screen.write(written)
                    await screen.until(lambda answer=answer: any(answer in each for each in screen.told))
                assert screen.messages == []
                await screen.write("hello")
                await screen.until(lambda: screen.messages)
                await screen.write("/reply")
                await screen.until(lambda: any("write /reply TEXT" in each for each in screen.told))

            await chat(alice, body)

        nobody = await at.begin("dave", await at.open("other"))

        async def alone(screen: Screen) -> None:
            assert screen.typing.startswith("nobody yet")
            await screen.write("hello?")
            await screen.until(lambda: any("nobody to write to" in each for each in screen.told))

        await chat(nobody, alone)

    office(main)


@pytest.mark.parametrize(
    ("receipts", "others", "mark"),
    [
        ({}, 1, "…"),
        ({b"b": False}, 1, "✓"),
        ({b"b": True}, 1, "✓✓"),
        ({}, 3, "…"),
        ({b"b": True, b"c": False}, 3, "✓ 2/3 ✓✓ 1"),
        ({b"b": False}, 3, "✓ 1/3"),
    ],
)
def test_how_far_a_message_has_come(receipts: dict[bytes, bool], others: int, mark: str) -> None:
    assert receipt_mark(receipts, others) == mark


def test_calls_are_made_answered_and_refused(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        async with acquainted(at, await at.open()) as (alice, bob), Calls(bob) as bobs:
            made: list[NoMedia] = []

            def make_media(file: str | None) -> NoMedia:
                made.append(NoMedia(file))
                return made[-1]

            async with opened(PatientChat(alice, make_media)) as screen:
                ringing = aiter(bobs)
                await screen.write("/answer")
                await screen.until(lambda: "nobody is calling" in screen.told)
                await screen.write("/hangup")
                await screen.until(lambda: "there is no call" in screen.told)
                await screen.write("/call greeting.mp4")
                await screen.until(lambda: "calling bob: /hangup ends it" in screen.told)
                call = await anext(ringing)
                await screen.until(lambda: "it rings at bob's" in screen.told)
                await call.answer(NoMedia(None))
                await screen.until(lambda: "in a call with bob: /hangup ends it" in screen.told)
                assert [each.file for each in made] == ["greeting.mp4"]
                await screen.write("/call")
                await screen.until(
                    lambda: any("in a call" in each and "/hangup" not in each for each in screen.told)
                )
                await screen.write("/hangup")
                assert await call.wait_over() is Reason.HUNG_UP
                await screen.until(lambda: "the call with bob is over" in screen.told)

                call = await bobs.call("alice", NoMedia(None))
                await screen.until(lambda: "bob is calling: /answer, or /hangup" in screen.told)
                await screen.write("/hangup")
                assert await call.wait_over() is Reason.REFUSED
                await screen.until(lambda: any("doesn't take" in each for each in screen.told))
                screen.app.clear_notifications()
                call = await bobs.call("alice", NoMedia(None))
                await screen.until(lambda: any("is calling" in each for each in screen.told))
                await screen.write("/answer")
                await call.wait_talking()
                assert made[-1].file is None
                await screen.write("/group choir")
                await screen.until(lambda: "choir (0)" in screen.rooms or len(screen.rooms) == 2)
                await screen.pilot.press("ctrl+n")
                await screen.write("/call")
                await screen.until(lambda: any("calls are for two" in each for each in screen.told))
            assert await call.wait_over() is Reason.HUNG_UP  # the program has ended

    office(main)
