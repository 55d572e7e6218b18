"""Signatures of many messages, made or checked in one call that lets go of the GIL once. Of libsodium, in PyNaCl's
wheel."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final, NamedTuple

from dtp.core._dtp_core import ffi, lib
from dtp.core.providers import sign_opener, signer
from dtp.errors import LocalError

_SIGNATURE: Final = 64
_HEAD: Final = 32 + _SIGNATURE
_SECRET: Final = 64


class SignedMessage(NamedTuple):
    """Who is said to have signed what."""

    #: An Ed25519 public key that is usable (`dtp.identity.PeerId` sees to that), 32 bytes.
    key: bytes
    #: 64 bytes.
    signature: bytes
    message: bytes


def first_forged(signed: Sequence[SignedMessage]) -> int | None:
    """Return the place of the first that its key didn't sign; None when all are genuine. As strict as
    `PeerId.verify`."""
    opener = sign_opener()
    if opener is None:
        return next((at for at, one in enumerate(signed) if not _is_genuine(one)), None)
    messages = b"".join(part for one in signed for part in one)
    sizes = array("I", [_HEAD + len(one.message) for one in signed])
    forged = lib.dtp_first_forged(opener, messages, ffi.from_buffer("uint32_t[]", sizes), len(signed))
    return None if forged == len(signed) else int(forged)


def sign_all(secret: bytes, messages: Sequence[bytes]) -> list[bytes]:
    """Return the Ed25519 signatures of messages, 64 bytes each, under a secret key (seed and public key, 64
    bytes)."""
    if len(secret) != _SECRET:
        raise LocalError(f"a secret key has {_SECRET} bytes (seed and public key), not {len(secret)}")
    sign = signer()
    if sign is None:
        from nacl.bindings import crypto_sign

        return [crypto_sign(message, secret)[:_SIGNATURE] for message in messages]
    sizes = array("I", map(len, messages))
    signed, room = bytearray(_SIGNATURE * len(messages)), bytearray(_SIGNATURE + max(sizes, default=0))
    lib.dtp_sign_all(
        sign,
        secret,
        b"".join(messages),
        ffi.from_buffer("uint32_t[]", sizes),
        len(messages),
        ffi.from_buffer("uint8_t[]", room),
        ffi.from_buffer("uint8_t[]", signed),
    )
    return [bytes(signed[at : at + _SIGNATURE]) for at in range(0, len(signed), _SIGNATURE)]


def _is_genuine(one: SignedMessage) -> bool:
    from nacl.bindings import crypto_sign_open
    from nacl.exceptions import BadSignatureError

    try:
        crypto_sign_open(one.signature + one.message, one.key)
    except BadSignatureError:
        return False
    return True
