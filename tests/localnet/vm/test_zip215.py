"""Ed25519 as the chain checks it (ZIP-215), against facts published with the rule and the arithmetic of libsodium."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_core_ed25519_add, crypto_scalarmult_ed25519_base_noclamp
from nacl.signing import SigningKey

from dtp.localnet.vm.natives.zip215 import ed25519_verifies

ORDER = 2**252 + 27742317777372353535851937790883648493
EIGHTH = ("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc",
          "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03")  # fmt: skip
#: All encodings that decode to one of the eight points of small order: fourteen, six of them not the point's own.
SMALL_ORDER = (
    [bytes([first]) + bytes(30) + bytes([last]) for first in (0, 1) for last in (0x00, 0x80)]
    + [bytes([first]) + b"\xff" * 30 + bytes([last]) for first in (0xEC, 0xED, 0xEE) for last in (0x7F, 0xFF)]
    + [bytes.fromhex(EIGHTH[0]) + bytes([last]) for last in (0x05, 0x85)]
    + [bytes.fromhex(EIGHTH[1]) + bytes([last]) for last in (0x7A, 0xFA)]
)
KEY = SigningKey(bytes(range(32)))


def test_all_196_pairs_of_small_order_verify_for_any_message():
    """The vectors of ZIP-215: S is 0, and every pair of key and commitment is valid, over whatever message."""
    assert len(set(SMALL_ORDER)) == 14
    for message in (b"Zcash", b""):
        for key in SMALL_ORDER:
            for commitment in SMALL_ORDER:
                assert ed25519_verifies(commitment + bytes(32), key, message)


@pytest.mark.parametrize("key", SMALL_ORDER, ids=bytes.hex)
def test_a_key_of_small_order_signs_nothing_under_another_scalar(key):
    assert not ed25519_verifies(SMALL_ORDER[0] + (1).to_bytes(32, "little"), key, b"Zcash")


@given(st.binary(max_size=200))
def test_what_a_key_signs_verifies_and_nothing_else(message):
    public, signature = bytes(KEY.verify_key), KEY.sign(message).signature
    assert ed25519_verifies(signature, public, message)
    assert not ed25519_verifies(signature, public, message + b"!")
    assert not ed25519_verifies(signature, bytes(SigningKey(b"2" * 32).verify_key), message)
    for place in (0, 31, 32, 63):
        changed = bytearray(signature)
        changed[place] ^= 1
        assert not ed25519_verifies(bytes(changed), public, message)


@given(
    st.sampled_from(SMALL_ORDER),
    st.sampled_from(SMALL_ORDER),
    st.integers(1, ORDER - 1),
    st.integers(1, ORDER - 1),
)
def test_a_part_of_small_order_in_key_or_commitment_changes_nothing(torsion, other, secret, nonce):
    """The equation is multiplied by the cofactor: without that both sides would differ by such a part."""

    def point(scalar, part):
        return crypto_core_ed25519_add(
            crypto_scalarmult_ed25519_base_noclamp(scalar.to_bytes(32, "little")), part
        )

    key, commitment = point(secret, torsion), point(nonce, other)
    challenge = int.from_bytes(hashlib.sha512(commitment + key + b"m").digest(), "little")
    scalar = (nonce + challenge * secret) % ORDER
    assert ed25519_verifies(commitment + scalar.to_bytes(32, "little"), key, b"m")
    assert not ed25519_verifies(commitment + ((scalar + 1) % ORDER).to_bytes(32, "little"), key, b"m")


def test_a_scalar_that_is_not_reduced_is_refused():
    public, signature = bytes(KEY.verify_key), KEY.sign(b"m").signature
    above = int.from_bytes(signature[32:], "little") + ORDER
    assert not ed25519_verifies(signature[:32] + above.to_bytes(32, "little"), public, b"m")
    assert not ed25519_verifies(SMALL_ORDER[0] + ORDER.to_bytes(32, "little"), SMALL_ORDER[0], b"m")


def test_what_is_no_point_is_refused():
    nowhere = b"\2" + bytes(31)  # no x belongs to this y
    assert not ed25519_verifies(nowhere + bytes(32), SMALL_ORDER[0], b"m")
    assert not ed25519_verifies(SMALL_ORDER[0] + bytes(32), nowhere, b"m")


@pytest.mark.parametrize("sizes", [(63, 32), (65, 32), (64, 31), (64, 33), (0, 0)])
def test_other_lengths_are_refused(sizes):
    assert not ed25519_verifies(bytes(sizes[0]), bytes(sizes[1]), b"m")
