"""Identities: a peer's name (`PeerId`), the keys behind it (`Identity`) and the file that keeps them.

Accounts and their cards are loaded when they are used: a node needs neither.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dtp.identity.errors import (
    IdentityError,
    IdentityFileError,
    IdentityFileExists,
    IdentityFileMissing,
    PassphraseNeeded,
    PassphraseWrong,
)
from dtp.identity.keys import STATIC_CONTEXT, Identity, verify_static
from dtp.identity.peer_id import PeerId, PeerIdError
from dtp.identity.pem import Passphrase

if TYPE_CHECKING:
    from dtp.identity.account import Account, AccountError
    from dtp.identity.card import Card, CardError, Device

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

_LATER = {
    "Account": "dtp.identity.account",
    "AccountError": "dtp.identity.account",
    "Card": "dtp.identity.card",
    "CardError": "dtp.identity.card",
    "Device": "dtp.identity.card",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_LATER[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_LATER])
