"""Presence over connections: who is there, through others too; what a peer does wrong ends its stream and no more."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgpack
import presence_second as second
import pytest
from graph_fixtures import ALICE, BOB, CAROL, identity

import dtp
from dtp.crdt import clock
from dtp.crdt.values import GraphValueError
from dtp.graph import Graph, GraphError
from dtp.graph.presence.links import MAX_MESSAGE
from dtp.identity import Identity
from dtp.testing.clock import run as run_virtual

START = 1_800_000_000
DAVE = identity("dave")
#: Whose seed the second implementation signs with.
MALLORY = hashlib.sha256(b"mallory").digest()


def wall(off: float = 0) -> clock.Clock:
    loop = asyncio.get_running_loop()
    return clock.Clock(lambda: START + off + loop.time())


class Place:
    """Graphs that are connected, in virtual time."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.stack = stack
        self.graphs: dict[Identity, Graph] = {}
        self.tasks: list[asyncio.Future[None]] = []

    async def open(self, who: Identity, *, off: float = 0) -> Graph:
        graph = await Graph.open("memory:", identity=who, name="g", clock=wall(off))
        self.graphs[who] = await self.stack.enter_async_context(graph)
        name = f"memory://presence-{who.id.short}"
        await self.stack.enter_async_context(await dtp.listen(name, graph.serve, identity=who))
        return graph

    async def dial(self, who: Identity, to: Identity) -> dtp.Connection:
        address = f"dtp+memory://{to.id}@presence-{to.id.short}"
        return await self.stack.enter_async_context(dtp.connect(address, identity=who))

    async def connect(self, who: Identity, to: Identity) -> dtp.Connection:
        connection = await self.dial(who, to)
        self.tasks.append(asyncio.ensure_future(self.graphs[who].replicate(connection)))
        return connection


def run(main: Any) -> None:
    async def within() -> None:
        async with AsyncExitStack() as stack:
            place = Place(stack)
            await main(place)
            for graph in place.graphs.values():
                await graph.close()
            await asyncio.gather(*place.tasks)

    run_virtual(within())


def seen(graph: Graph) -> dict[str, Any]:
    return {str(one.peer): one.state for one in graph.presence.here()}


@pytest.mark.parametrize("shape", ["star", "chain"])
def test_who_is_there_is_seen_through_others(shape: str) -> None:
    async def main(place: Place) -> None:
        a, b, c = [await place.open(who) for who in (ALICE, BOB, CAROL)]
        await place.connect(ALICE, BOB)
        await (place.connect(CAROL, BOB) if shape == "star" else place.connect(BOB, CAROL))
        changes = c.presence.changes()
        a.presence.set(name="Alice", cursor=1)
        first = await anext(changes)
        assert (first.peer, first.state) == (ALICE.id, {"name": "Alice", "cursor": 1})
        a.presence.update(cursor=2)
        assert (await anext(changes)).state == {"name": "Alice", "cursor": 2}
        assert a.presence.state == {"name": "Alice", "cursor": 2}
        c.presence.set(name="Carol")
        await asyncio.sleep(1)
        assert seen(a) == {str(CAROL.id): {"name": "Carol"}}
        assert len(b.presence.here()) == 2
        d = await place.open(DAVE)
        await place.connect(DAVE, BOB)
        await asyncio.sleep(1)
        assert seen(d) == {str(ALICE.id): {"name": "Alice", "cursor": 2}, str(CAROL.id): {"name": "Carol"}}
        a.presence.clear()
        gone = await anext(changes)
        assert (gone.peer, gone.session, gone.state) == (ALICE.id, first.session, None)
        await asyncio.sleep(120)  # who is there stays, for as long as he is
        assert seen(a) == seen(d) == {str(CAROL.id): {"name": "Carol"}}
        assert all(len(graph.frames.vector()) == 0 for graph in (a, b, c, d)), "nothing is stored"
        await c.close()
        with pytest.raises(StopAsyncIteration):
            await anext(changes)
        await asyncio.sleep(1)
        assert seen(a) == seen(b) == seen(d) == {}

    run(main)


