"""Follows the protocol between a program and its peer through a forward (HTTP/1, HTTP/2 with gRPC, WebSocket) as
far as needed to know what was asked, and where something can be inserted after an answer. Data isn't kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

#: No real head is longer.
MOST_KEPT: Final = 1 << 20
#: The longest frame that is held back until it is complete. HTTP/2 frames have up to 16 KiB, unless a client allows
#: more.
MOST_HELD: Final = 1 << 16
#: The most HTTP/1 requests whose answers are awaited. No client pipelines more.
_MOST_AWAITED: Final = 1024
# Frames of HTTP/2 (RFC 9113, 6), and flags.
_DATA, _HEADERS, _RESET, _PROMISE, _CONTINUATION = 0, 1, 3, 5, 9
_END_STREAM, _END_HEADERS = 1, 4


class Protocol(Enum):
    """The protocol of a program, as far as anything depends on it."""

    HTTP = "http"
    HTTP2 = "http2"
    OTHER = "other"


@dataclass(slots=True)
class Asked:
    """What a program has asked that isn't answered yet."""

    #: None until it is known; for HTTP/2, until the program has opened a stream.
    protocol: Protocol | None = None
    #: Methods of HTTP/1 requests.
    methods: deque[bytes] = field(default_factory=lambda: deque(maxlen=_MOST_AWAITED))
    #: Streams of HTTP/2, and the newest ever; 0 if there was none.
    streams: set[int] = field(default_factory=set)
    newest: int = 0

    def note_frame(self, kind: int, stream: int) -> None:
        """Note that the program has sent a frame of HTTP/2."""
        if kind == _HEADERS:
            self.protocol = Protocol.HTTP2
            if stream > self.newest:
                self.newest = stream
                self.streams.add(stream)
        elif kind == _RESET:
            self.streams.discard(stream)


