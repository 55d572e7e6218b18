"""`dtp mailbox serve`, `dtp message` and `dtp group`, each in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dtp import Identity, Messenger
from dtp.messaging.conversation.events import EventKind

#: Seconds for anything that has to happen; only a failing test waits so long.
PATIENCE = 120
pytestmark = pytest.mark.slow


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "DTP_HOME": str(home)}


def run(home: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "dtp", *arguments, "--json"],
        env=environment(home),
        capture_output=True,
        timeout=PATIENCE,
    )
    assert done.returncode == code, done.stderr.decode()
    return done


def call(home: Path, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    """Return what a command has printed as JSON."""
    return [json.loads(line) for line in run(home, *arguments, code=code).stdout.splitlines()]


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[str]:
    home = tmp_path / "box"
    home.mkdir()
    call(home, "keygen")
    command = ["mailbox", "serve", "--json", "--until-eof", "--listen", "tcp://127.0.0.1:0"]
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "dtp", *command],
        env=environment(home),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield json.loads(process.stdout.readline())["address"]
        finally:
            process.stdin.close()
            assert process.wait(PATIENCE) == 0


@pytest.fixture
def person(tmp_path: Path, mailbox: str) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        home = tmp_path / name
        home.mkdir()
        call(home, "keygen")
        call(home, "message", "card", "--name", name, "--mailbox", mailbox, "-o", str(home / "card"))
        return home

    return make


def test_files_of_strangers_and_files_that_are_gone_keep_nothing_from_being_read(
    person: Callable[[str], Path], tmp_path: Path, mailbox: str
) -> None:
    alice, bob, mallory = person("alice"), person("bob"), person("mallory")
    call(bob, "message", "add", str(alice / "card"))

    async def send_lie() -> None:
        """Have a contact tell of a file that no mailbox has."""
        options: dict[str, Any] = {"identity": Identity.generate(), "mailboxes": [mailbox], "name": "dave"}
        async with Messenger(store=tmp_path / "dave.db", **options) as dave:
            await asyncio.to_thread(call, bob, "message", "add", dave.card.text)
            contact = await dave.add_contact((bob / "card").read_text())
            file = ["gone.txt", 3, bytes(32), [bytes(32)], [mailbox]]
            await dave.send_event(contact.person, EventKind.TEXT, {"text": "hello", "files": [file]})
            await dave.wait_delivered()

    asyncio.run(send_lie())
    for each in (alice, mallory):
        (each / "map.txt").write_text("left, then left")
        call(each, "message", "add", str(bob / "card"))
        call(each, "message", "send", "bob", "the map", "--attach", str(each / "map.txt"))
    saved = tmp_path / "saved"
    told = run(bob, "message", "read", "--save", str(saved))
    read = sorted(map(json.loads, told.stdout.splitlines()), key=lambda each: str(each["sender"]))
    assert [(each["sender"], each["stranger"], len(each["saved"])) for each in read] == [
        ("alice", False, 1), ("dave", False, 0), ("mallory", True, 0)
    ]  # fmt: skip
    assert [each.name for each in saved.iterdir()] == ["map.txt"]
    assert {json.loads(each)["code"] for each in told.stderr.splitlines()} == {"attachment-gone", "stranger"}


def test_a_message_an_attachment_and_a_group(person: Callable[[str], Path], tmp_path: Path) -> None:
    alice, bob = person("alice"), person("bob")
    (known,) = call(alice, "message", "add", str(bob / "card"))
    (other,) = call(bob, "message", "add", str(alice / "card"))
    assert known["safety_number"] == other["safety_number"]
    (tmp_path / "map.txt").write_text("left, then left")
    sent = call(alice, "message", "send", "bob", "see", "you", "--attach", str(tmp_path / "map.txt"))
    assert sent[0]["sent"] is True
    (got,) = call(bob, "message", "read", "--save", str(bob))
    assert (got["sender"], got["text"], got["group"]) == ("alice", "see you", None)
    assert Path(got["saved"][0]).read_text() == "left, then left"
    assert call(bob, "message", "read") == []
    call(bob, "message", "send", "alice", "found", "it")
    asked, answered = call(bob, "message", "history", "alice", "--save", str(tmp_path / "new" / "folder"))
    assert (asked["text"], answered["text"], answered["person"]) == ("see you", "found it", None)
    assert Path(asked["saved"][0]).read_text() == "left, then left"
    assert call(bob, "message", "history", "alice", "--last", "1") == [answered]
    call(bob, "message", "history", "nobody", code=3)
    (said,) = call(alice, "message", "read")
    assert said["text"] == "found it"
    call(bob, "group", "create", "choir", "alice")
    call(bob, "group", "send", "choir", "rehearsal moved")
    (got,) = call(alice, "message", "watch", "--count", "1", "--node", "tcp://127.0.0.1:0")
    assert (got["sender"], got["text"], got["group"]) == ("bob", "rehearsal moved", "choir")
    (listed,) = call(alice, "group", "list")
    assert roles(listed) == {("bob", "administrator"), ("you", "member")}
    call(alice, "group", "remove", "choir", "bob", code=3)
    call(alice, "group", "rename", "choir", "band", code=3)  # members may not
    assert call(bob, "group", "rename", "choir", "band") == [{"group": "band", "before": "choir"}]
    call(alice, "message", "read")
    call(alice, "group", "leave", "band")
    call(bob, "message", "read")
    (listed,) = call(bob, "group", "list")
    assert (listed["name"], listed["left"], roles(listed)) == ("band", False, {("you", "administrator")})
    (listed,) = call(alice, "group", "list")
    assert (listed["name"], listed["left"]) == ("band", True)
    (contact,) = call(alice, "message", "contacts")
    assert (contact["name"], contact["state"]) == ("bob", "contact")


def roles(listed: dict[str, Any]) -> set[tuple[str, str]]:
    return {(each["name"], each["role"]) for each in listed["members"]}


def test_who_is_called_like_somebody_else_is_not_taken_for_them(
    person: Callable[[str], Path], tmp_path: Path
) -> None:
    alice, bob, mallory = person("alice"), person("bob"), person("mallory")
    call(alice, "message", "add", str(bob / "card"))
    call(mallory, "message", "card", "--name", "bob")
    call(mallory, "message", "add", str(alice / "card"))
    call(mallory, "message", "send", "alice", "send me money")
    who = call(mallory, "id")[0]["id"]
    command = [sys.executable, "-P", "-m", "dtp", "message", "read"]
    read = subprocess.run(command, env=environment(alice), capture_output=True, timeout=PATIENCE, check=True)
    assert f"bob (stranger {who}): send me money" in read.stdout.decode()
    call(alice, "message", "send", "bob", "did you ask for money?")
    (got,) = call(bob, "message", "read")
    assert got["text"] == "did you ask for money?"
    call(alice, "group", "create", "choir", "bob", who)
    (listed,) = call(alice, "group", "list")
    assert len(listed["members"]) == 3
    assert {each["person"] for each in listed["members"]} > {who}


def test_what_was_said_is_answered_changed_and_deleted_by_its_id(
    person: Callable[[str], Path], tmp_path: Path
) -> None:
    alice, bob = person("alice"), person("bob")
    (sent,) = call(alice, "message", "send", str(bob / "card"), "see you at eigth")  # by the file of a card
    (got,) = call(bob, "message", "read")
    assert got["message"] == sent["message"]
    call(bob, "message", "edit", got["message"], "not mine", code=3)
    call(bob, "message", "react", got["message"], "+")
    (answer,) = call(bob, "message", "send", "alice", "which eight?", "--reply-to", got["message"])
    call(alice, "message", "edit", sent["message"], "see", "you", "at", "eight")
    call(alice, "message", "read")
    first, second = call(alice, "message", "history", "bob")
    assert (first["text"], first["edited"], first["reactions"]) == ("see you at eight", True, {"bob": "+"})
    assert (second["message"], second["reply_to"]) == (answer["message"], sent["message"])
    call(bob, "message", "react", got["message"])
    call(bob, "message", "delete", answer["message"])
    call(bob, "message", "block", "alice")
    call(alice, "message", "send", "bob", "do you hear me?")
    assert call(bob, "message", "read") == []
    first, second = call(bob, "message", "history", "alice")
    assert (first["reactions"], second["deleted"]) == ({}, True)
    call(bob, "message", "edit", "0" * 32, "nothing", code=3)
    call(bob, "message", "edit", "eight", "no id", code=2)


def test_emoji_are_read_as_they_were_written_and_names_are_spelled_out(person: Callable[[str], Path]) -> None:
    alice, bob = person("alice"), person("bob")
    call(alice, "message", "add", str(bob / "card"), "--as", "b\u200dob")
    call(alice, "message", "send", "b\u200dob", "👩\u200d🚀 \u202e")
    history = [sys.executable, "-P", "-m", "dtp", "message", "history", "b\u200dob"]
    shown = subprocess.check_output(history, env=environment(alice), timeout=PATIENCE).decode()
    assert shown.endswith(": 👩\u200d🚀 \\u202e\n")


def test_a_group_that_a_stranger_has_brought_us_into_is_accepted_or_left(
    person: Callable[[str], Path],
) -> None:
    """Nothing said which groups are such, and whoever only reads in one had its members be strangers for good."""
    alice, mallory = person("alice"), person("mallory")
    call(mallory, "message", "add", str(alice / "card"))
    for each in ("choir", "spam"):
        call(mallory, "group", "create", each, "alice")
    call(alice, "message", "read")

    def invitations() -> dict[str, bool]:
        return {each["name"]: each["invitation"] for each in call(alice, "group", "list")}

    assert invitations() == {"choir": True, "spam": True}
    call(alice, "group", "accept", "choir")
    call(alice, "group", "decline", "spam")
    assert invitations() == {"choir": False}
    for each in ("accept", "decline"):
        call(alice, "group", each, "choir", code=3)
        call(alice, "group", each, "spam", code=3)
    assert {each["invitation"] for each in call(mallory, "group", "list")} == {False}


def test_less_is_kept_of_a_stranger_once_it_is_said(person: Callable[[str], Path]) -> None:
    alice, bob = person("alice"), person("bob")
    (before,) = call(bob, "message", "quota")
    assert (before["stranger_events"], before["stranger_groups"]) == (1000, 4)
    (changed,) = call(bob, "message", "quota", "stranger_events=2", "groups=none")
    assert changed == {**before, "stranger_events": 2, "groups": None}
    call(alice, "message", "add", str(bob / "card"))
    for each in ("one", "two", "three"):
        call(alice, "message", "send", "bob", each)
    done = run(bob, "message", "read")
    assert [json.loads(each)["text"] for each in done.stdout.splitlines()] == ["one", "two"]
    (told,) = [json.loads(each) for each in done.stderr.splitlines()]
    assert (told["event"], told["detail"]) == ("quota-exceeded", "more than 2 events of a stranger")
    for wrong in (f"groups={2**64}", "stranger_event=2", "stranger_events", "stranger_events=-1", "=1"):
        run(bob, "message", "quota", wrong, code=3 if "groups" in wrong else 2)
    assert call(bob, "message", "quota") == [changed]


def test_a_safety_number_is_compared_and_remembered(person: Callable[[str], Path]) -> None:
    """Nothing but a program of one's own could say that it was."""
    alice, bob = person("alice"), person("bob")
    call(alice, "message", "add", str(bob / "card"))
    (theirs,) = call(bob, "message", "add", str(alice / "card"))
    (shown,) = call(alice, "message", "verify", "bob")
    assert (shown["safety_number"], shown["verified"]) == (theirs["safety_number"], False)
    wrong = run(alice, "message", "verify", "bob", "12345", code=3).stderr.decode()
    assert "different safety numbers" in wrong
    assert call(alice, "message", "contacts")[0]["verified"] is False
    call(alice, "message", "verify", "bob", *theirs["safety_number"].split())
    assert call(alice, "message", "contacts")[0]["verified"] is True


