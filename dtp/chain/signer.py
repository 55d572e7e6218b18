"""Signers: whoever signs transactions for an account. A key in memory, in a file, or behind another program.

A `Signer` knows its address and signs the BCS of a transaction; the client needs nothing else. Signatures have Sui's
form: scheme flag, 64 bytes, public key. What is signed is Blake2b-256 over the intent and the bytes; ECDSA keys sign
SHA-256 of that, with the lower `s`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from dtp.chain.errors import SignerError
from dtp.chain.model import Id, canonical_id
from dtp.identity import Identity, bech32
from dtp.sui.names import format_address
from dtp.sui.transaction import signing_hash

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurve, EllipticCurvePrivateKey

_SECRET_BYTES = 32
#: What dtp's own statements begin with, after the length of the domain: `dtp.close.v1`, `dtp.lock.v1`, ...
_STATEMENT_PREFIX = b"dtp."
_COMMAND_TIMEOUT: Final = 120.0
_BECH32_HRP = "suiprivkey"


class Scheme(IntEnum):
    """Signature schemes, by Sui's flag byte."""

    ED25519 = 0
    SECP256K1 = 1
    SECP256R1 = 2


@runtime_checkable
class Signer(Protocol):
    """Signs for one account."""

    @property
    def address(self) -> str:
        """The account."""

    async def sign_transaction(self, transaction: bytes) -> bytes:
        """Return the serialized signature of a transaction's BCS. Raises `SignerError`."""


def address_of(scheme: Scheme, public_key: bytes) -> str:
    """Return the Sui address of a public key."""
    return format_address(blake2b(bytes((scheme,)) + public_key, digest_size=32).digest())


class KeySigner:
    """A key in memory. `repr` shows no secret."""

    def __init__(self, scheme: Scheme, secret: bytes) -> None:
        """Take the 32 secret bytes. Raises `SignerError` when they are not a key."""
        if len(secret) != _SECRET_BYTES:
            raise SignerError(f"a secret key has {_SECRET_BYTES} bytes, not {len(secret)}")
        self.scheme = Scheme(scheme)
        self._secret = bytes(secret)
        self._identity = Identity(self._secret, self._secret) if self.scheme is Scheme.ED25519 else None
        self.ec_key = _ec_key(self.scheme, self._secret) if self._identity is None else None
        self.public_key = self._identity.id.key if self._identity else _compressed(self.ec_key)
        self._address = address_of(self.scheme, self.public_key)

    @classmethod
    def generate(cls, scheme: Scheme = Scheme.ED25519) -> KeySigner:
        """Return a new key from the system's randomness."""
        import os

        while True:
            try:
                return cls(scheme, os.urandom(_SECRET_BYTES))
            except SignerError:  # above the curve's order: once in 2^128 (r1: 2^32) times
                continue

    @classmethod
    def from_identity(cls, identity: Identity) -> KeySigner:
        """Return the account of an identity: the same key."""
        return cls(Scheme.ED25519, identity.seed)

    @classmethod
    def from_text(cls, text: str) -> KeySigner:
        """Return the account of a key as wallets export it (`suiprivkey1...`, SIP-15). Raises `SignerError`; no
        message quotes it."""
        try:
            prefix, data = bech32.decode(text.strip(), variant="bech32")
        except bech32.Bech32Error as fault:
            raise SignerError(f"this is not a Sui private key: {fault}") from None
        if prefix != _BECH32_HRP:
            raise SignerError("this is not a Sui private key: it has to start with 'suiprivkey1'")
        return cls.from_flagged(bytes(data))

    @classmethod
    def from_flagged(cls, data: bytes) -> KeySigner:
        """Return the account of a flag byte and the secret, as the Sui CLI's keystore has it. Raises
        `SignerError`."""
        if len(data) != 1 + _SECRET_BYTES or data[0] not in tuple(Scheme):
            raise SignerError("a key in Sui's form is a flag (0, 1 or 2) and 32 bytes")
        return cls(Scheme(data[0]), data[1:])

    @property
    def address(self) -> str:
        """The account."""
        return self._address

    @property
    def flagged(self) -> bytes:
        """Flag byte and secret, 33 bytes. Secret."""
        return bytes((self.scheme,)) + self._secret

    async def sign_transaction(self, transaction: bytes) -> bytes:
        """Return the serialized signature of a transaction's BCS."""
        return self._sign_digest(signing_hash(transaction))

    def sign_statement(self, statement: bytes) -> bytes:
        """Return the plain Ed25519 signature, 64 bytes, of one of dtp's statements: an agreed close, a release.

        Raises `SignerError` for bytes that don't begin with a dtp domain, so that no transaction can be passed off as
        one, and for keys of another scheme, which Move doesn't check there.
        """
        size = statement[0] if statement else 0
        domain = statement[1 : 1 + size]
        if len(domain) != size or not domain.startswith(_STATEMENT_PREFIX):
            raise SignerError("only statements of dtp are signed without an intent")
        if self._identity is None:
            raise SignerError(f"agreements are signed by Ed25519 keys; this one is {self.scheme.name}")
        return self._identity.sign(statement)

    def _sign_digest(self, digest: bytes) -> bytes:
        signature = self._identity.sign(digest) if self._identity else _ecdsa(self.ec_key, digest)
        return bytes((self.scheme,)) + signature + self.public_key

    def __repr__(self) -> str:
        return f"<KeySigner {self.scheme.name.lower()} {self.address}>"


