"""Who says again and again what can't be understood waits longer and longer for the word that it can't be."""

from __future__ import annotations

from dtp.bounded import BoundedDict
from dtp.carriers.crowd import source_group
from dtp.daemon.policies import Caller

#: So many malformed requests of one caller, or from one source, are answered at once, and so many a second after.
BURST, PER_SECOND = 64, 16
#: Nobody waits longer, seconds. Meanwhile the request holds a stream, of which its caller has so many.
LONGEST = 10.0
#: Callers and sources that are known at a time; beyond it those are forgotten that were heard of least lately.
_MOST_KNOWN = 4096


class MalformedRequests:
    """Counts the malformed requests of a service by caller and by source, each as a bucket that leaks.

    Only malformed requests are delayed, so who comes from the same address, or through the same forward, waits for
    nobody.
    """

    def __init__(self) -> None:
        #: By identity or source: when its bucket is empty again, by the steady clock.
        self._empty_at: BoundedDict[str, float] = BoundedDict(_MOST_KNOWN)

    def count_request(self, caller: Caller, now: float) -> float:
        """Count one; return the seconds after which it is to be answered, 0 for at once."""
        delay = 0.0
        for key in (f"peer {caller.peer}", f"source {source_group(caller.source)}"):
            empty_at = max(self._empty_at.get(key, now), now) + 1 / PER_SECOND
            beyond = min(empty_at - now - BURST / PER_SECOND, LONGEST)
            self._empty_at[key] = min(empty_at, now + BURST / PER_SECOND + LONGEST)
            delay = max(delay, beyond)
        return delay
