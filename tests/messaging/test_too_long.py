"""What is too long for an envelope is refused when it is said: nothing that waits keeps up what is behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from post_office import known_identity
from village import NOW, Village, villages

from dtp.messaging.cards import ContactCard
from dtp.messaging.cards.contact_card import MAX_ADDRESS_BYTES, MAX_MAILBOXES
from dtp.messaging.conversation.events import MAX_ATTACHMENTS, MAX_TEXT_BYTES, Event, EventKind
from dtp.messaging.conversation.operations import MAX_BYTES, MAX_PARENTS, Act, MemberRole, Operation
from dtp.messaging.ends.envelope import MAX_PAYLOAD
from dtp.messaging.errors import MessageTooLong

Make = Callable[..., Village]


@pytest.fixture
def village(tmp_path: Path) -> Iterator[Make]:
    with villages(tmp_path) as make:
        yield lambda *names: make(*names, least=0)


def file(name: str) -> list[Any]:
    return [name, 10, bytes(32), [bytes(32)], ["dtp+tcp://" + 80 * "x"]]


def test_a_message_with_too_many_long_names_is_refused_and_the_next_one_goes_out(village: Make) -> None:
    at = village("alice", "bob")
    alice, bob = at.people["alice"], at.people["bob"].person
    fields = {"text": MAX_TEXT_BYTES * "y", "files": MAX_ATTACHMENTS * [file(240 * "\U0001f600" + ".png")]}
    with pytest.raises(MessageTooLong, match="files"):
        alice.send_event(bob, EventKind.TEXT, fields, at.now)
    long = Event(EventKind.POST, bob, 0, NOW, {"text": "", "wallet": MAX_PAYLOAD * b"x", "transaction": ""})
    with pytest.raises(MessageTooLong):
        alice.say_to_devices([bob], long, at.now)
    at.say("alice", bob, "after it")
    at.deliver()
    assert at.texts("bob", alice.person) == ["after it"]


@pytest.mark.slow
def test_a_group_with_operations_and_cards_as_long_as_they_may_be_takes_a_new_member(village: Make) -> None:
    """An administrator made some hundred of them, and whoever added somebody sent nothing any more to anybody."""
    at = village("alice", "bob", "carol")
    alice, bob = at.people["alice"], at.people["bob"]
    group = at.group("alice", "bob")
    alice.change_group(group, Act.ADD, at.now, subject=bob.person, role=MemberRole.ADMINISTRATOR)
    for number in range(MAX_PARENTS):
        alice.change_group(group, Act.NAME, at.now, text=f"{number}")
    at.deliver()
    parents = sorted(bob.groups[group].operations)[:MAX_PARENTS]
    made = [
        Operation.sign(bob.identity, bob.person, Act.NAME, text=128 * "x", parents=parents)
        for _ in range(200)
    ]
    assert sum(len(each.encoded) for each in made) > 2 * MAX_PAYLOAD
    assert max(len(each.encoded) for each in made) < MAX_BYTES
    with bob.transaction():
        for each in made:
            bob.group_states.send_some(group, [alice.identity.id.key], [each], [], at.now)
    at.deliver()
    assert len(alice.groups[group].operations) > 200
    for number in range(80):
        identity = known_identity(str(number))
        places = tuple(
            "dtp+tcp://" + f"{each}".rjust(MAX_ADDRESS_BYTES - 10, "x") for each in range(MAX_MAILBOXES)
        )
        card = ContactCard(identity.id.key, None, NOW, 0, f"{number}", places).signed_by(identity)
        alice.add_contact(card, at.now)
        alice.change_group(group, Act.ADD, at.now, subject=card.person)
    carol = at.people["carol"]
    alice.change_group(group, Act.ADD, at.now, subject=carol.person)
    assert max(len(each.payload) for each in alice.store.due_payloads(at.now, 10_000)) <= MAX_PAYLOAD
    device = carol.identity.id.key
    alice.desk.begin_session(device, at.bundle("carol"))
    while waiting := [each for each in alice.desk.devices_without_session(at.now) if each != device]:
        for each in waiting:
            alice.desk.put_off(each, at.now + 1)
    while sealed := alice.desk.seal_due(at.now):
        carol.receive_envelopes([each.envelope for each in sealed if each.device == device], at.now)
    assert carol.groups[group].members == alice.groups[group].members
