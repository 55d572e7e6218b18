"""What was read, on which of a person's devices, and who hears of it: also before the message itself comes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from village import Village

from dtp.messaging.conversation.events import MAX_CLOCK, Event, EventKind
from dtp.messaging.conversation.operations import Act, MemberRole

HOUR = 3_600_000


def hold_back(at: Village, name: str) -> list[bytes]:
    """Return what waits for somebody, which comes later."""
    return at.boxes.pop(at.people[name].identity.id.key)


def send_all(at: Village, *names: str) -> None:
    for each in names:
        for sealed in at.people[each].desk.seal_due(at.now):
            at.boxes.setdefault(sealed.device, []).append(sealed.envelope)


def begin(village: Callable[..., Village], *others: str) -> Village:
    at = village("alice", "phone", "bob", *others, least=100)
    at.share_account("alice", "phone", *[each for each in others if each == "tablet"])
    for writer, reader in (("alice", "bob"), ("phone", "bob"), ("bob", "alice")):
        at.say(writer, at.people[reader].person, "hello")
        at.deliver()
    for writer in [each for each in others if each != "tablet"]:
        at.say(writer, at.people["alice"].person, "hello")
        at.deliver()
    for each in at.people.values():
        for _, _, message in each.store.list_unread():
            each.mark_read(message, at.now, tell=False)
    at.deliver()
    return at


@pytest.mark.parametrize("disappear", [0, 60])
def test_what_was_read_on_one_device_is_read_on_the_other_that_gets_it_later(
    village: Callable[..., Village], disappear: int
) -> None:
    """It was unread there for ever, and never disappeared."""
    at = begin(village)
    alice, phone, bob = (at.people[each] for each in ("alice", "phone", "bob"))
    fields = {"text": "see you at eight", **({"disappear": disappear} if disappear else {})}
    message = bob.send_event(alice.person, EventKind.TEXT, fields, at.now).event.id
    send_all(at, "bob")
    late = hold_back(at, "phone")
    at.deliver()
    assert alice.mark_read(message, at.now, tell=True)
    at.deliver()
    phone.receive_envelopes(late, at.now)
    assert not phone.store.list_unread()
    assert [each.text for each in phone.read_history(bob.person)][-1] == "see you at eight"
    assert phone.keep_up(at.now + HOUR) == bool(disappear)


@pytest.mark.parametrize("stranger", [False, True])
def test_a_receipt_counts_for_a_message_that_another_device_has_written_and_comes_later(
    village: Callable[..., Village], *, stranger: bool
) -> None:
    """Only the device that had written it knew that it was read. A new device takes its person's contacts for
    strangers until it is told."""
    at = begin(village)
    alice, phone, bob = (at.people[each] for each in ("alice", "phone", "bob"))
    alice.update_contact(bob.person, stranger=stranger)
    message = phone.send_event(bob.person, EventKind.TEXT, {"text": "see you at eight"}, at.now).event.id
    send_all(at, "phone")
    late = hold_back(at, "alice")
    at.deliver()
    assert bob.mark_read(message, at.now, tell=True)
    at.deliver()
    assert alice.store.read_receipts(message) == {}
    alice.receive_envelopes(late, at.now)
    assert alice.store.read_receipts(message) == {bob.person: True}


def test_what_was_read_before_it_was_known_who_is_in_a_group_is_read(village: Callable[..., Village]) -> None:
    at = begin(village, "carol")
    alice, phone, bob, carol = (at.people[each] for each in ("alice", "phone", "bob", "carol"))
    group = carol.create_group("choir", [alice.person, bob.person], at.now)
    send_all(at, "carol")
    state = hold_back(at, "phone")
    at.deliver()
    message = bob.send_event(group, EventKind.TEXT, {"text": "at eight", "disappear": 60}, at.now).event.id
    send_all(at, "bob")
    late = hold_back(at, "phone")
    at.deliver()
    assert alice.mark_read(message, at.now, tell=True)
    at.deliver()
    phone.receive_envelopes(late, at.now)
    assert phone.read_history(group) == []
    phone.receive_envelopes(state, at.now)
    assert [each.text for each in phone.read_history(group)] == ["at eight"]
    assert not phone.store.list_unread()
    assert phone.keep_up(at.now + HOUR) == 1


def test_a_receipt_counts_for_a_message_that_another_device_has_copied(
    village: Callable[..., Village],
) -> None:
    at = begin(village, "tablet")
    alice, phone, tablet, bob = (at.people[each] for each in ("alice", "phone", "tablet", "bob"))
    said = phone.send_event(bob.person, EventKind.TEXT, {"text": "see you at eight"}, at.now)
    send_all(at, "phone")
    late = hold_back(at, "alice")
    at.deliver()
    assert bob.mark_read(said.event.id, at.now, tell=True)
    at.deliver()
    copied = {"sender": phone.person, "event": said.event.encode()}
    copy = Event(EventKind.COPY, bob.person, 0, at.now, copied)
    tablet.say_to_devices([alice.identity.id.key], copy, at.now)
    at.deliver()
    assert alice.store.read_receipts(said.event.id) == {bob.person: True}
    alice.receive_envelopes(late, at.now)
    assert alice.store.read_receipts(said.event.id) == {bob.person: True}


def test_a_copy_of_what_was_read_elsewhere_disappears(village: Callable[..., Village]) -> None:
    at = begin(village, "tablet")
    alice, phone, tablet, bob = (at.people[each] for each in ("alice", "phone", "tablet", "bob"))
    said = bob.send_event(alice.person, EventKind.TEXT, {"text": "at eight", "disappear": 60}, at.now)
    send_all(at, "bob")
    hold_back(at, "alice")
    at.deliver()
    assert phone.mark_read(said.event.id, at.now, tell=False)
    at.deliver()
    copied = {"sender": bob.person, "event": said.event.encode()}
    tablet.say_to_devices(
        [alice.identity.id.key], Event(EventKind.COPY, bob.person, 0, at.now, copied), at.now
    )
    at.deliver()
    assert at.texts("alice", bob.person)[-1] == "at eight"
    assert alice.keep_up(at.now + HOUR) == 1


def test_what_has_disappeared_and_comes_again_disappears_again(village: Callable[..., Village]) -> None:
    """Its sender was restored to a backup from before it had come: it was unread once more, and stayed."""
    at = begin(village)
    alice, phone, bob = (at.people[each] for each in ("alice", "phone", "bob"))
    said = bob.send_event(alice.person, EventKind.TEXT, {"text": "at eight", "disappear": 60}, at.now)
    at.deliver()
    assert alice.mark_read(said.event.id, at.now, tell=False)
    at.deliver()
    for mail in (alice, phone):
        assert mail.keep_up(at.now + HOUR) == 1
        with mail.transaction():
            mail.take_said(bob.identity.id.key, bob.person, said.event, at.now + HOUR)
        assert not mail.store.list_unread()
        assert mail.keep_up(at.now + 2 * HOUR) == 1


def test_a_conversation_is_read_by_few_events(village: Callable[..., Village]) -> None:
    """Each message was one: whoever came back to 1,860 held the program up for long, and the mailboxes of others."""
    at = begin(village)
    alice, phone, bob = (at.people[each] for each in ("alice", "phone", "bob"))
    told = [
        bob.send_event(alice.person, EventKind.TEXT, {"text": str(n)}, at.now).event.id for n in range(300)
    ]
    at.deliver()
    assert len(alice.store.list_unread()) == len(phone.store.list_unread()) == 300
    assert not alice.reading.mark_conversation_read(phone.person, at.now, tell=True)
    assert alice.reading.mark_conversation_read(bob.person, at.now, tell=True)
    devices = [each.device for each in alice.desk.seal_due(at.now)]
    assert devices.count(bob.identity.id.key) == devices.count(phone.identity.id.key) == 2
    assert not alice.reading.mark_conversation_read(bob.person, at.now, tell=True)
    at.now += HOUR
    at.deliver()
    assert alice.store.list_unread() == phone.store.list_unread() == []
    assert all(bob.store.read_receipts(each) == {alice.person: True} for each in told)


@pytest.mark.parametrize("first", [False, True])
def test_what_somebody_else_says_by_the_same_id_takes_nothing_from_what_was_read(
    village: Callable[..., Village], *, first: bool
) -> None:
    at = begin(village, "carol")
    alice, phone, bob, carol = (at.people[each] for each in ("alice", "phone", "bob", "carol"))
    message = bob.send_event(alice.person, EventKind.TEXT, {"text": "at eight"}, at.now).event.id
    send_all(at, "bob")
    late = hold_back(at, "phone")
    at.deliver()
    same = Event(EventKind.TEXT, phone.person, 1, at.now, {"text": "not this"}, message)
    for is_read in (not first, first):
        if is_read:
            assert alice.mark_read(message, at.now, tell=True)
        else:
            carol.say_to_devices([phone.identity.id.key], same, at.now)
        at.deliver()
    phone.receive_envelopes(late, at.now)
    assert bob.person not in [sender for _, sender, _ in phone.store.list_unread()]


def test_what_somebody_else_says_by_the_same_id_takes_no_receipt(village: Callable[..., Village]) -> None:
    at = begin(village, "carol")
    alice, phone, bob, carol = (at.people[each] for each in ("alice", "phone", "bob", "carol"))
    message = phone.send_event(bob.person, EventKind.TEXT, {"text": "at eight"}, at.now).event.id
    send_all(at, "phone")
    late = hold_back(at, "alice")
    at.deliver()
    same = Event(EventKind.TEXT, alice.person, 1, at.now, {"text": "not this"}, message)
    carol.say_to_devices([alice.identity.id.key], same, at.now)
    at.deliver()
    assert bob.mark_read(message, at.now, tell=True)
    at.deliver()
    alice.receive_envelopes(late, at.now)
    assert alice.store.read_receipts(message) == {bob.person: True}


def test_so_much_is_kept_of_what_was_read_before_it_came(village: Callable[..., Village]) -> None:
    at = begin(village)
    store, bob = at.people["alice"].store, at.people["bob"]
    with store.transaction():
        for number in range(1200):
            store.early_reads.note_read([number.to_bytes(16, "big")], bob.person, bob.identity.id.key)
        store.early_reads.note_read([bytes(16)], at.people["alice"].person, bob.identity.id.key)
    kept = [n for n in range(1200) if store.early_reads.list_readers(n.to_bytes(16, "big"))]
    assert kept == [0, *range(200, 1200)]


def test_what_is_said_after_something_has_disappeared_comes_behind_it(
    village: Callable[..., Village],
) -> None:
    """Whoever hadn't read the one showed both in any order."""
    at = village("alice", "bob", least=100)
    alice, bob = at.people["alice"], at.people["bob"].person
    first = alice.send_event(bob, EventKind.TEXT, {"text": "first", "disappear": 60}, at.now)
    assert alice.keep_up(at.now + HOUR) == 1
    second = alice.send_event(bob, EventKind.TEXT, {"text": "second"}, at.now + HOUR)
    assert second.event.clock > first.event.clock
    at.now += HOUR
    at.deliver()
    assert at.texts("bob", alice.person) == ["first", "second"]


