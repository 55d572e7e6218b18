"""Where is counted over restarts, and by several daemons together: a store for each kind of database.

Daemons decide by themselves and tell each other what they have counted, once a second: no request waits for a
database, and a quota may be overrun by what comes within that second (docs/decisions/0086).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, cast


class CountKey(NamedTuple):
    """Whose use it is: of which rule ("SERVICE/NUMBER/SECONDS"), in which period, by which caller ("*": all)."""

    scope: str
    period: int
    caller: str


class Used(NamedTuple):
    """How much: requests and bytes."""

    requests: int = 0
    data: int = 0


#: Callers that are counted at once in memory; times that have passed are forgotten long before. About 20 MB.
MAX_CALLERS = 100_000


class CountStore(Protocol):
    """Adds up what daemons of one name count.

    Raises `StateError` when the database can't do it now; then nothing was added.
    """

    #: Whether `exchange_counts` also gives totals that were not asked for: those that others have changed since.
    tells: bool

    async def open(self) -> None:
        """Connect, and make the tables if they are not there."""

    async def exchange_counts(self, deltas: Mapping[CountKey, Used]) -> Mapping[CountKey, Used]:
        """Add `deltas`, all or none, and give the totals of their keys.

        Zeros only ask, and leave nothing behind: whoever comes is asked about, and anybody may come.
        A key of which no total is given can't be counted there, whatever the others: it isn't to be told again.
        """

    async def forget_periods(self, scope: str, before: int) -> None:
        """Drop what was counted for the periods before this one."""

    async def ban(self, caller: str, until: float) -> None:
        """Keep a caller out until then (Unix time), at all daemons of the host."""

    async def list_bans(self, now: float) -> Mapping[str, float]:
        """Return who is kept out after `now`, and until when. Bans that have ended stay, for who asks of an earlier
        time."""

    async def close(self) -> None:
        """Disconnect. Idempotent."""


#: Returns a store that is not open yet, at a URL, for the daemons that count under a name.
MakeStore = Callable[[str, str], CountStore]

#: Scheme of `[state] url` -> the module whose `make(url, host)` gives a store for daemons that count as one.
STORES: dict[str, str] = {
    "sqlite": "dtp.daemon.state.sqlite",
    "redis": "dtp.daemon.state.redis",
    "rediss": "dtp.daemon.state.redis",
    "postgresql": "dtp.daemon.state.postgresql",
}


def make(url: str, host: str) -> CountStore:
    """Return the store at `url`, whose scheme is in `STORES`, for the daemons that count as `host`. Nothing is opened
    yet.

    Raises `ConfigError` when the package it takes is not installed.
    """
    module = importlib.import_module(STORES[url.partition(":")[0]])
    return cast(CountStore, module.make(url, host))


def check_url(url: str) -> None:
    """Raise `ConfigError` for what is wrong with the store at `url` and can be seen without asking a server.

    That is a package that is missing, a URL that its client doesn't take, a file that isn't a database. Nothing is
    made or changed.
    """
    importlib.import_module(STORES[url.partition(":")[0]]).check_url(url)
