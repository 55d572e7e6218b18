"""What a graph holds as a list of items, and making a graph say what such a list does: whole or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dtp.core import crdt as core
from dtp.crdt import Link, Replica, Value, marks, parts, values
from dtp.crdt.marks import TextMarkError
from dtp.crdt.permission.access import is_internal
from dtp.crdt.permission.owners import STATIC_KEY
from dtp.crdt.sequence_changes import difference
from dtp.crdt.types import Relationship
from dtp.crdt.values import GraphValueError
from dtp.errors import DtpError
from dtp.graph.contents import Contents
from dtp.graph.errors import ContentsError

if TYPE_CHECKING:
    from dtp.graph.graph import Graph

#: All that there is at a soul, by how it merges. docs/graph.md, "Spaces and ops".
KINDS: Final = ("register", "counter", "set", "values", "list", "text", "marks", "relationships")
#: Those that are not registers, and where they are in the core.
SPACES: Final = {
    "counter": core.COUNTER,
    "set": core.SET,
    "values": core.VALUES,
    "list": core.LIST,
    "text": core.TEXT,
}
#: What says of one of these that nothing is there.
NOTHING: Final[dict[str, Any]] = {"counter": 0, "set": [], "values": [], "list": [], "text": "", "marks": []}
#: Those with several values.
SEVERAL: Final = frozenset({"set", "values", "list"})
#: A counter's amounts are within so much, as of its ops.
_INT64: Final = 1 << 63
#: How often an import is tried on a copy beside the loop while the graph changes; then with the loop held up.
_TRIALS: Final = 3


class Item(NamedTuple):
    """What is at (soul, key) of one kind: a value, of a counter an int, of a text a str, of `SEVERAL` a list.

    Of the kind "marks", [start, stop, name, value] of each mark of the text there; of the kind "relationships" the
    properties of links: target -> key -> value.
    """

    soul: str
    key: str
    kind: str
    value: Any


class LeftOut(NamedTuple):
    """Something that a file doesn't have of a graph, or a graph of a file, and why."""

    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


class FoundItems(NamedTuple):
    """What a file or a graph has, and what is left out of that."""

    items: list[Item]
    left: list[LeftOut]


class Imported(NamedTuple):
    """What an import did."""

    #: How many (soul, key, kind) the file names.
    items: int
    #: Of how many of them the graph said something else before.
    changed: int
    #: What of the file isn't in the graph.
    left: list[LeftOut]


def _is_static(soul: str, key: str) -> bool:
    """Return whether it is the key that private nodes are sealed to."""
    return key == STATIC_KEY and soul.startswith("~") and "/" not in soul


def collect(graph: Contents, prefix: str = "") -> FoundItems:
    """Return all that is at souls which begin with `prefix`, but for private nodes and book-keeping."""
    items: list[Item] = []
    left: list[LeftOut] = []
    for soul in graph.souls(prefix, parts_too=True):
        if parts.is_relationship(soul):  # they are with the links
            continue
        if graph.is_private(soul):
            left.append(LeftOut(soul, "it is private, and a file isn't sealed"))
            continue
        for key, kinds in sorted(graph.everything(soul, parts_too=False).items()):
            items += [
                Item(soul, key, kind, kinds[kind])
                for kind in KINDS
                if kind in kinds and not _is_static(soul, key) and _is_there(kind, kinds[kind])
            ]
    return FoundItems(items, left)


async def collect_beside(graph: Graph, prefix: str) -> FoundItems:
    """Return what `collect` does, of the graph as it is now, while the event loop goes on."""
    graph.sign()
    copied = partial(_copied, graph.replica, graph.replica.save())
    return await asyncio.to_thread(lambda: collect(Contents(graph.identity, copied()), prefix))


def _copied(replica: Replica, state: bytes) -> Replica:
    """Return a copy of a replica, which had this state."""
    copy = Replica.load(replica.author, state, clock=replica.clock, graph=replica.access.graph)
    copy.shows = replica.shows
    return copy


