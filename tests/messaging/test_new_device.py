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
from dtp.messaging.conversation.operations import Act
from dtp.messaging.ends.order import resend_after
from dtp.messaging.packing import pack
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
    phone.known_people.change_contact(at.people["eve"].person, at.now + 1, nickname="Eve", stranger=True)
    laptop.missed.send_history(phone.identity.id.key, 0, at.now)
    at.deliver()
    found = {name: phone.get_contact(at.people[name].person) for name in ("carol", "mallory", "eve")}
    assert {name: (each.stranger, each.blocked) for name, each in found.items()} == {
        "carol": (False, False), "mallory": (False, True), "eve": (True, False)
    }  # fmt: skip
    assert found["eve"].nickname == "Eve"
    laptop.missed.send_history(phone.identity.id.key, 0, at.now)
    phone.known_people.change_contact(at.people["mallory"].person, at.now + 1, blocked=False)  # said last
    at.deliver()
    assert not phone.get_contact(at.people["mallory"].person).blocked


def approve(at: Village, *, restart: bool = False) -> None:
    """Have the laptop approve a phone, and give it what was said; nobody else has heard of that."""
    at.people["phone"] = at.open("phone")
    laptop, phone = at.people["laptop"], at.people["phone"]
    assert laptop.account is not None
    laptop.change_account(laptop.account.add(phone.identity.id, "phone"), at.now)
    laptop.missed.send_history(phone.identity.id.key, 0, at.now)
    phone.join_account(laptop.card, at.now)
    if restart:
        account = laptop.account
        laptop.close()
        at.people["laptop"] = at.open("laptop", account=account)


@pytest.mark.parametrize("restart", [True, False])
def test_a_new_device_gets_what_others_write_before_they_have_heard_of_it(
    village: Callable[..., Village], restart: bool
) -> None:
    """It was on the other devices alone, for good: also the groups that one was added to meanwhile."""
    at = village("laptop", "bob", "carol", least=100)
    at.share_account("laptop")
    bob, person = at.people["bob"], at.people["laptop"].person
    at.say("bob", person, "on its way")
    group = bob.create_group("choir", [person, at.people["carol"].person], at.now)
    at.say("bob", group, "welcome")
    mallory = at.people["mallory"] = at.open("mallory")
    mallory.add_contact(at.people["laptop"].card, at.now)
    at.say("mallory", person, "hello")
    approve(at, restart=restart)
    at.deliver()
    phone = at.people["phone"]
    assert at.texts("phone", bob.person) == ["on its way"]
    assert at.texts("phone", group) == ["welcome"]
    assert at.is_member("phone", group)
    assert at.texts("phone", mallory.person) == ["hello"]
    assert [phone.get_contact(each.person).stranger for each in (bob, mallory)] == [False, True]
    assert len(phone.store.list_unread()) == 3
    at.say("bob", person, "by now he knows it")
    at.deliver()
    assert at.texts("phone", bob.person) == ["on its way", "by now he knows it"]
    assert len(phone.store.list_unread()) == 4


def test_what_is_read_here_is_read_on_a_new_device_that_is_passed_it_on(
    village: Callable[..., Village],
) -> None:
    at = village("laptop", "bob", least=100)
    at.share_account("laptop")
    laptop, bob = at.people["laptop"], at.people["bob"]
    at.say("bob", laptop.person, "on its way")
    approve(at)
    phone = at.people["phone"]
    at.deliver()
    assert phone.store.list_unread() == laptop.store.list_unread()
    ((_, sender, message),) = laptop.store.list_unread()
    laptop.mark_read(message, at.now, tell=False, sender=sender)
    at.deliver()
    assert at.texts("phone", bob.person) == ["on its way"]
    assert phone.store.list_unread() == []


def test_a_new_device_is_passed_on_nothing_for_long(village: Callable[..., Village]) -> None:
    at = village("laptop", "bob", least=100)
    at.share_account("laptop")
    bob, laptop = at.people["bob"], at.people["laptop"]
    at.say("bob", laptop.person, "hello")
    approve(at)
    at.deliver()
    for clock, text in ((2, "soon"), (3, "late")):
        event = Event(EventKind.TEXT, laptop.person, at.now + clock, at.now, {"text": text})
        with bob.transaction():
            bob.enqueue_event([laptop.identity.id.key], event, at.now)
        at.deliver()
        at.now += 7 * 86_400_000
    assert at.texts("laptop", bob.person) == ["hello", "soon", "late"]
    assert at.texts("phone", bob.person) == ["hello", "soon"]


