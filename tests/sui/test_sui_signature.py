"""Serialized signatures of every scheme, multisig with thresholds, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dtp.sui.signature import (
    KeyScheme,
    MultiSig,
    MultiSigPublicKey,
    PublicKey,
    SignatureError,
    SimpleSignature,
    address_of_key,
    address_of_multisig,
    parse_signature,
    verify_signature,
)

MESSAGE = bytes(range(32))
ORDERS = {
    KeyScheme.SECP256K1: 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,
    KeyScheme.SECP256R1: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
}


class Signer:
    """A key of one scheme, from a small number."""

    def __init__(self, scheme: KeyScheme, number: int) -> None:
        self.scheme = scheme
        if scheme is KeyScheme.ED25519:
            self.ed = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
            raw = self.ed.public_key().public_bytes_raw()
        else:
            curve = ec.SECP256K1() if scheme is KeyScheme.SECP256K1 else ec.SECP256R1()
            self.ec = ec.derive_private_key(number, curve)
            raw = self.ec.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        self.key = PublicKey(scheme, raw)

    def sign(self, message: bytes = MESSAGE, *, high: bool = False) -> bytes:
        """64 bytes; for ECDSA the lower s, unless `high`."""
        if self.scheme is KeyScheme.ED25519:
            return self.ed.sign(message)
        r, s = decode_dss_signature(self.ec.sign(message, ec.ECDSA(SHA256())))
        order = ORDERS[self.scheme]
        if (s > order // 2) is not high:
            s = order - s
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def signature(self) -> SimpleSignature:
        """The whole signature."""
        return SimpleSignature(self.key, self.sign())


SIMPLE = (KeyScheme.ED25519, KeyScheme.SECP256K1, KeyScheme.SECP256R1)
SIGNERS = [Signer(scheme, number) for number, scheme in enumerate(SIMPLE, 3)]


@pytest.mark.parametrize("signer", SIGNERS)
def test_each_scheme(signer: Signer) -> None:
    made = signer.signature()
    raw = made.serialize()
    assert raw[0] == signer.scheme
    found = parse_signature(raw)
    assert found == made
    verify_signature(found, MESSAGE)
    assert found.address == blake2b(bytes([signer.scheme]) + signer.key.key, digest_size=32).digest()
    with pytest.raises(SignatureError):
        verify_signature(found, bytes(32))
    for at in (0, 31, 32, 63):
        broken = bytearray(signer.sign())
        broken[at] ^= 1
        with pytest.raises(SignatureError):
            verify_signature(replace(signer.signature(), signature=bytes(broken)), MESSAGE)


@pytest.mark.parametrize("signer", SIGNERS[1:])
def test_the_other_s_is_refused(signer: Signer) -> None:
    with pytest.raises(SignatureError, match="lower"):
        verify_signature(SimpleSignature(signer.key, signer.sign(high=True)), MESSAGE)


@pytest.mark.parametrize("signer", SIGNERS[1:])
def test_a_key_that_is_no_point(signer: Signer) -> None:
    broken = PublicKey(signer.scheme, b"\x05" + signer.key.key[1:])
    with pytest.raises(SignatureError):
        verify_signature(SimpleSignature(broken, signer.sign()), MESSAGE)


@pytest.mark.parametrize("r", [bytes(32), b"\xff" * 32])
def test_numbers_out_of_range(r: bytes) -> None:
    signer = SIGNERS[1]
    with pytest.raises(SignatureError):
        verify_signature(SimpleSignature(signer.key, r + bytes(31) + b"\1"), MESSAGE)
    with pytest.raises(SignatureError):
        verify_signature(SimpleSignature(signer.key, signer.sign()[:32] + bytes(32)), MESSAGE)


@pytest.mark.parametrize(
    "raw", [b"", b"\0", b"\0" * 96, b"\0" * 98, b"\1" * 97, b"\4" * 97, b"\5" * 97, b"\6" * 97, b"\x80" * 97]
)
def test_malformed_or_unsupported(raw: bytes) -> None:
    with pytest.raises(SignatureError):
        parse_signature(raw)


# ---------------------------------------------------------------------------------------------- multisig

COMMITTEE = MultiSigPublicKey(tuple((s.key, weight) for s, weight in zip(SIGNERS, (1, 2, 3), strict=True)), 3)


def multisig(*who: int, committee: MultiSigPublicKey = COMMITTEE) -> MultiSig:
    bitmap = sum(1 << at for at in who)
    return MultiSig(tuple((SIGNERS[at].scheme, SIGNERS[at].sign()) for at in who), bitmap, committee)


@pytest.mark.parametrize("who", [(2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)])
def test_enough_weight(who: tuple[int, ...]) -> None:
    made = multisig(*who)
    found = parse_signature(made.serialize())
    assert found == made
    verify_signature(found, MESSAGE)
    with pytest.raises(SignatureError):
        verify_signature(found, bytes(32))


@pytest.mark.parametrize("who", [(0,), (1,)])
def test_too_little_weight(who: tuple[int, ...]) -> None:
    with pytest.raises(SignatureError, match="weigh"):
        verify_signature(parse_signature(multisig(*who).serialize()), MESSAGE)


def test_the_address_of_a_multisig() -> None:
    body = b"\3" + (3).to_bytes(2, "little")
    for signer, weight in zip(SIGNERS, (1, 2, 3), strict=True):
        body += bytes([signer.scheme]) + signer.key.key + bytes([weight])
    expected = blake2b(body, digest_size=32).digest()
    assert address_of_multisig(COMMITTEE) == expected == multisig(2).address
    assert address_of_key(SIGNERS[0].key) != expected


def test_malformed_multisigs() -> None:
    keys = COMMITTEE.keys
    good = multisig(0, 1)
    cases = (
        replace(good, bitmap=0b1011),
        replace(good, bitmap=0b1),
        replace(good, bitmap=1 << 5 | 1),
        replace(good, signatures=(), bitmap=0),
        replace(good, public_key=replace(COMMITTEE, threshold=0)),
        replace(good, public_key=replace(COMMITTEE, threshold=7)),
        replace(good, public_key=MultiSigPublicKey((keys[0], keys[0], keys[1]), 1)),
        replace(good, public_key=MultiSigPublicKey((), 1)),
        replace(good, public_key=MultiSigPublicKey(((keys[0][0], 0), *keys[1:]), 3)),
        replace(
            good,
            public_key=MultiSigPublicKey(
                tuple((Signer(KeyScheme.ED25519, n).key, 1) for n in range(1, 12)), 1
            ),
        ),
    )
    for broken in cases:
        with pytest.raises(SignatureError):
            parse_signature(broken.serialize())
    for raw in (good.serialize()[:-1], good.serialize() + b"\0"):
        with pytest.raises(SignatureError):
            parse_signature(raw)


def test_signatures_in_the_wrong_places() -> None:
    good = multisig(0, 1)
    swapped = replace(good, signatures=good.signatures[::-1])
    with pytest.raises(SignatureError, match="scheme"):
        verify_signature(swapped, MESSAGE)
    forged = replace(good, signatures=(good.signatures[0], (KeyScheme.SECP256K1, SIGNERS[2].sign())))
    with pytest.raises(SignatureError):
        verify_signature(forged, MESSAGE)
