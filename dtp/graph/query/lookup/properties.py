"""A node's properties, as queries see them: one for each key, of whatever type is there.

Where a key has several, it is the first of: the register, the text, the list, the counter, the map's value, the set.
Links of registers and sets are relationships, and no properties; null is not a property.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

from dtp.core import crdt as core
from dtp.crdt import Link, Replica, Value, parts, values
from dtp.crdt.document import read_at

#: What is read of a text, a list, or a part of a document, by its name: (`core.TEXT`, `LIST` or `VALUES`, soul, key).
Name = tuple[int, str, str]
#: Spaces beside registers, the first that counts first.
_ORDER: Final = {
    space: at for at, space in enumerate((core.TEXT, core.LIST, core.COUNTER, core.VALUES, core.SET))
}


#: Stands where a text or a list was begun here and isn't committed: while it is empty there is none.
_UNCOMMITTED: Final = "uncommitted"


def names_in(soul: str, others: list[Any]) -> Iterable[Name]:
    """Return the names of the texts, lists and parts of documents in what `GraphCore.others` gave of a soul."""
    return [
        (space, soul, key)
        for key, space, content in zip(others[::3], others[1::3], others[2::3], strict=True)
        if space in (core.TEXT, core.LIST) or _is_part(soul, key, space, content)
    ]


def _is_part(soul: str, key: str, space: int, content: Any) -> bool:
    return space == core.VALUES and parts.kind_in_map(soul, key, content) is not None


def read_property(replica: Replica, name: Name) -> Value:
    """Return what is read of a text, a list, or a part of a document."""
    space, soul, key = name
    return read_at(replica, soul, key) if space == core.VALUES else replica.sequences.read_sequence(name)


def assemble_properties(
    soul: str, registers: Mapping[str, Value], others: list[Any], read: Callable[[Name], Value]
) -> dict[str, Value]:
    """Return the properties of a node: of its registers, of what `GraphCore.others` gave, and of its texts and lists,
    which `read` gives."""
    found = {key: one for key, one in registers.items() if one is not None and type(one) is not Link}
    if others:
        there = zip(others[::3], others[1::3], others[2::3], strict=True)
        for key, space, content in sorted(there, key=lambda one: _ORDER[one[1]]):
            if key in found:
                continue
            if space in (core.TEXT, core.LIST) or _is_part(soul, key, space, content):
                if (value := read((space, soul, key))) or content is not _UNCOMMITTED:
                    found[key] = value
            elif (value := _read(space, content)) is not None:
                found[key] = value
    return found


def _read(space: int, content: Any) -> Value:
    if space == core.COUNTER:
        return sum(content)
    if space == core.VALUES:
        return content
    items = {values.encode(one): one for one in content if type(one) is not Link}
    return [items[one] for one in sorted(items)] or None


def properties_of(replica: Replica, soul: str) -> dict[str, Value]:
    """Return the properties of a node; of a private one what can be read of its registers."""
    opened = replica.reveal(soul) if soul.startswith("~") else None
    if opened is not None:
        return assemble_properties(soul, opened, [], partial(read_property, replica))
    registers = values.decode(replica.core.read_keys(core.REGISTER, values.encode_name(soul)))
    return assemble_properties(soul, registers, others_of(replica, soul), partial(read_property, replica))


def read_relationship(replica: Replica, part: str) -> dict[str, Value]:
    """Return the properties of a relationship, which are at this soul: see `parts.relationship`."""
    name = values.encode_name(part)
    if replica.core.soul_number(name) is None:
        return {}
    return assemble_properties(
        part, values.decode(replica.core.read_keys(core.REGISTER, name)), [], partial(read_property, replica)
    )


def others_of(replica: Replica, soul: str) -> list[Any]:
    """Return what is at a soul beside registers, also what waits for the next commit."""
    found: list[Any] = values.decode(replica.core.read_others(values.encode_name(soul)))
    if replica.sequences.has_unsent:
        add_written(found, [(space, key) for space, at, key in replica.sequences.edited_names if at == soul])
    return found


def add_written(others: list[Any], written: Iterable[tuple[int, str]]) -> None:
    """Add the texts and lists (space, key) that were written, and aren't committed."""
    known = set(zip(others[1::3], others[::3], strict=True))
    for space, key in written:
        if (space, key) not in known:
            others += [key, space, _UNCOMMITTED]
