"""Which stream of a show counts, where several are about: a value."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from dtp.broadcast.format import Announcement

#: Shows of which the newest stream is remembered.
MOST: Final = 64
#: Milliseconds by which an announcement may be ahead of the clock here. One that is more was made by a wrong clock:
#: who sends it again would have that stream count for years.
_AHEAD: Final = 86_400_000


def _now_ms() -> int:
    return int(time.time() * 1000)


class NewestStreams:
    """The stream counts that its producer announced last. One that was announced in the future counts only where no
    other one is known."""

    def __init__(self, now_ms: Callable[[], int] = _now_ms) -> None:
        self._now_ms = now_ms
        #: When the newest stream was announced, by producer and show.
        self._newest: dict[tuple[bytes, bytes], int] = {}
        #: What a producer itself has said last that it serves.
        self._own: Announcement | None = None

    def note_announced(self, announcement: Announcement, *, own: bool = False) -> None:
        """Note that somebody has a stream of a show. With `own` its producer itself has, where the listener looks for
        it: then it is that show, and none that it had before."""
        show = announcement.producer.key, announcement.show
        if show in self._newest or len(self._newest) < MOST:
            known = self._newest.get(show, announcement.time_ms)
            self._newest[show] = max(known, announcement.time_ms, key=self._rank)
        if own and (self._own is None or self._rank(self._own.time_ms) < self._rank(announcement.time_ms)):
            self._own = announcement

    def has_newer(self, announcement: Announcement) -> bool:
        """Return whether another stream counts, and not this one."""
        own = self._own
        if own is not None and own.producer == announcement.producer and own.show != announcement.show:
            return True
        newest = self._newest.get((announcement.producer.key, announcement.show), announcement.time_ms)
        return self._rank(newest) > self._rank(announcement.time_ms)

    def _rank(self, time_ms: int) -> tuple[bool, int]:
        return time_ms <= self._now_ms() + _AHEAD, time_ms
