"""Sessions that are made anew, where something comes that none opens: with whom, and with whom not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from village import Village, villages

from dtp.carriers.nearness import Nearness
from dtp.config import data_dir
from dtp.messaging.packing import pack, unpack_saved

HOUR = 3_600_000


@pytest.fixture
def village(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Village]]:
    # What is remembered outside of stores is looked at here, and written by tests that run beside these.
    monkeypatch.setenv("DTP_HOME", str(tmp_path / "home"))
    with villages(tmp_path) as make:
        yield make


def back_up(at: Village, name: str) -> None:
    at.people[name].close()
    shutil.copy(at.folder / f"{name}.db", at.folder / "backup")
    at.people[name] = at.open(name)


def restore(at: Village, name: str) -> None:
    at.people[name].close()
    shutil.copy(at.folder / "backup", at.folder / f"{name}.db")
    at.people[name] = at.open(name)
    assert at.people[name].desk.renewed


def answer_all(at: Village, writer: str, reader: str) -> list[bytes]:
    """Return what somebody answers to what is due to them now, where that stays under way."""
    mail, other = at.people[reader], at.people[writer].identity.id.key
    for device in at.people[writer].desk.devices_without_session(at.now):
        at.people[writer].desk.begin_session(device, at.bundle(reader))
    received, _ = mail.receive_envelopes(
        [each.envelope for each in at.people[writer].desk.seal_due(at.now)], at.now
    )
    if received.repairs:
        mail.desk.begin_session(other, at.bundle(writer))
    answer = mail.desk.seal_answer(other, repair=bool(received.repairs))
    assert answer is not None
    return [answer.envelope]


def say_across_a_backup(at: Village, writer: str, reader: str, conversation: bytes) -> list[str]:
    """Return what somebody reads who was restored to a backup from before any session with the writer's device."""
    device = at.people[writer].identity.id.key
    assert at.people[reader].store.load_peer(device) is None
    back_up(at, reader)
    at.say(writer, conversation, "lost with the file")
    at.deliver()
    restore(at, reader)
    assert at.people[reader].store.load_peer(device) is None
    at.say(writer, conversation, "after the backup")
    at.deliver()
    return [
        shown.text
        for each in at.people[reader].store.list_conversations()
        for shown in at.people[reader].read_history(each)
    ]


def share_account(village: Callable[..., Village]) -> Village:
    at = village("alice", "phone", "carol", least=100)
    at.share_account("alice", "phone")
    return at


def test_a_contact_who_was_restored_hears_of_a_device_whose_session_the_backup_lacks(
    village: Callable[..., Village],
) -> None:
    """It was sent again and again, and never opened, until the contact wrote to that device."""
    at = share_account(village)
    assert say_across_a_backup(at, "phone", "carol", at.people["carol"].person) == ["after the backup"]


def test_a_device_of_ours_that_was_restored_hears_of_another(village: Callable[..., Village]) -> None:
    at = share_account(village)
    assert say_across_a_backup(at, "phone", "alice", at.people["carol"].person) == ["after the backup"]


def test_a_member_who_was_restored_hears_of_another_whom_others_have_named(
    village: Callable[..., Village],
) -> None:
    at = village("bob", "carol", "dave", least=100, acquainted=False)
    group = at.group("bob", "carol", "dave")
    at.people["carol"].update_contact(at.people["bob"].person, stranger=False)
    contact = at.people["carol"].get_contact(at.people["dave"].person)
    assert contact.stranger
    assert say_across_a_backup(at, "dave", "carol", group) == ["after the backup"]


@pytest.mark.parametrize("named", [False, True], ids=["unknown", "named by somebody"])
def test_no_keys_are_fetched_of_strangers(village: Callable[..., Village], *, named: bool) -> None:
    """Whoever says that they are somebody's device would have as many fetched as they like."""
    at = village("alice", "mallory", least=100, acquainted=False)
    alice, mallory = at.people["alice"], at.people["mallory"]
    person, device = mallory.person, mallory.identity.id.key
    mallory.add_contact(alice.card, at.now)
    mallory.desk.begin_session(alice.identity.id.key, at.bundle("alice"))
    at.people["other"] = at.open("other", of="alice")
    alice.desk.local = at.people["other"].desk.local  # which has no key of that session
    alice.contacts.drop_contact(alice.get_contact(person))
    if named:
        with alice.transaction():
            alice.take_contact(mallory.card, Nearness.ANYWHERE, stranger=True, named_by=alice.person)
    at.say("mallory", alice.person, "hello")
    (sealed, *_) = mallory.desk.seal_due(at.now)
    received, _ = alice.receive_envelopes([sealed.envelope], at.now)
    assert received.repairs == []
    assert alice.store.load_peer(device) is None
    if named:
        alice.update_contact(person, stranger=False)
        (sealed, *_) = mallory.desk.seal_due(at.now + HOUR)
        received, _ = alice.receive_envelopes([sealed.envelope], at.now + HOUR)
        assert received.repairs == [device]


