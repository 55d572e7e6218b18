"""How often each of many may do something, in constant room: GCRA, the generic cell rate algorithm of ITU-T I.371."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from dtp.bounded import BoundedDict

K = TypeVar("K", bound=Hashable)

__all__ = ["RateLimiter"]

#: The part of a pause that sums of times may be off by: without it one in some is refused that is allowed.
_ROUNDING: Final = 1e-6


class RateLimiter(Generic[K]):
    """Lets each key do something `burst` times at once, and once more after each `pause`, in seconds.

    The `most` keys that were asked about last are remembered; another one begins with its whole burst. What is
    refused isn't counted.
    """

    def __init__(self, burst: float, pause: float, most: int) -> None:
        self._tolerance, self._pause = burst * pause, pause
        #: By key, when it has its whole burst again.
        self._due: BoundedDict[K, float] = BoundedDict(most)

    def __len__(self) -> int:
        """Return how many keys are remembered."""
        return len(self._due)

    def try_take(self, key: K, now: float, count: int = 1) -> bool:
        """Return True, and count it `count` times, if `key` may at time `now`, in seconds."""
        due = max(self._due.get(key, now), now)
        allowed = due + count * self._pause - now <= self._tolerance + _ROUNDING * self._pause
        self._due[key] = due + count * self._pause if allowed else due
        return allowed

    def seconds_until_allowed(self, key: K, now: float) -> float:
        """Return the seconds until `key` may once more: 0 where `try_take` returns True."""
        wait = self._due.get(key, now) + self._pause - now - self._tolerance
        return wait if wait > _ROUNDING * self._pause else 0.0

    def full_again_at(self, key: K) -> float | None:
        """Return when `key` has its whole burst again; None if nothing is remembered of it."""
        return self._due.get(key)

    def restore_key(self, key: K, due: float, now: float) -> None:
        """Remember what `full_again_at` said before a restart, at time `now`: at most that a whole burst is used."""
        self._due[key] = min(due, now + self._tolerance)

    def reset_key(self, key: K) -> None:
        """Forget what `key` has used."""
        self._due.pop(key, None)
