"""Ed25519 signatures by the rules of ZIP-215, which the chain follows so that all its nodes agree.

Points may be in any encoding that decodes, also one that isn't reduced, and of any order; the equation is
multiplied by the cofactor: [8][S]B = [8]R + [8][k]A. libsodium's own check refuses both, so only its operations on
points are used here. Whoever has no key signs any message by a point of small order: contracts refuse such keys.
"""

from __future__ import annotations

import hashlib
from typing import Final

from nacl.bindings import (
    crypto_core_ed25519_add,
    crypto_scalarmult_ed25519_base_noclamp,
    crypto_scalarmult_ed25519_noclamp,
)
from nacl.exceptions import RuntimeError as NotAPoint

__all__ = ["ed25519_verifies"]

_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_COFACTOR_DOUBLINGS: Final = 3
_IDENTITY: Final = b"\1" + bytes(31)


def ed25519_verifies(signature: bytes, public_key: bytes, message: bytes) -> bool:
    """True if the chain takes the signature for the key's over the message; False for wrong lengths."""
    if len(signature) != 64 or len(public_key) != 32:
        return False
    commitment, scalar = signature[:32], int.from_bytes(signature[32:], "little")
    if scalar >= _ORDER:
        return False
    challenge = int.from_bytes(hashlib.sha512(commitment + public_key + message).digest(), "little")
    try:
        key, point = _times_cofactor(public_key), _times_cofactor(commitment)
        right = crypto_core_ed25519_add(point, _times(key, challenge % _ORDER))
    except NotAPoint:
        return False
    return _base_times(8 * scalar % _ORDER) == right


def _times_cofactor(point: bytes) -> bytes:
    """Return eight times a point, in its one encoding: of prime order, or the identity. Raise `NotAPoint`."""
    for _ in range(_COFACTOR_DOUBLINGS):
        point = crypto_core_ed25519_add(point, point)
    return point


def _times(point: bytes, scalar: int) -> bytes:
    # libsodium gives no identity: neither for it nor as a result.
    if point == _IDENTITY or scalar == 0:
        return _IDENTITY
    return crypto_scalarmult_ed25519_noclamp(scalar.to_bytes(32, "little"), point)


def _base_times(scalar: int) -> bytes:
    if scalar == 0:
        return _IDENTITY
    return crypto_scalarmult_ed25519_base_noclamp(scalar.to_bytes(32, "little"))
