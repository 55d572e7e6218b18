"""Bech32 and Bech32m text (BIP-173, BIP-350): the checked, case-blind spelling of identities and of Sui keys.

Own code because there is little of it and no library on PyPI both says where a mistake is and is kept up
(see `docs/decisions/0030-libraries-weighed.md`). Tested with the vectors of both BIPs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Literal

from dtp.errors import LocalError

_CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_VALUE = {char: value for value, char in enumerate(_CHARSET)}
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CONSTANT = {"bech32": 1, "bech32m": 0x2BC830A3}
_CHECKSUM_LENGTH = 6
#: Up to here the checksum finds any four wrong characters (BIP-173).
_MAX_LENGTH = 90

Variant = Literal["bech32", "bech32m"]


class Bech32Error(LocalError, ValueError):
    """A text is not the Bech32 or Bech32m text it should be; the message says what is wrong and where.

    The message quotes nothing, since the text may be a secret; `place` is the number (from 1) of the
    character to look at, None where there is no such place.
    """

    code = "bech32"

    def __init__(self, message: str, place: int | None = None) -> None:
        super().__init__(message)
        self.place = place


#: What is added for the five bits that leave the polynomial (BIP-173, "Checksum").
_LEAVING = [
    functools.reduce(int.__xor__, (one for bit, one in enumerate(_GENERATOR) if top >> bit & 1), 0)
    for top in range(32)
]


def _step(checksum: int, value: int) -> int:
    """Multiply the checksum polynomial by x and add `value`."""
    return (checksum & 0x1FFFFFF) << 5 ^ value ^ _LEAVING[checksum >> 25]


@functools.lru_cache(maxsize=16)
def _begin_checksum(hrp: str) -> int:
    return functools.reduce(_step, (*(ord(c) >> 5 for c in hrp), 0, *(ord(c) & 31 for c in hrp)), 1)


def _polymod(hrp: str, values: Iterable[int]) -> int:
    checksum = _begin_checksum(hrp)
    for value in values:
        checksum = _step(checksum, value)
    return checksum


@functools.cache
def _pairs() -> tuple[list[int], list[str]]:
    """Return what is added for ten bits that leave the polynomial, and how ten bits are spelled."""
    leaving = [_step(_step(top << 20, 0), 0) for top in range(1024)]
    return leaving, [first + second for first in _CHARSET for second in _CHARSET]


def _regroup(values: list[int] | bytes, width_in: int, width_out: int) -> tuple[list[int], int, int]:
    """Cut the bits of `values` anew, most significant first: whole groups, rest of the bits, their number."""
    groups, held, bits = [], 0, 0
    for value in values:
        held = held << width_in | value
        bits += width_in
        while bits >= width_out:
            bits -= width_out
            groups.append(held >> bits)
            held &= (1 << bits) - 1
    return groups, held, bits


def encode(hrp: str, data: bytes, *, variant: Variant = "bech32m") -> str:
    """Return `data` as lower-case text: `hrp`, "1", five bits a character, a checksum of six characters.

    `hrp` is lower case and printable ASCII; it is written by this package, so it is not checked.
    """
    count = -(-len(data) * 8 // 5)  # characters, of which two are a step: a graph spells each of its authors
    bits = int.from_bytes(data, "big") << count * 5 - len(data) * 8
    (leaving, spelled), text = _pairs(), [f"{hrp}1"]
    checksum, at = _begin_checksum(hrp), count * 5
    if count % 2:
        at -= 5
        text.append(_CHARSET[bits >> at])
        checksum = _step(checksum, bits >> at)
    while at:
        at -= 10
        pair = bits >> at & 1023
        text.append(spelled[pair])
        checksum = (checksum & 0xFFFFF) << 10 ^ pair ^ leaving[checksum >> 20]
    for _ in range(_CHECKSUM_LENGTH // 2):
        checksum = (checksum & 0xFFFFF) << 10 ^ leaving[checksum >> 20]
    checksum ^= _CONSTANT[variant]
    return "".join(text) + "".join(spelled[checksum >> shift & 1023] for shift in (20, 10, 0))


def decode(text: str, *, variant: Variant = "bech32m") -> tuple[str, bytes]:
    """Return the human-readable part and the bytes of `text`, which is all lower or all upper case.

    Raises `Bech32Error` for a character that can't be, mixed case, no separator, a text too short or too
    long, a checksum that does not match (with the place, where one wrong character explains it) or of the
    other variant, and for padding that is not zero or too long.
    """
    hrp, values = _split(text)
    residue = _polymod(hrp, values) ^ _CONSTANT[variant]
    if residue:
        raise _explain(len(text), values, residue, variant)
    data, rest, bits = _regroup(values[:-_CHECKSUM_LENGTH], 5, 8)
    if bits >= 5 or rest:
        raise Bech32Error("the checksum is right but the length is not that of whole bytes")
    return hrp, bytes(data)


def _split(text: str) -> tuple[str, list[int]]:
    if len(text) > _MAX_LENGTH:
        raise Bech32Error(f"{len(text)} characters are too many; at most {_MAX_LENGTH}")
    for place, char in enumerate(text, 1):
        if not "!" <= char <= "~":
            raise Bech32Error(f"character {place} is not printable ASCII", place)
    if text != text.lower() and text != text.upper():
        raise Bech32Error("upper and lower case are mixed; write it all in one case")
    hrp, separator, rest = text.lower().rpartition("1")
    if not separator or not hrp:
        raise Bech32Error("there is no '1' between a prefix and the data")
    for place, char in enumerate(rest, len(hrp) + 2):
        if char not in _VALUE:
            raise Bech32Error(
                f"character {place} is not one that Bech32 uses (it avoids 1, b, i and o)", place
            )
    if len(rest) < _CHECKSUM_LENGTH:
        raise Bech32Error("it is too short to hold a checksum; the end is missing")
    return hrp, [_VALUE[char] for char in rest]


def _explain(length: int, values: list[int], residue: int, variant: Variant) -> Bech32Error:
    """Say why the checksum fails. A place, never a correction: BIP-173 warns that a corrected text may name
    something else that is valid."""
    other: Variant = "bech32" if variant == "bech32m" else "bech32m"
    if residue == _CONSTANT["bech32"] ^ _CONSTANT["bech32m"]:
        return Bech32Error(f"the checksum is that of {other.capitalize()}, not of {variant.capitalize()}")
    # The checksum is linear: a difference e at distance d from the end leaves the residue e * x^d.
    for difference in range(1, 32):
        effect = difference
        for distance in range(len(values)):
            if effect == residue:
                place = length - distance
                return Bech32Error(f"the checksum does not match; look at character {place}", place)
            effect = _step(effect, 0)
    return Bech32Error("the checksum does not match; more than one character is wrong or missing")
