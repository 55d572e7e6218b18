"""Contact cards: what a person signs about itself, for anybody who wants to write to it, without a chain.

Source: docs/messaging.md, "Cards". Cards are handed over by QR code, file, message or the DHT; anybody may pass
them on. A person is an account with its devices (`dtp.identity.Card`), or a single identity, which is then its only
device.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Final

from dtp.carriers.nearness import Nearness
from dtp.errors import PeerError
from dtp.identity import Card, CardError, Identity, PeerId, PeerIdError
from dtp.identity.card import CardOrder, account_name
from dtp.identity.keys import SIGNATURE_SIZE
from dtp.messaging.packing import domain_tag, is_number, pack, unpack
from dtp.net.address import Address, AddressError

CONTACT_DOMAIN: Final = b"dtp.contact.v1"
VERSION: Final = 1
#: The beginning of a card's text form.
TEXT_PREFIX: Final = "dtp-card:"
MAX_NAME_BYTES: Final = 64
#: Ms by which clocks may differ when a card expires.
SKEW_MS: Final = 60_000
MAX_MAILBOXES: Final = 8
MAX_ADDRESS_BYTES: Final = 256
ACCESS_BYTES: Final = 16
#: Enough for the card of an account with as many devices and addresses as are allowed.
MAX_BYTES: Final = 20_480


class ContactCardError(PeerError):
    """A contact card is malformed, or not signed by the person that it names."""

    code: ClassVar[str] = "contact-card"


@dataclass(frozen=True)
class ContactCard:
    """A person's statement about itself. `sequence` is the Unix time in ms at which it was signed; the newest card
    is valid.

    `access` lets the owner's acquaintances into its mailboxes. It is b"" in a public card, and isn't signed.
    """

    key: bytes
    account: Card | None
    sequence: int
    expires_ms: int
    name: str
    mailboxes: tuple[str, ...]
    signature: bytes = b""
    access: bytes = b""

    # ---- contents ----------------------------------------------------------------------------------------------

    @cached_property
    def person(self) -> bytes:
        """The person whose card it is: the account's 32 bytes, or the key of the single identity."""
        return self.account.account if self.account else self.key

    @property
    def person_name(self) -> str:
        """The name of the person as text: `dtpa1...` or `dtp1...`."""
        return account_name(self.person) if self.account else str(PeerId(self.key))

    @property
    def devices(self) -> tuple[bytes, ...]:
        """The public keys of the devices that send and receive messages for the person."""
        return tuple(each.key for each in self.account.devices) if self.account else (self.key,)

    @property
    def order(self) -> tuple[CardOrder, int, bytes]:
        """The order of the cards of one person: the newer card has the larger value."""
        account = self.account.order if self.account else (1, 0, 0, b"")
        return account, self.sequence, self.signature

    @property
    def nearness_by_hand(self) -> Nearness:
        """The nearness that a card which was handed over in person counts as: as near as our own network, or nearer
        if a mailbox in it is nearer.
        """
        return min((Nearness.NETWORK, *map(_nearness_of, self.mailboxes)))

    def is_nearer(self, teller: Nearness) -> bool:
        """True if the card names mailboxes, and each, by its IP address, is nearer than `teller`. Then none of them
        is dialled.
        """
        return bool(self.mailboxes) and all(_nearness_of(each) < teller for each in self.mailboxes)

    def supersedes(self, other: ContactCard) -> bool:
        """True if this card is newer than `other`, and of the same person."""
        return self.person == other.person and self.order > other.order

    @property
    def ends_ms(self) -> int:
        """The end of validity of this card or its account's card, whichever is earlier: Unix time in ms, 0 for
        none.
        """
        ends = (self.expires_ms, self.account.expires_ms if self.account else 0)
        return min((each for each in ends if each), default=0)

    def has_expired(self, now_ms: int) -> bool:
        """True once the card has expired, by more than the `SKEW_MS` by which clocks may differ."""
        return bool(self.ends_ms) and now_ms > self.ends_ms + SKEW_MS

    # ---- bytes -------------------------------------------------------------------------------------------------

    @cached_property
    def body(self) -> bytes:
        """The bytes that are signed, without their domain."""
        account = self.account.encode() if self.account else b""
        fields = (self.key, account, self.sequence, self.expires_ms, self.name, list(self.mailboxes))
        return pack([VERSION, *fields])

    def signed_by(self, identity: Identity) -> ContactCard:
        """Return the card, signed by `identity`. Raise `ContactCardError` unless that is the identity of the card's
        key.
        """
        if identity.id.key != self.key:
            raise ContactCardError("this key isn't the person's: a card is signed by the account's key")
        checked = replace(self, signature=identity.sign(domain_tag(CONTACT_DOMAIN) + self.body))
        return ContactCard.parse(checked.encode())

    def encode(self) -> bytes:
        """Return the card as bytes."""
        return pack([self.body, self.signature, self.access])

    def public(self) -> ContactCard:
        """Return the public card, without `access`."""
        return replace(self, access=b"")

    @property
    def text(self) -> str:
        """The card as text, for QR codes and messages of other programs."""
        return TEXT_PREFIX + base64.urlsafe_b64encode(self.encode()).decode().rstrip("=")

    @classmethod
    def parse_text(cls, text: str) -> ContactCard:
        """Return the card that `text` encodes. Raise `ContactCardError`."""
        if not (text := text.strip()).startswith(TEXT_PREFIX):
            raise ContactCardError(f"a card as text begins with {TEXT_PREFIX}")
        data = text.removeprefix(TEXT_PREFIX)
        try:
            return cls.parse(base64.b64decode(data + "=" * (-len(data) % 4), b"-_", validate=True))
        except (binascii.Error, ValueError):
            raise ContactCardError("the text of a card has invalid characters, or lacks some") from None

    @classmethod
    def parse(cls, data: bytes) -> ContactCard:
        """Return the decoded card. Raise `ContactCardError` unless its person has signed it."""
        if len(data) > MAX_BYTES:
            raise ContactCardError(f"a card of {len(data)} bytes; {MAX_BYTES} are the most")
        match unpack(data, ContactCardError, "a card"):
            case [bytes(body), bytes(signature), bytes(access)]:
                pass
            case _:
                raise ContactCardError("a card is malformed")
        if len(signature) != SIGNATURE_SIZE or len(access) not in (0, ACCESS_BYTES):
            raise ContactCardError("a card is malformed")
        card = cls._from_body(body, signature, access)
        if card.body != body:
            raise ContactCardError("a card isn't in its shortest form")
        if not _peer(card.key).verify(signature, domain_tag(CONTACT_DOMAIN) + body):
            raise ContactCardError("the card isn't signed by the person that it names")
        return card

    @classmethod
    def _from_body(cls, body: bytes, signature: bytes, access: bytes) -> ContactCard:
        match unpack(body, ContactCardError, "a card"):
            case [int(version), *_] if version != VERSION:
                raise ContactCardError(f"a card of version {version}; {VERSION} is spoken here")
            case [_, bytes(key), bytes(account), sequence, expires, str(name), [*mailboxes]]:
                pass
            case _:
                raise ContactCardError("a card is malformed")
        if not is_number(sequence) or not is_number(expires):
            raise ContactCardError("a number of a card is out of bounds")
        if len(name.encode()) > MAX_NAME_BYTES or not (name.isprintable() or not name):
            raise ContactCardError(
                f"a card's name has {MAX_NAME_BYTES} bytes at most, and no control characters"
            )
        if len(mailboxes) > MAX_MAILBOXES or not all(map(_is_address, mailboxes)):
            raise ContactCardError(f"a card has {MAX_MAILBOXES} mailboxes at most, each an address as text")
        try:
            devices = Card.parse(account) if account else None
        except CardError as fault:
            raise ContactCardError(f"the account of a card: {fault}") from None
        if devices is not None and devices.key != key:
            raise ContactCardError("a card is signed by another key than its account's")
        return cls(key, devices, sequence, expires, name, tuple(mailboxes), signature, access)


def _is_address(told: object) -> bool:
    return isinstance(told, str) and 0 < len(told.encode()) <= MAX_ADDRESS_BYTES and told.isprintable()


def _nearness_of(mailbox: str) -> Nearness:
    try:
        return Address.parse(mailbox).nearness
    except AddressError:  # it leads nowhere
        return Nearness.ANYWHERE


def _peer(key: bytes) -> PeerId:
    try:
        return PeerId(key)
    except PeerIdError as fault:
        raise ContactCardError(f"a card has an invalid key: {fault}") from None
