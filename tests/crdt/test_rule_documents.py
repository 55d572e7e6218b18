"""Documents of rules: what is one, what schemas and paths mean. No replica is needed for that."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtp.crdt import Link, values
from dtp.crdt.permission.rules import MAX_DOCUMENT, Rule, Rules, RulesError, Schema, read
from dtp.crdt.values import DECODED_AT_ONCE, PackedList, PackedMap, encode_short, read_value, split_list

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


# ---- long lists and maps, which are read item by item: they say what the decoded ones do ---------------------------

SMALL = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-9, 300),
    st.floats(allow_nan=False),
    st.text(max_size=3),
    st.builds(Link, st.text(max_size=3)),
)
INSIDE = st.recursive(
    SMALL,
    lambda one: st.one_of(st.lists(one, max_size=3), st.dictionaries(st.text(max_size=2), one, max_size=3)),
    max_leaves=5,
)


@st.composite
def long_values(draw: st.DrawFn) -> Any:
    """Values of more than `DECODED_AT_ONCE` bytes, of which some are deep inside others."""
    value: Any = draw(st.lists(INSIDE, min_size=1, max_size=4)) * DECODED_AT_ONCE
    if draw(st.booleans()):
        value = {str(at): one for at, one in enumerate(value[: DECODED_AT_ONCE // 2])}
    for name in draw(st.lists(st.sampled_from(["", "a", "b"]), max_size=3)):
        value = {name: value, "c": draw(SMALL)} if name else [draw(SMALL), value]
    return value


def unpacked(value: Any) -> Any:
    """Return what a value that was read has, decoded."""
    if isinstance(value, PackedList):
        return [unpacked(one) for one in value]
    if isinstance(value, PackedMap):
        return {key: unpacked(one) for key, one in value.items()}
    return value


@settings(max_examples=20)
@given(long_values())
def test_what_is_read_is_what_is_decoded(value: Any) -> None:
    data = values.encode(value)
    found = read_value(data)
    assert isinstance(found, PackedList | PackedMap)
    assert len(found) == len(value)
    assert unpacked(found) == value
    assert encode_short(found, len(data)) == data
    assert encode_short(found, len(data) - 1) is None


@pytest.mark.parametrize(
    "schema",
    [
        Schema(type="list"),
        Schema(type="map"),
        Schema(type="int"),
        Schema(min=0),
        Schema(size=(2, DECODED_AT_ONCE)),
        Schema(prefix="a"),
        Schema(items=Schema(min=0)),
        Schema(items=Schema(items=Schema(size=(0, 2)))),
        Schema(fields={"a": Schema(type="list"), "c": Schema()}),
        Schema(
            fields={"a": Schema(fields={"b": Schema(), "c": Schema()}), "c": Schema()},
            optional=frozenset({"c"}),
        ),
    ],
)
@settings(max_examples=20)
@given(value=long_values())
def test_a_schema_takes_what_it_takes_of_the_decoded_one(schema: Schema, value: Any) -> None:
    assert schema.admits_value(read_value(values.encode(value))) is schema.admits_value(value)


def test_other_forms_than_the_shortest() -> None:
    """Someone may write a key twice, or a number in more bytes than it takes: it is the same value for a schema."""
    twice = b"\xde" + (2).to_bytes(2, "big") + b"\xa1a\xc0\xa1a" + values.encode([7] * DECODED_AT_ONCE)
    found = read_value(twice)
    assert isinstance(found, PackedMap)
    assert (len(found), unpacked(found)) == (1, values.decode(twice))
    assert Schema(fields={"a": Schema(items=Schema(min=7))}).admits_value(found)

    wide = b"\xdd" + (2_000).to_bytes(4, "big") + (b"\xd3" + (7).to_bytes(8, "big")) * 2_000
    assert Schema(one_of=([7] * 2_000,)).admits_value(read_value(wide))
    assert not Schema(one_of=([7] * 1_999,)).admits_value(read_value(wide))
    assert not Schema(one_of=()).admits_value(read_value(wide))


@given(st.lists(st.binary(max_size=300)), st.integers(1, 500))
def test_a_list_in_parts(items: list[bytes], size: int) -> None:
    parts = list(split_list(values.encode(items), size))
    found = [one for part in parts for one in values.decode_all(part)]
    assert found == items
    assert all(len(part) >= size for part in parts[:-1])
    assert all(len(part) - len(msgpack.packb(values.decode_all(part)[-1])) < size for part in parts)