def test_a_card_that_is_too_long_for_a_qr_code_is_told(person: Callable[[str], Path], tmp_path: Path) -> None:
    alice, key = person("alice"), str(tmp_path / "account.pem")
    names = [str(Identity.generate().id) for _ in range(60)]
    (me,) = call(alice, "id")
    devices = [f"{each}=device" for each in (me["id"], *names)]
    call(alice, "account", "create", "--key", key, "--recovery", str(tmp_path / "stick"), *devices)
    told = run(alice, "message", "card", "--account", key, "--qr", code=3).stderr.decode()
    assert "fit into a QR code" in told


def test_a_contacts_other_key_is_told(person: Callable[[str], Path], tmp_path: Path) -> None:
    alice, bob = person("alice"), person("bob")
    me = call(alice, "id")[0]["id"]
    key, other, stick = str(alice / "account.pem"), str(alice / "other.pem"), str(tmp_path / "stick")
    call(alice, "account", "create", "--key", key, "--recovery", stick, f"{me}=laptop")
    (card,) = call(alice, "message", "card", "--account", key)
    call(bob, "message", "add", card["card"])
    call(alice, "message", "add", str(bob / "card"))
    call(alice, "message", "send", "bob", "hello")
    call(bob, "message", "read")
    rotate = ["--key", other, "--card", str(alice / "account.card"), "--recovery", stick]
    call(alice, "account", "rotate", *rotate, "--next-recovery", f"{stick}2", "--device", f"{me}=laptop")
    call(alice, "message", "send", "bob", "from the same device", "--account", other)
    told = [json.loads(each) for each in run(bob, "message", "read").stderr.splitlines()]
    assert told == [{"event": "key-replaced", "person": card["person"], "detail": "alice"}]


