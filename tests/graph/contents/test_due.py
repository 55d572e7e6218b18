"""What is dated ahead of a machine's clock is shown when it is due, whatever happens to the clock meanwhile."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from graph_fixtures import ALICE, BOB, CAROL, identity, told

import dtp
from dtp.core.errors import NotOwner
from dtp.crdt import Clock
from dtp.crdt.clock import clock_at
from dtp.crdt.permission.grants import GrantError
from dtp.graph import Graph, GraphError
from dtp.graph.frames.envelope import Summary
from dtp.identity import Identity
from dtp.testing import clock

START = 1_700_000_000


class Wall:
    """A wall clock that somebody may set."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return START + asyncio.get_running_loop().time() + self.ahead


async def opened(identity: Identity, wall: Wall, place: str = "memory:", **options: Any) -> Graph:
    return await Graph.open(place, identity=identity, name="due", clock=Clock(wall=wall), **options)


def test_shown_within_a_minute_of_the_clock_being_set_right() -> None:
    async def main() -> None:
        right, since_1970 = Wall(), Wall()
        since_1970.ahead = -START  # a machine without a battery, before it has heard of the time
        writer, reader = await opened(ALICE, right), await opened(BOB, since_1970)
        writer.node("n")["k"] = 1
        await told(writer, ALICE, reader)
        assert "k" not in reader.node("n")
        since_1970.ahead = 0.0
        await asyncio.sleep(60)
        assert reader.node("n")["k"] == 1
        for graph in writer, reader:
            await graph.close()

    clock.run(main())


def test_shown_when_due_though_something_else_waits_for_longer() -> None:
    async def main() -> None:
        late, soon, here = Wall(), Wall(), Wall()
        late.ahead, soon.ahead = 1e6, 70
        first, second, reader = await opened(ALICE, late), await opened(BOB, soon), await opened(CAROL, here)
        first.node("n")["late"] = 1
        second.node("n")["soon"] = 1
        await told(first, ALICE, reader)
        await told(second, BOB, reader)
        assert not dict(reader.node("n"))
        await asyncio.sleep(11)
        assert dict(reader.node("n")) == {"soon": 1}
        for graph in first, second, reader:
            await graph.close()

    clock.run(main())


def test_a_fault_while_something_is_shown_holds_nothing_up_that_is_due_later() -> None:
    faults: list[str] = []

    def fails_once(soul: str) -> bool:
        if not faults:
            raise OSError("no room")
        return True

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["message"]))
        soon, later, here = Wall(), Wall(), Wall()
        soon.ahead, later.ahead = 70, 80
        first, second, reader = await opened(ALICE, soon), await opened(BOB, later), await opened(CAROL, here)
        first.node("n")["soon"] = 1
        second.node("n")["later"] = 1
        await told(first, ALICE, reader)
        await told(second, BOB, reader)
        reader.replica.shows = fails_once
        watch = reader.watch("n")
        await asyncio.sleep(11)
        assert len(faults) == 1
        await asyncio.sleep(60)
        assert dict(reader.node("n")) == {"soon": 1, "later": 1}
        watch.close()
        for graph in first, second, reader:
            await graph.close()

    clock.run(main())
    assert len(faults) == 1


def test_a_sum_that_is_ahead_comes_when_it_is_due_and_not_before() -> None:
    """Sums don't wait as frames do: they are refused, and asked for again once they are due, though nobody writes."""

    async def main() -> None:
        walls = Wall(), Wall(), Wall()
        walls[0].ahead, walls[1].ahead = 63, 3600
        soon, later = await opened(ALICE, walls[0]), await opened(BOB, walls[1])
        reader = await opened(CAROL, walls[2])
        for writer, name in (soon, "soon"), (later, "later"):
            for number in range(100):
                writer.node(name)["k"] = f"{number}" * 1000
                writer.node(f"{name}/{number}")["k"] = "x" * 500
                await writer.commit()
        async with (
            await dtp.listen("memory://sums", reader.serve, identity=CAROL) as listener,
            dtp.connect(listener.address(), identity=ALICE) as first,
            dtp.connect(listener.address(), identity=BOB) as second,
        ):
            live = [asyncio.create_task(soon.replicate(first)), asyncio.create_task(later.replicate(second))]
            await asyncio.sleep(1)
            assert not dict(reader.node("soon"))
            sent = second.stats.bytes_sent
            for number in range(20):
                reader.node("mine")["k"] = number
                await reader.commit()
                await asyncio.sleep(0.05)
            assert second.stats.bytes_sent - sent < 20_000  # and not the sum each time
            await asyncio.sleep(3)
            assert len(reader.souls("soon")) == 101
            assert not reader.souls("later")
            await asyncio.sleep(3600)
            assert len(reader.souls("later")) == 101
            for task in live:
                task.cancel()
        for graph in soon, later, reader:
            await graph.close()

    clock.run(main())


