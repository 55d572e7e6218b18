"""Documents: maps, lists and texts within one another, beside plain dicts and lists."""

from __future__ import annotations

import base64
import copy
import hashlib
from typing import Any

import msgpack
from edits import KEYS, VALUES, attempt
from histories import Step
from merging import Shown
from plain import Linked
from replicas import Replica, plainly, same

from dtp.graph import NewText

SOUL = "d/1"
DEEPEST = 32
PARTS: tuple[Any, ...] = (
    {},
    [],
    {"a": [1, {"b": "x"}]},
    [[], {"a": 2}],
    {"b": {"a": None}},
    "text",
    [1, 2, 3],
)


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().lower().rstrip("=")


def _place(parent: str, at: str | bytes) -> str:
    data = msgpack.packb([parent, at])
    return _base32(hashlib.blake2b(data, digest_size=20, person=b"dtp-graph-part-1").digest())


def _document(soul: str) -> str:
    return soul.rpartition("/@")[0] or soul


def _part(parent: str, key: str | None, value: Any) -> str | None:
    """The kind of part that a value at a place is a link to; None if it is a value."""
    if not isinstance(value, Linked):
        return None
    head, _, tail = value.soul.rpartition("/@")
    kind, name = tail[:1], tail[1:]
    if head != _document(parent) or kind not in ("m", "l", "t"):
        return None
    if key is not None:
        return kind if name == _place(parent, key) else None
    try:
        nonce = base64.b32decode(name[:16].upper())
    except ValueError:
        return None
    return kind if name[16:] == _place(parent, nonce) else None


def nested(shown: Shown, soul: str, kind: str = "m", depth: int = 1) -> Any:
    """What is in a part, and below it."""
    if kind == "t":
        return shown.get((soul, ""), {}).get("text", "")
    if kind == "l":
        return _elements(shown, soul, depth)
    latest = {key: told["values"][0] for (at, key), told in shown.items() if at == soul and "values" in told}
    return {
        key: _below(shown, value, _part(soul, key, value), depth) for key, value in sorted(latest.items())
    }


def _elements(shown: Shown, soul: str, depth: int) -> list[Any]:
    found, met = [], set()
    for value in shown.get((soul, ""), {}).get("list", ()):
        kind = None if value in met and isinstance(value, Linked) else _part(soul, None, value)
        if kind is not None:
            met.add(value)
        found.append(_below(shown, value, kind, depth))
    return found


def _below(shown: Shown, value: Any, kind: str | None, depth: int) -> Any:
    return value if kind is None or depth >= DEEPEST else nested(shown, value.soul, kind, depth + 1)


def ordered(value: Any) -> Any:
    """Dicts by their keys."""
    if isinstance(value, dict):
        return {key: ordered(item) for key, item in sorted(value.items())}
    return [ordered(item) for item in value] if isinstance(value, list) else value


def _said(replica: Replica) -> Any:
    return plainly(replica.graph.document(SOUL).to_plain())


def check(replica: Replica, shown: Shown) -> None:
    """The document says what the model makes of its parts."""
    same(f"{replica.number} says in {SOUL}", ordered(nested(shown, SOUL)), ordered(_said(replica)))


def _shown_parts(replica: Replica) -> set[str]:
    """The souls of all parts that the document shows."""
    found: set[str] = set()
    left: list[Any] = [replica.graph.document(SOUL)]
    while left:
        part = left.pop()
        inner = part.values() if type(part).__name__ == "NestedMap" else list(part)
        for one in inner:
            if type(one).__name__ in ("NestedMap", "NestedList", "GraphText"):
                found.add(one.soul)
                left += [] if type(one).__name__ == "GraphText" else [one]
    return found


def nest(replica: Replica, step: Step, _: list[Replica]) -> None:
    """Change something somewhere in the document, and in a copy of it."""
    before = _said(replica)
    # what stands at parts that nothing shows (who linked them is banned) is shown when they are made again
    is_all_shown = _shown_parts(replica) >= set(replica.graph.replica.souls(f"{SOUL}/@"))
    expected = copy.deepcopy(before)
    there: Any = replica.graph.document(SOUL)
    inner, turn = expected, step.a
    while turn % 3 and inner:  # further down
        keys = sorted(inner) if isinstance(inner, dict) else list(range(len(inner)))
        key = keys[turn // 3 % len(keys)]
        if not isinstance(inner[key], dict | list) or isinstance(there[key], dict | list | tuple | Linked):
            break
        if type(there[key]).__name__ not in ("NestedMap", "NestedList"):
            break  # a value that has parts of its own, which are replaced as a whole
        inner, there, turn = inner[key], there[key], turn // 7
    what = PARTS[step.b % len(PARTS)] if step.b % 2 else VALUES[step.b // 2 % len(VALUES)]
    is_text = isinstance(what, str) and step.b % 3 == 0
    value = NewText(what) if is_text else what
    changes = (
        _of_map(inner, there, step, value) if isinstance(inner, dict) else _of_list(inner, there, step, value)
    )
    if attempt(replica, SOUL, changes[0]):
        changes[1]()
        if is_all_shown:
            same("the document", ordered(plainly(expected)), ordered(_said(replica)))
    else:
        same("the document", ordered(before), ordered(_said(replica)))


def _of_map(inner: dict[str, Any], there: Any, step: Step, value: Any) -> tuple[Any, Any]:
    key = KEYS[step.c % len(KEYS)]
    if step.c % 5 == 0 and key in inner:
        return lambda: there.__delitem__(key), lambda: inner.__delitem__(key)
    return lambda: there.__setitem__(key, value), lambda: inner.__setitem__(key, copy.deepcopy(_plain(value)))


def _of_list(inner: list[Any], there: Any, step: Step, value: Any) -> tuple[Any, Any]:
    at = step.c % (len(inner) + 1)
    if at < len(inner) and step.c % 5 == 0:
        return lambda: there.__delitem__(at), lambda: inner.__delitem__(at)
    if at < len(inner) and step.c % 5 == 1:
        to = step.a % len(inner)
        return lambda: there.move(at, to), lambda: inner.insert(to, inner.pop(at))
    if at < len(inner) and step.c % 5 == 2:
        return lambda: there.__setitem__(at, value), lambda: inner.__setitem__(
            at, copy.deepcopy(_plain(value))
        )
    return lambda: there.insert(at, value), lambda: inner.insert(at, copy.deepcopy(_plain(value)))


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, NewText) else value
