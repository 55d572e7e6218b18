"""The order of messages between two devices, as a value: numbers, what was received, and what has to be sent again.

Each device numbers what it sends to each other device, from 0 for each of its instances. The recipient passes each
message on once, in this order. It holds messages that come early, and acknowledges the number below which it has
all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

#: Messages that are held while an earlier one is missing, and their total bytes. Those beyond have to be sent
#: again.
WINDOW: Final = 256
HELD_BYTES: Final = 1 << 20
#: Numbers that one letter requests again, at most.
MAX_WANTED: Final = 64
#: Ms until a message that isn't acknowledged is sent again: the first time, the second time, and so on. The last
#: value is used from then on.
RESEND_MS: Final = (300_000, 1_800_000, 7_200_000, 43_200_000, 86_400_000)
#: The number of tries after which a new session is begun before the next, if nothing has come back through the
#: present one.
RENEW_TRIES: Final = 2
#: Messages that may wait for one device's acknowledgement.
MAX_UNACKNOWLEDGED: Final = 10_000


def resend_after(tries: int) -> int:
    """Return the ms to wait before sending a message again that was sent `tries` times without an acknowledgement."""
    return RESEND_MS[min(max(tries, 1), len(RESEND_MS)) - 1]


@dataclass
class DeviceStream:
    """The messages of one instance of a device: all below `next` were passed on, and those in `held` came early."""

    next: int = 0
    held: dict[int, bytes] = field(default_factory=dict)

    def add_payload(self, number: int, payload: bytes) -> list[bytes]:
        """Add a payload, and return the payloads that can be passed on now, in order. A duplicate adds none."""
        if number < self.next or number >= self.next + WINDOW:
            return []
        if number > self.next:
            if sum(map(len, self.held.values())) + len(payload) <= HELD_BYTES:
                self.held[number] = payload
            return []
        self.next += 1
        return [payload, *self._take_released()]

    def skip_to(self, oldest: int) -> list[bytes]:
        """Return the payloads that can be passed on now that the sender no longer has any below `oldest`.

        The sender drops only what we have acknowledged. But our state may have been restored from a backup that is
        older than the acknowledgement.
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
        """The numbers that haven't come, of those below the highest held one; `MAX_WANTED` at most."""
        if not self.held:
            return []
        gaps = (each for each in range(self.next, max(self.held)) if each not in self.held)
        return [number for number, _ in zip(gaps, range(MAX_WANTED), strict=False)]


@dataclass
class Outgoing:
    """What this instance has sent to a device: the next number, and the number below which the device has
    acknowledged all.
    """

    next: int = 0
    acknowledged: int = 0

    def allot_number(self) -> int:
        """Return the number for the next message, and count it as used."""
        self.next += 1
        return self.next - 1

    @property
    def waiting(self) -> int:
        """The number of messages that the device hasn't acknowledged."""
        return self.next - self.acknowledged

    @property
    def is_full(self) -> bool:
        """True while so many messages wait for the device that no more are accepted."""
        return self.waiting >= MAX_UNACKNOWLEDGED

    def acknowledge_up_to(self, upto: int) -> bool:
        """Note that the device has all below `upto`. Return True if that is new. An impossible number is ignored."""
        if not self.acknowledged < upto <= self.next:
            return False
        self.acknowledged = upto
        return True

    def reopen_last(self) -> int | None:
        """Return the number of the last acknowledged message, to be sent again with another payload; None if none
        was acknowledged. A device that has everything ignores the message.
        """
        if not self.acknowledged:
            return None
        self.acknowledged -= 1
        return self.acknowledged

    def find_held(self, numbers: list[int]) -> list[int]:
        """Return those of the numbers whose payloads are still kept, so that they can be sent again."""
        return sorted({each for each in numbers if self.acknowledged <= each < self.next})

    @property
    def unacknowledged(self) -> list[int]:
        """The numbers that the device hasn't acknowledged."""
        return list(range(self.acknowledged, self.next))
