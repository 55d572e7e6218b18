"""Whom a person knows, and what they have said of them, is the same on all devices of their account."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from post_office import PostOffice, known_identity, post_office, take
from village import Village

from dtp.carriers.nearness import Nearness
from dtp.identity import Account, Device
from dtp.messaging.cards import ContactCard
from dtp.messaging.errors import MessageError
from dtp.messaging.person.contacts import Consent, Contact
from dtp.messaging.person.correspondence import Correspondence

Make = Callable[..., Village]


def shown(contact: Contact) -> tuple[Any, ...]:
    return contact.nickname, contact.stranger, contact.blocked, contact.verified


def devices(at: Village) -> list[Correspondence]:
    return [at.people[each] for each in ("laptop", "phone")]


def two_devices(village: Make, *others: str) -> Village:
    """A laptop and a phone of one account, and others, whom neither knows."""
    at = village("laptop", "phone", *others, least=100, acquainted=False)
    for mail in devices(at):
        for contact in mail.contacts:
            mail.contacts.drop_contact(contact)
            mail.store.drop_contact(contact.person)
    made = [Device(each.identity.id.key, "") for each in devices(at)]
    laptop, phone = devices(at)
    laptop.change_account(Account.create(known_identity("key"), known_identity("recovery").id, made), at.now)
    phone.join_account(laptop.card, at.now)
    at.deliver()
    return at


def test_whoever_is_added_on_one_device_is_known_on_the_others(village: Make) -> None:
    """They were a stranger there: their calls didn't ring, and no one could write to them by name."""
    at = two_devices(village, "bob")
    laptop, phone = devices(at)
    bob = at.people["bob"]
    phone.add_contact(bob.card, at.now)
    at.deliver()
    assert shown(laptop.get_contact(bob.person)) == ("", False, False, False)
    bob.add_contact(laptop.card, at.now)
    at.say("bob", laptop.person, "hello")
    at.deliver()
    assert all(not each.get_contact(bob.person).stranger for each in (laptop, phone))


def test_names_blocks_and_numbers_that_were_compared_are_told(village: Make) -> None:
    at = two_devices(village, "bob", "mallory")
    laptop, phone = devices(at)
    bob, mallory = (at.people[each] for each in ("bob", "mallory"))
    for each in (bob, mallory):
        laptop.add_contact(each.card, at.now)
    laptop.known_people.change_contact(bob.person, at.now, nickname="Bob at work")
    phone_hears = [bob.person, mallory.person]
    at.deliver()
    assert [each.person for each in phone.contacts] == phone_hears
    phone.known_people.change_contact(bob.person, at.now, verified=True)
    phone.known_people.change_contact(mallory.person, at.now, blocked=True)
    at.deliver()
    for each in (laptop, phone):
        assert shown(each.get_contact(bob.person)) == ("Bob at work", False, False, True)
        assert each.get_contact(mallory.person).blocked
    laptop.close()
    again = at.people["laptop"] = at.open("laptop", account=laptop.account)
    assert shown(again.get_contact(bob.person)) == ("Bob at work", False, False, True)
    again.known_people.change_contact(mallory.person, at.now, blocked=False)  # later, by the same clock
    at.deliver()
    assert not phone.get_contact(mallory.person).blocked


@pytest.mark.parametrize("ahead", [0, 1])
def test_of_two_changes_at_once_the_same_counts_everywhere(village: Make, ahead: int) -> None:
    at = two_devices(village, "bob")
    laptop, phone = devices(at)
    bob = at.people["bob"]
    laptop.add_contact(bob.card, at.now)
    at.deliver()
    laptop.known_people.change_contact(bob.person, at.now + 5 + ahead, nickname="A")
    phone.known_people.change_contact(bob.person, at.now + 5, nickname="B")
    at.deliver()
    names = {each.get_contact(bob.person).nickname for each in (laptop, phone)}
    assert names == {"A" if ahead else "B"}


