"""Safety numbers: two people compare them, by voice or QR code, to make sure that nobody is in the middle.

The number is made from both persons and their present keys. It is the same for both, and changes when one of the
keys is replaced.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from dtp.messaging.cards.contact_card import ContactCard
from dtp.unicode import encode_text

_DOMAIN: Final = b"dtp.safety.v1"
#: Rounds of hashing, as in Signal. An attacker who searches for a key with the same number has to compute all of
#: them for each try.
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
    """Return 60 digits in groups of five. Both people get the same ones."""
    groups = [
        int.from_bytes(each[start : start + 5], "big") % 100_000
        for each in _both(mine, theirs)
        for start in range(0, 30, 5)
    ]
    return " ".join(f"{group:05}" for group in groups)


def safety_code(mine: ContactCard, theirs: ContactCard) -> bytes:
    """Return the content of the QR code, 65 bytes."""
    return bytes((_VERSION,)) + b"".join(_both(mine, theirs))


def compare_code(code: bytes | str, mine: ContactCard, theirs: ContactCard) -> bool:
    """Return True if a scanned code, or a safety number as text, is that of these two persons with their present
    keys.
    """
    if isinstance(code, str):
        digits = [safety_number(mine, theirs), code]
        return hmac.compare_digest(*(encode_text("".join(each.split()), "the number") for each in digits))
    return hmac.compare_digest(code, safety_code(mine, theirs))
