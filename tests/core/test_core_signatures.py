"""Signatures checked many at once: the same verdicts as one at a time."""

from __future__ import annotations

import random

import pytest

from dtp.core import signatures
from dtp.core.providers import sign_opener, signer
from dtp.core.signatures import SignedMessage, first_forged, sign_all
from dtp.errors import LocalError
from dtp.identity import Identity, PeerId

#: The order of the group: a signature with S + L would be another one for the same message.
L = (1 << 252) + 27742317777372353535851937790883648493


@pytest.fixture(params=["at once", "one by one"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sign_opener() is not None
    assert signer() is not None
    if request.param == "one by one":
        monkeypatch.setattr(signatures, "sign_opener", lambda: None)
        monkeypatch.setattr(signatures, "signer", lambda: None)


def signed(count: int) -> list[SignedMessage]:
    rng = random.Random(9)
    made = []
    for number in range(count):
        who, message = Identity(rng.randbytes(32)), rng.randbytes(number * 37 % 300)
        made.append(SignedMessage(who.id.key, who.sign(message), message))
    return made


@pytest.mark.usefixtures("way")
def test_all_are_genuine() -> None:
    assert first_forged([]) is None
    assert first_forged(signed(50)) is None


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("what", ["key", "signature", "R", "message", "S", "longer"])
@pytest.mark.parametrize("at", [0, 7, 19])
def test_the_first_forged_is_found(what: str, at: int) -> None:
    batch = signed(20)
    key, signature, message = batch[at]
    high = (int.from_bytes(signature[32:], "little") + L).to_bytes(32, "little")
    batch[at] = {
        "key": SignedMessage(batch[at - 1].key, signature, message),
        "signature": SignedMessage(key, bytes(64), message),
        "R": SignedMessage(key, bytes((signature[0] ^ 1,)) + signature[1:], message),
        "message": SignedMessage(key, signature, message + b"x"),
        "S": SignedMessage(key, signature[:32] + high, message),
        "longer": SignedMessage(key, batch[at - 1].signature, message),
    }[what]
    assert first_forged(batch) == at
    assert not PeerId(batch[at].key).verify(batch[at].signature, batch[at].message)
    batch[min(at + 1, 19)] = SignedMessage(key, bytes(64), message)
    assert first_forged(batch) == at


@pytest.mark.usefixtures("way")
def test_all_are_signed_as_one_is() -> None:
    seed, rng = bytes(range(32)), random.Random(10)
    who = Identity(seed)
    messages = [rng.randbytes(rng.randrange(300)) for _ in range(50)]
    assert sign_all(seed + who.id.key, messages) == [who.sign(message) for message in messages]
    assert sign_all(seed + who.id.key, []) == []


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("size", [0, 32, 63, 65])
def test_nothing_is_signed_with_half_a_key(size: int) -> None:
    with pytest.raises(LocalError, match="64 bytes"):
        sign_all(bytes(size), [b"message"])
