"""`dtp chat`: driven by keys, as somebody at a terminal would."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from post_office import NoMedia, PostOffice, acquainted, known_identity, post_office, take, wait_notice
from village import NOW, Village

pytest.importorskip("textual")

from rich.console import Console
from textual.events import Key, Paste
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Static

from dtp.cli.chat.app import ChatApp
from dtp.cli.chat.commands import HELP
from dtp.cli.chat.lines import MessageLine, receipt_mark
from dtp.messaging.calls.calling import Calls
from dtp.messaging.calls.signals import Reason
from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.person.correspondence import Correspondence
from dtp.messaging.person.delivery import now_ms
from dtp.messaging.person.messenger import Messenger
from dtp.messaging.person.notices import Notice, What
from dtp.messaging.person.posts import ChainPosts

Test = Callable[[Callable[[PostOffice], Awaitable[None]]], None]


@pytest.fixture
def office(tmp_path: Path, request: pytest.FixtureRequest) -> Test:
    name = str(zlib.crc32(request.node.name.encode()))
    return lambda test: post_office(test, tmp_path, name)


class PatientChat(ChatApp):
    """What it told stays until a test has looked: on a machine under load that may be minutes later."""

    NOTIFICATION_TIMEOUT = 3600.0


class Screen:
    """What somebody sees, and does."""

    def __init__(self, pilot: Pilot[None]) -> None:
        self.pilot = pilot
        self.app = pilot.app

    def lines(self, widget: str) -> list[str]:
        listed = self.app.query_one(widget, OptionList)
        return [str(each.prompt) for each in listed.options]

    @property
    def messages(self) -> list[str]:
        """Without the time of each."""
        return [re.sub(r"\A(\d{4}-\d\d-\d\d )?\d\d:\d\d ", "", line) for line in self.lines("#messages")]

    @property
    def rooms(self) -> list[str]:
        return [" ".join(line.split()) for line in self.lines("#rooms")]

    @property
    def typing(self) -> str:
        return str(self.app.query_one("#typing", Static).render())

    @property
    def told(self) -> list[str]:
        return [each.message for each in self.app._notifications]

    async def write(self, text: str) -> None:
        self.app.query_one("#write", Input).value = text
        await self.pilot.press("enter")

    async def until(self, holds: Callable[[], Any]) -> None:
        """Wait until it holds; the test has a limit."""
        while not holds():
            await self.pilot.pause()
            await asyncio.sleep(0.01)


@asynccontextmanager
async def opened(app: ChatApp) -> AsyncIterator[Screen]:
    async with app.run_test(size=(100, 30)) as pilot:
        yield Screen(pilot)
        app.workers.cancel_all()  # as quitting does, before the widgets go


def chat(messenger: Messenger, body: Callable[[Screen], Awaitable[None]]) -> Awaitable[None]:
    async def run() -> None:
        async with opened(PatientChat(messenger)) as screen:
            await body(screen)

    return run()


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


def test_what_is_typed_behind_enter_is_another_line(office: Test) -> None:
    """While the program drew, it was sent with the line before, and both twice."""

    async def main(at: PostOffice) -> None:
        async with acquainted(at, await at.open()) as (alice, _):

            async def body(screen: Screen) -> None:
                line = screen.app.query_one("#write", Input)
                for key in ("a", "enter", "b", "enter", "c"):
                    line.post_message(Key(key, None if key == "enter" else key))
                await screen.until(lambda: len(screen.messages) == 2 and line.value == "c")
                assert sorted(each.split()[1] for each in screen.messages) == ["a", "b"]

            await chat(alice, body)

    office(main)


def test_all_lines_that_are_pasted_are_written(office: Test) -> None:
    """The first one alone was, and nothing said so."""

    async def main(at: PostOffice) -> None:
        async with acquainted(at, await at.open()) as (alice, _):

            async def body(screen: Screen) -> None:
                line = screen.app.query_one("#write", Input)
                line.post_message(Paste("take the bridge\r\n\nat the mill\n"))
                await screen.until(lambda: line.value)
                assert line.value == "take the bridge at the mill"

            await chat(alice, body)

    office(main)


def test_the_last_message_is_still_seen_when_the_terminal_gets_another_size(office: Test) -> None:
    """Lines that were wrapped more pushed it out of sight."""

    async def main(at: PostOffice) -> None:
        async with acquainted(at, await at.open()) as (alice, _):
            for _ in range(30):
                await alice.send("bob", "some words that go on for a while, so that they are wrapped " * 2)

            async def body(screen: Screen) -> None:
                listed = screen.app.query_one("#messages", OptionList)
                await screen.until(lambda: len(screen.messages) == 30)
                await screen.pilot.resize_terminal(60, 20)
                await screen.until(lambda: listed.size.width < 60)
                await screen.pilot.pause()
                assert listed.scroll_offset.y == listed.max_scroll_y

            await chat(alice, body)

    office(main)


def test_what_was_written_and_cannot_be_sent_is_not_lost(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        async with acquainted(at, await at.open()) as (alice, bob):

            async def body(screen: Screen) -> None:
                line = screen.app.query_one("#write", Input)
                await screen.write("x" * 70_000)
                await screen.until(lambda: line.value)
                assert line.value == "x" * 70_000
                assert line.cursor_position == 70_000
                line.clear()
                await screen.write("see you at eigth")
                await screen.until(lambda: len(screen.messages) == 1)
                await bob.send("alice", "when?")
                await screen.until(lambda: len(screen.messages) == 2)
                await screen.write("/edit see you at eight")  # the last one isn't hers, and nothing is marked
                await screen.until(lambda: "eight (edited)" in screen.messages[0])
                await screen.pilot.press("up")
                await screen.write("/reply never mind")
                await screen.until(lambda: len(screen.messages) == 3)
                assert screen.lines("#messages")[2].startswith("  > see you at eight\n")
                await screen.write("/block")
                await screen.until(lambda: alice.contacts[0].blocked)

            await chat(alice, body)

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


def test_what_is_wrapped_does_not_begin_where_another_message_would(office: Test) -> None:
    """A long word goes to a line of its own, and looked as if Bob had written it."""
    forged = "09:31\u2800Bob\u2800\u2800here\u2800is\u2800my\u2800new\u2800account"

    async def main(at: PostOffice) -> None:
        async with acquainted(at, await at.open()) as (alice, bob):
            await alice.send(bob.card, f"{'well ' * 8}{forged} {'x' * 200}")

            async def body(screen: Screen) -> None:
                await screen.until(lambda: screen.messages)
                listed = screen.app.query_one("#messages", OptionList)
                assert "here\u2800is" in screen.app.export_screenshot()
                line = listed.options[0].prompt
                assert isinstance(line, MessageLine)
                for width in (12, 40, 69, 200):
                    drawn = Console(width=width).render_lines(line)
                    lines = ["".join(each.text for each in one) for one in drawn]
                    assert lines[0][2] == ":"
                    assert len(lines) > 1
                    assert {each[:6].strip() for each in lines[1:]} == {""}

            await chat(alice, body)

    office(main)


def test_emoji_and_words_that_joiners_hold_together_are_shown_so(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        async with acquainted(at, await at.open()) as (alice, bob):
            astronaut, wanted = "👩\u200d🚀", "क्\u200dष"
            sent = await alice.send(bob.card, f"{astronaut} {wanted} \u202e")
            await sent.react(astronaut)

            async def body(screen: Screen) -> None:
                await screen.until(lambda: screen.messages and "\n" in screen.messages[0])
                text, reactions = screen.messages[0].split("\n")
                assert text.startswith(f"alice  {astronaut} {wanted} \\u202e")
                assert reactions.strip() == astronaut

            await chat(alice, body)

    office(main)


def test_all_of_the_help_can_be_read_in_a_small_terminal(office: Test) -> None:
    """It was a notification that was higher than the screen: what came first couldn't be seen."""

    async def main(at: PostOffice) -> None:
        async with acquainted(at, await at.open()) as (alice, _):

            async def body(screen: Screen) -> None:
                def is_seen(command: str) -> bool:
                    return command in screen.app.export_screenshot()

                await screen.pilot.resize_terminal(80, 15)
                await screen.write("/help")
                await screen.until(lambda: is_seen("/file"))
                assert not is_seen("/decline")
                await screen.pilot.press("end")
                await screen.until(lambda: is_seen("/decline"))
                await screen.pilot.press("escape")
                await screen.until(lambda: not is_seen("/decline"))
                await screen.write("hello")
                await screen.until(lambda: screen.messages)

            await chat(alice, body)

    office(main)


def test_the_help_fits_into_80_columns() -> None:
    """It was wrapped once more, in the middle of the window."""
    room = 80 - 2 * 2  # the padding of the window
    assert [line for line in HELP.splitlines() if len(line) > room] == []


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
