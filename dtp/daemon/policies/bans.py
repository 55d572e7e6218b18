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
        #: Set here, and what others say may be older.
        self._own: dict[str, float] = {}
        #: Of them, those that were told: how many answers of others may still be older.
        self._told: dict[str, int] = {}
        self._until: dict[str, float] = {}

    def replace_shared(self, bans: Mapping[str, float]) -> bool:
        """Take all bans that others know of now; return whether that is news."""
        for caller, answers in list(self._told.items()):
            if answers and bans.get(caller, 0.0) != self._own[caller]:
                self._told[caller] = answers - 1
            else:
                del self._told[caller], self._own[caller]
        self._shared = dict(bans)
        return self._join_bans()

    def set_ban(self, caller: str, until: float) -> None:
        """Keep a caller out until then; a time that has passed lets it in."""
        self._own[caller] = until
        self._told.pop(caller, None)
        self._join_bans()

    def mark_shared(self, caller: str) -> None:
        """Note that those who share them know of a ban now: from the answer after the next one on, what they say
        holds."""
        if caller in self._own:
            self._told[caller] = 1

    def _join_bans(self) -> bool:
        before, self._until = self._until, {**self._shared, **self._own}
        return before != self._until

    @property
    def known(self) -> dict[str, float]:
        """All of them, with their ends."""
        return dict(self._until)

    def is_banned(self, caller: Caller, now: float) -> bool:
        """True if it is kept out at Unix time `now`."""
        until = self._until
        if not until:
            return False
        return until.get(str(caller.peer), 0.0) > now or until.get(caller.account, 0.0) > now

    def get_status(self, now: float) -> dict[str, float | None]:
        """Return who is kept out, and until when; None: until somebody ends it."""
        return {
            caller: None if until >= FOR_EVER else round(until, 3)
            for caller, until in sorted(self._until.items())
            if until > now
        }
