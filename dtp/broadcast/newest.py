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
#: Stands for an address where a producer publishes in a topic.
_TOPIC: Final = ""


def _now_ms() -> int:
    return int(time.time() * 1000)


class NewestStreams:
    """The stream counts that its producer itself has, where it was asked; of those of several devices, and where it
    wasn't asked, the one that was announced last. One that was announced in the future counts only where no other one
    is known."""

    def __init__(self, now_ms: Callable[[], int] = _now_ms) -> None:
        self._now_ms = now_ms
        #: When the newest stream was announced, by producer and show.
        self._newest: dict[tuple[bytes, bytes], int] = {}
        #: What a producer itself has said that it serves: by the address at which it did.
        self._own: dict[str, Announcement] = {}

    def note_announced(self, announcement: Announcement) -> None:
        """Note that somebody has a stream of a show."""
        show = announcement.producer.key, announcement.show
        if show in self._newest or len(self._newest) < MOST:
            known = self._newest.get(show, announcement.time_ms)
            self._newest[show] = max(known, announcement.time_ms, key=self._rank_by_time)

    def note_own(self, announcement: Announcement, address: str) -> None:
        """Note that its producer itself has this stream, at an address where it has proven its key. What it had there
        before counts no more, whatever its clock says."""
        self._own[address] = announcement

    def note_published(self, announcement: Announcement) -> None:
        """Note that its producer has published this stream in a topic: who sends older messages of it again changes
        nothing."""
        known = self._own.get(_TOPIC)
        if known is None or self._rank_by_time(known.time_ms) < self._rank_by_time(announcement.time_ms):
            self._own[_TOPIC] = announcement

    def has_newer(self, announcement: Announcement) -> bool:
        """Return whether another stream counts, and not this one."""
        own = [each for each in self._own.values() if each.producer == announcement.producer]
        if own:
            counts = max(own, key=lambda each: self._rank_by_time(each.time_ms))
            return counts.encoded != announcement.encoded and counts.stream != announcement.stream
        newest = self._newest.get((announcement.producer.key, announcement.show), announcement.time_ms)
        return self._rank_by_time(newest) > self._rank_by_time(announcement.time_ms)

    def _rank_by_time(self, time_ms: int) -> tuple[bool, int]:
        return time_ms <= self._now_ms() + _AHEAD, time_ms
