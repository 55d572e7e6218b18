"""What one device spreads in a group, sealed once for all, and what others have of it. Values; docs/messaging.md,
"Large groups".

Each device numbers what it spreads in a group, from 0 for each of its instances. Readers pass it on in this order and
each once, whichever way it came: by the topic, or by mailbox with the key that opens it.
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
#: Bytes that what is sealed has: each message takes the next larger one. The last fits into an envelope with its key.
SIZES: Final = (*(256 << each for each in range(9)), 96 * 1024)
#: Messages of one session, and ms: whoever takes a key from a device reads what it has sealed since, and of what
#: comes no more than that.
MAX_SEALED: Final = 1000
MAX_AGE_MS: Final = 7 * 86_400_000
#: Sessions of one device that are kept: those before are needed for what is still on its way.
MAX_SESSIONS: Final = 3


@dataclass
class SpreadSender:
    """What this device seals by in one group. Store it before anybody hears of what it has sealed."""

    instance: bytes
    #: The number of the next message.
    next: int = 0
    sealer: MegolmSealer = field(default_factory=MegolmSealer)
    sealed: int = 0
    began_ms: int = 0

    def is_due(self, now_ms: int) -> bool:
        """True if another session is to be begun."""
        return self.sealed >= MAX_SEALED or not self.began_ms <= now_ms < self.began_ms + MAX_AGE_MS

    def begin_session(self, now_ms: int) -> None:
        """Begin another session: whoever has the key of the one before opens nothing that is sealed from now on."""
        self.sealer, self.sealed, self.began_ms = MegolmSealer(), 0, now_ms

    def seal_message(self, group: bytes, payload: bytes) -> tuple[int, bytes, bytes]:
        """Return the number of a message, the key that opens it and those after it, and the message.

        Raise `MessageTooLong`; nothing is changed then.
        """
        text = pad(pack([VERSION, group, self.instance, self.next, payload]), sizes=SIZES)
        number, key = self.next, self.sealer.key
        self.next, self.sealed = self.next + 1, self.sealed + 1
        return number, key, self.sealer.seal(text)

    def save(self, key: bytes) -> bytes:
        """Return it as bytes, its session encrypted with 32 bytes."""
        return pack([self.instance, self.next, self.sealer.save(key), self.sealed, self.began_ms])

    @classmethod
    def load(cls, saved: bytes, key: bytes) -> Self:
        """Return what `save` gave. Raise `StoreFailed`."""
        instance, number, sealer, sealed, began = unpack_saved(saved)
        return cls(instance, number, MegolmSealer.load(sealer, key), sealed, began)


@dataclass
class SpreadLane:
    """What came of one device in one group: of the instance of it that has sent a key last."""

    instance: bytes = b""
    stream: DeviceStream = field(default_factory=DeviceStream)
    openers: list[MegolmOpener] = field(default_factory=list)

    def receive_by_mailbox(self, group: bytes, sealed: bytes, key: bytes, oldest: int) -> list[bytes]:
        """Return the payloads whose turn it is now. The key opens what comes by the topic from now on as well; what
        is below `oldest` the sender keeps for us no more.

        Raise `KeysForged`, `NotOpened`, `EnvelopeBroken`; nothing is changed then.
        """
        opener = MegolmOpener.from_key(key)
        instance, number, payload = _parse(opener.open(sealed), group)
        if instance != self.instance:
            self.instance, self.stream, self.openers = instance, DeviceStream(), []
        if opener.id not in [each.id for each in self.openers]:
            self.openers = [opener, *self.openers][:MAX_SESSIONS]
        return [*self.stream.skip_to(min(oldest, number)), *self.stream.add_payload(number, payload)]

    def receive_by_topic(self, group: bytes, sealed: bytes) -> list[bytes]:
        """Return the payloads whose turn it is now. Raise `NotOpened` while its key hasn't come, `EnvelopeBroken`;
        nothing is changed then."""
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
        """Return it as bytes, its sessions encrypted with 32 bytes."""
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
