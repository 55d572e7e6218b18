"""Deleting a node: all that is at its soul, of every type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtp.core import crdt as core
from dtp.crdt import Replica, parts, values
from dtp.graph.formats.items import NOTHING, SPACES, Item, on_a_copy, write_items

if TYPE_CHECKING:
    from dtp.graph.graph import Graph


def delete(graph: Graph, soul: str) -> bool:
    """Delete all that is at a soul; return whether there was something."""
    graph.check_writable()
    items, keys = _found(graph.replica, soul)
    for part in [] if parts.is_part(soul) else graph.replica.souls(parts.prefix_of(soul)):
        if parts.is_part(part):
            more, registers = _found(graph.replica, part)
            items += more
            keys += registers
    if not items and not keys:
        return False
    if graph.replica.permits.needs_permit(soul):  # some of it may be refused: it is tried on a copy first
        on_a_copy(graph)(items, keys)
    write_items(graph.replica, items, keys)
    return True


def _found(replica: Replica, soul: str) -> tuple[list[Item], list[tuple[str, str]]]:
    """Return what a soul has: items that say the opposite, and the places of its registers."""
    name = values.encode_name(soul)
    places = {
        (kind, key)
        for kind, space in SPACES.items()
        for key in values.decode(replica.core.read_keys(space, name))
    }
    kinds = {core.LIST: "list", core.TEXT: "text"}
    places |= {
        (kinds[name[0]], name[2])
        for name in replica.sequences.edited_names
        if name[1] == soul and len(replica.sequences.open_sequence(name))
    }
    keys = values.decode(replica.core.read_keys(core.REGISTER, name))
    return [Item(soul, key, kind, NOTHING[kind]) for kind, key in sorted(places)], [
        (soul, key) for key in keys
    ]
