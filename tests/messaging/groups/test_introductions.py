"""Cards that somebody tells of others: they take no places from people who write, nor from those whom others name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from village import NOW, Village, villages

from dtp.carriers.nearness import Nearness
from dtp.identity import Account, Device, Identity
from dtp.messaging.cards import ContactCard
from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.conversation.operations import Act, Operation

#: Instead of 2,048 and 1,000.
MAX_NAMED, MAX_STRANGERS = 40, 20


@pytest.fixture
def village(tmp_path: Path) -> Iterator[Callable[..., Village]]:
    with villages(tmp_path) as make:

        def make_small(*names: str, acquainted: bool = True) -> Village:
            at = make(*names, acquainted=acquainted)
            introductions = at.people["alice"].introductions
            introductions.most_named, introductions.most_strangers = MAX_NAMED, MAX_STRANGERS
            return at

        yield make_small


def cards(count: int) -> list[ContactCard]:
    made = [Identity.generate() for _ in range(count)]
    return [ContactCard(each.id.key, None, NOW, 0, "", ()).signed_by(each) for each in made]


def tell(at: Village, name: str, to: str, told: list[ContactCard]) -> None:
    """Have somebody tell another cards as those of a group that this one hears nothing else of."""
    mail = at.people[name]
    with mail.transaction():
        device = at.people[to].identity.id.key
        mail.group_states.send_some(b"g" * 32, [device], [], told, at.now)
    at.deliver()


def known(at: Village, name: str, told: list[ContactCard]) -> int:
    return sum(at.people[name].contacts.get_contact(each.person) is not None for each in told)


def test_who_names_thousands_takes_no_place_of_who_writes(village: Callable[..., Village]) -> None:
    """Who sent a thousand cards kept everybody else from being heard: strangers had so many places together."""
    at = village("mallory", "alice", "bob", acquainted=False)
    junk = cards(MAX_STRANGERS + 10)
    tell(at, "mallory", "alice", junk)
    alice, bob = at.people["alice"], at.people["bob"]
    bob.add_contact(alice.card, NOW)
    at.say("bob", alice.person, "hello")
    at.deliver()
    assert at.texts("alice", bob.person) == ["hello"]
    assert known(at, "alice", junk) == len(junk)


def test_whoever_names_most_loses_them_to_whom_others_name(village: Callable[..., Village]) -> None:
    at = village("mallory", "alice", "bob", acquainted=False)
    bob = at.people["bob"]
    bob.add_contact(at.people["alice"].card, NOW)
    junk, wanted = cards(MAX_NAMED + 10), cards(MAX_NAMED // 2)
    tell(at, "mallory", "alice", junk)
    assert known(at, "alice", junk) == MAX_NAMED
    tell(at, "bob", "alice", wanted)
    assert known(at, "alice", wanted) == len(wanted)
    tell(at, "mallory", "alice", cards(MAX_NAMED))
    assert known(at, "alice", wanted) == len(wanted)
    assert len(list(at.people["alice"].contacts)) == MAX_NAMED + 2


def test_strangers_take_no_places_of_whom_a_contact_names(village: Callable[..., Village]) -> None:
    at = village("mallory", "alice", "bob", acquainted=False)
    alice, bob = at.people["alice"], at.people["bob"]
    alice.add_contact(bob.card, NOW)
    bob.add_contact(alice.card, NOW)
    tell(at, "mallory", "alice", cards(MAX_NAMED))
    wanted = cards(MAX_NAMED)
    tell(at, "bob", "alice", wanted)
    assert known(at, "alice", wanted) == len(wanted)


def test_a_group_that_a_contact_makes_fits_whatever_strangers_have_told(
    village: Callable[..., Village],
) -> None:
    at = village("bob", "alice", "mallory")
    alice, bob = at.people["alice"], at.people["bob"]
    alice.update_contact(at.people["mallory"].person, stranger=True)
    tell(at, "mallory", "alice", cards(MAX_NAMED))
    members, bob.group_states.most_sent = cards(MAX_NAMED), 1 << 40
    for each in members:
        bob.add_contact(each, NOW)
    group = bob.create_group("choir", [alice.person, *(each.person for each in members)], NOW)
    waiting = [each for each in bob.store.due_payloads(NOW, 10_000) if each.device == alice.identity.id.key]
    with alice.transaction():
        for event in [Event.parse(one.payload) for one in waiting]:
            if event.kind is EventKind.MEMBERSHIP:
                alice.group_states.process_event(bob.identity.id.key, bob.person, event, NOW)
    assert at.is_member("alice", group)
    assert known(at, "alice", members) == len(members)


def test_who_is_named_and_writes_then_has_a_place_of_their_own(village: Callable[..., Village]) -> None:
    at = village("mallory", "alice", "bob", acquainted=False)
    alice, bob = at.people["alice"], at.people["bob"]
    tell(at, "mallory", "alice", [bob.card.public()])
    assert alice.get_contact(bob.person).named_by == at.people["mallory"].person
    bob.add_contact(alice.card, NOW)
    at.say("bob", alice.person, "hello")
    at.deliver()
    assert alice.get_contact(bob.person).named_by == b""
    tell(at, "mallory", "alice", cards(MAX_NAMED))
    assert at.texts("alice", bob.person) == ["hello"]
    assert alice.get_contact(bob.person).stranger


def test_once_all_places_of_strangers_are_taken_who_is_named_does_not_write_either(
    village: Callable[..., Village],
) -> None:
    """Whoever had an accomplice name them had a place beyond the last one."""
    at = village("mallory", "alice", "bob", acquainted=False)
    alice, bob = at.people["alice"], at.people["bob"]
    with alice.transaction():
        for each in cards(MAX_STRANGERS):
            alice.take_contact(each, Nearness.ANYWHERE, stranger=True)
    alice.add_contact(at.people["mallory"].card, NOW)
    tell(at, "mallory", "alice", [bob.card.public()])
    assert known(at, "alice", [bob.card]) == 1
    bob.add_contact(alice.card, NOW)
    at.say("bob", alice.person, "hello")
    at.deliver()
    assert at.texts("alice", bob.person) == []


def account_cards(count: int) -> list[tuple[ContactCard, Identity]]:
    """Return that many cards of one account, and of each a device that it names."""
    key, devices = Identity.generate(), [Identity.generate() for _ in range(count)]
    account = Account.create(key, Identity.generate().id, [Device(devices[0].id.key)], now_ms=1)
    made = []
    for number, each in enumerate(devices):
        if number:
            account = account.add(each.id, now_ms=2 * number).remove(
                devices[number - 1].id, now_ms=2 * number + 1
            )
        card = ContactCard(key.id.key, account.card, number, 0, "", ()).signed_by(key)
        made.append((card, each))
    return made


def show_former(at: Village, teller: str, shown: list[tuple[ContactCard, Identity]]) -> None:
    """Have somebody show Alice cards of devices that have signed something of a group, and are gone."""
    alice = at.people["alice"]
    operations = [
        Operation.sign(device, card.person, Act.NAME, parents=[b"p" * 32]) for card, device in shown
    ]
    with alice.transaction():
        alice.former_devices.keep_shown(
            b"g" * 32, at.people[teller].person, [card.encode() for card, _ in shown], operations
        )


def kept_former(at: Village, shown: list[tuple[ContactCard, Identity]]) -> int:
    spoke = at.people["alice"].former_devices.spoke_for
    return sum(spoke(b"g" * 32, device.id.key, card.person) for card, device in shown)


def test_one_account_takes_few_of_the_places_of_former_devices(village: Callable[..., Village]) -> None:
    """Whoever had many devices took all 256 of a group, and who joined didn't read what others had built on."""
    at = village("alice", "bob", "mallory")
    flood, wanted = account_cards(20), account_cards(1)
    show_former(at, "mallory", flood)
    show_former(at, "mallory", wanted)
    assert kept_former(at, flood) == 16
    assert kept_former(at, wanted) == 1


def test_who_shows_most_former_devices_loses_them_to_whom_others_show(
    village: Callable[..., Village],
) -> None:
    at = village("alice", "bob", "mallory")
    flood, wanted = [account_cards(1)[0] for _ in range(30)], [account_cards(1)[0] for _ in range(8)]
    at.people["alice"].former_devices.most = 20
    show_former(at, "mallory", flood)
    assert kept_former(at, flood) == 20
    show_former(at, "bob", wanted)
    show_former(at, "mallory", flood)
    assert kept_former(at, wanted) == 8
    assert kept_former(at, flood) == 12
