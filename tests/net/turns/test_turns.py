"""How long a turn may be: a transcript of times in and sizes out."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dtp.net.turns.sizes import BRIEF, CHATTY, HOLD, SMALL, STEADY, WIDE, Turns, heard, told


def test_turns_are_long_once_relays_tell_of_messages() -> None:
    turns = Turns()
    assert turns.size == STEADY
    turns.allow_widening()
    turns.allow_widening()
    assert (turns.size, turns.room > turns.size) == (WIDE, True)
    assert not turns.note_moved(WIDE, 1.0)


def test_turns_are_brief_while_messages_are_exchanged_and_for_a_while_after() -> None:
    turns = Turns()
    turns.allow_widening()
    turns.note_message(10.0)
    assert turns.size == BRIEF
    assert turns.note_moved(BRIEF, 10.0)
    turns.note_message(10.0 + HOLD / 2)
    assert turns.note_moved(BRIEF, 10.0 + HOLD)
    assert not turns.note_moved(BRIEF, 10.0 + HOLD * 1.5)
    assert turns.size == WIDE
    assert not turns.note_moved(WIDE, 11.0)


def test_a_turn_that_moves_little_is_in_nobodys_way() -> None:
    turns = Turns()
    turns.note_message(0.0)
    assert not turns.note_moved(100, 0.0)
    assert turns.size == BRIEF


def test_widening_changes_nothing_while_messages_are_exchanged() -> None:
    turns = Turns()
    turns.note_message(0.0)
    turns.allow_widening()
    assert turns.size == BRIEF
    turns.note_moved(BRIEF, HOLD)
    assert turns.size == WIDE


@pytest.mark.parametrize(
    ("messages", "exchange"),
    [
        ([(heard, 64), (told, 64), (heard, 64), (told, 64)], True),
        ([(told, 64), (heard, 64), (told, 64), (heard, 64), (told, 64)], True),
        ([(heard, 64)] * 20, False),  # one way only: nobody waits for an answer
        ([(told, 64)] * 20, False),
        ([(heard, 300), (told, 300), (told, SMALL + 1)] * 20, False),  # small requests for large files
        ([(heard, 64), (told, 64), (heard, SMALL + 1), (told, 64), (heard, 64)], False),
    ],
)
def test_what_an_exchange_is(messages: list[tuple[Callable[[int, int], int], int]], exchange: bool) -> None:
    streak = 0
    for step, size in messages:
        streak = step(streak, size)
    assert (streak >= CHATTY) is exchange


def test_an_exchange_ends_with_a_larger_piece() -> None:
    assert heard(CHATTY, 64) == told(CHATTY, 64) == CHATTY
    assert heard(CHATTY, SMALL + 1) == told(CHATTY, SMALL + 1) == 0
