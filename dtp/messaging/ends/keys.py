"""Keys that a device publishes in its mailboxes, signed by it, from which others begin sessions while it is away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dtp.identity import Identity, PeerId, PeerIdError
from dtp.identity.keys import SIGNATURE_SIZE
from dtp.messaging.errors import KeysForged, KeysRolledBack
from dtp.messaging.packing import MAX_NUMBER, domain_tag, is_number, pack, unpack

KEYS_DOMAIN: Final = b"dtp.device.keys.v1"
ONE_TIME_DOMAIN: Final = b"dtp.device.onetime.v1"
VERSION: Final = 1
KEY_BYTES: Final = 32
INSTANCE_BYTES: Final = 16
#: A statement of keys is good for so long, ms: a mailbox can't hold newer ones back for longer.
LIFETIME_MS: Final = 60 * 86_400_000
#: A new one, with a new fallback key, is made after so long, ms.
RENEW_MS: Final = 7 * 86_400_000
#: How far clocks may differ, ms.
SKEW_MS: Final = 3_600_000
MAX_BYTES: Final = 512
#: In the place of Olm's keys: the device has no ratchet, such as a line for tips, and gets sealed letters.
NO_RATCHET: Final = bytes(KEY_BYTES)


@dataclass(frozen=True, slots=True)
class DeviceKeys:
    """What a device says of its keys. `instance` is new whenever its state may have been used elsewhere."""

    device: bytes
    instance: bytes
    #: Unix time in ms when it was signed; rises.
    sequence: int
    #: Olm's identity key, the X25519 key that envelopes are sealed to, and the key to use where no one-time key is
    #: left.
    olm: bytes
    sealing: bytes
    fallback: bytes
    encoded: bytes = b""

    def signed_by(self, identity: Identity) -> DeviceKeys:
        """Return it, signed by the device."""
        fields = (self.device, self.instance, self.sequence, self.olm, self.sealing, self.fallback)
        body = pack([VERSION, *fields])
        return DeviceKeys(*fields, encoded=pack([body, identity.sign(domain_tag(KEYS_DOMAIN) + body)]))

    @classmethod
    def parse(cls, data: bytes) -> DeviceKeys:
        """Return the keys that these bytes are. Raise `KeysForged` unless the device they name has signed them."""
        if len(data) > MAX_BYTES:
            raise KeysForged(f"keys of a device of {len(data)} bytes; {MAX_BYTES} are the most")
        match unpack(data, KeysForged, "what a device says of its keys"):
            case [bytes(body), bytes(signature)] if len(signature) == SIGNATURE_SIZE:
                pass
            case _:
                raise KeysForged("keys of a device are malformed")
        match unpack(body, KeysForged, "what a device says of its keys"):
            case [int(version), *_] if version != VERSION:
                raise KeysForged(f"keys of version {version}; {VERSION} is spoken here")
            case [_, bytes(device), bytes(instance), sequence, bytes(olm), bytes(sealing), bytes(fallback)]:
                pass
            case _:
                raise KeysForged("keys of a device are malformed")
        if len(instance) != INSTANCE_BYTES or not is_number(sequence):
            raise KeysForged("keys of a device are malformed")
        if any(len(each) != KEY_BYTES for each in (device, olm, sealing, fallback)):
            raise KeysForged(f"a key of a device has {KEY_BYTES} bytes")
        if not _peer(device).verify(signature, domain_tag(KEYS_DOMAIN) + body):
            raise KeysForged("the keys aren't signed by the device that they name")
        return cls(device, instance, sequence, olm, sealing, fallback, data)

    def check_time(self, now_ms: int) -> None:
        """Raise `KeysForged` if they have ended by `now_ms`, or are from the future."""
        if not self.sequence - SKEW_MS <= now_ms <= self.sequence + LIFETIME_MS:
            raise KeysForged(
                "keys of a device have ended, or are from the future: it has to publish new ones"
            )

    def is_older(self, known: DeviceKeys, latest: int) -> bool:
        """True if the device has signed `known` later, unless that was after `latest`."""
        return are_older((self.sequence, self.encoded), (known.sequence, known.encoded), latest)

    def check_newer(self, known: DeviceKeys | None, latest: int) -> None:
        """Raise `KeysRolledBack` if the device has signed newer ones that are known; those of after `latest` were
        made by a clock that was ahead, and any others are newer."""
        if known is not None and self.is_older(known, latest):
            raise KeysRolledBack("older keys than those that are known: the mailbox holds newer ones back")


def are_older(keys: tuple[int, bytes], known: tuple[int, bytes], latest: int) -> bool:
    """Return True for keys, each a sequence and the bytes, that are older than those that are known, unless these are
    of after `latest`."""
    return known[0] <= latest and keys < known


def sign_one_time_key(identity: Identity, instance: bytes, key: bytes) -> bytes:
    """Return a one-time key as it is published: the key and the device's signature, 96 bytes."""
    return key + identity.sign(_one_time_message(identity.id.key, instance, key))


def _one_time_message(device: bytes, instance: bytes, key: bytes) -> bytes:
    return domain_tag(ONE_TIME_DOMAIN) + device + instance + key


@dataclass(frozen=True, slots=True)
class KeyBundle:
    """What a mailbox gives to whoever begins a session: a device's keys, and a one-time key if one is left."""

    keys: DeviceKeys
    one_time: bytes = b""
    #: The latest time that can be right, ms.
    latest: int = MAX_NUMBER

    @classmethod
    def parse(cls, keys: bytes, one_time: bytes, *, device: bytes, now_ms: int) -> KeyBundle:
        """Return the bundle of `device`. Raise `KeysForged` for what it hasn't signed, or what has ended.

        `one_time` is what `sign_one_time_key` gave, b"" for none.
        """
        told = DeviceKeys.parse(keys)
        if told.device != device:
            raise KeysForged("these are keys of another device than was asked for")
        told.check_time(now_ms)
        latest = now_ms + SKEW_MS
        if not one_time:
            return cls(told, latest=latest)
        key, signature = one_time[:KEY_BYTES], one_time[KEY_BYTES:]
        if not _peer(device).verify(signature, _one_time_message(device, told.instance, key)):
            raise KeysForged("the one-time key isn't signed by the device that it names")
        return cls(told, key, latest)


def _peer(key: bytes) -> PeerId:
    try:
        return PeerId(key)
    except PeerIdError as fault:
        raise KeysForged(f"keys of a device that can't be: {fault}") from None
