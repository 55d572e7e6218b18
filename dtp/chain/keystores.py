"""Files of keys: one account per PKCS#8 file (encrypted or not), and the keystore of the Sui command line.

An identity file (`dtp keygen`) is one of the former: the same key is an account. Keys of the other two schemes are
written the same way, with the same scrypt and AES-256 when there is a passphrase.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from pathlib import Path
from typing import Final

from dtp.chain.errors import KeystoreError, SignerError
from dtp.chain.model import Id, canonical_id
from dtp.chain.signer import KeySigner, Scheme
from dtp.identity import Identity, Passphrase, PeerId
from dtp.identity.pem import encrypted_pem
from dtp.identity.private import read_private_file
from dtp.replacing import replace_file
from dtp.unicode import encode_text

_ACTIVE = re.compile(r"^\s*active_address:\s*\"?(0x[0-9a-fA-F]{1,64})\"?\s*$", re.MULTILINE)
_MAX_FILE = 1 << 20


def sui_config_dir() -> Path:
    """Return where the Sui command line keeps its settings: `$SUI_CONFIG_DIR`, else `~/.sui/sui_config`."""
    named = os.environ.get("SUI_CONFIG_DIR")
    return Path(named).expanduser() if named else Path.home() / ".sui" / "sui_config"


def load_key(path: str | os.PathLike[str], passphrase: Passphrase | None = None) -> KeySigner:
    """Return the account of an identity file or of a PKCS#8 file of another scheme.

    Raises `KeystoreError`, `OpenToOthers` where others may read it, and for identity files what `Identity.load`
    raises.
    """
    path = Path(path)
    data = _read_private(path)
    if b"dtp1" in data[:256] or _is_ed25519(data):
        return KeySigner.from_identity(Identity.load(path, passphrase))
    return _load_ec(path, data, passphrase)


def save_key(signer: KeySigner, path: str | os.PathLike[str], passphrase: str | bytes | None = None) -> Path:
    """Write a key to a new file of mode 0600, encrypted if `passphrase` is given. Raises `KeystoreError`."""
    path = Path(path)
    if signer.scheme is Scheme.ED25519:
        return Identity(signer.flagged[1:], os.urandom(32)).save(path, passphrase)
    from cryptography.hazmat.primitives import serialization

    key = signer.ec_key
    assert key is not None
    der = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    if passphrase:
        block = encrypted_pem(der, passphrase)
    else:
        body = base64.encodebytes(der).decode()
        block = f"-----BEGIN PRIVATE KEY-----\n{body}-----END PRIVATE KEY-----\n"
    # Text outside the blocks is ignored by PEM readers; it tells whose file it is without the passphrase.
    header = f"# Sui account. Keep secret, keep a copy: who has this file is\n# {signer.address}\n"
    _write_new(path, (header + block).encode())
    return path


def address_in(path: str | os.PathLike[str]) -> str:
    """Return the account of a file that `save_key` or `dtp keygen` wrote, without its passphrase; empty if not
    said."""
    text = _read_private(Path(path))
    peer = re.search(rb"^# (dtp1[0-9a-z]+)\s*$", text, re.MULTILINE)
    if peer is not None:
        return PeerId.parse(peer[1].decode()).sui_address
    account = re.search(rb"^# (0x[0-9a-f]{64})\s*$", text, re.MULTILINE)
    return account[1].decode() if account is not None else ""


def load_sui_keystore(folder: str | os.PathLike[str] | None = None) -> dict[str, KeySigner]:
    """Return all accounts of the Sui command line, by address. Raises `KeystoreError`; no message quotes a key."""
    path = Path(folder or sui_config_dir()) / "sui.keystore"
    data = _read_private(path)
    try:
        listed = json.loads(data)
        if not isinstance(listed, list):
            raise TypeError("not a list")
        signers = [KeySigner.from_flagged(base64.b64decode(each, validate=True)) for each in listed]
    except (ValueError, TypeError, binascii.Error, SignerError) as fault:
        raise KeystoreError(
            f"{path} is not a keystore of the Sui command line ({type(fault).__name__}): a list of base64 keys"
        ) from None
    return {signer.address: signer for signer in signers}


def sui_signer(address: Id | None = None, folder: str | os.PathLike[str] | None = None) -> KeySigner:
    """Return an account of the Sui command line: that of `address`, or the active one. Raises `KeystoreError`."""
    found = load_sui_keystore(folder)
    wanted = canonical_id(address) if address else _active_address(Path(folder or sui_config_dir()))
    if wanted not in found:
        raise KeystoreError(f"the Sui keystore has no key for {wanted}: it has {', '.join(found) or 'none'}")
    return found[wanted]


def _active_address(folder: Path) -> str:
    path = folder / "client.yaml"
    try:
        match = _ACTIVE.search(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as fault:
        raise KeystoreError(f"can't read {path}: {fault}; name the address instead") from fault
    if match is None:
        raise KeystoreError(f"{path} names no active_address; name the address instead")
    return canonical_id(match[1])


def _read_private(path: Path) -> bytes:
    try:
        data = read_private_file(path, _MAX_FILE + 1)
    except OSError as fault:
        raise KeystoreError(f"can't read {path}: {fault.strerror or fault}") from fault
    if len(data) > _MAX_FILE:
        raise KeystoreError(f"{path} is too large for a file of keys")
    return data


_ED25519_OID: Final = bytes.fromhex("06032b6570")


def _is_ed25519(data: bytes) -> bool:
    """Return whether the first block of a PEM file is an unencrypted Ed25519 key."""
    match = re.search(rb"-----BEGIN PRIVATE KEY-----(.*?)-----END", data, re.DOTALL)
    try:
        return match is not None and _ED25519_OID in base64.b64decode(match[1])
    except binascii.Error:
        return False


def read_sui_key(path: str | os.PathLike[str]) -> KeySigner:
    """Return the account of a file with a key as Sui's wallets export it (`suiprivkey1...`).

    Raises `KeystoreError`, `OpenToOthers`, and `SignerError` for what is no such key.
    """
    return KeySigner.from_text(_read_private(Path(path)).decode("utf-8", "replace"))


def _load_ec(path: Path, data: bytes, passphrase: Passphrase | None) -> KeySigner:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    given = passphrase
    if callable(given):
        given = given() if b"ENCRYPTED" in data else None
    secret = encode_text(given, "the passphrase") if isinstance(given, str) else given
    try:
        key = load_pem_private_key(data, secret if b"ENCRYPTED" in data else None)
    except (TypeError, ValueError, UnsupportedAlgorithm) as fault:
        raise KeystoreError(
            f"{path} can't be opened as a key: wrong passphrase, or no PKCS#8 file"
        ) from fault
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return KeySigner.from_identity(Identity.load(path, passphrase))
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in ("secp256k1", "secp256r1"):
        scheme = Scheme.SECP256K1 if key.curve.name == "secp256k1" else Scheme.SECP256R1
        return KeySigner(scheme, key.private_numbers().private_value.to_bytes(32, "big"))
    raise KeystoreError(
        f"{path} holds a key of a kind that Sui accounts don't have; they have Ed25519, secp256k1 or secp256r1"
    )


def _write_new(path: Path, data: bytes) -> None:
    try:
        replace_file(path, data, new=True)
    except FileExistsError:
        raise KeystoreError(f"{path} exists; it was left as it is") from None
    except OSError as fault:
        raise KeystoreError(f"can't write {path}: {fault.strerror or fault}") from fault
