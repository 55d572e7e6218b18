"""Counts the calls that the programs of a forward have sent, since their peer may charge for these and no more.

A program's data is read as the protocol that it starts with: requests of HTTP/1, streams of HTTP/2 (gRPC), messages
of WebSocket, calls of a JSON-RPC batch. Anything else is one call per stream. Bodies aren't read, except those of
batches, and nothing else is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final
from weakref import WeakKeyDictionary

from dtp.daemon.config.values import AllowedRate
from dtp.daemon.paying.spoken import MOST_KEPT, AnswerReader, Asked, Protocol, SpokenReader
from dtp.net.connection import Connection

#: The bytes that start HTTP/2 (RFC 9113, 3.4).
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_REQUEST: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [^ \r\n]+ HTTP/1\.[01]\r?\n")
#: The start of a batch, or of what may become one.
_BATCH: Final = re.compile(rb"\s*(\[|$)")
_HEADERS: Final = 1  # the type of an HTTP/2 frame that opens a stream


class ChargedCalls:
    """Accepts explicit charges on one connection, for no more calls than were sent on it, and at most at a given
    rate."""

    def __init__(self, rate: AllowedRate | None, clock: Callable[[], float]) -> None:
        """`clock` is a monotonic clock in seconds."""
        self.sent = 0
        self.agreed = 0
        #: Declined charges, by what they exceeded: the number of calls, or the rate.
        self.declined = {"calls": 0, "rate": 0}
        self._rate, self._clock = rate, clock
        self._room = 0.0 if rate is None else rate.amount
        self._filled = clock()

    def agrees_to(self, units: int) -> bool:
        """Return True if this many more units are to be paid."""
        if self.agreed + units > self.sent:
            self.declined["calls"] += units
            return False
        if self._rate is not None:
            now = self._clock()
            gained = (now - self._filled) * self._rate.amount / self._rate.seconds
            self._room, self._filled = min(self._rate.amount, self._room + gained), now
            if units > self._room:
                self.declined["rate"] += units
                return False
            self._room -= units
        self.agreed += units
        return True


#: For connections that pay by calls.
_CALLS: Final[WeakKeyDictionary[Connection, ChargedCalls]] = WeakKeyDictionary()


def count_on(connection: Connection, calls: ChargedCalls) -> None:
    """Count the calls on this connection's streams."""
    _CALLS[connection] = calls


def reader_of(connection: Connection) -> CallReader | None:
    """Return what has to read everything that a program sends on a new stream; None where calls aren't counted."""
    calls = _CALLS.get(connection)
    return None if calls is None else CallReader(calls)


class CallReader(SpokenReader):
    """Counts the calls in what one program sends. A head or a batch that is too long counts as one."""

    def __init__(self, calls: ChargedCalls) -> None:
        super().__init__()
        self._calls = calls
        self.asked = Asked()
        #: Has to be fed the program's answers, so that it is known what can be sent after them.
        self.answers = AnswerReader(self.asked)
        self._body: bytearray | None = None  # of a request that may be a batch, as far as it has come

    def _note_skipped(self, passed: int) -> None:
        if self._body is not None:
            self._body += self._kept[:passed]
            if len(self._body) > MOST_KEPT or not _BATCH.match(self._body):
                self._body = None

    def _read_start(self) -> bool:
        kept = bytes(self._kept[: len(_PREFACE)])
        if _PREFACE.startswith(kept) and kept:
            if len(kept) < len(_PREFACE):
                return False
            del self._kept[: len(_PREFACE)]
            self._read = self._read_frame
            return True
        if b"\n" not in self._kept and len(self._kept) < MOST_KEPT and kept[:1].isalpha():
            return False
        if kept and _REQUEST.match(self._kept):
            self._read, self.asked.protocol = self._read_head, Protocol.HTTP
            return True
        if kept:
            self.asked.protocol = Protocol.OTHER
            self._calls.sent += 1
            self._give_up()
        return False

    def _read_head(self) -> bool:
        found = self._take_head()
        if found is None:
            if len(self._kept) > MOST_KEPT:
                self._calls.sent += 1
                self._give_up()
            return False
        line, fields = found
        self._calls.sent += 1
        self.asked.methods.append(line.partition(b" ")[0])
        self._body = bytearray() if b"json" in fields.get(b"content-type", b"") else None
        if b"chunked" in fields.get(b"transfer-encoding", b""):
            self._read = self._read_chunk
        elif b"upgrade" in fields:
            self._body = None
            self._read = self._read_message
        elif (length := fields.get(b"content-length", b"0")).isdigit():
            self._skip = int(length)
        else:
            self._give_up()
        return True

    def _end_body(self) -> None:
        """Note the end of a request. Each call of a batch counts."""
        body, self._body = self._body, None
        if body:
            try:
                found = json.loads(body)
            except ValueError:
                return
            self._calls.sent += len(found) - 1 if isinstance(found, list) and found else 0

    def _note_message(self, opcode: int) -> None:
        self._calls.sent += opcode in (1, 2)

    def _note_frame(self, kind: int, flags: int, stream: int) -> None:
        self._calls.sent += kind == _HEADERS
        self.asked.note_frame(kind, stream)