def test_who_is_banned_is_seen_no_more_and_not_passed_on() -> None:
    async def main(place: Place) -> None:
        a, b, c = [await place.open(who) for who in (ALICE, BOB, CAROL)]
        await place.connect(ALICE, BOB)
        await place.connect(CAROL, BOB)
        a.presence.set(x=1)
        await asyncio.sleep(1)
        assert seen(b) == seen(c) == {str(ALICE.id): {"x": 1}}
        await b.admission.ban(ALICE.id)
        await asyncio.sleep(120)
        assert seen(b) == seen(c) == {}
        await b.admission.unban(ALICE.id)
        await asyncio.sleep(60)
        assert seen(b) == seen(c) == {str(ALICE.id): {"x": 1}}

    run(main)


def test_who_is_lost_with_a_connection_is_gone_and_comes_back_with_another() -> None:
    async def main(place: Place) -> None:
        a, b, c = [await place.open(who) for who in (ALICE, BOB, CAROL)]
        first = await place.connect(ALICE, BOB)
        await place.connect(CAROL, BOB)
        a.presence.set(x=1)
        changes = c.presence.changes()
        await anext(changes)
        await first.close()
        assert (await anext(changes)).state is None
        await place.connect(ALICE, BOB)
        assert (await anext(changes)).state == {"x": 1}
        assert b.presence.counts["broken"] == 0

    run(main)


def test_what_changes_often_is_told_by_the_newest_and_slow_readers_hear_it_once() -> None:
    async def main(place: Place) -> None:
        a, b = await place.open(ALICE), await place.open(BOB)
        await place.connect(ALICE, BOB)
        changes = b.presence.changes()
        for number in range(1000):  # 10 s
            a.presence.set(at=number)
            await asyncio.sleep(0.01)
        await asyncio.sleep(1)
        assert (await anext(changes)).state == {"at": 999}
        assert 100 < b.presence.counts["taken"] <= 201

    run(main)


def test_nobody_there_costs_nothing_and_who_is_idle_one_state_in_ten_seconds() -> None:
    async def main(place: Place) -> None:
        a, b = await place.open(ALICE), await place.open(BOB)
        await place.connect(ALICE, BOB)
        await asyncio.sleep(300)
        assert b.presence.counts == {}
        a.presence.set(name="Alice")
        await asyncio.sleep(100)
        assert 9 <= b.presence.counts["taken"] <= 12

    run(main)


def test_a_cursor_follows_the_edits_of_its_text() -> None:
    async def main(place: Place) -> None:
        a, b = await place.open(ALICE), await place.open(BOB)
        await place.connect(ALICE, BOB)
        a.text("doc").insert(0, "hello world")
        await asyncio.sleep(1)
        changes = b.presence.changes()
        a.presence.set(cursor=a.text("doc").anchor(5), selection=[a.text("doc").anchor(0, "right")])
        present = await anext(changes)
        assert present.state is not None
        text = b.text("doc")
        assert text.position(present.state["cursor"]) == 5
        assert text.position(present.state["selection"][0]) == 0
        text.insert(0, "> ")
        assert text.position(present.state["cursor"]) == 7

    run(main)


def test_clocks_within_a_minute_are_all_the_same_and_others_are_counted() -> None:
    async def main(place: Place) -> None:
        a, b = await place.open(ALICE), await place.open(BOB, off=50)
        fast, slow = await place.open(CAROL, off=70), await place.open(DAVE, off=-100)
        for who in (ALICE, CAROL, DAVE):
            await place.connect(who, BOB)
        for graph in (a, fast, slow):
            graph.presence.set(x=1)
        await asyncio.sleep(100)
        assert seen(b).keys() == {str(ALICE.id), str(CAROL.id)}
        assert b.presence.counts["late"] >= 9
        assert seen(a) == {}
        assert a.presence.counts["early"] >= 9
        assert seen(fast) == {str(ALICE.id): {"x": 1}}

    run(main)