def test_a_new_device_gets_what_another_of_ours_does_before_it_has_heard_of_it(
    village: Callable[..., Village],
) -> None:
    """A group changed by one device was another one on a device that a second had approved meanwhile, for good."""
    at = village("laptop", "desktop", "bob", "carol", least=100)
    at.share_account("laptop", "desktop")
    desktop, bob, carol = (at.people[each] for each in ("desktop", "bob", "carol"))
    group = at.group("laptop", "bob")
    desktop.change_group(group, Act.ADD, at.now, subject=carol.person)
    at.say("desktop", group, "from the desktop")
    at.say("desktop", bob.person, "to you alone")
    approve(at)
    at.deliver()
    at.say("carol", group, "here I am")
    at.deliver()
    phone = at.people["phone"]
    assert phone.groups[group].members.roles == desktop.groups[group].members.roles
    assert at.texts("phone", group) == ["from the desktop", "here I am"]
    assert at.texts("phone", bob.person) == ["to you alone"]
    assert [message for _, _, message in phone.store.list_unread()] == [phone.read_history(group)[-1].id]


def test_what_is_refused_on_a_new_device_comes_by_way_of_no_other_one(
    village: Callable[..., Village],
) -> None:
    """Whoever was blocked there alone was shown for a week, and who has another key without consent."""
    at = village("laptop", "bob", "carol", least=100)
    at.share_account("laptop")
    laptop, bob, carol = (at.people[each] for each in ("laptop", "bob", "carol"))
    approve(at)
    at.deliver()
    phone = at.people["phone"]
    phone.update_contact(bob.person, blocked=True)
    phone.update_contact(carol.person, pending=carol.card)
    at.say("bob", laptop.person, "you have blocked me")
    event = Event(EventKind.TEXT, laptop.person, 1, at.now, {"text": "by my other key"})
    with carol.transaction():
        carol.enqueue_event([laptop.identity.id.key], event, at.now)
    at.deliver()
    assert at.texts("laptop", bob.person) == ["you have blocked me"]
    assert at.texts("laptop", carol.person) == ["by my other key"]
    assert [at.texts("phone", each.person) for each in (bob, carol)] == [[], []]
    assert phone.store.list_unread() == []
    phone.known_people.accept_key(carol.person, at.now)
    assert at.texts("phone", carol.person) == ["by my other key"]


@pytest.mark.parametrize("how", ["fetched", "asked for"])
def test_a_new_device_gets_a_group_whose_state_another_has_fetched_and_what_was_held_back_until_then(
    village: Callable[..., Village], how: str
) -> None:
    """Neither came there, for good."""
    at = village("laptop", "bob", "carol", least=100)
    at.share_account("laptop")
    laptop, bob, carol = (at.people[each] for each in ("laptop", "bob", "carol"))
    bob.group_states.most_sent = 0
    group = bob.create_group("choir", [laptop.person, carol.person], at.now)
    at.say("bob", group, "welcome to")
    approve(at)
    at.deliver()
    (message,) = bob.read_history(group)
    event = Event(EventKind.EDIT, group, 2, at.now, {"target": message.id, "text": "welcome"})
    with bob.transaction():
        bob.enqueue_event([laptop.identity.id.key], event, at.now)
    at.deliver()
    assert not at.is_member("laptop", group)
    if how == "fetched":
        (wanted,) = laptop.group_states.take_wanted(at.now)
        state = pack([1, bob.groups[group].encoded_operations, [carol.card.encode()]])
        laptop.group_states.take_fetched(wanted, state, at.now)
    else:
        for tries in (1, 2, 3):
            laptop.group_states.take_wanted(at.now)
            at.now += resend_after(tries)
    at.deliver()
    for name in ("laptop", "phone"):
        assert at.is_member(name, group)
        assert at.texts(name, group) == ["welcome"]
        assert [each for _, _, each in at.people[name].store.list_unread()] == [message.id]