def _is_there(kind: str, value: Any) -> bool:
    """Return whether it is more than what was never written."""
    return kind == "register" or value not in ([], "", 0)


# ---- making it so ---------------------------------------------------------------------------------------------


def check_items(items: Iterable[Item]) -> list[Item]:
    """Return the items if a graph can keep each. Raise `ContentsError` where it can't, or one is there twice."""
    found = list(items)
    seen = set()
    for one in found:
        where = f"{one.kind} {one.key!r} of {one.soul!r}"
        if is_internal(one.soul) or _is_static(one.soul, one.key):
            raise ContentsError(f"{where} is the graph's own book-keeping, which no file sets")
        if one[:3] in seen:
            raise ContentsError(f"{where} is there twice")
        seen.add(one[:3])
        try:
            _check(one)
        except (GraphValueError, TextMarkError) as error:
            raise ContentsError(f"{where}: {error}") from error
    return found


def _check(one: Item) -> None:
    if one.kind == "counter":
        if type(one.value) is not int or not -_INT64 <= one.value < _INT64:
            raise GraphValueError(f"a counter is a whole number of 64 bits, not {_short(one.value)}")
    elif one.kind == "text":
        if type(one.value) is not str:
            raise GraphValueError(f"a text must be text, not {_short(one.value)}")
    elif one.kind == "marks":
        marks.check_ranges(one.value)
        return
    elif one.kind == "relationships":
        if not isinstance(one.value, dict) or not all(isinstance(of, dict) for of in one.value.values()):
            raise GraphValueError("it has an object of properties for each target of a link")
    elif one.kind in SEVERAL:
        if type(one.value) is not list:
            raise GraphValueError(f"it has a list of values, not {_short(one.value)}")
        for value in one.value:
            values.encode(value)
        return
    elif one.kind not in KINDS:
        raise GraphValueError(f"there is no such kind; there are {', '.join(KINDS)}")
    values.encode(one.value)


def _short(value: object) -> str:
    return type(value).__name__


async def apply(graph: Graph, found: FoundItems) -> Imported:
    """Make a graph say what items do, at their souls, keys and kinds. All else stays.

    Raise `ContentsError` where one can't be, and the graph is as it was.
    """
    graph.check_writable()
    items = await asyncio.to_thread(check_items, found.items)
    for soul in {one.soul for one in items}:
        graph.check_public(soul)
    await graph.commits.commit()
    try:
        changed = await write_whole(graph, items)
    except DtpError as error:
        raise ContentsError(f"it can't be written here: {error}") from error
    left = list(found.left)
    left += [
        LeftOut(
            f"values {one.key!r} of {one.soul!r}", "of several written at the same time, the latest was taken"
        )
        for one in items
        if one.kind == "values" and len(one.value) > 1
    ]
    await graph.commits.commit()
    return Imported(len(items), changed, left)


async def write_whole(graph: Graph, items: list[Item], gone: Iterable[tuple[str, str]] = ()) -> int:
    """Write what is another, and delete registers at (soul, key); return how many items were another.

    Raise what the types raise, and all is as it was: it is done to a copy first, beside the event loop.
    """
    graph.check_writable()
    replica, rows = graph.replica, list(gone)
    for _ in range(_TRIALS):
        trial = on_a_copy(graph)
        version = replica.version
        different = await asyncio.to_thread(trial, items, rows)
        if replica.version == version:
            break
    else:  # it changes all the time: what was allowed may not be any more
        different = on_a_copy(graph)(items, rows)
    graph.check_writable()
    return len(write_items(replica, different, rows))


def on_a_copy(graph: Graph) -> Callable[[list[Item], list[tuple[str, str]]], list[Item]]:
    """Return what writes items into a copy of the graph as it is now, and returns those that were another; it raises
    what the graph would."""
    graph.sign()
    replica, state, rules = graph.replica, graph.replica.save(), dict(graph.replica.permits.rules)

    def write(items: list[Item], gone: list[tuple[str, str]]) -> list[Item]:
        trial = _copied(replica, state)
        trial.permits.rules.update(rules)
        different = write_items(trial, items, gone)
        trial.write_edits()
        return different

    return write


