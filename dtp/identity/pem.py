"""Identity files: two PKCS#8 blocks in PEM, the identity key and the static key, as `docs/identity.md` says.

The file is made for other tools as well: `openssl pkey` reads the first block, encrypted or not. What PKCS#8
encryption the `cryptography` package writes is PBKDF2 of 2,048 rounds, so the container (PBES2 with scrypt,
RFC 8018 and 7914) is composed here; the KDF, the cipher and all reading are the library's.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from dtp.identity.errors import (
    IdentityFileError,
    IdentityFileExists,
    IdentityFileMissing,
    PassphraseNeeded,
    PassphraseWrong,
)
from dtp.identity.peer_id import PeerId
from dtp.identity.private import make_private_folder, read_private_file
from dtp.replacing import replace_file
from dtp.unicode import encode_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

#: An identity file has about 500 bytes; more than this is some other file.
MAX_FILE_SIZE = 64 * 1024
#: scrypt of OWASP's password storage cheat sheet: 16 MiB, 0.15 s. A larger N exceeds the 32 MiB that OpenSSL
#: allows scrypt in files, and `openssl pkey` has to go on reading ours; so p = 5 makes up for it.
SCRYPT_COST = (2**14, 8, 5)
_AES_KEY_SIZE, _BLOCK_SIZE, _SALT_SIZE = 32, 16, 16

# RFC 8410, 7: PrivateKeyInfo version 0 of an Ed25519 or X25519 key, up to the 32 bytes of the key.
_PKCS8_ED25519 = bytes.fromhex("302e020100300506032b657004220420")
_PKCS8_X25519 = bytes.fromhex("302e020100300506032b656e04220420")
_OID_PBES2 = bytes.fromhex("06092a864886f70d01050d")  # 1.2.840.113549.1.5.13, RFC 8018
_OID_SCRYPT = bytes.fromhex("06092b06010401da47040b")  # 1.3.6.1.4.1.11591.4.11, RFC 7914
_OID_AES256_CBC = bytes.fromhex("060960864801650304012a")  # 2.16.840.1.101.3.4.1.42, NIST

_BLOCK = re.compile(
    rb"-----BEGIN (?P<label>[A-Z0-9 ]+)-----\s*(?P<body>.*?)-----END (?P=label)-----[^\n]*\n?", re.DOTALL
)
_NAME_LINE = re.compile(rb"^# (dtp1[0-9a-z]+)\s*$", re.MULTILINE)

#: PEM labels that people have at hand, and what to do instead. Others get a general answer.
_FOREIGN = {
    "OPENSSH PRIVATE KEY": "an OpenSSH key; identities are PKCS#8 files: make one with 'dtp keygen'",
    "RSA PRIVATE KEY": "an RSA key; an identity needs an Ed25519 key: make one with 'dtp keygen'",
    "EC PRIVATE KEY": "a key of another curve; an identity needs Ed25519: make one with 'dtp keygen'",
    "CERTIFICATE": "a certificate; DTP uses none: make an identity with 'dtp keygen'",
    "PUBLIC KEY": "a public key only; an identity file holds the private keys",
}


#: A passphrase, or what asks for one; asked only when the file turns out to be encrypted.
Passphrase: TypeAlias = str | bytes | Callable[[], str | bytes]


class StoredKeys(NamedTuple):
    """The private keys of an identity, 32 bytes each: of Ed25519, and of X25519 where there is one."""

    seed: bytes
    static_private: bytes | None


def read(path: str | os.PathLike[str], passphrase: Passphrase | None) -> StoredKeys:
    """Return the keys in the file at `path`. Raises as `Identity.load` does."""
    where = Path(path)
    text = _read_private(where)
    blocks = [(match["label"].decode(), match[0]) for match in _BLOCK.finditer(text)]
    if not blocks:
        raise IdentityFileError(_explain_no_block(where, text))
    for label, _ in blocks:
        if label not in ("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"):
            reason = _FOREIGN.get(label, f"a {label!r} block; an identity is PKCS#8 ('PRIVATE KEY')")
            raise IdentityFileError(f"{where} holds {reason}")
    if len({label for label, _ in blocks}) > 1:
        # Who can write the file but does not know the passphrase could otherwise plant their own static key.
        raise IdentityFileError(
            f"{where} has an encrypted and an unencrypted block; an identity has one kind"
        )
    opener = _Opener(where, passphrase)
    keys = _pick(where, [opener.open_block(label, block) for label, block in blocks])
    _check_name(where, text, keys.seed)
    return keys


def write(
    seed: bytes,
    static_private: bytes,
    path: str | os.PathLike[str],
    passphrase: str | bytes | None,
    *,
    overwrite: bool,
    cost: tuple[int, int, int] = SCRYPT_COST,
) -> Path:
    """Write the keys of an identity to `path`, and return it. Promises and raises as `Identity.save` does. `cost` is
    scrypt's N, r and p, which the file says."""
    where = Path(path)
    if passphrase is not None and not passphrase:
        raise IdentityFileError("an empty passphrase protects nothing; give one, or None for a file without")
    keys = (_PKCS8_ED25519 + seed, _PKCS8_X25519 + static_private)
    if passphrase is None:
        blocks = [_armor("PRIVATE KEY", key) for key in keys]
    else:
        blocks = [_armor("ENCRYPTED PRIVATE KEY", _encrypt(key, _as_bytes(passphrase), cost)) for key in keys]
    # Text outside the blocks is ignored by PEM readers (RFC 7468, 2). The name lets people see whose file it
    # is and lets `read` notice an exchanged block: AES-CBC alone would not.
    text = f"# DTP identity. Keep secret, keep a copy: who has this file is\n# {_name_of(seed)}\n" + "".join(
        blocks
    )
    try:
        make_private_folder(where.parent)
        replace_file(where, text.encode(), new=not overwrite)
    except FileExistsError as error:
        if error.filename != str(where):
            raise IdentityFileError(f"can't write {where}: {error.filename} is not a folder") from None
        raise IdentityFileExists(
            f"{where} exists; it was left as it is. Give another path, or ask to overwrite it"
        ) from None
    except OSError as error:
        raise IdentityFileError(f"can't write {where}: {error.strerror or error}") from error
    return where


