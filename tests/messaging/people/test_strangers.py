"""Strangers: what they learn before somebody answers them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from village import Village

from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.conversation.operations import Act, MemberRole


def met(village: Callable[..., Village], *others: str) -> Village:
    """Return Mallory with the public cards of Bob and of the others, who know each other."""
    at = village("bob", "mallory", *others, least=100, acquainted=False)
    bob, mallory = at.people["bob"], at.people["mallory"]
    for name in others:
        at.people[name].add_contact(bob.card, at.now)
    with bob.transaction():
        bob.contacts.drop_contact(bob.get_contact(mallory.person))
        bob.store.drop_contact(mallory.person)
    for name in ("bob", *others):
        mallory.add_contact(at.people[name].card.public(), at.now)
    return at


def has_access(at: Village, to: str = "bob") -> bool:
    """True if Mallory reaches the tray of somebody's acquaintances."""
    return bool(at.people["mallory"].get_contact(at.people[to].person).card.access)


@pytest.mark.parametrize("how", ["reads", "leaves", "reads in a group", "revokes a device"])
def test_no_stranger_comes_to_be_an_acquaintance_before_they_are_answered(
    village: Callable[..., Village], how: str
) -> None:
    """Whoever read what they wrote gave them the access to their mailboxes: no further message took a stamp."""
    at = met(village, "phone")
    bob, mallory = at.people["bob"], at.people["mallory"]
    if how == "revokes a device":
        at.share_account("bob", "phone")
        mallory.update_contact(bob.person, card=mallory.get_contact(bob.person).card.public())
    group = at.group("mallory", "bob")
    at.say("mallory", group if how == "reads in a group" else bob.person, "hello")
    at.deliver()
    if how == "leaves":
        bob.change_group(group, Act.REMOVE, at.now, subject=bob.person)
    elif how == "revokes a device":
        at.revoke("bob", "phone")
    else:
        ((_, sender, message),) = bob.store.list_unread()
        assert bob.mark_read(message, at.now, tell=True, sender=sender)
    bob.set_profile("Robert", bob.card.mailboxes, at.now + 10)
    at.deliver()
    assert not has_access(at)
    assert bob.store.count_unsent() == 0


def test_who_reads_what_a_stranger_wrote_tells_them_once_they_were_answered(
    village: Callable[..., Village],
) -> None:
    at = met(village)
    bob, mallory = at.people["bob"], at.people["mallory"]
    said = [mallory.send_event(bob.person, EventKind.TEXT, {"text": each}, at.now) for each in ("one", "two")]
    at.deliver()
    assert bob.mark_read(said[0].event.id, at.now, tell=True)
    at.deliver()
    assert mallory.store.read_receipts(said[0].event.id) == {bob.person: False}
    at.say("bob", mallory.person, "who are you?")
    assert bob.mark_read(said[1].event.id, at.now, tell=True)
    at.deliver()
    assert mallory.store.read_receipts(said[1].event.id) == {bob.person: True}
    assert at.texts("mallory", bob.person) == ["one", "two", "who are you?"]
    assert has_access(at)


@pytest.mark.parametrize("how", ["writes", "accepts", "is brought in by a contact"])
def test_who_takes_part_in_a_strangers_group_is_an_acquaintance_of_its_members(
    village: Callable[..., Village], how: str
) -> None:
    at = met(village)
    bob, mallory = at.people["bob"], at.people["mallory"]
    if how == "is brought in by a contact":
        bob.add_contact(mallory.card, at.now)
    group = at.group("mallory", "bob")
    at.say("mallory", group, "hello")
    at.deliver()
    assert not has_access(at)
    if how == "writes":
        at.say("bob", group, "hello")
    else:
        bob.allowances.accept_group(group)
        ((_, sender, message),) = bob.store.list_unread()
        bob.mark_read(message, at.now, tell=True, sender=sender)
    at.deliver()
    assert has_access(at)


@pytest.mark.parametrize("who", ["a stranger", "a contact"])
def test_nobody_gets_access_to_our_contacts_by_naming_them_in_a_group(
    village: Callable[..., Village], who: str
) -> None:
    """Whoever asked for the state of a group of their own was given all its members' cards as we have them."""
    at = met(village, "carol")
    bob, mallory, carol = (at.people[each] for each in ("bob", "mallory", "carol"))
    bob.add_contact(carol.card, at.now)
    if who == "a contact":
        bob.add_contact(mallory.card, at.now)
    group = mallory.create_group("trap", [bob.person, carol.person], at.now)
    asked = Event(EventKind.MEMBERSHIP, group, 0, at.now, {"operations": [], "ask": True})
    at.deliver()
    mallory.say_to_devices([bob.identity.id.key], asked, at.now)
    at.deliver()
    assert group in bob.groups
    assert not has_access(at, "carol")


@pytest.mark.parametrize("how", ["brought in by us", "writes", "brings others in", "does nothing"])
def test_who_is_added_to_a_group_is_an_acquaintance_of_who_takes_part_there(
    village: Callable[..., Village], how: str
) -> None:
    at = met(village, "carol", "dave")
    bob, mallory, carol, dave = (at.people[each] for each in ("bob", "mallory", "carol", "dave"))
    dave.add_contact(carol.card, at.now)
    for each in (mallory, carol):
        bob.add_contact(each.card, at.now)
    maker = {"brought in by us": "bob", "brings others in": "carol"}.get(how, "dave")
    group = at.group(maker, *{"bob", "carol"} - {maker})
    if maker != "bob":
        at.people[maker].change_group(
            group, Act.ADD, at.now, subject=bob.person, role=MemberRole.ADMINISTRATOR
        )
    if how == "writes":
        at.say("carol", group, "hello")
    at.deliver()
    bob.change_group(group, Act.ADD, at.now, subject=mallory.person)
    at.deliver()
    assert has_access(at, "carol") == (how != "does nothing")


@pytest.mark.parametrize("how", ["writes", "accepts", "adds who made it"])
def test_nobody_reads_along_in_a_strangers_group_before_taking_part_there(
    village: Callable[..., Village], how: str
) -> None:
    """Whoever made it learned when somebody is there, and from which address: they dialled its members."""
    at = met(village)
    bob, mallory = at.people["bob"], at.people["mallory"]
    bob.spreading.least = mallory.spreading.least = 2
    group = at.group("mallory", "bob")
    at.say("mallory", group, "hello")
    at.deliver()
    assert at.texts("bob", group) == ["hello"]
    assert mallory.spreading.list_read_along() == {group}
    assert bob.spreading.list_read_along() == set()
    if how == "writes":
        at.say("bob", group, "hello")
    elif how == "accepts":
        bob.allowances.accept_group(group)
    else:
        bob.add_contact(mallory.card, at.now)
    assert bob.spreading.list_read_along() == {group}


def test_no_device_of_somebody_blocked_is_dialled(village: Callable[..., Village]) -> None:
    at = village("alice", "bob", "carol")
    group = at.group("alice", "bob", "carol")
    alice, bob, carol = (at.people[each] for each in ("alice", "bob", "carol"))
    assert set(alice.spreading.list_linkable(group)) == {bob.identity.id.key, carol.identity.id.key}
    alice.update_contact(carol.person, blocked=True)
    assert alice.spreading.list_linkable(group) == [bob.identity.id.key]
