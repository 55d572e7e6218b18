"""A graph as GraphML, for networkx, Gephi, yEd, igraph and the like. docs/formats.md, "GraphML"."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from dtp.crdt import Link
from dtp.crdt.values import is_links
from dtp.graph.errors import ContentsError
from dtp.graph.formats import plain
from dtp.graph.formats.as_csv import cell, value_of
from dtp.graph.formats.items import KINDS, FoundItems, Item, LeftOut

NAMESPACE: Final = "http://graphml.graphdrawing.org/xmlns"
OURS: Final = "urn:dtp:graphml"
#: Of a relationship without a label.
NO_LABEL: Final = "link"
_HEAD: Final = f'<?xml version="1.0" encoding="UTF-8"?>\n<graphml xmlns="{NAMESPACE}" xmlns:dtp="{OURS}">\n'
_INT64: Final = 1 << 63
#: A type of ours -> GraphML's; others are "string".
_THEIRS: Final = {"bool": "boolean", "int": "long", "float": "double"}
#: A type of GraphML's -> ours.
_OURS: Final = {
    "boolean": "bool", "int": "int", "long": "int", "float": "float", "double": "float", "string": "text",
}  # fmt: skip


_Items = dict[tuple[str, str, str], Item]


# ---- writing --------------------------------------------------------------------------------------------------


def write(name: str, found: FoundItems) -> str:
    """Return the document: links are edges with their properties, all else is data of nodes."""
    keys: dict[tuple[str, ...], str] = {}
    data: dict[str, list[str]] = {}
    edges: list[str] = []
    of_links = {(one.soul, one.key): one.value for one in found.items if one.kind == "relationships"}
    for one in found.items:
        data.setdefault(one.soul, [])
        targets = _targets(one)
        for target in targets:
            data.setdefault(target, [])
            properties = of_links.get((one.soul, one.key), {}).get(target, {})
            inner = "".join(_datum(keys, "edge", key, "register", v) for key, v in properties.items())
            edges.append(_edge(one, target, inner))
        if not targets and one.kind != "relationships":
            data[one.soul].append(_datum(keys, "node", one.key, one.kind, one.value))
    nodes = [f"  <node{_attributes(id=soul)}>{''.join(inner)}</node>\n" for soul, inner in data.items()]
    told = [' <key id="label" for="edge" attr.name="label" attr.type="string"/>\n'] if edges else []
    for (domain, key, kind, type, theirs), number in keys.items():
        named = _attributes(**{"id": number, "for": domain, "attr.name": key, "attr.type": theirs})
        told.append(f' <key{named} dtp:kind="{kind}" dtp:type="{type}"/>\n')
    graph = f' <graph{_attributes(id=name or "graph")} edgedefault="directed">\n'
    return "".join([_HEAD, *told, graph, *nodes, *edges, " </graph>\n</graphml>\n"])


def _targets(one: Item) -> list[str]:
    """Return where its links lead, if it is links alone."""
    if one.kind == "register" and isinstance(one.value, Link):
        return [one.value.soul]
    if one.kind == "set" and is_links(one.value):
        return [link.soul for link in one.value]
    return []


def _datum(keys: dict[tuple[str, ...], str], domain: str, key: str, kind: str, value: Any) -> str:
    """Write a <data>, and have its <key> among `keys`."""
    type, text = cell(value)
    if not plain.is_plain(text):
        type, text = "json", json.dumps(plain.to_plain(value))
    is_wide = type == "int" and not -_INT64 <= value < _INT64
    theirs = "string" if is_wide else _THEIRS.get(type, "string")
    number = keys.setdefault((domain, key, kind, type, theirs), f"d{len(keys)}")
    return f"<data key={quoteattr(number)}>{escape(text)}</data>"


def _edge(one: Item, target: str, inner: str) -> str:
    kind = ' dtp:kind="register"' if one.kind == "register" else ""
    text = one.key
    if not plain.is_plain(text):
        kind, text = f'{kind} dtp:label="json"', json.dumps(one.key)
    ends = _attributes(source=one.soul, target=target)
    return f'  <edge{ends}{kind}><data key="label">{escape(text)}</data>{inner}</edge>\n'


def _attributes(**given: str) -> str:
    """Write attributes; what XML can't have is JSON, and its names are told."""
    as_json = [name for name, value in given.items() if not plain.is_plain(value)]
    written = [f" {name}={quoteattr(json.dumps(v) if name in as_json else v)}" for name, v in given.items()]
    return "".join(written) + (f" dtp:json={quoteattr(' '.join(as_json))}" if as_json else "")