@pytest.mark.parametrize("live", [True, False])
def test_who_writes_on_and_is_ahead_comes_to_newcomers_when_it_is_due(live: bool):
    """Each sum had the last frame in it, which was never due: nothing came, for as long as somebody wrote on."""

    async def main() -> None:
        wall = Wall()
        wall.ahead = 120
        writer, reader = await opened(ALICE, wall), await opened(BOB, Wall())
        for number in range(100):
            writer.node("n")["k"] = f"{number}" * 1000
            writer.node(f"m/{number}")["k"] = "x" * 500
            await writer.commit()
        async with (
            await dtp.listen(f"memory://on-{live}", writer.serve, identity=ALICE) as listener,
            dtp.connect(listener.address(), identity=BOB) as connection,
        ):
            following = asyncio.create_task(reader.replicate(connection)) if live else None
            came = []
            for second in range(400):
                writer.node("n")["now"] = second
                writer.node("n")["k"] = f"{second}" * 1000
                await writer.commit()
                await asyncio.sleep(1)
                if not live and second % 30 == 0:
                    await reader.sync(connection)
                came.append((len(reader.souls("m")), reader.node("n").get("now", -1)))
            assert came[50] == (0, -1)
            assert came[100][0] == 100
            assert came[399][1] >= 399 - 60 - 2 * 62 - 30
            if following is not None:
                following.cancel()
        for graph in writer, reader:
            await graph.close()

    clock.run(main())


@pytest.mark.parametrize("live", [True, False])
def test_who_prunes_and_is_ahead_comes_to_newcomers_when_it_is_due(live: bool):
    """The sum in the store had always what was written last in it, and was refused each time."""

    async def main() -> None:
        wall = Wall()
        wall.ahead = 300
        writer, reader = await opened(ALICE, wall), await opened(BOB, Wall())
        for number in range(100):
            writer.node(f"m/{number}")["k"] = "x" * 500
        async with (
            await dtp.listen(f"memory://pruned-{live}", writer.serve, identity=ALICE) as listener,
            dtp.connect(listener.address(), identity=BOB) as connection,
        ):
            following = asyncio.create_task(reader.replicate(connection)) if live else None
            came = []
            for second in range(900):
                writer.node("n")["now"] = second
                writer.node("n")["k"] = f"{second}" * 1000
                await writer.commit()
                if second % 60 == 0:
                    await writer.upkeep.prune()
                    if not live:
                        await reader.sync(connection)
                await asyncio.sleep(1)
                came.append((len(reader.souls("m")), reader.node("n").get("now", -1)))
            assert came[230] == (0, -1)
            assert came[310][0] == 100
            assert came[899][1] >= 899 - 2 * 240 - 60
            if following is not None:
                following.cancel()
        for graph in writer, reader:
            await graph.close()

    clock.run(main())


def test_sums_that_are_ahead_are_kept_as_far_as_there_is_room(caplog: pytest.LogCaptureFixture) -> None:
    """One that turns out to be wrong when it is due holds up no other."""

    async def main() -> None:
        wall = Wall()
        reader = await opened(BOB, wall)
        last = clock_at(START + 100)
        for number in range(70):
            author, nothing = bytes([number]) * 32, bytes(32)
            reader.intake.add_early(
                author,
                Summary(
                    "due", author, 9, nothing, b"x" * (1 << 20), bytes(64), 1, nothing, 0, last, bytes(16)
                ),
            )
            assert reader.intake.early_from(author) == {author}
        await asyncio.sleep(41)
        assert not any(reader.intake.early_from(bytes([number]) * 32) for number in range(70))
        await reader.close()

    clock.run(main())
    assert sum("not taken: envelope 0 is not signed" in line for line in caplog.messages) == 64


