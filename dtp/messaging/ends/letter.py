"""Letters, the contents of a session's messages: sender and recipient, the message's number, and what the sender
has received.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from dtp.messaging.ends.keys import INSTANCE_BYTES, KEY_BYTES
from dtp.messaging.ends.order import MAX_WANTED
from dtp.messaging.errors import EnvelopeBroken
from dtp.messaging.packing import is_number, pack, unpack

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Letter:
    """One letter. Without a number (None) its payload is ephemeral: it has no place in the order, and is never sent
    again.

    The letter names both devices. Otherwise a device could publish another device's keys as its own, and be taken
    for the sender of the other's letters.
    """

    sender: bytes
    recipient: bytes
    #: The instance of the sender that has allotted the number.
    instance: bytes
    number: int | None
    #: The sender no longer has letters below this number: the recipient has acknowledged them.
    oldest: int
    #: The recipient's instance, and the number below which the sender has received everything from it. The sender
    #: lacks the numbers in `wanted`.
    received: tuple[bytes, int]
    wanted: list[int] = field(default_factory=list)
    #: True if something could not be opened: everything that isn't acknowledged has to be sent again, through this
    #: session.
    repair: bool = False
    payload: bytes = b""

    def encode(self) -> bytes:
        """Return the letter as bytes."""
        return pack(
            [
                VERSION,
                *(self.sender, self.recipient, self.instance, self.number, self.oldest),
                *(*self.received, self.wanted, self.repair, self.payload),
            ]
        )

    @classmethod
    def parse(cls, data: bytes) -> Letter:
        """Return the decoded letter. Raise `EnvelopeBroken`."""
        match unpack(data, EnvelopeBroken, "a letter"):
            case [int(version), *_] if version != VERSION:
                raise EnvelopeBroken(f"a letter of version {version}; {VERSION} is spoken here")
            case [
                _,
                bytes(),
                bytes(),
                bytes(),
                number,
                oldest,
                bytes(),
                upto,
                list(),
                bool(),
                bytes(),
            ] as told:
                pass
            case _:
                raise EnvelopeBroken("a letter is malformed")
        _, sender, recipient, instance, number, oldest, theirs, upto, wanted, repair, payload = told
        sized = len(sender) == len(recipient) == KEY_BYTES and len(instance) == INSTANCE_BYTES
        numbers = [oldest, upto, *wanted, *([] if number is None else [number])]
        if not sized or not all(map(is_number, numbers)) or len(wanted) > MAX_WANTED:
            raise EnvelopeBroken("a letter is malformed")
        if number is not None and oldest > number:
            raise EnvelopeBroken("a letter's numbers contradict each other")
        return cls(sender, recipient, instance, number, oldest, (theirs, upto), wanted, repair, payload)
