"""What a login server gives, and how often one may try."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

HOUR: Final = 3600


@dataclass(frozen=True, slots=True)
class LoginLimits:
    """Each has its reason."""

    #: Accounts that there are, at most.
    accounts: int = 100_000
    #: Logins of one account at once, and one more for each pause, seconds: 154 guesses in a day, and people who
    #: mistype. Keys that have logged in before have their own, so that guessing locks nobody out.
    account_tries: int = 10
    account_pause: float = 600.0
    #: ... and of one source: people in one office, and who guesses one password for many names.
    source_tries: int = 60
    source_pause: float = 5.0
    #: Accounts that one source makes at once, and one more for each pause: who asks which names are taken is as slow.
    registrations: int = 10
    registration_pause: float = 60.0
    #: Changes of one account's vault and passwords at once, and one more for each pause: each waits for the disk, and
    #: all accounts' logins with it.
    changes: int = 60
    change_pause: float = 1.0
    #: Names and sources that are remembered: an account's guesses are not forgotten for others'.
    remembered: int = 100_000
    #: Seconds that a login lasts, unless less is asked for, and at most.
    session: int = 12 * HOUR
    longest_session: int = 30 * 24 * HOUR
    #: Keys of one account that have logged in, and seconds for which one is remembered.
    keys: int = 64
    remember_key: int = 90 * 24 * HOUR
