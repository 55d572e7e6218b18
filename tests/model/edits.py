"""Edits by the package's types, each beside what a plain Python value becomes by it."""

from __future__ import annotations

import copy
from collections.abc import Callable, MutableMapping
from typing import Any

from cards import cuts_of
from crdt_second import PUT, Op
from histories import Step
from replicas import Difference, Replica, owned, plainly, same, tell
from verdicts import Author, Granted, read_grant, revocations

from dtp.core.errors import NotOwner
from dtp.crdt import Link
from dtp.graph import GraphBehind

VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    1,
    1.0,
    -1,
    2**64,
    -(2**70),
    1.5,
    -0.0,
    float("nan"),
    "",
    "text",
    "öß🙂",
    b"",
    b"bytes",
    Link("n/2"),
    [1, [2, None]],
    {"k": {"l": [True]}},
)
KEYS = ("a", "b", "", "ö")
WORDS = ("a", "hello ", "🙂", "\n", "line\nline", "ab" * 20)


def soul_for(replica: Replica, step: Step, everyone: list[Replica]) -> str:
    """A public soul mostly, one's own, or somebody else's."""
    other = everyone[step.c % len(everyone)]
    if step.a % 16 == 15 and replica.household:
        return replica.household
    public = "n/1" if replica.has_part else "n/2"
    return ("n/1", public, "n/1", owned(replica, "p"), owned(other, "p"), owned(other, "p/q"))[step.a % 6]


def may_write(replica: Replica, soul: str) -> bool:
    """Whether the replica knows that it may: its own, or it was granted and that wasn't taken back."""
    if not soul.startswith("~") or soul.startswith(owned(replica, "")) or has_shown(replica, soul):
        return True
    if soul.startswith("~dtpa1"):
        return False
    taken = {
        (author, op.key.removeprefix("revoke/"))
        for author, chain in replica.seen.applied().items()
        for frame in chain
        for op in frame.ops
        if op.key.startswith("revoke/")
    }
    return any(
        (has_shown(replica, f"~{grant.account}") if grant.account else grant.grantee == replica.key)
        and grant.covers(soul)
        and (grant.owner, grant.id) not in taken
        for grant in offers(replica)
    )


def has_shown(replica: Replica, soul: str) -> bool:
    """Whether the replica's own frames show a card or a grant that lets it write, as far as it knows."""
    ops = [op for chain in replica.seen.applied().values() for frame in chain for op in frame.ops]
    judge = Author(replica.key, revocations(ops), cuts_of(ops))
    for op in ops:
        if op.author == replica.key:
            judge.take(op)
    return judge.take(Op(PUT, soul, "k", replica.key, replica.now(), b"\x01"))


def offers(replica: Replica) -> list[Granted]:
    """The grants that have come to a replica."""
    return [
        read_grant(value["register"][0])
        for (soul, key), value in replica.shown().items()
        if soul.startswith("%access/") and key.startswith("offer/") and "register" in value
    ]


def attempt(replica: Replica, soul: str, edit: Callable[[], None]) -> bool:
    """Make an edit that is refused, by name, exactly where the model says so; whether it was made."""
    allowed = may_write(replica, soul)
    try:
        edit()
    except GraphBehind:
        if not replica.behind:
            raise Difference("refused as behind without a reason") from None
        return False
    except NotOwner:
        if allowed and not replica.behind:
            raise Difference(f"not let write at {soul}") from None
        return False
    if replica.behind:
        raise Difference("written though a restored store may lack what was signed")
    if not allowed:
        raise Difference(f"let write at {soul}")
    replica.dirty = True
    return True


def _mapping(replica: Replica, soul: str, node: MutableMapping[str, Any], step: Step, *, gone: bool) -> None:
    key, value = KEYS[step.b % len(KEYS)], VALUES[step.c % len(VALUES)]
    before = {name: plainly(content) for name, content in node.items()}

    def edit() -> None:
        if not gone:
            node[key] = value
        elif key in node:
            del node[key]

    if attempt(replica, soul, edit) if not gone or key in before else False:
        before.pop(key, None)
        if not gone:
            before[key] = plainly(value)
    after = {name: plainly(content) for name, content in node.items()}
    same(f"{soul} after a change of {key!r}", sorted(before.items()), sorted(after.items()))


def put(replica: Replica, step: Step, everyone: list[Replica]) -> None:
    soul = soul_for(replica, step, everyone)
    _mapping(replica, soul, replica.graph.node(soul), step, gone=False)


def delete(replica: Replica, step: Step, everyone: list[Replica]) -> None:
    soul = soul_for(replica, step, everyone)
    _mapping(replica, soul, replica.graph.node(soul), step, gone=True)


