"""How many calls the programs of a forward have sent: what its peer may charge for, and no more.

What a program sends is its own, so it is read as what it says it is: requests of HTTP/1, streams of HTTP/2 (gRPC),
messages of a WebSocket, calls of a JSON-RPC batch. Anything else is one call for each stream. Bodies aren't looked
at, but for batches; nothing is kept of the rest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from enum import Enum
from typing import Final
from weakref import WeakKeyDictionary

from dtp.daemon.config.values import Rate
from dtp.net.connection import Connection

#: How HTTP/2 begins (RFC 9113, 3.4).
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_REQUEST: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [^ \r\n]+ HTTP/1\.[01]\r?\n")
#: How a batch begins, or may yet.
_BATCH: Final = re.compile(rb"\s*(\[|$)")
#: A head or a batch that is longer is one call.
_MOST_KEPT: Final = 1 << 20
_HEADERS: Final = 1  # the type of an HTTP/2 frame that opens a stream


class Calls:
    """Agrees to explicit charges of one connection: for as many calls as were sent on it, and at most at a rate."""

    def __init__(self, rate: Rate | None, clock: Callable[[], float]) -> None:
        """`clock` is in seconds, and goes forward."""
        self.sent = 0
        self.agreed = 0
        #: Charges that were declined, by what they were above: the calls, or the rate.
        self.declined = {"calls": 0, "rate": 0}
        self._rate, self._clock = rate, clock
        self._room = 0.0 if rate is None else rate.amount
        self._filled = clock()

    def agrees_to(self, units: int) -> bool:
        """True if to pay for so many more."""
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


#: Of connections that pay by calls.
_CALLS: Final[WeakKeyDictionary[Connection, Calls]] = WeakKeyDictionary()


def count_on(connection: Connection, calls: Calls) -> None:
    """Have calls of this connection's streams counted."""
    _CALLS[connection] = calls


def reader_of(connection: Connection) -> CallReader | None:
    """Return what is to read all that a program sends on a new stream; None where nobody counts."""
    calls = _CALLS.get(connection)
    return None if calls is None else CallReader(calls)


class Protocol(Enum):
    """What a program speaks, as far as calls are counted by it."""

    HTTP = "http"
    HTTP2 = "http2"
    OTHER = "other"


class CallReader:
    """Counts the calls in what one program sends, in pieces of any size."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        #: None until enough has come to tell; for HTTP/2 until it has opened a stream.
        self.protocol: Protocol | None = None
        #: Of HTTP/2, by its number; 0 if there is none.
        self.newest_stream = 0
        self._kept = bytearray()
        self._skip = 0  # bytes that are of no interest
        self._body: bytearray | None = None  # of a request that may be a batch, as far as it has come
        self._read: Callable[[], bool] = self._read_preface

    def feed_data(self, data: bytes) -> None:
        """The next bytes."""
        if self._read == self._ignore_rest:
            return
        self._kept += data
        while self._skip_bytes() and self._read():
            pass

    def _skip_bytes(self) -> bool:
        """Pass over what is to be skipped; False while more of it has to come."""
        if self._skip:
            passed = min(self._skip, len(self._kept))
            if self._body is not None:
                self._body += self._kept[:passed]
                if len(self._body) > _MOST_KEPT or not _BATCH.match(self._body):
                    self._body = None
            del self._kept[:passed]
            self._skip -= passed
            if not self._skip and self._read == self._read_head:
                self._end_body()
        return not self._skip

    def _read_preface(self) -> bool:
        kept = bytes(self._kept[: len(_PREFACE)])
        if _PREFACE.startswith(kept) and kept:
            if len(kept) < len(_PREFACE):
                return False
            del self._kept[: len(_PREFACE)]
            self._read = self._read_frame
            return True
        if b"\n" not in self._kept and len(self._kept) < _MOST_KEPT and kept[:1].isalpha():
            return False
        if kept and _REQUEST.match(self._kept):
            self._read, self.protocol = self._read_head, Protocol.HTTP
            return True
        if kept:
            self.protocol = Protocol.OTHER
            self._calls.sent += 1
            self._give_up()
        return False

    def _give_up(self) -> None:
        self._kept.clear()
        self._read = self._ignore_rest

    def _ignore_rest(self) -> bool:
        self._kept.clear()
        return False

    # ---- HTTP/1

    def _read_head(self) -> bool:
        while (
            self._kept[:1] == b"\r" or self._kept[:1] == b"\n"
        ):  # some clients send a line more behind a body
            del self._kept[:1]
        end = self._kept.find(b"\r\n\r\n")
        if end < 0:
            if len(self._kept) > _MOST_KEPT:
                self._calls.sent += 1
                self._give_up()
            return False
        head = bytes(self._kept[:end])
        del self._kept[: end + 4]
        self._calls.sent += 1
        fields = {
            name.strip().lower(): value.strip().lower()
            for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
        }
        self._body = bytearray() if b"json" in fields.get(b"content-type", b"") else None
        if b"chunked" in fields.get(b"transfer-encoding", b""):
            self._read = self._read_chunk
        elif b"upgrade" in fields:
            self._read = self._read_message
        elif (length := fields.get(b"content-length", b"0")).isdigit():
            self._skip = int(length)
        else:
            self._give_up()
        return True

    def _end_body(self) -> None:
        """A request is over: of a batch each call counts."""
        body, self._body = self._body, None
        if body:
            try:
                found = json.loads(body)
            except ValueError:
                return
            self._calls.sent += len(found) - 1 if isinstance(found, list) and found else 0

    def _read_chunk(self) -> bool:
        line, found, _ = self._kept.partition(b"\r\n")
        if not found:
            return False
        size = line.partition(b";")[0].strip()
        try:
            length = int(size, 16) if size else -1
        except ValueError:
            self._give_up()
            return False
        del self._kept[: len(line) + 2]
        if length > 0:
            self._skip = length  # the empty line behind it is read as one that says nothing
        elif length == 0:
            self._read = self._read_trailer
        return True

    def _read_trailer(self) -> bool:
        line, found, _ = self._kept.partition(b"\r\n")
        if not found:
            return False
        del self._kept[: len(line) + 2]
        if not line:
            self._read = self._read_head
            self._end_body()
        return True

    # ---- WebSocket (RFC 6455, 5.2) and HTTP/2 (RFC 9113, 4.1)

    def _read_message(self) -> bool:
        self._body = None
        kept = self._kept
        if len(kept) < 2:
            return False
        small = kept[1] & 0x7F
        extra = {126: 2, 127: 8}.get(small, 0)
        if len(kept) < 2 + extra:
            return False
        size = int.from_bytes(kept[2 : 2 + extra]) if extra else small
        self._calls.sent += kept[0] & 0x0F in (1, 2)
        self._skip = 2 + extra + (4 if kept[1] & 0x80 else 0) + size
        return True

    def _read_frame(self) -> bool:
        if len(self._kept) < 9:
            return False
        if self._kept[3] == _HEADERS:
            self._calls.sent += 1
            self.protocol, self.newest_stream = Protocol.HTTP2, int.from_bytes(self._kept[5:9]) & 0x7FFFFFFF
        self._skip = 9 + int.from_bytes(self._kept[:3])
        return True
