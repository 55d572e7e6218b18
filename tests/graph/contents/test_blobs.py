"""Blobs: what is here is whole and what its id says, whoever sends it and whenever one is killed."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
from graph_fixtures import ALICE, BOB, connected, run

import dtp
from dtp.crdt import GraphValueError
from dtp.graph import BlobAbsent, BlobError, BlobRef, Graph, GraphError, Part, StoreError
from dtp.graph.blobs import fetching
from dtp.graph.blobs import store as blobs
from dtp.graph.blobs.store import CHUNK, BlobStore, Listing
from dtp.identity import Identity

blake3 = pytest.importorskip("blake3", reason="a dependency that is loaded with the first blob").blake3


async def opened(who: Identity) -> Graph:
    return await Graph.open("memory:", identity=who, name="g")


def some(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 17])
def test_what_was_added_is_read(tmp_path: Path, size: int) -> None:
    data = some(size)

    async def main() -> None:
        async with await Graph.open(str(tmp_path / "g.db"), identity=ALICE) as graph:
            ref = await graph.blobs.add(data)
            (tmp_path / "file").write_bytes(data)
            assert await graph.blobs.add(tmp_path / "file") == ref
            assert await graph.blobs.add(io.BytesIO(data)) == ref
            graph.node("photo")["file"] = ref
            blob = graph.blobs.get(ref)
            assert (blob.size, blob.is_here, await blob.read()) == (size, True, data)
            rng = random.Random(size)
            for _ in range(10):
                start, count = rng.randrange(size + 1), rng.randrange(size + 2)
                assert await blob.read(start, count) == data[start : start + count]
        async with await Graph.open(str(tmp_path / "g.db"), identity=ALICE) as graph:
            assert await graph.blobs.get(graph.node("photo")["file"]).read() == data
            assert list(graph.blobs.store.stored_refs()) == [ref]
            assert graph.query("MATCH (p) WHERE p.file IS NOT NULL RETURN p.file AS file") == [{"file": ref}]

    run(main())
    assert len(list((tmp_path / "g.db-blobs").iterdir())) == 2  # once, with its list


def test_ids_are_those_of_the_specification() -> None:
    data = some(CHUNK + 5)
    store = BlobStore(None, scratch=True)
    hashes = b"".join(
        blake3(part, derive_key_context="dtp.graph.blob.chunk.v1").digest()
        for part in (data[:CHUNK], data[CHUNK:])
    )
    told = (CHUNK + 5).to_bytes(8, "big") + hashes
    assert (
        store.add_blob(io.BytesIO(data)).id
        == blake3(told, derive_key_context="dtp.graph.blob.list.v1").digest()
    )
    store.close()


def test_what_is_no_blob(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            connected("none") as (client, _),
            await Graph.open(str(tmp_path / "g.db"), identity=ALICE) as graph,
        ):
            absent = BlobRef(bytes(32), 5)
            assert not graph.blobs.get(absent).is_here
            with pytest.raises(BlobAbsent):
                await graph.blobs.get(absent).read()
            for wrong in (BlobRef(b"short", 5), BlobRef(bytes(32), -1), BlobRef(bytes(32), 1 << 50), "text"):
                with pytest.raises(GraphError, match="no blob"):
                    await graph.blobs.fetch(wrong, client)  # type: ignore[arg-type]
            with pytest.raises(GraphValueError, match="32 bytes"):
                graph.node("a")["k"] = BlobRef(b"short", 5)
            with pytest.raises(GraphError, match="no file"):
                await graph.blobs.add(tmp_path / "nothing")
            small = BlobStore(tmp_path / "small", most=10)
            small.add_blob(io.BytesIO(bytes(10)))
            there = set((tmp_path / "small").iterdir())
            with pytest.raises(GraphError, match="at most 10"):
                small.add_blob(io.BytesIO(bytes(11)))
            assert set((tmp_path / "small").iterdir()) == there

    run(main())


def test_a_place_without_files_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="blobs=FOLDER"):
        BlobStore(None).add_blob(io.BytesIO(b"x"))

    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE, blobs=tmp_path / "b") as graph:
            ref = await graph.blobs.add(b"x")
        assert (tmp_path / "b" / ref.id.hex()).read_bytes() == b"x"

    run(main())


def test_damage_on_the_disk_is_seen(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "b")
    ref = store.add_blob(io.BytesIO(some(2 * CHUNK)))
    listing = store.read_listing(ref)
    assert listing is not None
    path = tmp_path / "b" / ref.id.hex()
    with path.open("r+b") as file:
        file.seek(CHUNK + 7)
        file.write(b"damage")
    assert store.read_chunk(ref, listing, 0) == some(2 * CHUNK)[:CHUNK]
    with pytest.raises(StoreError, match="chunk 1"):
        store.read_chunk(ref, listing, 1)
    (tmp_path / "b" / f"{ref.id.hex()}.list").write_bytes(b"damage")
    assert store.read_listing(ref) is None


# ---- killed -----------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """As if the process had ended there."""


class Dying:
    """`os`, but the process is killed at the n-th thing that changes the disk; a write is half done then."""

    CHANGES = ("write", "replace", "fsync", "ftruncate", "open")

    def __init__(self, left: int) -> None:
        self.left = left

    def __getattr__(self, name: str) -> Any:
        found = getattr(os, name)
        if name not in self.CHANGES:
            return found

        def changed(*arguments: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                if name == "write":
                    os.write(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                raise Killed
            if self.left < 0:
                raise Killed
            return found(*arguments, **options)

        return changed


def take(store: BlobStore, ref: BlobRef, listing: Listing, data: bytes) -> None:
    """As `fetch` does."""
    incoming = store.begin_incoming(ref, listing)
    try:
        while not incoming.is_whole:
            at = incoming.have * CHUNK
            incoming.add_chunk(incoming.have, data[at : at + CHUNK])
        incoming.publish_blob()
    finally:
        incoming.close()


@pytest.mark.parametrize("way", ["add", "take"])
def test_killed_at_every_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    data = some(2 * CHUNK + 100)
    source = BlobStore(tmp_path / "source")
    ref = source.add_blob(io.BytesIO(data))
    listing = source.read_listing(ref)
    assert listing is not None
    for number in range(1, 100):
        store = BlobStore(tmp_path / f"{way}{number}")

        def work(store: BlobStore = store) -> None:
            if way == "add":
                assert store.add_blob(io.BytesIO(data)) == ref
            else:
                take(store, ref, listing, data)

        dying = Dying(number)
        with monkeypatch.context() as patched:
            patched.setattr(blobs, "os", dying)
            with contextlib.suppress(Killed):
                work()
        again = BlobStore(tmp_path / f"{way}{number}")  # another process
        if again.has_blob(ref):
            assert again.read_listing(ref) == listing
            assert b"".join(again.read_chunk(ref, listing, at) for at in range(listing.chunks)) == data
        work(again)
        assert again.has_blob(ref)
        assert again.read_listing(ref) == listing
        again.remove_unreferenced([ref])
        assert len(list((tmp_path / f"{way}{number}").iterdir())) == 2
        if dying.left > 0:
            break
    assert 8 < number < 99


def test_what_came_before_it_was_killed_is_not_fetched_again(tmp_path: Path) -> None:
    data = some(5 * CHUNK)
    source, store = BlobStore(tmp_path / "source"), BlobStore(tmp_path / "b")
    ref = source.add_blob(io.BytesIO(data))
    listing = source.read_listing(ref)
    assert listing is not None
    incoming = store.begin_incoming(ref, listing)
    for number in range(3):
        incoming.add_chunk(number, data[number * CHUNK : (number + 1) * CHUNK])
    for number, wrong in (
        (2, data[2 * CHUNK : 3 * CHUNK]),
        (3, data[:CHUNK]),
        (3, b""),
        (4, data[4 * CHUNK :]),
    ):
        with pytest.raises(BlobError):
            incoming.add_chunk(number, wrong)
    incoming.close()
    part = tmp_path / "b" / f"{ref.id.hex()}.part"
    with part.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(b"half a chunk")
        file.seek(2 * CHUNK + 1)
        file.write(b"damage")
    incoming = store.begin_incoming(ref, listing)
    assert incoming.have == 2
    for number in range(2, 5):
        incoming.add_chunk(number, data[number * CHUNK : (number + 1) * CHUNK])
    with pytest.raises(BlobError):
        incoming.add_chunk(5, b"")
    incoming.publish_blob()
    incoming.close()
    assert (tmp_path / "b" / ref.id.hex()).read_bytes() == data
    with pytest.raises(BlobError, match="belongs to another blob"):
        store.begin_incoming(ref, listing._replace(size=listing.size - 1))


# ---- over connections -------------------------------------------------------------------------------------------


def test_fetching_and_going_on(monkeypatch: pytest.MonkeyPatch) -> None:
    data = some(6 * CHUNK + 1)

    async def main() -> None:
        async with (
            connected("fetch") as (client, server),
            await Graph.open("memory:", identity=ALICE) as one,
            await Graph.open("memory:", identity=BOB) as other,
        ):
            other.node("photo")["file"] = await other.blobs.add(data)
            serving = asyncio.create_task(other.serve(server))
            await one.sync(client)
            ref = one.node("photo")["file"]
            taken: list[int] = []
            add = blobs.Incoming.add_chunk

            def broken(self: blobs.Incoming, number: int, data: bytes) -> None:
                if number == 4 and taken.count(4) == 0:
                    taken.append(4)
                    raise StoreError("the disk is full")
                taken.append(number)
                add(self, number, data)

            monkeypatch.setattr(blobs.Incoming, "add_chunk", broken)
            with pytest.raises(StoreError, match="full"):
                await one.blobs.fetch(ref, client)
            first, second = await asyncio.gather(one.blobs.fetch(ref, client), one.blobs.fetch(ref, client))
            assert taken == [0, 1, 2, 3, 4, 4, 5, 6]  # each once, though two asked
            assert await first.read() == await second.read() == data
            assert await (await one.blobs.fetch(ref, client)).read(5, 5) == data[5:10]
            with pytest.raises(BlobAbsent):
                await one.blobs.fetch(BlobRef(bytes(32), 10), client)
            other.node("still")["k"] = 1
            assert (await one.sync(client)).received == 1
            await client.close()
            await serving

    run(main())


def packed(*parts: Any) -> bytes:
    message = msgpack.packb(parts)
    return len(message).to_bytes(4, "big") + message


LIAR: dict[str, Callable[[Listing, bytes], list[bytes]]] = {
    "another list": lambda known, data: [packed(17, known.size, bytes(len(known.hashes)))],
    "another size": lambda known, data: [packed(17, known.size + 1, known.hashes)],
    "a short list": lambda known, data: [packed(17, known.size, known.hashes[:-1])],
    "another chunk": lambda known, data: [
        packed(17, *known),
        packed(18, 0, data[:CHUNK]),
        packed(18, 1, b"x"),
    ],
    "a chunk twice": lambda known, data: [packed(17, *known), *[packed(18, 0, data[:CHUNK])] * 2],
    "no list": lambda known, data: [packed(18, 0, data[:CHUNK])],
    "other types": lambda known, data: [packed(17, b"", known.hashes)],
    "no message": lambda known, data: [b"\0\0\0\1\xc1"],
    "no array": lambda known, data: [b"\0\0\0\1\x11"],
    "too much": lambda known, data: [b"\xff\xff\xff\xff"],
    "nothing": lambda known, data: [],
    "half": lambda known, data: [packed(17, *known)[:-1]],
}


@pytest.mark.parametrize("lie", LIAR)
def test_a_peer_that_sends_something_else(lie: str) -> None:
    data = some(3 * CHUNK)

    async def answer(server: dtp.Connection, messages: list[bytes]) -> None:
        stream = await server.accept_stream()
        await stream.readexactly(4)
        stream.writelines(messages)
        stream.write_eof()

    async def main() -> None:
        async with (
            connected(f"liar-{[*LIAR].index(lie)}") as (client, server),
            await Graph.open("memory:", identity=ALICE) as one,
            await Graph.open("memory:", identity=BOB) as other,
        ):
            ref = await other.blobs.add(data)
            listing = other.blobs.store.read_listing(ref)
            assert listing is not None
            lying = asyncio.create_task(answer(server, LIAR[lie](listing, data)))
            with pytest.raises(BlobError):
                await one.blobs.fetch(ref, client)
            await lying
            assert not one.blobs.get(ref).is_here
            serving = asyncio.create_task(other.serve(server))
            assert await (await one.blobs.fetch(ref, client)).read() == data  # an honest one goes on
            await client.close()
            await serving

    run(main())


@pytest.mark.parametrize(
    "request_parts",
    [
        ("", b"short", 5, False, 0),
        ("", bytes(32), -1, False, 0),
        ("", bytes(32), 5, False, -1),
        ("other", bytes(32), 5, False, 0),
        ("", bytes(32), 5, 0, 0),
        ("",),
    ],
    ids=str,
)
def test_requests_that_are_none(request_parts: tuple[Any, ...]) -> None:
    async def main() -> None:
        async with (
            connected(f"ask-{len(str(request_parts))}") as (client, server),
            await Graph.open("memory:", identity=BOB) as other,
        ):
            serving = asyncio.create_task(other.serve(server))
            stream = await client.open_stream()
            stream.write(packed(fetching.BlobMessage.BLOB, *request_parts))
            with pytest.raises(dtp.StreamReset):
                await stream.read()
            await client.close()
            await serving

    run(main())


def test_memory_is_bounded(tmp_path: Path) -> None:
    """Of a blob of 128 chunks no more than a few are held at once."""
    import tracemalloc

    path = tmp_path / "large"
    with path.open("wb") as file:
        for number in range(128):
            file.write(some(CHUNK, number))

    async def main() -> None:
        async with (
            connected("memory") as (client, server),
            await Graph.open("memory:", identity=ALICE) as one,
            await Graph.open("memory:", identity=BOB) as other,
        ):
            serving = asyncio.create_task(other.serve(server))
            tracemalloc.start()
            ref = await other.blobs.add(path)
            assert tracemalloc.get_traced_memory()[1] < 6 * CHUNK
            blob = await one.blobs.fetch(ref, client)
            async for _ in blob.chunks():
                pass
            assert tracemalloc.get_traced_memory()[1] < 48 * CHUNK
            tracemalloc.stop()
            await client.close()
            await serving

    run(main())


# ---- collecting -------------------------------------------------------------------------------------------------


def test_what_nothing_refers_to_is_removed(tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "g.db")
        async with await Graph.open(path, identity=ALICE) as graph:
            refs = [await graph.blobs.add(some(1000, number)) for number in range(8)]
            graph.node("a")["k"] = refs[0]
            graph.node("a")["nested"] = [{"x": [refs[1]]}]
            graph.set("s").add(refs[2])
            graph.list("l").append(refs[3])
            graph.map("m")["k"] = refs[4]
            graph.node("a")["gone"] = refs[5]
            del graph.node("a")["gone"]
            assert await graph.blobs.collect() == 0  # all of them are new
        (tmp_path / "g.db-blobs" / "dead.new").write_bytes(b"x" * 10)
        async with await Graph.open(path, identity=ALICE) as graph:
            assert await graph.blobs.collect([refs[6]]) == 2 * (1000 + 8 + 32) + 10
            assert set(graph.blobs.store.stored_refs()) == {*refs[:5], refs[6]}
            for ref in graph.blobs.store.stored_refs():
                assert len(await graph.blobs.get(ref).read()) == 1000

    run(main())


# ---- blobs that follow their nodes --------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def linked(one: Graph, other: Graph) -> AsyncIterator[dtp.Connection]:
    """A connection of one graph to another, which serves it."""
    name = f"memory://blobs-{id(other)}"
    async with (
        await dtp.listen(name, other.serve, identity=other.identity) as listener,
        dtp.connect(listener.address(), identity=one.identity) as connection,
    ):
        yield connection


def test_a_peer_says_which_blobs_it_has() -> None:
    async def main() -> None:
        async with await opened(ALICE) as one, await opened(BOB) as other:
            here = [await one.blobs.add(some(size)) for size in (0, 10, CHUNK + 1)]
            elsewhere = BlobRef(bytes(32), 5)
            async with linked(other, one) as connection:
                assert await other.blobs.available([*here, elsewhere], connection) == set(here)
                assert await other.blobs.available([], connection) == set()
                many = [BlobRef(number.to_bytes(32, "big"), 1) for number in range(fetching.MAX_ASKED + 9)]
                assert await other.blobs.available([*many, here[1]], connection) == {here[1]}

    run(main())


def test_blobs_follow_the_nodes_that_refer_to_them() -> None:
    """Whatever type a value is in, before and while graphs replicate; but not those of other nodes."""

    async def main() -> None:
        async with await opened(ALICE) as one, await opened(BOB) as other:
            first, second, third, apart = [await one.blobs.add(some(100 + n, n)) for n in range(4)]
            one.node("photo/1")["file"] = first
            one.list("photo/2").append({"deep": [second]})
            one.node("video/1")["file"] = apart
            await one.commit()
            async with linked(other, one) as connection:
                await other.sync(connection)
                following = other.blobs.follow(connection, part=Part(labels=["photo"]))
                await following.wait_settled()
                assert [other.blobs.get(ref).is_here for ref in (first, second, apart)] == [True, True, False]
                assert await other.blobs.get(second).read() == some(101, 1)
                nowhere = BlobRef(bytes(32), 5)
                one.map("photo/3")["file"] = third
                one.node("photo/4")["file"] = nowhere
                await one.commit()
                await other.sync(connection)
                await following.wait_settled()
                assert other.blobs.get(third).is_here
                assert following.missing == {nowhere}
                await following.close()
                one.node("photo/5")["file"] = apart
                await one.commit()
                await other.sync(connection)
                assert not other.blobs.get(apart).is_here

    run(main())


def test_a_follower_finds_blobs_wherever_they_are() -> None:
    """By a function of the program's, as a node that asks whoever says to have one."""

    async def main() -> None:
        async with await opened(ALICE) as one, await opened(BOB) as other:
            ref, lost = await one.blobs.add(some(1000)), BlobRef(bytes(32), 5)
            asked: list[BlobRef] = []

            async def bring(wanted: BlobRef) -> None:
                asked.append(wanted)
                if wanted == lost:
                    raise BlobAbsent("nobody has it")
                await other.blobs.add(await one.blobs.get(wanted).read())

            other.node("n")["files"] = [ref, lost]
            following = other.blobs.follow(bring)
            await following.wait_settled()
            assert other.blobs.get(ref).is_here
            assert following.missing == {lost}
            assert set(asked) == {ref, lost}
            await following.close()

    run(main())


