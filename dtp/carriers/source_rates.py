"""How often those who come from one source, and from one network, may do something."""

from __future__ import annotations

from dtp.carriers.nearness import OF_NETWORK, network_of_source
from dtp.rates import RateLimiter

__all__ = ["SourceLimiter"]


class SourceLimiter:
    """A `RateLimiter` of sources, and of the networks that they are in, which have `OF_NETWORK` times as much."""

    def __init__(self, burst: int, pause: float, remembered: int) -> None:
        self._sources: RateLimiter[str] = RateLimiter(burst, pause, remembered)
        self._networks: RateLimiter[str] = RateLimiter(burst * OF_NETWORK, pause / OF_NETWORK, remembered)

    def __len__(self) -> int:
        """Return how many sources are remembered."""
        return len(self._sources)

    def try_take(self, source: str, now: float, count: int = 1) -> bool:
        """Return True, and count it `count` times, if `source` may at time `now`, in seconds."""
        # The network counts what the source may alone, or one source would use up what its neighbours have.
        return self._sources.try_take(source, now, count) and self._networks.try_take(
            network_of_source(source), now, count
        )

    def seconds_until_allowed(self, source: str, now: float) -> float:
        """Return the seconds until `source` may ask again."""
        return max(
            self._sources.seconds_until_allowed(source, now),
            self._networks.seconds_until_allowed(network_of_source(source), now),
        )
