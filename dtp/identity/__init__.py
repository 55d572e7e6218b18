"""Identities: a peer's name (`PeerId`), the keys behind it (`Identity`) and the file that keeps them."""

from dtp.identity.account import Account, AccountError
from dtp.identity.card import Card, CardError, Device
from dtp.identity.keys import STATIC_CONTEXT, Identity, IdentityError, Passphrase, verify_static
from dtp.identity.peer_id import PeerId, PeerIdError
from dtp.identity.pem import (
    IdentityFileError,
    IdentityFileExists,
    IdentityFileMissing,
    PassphraseNeeded,
    PassphraseWrong,
)

__all__ = [
    "STATIC_CONTEXT",
    "Account",
    "AccountError",
    "Card",
    "CardError",
    "Device",
    "Identity",
    "IdentityError",
    "IdentityFileError",
    "IdentityFileExists",
    "IdentityFileMissing",
    "Passphrase",
    "PassphraseNeeded",
    "PassphraseWrong",
    "PeerId",
    "PeerIdError",
    "verify_static",
]
