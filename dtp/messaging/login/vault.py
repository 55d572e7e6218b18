"""An account's vault: its identity, wallets and settings, sealed with a key that the server never has.

The key is random. Each credential of the account (password, recovery code) has a copy of it, sealed under its own
key.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from typing import Any, Final

from nacl.exceptions import CryptoError
from nacl.secret import Aead

from dtp.identity import Identity
from dtp.messaging.login.errors import LoginError, VaultBroken
from dtp.messaging.packing import is_number, pack, unpack

KEY_BYTES: Final = 32
#: Bytes that sealing adds: a nonce and a tag.
_ADDED: Final = 24 + 16
WRAPPED: Final = KEY_BYTES + _ADDED
#: A vault's plain text is padded to a multiple of so many bytes, so that its size tells little about it.
_STEP: Final = 1024
#: The largest sealed vault, in bytes: thousands of wallets.
MAX_VAULT: Final = 256 * 1024
#: The types of settings.
Setting = str | int | bool | bytes


@dataclass(frozen=True, slots=True)
class Vault:
    """The contents of an account, the same wherever it logs in. `wallets` are addresses with the names that their
    owner gave them.
    """

    identity: Identity
    wallets: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Setting] = field(default_factory=dict)
    #: 1 for a new account, one more with each change.
    version: int = 1

    def with_changes(
        self, *, wallets: dict[str, str] | None = None, settings: dict[str, Setting] | None = None
    ) -> Vault:
        """Return the next version of the vault, with these changes."""
        return replace(
            self,
            wallets=self.wallets if wallets is None else dict(wallets),
            settings=self.settings if settings is None else dict(settings),
            version=self.version + 1,
        )

    def seal(self, key: bytes, name: str) -> bytes:
        """Return the vault, sealed for the account of this name. Raise `LoginError` if it is too large, or has
        values that no vault can keep.
        """
        if not all(isinstance(each, str) for pair in self.wallets.items() for each in pair):
            raise LoginError("wallets of a vault are addresses and names, both text")
        for setting, value in self.settings.items():
            if not isinstance(setting, str) or not isinstance(value, Setting):
                raise LoginError(
                    f"setting {setting!r} is neither text, a whole number, true or false, nor bytes"
                )
            if type(value) is int and not -(2**63) <= value < 2**63:
                raise LoginError(f"setting {setting!r} doesn't fit into 64 bits")
        secrets = [self.identity.seed, self.identity.static_private]
        plain = pack([self.version, *secrets, self.wallets, self.settings])
        padded = len(plain).to_bytes(4, "big") + plain
        padded += bytes(-len(padded) % _STEP)
        if len(padded) + _ADDED > MAX_VAULT:
            raise LoginError(f"a vault has {MAX_VAULT // 1024} KiB at most; keep files elsewhere")
        return bytes(Aead(key).encrypt(padded, _context(b"dtp.vault.v1", name)))

    @classmethod
    def open(cls, sealed: bytes, key: bytes, name: str) -> Vault:
        """Return the vault that was sealed for the account of this name. Raise `VaultBroken`."""
        padded = _open(sealed, key, _context(b"dtp.vault.v1", name))
        size = int.from_bytes(padded[:4], "big")
        match unpack(padded[4 : 4 + size], VaultBroken, "a vault"):
            case [version, bytes(seed), bytes(static), dict(wallets), dict(settings), *_] if (
                is_number(version) and len(seed) == len(static) == KEY_BYTES and _are_named(wallets, settings)
            ):
                return cls(Identity(seed, static), wallets, settings, version)
        raise VaultBroken("what was sealed with the account's key is not a vault")


def _are_named(wallets: dict[Any, Any], settings: dict[Any, Any]) -> bool:
    return all(isinstance(each, str) for pair in wallets.items() for each in pair) and all(
        isinstance(name, str) and isinstance(value, Setting) for name, value in settings.items()
    )


def make_key() -> bytes:
    """Return a new key of a vault."""
    return os.urandom(KEY_BYTES)


def wrap_key(key: bytes, export_key: bytes, name: str, slot: int) -> bytes:
    """Return a vault's key, sealed under the export key of one credential of one account."""
    return bytes(Aead(_wrapping(export_key)).encrypt(key, _context(b"dtp.vault.key.v1", name, slot)))


def unwrap_key(wrapped: bytes, export_key: bytes, name: str, slot: int) -> bytes:
    """Return a vault's key. Raise `VaultBroken`."""
    return _open(wrapped, _wrapping(export_key), _context(b"dtp.vault.key.v1", name, slot))


def _wrapping(export_key: bytes) -> bytes:
    return hashlib.blake2b(export_key, digest_size=32, person=b"dtp.vault.wrap").digest()


def _context(domain: bytes, name: str, slot: int = 0) -> bytes:
    return domain + bytes((slot,)) + name.encode()


def _open(sealed: bytes, key: bytes, context: bytes) -> bytes:
    try:
        return bytes(Aead(key).decrypt(sealed, context))
    except (CryptoError, ValueError, TypeError):
        raise VaultBroken("the account's vault doesn't open: the server has changed it") from None
