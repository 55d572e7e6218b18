"""Correspondences, and letters carried between them by hand at the time of a clock that tests move."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from post_office import known_identity

from dtp.identity import Account, Device
from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.conversation.operations import Operation
from dtp.messaging.ends.keys import KeyBundle
from dtp.messaging.person.correspondence import Correspondence
from dtp.messaging.person.notices import CallSignalled, Notice

NOW = 1_700_000_000_000


class Village:
    """People with a mailbox each that never fails, and groups of two others at least that are large."""

    def __init__(self, folder: Path, *names: str, least: int = 2, acquainted: bool = True) -> None:
        """Groups of `least` devices are large. Without `acquainted` the first knows all others, and they nobody."""
        self.folder, self.now, self.least = folder, NOW, least
        self.people = {name: self.open(name) for name in names}
        self.boxes: dict[bytes, list[bytes]] = {}
        for mail in self.people.values():
            mail.set_profile("", ["dtp+tcp://dtp1qqqq@box:1"], NOW)
        for name, mail in list(self.people.items())[: None if acquainted else 1]:
            for other in [each for each in self.people.values() if each.person != self.people[name].person]:
                mail.add_contact(other.card, NOW)

    def open(self, name: str, *, of: str = "", account: Account | None = None) -> Correspondence:
        """Open somebody's file, or one of this name that is another's."""
        identity = known_identity(of or name)
        mail = Correspondence(self.folder / f"{name}.db", identity, self.now, account=account)
        mail.spreading.least = self.least
        return mail

    def group(self, owner: str, *others: str) -> bytes:
        """Return a group whose members have heard of it, and read along in its topic."""
        made = self.people[owner].create_group(
            "choir", [self.people[each].person for each in others], self.now
        )
        for each in (owner, *others):
            self.people[each].spreading.joined.add(made)
        self.deliver()
        return made

    def share_account(self, *names: str) -> None:
        """Have these be devices of one person, whom everybody knows; the first has the account's key."""
        devices = [Device(self.people[each].identity.id.key, each) for each in names]
        account = Account.create(known_identity("key"), known_identity("recovery").id, devices)
        first = self.people[names[0]]
        first.change_account(account, self.now)
        for name, mail in self.people.items():
            if name in names[1:]:
                mail.join_account(first.card, self.now)
            elif name != names[0]:
                mail.add_contact(first.card, self.now)
                for each in names[1:]:
                    self.people[each].add_contact(mail.card, self.now)
        self.deliver()

    def revoke(self, owner: str, device: str) -> None:
        """Have a device be revoked by the one that has the account's key, and nobody hear of it yet."""
        mail = self.people[owner]
        assert mail.account is not None
        mail.change_account(mail.account.remove(self.people[device].identity.id), self.now + 1)

    def is_member(self, name: str, group: bytes) -> bool:
        """True if somebody sees themselves in a group."""
        mail = self.people[name]
        return group in mail.groups and mail.person in mail.groups[group].members.roles

    def pass_on(self, name: str, to: str, group: bytes, *operations: Operation) -> None:
        """Have somebody tell another operations of a group, whoever's they are."""
        with self.people[name].transaction():
            device = self.people[to].identity.id.key
            self.people[name].group_states.send_some(group, [device], list(operations), [], self.now)
        self.deliver()

    def say(self, name: str, group: bytes, text: str) -> None:
        self.people[name].send_event(group, EventKind.TEXT, {"text": text}, self.now)

    def deliver(self) -> dict[str, list[Notice | CallSignalled]]:
        """Carry all letters to whom they are for, until nobody has more to say; return what each is told by that."""
        told: dict[str, list[Notice | CallSignalled]] = {name: [] for name in self.people}
        while sum(self.send(each) for each in self.people) or self.boxes:
            for name, mail in self.people.items():
                told[name] += self.receive(name, self.boxes.pop(mail.identity.id.key, []))
        return told

    def receive(self, name: str, letters: list[bytes]) -> list[Notice | CallSignalled]:
        """Give somebody letters, post what they answer, and return what they are told."""
        mail = self.people[name]
        received, notices = mail.receive_envelopes(letters, self.now)
        for device, payload in mail.spreading.take_answers(self.now):
            self._post(mail, device, payload)
        for device in received.repairs:
            mail.desk.begin_session(device, self._bundle(device))
            self._post(mail, device, b"", repair=True)
        for device in received.answers:
            self._post(mail, device, b"")
        return notices

    def bundle(self, name: str) -> KeyBundle:
        """Return keys to begin a session by."""
        return KeyBundle(self.people[name].desk.local.keys)

    def _bundle(self, device: bytes) -> KeyBundle:
        return next(self.bundle(name) for name, mail in self.people.items() if mail.identity.id.key == device)

    def send(self, name: str) -> bool:
        """Post what somebody has to say. Return whether there was anything."""
        mail = self.people[name]
        mail.spreading.hand_over_due(self.now)
        mail.past.give_due(self.now)
        for device in mail.desk.devices_without_session(self.now):
            mail.desk.begin_session(device, self._bundle(device))
        sealed = mail.desk.seal_due(self.now)
        for each in sealed:
            self.boxes.setdefault(each.device, []).append(each.envelope)
        return bool(sealed)

    def _post(self, mail: Correspondence, device: bytes, payload: bytes, *, repair: bool = False) -> None:
        outbound = mail.desk.seal_answer(device, payload=payload, repair=repair)
        if outbound is not None:
            self.boxes.setdefault(device, []).append(outbound.envelope)

    def published(self, name: str) -> list[bytes]:
        """Return what somebody publishes now."""
        return [sealed for _, _, sealed in self.people[name].spreading.take_unpublished()]

    def hear(self, name: str, author: str, group: bytes, *published: bytes) -> None:
        for each in published:
            self.people[name].spreading.receive_by_topic(
                group, self.people[author].identity.id.key, each, self.now
            )

    def texts(self, name: str, group: bytes) -> list[str]:
        return [each.text for each in self.people[name].read_history(group)]

    def waiting(self, name: str) -> list[Event]:
        """Return what waits to be given to others by mailbox."""
        return [Event.parse(each.payload) for each in self.people[name].store.due_payloads(self.now, 100)]


@contextmanager
def villages(folder: Path) -> Iterator[Callable[..., Village]]:
    """Make villages in a folder, which are closed at the end."""
    made: list[Village] = []

    def make(*names: str, least: int = 2, acquainted: bool = True) -> Village:
        made.append(Village(folder, *names, least=least, acquainted=acquainted))
        return made[-1]

    try:
        yield make
    finally:
        for each in made:
            for mail in each.people.values():
                mail.close()
