"""Which library serves which cipher suite: chosen once, at first use, from what is already in the process.

`nacl._sodium` (libsodium in PyNaCl's wheel) is always there. The libcrypto that Python's own `_ssl` is linked with
has the same bytes on the wire and is faster from some version on (docs/decisions/0011); it is hidden in standalone
Pythons, so it is never the only one. C checks each candidate against a known record before it takes it.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dtp.core import long_records
from dtp.core._dtp_core import ffi, lib
from dtp.core.errors import UnsupportedSuite
from dtp.errors import ConfigError

if TYPE_CHECKING:
    import ctypes  # costs more than all else here, so it is loaded with the first key

#: Suites by the name that the Noise specification gives their ciphers.
SUITES: dict[str, int] = {"AESGCM": lib.DTP_AESGCM, "ChaChaPoly": lib.DTP_CHACHAPOLY}

#: libsodium's functions for each suite: prefix of `_encrypt` and `_decrypt`.
_SODIUM = {"AESGCM": "crypto_aead_aes256gcm", "ChaChaPoly": "crypto_aead_chacha20poly1305_ietf"}

#: OpenSSL's cipher for each suite, and the version from which on it is at least as fast as libsodium's.
_EVP = {"AESGCM": (b"AES-256-GCM", 0x30100000), "ChaChaPoly": (b"ChaCha20-Poly1305", 0x30000000)}

#: Field of `dtp_evp` -> OpenSSL's function.
_EVP_FUNCTIONS = {
    "ctx_new": "EVP_CIPHER_CTX_new",
    "ctx_free": "EVP_CIPHER_CTX_free",
    "init": "EVP_CipherInit_ex",
    "update": "EVP_CipherUpdate",
    "final": "EVP_CipherFinal_ex",
    "ctrl": "EVP_CIPHER_CTX_ctrl",
}

#: Environment variable that allows one provider only: `sodium` or `openssl`. For tests and benchmarks.
OVERRIDE = "DTP_PROVIDER"

_lock = threading.RLock()
_chosen = threading.Event()
_installed: dict[str, str] = {}
_kept_alive: list[object] = []  # C holds pointers into these


def providers() -> dict[str, str]:
    """Cipher suite -> library and version that serves it, such as `{"AESGCM": "sodium (PyNaCl 1.6.2)", ...}`.

    A suite that this machine should not use is missing: AES without hardware support is slow and leaks by timing.
    Raises `ConfigError` when `DTP_PROVIDER` names no provider.
    """
    if not _chosen.is_set():
        with _lock:
            if not _chosen.is_set():
                install(os.environ.get(OVERRIDE, ""))
    return dict(_installed)


def served_suites() -> tuple[str, ...]:
    """Return the cipher suites that `providers` has, without choosing who serves them where libsodium can.

    Who only listens needs no more: OpenSSL takes a megabyte, and is looked at with the first key.
    """
    if not os.environ.get(OVERRIDE):
        with _lock:
            sodium = None if _chosen.is_set() else _load_sodium()
            if sodium is not None:
                names = [suite for suite in SUITES if suite != "AESGCM" or _has_aes(sodium)]
                if all(_use_sodium(sodium, suite) for suite in names):
                    return tuple(names)
    return tuple(providers())


def _has_aes(sodium: Any) -> bool:
    return bool(sodium.lib.crypto_aead_aes256gcm_is_available() == 1)


def install(only: str = "") -> None:
    """Choose again, from `sodium` or `openssl` alone or (empty) from both. For tests, while no cipher is alive.

    Raises `ConfigError` for any other name.
    """
    if only not in ("", "sodium", "openssl"):
        raise ConfigError(
            f"{OVERRIDE}={only!r}: must be 'sodium' or 'openssl', or unset for the faster of both"
        )
    with _lock:
        chosen = _choose(only)
        for suite in _installed.keys() - chosen.keys():
            del _installed[suite]
        _installed.update(chosen)
        _chosen.set()


def suite_number(suite: str) -> int:
    """Return the number that C knows `suite` by, with a provider installed; else `UnsupportedSuite`."""
    if suite not in _installed and suite not in providers():
        served = ", ".join(providers()) or "none"
        raise UnsupportedSuite(f"no provider for {suite!r} on this machine; there is: {served}")
    return SUITES[suite]


def _choose(only: str) -> dict[str, str]:
    """Install the best allowed provider of each suite."""
    if only not in ("", "sodium", "openssl"):
        raise ConfigError(
            f"{OVERRIDE}={only!r}: must be 'sodium' or 'openssl', or unset for the faster of both"
        )
    sodium = _load_sodium()
    has_aes = sodium is not None and _has_aes(sodium)
    suites = [suite for suite in SUITES if suite != "AESGCM" or has_aes]
    installed: dict[str, str] = {}
    if sodium is not None and only != "openssl":
        installed.update((s, name) for s in suites if (name := _use_sodium(sodium, s)))
    libcrypto = None if only == "sodium" else _load_libcrypto()
    if libcrypto is not None:
        # Asked for by name, OpenSSL serves at any version; else only where it gains something.
        wanted = [s for s in suites if only or s not in installed or libcrypto[1] >= _EVP[s][1]]
        installed.update((s, name) for s in wanted if (name := _use_evp(*libcrypto, s)))
    if "AESGCM" in installed:
        long_records.uninstall()
        # An OpenSSL with VAES is as fast itself; and whoever asks for one provider gets that one alone.
        newest = libcrypto is not None and libcrypto[1] >= _EVP["AESGCM"][1]
        if not only and not newest and (name := long_records.install()) is not None:
            installed["AESGCM"] += f"; records from {long_records.FROM >> 10} KiB: {name}"
    return installed


# ---- libsodium ------------------------------------------------------------------------------------------------


def _load_sodium() -> Any:
    """PyNaCl's cffi module, initialised and with every name that is needed; None where it isn't so."""
    try:
        sodium = importlib.import_module("nacl._sodium")
    except ImportError:
        return None
    names = [f"{prefix}_{verb}" for prefix in _SODIUM.values() for verb in ("encrypt", "decrypt")]
    names += ["sodium_init", "crypto_aead_aes256gcm_is_available"]
    if not all(hasattr(sodium.lib, name) for name in names) or sodium.lib.sodium_init() < 0:
        return None
    _kept_alive.append(sodium)
    return sodium


def _use_sodium(sodium: Any, suite: str) -> str | None:
    def function(verb: str, kind: str) -> Any:
        pointer = sodium.ffi.addressof(sodium.lib, f"{_SODIUM[suite]}_{verb}")
        return ffi.cast(kind, int(sodium.ffi.cast("uintptr_t", pointer)))  # its ffi's types aren't ours

    encrypt, decrypt = function("encrypt", "dtp_sodium_encrypt"), function("decrypt", "dtp_sodium_decrypt")
    if lib.dtp_use_sodium(SUITES[suite], encrypt, decrypt) != lib.DTP_OK:
        return None
    return f"sodium (PyNaCl {importlib.import_module('nacl').__version__})"


@cache
def sign_opener() -> Any:
    """Return libsodium's `crypto_sign_open` for C; None where PyNaCl is built so that it can't be had."""
    return _sodium_function("crypto_sign_open", "dtp_sodium_sign_open")


@cache
def signer() -> Any:
    """Return libsodium's `crypto_sign` for C; None as for `sign_opener`."""
    return _sodium_function("crypto_sign", "dtp_sodium_sign")


