"""A graph in memory and in a file: what was committed is there again, signed, in order; what is wrong is refused."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import sqlite3
from pathlib import Path
from typing import Any

import msgpack
import pytest
from graph_fixtures import ALICE, BOB, CAROL, run, stored_frames

from dtp.core.errors import EncodingError
from dtp.crdt import Clock
from dtp.graph import Envelope, EnvelopeError, Equivocation, Graph, GraphError, Proof, StoreError
from dtp.graph.frames import envelope as envelopes


def test_what_was_put_is_there_after_opening_again(tmp_path: Path) -> None:
    path = str(tmp_path / "notes.db")

    async def write() -> bytes:
        async with await Graph.open(path, identity=ALICE) as graph:
            alice = graph.node("user/alice")
            alice["name"] = "Alice"
            alice.link("follows", "user/bob")
            graph.list("todo").extend(["milk", "eggs"])
            graph.set("tags").add("x")
            graph.counter("hits").add(3)
            graph.map("settings")["colour"] = "blue"
            await graph.commit()
            return graph.replica.save()

    async def read() -> bytes:
        async with await Graph.open(path, identity=ALICE) as graph:
            assert graph.node("user/alice")["name"] == "Alice"
            assert graph.node("user/alice").links("follows") == ["user/bob"]
            assert list(graph.list("todo")) == ["milk", "eggs"]
            assert set(graph.set("tags")) == {"x"}
            assert graph.counter("hits").value == 3
            assert graph.map("settings")["colour"] == "blue"
            assert graph.souls("user/") == ["user/alice"]
            state = graph.replica.save()
            graph.counter("hits").add(1)
            return state

    async def read_on() -> None:
        async with await Graph.open(path, identity=ALICE) as graph:
            assert graph.counter("hits").value == 4

    state = run(write())
    assert run(read()) == state
    run(read_on())


def test_what_was_made_is_stored_by_itself_in_the_next_turn(tmp_path: Path) -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as graph:
            stored = asyncio.Event()
            forget = graph.listen(stored.set)
            graph.node("a")["k"] = 1
            graph.node("a")["l"] = 2
            await stored.wait()
            assert graph.frames.vector() == {ALICE.id.key: 1}  # one frame of both
            forget()

    run(main())


def test_frames_make_a_chain_that_others_take_in_any_order() -> None:
    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as one,
            await Graph.open("memory:", identity=BOB) as other,
        ):
            for number in range(5):
                one.node("a")["k"] = number
                await one.commit()
            sent = await stored_frames(one)
            assert len(sent) == 5
            assert await other.receive([sent[3], sent[1]]) == 0
            assert other.frames.gaps() == [(ALICE.id.key, 1, 1), (ALICE.id.key, 3, 3)]
            assert await other.receive([sent[0]]) == 2
            assert await other.receive([sent[2], sent[2]]) == 2
            assert other.node("a")["k"] == 3
            assert await other.receive([sent[4]]) == 1
            assert other.frames.gaps() == []
            assert await other.receive(sent) == 0
            assert other.replica.save() == one.replica.save()
            assert other.frames.vector() == one.frames.vector()

    run(main())


def test_watching() -> None:
    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as one,
            await Graph.open("memory:", identity=BOB) as other,
        ):
            async with other.watch("user/*") as watch:
                one.node("user/alice")["name"] = "Alice"
                one.node("place/1")["name"] = "elsewhere"
                await one.commit()
                await other.receive(await stored_frames(one))
                other.node("user/bob")["name"] = "B"
                other.node("user/bob")["name"] = "Bob"  # told once: the reader is not there yet
                first, second = await anext(watch), await anext(watch)
                assert first[:4] == ("user/alice", "name", "register", ALICE.id.key)
                assert second[:4] == ("user/bob", "name", "register", BOB.id.key)
                waiting = asyncio.ensure_future(anext(watch))
                await asyncio.sleep(0)
                other.counter("user/hits").add(1)
                assert (await waiting)[:3] == ("user/hits", "", "counter")
            assert [change async for change in watch] == []
            last = other.watch()
            await other.close()
            assert [change async for change in last] == []

    run(main())


# ---- what is refused ------------------------------------------------------------------------------------------


@pytest.fixture
def signed() -> list[Envelope]:
    """Two envelopes of Alice's."""

    async def main() -> list[Envelope]:
        async with await Graph.open("memory:", identity=ALICE) as graph:
            for number in range(2):
                graph.node("a")["k"] = number
                await graph.commit()
            found = [envelopes.decode("", one) for one in await stored_frames(graph)]
            return [one for one in found if isinstance(one, Envelope)]

    return run(main())


