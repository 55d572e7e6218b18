"""The limits of a login server, among them how often one may try."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

HOUR: Final = 3600


@dataclass(frozen=True, slots=True)
class LoginLimits:
    """The limits of a login server, each with its reason."""

    #: Accounts, at most.
    accounts: int = 100_000
    #: Logins of one account at once, and one more for each pause, in seconds: 154 guesses in the first day, and
    #: enough for people who mistype. Keys that have logged in before have tries of their own, so guessing locks
    #: nobody out.
    account_tries: int = 10
    account_pause: float = 600.0
    #: ... and of one source: several people in one office, but also somebody who tries one password for many names.
    source_tries: int = 60
    source_pause: float = 5.0
    #: Accounts that one source creates at once, and one more for each pause. Trying out which names are taken is as
    #: slow.
    registrations: int = 10
    registration_pause: float = 60.0
    #: Changes of one account's vault and credentials at once, and one more for each pause: each waits for the disk,
    #: and holds up the logins of all accounts.
    changes: int = 60
    change_pause: float = 1.0
    #: Names and sources whose tries are remembered, enough that an account's aren't pushed out by others.
    remembered: int = 100_000
    #: Seconds that a login lasts by default, and at most.
    session: int = 12 * HOUR
    longest_session: int = 30 * 24 * HOUR
    #: Keys of one account that are remembered as having logged in, and for how many seconds.
    keys: int = 64
    remember_key: int = 90 * 24 * HOUR