def map_(replica: Replica, step: Step, everyone: list[Replica]) -> None:
    soul = soul_for(replica, step, everyone)
    _mapping(replica, soul, replica.graph.map(soul), step, gone=False)


def unmap(replica: Replica, step: Step, everyone: list[Replica]) -> None:
    soul = soul_for(replica, step, everyone)
    _mapping(replica, soul, replica.graph.map(soul), step, gone=True)


def put_many(replica: Replica, step: Step, _: list[Replica]) -> None:
    rows = [
        (f"n/{1 + i % 2}", KEYS[(step.b + i) % len(KEYS)], VALUES[(step.c + i) % len(VALUES)])
        for i in range(4)
    ]

    def edit() -> None:
        replica.graph.put_many([*rows, ("n/2", "a")])

    if attempt(replica, "n/1", edit):
        for soul, key, value in rows:
            if (soul, key) != ("n/2", "a"):
                same("put_many", plainly(value), plainly(replica.graph.node(soul)[key]))
        same("put_many deletes", False, "a" in replica.graph.node("n/2"))


def link(replica: Replica, step: Step, everyone: list[Replica]) -> None:
    soul, to = soul_for(replica, step, everyone), f"n/{step.b % 3}"
    node = replica.graph.node(soul)
    before = set(node.links("to"))
    if attempt(replica, soul, lambda: node.link("to", to)):
        before.add(to)
    same("links", sorted(before), node.links("to"))


def unlink(replica: Replica, step: Step, everyone: list[Replica]) -> None:
    soul, to = soul_for(replica, step, everyone), f"n/{step.b % 3}"
    node = replica.graph.node(soul)
    before = set(node.links("to"))
    if to in before and attempt(replica, soul, lambda: node.unlink("to", to)):
        before.remove(to)
    same("links", sorted(before), node.links("to"))


def count(replica: Replica, step: Step, everyone: list[Replica]) -> None:
    soul, amount = soul_for(replica, step, everyone), (1, -1, 5, -7, 2**40, 3)[step.b % 6]
    counter = replica.graph.counter(soul, KEYS[step.c % 2])
    before = counter.value
    if attempt(replica, soul, lambda: counter.add(amount)):
        before += amount
    same("counter", before, counter.value)


def _elements(replica: Replica, soul: str, key: str) -> list[Any]:
    return [plainly(value) for value in replica.graph.set(soul, key)]


def add(replica: Replica, step: Step, everyone: list[Replica]) -> None:
    soul, value = soul_for(replica, step, everyone), VALUES[step.b % len(VALUES)]
    before = _elements(replica, soul, "s")
    if attempt(replica, soul, lambda: replica.graph.set(soul, "s").add(value)):
        before = [each for each in before if repr(each) != repr(plainly(value))] + [plainly(value)]
    same("set", sorted(before, key=repr), sorted(_elements(replica, soul, "s"), key=repr))


def discard(replica: Replica, step: Step, everyone: list[Replica]) -> None:
    soul = soul_for(replica, step, everyone)
    held = list(replica.graph.set(soul, "s"))
    if not held:
        return
    value = held.pop(step.b % len(held))
    if not attempt(replica, soul, lambda: replica.graph.set(soul, "s").discard(value)):
        held.append(value)
    expected = sorted((plainly(each) for each in held), key=repr)
    same("set", expected, sorted(_elements(replica, soul, "s"), key=repr))


def set_(replica: Replica, step: Step, everyone: list[Replica]) -> None:
    soul, value = soul_for(replica, step, everyone), VALUES[step.b % len(VALUES)]
    register = replica.graph.multi_value(soul, "v")
    before = [plainly(each) for each in register.values]
    if attempt(replica, soul, lambda: register.set(value)):
        before = [plainly(value)]
    same("values", before, [plainly(each) for each in register.values])


def unset(replica: Replica, step: Step, everyone: list[Replica]) -> None:
    soul = soul_for(replica, step, everyone)
    register = replica.graph.multi_value(soul, "v")
    before = [plainly(each) for each in register.values]
    if before and attempt(replica, soul, register.clear):
        before = []
    same("values", before, [plainly(each) for each in register.values])


def type_(replica: Replica, step: Step, everyone: list[Replica]) -> None:
    soul, word = soul_for(replica, step, everyone), WORDS[step.b % len(WORDS)]
    text = replica.graph.text(soul)
    before = str(text)
    at = step.c % (len(before) + 1)
    if attempt(replica, soul, lambda: text.insert(at, word)):
        before = before[:at] + word + before[at:]
    same("text", before, str(text))


