"""Serialized Sui signatures: read, check, and the addresses of the keys behind them.

A serialized signature is `flag || signature || public key`, for several keys `3 || BCS of MultiSig`. What is signed
is the 32-byte intent hash (`dtp.sui.transaction.signing_hash`); the ECDSA schemes hash it once more with SHA-256.
The ciphers are those of `cryptography`. zkLogin and passkey signatures are refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from dtp.errors import LocalError
from dtp.sui.bcs import U8, U16, BcsError, Codec, enum, fixed, pair, struct, vector

__all__ = [
    "KeyScheme",
    "MultiSig",
    "MultiSigPublicKey",
    "PublicKey",
    "SignatureError",
    "SimpleSignature",
    "address_of_key",
    "address_of_multisig",
    "parse_signature",
    "verify_signature",
]

MAX_SIGNERS: Final = 10
"""Most keys of a multisig."""
SIGNATURE_SIZE: Final = 64


class SignatureError(LocalError):
    """A signature is malformed, of a kind that is not supported, or does not hold; the message says which."""

    code = "sui-signature"


class KeyScheme(IntEnum):
    """The flag byte in front of a signature or public key."""

    ED25519 = 0
    SECP256K1 = 1
    SECP256R1 = 2
    MULTISIG = 3
    BLS12381 = 4
    ZK_LOGIN = 5
    PASSKEY = 6


_KEY_SIZES: Final = {KeyScheme.ED25519: 32, KeyScheme.SECP256K1: 33, KeyScheme.SECP256R1: 33}
_CURVES: Final[dict[KeyScheme, ec.EllipticCurve]] = {
    KeyScheme.SECP256K1: ec.SECP256K1(),
    KeyScheme.SECP256R1: ec.SECP256R1(),
}
# Orders of the groups: of the two valid s for a signature, Sui takes the lower only.
_ORDERS: Final = {
    KeyScheme.SECP256K1: 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,
    KeyScheme.SECP256R1: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
}


@dataclass(frozen=True)
class PublicKey:
    """A key: 32 bytes for Ed25519, 33 (compressed point) for the ECDSA schemes."""

    scheme: KeyScheme
    key: bytes


@dataclass(frozen=True)
class SimpleSignature:
    """A signature (64 bytes) by one key."""

    public_key: PublicKey
    signature: bytes

    def serialize(self) -> bytes:
        """Return `flag || signature || public key`."""
        return bytes((self.public_key.scheme,)) + self.signature + self.public_key.key

    @property
    def address(self) -> bytes:
        """Whose signature it is."""
        return address_of_key(self.public_key)


@dataclass(frozen=True)
class MultiSigPublicKey:
    """Keys with weights; signatures must weigh `threshold` together."""

    keys: tuple[tuple[PublicKey, int], ...]
    threshold: int


@dataclass(frozen=True)
class MultiSig:
    """Signatures of some of the keys, whose places are the set bits of `bitmap`, in their order."""

    signatures: tuple[tuple[KeyScheme, bytes], ...]
    bitmap: int
    public_key: MultiSigPublicKey

    def serialize(self) -> bytes:
        """Return `3 || BCS`."""
        return bytes((KeyScheme.MULTISIG,)) + _MULTISIG.encode(self)

    @property
    def address(self) -> bytes:
        """Whose signature it is."""
        return address_of_multisig(self.public_key)


@dataclass(frozen=True)
class _Ed25519Bytes:
    bytes: bytes


@dataclass(frozen=True)
class _Secp256k1Bytes:
    bytes: bytes


@dataclass(frozen=True)
class _Secp256r1Bytes:
    bytes: bytes


_BYTES_CLASSES = (_Ed25519Bytes, _Secp256k1Bytes, _Secp256r1Bytes)


def _by_scheme(name: str, sizes: Sequence[int]) -> Codec[tuple[KeyScheme, bytes]]:
    """Return a choice of one scheme's bytes, as a pair (scheme, bytes)."""
    choice = enum(
        name,
        {
            number: (cls, struct(cls, bytes=fixed(size, name)))
            for number, (cls, size) in enumerate(zip(_BYTES_CLASSES, sizes, strict=True))
        },
    )

    def write(value: tuple[KeyScheme, bytes], out: bytearray) -> None:
        choice.write(_BYTES_CLASSES[value[0]](value[1]), out)

    def read(data: bytes, at: int) -> tuple[tuple[KeyScheme, bytes], int]:
        found, end = choice.read(data, at)
        return (KeyScheme(_BYTES_CLASSES.index(type(found))), found.bytes), end

    return Codec(write, read)


_SIGNATURES = _by_scheme("CompressedSignature", (64, 64, 64))
_KEYS = _by_scheme("PublicKey", (32, 33, 33))


