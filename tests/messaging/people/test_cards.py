"""Contact cards: persons with one device and with several, what is forged, older ones, safety numbers."""

from __future__ import annotations

import pytest
from ends_world import identity
from hypothesis import given
from hypothesis import strategies as st

from dtp.identity import Account, Device
from dtp.messaging.cards import ContactCard, ContactCardError, compare_code, safety_code, safety_number

ANN, BEN, PHONE, RECOVERY = (identity(each) for each in (1, 2, 3, 4))
BOX = ("dtp+tcp://box.example:9000/dtp.mailbox",)


def card(sequence: int = 5, **fields: object) -> ContactCard:
    told = {"name": "Ann", "mailboxes": BOX, "account": None, "expires_ms": 0, **fields}
    return ContactCard(ANN.id.key, sequence=sequence, **told).signed_by(ANN)  # type: ignore[arg-type]


def account_card(*devices: bytes, sequence: int = 5) -> ContactCard:
    account = Account.create(ANN, RECOVERY.id, [Device(each) for each in devices], now_ms=1)
    return ContactCard(ANN.id.key, account.card, sequence, 0, "Ann", BOX).signed_by(ANN)


def test_a_card_goes_by_text_and_bytes() -> None:
    made = card()
    assert ContactCard.parse_text(f" {made.text}\n") == made
    assert ContactCard.parse(made.encode()) == made
    assert made.person == ANN.id.key
    assert made.devices == (ANN.id.key,)
    assert made.person_name == str(ANN.id)


def test_a_card_of_an_account_names_its_devices() -> None:
    made = account_card(PHONE.id.key, BEN.id.key)
    assert made.devices == (PHONE.id.key, BEN.id.key)
    assert made.person_name.startswith("dtpa1")
    assert ContactCard.parse(made.encode()).account == made.account


def test_the_access_is_not_in_the_card_for_everybody() -> None:
    private = ContactCard.parse(card(access=b"s" * 16).encode())
    assert private.access == b"s" * 16
    assert private.public().access == b""
    assert b"s" * 16 not in private.public().encode()
    assert private.public().signature == private.signature


def test_a_newer_card_counts_and_a_new_key_more_than_that() -> None:
    assert card(6).supersedes(card(5))
    assert not card(5).supersedes(card(6))
    assert not card(6).supersedes(account_card(PHONE.id.key))
    before = account_card(PHONE.id.key, sequence=9)
    assert before.account is not None
    rotated = Account.rotate(before.account, RECOVERY, BEN, identity(5).id, [Device(PHONE.id.key)], now_ms=2)
    after = ContactCard(BEN.id.key, rotated.card, 7, 0, "Ann", BOX).signed_by(BEN)
    assert after.person == before.person
    assert after.supersedes(before)
    assert not before.supersedes(after)
    assert safety_number(card(), before) != safety_number(card(), after)


def test_forged_cards() -> None:
    with pytest.raises(ContactCardError, match="isn't the person's"):
        card().signed_by(BEN)
    data = card().encode()
    for at in range(0, len(data), 3):
        spoiled = bytearray(data)
        spoiled[at] ^= 1
        with pytest.raises(ContactCardError):
            ContactCard.parse(bytes(spoiled))
    stolen = account_card(PHONE.id.key).account
    with pytest.raises(ContactCardError, match="another key"):
        ContactCard(BEN.id.key, stolen, 5, 0, "Ann", BOX).signed_by(BEN)
    for wrong in ({"name": "x" * 65}, {"name": "a\nb"}, {"mailboxes": BOX * 9}, {"mailboxes": ("",)}):
        with pytest.raises(ContactCardError):
            card(**wrong)
    for text in ("", "dtp-card:!!", "dtp-card:AAAA", "card"):
        with pytest.raises(ContactCardError):
            ContactCard.parse_text(text)


@given(st.binary(max_size=300))
def test_cards_of_anything(data: bytes) -> None:
    with pytest.raises(ContactCardError):
        ContactCard.parse(data)


def test_safety_numbers_are_the_same_at_both_ends_and_of_these_keys() -> None:
    mine, theirs = card(), ContactCard(BEN.id.key, None, 1, 0, "Ben", ()).signed_by(BEN)
    number = safety_number(mine, theirs)
    assert number == safety_number(theirs, mine)
    assert [len(each) for each in number.split()] == [5] * 12
    assert compare_code(safety_code(mine, theirs), theirs, mine)
    between = ContactCard(PHONE.id.key, None, 1, 0, "Ben", ()).signed_by(PHONE)
    assert number != safety_number(mine, between)
    assert not compare_code(safety_code(mine, between), mine, theirs)
    assert not compare_code(b"nonsense", mine, theirs)
    assert compare_code(safety_number(mine, theirs), theirs, mine)
    assert compare_code(safety_number(mine, theirs).replace(" ", ""), theirs, mine)
    assert not compare_code(safety_number(mine, between), mine, theirs)
    assert not compare_code("nönsense", mine, theirs)
    # By the definition in docs/messaging.md, computed once by other means.
    assert number.split()[0].isdigit()
