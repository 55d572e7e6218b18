"""Asking a peer which nodes a query finds there, to have those as a part. docs/partial.md, "By a query"."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import msgpack

from dtp.crdt import Node, Value, values
from dtp.graph.errors import GraphError, SyncError
from dtp.graph.query.errors import QueryError
from dtp.graph.query.values.semantics import Path
from dtp.graph.sync.part import MAX_SOULS, Part
from dtp.packing import unpack_array

if TYPE_CHECKING:
    from dtp.graph.graph import Graph
    from dtp.net.connection import Connection
    from dtp.net.stream import Stream

VERSION: Final = 1
#: Bytes of a question, at most.
MAX_QUESTION: Final = 64 * 1024
#: Bytes of an answer, at most.
MAX_ANSWER: Final = 4 << 20


class QueryMessage(IntEnum):
    """What a message is: its first element. A stream that begins with ASK is about a query, not a sync."""

    ASK = 48
    FOUND = 49
    REFUSED = 50


def is_question(message: bytes) -> bool:
    """Return whether a stream's first message asks a query."""
    return message[1:2] == bytes((QueryMessage.ASK,))


async def ask(graph: Graph, connection: Connection, text: str, parameters: Mapping[str, Value]) -> Part:
    """Return the part that a query finds at a peer, as `Graph.ask` does."""
    question = _packed(QueryMessage.ASK, VERSION, graph.name, text, values.encode(dict(parameters)))
    if len(question) > MAX_QUESTION:
        raise GraphError(f"a query and its parameters have at most {MAX_QUESTION} bytes for a peer")
    stream = await connection.open_stream()
    try:
        stream.write(question)
        stream.write_eof()
        kind, found = _read(await _answer_on(stream), (QueryMessage.FOUND, list), (QueryMessage.REFUSED, str))
        if kind == QueryMessage.REFUSED:
            raise QueryError(f"the peer doesn't answer this query: {found}")
        part = _part(found)
    except BaseException:
        stream.reset()
        raise
    stream.close()
    return part


async def _answer_on(stream: Stream) -> bytes:
    try:
        size = int.from_bytes(await stream.readexactly(4), "big")
        if size > MAX_ANSWER:
            raise SyncError(f"an answer of {size} bytes; at most {MAX_ANSWER} are taken")
        return await stream.readexactly(size)
    except asyncio.IncompleteReadError as error:
        raise SyncError("the peer ended the stream before it had answered") from error


def _part(found: list[Any]) -> Part:
    """Return the souls of an answer, none of which is checked: they are names."""
    if not all(type(soul) is str for soul in found):
        raise SyncError("the peer answers with something that is not a list of souls")
    try:
        return Part(souls=found)
    except GraphError as error:
        raise SyncError(f"the peer answers with something that is not a list of souls: {error}") from error


async def answer(graph: Graph, stream: Stream, question: bytes, *, is_served: bool) -> None:
    """Answer a question with the souls of all nodes in the query's rows. Raises `SyncError`."""
    if len(question) > MAX_QUESTION:
        raise SyncError(f"the peer asks in {len(question)} bytes; at most {MAX_QUESTION} are taken")
    stream.write(await _answered(graph, question, is_served))
    stream.close()


async def _answered(graph: Graph, question: bytes, is_served: bool) -> bytes:
    _, version, name, text, packed = _read(question, (QueryMessage.ASK, int, str, str, bytes))
    if version != VERSION or name != graph.name:
        raise SyncError(f"the peer asks about graph {name!r} by version {version}")
    try:
        parameters = values.decode(packed)
    except (ValueError, TypeError) as error:
        raise SyncError(f"the peer asks with parameters that can't be read: {error}") from error
    if not isinstance(parameters, dict) or not all(type(key) is str for key in parameters):
        raise SyncError("the peer asks with parameters that are not a map by name")
    if not is_served or graph.part is not None:
        return _packed(QueryMessage.REFUSED, "queries aren't served here, or not all of the graph is here")
    try:
        rows = await graph.query_async(text, **parameters)
    except QueryError as error:
        return _packed(QueryMessage.REFUSED, str(error)[:1000])
    found = sorted({soul for row in rows for soul in _souls(list(row.values()))})
    message = _packed(QueryMessage.FOUND, found)
    if len(found) > MAX_SOULS or len(message) > MAX_ANSWER:
        return _packed(QueryMessage.REFUSED, f"it finds {len(found)} nodes, which are too many for a part")
    return message


def _souls(value: Any) -> Iterator[str]:
    """Yield the souls of all nodes in a value of a row."""
    if isinstance(value, Node):
        yield value.soul
    elif isinstance(value, Path):
        yield from (node.soul for node in value.nodes)
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _souls(each)


def _packed(*parts: Any) -> bytes:
    message: bytes = msgpack.packb(parts)
    return len(message).to_bytes(4, "big") + message


def _read(message: bytes, *kinds: tuple[Any, ...]) -> list[Any]:
    """Return the parts of a message of one of these kinds. Raise `SyncError`."""
    return unpack_array(message, SyncError, "a message about a query", *kinds)
