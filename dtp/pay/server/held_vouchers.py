"""Vouchers that have come and are not read yet: of several only the newest is checked, since it says all."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

#: Seconds that a voucher may wait at a server which has exposure enough left, so that several are checked at once and
#: only the newest is written: each time costs both processors more than it costs the disk.
LINGER: Final = 0.5
#: ... and how many may wait: the oldest goes first, since a newer one says all.
MOST_HELD: Final = 64
_INT_SIZES: Final = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}


class HeldVouchers:
    """Frames that begin as vouchers do. `is_due` is called once the first has waited for `linger` seconds."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, is_due: Callable[[], object], linger: float = LINGER
    ) -> None:
        self._loop, self._is_due, self._linger = loop, is_due, linger
        self._frames: deque[bytes] = deque(maxlen=MOST_HELD)
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frame: bytes) -> bool:
        """Keep one. Return True if it is the first that waits."""
        self._frames.append(frame)
        if self._timer is not None:
            return False
        self._timer = self._loop.call_later(self._linger, self._is_due)
        return True

    def take_all(self) -> list[bytes]:
        """Return all, the newest last, and wait for nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        frames = sorted(self._frames, key=sequence_in)
        self._frames.clear()
        return frames


def sequence_in(frame: bytes) -> int:
    """Return the sequence in a frame that begins as vouchers do, as far as it is one (MessagePack)."""
    size = _INT_SIZES.get(frame[2]) if len(frame) > 2 else 0
    return frame[2] if size is None else int.from_bytes(frame[3 : 3 + size])
