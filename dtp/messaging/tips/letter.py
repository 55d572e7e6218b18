"""Letters of tips, in both directions: signed, sealed to a static key, and padded. A value.

Source: docs/tips.md, "The letter". There is no ratchet: the words alone have to open every answer, on any
machine.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from typing import Any, Final

from dtp.identity import Identity, PeerId, PeerIdError
from dtp.identity.keys import SIGNATURE_SIZE
from dtp.messaging.cards.contact_card import MAX_ADDRESS_BYTES, MAX_MAILBOXES
from dtp.messaging.conversation.events import MAX_ATTACHMENTS, MAX_TEXT_BYTES, is_file
from dtp.messaging.ends.envelope import KEY_BYTES, open_envelope, pad, seal_envelope, unpad
from dtp.messaging.errors import MessageTooLong
from dtp.messaging.mailbox.protocol import ACCESS_BYTES
from dtp.messaging.packing import domain_tag, is_number, pack, unpack, unpack_saved
from dtp.messaging.tips.errors import LetterForged
from dtp.unicode import encode_text

LETTER_DOMAIN: Final = b"dtp.tip.v1"
VERSION: Final = 1
NONCE_BYTES: Final = 16
#: The least size of a sealed letter, in bytes, so that a short answer and a whole page look alike.
LEAST_BYTES: Final = 4096
#: The id of a lock on the chain, as text. It is shown in a command that the reader may run unchanged.
_LOCK: Final = re.compile("0x[0-9a-f]{64}")


@dataclass(frozen=True)
class ReplyTo:
    """Where answers to a tip go: the device that collects them, the secret by which mailboxes know whoever
    answers, and the key to seal to."""

    device: bytes
    access: bytes
    sealing: bytes
    mailboxes: tuple[str, ...] = ()

    def to_fields(self) -> list[Any]:
        """Return the fields to encode as MessagePack."""
        return [self.device, self.access, self.sealing, list(self.mailboxes)]

    @classmethod
    def read(cls, told: object) -> ReplyTo:
        """Return the `ReplyTo` that `to_fields` made these of. Raise `LetterForged`."""
        match told:
            case [bytes(device), bytes(access), bytes(sealing), [*mailboxes]]:
                sizes = (len(device), len(access), len(sealing))
                if sizes == (KEY_BYTES, ACCESS_BYTES, KEY_BYTES) and _are_addresses(mailboxes):
                    return cls(device, access, sealing, tuple(map(str, mailboxes)))
        raise LetterForged("where answers to a tip go is malformed")


@dataclass(frozen=True)
class TipLetter:
    """One letter. A letter from whoever gives the tip says where answers go; one from the line's owner may
    name a reward's lock."""

    sender: bytes
    recipient: bytes
    text: str
    files: tuple[Any, ...] = ()
    #: Unix time in ms; 0 in letters of whoever gives the tip, since the error of a clock can identify a
    #: machine.
    sent_ms: int = 0
    reply_to: ReplyTo | None = None
    lock: str = ""
    nonce: bytes = field(default_factory=lambda: secrets.token_bytes(NONCE_BYTES))

    def sign(self, key: Identity) -> bytes:
        """Return a copy that is signed with `key`, its sender's. Raise `MessageTooLong`."""
        if len(encode_text(self.text)) > MAX_TEXT_BYTES:
            raise MessageTooLong(f"a text has {MAX_TEXT_BYTES} bytes at most: attach what is longer")
        reply_to = self.reply_to.to_fields() if self.reply_to else []
        said = (self.nonce, self.sent_ms, self.text, list(self.files), reply_to, self.lock)
        body = pack([VERSION, self.sender, self.recipient, *said])
        return pack([body, key.sign(domain_tag(LETTER_DOMAIN) + body)])

    def seal(self, key: Identity, sealing: bytes) -> bytes:
        """Return an envelope for whoever has the static key `sealing`. Raise `MessageTooLong`, `KeysForged`."""
        return seal_envelope(self.sign(key), sealing, least=LEAST_BYTES)

    def to_padded(self, key: Identity) -> bytes:
        """Return the letter signed and padded, but not sealed, since a message through the chain is sealed as
        it is sent."""
        return pad(self.sign(key), least=LEAST_BYTES)

    @classmethod
    def open(cls, envelope: bytes, identity: Identity, recipient: bytes) -> TipLetter:
        """Return what `seal` sealed to the static key of `identity`. Raise `EnvelopeBroken`, `LetterForged`."""
        return cls.parse(open_envelope(envelope, identity), recipient)

    @classmethod
    def from_padded(cls, padded: bytes, recipient: bytes) -> TipLetter:
        """Return what `to_padded` gave. Raise `EnvelopeBroken`, `LetterForged`."""
        return cls.parse(unpad(padded), recipient)

    @classmethod
    def parse(cls, data: bytes, recipient: bytes) -> TipLetter:
        """Read a letter to `recipient` from these bytes. Raise `LetterForged`."""
        match unpack(data, LetterForged, "a letter of a tip"):
            case [bytes(body), bytes(signature)] if len(signature) == SIGNATURE_SIZE:
                pass
            case _:
                raise LetterForged("a letter of a tip is malformed")
        match unpack(body, LetterForged, "a letter of a tip"):
            case [int(version), *_] if version != VERSION:
                raise LetterForged(f"a letter of version {version}; {VERSION} is spoken here")
            case [_, bytes(sender), bytes(to), bytes(nonce), sent, str(text), [*files], [*reply], str(lock)]:
                pass
            case _:
                raise LetterForged("a letter of a tip is malformed")
        if to != recipient:
            raise LetterForged("a letter of a tip is for somebody else: who got it has passed it on")
        if len(nonce) != NONCE_BYTES or not is_number(sent, 2**53) or (lock and not _LOCK.fullmatch(lock)):
            raise LetterForged("a letter of a tip is malformed")
        if len(text.encode("utf-8", "surrogatepass")) > MAX_TEXT_BYTES or len(files) > MAX_ATTACHMENTS:
            raise LetterForged("a letter of a tip says more than one may")
        if not all(map(is_file, files)):
            raise LetterForged("a letter of a tip has a file that can't be")
        try:
            signed = PeerId(sender).verify(signature, domain_tag(LETTER_DOMAIN) + body)
        except PeerIdError as fault:
            raise LetterForged(f"a letter of a tip by a key that can't be: {fault}") from None
        if not signed:
            raise LetterForged("a letter of a tip isn't signed by the sender that it names")
        reply_to = ReplyTo.read(reply) if reply else None
        return cls(sender, to, text, tuple(files), sent, reply_to, lock, nonce)

    def save(self) -> bytes:
        """Return the letter as bytes for a store; it isn't checked again when it is loaded."""
        reply_to = self.reply_to.to_fields() if self.reply_to else []
        said = (self.text, list(self.files), self.sent_ms, reply_to, self.lock, self.nonce)
        return pack([self.sender, self.recipient, *said])


def load_letter(saved: bytes) -> TipLetter:
    """Return what `TipLetter.save` gave. Raise `StoreFailed`."""
    sender, recipient, text, files, sent, reply, lock, nonce = unpack_saved(saved)
    return TipLetter(
        sender, recipient, text, tuple(files), sent, ReplyTo.read(reply) if reply else None, lock, nonce
    )


def _are_addresses(told: list[object]) -> bool:
    return len(told) <= MAX_MAILBOXES and all(
        isinstance(each, str) and 0 < len(each.encode("utf-8", "surrogatepass")) <= MAX_ADDRESS_BYTES
        for each in told
    )
