"""Names of peers: text, Sui address, order, and the keys that are refused."""

import hashlib
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.errors import LocalError
from dtp.identity import Identity, PeerId, PeerIdError, bech32

# RFC 8032, 7.1: seed, public key, message, signature.
RFC8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]
ORDER = 2**252 + 27742317777372353535851937790883648493
FIELD = 2**255 - 19

seeds = st.binary(min_size=32, max_size=32)


def peer_of(seed):
    return Identity(seed, bytes(32)).id


KNOWN = PeerId(bytes.fromhex(RFC8032[0][1]))


@given(seeds)
def test_text_and_back(seed):
    peer = peer_of(seed)
    text = str(peer)
    assert len(text) == 62
    assert text.startswith("dtp1")
    assert PeerId.parse(text) == PeerId.parse(text.upper()) == peer
    assert text.startswith(peer.short)
    assert repr(peer) == f"PeerId({text})"


@given(seeds, seeds)
def test_is_a_value(one, other):
    a, b = peer_of(one), peer_of(other)
    assert (a == b) == (a.key == b.key)
    assert (a < b) == (a.key < b.key)
    assert len({a, PeerId(a.key), b}) == len({a.key, b.key})
    assert pickle.loads(pickle.dumps(a)) == a


def test_does_not_change():
    with pytest.raises(AttributeError):
        setattr(KNOWN, "key", bytes(32))  # noqa: B010
    assert not hasattr(KNOWN, "__dict__")


@pytest.mark.parametrize(("seed", "key", "message", "signature"), RFC8032)
def test_rfc8032_vectors(seed, key, message, signature):
    identity = Identity(bytes.fromhex(seed))
    assert identity.id.key.hex() == key
    assert identity.sign(bytes.fromhex(message)).hex() == signature
    peer = PeerId(bytes.fromhex(key))
    assert peer.verify(bytes.fromhex(signature), bytes.fromhex(message))
    assert not peer.verify(bytes.fromhex(signature), bytes.fromhex(message) + b"\0")


@given(seeds, st.binary(max_size=64), st.integers(0, 511))
def test_a_changed_bit_is_noticed(seed, message, bit):
    identity = Identity(seed, bytes(32))
    signature = bytearray(identity.sign(message))
    assert identity.id.verify(bytes(signature), message)
    signature[bit // 8] ^= 1 << bit % 8
    assert not identity.id.verify(bytes(signature), message)


def test_only_the_canonical_signature_is_valid():
    identity = Identity(bytes(32), bytes(32))
    signature = identity.sign(b"once")
    scalar = int.from_bytes(signature[32:], "little") + ORDER
    assert not identity.id.verify(signature[:32] + scalar.to_bytes(32, "little"), b"once")


@pytest.mark.parametrize("length", [0, 63, 65])
def test_a_signature_of_another_length_is_false(length):
    assert KNOWN.verify(bytes(length), b"") is False


# Points of order 1, 2, 4 and 8 (Ed25519's torsion), then encodings of the field's prime and above.
SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
]
NOT_CANONICAL = [(FIELD + y).to_bytes(32, "little").hex() for y in range(19)]


@pytest.mark.parametrize("key", SMALL_ORDER + NOT_CANONICAL)
def test_weak_keys_are_refused(key):
    with pytest.raises(PeerIdError, match="not a usable"):
        PeerId(bytes.fromhex(key))
    with pytest.raises(PeerIdError, match="not a usable"):
        PeerId.parse(bech32.encode("dtp", bytes.fromhex(key)))


def test_a_key_with_a_torsion_part_is_refused():
    from nacl.bindings import crypto_core_ed25519_add

    mixed = crypto_core_ed25519_add(KNOWN.key, bytes.fromhex(SMALL_ORDER[1]))
    with pytest.raises(PeerIdError, match="not a usable"):
        PeerId(mixed)


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33), "x" * 32, bytearray(32), None])
def test_other_values_are_no_key(key):
    with pytest.raises(PeerIdError, match="length 32"):
        PeerId(key)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "start with 'dtp1'"),
        ("echo", "start with 'dtp1'"),
        ("0x" + "ab" * 32, "Sui address or object id"),
        ("bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0", "start with 'dtp1'"),
        (str(KNOWN)[:-1], "61 characters, too few"),
        (str(KNOWN) + "q", "63 characters, too many"),
        (str(KNOWN).replace("d", "D", 1), "mixed"),
        (str(KNOWN)[:30] + "b" + str(KNOWN)[31:], r"character 31 .*\('b'\)"),
        (bech32.encode("dtp", KNOWN.key, variant="bech32"), "that of Bech32, not of Bech32m"),
        (7, "a str, not int"),
        (KNOWN.key, "a str, not bytes of length 32"),
    ],
)
def test_refusals_say_what_is_wrong(text, reason):
    with pytest.raises(PeerIdError, match=reason) as caught:
        PeerId.parse(text)
    assert isinstance(caught.value, LocalError)
    assert caught.value.code == "peer-id"


def test_a_wrong_character_is_pointed_at():
    text = str(KNOWN)
    wrong = text[:40] + ("q" if text[40] != "q" else "p") + text[41:]
    with pytest.raises(PeerIdError, match=rf"look at character 41 \('{wrong[40]}'\)"):
        PeerId.parse(wrong)


def test_another_prefix_of_the_same_length_is_refused():
    # "dtp1" is in front, but the last '1' makes "dtp1dtp" the prefix.
    text = bech32.encode("dtp1dtp", bytes(30))
    assert len(text) == 62
    with pytest.raises(PeerIdError, match=r"30 bytes under the prefix 'dtp1dtp'"):
        PeerId.parse(text)


# SIP-15, "Test Cases": private key, address.
SUI = [
    (
        "9dd9ae36ee51b912a0364c58c1f21333bcdad2d91911aa127226c512be285102",
        "0x90f3e6d73b5730f16974f4df1d3441394ebae62186baf83608599f226455afa7",
    ),
    (
        "eea84be738c59f56ee94dae8fd5a68082d4579ed38548d6ec4017da6c5619bf3",
        "0xfd233cd9a5dd7e577f16fa523427c75fbc382af1583c39fdf1c6747d2ed807a3",
    ),
    (
        "91e8808c489ee0cc99c2edf79e63be6a144f8f600c7411bc2e806f7255710674",
        "0x81aaefa4a883e72e8b6ccd3bec307e25fe3d79b14e43b778695c55dcec42f4f0",
    ),
]


@pytest.mark.parametrize(("seed", "address"), SUI)
def test_sui_address_vectors(seed, address):
    assert peer_of(bytes.fromhex(seed)).sui_address == address


def test_sui_address_is_the_hash_it_says():
    expected = hashlib.blake2b(b"\x00" + KNOWN.key, digest_size=32).hexdigest()
    assert KNOWN.sui_address == "0x" + expected
