"""One contract for all stores: what was added is there, whole or not at all, also after the worst moment to die."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from graph_fixtures import ALICE, BOB, CAROL
from postgres import server, stoppable

from dtp.graph import Graph
from dtp.graph.errors import GraphError, StoreAway, StoreError
from dtp.graph.frames import envelope as envelopes
from dtp.graph.frames.envelope import Envelope
from dtp.graph.frames.proving import Proof
from dtp.graph.stores.sqlite_store import SqliteStore
from dtp.graph.stores.store import MemoryStore, Store
from dtp.identity import Identity

#: Opens the store under test for a graph of a name, as somebody.
Opener = Callable[..., Store]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with server() as url:
        yield url


def fresh(url: str) -> None:
    import psycopg

    with psycopg.connect(url, autocommit=True) as database:
        database.execute(
            "DROP TABLE IF EXISTS dtp_graph_frames, dtp_graph_states, dtp_graph_proofs, dtp_graph_policies, "
            "dtp_graph_parts, dtp_graphs"
        )


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    if request.param == "memory":
        return lambda name="", writer=ALICE: MemoryStore(name)
    if request.param == "sqlite":
        return lambda name="", writer=ALICE: SqliteStore(tmp_path / f"graph{name}.db", name)
    url = request.getfixturevalue("postgres")
    fresh(url)

    def opened(name: str = "", writer: Identity = ALICE) -> Store:
        from dtp.graph.stores.postgres_store import PostgresStore

        return PostgresStore(url, name, writer.id.key)

    return opened


def chain(identity: Identity, count: int, graph: str = "") -> list[Envelope]:
    made: list[Envelope] = []
    for number in range(count):
        previous = made[-1].hash if made else envelopes.NONE_BEFORE
        made.append(envelopes.sign_frame(identity, graph, number + 1, previous, f"body {number}".encode()))
    return made


def test_what_was_added_is_there(opener: Opener) -> None:
    alice, bob = chain(ALICE, 5), chain(BOB, 3)
    with closing(opener()) as store:
        state, later = store.load_saved()
        assert (state, list(later), store.last_sequences()) == (None, [], {})
        store.add_frames([*alice[:2], bob[0]], synced=True)
        store.add_frames([alice[1], *alice[2:], *bob[1:]], synced=False)  # one of them is there already
        store.add_frames([], synced=False)
        assert store.last_sequences() == {ALICE.id.key: 5, BOB.id.key: 3}
        assert store.read_frames(ALICE.id.key, 2, 4) == [one.encode() for one in alice[1:4]]
        assert store.read_frames(ALICE.id.key, 5, 1 << 70) == [alice[4].encode()]
        assert store.read_frames(CAROL.id.key, 1, 9) == []
        assert store.read_frames(BOB.id.key, 3, 1) == []
        assert [store.find_covering(ALICE.id.key, at) for at in (0, 3, 5, 6)] == [
            alice[0].encode(), alice[2].encode(), alice[4].encode(), None]  # fmt: skip
        assert store.find_covering(CAROL.id.key, 1) is None
        assert store.read_added() == []
        assert store.read_proofs() == []
        proof = Proof(alice[0], chain(ALICE, 1, "x")[0])
        store.add_proof(proof)
        store.add_proof(Proof(alice[1], alice[2]))  # the first of an author is enough
        assert store.read_proofs() == [(proof.first.encode(), proof.second.encode())]
        store.close()
        store.close()


def test_it_is_there_again_in_the_order_of_arrival(opener: Opener) -> None:
    alice, bob = chain(ALICE, 4), chain(BOB, 2)
    with closing(opener()) as store:
        if isinstance(store, MemoryStore):
            pytest.skip("memory is gone with the process")
        store.load_saved()
        store.add_frames([alice[0], bob[0], alice[1]], synced=True)
        store.save_state(b"the state of three")
        store.add_frames([bob[1], alice[2]], synced=False)
        store.add_frames([alice[3]], synced=False)
    with closing(opener()) as store:
        state, later = store.load_saved()
        assert state == b"the state of three"
        assert list(later) == [one.encode() for one in (bob[1], alice[2], alice[3])]
        store.save_state(b"the state of all")
    with closing(opener()) as store:
        state, later = store.load_saved()
        assert (state, list(later)) == (b"the state of all", [])


def test_whom_it_takes_in_is_kept_and_a_purged_author_is_gone(opener: Opener) -> None:
    alice, bob = chain(ALICE, 4), chain(BOB, 3)
    with closing(opener()) as store:
        store.load_saved()
        assert store.read_policy() is None
        store.add_frames([alice[0], bob[0], alice[1], bob[1], bob[2]], synced=True)
        assert store.author_sizes() == {
            ALICE.id.key: sum(len(one.encode()) for one in alice[:2]),
            BOB.id.key: sum(len(one.encode()) for one in bob),
        }
        store.add_proof(Proof(bob[0], bob[1]))
        store.save_policy(b"first", False)
        store.save_state(b"with Bob")
        store.save_policy(b"second", True)
        store.purge_author(BOB.id.key)
        store.purge_author(CAROL.id.key)  # of whom nothing is here
        assert (store.last_sequences(), store.read_proofs()) == ({ALICE.id.key: 2}, [])
        store.add_frames([alice[2], bob[0]], synced=True)
        if isinstance(store, MemoryStore):
            assert store.read_policy() == b"second"
            return
    with closing(opener()) as store:
        state, later = store.load_saved()
        assert (state, store.read_policy()) == (None, b"second")
        assert sorted(later) == sorted(one.encode() for one in (*alice[:3], bob[0]))
        store.save_state(b"the state of all")
        store.add_frames([alice[3]], synced=True)
    with closing(opener()) as store:
        state, later = store.load_saved()
        assert (state, list(later)) == (b"the state of all", [alice[3].encode()])


def test_programs_that_share_a_store_see_what_comes_after_a_purge(postgres: str) -> None:
    """Also when the purged frames were the last to arrive, and a third program begins with what is left."""
    from dtp.graph.stores.postgres_store import PostgresStore

    fresh(postgres)
    alice, bob = chain(ALICE, 3), chain(BOB, 2)
    with closing(PostgresStore(postgres, "", ALICE.id.key)) as one:
        one.load_saved()
        with closing(PostgresStore(postgres, "", BOB.id.key)) as other:
            other.load_saved()
            one.add_frames([alice[0], *bob], synced=True)
            assert len(other.read_added()) == 3
            one.purge_author(BOB.id.key)
            with closing(PostgresStore(postgres, "", CAROL.id.key)) as third:
                third.load_saved()
                third.add_frames([alice[1]], synced=True)
            assert alice[1].encode() in other.read_added()
            assert alice[1].encode() in one.read_added()


def test_a_damaged_file_is_a_named_error(tmp_path: Path) -> None:
    """Bytes changed anywhere: the graph opens and is mended, or `StoreError` says what is wrong; nothing else."""

    async def main() -> None:
        path = tmp_path / "graph.db"
        async with await Graph.open(str(path), identity=ALICE) as graph:
            for number in range(20):
                graph.node(f"n/{number}")["k"] = f"value {number}" * 9
                graph.set("s").add(number)
                await graph.commit()
        whole, told = path.read_bytes(), 0
        for seed in range(150):
            rng, data = random.Random(seed), bytearray(whole)
            for _ in range(rng.choice([1, 3, 30])):
                data[rng.randrange(len(data))] = rng.randrange(256)
            broken = tmp_path / f"broken {seed}.db"
            broken.write_bytes(data)
            try:
                async with await Graph.open(str(broken), identity=ALICE) as graph:
                    await graph.verify(repair=True)
                    await graph.history.versions("n/1")
                    told += graph.damage is not None
            except StoreError:
                told += 1
        assert told > 50

    asyncio.run(main())


def test_what_fails_in_the_middle_was_not_added(opener: Opener) -> None:
    alice = chain(ALICE, 3)
    with closing(opener()) as store:
        if isinstance(store, MemoryStore):
            pytest.skip("nothing fails in memory")
        store.load_saved()
        store.add_frames(alice[:1], synced=True)

        class Broken:
            author, sequence = ALICE.id.key, 3

            def encode(self) -> bytes:
                raise ZeroDivisionError

        broken: Any = Broken()
        with pytest.raises(ZeroDivisionError):
            store.add_frames([alice[1], broken], synced=True)
        assert store.last_sequences() == {ALICE.id.key: 1}
        store.add_frames(alice[1:], synced=True)
        assert store.read_frames(ALICE.id.key, 1, 9) == [one.encode() for one in alice]
        assert store.read_added() == []


# ---- PostgreSQL ------------------------------------------------------------------------------------------------


def test_a_graph_of_the_same_name_in_another_schema_is_another(postgres: str) -> None:
    import psycopg

    from dtp.graph.stores.postgres_store import PostgresStore

    fresh(postgres)
    with psycopg.connect(postgres, autocommit=True) as database:
        database.execute("CREATE SCHEMA staging")
    elsewhere = f"{postgres}?options=-csearch_path%3Dstaging"
    key = ALICE.id.key
    with (
        closing(PostgresStore(postgres, "", key)) as one,
        closing(PostgresStore(elsewhere, "", key)) as other,
    ):
        for store in (one, other):
            store.set_part(b"part", key)
            assert store.read_part() == b"part"
    with psycopg.connect(postgres, autocommit=True) as database:
        database.execute("DROP SCHEMA staging CASCADE")


@pytest.fixture
def url(postgres: str) -> str:
    fresh(postgres)
    return postgres


def test_graphs_of_different_names_are_apart(url: str) -> None:
    from dtp.graph.stores.postgres_store import PostgresStore

    with (
        closing(PostgresStore(url, "a", ALICE.id.key)) as a,
        closing(PostgresStore(url, "b", ALICE.id.key)) as b,
    ):
        a.add_frames(chain(ALICE, 2, "a"), synced=True)
        assert (a.last_sequences(), b.last_sequences(), b.read_added()) == ({ALICE.id.key: 2}, {}, [])


def test_one_program_writes_as_one_identity(url: str) -> None:
    from dtp.graph.stores.postgres_store import PostgresStore

    with closing(PostgresStore(url, "", ALICE.id.key)):
        with pytest.raises(StoreError, match="another program writes"):
            PostgresStore(url, "", ALICE.id.key)
        PostgresStore(url, "", BOB.id.key).close()
    PostgresStore(url, "", ALICE.id.key).close()


def test_a_state_is_of_nothing_that_was_overlooked(url: str) -> None:
    """Between two of one program's additions another's arrive: they are news before they are in a state."""
    from dtp.graph.stores.postgres_store import PostgresStore

    alice, bob = chain(ALICE, 2), chain(BOB, 2)
    with (
        closing(PostgresStore(url, "", ALICE.id.key)) as one,
        closing(PostgresStore(url, "", BOB.id.key)) as other,
    ):
        one.load_saved()
        other.load_saved()
        one.add_frames(alice[:1], synced=True)
        other.add_frames(bob, synced=True)
        one.add_frames(alice[1:], synced=True)
        one.save_state(b"without Bob's")  # not kept
        assert one.read_added() == [each.encode() for each in bob]
        assert other.read_added() == [each.encode() for each in alice]
        assert one.read_added() == []
        one.save_state(b"with all")
    with closing(PostgresStore(url, "", ALICE.id.key)) as one:
        state, later = one.load_saved()
        assert (state, list(later)) == (b"with all", [])
    with closing(PostgresStore(url, "", BOB.id.key)) as other:
        state, later = other.load_saved()
        assert state is None
        assert list(later) == [each.encode() for each in (alice[0], *bob, alice[1])]


def test_a_connection_that_breaks_at_any_statement(url: str) -> None:
    """The server ends the session before each statement in turn: the frames are all there or none, and it goes on."""
    import psycopg

    from dtp.graph.stores.postgres_store import PostgresStore

    alice = chain(ALICE, 400)
    at, broke = 0, 0
    with closing(PostgresStore(url, "", ALICE.id.key)) as store:
        store.load_saved()
        for statement in range(8):
            store.last_sequences()  # connects again
            with store._connection.use() as database:
                pass
            left, pid = [statement], database.info.backend_pid
            execute = database.execute

            def dying(*given: Any, left: list[int] = left, pid: int = pid, execute: Any = execute) -> Any:
                if left[0] == 0:
                    with psycopg.connect(url, autocommit=True) as other:
                        other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
                left[0] -= 1
                return execute(*given)

            database.execute = dying
            some = alice[at : at + 3]
            try:
                store.add_frames(some, synced=True)
            except StoreError:
                broke += 1
            del database.execute
            there = store.last_sequences().get(ALICE.id.key, 0)
            assert there in (at, at + 3)
            at = there
        assert broke >= 5
        assert store.read_frames(ALICE.id.key, 1, at) == [one.encode() for one in alice[:at]]


WRITER = """
import asyncio, sys
from graph_fixtures import identity
from dtp.graph import Graph

