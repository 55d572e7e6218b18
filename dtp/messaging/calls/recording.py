"""Records a call's received media into an audio or video file. aiortc's own recorder begins before the sizes of
pictures are known.

A file's header lists all its streams, so only the first frame of each kind is kept until every kind has come.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from dtp.messaging.errors import MediaUnusable

log = logging.getLogger("dtp.messaging")
#: Codecs for video and audio by file type; Matroska, and types that aren't listed, have the usual ones.
_CODECS: Final = {"webm": ("libvpx", "libopus"), "mp4": ("libx264", "aac"), "mov": ("libx264", "aac")}
_USUAL: Final = ("libx264", "libopus")
_FAST: Final = {
    "libx264": {"preset": "ultrafast", "tune": "zerolatency"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8"},
}
#: Samples per second, as Opus has them.
_RATE: Final = 48_000
#: Frames that may wait for encoding: more than a second of them.
_MOST_PENDING: Final = 100


class MediaRecorder:
    """A file for received media. Frames are encoded in a thread."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._container: Any = None
        self._file: Any = None
        self._streams: dict[str, Any] = {}
        self._expected: set[str] = set()
        self._first: dict[str, Any] = {}
        self._pending = 0
        self._fault = ""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dtp-recording")

    def open(self) -> None:
        """Open the file. Raise `MediaUnusable`."""
        import av

        ending = Path(self._path).suffix.lower().removeprefix(".")
        kind = ending if ending in _CODECS else "matroska"
        self._codecs = dict(zip(("video", "audio"), _CODECS.get(ending, _USUAL), strict=True))
        try:
            self._file = sys.stdout.buffer if self._path == "-" else open(self._path, "wb")  # noqa: SIM115
            self._container = av.open(self._file, mode="w", format=kind)
        except (av.FFmpegError, OSError) as fault:
            raise MediaUnusable(f"{self._path} can't be written: {fault}") from None

    def expect_kind(self, kind: str) -> None:
        """Announce frames of a kind, before any is added."""
        self._expected.add(kind)

    def expect_no_more(self, kind: str) -> None:
        """Announce that no more frames of a kind will come."""
        self._expected.discard(kind)

    def add(self, kind: str, frame: Any) -> None:
        """Queue a frame for writing. It is dropped if too many wait already, or after a failed write."""
        if self._pending >= _MOST_PENDING or self._fault:
            return
        self._pending += 1
        loop = asyncio.get_running_loop()
        loop.run_in_executor(self._thread, self._try_write, self._write_frame, kind, frame).add_done_callback(
            self._on_written
        )

    def _on_written(self, done: asyncio.Future[None]) -> None:
        self._pending -= 1

    def _try_write(self, work: Callable[..., None], *arguments: Any) -> None:
        import av

        try:
            work(*arguments)
        except (av.FFmpegError, ValueError, OSError) as fault:
            self._fault = self._fault or f"{self._path}: {fault}"
            log.warning("a call isn't recorded any more: %s", self._fault)

    def _write_frame(self, kind: str, frame: Any) -> None:
        frames = {kind: frame}
        if not self._streams:
            self._first.setdefault(kind, frame)
            if self._expected - self._first.keys():
                return
            frames, self._first = self._first, {}
            self._streams = {
                each: self._add_stream(each, frames[each]) for each in sorted(frames, reverse=True)
            }
        for each, one in frames.items():
            if (stream := self._streams.get(each)) is not None:
                for packet in stream.encode(one):
                    self._container.mux(packet)

    def _add_stream(self, kind: str, frame: Any) -> Any:
        codec = self._codecs[kind]
        options = dict(_FAST.get(codec, {}))
        if kind == "audio":
            return self._container.add_stream(codec, rate=_RATE, layout="stereo", options=options)
        stream = self._container.add_stream(codec, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        return stream

    async def close(self) -> str:
        """Finish the file. Return what went wrong with it, or "". Idempotent."""
        if self._container is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._try_write, self._finish_file)
        self._thread.shutdown(wait=False)
        return self._fault

    def _finish_file(self) -> None:
        container, self._container = self._container, None
        with contextlib.closing(self._file), contextlib.closing(container):
            for stream in self._streams.values():
                for packet in stream.encode(None):
                    container.mux(packet)
        if not self._streams and Path(self._path).is_file():
            os.unlink(self._path)  # nothing was received, as when another device has taken the call
