"""A graph as rows of CSV, one for each value. docs/formats.md, "CSV"."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from typing import Any, Final

from dtp.crdt import Link
from dtp.crdt.temporal import NAMES, as_temporal, name_of
from dtp.graph.errors import ContentsError
from dtp.graph.formats import plain
from dtp.graph.formats.items import KINDS, SEVERAL, FoundItems, Item

HEAD: Final = ["soul", "key", "kind", "type", "value"]


def write(name: str, found: FoundItems) -> str:
    """Return rows of RFC 4180; of a set, a list and values each value has one."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(HEAD)
    for one in found.items:
        for value in one.value if one.kind in SEVERAL else [one.value]:
            writer.writerow((one.soul, one.key, one.kind, *cell(value)))
    return out.getvalue()


def cell(value: Any) -> tuple[str, str]:
    """Return the type of a value, and how it is written."""
    if value is None:
        return "null", ""
    if isinstance(value, bool):
        return "bool", str(value).lower()
    if isinstance(value, str):
        return "text", value
    if isinstance(value, float) and math.isfinite(value):
        return "float", repr(value)
    if isinstance(value, Link):
        return "link", value.soul
    if name := name_of(value):
        return name, str(as_temporal(value))
    text = plain.dumps(value)
    return ("json", text) if text[0] in "[{" else ("int", text)


def value_of(kind: str, text: str) -> Any:
    """Return the value of a type as it is written. Raise `ContentsError`."""
    if kind == "text":
        return text
    if kind == "link":
        return Link(text)
    if kind == "int":
        return plain.to_int(text)
    if kind == "float":
        return plain.to_float(text)
    if kind == "bool" and text in ("true", "false"):
        return text == "true"
    if kind == "null" and not text:
        return None
    if kind == "json":
        return plain.loads(text)
    if kind in NAMES:
        return plain.to_temporal(kind, text)
    types = ", ".join(NAMES)
    raise ContentsError(
        f"{text[:40]!r} is not of type {kind}; types are text, int, float, bool, null, link, json, {types}"
    )


def read(text: str) -> FoundItems:
    """Return what rows say. Raise `ContentsError`, also where the last row has no end."""
    if not text.endswith("\n"):
        raise ContentsError("the last row has no end of line: the file was cut off")
    items: dict[tuple[str, str, str], Item] = {}
    for number, row in _rows(text):
        if len(row) != len(HEAD):
            raise ContentsError(f"row {number} has {len(row)} columns, not {len(HEAD)}")
        soul, key, kind, type, written = row
        if kind not in KINDS:
            raise ContentsError(f"row {number}: {kind!r} is not a kind; there are {', '.join(KINDS)}")
        try:
            value = value_of(type, written)
        except ContentsError as error:
            raise ContentsError(f"row {number}: {error}") from error
        there = items.get((soul, key, kind))
        if there is None:
            items[soul, key, kind] = Item(soul, key, kind, [value] if kind in SEVERAL else value)
        elif kind in SEVERAL:
            there.value.append(value)
        else:
            raise ContentsError(f"row {number}: {kind} {key!r} of {soul!r} is there twice")
    return FoundItems(list(items.values()), [])


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    limit = csv.field_size_limit(max(len(text), csv.field_size_limit()))
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise ContentsError(f"not CSV: {error}") from error
    finally:
        csv.field_size_limit(limit)
    if not rows or rows[0] != HEAD:
        raise ContentsError(f"the first row is {','.join(HEAD)}")
    return ((number, row) for number, row in enumerate(rows[1:], 2) if row)
