"""Vouchers: the exact bytes that a lane's key signs, signing them, and checking who signed.

The form is that of `transport::channel` (move/README.md): `dtp.chain.channel.voucher_bytes` writes the same from the
Move declaration, and the tests compare. Here it is one `struct` call, since a busy server checks thousands a second.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from typing import Final

from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import CryptoError

from dtp.chain.channel import VOUCHER_DOMAIN, Voucher
from dtp.chain.host import NO_CAP
from dtp.chain.model import canonical_id, id_bytes
from dtp.core.signatures import sign_all
from dtp.pay.errors import MalformedMeter

__all__ = [
    "MAX_COUNT",
    "NO_CAP",
    "LaneKey",
    "SignedVoucher",
    "Voucher",
    "decode_voucher",
    "encode_voucher",
    "sign_raw",
    "verify_raw",
]

#: Sequences, amounts and counts are at most this: the store's integers are signed. All MIST there are would make
#: two such amounts.
MAX_COUNT: Final = 2**63 - 1
SIGNATURE_SIZE: Final = 64
KEY_SIZE: Final = 32
HASH_SIZE: Final = 32
_SEED_SIZE = 32
_HEAD: Final = bytes((len(VOUCHER_DOMAIN),)) + VOUCHER_DOMAIN
_COUNTS = Struct("<BQQQQ")
_END = Struct("<Q")
_NO_LOCK = b"\x00"
_LOCK = b"\x01\x20"
_PLAIN_SIZE: Final = len(_HEAD) + 32 + _COUNTS.size + 1 + _END.size
_LOCKED_SIZE: Final = _PLAIN_SIZE + 1 + HASH_SIZE


@lru_cache(maxsize=1024)
def _prefix(channel: str) -> bytes:
    return _HEAD + id_bytes(channel)


def encode_voucher(voucher: Voucher) -> bytes:
    """Return what is signed: 89 bytes, or 122 with a hash lock."""
    lock = voucher.hash_lock
    return b"".join(
        (
            _prefix(voucher.channel),
            _COUNTS.pack(voucher.lane, voucher.sequence, voucher.amount, voucher.requests, voucher.bytes),
            _NO_LOCK if lock is None else _LOCK + lock,
            _END.pack(voucher.not_after_ms),
        )
    )


def decode_voucher(data: bytes) -> Voucher:
    """Return the voucher that `encode_voucher` wrote. Raises `MalformedMeter` for anything else."""
    at = len(_HEAD) + 32
    if len(data) not in (_PLAIN_SIZE, _LOCKED_SIZE) or not data.startswith(_HEAD):
        raise MalformedMeter(f"{len(data)} bytes that are not a voucher")
    lane, sequence, amount, requests, size = _COUNTS.unpack_from(data, at)
    mark = at + _COUNTS.size
    lock: bytes | None = None
    if len(data) == _LOCKED_SIZE:
        if data[mark : mark + 2] != _LOCK:
            raise MalformedMeter("a voucher whose hash lock is malformed")
        lock = data[mark + 2 : mark + 2 + HASH_SIZE]
    elif data[mark : mark + 1] != _NO_LOCK:
        raise MalformedMeter("a voucher whose hash lock is missing")
    (not_after_ms,) = _END.unpack_from(data, len(data) - _END.size)
    channel = canonical_id(data[len(_HEAD) : at])
    return Voucher(channel, lane, sequence, amount, requests, size, lock, not_after_ms)


@dataclass(frozen=True, slots=True)
class SignedVoucher:
    """A voucher and the signature of its lane's key (Ed25519, 64 bytes). Not yet known to be good."""

    voucher: Voucher
    signature: bytes

    def is_by(self, key: bytes) -> bool:
        """Return whether the lane's public key (32 bytes) signed it. Strict: the one canonical signature."""
        return verify_raw(key, encode_voucher(self.voucher), self.signature)


def verify_raw(key: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether `signature` (64 bytes) is `key`'s (Ed25519, 32 bytes) over `message`."""
    if len(signature) != SIGNATURE_SIZE or len(key) != KEY_SIZE:
        return False
    try:
        crypto_sign_open(signature + message, key)
    except CryptoError:
        return False
    return True


def sign_raw(secret: bytes, message: bytes) -> bytes:
    """Return the Ed25519 signature under a secret key of 64 bytes (seed and public key)."""
    signed: bytes = crypto_sign(message, secret)
    return signed[:SIGNATURE_SIZE]


class LaneKey:
    """The key of one lane: it can spend what its channel holds, and nothing else. `repr` shows no secret."""

    __slots__ = ("_secret", "public")

    def __init__(self, seed: bytes) -> None:
        """Take a key of 32 bytes."""
        if len(seed) != _SEED_SIZE:
            raise MalformedMeter(f"the seed of a lane's key has {_SEED_SIZE} bytes, not {len(seed)}")
        self.public: bytes
        self.public, self._secret = crypto_sign_seed_keypair(bytes(seed))

    @classmethod
    def generate(cls) -> LaneKey:
        """Return a new key from the system's randomness."""
        return cls(os.urandom(_SEED_SIZE))

    @property
    def seed(self) -> bytes:
        """The 32 bytes it was made of. Secret."""
        return self._secret[:_SEED_SIZE]

    def sign(self, voucher: Voucher) -> SignedVoucher:
        """Return the voucher, signed."""
        return SignedVoucher(voucher, sign_raw(self._secret, encode_voucher(voucher)))

    def sign_all(self, vouchers: Sequence[Voucher]) -> list[SignedVoucher]:
        """Return the vouchers, signed, in order: for a client that signs thousands a second."""
        signatures = sign_all(self._secret, [encode_voucher(each) for each in vouchers])
        return [SignedVoucher(*each) for each in zip(vouchers, signatures, strict=True)]

    def sign_ticket(self, statement: bytes) -> bytes:
        """Return the signature over a ticket's statement (`dtp.pay.ticket`), 64 bytes."""
        return sign_raw(self._secret, statement)

    def __repr__(self) -> str:
        return f"<LaneKey {self.public.hex()}>"
