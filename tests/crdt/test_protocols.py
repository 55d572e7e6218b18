"""The types are what `collections.abc` says they are: any calls give what a dict, a list and a set give."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, MutableMapping, MutableSequence, MutableSet
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.crdt import Replica

KEYS = st.sampled_from(["a", "b", "", "ü"])
VALUES = st.sampled_from([0, 1, -1, "x", "", None, True, 2.5, b"y"])
PLACES = st.integers(-7, 7)
SLICES = st.builds(slice, PLACES | st.none(), PLACES | st.none(), st.sampled_from([None, 1, 1, 2, -1]))


def outcome(call: Callable[[], Any]) -> Any:
    """What a call gives, or the kind of error that it raises."""
    try:
        found = call()
    except (KeyError, IndexError, ValueError) as error:
        return type(error)
    return sorted(found, key=repr) if isinstance(found, set | frozenset) else found


MAPPING_CALLS: list[tuple[str, Any]] = [
    ("get", st.tuples(KEYS) | st.tuples(KEYS, VALUES)),
    ("pop", st.tuples(KEYS) | st.tuples(KEYS, VALUES)),
    ("setdefault", st.tuples(KEYS, VALUES)),
    ("update", st.tuples(st.dictionaries(KEYS, VALUES))),
    ("clear", st.tuples()),
    ("__contains__", st.tuples(KEYS)),
    ("__getitem__", st.tuples(KEYS)),
    ("__setitem__", st.tuples(KEYS, VALUES)),
    ("__delitem__", st.tuples(KEYS)),
    ("__len__", st.tuples()),
]
SEQUENCE_CALLS: list[tuple[str, Any]] = [
    ("append", st.tuples(VALUES)),
    ("insert", st.tuples(PLACES, VALUES)),
    ("extend", st.tuples(st.lists(VALUES, max_size=4))),
    ("pop", st.tuples() | st.tuples(PLACES)),
    ("remove", st.tuples(VALUES)),
    ("reverse", st.tuples()),
    ("clear", st.tuples()),
    ("index", st.tuples(VALUES) | st.tuples(VALUES, st.integers(0, 3))),
    ("count", st.tuples(VALUES)),
    ("__contains__", st.tuples(VALUES)),
    ("__getitem__", st.tuples(PLACES | SLICES)),
    ("__setitem__", st.tuples(PLACES, VALUES)),
    ("__setitem__", st.tuples(SLICES, st.lists(VALUES, max_size=3))),
    ("__delitem__", st.tuples(PLACES | SLICES)),
    ("__iadd__", st.tuples(st.lists(VALUES, max_size=3))),
    ("__len__", st.tuples()),
]
#: Elements that a plain set tells apart as well: 1, 1.0 and True are one there.
ELEMENTS = st.sampled_from([0, 2, "x", "", None, 2.5, b"y"])
SETS = st.sets(ELEMENTS, max_size=4)
SET_CALLS: list[tuple[str, Any]] = [
    ("add", st.tuples(ELEMENTS)),
    ("discard", st.tuples(ELEMENTS)),
    ("remove", st.tuples(ELEMENTS)),
    ("clear", st.tuples()),
    ("__contains__", st.tuples(ELEMENTS)),
    ("__len__", st.tuples()),
    *((name, st.tuples(SETS)) for name in ("__or__", "__and__", "__sub__", "__xor__", "isdisjoint")),
    *((name, st.tuples(SETS)) for name in ("__le__", "__lt__", "__ge__", "__gt__", "__eq__", "__ne__")),
    *((name, st.tuples(SETS)) for name in ("__ior__", "__iand__", "__isub__", "__ixor__")),
]


def calls(choices: list[tuple[str, Any]]) -> Any:
    return st.lists(
        st.sampled_from(choices).flatmap(lambda one: st.tuples(st.just(one[0]), one[1])), max_size=12
    )


def compared(ours: Any, theirs: Any, made: list[tuple[str, tuple[Any, ...]]]) -> None:
    for name, arguments in made:
        a = outcome(lambda: getattr(ours, name)(*copy.deepcopy(arguments)))  # noqa: B023
        b = outcome(lambda: getattr(theirs, name)(*copy.deepcopy(arguments)))  # noqa: B023
        if name.startswith("__i") and name != "__init__":
            assert a is ours
        else:
            assert a == b, (name, arguments)


@pytest.mark.parametrize("kind", ["node", "map"])
@given(made=calls(MAPPING_CALLS))
def test_mappings(kind: str, made: list[tuple[str, tuple[Any, ...]]]) -> None:
    theirs: dict[str, Any] = {}
    ours = getattr(Replica(bytes(32)), kind)("n")
    assert isinstance(ours, MutableMapping)
    compared(ours, theirs, made)
    assert ours == theirs
    assert dict(ours) == theirs
    assert sorted(ours) == sorted(theirs)
    assert sorted(ours.items(), key=repr) == sorted(theirs.items(), key=repr)
    assert sorted(ours.values(), key=repr) == sorted(theirs.values(), key=repr)
    while ours:
        key, value = ours.popitem()
        assert theirs.pop(key) == value
    with pytest.raises(KeyError):
        ours.popitem()


@given(made=calls(SEQUENCE_CALLS))
def test_sequences(made: list[tuple[str, tuple[Any, ...]]]) -> None:
    ours: Any
    theirs: list[Any]
    ours, theirs = Replica(bytes(32)).list("l"), []
    assert isinstance(ours, MutableSequence)
    compared(ours, theirs, made)
    assert list(ours) == theirs
    assert list(reversed(ours)) == theirs[::-1]
    assert [ours[at] for at in range(len(ours))] == theirs
    with pytest.raises(IndexError):
        ours[len(theirs)]


@given(made=calls(SET_CALLS))
def test_sets(made: list[tuple[str, tuple[Any, ...]]]) -> None:
    ours: Any
    theirs: set[Any]
    ours, theirs = Replica(bytes(32)).set("s"), set()
    assert isinstance(ours, MutableSet)
    compared(ours, theirs, made)
    assert ours == theirs
    assert theirs == set(ours)
    while ours:
        theirs.remove(ours.pop())
    assert not theirs


def test_what_is_read_is_the_callers_own() -> None:
    replica = Replica(bytes(32))
    node, items = replica.node("n"), replica.list("l")
    node["k"] = [1, {"a": 2}]
    items.append([1])
    node["k"].append(3)
    items[0].append(2)
    assert (node["k"], items[0]) == ([1, {"a": 2}], [1])
    assert pickle.loads(pickle.dumps(node.to_dict())) == {"k": [1, {"a": 2}]}
