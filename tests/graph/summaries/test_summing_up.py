"""Summaries between graphs: what was overwritten is not sent, what is left is signed, who lies is found out."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgpack
import pytest
from graph_fixtures import ALICE, BOB, CAROL, connected, run, told
from hypothesis import given
from hypothesis import strategies as st
from variants import slow_after

from dtp.crdt import Clock
from dtp.graph import Envelope, EnvelopeError, Equivocation, Graph, Rule, Rules, Schema, Summary
from dtp.graph.frames import envelope as envelopes
from dtp.graph.frames import summaries
from dtp.graph.frames.envelope import Signed
from dtp.graph.stores.store import MemoryStore


async def own(graph: Graph, first: int = 1, last: int | None = None) -> list[bytes]:
    """What stands for the own frames."""
    end = graph.frames.vector()[graph.identity.id.key] if last is None else last
    return [one async for some in summaries.own(graph, first, end) for one in some]


def opened(data: bytes) -> Envelope | Summary:
    return envelopes.decode("", data)


async def churn(graph: Graph, rounds: int, nodes: int = 50) -> None:
    for number in range(rounds):
        graph.put_many((f"n/{at}", "k", f"{number} {at}") for at in range(nodes))
        graph.set("s").add(number)
        graph.set("s").discard(number - 1)
        await graph.commit()


@pytest.mark.parametrize("history", [False, True])
def test_only_what_counts_is_sent_unless_all_is_wanted(history: bool) -> None:
    async def main() -> None:
        async with (
            connected(f"churn-{history}") as (client, server),
            await Graph.open("memory:", identity=ALICE, history=history) as one,
            await Graph.open("memory:", identity=BOB) as other,
        ):
            serving = asyncio.create_task(other.serve(server))
            await churn(other, 1)
            await one.sync(client)
            await churn(other, 50)
            done = await one.sync(client)
            assert one.replica.save() == other.replica.save()
            assert done.received == (50 if history else 1)
            assert (done.bytes_received > 1000) == history
            assert len(await one.history.versions("n/0", "k")) == (51 if history else 2)
            assert await one.verify() == (51 if history else 2)
            assert (await one.sync(client)).received == 0
            await client.close()
            await serving

    run(main())


def test_a_summary_is_stored_and_passed_on(tmp_path: Path) -> None:
    """Alice -> Bob -> Carol; Bob's is closed and opened again."""

    async def main() -> None:
        path = str(tmp_path / "bob.db")
        async with await Graph.open("memory:", identity=ALICE) as alice:
            await churn(alice, 30)
            first = await own(alice)
            await churn(alice, 30)
            second = await own(alice, 31)
            assert all(len(one) == 1 for one in (first, second))
            async with await Graph.open(path, identity=BOB) as bob:
                assert await bob.receive(first + second) == 2
                assert await bob.receive(first + second) == 0
                assert bob.frames.vector() == alice.frames.vector()
            async with await Graph.open(path, identity=BOB) as bob:
                assert bob.replica.save() == alice.replica.save()
                assert await bob.verify() == 2
                alice.node("late")["k"] = 1
                await alice.commit()
                assert await bob.receive(await alice.frames.read(ALICE.id.key, 61, 61)) == 1
                async with (
                    connected("on") as (client, server),
                    await Graph.open("memory:", identity=CAROL) as carol,
                ):
                    serving = asyncio.create_task(bob.serve(server))
                    assert (await carol.sync(client)).received == 3
                    assert carol.replica.save() == alice.replica.save()
                    await client.close()
                    await serving
            file = tmp_path / "graph.dtpg"
            async with await Graph.open(path, identity=BOB) as bob:
                assert await bob.files.export(file) == 3
            async with await Graph.open("memory:", identity=CAROL) as carol:
                assert await carol.files.import_file(file) == 3
                assert carol.replica.save() == alice.replica.save()

    run(main())


