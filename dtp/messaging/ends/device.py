"""This device: its keys, the instance that it is, and what it publishes."""

from __future__ import annotations

import hashlib
from typing import Final, Self

from dtp.identity import Identity
from dtp.messaging.ends.keys import INSTANCE_BYTES, RENEW_MS, SKEW_MS, DeviceKeys, sign_one_time_key
from dtp.messaging.ends.olm import OlmAccount
from dtp.messaging.errors import StoreFailed
from dtp.messaging.packing import pack, unpack_saved

#: The prefix of what is hashed, with the device's secret, into the key that encrypts saved states.
_SAVE_DOMAIN: Final = b"dtp.messages.save.v1"


class LocalDevice:
    """The keys of this device. `instance` is 16 random bytes: each instance of a device has its own keys and
    numbers.

    Store the device (`save`) after every change, before anything that depends on the change is sent.
    """

    def __init__(self, identity: Identity, instance: bytes, account: OlmAccount, keys: DeviceKeys) -> None:
        self.identity = identity
        self.instance = instance
        self.account = account
        self.keys = keys

    @classmethod
    def create_instance(cls, identity: Identity, instance: bytes, now_ms: int, *, after: int = 0) -> Self:
        """Return a new instance of a device at `now_ms`. `after` is the sequence of the newest keys that the device
        has signed before, 0 for none.
        """
        if len(instance) != INSTANCE_BYTES:
            raise StoreFailed(f"an instance is {INSTANCE_BYTES} random bytes")
        account = OlmAccount()
        return cls(
            identity, instance, account, _statement(identity, instance, account, max(now_ms, after + 1))
        )

    @property
    def key(self) -> bytes:
        """The device's public key."""
        return self.identity.id.key

    @property
    def save_key(self) -> bytes:
        """The key that saved states of this device are encrypted with, 32 bytes. Secret."""
        return save_key(self.identity)

    def renew_keys(self, now_ms: int) -> bool:
        """Make a new fallback key and sign new `keys`, if the present ones are a week old, or were signed by a
        clock that was ahead, since others refuse such keys. Return True if new ones were made.
        """
        if self.keys.sequence - SKEW_MS <= now_ms < self.keys.sequence + RENEW_MS:
            return False
        self.keys = _statement(self.identity, self.instance, self.account, now_ms)
        return True

    def make_one_time_keys(self, count: int) -> list[bytes]:
        """Return `count` new one-time keys, each as it is published. Store the device before publishing them."""
        made = self.account.make_one_time_keys(count)
        return [sign_one_time_key(self.identity, self.instance, each) for each in made]

    def save(self) -> bytes:
        """Return the device as bytes, its secrets encrypted."""
        return pack([self.instance, self.account.save(self.save_key), self.keys.encoded])

    @classmethod
    def load(cls, identity: Identity, saved: bytes) -> Self:
        """Return the device that `save` has encoded. Raise `StoreFailed`, also if it was saved with another
        identity.
        """
        instance, account, keys = unpack_saved(saved)
        loaded = OlmAccount.load(account, save_key(identity))
        return cls(identity, instance, loaded, DeviceKeys.parse(keys))


def save_key(identity: Identity) -> bytes:
    """Return the key that encrypts saved states of the device with this identity, 32 bytes. Secret."""
    return hashlib.blake2b(_SAVE_DOMAIN, key=identity.seed, digest_size=32).digest()


def _statement(identity: Identity, instance: bytes, account: OlmAccount, sequence: int) -> DeviceKeys:
    fallback = account.make_fallback_key()
    keys = DeviceKeys(identity.id.key, instance, sequence, account.key, identity.static_public, fallback)
    return keys.signed_by(identity)
