"""Safety numbers: what two people compare, by voice or QR, to know that nobody is between them.

The number is made from both persons and their present keys: it changes when a key is replaced, and is the same at
both ends.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from dtp.messaging.cards.contact_card import ContactCard
from dtp.unicode import encode_text

_DOMAIN: Final = b"dtp.safety.v1"
#: Rounds of hashing, as in Signal: whoever looks for a key with the same number has to do each.
_ROUNDS: Final = 5200
_DIGEST: Final = 32
_VERSION: Final = 1


def _fingerprint(card: ContactCard) -> bytes:
    digest = _DOMAIN + card.person + card.key
    for _ in range(_ROUNDS):
        digest = hashlib.sha512(digest + card.key).digest()
    return digest[:_DIGEST]


def _both(mine: ContactCard, theirs: ContactCard) -> list[bytes]:
    return sorted((_fingerprint(mine), _fingerprint(theirs)))


def safety_number(mine: ContactCard, theirs: ContactCard) -> str:
    """Return 60 digits in groups of five, the same for both."""
    groups = [
        int.from_bytes(each[start : start + 5], "big") % 100_000
        for each in _both(mine, theirs)
        for start in range(0, 30, 5)
    ]
    return " ".join(f"{group:05}" for group in groups)


def safety_code(mine: ContactCard, theirs: ContactCard) -> bytes:
    """Return what goes into a QR code, 65 bytes."""
    return bytes((_VERSION,)) + b"".join(_both(mine, theirs))


def compare_code(code: bytes | str, mine: ContactCard, theirs: ContactCard) -> bool:
    """Return whether a scanned code, or a number as text, is that of these two persons and their keys."""
    if isinstance(code, str):
        digits = [safety_number(mine, theirs), code]
        return hmac.compare_digest(*(encode_text("".join(each.split()), "the number") for each in digits))
    return hmac.compare_digest(code, safety_code(mine, theirs))
