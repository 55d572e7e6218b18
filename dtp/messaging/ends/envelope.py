"""Envelopes: all that a mailbox sees of a message, which are its recipient and one of a few sizes.

Source: docs/messaging.md, "The envelope". The sender's name is inside, sealed to the device that opens the envelope
(libsodium's sealed box: X25519 and XSalsa20-Poly1305, with a new key for each envelope).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dtp.identity import Identity
from dtp.messaging.errors import EnvelopeBroken, KeysForged, MessageTooLong
from dtp.messaging.packing import pack, unpack

VERSION: Final = 1
#: The sizes of envelopes, in bytes: each is padded to the smallest size that its message fits into.
SIZES: Final = tuple(512 << each for each in range(9))
MAX_BYTES: Final = SIZES[-1]
#: The largest payload, in bytes. The rest of an envelope is enough for a letter's other fields, and for the keys in
#: a session's first letter.
MAX_PAYLOAD: Final = MAX_BYTES - 4096
#: The bytes around the padded content: the version, and the public key and MAC of the sealed box. Then the bytes of
#: the content's length, which is inside.
_OUTSIDE: Final = 1 + 48
_LENGTH: Final = 4
KEY_BYTES: Final = 32


def seal_envelope(content: bytes, sealing_key: bytes, *, least: int = 0) -> bytes:
    """Return `content` sealed to a device's X25519 key, padded to one of `SIZES` that is at least `least`.

    Raise `MessageTooLong`, and `KeysForged` for a key that nothing can be sealed to.
    """
    return bytes((VERSION,)) + _seal_to(pad(content, _OUTSIDE, least=least), sealing_key)


def check_sealing_key(key: bytes) -> None:
    """Raise `KeysForged` for a key that nothing can be sealed to. It is checked before the key is used, so that it
    doesn't hold up messages for others.
    """
    _seal_to(b"", key)


def _seal_to(padded: bytes, sealing_key: bytes) -> bytes:
    from nacl.bindings import crypto_box_seal
    from nacl.exceptions import CryptoError

    try:
        sealed: bytes = crypto_box_seal(padded, sealing_key)
    except CryptoError as fault:  # a point of small order
        raise KeysForged(f"{sealing_key.hex()} isn't a key to seal to") from fault
    return sealed


def open_envelope(envelope: bytes, identity: Identity) -> bytes:
    """Return the content that `seal_envelope` has sealed to the static key of `identity`. Raise `EnvelopeBroken`."""
    from nacl.bindings import crypto_box_seal_open
    from nacl.exceptions import CryptoError

    if len(envelope) not in SIZES or envelope[0] != VERSION:
        raise EnvelopeBroken("this isn't an envelope of this version")
    try:
        padded: bytes = crypto_box_seal_open(envelope[1:], identity.static_public, identity.static_private)
    except CryptoError:
        raise EnvelopeBroken("an envelope isn't sealed to this device, or was changed") from None
    return unpad(padded)


def pad(content: bytes, outside: int = 0, *, least: int = 0, sizes: Sequence[int] = SIZES) -> bytes:
    """Return `content` after its length, filled with zeros up to one of `sizes`, less the `outside` bytes that are
    put around it.

    Raise `MessageTooLong`.
    """
    whole = max(outside + _LENGTH + len(content), least)
    size = next((each for each in sizes if each >= whole), 0)
    if not size:
        raise MessageTooLong(
            f"a message of {len(content)} bytes; {sizes[-1] - outside - _LENGTH} are the most"
        )
    return (len(content).to_bytes(_LENGTH, "big") + content).ljust(size - outside, b"\0")


def unpad(padded: bytes) -> bytes:
    """Return the content that `pad` was called with. Raise `EnvelopeBroken`."""
    end = _LENGTH + int.from_bytes(padded[:_LENGTH], "big")
    if end > len(padded) or padded[end:].strip(b"\0"):
        raise EnvelopeBroken("an envelope's padding is malformed")
    return padded[_LENGTH:end]


class Sealed:
    """The content of an envelope: the device that claims to have sent it, a message of Olm, and the sender's signed
    keys if the message is the first of a session. Only opening the message shows whether the claim is true.
    """

    __slots__ = ("keys", "kind", "message", "sender")

    def __init__(self, sender: bytes, kind: int, message: bytes, keys: bytes) -> None:
        self.sender, self.kind, self.message, self.keys = sender, kind, message, keys

    def encode(self) -> bytes:
        """Return the content as bytes, for `seal_envelope`."""
        return pack([self.sender, self.kind, self.message, self.keys])

    @classmethod
    def parse(cls, content: bytes) -> Sealed:
        """Return the content that `encode` has encoded. Raise `EnvelopeBroken`."""
        match unpack(content, EnvelopeBroken, "what is in an envelope"):
            case [bytes(sender), 0 | 1 as kind, bytes(message), bytes(keys)] if len(sender) == KEY_BYTES:
                return cls(sender, int(kind), message, keys)
        raise EnvelopeBroken("the content of an envelope is malformed")
