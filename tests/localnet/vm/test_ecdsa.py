"""ECDSA natives beside a second implementation: what is a key, what a signature recovers to.

Points and verdicts are OpenSSL's here, and compared with libsecp256k1 (coincurve), which the chain has as well;
recovery is that library's, and compared with the verdicts of OpenSSL.
"""

from __future__ import annotations

import coincurve
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given
from hypothesis import strategies as st
from vm_world import World

from dtp.localnet.vm import ExecutionFailure

WORLD = World()
SHA256 = 1
K1_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
R1_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
R1_FIELD = 2**256 - 2**224 + 2**192 + 2**96 - 1
FORMS = ("compressed", "uncompressed", "hybrid")
#: A message that is long enough for a block of the hash, and for none.
MESSAGES = st.binary(max_size=130)
SECRETS = st.integers(1, K1_ORDER - 1)


def call(target: str, *arguments: object) -> object:
    (value,) = WORLD.call(target, *(bytearray(a) if isinstance(a, bytes) else a for a in arguments)).numbers()
    return bytes(value) if isinstance(value, bytearray) else value


def abort_code(target: str, *arguments: object) -> int | None:
    with pytest.raises(ExecutionFailure) as failed:
        call(target, *arguments)
    return failed.value.abort_code


def recover(signature: bytes, message: bytes) -> bytes | int | None:
    """The key, or the code of the abort."""
    try:
        return call("ecdsa_k1::secp256k1_ecrecover", signature, message, SHA256)  # type: ignore[return-value]
    except ExecutionFailure as failed:
        return failed.abort_code


def forms_of(secret: int, curve: ec.EllipticCurve) -> dict[str, bytes]:
    public = ec.derive_private_key(secret, curve).public_key()
    whole = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return {
        "compressed": public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint),
        "uncompressed": whole,
        "hybrid": bytes((6 + (whole[-1] & 1),)) + whole[1:],
    }


def sign(secret: int, curve: ec.EllipticCurve, order: int, message: bytes) -> bytes:
    """A signature as the chain takes it: r and the smaller s."""
    der = ec.derive_private_key(secret, curve).sign(message, ec.ECDSA(hashes.SHA256()))
    r, s = decode_dss_signature(der)
    return r.to_bytes(32, "big") + min(s, order - s).to_bytes(32, "big")


# ---------------------------------------------------------------------------------------------------- keys


@given(
    st.binary(min_size=64, max_size=64), st.integers(0, 8), st.sampled_from([0, 32, 33, 64, 65, 66]), SECRETS
)
@example(bytes(64), 0, 33, 1)
@example(b"\xff" * 64, 4, 65, 1)
def test_a_key_is_what_libsecp256k1_takes(rest: bytes, first: int, size: int, secret: int) -> None:
    """Random bytes are points half of the time where they are compressed; others are made of points."""
    point = forms_of(secret, ec.SECP256K1())["uncompressed"]
    for data in (bytes((first,)) + rest + b"\0", bytes((first,)) + point[1:] + b"\0"):
        data = data[:size]
        try:
            expected = coincurve.PublicKey(data).format(compressed=False)
        except ValueError:
            assert abort_code("ecdsa_k1::decompress_pubkey", data) == 2
        else:
            assert call("ecdsa_k1::decompress_pubkey", data) == expected


@given(SECRETS, st.sampled_from(FORMS))
def test_all_forms_of_a_key_are_one_point(secret: int, form: str) -> None:
    forms = forms_of(secret, ec.SECP256K1())
    assert call("ecdsa_k1::decompress_pubkey", forms[form]) == forms["uncompressed"]


@given(SECRETS)
def test_a_hybrid_key_whose_first_byte_is_of_the_other_point_is_none(secret: int) -> None:
    data = bytearray(forms_of(secret, ec.SECP256K1())["hybrid"])
    data[0] ^= 1
    assert abort_code("ecdsa_k1::decompress_pubkey", bytes(data)) == 2


