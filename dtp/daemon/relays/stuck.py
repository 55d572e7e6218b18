"""Streams that hold up all others of their connection: nobody takes what has come on them.

One connection carries all programs of a forward, and all streams of a caller. Four of them whose programs or backends
take nothing have its whole window (docs/wire.md, "Credit"): then nothing comes for anybody, for as long as they like.
So whoever holds most of a window that has been full for some seconds is cut off, where others may wait for it. Alone
with its like it may take its time.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Final

from dtp.daemon.reasons import Reason
from dtp.daemon.relays.ledger import ServedSession
from dtp.net.connection import Connection
from dtp.plurals import count_of
from dtp.tasks import SupervisedTask

log = logging.getLogger("dtpd")

#: Looks within the patience: a window that is found as full by all of them has let nothing in.
_LOOKS: Final = 2
#: Who has taken so many bytes meanwhile isn't stuck, but slow: there is new credit only when a quarter of the window
#: was taken.
_LITTLE: Final = 4096


class StuckStreams:
    """Looks for them, once started."""

    def __init__(self, sessions: Callable[[], Iterable[ServedSession]], patience: float) -> None:
        """`sessions` gives those that are open; `patience` is how long a window may be full, seconds."""
        self._sessions, self._every = sessions, patience / _LOOKS
        #: Where each blocked connection stands, how many looks have found it there, and what each had at the first.
        self._found: dict[Connection, tuple[int, int, dict[ServedSession, int]]] = {}
        self._task = SupervisedTask(self._look_repeatedly, name="dtpd-stuck")

    def start(self) -> None:
        """Begin to look."""
        self._task.start()

    async def close(self) -> None:
        """Look no more. Idempotent."""
        await self._task.stop()

    async def _look_repeatedly(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            self.look()

    def look(self) -> None:
        """Look once, and end who has been in the way for so long."""
        before, self._found = self._found, {}
        for connection in {one.stream.connection for one in self._sessions()}:
            at = connection.blocked_at
            if at is None:
                continue
            unread = {
                one: one.stream.unread for one in self._sessions() if one.stream.connection is connection
            }
            place, looks, first = before.get(connection, (at, 0, unread))
            if place != at:
                looks, first = 0, unread
            if looks == _LOOKS:
                _cut_off(unread, first)
            else:
                self._found[connection] = at, looks + 1, first


def _cut_off(unread: Mapping[ServedSession, int], first: Mapping[ServedSession, int]) -> None:
    """End those who hold most and have taken nothing since they had what `first` says, half of the window at least,
    and all of them who hold nearly as much, if there is another who may wait."""
    if min(unread.values()):
        return
    stuck = [
        (size, one) for one, size in unread.items() if size and first.get(one, math.inf) - size < _LITTLE
    ]
    stuck.sort(key=itemgetter(0), reverse=True)
    freed, ended = 0, 0
    for size, session in stuck:
        enough = session.stream.connection.limits.connection_window // 2
        if freed >= enough and size < stuck[0][0] // 2:
            break
        session.abort(Reason.IN_THE_WAY)
        freed += size
        ended += 1
    if not ended:
        return
    others = len(unread) - ended
    fields = {"event": "in-the-way", "ended": ended, "held": freed, "others": others}
    log.warning(
        "%s took nothing, and held up %s of the same connection: ended, with %d KiB",
        *(count_of(ended, "stream"), count_of(others, "other"), freed >> 10),
        extra={"fields": fields},
    )
