"""How a count and its noun are written, for logs, errors and terminals."""

from __future__ import annotations


def count_of(number: int, noun: str, plural: str = "") -> str:
    """Return "1 request", "2 requests", "1,000 requests", "2 identities".

    `plural` is for nouns that take more than an "s" at their end.
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
