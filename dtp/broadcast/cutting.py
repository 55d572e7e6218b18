"""Cut an encoder's output into segments. Cutters are values: bytes and the time go in, segments come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from dtp.broadcast.errors import BroadcastError
from dtp.broadcast.format import Flag
from dtp.broadcast.format.segment import MAX_SIZE

#: Seconds that a segment lasts if the bytes themselves don't say where to cut.
EVERY: Final = 1.0


@dataclass(frozen=True, slots=True)
class Cut:
    """A segment to be signed."""

    data: bytes
    flags: Flag
    duration_ms: int


class Cutter(ABC):
    """Takes bytes and returns segments. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._began: float | None = None

    @property
    def media(self) -> str:
        """The media type of the input, such as "video/mp4"; "" if its bytes don't tell."""
        return ""

    def feed(self, data: bytes, now: float) -> list[Cut]:
        """Return the segments that these bytes complete. Raise `BroadcastError` if the input can't be cut."""
        self._began = now if self._began is None else self._began
        self._buffer += data
        cuts = list(self._cut_ready(now))
        if len(self._buffer) > MAX_SIZE:
            raise BroadcastError(f"no place to cut in {MAX_SIZE:,} bytes: is the input what --cut says?")
        return cuts

    def finish(self, now: float) -> list[Cut]:
        """Return the rest as segments, at the end of the input."""
        return [self._take_cut(len(self._buffer), Flag.START, now)] if self._buffer else []

    def tick(self, now: float) -> list[Cut]:
        """Return the segments that are due at this time, though no bytes came."""
        return []

    @abstractmethod
    def _cut_ready(self, now: float) -> Iterator[Cut]: ...

    def _take_cut(self, size: int, flags: Flag, now: float) -> Cut:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        began, self._began = self._began, now
        duration = 0 if began is None or Flag.INIT in flags else max(0, round(1000 * (now - began)))
        return Cut(data, flags, duration)


class ByteCutter(Cutter):
    """Cuts any bytes, every `every` seconds and at each mebibyte."""

    _MOST = 1024 * 1024

    def __init__(self, every: float = EVERY) -> None:
        super().__init__()
        self._every = every

    def _cut_ready(self, now: float) -> Iterator[Cut]:
        while len(self._buffer) >= self._MOST:
            yield self._take_cut(self._MOST, Flag.START, now)
        yield from self.tick(now)

    def tick(self, now: float) -> list[Cut]:
        """Return the bytes that came, once they have waited long enough."""
        if self._buffer and self._began is not None and now - self._began >= self._every:
            return [self._take_cut(len(self._buffer), Flag.START, now)]
        return []


class LineCutter(Cutter):
    """Cuts text into a segment for each line."""

    def _cut_ready(self, now: float) -> Iterator[Cut]:
        while (end := self._buffer.find(b"\n")) >= 0:
            yield self._take_cut(end + 1, Flag.START, now)


class Mp4Cutter(Cutter):
    """Cuts fragmented MP4 (ISO/IEC 14496-12): init data before the first fragment, then a segment for each fragment.

    ffmpeg makes it with `-movflags frag_keyframe+empty_moov+default_base_moof`: a fragment begins with a key frame.
    """

    media = "video/mp4"
    #: Boxes that can stand before the `moof` of a fragment.
    _BEFORE: Final = (b"styp", b"prft", b"sidx", b"emsg")

    def __init__(self) -> None:
        super().__init__()
        self._at = 0
        self._data = False  # a fragment's data has come: the next fragment begins a segment
        self._init = True

    def _cut_ready(self, now: float) -> Iterator[Cut]:
        while (box := self._read_box()) is not None:
            kind, size = box
            begins = kind == b"moof" or kind in self._BEFORE
            if self._at and begins and (self._init or self._data):
                yield self._take_cut(self._at, Flag.INIT if self._init else Flag.START, now)
                self._at, self._init, self._data = 0, False, False
                continue
            if self._at + size > len(self._buffer):
                return
            self._at += size
            self._data = self._data or kind == b"mdat"
            if self._data and not self._init:  # a fragment is complete with its data
                yield self._take_cut(self._at, Flag.START, now)
                self._at, self._data = 0, False

    def _read_box(self) -> tuple[bytes, int] | None:
        head = self._buffer[self._at : self._at + 16]
        if len(head) < 8:
            return None
        size = int.from_bytes(head[:4])
        if size == 1:
            if len(head) < 16:
                return None
            size = int.from_bytes(head[8:])
        if not 8 <= size <= MAX_SIZE:
            raise BroadcastError(f"the input has an MP4 box of {size} bytes; it must be fragmented MP4")
        return bytes(head[4:8]), size


