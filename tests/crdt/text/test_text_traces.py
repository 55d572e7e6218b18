"""Recorded editing by people (tests/data/README.md): replayed, it gives the text that was recorded."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from text_checks import patched

from dtp.crdt.text import Text

TRACES = Path(__file__).parents[2] / "data" / "editing-traces"


def trace(name: str) -> dict[str, Any]:
    """Return a trace: its edits, their authors, and the text at the end."""
    with gzip.open(TRACES / f"{name}.json.gz") as file:
        return dict(json.load(file))


def replay(data: dict[str, Any]) -> tuple[list[Text], list[bytes]]:
    """Everybody types what was recorded, knowing what they knew then. Gives the replicas and one message per step."""
    texts = [Text(bytes([65 + i])) for i in range(data["numAgents"])]
    known: list[set[int]] = [set() for _ in texts]
    messages: list[bytes] = []
    for number, step in enumerate(data["txns"]):
        text, seen = texts[step["agent"]], known[step["agent"]]
        missing = []
        todo = [p for p in step["parents"] if p not in seen]
        while todo:
            parent = todo.pop()
            if parent not in seen:
                seen.add(parent)
                missing.append(parent)
                todo.extend(p for p in data["txns"][parent]["parents"] if p not in seen)
        for parent in sorted(missing):
            text.merge(messages[parent])
        for position, deleted, inserted in step["patches"]:
            text.delete(position, deleted)
            text.insert(position, inserted)
        messages.append(text.take_changes())
        seen.add(number)
    return texts, messages


def test_one_author() -> None:
    data = trace("automerge-paper")
    text = Text(b"a")
    other, model = Text(b"b"), data["startContent"]
    for i, step in enumerate(data["txns"]):
        for position, deleted, inserted in step["patches"]:
            text.delete(position, deleted)
            text.insert(position, inserted)
        if i % 5000 == 0:
            model = patched(model, other.apply(text.take_changes()))
    model = patched(model, other.apply(text.take_changes()))
    text.check_structure()
    other.check_structure()
    assert str(text) == data["endContent"] == str(other) == model
    assert text.save() == other.save()
    saved = text.save()
    assert len(saved) < 225_000
    assert text.memory < 6_000_000
    assert str(Text.load(saved, b"c")) == data["endContent"]
    text.compact([other.version])
    assert len(text.save()) < len(saved)
    assert str(Text.load(text.save(), b"c")) == data["endContent"]


@pytest.mark.parametrize("name", ["friendsforever", "clownschool"])
def test_several_authors(name: str) -> None:
    data = trace(name)
    texts, messages = replay(data)
    follower = Text(b"follower")
    for message in messages:
        follower.merge(message)
    follower.check_structure()
    backwards = Text(b"backwards")
    for message in reversed(messages):
        backwards.merge(message)
    backwards.check_structure()
    assert backwards.waiting == 0
    for text in texts:
        text.merge(follower.changes_since(text.version))
        text.check_structure()
    assert {str(text) for text in (*texts, follower, backwards)} == {data["endContent"]}
    assert len({text.save() for text in (*texts, follower, backwards)}) == 1
