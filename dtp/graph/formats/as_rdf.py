"""A graph as RDF: N-Triples are written, Turtle (of which they are a part) is read. docs/formats.md, "RDF"."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

from dtp.crdt import Link, parts, values
from dtp.crdt.temporal import SECOND, Date, Duration, as_temporal, name_of
from dtp.crdt.values import is_links
from dtp.graph.errors import ContentsError, GraphError
from dtp.graph.formats import plain
from dtp.graph.formats.items import KINDS, FoundItems, Item

if TYPE_CHECKING:
    from rdflib import Graph as Triples

SOUL: Final = "urn:dtp:soul:"
#: Before a kind and a key.
KEY: Final = "urn:dtp:"
JSON: Final = "urn:dtp:json"
_RDF: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_STATEMENT: Final = f"{_RDF}Statement"
_XSD: Final = "http://www.w3.org/2001/XMLSchema#"
_INTEGERS: Final = frozenset(
    f"{_XSD}{name}"
    for name in (
        "integer", "int", "long", "short", "byte", "nonNegativeInteger", "positiveInteger", "nonPositiveInteger",
        "negativeInteger", "unsignedLong", "unsignedInt", "unsignedShort", "unsignedByte",
    )
)  # fmt: skip
_FLOATS: Final = frozenset({f"{_XSD}double", f"{_XSD}float"})
_BOOLEAN: Final = f"{_XSD}boolean"
_DATED: Final = frozenset(f"{_XSD}{name}" for name in ("date", "time", "dateTime", "duration"))
#: What is read of those, and written; a minute that nothing follows but an offset.
_FORM: Final = re.compile(r"(\d{4}-\d\d-\d\d)?(T?\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)?)?", re.ASCII)
_MINUTES: Final = re.compile(r"((?:^|(?<=T))\d\d:\d\d)")
_OFFSET: Final = re.compile(r"Z$|[+-]\d\d:\d\d$")
_STRING: Final = f"{_XSD}string"
#: Types that are read as values of a graph; all others are kept beside their texts.
_READ: Final = _INTEGERS | _FLOATS | {_BOOLEAN, _STRING, JSON}
_LANGUAGE: Final = re.compile("[a-z]{1,8}(-[a-z0-9]{1,8})*")
_SAFE: Final = "/:@~!$&'()*+,;="
_IRI: Final = re.compile(r"(?!urn:dtp:)[A-Za-z][A-Za-z0-9+.-]*:[^\x00-\x20<>\"{}|^`\\\x7f-\x9f]+")


def _loaded() -> Any:
    try:
        import rdflib
    except ImportError as error:
        raise GraphError("reading RDF takes a package: pip install 'dtp-sockets[graph-rdf]'") from error
    return rdflib


# ---- writing --------------------------------------------------------------------------------------------------


def write(name: str, found: FoundItems) -> str:
    """Return lines of N-Triples."""
    at: dict[tuple[str, str], int] = {}
    for one in found.items:
        at[one.soul, one.key] = at.get((one.soul, one.key), 0) + 1
    lines = []
    links: dict[tuple[str, str, str], str] = {}
    relationships = [one for one in found.items if one.kind == "relationships"]
    for one in relationships:  # they are at the link
        at[one.soul, one.key] -= 1
    for one in found.items:
        if one.kind == "relationships":
            continue
        predicate = _predicate(one, alone=at[one.soul, one.key] == 1)
        objects = one.value if one.kind == "set" else [one.value]
        lines += [f"<{_iri(one.soul)}> <{predicate}> {_object(value)} .\n" for value in objects]
        links.update(
            {(one.soul, one.key, value.soul): predicate for value in objects if isinstance(value, Link)}
        )
    return "".join([*lines, *(line for one in relationships for line in _statements(one, links))])


def _statements(one: Item, links: dict[tuple[str, str, str], str]) -> Iterator[str]:
    """Yield the properties of links: of a statement (rdf:Statement) about each link's triple."""
    for target, properties in one.value.items():
        link = (one.soul, one.key, target)
        named = f"<{_iri(parts.relationship_soul(*link))}>"
        predicate = links.get(link, f"{KEY}set:{quote(one.key, safe=_SAFE)}")
        for name, value in (
            ("type", _STATEMENT), ("subject", _iri(one.soul)), ("predicate", predicate), ("object", _iri(target))
        ):  # fmt: skip
            yield f"{named} <{_RDF}{name}> <{value}> .\n"
        for key, value in properties.items():
            said = _predicate(Item(one.soul, key, "register", value), alone=True)
            yield f"{named} <{said}> {_object(value)} .\n"


def _iri(soul: str) -> str:
    return soul if _IRI.fullmatch(soul) else SOUL + quote(soul, safe=_SAFE)


