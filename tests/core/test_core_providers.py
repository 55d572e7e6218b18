"""Which library serves which suite, and that a wrong one is never taken."""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import subprocess
import sys
from typing import Any

import pytest
from variants import slow_after

from dtp.core import Buffer, LinkOpener, RecordForged, Sealer, UnsupportedSuite, errors, providers
from dtp.core._dtp_core import ffi, lib
from dtp.core.providers import _EVP_FUNCTIONS, SUITES, install, suite_number
from dtp.errors import ConfigError, DtpError


@pytest.fixture(autouse=True)
def _default_providers() -> Any:
    gc.collect()
    install()
    yield
    gc.collect()
    install()


def run(code: str, **environment: str) -> Any:
    """Run in a fresh Python; its standard output as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    return json.loads(done.stdout)


def test_chacha_is_always_served() -> None:
    assert "ChaChaPoly" in providers()
    assert set(providers()) <= set(SUITES)


@pytest.mark.parametrize("only", ["sodium", "openssl"])
def test_environment_allows_one(only: str) -> None:
    served = run("import json, dtp.core; print(json.dumps(dtp.core.providers()))", DTP_PROVIDER=only)
    assert all(name.startswith(only) for name in served.values())
    if only == "sodium":
        assert "ChaChaPoly" in served


@pytest.mark.parametrize("only", ["", "sodium", "openssl"])
def test_what_is_served_is_known_before_it_is_chosen_who_serves_it(only: str) -> None:
    code = """
import json, sys
from dtp.core import providers, served_suites
before, loaded = served_suites(), "ctypes" in sys.modules
print(json.dumps([sorted(before), sorted(providers()), sorted(served_suites()), loaded]))
"""
    before, chosen, after, loaded = run(code, DTP_PROVIDER=only)
    assert before == chosen == after
    assert loaded == (only == "openssl")  # else OpenSSL is looked for with the first key


def test_both_serve_where_they_can_be_had() -> None:
    """So that the other tests' rounds with `openssl` can't be skipped where it is there but fails."""
    path = getattr(importlib.import_module("_ssl"), "__file__", None)
    expected = {"sodium"}
    if path and hasattr(ctypes.CDLL(path), "EVP_CIPHER_fetch"):
        expected.add("openssl")
    found = set()
    for only in ("sodium", "openssl"):
        install(only)
        found |= {name.split()[0] for suite, name in providers().items() if suite == "ChaChaPoly"}
    assert found == expected


def test_environment_with_another_name() -> None:
    code = """
import json, dtp.core, dtp.errors
try:
    dtp.core.Sealer("ChaChaPoly", bytes(32))
except dtp.errors.ConfigError as error:
    print(json.dumps(str(error)))
"""
    assert "'libressl'" in run(code, DTP_PROVIDER="libressl")
    with pytest.raises(ConfigError):
        install("libressl")


def test_import_is_lean() -> None:
    """Nothing is chosen or loaded before the first key, so that importing stays fast."""
    code = "import json, sys, dtp.core; print(json.dumps(sorted(sys.modules)))"
    modules = run(code)
    assert not {"ssl", "_ssl", "ctypes.util", "cryptography", "asyncio", "noise", "nacl"} & set(modules)


def test_both_providers_make_the_same_bytes() -> None:
    made: dict[str, set[bytes]] = {}
    for only in ("sodium", "openssl"):
        install(only)
        for suite in providers():
            buffer, sealer = Buffer(200_000), Sealer(suite, bytes(range(32)))
            length = sealer.seal([(3, 0, 1, 0, bytes(100_000))], buffer, 16384, True)
            length += sealer.seal([(8, 0, 0, 0, bytes(range(256)))], Buffer(1000), 16384)
            made.setdefault(suite, set()).add(bytes(buffer.view[:length]))
            sealer.close()
    assert all(len(variants) == 1 for variants in made.values())


def test_without_hardware_aes_only_chacha_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    sodium = importlib.import_module("nacl._sodium")

    class Lib:
        def __getattr__(self, name: str) -> Any:
            return (lambda: 0) if name.endswith("is_available") else getattr(sodium.lib, name)

    class Sodium:
        lib = Lib()

        class ffi:
            cast = staticmethod(sodium.ffi.cast)
            addressof = staticmethod(lambda _, name: sodium.ffi.addressof(sodium.lib, name))

    monkeypatch.setitem(sys.modules, "nacl._sodium", Sodium)
    install()
    assert set(providers()) == {"ChaChaPoly"}
    with pytest.raises(UnsupportedSuite, match="ChaChaPoly"):
        suite_number("AESGCM")


def test_without_pynacl_and_ssl_nothing_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nacl._sodium", None)
    monkeypatch.setitem(sys.modules, "_ssl", None)
    install()
    assert providers() == {}
    with pytest.raises(UnsupportedSuite, match="none"):
        Sealer("ChaChaPoly", bytes(32))


def test_an_ssl_module_without_symbols_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standalone Pythons build `_ssl` in, or hide its libcrypto."""
    for hidden in (
        type("built_in", (), {}),
        type("hides", (), {"__file__": importlib.import_module("nacl._sodium").__file__}),
    ):
        monkeypatch.setitem(sys.modules, "_ssl", hidden)
        install()
        assert all(name.startswith("sodium") for name in providers().values())


