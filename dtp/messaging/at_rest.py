"""What a device keeps on its disk for its owner alone: sealed, by a key that is made from the owner's identity."""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

from dtp.messaging.errors import StoreFailed
from dtp.messaging.packing import pack

_DOMAIN: Final = b"dtp.messages.rows.v1"
#: XChaCha20-Poly1305: a nonce of so many random bytes never comes twice.
_NONCE_BYTES: Final = 24


class SealedRows:
    """Seals values of a database's rows: whoever has the file without the identity sees whose they are, when they
    came and how long they are, but not what they say, and can't put one in the place of another."""

    def __init__(self, secret: bytes) -> None:
        """`secret` is 32 bytes that only the owner can make."""
        self._key = hashlib.blake2b(_DOMAIN, key=secret, digest_size=32).digest()

    def seal(self, value: bytes, *place: str | bytes | int) -> bytes:
        """Return a value as it is kept, 40 bytes more. It opens in its place alone: its table, and what its row is
        known by."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + crypto_aead_xchacha20poly1305_ietf_encrypt(value, pack(place), nonce, self._key)

    def open(self, kept: bytes, *place: str | bytes | int) -> bytes:
        """Return the value. Raise `StoreFailed` if it is another identity's, or was changed or moved."""
        try:
            opened: bytes = crypto_aead_xchacha20poly1305_ietf_decrypt(
                kept[_NONCE_BYTES:], pack(place), kept[:_NONCE_BYTES], self._key
            )
        except (CryptoError, ValueError, TypeError) as fault:
            raise StoreFailed("what was saved is another identity's, or damaged") from fault
        return opened
