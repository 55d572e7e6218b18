"""Stamps: what a first message to somebody takes, so that a flood costs whoever makes it: work, or money.

A paid stamp is 16 bytes that its buyer makes up, and has the mailbox note for a price.
"""

from __future__ import annotations

import hashlib
from itertools import count
from typing import Final

from dtp.bounded import BoundedDict

STAMP_DOMAIN: Final = b"dtp.stamp.v1"
NONCE_BYTES: Final = 8
#: The most bits that can be asked for: a minute or so of one processor.
MAX_BITS: Final = 26
#: What a mailbox asks of strangers where its owner says nothing else: about a tenth of a second.
DEFAULT_BITS: Final = 16
PAID_BYTES: Final = 16
#: The most that a recipient can ask for a paid stamp, in MiB of room for a month.
MAX_STAMP_MIB: Final = 256


def stamp_bits(recipient: bytes, envelope: bytes, nonce: bytes) -> int:
    """Return what a stamp is worth: the zero bits that the hash of it begins with."""
    if len(nonce) != NONCE_BYTES:
        return 0
    digest = hashlib.blake2b(_base(recipient, envelope) + nonce, digest_size=32).digest()
    return 256 - int.from_bytes(digest, "big").bit_length()


def make_stamp(recipient: bytes, envelope: bytes, bits: int) -> bytes:
    """Return a nonce that is worth `bits`, 0 to `MAX_BITS`, for this envelope. Takes 2^bits hashes on average."""
    base = hashlib.blake2b(_base(recipient, envelope), digest_size=32)
    most = 1 << (256 - bits)
    for number in count():  # pragma: no branch
        nonce = number.to_bytes(NONCE_BYTES, "big")
        tried = base.copy()
        tried.update(nonce)
        if int.from_bytes(tried.digest(), "big") < most:
            return nonce
    raise AssertionError("numbers don't end")


class SpentStamps:
    """What stamps of work have let in: the newest `most`. A stamp has no date, so it would let the same envelope in
    again whenever that was fetched, and work that was done once could fill a tray again and again."""

    def __init__(self, most: int) -> None:
        self._seen: BoundedDict[bytes, None] = BoundedDict(most)

    def has_let_in(self, recipient: bytes, envelope: bytes) -> bool:
        """True for an envelope that `note_let_in` was told of."""
        return _mark(recipient, envelope) in self._seen

    def note_let_in(self, recipient: bytes, envelope: bytes) -> None:
        """Note that an envelope was kept for a device."""
        self._seen[_mark(recipient, envelope)] = None


def _mark(recipient: bytes, envelope: bytes) -> bytes:
    return hashlib.blake2b(recipient + envelope, digest_size=16, person=b"dtp.stamp.spent").digest()


def paid_hash(stamp: bytes) -> bytes:
    """Return what a mailbox knows of a paid stamp: its hash, so that a mailbox's copy gives none away."""
    return hashlib.blake2b(stamp, digest_size=16, person=b"dtp.stamp.paid").digest()


def _base(recipient: bytes, envelope: bytes) -> bytes:
    return STAMP_DOMAIN + recipient + hashlib.blake2b(envelope, digest_size=32).digest()
