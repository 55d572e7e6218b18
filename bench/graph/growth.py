"""What a graph costs as it grows old: `python -m bench.graph.growth`.

Four positions that are written 20 times a second for an hour, with `prune`, at their author and at a replica that
receives; a newcomer's sync with many authors; a revocation that takes back what was let in.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import dtp
from dtp.graph.permission.quotas import Quotas

_AT_ONCE = 4


def someone(number: int) -> dtp.Identity:
    """The same identity each time."""
    name = b"%d" % number
    return dtp.Identity(hashlib.sha256(name).digest(), hashlib.sha256(name + b"static").digest())


@contextlib.asynccontextmanager
async def connected(graph: dtp.Graph, other: dtp.Graph, name: str) -> AsyncIterator[dtp.Connection]:
    """A connection of `other` to `graph`, which is served."""
    async with (
        await dtp.listen(f"memory://{name}", graph.serve, identity=graph.identity) as listener,
        dtp.connect(listener.address(), identity=other.identity) as connection,
    ):
        yield connection


def on_disk(path: Path) -> int:
    """Bytes of a store, with its log and the summaries that it passes on."""
    return sum(
        one.stat().st_size for one in path.parent.rglob("*") if path.name in str(one) and one.is_file()
    )


async def positions(folder: Path, puts: int, *, prune: bool) -> str:
    """Write them, a frame for each; a replica follows."""
    mine, theirs = folder / f"mine-{prune}.db", folder / f"theirs-{prune}.db"
    most = 0
    async with (
        await dtp.Graph.open(str(mine), identity=someone(1), prune=prune) as author,
        await dtp.Graph.open(str(theirs), identity=someone(2), prune=prune) as follower,
        connected(author, follower, f"positions-{prune}") as connection,
    ):
        following, stored = asyncio.create_task(follower.replicate(connection)), asyncio.Event()
        follower.listen(stored.set)
        began = time.perf_counter()
        for number in range(puts):
            author.node(f"thing/{number % 4}")["at"] = [number * 0.1, number * 0.2]
            author.sign()
            if number % _AT_ONCE == _AT_ONCE - 1:
                await author.commit()
                while follower.frames.vector() != author.frames.vector():
                    stored.clear()
                    await stored.wait()
                if number % (1000 * _AT_ONCE) == _AT_ONCE - 1:
                    most = max(most, on_disk(mine), on_disk(theirs))
        seconds = time.perf_counter() - began
        following.cancel()
    return (
        f"{puts} puts, prune={prune}: {on_disk(mine) / 1024:.0f} KiB at the author, {on_disk(theirs) / 1024:.0f} KiB "
        f"at the replica, {most / 1024:.0f} KiB meanwhile at most, {seconds / puts * 1e6:.0f} us a put for both"
    )


async def edits(folder: Path, turns: int) -> str:
    """Four things of a list that are moved and assigned, and a draft that is typed and deleted, a frame for each."""
    path = folder / "edits.db"
    async with await dtp.Graph.open(str(path), identity=someone(1)) as author:
        things, draft = author.list("things"), author.text("draft")
        things.extend([[0.0, 0.0]] * _AT_ONCE)
        key, sizes = author.identity.id.key, []
        for part in range(1, 5):
            for number in range(turns // 4 * (part - 1), turns // 4 * part):
                things[number % _AT_ONCE] = [number * 0.1, number * 0.2]
                if number % 10 == 0:
                    things.move(number % _AT_ONCE, number * 3 % _AT_ONCE)
                if len(draft) < 400:
                    draft.append("some words ")
                else:
                    draft.delete(0, len(draft))
                author.sign()
                if number % 100 == 99:
                    await author.commit()
            await author.commit()
            made = await author.frames.stored_bytes(key, 1, author.frames.vector()[key])
            began = time.process_time()
            await author.upkeep.prune()
            seconds = time.process_time() - began
            left = await author.frames.stored_bytes(key, 1, author.frames.vector()[key])
            sizes.append(f"{made / 1024:.0f} -> {left / 1024:.0f}")
    return (
        f"{turns} edits of a list and a draft, pruned four times, KiB before and after: {', '.join(sizes)}; "
        f"{left / turns:.1f} bytes an edit stay, the last took {seconds:.1f} s of processor time"
    )


async def newcomer(authors: int) -> str:
    """One frame of each author; a newcomer takes all."""
    async with (
        await dtp.Graph.open("memory:", identity=someone(1)) as one,
        await dtp.Graph.open("memory:", identity=someone(2)) as other,
    ):
        for graph in (one, other):
            await graph.admission.set_quotas(Quotas(new_strangers=None))
        for number in range(3, authors + 3):
            async with await dtp.Graph.open("memory:", identity=someone(number)) as author:
                author.node(f"n/{number}")["k"] = number
                await author.commit()
                await one.receive(await author.frames.read(author.identity.id.key, 1, 1))
        async with connected(one, other, "newcomer") as connection:
            began, of_all, of_loop = time.perf_counter(), time.process_time(), time.thread_time()
            await other.sync(connection)
            of_all, of_loop = time.process_time() - of_all, time.thread_time() - of_loop
            seconds = time.perf_counter() - began
        assert len(other.frames.vector()) == authors
    return (
        f"a newcomer's sync with {authors} authors, both ends: {of_all:.2f} s of processor time, "
        f"{of_loop:.2f} of it in the loop's thread; {seconds:.2f} s by the clock"
    )


async def revocation(folder: Path, frames: int) -> str:
    """A replica with so many frames takes a revocation of what it had let in."""
    async with (
        await dtp.Graph.open("memory:", identity=someone(1)) as owner,
        await dtp.Graph.open("memory:", identity=someone(2)) as writer,
        await dtp.Graph.open(str(folder / "reader.db"), identity=someone(3)) as reader,
    ):

        async def tell(graph: dtp.Graph, *others: dtp.Graph) -> None:
            await graph.commit()
            key = graph.identity.id.key
            for other in others:
                first = other.frames.vector().get(key, 0) + 1
                await other.receive(await graph.frames.read(key, first, graph.frames.vector()[key]))

        for number in range(frames):
            owner.node(f"n/{number % 5000}")["k"] = number
            owner.sign()
        grant = owner.access.grant(writer.identity.id, "board")
        await tell(owner, writer, reader)
        writer.node(owner.own("board"))["k"] = "let in"
        await tell(writer, reader)
        owner.access.revoke(grant)
        began = time.perf_counter()
        await tell(owner, reader)
        seconds = time.perf_counter() - began
        assert "k" not in reader.node(owner.own("board"))
    return f"a revocation of what was let in, {frames} frames: {seconds:.3f} s"


async def main() -> None:
    """Measure what the options say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--puts", type=int, default=288_000, help="an hour of four positions (288000)")
    parser.add_argument("--edits", type=int, default=80_000)
    parser.add_argument("--only", choices=("positions", "edits", "newcomer", "revocation"))
    parser.add_argument("--authors", type=int, default=20_000)
    parser.add_argument("--frames", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measures: dict[str, Callable[[], Awaitable[str]]] = {
            "positions": lambda: positions(Path(folder), options.puts, prune=True),
            "positions kept": lambda: positions(Path(folder), options.puts, prune=False),
            "edits": lambda: edits(Path(folder), options.edits),
            "newcomer": lambda: newcomer(options.authors),
            "revocation": lambda: revocation(Path(folder), options.frames),
        }
        for name, measure in measures.items():
            if options.only is None or name.startswith(options.only):
                print(await measure(), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
