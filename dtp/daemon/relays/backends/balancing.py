"""Which backend a stream goes to: balancing, passive marking, health and slow start, as a value without IO.

Times are seconds of a steady clock, given by the caller.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

from dtp.daemon.config.model import Balance, Health
from dtp.daemon.config.values import LocalPlace

#: How long a backend that could not be reached gets nothing, by how often in a row: it may be about to start.
PENALTIES = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
#: The share of a backend that has just come back; it grows to a whole one.
_FIRST_SHARE = 0.1


@dataclass(eq=False)
class Backend:
    """A place behind a service, and how it stands."""

    place: LocalPlace
    #: Streams that it has now.
    active: int = 0
    #: What the active checks say; a backend is up until they say otherwise.
    healthy: bool = True
    #: Failed connects in a row, and until when it gets nothing for it.
    failures: int = 0
    penalty_until: float = -math.inf
    #: When it came back; None if it was never away.
    back_since: float | None = None
    #: Checks in a row that contradict `healthy`.
    contrary: int = 0
    #: Smooth weighted round robin: how much its turn is overdue.
    overdue: float = 0.0

    def is_usable(self, now: float) -> bool:
        """True if it should get streams."""
        return self.healthy and now >= self.penalty_until


class Balancer:
    """Chooses among backends. Without a usable one it takes the others in turn: a try beats a refusal."""

    def __init__(self, places: Collection[LocalPlace], balance: Balance, slow_start: float = 0.0) -> None:
        self.backends = [Backend(place) for place in places]
        self._slow_start = slow_start
        self._pick: Callable[[list[Backend], object, float], Backend] = {
            "round-robin": self._by_turn,
            "least-conn": self._by_load,
            "hash": self._by_hash,
        }[balance]

    def choose_backend(self, key: object, now: float, tried: Collection[Backend] = ()) -> Backend | None:
        """Return the backend for a caller's stream, none of `tried`; None when all were. `key` spells who it is."""
        if len(self.backends) == 1 and not tried:
            return self.backends[0]
        left = [backend for backend in self.backends if backend not in tried]
        if not left:
            return None
        usable = [backend for backend in left if backend.is_usable(now)]
        return self._pick(usable or left, key, now)

    def _slow_start_share(self, backend: Backend, now: float) -> float:
        since = backend.back_since
        if since is None or now - since >= self._slow_start:
            return 1.0
        return max(_FIRST_SHARE, (now - since) / self._slow_start)

    def _by_turn(self, backends: list[Backend], key: object, now: float) -> Backend:
        """Choose by smooth weighted round robin, as nginx does."""
        total = 0.0
        for backend in backends:
            share = self._slow_start_share(backend, now)
            backend.overdue += share
            total += share
        chosen = max(backends, key=lambda backend: backend.overdue)
        chosen.overdue -= total
        return chosen

    def _by_load(self, backends: list[Backend], key: object, now: float) -> Backend:
        """Return the fewest streams for its share; in turn among equals."""
        least = min((one.active + 1) / self._slow_start_share(one, now) for one in backends)
        return self._by_turn(
            [one for one in backends if (one.active + 1) / self._slow_start_share(one, now) <= least],
            key,
            now,
        )

    def _by_hash(self, backends: list[Backend], key: object, now: float) -> Backend:
        """Choose by weighted rendezvous hashing: when a backend goes, only its own callers move."""

        def score(backend: Backend) -> float:
            digest = hashlib.blake2b(f"{key} {backend.place}".encode(), digest_size=8).digest()
            draw = (int.from_bytes(digest) + 1) / (2**64 + 1)  # above 0 and below 1
            return -self._slow_start_share(backend, now) / math.log(draw)

        return max(backends, key=score)

    # ---- what became of it --------------------------------------------------------------------------------

    def note_failed(self, backend: Backend, now: float) -> None:
        """Note that a connect failed: the backend gets nothing for a while."""
        backend.penalty_until = now + PENALTIES[min(backend.failures, len(PENALTIES) - 1)]
        backend.failures += 1

    def note_connected(self, backend: Backend, now: float) -> None:
        """Note that a connect succeeded."""
        if backend.failures:
            backend.failures = 0
            backend.penalty_until = -math.inf
            backend.back_since = now

    def note_checked(self, backend: Backend, well: bool, health: Health, now: float) -> bool:
        """Note that an active check has ended; return True when that changed how the backend stands."""
        if well == backend.healthy:
            backend.contrary = 0
            return False
        backend.contrary += 1
        if backend.contrary < (health.rise if well else health.fall):
            return False
        backend.contrary = 0
        backend.healthy = well
        if well:
            backend.back_since = now
            backend.failures, backend.penalty_until = 0, -math.inf
        return True
