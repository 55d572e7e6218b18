"""Accounts that name devices of others: a card needs no word of the devices that it names."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from post_office import known_identity
from village import Village

from dtp.carriers.nearness import Nearness
from dtp.identity import Account, Device
from dtp.messaging.cards import ContactCard
from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.conversation.operations import Act
from dtp.messaging.person.correspondence import Correspondence

TRAP = "dtp+tcp://dtp1qqqq@trap:1"


def account_of(*names: str, key: str = "key") -> Account:
    devices = [Device(known_identity(each).id.key) for each in names]
    return Account.create(known_identity(key), known_identity("recovery").id, devices)


def card_of(account: Account, now_ms: int) -> ContactCard:
    own = account.identity
    return ContactCard(own.id.key, account.card, now_ms, 0, "Mallory", (TRAP,)).signed_by(own)


def come(at: Village, *claimed: str) -> Correspondence:
    """Have a stranger come whose account names devices of others, and who writes to Bob."""
    mallory = at.people["mallory"] = at.open(
        "mallory", account=account_of("mallory", *claimed, key="her key")
    )
    mallory.set_profile("Mallory", [TRAP], at.now)
    bob = at.people["bob"]
    mallory.add_contact(bob.card, at.now)
    at.say("mallory", bob.person, "hello")
    at.deliver()
    assert at.texts("bob", mallory.person) == ["hello"]
    return mallory


def reopen(at: Village, name: str) -> Correspondence:
    at.people[name].close()
    at.people[name] = at.open(name)
    return at.people[name]


@pytest.mark.parametrize("met", [True, False], ids=["who has written", "who hasn't"])
def test_no_stranger_has_what_is_for_others_left_at_their_mailbox(
    village: Callable[..., Village], met: bool
) -> None:
    at = village("alice", "bob", least=100)
    alice, bob = at.people["alice"], at.people["bob"]
    device = alice.identity.id.key
    if met:
        at.say("alice", bob.person, "hi")
        at.deliver()
    route = bob.find_route(device)
    come(at, "alice")
    assert bob.find_route(device) == route
    bob = reopen(at, "bob")
    assert bob.find_route(device) == route


def test_whoever_blocks_who_claims_a_device_goes_on_with_its_owner(village: Callable[..., Village]) -> None:
    at = village("alice", "bob", least=100)
    alice, bob = at.people["alice"], at.people["bob"]
    at.say("alice", bob.person, "hi")
    at.deliver()
    mallory = come(at, "alice")
    bob.update_contact(mallory.person, blocked=True)
    said = bob.send_event(alice.person, EventKind.TEXT, {"text": "still there?"}, at.now)
    assert bob.find_route(alice.identity.id.key).mailboxes == alice.card.mailboxes
    at.deliver()
    assert bob.store.read_receipts(said.event.id) == {alice.person: False}


def test_a_contact_takes_no_mail_of_a_device_that_says_whose_it_is(village: Callable[..., Village]) -> None:
    at = village("alice", "bob", least=100)
    alice, bob = at.people["alice"], at.people["bob"]
    at.say("alice", bob.person, "hi")
    at.deliver()
    route = bob.find_route(alice.identity.id.key)
    mallory = come(at, "alice")
    bob.add_contact(mallory.card, at.now)
    assert bob.find_route(alice.identity.id.key) == route
    assert reopen(at, "bob").find_route(alice.identity.id.key) == route


def test_who_claims_a_device_no_more_loses_nothing_of_its_owners(village: Callable[..., Village]) -> None:
    """What waited for it was forgotten, and it had to begin anew."""
    at = village("alice", "bob", least=100)
    alice, bob = at.people["alice"], at.people["bob"]
    at.say("alice", bob.person, "hi")
    at.deliver()
    mallory = come(at, "alice")
    at.say("bob", alice.person, "on its way")
    assert mallory.account is not None
    without = mallory.account.remove(alice.identity.id)
    bob.take_found_card(card_of(without, at.now + 1), Nearness.ANYWHERE, at.now)
    at.say("alice", bob.person, "on its way, too")
    at.deliver()
    assert "on its way" in at.texts("alice", bob.person)
    assert "on its way, too" in at.texts("bob", alice.person)


def test_a_stranger_who_makes_room_takes_no_device_with_them(village: Callable[..., Village]) -> None:
    at = village("alice", "bob", "carol", least=100)
    alice, bob = at.people["alice"], at.people["bob"]
    at.say("alice", bob.person, "hi")
    at.deliver()
    bob.introductions.most_named = 1
    at.say("bob", alice.person, "on its way")
    with bob.transaction():
        for each in (account_of("alice"), account_of("dave", key="another")):
            bob.introductions.take_cards(at.people["carol"].person, [card_of(each, at.now).encode()])
    at.deliver()
    assert "on its way" in at.texts("alice", bob.person)


def test_a_contact_who_has_an_account_by_now_is_that(village: Callable[..., Village]) -> None:
    """Before the device itself has said so: their account was added by hand."""
    at = village("alice", "bob", least=100)
    alice, bob = at.people["alice"], at.people["bob"]
    alice.change_account(account_of("alice"), at.now)
    bob.add_contact(alice.card, at.now)
    for _ in range(2):
        owner = at.people["bob"].contacts.owner_of(alice.identity.id.key)
        assert owner is not None
        assert owner.person == alice.person
        reopen(at, "bob")


def test_whoever_claims_a_device_of_ours_changes_nothing_of_it(village: Callable[..., Village]) -> None:
    """What that device had was shown as theirs, and once they were blocked large groups lacked what it said."""
    at = village("bob", "phone", "alice", least=2)
    at.share_account("bob", "phone")
    bob, phone, alice = (at.people[each] for each in ("bob", "phone", "alice"))
    group = at.group("bob", "alice")
    phone.spreading.joined.add(group)
    mallory = come(at, "phone")
    said = bob.send_event(alice.person, EventKind.TEXT, {"text": "hello"}, at.now)
    at.deliver()
    assert bob.store.read_receipts(said.event.id) == {alice.person: False}
    bob.update_contact(mallory.person, blocked=True)
    assert bob.spreading.may_spread(group, phone.identity.id.key)


def test_nobody_has_us_write_to_ourselves(village: Callable[..., Village]) -> None:
    """Letters to the device that wrote them waited for ever, and in large groups all others' with them."""
    at = village("bob", "alice", least=1)
    bob, group = at.people["bob"], at.group("bob", "alice")
    mallory = come(at, "bob")
    bob.change_group(group, Act.ADD, at.now, subject=mallory.person)
    at.say("bob", mallory.person, "who are you?")
    at.say("bob", group, "who is that?")
    bob.set_profile("Bob", bob.card.mailboxes, at.now)
    assert bob.identity.id.key not in bob.devices_of(group)
    assert bob.identity.id.key not in bob.store.spread.load_readers(group)
    assert bob.store.count_waiting(bob.identity.id.key) == 0