# ---------------------------------------------------------------------------------------------- signatures


@given(SECRETS, MESSAGES, st.sampled_from(FORMS))
def test_a_signature_of_secp256k1_verifies_by_its_key_in_all_forms(
    secret: int, message: bytes, form: str
) -> None:
    key = forms_of(secret, ec.SECP256K1())[form]
    signature = sign(secret, ec.SECP256K1(), K1_ORDER, message)
    target = "ecdsa_k1::secp256k1_verify"
    assert call(target, signature, key, message, SHA256) is True
    assert call(target, signature, key, message + b"!", SHA256) is False
    assert call(target, signature + b"\0", key, message, SHA256) is False
    large = K1_ORDER - int.from_bytes(signature[32:], "big")
    assert call(target, signature[:32] + large.to_bytes(32, "big"), key, message, SHA256) is False


@given(st.integers(1, R1_ORDER - 1), MESSAGES)
def test_a_signature_of_secp256r1_verifies_by_its_key_in_the_forms_of_that_library(
    secret: int, message: bytes
) -> None:
    """Its library has no hybrid form, and a compact one, which is the point of the smaller y."""
    forms = forms_of(secret, ec.SECP256R1())
    signature = sign(secret, ec.SECP256R1(), R1_ORDER, message)
    target = "ecdsa_r1::secp256r1_verify"
    assert call(target, signature, forms["compressed"], message, SHA256) is True
    assert call(target, signature, forms["uncompressed"], message, SHA256) is True
    assert call(target, signature, forms["hybrid"], message, SHA256) is False
    y = int.from_bytes(forms["uncompressed"][33:], "big")
    compact = b"\5" + forms["compressed"][1:]
    assert call(target, signature, compact, message, SHA256) is (y < R1_FIELD - y)


def test_a_compact_key_that_is_off_the_curve_verifies_nothing() -> None:
    off = next(
        x
        for x in range(100)
        if pow(x**3 - 3 * x + 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
               (R1_FIELD - 1) // 2, R1_FIELD) == R1_FIELD - 1
    )  # fmt: skip
    one = (1).to_bytes(32, "big")
    assert (
        call("ecdsa_r1::secp256r1_verify", one + one, b"\5" + off.to_bytes(32, "big"), b"", SHA256) is False
    )


@given(SECRETS, MESSAGES)
def test_a_key_is_recovered_from_its_signature_and_every_other_one_verifies_it_too(
    secret: int, message: bytes
) -> None:
    key = forms_of(secret, ec.SECP256K1())["compressed"]
    signature = sign(secret, ec.SECP256K1(), K1_ORDER, message)
    recovered = [
        call("ecdsa_k1::secp256k1_ecrecover", signature + bytes((number,)), message, SHA256)
        for number in (0, 1)
    ]
    assert recovered.count(key) == 1
    for other in recovered:
        assert call("ecdsa_k1::secp256k1_verify", signature, other, message, SHA256) is True


@given(st.binary(min_size=64, max_size=64), st.integers(0, 3), MESSAGES)
def test_what_is_recovered_from_any_bytes_verifies(signature: bytes, number: int, message: bytes) -> None:
    """A signature with the larger s recovers to a key as well, though no key verifies it."""
    r, s = (int.from_bytes(part, "big") for part in (signature[:32], signature[32:]))
    found = recover(signature + bytes((number,)), message)
    if isinstance(found, int):
        assert found == (1 if max(r, s) >= K1_ORDER else 0)
        return
    assert isinstance(found, bytes)
    assert coincurve.PublicKey(found).format() == found
    low = signature[:32] + min(s, K1_ORDER - s).to_bytes(32, "big")
    assert call("ecdsa_k1::secp256k1_verify", low, found, message, SHA256) is True
    assert call("ecdsa_k1::secp256k1_verify", signature, found, message, SHA256) is (low == signature)