def test_a_summary_that_begins_before_what_is_known() -> None:
    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as alice,
            await Graph.open("memory:", identity=BOB) as bob,
        ):
            await churn(alice, 40)
            await bob.receive(await alice.frames.read(ALICE.id.key, 1, 17))
            await bob.receive(await alice.frames.read(ALICE.id.key, 25, 25))  # put aside, then not needed
            assert bob.frames.gaps() == [(ALICE.id.key, 18, 24)]
            assert await bob.receive(await own(alice)) == 1
            assert bob.frames.gaps() == []
            assert bob.replica.save() == alice.replica.save()
            assert await bob.verify() == 18
            assert await bob.receive(await alice.frames.read(ALICE.id.key, 1, 40)) == 0
            late = await own(alice, 5)
            assert await bob.receive(late) == 0

    run(main())


def test_a_summary_behind_a_gap_is_left_for_later() -> None:
    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as alice,
            await Graph.open("memory:", identity=BOB) as bob,
        ):
            await churn(alice, 40)
            assert await bob.receive(await own(alice, 11)) == 0
            assert bob.frames.vector() == {}

    run(main())


def test_who_sums_up_another_history_has_signed_the_proof() -> None:
    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as one,
            await Graph.open("memory:", identity=ALICE) as twin,
            await Graph.open("memory:", identity=BOB) as bob,
        ):
            await churn(one, 40)
            await churn(twin, 41)
            await bob.receive(await one.frames.read(ALICE.id.key, 1, 40))
            with pytest.raises(Equivocation) as caught:
                await bob.receive(await own(twin, 41 - 20))
            assert caught.value.proof.is_valid()
            (proof,) = await bob.frames.proofs()
            assert proof.is_valid()
            assert {type(one) for one in (proof.first, proof.second)} == {Summary, envelopes.Envelope}

    run(main())


def test_summaries_that_are_none() -> None:
    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as alice,
            await Graph.open("memory:", identity=BOB) as bob,
        ):
            await churn(alice, 40)
            (data,) = await own(alice)
            genuine = envelopes.decode("", data)
            assert isinstance(genuine, Summary)
            for forged in (
                dataclasses.replace(genuine, sequence=41),
                dataclasses.replace(genuine, last=genuine.last + 1),
                dataclasses.replace(genuine, tip=bytes(32)),
                dataclasses.replace(genuine, seen=bytes(16)),
                dataclasses.replace(genuine, body=b""),
            ):
                with pytest.raises(EnvelopeError, match="not signed"):
                    await bob.receive([forged.encode()])
            parts = msgpack.unpackb(data)
            for at, wrong in ((0, 3), (2, 0), (2, 41), (3, -1), (4, genuine.last), (5, 1 << 63), (6, b"x" * 32),
                              (7, b""), (8, b""), (9, ""), (10, b"")):  # fmt: skip
                with pytest.raises(EnvelopeError):
                    envelopes.decode("", msgpack.packb([*parts[:at], wrong, *parts[at + 1 :]]))
            signed = envelopes.sum_up(
                ALICE,
                envelopes.decode("", (await alice.frames.read(ALICE.id.key, 1, 1))[0]),
                envelopes.decode("", (await alice.frames.read(ALICE.id.key, 40, 40))[0]),
                (5, genuine.last),
                genuine.seen,
                b"",
            )
            with pytest.raises(EnvelopeError, match="clock"):
                await bob.receive([signed.encode()])
            assert bob.frames.vector() == {}

    run(main())


@given(st.integers(0, 1 << 32), st.sampled_from(["flip", "cut", "more", "insert"]))
def test_changed_bytes_are_refused_or_not_genuine(seed: int, way: str) -> None:
    rng = random.Random(seed)
    first = envelopes.sign_frame(ALICE, "g", 1, bytes(32), b"\x10")
    data = envelopes.sum_up(ALICE, first, first, (0, 9), bytes(16), rng.randbytes(20)).encode()
    at = rng.randrange(len(data))
    changed = {
        "flip": data[:at] + bytes((data[at] ^ 1 << rng.randrange(8),)) + data[at + 1 :],
        "cut": data[:at],
        "more": data + rng.randbytes(3),
        "insert": data[:at] + rng.randbytes(1) + data[at:],
    }[way]
    try:
        read = envelopes.decode("g", changed)
    except EnvelopeError:
        return
    assert changed == data or not read.is_genuine() or read == envelopes.decode("g", data)