async def main():
    graph = await Graph.open(sys.argv[1], identity=identity(sys.argv[2]))
    number = graph.node(sys.argv[2]).get("made", 0)
    while number < int(sys.argv[3]):
        number += 1
        graph.node(sys.argv[2])["made"] = number
        graph.counter("all").add(1)
        graph.list(sys.argv[2]).append(number)
        await graph.commit()
        print(number, flush=True)
        if number % 7 == 0:
            graph.commits.note_taken(1 << 30)  # keep the state often: that is a write, too
    await graph.close()
asyncio.run(main())
"""


def writer(url: str, name: str, count: int) -> subprocess.Popen[str]:
    path = str(Path(__file__).parents[1])  # of `graph_fixtures`; `dtp` is what is installed
    return subprocess.Popen(
        [sys.executable, "-P", "-c", WRITER, url, name, str(count)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": path, "PATH": ""},
    )


def test_killed_at_any_point_while_another_writes(url: str) -> None:
    rng = random.Random(5)
    told = 0
    with writer(url, "bob", 60) as other:
        for _ in range(3):
            with writer(url, "alice", 1 << 30) as child:
                assert child.stdout is not None
                for _ in range(rng.randrange(1, 15)):
                    told = int(child.stdout.readline())
                child.kill()
                for line in child.stdout:  # told before it died
                    told = int(line) if line.endswith("\n") else told
        assert other.stdout is not None
        assert other.stdout.read().splitlines()[-1] == "60"
        assert other.wait(60) == 0

    async def check() -> None:
        async with await Graph.open(url, identity=CAROL) as graph:
            made = graph.node("alice")["made"]
            assert told <= made <= told + 1
            assert list(graph.list("alice")) == list(range(1, made + 1))
            assert list(graph.list("bob")) == list(range(1, 61))
            assert graph.counter("all").value == made + 60
            assert await graph.verify() == made + 60

    asyncio.run(check())


def test_programs_see_what_others_store(url: str) -> None:
    async def main() -> None:
        async with (
            await Graph.open(url, identity=ALICE) as one,
            await Graph.open(url, identity=BOB) as other,
            await Graph.open(url, identity=CAROL) as third,
        ):
            with third.watch("n") as seen:
                one.node("n")["a"] = 1
                await one.commit()
                assert (await asyncio.wait_for(anext(seen), 30)).author == ALICE.id.key
                other.node("n")["b"] = 2
                await other.commit()
                assert (await asyncio.wait_for(anext(seen), 30)).author == BOB.id.key
            assert third.node("n").to_dict() == {"a": 1, "b": 2}
            with pytest.raises(StoreError, match="another program writes"):
                await Graph.open(url, identity=ALICE)

    asyncio.run(main())


def test_a_server_that_is_not_there_is_told_without_the_password() -> None:
    pytest.importorskip("psycopg")

    async def main() -> None:
        with pytest.raises(StoreError, match="PostgreSQL") as caught:
            await Graph.open("postgresql://dtp:secret@127.0.0.1:1/x", identity=ALICE)
        assert "secret" not in str(caught.value)
        with pytest.raises(GraphError, match="postgresql://"):
            await Graph.open("mysql://127.0.0.1/x", identity=ALICE)

    asyncio.run(main())


@pytest.mark.slow
def test_a_server_that_says_nothing_any_more_is_away(url: str) -> None:
    """Its processes stopped, or its disk hung: the graph, and the end of its program, waited for it for ever."""
    from dtp.graph.stores.postgres_store import PostgresStore
    from dtp.postgresql import while_it_answers

    async def main() -> None:
        async with stoppable(url) as (way, stop):
            guard = partial(while_it_answers, every=0.05)
            store = await asyncio.to_thread(PostgresStore, way, "", ALICE.id.key, guard=guard)
            stop()
            with pytest.raises(StoreAway, match="could not be read"):
                await asyncio.to_thread(store.last_sequences)
            await asyncio.to_thread(store.close)

    asyncio.run(asyncio.wait_for(main(), 120))


def test_what_others_added_is_read_again_where_the_answer_was_lost(url: str) -> None:
    """The end of the transaction may be what the server doesn't answer any more."""
    import psycopg

    from dtp.graph.stores.postgres_store import PostgresStore

    cut: list[str] = []

    @contextmanager
    def guard(descriptor: int, where: str) -> Iterator[None]:
        yield
        if cut:
            raise psycopg.OperationalError(cut.pop())

    made = chain(BOB, 2)
    with (
        closing(PostgresStore(url, "", ALICE.id.key, guard=guard)) as store,
        closing(PostgresStore(url, "", BOB.id.key)) as other,
    ):
        other.add_frames(made, synced=True)
        cut.append("the server has gone")
        with pytest.raises(StoreAway):
            store.read_added()
        assert store.read_added() == [one.encode() for one in made]
        assert store.read_added() == []


