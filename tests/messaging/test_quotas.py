"""What one person sends fills no device, and takes nothing from others."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from post_office import known_identity
from variants import slow_after
from village import NOW, Village

from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.conversation.operations import Act, Operation
from dtp.messaging.conversation.state import Said
from dtp.messaging.ends.spread import SpreadSender
from dtp.messaging.errors import MessageError
from dtp.messaging.packing import pack
from dtp.messaging.person.correspondence import Correspondence
from dtp.messaging.person.notices import Notice, What
from dtp.messaging.person.quotas import MessageQuotas
from dtp.messaging.person.storage.store import MessageStore

OWNER = known_identity("owner")


def write(at: Village, name: str, to: str, conversation: bytes, text: str = "x") -> list[Notice]:
    """Have what somebody says come to another, and return what that one's program is told."""
    mail, sender = at.people[to], at.people[name]
    event = Event(EventKind.TEXT, conversation, 1, NOW, {"text": text})
    with mail.transaction():
        return mail.take_said(sender.identity.id.key, sender.person, event, NOW)


def count(notices: list[Notice], what: What) -> int:
    return sum(each.what is what for each in notices)


def limit(at: Village, name: str, **limits: int | None) -> None:
    at.people[name].allowances.quotas = MessageQuotas(**limits)


@pytest.mark.parametrize("limits", [{"contact_events": 5}, {"contact_bytes": 700}])
def test_a_contact_who_sends_more_than_is_kept_is_named_once_and_others_lose_nothing(
    village: Callable[..., Village], limits: dict[str, int]
) -> None:
    """Nothing bounded what a contact sends but their mailbox, which is fetched: it filled the disk."""
    at = village("alice", "bob", "mallory")
    alice = at.people["alice"]
    limit(at, "alice", **limits)
    found = [one for _ in range(20) for one in write(at, "mallory", "alice", alice.person)]
    assert 0 < count(found, What.MESSAGE) <= 6
    (told,) = [each for each in found if each.what is What.QUOTA_EXCEEDED]
    assert (told.person, told.conversation) == (at.people["mallory"].person,) * 2
    assert str(next(iter(limits.values()))) in told.detail
    assert count(write(at, "bob", "alice", alice.person), What.MESSAGE) == 1
    limit(at, "alice")
    assert count(write(at, "mallory", "alice", alice.person), What.MESSAGE) == 1


def test_what_comes_once_more_and_what_others_of_a_group_say_is_counted_for_nobody_else(
    village: Callable[..., Village],
) -> None:
    at = village("alice", "bob", "mallory")
    group = at.group("bob", "alice", "mallory")
    limit(at, "alice", member_events=3)
    found = [one for _ in range(9) for one in write(at, "mallory", "alice", group)]
    assert (count(found, What.MESSAGE), count(found, What.QUOTA_EXCEEDED)) == (3, 1)
    assert count(write(at, "bob", "alice", group), What.MESSAGE) == 1
    assert count(write(at, "mallory", "alice", at.people["alice"].person), What.MESSAGE) == 1
    limit(at, "alice", contact_events=4)
    assert count(write(at, "mallory", "alice", group), What.QUOTA_EXCEEDED) == 1


def test_what_was_said_can_be_edited_and_deleted_beyond_a_quota(village: Callable[..., Village]) -> None:
    """Whoever had said too much could take nothing of it back."""
    at = village("alice", "bob")
    alice, bob = at.people["alice"], at.people["bob"]
    limit(at, "alice", contact_events=16)
    for number in range(20):
        at.say("bob", alice.person, str(number))
    at.deliver()
    said = [each.id for each in alice.read_history(bob.person)]
    assert len(said) == 16
    bob.send_event(alice.person, EventKind.DELETE, {"target": said[0]}, at.now)
    bob.send_event(alice.person, EventKind.EDIT, {"target": said[1], "text": "better"}, at.now)
    bob.send_event(alice.person, EventKind.EDIT, {"target": said[1], "text": "too often"}, at.now)
    at.deliver()
    first, second, *_ = alice.read_history(bob.person)
    assert (first.deleted, second.text) == (True, "better")


def test_of_a_stranger_less_is_kept_until_they_are_answered(village: Callable[..., Village]) -> None:
    at = village("alice", "bob")
    alice, bob = at.people["alice"], at.people["bob"]
    alice.update_contact(bob.person, stranger=True)
    limit(at, "alice", stranger_events=2)
    found = [one for _ in range(5) for one in write(at, "bob", "alice", alice.person)]
    assert (count(found, What.MESSAGE), count(found, What.QUOTA_EXCEEDED)) == (2, 1)
    at.say("alice", bob.person, "who are you?")
    assert count(write(at, "bob", "alice", alice.person), What.MESSAGE) == 1


