"""Cards that end by their account's ('dtp account renew --days'): who has one is told, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from post_office import PostOffice, known_identity, post_office
from village import Village

from dtp.carriers.nearness import Nearness
from dtp.identity import Account, Device
from dtp.messaging.calls.signals import Signal, SignalAct
from dtp.messaging.cards import ContactCard
from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.errors import CardExpired
from dtp.messaging.person.card_sources import CardSource
from dtp.messaging.person.correspondence import Correspondence
from dtp.messaging.person.notices import Notice, What

Make = Callable[..., Village]
DAY = 86_400_000


def begin(village: Make, days: int) -> Village:
    """Return Alice, whose account's card holds for so many days (0: for ever), and Bob and Carol."""
    at = village("alice", "bob", "carol", least=0, acquainted=False)
    devices = [Device(at.people["alice"].identity.id.key)]
    account = Account.create(known_identity("key"), known_identity("recovery").id, devices, now_ms=at.now)
    at.people["alice"].change_account(account, at.now)
    renew(at, days)
    for each in ("bob", "carol"):
        at.people[each].add_contact(at.people["alice"].card, at.now)
        at.people["alice"].add_contact(at.people[each].card, at.now)
        at.say("alice", at.people[each].person, "hello")
    at.people["bob"].add_contact(at.people["carol"].card, at.now)
    at.people["carol"].add_contact(at.people["bob"].card, at.now)
    at.deliver()
    return at


def renew(at: Village, days: int) -> None:
    account = at.people["alice"].account
    assert account is not None
    ends = at.now + days * DAY if days else 0
    at.people["alice"].change_account(account.renew(ends, now_ms=at.now), at.now)


def replace_key(at: Village, days: int) -> Account:
    """Have Alice's account, by the key that recovers it, be of another device, by a card that holds for so many days
    (0: for ever) and that waits for Bob's consent, who gets a message from there."""
    alice, bob = at.people["alice"], at.people["bob"]
    bob.contacts.consent = "ask"
    assert alice.account is not None
    phone, after = known_identity("new phone").id.key, known_identity("next recovery").id
    rotated = Account.rotate(
        alice.account.card, known_identity("recovery"), known_identity("next key"), after, [Device(phone)]
    )
    made = rotated.renew(at.now + days * DAY if days else 0, now_ms=at.now)
    bob.take_found_card(card_of(at, made), Nearness.ANYWHERE, at.now)
    with bob.transaction():
        text = Event(EventKind.TEXT, bob.person, at.now + 1000, at.now, {"text": "it's me"})
        bob.take_said(phone, alice.person, text, at.now)
    return made


def card_of(at: Village, account: Account) -> ContactCard:
    before, key = at.people["alice"].card, account.identity
    card = ContactCard(
        key.id.key, account.card, before.sequence + account.card.sequence, 0, "", before.mailboxes
    )
    return card.signed_by(key)


def pass_time(at: Village, days: int) -> None:
    at.now += days * DAY
    for each in at.people.values():
        each.keep_up(at.now)


def take_notices(mail: Correspondence, *whats: What) -> list[Notice]:
    return [each for each in mail.group_states.take_notices() if each.what in whats]


def test_what_comes_after_a_card_has_ended_waits_for_a_new_one(village: Make) -> None:
    """It was shown as if nothing had happened."""
    at = begin(village, 30)
    alice, bob = at.people["alice"], at.people["bob"]
    pass_time(at, 31)
    assert take_notices(bob, What.CARD_EXPIRED) == [
        Notice(What.CARD_EXPIRED, alice.person, alice.person, detail=bob.get_contact(alice.person).name)
    ]
    at.say("alice", bob.person, "are you there?")
    at.deliver()
    assert at.texts("bob", alice.person) == ["hello"]
    with pytest.raises(CardExpired, match="ended"):
        at.say("bob", alice.person, "who are you?")
    pass_time(at, 1)
    assert take_notices(bob, What.CARD_EXPIRED, What.MESSAGE) == []  # it was told
    renew(at, 30)
    at.deliver()
    assert at.texts("bob", alice.person) == ["hello", "are you there?"]
    assert [each[2] for each in bob.store.list_unread()][-1] == alice.read_history(bob.person)[-1].id
    at.say("bob", alice.person, "there you are")
    at.deliver()
    assert at.texts("alice", bob.person)[-1] == "there you are"


def test_what_comes_with_the_new_card_is_told_once(village: Make) -> None:
    at = begin(village, 30)
    alice, bob = at.people["alice"], at.people["bob"]
    pass_time(at, 31)
    at.say("alice", bob.person, "first")
    at.deliver()
    renew(at, 30)
    at.say("alice", bob.person, "second")
    for device in alice.desk.devices_without_session(at.now):
        alice.desk.begin_session(device, at.bundle("bob"))
    sealed = [each.envelope for each in alice.desk.seal_due(at.now) if each.device == bob.identity.id.key]
    _, notices = bob.receive_envelopes(sealed, at.now)
    told = [each.message for each in notices if isinstance(each, Notice) and each.what is What.MESSAGE]
    assert told == [each.id for each in alice.read_history(bob.person)[1:]]


