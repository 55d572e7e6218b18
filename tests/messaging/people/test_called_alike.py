"""People and groups that call themselves what others are called: nothing goes to them that is meant for these."""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from post_office import PostOffice, acquainted, post_office, take, wait_notice

from dtp.messaging.errors import MessageError, UnknownContact
from dtp.messaging.person.contacts import find_called
from dtp.messaging.person.messenger import Messenger
from dtp.messaging.person.notices import What

Test = Callable[[Callable[[PostOffice], Awaitable[None]]], None]


@pytest.fixture
def office(tmp_path: Path, request: pytest.FixtureRequest) -> Test:
    name = str(zlib.crc32(request.node.name.encode()))
    return lambda test: post_office(test, tmp_path, name)


async def called(at: PostOffice, box: str, key: str, name: str) -> Messenger:
    """Return a messenger of somebody who is called so."""
    made = await at.begin(key, box)
    await made.delivery.run_in_thread(made.correspondence.set_profile, name, [box], 1)
    return made


@pytest.mark.parametrize("name", ["alice", "Alice", "ALICE"])
def test_a_stranger_of_the_same_name_gets_nothing_that_is_meant_for_a_contact(
    office: Test, name: str
) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        bob, alice = await at.begin("bob", box), await called(at, box, "alice", "Alice")
        await bob.add_contact(alice.card)
        mallory = await called(at, box, "mallory", name)
        group = await mallory.create_group(name, [await mallory.add_contact(bob.card.public())])
        await group.send("hello")
        await wait_notice(bob, What.GROUP_CHANGED)
        for typed in ("alice", "Alice", "ALICE"):
            assert bob.conversation_of(typed) == alice.card.person
        await bob.send("alice", "the key is under the mat")
        assert [each.text for each in await take(alice, 1)] == ["the key is under the mat"]

    office(main)


def test_a_contact_or_its_group_takes_no_name_that_another_has(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        bob, alice, mallory = [
            await called(at, box, each, each.title()) for each in ("bob", "alice", "mallory")
        ]
        for each in (alice, mallory):
            await bob.add_contact(each.card)
            await each.add_contact(bob.card)
        await mallory.create_group("alice", [bob.card])
        await wait_notice(bob, What.GROUP_CHANGED)
        with pytest.raises(MessageError, match="several are called"):
            bob.conversation_of("alice")
        await bob.rename_contact(alice.card, "Alice")  # what we call people ourselves counts first
        assert bob.conversation_of("alice") == alice.card.person
        await bob.rename_contact(alice.card, "")
        own = await bob.create_group("ALICE", [alice.card])
        assert bob.conversation_of("alice") == own.id

    office(main)


def test_names_are_compared_however_they_were_typed() -> None:
    ann, bob = b"a" * 32, b"b" * 32
    name = unicodedata.normalize("NFC", "Zoë")
    assert find_called(unicodedata.normalize("NFD", "ZOË"), [{ann: (name,)}]) == ann
    ranks: list[dict[bytes, tuple[str, ...]]] = [
        {},
        {ann: (name,)},
        {bob: (unicodedata.normalize("NFD", name),)},
    ]
    assert find_called(unicodedata.normalize("NFD", name), ranks) == ann
    assert find_called("nobody", ranks) is None
    assert find_called("", [{ann: ("",)}]) is None


def test_capital_letters_of_names_count_only_between_names_that_are_alike(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        async with acquainted(at, await at.open()) as (alice, bob):
            person = bob.card.person
            await alice.rename_contact(person, "Uncle Bob")
            for name in ("bob", "BOB", "uncle bob", "Uncle Bob"):
                assert alice.conversation_of(name) == person
            group = await alice.create_group("Uncle bob", [person])
            assert alice.conversation_of("Uncle bob") == group.id
            assert alice.conversation_of("Uncle Bob") == person
            with pytest.raises(MessageError, match="several are called"):
                alice.conversation_of("uncle bob")
            with pytest.raises(UnknownContact):
                alice.conversation_of("robert")

    office(main)


def test_a_stranger_of_a_known_name_is_shown_as_one(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        async with acquainted(at, box) as (alice, bob):
            mallory = await at.begin("Bob-mallory", box)
            await mallory.add_contact(alice.card)
            await mallory.send("alice", "send me money")
            await mallory.create_group("bob", [alice.card.person])
            (message,) = await take(alice, 1)
            assert message.sender_label == f"Bob (stranger {mallory.card.person_name})"
            await wait_notice(alice, What.GROUP_CHANGED)
            assert alice.conversation_of("bob") == alice.conversation_of("BOB") == bob.card.person
            await alice.add_contact(mallory.card)
            assert message.sender_label == f"Bob ({mallory.card.person_name})"  # two are called so now
            with pytest.raises(MessageError, match="several are called"):
                alice.conversation_of("BOB")
            await alice.rename_contact(mallory.card, "mallory")
            assert message.sender_label == "mallory"

    office(main)
