"""Rooms, moderators, and people who join by links: also by links that are over, forged, or not theirs."""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from post_office import PostOffice, acquainted, post_office, take, wait_notice

from dtp.errors import PeerError
from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.conversation.operations import MemberRole
from dtp.messaging.errors import MessageError
from dtp.messaging.person.delivery import now_ms
from dtp.messaging.person.group import Group
from dtp.messaging.person.groups.communities import InviteLink, LinkMalformed, prove_join
from dtp.messaging.person.messenger import Messenger
from dtp.messaging.person.notices import What

Test = Callable[[Callable[[PostOffice], Awaitable[None]]], None]


@pytest.fixture
def office(tmp_path: Path, request: pytest.FixtureRequest) -> Test:
    name = str(zlib.crc32(request.node.name.encode()))
    return lambda test: post_office(test, tmp_path, name)


async def group_of(messenger: Messenger) -> Group:
    """Wait until a messenger is in a group."""
    while not (messenger.groups and messenger.card.person in messenger.groups[0].members):
        await wait_notice(messenger, What.GROUP_CHANGED)
    return messenger.groups[0]


def test_somebody_joins_by_a_link_and_writes_in_a_room(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        async with acquainted(at, box) as (alice, bob):
            choir = await alice.create_group("choir", ["bob"])
            room = await choir.open_room("sopranos")
            link = await choir.invite()
            carol = await at.begin("carol", box)
            await carol.join_group(link)
            hers = await group_of(carol)
            assert hers.members == {
                alice.card.person: MemberRole.ADMINISTRATOR,
                bob.card.person: MemberRole.MEMBER,
                carol.card.person: MemberRole.MEMBER,
            }
            while not hers.rooms:
                await wait_notice(carol, What.GROUP_CHANGED)
            await carol.send("choir/sopranos", "I sing as well")
            for each in (alice, bob):
                (got,) = await take(each, 1)
                assert got.text == "I sing as well"
                assert got.group is not None
                assert got.room is not None
                assert (got.group.name, got.room.name, got.conversation) == ("choir", "sopranos", room.id)
            assert [each.text for each in await room.history()] == ["I sing as well"]
            assert await choir.history() == []

    office(main)


def test_a_link_is_good_for_so_many_people_and_says_so_to_who_invites(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        alice = await at.begin("alice", box)
        choir = await alice.create_group("choir", [])
        link = await choir.invite(uses=1)
        bob, carol = await at.begin("bob", box), await at.begin("carol", box)
        await bob.join_group(link)
        await group_of(bob)
        await carol.join_group(link)
        refused = await wait_notice(alice, What.JOIN_REFUSED)
        assert (refused.person, refused.conversation, refused.detail) == (carol.card.person, choir.id, "used")
        assert carol.card.person not in choir.members

    office(main)


@pytest.mark.parametrize("why", ["expired", "revoked", "removed", "forged", "unknown"])
def test_who_is_not_let_in(office: Test, why: str) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        async with acquainted(at, box) as (alice, bob):
            choir = await alice.create_group("choir", ["bob"] if why == "removed" else [])
            link = await choir.invite(lasts=timedelta(milliseconds=1 if why == "expired" else 10**7))
            if why == "revoked":
                await choir.revoke(link)
            if why == "removed":
                await choir.remove("bob")
            if why == "forged":
                link = replace(InviteLink.parse(link), secret=bytes(32)).text
            if why == "unknown":
                link = replace(InviteLink.parse(link), invitation=bytes(32)).text
            await bob.join_group(link)
            refused = await wait_notice(alice, What.JOIN_REFUSED)
            assert (refused.person, refused.detail) == (bob.card.person, why)
            assert bob.card.person not in choir.members

    office(main)


def test_a_link_is_of_who_has_it_and_not_of_who_saw_it_used(office: Test) -> None:
    """What is sent to join says who joins: another one can't use it again."""

    async def main(at: PostOffice) -> None:
        box = await at.open()
        async with acquainted(at, box) as (alice, bob):
            choir = await alice.create_group("choir", [])
            link = InviteLink.parse(await choir.invite(uses=5))
            stolen = {"invitation": link.invitation, "proof": prove_join(link, alice.card.person)}
            event = Event(EventKind.JOIN, choir.id, 0, now_ms(), stolen)
            await bob.delivery.run_in_thread(
                bob.correspondence.say_to_devices, [alice.identity.id.key], event, now_ms()
            )
            bob.delivery.wake_up()
            assert (await wait_notice(alice, What.JOIN_REFUSED)).detail == "forged"

    office(main)


def test_moderators_invite_and_delete_what_others_wrote_and_members_do_not(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        async with acquainted(at, box) as (alice, bob):
            choir = await alice.create_group("choir", ["bob"])
            bobs = await group_of(bob)
            with pytest.raises(MessageError, match="moderators"):
                await bobs.invite()
            await choir.send("nonsense")
            (got,) = await take(bob, 1)
            with pytest.raises(MessageError, match="only the person who wrote"):
                await got.delete()
            await choir.add("bob", moderator=True)
            while bobs.members[bob.card.person] is not MemberRole.MODERATOR:
                await wait_notice(bob, What.GROUP_CHANGED)
            await got.delete()
            await wait_notice(alice, What.CHANGED)
            assert [(each.text, each.deleted) for each in await choir.history()] == [("", True)]
            with pytest.raises(MessageError):
                await bobs.open_room("mine")
            carol = await at.begin("carol", box)
            await carol.join_group(await bobs.invite())
            await group_of(carol)
            while carol.card.person not in choir.members:
                await wait_notice(alice, What.GROUP_CHANGED)

    office(main)


def test_a_room_that_is_closed_takes_nothing_more(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        alice = await at.begin("alice", await at.open())
        choir = await alice.create_group("choir", [])
        room = await choir.open_room("altos")
        await room.send("hello")
        await choir.close_room(room)
        assert choir.rooms == []
        with pytest.raises(MessageError):
            await room.send("anybody?")

    office(main)


@pytest.mark.parametrize("uses", [0, 1001])
def test_an_invitation_for_nobody_or_too_many_is_none(office: Test, uses: int) -> None:
    async def main(at: PostOffice) -> None:
        alice = await at.begin("alice", await at.open())
        choir = await alice.create_group("choir", [])
        with pytest.raises(MessageError, match="1 to 1000"):
            await choir.invite(uses=uses)
        with pytest.raises(MessageError, match="your own"):
            await alice.join_group(await choir.invite())

    office(main)


@given(st.text(max_size=60) | st.binary(max_size=80).map(lambda each: each.hex()))
def test_links_of_anything_have_a_name(text: str) -> None:
    with pytest.raises(PeerError):
        InviteLink.parse(text)


def test_a_link_that_is_too_long_has_a_name() -> None:
    with pytest.raises(LinkMalformed):
        InviteLink.parse("dtp-join:" + "A" * 10_000)
