"""Chunks: in any order, twice, from several readings; a damaged one is named, and none gives other bytes."""

from __future__ import annotations

import asyncio
import random
import re
import zlib
from collections.abc import Iterator

import pytest
from graph_fixtures import ALICE, BOB
from hypothesis import given
from hypothesis import strategies as st

from dtp.graph import ChunkError, Graph, GraphError
from dtp.graph.formats import chunks as chunked
from dtp.graph.formats.chunks import MAX_BYTES, MAX_CHUNK, MAX_CHUNKS, Collector, split

ALPHANUMERIC = re.compile(r"[0-9A-Z $%*+\-./:]*\Z")


@given(st.binary(max_size=8000), st.integers(100, MAX_CHUNK), st.integers(0, 1 << 32))
def test_any_bytes_in_any_order(data: bytes, size: int, seed: int) -> None:
    rng = random.Random(seed)
    chunks = split(data, size=size)
    assert all(len(chunk) <= size and ALPHANUMERIC.match(chunk) for chunk in chunks)
    order = chunks + rng.choices(chunks, k=3)
    rng.shuffle(order)
    collector, seen = Collector(), set[str]()
    for chunk in order:
        assert collector.add(f" {chunk}\n") == (chunk not in seen)
        seen.add(chunk)
        assert len(collector.missing) == len(chunks) - len(seen)
    assert collector.is_complete
    assert collector.data() == data


def test_large_chunks_are_filled() -> None:
    sizes = [len(chunk) for chunk in split(random.Random(1).randbytes(20_000))]
    assert min(sizes[:-1]) > MAX_CHUNK - 12


@given(st.integers(0, 1 << 32))
def test_a_damaged_chunk_is_named(seed: int) -> None:
    rng = random.Random(seed)
    chunks = split(rng.randbytes(3000), size=300)
    number = rng.randrange(len(chunks))
    chunk = chunks[number]
    at = rng.randrange(chunk.index("/", 6), len(chunk))
    other = rng.choice([c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567 $%" if c != chunk[at]])
    collector = Collector()
    with pytest.raises(
        ChunkError, match=rf"chunk {number + 1} of {len(chunks)}|chunk .* damaged|not a chunk"
    ):
        collector.add(chunk[:at] + other + chunk[at + 1 :])
    for one in chunks:
        collector.add(one)
    assert collector.is_complete


def test_what_does_not_fit_together() -> None:
    one, other = split(random.Random(1).randbytes(1000), size=300), split(b"other" * 100, size=300)
    collector = Collector()
    assert (collector.missing, collector.is_complete) == ([], False)
    with pytest.raises(ChunkError, match="all"):
        collector.data()
    collector.add(one[0])
    with pytest.raises(ChunkError, match="another set"):
        collector.add(other[0])
    with pytest.raises(ChunkError, match="missing: 2, 3"):
        collector.data()
    for wrong in ("", "hello", "DTPG1/A/1/1/A", "DTPG2" + one[0][5:], one[0] * 20):
        with pytest.raises(ChunkError, match="not a chunk"):
            Collector().add(wrong)
    for size in (99, MAX_CHUNK + 1):
        with pytest.raises(GraphError, match="characters"):
            split(b"x", size=size)


def made(name: str, packed: bytes) -> Iterator[str]:
    """Chunks that say they are all of a set."""
    parts = [packed[at : at + 600] for at in range(0, len(packed), 600)]
    for number, part in enumerate(parts, 1):
        head = f"DTPG1/{name}/{number}/{len(parts)}/"
        yield f"{head}{chunked._text(chunked._check(head, part))}/{chunked._text(part)}"


def test_what_would_become_too_much() -> None:
    with pytest.raises(GraphError, match="use a file"):
        split(bytes(MAX_BYTES + 1))
    with pytest.raises(GraphError, match="use a file"):
        split(random.Random(1).randbytes(40 * MAX_CHUNKS), size=100)
    for packed, fault in (
        (zlib.compress(bytes(MAX_BYTES + 1)), "more than"),
        (zlib.compress(b"x")[:-2], "cut off"),
        (zlib.compress(b"x") + b"y", "cut off"),
        (b"not zlib", "together"),
        (zlib.compress(b"x"), "give the bytes"),
    ):
        collector = Collector()
        for each in made("A" * 16, packed):
            collector.add(each)
        with pytest.raises(ChunkError, match=fault):
            collector.data()


def test_a_graph_as_chunks() -> None:
    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as one,
            await Graph.open("memory:", identity=BOB) as other,
        ):
            for number in range(30):
                one.node(f"n/{number}")["text"] = "hello"
                await one.commit()
            chunks = await one.files.export_chunks()
            assert len(chunks) > 3
            with pytest.raises(ChunkError, match="missing: 2"):
                await other.files.import_chunks(chunks[:1] + chunks[2:])
            assert other.frames.vector() == {}
            assert await other.files.import_chunks(reversed(chunks)) == 30
            assert other.replica.save() == one.replica.save()
            with pytest.raises(GraphError, match="not an exported graph"):
                await other.files.import_chunks(split(b"something else that is long enough to be one" * 9))

    asyncio.run(main())