class MatroskaCutter(Cutter):
    """Cuts Matroska and WebM (RFC 9559): init data before the first cluster, then a segment for each cluster."""

    media = "video/x-matroska"
    _SEGMENT: Final = b"\x18\x53\x80\x67"
    _CLUSTER: Final = b"\x1f\x43\xb6\x75"
    #: The elements inside a cluster: one of unknown size ends with the first element that isn't among these.
    _IN_CLUSTER: Final = (b"\xe7", b"\xa3", b"\xa0", b"\xa7", b"\xab", b"\xec", b"\xbf", b"\x58\x54")

    def __init__(self) -> None:
        super().__init__()
        self._at = 0
        self._init, self._open = True, False  # `open`: within a cluster of unknown size

    def _cut_ready(self, now: float) -> Iterator[Cut]:
        while (element := self._read_element()) is not None:
            kind, head, size = element
            if kind == self._CLUSTER and self._init and self._at:
                yield self._take_cut(self._at, Flag.INIT, now)
                self._at, self._init = 0, False
                continue
            if self._open and kind not in self._IN_CLUSTER:
                yield self._take_cut(self._at, Flag.START, now)
                self._at, self._open = 0, False
                continue
            if kind == self._SEGMENT:
                size = 0  # its contents are read
            elif size is None:
                if kind != self._CLUSTER:
                    raise BroadcastError(
                        "the input isn't Matroska: an element of unknown size that can't have one"
                    )
                size, self._open = 0, True
            if self._at + head + size > len(self._buffer):
                return
            self._at += head + size
            if kind == self._CLUSTER and not self._open:
                yield self._take_cut(self._at, Flag.START, now)
                self._at = 0

    def _read_element(self) -> tuple[bytes, int, int | None] | None:
        """Return id, header size and size (None if unknown) of the next element; None until its header is
        complete."""
        at, buffer = self._at, self._buffer
        if at >= len(buffer):
            return None
        id_size = 9 - buffer[at].bit_length()
        if id_size > 4:
            raise BroadcastError("the input isn't Matroska: an element has no id")
        if at + id_size >= len(buffer):
            return None
        length = 9 - buffer[at + id_size].bit_length()
        if length > 8:
            raise BroadcastError("the input isn't Matroska: an element has no size")
        head = id_size + length
        if at + head > len(buffer):
            return None
        value = int.from_bytes(buffer[at + id_size : at + head]) & ((1 << (7 * length)) - 1)
        unknown = value == (1 << (7 * length)) - 1
        return bytes(buffer[at : at + id_size]), head, None if unknown else value


class AutoCutter(Cutter):
    """Chooses the cutter by the first bytes."""

    def __init__(self, every: float = EVERY) -> None:
        super().__init__()
        self._every = every
        self._chosen: Cutter | None = None

    @property
    def media(self) -> str:
        """The media type of the input, if its first bytes tell."""
        return "" if self._chosen is None else self._chosen.media

    def feed(self, data: bytes, now: float) -> list[Cut]:
        """Return the segments that these bytes complete."""
        if self._chosen is None:
            self._began = now if self._began is None else self._began
            self._buffer += data
            if len(self._buffer) < 8:
                return []
            data = bytes(self._buffer)
            self._choose_cutter(data)
        assert self._chosen is not None
        return self._chosen.feed(data, now)

    def _choose_cutter(self, data: bytes) -> None:
        if data[4:8] == b"ftyp":
            self._chosen = Mp4Cutter()
        elif data.startswith(b"\x1a\x45\xdf\xa3"):
            self._chosen = MatroskaCutter()
        else:
            self._chosen = ByteCutter(self._every)

    def tick(self, now: float) -> list[Cut]:
        """Return the segments that are due at this time."""
        return [] if self._chosen is None else self._chosen.tick(now)

    def finish(self, now: float) -> list[Cut]:
        """Return the rest as segments."""
        return super().finish(now) if self._chosen is None else self._chosen.finish(now)

    def _cut_ready(self, now: float) -> Iterator[Cut]:
        return iter(())


#: The cutters, by name.
CUTTERS: Final[dict[str, type[Cutter]]] = {
    "auto": AutoCutter,
    "mp4": Mp4Cutter,
    "matroska": MatroskaCutter,
    "bytes": ByteCutter,
    "lines": LineCutter,
}


def cutter_of(name: str, every: float = EVERY) -> Callable[[], Cutter]:
    """Return the factory of the cutter of this name; `every` is for one that cuts by time."""
    kind = CUTTERS[name]
    if issubclass(kind, AutoCutter | ByteCutter):
        return lambda: kind(every)
    return kind
