"""Cards: which devices write for an account, said by the account's key; a value that anybody may carry.

Source: docs/identity.md, "Accounts". An account isn't a key of one machine: its name is the hash of its first key and
of its recovery key, so a card proves by itself who may sign for the account, also after the key was rotated.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Final

from dtp.errors import PeerError
from dtp.identity import bech32
from dtp.identity.keys import SIGNATURE_SIZE, Identity
from dtp.identity.peer_id import KEY_SIZE, PeerId, PeerIdError
from dtp.packing import pack, unpack
from dtp.unicode import encode_text

#: Before the two keys whose hash names an account, before what a card says, before what makes a key the next one.
ACCOUNT_DOMAIN: Final = b"dtp.account.v1"
CARD_DOMAIN: Final = b"dtp.card.v1"
ROTATION_DOMAIN: Final = b"dtp.card.rotation.v1"
#: What an account's name begins with: never taken for a peer's, which has another prefix.
PREFIX: Final = "dtpa"
VERSION: Final = 1
MAX_DEVICES: Final = 64
MAX_LABEL_BYTES: Final = 64
MAX_ROTATIONS: Final = 32
#: The longest card, bytes: all devices and rotations, and their frame.
MAX_BYTES: Final = 16_384
_MAX_NUMBER: Final = 2**63 - 1
#: How new a card of an account is: generation, sequence, minus the number of devices, signature.
CardOrder = tuple[int, int, int, bytes]


class CardError(PeerError):
    """A card is malformed, of another version, or not signed by the account that it is said to be of."""

    code: ClassVar[str] = "card"


def account_id(key: bytes, recovery: bytes) -> bytes:
    """Return what an account that begins with these public keys is called, 32 bytes."""
    return hashlib.blake2b(ACCOUNT_DOMAIN + key + recovery, digest_size=KEY_SIZE).digest()


def account_name(account: bytes) -> str:
    """Return the name of an account as text, `dtpa1...`, and as it is in souls."""
    return bech32.encode(PREFIX, account)


def parse_account(text: str) -> bytes:
    """Return the account that `dtpa1...` names. Raise `CardError`."""
    try:
        prefix, account = bech32.decode(text)
    except bech32.Bech32Error as error:
        raise CardError(f"{text!r} is not an account's name: {error}") from None
    if prefix != PREFIX or len(account) != KEY_SIZE:
        raise CardError(f"{text!r} is not an account's name, which begins with {PREFIX}1")
    return account


@dataclass(frozen=True, slots=True)
class Device:
    """A machine that writes for an account: its own public key, and what its owner calls it."""

    key: bytes
    label: str = ""

    @property
    def shown(self) -> str:
        """Its label; where it has none, its identity."""
        return self.label or str(PeerId(self.key))


@dataclass(frozen=True, slots=True)
class KeyRotation:
    """The account's next key and recovery key, signed by the recovery key before."""

    key: bytes
    recovery: bytes
    signature: bytes


def rotation_message(account: bytes, generation: int, key: bytes, recovery: bytes) -> bytes:
    """Return what a recovery key signs to make `key` the account's key of this generation."""
    return _tagged(ROTATION_DOMAIN) + account + generation.to_bytes(4, "big") + key + recovery


class KeyHistory:
    """The keys that an account has had: the first ones, and each further pair, signed by the recovery key before."""

    first_key: bytes
    first_recovery: bytes
    rotations: tuple[KeyRotation, ...]

    @property
    def generation(self) -> int:
        """Which of the account's keys is in use: 1 for the first."""
        return len(self.rotations) + 1

    @property
    def key(self) -> bytes:
        """The account's public key of this generation."""
        return self.rotations[-1].key if self.rotations else self.first_key

    @property
    def recovery(self) -> bytes:
        """The public key that makes the next one the account's."""
        return self.rotations[-1].recovery if self.rotations else self.first_recovery

    def find_forged(self) -> int | None:
        """Return the first generation whose keys the recovery key before hasn't signed, or None. Raise `PeerIdError`
        for a key that can't be."""
        account, recovery = account_id(self.first_key, self.first_recovery), self.first_recovery
        for generation, each in enumerate(self.rotations, 2):
            message = rotation_message(account, generation, each.key, each.recovery)
            if not PeerId(recovery).verify(each.signature, message):
                return generation
            recovery = each.recovery
        return None


