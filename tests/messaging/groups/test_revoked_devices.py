"""What people's devices make of a group in which a device has signed that was revoked, stolen or replaced since."""

from __future__ import annotations

from collections.abc import Callable

from post_office import known_identity
from village import Village

from dtp.carriers.nearness import Nearness
from dtp.identity import Account, Device
from dtp.messaging.cards import ContactCard
from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.conversation.operations import Act, MemberRole, Operation
from dtp.messaging.ends.order import resend_after


def begin(village: Callable[..., Village], *others: str) -> tuple[Village, bytes]:
    """Return people, of whom Alice has a phone as well, and a group that the phone has made with Bob."""
    at = village("alice", "phone", "bob", *others, least=0)
    at.share_account("alice", "phone")
    group = at.people["phone"].create_group("choir", [at.people["bob"].person], at.now)
    at.deliver()
    return at, group


def revoke_quietly(at: Village, group: bytes) -> None:
    """Have Alice revoke the phone on a device that doesn't know the group."""
    made = at.people["alice"].groups.pop(group)
    at.revoke("alice", "phone")
    at.deliver()
    at.people["alice"].groups[group] = made


def sign(at: Village, device: str, parents: list[bytes], act: Act, **fields: object) -> Operation:
    person = at.people["alice"].person
    return Operation.sign(known_identity(device), person, act, parents=parents, **fields)  # type: ignore[arg-type]


def test_a_revoked_device_gives_nobody_an_accomplice_once_they_are_in_the_group(
    village: Callable[..., Village],
) -> None:
    """Who had an old card, or none, took a forged addition for good, and sealed to the accomplice what they wrote."""
    at, group = begin(village, "carol", "eve")
    alice, carol, eve = at.people["alice"], at.people["carol"], at.people["eve"]
    at.revoke("alice", "phone")
    forged = sign(at, "phone", [group], Act.ADD, subject=eve.person, role=MemberRole.ADMINISTRATOR)
    shown = [each for each in alice.groups[group].operations.values() if each.act is not Act.RETIRE]
    at.pass_on("eve", "carol", group, *shown, forged)
    alice.change_group(group, Act.ADD, at.now, subject=carol.person)
    at.deliver()
    assert at.is_member("carol", group)
    assert eve.person not in carol.groups[group].members.roles
    at.pass_on("eve", "carol", group, forged)
    assert (
        carol.groups[group].members == alice.groups[group].members == at.people["bob"].groups[group].members
    )
    assert eve.identity.id.key not in carol.devices_of(group)


def test_revoking_costs_one_operation_in_each_group_and_none_where_the_person_never_was(
    village: Callable[..., Village],
) -> None:
    at, group = begin(village)
    other = at.people["bob"].create_group("others", [], at.now)
    at.people["bob"].group_states.send_state(other, at.people["alice"].card.devices, at.now)
    at.deliver()
    before = {each: len(made.operations) for each, made in at.people["alice"].groups.items()}
    at.revoke("alice", "phone")
    at.deliver()
    for name in ("alice", "bob"):
        after = {each: len(made.operations) for each, made in at.people[name].groups.items()}
        assert after == {group: before[group] + 1, other: before[other]}


def test_what_a_device_did_before_it_was_revoked_counts_where_it_comes_later(
    village: Callable[..., Village],
) -> None:
    """It was refused, and what was built on it waited for ever."""
    at, group = begin(village, "carol")
    alice, bob = at.people["alice"], at.people["bob"]
    late = sign(at, "phone", alice.groups[group].heads, Act.NAME, text="altos")
    alice.groups[group].add_operation(late, alice.is_authors)  # and Bob hasn't heard of it
    at.revoke("alice", "phone")
    at.deliver()
    assert bob.groups[group].members.name == "choir"
    at.pass_on("carol", "bob", group, late)
    assert bob.groups[group].members.name == "altos"
    unseen = sign(at, "phone", [late.id], Act.NAME, text="basses")
    at.pass_on("carol", "bob", group, unseen)
    assert bob.groups[group].members.name == "altos"


def test_what_a_new_device_does_counts_once_its_card_comes(village: Callable[..., Village]) -> None:
    """It was refused where it came first."""
    at, group = begin(village, "tablet", "carol")
    alice, bob = at.people["alice"], at.people["bob"]
    alice.change_group(group, Act.NAME, at.now, text="choir")
    at.deliver()
    early = sign(at, "tablet", alice.groups[group].heads, Act.NAME, text="altos")
    at.pass_on("carol", "bob", group, early)
    assert (bob.groups[group].members.name, bob.groups[group].refused) == ("choir", [early.encoded])
    bob.close()
    bob = at.people["bob"] = at.open("bob")
    assert bob.groups[group].refused == [early.encoded]
    assert alice.account is not None
    alice.change_account(alice.account.add(at.people["tablet"].identity.id), at.now + 1)
    at.deliver()
    assert (bob.groups[group].members.name, bob.groups[group].refused) == ("altos", [])


