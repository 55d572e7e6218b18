"""Noise (revision 34): the handshakes XX, IK, XXpsk0 and IKpsk0 over 25519, in the specification's own words."""

import hashlib
import hmac
import struct
from collections.abc import Callable
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

EMPTY_KEY = None
REKEY_NONCE = 2**64 - 1

# Pre-messages of the responder ("<- s") and the tokens of every message; the initiator writes the first.
PATTERNS: dict[str, tuple[bool, list[str]]] = {
    "XX": (False, ["e", "e ee s es", "s se"]),
    "IK": (True, ["e es s ss", "e ee se"]),
    "XXpsk0": (False, ["psk e", "e ee s es", "s se"]),
    "IKpsk0": (True, ["psk e es s ss", "e ee se"]),
}
SUITES = (
    "25519_AESGCM_SHA256",
    "25519_ChaChaPoly_SHA256",
    "25519_AESGCM_BLAKE2s",
    "25519_ChaChaPoly_BLAKE2s",
)


class NoiseFault(Exception):
    """A handshake message or a transport message that can't be read."""


def public(private: bytes) -> bytes:
    """The X25519 public key (32 bytes) of a private one."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def dh(private: bytes, other: bytes) -> bytes:
    """DH(): 32 bytes; a point that makes the secret zero is refused."""
    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(other))
    except ValueError as error:
        raise NoiseFault("the peer's key gives an all-zero secret") from error


def hash_of(suite: str) -> Callable[..., Any]:
    """The hash function that the suite names."""
    return hashlib.sha256 if suite.endswith("SHA256") else hashlib.blake2s


def mac(suite: str, key: bytes, data: bytes) -> bytes:
    """HMAC-HASH() with the suite's hash, 32 bytes."""
    return hmac.new(key, data, hash_of(suite)).digest()


def aead(suite: str, key: bytes) -> AESGCM | ChaCha20Poly1305:
    return AESGCM(key) if "AESGCM" in suite else ChaCha20Poly1305(key)


def nonce_bytes(suite: str, n: int) -> bytes:
    """The 96-bit nonce: 32 zero bits, then n, big-endian for AESGCM and little-endian for ChaChaPoly."""
    return bytes(4) + struct.pack(">Q" if "AESGCM" in suite else "<Q", n)


def encrypt(suite: str, key: bytes, n: int, ad: bytes, plaintext: bytes) -> bytes:
    """ENCRYPT(k, n, ad, plaintext)."""
    return aead(suite, key).encrypt(nonce_bytes(suite, n), plaintext, ad)


def decrypt(suite: str, key: bytes, n: int, ad: bytes, ciphertext: bytes) -> bytes:
    """DECRYPT(k, n, ad, ciphertext); raises NoiseFault."""
    if len(ciphertext) < 16:
        raise NoiseFault("shorter than a tag")
    try:
        return aead(suite, key).decrypt(nonce_bytes(suite, n), ciphertext, ad)
    except InvalidTag as error:
        raise NoiseFault("the tag does not fit") from error


def rekey(suite: str, key: bytes) -> bytes:
    """REKEY(k)."""
    return encrypt(suite, key, REKEY_NONCE, b"", bytes(32))[:32]


