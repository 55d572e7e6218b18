"""Bytes that change on the disk: never shown as data, said at opening, healed by any peer; the rest stays usable."""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from graph_fixtures import ALICE, BOB, CAROL

import dtp
from dtp.graph import Graph, GraphBehind, NotGraph, StoreError
from dtp.graph.frames.envelope import NONE_BEFORE, Envelope, sign_frame
from dtp.graph.stores.sqlite_format import prepare, write_part
from dtp.graph.stores.sqlite_reader import SqliteReader
from dtp.graph.stores.sqlite_store import SqliteStore
from dtp.graph.stores.table_roots import find_roots

#: As many commits are in the state that a closed graph keeps as came after it.
COMMITS = 40
CHANGES: list[Callable[[Graph], Any]] = [
    lambda graph: graph.node("later").update(k=1),
    lambda graph: graph.put_many([("later", "k", 1)]),
    lambda graph: graph.text("t").append("more"),
    lambda graph: graph.set("s").add("more"),
    lambda graph: graph.counter("c").add(1),
    lambda graph: graph.list("l").append(1),
]


def run(main: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(300):
            await main

    asyncio.run(limited())


@asynccontextmanager
async def serving(graph: Graph) -> AsyncIterator[dtp.Connection]:
    name = f"memory://damage-{id(graph)}"
    async with (
        await dtp.listen(name, graph.serve, identity=graph.identity) as listener,
        dtp.connect(listener.address(), identity=ALICE) as connection,
    ):
        yield connection


def contents(graph: Graph) -> dict[str, Any]:
    registers = {f"n/{n}": dict(graph.node(f"n/{n}")) for n in range(2 * COMMITS)}
    return registers | {"text": str(graph.text("t")), "set": set(graph.set("s"))}


async def write(graph: Graph, bob: Graph, numbers: range) -> None:
    """Both write by turns, and each has what the other wrote."""
    for number in numbers:
        for one, other in ((graph, bob), (bob, graph)):
            one.node(f"n/{number}")[one.identity.id.key.hex()[:4]] = f"value {number} " * 9
            one.set("s").add(number)
            one.text("t").append(f"{number} ")
            await one.commit()
            key = one.identity.id.key
            last = one.frames.vector()[key]
            await other.receive(await one.frames.read(key, last, last))


async def unclosed(folder: Path, bob: Graph) -> Path:
    """Alice's file as it is when her program is killed, written once before; and all of it is at Bob's."""
    place = folder / "notes.db"
    async with await Graph.open(str(place), identity=ALICE, name="g") as graph:
        await write(graph, bob, range(COMMITS))
    async with await Graph.open(str(place), identity=ALICE, name="g") as graph:
        await write(graph, bob, range(COMMITS, 2 * COMMITS))
        killed = folder / "killed"
        killed.mkdir()
        for name in ("notes.db", "notes.db-wal"):
            shutil.copy(folder / name, killed)
    return killed


async def opened_and_healed(place: Path, bob: Graph, expected: dict[str, Any], seed: int) -> str:
    """What came of it: "named" for an error, "mended", or "whole"; whatever it is, a sync with Bob heals it."""
    try:
        graph = await Graph.open(str(place), identity=ALICE, name="g")
    except StoreError:
        return "named"
    async with graph:
        count = await graph.verify()
        behind = graph.behind
        if graph.damage is None and behind is None:
            assert contents(graph) == expected, f"seed {seed}: wrong data without a word"
            assert count == 4 * COMMITS, f"seed {seed}"
        if behind is not None:
            for change in CHANGES:
                with pytest.raises(GraphBehind):
                    change(graph)
        async with serving(bob) as connection:
            await graph.sync(connection)
        assert graph.failed is None
        assert graph.frames.gaps() == []
        assert contents(graph) == expected == contents(bob)
        await graph.verify()
        graph.node("later")["k"] = seed
        async with serving(bob) as connection:
            await graph.sync(connection)
        assert bob.node("later")["k"] == seed
        assert not bob.forks
        return "whole" if graph.damage is None and behind is None else "mended"


async def flipped(tmp_path: Path, seeds: range, flips: int, *, closed: bool) -> dict[str, int]:
    found = {"named": 0, "mended": 0, "whole": 0}
    async with await Graph.open("memory:", identity=BOB, name="g") as bob:
        killed = await unclosed(tmp_path, bob)
        files = ["notes.db", "notes.db-wal", "notes.db-wal"]
        if closed:
            shutil.copy(tmp_path / "notes.db", killed)
            (killed / "notes.db-wal").unlink()
            files = ["notes.db"]
        expected = contents(bob)
        for seed in seeds:
            rng = random.Random(seed)
            async with await Graph.open("memory:", identity=BOB, name="g") as peer:
                await peer.receive(
                    [
                        one
                        for key in sorted(bob.frames.vector())
                        for one in await bob.frames.read(key, 1, 1 << 60)
                    ]
                )
                place = tmp_path / f"{seed}"
                shutil.copytree(killed, place)
                file = place / rng.choice(files)
                data = bytearray(file.read_bytes())
                for _ in range(flips):
                    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
                file.write_bytes(data)
                found[await opened_and_healed(place / "notes.db", peer, expected, seed)] += 1
                shutil.rmtree(place)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("closed", [True, False])
def test_a_flipped_byte_is_never_shown_as_data(tmp_path: Path, *, closed: bool) -> None:
    async def main() -> None:
        found = await flipped(tmp_path, range(40), 1, closed=closed)
        assert found["mended"] > found["named"]
        assert found["whole"] < 40

    run(main())


@pytest.mark.long
@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("flips", [1, 20])
def test_many_flipped_bytes(tmp_path: Path, flips: int, *, closed: bool) -> None:
    async def main() -> None:
        found = await flipped(tmp_path, range(1000, 1400), flips, closed=closed)
        assert found["mended"] > found["named"]

    run(main())


class Killed(BaseException):
    """What a kill is for the program."""


@pytest.mark.parametrize(
    "step", ["prepare", "_copy_frames", "_put_aside", "_copy_rest", "os.link", "os.replace"]
)
def test_killed_while_it_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """The next opening mends it, and nothing else is lost."""

    async def main() -> None:
        async with await Graph.open("memory:", identity=BOB, name="g") as bob:
            place = await unclosed(tmp_path, bob) / "notes.db"
            with closing(sqlite3.connect(place)) as database:
                database.execute("UPDATE frames SET sum = sum + 1 WHERE sequence = 20")
                database.commit()
            with monkeypatch.context() as patch:

                def kill(*_: Any, **__: Any) -> None:
                    raise Killed

                patch.setattr(f"dtp.graph.stores.salvage.{step}", kill)
                with pytest.raises(Killed):
                    async with await Graph.open(str(place), identity=ALICE, name="g") as graph:
                        await graph.verify()
            async with await Graph.open(str(place), identity=ALICE, name="g") as graph:
                await graph.verify()
                assert graph.damage is not None
                assert graph.damage.frames == 2
                assert contents(graph) == contents(bob)  # the kept state has what the frames had
            assert await opened_and_healed(place, bob, contents(bob), 0) == "mended"

    run(main())


def test_a_frame_that_rots_while_the_graph_is_open(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is found when it is read for somebody: the file is mended, the sync goes on, and the next one heals it."""
    caplog.set_level(logging.WARNING, logger="dtp.graph")

    async def main() -> None:
        place = tmp_path / "notes.db"
        async with await Graph.open("memory:", identity=BOB, name="g") as bob:
            async with await Graph.open(str(place), identity=ALICE, name="g") as graph:
                await write(graph, bob, range(10))
            with closing(sqlite3.connect(place)) as database:
                database.execute("UPDATE frames SET envelope = x'00' WHERE arrival = 4")
                database.commit()
            async with (
                await Graph.open(str(place), identity=ALICE, name="g") as graph,
                await Graph.open("memory:", identity=CAROL, name="g") as carol,
            ):
                assert graph.damage is None  # the state tells the contents, and no frame was read
                async with serving(carol) as connection:
                    await graph.sync(connection)
                assert graph.damage is not None
                assert "the store was damaged: 1 frame couldn't be read any more" in caplog.text
                async with serving(bob) as connection:
                    await graph.sync(connection)
                async with serving(carol) as connection:
                    await graph.sync(connection)
                assert carol.frames.vector() == graph.frames.vector() == bob.frames.vector()
                assert contents(carol) == contents(graph) == contents(bob)

    run(main())


def rot(place: Path, arrival: int) -> None:
    """Make one stored frame unreadable, by its place among those that came here."""
    with closing(sqlite3.connect(place)) as database:
        told = "UPDATE frames SET envelope = x'00' WHERE arrival = ?"
        assert database.execute(told, (arrival,)).rowcount == 1
        database.commit()


def test_what_rots_while_peers_replicate_is_asked_of_them_at_once(tmp_path: Path) -> None:
    """A connection may last for months: nobody should have to sync by hand beside it."""

    async def main() -> None:
        place = tmp_path / "notes.db"
        async with await Graph.open("memory:", identity=BOB, name="g") as bob:
            async with await Graph.open(str(place), identity=ALICE, name="g") as graph:
                await write(graph, bob, range(10))
            async with await Graph.open(str(place), identity=ALICE, name="g") as graph:
                async with serving(bob) as connection:
                    live = asyncio.ensure_future(graph.replicate(connection))
                    heard = asyncio.Event()
                    graph.listen(heard.set)
                    bob.node("first")["x"] = 1
                    while "x" not in graph.node("first"):
                        await asyncio.wait({asyncio.ensure_future(heard.wait()), live}, timeout=0.01)
                    rot(place, 8)  # one of Bob's
                    await graph.history.versions("n/1")  # reads all frames
                    while graph.damage is None or graph.frames.gaps() or graph.frames.beyond:
                        await asyncio.wait({asyncio.ensure_future(heard.wait()), live}, timeout=0.01)
                    live.cancel()
                assert contents(graph) == contents(bob)
                assert graph.frames.vector() == bob.frames.vector()

    run(main())


def test_a_restored_file_that_is_damaged_is_whole_after_one_sync(tmp_path: Path) -> None:
    """That all is read, as what was signed since is known again, finds the damage."""

    async def main() -> None:
        place, kept = tmp_path / "notes.db", tmp_path / "kept.db"
        async with await Graph.open("memory:", identity=BOB, name="g") as bob:
            async with await Graph.open(str(place), identity=ALICE, name="g") as graph:
                await write(graph, bob, range(10))
            shutil.copy(place, kept)
            async with await Graph.open(str(place), identity=ALICE, name="g") as graph:
                await write(graph, bob, range(10, 12))
            shutil.copy(kept, place)
            rot(place, 7)  # one of Alice's
            async with await Graph.open(str(place), identity=ALICE, name="g") as graph:
                assert graph.behind is not None
                async with serving(bob) as connection:
                    await graph.sync(connection)
                assert graph.damage is not None
                assert graph.failed is None
                assert not graph.frames.gaps()
                assert contents(graph) == contents(bob)
                graph.node("page")["x"] = 1
                await graph.commit()

    run(main())


def test_a_file_of_format_2_is_taken_over(tmp_path: Path) -> None:
    async def main() -> None:
        place = tmp_path / "notes.db"
        async with await Graph.open(str(place), identity=ALICE, name="g") as graph:
            graph.node("page")["k"] = 1
        with closing(sqlite3.connect(place)) as database:
            database.executescript(
                "ALTER TABLE frames DROP COLUMN sum; DROP TABLE aside; DROP TABLE file; PRAGMA user_version = 2"
            )
        async with await Graph.open(str(place), identity=ALICE) as graph:
            assert graph.name == "g"
            assert await graph.verify() == 1
            graph.node("page")["k"] = 2
        async with await Graph.open(str(place), identity=ALICE) as graph:
            assert await graph.verify() == 2
            assert graph.damage is None

    run(main())


def chain(count: int) -> list[Envelope]:
    """Return so many frames of Alice's."""
    made: list[Envelope] = []
    for number in range(count):
        before = made[-1].hash if made else NONE_BEFORE
        made.append(sign_frame(ALICE, "g", number + 1, before, b"body" * 9))
    return made


def test_each_table_of_a_file_is_found_by_its_pages(tmp_path: Path) -> None:
    """Also one that the schema gets later: whoever adds it says how its rows look, or mending would lose it."""
    path = tmp_path / "graph.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as made:
        prepare(made, str(path), "graph")
        write_part(made, b"part")
        listed = dict(made.execute("SELECT name, rootpage FROM sqlite_master"))
    with path.open("rb") as file:
        assert find_roots(file, {}) == listed


@pytest.mark.parametrize("frames", [0, 3, 200])
def test_no_bit_of_the_list_of_tables_costs_a_frame(tmp_path: Path, frames: int) -> None:
    """SQLite opens nothing in which it can't read that; what is in the pages tells which table they are of."""
    sound, made, random_, mended = tmp_path / "sound.db", chain(frames), random.Random(frames), 0
    with closing(SqliteStore(sound, "g")) as store:
        store.add_frames(made, synced=True)
        store.set_part(b"some", ALICE.id.key)
    data = sound.read_bytes()
    for number in range(80):
        damaged, at = tmp_path / f"{number}.db", random_.randrange(100, 4096)
        damaged.write_bytes(data[:at] + bytes([data[at] ^ 1 << random_.randrange(8)]) + data[at + 1 :])
        with closing(SqliteStore(damaged, "g")) as store:
            assert store.read_frames(ALICE.id.key, 1, frames + 1) == [one.encode() for one in made], at
            assert store.read_part() == b"some"
            if store.damage is not None:
                assert (store.damage.frames, store.damage.aside) == (0, 0)
                mended += 1
    assert mended > 10


@pytest.mark.parametrize("lost", [(100, 4096), (100, 108), (3000, 4096), (101, 200)])
def test_a_list_of_tables_that_is_gone_costs_nothing(tmp_path: Path, lost: tuple[int, int]) -> None:
    """What the store said of itself stays, too: which copy it is, the state, proofs, whom it takes in."""
    place = tmp_path / "a.db"

    async def main() -> None:
        async with await Graph.open(str(place), identity=ALICE, name="g") as graph:
            for number in range(100):
                graph.node("page")[str(number)] = number
                await graph.commit()
            await graph.admission.ban(BOB.id)
            page = graph.node("page").to_dict()
        data = bytearray(place.read_bytes())
        data[slice(*lost)] = bytes(lost[1] - lost[0])
        place.write_bytes(data)
        async with await Graph.open(str(place), identity=ALICE) as graph:
            assert graph.damage is not None
            assert (graph.damage.frames, graph.behind, graph.name) == (0, None, "g")
            assert graph.node("page").to_dict() == page
            assert [one.peer for one in graph.admission.banned()] == [BOB.id]
            assert await graph.verify() == 100
            graph.node("page")["new"] = 1
        async with await Graph.open(str(place), identity=ALICE) as graph:
            assert (graph.damage, await graph.verify()) == (None, 101)

    run(main())
    assert not [path for path in tmp_path.iterdir() if path.name.endswith((".mended", ".tables"))]


def test_who_only_reads_hears_how_a_damaged_table_is_mended(tmp_path: Path) -> None:
    place = tmp_path / "a.db"
    SqliteStore(place, "g").close()
    place.write_bytes(place.read_bytes().replace(b"CREATE TABLE frames", b"CREATE\xcbTABLE frames"))
    with pytest.raises(StoreError, match="verify --repair"):
        SqliteReader(place)


@pytest.mark.parametrize("lost", [[1], [5], [20], [3, 4, 9], [1, 2, 19]])
def test_own_frames_that_nobody_else_has(tmp_path: Path, lost: list[int]) -> None:
    """Their user lets the graph go on: what was in the lost ones is gone, and everything else is signed again."""

    async def main() -> None:
        place = tmp_path / "notes.db"
        async with await Graph.open(str(place), identity=ALICE, name="g") as graph:
            for number in range(1, 21):
                graph.node("page")[f"k{number}"] = number
                graph.text("t").append(f"{number} ")
                graph.set("s").add(number)
                await graph.commit()
        with closing(sqlite3.connect(place)) as database:
            marks = ", ".join("?" * len(lost))
            database.execute(f"UPDATE frames SET sum = sum + 1 WHERE sequence IN ({marks})", lost)
            database.commit()
        async with await Graph.open(str(place), identity=ALICE, name="g") as graph:
            await graph.verify()
            assert isinstance(graph.failed, GraphBehind)
            await graph.recover()
            assert graph.failed is None
            assert graph.frames.gaps() == []
            kept = [number for number in range(1, 21) if number not in lost]
            assert graph.frames.vector() == {ALICE.id.key: len(kept)}
            assert await graph.verify() == len(kept)
            assert dict(graph.node("page")) == {f"k{number}": number for number in kept}
            assert set(graph.set("s")) == set(kept)
            graph.node("page")["more"] = 1
            graph.text("t").append("more")
            async with await Graph.open("memory:", identity=BOB, name="g") as bob, serving(bob) as connection:
                await graph.sync(connection)
                assert dict(bob.node("page")) == dict(graph.node("page"))
                assert str(bob.text("t")) == str(graph.text("t"))
                assert str(graph.text("t")).endswith("more")
        async with await Graph.open(str(place), identity=ALICE, name="g") as graph:
            assert graph.failed is None
            assert graph.node("page")["more"] == 1

    run(main())


def test_a_log_that_is_lost_from_its_beginning(tmp_path: Path) -> None:
    """Of a file that was killed before it was ever closed: it is still the graph of that name, and signs nothing a
    second time."""

    async def main() -> None:
        path = tmp_path / "a.db"
        log = tmp_path / "a.db-wal"
        async with await Graph.open(str(path), identity=ALICE, name="team") as graph:
            graph.node("n/0")["k"] = "first"
            await graph.commit()
            killed = path.read_bytes(), log.read_bytes()
        path.write_bytes(killed[0])  # the same file, as far as the machine knows
        log.write_bytes(bytes(32) + killed[1][32:])
        async with await Graph.open(str(path), identity=ALICE) as graph:
            assert graph.name == "team"
            assert graph.damage is not None
            with pytest.raises(GraphBehind):
                graph.node("n/0")["k"] = "again"

    run(main())


def test_bytes_that_have_become_a_text(tmp_path: Path) -> None:
    """One bit of a row's head says which it is; nothing of the frame is lost."""

    async def main() -> None:
        place = tmp_path / "notes.db"
        async with await Graph.open(str(place), identity=ALICE, name="g") as graph:
            for number in range(3):
                graph.node("page")["k"] = number
                await graph.commit()
        with closing(sqlite3.connect(place)) as database:
            database.execute("UPDATE frames SET envelope = CAST(envelope AS TEXT) WHERE sequence = 2")
            database.commit()
        async with await Graph.open(str(place), identity=ALICE, name="g") as graph:
            assert await graph.verify() == 3
            assert graph.damage is not None
            assert graph.damage.frames == 0
            assert graph.failed is None

    run(main())


def _another_programs(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE recipes (name)")
        database.commit()


OTHERS: dict[str, Callable[[Path], Any]] = {
    "a text": lambda path: path.write_text("Dear diary,\n" * 500),
    "a word": lambda path: path.write_text("milk"),
    "an image": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(5000)),
    "another program's database": _another_programs,
}


@pytest.mark.parametrize("what", OTHERS)
@pytest.mark.parametrize("read_only", [False, True])
def test_a_file_that_is_no_graph_is_refused_and_left_alone(
    tmp_path: Path, what: str, *, read_only: bool
) -> None:
    place = tmp_path / "notes.txt"
    OTHERS[what](place)
    before = place.read_bytes()

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(NotGraph, match="is not a graph") as refused:
                await Graph.open(str(place), identity=ALICE, name="g", read_only=read_only)
            assert refused.value.code == "graph-not-a-graph"

    run(main())
    assert place.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_damaged_first_page_is_damage(tmp_path: Path) -> None:
    """A graph whose head lost some bytes is not taken for another program's, and nothing is left of the attempt."""
    place = tmp_path / "notes.db"

    async def main() -> None:
        async with await Graph.open(str(place), identity=ALICE, name="g") as graph:
            graph.node("page")["k"] = 1
        data = bytearray(place.read_bytes())
        data[3] ^= 0x40
        place.write_bytes(data)
        with pytest.raises(StoreError, match="is damaged") as refused:
            await Graph.open(str(place), identity=ALICE, name="g")
        assert not isinstance(refused.value, NotGraph)

    run(main())
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".mended")]


