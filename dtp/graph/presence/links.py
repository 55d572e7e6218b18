"""Presence over connections: a stream of its own beside that of the sync. docs/presence.md, "Messages"."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import msgpack

from dtp.errors import PeerError
from dtp.graph.errors import SyncError
from dtp.graph.presence.presence import INTERVAL, Presence
from dtp.graph.presence.roster import MAX_HERE, PresencePeer
from dtp.graph.presence.state import SESSION, Key, check_genuine, decode
from dtp.packing import unpack
from dtp.session.codes import ConnectionClosed, StreamReset
from dtp.tasks import start_task

if TYPE_CHECKING:
    from dtp.graph.graph import Graph
    from dtp.net.connection import Connection
    from dtp.net.stream import Stream

log = logging.getLogger("dtp.graph")

VERSION: Final = 1
#: States in one message, at most; and bytes of their values, unless it is a single one.
MAX_STATES: Final = 64
MESSAGE_BYTES: Final = 64 * 1024
#: Bytes of a message, at most.
MAX_MESSAGE: Final = MESSAGE_BYTES + 16 * 1024
#: States that are read from a connection in a second, at most: for more of them it waits, until its sender does.
MAX_RATE: Final = 2000
#: The code that a stream is reset with when the other end broke the protocol.
BROKEN: Final = 1
#: States that are checked at once without a thread: less than a millisecond of work.
_FEW: Final = 8
_AUTHOR: Final = 32


class PresenceMessage(IntEnum):
    """What a message is: its first element. A stream that begins with PRESENCE is about it, not a sync."""

    PRESENCE = 32
    STATES = 33
    GONE = 34


def is_hello(message: bytes) -> bool:
    """Return whether a stream's first message is about presence."""
    return message[1:2] == bytes((PresenceMessage.PRESENCE,))


async def open_link(graph: Graph, connection: Connection) -> None:
    """Tell the other end of a connection who is there, and hear of it, until that or the graph is closed."""
    try:
        await run(graph, await connection.open_stream())
    except ConnectionClosed:
        return
    except PeerError as error:
        log.warning("presence with %s ended: %s", connection.peer.short, error)


async def run(graph: Graph, stream: Stream, first: bytes | None = None) -> None:
    """Run over a stream, of which `first` came already. Raises `PeerError` when the peer breaks the protocol."""
    try:
        _send(stream, PresenceMessage.PRESENCE, VERSION, graph.name)
        await stream.drain()
        _check_hello(graph, first if first is not None else await anext(_messages(stream), None))
        await _run_link(graph, stream)
        stream.close()
    except (ConnectionClosed, StreamReset):
        stream.close()
    except SyncError:
        graph.presence.count_broken()
        stream.reset(BROKEN)
        raise
    except BaseException:
        stream.reset()
        raise


async def _run_link(graph: Graph, stream: Stream) -> None:
    presence, wake = graph.presence, asyncio.Event()
    link = presence.attach_link(stream.connection.peer.key, wake)
    tasks = {
        start_task(_receive(graph.name, presence, link, stream), name="dtp-presence-receive"),
        start_task(_tell(link, stream, wake), name="dtp-presence-send"),
        start_task(presence.ended.wait(), name="dtp-presence-end"),
    }
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        while presence.ended.is_set() and link.pending:
            _send_pending(link, stream)  # a last word, for which nobody waits
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        presence.detach_link(link)


def _check_hello(graph: Graph, message: bytes | None) -> None:
    if message is None:
        raise SyncError("the peer ended the stream of presence before it began")
    kind, parts = _unpacked(message)
    if kind != PresenceMessage.PRESENCE or len(parts) != 2 or parts[0] != VERSION or type(parts[0]) is bool:
        raise SyncError(f"the peer speaks another version of presence than {VERSION}")
    if parts[1] != graph.name:
        raise SyncError(f"the peer tells presence of graph {parts[1]!r}, not {graph.name!r}")


# ---- sending ------------------------------------------------------------------------------------------------------


def _send(stream: Stream, *parts: Any) -> None:
    message = msgpack.packb(parts)
    stream.write(len(message).to_bytes(4, "big") + message)


async def _tell(link: PresencePeer, stream: Stream, wake: asyncio.Event) -> None:
    """Tell the link what it is to be told, some of it every `INTERVAL`."""
    while True:
        await wake.wait()
        wake.clear()
        while link.pending:
            _send_pending(link, stream)
            await stream.drain()
            await asyncio.sleep(INTERVAL)


def _send_pending(link: PresencePeer, stream: Stream) -> None:
    states, gone = link.take_pending(MAX_STATES, MESSAGE_BYTES)
    if gone:  # first, so that there is room for whoever comes
        _send(stream, PresenceMessage.GONE, gone)
    if states:
        _send(stream, PresenceMessage.STATES, [state.encode() for state in states])


# ---- receiving ----------------------------------------------------------------------------------------------------


async def _messages(stream: Stream) -> AsyncIterator[bytes]:
    head = b""
    while True:
        try:
            head = await stream.readexactly(4)
            size = int.from_bytes(head, "big")
            if size > MAX_MESSAGE:
                raise SyncError(f"a message of {size} bytes about presence; at most {MAX_MESSAGE} are taken")
            message = await stream.readexactly(size)
            head = b""
            yield message
        except asyncio.IncompleteReadError as error:
            if head or error.partial:
                raise SyncError("the stream ended within a message") from error
            return


def _unpacked(message: bytes) -> tuple[Any, list[Any]]:
    parts = unpack(message, SyncError, "a message about presence")
    if not isinstance(parts, list) or not parts:
        raise SyncError("not a message about presence")
    return parts[0], parts[1:]


async def _receive(graph: str, presence: Presence, link: PresencePeer, stream: Stream) -> None:
    loop = asyncio.get_running_loop()
    free = loop.time()  # when what has come so far is worked off at `MAX_RATE`
    async for message in _messages(stream):
        kind, parts = _unpacked(message)
        if len(parts) != 1 or not isinstance(parts[0], list) or len(parts[0]) > _most(kind):
            raise SyncError("the peer sends something that is not a message about presence, or is too long")
        if kind == PresenceMessage.GONE:
            presence.remove_states(link, [_key(one) for one in parts[0]])
        else:
            states = presence.filter_wanted(link, [decode(one) for one in parts[0]])
            if states:
                if len(states) <= _FEW:
                    check_genuine(states, graph)
                else:
                    await asyncio.to_thread(check_genuine, states, graph)
                presence.add_states(link, states)
        free = max(free, loop.time() - 1) + max(1, len(parts[0])) / MAX_RATE
        if free > loop.time():
            await asyncio.sleep(free - loop.time())


def _most(kind: Any) -> int:
    if type(kind) is not int or kind not in (PresenceMessage.STATES, PresenceMessage.GONE):
        raise SyncError(f"the peer sends a message of kind {kind!r} where presence is told")
    return MAX_STATES if kind == PresenceMessage.STATES else MAX_HERE


def _key(parts: Any) -> Key:
    whole = isinstance(parts, list) and len(parts) == 2 and all(type(part) is bytes for part in parts)
    if not whole or [len(part) for part in parts] != [_AUTHOR, SESSION]:
        raise SyncError("the peer says that somebody is gone, but not who")
    return Key(*parts)
