"""Where counts are kept over restarts, and shared by several daemons: a store for each kind of database.

Daemons decide by themselves and exchange their counts once a second. So no request waits for a database, and a
quota may be exceeded by what comes within that second (docs/decisions/0086).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, cast


class CountKey(NamedTuple):
    """Identifies a count: of which rule ("SERVICE/NUMBER/SECONDS"), in which period, of which caller ("*" for
    all)."""

    scope: str
    period: int
    caller: str


class Used(NamedTuple):
    """What was used, in requests and bytes."""

    requests: int = 0
    data: int = 0


#: The most callers that are counted in memory, which takes about 20 MB. Times in the past are dropped long before
#: that.
MAX_CALLERS = 100_000


class CountStore(Protocol):
    """Adds up the counts of daemons with one name.

    Raises `StateError` when the database is unavailable, in which case nothing was added.
    """

    #: Whether `exchange_counts` also returns totals that weren't asked for, which others have changed since the
    #: last call.
    tells: bool

    async def open(self) -> None:
        """Connect, and create the tables if they don't exist."""

    async def exchange_counts(self, deltas: Mapping[CountKey, Used]) -> Mapping[CountKey, Used]:
        """Add `deltas`, either all or none, and return the totals of their keys.

        Zeros only ask, and store nothing: every caller is asked about, and anybody may come. A key without a total
        in the result can't be counted there, whatever happens to others: it must not be reported again.
        """

    async def forget_periods(self, scope: str, before: int) -> None:
        """Remove the counts of earlier periods."""

    async def ban(self, caller: str, until: float) -> None:
        """Ban a caller until then (Unix time), at all daemons of the host."""

    async def list_bans(self, now: float) -> Mapping[str, float]:
        """Return the bans that hold after `now`, with their ends. Bans that have ended are kept, since a caller's
        clock may be behind."""

    async def close(self) -> None:
        """Disconnect. Idempotent."""


#: Returns an unopened store at a URL, for the daemons that count under a name.
MakeStore = Callable[[str, str], CountStore]

#: The scheme of `[state] url`, and the module whose `make(url, host)` returns a store.
STORES: dict[str, str] = {
    "sqlite": "dtp.daemon.state.sqlite",
    "redis": "dtp.daemon.state.redis",
    "rediss": "dtp.daemon.state.redis",
    "postgresql": "dtp.daemon.state.postgresql",
}


def make(url: str, host: str) -> CountStore:
    """Return the store at `url`, whose scheme is in `STORES`, for the daemons that count as `host`. It isn't opened
    yet.

    Raise `ConfigError` when a required package isn't installed.
    """
    module = importlib.import_module(STORES[url.partition(":")[0]])
    return cast(CountStore, module.make(url, host))


def check_url(url: str) -> None:
    """Raise `ConfigError` for faults of the store at `url` that show without asking a server.

    These are a missing package, a URL that the client doesn't accept, or a file that isn't a database. Nothing is
    created or changed.
    """
    importlib.import_module(STORES[url.partition(":")[0]]).check_url(url)