def test_a_pynacl_that_lacks_a_name_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nacl._sodium", type("Old", (), {"lib": object()}))
    install("sodium")
    assert providers() == {}


# ---- C's own check --------------------------------------------------------------------------------------------


def sodium_pointer(name: str, kind: str) -> Any:
    sodium = importlib.import_module("nacl._sodium")
    return ffi.cast(kind, int(sodium.ffi.cast("uintptr_t", sodium.ffi.addressof(sodium.lib, name))))


CHACHA = "crypto_aead_chacha20poly1305_ietf"


@pytest.mark.parametrize(
    ("encrypt", "decrypt"),
    [
        ("crypto_aead_aegis256_encrypt", "crypto_aead_aegis256_decrypt"),  # another cipher
        ("crypto_aead_xchacha20poly1305_ietf_encrypt", f"{CHACHA}_decrypt"),
        (f"{CHACHA}_encrypt", "crypto_aead_aegis256_decrypt"),
        (None, f"{CHACHA}_decrypt"),
        (f"{CHACHA}_encrypt", None),
    ],
)
def test_a_wrong_cipher_is_refused(encrypt: str | None, decrypt: str | None) -> None:
    use = lib.dtp_use_sodium
    pointers = [
        sodium_pointer(name, kind) if name else ffi.NULL
        for name, kind in ((encrypt, "dtp_sodium_encrypt"), (decrypt, "dtp_sodium_decrypt"))
    ]
    assert use(lib.DTP_CHACHAPOLY, *pointers) == lib.DTP_E_PROVIDER
    buffer = Buffer(100)
    length = Sealer("ChaChaPoly", bytes(32)).seal([], buffer, 100)  # the table is as it was
    assert LinkOpener("ChaChaPoly", bytes(32)).open(buffer, 0, length) == (length, [], None)


def test_a_cipher_that_accepts_forgeries_is_refused() -> None:
    """A decrypt that never fails would pass any check that doesn't try a forged record."""

    @ffi.callback("dtp_sodium_decrypt")  # type: ignore[untyped-decorator]
    def credulous(
        m: Any, mlen: Any, nsec: Any, c: Any, clen: int, ad: Any, adlen: int, npub: Any, k: Any
    ) -> int:
        real = sodium_pointer(f"{CHACHA}_decrypt", "dtp_sodium_decrypt")
        real(m, mlen, nsec, c, clen, ad, adlen, npub, k)
        mlen[0] = clen - 16
        return 0

    encrypt = sodium_pointer(f"{CHACHA}_encrypt", "dtp_sodium_encrypt")
    assert lib.dtp_use_sodium(lib.DTP_CHACHAPOLY, encrypt, credulous) == lib.DTP_E_PROVIDER


