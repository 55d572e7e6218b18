"""Replication that goes on: connections end, peers are away, and what was made meanwhile comes in the end."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack

import pytest
from graph_fixtures import ALICE, BOB

import dtp
from dtp.graph import Graph
from dtp.graph.sync.keeping import LONGEST_PAUSE
from dtp.net.dial import Connecting
from dtp.testing.clock import run as run_virtual


def at(name: str) -> str:
    return f"dtp+memory://{BOB.id}@{name}"


def test_it_goes_on_over_connections_that_end_and_peers_that_are_away() -> None:
    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE, name="g") as one,
            await Graph.open("memory:", identity=BOB, name="g") as other,
        ):
            dialled: list[float] = []
            loop = asyncio.get_running_loop()

            def connect() -> Connecting:
                dialled.append(loop.time())
                return dtp.connect(at("keeping"), identity=ALICE)

            keeping = asyncio.ensure_future(one.keep_replicating(connect))
            for round_ in range(3):
                async with AsyncExitStack() as stack:
                    await asyncio.sleep(200)  # nobody is there
                    away = len(dialled)
                    await stack.enter_async_context(
                        await dtp.listen("memory://keeping", other.serve, identity=BOB)
                    )
                    one.node("n")[f"one {round_}"] = 1
                    other.node("n")[f"other {round_}"] = 1
                    await asyncio.sleep(LONGEST_PAUSE)
                    assert len(dialled) == away + 1
                    assert len(one.node("n")) == len(other.node("n")) == 2 * round_ + 2
                    one.node("n")[f"live {round_}"] = 1
                    await asyncio.sleep(1)
                    assert other.node("n")[f"live {round_}"] == 1
                    del one.node("n")[f"live {round_}"]
                    await asyncio.sleep(1)
            pauses = [after - before for before, after in itertools.pairwise(dialled)]
            assert min(pauses) >= 0.5
            assert len(dialled) < 60
            await one.close()
            await keeping

    run_virtual(main())


def test_what_trying_again_will_not_mend_is_raised() -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as graph:
            with pytest.raises(dtp.AddressError):
                await graph.keep_replicating(lambda: dtp.connect("no address", identity=ALICE))

    run_virtual(main())


def test_a_graph_that_is_closed_in_a_pause_ends_it_at_once() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        graph = await Graph.open("memory:", identity=ALICE)
        keeping = asyncio.ensure_future(
            graph.keep_replicating(lambda: dtp.connect(at("nobody"), identity=ALICE))
        )
        await asyncio.sleep(300)
        closed = loop.time()
        await graph.close()
        await keeping
        assert loop.time() == closed

    run_virtual(main())
