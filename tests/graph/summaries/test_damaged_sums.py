"""Sums that are kept beside the frames and are damaged: they are left, and nothing else suffers."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from graph_fixtures import ALICE, BOB, CAROL, churn, served, told

from dtp.graph import Graph
from dtp.graph.errors import StoreError
from dtp.graph.frames import summaries
from dtp.identity import Identity


async def give_frames_and_sum(who: Identity, bob: Graph) -> None:
    """Bob has somebody's frames, of which most doesn't count, and the sum of them that was offered."""
    async with await Graph.open("memory:", identity=who) as graph:
        await churn(graph, 40)
        await told(graph, who, bob)
        last = graph.frames.last_of(who.id.key)
        parts = [one async for some in summaries.own(graph, 1, last) for one in some]
        bob.passed.put_summary(who.id.key, last, parts)


def damage(kept: Path, how: str) -> None:
    data = bytearray(kept.read_bytes())
    if how == "cut":
        del data[len(data) // 2 :]
    elif how == "emptied":
        data.clear()
    else:
        data[
            {
                "sequence": 7,
                "high in the sequence": 1,
                "length": 11,
                "contents": len(data) // 2,
                "signature": -1,
            }[how]
        ] ^= 1
    kept.write_bytes(data)


@pytest.mark.parametrize("how", ["sequence", "length", "contents", "signature", "cut", "emptied"])
def test_a_damaged_sum_takes_no_place_of_frames_and_goes_to_nobody(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A flipped bit in a signature went into the store in the place of frames, and to every newcomer."""
    caplog.set_level(logging.WARNING, logger="dtp.graph")
    kept = tmp_path / "bob.db-summaries"

    async def main() -> None:
        async with await Graph.open(str(tmp_path / "bob.db"), identity=BOB) as bob:
            await give_frames_and_sum(ALICE, bob)
        damage(kept / ALICE.id.key.hex(), how)
        async with await Graph.open(str(tmp_path / "bob.db"), identity=BOB) as bob:
            await give_frames_and_sum(CAROL, bob)
            async with (
                served(bob, f"before-{how}") as client,
                await Graph.open("memory:", identity=ALICE) as newcomer,
            ):
                await newcomer.sync(client)
                assert newcomer.frames.vector() == bob.frames.vector()
            assert (await bob.upkeep.prune()).frames == 39  # Carol's
            assert await bob.verify() == 41
            assert bob.passed.list_authors() == [CAROL.id.key]
        assert not (kept / ALICE.id.key.hex()).exists()
        assert "the sum of frames of dtp1" in caplog.text

    asyncio.run(main())


def test_one_author_whose_frames_cant_be_pruned_keeps_none_of_the_others(tmp_path: Path) -> None:
    async def main() -> None:
        async with await Graph.open(str(tmp_path / "bob.db"), identity=BOB) as bob:
            await churn(bob, 40)
            await give_frames_and_sum(ALICE, bob)
            await give_frames_and_sum(CAROL, bob)
            for who in (ALICE, CAROL):
                kept = tmp_path / "bob.db-summaries" / who.id.key.hex()
                if who.id.key == min(ALICE.id.key, CAROL.id.key):
                    kept.unlink()
                    kept.mkdir()
            with pytest.raises(StoreError, match="can't be read"):
                await bob.upkeep.prune()
            left = [len(await bob.frames.read(who.id.key, 1, 100)) for who in (ALICE, BOB, CAROL)]
            assert sorted(left) == [1, 1, 40]

    asyncio.run(main())


def test_a_file_of_another_program_among_sums_is_none_of_them(tmp_path: Path) -> None:
    async def main() -> None:
        async with await Graph.open(str(tmp_path / "bob.db"), identity=BOB) as bob:
            await give_frames_and_sum(ALICE, bob)
        (tmp_path / "bob.db-summaries" / ".DS_Store").write_bytes(b"\0" * 20)
        async with await Graph.open(str(tmp_path / "bob.db"), identity=BOB) as bob:
            assert bob.passed.list_authors() == [ALICE.id.key]

    asyncio.run(main())


def test_a_sum_that_seems_to_stand_for_more_frames_than_there_are_keeps_no_author_from_being_pruned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It was looked at only where a newcomer asked for it: a store grew without end until then."""
    caplog.set_level(logging.WARNING, logger="dtp.graph")

    async def main() -> None:
        async with await Graph.open(str(tmp_path / "bob.db"), identity=BOB) as bob:
            await give_frames_and_sum(ALICE, bob)
            await churn(bob, 40)
            await bob.upkeep.prune()
            await churn(bob, 40)
        for who in (ALICE, BOB):
            damage(tmp_path / "bob.db-summaries" / who.id.key.hex(), "high in the sequence")
        async with await Graph.open(str(tmp_path / "bob.db"), identity=BOB) as bob:
            await bob.upkeep.prune()
            assert ALICE.id.key not in bob.passed.list_authors()
            assert caplog.text.count("was damaged, and is removed") == 2
            assert (await bob.upkeep.prune()).frames == 40
            assert bob.passed.last_of(BOB.id.key) == bob.frames.last_of(BOB.id.key)

    asyncio.run(main())
