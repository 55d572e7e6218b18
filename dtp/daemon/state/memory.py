"""Counts in the memory of this process: used by the parent of workers where no `[state]` is configured."""

from __future__ import annotations

from collections.abc import Mapping

from dtp.bounded import BoundedDict
from dtp.daemon.state import MAX_CALLERS, CountKey, Used


class MemoryCountStore:
    """A `CountStore` that ends with the process. In each scope, the callers who used something last are known."""

    tells = False

    def __init__(self, most: int = MAX_CALLERS) -> None:
        """At most `most` keys of each scope are kept."""
        self._most = most
        self._scopes: dict[str, BoundedDict[CountKey, Used]] = {}
        self._bans: dict[str, float] = {}

    async def open(self) -> None:
        """Do nothing: it is always open."""

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
        """All counts, for the next process."""
        return {key: used for scope in self._scopes.values() for key, used in scope.items()}

    async def forget_periods(self, scope: str, before: int) -> None:
        """Remove the counts of earlier periods."""
        known: dict[CountKey, Used] = self._scopes.get(scope) or {}
        for key in [key for key in known if key.period < before]:
            del known[key]

    async def ban(self, caller: str, until: float) -> None:
        """Ban a caller until then (Unix time)."""
        self._bans[caller] = until

    async def list_bans(self, now: float) -> Mapping[str, float]:
        """Return the bans that hold after `now`, with their ends."""
        # Bans that have ended are kept, since the clock may have been ahead and be set back.
        return {caller: until for caller, until in self._bans.items() if until > now}

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""
