"""A device's messages to a large group, sealed once for all members, and what came of other devices' messages.
Values; docs/messaging.md, "Large groups".

Each device numbers its messages in a group, from 0 for each of its instances. Recipients pass each on once, in this
order, whether it came through the topic, or through a mailbox with the key that opens it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Self

from dtp.messaging.ends.envelope import pad, unpad
from dtp.messaging.ends.keys import INSTANCE_BYTES, KEY_BYTES
from dtp.messaging.ends.olm import MegolmOpener, MegolmSealer
from dtp.messaging.ends.order import DeviceStream
from dtp.messaging.errors import EnvelopeBroken, NotOpened
from dtp.messaging.packing import is_number, pack, unpack, unpack_saved

VERSION: Final = 1
#: The sizes of sealed messages, in bytes: each is padded to the smallest size that it fits into. A message of the
#: largest size fits into an envelope together with its key.
SIZES: Final = (*(256 << each for each in range(9)), 96 * 1024)
#: The limits of one session: messages, and ms. Who steals a key from a device can read what the device has sealed
#: since that key, and this much of what it will seal.
MAX_SEALED: Final = 1000
MAX_AGE_MS: Final = 7 * 86_400_000
#: Sessions of one device that are kept: the older ones open messages that are still under way.
MAX_SESSIONS: Final = 3


@dataclass
class SpreadSender:
    """The session with which this device seals its messages in one group. Store it before sending what it has
    sealed.
    """

    instance: bytes
    #: The number of the next message.
    next: int = 0
    sealer: MegolmSealer = field(default_factory=MegolmSealer)
    sealed: int = 0
    began_ms: int = 0

    def is_due(self, now_ms: int) -> bool:
        """True if it is time to begin another session."""
        return self.sealed >= MAX_SEALED or not self.began_ms <= now_ms < self.began_ms + MAX_AGE_MS

    def begin_session(self, now_ms: int) -> None:
        """Begin another session. Its messages can't be opened with the key of the session before."""
        self.sealer, self.sealed, self.began_ms = MegolmSealer(), 0, now_ms

    def seal_message(self, group: bytes, payload: bytes) -> tuple[int, bytes, bytes]:
        """Seal a message. Return its number, the key that opens it and those after it, and the sealed message.

        Raise `MessageTooLong`; nothing has changed then.
        """
        text = pad(pack([VERSION, group, self.instance, self.next, payload]), sizes=SIZES)
        number, key = self.next, self.sealer.key
        self.next, self.sealed = self.next + 1, self.sealed + 1
        return number, key, self.sealer.seal(text)

    def save(self, key: bytes) -> bytes:
        """Return the sender as bytes, with its session encrypted by a key of 32 bytes."""
        return pack([self.instance, self.next, self.sealer.save(key), self.sealed, self.began_ms])

    @classmethod
    def load(cls, saved: bytes, key: bytes) -> Self:
        """Return what `save` gave. Raise `StoreFailed`."""
        instance, number, sealer, sealed, began = unpack_saved(saved)
        return cls(instance, number, MegolmSealer.load(sealer, key), sealed, began)


@dataclass
class SpreadLane:
    """The messages of one device in one group, from the instance of the device that has sent a key last."""

    instance: bytes = b""
    stream: DeviceStream = field(default_factory=DeviceStream)
    openers: list[MegolmOpener] = field(default_factory=list)

    def receive_by_mailbox(self, group: bytes, sealed: bytes, key: bytes, oldest: int) -> list[bytes]:
        """Return the payloads that can be passed on now. The key also opens messages that will come through the
        topic. The sender no longer keeps messages below `oldest` for us.

        Raise `KeysForged`, `NotOpened` or `EnvelopeBroken`; nothing has changed then.
        """
        opener = MegolmOpener.from_key(key)
        instance, number, payload = _parse(opener.open(sealed), group)
        if instance != self.instance:
            self.instance, self.stream, self.openers = instance, DeviceStream(), []
        if opener.id not in [each.id for each in self.openers]:
            self.openers = [opener, *self.openers][:MAX_SESSIONS]
        return [*self.stream.skip_to(min(oldest, number)), *self.stream.add_payload(number, payload)]

    def receive_by_topic(self, group: bytes, sealed: bytes) -> list[bytes]:
        """Return the payloads that can be passed on now. Raise `NotOpened` while the key hasn't come, and
        `EnvelopeBroken`; nothing has changed then.
        """
        for opener in self.openers:
            try:
                text = opener.open(sealed)
            except NotOpened:
                continue
            instance, number, payload = _parse(text, group)
            if instance != self.instance:
                raise EnvelopeBroken("a message is of another instance of its device than its key")
            return self.stream.add_payload(number, payload)
        raise NotOpened("the key of a group's message has not come yet")

    def save(self, key: bytes) -> bytes:
        """Return the lane as bytes, with its sessions encrypted by a key of 32 bytes."""
        held = list(self.stream.held.items())
        return pack([self.instance, self.stream.next, held, [each.save(key) for each in self.openers]])

    @classmethod
    def load(cls, saved: bytes, key: bytes) -> Self:
        """Return what `save` gave. Raise `StoreFailed`."""
        instance, number, held, openers = unpack_saved(saved)
        return cls(
            instance, DeviceStream(number, dict(held)), [MegolmOpener.load(each, key) for each in openers]
        )


def _parse(text: bytes, group: bytes) -> tuple[bytes, int, bytes]:
    match unpack(unpad(text), EnvelopeBroken, "a group's message"):
        case [int(version), *_] if version != VERSION:
            raise EnvelopeBroken(f"a group's message of version {version}; {VERSION} is spoken here")
        case [_, bytes(named), bytes(instance), number, bytes(payload), *_] if is_number(number, 2**53):
            pass
        case _:
            raise EnvelopeBroken("a group's message is malformed")
    if named != group or len(named) != KEY_BYTES or len(instance) != INSTANCE_BYTES:
        raise EnvelopeBroken("a group's message is of another group")
    return instance, number, payload