def _sodium_function(name: str, kind: str) -> Any:
    sodium = _load_sodium()
    if sodium is None or not hasattr(sodium.lib, name):
        return None
    pointer = sodium.ffi.addressof(sodium.lib, name)
    return ffi.cast(kind, int(sodium.ffi.cast("uintptr_t", pointer)))


# ---- OpenSSL --------------------------------------------------------------------------------------------------


def _load_libcrypto() -> tuple[ctypes.CDLL, int] | None:
    """Return the libcrypto that `_ssl` is linked with and its version number; None where it is hidden or too old."""
    import ctypes

    try:
        module: ModuleType = importlib.import_module("_ssl")
    except ImportError:
        return None
    path = getattr(module, "__file__", None)  # built into the interpreter: no file, and no symbols to be had
    if path is None:
        return None
    try:
        libcrypto = ctypes.CDLL(path)
        for name in (*_EVP_FUNCTIONS.values(), "EVP_CIPHER_fetch", "ERR_clear_error", "OpenSSL_version_num"):
            getattr(libcrypto, name)
    except (
        OSError,
        AttributeError,
    ):  # AttributeError: on Windows a symbol of a DLL behind the DLL isn't found
        return None
    libcrypto.OpenSSL_version_num.restype = ctypes.c_ulong
    _kept_alive.append(libcrypto)
    return libcrypto, int(libcrypto.OpenSSL_version_num())


def _use_evp(libcrypto: ctypes.CDLL, version: int, suite: str) -> str | None:
    import ctypes

    fetch: Callable[..., int | None] = libcrypto.EVP_CIPHER_fetch
    fetch.restype, fetch.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p]  # type: ignore[attr-defined]
    cipher = fetch(None, _EVP[suite][0], None)  # never freed: C uses it until the process ends
    if not cipher:
        libcrypto.ERR_clear_error()  # a FIPS build without ChaCha; `ssl` must not find our error in its queue
        return None
    evp = ffi.new("dtp_evp *")
    evp.cipher = ffi.cast("void *", cipher)
    for field, name in _EVP_FUNCTIONS.items():
        address = ctypes.cast(getattr(libcrypto, name), ctypes.c_void_p).value
        setattr(evp, field, ffi.cast(ffi.typeof(getattr(evp, field)), address))
    if lib.dtp_use_evp(SUITES[suite], evp) != lib.DTP_OK:
        libcrypto.ERR_clear_error()
        return None
    return f"openssl {version >> 28}.{version >> 20 & 0xFF}.{version >> 4 & 0xFFFF}"
