"""What people are shown: sizes, speeds, and text of peers that stays text."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from dtp.chain.model import SUI_COIN
from dtp.cli import output
from dtp.cli.daemon_status import render, show, size_text, time_text
from dtp.cli.daemon_top import Rates

from ..conftest import printed


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 40, "3.0 TiB"), (1 << 70, "1048576.0 PiB")],
)
def test_sizes(size: int, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.9, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min 59 s"),
        (3605, "1 h"),
        (93784.2, "1 d 2 h"),
        (86400, "1 d"),
    ],
)
def test_times(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


def status(received: int) -> dict[str, Any]:
    part = {"open": 1, "streams": 3, "failed": 0, "sent": 10, "received": received}
    return {
        "identity": "dtp1me",
        "pid": 4321,
        "uptime": 5.0,
        "draining": False,
        "reloads": 0,
        "listen": [],
        "callers": [
            {"peer": "dtp1x", "service": "[red]a[/red]", "source": "192.0.2.1", "streams": 1, "resumes": 0}
        ],
        "everywhere": [],
        "events": [
            {"time": 0.0, "level": "warning", "message": "a\x1b[31m[red]b"},
            {"time": 1.0, "level": "info", "message": "[u]c"},
        ],
        "exposed": [
            {
                **part,
                "service": "[bold]api",
                "kind": "tcp",
                "denials": {"rate": 2},
                "rules": ["methods [dim]*"],
                "backends": [{"place": "127.0.0.1:1", "up": False, "active": 1, "failures": 3}],
            }
        ],
        "forwarded": [
            {
                **part,
                "listen": ["127.0.0.1:2"],
                "mode": "direct",
                "to": ["dtp://x/y", "dtp+tcp://dtp1abc@192.0.2.1:5/y"],
                "connected": False,
                "trouble": "[blink]no",
            }
        ],
    }


def test_the_process_is_named_where_the_daemon_says_it() -> None:
    """One without workers didn't say it at all."""
    console = Console(file=io.StringIO(), width=300)
    older = status(0)
    del older["pid"]
    for one in (status(0), older):
        show(one, console)
    assert re.findall("^running, .*?  ", printed(console), re.MULTILINE) == [
        "running, process 4321, up 5 s  ",
        "running, up 5 s  ",
    ]


def test_a_service_that_the_daemon_answers_itself_shows_no_backends_and_no_bytes() -> None:
    """There are none of either: it said "0 up", and 0 B whatever had come."""
    told, console = status(0), Console(file=io.StringIO(), width=300)
    told["exposed"].append(
        {**told["exposed"][0], "service": "post", "kind": "mailbox", "backends": [], "received": 0, "sent": 0}
    )
    show(told, console)
    assert re.search(r"^post +1 +3 +0 +mailbox +2 *$", printed(console), re.MULTILINE)


def test_shows_say_how_they_stand() -> None:
    told, console = status(0), Console(file=io.StringIO(), width=300)
    figures = {"listeners": 3, "segments": 1234, "sent": 2048, "title": "[b]news", "sealed": True}
    told["exposed"][0]["broadcast"] = {
        "role": "origin",
        "why": "",
        "air": "on air",
        "ended": False,
        **figures,
    }
    none_yet = {"role": "edge", "why": "nobody\x1b has it", "listeners": 0, "segments": 0, "sent": 0}
    told["exposed"].append({**told["exposed"][0], "service": "relayed", "broadcast": none_yet})
    show(told, console)
    text = printed(console)
    assert re.search(r"\[bold\]api +origin +\[b\]news +on air, sealed +3 +1,234 +2\.0 KiB", text)
    assert re.search(r"relayed +edge +nobody\S* has it +0 +0 +0 B", text)
    assert "\x1b" not in text


def test_markup_of_others_is_text() -> None:
    console = Console(file=io.StringIO(), width=300)
    show(status(0), console)
    shown = printed(console)
    for words in ("[red]a[/red]", "[bold]api", "[blink]no", "0 of 1 up", "down", "2 by rate", "methods [dim]*",
                  "a\\x1b[31m[red]b", "[u]c", "y of x", "y at 192.0.2.1:5"):  # fmt: skip
        assert words in shown


