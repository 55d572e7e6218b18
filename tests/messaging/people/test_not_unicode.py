"""Text that UTF-8 can't write is refused by name, and changes nothing: not what people are called, nor what waits."""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from post_office import PostOffice, acquainted, post_office, take

from dtp.messaging.person.messenger import Messenger
from dtp.unicode import TextNotUnicode

WRONG = "half \ud800"


def test_a_messenger_refuses_text_that_is_not_unicode_and_goes_on(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        async with acquainted(at, box) as (alice, bob):
            group = await alice.create_group("choir", [bob.identity.id])
            said = await alice.send(bob.identity.id, "first")
            attempts: list[Callable[[], Awaitable[Any]]] = [
                lambda: alice.send(bob.identity.id, WRONG),
                lambda: alice.create_group(WRONG, [bob.identity.id]),
                lambda: alice.rename_contact(bob.identity.id, WRONG),
                lambda: alice.verify(bob.identity.id, WRONG),
                lambda: group.rename(WRONG),
                lambda: group.send(WRONG),
                lambda: group.open_room(WRONG),
                lambda: said.edit(WRONG),
                lambda: said.react(WRONG),
                lambda: said.reply(WRONG),
            ]
            for attempt in attempts:
                with pytest.raises(TextNotUnicode):
                    await attempt()
            assert [each.name for each in alice.groups] == ["choir"]
            assert [each.name for each in alice.contacts] == ["bob"]
            await alice.send(bob.identity.id, "last")
            assert [each.text for each in await take(bob, 2)] == ["first", "last"]

    post_office(main, tmp_path, str(zlib.crc32(request.node.name.encode())))


def test_a_device_that_is_called_something_that_is_not_unicode_can_be_opened_again(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        alice = await at.begin("alice", box)
        named = Messenger(identity=alice.identity, store=tmp_path / "other.db", name=WRONG)
        with pytest.raises(TextNotUnicode):
            await named.__aenter__()
        async with Messenger(identity=alice.identity, store=tmp_path / "other.db", name="alice") as again:
            assert again.card.name == "alice"

    post_office(main, tmp_path, str(zlib.crc32(request.node.name.encode())))
