"""Secret keys: the binding of the static key, and that secrets stay inside."""

import copy
import pickle
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from dtp.identity import STATIC_CONTEXT, Identity, IdentityError, bech32, keys, verify_static

secrets = st.binary(min_size=32, max_size=32)
IDENTITY = Identity(bytes(range(32)), bytes(range(32, 64)))
OTHER = Identity(bytes(range(1, 33)), bytes(range(33, 65)))


@given(secrets, secrets)
def test_agrees_with_openssl(seed, static):
    # `cryptography` computes with OpenSSL, `Identity` with libsodium.
    identity = Identity(seed, static)
    assert identity.id.key == Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    assert (
        identity.static_public == X25519PrivateKey.from_private_bytes(static).public_key().public_bytes_raw()
    )
    Ed25519PublicKey.from_public_bytes(identity.id.key).verify(
        identity.static_proof, b"dtp.static.v1" + identity.static_public
    )
    assert (identity.seed, identity.static_private) == (seed, static)


def test_generated_ones_differ():
    made = [Identity.generate() for _ in range(8)]
    assert len({identity.id for identity in made}) == len({identity.static_public for identity in made}) == 8
    assert all(identity.static_stored for identity in made)


def test_without_a_static_key_one_is_made():
    first, second = Identity(bytes(32)), Identity(bytes(32))
    assert first.id == second.id
    assert first.static_public != second.static_public
    assert not first.static_stored
    assert verify_static(first.id, first.static_public, first.static_proof)


@pytest.mark.parametrize(
    ("seed", "static"), [(bytes(31), bytes(32)), (bytes(32), bytes(33)), (bytes(64), None)]
)
def test_lengths_are_checked(seed, static):
    with pytest.raises(IdentityError, match="32 bytes"):
        Identity(seed, static)


def test_the_static_key_is_bound():
    assert verify_static(IDENTITY.id, IDENTITY.static_public, IDENTITY.static_proof)
    assert not verify_static(OTHER.id, IDENTITY.static_public, IDENTITY.static_proof)
    assert not verify_static(IDENTITY.id, OTHER.static_public, IDENTITY.static_proof)
    assert not verify_static(IDENTITY.id, IDENTITY.static_public, OTHER.static_proof)
    assert not verify_static(IDENTITY.id, IDENTITY.static_public, IDENTITY.sign(IDENTITY.static_public))
    assert not verify_static(IDENTITY.id, IDENTITY.static_public, b"")


def test_only_a_whole_static_key_is_bound():
    short = IDENTITY.static_public[:31]
    assert not verify_static(IDENTITY.id, short, IDENTITY.sign(STATIC_CONTEXT + short))


def test_only_good_proofs_are_remembered():
    keys._static_verified.cache_clear()
    for number in range(100):
        assert not verify_static(IDENTITY.id, number.to_bytes(32), IDENTITY.static_proof)
    assert keys._static_verified.cache_info().currsize == 0
    assert verify_static(IDENTITY.id, IDENTITY.static_public, IDENTITY.static_proof)
    assert verify_static(IDENTITY.id, IDENTITY.static_public, IDENTITY.static_proof)
    info = keys._static_verified.cache_info()
    assert (info.currsize, info.hits) == (1, 1)
    assert info.maxsize is not None
    # What is remembered answers for exactly this: not for another peer with the same proof.
    assert not verify_static(OTHER.id, IDENTITY.static_public, IDENTITY.static_proof)


def test_secrets_are_not_shown():
    shown = repr(IDENTITY) + str(IDENTITY) + f"{IDENTITY}" + repr([IDENTITY])
    assert str(IDENTITY.id) in shown
    for secret in (IDENTITY.seed, IDENTITY.static_private):
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown
    assert not hasattr(IDENTITY, "__dict__")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_is_not_pickled(protocol):
    with pytest.raises(IdentityError, match="save it to a file"):
        pickle.dumps(IDENTITY, protocol)
    with pytest.raises(IdentityError, match="save it to a file"):
        pickle.dumps({"mine": IDENTITY}, protocol)


def test_copies_are_the_same_object():
    assert copy.copy(IDENTITY) is IDENTITY
    assert copy.deepcopy([IDENTITY])[0] is IDENTITY


def test_does_not_change():
    with pytest.raises(AttributeError, match="does not change"):
        IDENTITY.id = OTHER.id
    with pytest.raises(AttributeError):
        IDENTITY.extra = 1


# SIP-15, "Test Cases".
SUI_KEYS = [
    (
        "suiprivkey1qzwant3kaegmjy4qxex93s0jzvemekkjmyv3r2sjwgnv2y479pgsywhveae",
        "9dd9ae36ee51b912a0364c58c1f21333bcdad2d91911aa127226c512be285102",
        "0x90f3e6d73b5730f16974f4df1d3441394ebae62186baf83608599f226455afa7",
    ),
    (
        "suiprivkey1qrh2sjl88rze74hwjndw3l26dqyz63tea5u9frtwcsqhmfk9vxdlx8cpv0g",
        "eea84be738c59f56ee94dae8fd5a68082d4579ed38548d6ec4017da6c5619bf3",
        "0xfd233cd9a5dd7e577f16fa523427c75fbc382af1583c39fdf1c6747d2ed807a3",
    ),
    (
        "suiprivkey1qzg73qyvfz0wpnyectkl08nrhe4pgnu0vqx8gydu96qx7uj4wyr8gcrjlh3",
        "91e8808c489ee0cc99c2edf79e63be6a144f8f600c7411bc2e806f7255710674",
        "0x81aaefa4a883e72e8b6ccd3bec307e25fe3d79b14e43b778695c55dcec42f4f0",
    ),
]


@pytest.mark.parametrize(("text", "seed", "address"), SUI_KEYS)
def test_sui_keys_are_taken(text, seed, address):
    identity = Identity.from_sui(f" {text}\n")
    assert identity.seed.hex() == seed
    assert identity.id.sui_address == address
    assert identity.static_stored


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (bech32.encode("suiprivkey", b"\1" + bytes(32), variant="bech32"), "of Secp256k1"),
        (bech32.encode("suiprivkey", b"\2" + bytes(32), variant="bech32"), "of Secp256r1"),
        (bech32.encode("suiprivkey", b"\7" + bytes(32), variant="bech32"), "of scheme 7"),
        (bech32.encode("suiprivkey", bytes(32), variant="bech32"), "hold 33 bytes"),
        (bech32.encode("nsec", bytes(33), variant="bech32"), "start with 'suiprivkey1'"),
        (SUI_KEYS[0][0][:-1] + "q", "checksum"),
        (SUI_KEYS[0][1], "not a Sui private key"),
    ],
)
def test_other_sui_keys_are_refused_without_being_quoted(text, reason):
    with pytest.raises(IdentityError, match=reason) as caught:
        Identity.from_sui(text)
    assert text[20:30] not in str(caught.value)


def test_importing_loads_no_cipher_library():
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, dtp.identity; print([m for m in ('nacl', 'cryptography') if m in sys.modules])",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert loaded.strip() == "[]"
