"""What others may cost: too early, too large; and what is one's own is on the disk before anyone is told."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import cast

import pytest
from graph_fixtures import ALICE, BOB, run

from dtp.graph import Graph, SyncError
from dtp.graph.frames import chains
from dtp.graph.frames import envelope as envelopes
from dtp.graph.frames.envelope import Signed
from dtp.graph.stores.sqlite_store import SqliteStore
from dtp.graph.sync import protocol
from dtp.graph.sync.messages import read_message
from dtp.net.stream import Stream


async def frames(count: int) -> list[bytes]:
    async with await Graph.open("memory:", identity=ALICE) as alice:
        for number in range(count):
            alice.node("n")["k"] = number
            await alice.commit()
        return await alice.frames.read(ALICE.id.key, 1, count)


@pytest.mark.parametrize("bound", ["MAX_HELD", "MAX_HELD_BYTES"])
def test_what_comes_too_early_is_bounded(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        made = await frames(12)
        body = len(envelopes.decode("", made[2]).body)
        monkeypatch.setattr(chains, bound, 3 if bound == "MAX_HELD" else 3 * body)
        async with await Graph.open("memory:", identity=BOB) as bob:
            assert await bob.receive(made[2:]) == 0
            assert bob.frames.gaps() == [(ALICE.id.key, 1, 2)]
            assert (
                await bob.receive(made[:2]) == 5
            )  # and the three that were put aside; the others come again
            assert await bob.receive(made[2:]) == 7
            assert bob.frames.vector() == {ALICE.id.key: 12}
            assert await bob.receive([]) == 0
            assert bob.frames.gaps() == []

    run(main())


def test_a_message_that_is_too_long_is_not_read() -> None:
    class Endless:
        """Tells a length; nobody may ask for more."""

        def __init__(self, size: int) -> None:
            self.head: bytes | None = size.to_bytes(4, "big")

        async def readexactly(self, size: int) -> bytes:
            head, self.head = self.head, None
            assert head is not None, "what is too long was read"
            return head

    async def main() -> None:
        stream = Endless(protocol.MAX_MESSAGE + 1)
        with pytest.raises(SyncError, match="at most"):
            await read_message(cast(Stream, stream))

    run(main())


def test_own_frames_are_synced_to_the_disk_and_those_of_others_are_not(tmp_path: Path) -> None:
    added: list[tuple[bool, int]] = []

    class Noting(SqliteStore):
        def add_frames(self, some: Iterable[Signed], *, synced: bool) -> None:
            super().add_frames(some, synced=synced)
            added.append((synced, self._db.execute("PRAGMA synchronous").fetchone()[0]))

    async def main() -> None:
        async with await Graph.open(Noting(tmp_path / "graph.db"), identity=BOB) as bob:
            bob.node("n")["k"] = 1
            await bob.commit()
            await bob.receive(await frames(1))

    run(main())
    full, normal = 2, 1  # SQLite's numbers
    assert added == [(True, full), (False, normal)]
