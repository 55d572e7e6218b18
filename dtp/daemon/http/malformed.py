"""Delays the answers to malformed requests: whoever keeps sending them waits longer and longer."""

from __future__ import annotations

from dtp.bounded import BoundedDict
from dtp.carriers.crowd import source_group
from dtp.daemon.policies import Caller

#: The malformed requests of one caller, or from one source, that are answered at once, and how many more each
#: second.
BURST, PER_SECOND = 64, 16
#: The longest delay, in seconds. Meanwhile the request occupies a stream, of which its caller has a limited number.
LONGEST = 10.0
#: The most callers and sources that are remembered. Beyond that, those heard from least recently are forgotten.
_MOST_KNOWN = 4096


class MalformedRequests:
    """Counts the malformed requests of a service by caller and by source, each as a leaky bucket.

    Only malformed requests are delayed, so nobody waits because of others at the same address or behind the same
    forward.
    """

    def __init__(self) -> None:
        #: When the bucket of an identity or source will be empty again, by the monotonic clock.
        self._empty_at: BoundedDict[str, float] = BoundedDict(_MOST_KNOWN)

    def count_request(self, caller: Caller, now: float) -> float:
        """Count one; return the seconds to wait before it is answered, 0 to answer at once."""
        delay = 0.0
        for key in (f"peer {caller.peer}", f"source {source_group(caller.source)}"):
            empty_at = max(self._empty_at.get(key, now), now) + 1 / PER_SECOND
            beyond = min(empty_at - now - BURST / PER_SECOND, LONGEST)
            self._empty_at[key] = min(empty_at, now + BURST / PER_SECOND + LONGEST)
            delay = max(delay, beyond)
        return delay
