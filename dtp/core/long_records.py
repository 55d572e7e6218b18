"""Long AES-GCM records by the `cryptography` package, whose OpenSSL is the newest that can be had.

Its wheel carries an OpenSSL with code for VAES, 2.5 times as fast as libsodium where the processor has it, but hides
the functions from C. So C calls back for long records, for which the call costs less than is gained. See
docs/decisions/0011.
"""

from __future__ import annotations

from typing import Any

from dtp.core._dtp_core import ffi, lib

#: Plaintext bytes from which on a call into Python (2 us, with the GIL) is worth it.
FROM = 32 * 1024
_NONCE = 12

#: What was made of a key, by the address of the cipher that holds it: (the key, AESGCM). The key tells whether the
#: address has another cipher by now, or this one another key.
_made: dict[int, tuple[bytes, Any]] = {}
#: Above it the oldest is dropped; to make one again costs 5 us.
_MOST = 1024
_AESGCM: Any = None
_InvalidTag: type[Exception] = Exception


def install() -> str | None:
    """Take over the long records of AESGCM; gives who serves them, None where `cryptography` is too old."""
    global _AESGCM, _InvalidTag
    import cryptography
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if not hasattr(AESGCM, "encrypt_into") or not hasattr(AESGCM, "decrypt_into"):
        return None
    _AESGCM, _InvalidTag = AESGCM, InvalidTag
    if lib.dtp_use_for_long(lib.DTP_AESGCM, FROM, lib.dtp_python_seal, lib.dtp_python_open) != lib.DTP_OK:
        return None
    _made.clear()  # of the known answer's key
    return f"cryptography {cryptography.__version__}"


def uninstall() -> None:
    """Leave the long records to the provider again."""
    lib.dtp_use_for_long(lib.DTP_AESGCM, 0, ffi.NULL, ffi.NULL)


def wipe(cipher: Any) -> None:
    """Forget the cipher's key, here and in C. Idempotent."""
    _made.pop(int(ffi.cast("uintptr_t", cipher)), None)
    lib.dtp_cipher_wipe(cipher)


def _aead(cipher: Any) -> Any:
    address = int(ffi.cast("uintptr_t", cipher))
    key = bytes(ffi.buffer(cipher.key))
    made = _made.get(address)
    if made is None or made[0] != key:
        if len(_made) >= _MOST:
            del _made[next(iter(_made))]
        made = _made[address] = (key, _AESGCM(key))
    return made[1]


@ffi.def_extern(error=lib.DTP_E_PROVIDER)  # type: ignore[untyped-decorator]
def dtp_python_seal(cipher: Any, nonce: Any, text: Any, length: int) -> int:
    """Seal in place. Called by C."""
    _aead(cipher).encrypt_into(
        bytes(ffi.buffer(nonce, _NONCE)),
        ffi.buffer(text, length),
        None,
        ffi.buffer(text, length + lib.DTP_TAG),
    )
    return int(lib.DTP_OK)


@ffi.def_extern(error=lib.DTP_E_PROVIDER)  # type: ignore[untyped-decorator]
def dtp_python_open(cipher: Any, nonce: Any, text: Any, length: int) -> int:
    """Open in place. Called by C."""
    try:
        _aead(cipher).decrypt_into(
            bytes(ffi.buffer(nonce, _NONCE)),
            ffi.buffer(text, length + lib.DTP_TAG),
            None,
            ffi.buffer(text, length),
        )
    except _InvalidTag:
        return int(lib.DTP_E_AUTH)
    return int(lib.DTP_OK)
