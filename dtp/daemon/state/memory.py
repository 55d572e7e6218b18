"""Counts in this process alone: what the parent of workers adds up where no `[state]` is wanted."""

from __future__ import annotations

from collections.abc import Mapping

from dtp.bounded import BoundedDict
from dtp.daemon.state import MAX_CALLERS, CountKey, Used


class MemoryCountStore:
    """A `Store` that is gone with the process. Of each scope, those who used something last are known."""

    tells = False

    def __init__(self, most: int = MAX_CALLERS) -> None:
        """`most` keys of each scope are known."""
        self._most = most
        self._scopes: dict[str, BoundedDict[CountKey, Used]] = {}
        self._bans: dict[str, float] = {}

    async def open(self) -> None:
        """Do nothing: it is there."""

    async def exchange_counts(self, deltas: Mapping[CountKey, Used]) -> Mapping[CountKey, Used]:
        """Add `deltas`, and return the totals of their keys."""
        return {key: self._add_used(key, used) for key, used in deltas.items()}

    def _add_used(self, key: CountKey, used: Used) -> Used:
        scope = self._scopes.setdefault(key.scope, BoundedDict(self._most))
        total = scope.get(key, Used())
        if any(used):
            total = scope[key] = Used(total.requests + used.requests, total.data + used.data)
        return total

    @property
    def used(self) -> dict[CountKey, Used]:
        """All that was counted, for the process after this one."""
        return {key: used for scope in self._scopes.values() for key, used in scope.items()}

    async def forget_periods(self, scope: str, before: int) -> None:
        """Drop what was counted for the periods before this one."""
        known: dict[CountKey, Used] = self._scopes.get(scope) or {}
        for key in [key for key in known if key.period < before]:
            del known[key]

    async def ban(self, caller: str, until: float) -> None:
        """Keep a caller out until then (Unix time)."""
        self._bans[caller] = until

    async def list_bans(self, now: float) -> Mapping[str, float]:
        """Return who is kept out after `now`, and until when."""
        # Those that have ended are kept: the clock may have been ahead, and be set back.
        return {caller: until for caller, until in self._bans.items() if until > now}

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""