@pytest.mark.slow
def test_sums_that_are_never_due_take_the_room_of_none_that_is() -> None:
    """One peer had it all for good, by sums dated years ahead."""

    async def main() -> None:
        reader = await opened(BOB, Wall())

        def add_sum(number: int, ahead: float, size: int) -> bytes:
            author, nothing = number.to_bytes(32), bytes(32)
            last = clock_at(START + ahead)
            early = Summary("due", author, 9, nothing, bytes(size), bytes(64), 1, nothing, 0, last, bytes(16))
            reader.intake.add_early(author, early)
            return author

        for number in range(4096):
            add_sum(number, 1e8 + number, 1 << 20 if number < 64 else 0)
        honest = add_sum(5000, 100, 1 << 20)
        assert reader.intake.early_from(honest) == {honest}
        assert not reader.intake.early_from((4095).to_bytes(32))
        assert reader.intake.early_from((4094).to_bytes(32))
        add_sum(5001, 1e9, 0)
        assert not reader.intake.early_from((5001).to_bytes(32))
        await asyncio.sleep(41)
        assert not reader.intake.early_from(honest)
        await reader.close()

    clock.run(main())


def test_a_sum_that_is_ahead_is_not_sent_with_each_sync():
    """Its sender is told that nothing is wanted of its author. What others have of him still comes."""

    async def main() -> None:
        wall, right = Wall(), Wall()
        ahead = await opened(ALICE, wall)
        other, reader = await opened(BOB, right), await opened(CAROL, right)
        ahead.node("n")["in time"] = 1
        await told(ahead, ALICE, other)
        wall.ahead = 365 * 86_400
        for number in range(100):
            ahead.node("n")["k"] = f"{number}" * 1000
            ahead.node(f"m/{number}")["k"] = "x" * 500
            await ahead.commit()
        wall.ahead = 0
        async with (
            await dtp.listen("memory://ahead", ahead.serve, identity=ALICE) as first,
            await dtp.listen("memory://other", other.serve, identity=BOB) as second,
            dtp.connect(first.address(), identity=CAROL) as to_ahead,
            dtp.connect(second.address(), identity=CAROL) as to_other,
        ):
            received = [(await reader.sync(to_ahead)).bytes_received for _ in range(3)]
            assert received[0] > 10_000
            assert max(received[1:]) < 1000
            await reader.sync(to_other)
            assert dict(reader.node("n")) == {"in time": 1}
            wall.ahead = right.ahead = 365 * 86_400
            await asyncio.sleep(60)
            await reader.sync(to_ahead)
            assert len(reader.souls("m")) == 100
        for graph in ahead, other, reader:
            await graph.close()

    clock.run(main())


def test_what_is_ahead_waits_by_the_clock_as_it_is_now() -> None:
    async def main() -> None:
        there, here = Wall(), Wall()
        writer, reader = await opened(ALICE, there), await opened(BOB, here)
        here.ahead = there.ahead = 3600
        writer.node("n")["first"] = 1
        await told(writer, ALICE, reader)
        here.ahead = 0
        writer.node("n")["second"] = 1
        await told(writer, ALICE, reader)
        assert dict(reader.node("n")) == {"first": 1}
        await asyncio.sleep(3541)
        assert dict(reader.node("n")) == {"first": 1, "second": 1}
        for graph in writer, reader:
            await graph.close()

    clock.run(main())


