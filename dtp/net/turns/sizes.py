"""How many bytes one turn of the event loop may move: many while only bulk passes, few while somebody waits.

A policy without IO: it is told of messages and of turns, and says the size of the next turn and whether the
processor should be given to others in between. See docs/decisions/0081.
"""

from __future__ import annotations

KIB = 1024
#: Bytes of a turn where nobody tells of messages (plain sockets): one never waits long for it.
STEADY = 512 * KIB
#: ... where relays do, and none has been exchanged lately: a turn costs some sixty calls of Python, whose code
#: the bytes drive out of the cache. A quarter of the turns takes a seventh to a fifth less processor time for a GB.
WIDE = 2048 * KIB
#: The largest room.
MOST = WIDE + WIDE // 8
#: Bytes that all movers of a turn have together, where there are many: a visitor waits for two or three turns, of
#: about 1 ms for each MiB.
ALL = 4096 * KIB
#: ... and each of them at least, however many there are.
PART = 32 * KIB
#: Whoever moves so much in a turn is one of them.
MUCH = 16 * KIB
#: ... and where they have been: a request passes four busy turns, its own way and back through two daemons. Each turn
#: costs 50 to 100 us whatever it moves, so below this a bulk transfer loses more than the request gains.
BRIEF = 16 * KIB
#: What counts as a message: a larger piece is part of a transfer.
SMALL = 4 * KIB
#: Messages of one stream, each answering the one before, until it counts as an exchange: the request for a large
#: file doesn't.
CHATTY = 4
#: Seconds after the last message of an exchange until turns are long again: people who type pause that long.
HOLD = 0.25


class Turns:
    """The turns of one event loop. Times are seconds of the caller's clock."""

    __slots__ = ("_brief_until", "_full", "_part", "_set_to", "room", "size")

    def __init__(self) -> None:
        self._full = STEADY
        self._brief_until: float | None = None
        self._part = ALL
        self._set_size(STEADY)

    def _set_size(self, size: int) -> None:
        self._set_to = size
        #: Bytes that a turn may move now for one connection, in one direction.
        self.size = min(size, self._part)
        #: ... and with the headers and tags of their records and frames.
        self.room = self.size + self.size // 8

    def share_turn(self, movers: int) -> None:
        """Give each its part of `ALL` in the next turn: so many moved much in the last."""
        self._part = max(PART, ALL // max(1, movers))
        self._set_size(self._set_to)

    def allow_widening(self) -> None:
        """Have turns widen: from now on relays tell of messages (`note_message`), so turns need not be short for fear
        of one. Idempotent."""
        if self._full != WIDE:
            self._full = WIDE
            if self._brief_until is None:
                self._set_size(WIDE)

    def note_message(self, now: float) -> None:
        """Note that a message of an exchange has passed: others will follow, and somebody waits for each."""
        self._brief_until = now + HOLD
        if self._set_to != BRIEF:
            self._set_size(BRIEF)

    def note_moved(self, size: int, now: float) -> bool:
        """Note that a turn has moved `size` bytes. True when what it was in the way of should run before the next
        one."""
        if self._brief_until is None or size < BRIEF // 2:
            return False
        if now < self._brief_until:
            return True
        self._brief_until = None
        self._set_size(self._full)
        return False


def heard(streak: int, size: int) -> int:
    """Return a message of `size` bytes came from the socket of a stream: its new streak, `CHATTY` when it is an
    exchange.

    Odd while the last message was from here, even while it was from the other side; 0 after a larger piece.
    """
    if size > SMALL:
        return 0
    return streak if streak >= CHATTY or streak & 1 else streak + 1


def told(streak: int, size: int) -> int:
    """Return a message of `size` bytes came for the socket of a stream: its new streak, as of `heard`."""
    if size > SMALL:
        return 0
    return streak + 1 if streak < CHATTY and streak & 1 else streak
