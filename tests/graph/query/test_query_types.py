"""Texts, lists, sets, counters, maps and blobs in queries: as properties, in conditions, in what `live` tells."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from graph_fixtures import ALICE, BOB, told
from hypothesis import given
from hypothesis import strategies as st

from dtp.core import crdt as core
from dtp.crdt import BlobRef, Link, Node, Replica, values
from dtp.graph import Graph
from dtp.graph.query.errors import QueryError
from dtp.graph.query.run import Queries

#: In the order in which one of them is the property, where a key has several.
TYPES = ("register", "text", "list", "counter", "map", "set")
LONG = "oak" * 500
VALUES: tuple[Any, ...] = (None, True, 0, 7, 7.0, -2.5, 1 << 70, "", "oak", LONG, b"\xc3", [7], Link("x/1"))


def write(replica: Replica, kind: str, soul: str, key: str, rng: random.Random) -> None:
    some = [rng.choice(VALUES) for _ in range(rng.randrange(3))]
    if kind == "register":
        replica.put(soul, key, rng.choice(VALUES))
    elif kind == "text":
        replica.text(soul, key).insert(0, rng.choice(("oak", "7", "", LONG)))
    elif kind == "list":
        replica.list(soul, key).extend(some)
    elif kind == "counter":
        replica.counter(soul, key).add(rng.choice((1, 7, -3, 1 << 58)))
    elif kind == "map":
        replica.map(soul)[key] = rng.choice(VALUES)
    else:
        for one in some:
            replica.set(soul, key).add(one)


def model(replica: Replica, soul: str, key: str) -> Any:
    """The property, read by what the types themselves say."""
    register = replica.get(soul, key)
    if register is not None and not isinstance(register, Link):
        return register
    for space, read in ((core.TEXT, replica.text), (core.LIST, replica.list)):
        found = read(soul, key)
        if len(found) or key in values.decode(replica.core.read_keys(space, soul.encode())):
            return str(found) if space == core.TEXT else list(found)
    if replica.counter(soul, key).by_author():
        return int(replica.counter(soul, key))
    if (found := replica.map(soul).get(key)) is not None:
        return found
    return [one for one in replica.set(soul, key) if not isinstance(one, Link)] or None


def shown(value: Any) -> str:
    """Comparable, with nodes and links by their souls."""
    if isinstance(value, Node | Link):
        return f"-> {value.soul}"
    return f"[{', '.join(map(shown, value))}]" if isinstance(value, list) else repr(value)


@given(st.integers(0, 1 << 32))
def test_properties_and_conditions_are_what_the_types_say(seed: int) -> None:
    rng = random.Random(seed)
    replica, other = Replica(bytes(32)), Replica(bytes([1] * 32))
    for _ in range(rng.randrange(1, 25)):
        kind, soul = rng.choice(TYPES), f"{rng.choice('xy')}/{rng.randrange(4)}"
        write(rng.choice((replica, other)), kind, soul, rng.choice("uv"), rng)
    for frame in other.commit():
        replica.merge(frame.author, frame.body)
    if rng.random() < 0.7:
        replica.commit()
    queries, beside = Queries(replica), Queries(replica, ask=lambda function, *given: function(*given))
    for one in (queries, beside):
        rows = one.run("MATCH (n) RETURN id(n) AS id, n.u AS u, n.v AS v, properties(n) AS p", {})
        for row in rows:
            expected = {key: model(replica, row["id"], key) for key in "uv"}
            assert {key: shown(row[key]) for key in "uv"} == {k: shown(v) for k, v in expected.items()}
            assert row["p"].keys() == {key for key, value in expected.items() if value is not None}
    value = rng.choice(VALUES)
    for condition in ("n.v = $v", "n.v < $v", "n.v >= $v", "n.v STARTS WITH $v", "$v IN n.v"):
        # WHERE behind WITH is worked out on the values alone
        narrowed = f"MATCH (n:x) WHERE {condition} RETURN id(n) AS i ORDER BY i"
        plainly = f"MATCH (n) WITH n WHERE n:x AND {condition} RETURN id(n) AS i ORDER BY i"
        expected = answer(Queries(replica), plainly, value)
        if isinstance(expected, list):  # IN takes lists alone, and is not asked of what isn't found
            for one in (Queries(replica), queries, beside):
                assert answer(one, narrowed, value) == expected, (condition, value)


def answer(queries: Queries, text: str, value: Any) -> Any:
    try:
        return queries.run(text, {"v": value})
    except QueryError as error:
        return str(error)


def test_what_changes_is_seen() -> None:
    replica = Replica(bytes(32))
    queries = Queries(replica)
    asked = "MATCH (n:note) WHERE n.likes >= 2 AND 'oak' IN n.tags AND n.body STARTS WITH 'An' RETURN n.steps AS s"
    assert queries.run(asked, {}) == []
    replica.counter("note/1", "likes").add(2)
    queries.index.on_changed(replica.take_changes())
    replica.set("note/1", "tags").add("oak")
    queries.index.on_changed(replica.take_changes())
    replica.text("note/1", "body").insert(0, "An oak")  # seen before its commit
    replica.list("note/1", "steps").extend(["dig", {"depth": 2}])
    assert queries.run(asked, {}) == [{"s": ["dig", {"depth": 2}]}]
    replica.set("note/1", "tags").discard("oak")
    queries.index.on_changed(replica.take_changes())
    assert queries.run(asked, {}) == []


def test_many_texts_stay_closed() -> None:
    replica = Replica(bytes(32))
    for number in range(200):
        replica.text(f"note/{number}", "body").insert(0, f"note {number}")
    saved, (frame,) = Replica(bytes([1] * 32)), replica.commit()
    saved.merge(frame.author, frame.body)
    fresh = Replica.load(saved.author, saved.save())
    queries = Queries(fresh)
    asked = "MATCH (n:note) WHERE n.body ENDS WITH ' 77' RETURN n.body AS body"
    assert queries.run(asked, {}) == [{"body": "note 77"}]
    assert fresh.save() == saved.save()


def test_a_blob_has_an_id_and_a_size() -> None:
    replica = Replica(bytes(32))
    replica.put("photo/1", "file", BlobRef(bytes(range(32)), 1 << 20))
    asked = (
        "MATCH (p:photo) WHERE p.file.size > 1000 RETURN p.file AS file, p.file.id AS id, p.file.name AS no"
    )
    (row,) = Queries(replica).run(asked, {})
    assert row == {"file": BlobRef(bytes(range(32)), 1 << 20), "id": bytes(range(32)).hex(), "no": None}


def test_live_tells_of_every_type() -> None:
    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as one,
            await Graph.open("memory:", identity=BOB) as two,
        ):
            one.node("note/1")["there"] = True
            changes = one.live("MATCH (n:note) RETURN n")
            assert len((await anext(changes)).added) == 1
            for edit in (
                lambda graph: graph.text("note/1", "body").insert(0, "An oak"),
                lambda graph: graph.list("note/1", "steps").append("dig"),
                lambda graph: graph.counter("note/1", "likes").add(1),
                lambda graph: graph.set("note/1", "tags").add("oak"),
                lambda graph: graph.map("note/1").__setitem__("size", 3),
            ):
                edit(two)
                await told(two, BOB, one)
                difference = await anext(changes)
                assert len(difference.added) == len(difference.removed) == 1
            asked = "MATCH (n:note) RETURN properties(n) AS p"
            expected = {
                "there": True,
                "body": "An oak",
                "steps": ["dig"],
                "likes": 1,
                "tags": ["oak"],
                "size": 3,
            }
            assert one.query(asked) == await one.query_async(asked) == [{"p": expected}]

    asyncio.run(main())
