"""Stamps: a stranger's message needs one, so that floods are expensive for their sender. A stamp costs work or
money.

A paid stamp is 16 random bytes that its buyer chooses, and pays the mailbox to note.
"""

from __future__ import annotations

import hashlib
from itertools import count
from typing import Final

from dtp.bounded import BoundedDict

STAMP_DOMAIN: Final = b"dtp.stamp.v1"
NONCE_BYTES: Final = 8
#: The most bits of work that can be asked for: about a minute of one processor.
MAX_BITS: Final = 26
#: The bits that strangers need unless the owner says otherwise: about a tenth of a second.
DEFAULT_BITS: Final = 16
PAID_BYTES: Final = 16
#: The highest price of a paid stamp, as MiB of room for a month.
MAX_STAMP_MIB: Final = 256


def stamp_bits(recipient: bytes, envelope: bytes, nonce: bytes) -> int:
    """Return the bits of work in a stamp: the leading zero bits of its hash."""
    if len(nonce) != NONCE_BYTES:
        return 0
    digest = hashlib.blake2b(_base(recipient, envelope) + nonce, digest_size=32).digest()
    return 256 - int.from_bytes(digest, "big").bit_length()


def make_stamp(recipient: bytes, envelope: bytes, bits: int) -> bytes:
    """Return a stamp with at least `bits` (0 to `MAX_BITS`) for this envelope. Takes 2^bits hashes on average."""
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
    """The newest `most` envelopes that were let in by stamps of work. A stamp has no date: without this, the same
    envelope and stamp could be left again each time that it was fetched, and fill a tray without any further work.
    """

    def __init__(self, most: int) -> None:
        self._seen: BoundedDict[bytes, None] = BoundedDict(most)

    def has_let_in(self, recipient: bytes, envelope: bytes) -> bool:
        """True for an envelope that `note_let_in` was called with."""
        return _mark(recipient, envelope) in self._seen

    def note_let_in(self, recipient: bytes, envelope: bytes) -> None:
        """Note that an envelope was kept for a device."""
        self._seen[_mark(recipient, envelope)] = None


def _mark(recipient: bytes, envelope: bytes) -> bytes:
    return hashlib.blake2b(recipient + envelope, digest_size=16, person=b"dtp.stamp.spent").digest()


def paid_hash(stamp: bytes) -> bytes:
    """Return the hash of a paid stamp. A mailbox keeps only that, so that a copy of its store gives none away."""
    return hashlib.blake2b(stamp, digest_size=16, person=b"dtp.stamp.paid").digest()


def _base(recipient: bytes, envelope: bytes) -> bytes:
    return STAMP_DOMAIN + recipient + hashlib.blake2b(envelope, digest_size=32).digest()
