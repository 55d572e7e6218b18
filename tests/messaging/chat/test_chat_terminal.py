"""`dtp chat` and the terminal: keys, pastes, sizes, and how text is drawn."""

from __future__ import annotations

import pytest
from chat_screen import Screen, Test, chat
from post_office import PostOffice, acquainted

pytest.importorskip("textual")

from rich.console import Console
from textual.events import Key, Paste
from textual.widgets import Input, OptionList

from dtp.cli.chat.commands import HELP
from dtp.cli.chat.lines import MessageLine


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