def _read_private(where: Path) -> bytes:
    try:
        text = read_private_file(where, MAX_FILE_SIZE + 1)
    except FileNotFoundError:
        raise IdentityFileMissing(
            f"there is no identity at {where}; 'dtp keygen --identity {where}' makes one"
        ) from None
    except OSError as error:
        raise IdentityFileError(f"can't read {where}: {error.strerror or error}") from error
    if len(text) > MAX_FILE_SIZE:
        raise IdentityFileError(
            f"{where} is not an identity file: it is larger than {MAX_FILE_SIZE // 1024} KiB"
        )
    return text


def _explain_no_block(where: Path, text: bytes) -> str:
    if not text.strip():
        return f"{where} is empty; remove it and run 'dtp keygen'"
    if text.strip().startswith(b"suiprivkey1"):
        return f"{where} holds a Sui key; 'dtp keygen --import {where}' makes an identity of it"
    if b"-----BEGIN" in text:
        return f"{where} is cut off or damaged: a PEM block begins and does not end"
    return f"{where} is not an identity file: there is no PEM block in it ('dtp keygen' makes one)"


@dataclass
class _Opener:
    """Opens the blocks of one file, asking for the passphrase at most once."""

    where: Path
    passphrase: Passphrase | None
    _answer: bytes | None = None

    def open_block(self, label: str, block: bytes) -> PrivateKeyTypes:
        from cryptography.exceptions import InternalError, UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        secret = self._ask_passphrase() if label.startswith("ENCRYPTED") else None
        try:
            return load_pem_private_key(block, secret)
        except (InternalError, MemoryError) as error:
            # Parameters of scrypt that OpenSSL refuses: not a power of two, more memory than there is.
            raise IdentityFileError(
                f"{self.where} is damaged: its encryption parameters can't be used"
            ) from error
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            # A wrong passphrase shows as bad padding or, once in 256, as bad structure, just as damage does.
            if secret is not None and not isinstance(error, UnsupportedAlgorithm):
                raise PassphraseWrong(
                    f"this passphrase does not open {self.where} (or the file is damaged)"
                ) from None
            raise IdentityFileError(
                f"{self.where} holds a PKCS#8 block that can't be read: {error}"
            ) from None

    def _ask_passphrase(self) -> bytes:
        if self._answer is None:
            if self.passphrase is None:
                raise PassphraseNeeded(f"{self.where} is encrypted; give its passphrase")
            self._answer = _as_bytes(self.passphrase() if callable(self.passphrase) else self.passphrase)
        return self._answer


