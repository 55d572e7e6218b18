"""The present logins by their keys, as a value, which the policies of services ask."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

#: Seconds by which a server's clock may be set back without ending logins.
SET_BACK: Final = 60


class Login(NamedTuple):
    """An account that a key is logged in to."""

    name: str
    #: The key of the account's identity, 32 bytes: the same wherever it logs in.
    identity: bytes


@dataclass(frozen=True, slots=True)
class LoginRow:
    """A key that is logged in from `since` until `until`, Unix time in seconds."""

    key: bytes
    name: str
    identity: bytes
    until: int
    since: int


class Sessions:
    """The keys that are logged in: those of the connections that have logged in, and the identity of each account
    while any of its keys is. May be used from several threads.
    """

    def __init__(self, rows: Iterable[LoginRow] = (), *, longest: float = math.inf) -> None:
        """Logins that last for more than `longest` seconds aren't valid, nor are those made by a clock that was
        ahead.
        """
        self._lock = threading.RLock()
        self._longest = longest + SET_BACK
        self._rows: dict[bytes, LoginRow] = {}
        #: The keys of each account, by its identity.
        self._keys: dict[bytes, set[bytes]] = {}
        for each in rows:
            self.log_in(each)

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, key: bytes, now: float) -> Login | None:
        """Return the account that a key is logged in to at `now`, Unix time in seconds, or None."""
        with self._lock:
            row = self._rows.get(key)
            if row is None or not self._is_valid(row, now):
                rows = (self._rows[each] for each in self._keys.get(key, ()))
                row = next((each for each in rows if self._is_valid(each, now)), None)
        return None if row is None else Login(row.name, row.identity)

    def find_own(self, key: bytes, now: float) -> Login | None:
        """Return the account that a key has itself logged in to, or None. An account's own identity counts only in
        `find`.
        """
        with self._lock:
            row = self._rows.get(key)
        return Login(row.name, row.identity) if row is not None and self._is_valid(row, now) else None

    def _is_valid(self, row: LoginRow, now: float) -> bool:
        return row.since <= now + SET_BACK and now < row.until <= now + self._longest

    def log_in(self, row: LoginRow) -> None:
        """Log a key in, and out of the account that it was logged in to before."""
        with self._lock:
            self.log_out(row.key)
            self._rows[row.key] = row
            self._keys.setdefault(row.identity, set()).add(row.key)

    def log_out(self, key: bytes) -> None:
        """Log a key out."""
        with self._lock:
            row = self._rows.pop(key, None)
            if row is not None:
                keys = self._keys[row.identity]
                keys.discard(key)
                if not keys:
                    del self._keys[row.identity]

    def remove_account(self, identity: bytes, *, but: bytes = b"") -> None:
        """Log out all keys of an account, except `but`."""
        with self._lock:
            for key in self._keys.get(identity, set()) - {but}:
                self.log_out(key)

    def expire_sessions(self, now: float) -> None:
        """Forget logins that aren't valid at `now`."""
        with self._lock:
            for key in [key for key, row in self._rows.items() if not self._is_valid(row, now)]:
                self.log_out(key)
