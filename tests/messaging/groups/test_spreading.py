"""Large groups: a message is sealed once, and goes by the group's topic to who reads along, by mailbox to others."""

from __future__ import annotations

import asyncio
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from post_office import PostOffice, known_identity, post_office, take
from village import Village

import dtp
from dtp.carriers.nearness import Nearness
from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.conversation.operations import Act
from dtp.messaging.ends.olm import MegolmOpener, MegolmSealer
from dtp.messaging.ends.spread import SpreadSender
from dtp.messaging.errors import MessageError, StoreFailed
from dtp.messaging.person.groups.group_topics import GroupTopics
from dtp.messaging.person.messenger import Messenger

HOUR = 3_600_000


def test_a_message_is_sealed_once_and_by_mailbox_to_those_alone_who_are_not_there(
    village: Callable[..., Village],
) -> None:
    at = village("alice", "bob", "carol")
    group = at.group("alice", "bob", "carol")
    at.say("alice", group, "first")  # nobody has the key yet
    assert [each.kind for each in at.waiting("alice")] == [EventKind.SEALED] * 2
    at.people["carol"].spreading.joined.clear()  # she doesn't say that she reads along
    at.deliver()
    at.say("alice", group, "second")
    (published,) = at.published("alice")
    (told,) = at.waiting("alice")
    assert told.fields["sealed"] == published
    assert "second" not in published.decode("latin1")
    at.hear("bob", "alice", group, published, published)
    at.deliver()
    at.now += HOUR
    at.deliver()
    for name in ("alice", "bob", "carol"):
        assert at.texts(name, group) == ["first", "second"]
    assert at.people["alice"].store.count_unsent() == 0


def test_who_says_nothing_of_a_message_gets_it_by_mailbox_and_once(village: Callable[..., Village]) -> None:
    at = village("alice", "bob", "carol")
    group = at.group("alice", "bob", "carol")
    at.say("alice", group, "0")
    at.deliver()
    for number in (1, 2, 3):
        at.say("alice", group, str(number))
    published = at.published("alice")
    assert at.waiting("alice") == []
    at.hear(
        "bob", "alice", group, published[2], published[0]
    )  # the second is lost: the third waits for its turn
    assert at.texts("bob", group) == ["0", "1"]
    at.now += at.people["alice"].spreading.patience_ms
    at.deliver()
    assert at.texts("bob", group) == at.texts("carol", group) == ["0", "1", "2", "3"]
    unread = [message for _, _, message in at.people["bob"].store.list_unread()]
    assert len(unread) == 4
    assert unread == [each.id for each in at.people["bob"].read_history(group)]


def test_who_was_removed_reads_nothing_new_and_who_joins_nothing_old(village: Callable[..., Village]) -> None:
    at = village("alice", "bob", "carol", "dave")
    group = at.group("alice", "bob", "carol")
    at.say("alice", group, "before")
    at.deliver()
    at.say("alice", group, "old")
    old = at.published("alice")
    alice = at.people["alice"]
    alice.change_group(group, Act.ADD, at.now, subject=at.people["dave"].person)
    alice.change_group(group, Act.REMOVE, at.now, subject=at.people["carol"].person)
    at.deliver()
    at.say("alice", group, "first of the new")
    at.deliver()
    at.say("alice", group, "new")
    new = at.published("alice")
    for name in ("bob", "carol", "dave"):  # all of them hear the topic, and its name is what it was
        at.people[name].groups[group].members.roles.setdefault(alice.person, None)  # type: ignore[arg-type]
        at.hear(name, "alice", group, *old, *new)
    assert at.texts("bob", group) == ["before", "old", "first of the new", "new"]
    assert at.texts("carol", group) == ["before", "old"]
    assert at.texts("dave", group) == ["first of the new", "new"]


@pytest.mark.parametrize("owner", ["alice", "bob"])
def test_a_device_that_was_revoked_reads_nothing_new(village: Callable[..., Village], owner: str) -> None:
    """Whoever has it reads the topic along, and had the key of all that came."""
    at = village("alice", "bob", "carol", "phone")
    at.share_account(owner, "phone")
    group = at.group("alice", "bob", "carol")
    at.people["phone"].spreading.joined.add(group)
    at.say("alice", group, "before")
    at.deliver()
    at.say("alice", group, "old")
    at.hear("phone", "alice", group, *at.published("alice"))
    assert at.texts("phone", group) == ["before", "old"]
    at.revoke(owner, "phone")
    thief = at.people.pop("phone")
    at.people["alice"].take_found_card(at.people[owner].card, Nearness.ANYWHERE, at.now)
    at.say("alice", group, "new")
    at.people["phone"] = thief
    at.hear("phone", "alice", group, *at.published("alice"))
    assert at.texts("phone", group) == ["before", "old"]


