"""What is held back, of an event that is here as somebody else has told it: neither hides the other, in any order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pytest
from village import NOW, Village, villages

from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.conversation.operations import Act, Past
from dtp.messaging.conversation.state import Said
from dtp.messaging.person.storage.store import MessageStore

GROUP, AUTHOR, ALICE, BEN = (bytes([each]) * 32 for each in (1, 2, 3, 4))


def words(text: str) -> Event:
    return Event(EventKind.TEXT, GROUP, 1, NOW, {"text": text}, id=b"m" * 16)


#: By itself, and as two tell it, of whom Alice's counts on all devices.
ITSELF, OF_ALICE, OF_BEN = (
    Said(AUTHOR, words("itself")),
    Said(AUTHOR, words("of Alice"), ALICE),
    Said(AUTHOR, words("of Ben"), BEN),
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MessageStore]:
    made = MessageStore(tmp_path / "me.db", bytes(32), bytes(32))
    yield made
    made.close()


def add(store: MessageStore, *said: tuple[Said, bool]) -> None:
    """Keep events, and hold back those that are marked."""
    for each, held in said:
        with store.transaction():
            store.add_said(GROUP, each, unread=not each.told, held=held, vanishes=0)


def texts(store: MessageStore) -> list[str]:
    return [each.event.fields["text"] for each in store.read_events(GROUP)]


@pytest.mark.parametrize("first", [True, False], ids=["told first", "held first"])
def test_what_is_held_back_hides_nothing_that_was_told(store: MessageStore, first: bool) -> None:
    """Who had left a group took what they had written from those who came later."""
    add(store, *[(OF_BEN, False), (ITSELF, True)][:: 1 if first else -1])
    assert texts(store) == ["of Ben"]
    with store.transaction():
        assert store.held.release_of_members(GROUP, {ALICE}) == []
        assert store.held.release_of_members(GROUP, {AUTHOR}) == [(AUTHOR, b"m" * 16)]
    assert texts(store) == ["itself"]
    assert store.list_unread() == [(GROUP, AUTHOR, b"m" * 16)]


def test_what_a_key_said_that_is_accepted_takes_the_place_of_what_was_told(store: MessageStore) -> None:
    add(store, (OF_BEN, False), (ITSELF, True))
    with store.transaction():
        store.held.release_of_members(GROUP, {AUTHOR})
    assert texts(store) == ["itself"]
    add(store, (OF_ALICE, False))
    assert texts(store) == ["itself"]


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_in_whatever_order_they_come_what_may_be_shown_is(
    store: MessageStore, order: tuple[int, ...]
) -> None:
    came = [(OF_ALICE, True), (OF_BEN, False), (ITSELF, True)]
    add(store, *(came[each] for each in order))
    assert texts(store) == ["of Ben"]
    with store.transaction():
        assert store.held.release_told(GROUP, ALICE)
        assert not store.held.release_told(GROUP, ALICE)
    assert texts(store) == ["of Alice"]
    with store.transaction():
        store.held.release_of_members(GROUP, {AUTHOR})
    assert texts(store) == ["itself"]


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_who_is_never_let_tell_it_hides_nothing_of_others(
    store: MessageStore, order: tuple[int, ...]
) -> None:
    came = [(OF_ALICE, True), (OF_BEN, True), (ITSELF, True)]
    add(store, *(came[each] for each in order))
    assert texts(store) == []
    with store.transaction():
        assert store.held.release_told(GROUP, BEN)
    assert texts(store) == ["of Ben"]


def test_a_former_member_hides_nothing_that_was_said_before(tmp_path: Path) -> None:
    with villages(tmp_path) as make:
        at: Village = make("alice", "bob", "carol", least=0)
        hide(at, at.group("alice", "bob"))


def hide(at: Village, group: bytes) -> None:
    alice, bob, carol = at.people["alice"], at.people["bob"], at.people["carol"]
    at.say("bob", group, "a promise")
    at.deliver()
    (said,) = bob.store.read_events(group)
    alice.change_group(group, Act.REMOVE, at.now, subject=bob.person)
    alice.change_group(group, Act.ADD, at.now, subject=carol.person, text=Past().text)
    at.deliver()
    assert at.texts("carol", group) == ["a promise"]
    bob.say_to_devices([carol.identity.id.key], said.event, at.now)
    at.deliver()
    assert at.texts("carol", group) == ["a promise"]