@pytest.mark.parametrize("suite", [-1, 0, 3, 2**31 - 1])
def test_unknown_suite_numbers(suite: int) -> None:
    pointers = (
        sodium_pointer(f"{CHACHA}_encrypt", "dtp_sodium_encrypt"),
        sodium_pointer(f"{CHACHA}_decrypt", "dtp_sodium_decrypt"),
    )
    assert lib.dtp_use_sodium(suite, *pointers) == lib.DTP_E_SUITE
    cipher = ffi.new("dtp_cipher *")
    assert lib.dtp_cipher_init(cipher, suite, bytes(32), 0) == lib.DTP_E_SUITE
    lib.dtp_cipher_wipe(cipher)


@pytest.mark.parametrize("missing", slow_after(2, ["cipher", *_EVP_FUNCTIONS]))
def test_an_incomplete_evp_table_is_refused(missing: str) -> None:
    evp = ffi.new("dtp_evp *")
    for field in ("cipher", *_EVP_FUNCTIONS):
        if field != missing:
            setattr(evp, field, ffi.cast(ffi.typeof(getattr(evp, field)), 1))  # never called
    assert lib.dtp_use_evp(lib.DTP_AESGCM, evp) == lib.DTP_E_PROVIDER


def test_a_provider_that_fails_later_is_named() -> None:
    """The link says so, and its counter stays."""
    failing = [False]

    @ffi.callback("dtp_sodium_encrypt")  # type: ignore[untyped-decorator]
    def encrypt(
        c: Any, clen: Any, m: Any, mlen: int, ad: Any, adlen: int, nsec: Any, npub: Any, k: Any
    ) -> int:
        if failing[0]:
            return -1
        real = sodium_pointer(f"{CHACHA}_encrypt", "dtp_sodium_encrypt")
        return real(c, clen, m, mlen, ad, adlen, nsec, npub, k)

    decrypt = sodium_pointer(f"{CHACHA}_decrypt", "dtp_sodium_decrypt")
    assert lib.dtp_use_sodium(lib.DTP_CHACHAPOLY, encrypt, decrypt) == lib.DTP_OK
    sealer, opener, buffer = (
        Sealer("ChaChaPoly", bytes(32)),
        LinkOpener("ChaChaPoly", bytes(32)),
        Buffer(1000),
    )
    length = sealer.seal([(8, 0, 0, 0, b"x")], buffer, 100, True)
    failing[0] = True
    with pytest.raises(errors.ProviderError):
        sealer.seal([], Buffer(100), 100)
    assert sealer.counter == 1
    taken, frames, error = opener.open(buffer, 0, length)  # opens, but can't rekey
    assert isinstance(error, errors.ProviderError)
    assert (taken, frames, opener.counter, opener.rekeys) == (0, [], 0, 0)


def test_forgeries_leave_no_trace_in_openssls_error_queue() -> None:
    """`ssl` reads the thread's queue after its own calls and would blame an innocent connection."""
    install("openssl")
    if not providers():
        pytest.skip("this Python hides its libcrypto")
    peek = ctypes.CDLL(importlib.import_module("_ssl").__file__).ERR_peek_error
    peek.restype = ctypes.c_ulong
    for suite in providers():
        buffer = Buffer(1000)
        length = Sealer(suite, bytes(32)).seal([(8, 0, 0, 0, bytes(100))], buffer, 200)
        buffer.view[length - 1] ^= 1
        assert isinstance(LinkOpener(suite, bytes(32)).open(buffer, 0, length)[2], RecordForged)
        assert peek() == 0


# ---- the table of errors ----------------------------------------------------------------------------------------


def test_every_code_has_its_own_error() -> None:
    codes = {name: getattr(lib, name) for name in dir(lib) if name.startswith("DTP_E_")}
    for question in ("DTP_E_RULED", "DTP_E_CLOCK"):  # for `dtp.core.crdt`, which answers it
        del codes[question]
    told, merged = set(errors._TABLE), set(errors._MERGING)
    assert told | merged == set(codes.values())
    assert not told & merged
    opening = [errors.opening_error(code) for code in told]
    sealing = [errors.sealing_error(code) for code in told]
    merging = [errors.merging_error(code, 7) for code in merged]
    assert all(isinstance(error, DtpError) and str(error) for error in opening + sealing + merging)
    assert len({error.code for error in opening + merging}) == len(codes)
    assert type(errors.sealing_error(lib.DTP_E_FRAME)) is errors.FrameTooLong