def test_what_is_held_back_for_groups_that_nobody_knows_is_bounded(village: Callable[..., Village]) -> None:
    """What a contact said in made-up groups was kept for good, without a bound."""
    at = village("alice", "bob", "mallory", least=0)
    alice, mallory = at.people["alice"], at.people["mallory"]
    limit(at, "alice", held_events=6)
    for _ in range(20):
        write(at, "mallory", "alice", os.urandom(32))
    assert alice.store.usage.measure_held(mallory.person).events == 6
    assert count(write(at, "mallory", "alice", alice.person), What.MESSAGE) == 1
    group = at.people["bob"].create_group("choir", [alice.person], at.now)
    assert write(at, "bob", "alice", group) == []  # it waits until the group has come
    at.deliver()
    assert at.texts("alice", group) == ["x"]
    assert alice.store.usage.measure_held(at.people["bob"].person).events == 0


def test_groups_that_one_person_tells_of_and_we_are_not_in_are_bounded(
    village: Callable[..., Village],
) -> None:
    """Each was kept for good, with 4,096 operations, whoever told of it."""
    at = village("alice", "bob", "mallory", least=0)
    alice, mallory = at.people["alice"], at.people["mallory"]
    limit(at, "alice", groups=4)
    made = [Operation.sign(mallory.identity, mallory.person, Act.CREATE, text="x") for _ in range(9)]
    found: list[Notice] = []
    for each in made:
        event = Event(EventKind.MEMBERSHIP, each.id, 0, NOW, {"operations": [each.encoded]})
        with alice.transaction():
            found += alice.group_states.process_event(mallory.identity.id.key, mallory.person, event, NOW)
    assert alice.groups.keys() == {each.id for each in made[:4]}
    assert count(found, What.QUOTA_EXCEEDED) == 1
    group = at.group("bob", "alice")
    assert at.is_member("alice", group)
    for number in range(6):  # those that she is in aren't counted
        assert at.is_member("alice", at.group("bob", "alice")), number


def test_strangers_bring_us_into_few_groups_until_they_are_answered(village: Callable[..., Village]) -> None:
    """They made as many as they liked, of which each was kept with all operations, and what was said there."""
    at = village("mallory", "alice", least=0, acquainted=False)
    alice, mallory = at.people["alice"], at.people["mallory"]
    limit(at, "alice", stranger_groups=3, stranger_events=10)
    groups = [at.group("mallory", "alice") for _ in range(5)]
    assert [at.is_member("alice", each) for each in groups] == 3 * [True] + 2 * [False]
    found = [one for each in groups[:3] for _ in range(5) for one in write(at, "mallory", "alice", each)]
    assert count(found, What.MESSAGE) == 10
    assert all(alice.allowances.is_invitation(alice.groups[each]) for each in groups[:3])
    at.say("alice", groups[0], "hello")  # what she takes part in isn't counted
    assert not alice.allowances.is_invitation(alice.groups[groups[0]])
    assert count(write(at, "mallory", "alice", groups[0]), What.MESSAGE) == 1
    assert at.is_member("alice", at.group("mallory", "alice"))
    alice.change_group(groups[1], Act.REMOVE, at.now, subject=alice.person)  # what she has left is
    at.deliver()
    assert not at.is_member("alice", at.group("mallory", "alice"))
    alice.update_contact(mallory.person, stranger=False)
    assert at.is_member("alice", at.group("mallory", "alice"))
    assert not alice.allowances.is_invitation(alice.groups[groups[2]])


@pytest.mark.parametrize("who", ["alice", "carol"])
def test_what_a_stranger_signs_in_anothers_name_makes_no_group_ours(
    village: Callable[..., Village], who: str
) -> None:
    """What is built on has its place, whoever signed it: so it was as if she, or a contact, had acted there."""
    at = village("mallory", "alice", "carol", least=0, acquainted=False)
    alice, mallory = at.people["alice"], at.people["mallory"]
    alice.add_contact(at.people["carol"].card, at.now)
    group = at.group("mallory", "alice", "carol")
    heads = mallory.groups[group].heads
    forged = Operation.sign(
        mallory.identity, at.people[who].person, Act.ADD, subject=alice.person, parents=heads
    )
    built_on = Operation.sign(mallory.identity, mallory.person, Act.NAME, text="ours", parents=[forged.id])
    at.pass_on("mallory", "alice", group, forged, built_on)
    assert forged.id in alice.groups[group].operations
    assert alice.allowances.is_invitation(alice.groups[group])