def refused(expected: type[Exception], *data: bytes, before: int = 0) -> Exception:
    async def main() -> Exception:
        async with await Graph.open("memory:", identity=BOB) as graph:
            with pytest.raises(expected) as caught:
                await graph.receive(data)
            assert sum(graph.frames.vector().values()) == before
            return caught.value

    return run(main())


@pytest.mark.parametrize(
    "change",
    [
        {"body": b"\x10"},
        {"signature": bytes(64)},
        {"author": bytes(32)},
        {"author": CAROL.id.key},
        {"previous": bytes(31) + b"\x01", "sequence": 2},
    ],
    ids=str,
)
def test_forged_envelopes(signed: list[Envelope], change: dict[str, Any]) -> None:
    forged = dataclasses.replace(signed[0], **change)
    refused(EnvelopeError, signed[0].encode(), forged.encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        msgpack.packb([]),
        msgpack.packb([2, bytes(32), 1, bytes(32), b"", bytes(64)]),
        msgpack.packb([True, bytes(32), 1, bytes(32), b"", bytes(64)]),
        msgpack.packb([1, bytes(31), 1, bytes(32), b"", bytes(64)]),
        msgpack.packb([1, bytes(32), 0, bytes(32), b"", bytes(64)]),
        msgpack.packb([1, bytes(32), 2, bytes(32), b"", bytes(64)]),
        msgpack.packb([1, bytes(32), 1, bytes(32), "", bytes(64)]),
        msgpack.packb([1, bytes(32), 1, bytes(32), b"", bytes(63)]),
        msgpack.packb([1, bytes(32), 1, bytes(32), b"", bytes(64)]) + b"\x00",
    ],
    ids=lambda data: data.hex()[:8] + str(len(data)),
)
def test_what_is_no_envelope(data: bytes) -> None:
    refused(EnvelopeError, data)


def test_envelopes_of_another_graph_are_refused(signed: list[Envelope]) -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=BOB, name="other") as graph:
            with pytest.raises(EnvelopeError, match="other"):
                await graph.receive([signed[0].encode()])

    run(main())


def test_a_signed_frame_that_is_none_is_refused(signed: list[Envelope]) -> None:
    wrong = envelopes.sign_frame(ALICE, "", 1, envelopes.NONE_BEFORE, b"\x10" + bytes(8) + b"\x00")
    refused(EncodingError, wrong.encode())


def test_a_frame_that_does_not_begin_where_the_last_ended(signed: list[Envelope]) -> None:
    first, second = signed
    body = bytearray(second.body)
    body[1] ^= 1
    wrong = envelopes.sign_frame(ALICE, "", 2, first.hash, bytes(body))
    refused(EnvelopeError, first.encode(), wrong.encode(), before=1)


def test_two_histories_are_a_proof(signed: list[Envelope], tmp_path: Path) -> None:
    first, second = signed
    other_first = envelopes.sign_frame(ALICE, "", 1, envelopes.NONE_BEFORE, second.body)
    other_second = envelopes.sign_frame(ALICE, "", 2, other_first.hash, second.body)
    path = str(tmp_path / "bob.db")

    async def main() -> None:
        async with await Graph.open(path, identity=BOB) as graph:
            await graph.receive([first.encode()])
            with pytest.raises(Equivocation) as caught:
                await graph.receive([other_first.encode()])
            assert caught.value.proof.is_valid()
            with pytest.raises(Equivocation) as caught:
                await graph.receive([other_second.encode()])
            assert caught.value.proof.is_valid()
            assert caught.value.proof.author == ALICE.id.key
            assert await graph.receive([second.encode()]) == 1  # what came first goes on
        async with await Graph.open(path, identity=BOB) as graph:
            (proof,) = await graph.frames.proofs()
            assert proof.is_valid()

    run(main())
    assert not Proof(first, second).is_valid()
    assert not Proof(first, first).is_valid()
    assert not Proof(first, dataclasses.replace(other_first, signature=bytes(64))).is_valid()
    assert not Proof(first, envelopes.sign_frame(BOB, "", 1, envelopes.NONE_BEFORE, second.body)).is_valid()


