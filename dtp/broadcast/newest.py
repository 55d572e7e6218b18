"""Which stream of a show counts if there are several, as a value."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Final

from dtp.broadcast.errors import SegmentError, SegmentForeign, ShowReplaced
from dtp.broadcast.format import Announcement
from dtp.broadcast.parents import Parents
from dtp.identity import PeerId

#: The most shows whose newest stream is remembered.
MOST: Final = 64
#: Milliseconds by which an announcement may be ahead of the local clock. One further ahead comes from a wrong
#: clock: whoever sent it again would make that stream count for years.
_AHEAD: Final = 86_400_000
#: Stands for the address when a producer publishes in a topic.
_TOPIC: Final = ""


def _now_ms() -> int:
    return int(time.time() * 1000)


class NewestStreams:
    """Of several streams, the one counts that the producer itself has, if it was asked. Of those of several
    devices, or if it wasn't asked, the one announced last counts. One that was announced in the future only counts
    if no other is known."""

    def __init__(self, now_ms: Callable[[], int] = _now_ms) -> None:
        self._now_ms = now_ms
        #: When the newest stream was announced, by producer and show.
        self._newest: dict[tuple[bytes, bytes], int] = {}
        #: What a producer itself has said that it serves, by the address at which it said so.
        self._own: dict[str, Announcement] = {}

    def note_announced(self, announcement: Announcement) -> None:
        """Note that a peer has a stream of a show."""
        show = announcement.producer.key, announcement.show
        if show in self._newest or len(self._newest) < MOST:
            known = self._newest.get(show, announcement.time_ms)
            self._newest[show] = max(known, announcement.time_ms, key=self._rank_by_time)

    def note_own(self, announcement: Announcement, address: str) -> None:
        """Note that the producer itself has this stream, at an address where it has proven its key. Its earlier
        stream there no longer counts, whatever its clock says."""
        self._own[address] = announcement

    def note_published(self, announcement: Announcement) -> None:
        """Note that the producer has published this stream in a topic. Somebody who sends its older messages again
        changes nothing."""
        known = self._own.get(_TOPIC)
        if known is None or self._rank_by_time(known.time_ms) < self._rank_by_time(announcement.time_ms):
            self._own[_TOPIC] = announcement

    def has_newer(self, announcement: Announcement) -> bool:
        """Return True if another stream counts rather than this one."""
        own = [each for each in self._own.values() if each.producer == announcement.producer]
        if own:
            counts = max(own, key=lambda each: self._rank_by_time(each.time_ms))
            return counts.encoded != announcement.encoded and counts.stream != announcement.stream
        newest = self._newest.get((announcement.producer.key, announcement.show), announcement.time_ms)
        return self._rank_by_time(newest) > self._rank_by_time(announcement.time_ms)

    def _rank_by_time(self, time_ms: int) -> tuple[bool, int]:
        return time_ms <= self._now_ms() + _AHEAD, time_ms


class ShowStreams:
    """The streams of the wanted show, by the announcements of those who have it.

    The address "" stands for the show's topic.
    """

    def __init__(self, parents: Parents, producer: PeerId | None, show: bytes | None) -> None:
        """`producer` and `show` are what an announcement has to name, if they are given."""
        self._parents, self._producer, self._show = parents, producer, show
        self._newest = NewestStreams()
        #: Given addresses that have said which stream they have.
        self._said = set[str]()
        #: The announcement of the current neighbour, which counts once its next message comes.
        self.announced: Announcement | None = None

    @property
    def unasked(self) -> list[str]:
        """Given addresses that haven't said yet which stream they have."""
        return [each for each in self._parents.given if each not in self._said]

    def accept_announcement(self, data: bytes, address: str, peer: PeerId, held: Announcement | None) -> None:
        """Take what the neighbour that is heard has: what is `held`, or what will be, once something follows. Raise
        `SegmentError`."""
        announcement = self._check_announcement(data, address, peer)
        if held is not None and data == held.encoded:
            return
        if self._newest.has_newer(announcement):
            raise SegmentForeign("this neighbour has a stream of the show that counts no more")
        if held is not None:
            raise SegmentForeign("this neighbour has another show")
        self.announced = announcement

    def note_announced(self, data: bytes, address: str, peer: PeerId) -> Announcement | None:
        """Note the stream of a neighbour that isn't used, and return it if it is of this show."""
        with contextlib.suppress(SegmentError):
            return self._check_announcement(data, address, peer)
        return None

    def _check_announcement(self, data: bytes, address: str, peer: PeerId) -> Announcement:
        """Return the announcement of a wanted show after noting it. Raise `SegmentError`."""
        announcement = Announcement.decode(data)
        if self._producer is not None and announcement.producer != self._producer:
            raise SegmentForeign(
                f"the show there isn't of {self._producer.short}, but of {announcement.producer}: if that is "
                "whom you mean, name it as --producer"
            )
        if self._show is not None and announcement.show != self._show:
            raise SegmentForeign(
                f"the show there is {announcement.show.hex()}, not {self._show.hex()}: ask its producer where"
            )
        self._note_stream(announcement, address, peer)
        return announcement

    def _note_stream(self, announcement: Announcement, address: str, peer: PeerId) -> None:
        """Note that `peer` has this stream. If it is the producer, at a given address, that decides which show is
        wanted."""
        self._newest.note_announced(announcement)
        if address == _TOPIC:  # its author is the producer, though anybody may send it again
            self._newest.note_published(announcement)
        elif self._parents.is_given(address):
            self._said.add(address)
            if peer == announcement.producer:
                self._newest.note_own(announcement, address)

    def check_replaced(self, held: Announcement | None) -> None:
        """Raise `ShowReplaced` if another stream than the held one counts."""
        if held is not None and self._newest.has_newer(held):
            raise ShowReplaced(
                "this is an older stream: the producer has begun the show anew since. Listen again, at the "
                "producer's own address"
            )