def test_two_who_were_restored_hear_of_each_other(village: Callable[..., Village]) -> None:
    """The one took nothing of the other, who believed that it knows whose the messages are."""
    at = village("alice", "bob", least=100)
    alice, bob = (at.people[each].person for each in ("alice", "bob"))
    back_up(at, "bob")
    at.say("alice", bob, "lost with the file")
    at.deliver()
    before = (at.folder / "backup").read_bytes()
    at.say("alice", bob, "waits in the backup")
    back_up(at, "alice")
    at.say("alice", bob, "lost with the file, too")
    at.deliver()
    restore(at, "alice")
    (at.folder / "backup").write_bytes(before)
    restore(at, "bob")
    at.say("alice", bob, "after the backups")
    at.deliver()
    assert at.texts("bob", alice) == ["waits in the backup", "after the backups"]


def test_what_an_instance_of_before_a_backup_has_got_is_sent_again_to_the_restored_one(
    village: Callable[..., Village],
) -> None:
    """What it had said came late, and counted: the message was never sent again, and neither was the card."""
    at = village("alice", "bob", least=100)
    alice, bob = (at.people[each] for each in ("alice", "bob"))
    back_up(at, "bob")
    at.say("alice", bob.person, "see you at eight")
    late = answer_all(at, "alice", "bob")
    restore(at, "bob")
    at.now += HOUR
    repair = answer_all(at, "alice", "bob")
    alice.receive_envelopes([*repair, *late], at.now)
    at.now += HOUR
    at.deliver()
    assert at.texts("bob", alice.person) == ["see you at eight"]


def test_who_was_restored_hears_of_whom_a_session_was_begun_by_newer_keys(
    village: Callable[..., Village],
) -> None:
    """The mailbox gives the keys of the new instance before anything comes of it."""
    at = village("alice", "bob", least=100)
    alice, bob = (at.people[each].person for each in ("alice", "bob"))
    back_up(at, "bob")
    at.say("alice", bob, "lost with the file")
    at.deliver()
    restore(at, "bob")
    at.people["alice"].desk.begin_session(at.people["bob"].identity.id.key, at.bundle("bob"))
    at.say("alice", bob, "after the backup")
    at.deliver()
    assert at.texts("bob", alice) == ["after the backup"]


def test_what_an_instance_of_before_a_backup_has_heard_in_a_topic_is_given_to_the_restored_one(
    village: Callable[..., Village],
) -> None:
    at = village("alice", "bob")
    group = at.group("alice", "bob")
    at.say("alice", group, "first")
    at.hear("bob", "alice", group, *at.published("alice"))
    at.deliver()
    back_up(at, "bob")
    at.people["bob"].spreading.joined.add(group)
    at.say("alice", group, "second")
    at.hear("bob", "alice", group, *at.published("alice"))
    alice, device = at.people["alice"], at.people["alice"].identity.id.key
    ((_, have),) = at.people["bob"].spreading.take_answers(at.now)
    late = at.people["bob"].desk.seal_answer(device, payload=have)
    assert late is not None
    restore(at, "bob")
    at.say("bob", group, "restored")
    at.deliver()
    alice.receive_envelopes([late.envelope], at.now)
    at.now += HOUR
    at.deliver()
    assert sorted(at.texts("bob", group)) == ["first", "restored", "second"]


