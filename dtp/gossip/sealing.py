"""Private topics: without the key nobody can read their names or payloads. docs/gossip.md, "Private topics"."""

from __future__ import annotations

import base64
from hashlib import blake2b
from typing import Final

from dtp.gossip.errors import TopicError
from dtp.gossip.message import Parsed, content_of
from dtp.unicode import encode_text

#: The beginning of a private topic's name on the wire. Names that programs choose can't begin with it.
PRIVATE: Final = "~"
NONCE_SIZE: Final = 24
TAG_SIZE: Final = 16
#: Bytes that sealing adds to a payload.
OVERHEAD: Final = NONCE_SIZE + TAG_SIZE
_LEAST_KEY: Final = 16
_NAME_DOMAIN: Final = b"dtp.topic.name"
_SEAL_DOMAIN: Final = b"dtp.topic.seal"


class TopicKey:
    """The key of a private topic: at least 16 bytes, or as much text, that its members share.

    Text is used as it is, without stretching: use `secrets.token_urlsafe()`, not a word.
    """

    __slots__ = ("_seal_key", "wire_name")

    def __init__(self, name: str, key: bytes | str) -> None:
        """Raise `TopicError` for a key that is too short."""
        secret = encode_text(key, "a topic's key", TopicError) if isinstance(key, str) else bytes(key)
        if len(secret) < _LEAST_KEY:
            raise TopicError(f"a topic's key has {_LEAST_KEY} bytes at least, not {len(secret)}")
        digest = blake2b(name.encode(), key=blake2b(secret).digest(), digest_size=20, person=_NAME_DOMAIN)
        #: The name that neighbours and brokers see instead.
        self.wire_name = PRIVATE + base64.b32encode(digest.digest()).decode().lower()
        self._seal_key = blake2b(
            name.encode(), key=blake2b(secret).digest(), digest_size=32, person=_SEAL_DOMAIN
        ).digest()

    def seal(self, key: bytes, sequence: int, time_ms: int, data: bytes, nonce: bytes) -> bytes:
        """Return a payload, sealed for the message with this author, number and time: nonce, ciphertext, tag.

        XChaCha20-Poly1305; the nonce is 24 random bytes.
        """
        from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt

        beside = content_of(key, self.wire_name.encode(), sequence, time_ms, b"")
        return nonce + crypto_aead_xchacha20poly1305_ietf_encrypt(data, beside, nonce, self._seal_key)

    def open(self, parsed: Parsed) -> bytes | None:
        """Return the payload of a message, or None if it wasn't sealed with this key for this message."""
        from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt
        from nacl.exceptions import CryptoError

        data = parsed.data
        if len(data) < OVERHEAD:
            return None
        beside = content_of(parsed.key, parsed.topic, parsed.sequence, parsed.time_ms, b"")
        try:
            opened: bytes = crypto_aead_xchacha20poly1305_ietf_decrypt(
                data[NONCE_SIZE:], beside, data[:NONCE_SIZE], self._seal_key
            )
        except CryptoError:
            return None
        return opened

    def __repr__(self) -> str:
        return f"<TopicKey {self.wire_name}>"