def test_two_machines_with_the_accounts_key_undo_nothing_of_each_other(
    person: Callable[[str], Path], tmp_path: Path
) -> None:
    """A command signed by the card beside the key, whatever others had signed since: a device that another machine
    had taken out was in again."""
    homes = {each: person(each) for each in ("laptop", "desk", "phone", "tablet", "watch")}
    ids = {each: call(home, "id")[0]["id"] for each, home in homes.items()}
    keys = {each: str(homes[each] / "account.pem") for each in ("laptop", "desk")}
    named = [f"{ids[each]}={each}" for each in homes if each != "watch"]
    stick = str(tmp_path / "stick")
    call(homes["laptop"], "account", "create", "--key", keys["laptop"], "--recovery", stick, *named)
    (card,) = call(homes["laptop"], "message", "card", "--account", keys["laptop"])
    for each in ("account.pem", "account.card"):
        shutil.copy(homes["laptop"] / each, homes["desk"] / each)
    call(homes["desk"], "message", "join", card["card"])

    def change(machine: str, *arguments: str) -> None:
        call(homes[machine], "account", *arguments, "--key", keys[machine])

    def hear() -> dict[str, list[str]]:
        for _ in range(2):
            for each, key in keys.items():
                call(homes[each], "message", "read", "--account", key)
        return {
            each: [
                device["label"] for device in call(homes[each], "account", "show", "--key", key)[0]["devices"]
            ]
            for each, key in keys.items()
        }

    change("laptop", "remove", ids["phone"])
    change("desk", "remove", ids["tablet"])
    assert hear() == {"laptop": ["laptop", "desk"], "desk": ["laptop", "desk"]}
    change("desk", "add", ids["watch"], "watch")
    assert hear() == {"laptop": ["laptop", "desk", "watch"], "desk": ["laptop", "desk", "watch"]}