# ---- reading --------------------------------------------------------------------------------------------------


def read(data: bytes) -> FoundItems:
    """Return what a document says. Raise `ContentsError`, also for one with a DOCTYPE, which could blow it up."""
    reading = _Reading()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _no_doctype
    parser.StartElementHandler = reading.start
    parser.EndElementHandler = reading.end_element
    parser.CharacterDataHandler = reading.add_text
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise ContentsError(f"not XML, or cut off: {error}") from error
    except (LookupError, UnicodeError) as error:
        raise ContentsError(f"not XML: {error}") from error
    if not reading.is_graphml:
        raise ContentsError("no GraphML: it has no graph")
    return reading.get_found()


def _no_doctype(*_: object) -> None:
    raise ContentsError("it has a DOCTYPE, which GraphML has no use for; remove it")


def _named(attributes: dict[str, str], name: str) -> str | None:
    """Return an attribute, which may be written as JSON."""
    text = attributes.get(name)
    if text is None or name not in attributes.get(f"{OURS} json", "").split():
        return text
    value = plain.loads(text)
    if not isinstance(value, str):
        raise ContentsError(f"{text[:40]!r} is not text in JSON")
    return value


class _Key:
    """What a <key> says of data."""

    def __init__(self, attributes: dict[str, str]) -> None:
        self.id = attributes.get("id", "")
        self.domain = attributes.get("for", "all")
        self.name = _named(attributes, "attr.name") or (self.id if "attr.name" not in attributes else "")
        theirs = attributes.get("attr.type", "string")
        if theirs not in _OURS:
            raise ContentsError(f"{theirs!r} is not a type of GraphML")
        self.type = attributes.get(f"{OURS} type", _OURS[theirs])
        #: The names of its attributes.
        self.told = attributes.keys()
        self.kind = attributes.get(f"{OURS} kind", "register")
        if self.kind not in KINDS:
            raise ContentsError(f"{self.kind!r} is not a kind; there are {', '.join(KINDS)}")
        self.default: str | None = None

    def parse_value(self, text: str) -> Any:
        """Return what data says. Raise `ContentsError`."""
        written = text.strip() if self.type in ("bool", "int", "float") else text
        if self.type == "bool":
            written = {"1": "true", "0": "false"}.get(written.lower(), written.lower())
        if self.type == "float" and written.lower() in ("nan", "inf", "infinity", "-inf", "-infinity"):
            return float(written)
        return value_of(self.type, written)