def test_a_group_that_we_join_by_a_strangers_link_is_no_invitation(village: Callable[..., Village]) -> None:
    """Of its other members as little was kept as of strangers, who only read there."""
    at = village("mallory", "alice", "eve", least=0, acquainted=False)
    alice, mallory = at.people["alice"], at.people["mallory"]
    limit(at, "alice", stranger_groups=1, stranger_events=2)
    at.group("mallory", "alice")
    joined = at.group("mallory", "eve")
    link = mallory.communities.create_link(joined, at.now, lasts_ms=60_000, uses=5)
    alice.communities.ask_to_join(link, at.now)
    at.deliver()
    assert at.is_member("alice", joined)
    assert not alice.allowances.is_invitation(alice.groups[joined])
    found = [one for _ in range(5) for one in write(at, "eve", "alice", joined)]
    assert count(found, What.MESSAGE) == 5


def test_members_of_groups_that_strangers_bring_us_into_are_strangers(
    village: Callable[..., Village],
) -> None:
    """As many were kept as somebody made, with what each of them says."""
    at = village("mallory", "alice", "eve", "trudy", least=0, acquainted=False)
    alice = at.people["alice"]
    alice.introductions.most_strangers = 2
    group = at.group("mallory", "alice", "eve", "trudy")
    for name in ("eve", "trudy"):
        at.say(name, group, f"I am {name}")
        at.deliver()
    assert at.texts("alice", group) == ["I am eve"]
    at.say("alice", group, "who are you all?")
    at.deliver()
    at.say("trudy", group, "again")
    at.deliver()
    assert "again" in at.texts("alice", group)


def test_groups_that_we_were_in_are_not_counted(village: Callable[..., Village]) -> None:
    """Somebody who had made many groups that we have left by now couldn't add us to another one."""
    at = village("alice", "bob", least=0)
    limit(at, "alice", groups=2)
    for number in range(6):
        group = at.group("bob", "alice")
        assert at.is_member("alice", group), number
        at.people["alice"].change_group(group, Act.REMOVE, at.now, subject=at.people["alice"].person)
        at.deliver()
        assert not at.is_member("alice", group)


def test_messages_of_unknown_large_groups_are_bounded(village: Callable[..., Village]) -> None:
    at = village("alice", "mallory", least=0)
    alice, mallory = at.people["alice"], at.people["mallory"]
    device, found = mallory.identity.id.key, list[Notice]()
    for _ in range(20):
        group, sender = os.urandom(32), SpreadSender(b"i" * 16)
        sender.begin_session(NOW)
        said = Event(EventKind.TEXT, group, 1, NOW, {"text": "x"})
        number, key, sealed = sender.seal_message(group, said.encode())
        event = Event(EventKind.SEALED, group, 0, NOW, {"sealed": sealed, "key": key, "oldest": number})
        with alice.transaction():
            found += alice.spreading.take_sealed(device, mallory.person, event, NOW)
    assert len(alice.store.spread.list_lanes(device)) == 8
    assert count(found, What.QUOTA_EXCEEDED) == 1


@pytest.mark.parametrize(("is_stranger", "kept"), [(False, 20), (True, 8)])
def test_what_somebody_tells_of_a_group_that_is_to_be_fetched_is_bounded(
    village: Callable[..., Village], is_stranger: bool, kept: int
) -> None:
    """What was held back beside the same event by itself wasn't counted, and a stranger had the same bounds."""
    at = village("alice", "mallory", least=0)
    alice, mallory = at.people["alice"], at.people["mallory"]
    alice.update_contact(mallory.person, stranger=is_stranger)
    limit(at, "alice", told_events=20, stranger_events=8)
    device, group = mallory.identity.id.key, b"g" * 32
    told = [Event(EventKind.TEXT, group, 1, NOW, {"text": "x"}) for _ in range(40)]
    found: list[Notice] = []
    with alice.transaction():
        alice.store.add_wanted_state(group, device, b"")
        for each in told:
            known = Said(b"s" * 32, each, b"t" * 32)
            alice.store.add_said(group, known, unread=False, held=False, vanishes=0)
            fields = {"group": group, "said": [[b"s" * 32, each.encode()]]}
            found += alice.past.process_event(
                device, mallory.person, Event(EventKind.PAST, group, 0, NOW, fields), NOW
            )
    assert alice.store.usage.measure_told(mallory.person).events == kept
    assert count(found, What.QUOTA_EXCEEDED) == 1


