"""Devices that the newest card doesn't name any more: nothing is sent to them, whatever way it would go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from post_office import PostOffice, known_identity, post_office, take, wait_notice
from village import Village

from dtp.carriers.nearness import Nearness
from dtp.cli.send_person import send_to_person
from dtp.identity import Account, Device, Identity, PeerId
from dtp.messaging.cards import ContactCard
from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.errors import ContactBlocked, MessageError
from dtp.messaging.mailbox import MailboxClient
from dtp.messaging.mailbox.pool import connect_plainly
from dtp.messaging.person.card_sources import CardEnded, CardSource
from dtp.messaging.person.correspondence import Correspondence
from dtp.messaging.person.messenger import Messenger
from dtp.messaging.person.notices import Notice, What

Make = Callable[..., Village]


def waiting_for(mail: Correspondence, device: Correspondence, now: int) -> int:
    key = device.identity.id.key
    return sum(each.device == key for each in mail.store.due_payloads(now + 10**12, 100))


def test_what_is_said_in_a_call_does_not_wait_for_a_device_that_is_gone(village: Make) -> None:
    """It waited for ever, and so did `wait_delivered`."""
    at = village("alice", "phone", "bob", least=0, acquainted=False)
    at.share_account("alice", "phone")
    alice, phone, bob = (at.people[each] for each in ("alice", "phone", "bob"))
    at.say("bob", alice.person, "hello")
    at.deliver()
    called = bob.devices_of(alice.person)
    at.revoke("alice", "phone")
    at.deliver()
    bob.say_to_devices(
        called, Event(EventKind.CALL, alice.person, 0, at.now, {"call": bytes(16), "act": 6}), at.now
    )
    assert (waiting_for(bob, alice, at.now), waiting_for(bob, phone, at.now)) == (1, 0)


def test_what_waits_goes_to_no_device_that_a_card_which_waits_for_consent_has_left_out(village: Make) -> None:
    at = village("alice", "phone", "bob", least=0)
    at.share_account("alice", "phone")
    alice, phone, bob = (at.people[each] for each in ("alice", "phone", "bob"))
    assert alice.account is not None
    at.say("bob", alice.person, "are you there?")
    bob.contacts.consent = "ask"
    left = [Device(alice.identity.id.key, "laptop")]
    key, after = known_identity("next key"), known_identity("next recovery")
    rotated = Account.rotate(alice.account.card, known_identity("recovery"), key, after.id, left)
    card = ContactCard(key.id.key, rotated.card, alice.card.sequence + 1, 0, "", alice.card.mailboxes)
    bob.take_found_card(card.signed_by(key), Nearness.ANYWHERE, at.now)
    assert bob.find_route(alice.identity.id.key).mailboxes == alice.card.mailboxes
    assert bob.find_route(phone.identity.id.key).mailboxes == ()
    bob.known_people.accept_key(alice.person, at.now)
    assert (waiting_for(bob, alice, at.now), waiting_for(bob, phone, at.now)) == (2, 0)  # our card, and that


def test_who_was_never_written_to_hears_of_a_device_that_is_gone(village: Make) -> None:
    """A device of ours, and people who had written and weren't answered, went on sealing to it."""
    at = village("alice", "laptop", "phone", "bob", least=0, acquainted=False)
    at.share_account("alice", "laptop", "phone")
    alice, phone = at.people["alice"], at.people["phone"].identity.id.key
    at.say("bob", alice.person, "hello")
    at.deliver()
    at.revoke("alice", "phone")
    at.deliver()
    assert phone not in at.people["laptop"].own_devices
    assert phone not in at.people["bob"].devices_of(alice.person)


def test_an_older_card_of_ours_brings_no_device_back(village: Make) -> None:
    """What was written from then on went to it again, as a copy for ourselves."""
    at = village("alice", "laptop", "phone", "bob", least=0)
    at.share_account("alice", "laptop", "phone")
    laptop, phone = at.people["laptop"], at.people["phone"]
    older = laptop.card
    at.revoke("alice", "phone")
    at.deliver()
    with pytest.raises(MessageError, match="older"):
        laptop.join_account(older, at.now)
    laptop.join_account(laptop.card, at.now)
    assert phone.identity.id.key not in laptop.own_devices


def two_owners(village: Make) -> tuple[Village, Account]:
    """Two machines that have the account's key, and a phone."""
    at = village("alice", "desk", "phone", "tablet", "bob", least=0, acquainted=False)
    at.share_account("alice", "desk", "phone")
    account = at.people["alice"].account
    assert account is not None
    at.people["desk"].change_account(account, at.now)
    at.say("bob", at.people["alice"].person, "hello")
    at.deliver()
    return at, account