def _curve(scheme: Scheme) -> EllipticCurve:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.SECP256K1() if scheme is Scheme.SECP256K1 else ec.SECP256R1()


def _ec_key(scheme: Scheme, secret: bytes) -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        return ec.derive_private_key(int.from_bytes(secret, "big"), _curve(scheme))
    except ValueError:
        raise SignerError(f"these bytes are not a key of {scheme.name}") from None


def _compressed(key: EllipticCurvePrivateKey | None) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    assert key is not None
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)


_ORDERS: Final = {
    "secp256k1": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,
    "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
}


def _ecdsa(key: EllipticCurvePrivateKey | None, digest: bytes) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    assert key is not None
    r, s = decode_dss_signature(key.sign(digest, ec.ECDSA(hashes.SHA256())))
    order = _ORDERS[key.curve.name]
    return r.to_bytes(32, "big") + min(s, order - s).to_bytes(32, "big")


def check_signature(address: str, transaction: bytes, signature: bytes) -> None:
    """Raise `SignerError` unless the serialized signature is the account's, over these bytes."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    digest = signing_hash(transaction)
    flag = signature[0] if signature else -1
    size = {0: 32, 1: 33, 2: 33}.get(flag)
    if size is None or len(signature) != 1 + 64 + size:
        raise SignerError("the signature has no form of Sui's: flag, 64 bytes, public key")
    body, public = signature[1:65], signature[65:]
    if address_of(Scheme(flag), public) != address:
        raise SignerError(f"the signature is of another account than {address}")
    try:
        if flag == Scheme.ED25519:
            ed25519.Ed25519PublicKey.from_public_bytes(public).verify(body, digest)
        else:
            key = ec.EllipticCurvePublicKey.from_encoded_point(_curve(Scheme(flag)), public)
            encoded = encode_dss_signature(int.from_bytes(body[:32], "big"), int.from_bytes(body[32:], "big"))
            key.verify(encoded, digest, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        raise SignerError(f"the signature for {address} does not verify") from None


@dataclass(frozen=True)
class CommandSigner:
    """An account whose key another program holds: a hardware wallet's tool, a vault, a remote signer.

    The program is started for each transaction, without a shell. It reads one JSON object from standard input,
    `{"version": 1, "address": "0x...", "transaction": base64 of the BCS}`, and prints one, `{"signature":
    base64}`, in Sui's serialized form. What it prints is verified before it is used.
    """

    account: Id
    command: Sequence[str]
    timeout: float = _COMMAND_TIMEOUT

    @property
    def address(self) -> str:
        """The account."""
        return canonical_id(self.account)

    async def sign_transaction(self, transaction: bytes) -> bytes:
        """Ask the program. Raises `SignerError`: it can't be started, fails, takes too long, or answers nonsense."""
        question = {
            "version": 1,
            "address": self.address,
            "transaction": base64.b64encode(transaction).decode(),
        }
        answer = await self._ask_program(json.dumps(question).encode() + b"\n")
        try:
            signature = base64.b64decode(json.loads(answer)["signature"], validate=True)
        except (ValueError, KeyError, TypeError, binascii.Error) as fault:
            raise SignerError(
                f'{self.command[0]} did not print {{"signature": base64}}: {fault!r}'
            ) from fault
        check_signature(self.address, transaction, signature)
        return signature

    async def _ask_program(self, question: bytes) -> bytes:
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *self.command, stdin=pipe, stdout=pipe, stderr=pipe
            )
        except OSError as fault:
            raise SignerError(f"can't start {self.command[0]}: {fault.strerror or fault}") from fault
        try:
            async with asyncio.timeout(self.timeout):
                answer, complaint = await process.communicate(question)
        except TimeoutError:
            raise SignerError(f"{self.command[0]} gave no signature within {self.timeout:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            said = complaint.decode(errors="replace").strip()[-500:]
            raise SignerError(
                f"{self.command[0]} ended with {process.returncode}: {said or 'it said nothing'}"
            )
        return answer
