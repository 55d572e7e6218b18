"""Callers banned by the operator, for a time or until the ban is lifted, whatever the configuration says."""

from __future__ import annotations

from collections.abc import Mapping

from dtp.daemon.policies.base import Caller

#: The end of a ban that holds until it is lifted. Unix time, like the end of every ban.
FOR_EVER = 1e12


class Bans:
    """Bans by identity or Sui address, each with the Unix time at which it ends."""

    def __init__(self) -> None:
        self._shared: dict[str, float] = {}
        #: Bans set here, which may be newer than what others report.
        self._own: dict[str, float] = {}
        #: Those that were shared: how many more reports from others may be older.
        self._told: dict[str, int] = {}
        self._until: dict[str, float] = {}

    def replace_shared(self, bans: Mapping[str, float]) -> bool:
        """Replace the bans that others know; return True if that changed anything."""
        for caller, answers in list(self._told.items()):
            if answers and bans.get(caller, 0.0) != self._own[caller]:
                self._told[caller] = answers - 1
            else:
                del self._told[caller], self._own[caller]
        self._shared = dict(bans)
        return self._join_bans()

    def set_ban(self, caller: str, until: float) -> None:
        """Ban a caller until then; a time in the past lifts the ban."""
        self._own[caller] = until
        self._told.pop(caller, None)
        self._join_bans()

    def mark_shared(self, caller: str) -> None:
        """Note that a ban has been shared. From the report after the next one on, what others say about it
        holds."""
        if caller in self._own:
            self._told[caller] = 1

    def _join_bans(self) -> bool:
        before, self._until = self._until, {**self._shared, **self._own}
        return before != self._until

    @property
    def known(self) -> dict[str, float]:
        """All bans, with their ends."""
        return dict(self._until)

    def is_banned(self, caller: Caller, now: float) -> bool:
        """True if the caller is banned at Unix time `now`."""
        until = self._until
        if not until:
            return False
        return until.get(str(caller.peer), 0.0) > now or until.get(caller.account, 0.0) > now

    def get_status(self, now: float) -> dict[str, float | None]:
        """Return banned callers, each with the end of its ban; None for a ban until it is lifted."""
        return {
            caller: None if until >= FOR_EVER else round(until, 3)
            for caller, until in sorted(self._until.items())
            if until > now
        }
