"""Sealing to static keys: what any of some X25519 keys opens, and nobody else.

Messages on the chain (`dtp.chain.pipes.posts`) and keys of private nodes (`dtp.graph.permission.private`) are sealed
so. docs/decisions/0031-identity-file.md.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import ClassVar, Final

from dtp.errors import LocalError, PeerError

log = logging.getLogger("dtp.identity")

#: Keys that one message is sealed to, at most: their number is one byte.
MAX_RECIPIENTS: Final = 255
KEY_BYTES: Final = 32
_VERSION: Final = 1
_NAME_BYTES: Final = 4
_SEALED_BYTES: Final = 80


class SealError(LocalError, ValueError):
    """Something can't be sealed to these keys; the message says why."""

    code: ClassVar[str] = "seal"


class SealBroken(PeerError):
    """A message isn't sealed to this key, or was changed, or isn't from where it was sealed for."""

    code: ClassVar[str] = "seal-broken"


def seal(data: bytes, recipients: Sequence[bytes], context: bytes) -> bytes:
    """Return `data` sealed to X25519 keys, 1 to 255 of 32 bytes, any of which opens it. Raises `SealError`.

    A version byte, the number of recipients, for each the first 4 bytes of its key and a sealed box (libsodium:
    X25519, XSalsa20-Poly1305) of the message key; nonce and XChaCha20-Poly1305 over the data with `context` as what
    is authenticated beside it.
    """
    from nacl.exceptions import CryptoError
    from nacl.public import PublicKey, SealedBox
    from nacl.secret import Aead
    from nacl.utils import random

    if not 0 < len(recipients) <= MAX_RECIPIENTS:
        raise SealError(f"a message is sealed to 1 to {MAX_RECIPIENTS} keys, not {len(recipients)}")
    if any(len(each) != KEY_BYTES for each in recipients):
        raise SealError(f"a key to seal to has {KEY_BYTES} bytes")
    key = random(Aead.KEY_SIZE)
    parts = [bytes((_VERSION, len(recipients)))]
    for each in recipients:
        try:
            parts += [each[:_NAME_BYTES], SealedBox(PublicKey(each)).encrypt(key)]
        except CryptoError as error:  # a point of small order
            raise SealError(f"{each.hex()} is not a key to seal to") from error
    parts.append(bytes(Aead(key).encrypt(data, context)))
    return b"".join(parts)


def open_sealed(sealed: bytes, private: bytes, context: bytes) -> bytes:
    """Return what was sealed to the X25519 key of `private`. Raises `SealBroken`."""
    from nacl.exceptions import CryptoError
    from nacl.public import PrivateKey, SealedBox
    from nacl.secret import Aead

    if len(sealed) < 2 or sealed[0] != _VERSION:
        raise SealBroken("this is not a sealed message of this version")
    step = _NAME_BYTES + _SEALED_BYTES
    end = 2 + sealed[1] * step
    own = PrivateKey(private)
    name = bytes(own.public_key)[:_NAME_BYTES]
    for at in range(2, end, step):
        if sealed[at : at + _NAME_BYTES] != name:
            continue
        try:
            key = SealedBox(own).decrypt(sealed[at + _NAME_BYTES : at + step])
            return bytes(Aead(key).decrypt(sealed[end:], context))
        except (CryptoError, ValueError, TypeError) as fault:
            log.debug("a seal does not open: %s", fault)
    raise SealBroken("the message isn't sealed to this key, or isn't what was sealed")
