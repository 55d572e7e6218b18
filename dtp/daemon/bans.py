"""Callers who are kept out by hand, for a time or until somebody lets them in again; whatever the file says."""

from __future__ import annotations

from collections.abc import Mapping

from dtp.daemon.policies.base import Caller

#: A ban that ends when somebody ends it. Unix time, as all ends of bans.
FOR_EVER = 1e12


class Bans:
    """By identity or Sui address, with the Unix time at which each ends."""

    def __init__(self) -> None:
        self._shared: dict[str, float] = {}
        #: Set here, and not heard of from those who share them: what they say may be older.
        self._own: dict[str, float] = {}
        self._until: dict[str, float] = {}

    def replace(self, bans: Mapping[str, float]) -> bool:
        """All that others know of now; whether that is news."""
        self._own = {caller: until for caller, until in self._own.items() if bans.get(caller, 0.0) != until}
        self._shared = dict(bans)
        return self._join()

    def set(self, caller: str, until: float) -> None:
        """Keep a caller out until then; a time that has passed lets it in."""
        self._own[caller] = until
        self._join()

    def _join(self) -> bool:
        before, self._until = self._until, {**self._shared, **self._own}
        return before != self._until

    @property
    def known(self) -> dict[str, float]:
        """All of them, with their ends."""
        return dict(self._until)

    def holds(self, caller: Caller, now: float) -> bool:
        """Whether it is kept out at Unix time `now`."""
        until = self._until
        if not until:
            return False
        return until.get(str(caller.peer), 0.0) > now or until.get(caller.account, 0.0) > now

    def status(self, now: float) -> dict[str, float | None]:
        """Who is kept out, and until when; None: until somebody ends it."""
        return {
            caller: None if until >= FOR_EVER else round(until, 3)
            for caller, until in sorted(self._until.items())
            if until > now
        }
