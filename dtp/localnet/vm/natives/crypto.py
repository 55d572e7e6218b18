"""Cryptographic natives, by the libraries that the package already uses.

What counts as a key or a signature is what the chain's libraries take: all forms of points that they decode, whatever
the framework's comments say of lengths. Those of Ed25519 follow the chain as well: see `zip215`.
`keccak256` needs `pycryptodome` and recovering a key `coincurve`: they are asked for only when a program calls them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from dtp.localnet.vm.gas import GasMeter
from dtp.localnet.vm.natives.zip215 import ed25519_verifies
from dtp.localnet.vm.signals import NativeAbort, VmLimit
from dtp.localnet.vm.types import Type

__all__ = ["TABLE"]

Types = tuple[Type, ...]

_HASH_BASE = 10
_HMAC_BASE = 52
_DECOMPRESS_BASE = 52
_ED25519_BASE = 1802
_K1_VERIFY_BASE = 1470
_R1_VERIFY_BASE = 4225
_RECOVER_BASE = 500
_PER_BYTE = 2
_PER_BLOCK = 2
_BLAKE2_BLOCK = _SHA512_BLOCK = 128
_SHA256_BLOCK = 64
_KECCAK_BLOCK = 136

_KECCAK256 = 0
_SHA256 = 1
_BLOCKS = {_KECCAK256: _KECCAK_BLOCK, _SHA256: _SHA256_BLOCK}
_UNKNOWN_HASH_COST = 100
_RECOVER_FAILED = 0
_BAD_SIGNATURE = 1
_BAD_PUBLIC_KEY = 2
_MOST_RECOVERY_ID = 3
_COMPRESSED_SIZE, _UNCOMPRESSED_SIZE = 33, 65
# How points that are encoded in a less common form begin.
_UNCOMPRESSED, _COMPACT, _HYBRID_EVEN = 4, 5, 6


def _hashing(length: int, block: int) -> int:
    """Return what it costs to hash so many bytes in blocks of that size."""
    return _PER_BYTE * length + _PER_BLOCK * -(-length // block)


def _blake2b256(c: GasMeter, _: Types, data: bytearray) -> bytearray:
    c.charge_native(_HASH_BASE + _hashing(len(data), _BLAKE2_BLOCK))
    return bytearray(hashlib.blake2b(data, digest_size=32).digest())


def _keccak(data: bytes) -> bytes:
    try:
        from Crypto.Hash import keccak
    except ImportError:
        raise VmLimit(
            "VMInvariantViolation", "keccak256 needs the package pycryptodome: install it"
        ) from None
    return bytes(keccak.new(digest_bits=256, data=data).digest())


def _keccak256(c: GasMeter, _: Types, data: bytearray) -> bytearray:
    c.charge_native(_HASH_BASE + _hashing(len(data), _KECCAK_BLOCK))
    return bytearray(_keccak(bytes(data)))


def _hmac_sha3_256(c: GasMeter, _: Types, key: bytearray, message: bytearray) -> bytearray:
    c.charge_native(_HMAC_BASE + _hashing(len(key) + len(message), _KECCAK_BLOCK))
    return bytearray(hmac.digest(key, message, hashlib.sha3_256))


def _ed25519_verify(
    c: GasMeter, _: Types, signature: bytearray, public_key: bytearray, message: bytearray
) -> bool:
    c.charge_native(_ED25519_BASE + _hashing(len(message), _SHA512_BLOCK))
    return ed25519_verifies(bytes(signature), bytes(public_key), bytes(message))


def _ecdsa_verifies(
    key: ec.EllipticCurvePublicKey | None, order: int, signature: bytes, digest: bytes
) -> bool:
    if key is None or len(signature) != 64:
        return False
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    # The chain refuses the higher of the two possible s, so that nobody can alter a signature.
    if not (0 < r < order and 0 < s <= order // 2):
        return False
    try:
        key.verify(utils.encode_dss_signature(r, s), digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
    except InvalidSignature:
        return False
    return True


def _decode_k1(data: bytes) -> ec.EllipticCurvePublicKey | None:
    """Return the point, None where libsecp256k1 takes none.

    A point is 33 bytes, or 65 that begin with 4, or with 6 or 7 (hybrid): with 6 where y is even.
    """
    if len(data) == _UNCOMPRESSED_SIZE and data[0] in (_HYBRID_EVEN, _HYBRID_EVEN + 1):
        if data[0] - _HYBRID_EVEN != data[-1] & 1:
            return None
        data = bytes((_UNCOMPRESSED,)) + data[1:]
    return _decode_point(ec.SECP256K1(), data)


def _decode_r1(data: bytes) -> ec.EllipticCurvePublicKey | None:
    """Return the point, None where the crate p256 takes none: 33 bytes, or 65 that begin with 4.

    33 bytes that begin with 5 (compact) are of the smaller of both y.
    """
    if len(data) != _COMPRESSED_SIZE or data[0] != _COMPACT:
        return _decode_point(ec.SECP256R1(), data)
    both = [_decode_point(ec.SECP256R1(), bytes((first,)) + data[1:]) for first in (2, 3)]
    return min((key for key in both if key), key=lambda key: key.public_numbers().y, default=None)


def _decode_point(curve: ec.EllipticCurve, data: bytes) -> ec.EllipticCurvePublicKey | None:
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, data)
    except ValueError:
        return None


_K1_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_R1_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def _digest(number: int, message: bytes) -> bytes | None:
    if number == _KECCAK256:
        return _keccak(message)
    return hashlib.sha256(message).digest() if number == _SHA256 else None


def _cost_by_hash(base: int, number: int, message: bytearray) -> int:
    """Return what a native costs that hashes a message first, by the number of the hash function."""
    block = _BLOCKS.get(number)
    return _UNKNOWN_HASH_COST if block is None else base + _hashing(len(message), block)


def _secp256k1_verify(
    c: GasMeter, _: Types, signature: bytearray, public_key: bytearray, message: bytearray, hash: int
) -> bool:
    c.charge_native(_cost_by_hash(_K1_VERIFY_BASE, hash, message))
    digest = _digest(hash, bytes(message))
    return digest is not None and _ecdsa_verifies(
        _decode_k1(bytes(public_key)), _K1_ORDER, bytes(signature), digest
    )


def _secp256r1_verify(
    c: GasMeter, _: Types, signature: bytearray, public_key: bytearray, message: bytearray, hash: int
) -> bool:
    c.charge_native(_cost_by_hash(_R1_VERIFY_BASE, hash, message))
    digest = _digest(hash, bytes(message))
    return digest is not None and _ecdsa_verifies(
        _decode_r1(bytes(public_key)), _R1_ORDER, bytes(signature), digest
    )


def _secp256k1_ecrecover(
    c: GasMeter, _: Types, signature: bytearray, message: bytearray, hash: int
) -> bytearray:
    c.charge_native(_cost_by_hash(_RECOVER_BASE, hash, message))
    digest = _digest(hash, bytes(message))
    if digest is None:
        raise NativeAbort(_RECOVER_FAILED)
    numbers = (int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big"))
    if len(signature) != 65 or signature[64] > _MOST_RECOVERY_ID or max(numbers) >= _K1_ORDER:
        raise NativeAbort(_BAD_SIGNATURE)
    return bytearray(_recover(bytes(signature), digest))


def _recover(signature: bytes, digest: bytes) -> bytes:
    try:
        import coincurve
    except ImportError:
        raise VmLimit(
            "VMInvariantViolation", "secp256k1_ecrecover needs the package coincurve: install it"
        ) from None
    try:
        key = coincurve.PublicKey.from_signature_and_message(signature, digest, hasher=None)
    except ValueError:
        raise NativeAbort(_RECOVER_FAILED) from None
    return bytes(key.format(compressed=True))


def _decompress(c: GasMeter, _: Types, public_key: bytearray) -> Any:
    c.charge_native(_DECOMPRESS_BASE)
    key = _decode_k1(bytes(public_key))
    if key is None:
        raise NativeAbort(_BAD_PUBLIC_KEY)
    numbers = key.public_numbers()
    return bytearray(b"\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big"))


TABLE: dict[tuple[int, str, str], Callable[..., Any]] = {
    (2, "hash", "blake2b256"): _blake2b256,
    (2, "hash", "keccak256"): _keccak256,
    (2, "hmac", "hmac_sha3_256"): _hmac_sha3_256,
    (2, "ed25519", "ed25519_verify"): _ed25519_verify,
    (2, "ecdsa_k1", "secp256k1_verify"): _secp256k1_verify,
    (2, "ecdsa_k1", "secp256k1_ecrecover"): _secp256k1_ecrecover,
    (2, "ecdsa_k1", "decompress_pubkey"): _decompress,
    (2, "ecdsa_r1", "secp256r1_verify"): _secp256r1_verify,
}