@pytest.mark.parametrize("width", [80, 100, 200])
def test_no_number_is_cut_in_two(width: int) -> None:
    """On a narrow terminal other columns give way."""
    many = status(10**15)
    many["exposed"][0] |= {"streams": 9_999_999, "failed": 123_456, "open": 32_768, "service": "db/replica"}
    many["callers"] *= 40
    console = Console(file=io.StringIO(), width=width)
    for part in render(many, events=1, callers=12):
        console.print(part)
    shown = printed(console)
    for words in (
        "9,999,999",
        "123,456",
        "32,768",
        "909.5 TiB",
        "and 28 more",
        "db/replica",
        "y at 192.0.2.1:5",
    ):
        assert words in shown
    assert max(map(len, shown.splitlines())) <= width


def test_without_a_terminal_nothing_is_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`dtpd status | grep IDENTITY` found nobody: names were cut in two lines at 80 columns."""
    monkeypatch.delenv("COLUMNS", raising=False)
    long = status(0)
    long["callers"][0]["peer"] = name = "dtp1" + "q" * 60
    show(long, output.console())
    assert name in capsys.readouterr().out


def test_a_long_reason_does_not_make_each_line_as_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    long = status(0)
    words = [f"word{number:03}" for number in range(80)]
    long["forwarded"][0]["trouble"] = long["events"][0]["message"] = " ".join(words)
    show(long, output.console())
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) < 140
    assert all(shown.count(word) == 2 for word in words)


def test_money_is_exact() -> None:
    paid = status(0)
    paid["exposed"][0] |= {"earned": 1_234_567_890_123_456_789}
    paid["forwarded"][0] |= {"spent": 1, "budget": 500_000_000}
    paid |= {"claimed": {SUI_COIN: 2 * 10**9, "0x2::other::COIN": 12_345}, "gas_mist": {"claims": 1_063_080}}
    console = Console(file=io.StringIO(), width=200)
    show(paid, console)
    shown = printed(console)
    assert re.search(r"gas for claims +0\.00106308 *\n", shown)
    for words in ("1,234,567,890.123456789", "0.000000001", ", of 0.5 "):
        assert words in shown
    for words in ("2", "12,345 of 0x2::other::COIN"):
        assert re.search(f"claimed on chain, all services +{words} *\n", shown)


def test_what_was_earned_in_another_coin_is_no_sui() -> None:
    paid = status(0)
    paid["exposed"][0] |= {"earned": 0, "earned_in": {"0x2::other::COIN": 12_345}}
    console = Console(file=io.StringIO(), width=200)
    show(paid, console)
    assert re.findall(r"earned by \S+ +(.+?) *\n", printed(console)) == ["12,345 of 0x2::other::COIN"]


def test_rates() -> None:
    rates = Rates()
    assert rates.compute_rates(status(100), 1.0) == {"received": 0.0, "sent": 0.0, "streams": 0.0}
    assert rates.compute_rates(status(300), 3.0)["received"] == 200.0  # both sides count 200 in 2 s
    assert rates.compute_rates(status(0), 4.0)["received"] == 0.0


def test_names_of_callers_are_whole_on_a_narrow_terminal() -> None:
    told = status(0)
    name = "dtp1" + "x" * 58
    told["callers"] = [{"peer": name, "service": "api", "source": "127.0.0.1", "streams": 0, "resumes": 0}]
    console = Console(file=io.StringIO(), width=80)
    for part in render(told, callers=1):
        console.print(part)
    assert printed(console).count("x") >= 58


def test_names_in_events_can_be_copied_on_a_narrow_terminal() -> None:
    told = status(0)
    name = "dtp1" + "x" * 58
    told["events"] = [{"time": 0.0, "level": "info", "message": f"{name} is banned"}]
    console = Console(file=io.StringIO(), width=40)
    for part in render(told, events=1):
        console.print(part)
    assert name in re.sub(r"\s", "", printed(console))