def test_what_takes_long_is_waited_for_while_the_server_answers(url: str) -> None:
    """Somebody's lock, say: a bound in time would fail what only needs longer."""
    import psycopg

    from dtp.graph.stores.postgres_store import PostgresStore
    from dtp.postgresql import while_it_answers

    looks, found = threading.Semaphore(0), []

    def answers(where: str) -> bool:
        looks.release()
        return True

    guard = partial(while_it_answers, every=0.01, ask=answers)
    with closing(PostgresStore(url, "", ALICE.id.key, guard=guard)) as store:
        store.add_frames(chain(ALICE, 2, "a"), synced=True)
        with psycopg.connect(url) as other:
            other.execute("LOCK TABLE dtp_graph_frames")
            reading = threading.Thread(target=lambda: found.append(store.last_sequences()))
            reading.start()
            for _ in range(3):
                assert looks.acquire(timeout=120)
        reading.join(120)
        assert found == [{ALICE.id.key: 2}]


@pytest.mark.slow
def test_the_end_of_a_store_waits_for_no_server_that_says_nothing(url: str) -> None:
    from dtp.graph.stores.postgres_store import PostgresStore
    from dtp.postgresql import while_it_answers

    async def main() -> None:
        async with stoppable(url) as (way, stop):
            guard = partial(while_it_answers, every=0.05)
            store = await asyncio.to_thread(PostgresStore, way, "", ALICE.id.key, guard=guard)
            stop()
            await asyncio.to_thread(store.close)

    asyncio.run(asyncio.wait_for(main(), 120))