def test_what_can_not_be_said_changes_nothing() -> None:
    async def main(place: Place) -> None:
        graph = await place.open(ALICE)
        graph.presence.set(x=1)
        with pytest.raises(GraphError, match="4096"):
            graph.presence.update(y="y" * 5000)
        with pytest.raises(GraphValueError):
            graph.presence.update(y=object())
        deep: list[Any] = []
        for _ in range(40):
            deep = [deep]
        with pytest.raises(GraphValueError, match="deep"):
            graph.presence.update(y=deep)
        # To peers these would be no state: they would end the stream.
        for value in (
            datetime.date(2026, 11, 24),
            datetime.timedelta(1),
            [{"at": datetime.datetime(2026, 11, 24)}],
            {1: 2},
        ):
            with pytest.raises(GraphValueError, match="text"):
                graph.presence.update(y=value)
        assert graph.presence.state == {"x": 1}
        await graph.close()
        with pytest.raises(GraphError, match="closed"):
            graph.presence.set(x=2)
        with pytest.raises(GraphError, match="closed"):
            graph.presence.changes()

    run(main)


# ---- peers that are another program, or hostile -------------------------------------------------------------------


async def stranger(place: Place, to: Identity = BOB) -> dtp.Stream:
    """A stream on which the second implementation has said hello."""
    stream = await (await place.dial(DAVE, to)).open_stream()
    stream.write(second.hello("g"))
    assert await message(stream) == [32, 1, "g"]
    return stream


async def message(stream: dtp.Stream) -> Any:
    size = int.from_bytes(await stream.readexactly(4), "big")
    return msgpack.unpackb(await stream.readexactly(size))


def said(sequence: int, says: Any, *, date: float = 0, session: int = 1, seed: bytes = MALLORY) -> Any:
    when = int((START + date) * 1000)
    return second.sign(seed, "g", bytes([session]) * 16, sequence, when, says)


def test_a_second_implementation_takes_part() -> None:
    async def main(place: Place) -> None:
        a, b = await place.open(ALICE), await place.open(BOB)
        await place.connect(ALICE, BOB)
        stream = await stranger(place)
        stream.write(second.states(said(1, {"x": 1})))
        changes = a.presence.changes()
        present = await anext(changes)
        assert (present.session, present.state) == (bytes([1]) * 16, {"x": 1})
        a.presence.set(name="Alice")
        kind, states = await message(stream)
        assert kind == 33
        assert second.is_genuine("g", tuple(states[0]))
        assert states[0][0] == ALICE.id.key
        assert msgpack.unpackb(states[0][4]) == {"name": "Alice"}
        stream.write(second.gone((present.peer.key, present.session)))
        assert (await anext(changes)).state is None
        stream.write(second.states(said(1, {"x": 1})))
        assert (await anext(changes)).state == {"x": 1}
        stream.write(second.states(said(2, None)))
        assert (await anext(changes)).state is None
        stream.write(second.states(said(1, {"x": 1}), said(2, {"x": 1})))
        await asyncio.sleep(5)
        assert b.presence.counts["known"] == 2
        await a.close()
        kind, ((*who, sequence, _, value, _),) = await message(stream)
        assert (kind, who, value) == (33, states[0][:2], b"")
        assert sequence > states[0][2]
        stream.reset()

    run(main)


@pytest.mark.parametrize(
    "parts",
    [
        (33, [(*said(1, {"x": 1})[:5], bytes(64))]),
        (33, [said(1, {"x": 1})[:5]]),
        (33, [second.sign(MALLORY, "other", bytes(16), 1, START * 1000, {})]),
        (33, [(*said(1, {})[:4], b"\x81\x01\x01", bytes(64))]),
        (33, [said(1, {"x": "x" * 5000})]),
        (33, [(bytes([255]) * 32, *said(1, {})[1:])]),
        (33, [said(1, {"x": 1})] * 65),
        (33, 1),
        (33,),
        (34, [[b"", b""]]),
        (34, [1]),
        (34, [(bytes(32), bytes(16))] * 1025),
        (32, 1, "g"),
        (35, []),
        (True, []),
        ([], []),
        (),
    ],
    ids=lambda parts: str(parts)[:30],
)
def test_what_no_honest_peer_sends_ends_the_stream_and_nothing_else(parts: Any) -> None:
    async def main(place: Place) -> None:
        a, b = await place.open(ALICE), await place.open(BOB)
        await place.connect(ALICE, BOB)
        stream = await stranger(place)
        stream.write(second.framed(*parts))
        with pytest.raises(dtp.StreamReset):
            await stream.read()
        assert b.presence.counts["broken"] == 1
        assert b.presence.here() == []
        a.presence.set(x=1)
        a.node("n")["k"] = 1
        await asyncio.sleep(1)
        assert seen(b) == {str(ALICE.id): {"x": 1}}
        assert b.node("n")["k"] == 1

    run(main)


