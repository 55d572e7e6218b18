"""What a policy is: it is told what a caller wants, and when, and says why not. It acts on nothing itself."""

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


#: Returns what account a key is logged in to at a time, Unix time in seconds.
FindLogin = Callable[[bytes, float], Login | None]


def find_nobody(key: bytes, now: float) -> None:
    """Say that nobody is logged in."""


class Moment(NamedTuple):
    """A time by two clocks, in seconds: one that only goes forward, and the calendar's (Unix time)."""

    steady: float
    unix: float


#: Tells the time.
Clock = Callable[[], Moment]

#: What a NamedTuple's own `__new__` calls, in Python.
_new_tuple = tuple.__new__


def moment() -> Moment:
    """Return the time that it is now."""
    return _new_tuple(Moment, (time.monotonic(), time.time()))


@dataclass(frozen=True, slots=True)
class Caller:
    """Who has come: a proven identity, its Sui account, and where its carrier comes from (no proof)."""

    peer: PeerId
    account: str
    source: str
    #: Where the service asks for logins: what it is logged in to at this request.
    login: Login | None = None


# Events are not frozen: a frozen dataclass takes three times as long to make, and some are made for each stream.


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
    """A caller makes a request: `method` of a protocol that has methods, else "" for the stream as a whole.

    `also`: other methods for which a backend may take it. A rule that lets it pass has to let all of them.
    """

    caller: Caller
    method: str = ""
    also: tuple[str, ...] = ()


@dataclass(slots=True)
class Move:
    """Bytes have come from the caller or the backend. They are there already: what is refused is the rest."""

    caller: Caller
    size: int


@dataclass(slots=True)
class Close:
    """A stream that was opened is over."""

    caller: Caller


Event = Arrive | Open | MethodCall | Move | Close


@dataclass(frozen=True, slots=True)
class Denial:
    """No, and why: for the log and for the caller. `retry`: after so many seconds it may be allowed."""

    policy: str
    reason: Reason
    why: str
    retry: float | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a stream may have: bytes in both directions, seconds in all, seconds without a byte. None: any."""

    data: int | None = None
    time: float | None = None
    idle: float | None = None

    def tighten(self, other: Bounds) -> Bounds:
        """Return the tighter of both."""
        return Bounds(
            _least(self.data, other.data), _least(self.time, other.time), _least(self.idle, other.idle)
        )


#: What a stream may have that nobody bounds.
UNBOUNDED = Bounds()


def _least(one: _Number | None, other: _Number | None) -> _Number | None:
    return min((value for value in (one, other) if value is not None), default=None)


class HeldCalls:
    """How many requests of each caller are on hold."""

    def __init__(self) -> None:
        self._held: Counter[PeerId] = Counter()

    def __len__(self) -> int:
        """Return of how many callers there are any."""
        return len(self._held)

    def count_of(self, caller: Caller) -> int:
        """Return how many requests of a caller there are."""
        return self._held.get(caller.peer, 0)

    def add_calls(self, caller: Caller, number: int) -> None:
        """Count so many more, or fewer."""
        self._held[caller.peer] += number
        if not self._held[caller.peer]:
            del self._held[caller.peer]


class Policy:
    """Decides about the events that it names in `asks`, counts those in `counts`: fewer names cost less.

    `check_event` must not change anything: when another policy denies the same event, it has not happened.
    `commit_event` is called once nobody denied it. A request that has yet to be paid is put on hold (`hold_call`)
    instead:
    until `release_call` it is counted for its own caller alone, or who never pays would use up what all have
    together. None knows a clock, a socket or the other policies: the time is an argument, so a test is a transcript.
    What is kept for each caller is bounded by forgetting what no longer makes a difference.
    """

    #: The name in `POLICIES`, which the log and the caller are told.
    name: ClassVar[str]
    asks: tuple[type[Event], ...] = ()
    counts: tuple[type[Event], ...] = ()
    #: Whether it goes by the method of a `MethodCall`.
    by_method: bool = False

    def check_event(self, event: Event, now: Moment) -> Denial | None:
        """Return why `event` may not be, or None."""
        return None

    def commit_event(self, event: Event, now: Moment) -> None:
        """Count an event that has happened."""

    def hold_call(self, event: MethodCall) -> None:
        """Put an event on hold that is about to happen, of those in `counts`: check its caller's others as if it
        had."""

    def release_call(self, event: MethodCall) -> None:
        """Take an event off hold: `commit_event` follows if it has happened."""

    def compute_delay(self, event: Move, now: Moment) -> float:
        """Return, after `event` was committed, for how many seconds the stream should not be read."""
        return 0.0

    def stream_bounds(self, event: Open) -> Bounds | None:
        """Return what the stream of `event` may have."""
        return None

    def share_table(self, table: Table, scope: tuple[object, ...]) -> None:
        """Count in `table` from now on, before anything is counted, under `scope`, together with other processes."""

    def ask_logins(self, find: FindLogin) -> None:
        """Have `find` say who is logged in, before anything is asked."""

    def make_denial(self, reason: Reason, why: str, retry: float | None = None) -> Denial:
        """Return a denial in this policy's name."""
        return Denial(self.name, reason, why, retry)
