"""What people are shown: sizes, speeds, and text of peers that stays text."""

import io

import pytest
from rich.console import Console

from dtp.cli.daemon_status import show, size_text
from dtp.cli.daemon_top import Rates


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 40, "3.0 TiB"), (1 << 70, "1048576.0 PiB")],
)
def test_sizes(size, text):
    assert size_text(size) == text


def status(received):
    part = {"open": 1, "streams": 3, "failed": 0, "sent": 10, "received": received}
    return {
        "identity": "dtp1me",
        "uptime": 5.0,
        "draining": False,
        "reloads": 0,
        "listen": [],
        "callers": [
            {"peer": "dtp1x", "service": "[red]a[/red]", "source": "192.0.2.1", "streams": 1, "resumes": 0}
        ],
        "exposed": [
            {
                **part,
                "service": "[bold]api",
                "kind": "tcp",
                "denials": {"rate": 2},
                "backends": [{"place": "127.0.0.1:1", "up": False, "active": 1, "failures": 3}],
            }
        ],
        "forwarded": [
            {
                **part,
                "listen": ["127.0.0.1:2"],
                "to": ["dtp://x/y"],
                "connected": False,
                "trouble": "[blink]no",
            }
        ],
    }


def test_markup_of_others_is_text():
    console = Console(file=io.StringIO(), width=300)
    show(status(0), console)
    shown = console.file.getvalue()
    for words in ("[red]a[/red]", "[bold]api", "[blink]no", "127.0.0.1:1 (down)", "rate 2"):
        assert words in shown


def test_rates():
    rates = Rates()
    assert rates.of(status(100), 1.0) == {"received": 0.0, "sent": 0.0, "streams": 0.0}
    assert rates.of(status(300), 3.0)["received"] == 200.0  # both sides count 200 in 2 s
    assert rates.of(status(0), 4.0)["received"] == 0.0
