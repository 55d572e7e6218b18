"""What `dtp show watch` shows in a terminal."""

import io

import pytest
from rich.console import Console

from dtp.cli.shows_screen import screen

#: As `ShowWatcher.make_page` gives it.
PAGE = {
    "air": "on air", "pot": "1 SUI", "next_slot": "0.1 SUI", "paid": "2 SUI", "tips": "0.5 SUI",
    "tickets": None, "more": 7,
    "line": [
        {"number": 3, "kind": "question", "amount": "1 SUI", "raised": 2, "text": "[bold]why?[/bold]"},
        {"number": 0, "kind": "tip", "amount": "0.5 SUI", "raised": 0, "text": "thank you"},
    ],
}  # fmt: skip


def shown(page, lines=20):
    console = Console(file=io.StringIO(), width=100)
    console.print(screen(page, lines))
    return console.file.getvalue().splitlines()


def test_it_says_how_the_show_stands_and_what_was_asked_the_best_paid_first():
    lines = shown(PAGE)
    assert lines[0].strip() == "on air"
    assert "1 SUI in the pot" in lines[1]
    assert "next slot 0.1 SUI" in lines[1]
    assert "[bold]why?[/bold]" in lines[4]  # as it was written
    assert "raised 2x" in lines[4]
    assert lines[5].split() == ["0", "tip", "0.5", "SUI", "thank", "you"]
    assert lines[6].strip() == "and 7 more, for less"


@pytest.mark.parametrize(("lines", "left_out"), [(7, 8), (1, 8), (24, 7)])
def test_what_the_terminal_has_no_room_for_is_counted(lines, left_out):
    assert shown(PAGE, lines)[-1].strip() == f"and {left_out} more, for less"


def test_tickets_and_nobody_who_has_asked():
    lines = shown({**PAGE, "tickets": {"sold": 3, "wanted": 50}, "line": [], "more": 0})
    assert "3 of 50 tickets sold" in lines[1]
    assert lines[-1].strip() == "nobody has asked yet"
