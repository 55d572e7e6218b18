"""What is written under a tip, in both directions: signed, sealed to a static key, padded. A value.

Source: docs/tips.md, "The letter". There is no ratchet: words alone have to open what has come, anywhere.
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
#: What letters have at least, sealed: a short answer and a page look alike.
LEAST_BYTES: Final = 4096
#: A lock on the chain, as text. It is shown in a command that whoever reads it may run as it stands.
_LOCK: Final = re.compile("0x[0-9a-f]{64}")


@dataclass(frozen=True)
class ReplyTo:
    """Where answers to a tip go: a device of mailboxes, what these know the answerer by, the key to seal to."""

    device: bytes
    access: bytes
    sealing: bytes
    mailboxes: tuple[str, ...] = ()

    def to_fields(self) -> list[Any]:
        """Return it for MessagePack."""
        return [self.device, self.access, self.sealing, list(self.mailboxes)]

    @classmethod
    def read(cls, told: object) -> ReplyTo:
        """Return what `fields` gave. Raise `LetterForged`."""
        match told:
            case [bytes(device), bytes(access), bytes(sealing), [*mailboxes]]:
                sizes = (len(device), len(access), len(sealing))
                if sizes == (KEY_BYTES, ACCESS_BYTES, KEY_BYTES) and _are_addresses(mailboxes):
                    return cls(device, access, sealing, tuple(map(str, mailboxes)))
        raise LetterForged("where answers to a tip go is malformed")


@dataclass(frozen=True)
class TipLetter:
    """One letter. Those of a tip say where answers go; those of a line's owner may name a reward's lock."""

    sender: bytes
    recipient: bytes
    text: str
    files: tuple[Any, ...] = ()
    #: Unix time in ms; 0 in what a tip says, since clocks differ enough to know one by.
    sent_ms: int = 0
    reply_to: ReplyTo | None = None
    lock: str = ""
    nonce: bytes = field(default_factory=lambda: secrets.token_bytes(NONCE_BYTES))

    def sign(self, key: Identity) -> bytes:
        """Return it with the signature of its sender, whose `key` is. Raise `MessageTooLong`."""
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
        """Return it signed and padded, for what seals by itself: a message through the chain."""
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
        """Return the letter to `recipient` that these bytes are. Raise `LetterForged`."""
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
        """Return it for a store, whose owner believes it."""
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