def test_who_was_a_year_ahead_goes_on_as_another_identity() -> None:
    """The grant is dated ahead, as all that the first one makes: it is handed over."""

    async def main() -> None:
        wall, right = Wall(), Wall()
        ahead = await opened(ALICE, wall)
        reader, after = await opened(BOB, right), await opened(CAROL, right)
        board = ahead.own("board")
        ahead.node(board).update(title="in time", kept="in time")
        for graph in reader, after:
            await told(ahead, ALICE, graph)
        wall.ahead = 365 * 86_400
        ahead.node(board)["title"] = "a year ahead"
        await ahead.commit()
        wall.ahead = 0
        grant = ahead.access.grant(CAROL.id)
        for graph in reader, after:
            await told(ahead, ALICE, graph)
            assert graph.node(board)["title"] == "in time"
        with pytest.raises(NotOwner):
            after.node(board)["by"] = "Carol"
        with pytest.raises(GraphError, match="not for this identity"):
            reader.access.use(grant)
        with pytest.raises(GrantError):
            after.access.use(grant.encode()[:-1] + b"x")
        assert after.access.use(grant.encode()) == grant
        after.node(board)["by"] = "Carol"
        await told(after, CAROL, reader)
        assert dict(reader.node(board)) == {"title": "in time", "kept": "in time", "by": "Carol"}
        late = await opened(identity("late"), right)
        await told(after, CAROL, late)
        assert dict(late.node(board)) == {"by": "Carol"}  # whatever has come of the owner
        for graph in ahead, reader, after, late:
            await graph.close()

    clock.run(main())


def test_what_was_made_here_is_there_after_a_crash_though_the_clock_was_set_back(tmp_path: Path) -> None:
    async def main() -> None:
        wall = Wall()
        graph = await opened(ALICE, wall, str(tmp_path / "a.db"))
        graph.node("n")["k"] = 1
        await graph.commit()
        for end in "", "-wal":  # as a program that is killed leaves it
            shutil.copy(tmp_path / f"a.db{end}", tmp_path / f"b.db{end}")
        wall.ahead = -3600
        left = await opened(ALICE, wall, str(tmp_path / "b.db"), read_only=True)
        assert left.node("n")["k"] == 1
        for each in graph, left:
            await each.close()

    clock.run(main())


def test_what_one_made_comes_back_at_once_though_the_clock_was_set_back() -> None:
    async def main() -> None:
        wall, peer = Wall(), Wall()
        graph, other, fresh = await opened(ALICE, wall), await opened(BOB, peer), await opened(ALICE, wall)
        graph.node("n")["k"] = 1
        await told(graph, ALICE, other)
        wall.ahead = -3600
        await told(other, ALICE, fresh)
        assert fresh.node("n")["k"] == 1
        fresh.node("n")["k"] = 2
        assert fresh.node("n")["k"] == 2
        for each in graph, other, fresh:
            await each.close()

    clock.run(main())


def test_what_was_shown_stays_when_all_is_taken_again_by_a_clock_that_was_set_back() -> None:
    async def main() -> None:
        there, here = Wall(), Wall()
        there.ahead = here.ahead = 3600
        writer, reader, other = await opened(ALICE, there), await opened(BOB, here), await opened(CAROL, here)
        writer.node("n")["k"] = 1
        other.node("n")["c"] = 1
        await told(writer, ALICE, reader)
        await told(other, CAROL, reader)
        here.ahead = 0
        await reader.admission.ban(CAROL.id)  # has all frames taken again
        assert dict(reader.node("n")) == {"k": 1}
        writer.node("n")["late"] = 1
        await told(writer, ALICE, reader)
        assert dict(reader.node("n")) == {"k": 1}
        for graph in writer, reader, other:
            await graph.close()

    clock.run(main())


def test_what_waited_waits_on_when_all_is_taken_again_and_is_shown_when_it_is_due() -> None:
    """Also what comes back with its author, who was banned."""

    async def main() -> None:
        there, here = Wall(), Wall()
        there.ahead = 100
        writer, reader, other = await opened(ALICE, there), await opened(BOB, here), await opened(CAROL, here)
        writer.node("n")["k"] = 1
        await told(writer, ALICE, reader)
        reader.node("n")["mine"] = 1
        other.node("n")["c"] = 1
        await told(other, CAROL, reader)
        await reader.admission.ban(CAROL.id)
        assert dict(reader.node("n")) == {"mine": 1}
        await reader.admission.ban(ALICE.id)
        await reader.admission.unban(ALICE.id)
        assert dict(reader.node("n")) == {"mine": 1}
        await asyncio.sleep(41)
        assert dict(reader.node("n")) == {"mine": 1, "k": 1}
        for graph in writer, reader, other:
            await graph.close()

    clock.run(main())
