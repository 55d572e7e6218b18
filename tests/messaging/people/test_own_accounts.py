"""A person's own account, which changes while no program runs: who hears of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from post_office import PostOffice, known_identity, post_office, take, wait_notice
from village import NOW, Village

from dtp.identity import Account, Device
from dtp.messaging.cards import ContactCard
from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.conversation.state import Said
from dtp.messaging.errors import MessageError
from dtp.messaging.person.contacts import Consent
from dtp.messaging.person.correspondence import Correspondence
from dtp.messaging.person.notices import What


def rotate(account: Account, *devices: Device) -> Account:
    key, recovery = known_identity("key2"), known_identity("recovery2").id
    return Account.rotate(account.card, known_identity("recovery"), key, recovery, devices)


def reopen(at: Village, name: str, account: Account) -> None:
    at.people[name].close()
    at.people[name] = at.open(name, account=account)


def test_who_opens_a_device_with_another_key_of_the_account_tells_contacts(
    village: Callable[..., Village],
) -> None:
    """By 'dtp account rotate' or 'add' the account changes while no program runs: nobody heard of it."""
    at = village("alice", "bob", least=100)
    at.share_account("alice")
    at.people["bob"].add_contact(at.people["alice"].card, at.now)
    at.people["alice"].add_contact(at.people["bob"].card, at.now)
    at.say("alice", at.people["bob"].person, "by the first key")
    at.deliver()
    alice = at.people["alice"]
    assert alice.account is not None
    other = rotate(alice.account, *alice.account.card.devices)
    reopen(at, "alice", other)
    at.deliver()
    assert at.people["bob"].get_contact(alice.person).card.key == other.identity.id.key


def test_an_older_file_of_the_account_takes_no_device_out(village: Callable[..., Village]) -> None:
    """A copy of it, or a backup, made the card name fewer devices, which were forgotten."""
    at = village("alice", "phone", "bob", least=100)
    at.share_account("alice")
    before = at.people["alice"].account
    assert before is not None
    at.people["alice"].change_account(before.add(known_identity("phone").id, "phone"), at.now)
    reopen(at, "alice", before)
    newest = at.people["alice"].account
    assert newest is not None
    assert newest.card.names(known_identity("phone").id.key)
    assert at.people["alice"].card.account == newest.card
    at.people["alice"].change_account(rotate(newest, *newest.card.devices), at.now)
    with pytest.raises(MessageError, match="another key"):
        reopen(at, "alice", newest)


def test_an_account_that_does_not_name_the_device_is_refused(village: Callable[..., Village]) -> None:
    at = village("alice", "bob", least=100)
    account = Account.create(known_identity("key"), known_identity("recovery").id, [])
    with pytest.raises(MessageError, match="doesn't name this device"):
        reopen(at, "alice", account)
    at.people["alice"] = at.open("alice")
    assert at.people["alice"].person == known_identity("alice").id.key


def test_who_makes_an_account_later_stays_the_same_person(village: Callable[..., Village]) -> None:
    """Contacts had two of them, one a stranger, and what they wrote to the former one was lost."""
    at = village("alice", "bob", least=100)
    alice, bob = at.people["alice"], at.people["bob"]
    former = alice.person
    bob.update_contact(former, nickname="Al")
    at.say("alice", bob.person, "as an identity")
    at.say("bob", former, "to the identity")
    at.deliver()
    at.say("bob", former, "on its way")
    account = Account.create(
        known_identity("key"), known_identity("recovery").id, [Device(alice.identity.id.key)]
    )
    reopen(at, "alice", account)
    alice = at.people["alice"]
    at.deliver()
    (contact,) = bob.contacts
    assert (contact.person, contact.stranger, contact.nickname) == (alice.person, False, "Al")
    at.say("bob", alice.person, "to the account")
    at.say("alice", bob.person, "as an account")
    at.deliver()
    everything = ["as an identity", "to the identity", "on its way", "to the account", "as an account"]
    assert sorted(at.texts("alice", bob.person)) == sorted(everything)
    assert sorted(at.texts("bob", alice.person)) == sorted(everything)
    assert alice.store.list_conversations() == [bob.person]
    assert bob.store.list_conversations() == [alice.person]
    own = [each.text for each in alice.read_history(bob.person) if each.sender == alice.person]
    assert own == ["as an identity", "as an account"]
    reopen(at, "alice", account)
    assert at.texts("alice", bob.person) == at.texts("bob", alice.person)


@pytest.mark.parametrize("consent", ["tell", "ask"])
def test_who_is_blocked_stays_so_with_an_account(village: Callable[..., Village], consent: Consent) -> None:
    at = village("alice", "bob", least=100)
    alice, bob = at.people["alice"], at.people["bob"]
    bob.contacts.consent = consent
    at.say("alice", bob.person, "hello")
    at.deliver()
    bob.update_contact(alice.person, blocked=True)
    account = Account.create(
        known_identity("key"), known_identity("recovery").id, [Device(alice.identity.id.key)]
    )
    reopen(at, "alice", account)
    at.say("alice", bob.person, "it's me")
    at.deliver()
    assert [each.blocked for each in bob.contacts] == [True]
    assert [at.texts("bob", each) for each in bob.store.list_conversations()] == [["hello"]]


def test_nobody_becomes_an_account_while_in_a_group_as_an_identity(village: Callable[..., Village]) -> None:
    at = village("alice", "bob", "carol", least=100)
    group = at.group("bob", "alice", "carol")
    account = Account.create(
        known_identity("key"), known_identity("recovery").id, [Device(known_identity("alice").id.key)]
    )
    with pytest.raises(MessageError, match="leave them first"):
        reopen(at, "alice", account)
    at.people["alice"] = at.open("alice")
    assert at.is_member("alice", group)
    at.say("alice", group, "still here")
    at.deliver()
    assert at.texts("bob", group) == ["still here"]


def test_no_stranger_keeps_anybody_from_an_account_by_a_group(village: Callable[..., Village]) -> None:
    """Whoever was added to one had to leave it first, and could be added again at once."""
    at = village("mallory", "alice", least=100, acquainted=False)
    group = at.group("mallory", "alice")
    assert at.is_member("alice", group)
    account = Account.create(
        known_identity("key"), known_identity("recovery").id, [Device(known_identity("alice").id.key)]
    )
    reopen(at, "alice", account)
    assert at.people["alice"].person == account.card.account
    assert not at.is_member("alice", group)


def test_strangers_keep_no_contact_from_having_an_account(village: Callable[..., Village]) -> None:
    """With as many of them as are kept the account was one too many, and nobody heard of it."""
    at = village("alice", "bob", least=100)
    alice, bob = at.people["alice"], at.people["bob"]
    at.say("alice", bob.person, "hello")
    at.deliver()
    bob.introductions.most_strangers = 0
    account = Account.create(
        known_identity("key"), known_identity("recovery").id, [Device(alice.identity.id.key)]
    )
    reopen(at, "alice", account)
    at.deliver()
    assert [each.person for each in bob.contacts] == [account.card.account]


def test_what_was_said_of_replaced_keys_holds_the_next_time(tmp_path: Path) -> None:
    """At the command line nothing said it, so that nobody could ask for consent."""
    given: list[Consent | None] = [None, "ask", None, "tell", None]
    holds = []
    for each in given:
        mail = Correspondence(tmp_path / "alice.db", known_identity("alice"), NOW, consent=each)
        holds.append(mail.contacts.consent)
        mail.close()
    assert holds == ["tell", "ask", "ask", "tell", "tell"]


def test_what_several_have_told_and_is_held_back_stays_what_each_has_told(
    village: Callable[..., Village],
) -> None:
    """All of it became what the first of them had told."""
    at = village("alice", least=100)
    store, before, after = at.people["alice"].store, b"b" * 32, b"a" * 32
    place, tellers = b"g" * 32, [each * 32 for each in (b"1", b"2", b"3")]
    with at.people["alice"].transaction():
        for each in tellers:
            event = Event(EventKind.TEXT, place, 1, NOW, {"text": each.decode()}, b"i" * 16)
            said = Said(before, event, each)
            store.add_said(place, said, unread=False, held=True, vanishes=0)
        store.renamed.rename_person(before, after)
        for each in reversed(tellers):
            store.held.release_told(place, each)
            (shown,) = store.read_events(place)
            assert (shown.sender, shown.event.fields["text"].encode(), shown.told) == (after, each, each)


def test_what_has_disappeared_still_counts_in_the_order_of_what_is_said(
    village: Callable[..., Village],
) -> None:
    at = village("alice", least=100)
    store, before, after = at.people["alice"].store, b"b" * 32, b"a" * 32
    with at.people["alice"].transaction():
        for place, clock in ((before, 7), (after, 3)):
            said = Said(before, Event(EventKind.TEXT, place, clock, NOW, {"text": "x"}, place[:16]))
            store.add_said(place, said, unread=False, held=False, vanishes=1)
        store.delete_vanished(2)
        store.renamed.rename_person(before, after)
    assert store.next_clock(after, 0) == 8


def test_whoever_could_not_become_an_account_is_known_as_nobody_else(village: Callable[..., Village]) -> None:
    at = village("alice", "bob", least=100)
    alice = at.people["alice"]
    account = Account.create(
        known_identity("key"), known_identity("recovery").id, [Device(known_identity("alice").id.key)]
    )
    card = ContactCard(account.identity.id.key, account.card, NOW, 0, "", ()).signed_by(account.identity)

    def fail() -> None:
        with alice.transaction():
            alice.succession.become(alice.card, card)
            raise RuntimeError("full")

    with pytest.raises(RuntimeError, match="full"):
        fail()
    assert alice.succession.former == []


def two_devices_and_a_friend(village: Callable[..., Village]) -> tuple[Village, bytes, Account]:
    """Return Alice with a laptop and a phone, to which Bob has written as an identity; who he was; and an account of
    his, of which nobody knows yet."""
    at = village("laptop", "phone", "bob", least=100)
    at.share_account("laptop", "phone")
    bob = at.people["bob"]
    bob.add_contact(at.people["laptop"].card, at.now)
    at.say("bob", at.people["laptop"].person, "hello")
    at.deliver()
    account = Account.create(
        known_identity("bob's key"), known_identity("bob's recovery").id, [Device(bob.identity.id.key)]
    )
    return at, bob.person, account


def test_what_another_device_of_ours_says_to_who_has_an_account_by_now_is_said_to_that(
    village: Callable[..., Village],
) -> None:
    """It went into a conversation with nobody, on the device that had heard of the account."""
    at, former, account = two_devices_and_a_friend(village)
    laptop, phone = at.people["laptop"], at.people["phone"]
    (hello,) = [message for _, _, message in phone.store.list_unread()]
    at.say("phone", former, "to the identity")
    phone.mark_read(hello, at.now, tell=False)
    reopen(at, "bob", account)
    bob = at.people["bob"]
    held = {each: at.people.pop(each) for each in ("phone", "bob")}
    for name in ("bob", "phone"):  # the laptop hears of the account first
        at.people[name] = held[name]
        for device in held[name].desk.devices_without_session(at.now):
            held[name].desk.begin_session(device, at.bundle("laptop"))
        sealed = held[name].desk.seal_due(at.now)
        to_laptop = [each.envelope for each in sealed if each.device == laptop.identity.id.key]
        laptop.receive_envelopes(to_laptop, at.now)
    assert sorted(at.texts("laptop", bob.person)) == ["hello", "to the identity"]
    assert laptop.store.list_conversations() == [bob.person]
    assert laptop.store.list_unread() == []


def test_a_copy_of_what_was_said_as_the_identity_is_the_accounts(village: Callable[..., Village]) -> None:
    at, former, account = two_devices_and_a_friend(village)
    laptop, phone = at.people["laptop"], at.people["phone"]
    event = Event(EventKind.TEXT, laptop.person, 1, at.now, {"text": "long ago"})
    told = {"sender": former, "event": event.encode()}
    reopen(at, "bob", account)
    at.deliver()
    phone.say_to_devices([laptop.identity.id.key], Event(EventKind.COPY, former, 0, at.now, told), at.now)
    at.deliver()
    assert sorted(at.texts("laptop", at.people["bob"].person)) == ["hello", "long ago"]
    assert laptop.store.list_conversations() == [at.people["bob"].person]


def test_a_running_program_gives_what_came_before_its_sender_had_an_account(tmp_path: Path) -> None:
    """It was never given, and a message that the program had could not be answered."""

    async def main(at: PostOffice) -> None:
        box = await at.open()
        bob = await at.begin("bob", box)
        async with at.messenger("alice", box) as alice:
            for each in ("first", "second"):
                await alice.send(bob.card, each)
            await alice.wait_delivered()
            former = alice.identity.id
        news = aiter(bob)
        first = await anext(news)
        account = Account.create(known_identity("key"), known_identity("recovery").id, [Device(former.key)])
        async with at.messenger("alice", box, account=account) as alice:
            await wait_notice(bob, What.KEY_REPLACED)
            second = await anext(news)
            assert (second.text, second.conversation) == ("second", alice.card.person)
            answers = [await first.reply("to the first"), await bob.send(former, "to who wrote it")]
            assert {each.conversation for each in answers} == {alice.card.person}
            assert [each.text for each in await take(alice, 2)] == ["to the first", "to who wrote it"]

    post_office(main, tmp_path, "accounts")
