"""Streams at once, by the descriptors that this process may have: each takes one, or two while it is dialled."""

from __future__ import annotations

import resource
from collections.abc import Callable

#: Descriptors that are not for streams: listeners, carriers of peers, files, room to accept and refuse.
RESERVE = 256
#: So many may be open in any case.
_LEAST = 16


class StreamRoom:
    """Whether one more may be taken up, without counting those that are open for each that comes."""

    def __init__(self, count: Callable[[], int], most: int | None = None) -> None:
        """`count` gives how many are open; `most` is by default what the descriptors of this process allow."""
        self._count = count
        self.most = (
            max(_LEAST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVE) if most is None else most
        )
        #: So many more may come before they have to be counted.
        self._left = 0

    @property
    def active(self) -> int:
        """Streams of peers that were let in, and of programs of this machine."""
        return self._count()

    def take(self) -> bool:
        """Return True if one more may be taken up, which is counted then."""
        if not self._left:  # as many have come as there was room for, and some may be over
            self._left = max(0, self.most - self._count())
            if not self._left:
                return False
        self._left -= 1
        return True
