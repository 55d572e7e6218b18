"""Sealed answers: bytes that a client has in hand before it pays, and can read once it has. Fair exchange's cargo.

On a stream: `32 bytes hash lock || u32 size || ciphertext of that size`. The key comes out of the preimage of the
lock (HKDF-SHA256), the ciphertext is ChaCha20-Poly1305's with a nonce of zeros: a preimage serves one answer. Source:
docs/wire.md, section "Fair exchange".
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import dataclass, field
from typing import Final

from dtp.net.stream import Stream
from dtp.pay.errors import SealedAnswerBroken
from dtp.pay.voucher import HASH_SIZE

ANSWER_INFO: Final = b"dtp.answer.v1"
PREIMAGE_SIZE: Final = 32
#: The largest answer, bytes: it is held whole by both sides until it is paid.
MAX_ANSWER: Final = 64 * 1024 * 1024
_SIZE = 4
_TAG = 16
_NONCE = bytes(12)


def new_preimage() -> bytes:
    """Return 32 random bytes, for one answer."""
    return os.urandom(PREIMAGE_SIZE)


def lock_of(preimage: bytes) -> bytes:
    """Return the hash lock that a preimage opens: its SHA-256, 32 bytes."""
    return hashlib.sha256(preimage).digest()


def _key(preimage: bytes) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), 32, salt=None, info=ANSWER_INFO).derive(preimage)


def seal_answer(preimage: bytes, data: bytes) -> bytes:
    """Return what goes on the stream. Raises `SealedAnswerBroken` above `MAX_ANSWER` bytes."""
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    if len(data) > MAX_ANSWER:
        raise SealedAnswerBroken(f"an answer of {len(data):,} bytes; {MAX_ANSWER:,} is the most: cut it")
    lock = lock_of(preimage)
    sealed = ChaCha20Poly1305(_key(preimage)).encrypt(_NONCE, data, lock)
    return lock + len(sealed).to_bytes(_SIZE) + sealed


@dataclass(frozen=True, slots=True)
class SealedAnswer:
    """An answer that has come and can't be read yet: `lock` is the hash (32 bytes) of what its key comes out of."""

    lock: bytes
    ciphertext: bytes = field(repr=False)

    def open(self, preimage: bytes) -> bytes:
        """Return what was sealed. Raises `SealedAnswerBroken`."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        try:
            opened = ChaCha20Poly1305(_key(preimage)).decrypt(_NONCE, self.ciphertext, lock_of(preimage))
        except InvalidTag:
            raise SealedAnswerBroken("the answer doesn't open with the key that was paid for") from None
        return bytes(opened)


async def read_head(stream: Stream) -> tuple[bytes, int]:
    """Lock and size (bytes) of the next answer on a stream. Raises `SealedAnswerBroken`."""
    head = await _read(stream, HASH_SIZE + _SIZE)
    size = int.from_bytes(head[HASH_SIZE:])
    if not _TAG <= size <= MAX_ANSWER + _TAG:
        raise SealedAnswerBroken(f"a sealed answer of {size:,} bytes")
    return head[:HASH_SIZE], size


async def read_answer(stream: Stream, lock: bytes, size: int) -> SealedAnswer:
    """Return the answer behind its head. Raises `SealedAnswerBroken`."""
    return SealedAnswer(lock, await _read(stream, size))


async def _read(stream: Stream, size: int) -> bytes:
    try:
        return await stream.readexactly(size)
    except asyncio.IncompleteReadError as error:
        raise SealedAnswerBroken("the stream ended inside a sealed answer") from error
