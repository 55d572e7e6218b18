"""What the tests of this folder share: identities that are the same each time, and running with virtual time."""

from __future__ import annotations

import hashlib

from dtp.identity import Identity


def identity(name: str) -> Identity:
    """Somebody."""
    return Identity(
        hashlib.sha256(name.encode()).digest(), hashlib.sha256(name.encode() + b" static").digest()
    )


ALICE, BOB, CAROL = identity("alice"), identity("bob"), identity("carol")
