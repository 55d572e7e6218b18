"""Who pays and who is paid: whatever a program calls its wallet, as a signer and as an identity."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

from dtp.chain.keystores import load_key
from dtp.chain.signer import KeySigner, Scheme, Signer
from dtp.identity import Identity

#: An account: a signer, an identity (the same key), a `suiprivkey1...`, or a key file.
Wallet: TypeAlias = Signer | Identity | str | os.PathLike[str]


def signer_of(wallet: Wallet) -> Signer:
    """Return the signer of a wallet. Raise `SignerError`, `KeystoreError`, `IdentityFileError`."""
    if isinstance(wallet, Identity):
        return KeySigner.from_identity(wallet)
    if isinstance(wallet, str) and wallet.startswith("suiprivkey1"):
        return KeySigner.from_text(wallet)
    if isinstance(wallet, str | os.PathLike):
        return load_key(Path(wallet).expanduser())
    return wallet


def identity_of(wallet: Wallet, signer: Signer) -> Identity | None:
    """Return the identity of a wallet's key, None when it is not an Ed25519 key or not at hand.

    Its static key is made up for this run unless the wallet is an identity: peers need a round trip more after a
    restart.
    """
    if isinstance(wallet, Identity):
        return wallet
    if isinstance(signer, KeySigner) and signer.scheme is Scheme.ED25519:
        return Identity(signer.flagged[1:])
    return None
