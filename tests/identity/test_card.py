"""Cards of accounts: what they say, who may sign them, and that nothing else passes for one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from dtp.identity import Account, AccountError, Card, CardError, Device, Identity
from dtp.identity.card import MAX_DEVICES, account_id, account_name, parse_account

VECTORS = json.loads((Path(__file__).parents[2] / "docs/vectors/account.json").read_text())


def identity(name: str) -> Identity:
    seed = hashlib.sha256(name.encode()).digest()
    return Identity(seed, seed)


KEY, RECOVERY, PHONE, LAPTOP = map(identity, ("account", "recovery", "phone", "laptop"))
NEXT, NEXT_RECOVERY = identity("next"), identity("next recovery")
DEVICES = (Device(PHONE.id.key, "phone"), Device(LAPTOP.id.key, "laptop"))
ACCOUNT = Account.create(KEY, RECOVERY.id, DEVICES, now_ms=1_000)
ROTATED = Account.rotate(ACCOUNT.card, RECOVERY, NEXT, NEXT_RECOVERY.id, DEVICES[1:], now_ms=2_000)


def second(seeds: dict[str, SigningKey], told: dict[str, Any]) -> bytes:
    """A card, made from docs/identity.md alone."""

    def public(name: str) -> bytes:
        return bytes(seeds[name].verify_key)

    def tagged(domain: bytes, *parts: bytes) -> bytes:
        return bytes([len(domain)]) + domain + b"".join(parts)

    account = hashlib.blake2b(b"dtp.account.v1" + public("key") + public("recovery"), digest_size=32).digest()
    turned = []
    for number, (key, recovery, signer) in enumerate(told["rotations"], 2):
        message = tagged(
            b"dtp.card.rotation.v1", account, number.to_bytes(4, "big"), public(key), public(recovery)
        )
        turned.append([public(key), public(recovery), seeds[signer].sign(message).signature])
    body = msgpack.packb(
        [
            1,
            public("key"),
            public("recovery"),
            turned,
            told["sequence"],
            told["issued_ms"],
            told["expires_ms"],
            [[public(name), label] for name, label in told["devices"]],
        ]
    )
    return msgpack.packb([body, seeds[told["signer"]].sign(tagged(b"dtp.card.v1", body)).signature])


def test_the_vectors_are_what_a_second_implementation_makes() -> None:
    seeds = {name: SigningKey(bytes.fromhex(seed)) for name, seed in VECTORS["seeds"].items()}
    for told in VECTORS["cards"]:
        assert second(seeds, told).hex() == told["card"]
        card = Card.parse(bytes.fromhex(told["card"]))
        assert card.name == told["account"]
        assert card.generation == len(told["rotations"]) + 1
        assert [[device.label for device in card.devices], card.sequence] == [
            [label for _, label in told["devices"]],
            told["sequence"],
        ]
    for told in VECTORS["faults"]:
        with pytest.raises(CardError, match=told["message"]):
            Card.parse(bytes.fromhex(told["card"]))


def test_what_a_card_says() -> None:
    card = ACCOUNT.card
    assert Card.parse(card.encode()) == card
    assert card.names(PHONE.id.key)
    assert not card.names(KEY.id.key)
    assert (card.generation, card.sequence, card.key, card.recovery) == (1, 1, KEY.id.key, RECOVERY.id.key)
    assert card.name.startswith("dtpa1")
    assert parse_account(card.name) == card.account == account_id(KEY.id.key, RECOVERY.id.key)
    for wrong in (str(KEY.id), "dtpa1x", account_name(bytes(31))):
        with pytest.raises(CardError):
            parse_account(wrong)


def test_devices_come_and_go() -> None:
    more = ACCOUNT.add(NEXT.id, "tablet", now_ms=1_500)
    less = more.remove(PHONE.id, now_ms=1_600)
    assert [device.label for device in less.card.devices] == ["laptop", "tablet"]
    assert less.card.supersedes(more.card)
    assert more.card.supersedes(ACCOUNT.card)
    assert not more.card.supersedes(less.card)
    assert {ACCOUNT.card.name, more.card.name, less.card.name} == {ACCOUNT.card.name}
    assert [one.label for one in more.add(NEXT.id, "pad").card.devices] == ["phone", "laptop", "pad"]
    with pytest.raises(AccountError):
        less.remove(PHONE.id)
    full = [Device(identity(f"device {n}").id.key) for n in range(MAX_DEVICES + 1)]
    assert len(Account.create(KEY, RECOVERY.id, full[:-1]).card.devices) == MAX_DEVICES
    with pytest.raises(CardError):
        Account.create(KEY, RECOVERY.id, full)


@given(st.integers(1, 10), st.integers(1, 10))
def test_of_two_cards_that_were_signed_at_once_the_one_with_fewer_devices_counts(
    added: int, later: int
) -> None:
    """The larger signature won, so that a phone that was lost came back by who added a tablet elsewhere."""
    removed = ACCOUNT.remove(PHONE.id, now_ms=1_000 + later).card
    for number in range(added):
        tablet = ACCOUNT.add(identity(f"tablet {number}").id, "tablet", now_ms=1_500).card
        renewed = ACCOUNT.renew(0, now_ms=1_600 + number).card
        assert removed.supersedes(tablet)
        assert removed.supersedes(renewed)
        assert renewed.supersedes(tablet)
        assert not tablet.supersedes(removed)


def test_what_two_machines_have_signed_at_once_is_a_fork_and_what_follows_is_none() -> None:
    removed, tablet = ACCOUNT.remove(PHONE.id).card, ACCOUNT.add(NEXT.id).card
    for other in (tablet, ACCOUNT.renew(0, now_ms=7_000).card, ACCOUNT.remove(LAPTOP.id).card):
        assert removed.is_fork_of(other)
        assert other.is_fork_of(removed)
    stranger = Account.create(NEXT, RECOVERY.id, DEVICES).remove(PHONE.id).card
    for other in (removed, ACCOUNT.card, ACCOUNT.add(NEXT.id).add(KEY.id).card, ROTATED.card, stranger):
        assert not removed.is_fork_of(other)


def test_a_card_says_which_devices_have_changed() -> None:
    removed, tablet = ACCOUNT.remove(PHONE.id).card, ACCOUNT.add(NEXT.id).card
    assert removed.describe_change(ACCOUNT.card) == "doesn't name phone"
    assert ACCOUNT.card.describe_change(removed) == "names phone"
    assert removed.describe_change(tablet) == f"doesn't name phone, doesn't name {NEXT.id}"
    assert tablet.describe_change(removed) == f"names phone, names {NEXT.id}"
    assert ACCOUNT.add(PHONE.id, "telephone").card.describe_change(ACCOUNT.card) == ""


def test_a_card_holds_for_a_time() -> None:
    card = ACCOUNT.renew(200_000, now_ms=100_000).card
    assert [card.is_current(now) for now in (0, 50_000, 150_000, 250_000, 300_000)] == [
        False,
        True,
        True,
        True,
        False,
    ]
    assert ACCOUNT.card.is_current(1 << 60)
    with pytest.raises(CardError):
        ACCOUNT.renew(50, now_ms=100)


def test_the_recovery_key_makes_another_key_the_account_s() -> None:
    card = Card.parse(ROTATED.card.encode())
    assert (card.account, card.generation, card.key) == (ACCOUNT.card.account, 2, NEXT.id.key)
    assert card.supersedes(ACCOUNT.add(NEXT.id).add(KEY.id).card)
    with pytest.raises(AccountError):
        Account(KEY, card)
    with pytest.raises(CardError):
        card.sign_with(KEY)
    with pytest.raises(AccountError, match="isn't the recovery key"):
        Account.rotate(card, RECOVERY, identity("x"), identity("y").id, ())
    for key, recovery in ((KEY, identity("y")), (identity("x"), RECOVERY), (identity("x"), identity("x"))):
        with pytest.raises(AccountError, match="new"):
            Account.rotate(card, NEXT_RECOVERY, key, recovery.id, ())
    with pytest.raises(AccountError):
        Account.create(KEY, KEY.id)


@given(st.data())
def test_a_changed_card_is_none(data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from([ACCOUNT.card, ROTATED.card])).encode()
    changed = bytearray(whole)
    place = data.draw(st.integers(0, len(changed) - 1))
    changed[place] ^= data.draw(st.integers(1, 255))
    for wrong in (bytes(changed), whole[:place], whole + b"\0"):
        with pytest.raises(CardError):
            Card.parse(wrong)


@given(st.recursive(st.none() | st.integers(0, 9) | st.binary(max_size=40) | st.text(max_size=3), st.lists))
def test_nonsense_is_no_card(value: Any) -> None:
    body = msgpack.packb(value)
    for wrong in (body, msgpack.packb([body, bytes(64)]), body * 600):
        with pytest.raises(CardError):
            Card.parse(wrong)
