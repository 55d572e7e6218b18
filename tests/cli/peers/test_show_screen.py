"""What `dtp show watch` and `status` show in a terminal, and what `create` refuses."""

import io

import pytest
from click.testing import CliRunner
from rich.console import Console

from dtp.cli import main
from dtp.cli.shows_money import status_rows
from dtp.cli.shows_screen import screen

#: As `ShowWatcher.make_page` gives it.
PAGE = {
    "air": "on air", "pot": "1 SUI", "next_slot": "0.1 SUI", "paid": "2 SUI", "tips": "0.5 SUI",
    "tickets": None, "more": 7, "is_unposted": False, "old_s": None,
    "line": [
        {"number": 3, "kind": "question", "amount": "1 SUI", "raised": 2, "text": "[bold]why?[/bold]"},
        {"number": 0, "kind": "tip", "amount": "0.5 SUI", "raised": 0, "text": "thank you"},
    ],
}  # fmt: skip


def shown(page, lines=20):
    written = io.StringIO()
    Console(file=written, width=100).print(screen(page, lines))
    return written.getvalue().splitlines()


def test_it_says_how_the_show_stands_and_what_was_asked_the_best_paid_first():
    lines = shown(PAGE)
    assert lines[0].strip() == "on air"
    assert "1 SUI in the pot" in lines[1]
    assert "next slot 0.1 SUI" in lines[1]
    assert "[bold]why?[/bold]" in lines[4]  # as it was written
    assert "raised 2x" in lines[4]
    assert lines[5].split() == ["0", "tip", "0.5", "SUI", "thank", "you"]
    assert lines[6].strip() == "and 7 more, for less"


def test_it_says_where_nobody_pays_and_where_the_chain_is_away():
    assert "nobody pays" in shown({**PAGE, "air": "paused", "is_unposted": True})[0]
    assert "the chain hasn't answered for 40 s" in shown({**PAGE, "old_s": 40.4})[0]


@pytest.mark.parametrize(("lines", "left_out"), [(7, 8), (1, 8), (24, 7)])
def test_what_the_terminal_has_no_room_for_is_counted(lines, left_out):
    assert shown(PAGE, lines)[-1].strip() == f"and {left_out} more, for less"


def test_tickets_and_nobody_who_has_asked():
    lines = shown({**PAGE, "tickets": {"held": 3, "wanted": 50}, "line": [], "more": 0})
    assert "3 tickets held of 50 needed" in lines[1]
    assert lines[-1].strip() == "nobody has asked yet"


#: What 'dtp show status --json' prints.
STATUS = {
    "id": "0x1", "air": "on air", "hint": "",
    "key": "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    "slot_ms": 30_000, "batch": 10, "rate": 10,
    "start_pot": 20, "ticket_price": 0, "pot": 0, "next_slot": 10, "posted": 0, "unposted": 0, "released": 0,
    "tipped": 0, "earned": 0, "returned": 0, "asked": 0, "prices": [0, 0, 0], "coin": "0x2::sui::SUI",
    "chain_ms": 1000,
}  # fmt: skip


@pytest.mark.parametrize(
    ("start_by_ms", "air", "too_late"),
    [(999, "funding", True), (999, "off", True), (999, "on air", False), (1001, "funding", False)],
)
def test_a_status_says_when_too_few_tickets_were_sold_in_time(start_by_ms, air, too_late):
    """By the chain's clock, which decides it: the one here may be ahead or behind."""
    tickets = {"rate": 0, "tickets": 1, "fewest": 2, "slots": 3, "ticket_price": 10}
    rows = status_rows({**STATUS, **tickets, "start_by_ms": start_by_ms, "air": air})
    assert ("dtp show refund" in rows.get("starts by", "")) == too_late
    assert ("starts by" in rows) == (air != "on air")
    assert rows["tickets"].startswith("1 held of 2 needed")
    assert rows["air"] == (f"{air}, and can't start any more" if too_late else air)


@pytest.mark.parametrize(
    ("pot", "told"),
    [
        (35, "0.000000035 SUI, which lasts 1.5 minutes"),
        (10, "0.00000001 SUI, which lasts 30 seconds"),
        (9, "0.000000009 SUI"),
    ],
)
def test_a_status_says_how_long_a_pot_lasts_that_pays_for_a_slot(pot, told):
    assert status_rows({**STATUS, "pot": pot})["in the pot"] == told


def test_a_show_without_a_price_takes_any_amount_and_not_none():
    rows = status_rows({**STATUS, "rate": 1000, "air": "off", "prices": [0, 500, 0]})
    assert rows["the least"] == "tip any amount, request 0.0000005 SUI, question any amount"


@pytest.mark.parametrize(
    ("unposted", "told"),
    [
        (10, "5 slots, up to 10 at once"),
        (20, "5 slots, up to 10 at once; none for 10 minutes: its producer is away, or can't post"),
    ],
)
def test_a_status_says_where_a_producer_posts_nothing(unposted, told):
    assert status_rows({**STATUS, "posted": 5, "unposted": unposted})["posted"] == told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--rate 0SUI/min", "comes to nothing"),
        ("--rate 1MIST/min --slot 30s", "comes to nothing"),
        ("--rate 1SUI/min --at-least 3", "for a show with tickets"),
        ("--rate 1SUI/min --start-by 2027-01-01T00:00Z", "for a show with tickets"),
        ("--ticket 1SUI --at-least 3 --start-by 2027-01-01T00:00Z --start-pot 1SUI", "is funded by --rate"),
        ("--ticket 0SUI --at-least 3 --start-by 2027-01-01T00:00Z", "has to cost something"),
        ("--ticket 1SUI", "needs --at-least and --start-by"),
        ("--rate 1SUI/min --ticket 1SUI", "for a ticketed one"),
    ],
)
def test_terms_that_make_no_show_or_would_count_for_nothing_are_mistakes(options, told):
    done = CliRunner().invoke(main, ["show", "create", *options.split()])
    assert done.exit_code == 2
    assert told in done.output
