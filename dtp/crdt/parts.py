"""Parts of nodes, at souls of their own below the node's: maps, lists and texts within one another (docs/graph.md,
"Documents"), and the properties of links ("Relationships").

The soul of a part is made of its parent's soul and its place there. So who makes the same part at the same time
makes one, each part has one parent, and none is within itself.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from typing import Any, Final, Literal

from dtp.core import crdt as core
from dtp.crdt import values
from dtp.crdt.values import Link, Value

#: What a part is: a map, a list, a text.
Kind = Literal["m", "l", "t"]

#: Parts within one another, the document being the first.
MAX_DEPTH: Final = 32
#: Random bytes that name an element of a list that is a part.
NONCE: Final = 10

_MARK: Final = "/@"
_PART: Final = re.compile(r"/@[mltr](?:[a-z2-7]{32}|[a-z2-7]{48})\Z").search
_HASH: Final = 20
_PERSON: Final = b"dtp-graph-part-1"
_LINK_PERSON: Final = b"dtp-graph-link-1"
_NONCE_LETTERS: Final = NONCE * 8 // 5
_HASH_LETTERS: Final = _HASH * 8 // 5
_RELATIONSHIP: Final = "r"
#: Bytes of UTF-8 that the soul of a document may have.
MAX_DOCUMENT: Final = core.NAME_BYTES - len(_MARK) - 1 - _NONCE_LETTERS - _HASH_LETTERS


def is_part(soul: str) -> bool:
    """Return whether a soul may be a part of a document."""
    return _MARK in soul and _PART(soul) is not None


def takes_parts(soul: str) -> bool:
    """Return whether a soul leaves room for the names of parts below it."""
    return 0 < len(values.encode_name(soul)) <= MAX_DOCUMENT


def document_of(soul: str) -> str:
    """Return the soul of the document that a part is of; a document's own."""
    return soul.rpartition(_MARK)[0] if is_part(soul) else soul


def prefix_of(soul: str) -> str:
    """Return what souls of all parts of a document begin with, given it or one of its parts."""
    return document_of(soul) + _MARK


def in_map(parent: str, key: str, kind: Kind) -> str:
    """Return the soul of the part at a key of a map."""
    return f"{prefix_of(parent)}{kind}{_letters(_hash(parent, key))}"


def in_list(parent: str, nonce: bytes, kind: Kind) -> str:
    """Return the soul of an element of a list; `nonce` (`NONCE` random bytes) names it."""
    return f"{prefix_of(parent)}{kind}{_letters(nonce)}{_letters(_hash(parent, nonce))}"


def relationship_soul(source: str, key: str, target: str) -> str:
    """Return the soul that has the properties of the link from `source` to `target` by `key`."""
    place = values.encode([source, key, target])
    hashed = hashlib.blake2b(place, digest_size=_HASH, person=_LINK_PERSON).digest()
    return f"{prefix_of(source)}{_RELATIONSHIP}{_letters(hashed)}"


def relationships_of(soul: str) -> tuple[str, str]:
    """Return what the souls of properties of a node's links are at or above, and what they are below."""
    prefix = prefix_of(soul)
    return f"{prefix}{_RELATIONSHIP}", f"{prefix}{chr(ord(_RELATIONSHIP) + 1)}"


def is_relationship(soul: str) -> bool:
    """Return whether a soul may have the properties of a link."""
    return is_part(soul) and soul.rpartition(_MARK)[2].startswith(_RELATIONSHIP)


def kind_in_map(parent: str, key: str, value: Value) -> Kind | None:
    """Return what part a value at a key of a map is, None if it is a value like any other."""
    kind = _kind(value)
    return kind if kind is not None and value.soul == in_map(parent, key, kind) else None


def kind_in_list(parent: str, value: Value) -> Kind | None:
    """Return what part an element of a list is, None if it is a value like any other."""
    kind = _kind(value)
    if kind is None:
        return None
    name = value.soul.rpartition(_MARK)[2][1:]
    if len(name) != _NONCE_LETTERS + _HASH_LETTERS:
        return None
    try:
        nonce = base64.b32decode(name[:_NONCE_LETTERS].upper())
    except ValueError:
        return None
    return kind if value.soul == in_list(parent, nonce, kind) else None


def _kind(value: Value) -> Kind | None:
    if not isinstance(value, Link) or not is_part(value.soul):
        return None
    match value.soul.rpartition(_MARK)[2][:1]:
        case "m" | "l" | "t" as kind:
            return kind
    return None


def _hash(parent: str, place: str | bytes) -> bytes:
    return hashlib.blake2b(values.encode([parent, place]), digest_size=_HASH, person=_PERSON).digest()


def _letters(data: bytes) -> str:
    return base64.b32encode(data).decode().lower()


#: What is at a soul: key -> kind -> what is there, as `Graph.everything` has it.
_Everything = dict[str, dict[str, Any]]


def with_relationships(soul: str, read: Callable[[str], _Everything]) -> _Everything:
    """Return all that is at a soul, as `read` gives it, and the properties of its links: of the kind "relationships",
    target -> key -> value."""
    found = read(soul)
    for key, kinds in found.items():
        links = [one for one in (kinds.get("register"), *kinds.get("set", ())) if isinstance(one, Link)]
        properties = {link.soul: read(relationship_soul(soul, key, link.soul)) for link in links}
        if there := {target: _registers(one) for target, one in properties.items() if one}:
            kinds["relationships"] = there
    return found


def _registers(found: _Everything) -> dict[str, Value]:
    return {key: kinds["register"] for key, kinds in found.items() if "register" in kinds}


def read_with_parts(
    soul: str, read: Callable[[str], _Everything], *, as_text: Callable[[str], str] = str
) -> _Everything:
    """Return all that is at a soul, as `read` gives it, with parts in place of the links to them, and the properties
    of its links.

    Texts that are parts are what `as_text` makes of what they say. Parts deeper than `MAX_DEPTH` stay links, and so
    do further elements that are the same part.
    """
    reader = _Reader(read, as_text)
    found = with_relationships(soul, read)
    for key, kinds in found.items():
        if "values" in kinds:
            kinds["values"] = [reader.at_key(soul, key, value, 1) for value in kinds["values"]]
        if is_part(soul) and "list" in kinds and not key:
            kinds["list"] = [reader.read_element(soul, value, 1) for value in kinds["list"]]
    return found


class _Reader:
    def __init__(self, read: Callable[[str], _Everything], as_text: Callable[[str], str]) -> None:
        self._read = read
        self._as_text = as_text
        self._seen: set[str] = set()

    def at_key(self, parent: str, key: str, value: Value, depth: int) -> Any:
        return self._read_part(kind_in_map(parent, key, value), value, depth)

    def read_element(self, parent: str, value: Value, depth: int) -> Any:
        return self._read_part(kind_in_list(parent, value), value, depth)

    def _read_part(self, kind: Kind | None, value: Value, depth: int) -> Any:
        if kind is None or depth >= MAX_DEPTH or value.soul in self._seen:
            return value
        soul = value.soul
        self._seen.add(soul)
        found = self._read(soul)
        if kind == "t":
            return self._as_text(found.get("", {}).get("text", ""))
        if kind == "l":
            return [self.read_element(soul, one, depth + 1) for one in found.get("", {}).get("list", [])]
        return {
            key: self.at_key(soul, key, kinds["values"][0], depth + 1)
            for key, kinds in found.items()
            if kinds.get("values")
        }
