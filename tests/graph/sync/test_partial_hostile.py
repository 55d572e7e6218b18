"""What peers that lie can do to a partial replica, and random histories with full ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import msgpack
import partial_second as second
import pytest
from graph_fixtures import ALICE, BOB, CAROL, identity
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from test_partial import NOTES, fill, opened, run, shown, sync

import dtp
from dtp.core.errors import NotOwner
from dtp.crdt.ops import ops_of
from dtp.graph import (
    EnvelopeError,
    Graph,
    Part,
    SyncError,
)
from dtp.graph.frames import envelope as envelopes
from dtp.graph.frames.envelope import Skipped

# ---- hostile peers ------------------------------------------------------------------------------------------------


def _frames(graph: Graph, data: list[bytes]) -> list[Any]:
    return [envelopes.decode(graph.name, one) for one in data]


def test_what_is_skipped_is_taken_by_whoever_asked_for_it_alone() -> None:
    async def main() -> None:
        async with (
            await opened(ALICE) as full,
            await opened(BOB, NOTES) as part,
            await opened(CAROL) as other,
        ):
            await fill(full, "alice")
            frames = _frames(full, await full.frames.read(ALICE.id.key, 1, 10))
            skipped = Skipped.spanning(frames[0], frames[4])
            assert skipped.is_genuine()
            assert envelopes.decode("g", skipped.encode()) == skipped
            for graph, asked in ((other, None), (other, NOTES), (part, None), (part, Part(labels=["x"]))):
                with pytest.raises(EnvelopeError, match="skips"):
                    await graph.receive([skipped.encode()], part=asked)
            own = await opened(ALICE, NOTES)
            with pytest.raises(EnvelopeError, match="identity itself"):
                await own.receive([skipped.encode()], part=NOTES)
            await own.close()
            assert await part.receive([skipped.encode()], part=NOTES) == 1
            assert await part.receive([frames[5].encode()]) == 1

    run(main)


@given(st.data())
@settings(max_examples=60)
def test_what_is_skipped_can_not_be_made_up(data: st.DataObject) -> None:
    made = [envelopes.sign_frame(ALICE, "g", 1, bytes(32), b"one")]
    made.append(envelopes.sign_frame(ALICE, "g", 2, made[0].hash, b"two"))
    clocks, seen = (1, 2), bytes(16)
    ends = [made[1], envelopes.sum_up(ALICE, made[0], made[1], clocks, seen, b"")]
    skipped = Skipped.spanning(made[0], data.draw(st.sampled_from(ends)))
    assert skipped.is_genuine()
    parts = list(msgpack.unpackb(skipped.encode()))
    at = data.draw(st.sampled_from([1, 3, 7, 8, 10]))  # the rest its author hasn't signed
    if at == 3:
        parts[at] += data.draw(st.integers(1, 1000))
    else:
        place = data.draw(st.integers(0, len(parts[at]) - 1))
        parts[at] = parts[at][:place] + bytes([parts[at][place] ^ 1]) + parts[at][place + 1 :]
    assert not envelopes.decode("g", msgpack.packb(parts)).is_genuine()


def test_a_peer_that_skips_what_does_not_follow_is_not_followed() -> None:
    async def main() -> None:
        async with (
            await opened(ALICE) as full,
            await opened(BOB, NOTES) as part,
        ):
            await fill(full, "alice")
            frames = _frames(full, await full.frames.read(ALICE.id.key, 1, 10))
            await part.receive([frames[0].encode()])
            wrong = Skipped.spanning(frames[1], frames[4])
            packed = list(msgpack.unpackb(wrong.encode()))
            packed[6] = bytes([1]) * 32
            with pytest.raises(dtp.DtpError, match="don't go on"):
                await part.receive([msgpack.packb(packed)], part=NOTES)
            assert part.frames.vector() == {ALICE.id.key: 1}
            await sync(part, full)
            assert shown(part) == shown(full, NOTES)

    run(main)


def test_forks_are_found_by_who_has_only_a_part() -> None:
    """By the heads, which are signed."""

    async def main() -> None:
        twin = identity("twin")
        async with (
            await opened(twin) as left,
            await opened(twin) as right,
            await opened(ALICE) as full,
            await opened(BOB) as other,
            await opened(CAROL, NOTES) as part,
        ):
            for graph, target in ((left, full), (right, other)):
                graph.node("place/1")["k"] = graph is left
                await graph.commit()
                await target.receive(await graph.frames.read(twin.id.key, 1, 9))
            await sync(part, full)
            assert not await part.frames.proofs()
            await sync(part, other)
            (proof,) = await part.frames.proofs()
            assert proof.is_valid()
            assert proof.author == twin.id.key
            assert (await other.frames.proofs())[0].is_valid()

    run(main)


@pytest.mark.parametrize("summed", [False, True])
def test_a_second_implementation_reads_a_part(summed: bool) -> None:
    """What it gets are the frames that a full replica has of the part, and proofs of where each chain ends."""

    async def main() -> None:
        async with await opened(ALICE) as full, await opened(BOB) as other:
            await fill(full, "alice", 60)
            if summed:  # an author that has overwritten much sums up
                for number in range(200):
                    full.node("place/hot")["k"] = "x" * 1000 + str(number)
                    await full.commit()
                await sync(other, full)
                full, other = other, full
            name = "memory://partial-second"
            asked = second.part(["note/"], [], [])
            async with (
                await dtp.listen(name, full.serve, identity=full.identity) as listener,
                dtp.connect(listener.address(), identity=CAROL) as connection,
            ):
                stream = await connection.open_stream()
                stream.write(second.hello("g", asked))
                chains: dict[bytes, second.Chain] = {}
                kind = -1
                while kind != 3:
                    size = int.from_bytes(await stream.readexactly(4), "big")
                    kind, *rest = msgpack.unpackb(await stream.readexactly(size))
                    if kind == 0:
                        assert rest[6:] == [b"", b"", True]
                    for data in rest[0] if kind == 2 else ():
                        second.take(chains, "g", data)
                stream.reset()
            chain = chains[ALICE.id.key]
            head = full.frames.heads()[ALICE.id.key]
            assert (chain.end, chain.hash[:16]) == (head.sequence, head.mark)
            assert chain.skipped or summed
            stored = _frames(full, await full.frames.read(ALICE.id.key, 1, chain.end))
            touching = {
                one.sequence: one.body
                for one in stored
                if one.body
                and any(
                    op.soul.startswith("note/") for op in ops_of(full.replica.core, ALICE.id.key, one.body)
                )
            }
            assert chain.whole == touching

    run(main)


# ---- random histories ---------------------------------------------------------------------------------------------

WHO = [identity(f"random {number}") for number in range(5)]
SOME = [None, None, NOTES, Part(labels=["place"]), Part(prefixes=["note/", "place/1"], labels=["big"])]
SOULS = ["note/1", "note/2", "place/1", "place/2", "big/1", "%none", ""]
STEP = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 4), st.lists(st.integers(0, 4), min_size=1, max_size=3)),
    st.tuples(st.just("sync"), st.integers(0, 4), st.integers(0, 4)),
    st.tuples(st.just("sync"), st.integers(0, 4), st.integers(0, 4)),
    st.tuples(st.just("text"), st.integers(0, 4), st.integers(0, 1)),
    st.tuples(st.just("reopen"), st.integers(0, 4)),
    st.tuples(st.just("grow"), st.integers(2, 4)),
    st.tuples(st.just("cut"), st.integers(0, 4), st.integers(0, 4), st.integers(1, 5)),
    st.tuples(st.just("prune"), st.integers(0, 1)),
    st.tuples(st.just("grant"), st.integers(1, 4)),
    st.tuples(st.just("revoke"), st.integers(1, 4)),
    st.tuples(st.just("owned"), st.integers(0, 4)),
)
#: A node of the first replica's own, in those parts that have places.
OWNED = f"~{WHO[0].id}/place/1"


async def sync_cut_off(one: Graph, other: Graph, most: int) -> None:
    """Sync, but have the connection lost when this many envelopes have come."""
    took, left = one.receive, most

    async def receive(data: Iterable[bytes], *, part: Part | None = None) -> int:
        nonlocal left
        some = list(data)[:left]
        left -= len(some)
        taken = await took(some, part=part)
        if not left:
            raise SyncError("the connection is cut here")
        return taken

    one.receive = receive
    try:
        with contextlib.suppress(SyncError):
            await sync(one, other)
    finally:
        del one.receive


@settings(max_examples=10, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(steps=st.lists(STEP, min_size=10, max_size=40))
def test_full_and_partial_replicas_in_random_histories(
    steps: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Of its part each replica shows in the end what the full ones show, whoever synced with whom before."""
    folder = tmp_path_factory.mktemp("histories")

    async def main() -> None:
        parts = list(SOME)
        graphs = [await opened(who, parts[at], str(folder / f"{at}.db")) for at, who in enumerate(WHO)]
        for count, (what, at, *rest) in enumerate(steps, 1):
            graph = graphs[at]
            if what == "write":
                graph.put_many([(SOULS[soul], f"k{soul}", count) for soul in rest[0]])
                await graph.commit()
            elif what == "text" and (graph.part is None or graph.part.has_soul(SOULS[rest[0]])):
                graph.text(SOULS[rest[0]]).insert(0, f"{count} ")
                graph.set(SOULS[rest[0]]).add(count)
                await graph.commit()
            elif what == "sync" and rest[0] != at:
                await sync(graph, graphs[rest[0]])
            elif what == "reopen":
                await graph.close()
                graphs[at] = await opened(WHO[at], None, str(folder / f"{at}.db"))
                assert graphs[at].part == parts[at]
                assert graphs[at].damage is None
            elif what == "grow":
                grown = parts[at].union(Part(prefixes=["place/2"]))
                parts[at] = grown
                await graph.grow(grown)
            elif what == "cut" and rest[0] != at:
                await sync_cut_off(graph, graphs[rest[0]], rest[1])
            elif what == "prune":
                await graph.upkeep.prune()
            elif what == "grant":
                graphs[0].access.grant(WHO[at].id, "place")
                await graphs[0].commit()
            elif what == "revoke":
                for grant in [one for one in graphs[0].access.grants() if one.grantee == WHO[at].id.key]:
                    graphs[0].access.revoke(grant)
                await graphs[0].commit()
            elif what == "owned":
                with contextlib.suppress(NotOwner):  # who has no grant, or not yet
                    graph.put_many([(OWNED, f"k{at}", count)])
                await graph.commit()
        for _ in range(2):
            for other in graphs[1:]:
                await sync(graphs[0], other)
        for graph, part in zip(graphs[1:], parts[1:], strict=True):
            await sync(graph, graphs[0])
            assert shown(graph) == shown(graphs[0], part)
            await graph.verify()
        for graph in graphs:
            await graph.close()

    run(main)
