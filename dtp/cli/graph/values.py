"""Values of a graph on the command line: read from text, shown as text and as JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dtp.cli.output import print_result, printable

if TYPE_CHECKING:
    from dtp.crdt.types import Node
    from dtp.graph import Graph, PrivateNode
    from dtp.graph.formats.items import LeftOut


def registers_of(graph: Graph, soul: str) -> Node | PrivateNode:
    """Return a node's keys and values; those of a private one are sealed and opened."""
    return graph.private(soul) if graph.is_private(soul) else graph.node(soul)


def read_value(text: str) -> Any:
    """Return what VALUE says."""
    from dtp.crdt import GraphValueError, Link
    from dtp.crdt.temporal import NAMES, TemporalError
    from dtp.crdt.temporal_text import read

    try:
        value = json.loads(text)
    except ValueError:
        return text
    if isinstance(value, dict) and len(value) == 1:
        ((name, inner),) = value.items()
        if name == "link" and isinstance(inner, str):
            return Link(inner)
        if name in NAMES and isinstance(inner, str):
            try:
                return read(NAMES[name], inner)
            except TemporalError as error:
                raise GraphValueError(str(error)) from error
    return value


def plain_value(value: Any) -> Any:
    """Return a value as JSON has it."""
    from dtp.crdt import BlobRef, Link
    from dtp.crdt.temporal import as_temporal, name_of

    if isinstance(value, Link):
        return {"link": value.soul}
    if isinstance(value, BlobRef):
        return {"blob": value.id.hex(), "size": value.size}
    if name := name_of(value):
        return {name: str(as_temporal(value))}
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, list):
        return [plain_value(item) for item in value]
    if isinstance(value, dict):
        return {key: plain_value(item) for key, item in value.items()}
    return value


def shown_value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(plain_value(value), ensure_ascii=False)


def print_done(text: str, record: dict[str, Any], left: Sequence[LeftOut | str]) -> None:
    """Say how much there was, and what was left out."""
    lines = [text, *(f"left out: {one}" for one in left)]
    print_result(record | {"left": [str(one) for one in left]}, "\n".join(map(printable, lines)))
