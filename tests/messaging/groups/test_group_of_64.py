"""A group of 64 real devices that grows from mailboxes to its topic, loses members, and comes back to mailboxes."""

from __future__ import annotations

import inspect
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from village import Village, villages

from dtp.messaging.conversation.events import EventKind
from dtp.messaging.conversation.operations import Act
from dtp.messaging.person.groups.group_topics import GroupTopics
from dtp.messaging.person.groups.spreading import PRESENT_MS

LEAST = 64


@pytest.fixture
def at() -> Iterator[Village]:
    """Sixty-five people in memory, where there is a folder there: alice knows all others, and nobody else anybody."""
    memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    names = [
        "alice",
        "away",
        "deaf",
        "removed",
        "joiner",
        "last",
        *(f"member{number}" for number in range(59)),
    ]
    with tempfile.TemporaryDirectory(dir=memory) as folder, villages(Path(folder)) as make:
        yield make(*names, least=LEAST, acquainted=False)


def kinds(at: Village) -> Counter[EventKind]:
    """Return what waits to be given by alice by mailbox."""
    return Counter(each.kind for each in at.waiting("alice"))


@pytest.mark.slow
def test_sixty_four_devices_from_mailbox_to_topic_and_back(at: Village) -> None:
    alice, names = at.people["alice"], list(at.people)
    members = [each for each in names if each not in ("alice", "joiner", "last")]
    group = at.group("alice", *members)
    at.people["away"].spreading.joined.clear()
    assert len(members) + 1 == LEAST - 1

    at.say("alice", group, "small")  # to each by itself
    assert kinds(at) == {EventKind.TEXT: len(members)}
    assert at.published("alice") == []
    at.deliver()

    for name in ("joiner", "last"):  # the first makes it large
        alice.change_group(group, Act.ADD, at.now, subject=at.people[name].person)
        at.people[name].spreading.joined.add(group)
    at.deliver()
    members += ["joiner", "last"]
    at.say("alice", group, "key")  # nobody has the key yet
    assert kinds(at) == {EventKind.SEALED: len(members)}
    at.published("alice")
    at.deliver()

    at.say("alice", group, "topic")  # the rest is there, and has said so
    (spread,) = at.published("alice")
    assert kinds(at) == {EventKind.SEALED: 1}  # for who is away
    for name in members:
        if name not in ("away", "deaf"):
            at.hear(name, "alice", group, spread)
    at.deliver()
    assert at.texts("deaf", group) == ["small", "key"]
    at.now += alice.spreading.patience_ms  # its topic has lost it, and it hasn't said that it has it
    alice.spreading.hand_over_due(at.now)
    assert kinds(at) == {EventKind.SEALED: 1}
    at.deliver()

    removed = at.people["removed"]
    alice.change_group(group, Act.REMOVE, at.now, subject=removed.person)  # still large
    at.deliver()
    members.remove("removed")
    at.say("alice", group, "without")  # by a new key, which all get
    assert kinds(at) == {EventKind.SEALED: len(members)}
    after = at.published("alice")
    at.deliver()
    for name in (*members, "removed"):
        at.hear(name, "alice", group, *after)

    alice.change_group(group, Act.REMOVE, at.now, subject=at.people["last"].person)  # small again
    at.deliver()
    members.remove("last")
    at.say("alice", group, "small again")
    assert kinds(at) == {EventKind.TEXT: len(members)}
    assert at.published("alice") == []
    at.now += PRESENT_MS
    at.deliver()

    everything = ["small", "key", "topic", "without", "small again"]
    expected = dict.fromkeys(members, everything) | {
        "alice": everything,
        "joiner": everything[1:],
        "removed": everything[:3],
        "last": everything[1:4],
    }
    assert {name: at.texts(name, group) for name in names} == expected
    unread = {name: len(at.people[name].store.list_unread()) for name in names if name != "alice"}
    assert unread == {name: len(expected[name]) for name in unread}  # each once
    assert alice.store.count_unsent() == 0


def test_programs_begin_to_spread_at_as_many() -> None:
    assert inspect.signature(GroupTopics).parameters["least"].default == LEAST
