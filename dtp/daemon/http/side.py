"""One side of an HTTP/1.1 conversation: h11's state, and how bytes are read and written."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import h11

from dtp.daemon.http import conversation
from dtp.daemon.http.conversation import Ended
from dtp.daemon.http.headers import MOST_FIELDS
from dtp.daemon.http.parsing import LEAST, PER_TURN
from dtp.daemon.reasons import Reason

#: The most pieces of what was read that are parsed before others have their turn: some milliseconds.
_PIECES = 256
#: Statuses of answers without a body (RFC 9110, 6.4.1).
_BODYLESS = (204, 304)
#: Fields of which a message may have only one.
_LENGTHS = {b"content-length", b"transfer-encoding"}
_BLANK = re.compile(rb"\n\r?\n")
#: The end of a chunk, unless it was read already, and the line that starts the next.
_CHUNK = re.compile(rb"(?:\r\n|\n)?+([^\n]*)\n")
#: Other bytes are this many times cheaper to parse than those of heads.
_CHEAP = 16


class Side:
    """One side of the conversation: h11's state, and how bytes are read and written."""

    def __init__(
        self,
        role: Any,
        read: Callable[[int], Awaitable[bytes]],
        write: Callable[[bytes], None],
        drain: Callable[[], Awaitable[None]],
        turn: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        """With `turn`, heads, trailers and small chunks are parsed only once it has returned."""
        self.http = h11.Connection(role, max_incomplete_event_size=conversation.HEAD_SIZE)
        self._read, self._write, self._drain = read, write, drain
        self._next: Any = None
        self._turn = turn
        #: Whether fields come next, of a head or trailers; and whether the line that starts a chunk does.
        self._at_fields, self._at_chunk = True, False
        #: For a backend: whether only the head of its answer was asked for.
        self._head_only = False
        #: For a backend: whether it has answered before, and when it last did, or else was dialled.
        self.used, self.since = False, 0.0

    async def next_event(self) -> Any:
        """Return the next event. Raise `h11.RemoteProtocolError`, and what reading raises."""
        event, self._next = self._next, None
        while event is None or event is h11.NEED_DATA:
            data = b""
            if event is not None:
                data = await self._read(conversation.READ)
                self.http.receive_data(data)
            if self._turn is not None:
                await self._turn(self._parse_cost(data))
            event = self.http.next_event()
        if isinstance(event, h11.Request | h11.Response):  # not one that only informs
            self._at_fields = False
            self._at_chunk = self._has_chunks(event)
        if isinstance(event, h11.Data):
            return await self._join_data(event)
        if isinstance(event, h11.RemoteProtocolError):
            raise event
        return event

    def _has_chunks(self, head: h11.Request | h11.Response) -> bool:
        """True if chunks follow a head. An answer without a body may have the same field all the same (RFC 9112,
        6.1)."""
        if isinstance(head, h11.Response) and (self._head_only or head.status_code in _BODYLESS):
            return False
        return any(name == b"transfer-encoding" for name, _ in head.headers)

    def _parse_cost(self, data: bytes) -> int:
        """Return the number of bytes that count as parsed next, after `data` was read. Once fields are complete,
        all of them count.

        Raise `h11.RemoteProtocolError` for what h11 would take seconds to refuse.
        """
        if not (self._at_fields or self._at_chunk):
            return 0  # it is passed on unchanged
        if data and b"\n" not in data:
            return len(data) // _CHEAP  # no line ends in it
        kept = self.http.trailing_data[0]
        searched = max(0, len(kept) - len(data) - 2) if data and self._at_fields else 0
        if not self._at_fields and (last := _is_last_chunk(kept)) is not None:
            self._at_fields, self._at_chunk = last, False
        if self._at_fields and (blank := _BLANK.search(kept, searched)):
            self._refuse_costly(kept[: blank.end()])
            return max(LEAST, blank.end())
        return (len(data) if searched else len(kept)) // _CHEAP

    def _refuse_costly(self, fields: bytes) -> None:
        """Raise `h11.RemoteProtocolError` for fields that are illegal or too many, and would take h11 long to
        refuse."""
        _refuse_controls(fields)
        # Two of the lines are the request line and an empty one. h11 counts leading blank lines as part of the
        # head.
        if self.http.their_state is h11.IDLE and fields.count(b"\n") > MOST_FIELDS + 2:
            raise h11.RemoteProtocolError(f"more than {MOST_FIELDS} fields")

    async def _join_data(self, first: h11.Data) -> h11.Data:
        """Return data joined with the data that was read after it: chunks of one byte would cost as much as large
        ones."""
        data, piece = [first.data], first
        for _ in range(_PIECES):
            try:
                if self._comes_to_fields(piece):
                    self._next = None  # fields have their own turn
                else:
                    self._next = self.http.next_event()
            except h11.RemoteProtocolError as error:
                self._next = error  # raised after the data
            if not isinstance(self._next, h11.Data):
                return h11.Data(data=b"".join(data)) if len(data) > 1 else first
            piece = self._next
            data.append(piece.data)
        self._at_fields, self._at_chunk = False, piece.chunk_end
        self._next = None
        await (asyncio.sleep(0) if self._turn is None else self._turn(PER_TURN))
        return h11.Data(data=b"".join(data))

    def _comes_to_fields(self, piece: h11.Data) -> bool:
        """True if the line of the last chunk follows `piece`. Raise as `_parse_cost` does."""
        self._at_fields, self._at_chunk = False, piece.chunk_end
        judged = piece.chunk_end and self._turn is not None
        if judged and (last := _is_last_chunk(self.http.trailing_data[0])) is not None:
            self._at_fields, self._at_chunk = last, False
        return self._at_fields

    async def send_event(self, event: Any) -> None:
        """Send an event, as fast as the other side reads."""
        if isinstance(event, h11.Request):
            self._head_only = event.method == b"HEAD"
        data = self.http.send(event)
        if data:
            self._write(data)
            await self._drain()

    def try_reuse(self) -> bool:
        """Return True if another exchange may follow, in which case this side is ready for it."""
        if self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
            self.http.start_next_cycle()
            self._next = None
            self._at_fields, self._at_chunk = True, False
            return True
        return False


def _is_last_chunk(kept: bytes) -> bool | None:
    """Return whether `kept`, which h11 will read as the start of a chunk, starts the last one; None where the line
    is incomplete.

    Raise `h11.RemoteProtocolError` for a line with a bare LF, which h11 takes quadratic time to refuse.
    """
    match = _CHUNK.match(kept)
    if match is None:
        return None
    line = match[1]
    if not line.endswith(b"\r"):
        raise h11.RemoteProtocolError("illegal chunk header")
    return line.startswith(b"0") and line.lstrip(b"0")[0] in b" \t;\r"


def _refuse_controls(fields: bytes) -> None:
    """Raise `h11.RemoteProtocolError` for characters that no field may have (RFC 9110, 5.5).

    h11 refuses them too, but in time quadratic in the blanks before them: 32 KiB of blanks take 8 s.
    """
    odd = any(each in fields for each in (b"\0", b"\v", b"\f"))
    if odd or fields.count(b"\r") != fields.count(b"\r\n"):
        raise h11.RemoteProtocolError("illegal header line")


async def answered(backend: Side) -> Any:
    """Return the backend's next event. Raise `Ended` when it has ended, doesn't speak HTTP, or sent an answer with
    two lengths (RFC 9112, 6.3)."""
    try:
        event = await backend.next_event()
    except h11.RemoteProtocolError:
        raise Ended(Reason.BACKEND_BROKE) from None
    if isinstance(event, h11.ConnectionClosed):
        raise Ended(Reason.BACKEND_BROKE)
    if isinstance(event, h11.Response) and {name for name, _ in event.headers} >= _LENGTHS:
        raise Ended(Reason.BACKEND_BROKE)
    return event


@dataclass(frozen=True, slots=True)
class RelayEnd:
    """Both a source and a sink for `dtp.net.relay`."""

    read: Callable[[int], Coroutine[Any, Any, bytes]]
    write: Callable[[bytes], None]
    drain: Callable[[], Coroutine[Any, Any, None]]
    write_eof: Callable[[], None]


def is_silent(reader: asyncio.StreamReader) -> bool:
    """True if a kept connection has neither sent anything since its last answer nor ended.

    A read that would have to wait is abandoned at its first step, so the event loop isn't needed.
    """
    look = reader.read(1)
    try:
        look.send(None)
    except (StopIteration, OSError):
        return False
    finally:
        look.close()
    return True
