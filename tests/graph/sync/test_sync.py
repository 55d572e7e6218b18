"""Sync: both ends have the same afterwards, with few bytes; what breaks the protocol is refused."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from typing import Any

import msgpack
import pytest
from graph_fixtures import ALICE, BOB, CAROL, connected, identity, run, vector
from hypothesis import given
from hypothesis import strategies as st

import dtp
from dtp.core import crdt as core
from dtp.crdt import Replica, clock
from dtp.graph import Graph, StoreError, SyncError
from dtp.graph.frames import envelope as envelopes
from dtp.graph.frames import vector as vectors
from dtp.graph.frames.envelope import Signed
from dtp.graph.frames.vector import Vector
from dtp.graph.stores import loading
from dtp.graph.stores.store import MemoryStore
from dtp.graph.sync import protocol
from dtp.testing.clock import run as run_virtual

Side = protocol.SyncSide


# ---- the protocol as a value ------------------------------------------------------------------------------------

Sequences = dict[bytes, int]
AUTHOR = st.integers(0, 40).map(lambda n: bytes([n]) * 32)
SEQUENCES = st.dictionaries(AUTHOR, st.integers(1, 1 << 40), max_size=40)


@given(SEQUENCES, SEQUENCES, st.sets(AUTHOR), st.binary(min_size=16, max_size=16))
def test_vectors_are_read_as_they_were_written(
    sequences: Sequences, others: Sequences, forked: set[bytes], salt: bytes
) -> None:
    """Of heads that are known here it is told whether they are the same."""
    ours = vector(sequences | others, forked=forked)
    found = vectors.decode(vectors.encode(vector(sequences), salt), salt, ours)
    assert {author: head.sequence for author, head in found.items()} == sequences
    for author, there in found.items():
        is_known = author not in forked and others.get(author, there.sequence) == there.sequence
        assert there == (ours[author] if is_known else (there.sequence, vectors.OTHER))


@given(st.binary(max_size=80))
def test_any_bytes_are_a_vector_or_refused(data: bytes) -> None:
    try:
        found = vectors.decode(data, bytes(16), {})
    except ValueError:
        return
    again = vectors.encode(found, bytes(16))
    assert len(again) == len(data)
    assert vectors.decode(again, bytes(16), {}) == found


@given(SEQUENCES, SEQUENCES, st.sets(AUTHOR))
def test_two_sides_tell_each_other_what_they_lack(a: Sequences, b: Sequences, forked: set[bytes]) -> None:
    """Messages cross on their way; no frame is sent that is there, but of another history the last one, once."""
    ours, theirs = vector(a), vector(b, forked=forked)
    sides, have = (Side("g"), Side("g")), (ours, theirs)
    ways: tuple[list[bytes], list[bytes]] = ([sides[0].start(ours)], [sides[1].start(theirs)])
    while ways[0] or ways[1]:
        for at in (0, 1):
            arriving = ways[1 - at][:]
            ways[1 - at].clear()
            for message in arriving:
                ways[at].extend(sides[at].receive(message, lambda at=at: have[at]).replies)
    for at in (0, 1):
        assert sides[at].knows_peer
        lacking = {(author, first, last) for author, first, last in sides[at].to_send(have[at])}
        mine, other = (a, b)[at], (a, b)[1 - at]
        proving = {(one, n, n) for one, n in mine.items() if n == other.get(one) and one in forked}
        assert lacking == proving | {
            (one, other.get(one, 0) + 1, n) for one, n in mine.items() if n > other.get(one, 0)
        }
        assert not proving & set(sides[at].to_send(have[at]))


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xc1",
        msgpack.packb([]),
        msgpack.packb([9]),
        msgpack.packb("text"),
        msgpack.packb([1, b""]),
        msgpack.packb([0, 1, "g", bytes(16), 0, b"", False, b"", b"", True]),
        msgpack.packb([0, protocol.VERSION, "other", bytes(16), 0, b"", False, b"", b"", True]),
        msgpack.packb([0, protocol.VERSION, "g", bytes(16), 1, b"short", False, b"", b"", True]),
        msgpack.packb([0, protocol.VERSION, "g", b"no digest", 0, b"", False, b"", b"", True]),
        msgpack.packb([0, protocol.VERSION, "g", bytes(16), 0, b""]),
        msgpack.packb([0, protocol.VERSION, "g", bytes(16), 0, b"", 0, b"", b"", True]),
        msgpack.packb([0, True, "g", bytes(16), 0, b"", False, b"", b"", True]),
    ],
    ids=lambda message: message.hex()[:12],
)
def test_first_messages_that_are_none(message: bytes) -> None:
    with pytest.raises(SyncError):
        Side("g").receive(message, dict)


@pytest.mark.parametrize(
    "message",
    [
        [0, protocol.VERSION, "g", bytes(16), 0, b"", False, b"", b"", True],
        [1, b"x"],
        [2, b""],
        [2, [1]],
        [3, 1],
        [4, 4],
        [5, b"", 0, b""],
        [6, 1],
        [7, b"", b""],
        [8, b""],
        [11, b""],
        [11, b"", 1],
    ],
    ids=str,
)
def test_later_messages_that_are_none(message: list[Any]) -> None:
    side = Side("g")
    side.receive(Side("g").start({}), dict)
    with pytest.raises(SyncError):
        side.receive(msgpack.packb(message), dict)


def test_frames_are_cut_into_messages() -> None:
    sent = [bytes([number]) * 100_000 for number in range(7)] + [bytes(400_000)]
    messages = list(protocol.encode_frames(sent))
    assert len(messages) == 5
    assert [one for message in messages for one in msgpack.unpackb(message)[1]] == sent


# ---- over connections ---------------------------------------------------------------------------------------------


def test_both_ends_have_the_same_afterwards() -> None:
    async def main() -> None:
        async with (
            connected("sync") as (client, server),
            await Graph.open("memory:", identity=ALICE) as one,
            await Graph.open("memory:", identity=BOB) as other,
        ):
            one.put_many((f"node/{n}", "value", n) for n in range(1000))
            await one.commit()
            other.put_many((f"node/{n}", "value", -n) for n in range(500, 1500))
            serving = asyncio.create_task(other.serve(server))
            first = await one.sync(client)
            assert (first.received, first.sent) == (1, 1)
            assert one.replica.save() == other.replica.save()
            again = await one.sync(client)
            assert (again.received, again.sent) == (0, 0)
            assert again.bytes_sent + again.bytes_received <= 300
            other.node("late")["k"] = 1
            assert (await one.sync(client)).received == 1
            assert one.node("late")["k"] == 1
            await client.close()
            await serving

    run(main())


def test_a_sync_that_is_over_is_no_fault_of_the_peer(caplog: pytest.LogCaptureFixture) -> None:
    """The serving side goes on with what is stored later, to a peer that has gone on, too."""

    async def main() -> None:
        async with (
            connected("over") as (client, server),
            await Graph.open("memory:", identity=ALICE) as one,
            await Graph.open("memory:", identity=BOB) as other,
        ):
            serving = asyncio.create_task(other.serve(server))
            for number in range(20):
                other.node("a")["k"] = number
                syncing = asyncio.create_task(one.sync(client))
                other.node("b")["k"] = number
                await other.commit()
                await syncing
                other.node("c")["k"] = number
                await other.commit()
            await client.close()
            await serving

    run(main())
    assert caplog.records == []


def test_changes_of_one_percent_cost_few_bytes() -> None:
    async def main() -> None:
        async with (
            connected("percent") as (client, server),
            await Graph.open("memory:", identity=ALICE) as one,
            await Graph.open("memory:", identity=BOB) as other,
        ):
            one.put_many((f"node/{n}", "value", n / 7) for n in range(20_000))
            await one.commit()
            serving = asyncio.create_task(other.serve(server))
            await one.sync(client)
            rng = random.Random(1)
            for graph in (one, other):
                graph.put_many((f"node/{rng.randrange(20_000)}", "value", rng.random()) for _ in range(200))
                await graph.commit()
            done = await one.sync(client)
            assert one.replica.save() == other.replica.save()
            assert done.bytes_sent + done.bytes_received < 400 * 20 + 1000
            await client.close()
            await serving

    run(main())


def test_live_replication_through_a_third() -> None:
    """A - B - C: what A makes comes to C by B, and back."""

    async def main() -> None:
        async with (
            connected("live-1") as (a_to_b, b_from_a),
            connected("live-2") as (c_to_b, b_from_c),
            await Graph.open("memory:", identity=ALICE) as a,
            await Graph.open("memory:", identity=BOB) as b,
            await Graph.open("memory:", identity=CAROL) as c,
        ):
            tasks = [
                asyncio.create_task(task)
                for task in (b.serve(b_from_a), b.serve(b_from_c), a.replicate(a_to_b), c.replicate(c_to_b))
            ]
            at_c, at_a = c.watch("notes/*"), a.watch("answers/*")
            for number in range(20):
                a.node(f"notes/{number}")["text"] = "hello"
                assert (await anext(at_c)).soul == f"notes/{number}"
                c.node(f"answers/{number}")["text"] = "hello yourself"
                assert (await anext(at_a)).soul == f"answers/{number}"
            assert a.replica.save() == b.replica.save() == c.replica.save()
            await a.close()
            await b.close()
            await c.close()
            await asyncio.gather(*tasks)

    run(main())


def test_what_the_peer_does_wrong_ends_the_stream_and_nothing_else() -> None:
    async def main() -> None:
        async with (
            connected("wrong") as (client, server),
            await Graph.open("memory:", identity=ALICE) as one,
            await Graph.open("memory:", identity=BOB) as other,
        ):
            serving = asyncio.create_task(other.serve(server))
            forged = envelopes.Envelope("", ALICE.id.key, 1, bytes(32), b"\x10", bytes(64)).encode()
            hello = Side("").start({})
            for messages in (
                [b"\xff" * 4],
                [len(hello).to_bytes(4, "big") + hello, b"\x00\x00\x00\x01\xc1"],
                [len(hello).to_bytes(4, "big") + hello, b"\x00\x00"],
                [(len(m).to_bytes(4, "big") + m) for m in (hello, *protocol.encode_frames([forged]))],
            ):
                stream = await client.open_stream()
                stream.writelines(messages)
                stream.write_eof()
                with pytest.raises(dtp.StreamReset):
                    await stream.read()
            one.node("a")["k"] = 1
            assert (await one.sync(client)).sent == 1
            assert other.node("a")["k"] == 1
            await client.close()
            await serving

    run(main())


def test_a_store_that_fails_ends_serving() -> None:
    class Full(MemoryStore):
        def add_frames(self, envelopes: Iterable[Signed], *, synced: bool) -> None:
            raise StoreError("the disk is full")

    async def main() -> None:
        async with (
            connected("full") as (client, server),
            await Graph.open("memory:", identity=ALICE) as one,
        ):
            full = Full()
            other = Graph(BOB, full, Replica(BOB.id.key), loading.read_ends(full, BOB))
            one.node("a")["k"] = 1
            serving = asyncio.create_task(other.serve(server))
            syncing = asyncio.create_task(one.sync(client))
            with pytest.raises(StoreError, match="full"):
                await serving
            await client.close()
            with pytest.raises((dtp.StreamReset, dtp.ConnectionClosed)):
                await syncing
            with pytest.raises(StoreError, match="full"):  # what came is kept in memory, and tried again
                await other.close()
            assert other.closed

    run(main())


def test_graphs_of_different_names_do_not_sync() -> None:
    async def main() -> None:
        async with (
            connected("names") as (client, server),
            await Graph.open("memory:", identity=ALICE, name="one") as one,
            await Graph.open("memory:", identity=BOB, name="two") as other,
        ):
            serving = asyncio.create_task(other.serve(server))
            with pytest.raises(SyncError, match=r"another name|syncs graph"):
                await one.sync(client)
            await client.close()
            await serving

    run(main())


def test_an_author_with_two_histories_does_not_keep_others_from_syncing() -> None:
    async def main() -> None:
        twin = identity("twin")
        async with (
            connected("twins") as (client, server),
            await Graph.open("memory:", identity=ALICE) as one,
            await Graph.open("memory:", identity=BOB) as other,
            await Graph.open("memory:", identity=twin) as left,
            await Graph.open("memory:", identity=twin) as right,
        ):
            for graph, target in ((left, one), (right, other)):
                for number in range(1 if graph is left else 2):
                    graph.node("twin")["k"] = f"{number} {graph is left}"
                    await graph.commit()
                await target.receive(await graph.frames.read(twin.id.key, 1, 10))
            one.node("a")["k"] = 1
            other.node("b")["k"] = 2
            serving = asyncio.create_task(other.serve(server))
            await one.sync(client)
            assert other.node("a")["k"] == 1
            assert one.node("b")["k"] == 2
            (proof,) = await one.frames.proofs()
            assert proof.is_valid()
            await client.close()
            await serving

    run(main())


def test_many_authors_are_told_only_when_something_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with (
            connected("many") as (client, server),
            await Graph.open("memory:", identity=ALICE) as one,
            await Graph.open("memory:", identity=BOB) as other,
        ):
            body_of: list[bytes] = []
            for number in range(40):
                async with await Graph.open("memory:", identity=identity(f"author {number}")) as graph:
                    graph.node(f"n/{number}")["k"] = number
                    await graph.commit()
                    body_of += await graph.frames.read(graph.identity.id.key, 1, 1)
            await one.receive(body_of)
            await other.receive(body_of[:30])
            serving = asyncio.create_task(other.serve(server))
            done = await one.sync(client)
            assert (done.sent, done.received) == (10, 0)
            assert one.replica.save() == other.replica.save()
            again = await one.sync(client)
            assert again.bytes_sent + again.bytes_received < 100
            other.node("more")["k"] = 1
            one.node("more too")["k"] = 1
            await asyncio.gather(one.commit(), other.commit())
            messages: list[int] = []
            receive = Side.receive

            def counted(self: Side, message: bytes, ours: Callable[[], Vector]) -> protocol.SyncStep:
                messages.append(message[1])
                return receive(self, message, ours)

            monkeypatch.setattr(Side, "receive", counted)
            last = await one.sync(client)
            assert (last.sent, last.received) == (1, 1)
            # They know each other: the vectors come with the greetings, and what is missing with the answers.
            assert sorted(messages) == [0, 0, 2, 2, 3, 3, 4, 4]
            await client.close()
            await serving

    run(main())


def test_a_sync_that_is_broken_off_goes_on_later() -> None:
    """By the virtual clock: nothing here waits for real time."""

    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as one,
            await Graph.open("memory:", identity=BOB) as other,
        ):
            for number in range(50):
                one.node(f"n/{number}")["k"] = "x" * 10_000
                await one.commit()
            half = await one.frames.read(ALICE.id.key, 1, 25)
            await other.receive(half)
            side, theirs = Side(""), Side("")
            theirs.receive(side.start(one.frames.heads()), other.frames.heads)
            side.receive(theirs.start(other.frames.heads()), one.frames.heads)
            assert side.to_send(one.frames.heads()) == [(ALICE.id.key, 26, 50)]

    run_virtual(main())


def test_frames_that_are_too_early_are_asked_for_again_when_there_is_room() -> None:
    """An author whose clock is two minutes ahead writes 300 frames: all of them are there when they are due, live."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        wall = clock.Clock(lambda: 1_800_000_000 + loop.time())
        fast = clock.Clock(lambda: 1_800_000_120 + loop.time())
        async with (
            await Graph.open("memory:", identity=ALICE, clock=wall) as one,
            await Graph.open("memory:", identity=CAROL, clock=fast) as carol,
            await Graph.open("memory:", identity=BOB, clock=fast) as other,
            await dtp.listen("memory://early", other.serve, identity=BOB) as listener,
            dtp.connect(listener.address(), identity=ALICE) as connection,
        ):
            for number in range(300):
                carol.node("n")[str(number)] = number
                await carol.commit()
                await asyncio.sleep(0.01)
            await other.receive(await carol.frames.read(CAROL.id.key, 1, 300))
            replicating = asyncio.create_task(one.replicate(connection))
            await asyncio.sleep(20)
            assert len(one.node("n")) == 0
            assert one.waiting_frames(CAROL.id.key) == core.DEFERRED_FRAMES
            carol.node("n")["late"] = 1
            await carol.commit()
            await other.receive(await carol.frames.read(CAROL.id.key, 301, 301))
            await asyncio.sleep(100)
            assert len(one.node("n")) == 301
            assert one.replica.save() == other.replica.save()
            replicating.cancel()
            await asyncio.wait([replicating])

    run_virtual(main())


