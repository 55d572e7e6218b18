"""Tokens: they show what an asking node has proven to us before.

The node keeps its token, which is a keyed hash of its key and its address, and valid for these alone, for one to
two lifetimes. So nothing has to be kept here, however many nodes there are.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum
from hmac import compare_digest
from typing import Final

#: Bytes of a token; and the token of a node that has none.
SIZE: Final = 16
NONE: Final = bytes(SIZE)


class TokenStanding(IntEnum):
    """What the sender of a token has proven."""

    #: Nothing: the address may be forged.
    NOTHING = 0
    #: That it receives at this address.
    ADDRESS = 1
    #: Also that it has the key. The token is of the previous lifetime, and a new one is due.
    PEER_BEFORE = 2
    #: Also that it has the key.
    PEER = 3


class Tokens:
    """Makes and recognizes tokens, with a secret (32 random bytes) that never leaves this object."""

    def __init__(self, secret: bytes, lifetime: float) -> None:
        self._secret = secret
        self._lifetime = lifetime
        self._epoch = -1
        self._keys: dict[int, bytes] = {}

    def address_token(self, where: bytes, key: bytes, now: float) -> bytes:
        """Return a token that shows that `key` receives at `where` (a packed endpoint)."""
        return self._make_token(self._current_epoch(now), b"a", where, key)

    def peer_token(self, where: bytes, key: bytes, now: float) -> bytes:
        """Return a token that shows that the node at `where` has proven `key`."""
        return self._make_token(self._current_epoch(now), b"p", where, key)

    def check_token(self, token: bytes, where: bytes, key: bytes, now: float) -> TokenStanding:
        """Return what the sender of `token` at endpoint `where` has proven."""
        if token == NONE:
            return TokenStanding.NOTHING
        epoch = self._current_epoch(now)
        if compare_digest(token, self._make_token(epoch, b"p", where, key)):
            return TokenStanding.PEER
        if compare_digest(token, self._make_token(epoch - 1, b"p", where, key)):
            return TokenStanding.PEER_BEFORE
        for each in (epoch, epoch - 1):
            if compare_digest(token, self._make_token(each, b"a", where, key)):
                return TokenStanding.ADDRESS
        return TokenStanding.NOTHING

    def _current_epoch(self, now: float) -> int:
        epoch = int(now / self._lifetime)
        if epoch != self._epoch:
            self._epoch = epoch
            self._keys = {each: self._derive_secret(each) for each in (epoch, epoch - 1)}
        return epoch

    def _derive_secret(self, epoch: int) -> bytes:
        return hashlib.blake2b(
            epoch.to_bytes(8, "big", signed=True), key=self._secret, digest_size=32
        ).digest()

    def _make_token(self, epoch: int, kind: bytes, where: bytes, key: bytes) -> bytes:
        return hashlib.blake2b(kind + key + where, key=self._keys[epoch], digest_size=SIZE).digest()