@pytest.mark.parametrize("owner", ["bob", "alice"])
def test_nobody_gets_what_waits_for_a_device_that_is_revoked(
    village: Callable[..., Village], owner: str
) -> None:
    """Whoever has it could name it in a card of their own: what waited for it went there."""
    at = village("bob", "alice", "phone", least=2)
    at.share_account(owner, "phone")
    bob, alice, device = at.people["bob"], at.people["alice"], at.people["phone"].identity.id.key
    group = at.group("bob", "alice")
    at.people["phone"].spreading.joined.add(group)
    at.say("bob", group, "here is the key")
    at.deliver()
    come(at, "phone")
    at.say("bob", group, "to all")
    at.say("bob", alice.person, "to you alone")
    assert not bob.store.spread.load_readers(group)[device][0] > bob.store.spread.list_spread(group)[0].number
    account = at.people[owner].account
    assert account is not None
    at.people[owner].change_account(account.remove(at.people["phone"].identity.id), at.now + 1)
    bob.take_found_card(at.people[owner].card, Nearness.ANYWHERE, at.now)
    at.now += bob.spreading.patience_ms
    bob.spreading.hand_over_due(at.now)
    assert bob.store.count_waiting(device) == 0
    assert device not in bob.store.spread.load_readers(group)
    assert alice.identity.id.key in bob.store.spread.load_readers(group)