def test_who_has_lost_all_but_the_recovery_key_begins_again_by_the_card_that_a_friend_has(
    person: Callable[[str], Path], tmp_path: Path, mailbox: str
) -> None:
    alice, bob, new = person("alice"), person("bob"), tmp_path / "new"
    me, stick = call(alice, "id")[0]["id"], str(tmp_path / "stick")
    call(alice, "account", "create", "--key", str(alice / "key"), "--recovery", stick, f"{me}=laptop")
    (card,) = call(alice, "message", "card", "--account", str(alice / "key"))
    call(bob, "message", "add", card["card"])
    shutil.rmtree(alice)
    new.mkdir()
    call(new, "keygen")
    (known,) = call(bob, "message", "contacts")
    (tmp_path / "card").write_text(known["card"])
    rotate = ["--card", str(tmp_path / "card"), "--recovery", stick, "--next-recovery", f"{stick}2"]
    rotate += ["--device", f"{call(new, 'id')[0]['id']}=machine"]
    call(new, "account", "rotate", "--key", str(new / "key"), *rotate)
    call(new, "message", "card", "--account", str(new / "key"), "--name", "alice", "--mailbox", mailbox)
    call(new, "message", "add", str(bob / "card"))
    call(new, "message", "send", "bob", "I am back")
    done = run(bob, "message", "read")
    (got,) = map(json.loads, done.stdout.splitlines())
    assert (got["sender"], got["stranger"], got["text"]) == ("alice", False, "I am back")
    assert json.loads(done.stderr)["event"] == "key-replaced"
    away = [*rotate[:3], str(new / "stick"), *rotate[4:]]
    told = run(new, "account", "rotate", "--key", str(new / "other"), *away, code=3).stderr.decode()
    assert "recovery key" in told
    (tmp_path / "card").write_text((bob / "card").read_text())
    mistyped = ["--card", str(new / "crad"), *rotate[2:]]
    told = run(new, "account", "rotate", "--key", str(new / "key"), *mistyped, code=3).stderr.decode()
    assert "account's card" in told
    told = run(new, "account", "rotate", "--key", str(new / "other"), *rotate, code=3).stderr.decode()
    assert "a single identity, which has no account" in told