def _predicate(one: Item, *, alone: bool) -> str:
    """Return the IRI of a key: the key itself, if it is one, where what it has is read as the same kind again."""
    is_literal = isinstance(one.value, str | bool | int | float) or _dated(one.value) is not None
    as_read = (one.kind == "register" and is_literal) or (one.kind == "set" and is_links(one.value))
    if alone and as_read and _IRI.fullmatch(one.key):
        return one.key
    return f"{KEY}{one.kind}:{quote(one.key, safe=_SAFE)}"


def _object(value: Any) -> str:
    if isinstance(value, Link):
        return f"<{_iri(value.soul)}>"
    if isinstance(value, bool):
        return f'"{str(value).lower()}"^^<{_XSD}boolean>'
    if isinstance(value, int) and abs(value) < 10**plain.MOST_DIGITS:
        return f'"{value}"^^<{_XSD}integer>'
    if isinstance(value, float):
        text = str(value).upper() if math.isinf(value) else "NaN" if math.isnan(value) else repr(value)
        return f'"{text}"^^<{_XSD}double>'
    if isinstance(value, str) and plain.is_plain(value):
        return _literal(value)
    if dated := _dated(value):
        return dated
    if isinstance(value, dict) and (foreign := _foreign(value)) is not None:
        return foreign
    return f"{_literal(json.dumps(plain.to_plain(value)))}^^<{JSON}>"


def _dated(value: Any) -> str | None:
    """Return a date, a time or a duration as XML Schema writes it; None for those of which it has no form."""
    if not name_of(value):
        return None
    one = as_temporal(value)
    text = str(one)
    if isinstance(one, Duration):
        is_form = min(one.months, one.days, one.nanoseconds) >= 0
    else:
        if not isinstance(one, Date) and one.nanoseconds % (60 * SECOND) == 0:  # seconds are always there
            text = _MINUTES.sub(r"\1:00", text, 1)
        is_form = _FORM.fullmatch(text) is not None
    types = {"localtime": "time", "localdatetime": "dateTime", "datetime": "dateTime"}
    name = name_of(value)
    return f'"{text}"^^<{_XSD}{types.get(name, name)}>' if is_form else None


def _from_dated(type: str, text: str) -> Any:
    """Return the date, time or duration of a literal; None for one that a graph can't have."""
    name = type.removeprefix(_XSD).lower()
    if type not in _DATED or (_FORM.fullmatch(text) is None and name != "duration"):
        return None
    if name in ("time", "datetime") and _OFFSET.search(text) is None:
        name = f"local{name}"
    try:
        return plain.to_temporal(name, text)
    except ContentsError:
        return None


def _literal(text: str) -> str:
    for sign, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\t", "\\t")):
        text = text.replace(sign, escaped)
    return f'"{text}"'


def _foreign(value: dict[str, Any]) -> str | None:
    """Return a literal that came from elsewhere, in a language or of a type that graphs don't have."""
    text = value.get("@value")
    if len(value) != 2 or not isinstance(text, str) or not plain.is_plain(text):
        return None
    language, type = value.get("@language"), value.get("@type")
    if isinstance(language, str) and _LANGUAGE.fullmatch(language):
        return f"{_literal(text)}@{language}"
    if (
        isinstance(type, str)
        and _IRI.fullmatch(type)
        and type not in _READ
        and _from_dated(type, text) is None
    ):
        return f"{_literal(text)}^^<{type}>"
    return None


# ---- reading --------------------------------------------------------------------------------------------------


def read(text: str) -> FoundItems:
    """Return what Turtle says. Raise `ContentsError`; `GraphError` without rdflib."""
    rdflib = _loaded()
    if text and not text.endswith("\n"):
        raise ContentsError("the last line has no end: the file was cut off")
    triples = rdflib.Graph()
    normalized, rdflib.NORMALIZE_LITERALS = (
        rdflib.NORMALIZE_LITERALS,
        False,
    )  # numbers stay as they are written
    try:
        triples.parse(data=text, format="turtle", publicID="urn:dtp:none:")
    except RecursionError as error:
        raise ContentsError("it is nested too deep") from error
    except Exception as error:  # rdflib has no error of its own for all that is wrong with a file
        raise ContentsError(f"not Turtle: {str(error)[:200]}") from error
    finally:
        rdflib.NORMALIZE_LITERALS = normalized
    return FoundItems(_items(rdflib, triples), [])