def test_what_is_made_while_it_is_summed_up_is_lost_nowhere() -> None:
    async def main() -> None:
        rng = random.Random(3)
        async with (
            connected("busy") as (client, server),
            await Graph.open("memory:", identity=ALICE) as one,
            await Graph.open("memory:", identity=BOB) as other,
        ):
            serving = asyncio.create_task(other.serve(server))
            for turn in range(5):
                await churn(other, 20, 20)
                await churn(one, 20, 20)
                syncing = asyncio.create_task(one.sync(client))
                for _ in range(100):
                    other.node(f"n/{rng.randrange(20)}")["k"] = f"late {turn}"
                    one.node(f"n/{rng.randrange(20)}")["k"] = f"late too {turn}"
                    await asyncio.sleep(0)
                await syncing
            await one.sync(client)
            assert one.replica.save() == other.replica.save()
            await client.close()
            await serving

    run(main())


def test_sums_are_finished_beside_the_loop_and_one_after_another() -> None:
    """Joining the edits of a million operations took 20 s, in which the loop did nothing else."""

    class Held(ThreadPoolExecutor):
        """One thread, which begins to finish a sum only when it may."""

        def __init__(self) -> None:
            super().__init__(1)
            self.asked, self.may_go_on = 0, threading.Event()

        def submit(self, fn: Any, /, *arguments: Any, **named: Any) -> Any:
            if "finish_frame" in [getattr(one, "__name__", "") for one in getattr(fn, "args", ())]:
                self.asked += 1
                super().submit(self.may_go_on.wait)
            return super().submit(fn, *arguments, **named)

    async def main() -> None:
        beside = Held()
        asyncio.get_running_loop().set_default_executor(beside)
        async with await Graph.open("memory:", identity=ALICE) as one:
            text = one.text("n", "t")
            for number in range(300):
                text.append(f"word {number} " * 5)
                await one.commit()
            given_up, kept = (asyncio.create_task(own(one)) for _ in range(2))
            while not beside.asked:  # noqa: ASYNC110
                await asyncio.sleep(0)
            given_up.cancel()
            await asyncio.wait([given_up])
            for _ in range(100):
                await asyncio.sleep(0)
            assert beside.asked == 1  # the thread has it still
            beside.may_go_on.set()
            (summary,) = await kept
            assert beside.asked == 2
            assert [summary] == await own(one)
            assert isinstance(opened(summary), Summary)

    run(main())


def test_many_small_commits_are_one_signature() -> None:
    async def main() -> None:
        async with (
            connected("small") as (client, server),
            await Graph.open("memory:", identity=ALICE) as one,
            await Graph.open("memory:", identity=BOB) as other,
        ):
            serving = asyncio.create_task(other.serve(server))
            for number in range(500):
                one.node(f"n/{number}")["k"] = number / 7
                await one.commit()
            done = await one.sync(client)
            assert done.sent == 1
            assert done.bytes_sent < 15_000
            assert one.replica.save() == other.replica.save()
            await client.close()
            await serving

    run(main())


VOTE = Rules("vote", [Rule(path="*", key="{author}", value=Schema(one_of=("yes", "no")), once="soul")])
LUNCH = VOTE.soul("lunch")


async def hidden_vote(graph: Graph) -> tuple[list[bytes], bytes]:
    """A vote and what came around it, as frames, and a summary that its author signs to hide the vote."""
    graph.access.allow(VOTE)
    for soul, key, value in (
        ("a", "k", "1"),
        (LUNCH, str(graph.identity.id), "yes"),
        ("a", "k", "2"),
        ("a", "k", "3"),
    ):
        graph.node(soul)[key] = value
        await graph.commit()
    encoded = await graph.frames.read(graph.identity.id.key, 1, 4)
    first, *_, last = (envelopes.decode(graph.name, one) for one in encoded)
    assert isinstance(first, envelopes.Envelope)
    assert isinstance(last, envelopes.Envelope)
    clocks = 0, graph.replica.core.check_frame(last.body)[1]
    lie = envelopes.sum_up(graph.identity, first, last, clocks, bytes(16), b"")
    return encoded, lie.encode()


