"""One-time keys that a mailbox gives out twice, as one does that was put back to a backup, or that lies."""

from __future__ import annotations

from pathlib import Path

import pytest
from village import NOW, Village

from dtp.messaging.conversation.events import EventKind
from dtp.messaging.ends.keys import KeyBundle
from dtp.messaging.ends.order import RESEND_MS
from dtp.messaging.person.correspondence import Correspondence


def bundle_of(mail: Correspondence) -> KeyBundle:
    """Return keys of somebody's device, with a new one-time key."""
    keys, (one_time,) = mail.desk.keys_to_publish(1, NOW)
    return KeyBundle.parse(keys, one_time, device=mail.desk.local.key, now_ms=NOW)


def texts(mail: Correspondence, other: Correspondence) -> list[str]:
    """Return what one has of its conversation with another."""
    return [each.text for each in mail.read_history(other.person)]


def test_what_a_stranger_seals_by_a_used_key_comes_a_little_later(tmp_path: Path) -> None:
    """Alice fetches no keys of theirs: from a contact it comes at once."""
    village = Village(tmp_path, "bob", "carol", "alice", acquainted=False)
    bob, carol, alice = village.people.values()
    carol.add_contact(alice.card, village.now)
    twice = bundle_of(alice)
    for sender, text in ((bob, "one"), (carol, "two")):
        sender.desk.begin_session(alice.desk.local.key, twice)
        sender.send_event(alice.person, EventKind.TEXT, {"text": text}, village.now)
        village.deliver()
    assert (texts(alice, bob), texts(alice, carol)) == (["one"], [])
    for pause in RESEND_MS[:2]:
        village.now += pause
        village.deliver()
    assert (texts(alice, bob), texts(alice, carol)) == (["one"], ["two"])
    alice.send_event(carol.person, EventKind.TEXT, {"text": "three"}, village.now)
    village.deliver()
    assert texts(carol, alice) == texts(alice, carol) == ["two", "three"]
    assert [each.store.count_unsent() for each in (alice, bob, carol)] == [0, 0, 0]


@pytest.mark.parametrize("answered", [True, False])
def test_a_session_is_begun_anew_only_where_nothing_came_back(tmp_path: Path, answered: bool) -> None:
    village = Village(tmp_path, "alice", "bob")
    alice, bob = village.people.values()
    device = alice.desk.local.key
    bob.desk.begin_session(device, bundle_of(alice))
    if answered:
        bob.send_event(alice.person, EventKind.TEXT, {"text": "one"}, village.now)
        village.deliver()
    bob.send_event(alice.person, EventKind.TEXT, {"text": "away"}, village.now)
    began = []
    for pause in (0, *RESEND_MS, RESEND_MS[-1]):
        village.now += pause
        began.append(bob.desk.devices_without_session(village.now) == [device])
        assert bob.desk.seal_due(village.now)  # and nobody gets it
    assert began == [not answered and at >= 2 for at in range(len(began))]


def test_keys_that_cannot_be_had_again_hold_nothing_back(tmp_path: Path) -> None:
    village = Village(tmp_path, "alice", "bob")
    alice, bob = village.people.values()
    device = alice.desk.local.key
    bob.desk.begin_session(device, bundle_of(alice))
    bob.send_event(alice.person, EventKind.TEXT, {"text": "one"}, village.now)
    bob.desk.put_off(device, village.now + RESEND_MS[0])
    assert bob.desk.seal_due(village.now)