def erase(replica: Replica, step: Step, everyone: list[Replica]) -> None:
    soul = soul_for(replica, step, everyone)
    text = replica.graph.text(soul)
    before = str(text)
    at = step.b % (len(before) + 1)
    size = min(1 + step.c % 4, len(before) - at)
    if size and attempt(replica, soul, lambda: text.delete(at, size)):
        before = before[:at] + before[at + size :]
    same("text", before, str(text))


def undo(replica: Replica, step: Step, _: list[Replica]) -> None:
    if not replica.behind:
        replica.graph.text("n/1").undo()
        replica.dirty = True


def push(replica: Replica, step: Step, everyone: list[Replica]) -> None:
    soul, value = soul_for(replica, step, everyone), VALUES[step.b % len(VALUES)]
    items = replica.graph.list(soul)
    before = [plainly(item) for item in items]
    at = step.c % (len(before) + 1)
    if attempt(replica, soul, lambda: items.insert(at, value)):
        before.insert(at, plainly(value))
    same("list", before, [plainly(item) for item in items])


def _change_list(replica: Replica, step: Step, everyone: list[Replica], what: str) -> None:
    soul, value = soul_for(replica, step, everyone), VALUES[step.c % len(VALUES)]
    items = replica.graph.list(soul)
    before = [plainly(item) for item in items]
    if not before:
        return
    at, to = step.b % len(before), step.c % len(before)
    changes: dict[str, tuple[Callable[[Any], None], Any]] = {
        "pull": (lambda held: held.__delitem__(at), None),
        "move": (lambda held: held.insert(to, held.pop(at)), lambda: items.move(at, to)),
        "assign": (lambda held: held.__setitem__(at, value), None),
    }
    change, ours = changes[what]
    if attempt(replica, soul, ours or (lambda: change(items))):
        change(before)
    same(f"list after {what}", [plainly(item) for item in before], [plainly(item) for item in items])


def pull(replica: Replica, step: Step, everyone: list[Replica]) -> None:
    _change_list(replica, step, everyone, "pull")


def move(replica: Replica, step: Step, everyone: list[Replica]) -> None:
    _change_list(replica, step, everyone, "move")


def assign(replica: Replica, step: Step, everyone: list[Replica]) -> None:
    _change_list(replica, step, everyone, "assign")


def drop(replica: Replica, step: Step, everyone: list[Replica]) -> None:
    soul = soul_for(replica, step, everyone)
    before = tell(replica.graph.everything(soul))
    said: list[bool] = []
    if before and attempt(replica, soul, lambda: said.append(replica.graph.delete(soul))):
        same("deleted", [True], said)
        before = {}
    same("what a deleted node has", before, tell(replica.graph.everything(soul)))


def _all(replica: Replica) -> dict[str, Any]:
    souls = replica.graph.souls()
    return {soul: told for soul in souls if (told := tell(replica.graph.everything(soul)))}


def _settled(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """What was there, but that of values written at the same time the latest comes back, where they were written."""
    found = copy.deepcopy(before)
    for soul, keys in found.items():
        for key, kinds in keys.items():
            values = kinds.get("values", [])
            is_now = now.get(soul, {}).get(key, {}).get("values")
            if values and repr(is_now) == repr(values[:1]):  # NaN is equal to itself by that
                kinds["values"] = values[:1]
    return found


def back(replica: Replica, step: Step, everyone: list[Replica]) -> None:
    """Undo takes an edit of any type back, and redo makes it again, as long as nobody else writes."""
    if replica.behind:
        return
    without = {"back", "undo", "put_many"} if replica.has_part else {"back", "undo"}
    names = [name for name in EDITS if name not in without]
    before = _all(replica)
    with replica.graph.undo_manager() as manager:
        with manager.step("one"):
            EDITS[names[step.b // 7 % len(names)]](replica, step, everyone)
        after = _all(replica)
        if manager.undo() is None:
            same("nothing was undone", before, after)
            return
        replica.dirty = True
        now = _all(replica)
        same("what is there after undo", _settled(before, now), now)
        manager.redo()
        same("what is there after redo", after, _all(replica))


EDITS = {
    "back": back,
    "drop": drop,
    "put": put,
    "delete": delete,
    "put_many": put_many,
    "link": link,
    "unlink": unlink,
    "count": count,
    "add": add,
    "discard": discard,
    "set": set_,
    "unset": unset,
    "map": map_,
    "unmap": unmap,
    "type": type_,
    "erase": erase,
    "undo": undo,
    "push": push,
    "pull": pull,
    "move": move,
    "assign": assign,
}