def test_who_wants_every_frame_takes_no_summary_that_hides_a_vote() -> None:
    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as alice,
            await Graph.open("memory:", identity=BOB, history=True) as bob,
            await Graph.open("memory:", identity=CAROL, history=True) as carol,
        ):
            frames, lie = await hidden_vote(alice)
            assert await bob.receive([lie]) == 0
            assert (bob.frames.vector(), bob.frames.gaps()) == ({}, [(ALICE.id.key, 1, 4)])
            assert await bob.receive(frames[3:]) == 0  # put aside
            assert bob.frames.gaps() == [(ALICE.id.key, 1, 3)]
            assert await bob.receive(frames[:1]) == 1
            assert await bob.receive([lie]) == 0  # nor when it begins before what is here
            assert await bob.receive(frames) == 3
            assert bob.frames.gaps() == []
            await carol.receive(frames)
            assert bob.replica.save() == carol.replica.save() == alice.replica.save()
            assert bob.node(LUNCH)[str(ALICE.id)] == "yes"

    run(main())


def test_a_sync_with_who_has_only_a_summary_ends_and_the_frames_come_from_another() -> None:
    async def main() -> None:
        async with (
            connected("liar") as (client, server),
            await Graph.open("memory:", identity=ALICE) as alice,
            await Graph.open("memory:", identity=BOB) as misled,
            await Graph.open("memory:", identity=CAROL, history=True) as carol,
        ):
            frames, lie = await hidden_vote(alice)
            alice.node("a")["k"] = "4"
            await alice.commit()
            assert await misled.receive([lie, *await alice.frames.read(ALICE.id.key, 5, 5)]) == 2
            serving = asyncio.create_task(misled.serve(server))
            for _ in range(2):
                assert (await carol.sync(client)).received == 0
                assert carol.frames.gaps() == [(ALICE.id.key, 1, 4)]
            assert await carol.receive(frames) == 5  # and the one that was put aside
            assert (await carol.sync(client)).received == 0
            assert carol.replica.save() == alice.replica.save()
            assert misled.node(LUNCH).get(str(ALICE.id)) is None
            await client.close()
            await serving

    run(main())


class Pruned(MemoryStore):
    """A store in which others put a sum in the place of the frames, before it is asked for frames so many times."""

    def __init__(self) -> None:
        super().__init__()
        self.sum: list[Signed] = []
        self.reads = -1

    def read_frames(self, author: bytes, first: int, last: int) -> list[bytes]:
        self.reads -= 1
        if self.reads == 0:
            assert self.replace_frames(self.sum) > 300
        return super().read_frames(author, first, last)


@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("reads", slow_after(3, range(1, 7)))
def test_frames_that_are_pruned_while_they_are_summed_up_sum_up_the_same(first: int, reads: int) -> None:
    """The sum tells edits of texts as one that wasn't there when they were looked at first: a `KeyError` ended the
    sync, or the pruning."""

    async def main() -> None:
        store = Pruned()
        async with (
            await Graph.open(store, identity=ALICE) as alice,
            await Graph.open("memory:", identity=BOB) as bob,
        ):
            for number in range(200):
                alice.set("s").add(f"{number} that was there before all")
            await told(alice, ALICE, bob)
            for number in range(400):
                alice.node("n")["k"] = bytes([number % 256]) * 500
                alice.text("t").insert(0, f"{number} ")
                alice.text("t").delete(0, number % 4)
                await alice.commit()
            store.sum = [envelopes.decode("", part) for part in await own(alice)]
            store.reads = reads
            sent = await own(alice, first)
            assert store.reads <= 0
            await bob.receive(sent)
            assert len(bob.set("s")) == 200
            assert bob.replica.save() == alice.replica.save()
            assert not bob.forks

    run(main())