class SpokenReader(ABC):
    """Follows one side of a conversation, in pieces of any size. Only incomplete heads are kept."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._skip = 0  # bytes that are of no interest
        self._frame = (0, 0, 0, 0)  # that is skipped: bytes in all; kind, flags and stream, of HTTP/2
        self._read: Callable[[], bool] = self._read_start

    def feed_data(self, data: bytes) -> None:
        """Process the next bytes."""
        if self._read == self._ignore_rest:
            return
        self._kept += data
        while self._skip_bytes() and self._read():
            pass

    @property
    def at_rest(self) -> bool:
        """True between two heads, messages or frames, as far as is known."""
        return not (self._kept or self._skip)

    def _skip_bytes(self) -> bool:
        """Skip what is to be skipped; return False while more of it has to come."""
        if self._skip:
            passed = min(self._skip, len(self._kept))
            self._note_skipped(passed)
            del self._kept[:passed]
            self._skip -= passed
            if not self._skip and self._read == self._read_head:
                self._end_body()
            elif not self._skip and self._read == self._read_frame:
                self._note_frame(*self._frame[1:])
        return not self._skip

    def _give_up(self) -> bool:
        self._kept.clear()
        self._read = self._ignore_rest
        return False

    def _ignore_rest(self) -> bool:
        self._kept.clear()
        return False

    @abstractmethod
    def _read_start(self) -> bool:
        """Determine the protocol. Like all these readers, returns False when more bytes are needed."""

    @abstractmethod
    def _read_head(self) -> bool:
        """Read a head of HTTP/1, and choose the reader for what follows it."""

    def _note_skipped(self, passed: int) -> None:  # noqa: B027 - it need not matter
        """Note that this many bytes of `_kept` are skipped."""

    def _end_body(self) -> None:  # noqa: B027 - it need not matter
        """Note the end of a body."""

    def _note_message(self, opcode: int) -> None:  # noqa: B027 - it need not matter
        """Note the start of a WebSocket frame."""

    @abstractmethod
    def _note_frame(self, kind: int, flags: int, stream: int) -> None:
        """Note the end of an HTTP/2 frame."""

    # ---- HTTP/1

    def _take_head(self) -> tuple[bytes, dict[bytes, bytes]] | None:
        """Return the first line of a head and its fields, in lower case; None while it is incomplete."""
        while self._kept.startswith((b"\r", b"\n")):  # some send a line more behind a body
            del self._kept[:1]
        end = self._kept.find(b"\r\n\r\n")
        if end < 0:
            return None
        first, *lines = bytes(self._kept[:end]).split(b"\r\n")
        del self._kept[: end + 4]
        pairs = (line.partition(b":") for line in lines)
        return first, {name.strip().lower(): value.strip().lower() for name, _, value in pairs}

    def _read_chunk(self) -> bool:
        line, found, _ = self._kept.partition(b"\r\n")
        if not found:
            return False
        size = line.partition(b";")[0].strip()
        try:
            length = int(size, 16) if size else -1
        except ValueError:
            return self._give_up()
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
        kept = self._kept
        if len(kept) < 2:
            return False
        small = kept[1] & 0x7F
        extra = {126: 2, 127: 8}.get(small, 0)
        if len(kept) < 2 + extra:
            return False
        size = int.from_bytes(kept[2 : 2 + extra]) if extra else small
        self._note_message(kept[0] & 0x0F)
        self._skip = 2 + extra + (4 if kept[1] & 0x80 else 0) + size
        self._frame = (self._skip, 0, 0, 0)
        return True

    def _read_frame(self) -> bool:
        if len(self._kept) < 9:
            return False
        kept = self._kept
        self._skip = 9 + int.from_bytes(kept[:3])
        self._frame = (self._skip, kept[3], kept[4], int.from_bytes(kept[5:9]) & 0x7FFFFFFF)
        return True


class AnswerPlace(Enum):
    """What an answer has reached, which decides what can be inserted after it."""

    ANSWER = "another answer of HTTP/1"
    MESSAGE = "a frame of WebSocket"
    FRAME = "a frame of HTTP/2"
    NONE = "nothing"


class AnswerReader(SpokenReader):
    """Follows the answers to a program. The start of a frame is held back until the rest has come, unless the frame
    is large: a partial frame is useless to the program, and nothing could be inserted after it."""

    def __init__(self, asked: Asked) -> None:
        super().__init__()
        self._asked = asked
        #: HTTP/2 streams whose answers have begun but not ended.
        self.begun: set[int] = set()
        self._in_block = False  # between the first and the last frame of a head
        self._held = bytearray()

    def take_data(self, data: bytes) -> bytes:
        """Return what the program gets of the next bytes and of what was held back."""
        self.feed_data(data)
        whole = bytes(self._held) + data if self._held else data
        part = self._frame[0] - self._skip if self._skip else len(self._kept)
        is_frame = self._read in (self._read_message, self._read_frame)
        is_large, has_begun = self._frame[0] > MOST_HELD and self._skip, part > len(whole)
        if not is_frame or is_large or has_begun:
            part = 0
        end = len(whole) - part
        self._held = bytearray(whole[end:])
        return whole[:end]

    def take_rest(self) -> bytes:
        """Return what was held back, since nothing follows it."""
        rest, self._held = bytes(self._held), bytearray()
        return rest

    def find_place(self) -> AnswerPlace:
        """Return what the program has received up to now, as an `AnswerPlace`."""
        self.feed_data(b"")  # process what came before the protocol was known
        if self._in_block or not (self.at_rest or self._held):
            return AnswerPlace.NONE
        if self._read == self._read_start:
            spoken = {Protocol.HTTP: AnswerPlace.ANSWER, Protocol.HTTP2: AnswerPlace.FRAME}
            return spoken.get(self._asked.protocol or Protocol.OTHER, AnswerPlace.NONE)
        if self._read == self._read_head:
            return AnswerPlace.ANSWER
        if self._read == self._read_message:
            return AnswerPlace.MESSAGE
        return AnswerPlace.FRAME if self._read == self._read_frame else AnswerPlace.NONE

    def _read_start(self) -> bool:
        if not self._kept:
            return False
        if self._asked.protocol is None:  # a server may speak first
            return self._give_up() if len(self._kept) > MOST_HELD else False
        if self._asked.protocol is Protocol.HTTP2:
            self._read = self._read_frame
        elif self._asked.protocol is Protocol.HTTP and self._kept.startswith((b"H", b"\r", b"\n")):
            self._read = self._read_head
        else:
            return self._give_up()
        return True

    def _read_head(self) -> bool:
        found = self._take_head()
        if found is None:
            return self._give_up() if len(self._kept) > MOST_KEPT else False
        line, fields = found
        status = line.split(b" ")[1:2]
        if status == [b"101"]:
            self._asked.methods.clear()
            self._read = self._read_message
        elif not (status and status[0].startswith(b"1")):
            method = self._asked.methods.popleft() if self._asked.methods else b""
            self._expect_body(fields, has_none=method == b"HEAD" or status[0:1] in ([b"204"], [b"304"]))
        return True

    def _expect_body(self, fields: dict[bytes, bytes], *, has_none: bool) -> None:
        length = fields.get(b"content-length", b"")
        if has_none:
            return
        if b"chunked" in fields.get(b"transfer-encoding", b""):
            self._read = self._read_chunk
        elif length.isdigit():
            self._skip = int(length)
        else:  # it is over when all is
            self._give_up()

    def _note_frame(self, kind: int, flags: int, stream: int) -> None:
        if kind == _HEADERS:
            self.begun.add(stream)
        if kind in (_HEADERS, _PROMISE, _CONTINUATION):
            self._in_block = not flags & _END_HEADERS
        if kind == _RESET or (kind in (_DATA, _HEADERS) and flags & _END_STREAM):
            self._asked.streams.discard(stream)
            self.begun.discard(stream)