def test_another_device_says_it_where_the_one_with_the_key_does_not_know_the_group(
    village: Callable[..., Village],
) -> None:
    """After the account's key was replaced by the recovery key, on a device that has nothing yet."""
    at, group = begin(village, "tablet")
    alice, tablet, bob = (at.people[each] for each in ("alice", "tablet", "bob"))
    assert alice.account is not None
    devices = [Device(known_identity(each).id.key) for each in ("tablet", "alice")]
    recovered = Account.rotate(
        *(alice.account.card, known_identity("recovery"), known_identity("another key")),
        *(known_identity("another recovery").id, devices),
    )
    alice.close()
    alice = at.people["alice"] = at.open("alice")  # without the key: it was the stolen phone that had it, say
    tablet.change_account(recovered, at.now + 2)
    alice.take_found_card(tablet.card.public(), Nearness.ANYWHERE, at.now + 2)
    assert (alice.person, known_identity("phone").id.key) in alice.groups[group].retired
    at.deliver()
    assert (alice.person, known_identity("phone").id.key) in bob.groups[group].retired


def test_an_account_that_is_recovered_on_another_device_comes_back_into_its_groups(
    village: Callable[..., Village],
) -> None:
    """Nobody told a device that had nothing yet of the groups that its person is in."""
    at = village("alice", "bob", "tablet", least=0)
    at.share_account("alice")
    alice, tablet, bob = (at.people[each] for each in ("alice", "tablet", "bob"))
    group = alice.create_group("choir", [bob.person], at.now)
    at.deliver()
    assert alice.account is not None
    recovered = Account.rotate(
        *(alice.account.card, known_identity("recovery"), known_identity("another key")),
        *(known_identity("another recovery").id, [Device(tablet.identity.id.key)]),
    )
    tablet.change_account(recovered, at.now)
    bob.add_contact(tablet.card, at.now)
    at.say("bob", group, "are you back?")
    at.deliver()
    assert not at.is_member("tablet", group)
    at.now += resend_after(1)
    assert tablet.group_states.take_wanted(at.now) == []
    at.deliver()
    assert at.is_member("tablet", group)
    assert at.texts("tablet", group) == ["are you back?"]
    tablet.change_group(group, Act.NAME, at.now, text="altos")
    at.deliver()
    assert bob.groups[group].members == tablet.groups[group].members
    assert bob.groups[group].members.name == "altos"
    assert bob.groups[group].retired.keys() == {(tablet.person, alice.identity.id.key)}


def test_whom_a_device_has_added_that_was_revoked_before_they_heard_of_it_is_given_the_group(
    village: Callable[..., Village],
) -> None:
    """The first thing that came of the group was the retirement: it was known then, and nobody asked for the rest."""
    at, group = begin(village, "carol")
    alice, phone, carol = (at.people[each] for each in ("alice", "phone", "carol"))
    at.say("alice", carol.person, "hello")
    at.deliver()
    phone.change_group(group, Act.ADD, at.now, subject=carol.person)
    for device in phone.desk.devices_without_session(at.now):
        phone.desk.begin_session(device, at.bundle("carol"))
    for sealed in phone.desk.seal_due(at.now):
        if sealed.device != carol.identity.id.key:
            at.boxes.setdefault(sealed.device, []).append(sealed.envelope)
    at.deliver()
    assert alice.account is not None
    alice.change_account(alice.account.remove(known_identity("phone").id), at.now + 1)
    at.say("alice", group, "welcome")
    at.deliver()
    assert not at.is_member("carol", group)
    at.now += resend_after(1)
    carol.group_states.take_wanted(at.now)
    at.deliver()
    assert at.is_member("carol", group)
    assert at.texts("carol", group) == ["welcome"]


