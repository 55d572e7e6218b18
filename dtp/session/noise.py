"""Noise handshakes: the one file that touches the package `noiseprotocol`.

Source: The Noise Protocol Framework, revision 34. `noiseprotocol` 0.3.1 computes; this file chooses the names,
gives it the ephemeral key (so that the session itself draws no randomness), translates its foreign exceptions,
and takes the keys out at the split. A failed read leaves its object half advanced, so it is dropped there.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from enum import IntEnum
from typing import Any
from weakref import proxy

from cryptography.exceptions import InvalidTag
from noise.backends.default import noise_backend
from noise.backends.default.keypairs import KeyPair25519
from noise.exceptions import NoiseHandshakeError, NoiseInvalidMessage, NoisePSKError, NoiseValueError
from noise.noise_protocol import NoiseProtocol

from dtp.errors import LocalError
from dtp.session.codes import HandshakeError

KEY = 32
#: A Noise message, handshake or transport, is at most this long.
MAX_MESSAGE = 65_535

_FOREIGN = (
    InvalidTag,
    NoiseHandshakeError,
    NoiseInvalidMessage,
    NoisePSKError,
    NoiseValueError,
    ValueError,
    TypeError,
    IndexError,
)


class HandshakePattern(IntEnum):
    """The handshake pattern byte of the hello (docs/wire.md)."""

    XX = 1
    IK = 2
    XXpsk0 = 3
    IKpsk0 = 4

    @property
    def messages(self) -> int:
        """How many handshake messages the pattern has: 3 or 2."""
        return 3 if self in (HandshakePattern.XX, HandshakePattern.XXpsk0) else 2

    @property
    def psk(self) -> bool:
        """True where both sides must hold the same 32-byte pre-shared key."""
        return self in (HandshakePattern.XXpsk0, HandshakePattern.IKpsk0)


class Suite(IntEnum):
    """The suite byte of the hello: DH, cipher and hash, as the specification names them."""

    AESGCM_SHA256 = 1
    CHACHAPOLY_SHA256 = 2
    AESGCM_BLAKE2S = 3
    CHACHAPOLY_BLAKE2S = 4

    @property
    def cipher(self) -> str:
        """`AESGCM` or `ChaChaPoly`."""
        return "AESGCM" if self in (Suite.AESGCM_SHA256, Suite.AESGCM_BLAKE2S) else "ChaChaPoly"

    @property
    def hash(self) -> str:
        """`SHA256` or `BLAKE2s`."""
        return "SHA256" if self in (Suite.AESGCM_SHA256, Suite.CHACHAPOLY_SHA256) else "BLAKE2s"

    @property
    def hash_name(self) -> str:
        """The name that `hashlib` and `hmac` use."""
        return self.hash.lower()


def protocol_name(pattern: HandshakePattern, suite: Suite) -> str:
    """Return the full Noise protocol name, such as `Noise_IK_25519_AESGCM_SHA256`."""
    return f"Noise_{pattern.name}_25519_{suite.cipher}_{suite.hash}"


class StaticKey:
    """An X25519 key pair for handshakes, kept parsed because parsing costs a tenth of a handshake.

    `private` is 32 bytes. `.public` is the 32-byte public key.
    """

    __slots__ = ("pair", "public")

    def __init__(self, private: bytes) -> None:
        if len(private) != KEY:
            raise LocalError(f"an X25519 private key has {KEY} bytes, not {len(private)}")
        self.pair = KeyPair25519.from_private_bytes(private)
        self.public: bytes = self.pair.public_bytes

    def __repr__(self) -> str:
        return f"StaticKey(public={self.public.hex()})"


@dataclass(frozen=True, slots=True)
class Split:
    """What a finished handshake leaves: one key per direction and what may be derived from the rest.

    All are 32 bytes. `hash` identifies this handshake and is public; `secret` is known to the two ends only and
    independent of the transport keys (HMAC under the chaining key with a label of its own).
    """

    send: bytes
    receive: bytes
    hash: bytes
    secret: bytes
    remote_static: bytes
    #: As `secret`, for the exchanges of this link (`dtp.session.exchange`).
    root: bytes

    def __repr__(self) -> str:
        return f"Split(hash={self.hash.hex()})"


class NoiseHandshake:
    """One handshake, message by message. Any failure ends it for good with `HandshakeError`.

    `ephemeral` is a fresh X25519 private key (32 random bytes) for this handshake alone.
    """

    def __init__(
        self,
        pattern: HandshakePattern,
        suite: Suite,
        *,
        initiator: bool,
        prologue: bytes,
        static: StaticKey,
        ephemeral: bytes,
        remote_static: bytes | None = None,
        psk: bytes | None = None,
    ) -> None:
        if pattern.psk != (psk is not None):
            raise LocalError(
                f"pattern {pattern.name} {'needs a' if pattern.psk else 'takes no'} pre-shared key"
            )
        if psk is not None and len(psk) != KEY:
            raise LocalError(f"a pre-shared key has {KEY} bytes, not {len(psk)}")
        self._suite = suite
        self._split: Split | None = None
        self._remote_static = remote_static
        protocol = NoiseProtocol(protocol_name(pattern, suite).encode(), noise_backend)
        protocol.initiator, protocol.prologue = initiator, prologue
        protocol.keypairs["s"] = static.pair
        protocol.psks = None if psk is None else [psk]
        try:
            if remote_static is not None:
                protocol.keypairs["rs"] = KeyPair25519.from_public_bytes(remote_static)
            protocol.validate()
            protocol.initialise_handshake_state()
            # Set here and not before: its own way warns that ephemeral keys are for tests.
            protocol.handshake_state.e = KeyPair25519.from_private_bytes(ephemeral)
        except _FOREIGN as error:
            raise HandshakeError(f"handshake can't start: {error}") from None
        # The library drops both at the split; we need the remote key and the chaining key afterwards.
        self._state, self._symmetric = protocol.handshake_state, protocol.symmetric_state
        # Both refer back to what has them: only a collection would free a handshake.
        self._state.noise_protocol = self._symmetric.noise_protocol = proxy(protocol)
        self._protocol: Any = protocol
        self._writes = initiator

    @property
    def ephemeral_public(self) -> bytes:
        """Our ephemeral public key, 32 bytes."""
        return bytes(self._state.e.public_bytes)

    @property
    def remote_ephemeral(self) -> bytes:
        """The peer's ephemeral public key, 32 bytes; to be asked for only after its first message was read."""
        return bytes(self._state.re.public_bytes)

    @property
    def remote_static(self) -> bytes | None:
        """The peer's static public key, once known (32 bytes)."""
        if self._remote_static is None:
            self._remote_static = getattr(self._state.rs, "public_bytes", None)
        return self._remote_static

    @property
    def split(self) -> Split | None:
        """The result, once the last message was written or read."""
        return self._split

    def write_message(self, payload: bytes) -> bytes:
        """Return the next handshake message, carrying `payload`."""
        message = bytes(self._run_step(payload, write=True))
        if len(message) > MAX_MESSAGE:
            raise LocalError(
                f"handshake message of {len(message)} bytes is above {MAX_MESSAGE}: shorten the ticket"
            )
        return message

    def read_message(self, message: bytes) -> bytes:
        """Return the payload of the peer's next handshake message."""
        return bytes(self._run_step(message, write=False))

    def _run_step(self, data: bytes, *, write: bool) -> bytearray:
        protocol, self._protocol = self._protocol, None
        if protocol is None:
            raise HandshakeError("handshake is over")
        if write != self._writes:
            raise HandshakeError("handshake message out of turn")
        self._writes = not write
        result = bytearray()
        try:
            split = (self._state.write_message if write else self._state.read_message)(data, result)
        except _FOREIGN as error:
            raise HandshakeError(f"handshake message refused ({type(error).__name__})") from None
        if split:
            self._finish_handshake(protocol)
        else:
            self._protocol = protocol
        return result

    def _finish_handshake(self, protocol: Any) -> None:
        remote = self.remote_static
        assert remote is not None  # all our patterns transmit or presuppose both static keys
        self._split = Split(
            send=protocol.cipher_state_encrypt.k,
            receive=protocol.cipher_state_decrypt.k,
            hash=protocol.handshake_hash,
            secret=hmac.digest(self._symmetric.ck, b"dtp.resume.v1", self._suite.hash_name),
            remote_static=remote,
            root=hmac.digest(self._symmetric.ck, b"dtp.exchange.v1", self._suite.hash_name),
        )
