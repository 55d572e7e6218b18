"""Streams that hold up all others of their connection: nobody takes what has come on them.

One connection carries all programs of a forward, all streams of a caller, and all circuits to a peer that has a place
at a relay. Some of them whose programs, backends or other ends take nothing have its whole window (docs/wire.md,
"Credit"): then nothing comes for anybody, for as long as they like. So whoever holds most of a window that has been
full for some seconds is cut off, where others may wait for it. Alone with its like it may take its time.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Final, Generic, TypeVar

from dtp.net.connection import Connection
from dtp.net.stream import Stream
from dtp.plurals import count_of

T = TypeVar("T")

#: Looks within the patience: a window that is found as full by all of them has let nothing in.
LOOKS: Final = 2
#: Whoever has taken so many bytes meanwhile isn't stuck, but slow: there may be no new credit for that yet, as it is
#: told by larger parts of the window.
_LITTLE: Final = 4096


class StuckStreams(Generic[T]):
    """Looks for them, `LOOKS` times in as long as a window may be full."""

    def __init__(
        self,
        at_work: Callable[[], Mapping[Stream, T]],
        end: Callable[[T], object],
        log: logging.Logger,
        *,
        others_come: bool = False,
    ) -> None:
        """`at_work` gives the streams, each with what `end` cuts off; `others_come` where somebody may always wait
        who has no stream yet."""
        self._at_work, self._end, self._log, self._others_come = at_work, end, log, others_come
        #: Where each blocked connection stands, how many looks have found it there, and what each had at the first.
        self._found: dict[Connection, tuple[int, int, dict[Stream, int]]] = {}

    async def look_always(self, patience: float) -> None:
        """Look until cancelled: who has been in the way for `patience` seconds is ended."""
        while True:
            await asyncio.sleep(patience / LOOKS)
            self.end_stuck()

    def end_stuck(self) -> None:
        """Look once, and end who has been in the way for so long."""
        before, self._found = self._found, {}
        at_work = self._at_work()
        # All streams, perhaps thousands, are looked at in one turn of the loop: nothing more is done for each.
        connections = {each.connection for each in at_work}
        blocked: dict[Connection, tuple[int, dict[Stream, int]]] = {
            each: (at, {}) for each in connections if (at := each.blocked_at) is not None
        }
        for each in at_work if blocked else ():
            if each.connection in blocked:
                blocked[each.connection][1][each] = each.unread
        for connection, (at, unread) in blocked.items():
            place, looks, first = before.get(connection, (at, 0, unread))
            if place != at:
                looks, first = 0, unread
            if looks == LOOKS:
                self._cut_off(unread, first, at_work)
            else:
                self._found[connection] = at, looks + 1, first

    def _cut_off(
        self,
        unread: Mapping[Stream, int],
        first: Mapping[Stream, int],
        at_work: Mapping[Stream, T],
    ) -> None:
        """End those who hold most and have taken nothing since they had what `first` says, half of the window at
        least, and all of them who hold nearly as much, if there is another who may wait."""
        if min(unread.values()) and not self._others_come:
            return
        stuck = [
            (size, each)
            for each, size in unread.items()
            if size and first.get(each, math.inf) - size < _LITTLE
        ]
        stuck.sort(key=itemgetter(0), reverse=True)
        freed, ended = 0, 0
        for size, stream in stuck:
            if freed >= stream.connection.limits.connection_window // 2 and size < stuck[0][0] // 2:
                break
            self._end(at_work[stream])
            freed += size
            ended += 1
        if ended:
            others = len(unread) - ended
            fields = {"event": "in-the-way", "ended": ended, "held": freed, "others": others}
            self._log.warning(
                "%s took nothing, and held up %s of the same connection: ended, with %d KiB; whoever pauses for "
                "long should end its stream, and ask again",
                *(count_of(ended, "stream"), count_of(others, "other"), freed >> 10),
                extra={"fields": fields},
            )