class Reading(MemoryStore):
    """A store that counts how often frames are read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def read_frames(self, author: bytes, first: int, last: int) -> list[bytes]:
        self.reads += 1
        return super().read_frames(author, first, last)


def test_who_asks_for_sums_at_a_time_shares_what_they_are_worked_out_by() -> None:
    """It takes as much memory as the graph: so many newcomers at once took that many times as much."""

    async def main() -> None:
        store = Reading()
        async with await Graph.open(store, identity=ALICE) as alice:
            for number in range(300):
                alice.node("n")[f"{number % 50}"] = bytes([number % 256]) * 500
                alice.text("t").insert(0, f"{number} ")
                await alice.commit()
            store.reads = 0
            (wanted,) = await own(alice)
            once = store.reads
            store.reads = 0
            many = await asyncio.gather(*(own(alice) for _ in range(10)))
            assert store.reads <= 10 * once * 2 // 3 + once
            assert [one.body for sums in many for one in map(opened, sums)] == [opened(wanted).body] * 10
            summing = summaries.own(alice, 1, 300)  # by somebody who takes it slowly
            assert await anext(summing) == [wanted]
            alice.node("n")["0"] = b"later"
            await alice.commit()
            parts = await own(alice)
            assert [opened(one).sequence for one in parts] == [300, 301]
            async with await Graph.open("memory:", identity=BOB) as bob:
                await bob.receive(parts)
                assert bob.replica.save() == alice.replica.save()
            await summing.aclose()  # type: ignore[attr-defined]
            assert [opened(one).sequence for one in await own(alice)] == [301]

    run(main())


def test_what_was_written_before_a_clock_was_ahead_comes_to_newcomers() -> None:
    """One sum was sent of all, which was dated a year ahead, and refused as a whole for that year."""
    wall = [1_700_000_000.0]

    async def main() -> None:
        clock = Clock(lambda: wall[0])
        async with (
            await Graph.open("memory:", identity=ALICE, clock=clock) as alice,
            await Graph.open("memory:", identity=BOB, clock=Clock(lambda: wall[0])) as bob,
        ):
            await churn(alice, 40)
            before = [alice.everything(soul) for soul in alice.souls()]
            wall[0] += 366 * 86_400
            await churn(alice, 2)
            wall[0] -= 366 * 86_400
            sent = [opened(one) for one in await own(alice)]
            assert [(one.first_sequence, one.sequence) for one in sent] == [(1, 40), (41, 41), (42, 42)]
            await bob.receive([one.encode() for one in sent])
            assert bob.frames.vector() == alice.frames.vector()
            assert [bob.everything(soul) for soul in bob.souls()] == before
            wall[0] += 366 * 86_400
            assert list(bob.replica.take_due())
            assert bob.replica.save() == alice.replica.save()

    run(main())


def test_a_sum_that_is_ahead_keeps_from_newcomers_nothing_that_others_have() -> None:
    """Its author summed up while its clock was ahead, and went away: others sent that instead of its frames, and it
    was refused as a whole."""
    wall = [1_700_000_000.0]

    async def main() -> None:
        clock = Clock(lambda: wall[0])
        async with (
            await Graph.open("memory:", identity=ALICE, clock=clock) as alice,
            await Graph.open("memory:", identity=BOB, clock=clock) as bob,
            await Graph.open("memory:", identity=CAROL, clock=clock) as carol,
        ):
            await churn(alice, 40)
            wall[0] += 366 * 86_400
            await churn(alice, 2)
            summed_up = await own(alice)
            wall[0] -= 366 * 86_400
            await bob.receive(await alice.frames.read(ALICE.id.key, 1, 42))
            bob.passed.put_summary(ALICE.id.key, 42, summed_up)
            async with connected("ahead") as (client, server):
                serving = asyncio.create_task(bob.serve(server))
                await carol.sync(client)
                serving.cancel()
            assert carol.replica.save() == bob.replica.save()
            assert carol.souls()

    run(main())