def test_who_has_another_key_by_now_gets_nothing_that_waited_for_former_devices(
    village: Callable[..., Village],
) -> None:
    """It went on waiting, and went to whoever named one of them."""
    at = village("alice", "bob", "phone", least=100)
    at.share_account("alice", "phone")
    alice, bob, device = at.people["alice"], at.people["bob"], at.people["phone"].identity.id.key
    bob.contacts.consent = "ask"
    at.say("bob", alice.person, "hello")
    assert alice.account is not None
    devices = [Device(alice.identity.id.key)]
    rotated = Account.rotate(
        alice.account.card,
        known_identity("recovery"),
        known_identity("key2"),
        known_identity("recovery2").id,
        devices,
    )
    at.people.pop("phone").close()
    alice.change_account(rotated, at.now + 1)
    bob.take_found_card(alice.card, Nearness.ANYWHERE, at.now)
    assert bob.contacts.is_waiting(alice.person)
    assert bob.store.count_waiting(device)
    bob.known_people.accept_key(alice.person, at.now)
    assert not bob.store.count_waiting(device)
    assert bob.store.count_waiting(alice.identity.id.key)


@pytest.mark.parametrize("how", ["found", "handed over", "with a group", "by the device itself"])
def test_an_older_card_makes_no_revoked_device_one_again(village: Callable[..., Village], how: str) -> None:
    at = village("alice", "bob", "carol", "phone", least=100)
    at.share_account("alice", "phone")
    alice, bob, carol, phone = (at.people[each] for each in ("alice", "bob", "carol", "phone"))
    older, device = alice.card, phone.identity.id.key
    assert alice.account is not None
    at.people.pop("phone")
    alice.change_account(alice.account.remove(phone.identity.id), at.now + 1)
    at.say("alice", bob.person, "the phone is lost")
    at.deliver()
    at.people["phone"] = phone
    if how == "found":
        bob.take_found_card(older, Nearness.NETWORK, at.now)
    elif how == "handed over":
        bob.add_contact(older, at.now)
    elif how == "with a group":
        with bob.transaction():
            bob.introductions.take_cards(carol.person, [older.encode()])
    else:
        with phone.transaction():
            phone.enqueue_event([bob.identity.id.key], phone.card_event(older, at.now), at.now)
    at.say("phone", bob.person, "it's me")
    at.deliver()
    assert bob.get_contact(alice.person).card.signature == alice.card.signature
    assert device not in bob.devices_of(alice.person)
    assert bob.contacts.owner_of(device) is None
    assert at.texts("bob", alice.person) == ["the phone is lost"]


def test_a_revoked_device_that_shows_an_older_card_has_no_say_in_anything(
    village: Callable[..., Village],
) -> None:
    at = village("alice", "bob", "phone", least=100)
    at.share_account("alice", "phone")
    alice, bob, phone = (at.people[each] for each in ("alice", "bob", "phone"))
    older = alice.card
    at.say("bob", alice.person, "hello")
    at.deliver()
    (message,) = bob.read_history(alice.person)
    at.say("alice", bob.person, "the phone is lost")
    at.revoke("alice", "phone")
    at.deliver()
    forged = Event(EventKind.TEXT, bob.person, 9, at.now, {"text": "sell it all"})
    copy = Event(EventKind.COPY, bob.person, 0, at.now, {"sender": bob.person, "event": forged.encode()})
    read = Event(EventKind.READ, bob.person, 0, at.now, {"targets": [message.id]})
    typing = Event(EventKind.TYPING, bob.person, 0, at.now, {"on": True})
    for name, told in (("alice", copy), ("bob", read)):
        to = at.people[name].identity.id.key
        phone.desk.begin_session(to, at.bundle(name))
        with phone.transaction():
            phone.desk.enqueue_event([to], phone.card_event(older, at.now))
            phone.desk.enqueue_event([to], told)
        at.deliver()
        assert at.people[name].desk.said_person(phone.identity.id.key) == alice.person  # it says so
    outbound = phone.desk.seal_answer(bob.identity.id.key, payload=typing.encode())
    assert outbound is not None
    _, notices = bob.receive_envelopes([outbound.envelope], at.now)
    assert notices == []
    assert at.texts("alice", bob.person) == ["hello", "the phone is lost"]
    assert bob.store.read_receipts(message.id) == {alice.person: False}  # the laptop has got it