def test_what_members_have_not_signed_is_not_taken(village: Callable[..., Village]) -> None:
    at = village("alice", "bob", "carol", "mallory")
    group = at.group("alice", "bob", "carol")
    at.say("alice", group, "first")
    at.deliver()
    at.say("alice", group, "second")
    (published,) = at.published("alice")
    bob = at.people["bob"]
    assert not bob.spreading.may_spread(group, at.people["mallory"].identity.id.key)
    assert bob.spreading.may_spread(group, at.people["carol"].identity.id.key)
    at.hear("bob", "mallory", group, published)
    at.hear("bob", "carol", group, published)  # as if it were hers
    at.hear("bob", "alice", group, published[:-1] + bytes((published[-1] ^ 1,)), b"", b"\x04")
    assert at.texts("bob", group) == ["first"]
    at.hear("bob", "alice", group, published)
    assert at.texts("bob", group) == ["first", "second"]


def test_a_restored_backup_seals_by_no_key_twice(village: Callable[..., Village], tmp_path: Path) -> None:
    at = village("alice", "bob", "carol")
    group = at.group("alice", "bob", "carol")
    at.say("alice", group, "0")
    at.deliver()
    at.people["alice"].close()
    shutil.copy(tmp_path / "alice.db", tmp_path / "backup")
    at.people["alice"] = at.open("alice")
    at.say("alice", group, "1")
    lost = at.published("alice")
    (before,) = at.people["alice"].store.spread.list_spread(group)
    at.hear("bob", "alice", group, *lost)
    at.people["alice"].close()
    shutil.copy(tmp_path / "backup", tmp_path / "alice.db")
    at.people["alice"] = at.open("alice")
    assert at.people["alice"].desk.renewed
    at.say("alice", group, "2")
    (told, _) = [each for each in at.waiting("alice") if each.kind is EventKind.SEALED]
    assert told.fields["key"][:64] != before.key[:64]
    at.deliver()
    assert sorted(at.texts("bob", group)) == ["0", "1", "2"]  # the backup gave "2" the place that "1" had
    assert at.texts("carol", group) == ["0", "2"]  # what the backup doesn't know of is gone with it


def test_who_was_restored_from_a_backup_goes_on(village: Callable[..., Village], tmp_path: Path) -> None:
    at = village("alice", "bob", "carol")
    group = at.group("alice", "bob", "carol")
    at.say("alice", group, "0")
    at.deliver()
    at.people["bob"].close()
    shutil.copy(tmp_path / "bob.db", tmp_path / "backup")
    at.people["bob"] = at.open("bob")
    at.people["bob"].spreading.joined.add(group)
    at.say("alice", group, "1")
    at.hear("bob", "alice", group, *at.published("alice"))
    at.people["bob"].send_event(at.people["alice"].person, EventKind.TEXT, {"text": "read"}, at.now)
    at.deliver()
    at.people["bob"].close()
    shutil.copy(tmp_path / "backup", tmp_path / "bob.db")
    at.people["bob"] = at.open("bob")
    at.say("alice", group, "2")
    at.hear("bob", "alice", group, *at.published("alice"))
    at.people["bob"].send_event(at.people["alice"].person, EventKind.TEXT, {"text": "again"}, at.now)
    at.deliver()  # alice hears that bob has begun anew
    at.now += HOUR
    at.deliver()
    assert at.texts("bob", group)[-1] == "2"
    at.say("alice", group, "3")
    at.deliver()
    assert at.texts("bob", group)[-2:] == ["2", "3"]


def test_what_comes_before_its_room_is_shown_once_that_is_known(village: Callable[..., Village]) -> None:
    at = village("alice", "bob", "carol")
    group = at.group("alice", "bob", "carol")
    at.say("alice", group, "first")
    at.deliver()
    room = at.people["alice"].change_group(group, Act.ROOM, at.now, text="sopranos").id
    at.say("alice", room, "in the room")
    at.hear("bob", "alice", group, *at.published("alice"))
    at.deliver()  # of the room bob hears by mailbox
    assert at.texts("bob", room) == ["in the room"]


def test_what_is_spread_in_one_group_is_not_of_another(village: Callable[..., Village]) -> None:
    at = village("alice", "bob", "carol")
    group, other = at.group("alice", "bob", "carol"), at.group("alice", "bob", "carol")
    alice, bob = at.people["alice"], at.people["bob"]
    for conversation in (other, bob.person):
        event = Event(EventKind.TEXT, conversation, 1, at.now, {"text": "elsewhere"})
        with alice.transaction():
            sender = SpreadSender(alice.desk.local.instance)
            _, key, sealed = sender.seal_message(group, event.encode())
            told = Event(EventKind.SEALED, group, 0, at.now, {"sealed": sealed, "key": key, "oldest": 0})
            alice.enqueue_event([bob.identity.id.key], told, at.now)
        at.deliver()
    assert at.texts("bob", other) == at.texts("bob", alice.person) == []


