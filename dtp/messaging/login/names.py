"""Normalizes names, passwords and recovery codes: what people take for the same is compared as the same."""

from __future__ import annotations

import base64
import os
import unicodedata
from typing import Final

from dtp.messaging.login.errors import NameUnusable

#: Bytes of a name and of a password in UTF-8, at most. Argon2 accepts longer passwords, but people don't use them.
MAX_NAME: Final = 64
MAX_PASSWORD: Final = 1024
#: Characters of a new password, at least, as NIST SP 800-63B demands.
LEAST_PASSWORD: Final = 8
#: Random bytes of a recovery code, too many to guess.
_CODE_BYTES: Final = 20
#: Digits that aren't in base 32, and the letters that they are misread for.
_MISREAD: Final = str.maketrans("018", "OIB")


def normalize_name(name: str) -> str:
    """Return the normalized name of an account: NFKC, in lower case. Raise `NameUnusable`.

    It has 1 to 64 bytes in UTF-8, without spaces and invisible characters.
    """
    found = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    try:
        size = len(found.encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= MAX_NAME or any(unicodedata.category(each)[0] in "CZ" for each in found):
        raise NameUnusable(f"a name has 1 to {MAX_NAME} bytes, without blanks: {name!r} can't be one")
    return found


def is_name(name: object) -> bool:
    """True for a normalized name."""
    try:
        return isinstance(name, str) and normalize_name(name) == name
    except NameUnusable:
        return False


def normalize_password(password: str) -> str:
    """Return the normalized password, which is hashed: NFC, with every kind of space replaced by the usual one (RFC
    8265, OpaqueString). Raise `NameUnusable`.
    """
    found = unicodedata.normalize(
        "NFC", "".join(" " if unicodedata.category(each) == "Zs" else each for each in password)
    )
    try:
        size = len(found.encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= MAX_PASSWORD:
        raise NameUnusable(f"a password has 1 to {MAX_PASSWORD} bytes")
    return found


def check_new_password(password: str) -> str:
    """Return the normalized new password. Raise `NameUnusable` for one of under 8 characters."""
    found = normalize_password(password)
    if len(found) < LEAST_PASSWORD:
        raise NameUnusable(f"a password has {LEAST_PASSWORD} characters at least; a sentence is better")
    return found


def make_recovery_code() -> str:
    """Return a new recovery code: 160 bits, eight groups of four letters and digits."""
    text = base64.b32encode(os.urandom(_CODE_BYTES)).decode()
    return "-".join(text[at : at + 4] for at in range(0, len(text), 4))


def normalize_recovery_code(code: str) -> str:
    """Return the normalized recovery code, which is hashed, however it was typed. Raise `NameUnusable`."""
    found = "".join(each for each in code.upper() if each.isalnum()).translate(_MISREAD)
    if len(found) != _CODE_BYTES * 8 // 5 or not set(found) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"):
        raise NameUnusable("a recovery code has eight groups of four letters and digits")
    return found