def test_a_phone_that_is_revoked_while_another_machine_adds_one_stays_revoked(village: Make) -> None:
    """The larger of two signatures won, and nobody was told that the other change was lost."""
    at, account = two_owners(village)
    alice, desk, phone, bob = (at.people[each] for each in ("alice", "desk", "phone", "bob"))
    tablet = known_identity("tablet").id
    desk.change_account(account.add(tablet, "tablet"), at.now)
    at.revoke("alice", "phone")
    told = at.deliver()
    assert told["desk"] == [
        Notice(What.CARD_FORKED, alice.person, detail="doesn't name phone, doesn't name tablet"),
        Notice(What.OWN_CARD, alice.person),
    ]
    for mail in (alice, desk, bob):
        own = mail.own_devices if mail is not bob else bob.devices_of(alice.person)
        assert phone.identity.id.key not in own
        assert tablet.key not in own
    assert desk.account is not None
    desk.change_account(desk.account.add(tablet, "tablet"), at.now)  # again, behind the other
    told = at.deliver()
    assert told["alice"] == [
        Notice(What.OWN_CARD, alice.person),
        Notice(What.DEVICES_CHANGED, alice.person, detail="names tablet"),
    ]
    assert alice.card.account == desk.card.account
    assert [device.label for device in alice.card.account.devices] == ["alice", "desk", "tablet"]


def two_owners_with_tablet(village: Make) -> tuple[Village, Account]:
    """Two machines that have the account's key, a phone and a tablet of that account."""
    at, account = two_owners(village)
    account = account.add(known_identity("tablet").id, "tablet")
    at.people["alice"].change_account(account, at.now)
    at.deliver()
    return at, account


@pytest.mark.parametrize("heard", ["by messages", "when it is opened", "where cards are found"])
def test_of_two_removals_at_once_both_count(village: Make, heard: str) -> None:
    """One was lost, and the device that was lost with it read on until somebody made the change again."""
    at, account = two_owners_with_tablet(village)
    alice, desk = at.people["alice"], at.people["desk"]
    without_phone, without_tablet = (account.remove(known_identity(each).id) for each in ("phone", "tablet"))
    if heard != "when it is opened":
        alice.change_account(without_phone, at.now)
    desk.change_account(without_tablet, at.now)
    if heard == "where cards are found":
        alice.take_found_card(desk.card.public(), Nearness.ANYWHERE, at.now)
    elif heard == "when it is opened":
        at.deliver()
        alice.change_account(without_phone, at.now)
    told = at.deliver()
    for mail in (alice, desk):
        assert mail.card.account is not None
        assert [device.label for device in mail.card.account.devices] == ["alice", "desk"]
    assert alice.card.account == desk.card.account
    assert at.people["bob"].devices_of(alice.person) == [each.identity.id.key for each in (alice, desk)]
    assert [each for who in told.values() for each in who if each.what is What.CARD_FORKED] == []


def test_a_device_that_only_the_lost_change_has_added_is_told_beside_both_removals(village: Make) -> None:
    at, account = two_owners_with_tablet(village)
    alice, desk = at.people["alice"], at.people["desk"]
    more = [known_identity(each).id for each in ("watch", "glasses")]
    alice.change_account(account.remove(known_identity("phone").id), at.now)
    changed = account.remove(known_identity("tablet").id)
    losing = replace(
        changed.card, devices=(*changed.card.devices, *(Device(each.key, "more") for each in more))
    )
    desk.change_account(Account(account.identity, losing.sign_with(account.identity)), at.now)
    told = at.deliver()
    assert alice.card.account is not None
    assert [each.label for each in alice.card.account.devices] == ["alice", "desk"]
    lost = "doesn't name phone, doesn't name more, doesn't name more"
    assert Notice(What.CARD_FORKED, alice.person, detail=lost) in told["desk"]


def test_two_who_add_at_once_take_nothing_out(village: Make) -> None:
    at, account = two_owners_with_tablet(village)
    alice, desk = at.people["alice"], at.people["desk"]
    alice.change_account(account.add(known_identity("watch").id, "watch"), at.now)
    desk.change_account(account.add(known_identity("glasses").id, "glasses"), at.now)
    at.deliver()
    assert alice.card.account is not None
    assert alice.card.account == desk.card.account
    labels = [device.label for device in alice.card.account.devices]
    assert labels in [["alice", "desk", "phone", "tablet", each] for each in ("watch", "glasses")]


