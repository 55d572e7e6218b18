"""Random histories of people with several devices, compared with a second reader of the documents.

A history is its seed: HISTORIES=4711:4712 runs one. -m long runs many, on as many cores as -n says.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from mortal import Killed
from post_office import known_identity
from second_delivery import DAY, Giving, Holding, Said, SecondDelivery, Seen
from test_message_histories import (
    BOXES,
    MINUTE,
    NOW,
    Certain,
    History,
    Person,
    chosen,
    live_all,
    parts,
)

from dtp.identity import Account, Device
from dtp.messaging.conversation.events import EventKind
from dtp.messaging.conversation.operations import Act, Past
from dtp.messaging.mailbox import SqliteMailbox, Tray
from dtp.messaging.mailbox.store import KeptEnvelope
from dtp.messaging.person.correspondence import Correspondence

HOUR = 60 * MINUTE
KINDS = {EventKind.TEXT: "text", EventKind.EDIT: "edit", EventKind.DELETE: "delete", EventKind.REACT: "react"}

pytestmark = pytest.mark.usefixtures("mortal")


class UnfaithfulBox(SqliteMailbox):
    """Withholds some of what it keeps, and gives some of it twice."""

    def __init__(self, history: History) -> None:
        super().__init__()
        self._history = history

    def fetch_envelopes(
        self, device: bytes, tray: Tray, after: int, most: int, most_bytes: int
    ) -> list[KeptEnvelope]:
        kept, chance = super().fetch_envelopes(device, tray, after, most, most_bytes), self._history.chance
        if chance.random() < 0.3:
            kept = [each for each in kept if chance.random() < 0.5]
        return kept + [each for each in kept if chance.random() < 0.1]


class OwnDevice(Person):
    """A program on a device, one of which has the account's key."""

    account: Account | None = None
    backup: tuple[Path, Holding] | None = None

    def begin_again(self, now_ms: int, *, restored: bool = False) -> None:
        self.mail.close()
        if restored:
            assert self.backup is not None
            for end in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + end).unlink(missing_ok=True)
            shutil.copy(self.backup[0], self._path)
        self.answers, self.repairs = set(), set()
        self.mail = Correspondence(self._path, self.identity, now_ms, account=self.account)
        assert restored or not self.mail.desk.renewed

    def keep_backup(self, now_ms: int, holding: Holding) -> None:
        self.mail.close()
        copied = self._path.with_suffix(".backup")
        shutil.copy(self._path, copied)
        self.backup = copied, holding
        self.mail = Correspondence(self._path, self.identity, now_ms, account=self.account)
        assert not self.mail.desk.renewed


