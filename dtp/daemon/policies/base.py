"""What a policy is: given what a caller wants and when, it returns why that isn't allowed. It doesn't act
itself."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeVar

from dtp.daemon.reasons import Reason
from dtp.daemon.state.table import Table
from dtp.identity import PeerId
from dtp.messaging.login.sessions import Login

_Number = TypeVar("_Number", int, float)


#: Returns the account that a key is logged in to at a Unix time in seconds, or None.
FindLogin = Callable[[bytes, float], Login | None]


def find_nobody(key: bytes, now: float) -> None:
    """Return None: nobody is logged in."""


class Moment(NamedTuple):
    """A time by two clocks, in seconds: a monotonic one, and Unix time."""

    steady: float
    unix: float


#: Returns the current time.
Clock = Callable[[], Moment]

#: What `__new__` of a NamedTuple calls, without the step in Python.
_new_tuple = tuple.__new__


def moment() -> Moment:
    """Return the current time."""
    return _new_tuple(Moment, (time.monotonic(), time.time()))


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller: its proven identity, its Sui account, and where its carrier comes from (which proves nothing)."""

    peer: PeerId
    account: str
    source: str
    #: The account it is logged in to at this request, where the service asks for logins.
    login: Login | None = None


# Events aren't frozen: making a frozen dataclass takes three times as long, and some are made for each stream.


@dataclass(slots=True)
class Arrive:
    """A caller asks for a connection to the service."""

    caller: Caller


@dataclass(slots=True)
class Open:
    """A caller opens a stream."""

    caller: Caller


@dataclass(slots=True)
class MethodCall:
    """A caller makes a request: `method` in protocols that have methods, "" for the stream as a whole otherwise.

    `also`: other methods that a backend may take it for. To pass, a rule has to allow all of them.
    """

    caller: Caller
    method: str = ""
    also: tuple[str, ...] = ()


@dataclass(slots=True)
class Move:
    """Bytes have come from the caller or the backend. Since they are here already, a denial only stops what
    follows."""

    caller: Caller
    size: int


@dataclass(slots=True)
class Close:
    """A stream that was opened has ended."""

    caller: Caller


Event = Arrive | Open | MethodCall | Move | Close


@dataclass(frozen=True, slots=True)
class Denial:
    """A denial, and why, for the log and for the caller. After `retry` seconds it may be allowed."""

    policy: str
    reason: Reason
    why: str
    retry: float | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of a stream: bytes in both directions, seconds in all, seconds without a byte. None for no
    bound."""

    data: int | None = None
    time: float | None = None
    idle: float | None = None

    def tighten(self, other: Bounds) -> Bounds:
        """Return the tighter of both."""
        return Bounds(
            _least(self.data, other.data), _least(self.time, other.time), _least(self.idle, other.idle)
        )


#: The bounds of a stream without bounds.
UNBOUNDED = Bounds()


def _least(one: _Number | None, other: _Number | None) -> _Number | None:
    return min((value for value in (one, other) if value is not None), default=None)


class HeldCalls:
    """The number of requests of each caller that are on hold."""

    def __init__(self) -> None:
        self._held: Counter[PeerId] = Counter()

    def __len__(self) -> int:
        """Return the number of callers with requests on hold."""
        return len(self._held)

    def count_of(self, caller: Caller) -> int:
        """Return the number of requests that a caller has on hold."""
        return self._held.get(caller.peer, 0)

    def add_calls(self, caller: Caller, number: int) -> None:
        """Add to a caller's number, which may be negative."""
        self._held[caller.peer] += number
        if not self._held[caller.peer]:
            del self._held[caller.peer]


class Policy:
    """Decides about the events in `asks`, and counts those in `counts`. Fewer events cost less.

    `check_event` must not change anything: if another policy denies the same event, it hasn't happened.
    `commit_event` is called once no policy has denied it. A request that has yet to be paid is put on hold
    (`hold_call`) instead: until `release_call` it only counts for its own caller, or callers who never pay would
    use up what is shared by all. A policy knows no clock, no socket and no other policy: the time is an argument,
    so that a test is a transcript. What is kept for each caller is bounded by forgetting what no longer matters.
    """

    #: The name in `POLICIES`, which the log and the caller are told.
    name: ClassVar[str]
    asks: tuple[type[Event], ...] = ()
    counts: tuple[type[Event], ...] = ()
    #: Whether the policy depends on the method of a `MethodCall`.
    by_method: bool = False

    def check_event(self, event: Event, now: Moment) -> Denial | None:
        """Return why `event` isn't allowed, or None."""
        return None

    def commit_event(self, event: Event, now: Moment) -> None:
        """Count an event that has happened."""

    def hold_call(self, event: MethodCall) -> None:
        """Put an event of `counts` on hold that is about to happen: the caller's other events are checked as if it
        had."""

    def release_call(self, event: MethodCall) -> None:
        """Take an event off hold: `commit_event` follows if it has happened."""

    def compute_delay(self, event: Move, now: Moment) -> float:
        """Return, after `event` was committed, for how many seconds the stream should not be read."""
        return 0.0

    def stream_bounds(self, event: Open) -> Bounds | None:
        """Return the bounds of the stream that `event` opens, or None."""
        return None

    def share_table(self, table: Table, scope: tuple[object, ...]) -> None:
        """Count in `table` under `scope`, together with other processes. Called before anything is counted."""

    def ask_logins(self, find: FindLogin) -> None:
        """Use `find` to look up logins. Called before anything is asked."""

    def make_denial(self, reason: Reason, why: str, retry: float | None = None) -> Denial:
        """Return a denial by this policy."""
        return Denial(self.name, reason, why, retry)
