"""Who was removed from a group, and goes on all the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from village import Village

from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.conversation.operations import Act


@pytest.mark.parametrize("least", [2, 100])
def test_what_a_removed_member_goes_on_to_write_is_shown_to_nobody(
    village: Callable[..., Village], least: int
) -> None:
    at = village("alice", "bob", "carol", least=least)
    alice, bob, carol = (at.people[each] for each in ("alice", "bob", "carol"))
    group = at.group("alice", "bob", "carol")
    at.say("carol", group, "hello")
    at.deliver()
    alice.change_group(group, Act.REMOVE, at.now, subject=carol.person)
    at.deliver()
    event = Event(EventKind.TEXT, group, 99, at.now, {"text": "am I still here?"})
    with carol.transaction():
        carol.enqueue_event([each.identity.id.key for each in (alice, bob)], event, at.now)
    at.deliver()
    for each in ("alice", "bob"):
        assert at.texts(each, group) == ["hello"]
        assert len(at.people[each].store.list_unread()) == 1
