"""Frames between a client and a backend of gRPC, in the order in which each side may receive them. No IO.

Frames for the backend wait behind a call that waits. The client gets the backend's own frames, with those that are
made here between them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field

from hyperframe.frame import ContinuationFrame, HeadersFrame, SettingsFrame

from dtp.daemon.http import frames
from dtp.daemon.http.conversation import HEAD_SIZE
from dtp.daemon.http.frames import Http2Frame, Splitter
from dtp.daemon.http.headers import Headers

#: Approximate bytes of memory beside its own data that each of these takes while it waits: a call with the task
#: that pays for it, a field of a head, a frame.
PER_CALL, _PER_FIELD, _PER_FRAME = 4096, 160, 320
#: A frame size that every peer accepts (RFC 9113, 4.2).
_FRAME_SIZE = 16 * 1024


@dataclass(slots=True)
class HeaderBlock:
    """A header block from the client that is still arriving."""

    stream: int
    ends: bool
    data: bytearray = field(default_factory=bytearray)
    frames: int = 0


@dataclass(slots=True)
class _Held:
    """A call that waits, or the head of one behind it. It is encoded when its turn comes, since HPACK depends on
    the order."""

    block: HeaderBlock
    fields: Headers
    waits: bool
    size: int


@dataclass(slots=True)
class _Behind:
    """A piece of a frame behind a call that waits."""

    frame: Http2Frame
    piece: bytes
    last: bool
    size: int


class BackendFrames:
    """Frames for the backend. Streams begin in order, so everything waits behind a call that waits."""

    def __init__(
        self,
        encode: Callable[[Headers], bytes],
        refused: Container[int],
        drop: Callable[[Http2Frame, bool], object],
    ) -> None:
        """`encode` makes a header block, `refused` are calls that the backend doesn't get, and `drop` is called
        with each of their frames that would have been sent."""
        self._encode, self._refused, self._drop = encode, refused, drop
        self._ready: list[bytes | memoryview] = []
        self._queue: deque[_Held | _Behind] = deque()
        self._waiting: dict[int, _Held] = {}
        #: Roughly how many bytes of memory the waiting frames take.
        self.kept = 0

    @property
    def held(self) -> int:
        """The number of frames that wait."""
        return len(self._queue)

    def take_ready(self) -> bytes:
        """Return the bytes to send now."""
        data, self._ready = b"".join(self._ready), []
        return data

    def add_preface(self, preface: bytes) -> None:
        """Send the preface, which comes before the client's first frame."""
        self._ready.append(preface)

    def add_frame(self, frame: Http2Frame, piece: memoryview, last: bool) -> None:
        """Send a piece of a frame, after what is waiting."""
        if self._queue:  # a copy, since the piece would keep all that was read with it
            self._queue_behind(_Behind(frame, bytes(piece), last, _PER_FRAME + len(piece)))
        else:
            self._ready.append(piece)

    def add_headers(self, block: HeaderBlock, fields: Headers, *, waits: bool = False) -> None:
        """Send a header block, after what is waiting. With `waits`, it waits itself until `stop_waiting` and
        `let_go`."""
        if not waits and not self._queue:
            self._encode_headers(block, fields)
            return
        size = (PER_CALL if waits else _PER_FRAME) + sum(
            _PER_FIELD + len(name) + len(value) for name, value in fields
        )
        held = _Held(block, fields, waits, size)
        self._queue_behind(held)
        if waits:
            self._waiting[block.stream] = held

    def _queue_behind(self, one: _Held | _Behind) -> None:
        self._queue.append(one)
        self.kept += one.size

    def _encode_headers(self, block: HeaderBlock, fields: Headers) -> None:
        data = self._encode(fields)
        head = HeadersFrame(block.stream, data=data[:_FRAME_SIZE])
        if block.ends:
            head.flags.add("END_STREAM")
        rest = [data[at : at + _FRAME_SIZE] for at in range(_FRAME_SIZE, len(data), _FRAME_SIZE)]
        made = [head, *(ContinuationFrame(block.stream, data=piece) for piece in rest)]
        made[-1].flags.add("END_HEADERS")
        self._ready += [frame.serialize() for frame in made]

    def stop_waiting(self, stream: int) -> HeaderBlock | None:
        """Return the head of a call, which the next `let_go` sends on or drops; None for one that doesn't wait."""
        held = self._waiting.pop(stream, None)
        if held is None:
            return None
        held.waits = False
        return held.block

    def let_go(self) -> None:
        """Send what no longer waits, in the order in which it came."""
        while self._queue:
            first = self._queue[0]
            if isinstance(first, _Held):
                if first.waits:
                    return
                if first.block.stream not in self._refused:
                    self._encode_headers(first.block, first.fields)
            elif first.frame.stream in self._refused:
                self._drop(first.frame, first.last)
            else:
                self._ready.append(first.piece)
            self._queue.popleft()
            self.kept -= first.size

    def drop_queue(self) -> None:
        """Drop what is waiting, since there is no backend."""
        self._waiting.clear()
        self._queue.clear()
        self.kept = 0


class ClientFrames:
    """Frames for the client."""

    def __init__(self) -> None:
        self._backend = Splitter((frames.SETTINGS,), HEAD_SIZE)
        self._ready: list[bytes | memoryview] = []
        #: Our own frames that wait for the end of a frame from the backend.
        self._own: list[bytes] = []
        #: Whether the backend has sent its settings, which every HTTP/2 server sends first.
        self.settled = False
        self._in_block = False

    @property
    def waiting(self) -> int:
        """The number of our own frames that wait."""
        return len(self._own)

    @property
    def is_between(self) -> bool:
        """True if the backend isn't in the middle of a frame or a head."""
        return self._backend.between and not self._in_block

    def take_ready(self) -> bytes:
        """Return the bytes to send now."""
        data, self._ready = b"".join(self._ready), []
        return data

    def pass_on(self, data: bytes) -> Iterator[tuple[Http2Frame, memoryview]]:
        """Send what the backend sent, and yield each frame that ends, with its last piece. Raise
        `MalformedHttp2`."""
        for frame, piece, last in self._backend.split_frames(data):
            self._ready.append(piece)
            if not last:
                continue
            if frame.kind in (frames.HEADERS, frames.PUSH_PROMISE, frames.CONTINUATION):
                self._in_block = not frame.flags & frames.END_HEADERS
            yield frame, piece
            if frame.kind == frames.SETTINGS and not frame.flags & frames.ACK:
                self.settled = True
            self.release_own()

    def add_own(self, frame: bytes) -> None:
        """Send a frame of our own with the next `release_own` that finds a gap between the backend's frames."""
        self._own.append(frame)

    def stand_in(self) -> None:
        """Send settings in place of a backend that has sent none, and never will."""
        if not self.settled:
            self.settled = True
            self._own.insert(0, SettingsFrame(0).serialize())

    def release_own(self) -> None:
        """Send our own frames if the backend has sent its settings and isn't in the middle of a frame or a head."""
        if self._own and self.settled and self.is_between:
            self._ready += self._own
            self._own = []