def test_a_group_goes_on_beside_a_member_whose_card_has_ended_and_they_miss_nothing(village: Make) -> None:
    at = begin(village, 30)
    alice, bob = at.people["alice"], at.people["bob"]
    group = at.group("bob", "alice", "carol")
    pass_time(at, 31)
    at.say("alice", group, "from alice")
    at.say("bob", group, "from bob")
    at.deliver()
    assert at.texts("carol", group) == at.texts("bob", group) == ["from bob"]
    assert at.texts("alice", group) == ["from alice"]
    renew(at, 30)
    at.deliver()
    for name in ("alice", "bob", "carol"):
        assert sorted(at.texts(name, group)) == ["from alice", "from bob"]
    assert bob.get_contact(alice.person).expired is False


def test_who_is_in_a_group_that_was_made_meanwhile_hears_of_it(village: Make) -> None:
    at = begin(village, 30)
    alice, bob = at.people["alice"], at.people["bob"]
    pass_time(at, 31)
    group = bob.create_group("choir", [alice.person, at.people["carol"].person], at.now)
    at.deliver()
    assert (at.is_member("alice", group), at.is_member("carol", group)) == (False, True)
    renew(at, 30)
    at.deliver()
    assert at.is_member("alice", group)


def test_nobody_rings_whose_card_has_ended(village: Make) -> None:
    at = begin(village, 30)
    alice, bob = at.people["alice"], at.people["bob"]
    offer = Signal(bytes(16), SignalAct.OFFER, "a=fingerprint:sha-256 " + ":".join(["AB"] * 32) + "\r\n")

    def call() -> list[object]:
        event = Event(EventKind.CALL, alice.person, 0, at.now, offer.to_fields())
        alice.say_to_devices([bob.identity.id.key], event, at.now)
        sealed = [each.envelope for each in alice.desk.seal_due(at.now)]
        return [each for each in bob.receive_envelopes(sealed, at.now)[1] if not isinstance(each, Notice)]

    assert len(call()) == 1
    pass_time(at, 31)
    assert call() == []


def test_ones_own_card_is_told_of_a_week_before_it_ends(village: Make) -> None:
    at = begin(village, 30)
    alice = at.people["alice"]
    assert take_notices(alice, What.OWN_CARD_ENDS) == []
    pass_time(at, 22)
    assert take_notices(alice, What.OWN_CARD_ENDS) == []
    pass_time(at, 2)
    (told,) = take_notices(alice, What.OWN_CARD_ENDS)
    assert (told.person, told.detail) == (alice.person, "2023-12-14 22:13 UTC")
    renew(at, 3)
    pass_time(at, 1)
    assert len(take_notices(alice, What.OWN_CARD_ENDS)) == 1


def test_a_clock_that_was_ahead_loses_nothing(village: Make) -> None:
    at = begin(village, 30)
    alice, bob = at.people["alice"], at.people["bob"]
    pass_time(at, 31)
    at.say("alice", bob.person, "are you there?")
    at.deliver()
    pass_time(at, -31)
    assert [each.what for each in take_notices(bob, What.MESSAGE)] == [What.MESSAGE]
    assert at.texts("bob", alice.person) == ["hello", "are you there?"]


def test_a_clock_that_was_ahead_shows_nothing_of_a_key_that_waits_for_consent(village: Make) -> None:
    at = begin(village, 30)
    alice, bob = at.people["alice"], at.people["bob"]
    replace_key(at, 0)
    pass_time(at, 31)
    pass_time(at, -31)
    assert at.texts("bob", alice.person) == ["hello"]
    bob.known_people.accept_key(alice.person, at.now)
    assert at.texts("bob", alice.person) == ["hello", "it's me"]


def test_a_key_is_accepted_whose_card_has_ended_and_nothing_shown_by_it(village: Make) -> None:
    at = begin(village, 0)
    alice, bob = at.people["alice"], at.people["bob"]
    account = replace_key(at, 30)
    pass_time(at, 31)
    accepted = bob.known_people.accept_key(alice.person, at.now)
    assert at.texts("bob", alice.person) == ["hello"]
    assert accepted.expired
    renewed = account.renew(at.now + DAY, now_ms=at.now)
    bob.take_found_card(card_of(at, renewed), Nearness.ANYWHERE, at.now)
    assert at.texts("bob", alice.person) == ["hello", "it's me"]


def test_a_key_that_is_accepted_after_the_card_before_has_ended_shows_all_at_once(village: Make) -> None:
    at = begin(village, 30)
    alice, bob = at.people["alice"], at.people["bob"]
    replace_key(at, 0)
    pass_time(at, 31)
    bob.known_people.accept_key(alice.person, at.now)
    assert at.texts("bob", alice.person) == ["hello", "it's me"]


def test_a_newer_card_is_looked_for_before_writing_is_refused(tmp_path: Path) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        devices = [Device(known_identity("alice").id.key)]
        account = Account.create(known_identity("key"), known_identity("recovery").id, devices, now_ms=1)
        alice = await at.begin("alice", box, account=account.renew(2, now_ms=1))
        expired = alice.card
        newer: list[ContactCard] = []

        class Found(CardSource):
            async def find_card(self, person: bytes) -> ContactCard | None:
                return newer[0] if newer else None

        bob = await at.begin("bob", box, cards=[Found()])
        assert (await bob.add_contact(expired)).expired
        with pytest.raises(CardExpired):
            await bob.send("alice", "hello")
        key = known_identity("key")
        renewed = account.renew(2, now_ms=1).renew(0, now_ms=3).card
        card = ContactCard(key.id.key, renewed, expired.sequence + 1, 0, "alice", (box,)).signed_by(key)
        newer.append(card)
        await bob.send("alice", "hello")

    post_office(main, tmp_path, "found-again")