def _pick(where: Path, keys: list[PrivateKeyTypes]) -> StoredKeys:
    """Return the keys of an identity among those of a file."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    seeds = [key.private_bytes_raw() for key in keys if isinstance(key, Ed25519PrivateKey)]
    statics = [key.private_bytes_raw() for key in keys if isinstance(key, X25519PrivateKey)]
    for key in keys:
        if not isinstance(key, Ed25519PrivateKey | X25519PrivateKey):
            kind = type(key).__name__.removesuffix("PrivateKey")
            raise IdentityFileError(
                f"{where} holds a key of type {kind}; an identity needs Ed25519 ('dtp keygen')"
            )
    if len(seeds) != 1 or len(statics) > 1:
        raise IdentityFileError(
            f"{where} holds {len(seeds)} Ed25519 and {len(statics)} X25519 keys; an identity is one Ed25519 "
            "key and at most one X25519 key"
        )
    return StoredKeys(seeds[0], statics[0] if statics else None)


def _name_of(seed: bytes) -> PeerId:
    from nacl.bindings import crypto_sign_seed_keypair

    public, _ = crypto_sign_seed_keypair(seed)
    return PeerId(public)


def _check_name(where: Path, text: bytes, seed: bytes) -> None:
    named, name = _NAME_LINE.search(text), _name_of(seed)
    if named and named[1].decode() != str(name):
        raise IdentityFileError(
            f"{where} says it is {named[1].decode()} but its key is {name}: a block was exchanged or damaged"
        )


def _as_bytes(passphrase: str | bytes) -> bytes:
    return encode_text(passphrase, "the passphrase") if isinstance(passphrase, str) else passphrase


def _armor(label: str, der: bytes) -> str:
    body = b64encode(der).decode()
    lines = "".join(body[at : at + 64] + "\n" for at in range(0, len(body), 64))
    return f"-----BEGIN {label}-----\n{lines}-----END {label}-----\n"


def encrypted_pem(private_key_info: bytes, passphrase: str | bytes) -> str:
    """Return a PEM block of a private key of any kind (DER of PrivateKeyInfo), encrypted as identity files are."""
    return _armor("ENCRYPTED PRIVATE KEY", _encrypt(private_key_info, _as_bytes(passphrase), SCRYPT_COST))


def _encrypt(private_key_info: bytes, passphrase: bytes, cost: tuple[int, int, int]) -> bytes:
    """EncryptedPrivateKeyInfo (RFC 5958) of PBES2: scrypt, then AES-256-CBC with PKCS#7 padding."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
    from cryptography.hazmat.primitives.padding import PKCS7

    salt, iv = os.urandom(_SALT_SIZE), os.urandom(_BLOCK_SIZE)
    key = Scrypt(salt=salt, length=_AES_KEY_SIZE, n=cost[0], r=cost[1], p=cost[2]).derive(passphrase)
    padder = PKCS7(_BLOCK_SIZE * 8).padder()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    sealed = encryptor.update(padder.update(private_key_info) + padder.finalize()) + encryptor.finalize()
    kdf_parameters = _sequence(_octets(salt), *map(_integer, cost))
    scheme = _sequence(_sequence(_OID_SCRYPT, kdf_parameters), _sequence(_OID_AES256_CBC, _octets(iv)))
    return _sequence(_sequence(_OID_PBES2, scheme), _octets(sealed))


def _tagged(tag: int, content: bytes) -> bytes:
    # Lengths here stay under 256: the key has 48 bytes and all around it about 100.
    length = bytes([len(content)]) if len(content) < 128 else bytes([0x81, len(content)])
    return bytes([tag]) + length + content


def _sequence(*parts: bytes) -> bytes:
    return _tagged(0x30, b"".join(parts))


def _octets(content: bytes) -> bytes:
    return _tagged(0x04, content)


def _integer(value: int) -> bytes:
    return _tagged(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))