def test_a_device_that_knows_that_it_was_revoked_says_nothing_that_counts(
    village: Callable[..., Village],
) -> None:
    at, group = begin(village, "tablet")
    alice, phone, bob = (at.people[each] for each in ("alice", "phone", "bob"))
    at.revoke("alice", "phone")
    at.deliver()
    told = Event(EventKind.CARD, alice.person, 0, at.now, {"card": alice.card.encode()})
    alice.say_to_devices([phone.identity.id.key], told, at.now)
    at.deliver()
    assert phone.card == alice.card
    phone.change_group(group, Act.NAME, at.now, text="mine")
    at.deliver()
    assert bob.groups[group].members.name == alice.groups[group].members.name == "choir"


def test_a_person_says_it_before_they_do_something_where_nobody_has(village: Callable[..., Village]) -> None:
    at, group = begin(village, "carol")
    alice, carol = at.people["alice"], at.people["carol"]
    revoke_quietly(at, group)
    assert not alice.groups[group].retired
    alice.change_group(group, Act.ADD, at.now, subject=carol.person)
    at.deliver()
    assert at.is_member("carol", group)
    assert carol.groups[group].retired.keys() == {(alice.person, known_identity("phone").id.key)}


def test_where_nobody_says_it_the_addition_of_who_joins_vouches_for_what_it_had_seen(
    village: Callable[..., Village],
) -> None:
    at, group = begin(village, "carol", "eve")
    alice, bob, carol, eve = (at.people[each] for each in ("alice", "bob", "carol", "eve"))
    alice.change_group(group, Act.ADD, at.now, subject=bob.person, role=MemberRole.ADMINISTRATOR)
    at.deliver()
    revoke_quietly(at, group)
    forged = sign(at, "phone", [group], Act.ADD, subject=eve.person)
    at.pass_on("eve", "carol", group, forged)
    bob.change_group(group, Act.ADD, at.now, subject=carol.person)
    at.deliver()
    assert carol.groups[group].members == bob.groups[group].members
    assert at.is_member("carol", group)
    assert eve.person not in carol.groups[group].members.roles


def test_somebody_elses_card_hides_none_by_which_a_device_was_anothers(
    village: Callable[..., Village],
) -> None:
    """An insider who had Alice's former device named in a card of theirs kept others from joining."""
    at, group = begin(village)
    alice, bob = at.people["alice"], at.people["bob"]
    phone = known_identity("phone").id.key
    card = alice.card
    owned = Account.create(known_identity("theirs"), known_identity("other").id, [Device(phone)])
    unsigned = ContactCard(owned.card.key, owned.card, at.now, 0, "", ())
    theirs = unsigned.signed_by(owned.identity)
    with bob.transaction():
        bob.former_devices.keep_card(card, [phone])
        operation = Operation.sign(known_identity("phone"), theirs.person, Act.NAME, parents=[group])
        bob.former_devices.keep_shown(group, bob.person, [theirs.encode()], [operation])
        bob.take_contact(alice.card, Nearness.ANYWHERE, stranger=False)
    at.revoke("alice", "phone")
    at.deliver()
    expected = {(alice.person, phone): card.public().encode()}
    assert bob.former_devices.list_cards(bob.groups[group]) == expected


def test_a_device_of_ones_own_that_is_stolen_makes_no_device_anothers(
    village: Callable[..., Village],
) -> None:
    at, group = begin(village, "eve")
    alice, bob, eve = at.people["alice"], at.people["bob"], at.people["eve"]
    heads = alice.groups[group].heads
    forged = Operation.sign(eve.identity, bob.person, Act.NAME, text="mine", parents=heads)
    with at.people["phone"].transaction():
        device = alice.identity.id.key
        shown = {(bob.person, eve.identity.id.key): eve.card.public().encode()}
        at.people["phone"].group_states.send_some(group, [device], [forged], [], at.now, former=shown)
    at.deliver()
    assert alice.groups[group].refused == [forged.encoded]


def test_former_cards_of_older_files_are_found(village: Callable[..., Village]) -> None:
    at, group = begin(village)
    bob, phone = at.people["bob"], known_identity("phone")
    owned = Account.create(known_identity("theirs"), known_identity("other").id, [Device(phone.id.key)])
    theirs = ContactCard(owned.card.key, owned.card, at.now, 0, "", ()).signed_by(owned.identity)
    added = sign(at, "phone", [group], Act.ADD, subject=theirs.person)
    signed = Operation.sign(phone, theirs.person, Act.NAME, parents=[added.id])
    for each in (added, signed):
        bob.groups[group].add_operation(each, lambda operation: True)
    with bob.transaction():
        bob.store.put_value(f"former {group.hex()} {phone.id.key.hex()}", theirs.encode())
    assert bob.former_devices.list_cards(bob.groups[group]) == {
        (theirs.person, phone.id.key): theirs.encode()
    }