def test_what_was_to_disappear_meanwhile_is_gone_when_a_program_begins(
    village: Callable[..., Village],
) -> None:
    """Who asked for the conversation at once was shown it."""
    at = village("alice", "bob", least=100)
    alice, bob = at.people["alice"], at.people["bob"]
    alice.send_event(bob.person, EventKind.TEXT, {"text": "this goes", "disappear": 60}, at.now)
    at.say("alice", bob.person, "this stays")
    alice.close()
    at.now += 60_000
    at.people["alice"] = at.open("alice")
    assert at.texts("alice", bob.person) == ["this stays"]


def test_what_a_new_member_says_first_comes_behind_what_others_have_said(
    village: Callable[..., Village],
) -> None:
    """Nobody saw it: it had the first place, among what all had read long ago."""
    at = village("alice", "bob", "carol", least=100)
    group = at.group("alice", "bob")
    for text in ("one", "two", "three"):
        at.say("alice", group, text)
        at.deliver()
    at.now += 60_000
    alice, carol = at.people["alice"], at.people["carol"]
    alice.change_group(group, Act.ADD, at.now, subject=carol.person, role=MemberRole.MEMBER)
    at.deliver()
    at.say("carol", group, "hello")
    at.deliver()
    assert at.texts("bob", group) == ["one", "two", "three", "hello"]


