"""Order between two devices: numbers, what was received, what has to come again. A value.

Each device numbers what it sends to each other device, from 0 for each of its instances. Whoever receives passes
messages on in this order and each once, holds what comes early, and says up to where it has all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

#: Messages that may come before one that is missing, and their bytes: beyond, they have to come again.
WINDOW: Final = 256
HELD_BYTES: Final = 1 << 20
#: Numbers that one letter asks for again, at most.
MAX_WANTED: Final = 64
#: Ms after which what nobody has acknowledged is sent again: the n-th time, and from then on the last.
RESEND_MS: Final = (300_000, 1_800_000, 7_200_000, 43_200_000, 86_400_000)
#: After so many times a new session begins first, where nothing has come back by the one there is.
RENEW_TRIES: Final = 2
#: What waits for a device, at most: messages.
MAX_UNACKNOWLEDGED: Final = 10_000


def resend_after(tries: int) -> int:
    """Return the ms after which a message is sent again that was sent `tries` times without an answer."""
    return RESEND_MS[min(max(tries, 1), len(RESEND_MS)) - 1]


@dataclass
class DeviceStream:
    """What came from one instance of a device: all below `next` was passed on; `held` came before its turn."""

    next: int = 0
    held: dict[int, bytes] = field(default_factory=dict)

    def add_payload(self, number: int, payload: bytes) -> list[bytes]:
        """Add a payload, and return the payloads that are next in order: none for a duplicate."""
        if number < self.next or number >= self.next + WINDOW:
            return []
        if number > self.next:
            if sum(map(len, self.held.values())) + len(payload) <= HELD_BYTES:
                self.held[number] = payload
            return []
        self.next += 1
        return [payload, *self._take_released()]

    def skip_to(self, oldest: int) -> list[bytes]:
        """Return the payloads whose turn it is now that the sender has nothing below `oldest` any more.

        It keeps nothing that we said we have; a side that was restored from a backup doesn't know that it said so.
        """
        if oldest <= self.next:
            return []
        early = sorted(each for each in self.held if each < oldest)
        passed = [self.held.pop(each) for each in early]
        self.next = oldest
        return [*passed, *self._take_released()]

    def _take_released(self) -> list[bytes]:
        found = []
        while self.next in self.held:
            found.append(self.held.pop(self.next))
            self.next += 1
        return found

    @property
    def missing(self) -> list[int]:
        """The numbers before those that are held which have not come, the first `MAX_WANTED`."""
        if not self.held:
            return []
        gaps = (each for each in range(self.next, max(self.held)) if each not in self.held)
        return [number for number, _ in zip(gaps, range(MAX_WANTED), strict=False)]


@dataclass
class Outgoing:
    """What this instance has sent to a device: the next number, and up to where the device has all."""

    next: int = 0
    acknowledged: int = 0

    def allot_number(self) -> int:
        """Return the number of the next message."""
        self.next += 1
        return self.next - 1

    @property
    def waiting(self) -> int:
        """How many messages the device has not said that it has."""
        return self.next - self.acknowledged

    @property
    def is_full(self) -> bool:
        """True while so much waits for the device that nothing more is taken."""
        return self.waiting >= MAX_UNACKNOWLEDGED

    def acknowledge_up_to(self, upto: int) -> bool:
        """Note that all below `upto` has come. Return whether that is new; what can't be true is ignored."""
        if not self.acknowledged < upto <= self.next:
            return False
        self.acknowledged = upto
        return True

    def reopen_last(self) -> int | None:
        """Return the number of the last message that has come, which is to be sent again with something else in it;
        None if nothing has. A device that has all ignores it."""
        if not self.acknowledged:
            return None
        self.acknowledged -= 1
        return self.acknowledged

    def find_held(self, numbers: list[int]) -> list[int]:
        """Return those of the numbers whose payloads are still held, to be sent again."""
        return sorted({each for each in numbers if self.acknowledged <= each < self.next})

    @property
    def unacknowledged(self) -> list[int]:
        """The numbers that the device has not said that it has."""
        return list(range(self.acknowledged, self.next))