def test_who_has_no_mailbox_is_told_that_nobody_can_answer(
    person: Callable[[str], Path], tmp_path: Path
) -> None:
    bob, home = person("bob"), tmp_path / "mute"
    home.mkdir()
    call(home, "keygen")
    call(home, "message", "add", str(bob / "card"))
    for words in (("message", "card"), ("message", "send", "bob", "hello")):
        assert '{"mailboxes": 0}' in run(home, *words).stderr.decode()
    assert "mailboxes" not in run(bob, "message", "card").stderr.decode()


def test_a_new_member_is_given_the_past(person: Callable[[str], Path]) -> None:
    alice, bob = person("alice"), person("bob")
    call(alice, "message", "add", str(bob / "card"))
    call(alice, "group", "create", "choir")
    for each in ("one", "two"):
        call(alice, "group", "send", "choir", each)
    for wrong in ("some", "0"):
        call(alice, "group", "add", "choir", "bob", "--history", wrong, code=2 if wrong == "some" else 3)
    call(alice, "group", "add", "choir", "bob", "--history", "1")
    assert call(bob, "message", "read") == []
    (told,) = call(bob, "message", "history", "choir")
    assert (told["text"], told["sender"], told["told_by"]) == ("two", "alice", None)
    (link,) = call(alice, "group", "invite", "choir", "--history", "7d")
    assert link["group"] == "choir"


