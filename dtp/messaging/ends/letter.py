"""Letters: what is inside a session's message. Whom it is from and to, its place, and what the sender has."""

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
    """One letter. Without a number (None) its payload is of the moment only: it has no place and doesn't come again.

    Both devices are named in it: a device that published another's keys as its own would be taken for the sender of
    what was written to it.
    """

    sender: bytes
    recipient: bytes
    #: The sender's instance, whose number this is.
    instance: bytes
    number: int | None
    #: The sender keeps nothing below: the recipient has said that it has it.
    oldest: int
    #: Of the recipient's instance that is named first, the sender has all below the number, and lacks `wanted`.
    received: tuple[bytes, int]
    wanted: list[int] = field(default_factory=list)
    #: Something could not be opened: all that isn't acknowledged has to come again, by this session.
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
        """Return the letter that these bytes are. Raise `EnvelopeBroken`."""
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
