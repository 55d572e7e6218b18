"""What another program stores in a store that both share is shown, also when the store didn't answer meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from graph_fixtures import ALICE, BOB, CAROL, everything, run

from dtp.crdt import Replica
from dtp.graph import Graph
from dtp.graph.errors import StoreAway
from dtp.graph.frames import envelope as envelopes
from dtp.graph.stores.store import MemoryStore
from dtp.testing import clock


class SharedStore(MemoryStore):
    """A store to which another program adds, and which is away from one call on: of the name that is given."""

    def __init__(self) -> None:
        super().__init__("shared")
        self.added: list[bytes] = []
        self.away = ""
        self.failed = 0
        self.saved = b""
        self.tell: Callable[[], None] = lambda: None
        self.on_read: Callable[[], None] = lambda: None

    def _answer(self, call: str) -> None:
        if call == self.away:
            self.failed += 1
            raise StoreAway("the server doesn't answer")

    def read_policy(self) -> bytes | None:
        self._answer("read_policy")
        return super().read_policy()

    def read_added(self) -> list[bytes]:
        self._answer("read_added")
        found, self.added = self.added, []
        self.on_read()
        return found

    def save_state(self, state: bytes) -> None:
        self.saved = state

    def return_added(self, envelopes: list[bytes]) -> None:
        self.added = envelopes + self.added

    def find_covering(self, author: bytes, sequence: int) -> bytes | None:
        self._answer("find_covering")
        return super().find_covering(author, sequence)

    def add_frames(self, frames: Any, *, synced: bool) -> None:
        self._answer("add_frames")
        super().add_frames(frames, synced=synced)

    def watch_news(self, on_news: Callable[[], None]) -> None:
        self.tell = on_news


@pytest.mark.parametrize("away", ["read_policy", "read_added", "find_covering", "add_frames"])
def test_a_store_that_was_away_is_asked_again(away: str) -> None:
    """Nobody tells of it a second time: a server that begins again has forgotten who listens."""
    told: list[str] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
        store = SharedStore()
        bob = await Graph.open("memory:", identity=BOB, name="shared")
        carol = await Graph.open("memory:", identity=CAROL, name="shared")
        for graph in bob, carol:
            for number in range(3):
                graph.node("n")[f"{graph.identity.id} {number}"] = 1
                await graph.commit()
        known, *news = await everything(carol)
        store.add_frames([envelopes.decode("shared", known)], synced=True)
        alice = await Graph.open(
            store, identity=ALICE
        )  # the end of Carol's chain is looked up when it goes on
        store.added = [*news, *await everything(bob)]
        store.away = away
        store.tell()
        await asyncio.sleep(5)
        store.away = ""
        await asyncio.sleep(5)
        assert dict(alice.node("n")) == {**bob.node("n"), **carol.node("n")}
        assert store.last_sequences() == alice.frames.vector()
        assert store.added == []
        for graph in alice, bob, carol:
            await graph.close()

    clock.run(main())
    assert told == ["what another program stored could not be taken"]  # once, not each time


def test_who_is_told_again_and_again_asks_no_more_often() -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        store = SharedStore()
        store.away = "read_added"
        async with await Graph.open(store, identity=ALICE):
            for _ in range(100):
                store.tell()
                await asyncio.sleep(0.1)
            store.failed = 0
            await asyncio.sleep(10)
            assert store.failed <= 11

    clock.run(main())


def test_a_state_that_is_kept_has_what_was_read_before() -> None:
    """Who opens the store later reads what came after the state: what is in neither would never be shown."""

    async def main() -> None:
        loop, reading, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

        def on_read() -> None:
            loop.call_soon_threadsafe(reading.set)
            go_on.wait(60)

        store = SharedStore()
        bob = await Graph.open("memory:", identity=BOB, name="shared")
        bob.node("n")["k"] = 1
        await bob.commit()
        alice = await Graph.open(store, identity=ALICE)
        alice.node("n")["own"] = 1  # so that there is a state to keep
        await alice.commit()
        store.added, store.on_read = await everything(bob), on_read
        store.tell()
        await reading.wait()
        closing = asyncio.create_task(alice.close())
        for _ in range(100):  # it gets as far as it may
            await asyncio.sleep(0)
        go_on.set()
        await closing
        assert Replica.load(ALICE.id.key, store.saved, graph="shared").get("n", "k") == 1
        await bob.close()

    run(main())
