"""Whether a store can be had, by what was tried last: that it can be read, and written.

Most daemons have nothing to write for hours, and a full disk can be read: so something is written now and then.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from dtp.daemon.state import CountStore
from dtp.daemon.state.errors import StateError

log = logging.getLogger("dtpd")

#: Looks between two rows that are written to see whether that can be done; one follows the other while it can't.
LOOKS: Final = 10
#: Whom that row bans, until when: nobody, and no longer than the beginning of time.
_NOBODY: Final = ("", 0.0)


class WatchedStore:
    """What is known of a store, and is told in the log when it changes."""

    def __init__(self, store: CountStore, consequence: str) -> None:
        """`consequence`: what follows while it can't be had, for the log."""
        self._store, self._consequence = store, consequence
        #: What could not be done when it was tried last, and why.
        self._faults: dict[str, str] = {}
        self._left = LOOKS

    @property
    def up(self) -> bool:
        """Whether the store can be had, as far as is known."""
        return not self._faults

    @property
    def trouble(self) -> str:
        """Why it can't; "" while it can."""
        return next(iter(self._faults.values()), "")

    def get_status(self) -> dict[str, Any]:
        """Return what the status of the daemon says of it."""
        return {"state_up": self.up, "state_trouble": self.trouble}

    def get_status_with(self, workers: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the status of a parent says of it, whose `workers` have told what they know."""
        up = self.up and workers.get("state_up", True)
        return {"state_up": up, "state_trouble": self.trouble or workers.get("state_trouble", "")}

    def note_failing(self, what: str, error: StateError) -> None:
        """Note that something can't be done."""
        if not self._faults:
            fields = {"event": "state-away", "why": str(error)}
            log.warning("%s: %s", self._consequence, error, extra={"fields": fields})
        self._faults[what] = str(error)

    def note_working(self, what: str) -> None:
        """Note that it can."""
        if self._faults.pop(what, None) is not None and not self._faults:
            log.info("the state can be shared again", extra={"fields": {"event": "state-back"}})

    async def try_writing(self) -> None:
        """Write a row that says nothing, at every `LOOKS`th call, and at each while the store is away."""
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