class ComparedHistory(History):
    """Alice has several devices, and others come and go in her group; devices are lost and restored."""

    names = ("alice", "phone", "bob", "carol", "dave")
    members = ("alice", "bob", "carol")
    steps = 70

    def __init__(self, folder: Path, seed: int) -> None:
        self.model = SecondDelivery()
        self._folder = folder
        #: Whom somebody has taken out of the group, so that what they say isn't for all, and by which operations.
        self.removed: set[bytes] = set()
        self.removals: dict[bytes, set[bytes]] = {}
        super().__init__(folder, seed)
        self.settle_quietly()

    def open_box(self) -> SqliteMailbox:
        return UnfaithfulBox(self)

    def open_person(self, folder: Path, name: str) -> OwnDevice:
        return OwnDevice(folder, name, self.now)

    def get_acquainted(self) -> None:
        """Alice has a phone as well."""
        alice, phone = self.people["alice"], self.people["phone"]
        assert isinstance(alice, OwnDevice)
        devices = [Device(each.key, each.name) for each in (alice, phone)]
        alice.account = Account.create(known_identity("key"), known_identity("recovery").id, devices)
        alice.mail.change_account(alice.account, NOW)
        alice.mail.set_profile("alice", BOXES, NOW)
        phone.mail.join_account(alice.mail.card, NOW)
        super().get_acquainted()
        for each in self.people.values():
            self.model.begin_device(each.name, each.mail.person)

    def settle_quietly(self) -> None:
        """Have everybody know each other, and the group."""
        chance, self.chance = self.chance, Certain()
        self.settle()
        self.chance = chance

    # ---- what happens ------------------------------------------------------------------------------------------

    @property
    def more_steps(self) -> list[tuple[int, Callable[[Person], None]]]:
        return [
            (2, self.admit), (1, self.take_out), (1, self.approve), (1, self.revoke), (1, self.keep_backup),
            (1, self.restore),
        ]  # fmt: skip

    def own(self, name: str) -> OwnDevice:
        found = self.people[name]
        assert isinstance(found, OwnDevice)
        return found

    def place(self, person: Person, conversation: bytes) -> object:
        return "choir" if conversation == self.group else frozenset({person.mail.person, conversation})

    def conversations_of(self, person: Person) -> list[bytes]:
        everybody = {each.mail.person for each in self.people.values()} - {person.mail.person}
        return [self.group, *sorted(everybody)]

    def names_of(self, devices: Iterable[bytes]) -> list[str]:
        keys = {*devices}
        return [each.name for each in self.people.values() if each.key in keys]

    def look(self, person: Person, conversation: bytes) -> list[Seen]:
        """Return what a device shows of a conversation, and tell the model."""
        seen = [
            Seen(each.id, each.sender, each.text, each.deleted, dict(each.reactions), each.told)
            for each in person.mail.read_history(conversation)
        ]
        self.model.show(person.name, seen, self.now)
        return seen

    def look_at_all(self, person: Person) -> None:
        for conversation in self.conversations_of(person):
            self.look(person, conversation)

    def try_to(self, person: Person, work: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        """Do something, at which the program may be killed."""
        try:
            person.do(work, *arguments, kill=self.maybe_kill(), **options)
        except Killed:
            person.begin_again(self.now)
            self.read_along()

    def say(self, person: Person) -> None:
        conversation = self.chance.choice(self.conversations_of(person))
        if conversation == self.group and person.mail.person not in self.members_for(person):
            return
        if conversation != self.group and person.mail.contacts.get_contact(conversation) is None:
            return  # a new device that hasn't heard of them yet
        seen = self.look(person, conversation)
        kind, fields = self.choose_words(person, seen)
        to = self.names_of(person.mail.devices_of(conversation))
        self.try_to(person, person.mail.send_event, conversation, kind, fields, self.now)
        for each in person.mail.store.read_events(conversation):
            if each.event.id not in self.model.said and each.sender == person.mail.person and not each.told:
                self.note(person, conversation, each.event, to)

    def note(self, person: Person, conversation: bytes, event: Any, to: list[str]) -> None:
        fields = event.fields
        assert event.kind in KINDS
        word = fields.get("text", fields.get("emoji", ""))
        said = Said(
            *(event.id, KINDS[event.kind], person.mail.person, person.name, self.place(person, conversation)),
            *(event.clock, event.sent_ms, fields.get("target", b""), word, 1000 * fields.get("disappear", 0)),
        )
        self.model.say(said, to)
        if conversation != self.group:
            return
        for each in self.removed:
            self.model.doubt_received(each, "choir")
        if person.mail.person in self.removed:
            self.model.doubt_said({said.id})

    def choose_words(self, person: Person, seen: list[Seen]) -> tuple[EventKind, dict[str, Any]]:
        self.number += 1
        word = f"{person.name}{self.number}"
        own = [each.id for each in seen if each.person == person.mail.person and not each.deleted]
        luck = self.chance.random()
        if luck < 0.15 and own:
            return EventKind.EDIT, {"target": self.chance.choice(own), "text": word}
        if luck < 0.22 and own:
            return EventKind.DELETE, {"target": self.chance.choice(own)}
        if luck < 0.35 and seen:
            emoji = self.chance.choice([word, ""])
            return EventKind.REACT, {"target": self.chance.choice(seen).id, "emoji": emoji}
        if luck < 0.42:
            return EventKind.TEXT, {"text": word, "disappear": self.chance.choice([60, 3600])}
        return EventKind.TEXT, {"text": word}

    def collect(self, person: Person) -> None:
        super().collect(person)
        person.mail.keep_up(self.now)
        self.look_at_all(person)

    def mark_read(self, person: Person) -> None:
        for _, sender, message in person.mail.store.list_unread()[:2]:
            contact = person.mail.contacts.get_contact(sender)
            told = self.names_of([*(contact.card.devices if contact else ()), *person.mail.own_devices])
            self.try_to(person, person.mail.mark_read, message, self.now, tell=True)
            if message not in {each for _, _, each in person.mail.store.list_unread()}:
                self.model.mark_read(person.name, message, told)

    # ---- a group's members -------------------------------------------------------------------------------------

    def admit(self, person: Person) -> None:
        dave = self.people["dave"].mail.person
        there = self.members_for(person)
        if person.mail.person != self.people["alice"].mail.person or not there or dave in there:
            return
        had = self.look(person, self.group)
        past = self.chance.choice([None, Past(), Past(last=3), Past(span_ms=HOUR), Past(span_ms=DAY, last=8)])
        options = {"subject": dave, **({"text": past.text} if past else {})}
        self.try_to(person, person.mail.change_group, self.group, Act.ADD, self.now, **options)
        if dave not in self.members_for(person):
            return
        if counts := self.removals.get(dave, set()) <= self.operations_of(person):
            self.removed.discard(dave)
        if past is not None:
            everything = past == Past()
            giving = Giving(person.name, person.mail.person, ("dave",), "choir", self.now, everything)
            self.model.give_past(giving, had, past.span_ms, past.last, counts=counts)

    def take_out(self, person: Person) -> None:
        if person.mail.person != self.people["alice"].mail.person:
            return
        someone = self.chance.choice(["carol", "dave", "dave"])
        gone = self.people[someone].mail.person
        if gone not in self.members_for(person):
            return
        self.try_to(person, person.mail.change_group, self.group, Act.REMOVE, self.now, subject=gone)
        if gone in self.members_for(person):
            return
        operations = person.mail.groups[self.group].operations.items()
        self.removals.setdefault(gone, set()).update(
            name for name, each in operations if each.act is Act.REMOVE and each.subject == gone
        )
        self.doubt_member(gone)

    def doubt_member(self, person: bytes) -> None:
        """What somebody says in the group, and is told of it, comes perhaps."""
        self.removed.add(person)
        self.model.doubt_removed(person, "choir")
        self.model.doubt_told(person=person)
        self.model.doubt_received(person, "choir")

    # ---- devices' lives ----------------------------------------------------------------------------------------

    def approve(self, person: Person) -> None:
        if person.name != "alice" or "tablet" in self.model.ever:
            return
        alice = self.own("alice")
        self.people["tablet"] = tablet = self.open_person(self._folder, "tablet")
        assert alice.account is not None
        alice.account = alice.account.add(tablet.identity.id, "tablet", now_ms=self.now)
        alice.mail.change_account(alice.account, self.now)
        self.model.begin_device("tablet", alice.mail.person)
        since = self.now - self.chance.choice([0, HOUR, DAY, 30 * DAY])
        for conversation in self.conversations_of(alice):
            self.model.copy_history("tablet", "alice", self.look(alice, conversation), since)
        alice.mail.missed.send_history(tablet.key, since, self.now)
        tablet.mail.join_account(alice.mail.card, self.now)
        self.read_along()

    def revoke(self, person: Person) -> None:
        gone = self.chance.choice(["phone", "tablet"])
        if person.name != "alice" or gone not in self.people:
            return
        alice = self.own("alice")
        self.look_at_everybody()
        assert alice.account is not None
        alice.account = alice.account.remove(self.people[gone].identity.id, now_ms=self.now)
        alice.mail.change_account(alice.account, self.now)
        lost = self.people.pop(gone)
        if not self.operations_of(lost) <= self.operations_of(alice):  # what nobody has seen of it is void
            for each in ("carol", "dave"):
                self.doubt_member(self.people[each].mail.person)
        lost.mail.close()
        self.model.end_device(gone)

    def operations_of(self, person: Person) -> set[bytes]:
        group = person.mail.groups.get(self.group)
        return set() if group is None else {*group.operations}

    def look_at_everybody(self) -> None:
        for each in self.people.values():
            self.look_at_all(each)

    def keep_backup(self, person: Person) -> None:
        if person.name in ("bob", "carol"):
            self.look_at_all(person)
            self.own(person.name).keep_backup(self.now, self.model.keep_backup(person.name))

    def restore(self, person: Person) -> None:
        own = self.own(person.name)
        if own.backup is None:
            return
        self.look_at_everybody()
        own.begin_again(self.now, restored=True)
        self.read_along()
        self.model.restore(own.name, own.backup[1])
        own.backup = None

    # ---- what was promised -------------------------------------------------------------------------------------

    def check(self) -> None:
        self.now += 2 * HOUR
        for person in self.people.values():
            person.mail.keep_up(self.now)
            for conversation in self.conversations_of(person):
                self.model.check(
                    person.name, self.place(person, conversation), self.look(person, conversation)
                )
            unread = {message for _, _, message in person.mail.store.list_unread()}
            self.model.check_unread(person.name, unread)
            receipts = {
                (each.id, reader)
                for each in self.model.said.values()
                if each.kind == "text" and each.person == person.mail.person
                for reader, read in person.mail.store.read_receipts(each.id).items()
                if read
            }
            self.model.check_receipts(person.name, receipts)


class ComparedLargeHistory(ComparedHistory):
    fetches, least, steps, pace, pause = True, 2, 150, 5_000, 4 * MINUTE


BOTH = [ComparedHistory, ComparedLargeHistory]


@pytest.mark.parametrize("kind", BOTH)
def test_devices_show_what_a_second_reader_of_the_documents_expects(
    folder: Path, kind: type[History]
) -> None:
    live_all(folder, chosen(range(3)), kind)


def test_it_is_noticed_where_what_was_read_before_it_came_is_forgotten(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dtp.messaging.person.reading.EarlyReads.note_read", lambda *noted: None)
    with pytest.raises(AssertionError, match=r"still shows|doesn't hear who has read"):
        live_all(folder, range(20), ComparedLargeHistory)


@pytest.mark.long
@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("seeds", parts(range(1_000)), ids=str)
def test_devices_show_what_a_second_reader_of_the_documents_expects_in_many_histories(
    folder: Path, seeds: range, kind: type[History]
) -> None:
    live_all(folder, seeds, kind)
