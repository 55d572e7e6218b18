"""Devices for which nothing more is kept until they answer: nobody else waits, and they get it later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from post_office import known_identity
from village import NOW, Village, villages

from dtp.carriers.nearness import Nearness
from dtp.identity import Account, Device
from dtp.messaging.cards import ContactCard
from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.conversation.operations import Act, MemberRole
from dtp.messaging.conversation.state import Said
from dtp.messaging.ends.order import MAX_UNACKNOWLEDGED
from dtp.messaging.errors import QueueFull
from dtp.messaging.person.correspondence import Correspondence
from dtp.messaging.person.storage import missed_store


def fall_silent(village: Village, name: str, to: str) -> None:
    """Have as much wait for somebody's device as is kept."""
    mail, other = village.people[name], village.people[to]
    read = Event(EventKind.READ, other.person, 0, NOW, {"targets": [bytes(16)]})
    with mail.transaction():
        for _ in range(MAX_UNACKNOWLEDGED):
            mail.enqueue_event([other.identity.id.key], read, NOW)


@contextmanager
def silent(village: Village, name: str, to: str) -> Iterator[None]:
    """Have somebody's device count as if so much waited for it, where one event does."""
    mail, other = village.people[name], village.people[to]
    read = Event(EventKind.READ, other.person, 0, NOW, {"targets": [bytes(16)]})
    with mail.transaction():
        mail.enqueue_event([other.identity.id.key], read, NOW)
    outgoing = mail.desk.peer_of(other.identity.id.key).remote.outgoing
    outgoing.acknowledged -= MAX_UNACKNOWLEDGED
    yield
    outgoing.acknowledged += MAX_UNACKNOWLEDGED


@pytest.mark.slow
@pytest.mark.parametrize("least", [2, 100])
def test_a_group_goes_on_beside_a_device_that_is_silent_and_it_gets_what_it_has_missed(
    tmp_path: Path, least: int
) -> None:
    """All that was said raised QueueFull, and so did each pass of delivery and each card that came."""
    with villages(tmp_path) as make:
        village = make("alice", "bob", "carol", least=least)
        group = village.group("alice", "bob", "carol")
        fall_silent(village, "alice", "bob")
        alice, bob = village.people["alice"], village.people["bob"]
        texts = [f"text {each}" for each in range(3)]
        for each in texts:
            village.say("alice", group, each)
        alice.set_profile("Alice", alice.card.mailboxes, NOW + 1)
        edited, deleted = (each.id for each in alice.read_history(group)[:2])
        alice.send_event(group, EventKind.EDIT, {"target": edited, "text": "edited"}, NOW)
        alice.send_event(group, EventKind.DELETE, {"target": deleted}, NOW)
        alice.spreading.hand_over_now(group)
        with pytest.raises(QueueFull):
            alice.send_event(bob.person, EventKind.TEXT, {"text": "are you there?"}, NOW)
        village.deliver()
        for name in ("bob", "carol"):
            assert village.texts(name, group) == ["edited", "", "text 2"]
        contact = bob.contacts.get_contact(alice.person)
        assert contact is not None
        assert contact.name == "Alice"
        alice.send_event(bob.person, EventKind.TEXT, {"text": "there you are"}, NOW)
        village.deliver()
        assert village.texts("bob", alice.person) == ["there you are"]


def test_who_has_missed_a_card_alone_gets_it(tmp_path: Path) -> None:
    """It wrote to mailboxes that had gone, until something else was said to it."""
    with villages(tmp_path) as make:
        village = make("alice", "bob")
        alice, bob = village.people["alice"], village.people["bob"]
        village.say("alice", bob.person, "hello")
        village.deliver()
        with silent(village, "alice", "bob"):
            alice.set_profile("Alice", ["dtp+tcp://dtp1qqqq@moved:1"], NOW + 1)
        village.deliver()
        assert bob.get_contact(alice.person).card == alice.card


def replaced_key(mail: Correspondence, account: Account) -> ContactCard:
    """Return somebody's card by another key of their account."""
    key, recovery = known_identity("next key"), known_identity("next recovery")
    made = Account.rotate(account.card, known_identity("recovery"), key, recovery.id, account.card.devices)
    card = ContactCard(key.id.key, made.card, mail.card.sequence + 1, 0, "", mail.card.mailboxes)
    return card.signed_by(key)