# ---- places and times --------------------------------------------------------------------------------------------


def test_a_closed_graph_says_so() -> None:
    async def main() -> None:
        graph = await Graph.open("memory:", identity=ALICE)
        await graph.close()
        await graph.close()
        assert graph.closed
        for call in (lambda: graph.watch(), lambda: graph.node("a").update(k=1)):
            with pytest.raises(GraphError, match="closed"):
                call()
        with pytest.raises(GraphError, match="closed"):
            await graph.commit()
        with pytest.raises(GraphError, match="closed"):
            await graph.receive([])

    run(main())


def test_places_that_can_not_be(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE t (x)")
    db.close()
    text = tmp_path / "text.db"
    text.write_text("this is not a database, but it is long enough to be looked at" * 100)

    async def main() -> None:
        for place, error in (
            (str(other), StoreError),
            (str(text), StoreError),
            (str(tmp_path / "no" / "folder.db"), StoreError),
            ("mysql://host/db", GraphError),
        ):
            with pytest.raises(error):
                await Graph.open(place, identity=ALICE)
        with pytest.raises(GraphError, match="name"):
            await Graph.open("memory:", identity=ALICE, name="x" * 256)
        async with await Graph.open(str(tmp_path / "one.db"), identity=ALICE):
            with pytest.raises(StoreError, match="another process"):
                await Graph.open(str(tmp_path / "one.db"), identity=BOB)

    run(main())


def test_a_damaged_state_is_made_again_from_the_frames(tmp_path: Path) -> None:
    path = str(tmp_path / "notes.db")

    async def write() -> bytes:
        async with await Graph.open(path, identity=ALICE) as graph:
            graph.node("a")["k"] = 1
            await graph.commit()
            return graph.replica.save()

    async def read() -> bytes:
        async with await Graph.open(path, identity=ALICE) as graph:
            return graph.replica.save()

    state = run(write())
    db = sqlite3.connect(path)
    assert db.execute("UPDATE state SET state = X'00'").rowcount == 1
    db.commit()
    db.close()
    assert run(read()) == state


def test_frames_from_the_future_come_when_they_are_due() -> None:
    wall = {"alice": 2_000.0, "bob": 1_000.0}

    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE, clock=Clock(lambda: wall["alice"])) as one,
            await Graph.open("memory:", identity=BOB, clock=Clock(lambda: wall["bob"])) as other,
        ):
            one.node("a")["k"] = 1
            await one.commit()
            assert await other.receive(await stored_frames(one)) == 1
            assert "k" not in other.node("a")
            watch = other.watch()
            wall["bob"] = 1_940.0
            other.intake._apply_due()  # what the timer calls
            assert (await anext(watch)).soul == "a"
            assert other.node("a")["k"] == 1

    run(main())


def test_what_texts_name_of_a_graph_is_there() -> None:
    """Errors sent users to a method that had another name since."""
    root = Path(__file__).parents[2]
    texts = [*(root / "dtp").rglob("*.py"), *(root / "docs").glob("*.md"), root / "README.md"]
    named = {
        (path.name, name)
        for path in texts
        for name in re.findall(r"\bGraph\.([a-z_]+(?:\.[a-z_]+)?)\b(?!\.(?:md|py))", path.read_text())
    }

    def lacks(graph: Graph, name: str) -> bool:
        found: Any = graph
        for part in name.split("."):
            if not hasattr(found, part):
                return True
            found = getattr(found, part)
        return False

    async def main() -> set[tuple[str, str]]:
        async with await Graph.open("memory:", identity=ALICE) as graph:
            return {one for one in named if lacks(graph, one[1])}

    assert len(named) > 50
    assert run(main()) == set()