def test_a_machine_with_a_key_that_was_replaced_signs_nothing_more(village: Make) -> None:
    """Its next card put back that from before, with the devices that were taken out since."""
    at, account = two_owners(village)
    alice, desk = at.people["alice"], at.people["desk"]
    devices = [Device(each.identity.id.key) for each in (alice, desk)]
    rotated = Account.rotate(
        *(account.card, known_identity("recovery"), known_identity("another key")),
        *(known_identity("another recovery").id, devices),
    )
    desk.change_account(rotated, at.now)
    told = at.deliver()
    assert [each.what for each in told["alice"]] == [
        What.OWN_KEY_REPLACED, What.OWN_CARD, What.DEVICES_CHANGED,
    ]  # fmt: skip
    with pytest.raises(MessageError, match="another key by now"):
        alice.set_profile("Alice", ["dtp+tcp://dtp1qqqq@box:1"], at.now)
    assert alice.card.account == rotated.card
    alice.change_account(Account(rotated.identity, rotated.card), at.now)
    alice.set_profile("Alice", ["dtp+tcp://dtp1qqqq@box:1"], at.now)
    assert alice.card.name == "Alice"


def test_a_machine_with_the_old_key_takes_a_card_of_another_key_that_is_found(village: Make) -> None:
    """It was told, kept the card from before, and signed its next one by the key that counts no more."""
    at, account = two_owners(village)
    alice, bob = at.people["alice"], at.people["bob"]
    rotated = Account.rotate(
        *(account.card, known_identity("recovery"), known_identity("another key")),
        *(known_identity("another recovery").id, [Device(alice.identity.id.key)]),
    )
    card = ContactCard(rotated.card.key, rotated.card, at.now, 0, "", ()).signed_by(rotated.identity)
    told = [alice.take_found_card(card, Nearness.ANYWHERE, at.now) for _ in range(2)]
    assert [[each.what for each in notices] for notices in told] == [
        [What.OWN_KEY_REPLACED, What.OWN_CARD, What.DEVICES_CHANGED], [],
    ]  # fmt: skip
    with pytest.raises(MessageError, match="another key by now"):
        alice.set_profile("Alice", [], at.now)
    at.deliver()
    assert bob.get_contact(alice.person).card.key == rotated.card.key


def test_a_machine_that_a_found_card_of_another_key_has_left_out_signs_nothing_more(village: Make) -> None:
    """It signed on by the old key, also after it was opened again: nobody took what it said."""
    at, account = two_owners(village)
    alice = at.people["alice"]
    rotated = Account.rotate(
        *(account.card, known_identity("recovery"), known_identity("another key")),
        *(known_identity("another recovery").id, [Device(known_identity("desk").id.key)]),
    )
    card = ContactCard(rotated.card.key, rotated.card, at.now, 0, "", ()).signed_by(rotated.identity)
    told = alice.take_found_card(card, Nearness.ANYWHERE, at.now)
    assert [each.what for each in told] == [What.OWN_KEY_REPLACED, What.REVOKED]
    with pytest.raises(MessageError, match="another key by now"):
        alice.set_profile("Alice", [], at.now)
    with pytest.raises(MessageError, match="another key by now"):
        alice.change_account(account.add(known_identity("tablet").id), at.now)
    alice.close()
    with pytest.raises(MessageError, match="another key by now"):
        at.open("alice", account=account)
    back = rotated.add(alice.identity.id, "alice", now_ms=at.now)
    again = at.open("alice", account=back)  # whoever has the new key names it again
    assert again.card.key == rotated.card.key


def test_a_device_that_was_removed_does_not_tell_of_the_card_that_named_it(village: Make) -> None:
    """It could have told for ever that two machines had changed the account, until somebody added it back."""
    at, account = two_owners(village)
    phone = at.people["phone"]
    other = account.add(known_identity("tablet").id, "tablet")
    at.revoke("alice", "phone")
    at.deliver()
    losing = ContactCard(other.card.key, other.card, at.now, 0, "", ()).signed_by(other.identity)
    to = [at.people[each].identity.id.key for each in ("alice", "desk")]
    with phone.transaction():
        phone.desk.enqueue_event(to, phone.card_event(losing, at.now))
    told = at.deliver()
    assert [
        each for who in ("alice", "desk") for each in told.get(who, []) if each.what is What.CARD_FORKED
    ] == []


def test_a_fork_is_told_once_however_often_the_card_that_does_not_count_is_found(village: Make) -> None:
    at, account = two_owners(village)
    desk = at.people["desk"]
    forks = [account.add(known_identity(each).id, each) for each in ("tablet", "watch")]
    losing = [
        ContactCard(each.card.key, each.card, at.now, 0, "", ()).signed_by(each.identity) for each in forks
    ]
    desk.change_account(account.remove(at.people["phone"].identity.id), at.now)
    told = [desk.take_found_card(each, Nearness.ANYWHERE, at.now) for each in (losing[0], *losing, losing[1])]
    assert [[each.what for each in notices] for notices in told] == [
        [What.CARD_FORKED], [], [What.CARD_FORKED], [],
    ]  # fmt: skip


