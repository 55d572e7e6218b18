"""Names, passwords and recovery codes as they are compared: one spelling for what people take for the same."""

from __future__ import annotations

import base64
import os
import unicodedata
from typing import Final

from dtp.messaging.login.errors import NameUnusable

#: Bytes of a name in UTF-8, and of a password: Argon2 takes longer ones, people don't.
MAX_NAME: Final = 64
MAX_PASSWORD: Final = 1024
#: Characters of a new password: what NIST SP 800-63B asks for at least.
LEAST_PASSWORD: Final = 8
#: Bytes of a recovery code, which nobody guesses.
_CODE_BYTES: Final = 20
#: Digits that are taken for the letters they look like: base 32 has neither.
_MISREAD: Final = str.maketrans("018", "OIB")


def normalize_name(name: str) -> str:
    """Return the name as accounts have it: NFKC, in lower case. Raise `NameUnusable`.

    It has 1 to 64 bytes in UTF-8, and no blanks or signs that nobody sees.
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
    """True for a name as accounts have it."""
    try:
        return isinstance(name, str) and normalize_name(name) == name
    except NameUnusable:
        return False


def normalize_password(password: str) -> str:
    """Return a password as it is hashed: NFC, every blank the same (RFC 8265, OpaqueString). Raise `NameUnusable`."""
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
    """Return a password that is to be set, as it is hashed. Raise `NameUnusable` for one of under 8 characters."""
    found = normalize_password(password)
    if len(found) < LEAST_PASSWORD:
        raise NameUnusable(f"a password has {LEAST_PASSWORD} characters at least; a sentence is better")
    return found


def make_recovery_code() -> str:
    """Return a new recovery code: 160 bits, eight groups of four letters and digits."""
    text = base64.b32encode(os.urandom(_CODE_BYTES)).decode()
    return "-".join(text[at : at + 4] for at in range(0, len(text), 4))


def normalize_recovery_code(code: str) -> str:
    """Return a recovery code as it is hashed, however it was typed. Raise `NameUnusable`."""
    found = "".join(each for each in code.upper() if each.isalnum()).translate(_MISREAD)
    if len(found) != _CODE_BYTES * 8 // 5 or not set(found) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"):
        raise NameUnusable("a recovery code has eight groups of four letters and digits")
    return found