def test_order_holds_where_a_group_is_large_no_more(village: Callable[..., Village]) -> None:
    at = village("alice", "bob", "carol")
    group = at.group("alice", "bob", "carol")
    at.say("alice", group, "0")
    at.deliver()
    at.say("alice", group, "1")
    at.people["alice"].spreading.least = 0
    at.say("alice", group, "2")
    at.people["alice"].spreading.least = 2
    at.say("alice", group, "3")
    at.deliver()
    for name in ("bob", "carol"):
        unread = [message for _, _, message in at.people[name].store.list_unread()]
        assert unread == [each.id for each in at.people[name].read_history(group)]
        assert at.texts(name, group) == ["0", "1", "2", "3"]


def test_what_could_not_be_stored_is_taken_when_it_comes_again(
    village: Callable[..., Village],
) -> None:
    at = village("alice", "bob", "carol")
    group = at.group("alice", "bob", "carol")
    at.say("alice", group, "first")
    at.deliver()
    at.say("alice", group, "second")
    (published,) = at.published("alice")
    with pytest.raises(StoreFailed), at.people["bob"].transaction():  # another one can't begin now
        at.hear("bob", "alice", group, published)
    assert at.texts("bob", group) == ["first"]
    at.hear("bob", "alice", group, published)
    assert at.texts("bob", group) == ["first", "second"]


def test_what_opens_is_kept_as_it_came_however_much_it_has_opened() -> None:
    sealer, key = MegolmSealer(), bytes(32)
    opener = MegolmOpener.from_key(sealer.key)
    sealed = [sealer.seal(b"%d" % each) for each in range(4)]
    saved = opener.save(key)
    assert [opener.open(each) for each in sealed[:2]] == [b"0", b"1"]
    assert opener.save(key) is saved
    again = MegolmOpener.load(saved, key)
    assert again.save(key) is saved
    assert [again.open(each) for each in sealed] == [b"0", b"1", b"2", b"3"]


# ---- with nodes ----------------------------------------------------------------------------------------------------


@contextmanager
def told_of_what_comes(messenger: Messenger) -> Iterator[asyncio.Event]:
    before, came = messenger.delivery.on_received, asyncio.Event()

    def on_received() -> None:
        if before is not None:
            before()
        came.set()

    messenger.delivery.on_received = on_received
    yield came
    messenger.delivery.on_received = before


async def wait_present(messenger: Messenger, group: bytes, count: int) -> None:
    """Wait until so many devices have said that they read along."""
    with told_of_what_comes(messenger) as came:
        while True:
            readers = await messenger.delivery.run_in_thread(
                messenger.correspondence.store.spread.load_readers, group
            )
            if sum(seen > 0 for _, seen in readers.values()) == count:
                return
            came.clear()
            await came.wait()


def test_members_who_are_there_get_it_by_the_topic_and_others_by_mailbox(tmp_path: Path) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        nodes: dict[str, dtp.Node] = {}
        for name, neighbours in (("alice", ()), ("bob", ("alice",)), ("carol", ("bob",))):
            nodes[name] = await at.enter(
                dtp.Node(
                    identity=known_identity(name),
                    listen=f"memory://{at.name}-{name}",
                    discover=(),
                    bootstrap=[nodes[each].address for each in neighbours],
                    map_ports=False,
                )
            )
        people = {
            name: await at.begin(name, box, topics=GroupTopics(node, least=3, answer_within=0.0))
            for name, node in nodes.items()
        }
        alice = people["alice"]
        async with at.messenger("dave", box) as dave:
            await dave.wait_reached()
            others = [people["bob"].card, people["carol"].card, dave.card]
        for card in others:
            await alice.add_contact(card)
        group = await alice.create_group("choir", others)
        await group.send("one")
        for name in ("bob", "carol"):
            assert [each.text for each in await take(people[name], 1)] == ["one"]
            (invitation,) = people[name].invitations  # alice is a stranger to them: they don't read along
            woken = people[name].delivery.woken
            woken.clear()
            await (invitation.accept() if name == "bob" else people[name].add_contact(alice.card))
            assert woken.is_set()
        await wait_present(alice, group.id, 2)
        await at.shut()
        await group.send("two")
        for name in ("bob", "carol"):
            assert [each.text for each in await take(people[name], 1)] == ["two"]
        await at.open()
        async with at.messenger("dave", box) as dave:
            assert [each.text for each in await take(dave, 2)] == ["one", "two"]

    post_office(main, tmp_path, str(zlib.crc32(b"topics")))


def test_a_node_of_somebody_else_is_refused(tmp_path: Path) -> None:
    async def main(at: PostOffice) -> None:
        node = dtp.Node(discover=(), map_ports=False)
        with pytest.raises(MessageError, match="same identity"):
            await at.begin("alice", topics=GroupTopics(node))
        await at.begin("alice")  # nothing holds its store

    post_office(main, tmp_path, "other")
