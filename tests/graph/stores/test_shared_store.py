"""What another program stores in a store that both share is shown, also when the store didn't answer meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from graph_fixtures import ALICE, BOB, CAROL, everything

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
        self.tell: Callable[[], None] = lambda: None

    def _answer(self, call: str) -> None:
        if call == self.away:
            raise StoreAway("the server doesn't answer")

    def read_policy(self) -> bytes | None:
        self._answer("read_policy")
        return super().read_policy()

    def read_added(self) -> list[bytes]:
        self._answer("read_added")
        found, self.added = self.added, []
        return found

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