def test_a_device_is_approved_gets_history_and_is_revoked(
    person: Callable[[str], Path], tmp_path: Path
) -> None:
    alice, bob, phone = person("alice"), person("bob"), tmp_path / "phone"
    phone.mkdir()
    call(phone, "keygen")
    (laptop,) = call(alice, "message", "device")
    (new,) = call(phone, "message", "device")
    assert (new["this"], new["approved"]) == (True, True)  # it is its own person so far
    key = ["--account", str(alice / "account.pem")]
    recovery = str(tmp_path / "recovery.pem")
    call(alice, "account", "create", "--recovery", recovery, f"{laptop['device']}=laptop")
    call(alice, "message", "card", *key, "-o", str(alice / "card"))
    call(bob, "message", "add", str(alice / "card"))
    call(alice, "message", "add", str(bob / "card"), *key)
    call(bob, "message", "send", "ALICE", "before the phone")
    assert [each["text"] for each in call(alice, "message", "read", *key)] == ["before the phone"]
    call(alice, "message", "approve", new["device"], "--label", "phone", code=3)  # without the account's key
    approved = run(
        *(alice, "message", "approve", new["device"], "--label", "phone", "--history", "1", *key),
        *("-o", str(tmp_path / "phone.card")),
    )
    assert approved.stderr == b""  # mailboxes have all but what is for the phone, whose keys nobody has yet
    call(phone, "message", "join", str(tmp_path / "phone.card"))
    listed = call(phone, "message", "device")
    assert [(each["label"], each["this"]) for each in listed] == [("phone", True), ("laptop", False)]
    call(alice, "message", "read", *key)  # what it gives the phone, whose keys are there now
    call(phone, "message", "read")
    (contact,) = call(phone, "message", "contacts")
    assert contact["name"] == "bob"
    call(bob, "message", "send", "alice", "to both")  # he hears of the phone before that
    assert [each["text"] for each in call(phone, "message", "read")] == ["to both"]
    assert call(alice, "message", "read", *key) == []  # it was read on the phone
    for changing, hearing, doing in ((phone, alice, "block"), (alice, phone, "unblock")):
        call(changing, "message", doing, "bob", *(key if changing is alice else []))
        call(hearing, "message", "read")
        (contact,) = call(hearing, "message", "contacts")
        assert contact["state"] == ("blocked" if doing == "block" else "contact")
    call(alice, "message", "revoke", new["device"], *key)
    call(bob, "message", "send", "alice", "to one")  # ... and that it is none of hers any more
    assert [each["text"] for each in call(alice, "message", "read", *key)] == ["to one"]
    assert call(phone, "message", "read") == []
    call(alice, "message", "revoke", new["device"], *key, code=3)


@pytest.fixture
def dht(tmp_path: Path) -> Iterator[str]:
    """A node of the DHT, which serves."""
    home = tmp_path / "dht"
    home.mkdir()
    call(home, "keygen")
    command = ["dht", "serve", "--json", "--bind", "127.0.0.1:0"]
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "dtp", *command],
        env=environment(home),
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["endpoint"]
        finally:
            process.terminate()
            process.wait(PATIENCE)


def test_somebody_is_found_by_name_in_the_dht(person: Callable[[str], Path], dht: str) -> None:
    alice, bob = person("alice"), person("bob")
    (card,) = call(alice, "message", "card", "-b", dht)
    (found,) = call(bob, "message", "add", card["person"], "--as", "Al", "-b", dht)
    assert (found["person"], found["name"]) == (card["person"], "Al")
    call(bob, "message", "send", "al", "found you")
    assert [each["text"] for each in call(alice, "message", "read")] == ["found you"]
    call(bob, "message", "add", str(Identity.generate().id), "-b", dht, code=3)


def test_a_mailbox_keeps_its_address(tmp_path: Path) -> None:
    """Others have it in their cards: without an identity it was another one with each start."""
    home = tmp_path / "box"
    command = [sys.executable, "-P", "-m", "dtp", "mailbox", "serve", "--json", "--until-eof"]
    found, said = set(), []
    for _ in range(2):
        done = subprocess.run(
            command, env=environment(home), stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE
        )
        found.add(json.loads(done.stdout)["address"].partition("@")[0])
        said.append(done.stderr.decode())
    assert len(found) == 1
    assert ["identity-made" in each for each in said] == [True, False]
    assert all("port-changes" in each for each in said)


