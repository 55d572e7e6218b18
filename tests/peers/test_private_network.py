"""Private networks: keys as bytes, text and passphrase; what they seal, and what is refused."""

from __future__ import annotations

import hashlib

import pytest

from dtp.peers.private import NetworkKeyError, NotOfNetwork, PrivateNetwork


def test_keys_are_as_documented() -> None:
    network = PrivateNetwork(bytes(range(32)))
    for purpose, key in (("handshake", network.psk), ("hello", network.hello_key), ("dht", network.dht_key)):
        told = hashlib.blake2b(
            purpose.encode(), digest_size=32, key=bytes(range(32)), person=b"dtp.network.v1"
        )
        assert key == told.digest()
    named = hashlib.blake2b(b"book", digest_size=32, key=bytes(range(32)), person=b"dtp.network.v1")
    assert network.book == f"peers-{named.hexdigest()[:16]}.book"


def test_text_leads_back() -> None:
    network = PrivateNetwork.generate()
    assert network.text.startswith("dtpnet1")
    assert PrivateNetwork.parse(network.text).psk == network.psk
    assert PrivateNetwork.parse(f" {network.text}\n").psk == network.psk
    assert PrivateNetwork.parse(network) is network


def test_passphrase_is_the_same_for_everybody() -> None:
    one, other = (PrivateNetwork.parse("correct horse battery") for _ in range(2))
    assert one.psk == other.psk
    assert PrivateNetwork.parse("correct horse batterz").psk != one.psk


@pytest.mark.parametrize("key", [bytes(31), bytes(33), "short", "dtpnet1qqqq", "dtpnet1" + "q" * 58])
def test_what_is_no_key_is_refused_and_not_quoted(key: bytes | str) -> None:
    with pytest.raises(NetworkKeyError) as caught:
        PrivateNetwork.parse(key)
    assert str(key) not in str(caught.value)


def test_only_the_key_opens() -> None:
    network, other = PrivateNetwork(bytes(32)), PrivateNetwork(bytes(range(32)))
    sealed = network.seal(b"hello", bytes(24), b"x")
    assert network.open(sealed, b"x") == b"hello"
    for opened_by, data, context in (
        (other, sealed, b"x"),
        (network, sealed, b"y"),
        (network, b"short", b"x"),
    ):
        with pytest.raises(NotOfNetwork):
            opened_by.open(data, context)


def test_nothing_shows_the_key() -> None:
    assert repr(PrivateNetwork(bytes(range(32)))) == "<PrivateNetwork>"