def test_who_changes_the_profile_elsewhere_undoes_no_change_of_the_account(village: Make) -> None:
    """A machine that had heard of another card of the account signed by the one that it was opened with."""
    at, _ = two_owners(village)
    alice, desk, phone = (at.people[each] for each in ("alice", "desk", "phone"))
    at.revoke("alice", "phone")
    at.deliver()
    desk.set_profile("Alice at her desk", (), at.now + 2)
    at.deliver()
    for mail in (alice, desk):
        assert mail.card.name == "Alice at her desk"
        assert phone.identity.id.key not in mail.card.devices


def test_who_opens_a_machine_with_a_change_that_does_not_count_is_told(village: Make) -> None:
    """'dtp account add' on a machine whose file is older: the change was dropped without a word."""
    at, account = two_owners(village)
    at.revoke("alice", "phone")
    at.deliver()
    at.people["desk"].close()
    desk = at.people["desk"] = at.open("desk", account=account.add(known_identity("tablet").id, "tablet"))
    assert [each.what for each in desk.group_states.take_notices()].count(What.CARD_FORKED) == 1
    assert desk.account is not None
    assert [each.label for each in desk.account.card.devices] == ["alice", "desk"]
    desk.change_account(account, at.now)  # an older file is no fork
    assert desk.account.card.sequence == account.card.sequence + 1


def test_a_device_that_is_revoked_while_its_mailbox_is_dialled_is_sent_nothing(tmp_path: Path) -> None:
    async def main(at: PostOffice) -> None:
        box, others = await at.open(), await at.open("others")
        account = Account.create(
            known_identity("key"), known_identity("recovery").id, [Device(known_identity("alice").id.key)]
        )
        dialled, go_on = asyncio.Event(), asyncio.Event()

        async def connect(address: str, identity: Identity | None) -> MailboxClient:
            if identity is None and address == others:
                dialled.set()
                await go_on.wait()
            return await connect_plainly(address, identity)

        alice = await at.begin("alice", others, account=account)
        async with at.messenger("alice-phone") as phone:
            await phone.join(await alice.approve_device(phone.identity.id, "phone"))
            await phone.wait_reached()
            async with at.messenger("bob", box) as bob:
                await bob.add_contact(alice.card)
                await bob.send("alice", "hello")
                await take(phone, 1)
                await take(alice, 1)
                await bob.wait_delivered()
        async with at.messenger("bob", box, connect=connect) as bob:
            await bob.send("alice", "not for the phone")
            await dialled.wait()
            await alice.revoke_device(phone.identity.id)
            await wait_notice(bob, What.CONTACT_CHANGED)
            go_on.set()
            (message,) = await take(alice, 1)
            assert message.text == "not for the phone"
            await bob.wait_delivered()
        async with at.messenger("alice-phone") as phone:
            await phone.wait_collected()
            assert [each.text for each in await phone.history("bob")] == ["hello"]

    post_office(main, tmp_path, "revoked-meanwhile")


def test_a_device_that_was_revoked_while_it_was_away_hears_of_it_once(tmp_path: Path) -> None:
    """Nobody sends it anything any more, so it read on, and said nothing."""

    async def main(at: PostOffice) -> None:
        box = await at.open()
        account = Account.create(
            known_identity("key"), known_identity("recovery").id, [Device(known_identity("alice").id.key)]
        )
        async with at.messenger("alice", box, account=account) as alice:
            await alice.wait_reached()
            async with at.messenger("alice-phone") as phone:
                await phone.join(await alice.approve_device(phone.identity.id, "phone"))
                await phone.wait_collected()
            await alice.revoke_device(phone.identity.id)
            person = alice.card.person
        for _ in range(2):  # each program that runs there
            async with at.messenger("alice-phone") as phone:
                await phone.wait_collected()
                told = [each for each in phone.take_notices() if each.what is What.REVOKED]
                assert told == [Notice(What.REVOKED, person)]

    post_office(main, tmp_path, "revoked-away")


class EndedAccount(CardSource):
    async def check_card(self, card: ContactCard) -> None:
        if card.name == "alice":
            raise CardEnded("it was ended")


def test_no_file_goes_straight_to_the_device_of_an_account_that_was_ended(tmp_path: Path) -> None:
    async def main(at: PostOffice) -> None:
        box, taken = await at.open(), list[PeerId]()
        alice = await at.begin("alice", box)

        async def straight(device: PeerId, me: Identity) -> None:
            taken.append(device)

        async with at.messenger("bob", box) as bob:
            await bob.add_contact(alice.card)

        @asynccontextmanager
        async def opened() -> AsyncIterator[Messenger]:
            async with at.messenger("bob", box, cards=[EndedAccount()]) as bob:
                yield bob

        with pytest.raises(ContactBlocked):
            await send_to_person(opened(), tmp_path / "file", "alice", straight)
        assert taken == []

    post_office(main, tmp_path, "ended")