def test_devices_that_do_not_say_whose_they_are_are_forgotten(village: Callable[..., Village]) -> None:
    """Each left its sessions on the disk for good: a first contact costs a stamp, and nothing else."""
    at = village("alice", "bob", acquainted=False)
    alice, bob = at.people["alice"], at.people["bob"]
    alice.introductions.most_unnamed = 3
    for each in range(12):
        stranger = at.people[f"stranger {each}"] = at.open("stranger", of=f"stranger {each}")
        stranger.add_contact(alice.card, NOW)
        with stranger.transaction():
            event = Event(EventKind.TEXT, alice.person, 1, NOW, {"text": "x"})
            stranger.desk.enqueue_event([alice.identity.id.key], event)
        at.deliver()
        at.people.pop(f"stranger {each}").close()
        os.remove(at.folder / "stranger.db")
    assert len(alice.store.list_unnamed_devices()) <= 4
    bob.add_contact(alice.card, NOW)
    at.say("bob", alice.person, "hello")
    at.deliver()
    assert at.texts("alice", bob.person) == ["hello"]


def test_quotas_hold_the_next_time_unless_others_are_given(tmp_path: Path) -> None:
    given = [None, MessageQuotas(stranger_events=5, groups=None), None, MessageQuotas(), None]
    kept = []
    for each in given:
        mail = Correspondence(tmp_path / "alice.db", known_identity("alice"), NOW, quotas=each)
        kept.append((mail.allowances.quotas.stranger_events, mail.allowances.quotas.groups))
        mail.close()
    assert kept == [(1000, 64), (5, None), (5, None), (1000, 64), (1000, 64)]


def test_quotas_that_a_later_version_has_kept_are_left_out(tmp_path: Path) -> None:
    mail = Correspondence(tmp_path / "alice.db", known_identity("alice"), NOW)
    with mail.transaction():
        mail.store.put_value("quotas", pack({"later": 1, "stranger_events": 5}))
    mail.close()
    mail = Correspondence(tmp_path / "alice.db", known_identity("alice"), NOW)
    assert mail.allowances.quotas == MessageQuotas(stranger_events=5)
    mail.close()


def test_quotas_are_numbers() -> None:
    for wrong in (-1, 1.5, True):
        with pytest.raises(MessageError, match="held_events"):
            MessageQuotas(held_events=wrong)  # type: ignore[arg-type]


# ---- what is counted -----------------------------------------------------------------------------------------------


def recount(rows: Iterable[tuple[Any, ...]]) -> set[tuple[Any, ...]]:
    """Return what there is, counted row by row."""
    found: dict[tuple[bytes, bytes, int], list[int]] = {}
    for sender, conversation, held, told, size in rows:
        usage = found.setdefault((told or sender, conversation, 2 if told else int(held)), [0, 0])
        usage[0], usage[1] = usage[0] + 1, usage[1] + size
    return {(*key, *usage) for key, usage in found.items()}


@pytest.mark.parametrize("seed", slow_after(4, range(12)))
def test_what_is_counted_is_what_there_is(tmp_path: Path, seed: int) -> None:
    chance, path = random.Random(seed), tmp_path / "owner.db"
    persons, rooms = [bytes([each]) * 32 for each in (1, 2, 3)], [bytes([each]) * 32 for each in (8, 9)]
    store = MessageStore(path, OWNER.id.key, b"s" * 32)
    for _ in range(150):
        event = Event(
            EventKind.TEXT,
            rooms[0],
            1,
            NOW,
            {"text": "x" * chance.randrange(40)},
            bytes([chance.randrange(9)]) * 16,
        )
        teller = chance.choice([b"", b"", persons[0], persons[1]])
        said, held = Said(chance.choice(persons), event, teller), chance.random() < 0.5
        with store.transaction():
            match chance.randrange(9):
                case 0:
                    store.held.release_of_members(persons[0], persons[: chance.randrange(4)])
                case 1:
                    store.held.release_of_members(chance.choice(rooms), persons[: chance.randrange(4)])
                case 2:
                    store.held.release_told(chance.choice(rooms), chance.choice(persons))
                case 3:
                    store.delete_vanished(chance.randrange(100))
                case 4:
                    store.renamed.rename_person(*chance.sample(persons, 2))
                case _:
                    where: dict[str, Any] = {"unread": True, "held": held, "vanishes": chance.choice([0, 50])}
                    store.add_said(chance.choice(rooms), said, **where)
        is_older = chance.random() < 0.1
        with closing(sqlite3.connect(path, isolation_level=None)) as file:
            kept = file.execute("SELECT * FROM usage WHERE events OR bytes").fetchall()
            columns = "SELECT sender, conversation, held, told, LENGTH(event) FROM"
            assert set(kept) == recount(file.execute(f"{columns} said UNION ALL {columns} held_aside"))
            if is_older:  # as files were before there was a count
                store.close()
                for each in ("said", "held_aside"):
                    for when in ("came", "went", "changed"):
                        file.execute(f"DROP TRIGGER {each}_{when}")
                file.execute("DROP TABLE usage")
                store = MessageStore(path, OWNER.id.key, b"s" * 32)
    store.close()
