"""What the process before has counted, for a store that doesn't have it: told once, when that process has given way.

Before that the upgrade may still fail, and the next one would tell all of it again (docs/decisions/0085).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from dtp.daemon.state import Key, Store, Used
from dtp.daemon.state.errors import StateError

log = logging.getLogger("dtpd")

#: Seconds until a store that is away is told again.
_AGAIN = 1.0


class Inherited:
    """What a store is to be told yet."""

    def __init__(self, used: Mapping[Key, Used], bans: Mapping[str, float]) -> None:
        self.used, self.bans = dict(used), dict(bans)

    def leave_out(self, caller: str) -> None:
        """A caller was banned or let in anew: what was said of it before holds no more."""
        self.bans.pop(caller, None)

    async def tell(self, store: Store, on_ban: Callable[[str], object]) -> None:
        """Tell it all, a store that is away until it is back; `on_ban` is called for each ban that it knows."""
        away = False
        while self.used or self.bans:
            try:
                await self._tell(store, on_ban)
            except StateError as error:
                if not away:
                    away = True
                    fields = {"event": "state-away", "why": str(error)}
                    words = "what the process before has counted can't be told yet: %s"
                    log.warning(words, error, extra={"fields": fields})
                await asyncio.sleep(_AGAIN)

    async def _tell(self, store: Store, on_ban: Callable[[str], object]) -> None:
        if self.used:
            told, self.used = self.used, {}  # not again, whatever this process hands over meanwhile
            try:
                await store.exchange(told)
            except StateError:
                self.used = told
                raise
        for caller, until in list(self.bans.items()):
            await store.ban(caller, until)
            if self.bans.pop(caller, None) is not None:
                on_ban(caller)