def test_a_server_that_refuses_for_good_says_what_mends_it(url: str) -> None:
    from dtp.graph.stores.postgres_store import PostgresStore

    with pytest.raises(StoreError, match="there is no such database: make it"):
        PostgresStore(f"{url}_nosuch", "", ALICE.id.key)
    with pytest.raises(StoreAway):
        PostgresStore("postgresql://dtp:secret@127.0.0.1:1/x", "", ALICE.id.key)


def assert_little_more_is_held_than_needed(graph: Graph) -> None:
    held = graph.replica.core.memory_bytes
    graph.replica.core.release_memory()
    assert held < 1.1 * graph.replica.core.memory_bytes


def test_memory_that_is_not_needed_is_given_back(tmp_path: Path) -> None:
    """When the state is kept, which is written into one buffer, and when it was read with all frames behind it."""

    async def main() -> None:
        graph = await Graph.open(str(tmp_path / "large.db"), identity=ALICE)
        for number in range(5):
            graph.node("n")[f"k{number}"] = "x" * 1_000_000
            await graph.commit()
        assert_little_more_is_held_than_needed(graph)
        await graph.close()
        graph = await Graph.open(str(tmp_path / "many.db"), identity=ALICE)
        for number in range(90):
            graph.put_many((f"m/{number}/{each}", "k", each) for each in range(100))
            await graph.commit()
        await graph.close()
        graph = await Graph.open(str(tmp_path / "many.db"), identity=ALICE)
        assert_little_more_is_held_than_needed(graph)
        await graph.close()

    asyncio.run(main())