def one_bit(place: Path, before: bytes, behind: int, bit: int) -> None:
    """Flip a bit so many bytes behind the beginning of what is there once."""
    data = bytearray(place.read_bytes())
    data[data.index(before) + behind] ^= 1 << bit
    place.write_bytes(data)


def lose_all(place: Path) -> None:
    """Take all that is behind a file's list of tables."""
    data = place.read_bytes()
    place.write_bytes(data[:4096] + bytes(len(data) - 4096))


def test_who_lost_everything_signs_nothing_before_it_knows(tmp_path: Path) -> None:
    """Nothing behind the list of tables can be read: not which copy it was, either."""
    place = tmp_path / "notes.db"

    async def main() -> None:
        async with (
            await Graph.open(str(place), identity=ALICE, name="g") as graph,
            await Graph.open("memory:", identity=BOB, name="g") as bob,
        ):
            for number in range(5):
                graph.node("page")[str(number)] = number
                await graph.commit()
            async with serving(bob) as connection:
                await graph.sync(connection)
            page = graph.node("page").to_dict()
        lose_all(place)
        shutil.copy(place, tmp_path / "again.db")
        async with (
            await Graph.open(str(place), identity=ALICE, name="g") as graph,
            await Graph.open("memory:", identity=BOB, name="g") as bob,
            await Graph.open("memory:", identity=CAROL, name="g") as carol,
        ):
            assert graph.damage is not None
            assert graph.damage.frames >= 5
            with pytest.raises(GraphBehind, match="doesn't tell how much"):
                graph.node("page")["new"] = 1
            async with serving(carol) as connection:  # who knows nothing of it
                await graph.sync(connection)
            assert graph.behind is not None
        async with await Graph.open(str(place), identity=ALICE, name="g") as graph:
            assert graph.behind is not None
            await graph.recover()
            graph.node("page")["new"] = 1
        async with await Graph.open(str(place), identity=ALICE, name="g") as graph:
            assert graph.behind is None
            assert graph.node("page").to_dict() == {"new": 1}
        assert page == {str(number): number for number in range(5)}

    run(main())


