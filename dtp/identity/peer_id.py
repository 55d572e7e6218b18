"""The name of a peer: its Ed25519 public key, as `dtp1...` text and as a Sui address."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

from dtp.errors import LocalError
from dtp.identity import bech32

HRP = "dtp"
KEY_SIZE = 32
#: "dtp1", 52 characters for 32 bytes, 6 of checksum.
TEXT_LENGTH = 62
#: Sui's signature scheme flag of Ed25519 (docs.sui.io, "Signatures").
_SUI_ED25519_FLAG = b"\x00"
#: Keys found valid and names spelled are remembered: a check costs 50 us, a spelling 40 us.
_REMEMBERED = 4096


class PeerIdError(LocalError, ValueError):
    """This is not the name of a peer; the message says what is wrong with it."""

    code = "peer-id"


@dataclass(frozen=True, slots=True, order=True, repr=False)
class PeerId:
    """Who a peer is: its Ed25519 public key. Hashable, ordered by the key's bytes, safe to pickle.

    A `PeerId` that exists is usable: `PeerIdError` for a key that is not 32 bytes, not canonical, not on the
    curve or not in the prime-order group. With those, one signature could be valid for several names.
    """

    #: The Ed25519 public key, 32 bytes (RFC 8032, 5.1.5).
    key: bytes

    def __post_init__(self) -> None:
        if not isinstance(self.key, bytes) or len(self.key) != KEY_SIZE:
            raise PeerIdError(f"a peer's key is bytes of length {KEY_SIZE}, not {_describe(self.key)}")
        _check_point(self.key)

    @classmethod
    def parse(cls, text: str) -> PeerId:
        """Return the peer that `text` ("dtp1..." of 62 characters, in one case) names.

        Raises `PeerIdError` that says what is wrong: the prefix, the length, mixed case, a character that
        can't be, the checksum (with the place, where one wrong character explains it) or the key itself.
        """
        if not isinstance(text, str):
            raise PeerIdError(f"a peer's name is a str, not {_describe(text)}")
        _check_shape(text)
        try:
            hrp, key = bech32.decode(text)
        except bech32.Bech32Error as error:
            found = f" ({text[error.place - 1]!r})" if error.place else ""
            raise PeerIdError(f"{text!r} is not a peer's name: {error}{found}") from None
        if hrp != HRP or len(key) != KEY_SIZE:
            raise PeerIdError(
                f"{text!r} holds {len(key)} bytes under the prefix {hrp!r}; need {KEY_SIZE} under 'dtp'"
            )
        return cls(key)

    @property
    def sui_address(self) -> str:
        """The Sui account of the same key: "0x" and 64 hex digits of blake2b-256(0x00 || key)."""
        return "0x" + hashlib.blake2b(_SUI_ED25519_FLAG + self.key, digest_size=32).hexdigest()

    @property
    def short(self) -> str:
        """The first 12 characters of the name: for logs and people, never for decisions (40 bits)."""
        return _spell(self.key)[:12]

    def verify(self, signature: bytes, message: bytes) -> bool:
        """True if `signature` (64 bytes) is this peer's over `message`. False too for a wrong length.

        Strict: refuses a signature that is not the canonical one (S of at least L; small-order R).
        """
        import nacl.exceptions
        from nacl.bindings import crypto_sign_open

        if len(signature) != 64:
            return False
        try:
            crypto_sign_open(signature + message, self.key)
        except nacl.exceptions.BadSignatureError:
            return False
        return True

    def __str__(self) -> str:
        return _spell(self.key)

    def __repr__(self) -> str:
        return f"PeerId({_spell(self.key)})"


def _check_shape(text: str) -> None:
    """Refuse with the reason a person can act on, before the checksum says only that it does not match."""
    lowered = text.lower()
    if not lowered.startswith(HRP + "1"):
        if lowered.startswith("0x") and len(text) == 66:
            raise PeerIdError(
                f"{text!r} is a Sui address or object id; a peer's name starts with 'dtp1' (see 'dtp id')"
            )
        raise PeerIdError(f"{text!r} is not a peer's name: it has to start with 'dtp1'")
    if len(text) != TEXT_LENGTH:
        many = "too many" if len(text) > TEXT_LENGTH else "too few"
        raise PeerIdError(f"{text!r} has {len(text)} characters, {many}: a peer's name has {TEXT_LENGTH}")


@lru_cache(maxsize=_REMEMBERED)
def _check_point(key: bytes) -> None:
    """Raise `PeerIdError` unless `key` is canonical and in the prime-order group. Successes are remembered."""
    from nacl.bindings import crypto_core_ed25519_is_valid_point

    if not crypto_core_ed25519_is_valid_point(key):
        raise PeerIdError(
            f"{key.hex()} is not a usable Ed25519 public key (not canonical, or of small order)"
        )


@lru_cache(maxsize=_REMEMBERED)
def _spell(key: bytes) -> str:
    return bech32.encode(HRP, key)


def _describe(value: object) -> str:
    size = f" of length {len(value)}" if isinstance(value, bytes | bytearray | memoryview | str) else ""
    return f"{type(value).__name__}{size}"
