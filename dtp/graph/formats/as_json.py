"""A graph as one JSON document. docs/formats.md, "JSON"."""

from __future__ import annotations

import json
from typing import Any, Final

from dtp.graph.errors import ContentsError
from dtp.graph.formats import plain
from dtp.graph.formats.items import KINDS, FoundItems, Item

FORMAT: Final = "dtp-graph-contents"
VERSION: Final = 1
#: A kind -> what it is called in the document.
_PLURAL: Final = {
    kind: kind if kind in ("values", "marks", "relationships") else f"{kind}s" for kind in KINDS
}
_KIND: Final = {plural: kind for kind, plural in _PLURAL.items()}


def write(name: str, found: FoundItems) -> str:
    """Return the document of a graph of this name."""
    nodes: dict[str, dict[str, dict[str, Any]]] = {}
    for one in found.items:
        kinds = nodes.setdefault(one.soul, {})
        kinds.setdefault(_PLURAL[one.kind], {})[one.key] = plain.to_plain(one.value)
    # souls and keys may begin with "$": they are not values
    document = {"format": FORMAT, "version": VERSION, "graph": name, "nodes": nodes}
    return json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def read(text: str) -> FoundItems:
    """Return what a document says. Raise `ContentsError`."""
    document = plain.parse(text)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ContentsError(f'no document with "format": "{FORMAT}"')
    version = document.get("version")
    if type(version) is not int or version != VERSION:
        raise ContentsError(f"it is of version {version!r}, and this program reads {VERSION}")
    strange = document.keys() - {"format", "version", "graph", "nodes"}
    if strange:
        raise ContentsError(f"{min(strange)!r} is not known in version {VERSION}")
    items = []
    for soul, kinds in _object(document.get("nodes"), '"nodes"').items():
        for plural, keys in _object(kinds, repr(soul)).items():
            if plural not in _KIND:
                raise ContentsError(f"{plural!r} of {soul!r} is not a kind; there are {', '.join(_KIND)}")
            for key, value in _object(keys, f"{plural!r} of {soul!r}").items():
                items.append(Item(soul, key, _KIND[plural], plain.from_plain(value)))
    return FoundItems(items, [])


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ContentsError(f"{what} must be an object, not {type(value).__name__}")
    return value
