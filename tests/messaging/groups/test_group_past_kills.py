"""Who gives a new member the past, and who is given it, killed before any statement of SQLite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mortal import FUSE, Killed
from village import Village, villages

from dtp.messaging.conversation.operations import Act, Past

COUNT = 12

pytestmark = pytest.mark.usefixtures("mortal")


def made(at: Village) -> bytes:
    group = at.group("alice", "bob")
    for number in range(COUNT):
        at.say("bob", group, f"{number} " + 20_000 * "x")
    at.deliver()
    return group


def open_again(at: Village) -> None:
    for name, mail in list(at.people.items()):
        mail.close()
        at.people[name] = at.open(name)
        assert at.people[name].desk.renewed == ""


@pytest.mark.slow
def test_all_is_given_once_whoever_is_killed_when(tmp_path: Path) -> None:
    killed, number = True, 0
    while killed:
        folder = tmp_path / str(number)
        folder.mkdir()
        with villages(folder) as make:
            at = make("alice", "bob", "carol", least=0)
            group = made(at)
            past: dict[str, Any] = {"subject": at.people["carol"].person, "text": Past().text}
            killed = False
            try:
                with FUSE.lit(number):
                    at.people["alice"].change_group(group, Act.ADD, at.now, **past)
                    at.deliver()
            except Killed:
                killed = True
            open_again(at)
            if at.people["carol"].person not in at.people["alice"].groups[group].members.roles:
                at.people["alice"].change_group(group, Act.ADD, at.now, **past)
            for _ in range(3):  # what was sealed and never came is due again
                at.now += 86_400_000
                at.deliver()
            assert at.texts("carol", group) == at.texts("bob", group)
            assert len(at.texts("carol", group)) == COUNT
            assert at.people["carol"].store.list_unread() == []
            assert not at.people["alice"].store.past.load_givings()
        number += 11  # those between differ in nothing
    assert number > 200
