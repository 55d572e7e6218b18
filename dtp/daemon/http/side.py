"""One end of a conversation in HTTP/1.1: h11's state, and how bytes come and go."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import h11

from dtp.daemon.http import conversation
from dtp.daemon.http.conversation import Ended
from dtp.daemon.http.parsing import PER_TURN
from dtp.daemon.reasons import Reason

#: Of what was read so many pieces are understood, then others have their turn: some milliseconds.
_PIECES = 256
_BLANK = re.compile(rb"\n\r?\n")
#: So many times less than of heads it takes to go through other bytes.
_CHEAP = 16


class Side:
    """One end of the conversation: h11's state, and how bytes come and go."""

    def __init__(
        self,
        role: Any,
        read: Callable[[int], Awaitable[bytes]],
        write: Callable[[bytes], None],
        drain: Callable[[], Awaitable[None]],
        turn: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        """With `turn` heads, fields behind a body and small chunks are understood once it has returned."""
        self.http = h11.Connection(role, max_incomplete_event_size=conversation.HEAD_SIZE)
        self._read, self._write, self._drain = read, write, drain
        self._next: Any = None
        self._turn, self._chunked = turn, False
        #: Of a backend's side: whether it has answered before, and when it did last, or was dialled.
        self.used, self.since = False, 0.0

    async def event(self) -> Any:
        """What comes next. Raises `h11.RemoteProtocolError` and what reading raises."""
        event, self._next = self._next, None
        while event is None or event is h11.NEED_DATA:
            data = b""
            if event is not None:
                data = await self._read(conversation.READ)
                self.http.receive_data(data)
            if self._turn is not None:
                await self._turn(self._cost(data))
            event = self.http.next_event()
        if isinstance(event, h11.Request):
            self._chunked = any(name == b"transfer-encoding" for name, _ in event.headers)
        if isinstance(event, h11.Data):
            return await self._joined(event)
        if isinstance(event, h11.RemoteProtocolError):
            raise event
        return event

    def _cost(self, data: bytes) -> int:
        """Bytes that are understood next, of which `data` were read last."""
        state = self.http.their_state
        if state is h11.IDLE or (state is h11.SEND_BODY and self._chunked):
            kept = self.http.trailing_data[0]
            if end := _BLANK.search(kept):  # all of a head, or of the fields behind a body, is there
                return end.end() if state is h11.IDLE else len(kept)
        return len(data) // _CHEAP

    async def _joined(self, first: h11.Data) -> h11.Data:
        """Data with what was read behind it: chunks of a byte each would cost as much as large ones."""
        data = [first.data]
        for _ in range(_PIECES):
            try:
                self._next = self.http.next_event()
            except h11.RemoteProtocolError as error:
                self._next = error  # behind the data
            if not isinstance(self._next, h11.Data):
                return h11.Data(data=b"".join(data)) if len(data) > 1 else first
            data.append(self._next.data)
        self._next = None
        await (asyncio.sleep(0) if self._turn is None else self._turn(PER_TURN))
        return h11.Data(data=b"".join(data))

    async def send(self, event: Any) -> None:
        """Send it, as fast as the other side takes it."""
        data = self.http.send(event)
        if data:
            self._write(data)
            await self._drain()

    def reusable(self) -> bool:
        """Whether another exchange may follow; then this side is ready for it."""
        if self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
            self.http.start_next_cycle()
            self._next = None
            return True
        return False


async def answered(backend: Side) -> Any:
    """What the backend says next. Raises `Ended` when it says nothing more, or what is no HTTP."""
    try:
        event = await backend.event()
    except h11.RemoteProtocolError:
        raise Ended(Reason.BACKEND_BROKE) from None
    if isinstance(event, h11.ConnectionClosed):
        raise Ended(Reason.BACKEND_BROKE)
    return event