class _Reading:
    """What was read of a document so far."""

    def __init__(self) -> None:
        self.is_graphml = False
        self._path: list[str] = []
        self._keys: dict[str, _Key] = {}
        self._nodes: dict[str, dict[str, str]] = {}
        self._edges: list[tuple[dict[str, str], dict[str, str], bool]] = []
        self._data: dict[str, str] | None = None
        self._key = ""
        self._text: list[str] = []
        self._directed = True
        self._left: dict[str, str] = {}
        self._starts: dict[str, Callable[[dict[str, str]], None]] = {
            "graphml": self._begin_graphml, "key": self._new_key, "graph": self._begin_graph,
            "node": self._begin_node, "edge": self._begin_edge, "data": self._begin_data, "default": self._begin_text,
        }  # fmt: skip

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Begin an element."""
        space, _, local = name.rpartition(" ")
        if len(self._path) >= 64:
            raise ContentsError("elements are more than 64 deep")
        inside = self._path[-1] if self._path else ""
        self._path.append(local if space in ("", NAMESPACE) else name)
        begin = self._starts.get(self._path[-1])
        if self._path[0] != "graphml":
            raise ContentsError(f"no GraphML: it begins with <{local[:40]}>")
        if local in ("hyperedge", "port") or (local == "graph" and inside != "graphml"):
            raise ContentsError(f"a graph here has no <{local}> inside of <{inside}>")
        if begin is not None:
            begin(attributes)
        elif local != "desc":
            self._left[f"<{local}>"] = "nothing here is like it"

    def add_text(self, text: str) -> None:
        """Take text between elements."""
        self._text.append(text)

    def end_element(self, name: str) -> None:
        """End an element."""
        local = self._path.pop()
        if local == "data" and self._data is not None:
            if self._key in self._data:
                raise ContentsError(f"an element has two <data> of key {self._key!r}")
            self._data[self._key] = "".join(self._text)
        elif local == "default":
            list(self._keys.values())[-1].default = "".join(self._text)
        elif local in ("node", "edge"):
            self._data = None

    def _begin_graphml(self, attributes: dict[str, str]) -> None:
        pass

    def _new_key(self, attributes: dict[str, str]) -> None:
        key = _Key(attributes)
        if key.id in self._keys:
            raise ContentsError(f"the key {key.id!r} is there twice")
        self._keys[key.id] = key

    def _begin_graph(self, attributes: dict[str, str]) -> None:
        if self.is_graphml:
            raise ContentsError("it has several graphs; import one at a time")
        self.is_graphml = True
        self._directed = attributes.get("edgedefault", "directed") == "directed"

    def _begin_node(self, attributes: dict[str, str]) -> None:
        soul = _named(attributes, "id")
        if not soul or soul in self._nodes:
            raise ContentsError(f"a node has no id, or one that is there twice: {soul!r}")
        self._data = self._nodes[soul] = {}

    def _begin_edge(self, attributes: dict[str, str]) -> None:
        directed = attributes.get("directed", str(self._directed)).lower() == "true"
        self._data = {}
        self._edges.append((dict(attributes), self._data, directed))

    def _begin_data(self, attributes: dict[str, str]) -> None:
        self._key = attributes.get("key", "")
        self._text = []
        if self._key not in self._keys:
            raise ContentsError(f"<data> of key {self._key!r}, of which there is no <key>")
        if self._data is None:
            self._left[f"data {self._key!r} of the graph"] = "a graph has none of its own"

    def _begin_text(self, attributes: dict[str, str]) -> None:
        if len(self._path) < 2 or self._path[-2] != "key":
            raise ContentsError("<default> is inside of a <key>")
        self._text = []

    # ---- what it is -----------------------------------------------------------------------------------------

    def get_found(self) -> FoundItems:
        """Return all of it."""
        defaults = {key.id: key.default for key in self._keys.values() if key.default is not None}
        items: _Items = {}
        for soul, data in self._nodes.items():
            given = {
                id: text for id, text in defaults.items() if self._keys[id].domain in ("node", "all")
            } | data
            for id, text in given.items():
                key = self._keys[id]
                self._put_item(items, Item(soul, key.name, key.kind, key.parse_value(text)))
        for attributes, data, directed in self._edges:
            given = {id: t for id, t in defaults.items() if self._keys[id].domain in ("edge", "all")} | data
            self._put_link(items, attributes, given, directed=directed)
        return FoundItems(list(items.values()), [LeftOut(what, why) for what, why in self._left.items()])

    def _put_item(self, items: _Items, one: Item) -> None:
        if one[:3] in items:
            raise ContentsError(f"{one.kind} {one.key!r} of {one.soul!r} is there twice")
        items[one.soul, one.key, one.kind] = one

    def _put_link(
        self,
        items: _Items,
        attributes: dict[str, str],
        data: dict[str, str],
        *,
        directed: bool,
    ) -> None:
        ends = _named(attributes, "source"), _named(attributes, "target")
        label: Any = NO_LABEL
        properties: dict[str, Any] = {}
        for id, text in data.items():
            key = self._keys[id]
            if key.name == "label" and f"{OURS} kind" not in key.told:
                label = plain.loads(text) if f"{OURS} label" in attributes else text
            else:
                properties[key.name] = key.parse_value(text)
        if not isinstance(label, str):
            raise ContentsError("an edge's label must be text")
        for source, target in [ends] if directed else [ends, ends[::-1]]:
            if source is None or target is None or not self._nodes.keys() >= {source, target}:
                raise ContentsError(f"an edge from {source!r} to {target!r}, and one of them is not a node")
            if attributes.get(f"{OURS} kind") == "register":
                self._put_item(items, Item(source, label, "register", Link(target)))
                self._put_properties(items, (source, label, target), properties)
                continue
            links = items.setdefault((source, label, "set"), Item(source, label, "set", []))
            if type(links.value) is not list:
                raise ContentsError(f"{label!r} of {source!r} is data and edges at once")
            if Link(target) in links.value:
                self._left[f"another edge {label!r} from {source!r} to {target!r}"] = "links are a set"
            else:
                links.value.append(Link(target))
                self._put_properties(items, (source, label, target), properties)

    def _put_properties(self, items: _Items, link: tuple[str, str, str], properties: dict[str, Any]) -> None:
        source, label, target = link
        if properties:
            nothing = Item(source, label, "relationships", {})
            items.setdefault((source, label, "relationships"), nothing).value[target] = properties
