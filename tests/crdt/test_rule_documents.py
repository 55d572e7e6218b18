"""Documents of rules: what is one, what schemas and paths mean. No replica is needed for that."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.crdt import Link, values
from dtp.crdt.permission.rules import MAX_DOCUMENT, Rule, Rules, RulesError, Schema, read

VOTE = Rules("vote", [Rule(path="*", key="{author}", value=Schema(one_of=("yes", "no")), once="soul")])


def test_a_document_is_what_its_soul_names() -> None:
    again = read(VOTE.document)
    assert again == VOTE
    assert again.root == VOTE.root
    assert VOTE.soul("lunch") == f"{VOTE.root}/lunch"
    assert VOTE.root.startswith("%vote:")
    other = Rules("vote", [Rule(path="*", key="{author}", once="soul")])
    assert other.root != VOTE.root


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"\xc1",
        b"\x93\x01",
        values.encode([2, "vote", [{}]]),
        values.encode([True, "vote", [{}]]),
        values.encode([1, "Vote", [{}]]),
        values.encode([1, "vote", []]),
        values.encode([1, "vote", [{}] * 65]),
        values.encode([1, "vote", [{"paths": "*"}]]),
        values.encode([1, "vote", [{"path": 1}]]),
        values.encode([1, "vote", [{"path": "**/a"}]]),
        values.encode([1, "vote", [{"path": "a/a/a/a/a/a/a/a/a"}]]),
        values.encode([1, "vote", [{"space": "nowhere"}]]),
        values.encode([1, "vote", [{"space": ["set"]}]]),
        values.encode([1, "vote", [{"once": "twice"}]]),
        values.encode([1, "vote", [{"removes": {}}]]),
        values.encode([1, "vote", [{"rate": [0, 1]}]]),
        values.encode([1, "vote", [{"rate": [1, float("inf")]}]]),
        values.encode([1, "vote", [{"writers": "me"}]]),
        values.encode([1, "vote", [{"value": {"type": "float"}}]]),
        values.encode([1, "vote", [{"value": {"type": []}}]]),
        values.encode([1, "vote", [{"value": {"min": "1"}}]]),
        values.encode([1, "vote", [{"value": {"max": float("nan")}}]]),
        values.encode([1, "vote", [{"value": {"size": [1]}}]]),
        values.encode([1, "vote", [{"value": {"fields": []}}]]),
        b"\x93\x01\xa4vote\x91\x81\xa5value" + b"\x81\xa5items" * 20 + b"\x80",
        b"\x93\x01\xa4vote" + b"\x91" * 1000 + b"\x90",
        bytes(MAX_DOCUMENT + 1),
    ],
)
def test_what_is_no_document(document: bytes) -> None:
    with pytest.raises(RulesError):
        read(document)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_document_or_refused(document: bytes) -> None:
    try:
        read(b"\x93\x01\xa4vote\x91" + document)
    except RulesError:
        return


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (Schema(type="int", min=0, max=5), [0, 5], [True, -1, 6, 2.0, "1", None, 1 << 80]),
        (Schema(type="number", min=0.5), [0.5, 1, 1 << 80], [0, float("nan"), "1"]),
        (Schema(min=1), [1, 1.5], ["", None, [], float("nan")]),
        (Schema(type="text", size=(1, 3)), ["a", "äöü"], ["", "abcd", b"a", 1]),
        (Schema(type="bytes", size=(0, 1)), [b"", b"a"], ["", b"ab"]),
        (Schema(one_of=(1, "a", None)), [1, "a", None], [True, 1.0, "b"]),
        (Schema(type="link", prefix="user/"), [Link("user/a")], [Link("place/a"), "user/a"]),
        (Schema(prefix="x"), ["xy"], ["y", b"x", 1]),
        (Schema(type="list", items=Schema(type="int"), size=(0, 2)), [[], [1, 2]], [[1, "a"], [1, 2, 3], 1]),
        (Schema(type="map"), [{}], [[], None]),
        (
            Schema(fields={"a": Schema(type="int"), "b": Schema()}, optional=frozenset({"b"})),
            [{"a": 1}, {"a": 1, "b": "x"}],
            [{}, {"b": 1}, {"a": "x"}, {"a": 1, "c": 1}, 5],
        ),
        (Schema(type="null"), [None], [0]),
        (Schema(type="bool"), [True], [1]),
    ],
)
def test_schemas(schema: Schema, good: list[Any], bad: list[Any]) -> None:
    again = read(Rules("kind", [Rule(value=schema)]).document).rules[0].value
    for one in (schema, again):
        assert all(one.admits_value(value) for value in good)
        assert not any(one.admits_value(value) for value in bad)


@pytest.mark.parametrize(
    ("path", "matching", "other"),
    [
        ("*", ["a", "b"], ["", "a/b"]),
        ("**", ["", "a", "a/b/c"], []),
        ("a/**", ["a", "a/b", "a/b/c"], ["b", "", "ab"]),
        ("a/*/c", ["a/b/c"], ["a/c", "a/b/c/d"]),
        ("{author}", ["me"], ["you"]),
        ("x-{author}/*", ["x-me/1"], ["x-you/1", "x-me"]),
        ("", [""], ["a"]),
    ],
)
def test_paths(path: str, matching: list[str], other: list[str]) -> None:
    matcher = Rules("kind", [Rule(path=path)]).matcher("me")
    assert all(matcher.first_rule(one, "k", "register") for one in matching)
    assert not any(matcher.first_rule(one, "k", "register") for one in other)
    assert not matcher.first_rule(matching[0], "k", "set")
