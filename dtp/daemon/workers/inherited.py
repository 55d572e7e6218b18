"""What a store still has to be told: counts of the previous process, once that has given way, and bans that it
couldn't be told of.

Before that the upgrade may still fail, and the next attempt would report everything again (docs/decisions/0085).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from dtp.daemon.patience import PATIENCE
from dtp.daemon.state import CountKey, CountStore, Used
from dtp.daemon.state.errors import StateError
from dtp.tasks import start_task

log = logging.getLogger("dtpd")


class Inherited:
    """What a store still has to be told."""

    def __init__(
        self, used: Mapping[CountKey, Used], bans: Mapping[str, float], again: float = PATIENCE.again
    ) -> None:
        """`again`: seconds before an unavailable store is tried again."""
        self.used, self.bans, self._again = dict(used), dict(bans), again
        self._telling: asyncio.Task[None] | None = None

    def leave_out(self, caller: str) -> None:
        """Drop what was to be reported of a caller whose ban was changed since."""
        self.bans.pop(caller, None)

    async def ban(
        self, store: CountStore, caller: str, until: float, on_ban: Callable[[str], object]
    ) -> None:
        """Report that a caller is banned or allowed again, which replaces earlier reports. Raise `StateError`, in
        which case it is reported as soon as possible. `on_ban` is called once the store knows."""
        self.leave_out(caller)
        try:
            await store.ban(caller, until)
        except StateError as error:
            self.bans[caller] = until
            if self._telling is None or self._telling.done():
                self._telling = start_task(self.tell_store(store, on_ban), name="dtpd-bans")
            raise StateError(
                f"it holds at this daemon, and others that share the state hear of it once that works again: {error}"
            ) from error
        on_ban(caller)

    def close(self) -> None:
        """Report nothing more. Idempotent."""
        if self._telling is not None:
            self._telling.cancel()

    async def tell_store(self, store: CountStore, on_ban: Callable[[str], object]) -> None:
        """Report everything, repeatedly while the store is unavailable; `on_ban` is called for each ban that it
        knows then."""
        away = False
        while self.used or self.bans:
            try:
                await self._try_tell(store, on_ban)
            except StateError as error:
                if not away:
                    away = True
                    fields = {"event": "state-away", "why": str(error)}
                    words = "what the state has to know can't be told yet: %s"
                    log.warning(words, error, extra={"fields": fields})
                await asyncio.sleep(self._again)

    async def _try_tell(self, store: CountStore, on_ban: Callable[[str], object]) -> None:
        if self.used:
            told, self.used = self.used, {}  # not twice, whatever this process hands over meanwhile
            try:
                await store.exchange_counts(told)
            except StateError:
                self.used = told
                raise
        for caller, until in list(self.bans.items()):
            await store.ban(caller, until)
            if self.bans.pop(caller, None) is not None:
                on_ban(caller)