def _read_key(data: bytes, at: int) -> tuple[PublicKey, int]:
    (scheme, key), end = _KEYS.read(data, at)
    return PublicKey(scheme, key), end


_PUBLIC_KEY = Codec(lambda value, out: _KEYS.write((value.scheme, value.key), out), _read_key)
_MULTISIG: Codec[MultiSig] = struct(
    MultiSig,
    signatures=vector(_SIGNATURES),
    bitmap=U16,
    public_key=struct(MultiSigPublicKey, keys=vector(pair(_PUBLIC_KEY, U8)), threshold=U16),
)


def address_of_key(key: PublicKey) -> bytes:
    """Return the account of one key: Blake2b-256 over flag and key."""
    return blake2b(bytes((key.scheme,)) + key.key, digest_size=32).digest()


def address_of_multisig(key: MultiSigPublicKey) -> bytes:
    """Return the account of a multisig: Blake2b-256 over flag, threshold, and each key with its flag and weight."""
    body = bytearray((KeyScheme.MULTISIG,))
    body += key.threshold.to_bytes(2, "little")
    for part, weight in key.keys:
        body += bytes((part.scheme,)) + part.key + bytes((weight,))
    return blake2b(body, digest_size=32).digest()


@lru_cache(maxsize=1024)
def parse_signature(data: bytes) -> SimpleSignature | MultiSig:
    """Read a serialized signature; nothing is checked against a message. Raises `SignatureError`."""
    if not data:
        raise SignatureError("the signature is empty")
    try:
        scheme = KeyScheme(data[0])
    except ValueError:
        raise SignatureError(f"no signature scheme has the flag {data[0]}") from None
    if scheme is KeyScheme.MULTISIG:
        return _parse_multisig(data)
    size = _KEY_SIZES.get(scheme)
    if size is None:
        raise SignatureError(f"signatures of scheme {scheme.name} are not supported")
    if len(data) != 1 + SIGNATURE_SIZE + size:
        raise SignatureError(
            f"a {scheme.name} signature has {1 + SIGNATURE_SIZE + size} bytes, got {len(data)}"
        )
    return SimpleSignature(PublicKey(scheme, data[1 + SIGNATURE_SIZE :]), data[1 : 1 + SIGNATURE_SIZE])


def _parse_multisig(data: bytes) -> MultiSig:
    try:
        found = _MULTISIG.decode(data[1:])
    except BcsError as fault:
        raise SignatureError(f"malformed multisig: {fault}") from None
    keys = found.public_key.keys
    threshold = found.public_key.threshold
    if not 0 < len(keys) <= MAX_SIGNERS:
        raise SignatureError(f"a multisig has 1 to {MAX_SIGNERS} keys, got {len(keys)}")
    if len({key for key, _ in keys}) != len(keys):
        raise SignatureError("a multisig names a key twice")
    if any(weight == 0 for _, weight in keys):
        raise SignatureError("a key of a multisig has no weight")
    if not 0 < threshold <= sum(weight for _, weight in keys):
        raise SignatureError(f"the threshold {threshold} of a multisig is 0 or can't be reached")
    if found.bitmap >> len(keys) or found.bitmap.bit_count() != len(found.signatures) or not found.signatures:
        raise SignatureError("the bitmap of a multisig does not fit its keys and signatures")
    return found


def verify_signature(signature: SimpleSignature | MultiSig, message: bytes) -> None:
    """Check a signature over `message`, the 32-byte intent hash. Raises `SignatureError`."""
    if isinstance(signature, SimpleSignature):
        _verify(signature.public_key, signature.signature, message)
        return
    keys = signature.public_key.keys
    places = [at for at in range(len(keys)) if signature.bitmap >> at & 1]
    weight = 0
    for at, (scheme, raw) in zip(places, signature.signatures, strict=True):
        key, part = keys[at]
        if scheme is not key.scheme:
            raise SignatureError(f"signature of key {at} is of another scheme than the key")
        _verify(key, raw, message)
        weight += part
    if weight < signature.public_key.threshold:
        raise SignatureError(
            f"the signatures weigh {weight}, the multisig needs {signature.public_key.threshold}"
        )


def _verify(key: PublicKey, signature: bytes, message: bytes) -> None:
    try:
        if key.scheme is KeyScheme.ED25519:
            _ed25519(key.key).verify(signature, message)
            return
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        if s > _ORDERS[key.scheme] // 2:
            raise SignatureError("the s of an ECDSA signature is not the lower one")
        public = ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[key.scheme], key.key)
        public.verify(encode_dss_signature(r, s), message, ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise SignatureError(
            "the signature does not hold for this transaction: was it changed after signing?"
        ) from None
    except ValueError as fault:
        raise SignatureError(f"the public key is not a point of its curve: {fault}") from None


@lru_cache(maxsize=1024)
def _ed25519(key: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(key)
