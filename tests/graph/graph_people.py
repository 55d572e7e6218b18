"""A small social graph that queries are tried on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dtp.crdt import Link, Replica
from dtp.graph.query.run import Queries

PEOPLE: dict[str, dict[str, Any]] = {
    "alice": {
        "name": "Alice",
        "age": 33,
        "active": True,
        "nick": "Al",
        "tags": ["a", {"b": None}],
        "big": 1 << 80,
    },
    "bob": {"name": "Bob", "age": 40, "active": True},
    "carol": {"name": "Carol", "age": 27, "active": False},
    "dave": {"name": "Dave", "age": 27, "active": False},
}
FOLLOWS = [("alice", "bob"), ("alice", "carol"), ("bob", "carol"), ("dave", "alice")]


def people() -> Replica:
    """The graph."""
    replica = Replica(bytes(32))
    for name, properties in PEOPLE.items():
        replica.node(f"user/{name}").update(properties)
    for soul, target in FOLLOWS:
        replica.node(f"user/{soul}").link("follows", f"user/{target}")
    replica.put("place/1", "name", "Home")
    replica.put("user/alice", "lives", Link("place/1"))
    return replica


def called(function: Callable[..., Any], *given: Any) -> Any:
    """What queries beside an event loop ask it, without one."""
    return function(*given)


def rows(queries: Queries, text: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """What a query returns, without the names of its columns."""
    return [tuple(row.values()) for row in queries.run(text, parameters)]
