"""A show on disk: the frames in which it came. So a file proves itself, as the live show does, and has a hash."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from dtp.broadcast import messages as m
from dtp.broadcast.errors import ShowMessageError
from dtp.broadcast.format import Announcement, Flag, Segment, Verifier
from dtp.broadcast.format.segment import pieces_of
from dtp.errors import LocalError


class RecordingError(LocalError):
    """A recording can't be written or read."""

    code = "recording"


class Recorder:
    """Writes a show to a new file, segment by segment. What a crash cuts short is a recording of what was whole.

    Where it can't be written any more, such as on a full disk, it ends with what was whole, and the show goes on.
    """

    def __init__(
        self,
        path: Path,
        announcement: Announcement,
        on_fault: Callable[[RecordingError], object] = lambda fault: None,
    ) -> None:
        """`on_fault` is told why it ends before the show. Raise `RecordingError` where the file is there, or can't be
        made."""
        self.path = path
        #: Why it has ended before the show.
        self.fault: RecordingError | None = None
        self._on_fault = on_fault
        self._hash, self._size = sha256(), 0
        self._file: BinaryIO | None = None
        try:
            # Unbuffered: what a write leaves behind would be written at the end once more.
            self._file = open(path, "xb", buffering=0)  # noqa: SIM115  # closed by `close`
        except OSError as fault:
            raise RecordingError(f"can't record to {path}: {fault.strerror}") from fault
        self._write_data(m.build(m.Announced(announcement.encoded)))
        if self.fault is not None:
            self._file.close()
            raise self.fault

    def add(self, segment: Segment, data: bytes) -> None:
        """Write a segment, unless it has ended. Raise `RecordingError` for one that was closed."""
        if self.fault is None:
            pieces = enumerate(pieces_of(data))
            frames = [m.build(m.Piece(segment.number, index, bytes(piece))) for index, piece in pieces]
            self._write_data(m.build(m.Manifest(segment.encoded)) + b"".join(frames))

    def _write_data(self, data: bytes) -> None:
        if self._file is None:
            raise RecordingError(f"{self.path} was closed")
        left = memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as fault:
            self._report_fault(fault)
            with contextlib.suppress(OSError):  # what is there of the last segment is read as the end, too
                self._file.truncate(self._size)
        else:
            self._hash.update(data)
            self._size += len(data)

    def _report_fault(self, fault: OSError) -> None:
        self.fault = RecordingError(f"can't record to {self.path}: {fault.strerror}")
        self._on_fault(self.fault)

    def close(self) -> str:
        """Have the disk keep it, and return its SHA-256 in hex: what the show is called from now on. Idempotent."""
        if self._file is not None:
            try:
                with self._file as file:
                    os.fsync(file.fileno())
            except OSError as fault:
                self._report_fault(fault)
            self._file = None
        return self._hash.hexdigest()


class Recording:
    """A show from a file, checked as it is read."""

    def __init__(self, path: Path) -> None:
        """Raise `RecordingError` if it can't be opened, `SegmentError`, `ShowMessageError` if it isn't a show."""
        self.path = path
        try:
            self._file = open(path, "rb")  # noqa: SIM115  # closed by `close`
        except OSError as fault:
            raise RecordingError(f"can't read {path}: {fault.strerror}") from fault
        #: True once the last segment of the show was given; False where the recording ends before the show.
        self.ended = False
        try:
            try:
                first = self._read_message()
            except ShowMessageError:
                first = None
            if not isinstance(first, m.Announced):
                raise ShowMessageError(f"{path} is not a recording of a show")
            self.announcement = Announcement.decode(first.data)
        except BaseException:
            self._file.close()
            raise
        self._begin = self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def segments(self, start: int = 0) -> Iterator[tuple[Segment, bytes]]:
        """Give segments and their bytes, from number `start` on, and what it needs before.

        Raise `SegmentError` at the first byte that isn't the producer's.
        """
        self._file.seek(self._begin)
        verifier, init = Verifier(self.announcement), None
        segment, parts = None, list[bytes]()
        while (message := self._read_message()) is not None:
            match message:
                case m.Manifest(data):
                    segment, parts = verifier.check(data), []
                case m.Piece(number, index, data) if segment is not None and number == segment.number:
                    if index != len(parts):
                        raise ShowMessageError(f"{self.path}: piece {index} is not in its place")
                    segment.check_piece(index, data)
                    parts.append(data)
                case _:
                    raise ShowMessageError(f"{self.path} has what belongs to no recording")
            if segment is None or len(parts) < segment.pieces:
                continue
            whole = segment, b"".join(parts)
            self.ended = Flag.LAST in segment.flags
            if segment.number >= start:
                if init is not None and init[0].number == segment.init != segment.number:
                    yield init
                init = None
                yield whole
            elif segment.init == segment.number:
                init = whole

    def _read_message(self) -> m.Message | None:
        head = self._file.read(m.HEAD.size)
        if len(head) < m.HEAD.size:
            return None  # the end, or what a crash left of a frame
        kind, size = m.parse_head(head)
        body = self._file.read(size)
        return None if len(body) < size else m.parse(kind, body)
