"""What stays of what was overwritten or deleted, by type: `python -m bench.graph.left --edits 2000`.

Each kind of edit is made so many times, a frame each, and the store is pruned; then as many once more. What the
second half left, for each edit, is what such a graph grows by.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path

import dtp
from bench.graph.growth import on_disk, someone
from dtp.graph import Rule, Rules, Schema
from dtp.identity import Account, Device

_HELD = 10
Edit = Callable[[dtp.Graph, int], None]


def _deleted_node(graph: dtp.Graph, turn: int) -> None:
    graph.node(f"n/{turn}")["k"] = turn
    if turn >= _HELD:
        graph.delete(f"n/{turn - _HELD}")


def _members(graph: dtp.Graph, turn: int) -> None:
    graph.set("s").add(turn)
    graph.set("s").discard(turn - _HELD)


def _entries(graph: dtp.Graph, turn: int) -> None:
    graph.map("m")[str(turn)] = turn
    graph.map("m").pop(str(turn - _HELD), None)


def _typed(graph: dtp.Graph, turn: int) -> None:
    text = graph.text("t")
    text.insert(turn * 7 % (len(text) + 1), "a word ")
    if len(text) > 400:
        text.delete(turn * 11 % (len(text) - 7), 7)


def _retyped(graph: dtp.Graph, turn: int) -> None:
    text = graph.text("t")
    text.append("a word ")
    if len(text) > 400:
        text.delete(0, len(text))


def _queue(graph: dtp.Graph, turn: int) -> None:
    graph.list("l").append(turn)
    if len(graph.list("l")) > _HELD:
        del graph.list("l")[0]


def _moved(graph: dtp.Graph, turn: int) -> None:
    items = graph.list("l")
    if not len(items):
        items.extend(range(_HELD))
    items.move(turn * 7 % _HELD, turn * 3 % _HELD)


def _assigned(graph: dtp.Graph, turn: int) -> None:
    items = graph.list("l")
    if not len(items):
        items.extend(range(_HELD))
    items[turn % _HELD] = turn


def _nested(graph: dtp.Graph, turn: int) -> None:
    document = graph.document("d/1")
    document[str(turn % _HELD)] = {"n": turn, "tags": [turn % 3]}
    document.pop(str((turn + 3) % _HELD), None)


def _sealed(graph: dtp.Graph, turn: int) -> None:
    graph.private("diary", readers=[])["k"] = turn


def _ruled(graph: dtp.Graph, turn: int) -> None:
    graph.node(_RULES.soul(f"t{turn % 3}"))[str(turn % _HELD)] = turn


def _of_account(graph: dtp.Graph, turn: int) -> None:
    graph.node(graph.accounts.own("x"))["k"] = turn


def _typed_for_account(graph: dtp.Graph, turn: int) -> None:
    text = graph.text(graph.accounts.own("t"))
    text.insert(turn * 7 % (len(text) + 1), "a word ")
    if len(text) > 400:
        text.delete(turn * 11 % (len(text) - 7), 7)


_RULES = Rules("thing", [Rule(path="*", key="*", value=Schema(type="int", min=0))])

_ACCOUNT = Account.create(someone(3), someone(4).id, [Device(someone(1).id.key, "laptop")])

EDITS: dict[str, Edit] = {
    "register": lambda graph, turn: graph.node("n/1").update(k=turn),
    "node that is deleted": _deleted_node,
    "counter": lambda graph, turn: graph.counter("c").add(1),
    "member of a set": _members,
    "entry of a map": _entries,
    "text typed anywhere": _typed,
    "text typed and deleted": _retyped,
    "queue in a list": _queue,
    "move in a list": _moved,
    "assignment in a list": _assigned,
    "document": _nested,
    "private node": _sealed,
    "own soul": lambda graph, turn: graph.node(graph.own("x")).update(k=turn),
    "own soul, others granted": lambda graph, turn: graph.node(graph.own("x")).update(k=turn),
    "register under rules": _ruled,
    "register of an account": _of_account,
    "text of an account": _typed_for_account,
}


async def _made(graph: dtp.Graph, edit: Edit, first: int, behind: int) -> tuple[int, int]:
    for turn in range(first, behind):
        edit(graph, turn)
        graph.sign()
        if turn % 100 == 99:
            await graph.commit()
    await graph.commit()
    await graph.upkeep.prune()
    key = graph.identity.id.key
    frames = await graph.frames.stored_bytes(key, 1, graph.frames.vector()[key])
    return frames, len(graph.replica.save())


async def left(path: Path, kind: str, edits: int) -> str:
    """Return a line of the table."""
    async with await dtp.Graph.open(str(path), identity=someone(1)) as graph:
        if kind == "register under rules":
            graph.access.allow(_RULES)
        if kind.endswith("of an account"):
            graph.accounts.join(_ACCOUNT.card)
        if kind == "own soul, others granted":
            graph.access.grant(someone(2).id, "x")
        before = await _made(graph, EDITS[kind], 0, edits)
        after = await _made(graph, EDITS[kind], edits, 2 * edits)
        each = [(b - a) / edits for a, b in zip(before, after, strict=True)]
    return f"| {kind} | {each[0]:.1f} | {each[1]:.1f} | {on_disk(path) / 1024:.0f} |"


async def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, default=2_000)
    parser.add_argument("--only", nargs="*", choices=EDITS, default=list(EDITS))
    options = parser.parse_args()
    print("| | bytes of frames an edit | of the state | SQLite file, KiB |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for number, kind in enumerate(options.only):
            print(await left(Path(folder) / f"{number}.db", kind, options.edits), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