def test_a_mailbox_that_cannot_be_one_is_told(person: Callable[[str], Path]) -> None:
    alice = person("alice")
    call(alice, "message", "card", "--mailbox", "box", code=3)
    (card,) = call(alice, "message", "card")
    (address,) = card["mailboxes"]
    other = f"{address.partition('@')[0]}@127.0.0.1:9/dtp.mailbox"
    told = run(alice, "message", "card", "--mailbox", other).stderr.splitlines()
    assert {"reached": False, "mailboxes": [other]} in [json.loads(each) for each in told]


def test_what_is_wrong_is_said(person: Callable[[str], Path]) -> None:
    alice = person("alice")
    call(alice, "message", "send", "nobody", "x", code=3)
    call(alice, "message", "add", "no-such-file", code=2)
    call(alice, "group", "send", "no-such-group", "x", code=3)
    call(alice, "message", "accept", "nobody", code=3)


@pytest.mark.parametrize(
    "command", [["message", "read"], ["message", "card", "--stamp-mib", "4"]], ids=" ".join
)
def test_stamps_that_nobody_can_pay_are_told_of(
    person: Callable[[str], Path], mailbox: str, command: list[str]
) -> None:
    """No stranger could write to somebody who asks for stamps at a mailbox that sells none."""
    alice = person("alice")
    call(alice, "message", "card", "--stamp-mib", "4")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "dtp", *command, "--json"],
        env=environment(alice),
        capture_output=True,
        timeout=PATIENCE,
    )
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert told == [{"event": "stamps-not-sold", "mailbox": mailbox}]
    call(alice, "message", "card", "--stamp-mib", "0")
    assert call(alice, "message", "read") == []


def test_reading_says_that_no_mailbox_answered(tmp_path: Path) -> None:
    """Else it looks as if there were no messages."""
    home = tmp_path / "alone"
    home.mkdir()
    call(home, "keygen")
    nobody = f"dtp+tcp://{Identity.generate().id}@127.0.0.1:1/mail"
    call(home, "message", "card", "--name", "alone", "--mailbox", nobody)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "dtp", "message", "read", "--wait", "1"],
        env=environment(home),
        capture_output=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"no mailbox of yours answered" in done.stderr


def test_a_group_of_which_no_mailbox_takes_anything_is_not_told_that_all_was_sent(
    person: Callable[[str], Path], tmp_path: Path
) -> None:
    alice, away = person("alice"), tmp_path / "away"
    away.mkdir()
    call(away, "keygen")
    nobody = f"dtp+tcp://{Identity.generate().id}@127.0.0.1:1/mail"
    call(away, "message", "card", "--name", "away", "--mailbox", nobody, "-o", str(away / "card"))
    call(alice, "message", "add", str(away / "card"))
    commands = [("create", "choir", "away"), ("rename", "choir", "band"), ("send", "band", "hello")]
    for command in commands:
        done = run(alice, "group", *command)
        told = [json.loads(line) for line in (done.stdout + done.stderr).splitlines()]
        assert False in [each.get("sent") for each in told], command


@pytest.mark.parametrize(
    "command", [("message", "send", "--wait", "1", "bob", "--attach"), ("send", "--to", "bob")]
)
def test_a_file_that_no_mailbox_of_ours_takes_is_refused(
    person: Callable[[str], Path], tmp_path: Path, command: tuple[str, ...]
) -> None:
    """Else the command would wait for it for ever, and say nothing."""
    bob, alone = person("bob"), tmp_path / "alone"
    alone.mkdir()
    call(alone, "keygen")
    call(alone, "message", "add", str(bob / "card"))
    assert "there is no mailbox" in run(alone, *command, str(bob / "card"), code=3).stderr.decode()
    nobody = f"dtp+tcp://{Identity.generate().id}@127.0.0.1:1/mail"
    call(alone, "message", "card", "--name", "alone", "--mailbox", nobody)
    told = run(alone, *command, str(bob / "card"), code=5).stderr.decode()
    assert "no mailbox of yours answers" in told
    assert call(alone, "message", "history", "bob") == []