@pytest.mark.parametrize("passed", [0, 3600])
def test_a_backup_of_the_whole_home_is_noticed_by_the_time_of_its_files(
    village: Callable[..., Village], passed: int
) -> None:
    """What remembers outside of the store how much was sealed was restored with it, and its files had the same
    numbers as before: keys were used twice, and what was said next never came."""
    at = village("alice", "bob", least=100)
    at.say("alice", at.people["bob"].person, "hello")
    at.deliver()
    store = at.people["alice"].store
    with at.people["alice"].transaction():
        *known, when = unpack_saved(store.get_value("file") or b"")
        store.put_value("file", pack([*known, when - passed]))  # so long before the files that are there
    ends = [Path(f"{store.path}{each}") for each in ("", "-wal")]
    backup = [
        each.read_bytes() for each in ends
    ]  # made while the program runs, which notes nothing at its end
    at.people["alice"].close()
    for path, data in zip(ends, backup, strict=True):
        path.write_bytes(data)
    at.people["alice"] = at.open("alice")
    assert bool(at.people["alice"].desk.renewed) == bool(passed)
    at.say("alice", at.people["bob"].person, "after the backup")
    at.deliver()
    assert at.texts("bob", at.people["alice"].person) == ["hello", "after the backup"]
    at.people["alice"].close()
    at.people["alice"] = at.open("alice")
    assert not at.people["alice"].desk.renewed


def test_what_remembers_outside_of_a_store_is_written_only_when_something_is_sealed(
    village: Callable[..., Village],
) -> None:
    """Whoever moved a store, and read there, was taken for restored: the file outside was newer than the store."""

    def remembered() -> dict[str, tuple[bytes, int]]:
        return {
            each.name: (each.read_bytes(), each.stat().st_mtime_ns)
            for each in (data_dir() / "graphs").iterdir()
        }

    at = village("alice", "bob", least=100)
    at.say("alice", at.people["bob"].person, "hello")
    at.deliver()
    at.people["alice"].close()
    before = remembered()
    (at.folder / "alice.db").rename(at.folder / "moved.db")
    alice = at.people["alice"] = at.open("moved", of="alice")
    alice.update_contact(at.people["bob"].person, nickname="Bob")
    assert remembered() == before
    at.say("alice", at.people["bob"].person, "from elsewhere")
    at.deliver()
    assert sum(b"moved.db" in told for told, _ in remembered().values()) == 1
    assert at.texts("bob", alice.person) == ["hello", "from elsewhere"]
    assert not alice.desk.renewed


def test_a_backup_of_the_whole_home_is_noticed_a_moment_after_it_was_made(
    village: Callable[..., Village],
) -> None:
    """Within a minute of the last message before it, it was taken for the file as it had been left."""
    at = village("alice", "bob", least=100)
    at.say("alice", at.people["bob"].person, "hello")
    at.deliver()
    for passed in (0, 3):
        at.people["alice"].close()
        at.people["alice"] = at.open("alice")
        assert not at.people["alice"].desk.renewed
        with at.people["alice"].transaction():
            *known, closed = unpack_saved(at.people["alice"].store.get_value("file") or b"")
            at.people["alice"].store.put_value("file", pack([*known, closed - passed]))
    at.people["alice"].close()
    at.people["alice"] = at.open("alice")
    assert "restored" in at.people["alice"].desk.renewed


@pytest.mark.parametrize("by", ["other files", "times of the backup", "nothing but a crash"])
def test_a_home_that_is_put_back_soon_after_a_crash_is_noticed_by_its_files(
    village: Callable[..., Village], by: str
) -> None:
    """Within a minute of what was sealed last, it was taken for the home as the crash had left it."""
    at = village("alice", "bob", least=100)
    at.say("alice", at.people["bob"].person, "hello")
    at.deliver()
    path = Path(at.people["alice"].store.path)
    backup = {each: each.read_bytes() for each in (path, Path(f"{path}-wal"))}  # as a crash leaves them
    at.people["alice"].close()
    for place, data in backup.items():
        if by == "other files":
            (copy := place.with_suffix(".copy")).write_bytes(data)
            copy.replace(place)
        else:
            place.write_bytes(data)
    if by == "times of the backup":  # 'cp -a', tar and rsync set them
        for remembered in (data_dir() / "graphs").iterdir():
            written = remembered.stat().st_mtime - 10
            os.utime(remembered, (written, written))
    at.people["alice"] = at.open("alice")
    assert bool(at.people["alice"].desk.renewed) == (by != "nothing but a crash")
    at.say("alice", at.people["bob"].person, "after the crash")
    at.deliver()
    assert at.texts("bob", at.people["alice"].person) == ["hello", "after the crash"]
