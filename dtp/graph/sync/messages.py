"""Messages of a sync on a stream, each behind its length, and what has gone over it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dtp.graph.errors import SyncError
from dtp.graph.sync import protocol

if TYPE_CHECKING:
    from dtp.net.stream import Stream


@dataclass
class Exchanged:
    """What went over a connection: envelopes that were new to either end, and bytes of messages."""

    received: int = 0
    sent: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    #: Whether the peer takes nothing of this identity: it was banned there, has sent too much, or is dated ahead.
    refused: bool = False
    #: Whether the peer gave all that was asked for: it may have, or give, only a part.
    is_whole: bool = True


class SyncMessages:
    """The messages of one stream, both ways; `exchanged` counts what goes over it."""

    def __init__(self, stream: Stream, exchanged: Exchanged, first: bytes | None = None) -> None:
        """`first` is a message that was read already, to see what the stream is for."""
        self.exchanged = exchanged
        self._stream = stream
        self._first = first

    def write_message(self, message: bytes) -> None:
        """Write a message, and don't wait for room."""
        self._stream.write(len(message).to_bytes(4, "big") + message)
        self.exchanged.bytes_sent += 4 + len(message)

    async def send_message(self, message: bytes) -> None:
        """Write a message, and wait until there is room for another one."""
        self.write_message(message)
        await self._stream.drain()

    async def send_envelopes(self, envelopes: list[bytes]) -> None:
        """Send envelopes, in as many messages as that takes."""
        for message in protocol.encode_frames(envelopes):
            await self.send_message(message)
        self.exchanged.sent += len(envelopes)

    async def next_message(self) -> bytes | None:
        """Return the next message; None at the end. Raise `SyncError` for one that is too large or cut off."""
        message, self._first = self._first, None
        if message is None:
            message = await read_message(self._stream)
        if message is not None:
            self.exchanged.bytes_received += 4 + len(message)
        return message


async def read_message(stream: Stream) -> bytes | None:
    """Return the next message; None at the end. Raise `SyncError` for one that is too large or cut off."""
    try:
        size = int.from_bytes(await stream.readexactly(4), "big")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise SyncError("the stream ended within a message") from error
        return None
    if size > protocol.MAX_MESSAGE:
        raise SyncError(f"a message of {size} bytes; at most {protocol.MAX_MESSAGE} are taken")
    try:
        return await stream.readexactly(size)
    except asyncio.IncompleteReadError as error:
        raise SyncError("the stream ended within a message") from error
