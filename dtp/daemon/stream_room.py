"""The limit on open streams that file descriptors set: each stream takes one, or two while its backend is
dialled."""

from __future__ import annotations

import resource
from collections.abc import Callable

#: Descriptors reserved for anything else: listeners, carriers of peers, files, and room to accept and refuse.
RESERVE = 256
#: The limit is never lower than this.
_LEAST = 16


class StreamRoom:
    """Decides whether another stream can be accepted, without counting the open ones each time."""

    def __init__(self, count: Callable[[], int], most: int | None = None) -> None:
        """`count` returns the number of open streams. `most` defaults to what this process's descriptors allow."""
        self._count = count
        self.most = (
            max(_LEAST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVE) if most is None else most
        )
        #: How many more can be accepted before they have to be counted again.
        self._left = 0

    @property
    def active(self) -> int:
        """The number of open streams, from peers and from local programs."""
        return self._count()

    def take(self) -> bool:
        """Return True if another stream can be accepted, and count it."""
        if not self._left:  # all counted room is used, but some streams may be over
            self._left = max(0, self.most - self._count())
            if not self._left:
                return False
        self._left -= 1
        return True
