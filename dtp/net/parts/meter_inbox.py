"""Metering frames that have come: for whoever understands them, `dtp.pay` mostly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

#: Kept until somebody takes them: a peer may send its first one before we are ready for it.
EARLY: Final = 16


class MeterInbox:
    """Gives each frame to one function; those that came before it, first. Of these the newest 16 are kept."""

    __slots__ = ("_frames", "_on_frame")

    def __init__(self) -> None:
        self._on_frame: Callable[[bytes], None] | None = None
        self._frames: list[
            bytes
        ] = []  # a deque would be 0.7 KB of each connection, most of which meter nothing

    def take_frames(self, on_frame: Callable[[bytes], None]) -> None:
        """Call `on_frame` from now on with each, starting with those that have come."""
        self._on_frame = on_frame
        while self._frames:
            on_frame(self._frames.pop(0))

    def let_go(self) -> None:
        """Take none any more: the connection is over."""
        self._on_frame = None

    def put_frame(self, frame: bytes) -> None:
        """Take a frame that has come."""
        if self._on_frame is not None:
            self._on_frame(frame)
        else:
            self._frames.append(frame)
            del self._frames[:-EARLY]