def test_what_a_new_device_says_first_comes_behind_what_others_have_said(
    village: Callable[..., Village],
) -> None:
    at = village("alice", "phone", "bob", least=100)
    for text in ("one", "two", "three"):
        at.say("alice", at.people["bob"].person, text)
        at.deliver()
    at.now += 60_000
    at.share_account("alice", "phone")
    at.say("phone", at.people["bob"].person, "hello")
    at.deliver()
    assert at.texts("bob", at.people["alice"].person) == ["one", "two", "three", "hello"]


@pytest.mark.parametrize("disappears", [False, True])
def test_whoever_was_removed_does_not_choose_what_place_has_what_others_say(
    village: Callable[..., Village], disappears: bool
) -> None:
    """Behind the last clock there is none: what all said next had places by chance."""
    at = village("alice", "bob", "carol", least=100)
    group = at.group("alice", "bob", "carol")
    alice, bob = at.people["alice"], at.people["bob"]
    alice.change_group(group, Act.REMOVE, at.now, subject=bob.person)
    at.deliver()
    fields = {"text": "last", **({"disappear": 1} if disappears else {})}
    with bob.transaction():
        event = Event(EventKind.TEXT, group, MAX_CLOCK, at.now, fields)
        bob.enqueue_event([alice.identity.id.key], event, at.now)
    at.deliver()
    at.now += 60_000
    alice.store.delete_vanished(at.now)
    assert at.texts("alice", group) == []
    assert alice.store.next_clock(group, at.now) == at.now