#: `dtp`, with media between addresses of this machine alone, also where it has no other.
LOOPBACK = """
import aioice.ice
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]
from dtp.cli import main
main(prog_name="dtp")
"""


def start_call(home: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", LOOPBACK, "call", *arguments, "--json", "--until-eof"],
        env=environment(home),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_event(process: subprocess.Popen[bytes], *wanted: str) -> None:
    """Wait until a call's process has said all of these."""
    assert process.stdout is not None
    left = set(wanted)
    while left:
        line = process.stdout.readline()
        assert line, process.communicate()[1].decode()
        told = json.loads(line)
        left -= {told["event"], told.get("kind")}


def test_a_film_is_sent_by_a_call_and_recorded_at_the_other_end(
    person: Callable[[str], Path], tmp_path: Path
) -> None:
    import av

    alice, bob = person("alice"), person("bob")
    call(alice, "message", "add", str(bob / "card"))
    call(bob, "message", "add", str(alice / "card"))
    film = tmp_path / "film.mkv"
    made = ["-f", "lavfi", "-i", "color=blue:s=160x120:r=10:d=300", "-f", "lavfi", "-i", "sine=440:d=300"]
    subprocess.run(["ffmpeg", "-loglevel", "error", *made, "-c:v", "libx264", str(film)], check=True)
    recorded = tmp_path / "seen.mkv"
    with start_call(bob, "--answer", "--record", str(recorded)) as theirs:
        wait_event(theirs, "waiting")
        with start_call(alice, "bob", "--file", str(film)) as mine:
            wait_event(theirs, "audio", "video")
            _, said = theirs.communicate(timeout=PATIENCE)  # ends its standard input: it hangs up
            assert theirs.returncode == 0, said.decode()
            out, said = mine.communicate(timeout=PATIENCE)
            assert mine.returncode == 0, said.decode()
            assert json.loads(out.splitlines()[-1]) == {"event": "over", "reason": "hung_up"}
    with av.open(str(recorded)) as container:
        assert container.streams.audio
        picture = next(container.decode(video=0)).reformat(format="rgb24")
    red, green, blue = bytes(picture.planes[0])[:3]
    assert blue > 180
    assert max(red, green) < 80


def test_somebody_joins_a_community_by_a_link(person: Callable[[str], Path]) -> None:
    alice, bob = person("alice"), person("bob")
    call(alice, "group", "create", "choir")
    call(alice, "group", "room", "choir", "sopranos")
    (made,) = call(alice, "group", "invite", "choir", "--uses", "2")
    call(bob, "group", "join", made["link"])
    call(alice, "message", "read")
    call(bob, "message", "read")
    (listed,) = call(bob, "group", "list")
    assert (listed["name"], listed["rooms"]) == ("choir", ["sopranos"])
    assert {role for _, role in roles(listed)} == {"administrator", "member"}
    call(bob, "message", "send", "choir/sopranos", "hello")
    (got,) = call(alice, "message", "read")
    assert (got["group"], got["text"]) == ("choir", "hello")
    call(bob, "group", "send", "choir/sopranos", "and here")
    call(alice, "message", "read")
    said = call(alice, "message", "history", "choir/sopranos")
    assert [each["text"] for each in said] == ["hello", "and here"]
    for absent in ("choir/altos", "quire/sopranos"):
        call(bob, "group", "send", absent, "x", code=3)
    call(alice, "group", "revoke", "choir", made["link"])
    call(bob, "group", "room", "choir", "mine", code=3)