@pytest.mark.parametrize(
    "first",
    [
        second.framed(32, 2, "g"),
        second.framed(32, True, "g"),
        second.framed(32, 1, "other"),
        second.framed(32, 1),
        second.framed(32),
    ],
)
def test_who_begins_otherwise_is_sent_away(first: bytes) -> None:
    async def main(place: Place) -> None:
        await place.open(BOB)
        stream = await (await place.dial(DAVE, BOB)).open_stream()
        stream.write(first)
        with pytest.raises(dtp.StreamReset):
            await stream.read()

    run(main)


@pytest.mark.parametrize("data", [b"\xff" * 4, (MAX_MESSAGE + 1).to_bytes(4, "big"), second.states()[:-1]])
def test_messages_that_are_too_long_or_cut_off_end_the_stream(data: bytes) -> None:
    async def main(place: Place) -> None:
        b = await place.open(BOB)
        stream = await stranger(place)
        stream.write(data)
        stream.write_eof()
        with pytest.raises(dtp.StreamReset):
            await stream.read()
        assert b.presence.counts["broken"] == 1

    run(main)


def test_who_sends_more_than_can_be_read_waits_and_others_do_not() -> None:
    async def main(place: Place) -> None:
        loop = asyncio.get_running_loop()
        a, b = await place.open(ALICE), await place.open(BOB)
        await place.connect(ALICE, BOB)
        stream = await stranger(place)
        known = second.states(*[said(1, {"x": 1})] * 64)
        began = loop.time()
        for _ in range(2000):
            stream.write(known)
        changes = b.presence.changes()
        assert (await anext(changes)).state == {"x": 1}
        a.presence.set(x=2)
        assert (await anext(changes)).state == {"x": 2}
        assert loop.time() - began < 1
        await asyncio.sleep(10)
        assert b.presence.counts["known"] <= 12 * 2000
        stream.reset()

    run(main)


PROGRAM = """
import asyncio, sys, dtp

async def main(name, address):
    me = dtp.Identity(name.encode() * 32, name.encode() * 32)
    async with (
        await dtp.Graph.open("memory:", identity=me, name="g") as graph,
        await dtp.listen("tcp://127.0.0.1:0", graph.serve, identity=me) as listener,
    ):
        print(listener.address(), flush=True)
        if address:
            replicating = asyncio.create_task(graph.replicate(await dtp.connect(address, identity=me)))
        graph.presence.set(name=name)
        async for _ in graph.presence.changes():
            print(*sorted(one.state["name"] for one in graph.presence.here()), flush=True)

asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 60))
"""


def test_three_programs_see_each_other_and_that_one_ended(tmp_path: Path) -> None:
    """C sees A through B, and A go."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    started: list[subprocess.Popen[str]] = []

    def start(name: str, address: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(program), name, address]
        started.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True))
        return started[-1]

    def line(of: subprocess.Popen[str]) -> str:
        assert of.stdout is not None
        found = of.stdout.readline()
        assert found, "the program has ended"
        return found.strip()

    def wait(of: subprocess.Popen[str], shown: str) -> None:
        while line(of) != shown:
            pass

    try:
        address = line(start("b", ""))
        a, c = start("a", address), start("c", address)
        wait(c, "a b")
        wait(a, "b c")
        a.send_signal(signal.SIGINT)
        wait(c, "b")
    finally:
        for one in started:
            one.kill()
            one.communicate()
