"""Frames of a show on a stream: one read, one written."""

from __future__ import annotations

import asyncio

from dtp.broadcast import messages as m
from dtp.broadcast.errors import ShowMessageError
from dtp.net.stream import Stream


async def read(stream: Stream) -> m.Message | None:
    """Return the next message, None at the end of the stream. Raise `ShowMessageError`, and what broke the stream."""
    try:
        kind, size = m.parse_head(await stream.readexactly(m.HEAD.size))
        return m.parse(kind, await stream.readexactly(size))
    except asyncio.IncompleteReadError as fault:
        if fault.partial:
            raise ShowMessageError("a frame is cut short") from None
        return None


def write(stream: Stream, message: m.Message) -> None:
    """Queue a message; follow it with `await stream.drain()`."""
    stream.write(m.build(message))