@pytest.mark.parametrize("consent", ["tell", "ask"])
def test_a_key_that_was_accepted_on_one_device_is_accepted_on_the_others(
    village: Make, tmp_path: Path, consent: Consent
) -> None:
    at = two_devices(village, "bob")
    bob = at.people["bob"]
    account = Account.create(
        known_identity("bobs key"), known_identity("bobs recovery").id, [Device(bob.identity.id.key)]
    )
    bob.change_account(account, at.now)
    for mail in devices(at):
        mail.contacts.consent = consent
    laptop, phone = devices(at)
    laptop.add_contact(bob.card.public(), at.now)
    laptop.known_people.change_contact(bob.person, at.now, verified=True)
    at.deliver()
    rotated = Account.rotate(
        *(account.card, known_identity("bobs recovery"), known_identity("bobs next")),
        *(known_identity("bobs next recovery").id, [Device(bob.identity.id.key)]),
    )
    card = ContactCard(rotated.card.key, rotated.card, at.now, 0, "bob", ()).signed_by(rotated.identity)
    with laptop.transaction():
        laptop.take_contact(card, laptop.get_contact(bob.person).nearness, stranger=False)
    if consent == "ask":
        assert laptop.get_contact(bob.person).is_waiting
        laptop.known_people.accept_key(bob.person, at.now)
    else:
        laptop.known_people.change_contact(bob.person, at.now, nickname="Bob")
    at.deliver()
    for mail in (laptop, phone):
        contact = mail.get_contact(bob.person)
        assert (contact.card.key, contact.pending, contact.verified) == (rotated.card.key, None, False)


def test_a_name_that_no_event_could_tell_is_refused(village: Make) -> None:
    at = two_devices(village, "bob")
    laptop, _ = devices(at)
    laptop.add_contact(at.people["bob"].card, at.now)
    with pytest.raises(MessageError, match="256 bytes at most"):
        laptop.known_people.change_contact(at.people["bob"].person, at.now, nickname=257 * "x")
    assert laptop.get_contact(at.people["bob"].person).nickname == ""


def test_a_program_on_one_device_writes_by_the_name_that_was_given_on_another(tmp_path: Path) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        account = Account.create(
            known_identity("key"),
            known_identity("recovery").id,
            [Device(known_identity(each).id.key, each) for each in ("laptop", "phone")],
        )
        laptop = await at.begin("laptop", box, account=account)
        phone = await at.begin("phone", box)
        await phone.join(laptop.card)
        bob = await at.begin("bob", box)
        await laptop.add_contact(bob.card)
        await laptop.rename_contact(bob.identity.id, "Robert")
        await laptop.wait_delivered()
        await phone.wait_collected()
        await phone.send("Robert", "from the phone")
        assert [each.text for each in await take(bob, 1)] == ["from the phone"]

    post_office(main, tmp_path, "1")


def test_contacts_that_were_added_before_devices_told_of_them_are_told_once(village: Make) -> None:
    """Files that are older than that: they were told only once the user changed something."""
    at = two_devices(village, "bob", "mallory", "carol")
    laptop, phone = devices(at)
    bob, mallory, carol = (at.people[each] for each in ("bob", "mallory", "carol"))
    with laptop.transaction():
        for other, said in ((bob, {"nickname": "Bobby"}), (mallory, {"blocked": True, "stranger": True})):
            laptop.take_contact(other.card, Nearness.NETWORK, stranger=False)
            laptop.put_contact(replace(laptop.get_contact(other.person), **said))
        laptop.take_contact(carol.card, Nearness.NETWORK, stranger=True)
    phone.known_people.change_contact(phone.add_contact(bob.card, at.now).person, at.now, nickname="Robert")
    at.deliver()
    laptop.update_contact(bob.person, changed_ms=0, nickname="Bobby")
    for _ in range(2):
        laptop.keep_up(at.now)
        waiting = len(at.waiting("laptop"))
        at.deliver()
    assert waiting == 0  # once
    assert shown(phone.get_contact(bob.person)) == (
        "Robert",
        False,
        False,
        False,
    )  # what was said since counts
    assert shown(phone.get_contact(mallory.person)) == ("", True, True, False)
    assert phone.contacts.get_contact(carol.person) is None