def _items(rdflib: Any, triples: Triples) -> list[Item]:
    items: dict[tuple[str, str, str], Item] = {}
    lists = set(triples.subjects(rdflib.RDF.rest))
    statements = dict(_read_statements(rdflib, triples))
    for soul, key, target in statements.values():
        nothing = Item(soul, key, "relationships", {})
        items.setdefault((soul, key, "relationships"), nothing).value.setdefault(target, {})
    for node, predicate, target in triples:
        if node in statements:
            if predicate not in (getattr(rdflib.RDF, name) for name in _OF_STATEMENT):
                soul, key, other = statements[node]
                properties = items[soul, key, "relationships"].value[other]
                _add_property(properties, _kind(str(predicate))[1], _value(rdflib, triples, target))
            continue
        if node in lists and isinstance(node, rdflib.BNode):
            continue
        soul = _soul(rdflib, node)
        value = _value(rdflib, triples, target)
        kind, key = _kind(str(predicate))
        if kind is None:
            several = len(set(triples.objects(node, predicate))) > 1
            kind = (
                "set"
                if several or isinstance(value, Link)
                else "list"
                if isinstance(value, list)
                else "register"
            )
        there = items.get((soul, key, kind))
        if kind == "set":
            if there is None:
                there = items[soul, key, kind] = Item(soul, key, kind, [])
            there.value.append(value)
        elif there is None:
            items[soul, key, kind] = Item(soul, key, kind, value)
        else:
            raise ContentsError(f"{kind} {key!r} of {soul!r} is there twice")
    return list(items.values())


#: What a statement says of a triple.
_OF_STATEMENT: Final = ("type", "subject", "predicate", "object")


def _read_statements(rdflib: Any, triples: Triples) -> Iterator[tuple[Any, tuple[str, str, str]]]:
    """Yield each statement about a link, and that link: (soul, key, target)."""
    rdf = rdflib.RDF
    for node in triples.subjects(rdf.type, rdf.Statement):
        source, predicate, target = (
            triples.value(node, one) for one in (rdf.subject, rdf.predicate, rdf.object)
        )
        if all(isinstance(one, rdflib.URIRef) for one in (source, predicate, target)):
            yield node, (_soul(rdflib, source), _kind(str(predicate))[1], _soul(rdflib, target))


def _add_property(properties: dict[str, Any], key: str, value: Any) -> None:
    """Have one more property; of several values a list, in an order that doesn't depend on the file's."""
    if key in properties:
        there = properties[key]
        several = [*there, value] if isinstance(there, list) else [there, value]
        properties[key] = sorted(several, key=values.encode)
    else:
        properties[key] = value


def _kind(predicate: str) -> tuple[str | None, str]:
    """Return the kind and the key that a predicate names; None for one from elsewhere, whose key it is itself."""
    if not predicate.startswith(KEY):
        return None, predicate
    kind, colon, key = predicate.removeprefix(KEY).partition(":")
    if not colon or kind not in KINDS:
        raise ContentsError(f"{predicate[:80]!r} names no kind; there are {', '.join(KINDS)}")
    return kind, _unquoted(key)


def _unquoted(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError as error:
        raise ContentsError(f"{text[:80]!r} is not UTF-8 in percent signs") from error


def _soul(rdflib: Any, node: Any) -> str:
    if not isinstance(node, rdflib.URIRef):
        raise ContentsError("a blank node has no name that stays: give it an IRI")
    text = str(node)
    return _unquoted(text.removeprefix(SOUL)) if text.startswith(SOUL) else text


def _value(rdflib: Any, triples: Triples, target: Any) -> Any:
    if isinstance(target, rdflib.BNode) or target == rdflib.RDF.nil:
        return list(_elements(rdflib, triples, target))
    if isinstance(target, rdflib.URIRef):
        return Link(_soul(rdflib, target))
    text, type = str(target), None if target.datatype is None else str(target.datatype)
    if target.language is not None:
        return {"@value": text, "@language": str(target.language)}
    if type == JSON:
        return plain.loads(text)
    if type in (None, _STRING):
        return text
    if type in _INTEGERS:
        return plain.to_int(text)
    if type in _FLOATS:
        return _float(text)
    if type == _BOOLEAN:
        if text not in ("true", "false", "1", "0"):
            raise ContentsError(f"{text[:40]!r} is not a boolean")
        return text in ("true", "1")
    dated = _from_dated(type, text)
    return {"@value": text, "@type": type} if dated is None else dated


def _float(text: str) -> float:
    if text in ("NaN", "INF", "+INF", "-INF"):
        return float(text)
    return plain.to_float(text)


def _elements(rdflib: Any, triples: Triples, at: Any) -> Iterator[Any]:
    """Yield the elements of a list. Raise `ContentsError` for what isn't a list, or has no end."""
    seen = set()
    while at != rdflib.RDF.nil:
        first, rest = list(triples.objects(at, rdflib.RDF.first)), list(triples.objects(at, rdflib.RDF.rest))
        if at in seen or len(first) != 1 or len(rest) != 1:
            raise ContentsError("a blank node that isn't a list has no lasting name: give it an IRI")
        seen.add(at)
        if isinstance(first[0], rdflib.BNode):
            raise ContentsError("a list has a blank node, which has no name that stays: give it an IRI")
        yield _value(rdflib, triples, first[0])
        at = rest[0]
