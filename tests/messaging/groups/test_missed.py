"""Devices for which nothing more is kept until they answer: nobody else waits, and they get it later."""

from __future__ import annotations

from pathlib import Path

import pytest
from village import NOW, Village, villages

from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.ends.order import MAX_UNACKNOWLEDGED
from dtp.messaging.errors import QueueFull


def fall_silent(village: Village, name: str, to: str) -> None:
    """Have as much wait for somebody's device as is kept."""
    mail, other = village.people[name], village.people[to]
    read = Event(EventKind.READ, other.person, 0, NOW, {"targets": [bytes(16)]})
    with mail.transaction():
        for _ in range(MAX_UNACKNOWLEDGED):
            mail.enqueue_event([other.identity.id.key], read, NOW)


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
        alice.spreading.hand_over_now(group)
        with pytest.raises(QueueFull):
            alice.send_event(bob.person, EventKind.TEXT, {"text": "are you there?"}, NOW)
        village.deliver()
        for name in ("bob", "carol"):
            assert village.texts(name, group) == texts
        contact = bob.contacts.get_contact(alice.person)
        assert contact is not None
        assert contact.name == "Alice"
        alice.send_event(bob.person, EventKind.TEXT, {"text": "there you are"}, NOW)
        village.deliver()
        assert village.texts("bob", alice.person) == ["there you are"]