@pytest.mark.parametrize(
    "told",
    [
        [[b"a" * 31, 1, 1]],
        [[b"a" * 32, 0, 1]],
        [[b"a" * 32, 2, 1]],
        [[b"a" * 32, 1]],
        ["no part"],
        [[b"b" * 32, 1, 1], [b"a" * 32, 1, 1]],
        [[b"a" * 32, 1, 5], [b"a" * 32, 5, 6]],
        [[b"a" * 32, 2 * number, 2 * number] for number in range(1, 4098)],
    ],
)
def test_what_a_peer_says_it_has_lost_is_bounded(told: list[Any]) -> None:
    side = protocol.SyncSide("g")
    side.receive(protocol.SyncSide("g").start({}), dict)
    with pytest.raises(SyncError, match=r"lost|parts"):
        side.receive(msgpack.packb((13, told)), dict)


def test_that_all_is_sent_or_stored_is_said_as_often_as_it_was_asked() -> None:
    side, peer = protocol.SyncSide("g"), protocol.SyncSide("g")
    side.start({})
    side.receive(peer.start({}), dict)
    side.receive(peer.encode_done(), dict)
    with pytest.raises(SyncError, match="more often"):
        side.receive(peer.encode_done(), dict)
    side.encode_want(ALICE.id.key, 1)
    side.receive(peer.encode_done(), dict)
    with pytest.raises(SyncError, match="not sent"):
        side.receive(msgpack.packb([protocol.SyncMessage.STORED]), dict)
    side.encode_done()
    side.receive(msgpack.packb([protocol.SyncMessage.STORED]), dict)
    assert side.is_done