def test_who_replicates_with_blobs_has_them() -> None:
    async def main() -> None:
        async with await opened(ALICE) as one, await opened(BOB) as other:
            ref = await one.blobs.add(some(2 * CHUNK))
            async with linked(other, one) as connection:
                replicating = asyncio.create_task(other.replicate(connection, blobs=True))
                one.node("photo")["file"] = ref
                await one.commit()
                async with asyncio.timeout(50):
                    while not other.blobs.get(ref).is_here:  # noqa: ASYNC110 - a file gets its name
                        await asyncio.sleep(0.01)
                assert await other.blobs.get(ref).read() == some(2 * CHUNK)
                await one.close()
                await replicating

    run(main())


def test_a_connection_that_ends_ends_the_following() -> None:
    async def main() -> None:
        async with await opened(ALICE) as one, await opened(BOB) as other:
            async with linked(other, one) as connection:
                following = other.blobs.follow(connection)
                await following.wait_settled()
            other.node("photo")["file"] = BlobRef(bytes(32), 5)
            await other.commit()
            with pytest.raises(dtp.DtpError):
                await following.wait_settled()
            await following.close()

    run(main())


@pytest.mark.parametrize("asked", [b"", bytes(31), bytes(33), bytes(32 * (fetching.MAX_ASKED + 1))])
def test_questions_for_what_no_blobs_are(asked: bytes) -> None:
    async def main() -> None:
        async with (
            await opened(ALICE) as one,
            await opened(BOB) as other,
            linked(other, one) as connection,
        ):
            stream = await connection.open_stream()
            message = msgpack.packb((20, one.name, asked))
            stream.write(len(message).to_bytes(4, "big") + message)
            with pytest.raises(dtp.StreamReset):
                await stream.readexactly(1)

    run(main())


@pytest.mark.parametrize("here", [b"", bytes(2)])
def test_answers_for_other_blobs_than_were_asked_for(here: bytes) -> None:
    async def main() -> None:
        async def serve(connection: dtp.Connection) -> None:
            async for stream in connection:
                await stream.readexactly(4)
                message = msgpack.packb((21, here))
                stream.write(len(message).to_bytes(4, "big") + message)
                await stream.drain()

        async with await opened(BOB) as other:
            name = f"memory://blobs-{id(other)}"
            async with (
                await dtp.listen(name, serve, identity=ALICE) as listener,
                dtp.connect(listener.address(), identity=BOB) as connection,
            ):
                with pytest.raises(BlobError, match="another number"):
                    await other.blobs.available([BlobRef(bytes(32), 1)], connection)

    run(main())