def write_items(replica: Replica, items: list[Item], gone: list[tuple[str, str]]) -> list[Item]:
    """Write what is another, and delete registers at (soul, key); return what was another."""
    registers = [one for one in items if one.kind == "register" and not _same(replica, one)]
    replica.put_many([(one.soul, one.key, one.value) for one in registers])
    replica.put_many(gone)
    others = (one for one in items if one.kind != "register")
    # marks once their text is there, properties once their link is
    ordered = sorted(others, key=lambda one: one.kind in ("marks", "relationships"))
    return registers + [one for one in ordered if _WRITE[one.kind](replica, one)]


def _same(replica: Replica, one: Item) -> bool:
    found = replica.core.get_register(values.encode_name(one.soul), values.encode_name(one.key))
    if found is None:
        return False
    wanted = values.encode(one.value)
    return found == wanted or values.encode(values.decode(found)) == wanted  # others may write a value longer


def _counter(replica: Replica, one: Item) -> bool:
    counter = replica.counter(one.soul, one.key)
    missing = one.value - counter.value
    counter.add(missing)
    return bool(missing)


def _set(replica: Replica, one: Item) -> bool:
    kept = replica.set(one.soul, one.key)
    before = {values.encode(value): value for value in kept}
    after = {values.encode(value): value for value in one.value}
    for encoded in sorted(before.keys() - after.keys()):
        kept.discard(before[encoded])
    for encoded in sorted(after.keys() - before.keys()):
        kept.add(after[encoded])
    return before.keys() != after.keys()


def _values(replica: Replica, one: Item) -> bool:
    kept = replica.multi_value(one.soul, one.key)
    if values.encode(kept.values) == values.encode(one.value):
        return False
    if one.value:
        kept.set(one.value[0])
    else:
        kept.clear()
    return True


def _list(replica: Replica, one: Item) -> bool:
    """Replace the items of a list: what is the same at the front and at the back stays, with who wrote it."""
    kept = replica.list(one.soul, one.key)
    patches = difference(kept.comparable_contents(), [values.encode(value) for value in one.value])
    for at, deleted, inserted in patches:
        kept[at : at + deleted] = list(map(values.decode, inserted))
    return bool(patches)


def _text(replica: Replica, one: Item) -> bool:
    text = replica.text(one.soul, one.key)
    patches = difference(str(text), one.value)
    if patches:
        text.edit([(patch[0], patch[1], patch[2]) for patch in patches])
    return bool(patches)


def _marks(replica: Replica, one: Item) -> bool:
    return replica.text(one.soul, one.key).mark_ranges(one.value)


def _relationships(replica: Replica, one: Item) -> bool:
    """Set the properties of links: other links of the key have none afterwards."""
    node = replica.node(one.soul)
    linked = {*node.links(one.key), *one.value}
    if isinstance(there := node.get(one.key), Link):
        linked.add(there.soul)
    rows: list[tuple[str, str, Value] | tuple[str, str]] = []
    for target in sorted(linked):
        link = Relationship(replica, one.soul, one.key, target)
        before, after = link.to_dict(), one.value.get(target, {})
        rows += [(link.soul, key) for key in sorted(before.keys() - after.keys())]
        rows += [
            (link.soul, key, value)
            for key, value in after.items()
            if key not in before or values.encode(before[key]) != values.encode(value)
        ]
    replica.put_many(rows)
    return bool(rows)


_WRITE: Final[dict[str, Callable[[Replica, Item], bool]]] = {
    "counter": _counter,
    "set": _set,
    "values": _values,
    "list": _list,
    "text": _text,
    "marks": _marks,
    "relationships": _relationships,
}