def test_a_vector_is_told_once() -> None:
    """Each is read, and answered by all that it lacks: 4 bytes that take milliseconds."""
    side, peer = protocol.SyncSide("g"), protocol.SyncSide("g")
    side.receive(peer.start({}), dict)  # which has it
    with pytest.raises(SyncError, match="what is known"):
        side.receive(msgpack.packb((1, b"")), dict)
    side, peer = protocol.SyncSide("g"), protocol.SyncSide("g")
    side.start({})
    too_long = vector({bytes([number]) * 32: 1 for number in range(10)})
    side.receive(peer.start(too_long), dict)
    side.receive(msgpack.packb((1, b"")), dict)
    with pytest.raises(SyncError, match="what is known"):
        side.receive(msgpack.packb((1, b"")), dict)


def test_lost_frames_that_the_peer_has_not_either_are_left() -> None:
    """It answers with what it has: nothing, however many are asked for."""

    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=BOB) as other,
            await dtp.listen("memory://lost", other.serve, identity=BOB) as listener,
            dtp.connect(listener.address(), identity=ALICE) as connection,
        ):
            side, stream = protocol.SyncSide(""), await connection.open_stream()
            for message in (side.start({}), side.encode_lost([(CAROL.id.key, 1, 2**62)]), side.encode_done()):
                stream.write(len(message).to_bytes(4, "big") + message)
            kinds = []
            while kinds.count(3) < 2:
                size = int.from_bytes(await stream.readexactly(4), "big")
                kinds.append(msgpack.unpackb(await stream.readexactly(size))[0])
            assert 2 not in kinds
            stream.reset()

    run_virtual(main())
