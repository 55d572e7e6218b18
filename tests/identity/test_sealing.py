"""Sealing to static keys: who it is for opens it, in its place; nobody else does."""

from __future__ import annotations

import pytest

from dtp.identity import Identity
from dtp.identity.sealing import MAX_RECIPIENTS, SealBroken, SealError, open_sealed, seal

ONE, OTHER, STRANGER = (Identity(bytes((n,)) * 32, bytes((n + 9,)) * 32) for n in (1, 2, 3))


def test_any_recipient_opens_it_and_nobody_else() -> None:
    sealed = seal(b"hello", [ONE.static_public, OTHER.static_public], b"here")
    for identity in (ONE, OTHER):
        assert open_sealed(sealed, identity.static_private, b"here") == b"hello"
        with pytest.raises(SealBroken):
            open_sealed(sealed, identity.static_private, b"elsewhere")
    with pytest.raises(SealBroken):
        open_sealed(sealed, STRANGER.static_private, b"here")
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        assert place < 2 + 2 * 84 or _is_broken(bytes(changed))


def _is_broken(sealed: bytes) -> bool:
    with pytest.raises(SealBroken):
        open_sealed(sealed, ONE.static_private, b"here")
    return True


@pytest.mark.parametrize(
    "keys",
    [[], [ONE.static_public] * (MAX_RECIPIENTS + 1), [b"short"], [ONE.static_public, bytes(31)], [bytes(32)]],
)
def test_keys_that_nothing_can_be_sealed_to(keys: list[bytes]) -> None:
    with pytest.raises(SealError):
        seal(b"x", keys, b"")
