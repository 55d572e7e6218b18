"""Private networks: the keys that are derived from a network's key. Without it nobody can see, join or read the
network.

Source: docs/peers.md, "Private networks".
"""

from __future__ import annotations

import hashlib
import os
from typing import ClassVar, Final

from dtp.errors import ConfigError, LocalError, PeerError
from dtp.identity import bech32
from dtp.identity.private import read_private_file
from dtp.unicode import encode_text

KEY_SIZE: Final = 32
NONCE_SIZE: Final = 24
TAG_SIZE: Final = 16
#: The beginning of a key's text form, so that it isn't taken for anything else.
HRP: Final = "dtpnet"
#: The shortest passphrase. A shorter one could be guessed within hours from a recorded hello.
MIN_PASSPHRASE: Final = 12
#: The largest file with a key, in bytes: a passphrase is shorter.
_MAX_KEY_FILE: Final = 1024
_SALT: Final = b"dtp.network.v1"


class NetworkKeyError(LocalError, ValueError):
    """A text can't be the key of a private network. The message says why, and doesn't quote it."""

    code: ClassVar[str] = "network-key"


class NotOfNetwork(PeerError):
    """A datagram isn't sealed with the network's key, or was changed."""

    code: ClassVar[str] = "not-of-network"


class PrivateNetwork:
    """The keys of a network that only holders of its key can see, join and read. `repr` shows none of them."""

    __slots__ = ("_key", "book", "dht_key", "hello_key", "psk")

    def __init__(self, key: bytes) -> None:
        """Derive the keys from the network's key, 32 bytes. Raise `NetworkKeyError` for another length."""
        if len(key) != KEY_SIZE:
            raise NetworkKeyError(f"a network's key has {KEY_SIZE} bytes, not {len(key)}")
        self._key = bytes(key)
        #: The pre-shared key of handshakes.
        self.psk = _derive(key, b"handshake")
        #: The key that seals hellos on the LAN.
        self.hello_key = _derive(key, b"hello")
        #: The key that seals the datagrams of a DHT.
        self.dht_key = _derive(key, b"dht")
        #: The name of the file in which a node keeps the peers of this network, apart from those of other networks.
        self.book = f"peers-{_derive(key, b'book')[:8].hex()}.book"

    @classmethod
    def generate(cls) -> PrivateNetwork:
        """Return a new network, with a random key."""
        return cls(os.urandom(KEY_SIZE))

    @classmethod
    def parse(cls, key: bytes | str | PrivateNetwork) -> PrivateNetwork:
        """Return the network of a key: 32 bytes, its text ("dtpnet1..."), or a passphrase.

        A passphrase takes about 0.1 s and 64 MiB (Argon2id), as does each guess. Raise `NetworkKeyError`.
        """
        if isinstance(key, PrivateNetwork):
            return key
        if isinstance(key, bytes):
            return cls(key)
        text = key.strip()
        if text.lower().startswith(HRP + "1"):
            try:
                hrp, data = bech32.decode(text)
            except bech32.Bech32Error as fault:
                raise NetworkKeyError(f"this isn't a network's key: {fault}") from None
            if hrp != HRP:
                raise NetworkKeyError("this isn't a network's key, but a key of another kind")
            return cls(data)
        if len(text) < MIN_PASSPHRASE:
            raise NetworkKeyError(
                f"a network's passphrase has at least {MIN_PASSPHRASE} characters; "
                "'dtp node --new-network' makes a key"
            )
        from nacl.pwhash import argon2id

        salt = hashlib.blake2b(_SALT, digest_size=argon2id.SALTBYTES).digest()
        limits = (argon2id.OPSLIMIT_INTERACTIVE, argon2id.MEMLIMIT_INTERACTIVE)
        return cls(
            argon2id.kdf(KEY_SIZE, encode_text(text, "the passphrase", NetworkKeyError), salt, *limits)
        )

    @property
    def text(self) -> str:
        """The key as text, for those who are to join. Secret."""
        return bech32.encode(HRP, self._key)

    def seal(self, data: bytes, nonce: bytes, context: bytes) -> bytes:
        """Return `data` sealed with the hello key (XChaCha20-Poly1305), after its nonce (24 random bytes)."""
        from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt as encrypt

        sealed: bytes = encrypt(data, context, nonce, self.hello_key)
        return nonce + sealed

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Return the data that was sealed. Raise `NotOfNetwork`."""
        from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt as decrypt
        from nacl.exceptions import CryptoError

        if len(sealed) < NONCE_SIZE + TAG_SIZE:
            raise NotOfNetwork("this is too short to be sealed")
        try:
            opened: bytes = decrypt(sealed[NONCE_SIZE:], context, sealed[:NONCE_SIZE], self.hello_key)
        except CryptoError:
            raise NotOfNetwork("this isn't sealed with the network's key") from None
        return opened

    def __repr__(self) -> str:
        return "<PrivateNetwork>"


def read_key_file(path: str | os.PathLike[str]) -> str:
    """Return the key of a network or a topic from a file. No message quotes it.

    Raise `ConfigError` or `OpenToOthers`.
    """
    try:
        return read_private_file(path, _MAX_KEY_FILE).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"can't read the key in {os.fspath(path)}: {error}") from error


def _derive(key: bytes, purpose: bytes) -> bytes:
    return hashlib.blake2b(purpose, digest_size=KEY_SIZE, key=key, person=_SALT).digest()
