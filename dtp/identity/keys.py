"""The secret half: the key that a peer's name stands for, and the transport key that it vouches for."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NoReturn, final

from dtp.identity import bech32, pem
from dtp.identity.errors import IdentityError
from dtp.identity.peer_id import PeerId
from dtp.identity.pem import Passphrase

if TYPE_CHECKING:
    from pathlib import Path

#: Goes before the static key in what the identity key signs for those who seal to it; no handshake asks for it.
STATIC_CONTEXT: Final = b"dtp.static.v1"
SIGNATURE_SIZE: Final = 64
_SECRET_SIZE = 32
#: Proofs found good; a server's regular clients come back. About 350 bytes each.
_REMEMBERED = 4096


@final
class Identity:
    """An Ed25519 key pair that names a peer, and a separate X25519 static key for the transport's handshake.

    The identity key signs, each handshake among other things, and never takes part in a key exchange. `static_proof`
    is for those who seal to the static key. Immutable. Neither `repr` nor an error shows a secret;
    pickling raises `IdentityError` (use `save`). Python can't wipe `bytes`: secrets stay in memory until it
    is reused.
    """

    __slots__ = ("_secret_key", "_static_private", "id", "static_proof", "static_public", "static_stored")

    #: The name.
    id: PeerId
    #: The X25519 public key, 32 bytes.
    static_public: bytes
    #: The signature over `STATIC_CONTEXT + static_public`, 64 bytes. Ed25519 is deterministic: computed once.
    static_proof: bytes
    #: False when the static key was made up in memory because its source holds only an Ed25519 key. It works
    #: the same, but is another one at the next load: peers that remembered it need one more round trip.
    static_stored: bool

    def __init__(self, seed: bytes, static_private: bytes | None = None) -> None:
        """Take an Ed25519 seed (RFC 8032: the private key) and an X25519 private key, 32 bytes each.

        Without `static_private` a new one is made. `IdentityError` for other lengths.
        """
        from nacl.bindings import crypto_scalarmult_base, crypto_sign_seed_keypair

        if len(seed) != _SECRET_SIZE:
            raise IdentityError(f"an Ed25519 seed has {_SECRET_SIZE} bytes, not {len(seed)}")
        self.static_stored = static_private is not None
        static_private = os.urandom(_SECRET_SIZE) if static_private is None else static_private
        if len(static_private) != _SECRET_SIZE:
            raise IdentityError(f"an X25519 private key has {_SECRET_SIZE} bytes, not {len(static_private)}")
        public, self._secret_key = crypto_sign_seed_keypair(bytes(seed))
        self.id = PeerId(public)
        self._static_private = bytes(static_private)
        self.static_public = crypto_scalarmult_base(self._static_private)
        self.static_proof = self.sign(STATIC_CONTEXT + self.static_public)

    @classmethod
    def generate(cls) -> Identity:
        """Return a new identity from the system's randomness."""
        return cls(os.urandom(_SECRET_SIZE), os.urandom(_SECRET_SIZE))

    @classmethod
    def from_sui(cls, text: str) -> Identity:
        """Return the identity of an Ed25519 key as Sui wallets export it ("suiprivkey1...", SIP-15), with a new
        static key.

        Raises `IdentityError` for text that is not that, and for keys of other schemes. No message quotes it.
        """
        try:
            hrp, data = bech32.decode(text.strip(), variant="bech32")
        except bech32.Bech32Error as error:
            raise IdentityError(f"this is not a Sui private key: {error}") from None
        if hrp != "suiprivkey" or len(data) != 1 + _SECRET_SIZE:
            raise IdentityError(
                "this is not a Sui private key: it has to start with 'suiprivkey1' and hold 33 bytes"
            )
        if data[0] != 0:
            scheme = {1: "Secp256k1", 2: "Secp256r1"}.get(data[0], f"scheme {data[0]}")
            raise IdentityError(f"this Sui key is of {scheme}; an identity needs one of Ed25519")
        return cls(data[1:], os.urandom(_SECRET_SIZE))

    @classmethod
    def load(cls, path: str | os.PathLike[str], passphrase: Passphrase | None = None) -> Identity:
        """Read an identity file (PEM; see `docs/identity.md`).

        `passphrase` is used, or called, only when the file is encrypted. Raises `OpenToOthers` when others may
        read or change the file, `IdentityFileError` when it is missing or not an identity, and its subclasses
        `PassphraseNeeded` and `PassphraseWrong`.
        """
        return cls(*pem.read(path, passphrase))

    def save(
        self, path: str | os.PathLike[str], passphrase: str | bytes | None = None, *, overwrite: bool = False
    ) -> Path:
        """Write an identity file of mode 0600, whole or not at all, encrypted if `passphrase` is given.

        Raises `IdentityFileExists` unless `overwrite`, `IdentityFileError` when the system refuses.
        Returns the path. Takes about 0.15 s with a passphrase: that is its purpose.
        """
        return pem.write(self.seed, self._static_private, path, passphrase, overwrite=overwrite)

    @property
    def seed(self) -> bytes:
        """The Ed25519 private key, 32 bytes. Secret."""
        return self._secret_key[:_SECRET_SIZE]

    @property
    def static_private(self) -> bytes:
        """The X25519 private key, 32 bytes. Secret."""
        return self._static_private

    def sign(self, message: bytes) -> bytes:
        """Return the Ed25519 signature (RFC 8032, pure), 64 bytes.

        Start `message` with a context of its own, as `STATIC_CONTEXT` does, and never sign what someone else
        composed: a signature says nothing about what it was meant for.
        """
        from nacl.bindings import crypto_sign

        return crypto_sign(message, self._secret_key)[:SIGNATURE_SIZE]

    def __repr__(self) -> str:
        return f"<Identity {self.id}>"

    def __setattr__(self, name: str, value: object) -> None:
        if hasattr(self, name):
            raise AttributeError(f"an Identity does not change; make another instead of setting {name!r}")
        object.__setattr__(self, name, value)

    def __copy__(self) -> Identity:
        return self

    def __deepcopy__(self, memo: object) -> Identity:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise IdentityError(
            "an Identity is not pickled, since that would copy its secrets; save it to a file and load it"
        )


def verify_static(peer: PeerId, static_public: bytes, proof: bytes) -> bool:
    """True if `peer` vouched for the X25519 key `static_public` (32 bytes) with `proof` (64 bytes).

    A proof that was good is remembered (bounded, the least recently used goes first), so a peer that comes
    back costs no signature check. What was refused is not remembered: strangers can't fill the memory.
    """
    try:
        return _static_verified(peer, bytes(static_public), bytes(proof))
    except _NotProved:
        return False


class _NotProved(Exception):
    """`lru_cache` keeps results and forgets exceptions, which is what `verify_static` promises."""


@lru_cache(maxsize=_REMEMBERED)
def _static_verified(peer: PeerId, static_public: bytes, proof: bytes) -> bool:
    if len(static_public) != _SECRET_SIZE or not peer.verify(proof, STATIC_CONTEXT + static_public):
        raise _NotProved
    return True
