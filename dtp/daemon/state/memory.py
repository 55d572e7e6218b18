"""Counts in this process alone: what the parent of workers adds up where no `[state]` is wanted."""

from __future__ import annotations

from collections.abc import Mapping

from dtp.daemon.state import Key, Used


class MemoryStore:
    """A `Store` that is gone with the process."""

    tells = False

    def __init__(self) -> None:
        self._used: dict[Key, Used] = {}
        self._bans: dict[str, float] = {}

    async def open(self) -> None:
        """It is there."""

    async def exchange(self, deltas: Mapping[Key, Used]) -> Mapping[Key, Used]:
        """See `Store`."""
        for key, used in deltas.items():
            known = self._used.get(key, Used())
            self._used[key] = Used(known.requests + used.requests, known.data + used.data)
        return {key: self._used[key] for key in deltas}

    async def forget(self, scope: str, before: int) -> None:
        """See `Store`."""
        self._used = {
            key: used for key, used in self._used.items() if key.scope != scope or key.period >= before
        }

    async def ban(self, caller: str, until: float) -> None:
        """See `Store`."""
        self._bans[caller] = until

    async def bans(self, now: float) -> Mapping[str, float]:
        """See `Store`."""
        # Those that have ended are kept: the clock may have been ahead, and be set back.
        return {caller: until for caller, until in self._bans.items() if until > now}

    async def close(self) -> None:
        """Nothing to close."""
