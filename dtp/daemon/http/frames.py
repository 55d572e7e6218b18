"""Splits HTTP/2 into frames (RFC 9113), and keeps only those whole that have to be understood. No IO."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from typing import NamedTuple

#: What a client sends first (section 3.4).
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: Types of frames (section 6).
DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, CONTINUATION = 0x0, 0x1, 0x3, 0x4, 0x5, 0x6, 0x9
#: Flags: END_STREAM and END_HEADERS of HEADERS and CONTINUATION, ACK of SETTINGS and PING.
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
#: Size, type, flags and stream of a frame (section 4.1).
_HEAD = struct.Struct("!BHBBL")


class MalformedHttp2(Exception):
    """Bytes that aren't HTTP/2, or that exceed what anybody needs."""


class Http2Frame(NamedTuple):
    """The head of a frame; `size` is of its payload."""

    kind: int
    flags: int
    stream: int
    size: int


class Splitter:
    """Splits the bytes of one direction into frames."""

    def __init__(self, whole: Collection[int], most: int) -> None:
        """Frames of types in `whole` come whole, with at most `most` bytes; others come in pieces as they
        arrive."""
        self._whole, self._most = frozenset(whole), most
        self._kept = b""
        self._frame: Http2Frame | None = None
        self._left = 0
        #: Frames that were returned to their ends.
        self.count = 0

    @property
    def waits(self) -> bool:
        """Whether the beginning of a frame is kept until the rest arrives."""
        return bool(self._kept)

    @property
    def between(self) -> bool:
        """Whether everything returned so far consists of whole frames."""
        return self._frame is None

    def split_frames(self, data: bytes) -> Iterator[tuple[Http2Frame, memoryview, bool]]:
        """Yield each piece with its frame, the header included, and whether it is the frame's last. Raise
        `MalformedHttp2`."""
        view = memoryview(self._kept + data if self._kept else data)
        self._kept = b""
        at, end = 0, len(view)
        while at < end:
            if self._frame is None:
                if end - at < _HEAD.size:
                    break
                high, low, kind, flags, stream = _HEAD.unpack_from(view, at)
                frame = Http2Frame(kind, flags, stream & 0x7FFFFFFF, high << 16 | low)
                if kind in self._whole:
                    if frame.size > self._most:
                        raise MalformedHttp2(f"a frame of type {kind} with {frame.size} bytes")
                    if end - at < _HEAD.size + frame.size:
                        break
                self._frame, self._left = frame, _HEAD.size + frame.size
            frame = self._frame
            piece = view[at : at + self._left]
            at += len(piece)
            self._left -= len(piece)
            if not self._left:
                self._frame = None
                self.count += 1
            yield frame, piece, not self._left
        self._kept = bytes(view[at:])


def payload(piece: memoryview) -> memoryview:
    """Return the payload of a whole frame."""
    return piece[_HEAD.size :]
