"""Beside pycrdt (Yrs): the same concurrent edits converge in both, and each author has written the same in both."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from text_checks import exchange

from dtp.crdt.text import Text

pycrdt = pytest.importorskip("pycrdt", reason="pycrdt is not installed")

#: What each author types, and what was there before; no letter is in two of them.
ALPHABETS = ("abcdefghij", "ABCDEFGHIJ", "0123456789")
START = "-=+*/~^:.,;"


def start(text: str, count: int) -> tuple[list[Text], list[Any]]:
    """Replicas of both kinds with the same text."""
    first = Text(b"start")
    first.insert(0, text)
    ours = [Text.load(first.save(), bytes([65 + i])) for i in range(count)]
    origin = pycrdt.Doc({"text": pycrdt.Text(text)})
    theirs = []
    for i in range(count):
        doc = pycrdt.Doc({"text": pycrdt.Text()}, client_id=1000 + i)
        doc.apply_update(origin.get_update())
        theirs.append(doc)
    return ours, theirs


def finish(ours: list[Text], theirs: list[Any]) -> tuple[str, str]:
    """Let all exchange; the two results."""
    exchange(ours)
    updates = [doc.get_update() for doc in theirs]
    for doc in theirs:
        for update in updates:
            doc.apply_update(update)
    assert len({str(text) for text in ours}) == 1
    assert len({str(doc["text"]) for doc in theirs}) == 1
    return str(ours[0]), str(theirs[0]["text"])


def projection(text: str, letters: str) -> str:
    """What an author would see who could see only their own text and what was there before."""
    return "".join(c for c in text if c in letters or c in START)


@given(st.randoms(use_true_random=False), st.integers(2, 3))
def test_the_same_edits(rng: random.Random, count: int) -> None:
    text = "".join(rng.choice(START) for _ in range(rng.choice([0, 3, 30])))
    ours, theirs = start(text, count)
    for mine, doc, letters in zip(ours, theirs, ALPHABETS, strict=False):
        its = doc["text"]
        at = 0
        for _ in range(rng.choice([1, 5, 20])):
            at = rng.choice([at, max(0, at - 1), rng.randint(0, len(mine))])
            at = min(at, len(mine))
            if rng.random() < 0.75 or at == len(mine):
                word = rng.choice(letters) * rng.choice([1, 1, 3])
                mine.insert(at, word)
                its.insert(at, word)
                at += len(word)
            else:
                end = min(len(mine), at + rng.choice([1, 2, 6]))
                mine.delete(at, end - at)
                del its[at:end]
        assert str(mine) == str(its)
    here, there = finish(ours, theirs)
    assert Counter(here) == Counter(there)
    for letters in ALPHABETS[:count]:
        assert projection(here, letters) == projection(there, letters)


@given(st.text("xyz", max_size=5), st.integers(0, 5), st.booleans(), st.booleans())
def test_words_stay_whole_at_least_where_theirs_do(text: str, at: int, back: bool, back_too: bool) -> None:
    at = min(at, len(text))
    ours, theirs = start(text, 2)
    for mine, doc, letters, backwards in zip(ours, theirs, ALPHABETS, (back, back_too), strict=False):
        for i, letter in enumerate(reversed(letters) if backwards else letters):
            place = at if backwards else at + i
            mine.insert(place, letter)
            doc["text"].insert(place, letter)
    here, there = finish(ours, theirs)
    whole = {text[:at] + a + b + text[at:] for a, b in (ALPHABETS[:2], ALPHABETS[1::-1])}
    assert here in whole
    assert Counter(here) == Counter(there)
