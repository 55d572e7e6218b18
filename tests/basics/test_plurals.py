"""Counts are written by one helper."""

import re
from pathlib import Path

import pytest

from dtp.plurals import count_of

DTP = Path(__file__).parents[2] / "dtp"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((0, "request"), "0 requests"),
        ((1, "request"), "1 request"),
        ((2, "request"), "2 requests"),
        ((1234, "byte"), "1,234 bytes"),
        ((1, "identity", "identities"), "1 identity"),
        ((3, "identity", "identities"), "3 identities"),
    ],
)
def test_counts(words: tuple[int, str], text: str) -> None:
    assert count_of(*words) == text


def test_nothing_makes_plurals_by_itself() -> None:
    """Neither by hand, nor not at all where people read it: "1 requests"."""
    by_hand = re.compile(r"""["']s["'] if |["'] else ["']s["']""")
    never = re.compile(
        r"\{[^{}]*\} (requests|streams|channels|bytes|services|mistakes|pipes|envelopes|round trips)\b"
    )
    made = {path for path in DTP.rglob("*.py") if by_hand.search(path.read_text())}
    assert made <= {DTP / "pay" / "client" / "budget.py"}  # "1.5 hours": times are no counts
    shown = [*(DTP / "cli").glob("*.py")]
    assert len(shown) > 30
    found = [(path.name, match[0]) for path in shown for match in never.finditer(path.read_text())]
    assert [each for each in found if not each[0].startswith("move") and "_SIZE" not in each[1]] == []
