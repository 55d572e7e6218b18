"""Whether a store is available, judging by the last attempts to read and to write.

Most daemons have nothing to write for hours, and a full disk can still be read. So something is written from time
to time.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from dtp.daemon.state import CountStore
from dtp.daemon.state.errors import StateError

log = logging.getLogger("dtpd")

#: The number of checks between two test writes. While the store is unavailable, each check writes.
LOOKS: Final = 10
#: The caller and end of the ban that is written: nobody, and in the past.
_NOBODY: Final = ("", 0.0)


class WatchedStore:
    """What is known about a store, which is logged when it changes."""

    def __init__(self, store: CountStore, consequence: str) -> None:
        """`consequence`: what follows while it is unavailable, for the log."""
        self._store, self._consequence = store, consequence
        #: What failed at the last attempt, and why.
        self._faults: dict[str, str] = {}
        self._left = LOOKS

    @property
    def up(self) -> bool:
        """Whether the store is available, as far as is known."""
        return not self._faults

    @property
    def trouble(self) -> str:
        """Why it isn't; "" while it is."""
        return next(iter(self._faults.values()), "")

    def get_status(self) -> dict[str, Any]:
        """Return its part of the daemon's status."""
        return {"state_up": self.up, "state_trouble": self.trouble}

    def get_status_with(self, workers: Mapping[str, Any]) -> dict[str, Any]:
        """Return its part of a parent's status, whose `workers` have reported what they know."""
        up = self.up and workers.get("state_up", True)
        return {"state_up": up, "state_trouble": self.trouble or workers.get("state_trouble", "")}

    def note_failing(self, what: str, error: StateError) -> None:
        """Note that something fails."""
        if not self._faults:
            fields = {"event": "state-away", "why": str(error)}
            log.warning("%s: %s", self._consequence, error, extra={"fields": fields})
        self._faults[what] = str(error)

    def note_working(self, what: str) -> None:
        """Note that something works again."""
        if self._faults.pop(what, None) is not None and not self._faults:
            log.info("the state can be shared again", extra={"fields": {"event": "state-back"}})

    async def try_writing(self) -> None:
        """Write a meaningless row at every `LOOKS`th call, and at each call while the store is unavailable."""
        self._left -= 1
        if self._left > 0 and self.up:
            return
        self._left = LOOKS
        try:
            await self._store.ban(*_NOBODY)
        except StateError as error:
            self.note_failing("writing", error)
        else:
            self.note_working("writing")
