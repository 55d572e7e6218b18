"""Graphs on disk with what graphs do, while every call that waits for a disk or a store is noted which their loop's
own thread makes.

Prints them as JSON (see `waiting`). Python tells nothing of SQLite's statements and `fsync`: what stands in their
place here does. Opening a graph is left out.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Any

from waiting import Watch

import dtp
from dtp.graph.sync.passing import LEAST

#: Events of calls that wait for a disk.
WAITING = {
    "open",
    "os.listdir",
    "os.scandir",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.truncate",
    "shutil.rmtree",
    "sqlite3.connect",
    "sqlite3.execute",
    "sqlite3.executemany",
    "sqlite3.close",
    "fsync",
    "pwrite",
    "stat",
}

watch = Watch(lambda event, arguments: event in WAITING and ":memory:" not in arguments)


class Database(sqlite3.Connection):
    """One that tells of its statements."""

    execute = watch.noted("sqlite3.execute", sqlite3.Connection.execute)
    executemany = watch.noted("sqlite3.executemany", sqlite3.Connection.executemany)
    close = watch.noted("sqlite3.close", sqlite3.Connection.close)


def connect(*arguments: Any, original: Any = sqlite3.connect, **options: Any) -> sqlite3.Connection:
    """In place of `sqlite3.connect`."""
    database: sqlite3.Connection = original(*arguments, factory=Database, **options)
    return database


async def frames_of(graph: dtp.Graph) -> list[bytes]:
    """All that the graph's identity has signed there."""
    key = graph.identity.id.key
    return await graph.frames.read(key, 1, graph.frames.vector()[key])


async def use(first: dtp.Graph, second: dtp.Graph, folder: Path) -> None:
    """Have both do all that programs ask of graphs."""
    first.node("note")["text"] = "hello"
    first.text("draft").append("typed")
    first.list("things").extend([1, 2, 3])
    await first.commit()
    await second.receive(await frames_of(first))
    for turn in range(LEAST // 100):  # enough that a summary of all is offered
        first.node("place")["at"] = [turn, "x" * 50]
        first.sign()
    await first.commit()
    await second.receive(await frames_of(first))
    ref = await first.blobs.add(b"some bytes" * 50_000)
    first.node("note")["file"] = ref
    grant = first.access.grant(second.identity.id, "board")
    await first.commit()
    async with (
        await dtp.listen("memory://graphs", first.serve, identity=first.identity) as listener,
        dtp.connect(listener.address(), identity=second.identity) as connection,
    ):
        for _ in range(3):  # what was offered is asked for in the next one
            await second.sync(connection)
            second.node(first.own("board"))["k"] = "let in"
            await second.commit()
        await second.blobs.fetch(ref, connection)
        assert await second.blobs.available([ref], connection) == {ref}
        first.access.revoke(grant)
        await second.sync(connection)
    assert await second.blobs.get(ref).read() == b"some bytes" * 50_000
    assert second.passed.list_authors() == [first.identity.id.key]
    assert (await second.query_async("MATCH (n) WHERE n.text = 'hello' RETURN n.text AS text"))[0][
        "text"
    ] == "hello"
    await first.history.versions("note")
    await first.upkeep.compact()
    await first.upkeep.prune()
    await second.upkeep.prune()
    await first.verify()
    await first.frames.proofs()
    await first.files.export(folder / "all.graph")
    await second.files.import_file(folder / "all.graph")
    await first.files.export_contents(folder / "all.json")
    await second.blobs.collect()


async def recover(folder: Path, who: dtp.Identity) -> None:
    """Have a copy go on, and one where a peer tells it all."""
    for number in range(2):
        copy = f"{folder}/copy-{number}.db"
        await asyncio.to_thread(shutil.copy, f"{folder}/0.db", copy)
        async with (
            await dtp.Graph.open(copy, identity=who, name="notes") as graph,
            await dtp.Graph.open("memory:", identity=dtp.Identity.generate(), name="notes") as peer,
            await dtp.listen("memory://copies", peer.serve, identity=peer.identity) as listener,
            dtp.connect(listener.address(), identity=who) as connection,
        ):
            await peer.receive(await frames_of(graph))
            assert graph.behind is not None
            watch.begin()
            await (graph.sync(connection) if number else graph.recover())
            assert graph.behind is None
            watch.end()


def wait_wrongly(graph: dtp.Graph, file: Path) -> None:
    """What is to be found."""
    file.write_bytes(b"")
    graph.frames.find(graph.identity.id.key, 1)
    os.stat(file)
    with file.open("rb") as opened:
        os.fsync(opened)


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, who = Path(name), [dtp.Identity.generate() for _ in range(2)]
        for turn in range(2):  # made, and opened again
            graphs = [
                await dtp.Graph.open(f"{folder}/{at}.db", identity=who[at], name="notes") for at in (0, 1)
            ]
            watch.begin()
            if sys.argv[1:] == ["--wrong"]:
                wait_wrongly(graphs[0], folder / "file")
            async with asyncio.timeout(100), graphs[0], graphs[1]:
                exports = folder / f"exports-{turn}"
                await asyncio.to_thread(exports.mkdir)
                await use(graphs[0], graphs[1], exports)
            watch.end()
        await recover(folder, who[0])
    print(json.dumps(watch.found))


sqlite3.connect = connect
os.fsync, os.pwrite, os.stat = (
    watch.noted("fsync", os.fsync),
    watch.noted("pwrite", os.pwrite),
    watch.noted("stat", os.stat),
)
asyncio.run(main())
