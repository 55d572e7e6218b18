"""The signed keys that a device publishes in its mailboxes, with which others begin sessions while it is away."""

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
#: Ms for which signed keys are valid: a mailbox can't withhold newer ones for longer than this.
LIFETIME_MS: Final = 60 * 86_400_000
#: Ms after which a device signs new keys, with a new fallback key.
RENEW_MS: Final = 7 * 86_400_000
#: How far clocks may differ, ms.
SKEW_MS: Final = 3_600_000
MAX_BYTES: Final = 512
#: Stands for Olm's keys where a device has no ratchet and is sent sealed letters, as a tip line is.
NO_RATCHET: Final = bytes(KEY_BYTES)


@dataclass(frozen=True, slots=True)
class DeviceKeys:
    """The keys that a device has signed. `instance` is new whenever the device's state may have been used
    elsewhere.
    """

    device: bytes
    instance: bytes
    #: Unix time in ms at which they were signed. It rises.
    sequence: int
    #: Olm's identity key, the X25519 key that envelopes are sealed to, and the key to use when no one-time key is
    #: left.
    olm: bytes
    sealing: bytes
    fallback: bytes
    encoded: bytes = b""

    def signed_by(self, identity: Identity) -> DeviceKeys:
        """Return the keys, signed by the device, whose identity is given."""
        fields = (self.device, self.instance, self.sequence, self.olm, self.sealing, self.fallback)
        body = pack([VERSION, *fields])
        return DeviceKeys(*fields, encoded=pack([body, identity.sign(domain_tag(KEYS_DOMAIN) + body)]))

    @classmethod
    def parse(cls, data: bytes) -> DeviceKeys:
        """Return the decoded keys. Raise `KeysForged` unless the device that they name has signed them."""
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
        """Raise `KeysForged` if the keys have expired by `now_ms`, or are from the future."""
        if not self.sequence - SKEW_MS <= now_ms <= self.sequence + LIFETIME_MS:
            raise KeysForged(
                "keys of a device have expired, or are from the future: it has to publish new ones"
            )

    def is_older(self, known: DeviceKeys, latest: int) -> bool:
        """True if the device has signed `known` after these keys. Keys in `known` that are signed after `latest`
        don't count: a clock that was ahead has signed them.
        """
        return are_older((self.sequence, self.encoded), (known.sequence, known.encoded), latest)

    def check_newer(self, known: DeviceKeys | None, latest: int) -> None:
        """Raise `KeysRolledBack` if these keys are older than the `known` ones, as `is_older` says."""
        if known is not None and self.is_older(known, latest):
            raise KeysRolledBack(
                "these keys of a device are older than the known ones: the mailbox withholds newer ones"
            )


def are_older(keys: tuple[int, bytes], known: tuple[int, bytes], latest: int) -> bool:
    """Return True if `keys` are older than `known`, each a sequence and the encoded keys. Any keys are newer than
    those that are signed after `latest`.
    """
    return known[0] <= latest and keys < known


def sign_one_time_key(identity: Identity, instance: bytes, key: bytes) -> bytes:
    """Return a one-time key as it is published: the key followed by the device's signature, 96 bytes."""
    return key + identity.sign(_one_time_message(identity.id.key, instance, key))


def _one_time_message(device: bytes, instance: bytes, key: bytes) -> bytes:
    return domain_tag(ONE_TIME_DOMAIN) + device + instance + key


@dataclass(frozen=True, slots=True)
class KeyBundle:
    """What a mailbox returns to a device that begins a session with another: the other's keys, and a one-time key
    if one is left.
    """

    keys: DeviceKeys
    one_time: bytes = b""
    #: The latest time at which keys can have been signed, ms.
    latest: int = MAX_NUMBER

    @classmethod
    def parse(cls, keys: bytes, one_time: bytes, *, device: bytes, now_ms: int) -> KeyBundle:
        """Return the checked bundle of `device`. Raise `KeysForged` for keys that it hasn't signed, or that have
        expired.

        `one_time` is a key from `sign_one_time_key`, or b"" for none.
        """
        told = DeviceKeys.parse(keys)
        if told.device != device:
            raise KeysForged("these are keys of another device than the one asked for")
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
        raise KeysForged(f"keys of a device with an invalid key: {fault}") from None