def test_a_peer_brings_back_what_was_lost_whole(tmp_path: Path) -> None:
    place = tmp_path / "notes.db"

    async def main() -> None:
        async with await Graph.open("memory:", identity=BOB, name="g") as bob:
            async with await Graph.open(str(place), identity=ALICE, name="g") as graph:
                for number in range(5):
                    graph.node("page")[str(number)] = number
                    await graph.commit()
                async with serving(bob) as connection:
                    await graph.sync(connection)
            lose_all(place)
            async with await Graph.open(str(place), identity=ALICE, name="g") as graph:
                assert graph.behind is not None
                async with serving(bob) as connection:
                    await graph.sync(connection)
                assert graph.behind is None
                graph.node("page")["new"] = 1
                await graph.commit()
                async with serving(bob) as connection:
                    await graph.sync(connection)
                assert len(graph.node("page")) == len(bob.node("page")) == 6
                assert not bob.forks

    run(main())


@pytest.mark.parametrize(
    ("text", "behind"),
    [
        (b"proofs (", 36),
        (b"policy (", 60),
        (b"policy (only INTEGER PRIMARY KEY CHECK (only = 1)", 47),
        (b"aside (", 80),
    ],
)
def test_a_table_that_is_damaged_is_mended_when_it_is_opened(
    tmp_path: Path, text: bytes, behind: int
) -> None:
    """Not when it is used, without a word of what to do."""
    place = tmp_path / "notes.db"

    async def main() -> None:
        async with await Graph.open(str(place), identity=ALICE, name="g") as graph:
            graph.node("page")["k"] = 1
        one_bit(place, text, behind, 3)
        async with await Graph.open(str(place), identity=ALICE, name="g") as graph:
            assert graph.damage is not None
            assert graph.damage.frames == 0
            graph.node("page")["k"] = 2
            await graph.admission.ban(BOB.id)
        async with await Graph.open(str(place), identity=ALICE, name="g") as graph:
            assert graph.node("page").to_dict() == {"k": 2}
            assert graph.damage is None

    run(main())


def test_one_bit_of_whose_file_it_is(tmp_path: Path) -> None:
    """It isn't taken for another program's."""
    place = tmp_path / "notes.db"

    async def main() -> None:
        async with await Graph.open(str(place), identity=ALICE, name="g") as graph:
            graph.node("page")["k"] = 1
        data = bytearray(place.read_bytes())
        data[69] ^= 4
        place.write_bytes(data)
        async with await Graph.open(str(place), identity=ALICE, name="g") as graph:
            assert graph.damage is not None
            assert graph.node("page").to_dict() == {"k": 1}
        data[69] ^= 4
        data[63] ^= 1  # a version that isn't there
        place.write_bytes(data)
        with pytest.raises(StoreError, match="or its head is damaged"):
            await Graph.open(str(place), identity=ALICE, name="g")

    run(main())