def test_what_was_missed_waits_for_a_key_to_be_accepted_and_for_nothing_that_has_gone(tmp_path: Path) -> None:
    with villages(tmp_path) as make:
        village = make("alice", "bob", "carol", least=100)
        alice, bob = village.people["alice"], village.people["bob"]
        devices = [Device(bob.identity.id.key)]
        account = Account.create(known_identity("key"), known_identity("recovery").id, devices)
        bob.change_account(account, NOW)
        alice.add_contact(bob.card, NOW)
        group = village.group("alice", "bob", "carol")
        with silent(village, "alice", "bob"):
            village.say("alice", group, "first")
            with alice.transaction():
                for number in range(2500):  # what has disappeared since
                    alice.store.missed.add_event(bob.identity.id.key, number.to_bytes(16, "big"))
            village.say("alice", group, "last")
        alice.contacts.consent = "ask"
        alice.take_found_card(replaced_key(bob, account), Nearness.ANYWHERE, village.now)
        village.deliver()
        assert village.texts("bob", group) == []
        alice.known_people.accept_key(bob.person, village.now)
        village.say("alice", bob.person, "there you are")
        village.deliver()
        assert village.texts("bob", group) == ["first", "last"]


def test_what_is_said_in_a_group_meanwhile_waits_for_a_key_to_be_accepted(tmp_path: Path) -> None:
    """Nobody said that it went to all others but to one."""
    with villages(tmp_path) as make:
        village = make("alice", "bob", "carol", least=100)
        alice, bob, carol = (village.people[each] for each in ("alice", "bob", "carol"))
        account = with_account(village)
        group = village.group("alice", "bob")
        alice.contacts.consent = "ask"
        alice.take_found_card(replaced_key(bob, account), Nearness.ANYWHERE, village.now)
        village.say("alice", group, "meanwhile")
        alice.change_group(group, Act.ADD, village.now, subject=carol.person, role=MemberRole.MEMBER)
        village.deliver()
        village.now += 1000
        village.say("carol", group, "hello")
        village.deliver()
        assert village.texts("bob", group) == []
        alice.known_people.accept_key(bob.person, village.now)
        village.say("alice", bob.person, "there you are")
        village.deliver()
        assert village.texts("bob", group) == ["meanwhile", "hello"]
        assert carol.person in bob.groups[group].members.roles


def test_of_what_waits_for_a_key_to_be_accepted_the_newest_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may never be accepted."""
    monkeypatch.setattr(missed_store, "WAITING", 20)
    with villages(tmp_path) as make:
        village = make("alice", least=100)
        store, device = village.people["alice"].store, bytes(32)
        ids = [number.to_bytes(16, "big") for number in range(300)]
        with store.transaction():
            for each in (b"", *ids):
                store.missed.add_waiting(device, each)
            kept = store.missed.take_events(device, 1000)
        assert kept[0] == b""  # that it has to be told how groups are
        assert kept[1:] == ids[len(ids) - len(kept) + 1 :]
        assert 20 <= len(kept) <= 121


def test_what_somebody_said_in_a_group_behind_their_removal_stays_hidden_whatever_key_is_accepted(
    tmp_path: Path,
) -> None:
    """It was shown with all that their new key had written."""
    with villages(tmp_path) as make:
        village = make("alice", "bob", "carol", least=100)
        alice, bob = village.people["alice"], village.people["bob"]
        account = with_account(village)
        group = village.group("alice", "bob", "carol")
        alice.change_group(group, Act.REMOVE, village.now, subject=bob.person)
        village.say("bob", group, "still here")
        village.say("bob", alice.person, "hello")
        village.deliver()
        alice.contacts.consent = "ask"
        alice.take_found_card(replaced_key(bob, account), Nearness.ANYWHERE, village.now)
        alice.known_people.accept_key(bob.person, village.now)
        assert village.texts("alice", group) == []
        assert village.texts("alice", bob.person) == ["hello"]


def with_account(village: Village) -> Account:
    """Return an account of Bob's, which Alice knows of."""
    bob = village.people["bob"]
    devices = [Device(bob.identity.id.key)]
    account = Account.create(known_identity("key"), known_identity("recovery").id, devices)
    bob.change_account(account, NOW)
    village.people["alice"].add_contact(bob.card, NOW)
    return account


def test_a_new_device_of_ours_gets_all_of_the_past_however_much_waits_for_it(tmp_path: Path) -> None:
    with villages(tmp_path) as make:
        village = make("alice", "bob", "phone")
        village.share_account("alice", "phone")
        alice, phone, bob = (village.people[each] for each in ("alice", "phone", "bob"))
        for number, mail in enumerate((alice, bob)):
            event = Event(EventKind.TEXT, bob.person, number, NOW, {"text": f"of {number}"})
            with alice.transaction():
                said = Said(mail.person, event)
                alice.store.add_said(bob.person, said, unread=False, held=False, vanishes=0)
        with silent(village, "alice", "phone"):
            assert alice.missed.send_history(phone.identity.id.key, 0, NOW) == 2
        village.deliver()
        assert village.texts("phone", bob.person) == ["of 0", "of 1"]
