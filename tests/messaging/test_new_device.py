"""Whom a new device of ours takes for whom: strangers and those who are blocked stay that there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from post_office import known_identity
from village import NOW, Village

from dtp.carriers.nearness import Nearness
from dtp.identity import Account, Device
from dtp.messaging.calls.signals import SignalAct
from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.person.notices import CallSignalled


def test_strangers_and_those_who_are_blocked_are_that_on_a_new_device(
    village: Callable[..., Village],
) -> None:
    """They rang there, and what they wrote counted as a contact's."""
    world = village("laptop", "phone", "bob", "mallory", "carol")
    laptop, phone, bob, mallory, carol = (
        world.people[each] for each in ("laptop", "phone", "bob", "mallory", "carol")
    )
    for each in laptop.contacts:
        phone.contacts.drop_contact(each)
        phone.store.drop_contact(each.person)
    laptop.update_contact(mallory.person, stranger=True)
    laptop.update_contact(bob.person, blocked=True)
    devices = [Device(each.identity.id.key, "") for each in (laptop, phone)]
    laptop.change_account(Account.create(known_identity("key"), known_identity("recovery").id, devices), NOW)
    phone.join_account(laptop.card, NOW)
    laptop.missed.send_history(phone.identity.id.key, 0, NOW)
    world.deliver()
    found = {each.person: (each.stranger, each.blocked) for each in phone.contacts}
    assert found[mallory.person] == (True, False)
    assert found[bob.person] == (False, True)
    assert found[carol.person] == (False, False)

    def rings(who: str) -> bool:
        """True if the phone rings when somebody calls it."""
        mail = world.people[who]
        mail.add_contact(laptop.card, NOW)
        event = Event(EventKind.CALL, mail.person, 0, NOW, {"call": bytes(16), "act": int(SignalAct.RINGING)})
        mail.say_to_devices([phone.identity.id.key], event, NOW)
        mail.desk.begin_session(phone.identity.id.key, world.bundle("phone"))
        sealed = [each.envelope for each in mail.desk.seal_due(NOW) if each.device == phone.identity.id.key]
        _, notices = phone.receive_envelopes(sealed, NOW)
        return any(isinstance(each, CallSignalled) for each in notices)

    assert {who: rings(who) for who in ("carol", "mallory", "bob")} == {
        "carol": True, "mallory": False, "bob": False
    }  # fmt: skip


@pytest.mark.parametrize("first", ["card", "answer"])
def test_whoever_is_answered_on_one_device_is_no_stranger_on_another(
    village: Callable[..., Village], first: str
) -> None:
    """There less of them was kept, and they didn't ring, for good."""
    at = village("laptop", "phone", least=100)
    at.share_account("laptop", "phone")
    laptop, phone = at.people["laptop"], at.people["phone"]
    mallory = at.people["mallory"] = at.open("mallory")
    mallory.add_contact(laptop.card, at.now)
    at.say("mallory", laptop.person, "hello")
    at.deliver()
    assert phone.get_contact(mallory.person).stranger
    if first == "answer":
        with phone.transaction():
            contact = phone.get_contact(mallory.person)
            phone.contacts.drop_contact(contact)
            phone.store.drop_contact(mallory.person)
    at.say("laptop", mallory.person, "who are you?")
    at.deliver()
    if first == "answer":
        mallory.set_profile("Mallory", [], at.now + 1)
        at.deliver()
    assert not laptop.get_contact(mallory.person).stranger
    assert not phone.get_contact(mallory.person).stranger


def test_a_new_device_dials_nothing_nearer_for_whoever_wrote_first(village: Callable[..., Village]) -> None:
    """A contact that only the internet had told of counted as one in this network there."""
    at = village("laptop", "carol", least=100)
    laptop, carol = at.people["laptop"], at.people["carol"]
    at.share_account("laptop")
    for each in ("mallory", "eve"):
        at.people[each] = at.open(each)
        at.people[each].add_contact(laptop.card, at.now)
        at.say(each, laptop.person, "hello")
    at.deliver()
    mallory, eve = at.people["mallory"], at.people["eve"]
    at.say("laptop", mallory.person, "who are you?")
    phone = at.people["phone"] = at.open("phone")
    assert laptop.account is not None
    laptop.change_account(laptop.account.add(phone.identity.id, "phone"), at.now)
    phone.join_account(laptop.card, at.now)
    laptop.missed.send_history(phone.identity.id.key, 0, at.now)
    at.deliver()
    near = {each.person: each.nearness for each in phone.contacts}
    assert near == {
        carol.person: Nearness.NETWORK, mallory.person: Nearness.ANYWHERE, eve.person: Nearness.ANYWHERE
    }  # fmt: skip


def test_whoever_writes_to_a_new_device_before_it_hears_of_them_is_whom_the_others_know(
    village: Callable[..., Village],
) -> None:
    """A friend stayed a stranger there, and who was blocked could write, for good."""
    at = village("laptop", "carol", "mallory", "eve", least=100)
    laptop = at.people["laptop"]
    at.share_account("laptop")
    laptop.update_contact(at.people["mallory"].person, blocked=True)
    laptop.update_contact(at.people["eve"].person, stranger=True)
    phone = at.people["phone"] = at.open("phone")
    assert laptop.account is not None
    laptop.change_account(laptop.account.add(phone.identity.id, "phone"), at.now)
    phone.join_account(laptop.card, at.now)
    for each in ("carol", "mallory", "eve"):
        at.people[each].add_contact(laptop.card, at.now)
        at.say(each, laptop.person, "hello")
    at.deliver()
    assert all(each.stranger and not each.blocked for each in phone.contacts)
    phone.update_contact(at.people["eve"].person, nickname="Eve")
    laptop.missed.send_history(phone.identity.id.key, 0, at.now)
    at.deliver()
    found = {name: phone.get_contact(at.people[name].person) for name in ("carol", "mallory", "eve")}
    assert {name: (each.stranger, each.blocked) for name, each in found.items()} == {
        "carol": (False, False), "mallory": (False, True), "eve": (True, False)
    }  # fmt: skip
    assert found["eve"].nickname == "Eve"
    laptop.missed.send_history(phone.identity.id.key, 0, at.now)
    phone.update_contact(at.people["mallory"].person, blocked=False)  # what is said here stays
    at.deliver()
    assert not phone.get_contact(at.people["mallory"].person).blocked
