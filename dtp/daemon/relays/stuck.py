"""Streams that hold up all others of their connection: nobody takes what has come on them.

One connection carries all programs of a forward, and all streams of a caller. Four of them whose programs or backends
take nothing have its whole window (docs/wire.md, "Credit"): then nothing comes for anybody, for as long as they like.
So whoever holds most of a window that has been full for some seconds is cut off, where others may wait for it. Alone
with its like it may take its time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
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


class StuckStreams:
    """Looks for them, once started."""

    def __init__(self, sessions: Callable[[], Iterable[ServedSession]], patience: float) -> None:
        """`sessions` gives those that are open; `patience` is how long a window may be full, seconds."""
        self._sessions, self._every = sessions, patience / _LOOKS
        #: Where each blocked connection stands, and how many looks have found it there.
        self._found: dict[Connection, tuple[int, int]] = {}
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
            place, looks = before.get(connection, (at, 0))
            looks = looks + 1 if place == at else 1
            if looks > _LOOKS:
                _cut_off([one for one in self._sessions() if one.stream.connection is connection])
            else:
                self._found[connection] = at, looks


def _cut_off(sessions: list[ServedSession]) -> None:
    """End those who hold most, half of the window at least, and all who hold nearly as much, if there is another."""
    unread = sorted(((one.stream.unread, one) for one in sessions), key=itemgetter(0), reverse=True)
    if not unread or unread[-1][0]:
        return
    enough, freed, ended = unread[-1][1].stream.connection.limits.connection_window // 2, 0, 0
    for size, session in unread:
        if not size or (freed >= enough and size < unread[0][0] // 2):
            break
        session.abort(Reason.IN_THE_WAY)
        freed += size
        ended += 1
    fields = {"event": "in-the-way", "ended": ended, "held": freed, "others": len(sessions) - ended}
    log.warning(
        "%s took nothing, and held up %s of the same connection: ended, with %d KiB",
        *(count_of(ended, "stream"), count_of(len(sessions) - ended, "other"), freed >> 10),
        extra={"fields": fields},
    )