class Noise:
    """HandshakeState with its SymmetricState and CipherState; the ephemeral key is an argument.

    After the last message `keys` has the pair of Split(): initiator to responder, responder to initiator.
    """

    def __init__(
        self,
        pattern: str,
        suite: str,
        initiator: bool,
        prologue: bytes,
        *,
        s: bytes,
        e: bytes,
        rs: bytes | None = None,
        psk: bytes | None = None,
    ) -> None:
        name = f"Noise_{pattern}_{suite}".encode()
        self.suite, self.initiator = suite, initiator
        self.h = name.ljust(32, b"\0") if len(name) <= 32 else hash_of(suite)(name).digest()
        self.ck = self.h
        self.k: bytes | None = EMPTY_KEY
        self.n = 0
        self.s, self.e, self.rs, self.psk = s, e, rs, psk
        self.re: bytes | None = None
        self.with_psk = "psk" in pattern
        if self.with_psk != (psk is not None):
            raise ValueError("a psk belongs to the psk patterns and to no others")
        self.keys: tuple[bytes, bytes] | None = None
        pre_message, messages = PATTERNS[pattern]
        self.todo = [tokens.split() for tokens in messages]
        self.turn = initiator
        self.mix_hash(prologue)
        if pre_message:
            responder_static = rs if initiator else public(s)
            if responder_static is None:
                raise ValueError("IK needs the responder's static key")
            self.mix_hash(responder_static)

    # SymmetricState

    def mix_hash(self, data: bytes) -> None:
        self.h = hash_of(self.suite)(self.h + data).digest()

    def hkdf(self, material: bytes, count: int) -> list[bytes]:
        temp = mac(self.suite, self.ck, material)
        outputs, last = [], b""
        for i in range(1, count + 1):
            last = mac(self.suite, temp, last + bytes([i]))
            outputs.append(last)
        return outputs

    def mix_key(self, material: bytes) -> None:
        self.ck, self.k = self.hkdf(material, 2)
        self.n = 0

    def mix_key_and_hash(self, material: bytes) -> None:
        self.ck, temp_h, self.k = self.hkdf(material, 3)
        self.n = 0
        self.mix_hash(temp_h)

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        out = plaintext
        if self.k is not None:
            out = encrypt(self.suite, self.k, self.n, self.h, plaintext)
            self.n += 1
        self.mix_hash(out)
        return out

    def decrypt_and_hash(self, data: bytes) -> bytes:
        out = data
        if self.k is not None:
            out = decrypt(self.suite, self.k, self.n, self.h, data)
            self.n += 1
        self.mix_hash(data)
        return out

    # HandshakeState

    def mix_dh(self, token: str) -> None:
        """ee, es, se, ss: the first letter is the initiator's key, the second the responder's."""
        mine, theirs = tuple(token) if self.initiator else tuple(token[::-1])
        remote = self.re if theirs == "e" else self.rs
        assert remote is not None
        self.mix_key(dh(self.e if mine == "e" else self.s, remote))

    def write_message(self, payload: bytes) -> bytes:
        """WriteMessage(payload)."""
        assert self.turn
        assert self.todo
        out = b""
        for token in self.todo.pop(0):
            if token == "e":
                out += public(self.e)
                self.mix_hash(public(self.e))
                if self.with_psk:
                    self.mix_key(public(self.e))
            elif token == "s":
                out += self.encrypt_and_hash(public(self.s))
            elif token == "psk":
                assert self.psk is not None
                self.mix_key_and_hash(self.psk)
            else:
                self.mix_dh(token)
        out += self.encrypt_and_hash(payload)
        if len(out) > 65535:
            raise NoiseFault("a Noise message has at most 65535 bytes")
        self.finish()
        return out

    def read_message(self, message: bytes) -> bytes:
        """ReadMessage(message): the payload. After a NoiseFault the object is of no more use."""
        assert not self.turn
        assert self.todo
        rest = message

        def take(count: int) -> bytes:
            nonlocal rest
            if len(rest) < count:
                raise NoiseFault("the message is too short")
            taken, rest = rest[:count], rest[count:]
            return taken

        for token in self.todo.pop(0):
            if token == "e":
                self.re = take(32)
                self.mix_hash(self.re)
                if self.with_psk:
                    self.mix_key(self.re)
            elif token == "s":
                self.rs = self.decrypt_and_hash(take(32 + 16 if self.k is not None else 32))
            elif token == "psk":
                assert self.psk is not None
                self.mix_key_and_hash(self.psk)
            else:
                self.mix_dh(token)
        payload = self.decrypt_and_hash(rest)
        self.finish()
        return payload

    def finish(self) -> None:
        self.turn = not self.turn
        if not self.todo:
            one, two = self.hkdf(b"", 2)
            self.keys = (one, two)
