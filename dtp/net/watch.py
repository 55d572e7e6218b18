"""Whoever counts what moves on a connection, and from which counts on it wants to hear of it.

A meter has something to do once in megabytes, so a read or a write costs it a comparison and no call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

#: A count that is never reached.
NO_COUNT: Final = 2**64


@dataclass(slots=True)
class ByteWatch:
    """What to call, and the counts (see `Connection.traffic`) from which on; all may be changed at any time.

    Calls come within the connection's own work: they may send metering frames and set limits, which go with
    what is sent anyway.
    """

    #: Called after a read or a write when `opened` isn't the number of streams that the client has opened, when more
    #: than `received` bytes have come, or when `total` bytes have moved both ways.
    moved: Callable[[], None]
    opened: int = -1
    received: int = -1
    total: int = 0
    #: Called before something else is sealed when `along` bytes have moved both ways, with how many and the time: the
    #: metering frame that it gives needs no record of its own. It gives none where it ends the connection.
    going: Callable[[int, float], bytes | None] | None = None
    along: int = NO_COUNT