@dataclass(frozen=True)
class Card(KeyHistory):
    """What an account says of itself: its devices, from `issued_ms` to `expires_ms` (Unix time; 0 for good).

    `sequence` rises with each card of one generation of the account's key; `generation` is 1 for the first key.
    """

    first_key: bytes
    first_recovery: bytes
    rotations: tuple[KeyRotation, ...]
    sequence: int
    issued_ms: int
    expires_ms: int
    devices: tuple[Device, ...]
    signature: bytes = b""

    def __post_init__(self) -> None:
        numbers = (self.sequence, self.issued_ms, self.expires_ms)
        if not all(type(each) is int and 0 <= each <= _MAX_NUMBER for each in numbers) or not self.sequence:
            raise CardError("a number of a card is out of bounds")
        if self.expires_ms and self.expires_ms <= self.issued_ms:
            raise CardError("a card that ends before it begins")
        if len(self.rotations) > MAX_ROTATIONS:
            raise CardError(f"a card with {len(self.rotations)} rotations; {MAX_ROTATIONS} are the most")
        keys = [device.key for device in self.devices]
        if len(keys) > MAX_DEVICES or len(set(keys)) < len(keys):
            raise CardError(f"a card names {MAX_DEVICES} devices at most, each once")
        labels = [encode_text(device.label, "a device's label") for device in self.devices]
        if any(len(label) > MAX_LABEL_BYTES for label in labels):
            raise CardError(f"a device's label has {MAX_LABEL_BYTES} bytes at most")

    # ---- what it says -------------------------------------------------------------------------------------------

    @cached_property
    def account(self) -> bytes:
        """What the account is called: 32 bytes that stay the same whatever its key is."""
        return account_id(self.first_key, self.first_recovery)

    @cached_property
    def name(self) -> str:
        """The account's name as text."""
        return account_name(self.account)

    def names(self, device: bytes) -> bool:
        """True if this key is one of the account's devices."""
        return any(each.key == device for each in self.devices)

    def is_current(self, now_ms: int, skew_ms: int = 60_000) -> bool:
        """True while it holds, for clocks that differ by `skew_ms` at most."""
        ended = self.expires_ms and now_ms > self.expires_ms + skew_ms
        return self.issued_ms - skew_ms <= now_ms and not ended

    def supersedes(self, other: Card) -> bool:
        """True when this is newer than `other` of the same account, which is to be forgotten then."""
        return self.account == other.account and self.order > other.order

    @property
    def order(self) -> CardOrder:
        """How new the card is: of two cards of an account the larger one counts. Of two that two machines signed for
        one sequence that is the one with fewer devices: a removal counts, where the other one added a device."""
        return self.generation, self.sequence, -len(self.devices), self.signature

    def is_fork_of(self, other: Card) -> bool:
        """True if two machines that have the account's key have signed this and `other` for one sequence: only one of
        the changes counts."""
        mine, theirs = ((each.account, each.generation, each.sequence) for each in (self, other))
        return mine == theirs and self.body != other.body

    def describe_change(self, before: Card) -> str:
        """Return, as text for people, which devices this card names and `before` doesn't, and the other way round; ""
        where both name the same."""
        told = [f"names {each.shown}" for each in self.devices if not before.names(each.key)]
        told += [f"doesn't name {each.shown}" for each in before.devices if not self.names(each.key)]
        return ", ".join(told)

    # ---- bytes --------------------------------------------------------------------------------------------------

    @cached_property
    def body(self) -> bytes:
        """What is signed, without its domain."""
        return pack(
            [
                VERSION,
                self.first_key,
                self.first_recovery,
                [[each.key, each.recovery, each.signature] for each in self.rotations],
                self.sequence,
                self.issued_ms,
                self.expires_ms,
                [[each.key, each.label] for each in self.devices],
            ]
        )

    def sign_with(self, identity: Identity) -> Card:
        """Return the card with the account's signature. Raise `CardError` where `identity` isn't its key."""
        if identity.id.key != self.key:
            raise CardError("this key isn't the account's, or isn't any more: another one was made its key")
        return replace(self, signature=identity.sign(_tagged(CARD_DOMAIN) + self.body))

    def encode(self) -> bytes:
        """Return the card as bytes: MessagePack `[body, signature]`."""
        return pack([self.body, self.signature])

    @classmethod
    def parse(cls, data: bytes) -> Card:
        """Return the card that these bytes are. Raise `CardError` unless the account has signed it.

        Whether it still holds is `is_current`'s affair, whether there is a newer one whoever asks'.
        """
        card = _read(*_envelope(data))
        if card.encode() != data:
            raise CardError("a card isn't in its shortest form")
        if forged := card.find_forged():
            raise CardError(f"the account's key of generation {forged} isn't one that it was given")
        if not _peer(card.key).verify(card.signature, _tagged(CARD_DOMAIN) + card.body):
            raise CardError(f"{card.name} has not signed this card")
        return card


def _tagged(domain: bytes) -> bytes:
    return bytes((len(domain),)) + domain


def _peer(key: bytes) -> PeerId:
    try:
        return PeerId(key)
    except PeerIdError as error:
        raise CardError(f"a card has a key that can't be: {error}") from None


def _envelope(data: bytes) -> tuple[bytes, bytes]:
    if len(data) > MAX_BYTES:
        raise CardError(f"a card of {len(data)} bytes; {MAX_BYTES} are the most")
    match unpack(data, CardError, "a card"):
        case [bytes(body), bytes(signature)] if len(signature) == SIGNATURE_SIZE:
            return body, signature
    raise CardError("a card is malformed")


def _read(body: bytes, signature: bytes) -> Card:
    match unpack(body, CardError, "a card"):
        case [int(version), *_] if version != VERSION or isinstance(version, bool):
            raise CardError(f"a card of version {version}; {VERSION} is spoken here")
        case [_, bytes(key), bytes(recovery), [*rotations], sequence, issued, expires, [*devices]]:
            pass
        case _:
            raise CardError("a card is malformed")
    turned = tuple(_rotation(each) for each in rotations)
    named = tuple(_device(each) for each in devices)
    for each in (key, recovery, *(one for turn in turned for one in (turn.key, turn.recovery))):
        _peer(each)
    return Card(key, recovery, turned, sequence, issued, expires, named, signature)


def _rotation(told: Any) -> KeyRotation:
    match told:
        case [bytes(key), bytes(recovery), bytes(signature)]:
            return KeyRotation(key, recovery, signature)
    raise CardError("a rotation of a card is malformed")


def _device(told: Any) -> Device:
    match told:
        case [bytes(key), str(label)]:
            _peer(key)
            return Device(key, label)
    raise CardError("a device of a card is malformed")
