"""Random histories of three people, a group and two mailboxes: killed programs, cut connections, mailboxes that die,
drop, double, reorder and lose their disk. Nothing is lost, doubled or out of order.

A history is its seed: HISTORIES=4711:4712 runs one. -m long runs all that are promised, on as many cores as -n says.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from mortal import FUSE, Killed
from post_office import known_identity

from dtp.carriers.nearness import Nearness
from dtp.messaging.conversation.events import EventKind
from dtp.messaging.conversation.operations import Act, Past
from dtp.messaging.conversation.state import Shown
from dtp.messaging.ends.keys import DeviceKeys, KeyBundle
from dtp.messaging.errors import KeysForged
from dtp.messaging.mailbox import SqliteMailbox, Tray
from dtp.messaging.mailbox.store import Deposit, access_hash
from dtp.messaging.person.attachments import Attachment, AttachmentGone
from dtp.messaging.person.correspondence import Correspondence
from dtp.messaging.person.desk import Outbound
from dtp.messaging.person.groups.group_states import MAX_STATE

NOW = 1_700_000_000_000
MINUTE, DAY = 60_000, 86_400_000
NAMES = ("alice", "bob", "carol")
BOXES = ("box0", "box1")
#: Quiet days at the end, in which all that was promised has to arrive: what isn't acknowledged comes again daily.
QUIET = 14
#: Histories of one test: the long ones are as many tests as there are, for all cores.
TOGETHER = 100
_T = TypeVar("_T")

pytestmark = pytest.mark.usefixtures("mortal")


class Person:
    """A program on a device, which is begun again after it was killed."""

    def __init__(self, folder: Path, name: str, now_ms: int) -> None:
        self._path, self.name = folder / f"{name}.db", name
        self.identity = known_identity(name)
        #: What it heard itself say, by conversation; and what it heard that it has marked as read.
        self.said: dict[bytes, list[str]] = {}
        self.read: set[bytes] = set()
        self.answers: set[bytes] = set()
        self.repairs: set[bytes] = set()
        self.mail = Correspondence(self._path, self.identity, now_ms)

    @property
    def key(self) -> bytes:
        return self.identity.id.key

    def do(self, work: Callable[..., _T], *arguments: Any, kill: int | None = None, **options: Any) -> _T:
        with FUSE.lit(kill):
            return work(*arguments, **options)

    def begin_again(self, now_ms: int) -> None:
        self.mail.close()
        self.answers, self.repairs = set(), set()
        self.mail = Correspondence(self._path, self.identity, now_ms)
        assert self.mail.desk.renewed == ""  # it was killed, not copied


class Pieces:
    """A mailbox, asked for pieces of files."""

    def __init__(self, store: SqliteMailbox) -> None:
        self._store = store

    async def get_piece(self, digest: bytes) -> bytes:
        return self._store.get_piece(digest) or b""


class History:
    #: Who there is, and who of them is in the group from the beginning.
    names, members = NAMES, NAMES
    #: Devices from which on a group is large: its messages are spread by a topic as well.
    least = 0
    #: Whether what is known of the group is put into its maker's mailboxes, and fetched.
    fetches = False
    steps = 40
    #: The longest time between two steps, and that in which nothing happens.
    pace, pause = MINUTE, 2 * DAY

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance: random.Random = Certain()
        self.now = NOW
        self.boxes = {name: self.open_box() for name in BOXES}
        self.away: set[str] = set()
        self.seen: list[tuple[bytes, bytes]] = []
        self.people = {name: self.open_person(folder, name) for name in self.names}
        self.number = 0
        #: What is under way in the group's topic: to whom, by whom, and the message.
        self.spread: list[tuple[str, bytes, bytes]] = []
        self.get_acquainted()
        others = [self.people[each].mail.person for each in self.members[1:]]
        if self.fetches:
            self.people["alice"].mail.group_states.most_sent = 0
        self.group = self.people["alice"].mail.create_group("choir", others, NOW)
        self.read_along()
        self.chance = random.Random(seed)

    def open_box(self) -> SqliteMailbox:
        return SqliteMailbox()

    def open_person(self, folder: Path, name: str) -> Person:
        return Person(folder, name, NOW)

    def get_acquainted(self) -> None:
        """Have everybody say where they are, and add everybody else."""
        for each in self.people.values():
            each.mail.set_profile(each.mail.card.name or each.name, BOXES, NOW)
            for box in BOXES:
                self.publish(each, box)
        for each in self.people.values():
            for other in self.people.values():
                if other.mail.person != each.mail.person:
                    each.mail.add_contact(other.mail.card, NOW)

    def read_along(self) -> None:
        for each in self.people.values():
            each.mail.spreading.least = self.least
            each.mail.spreading.patience_ms = MINUTE
            each.mail.spreading.joined = {self.group} if self.least else set()

    def close(self) -> None:
        for person in self.people.values():
            person.mail.close()
        for box in self.boxes.values():
            box.close()

    # ---- what happens ------------------------------------------------------------------------------------------

    @property
    def more_steps(self) -> list[tuple[int, Callable[[Person], None]]]:
        return []

    def run(self) -> None:
        steps: list[tuple[int, Callable[[Person], None]]] = [
            *self.more_steps,
            (5, self.say), (5, self.deliver), (5, self.collect), (2, self.mark_read), (1, self.disturb),
            (1, self.wait), (10 if self.least else 0, self.hear),
        ]  # fmt: skip
        for _ in range(self.steps):
            (step,) = self.chance.choices([each for _, each in steps], [weight for weight, _ in steps])
            person = self.chance.choice([*self.people.values()])
            self.now += self.chance.randrange(self.pace)
            try:
                step(person)
            except Killed:
                person.begin_again(self.now)
                self.read_along()
        self.settle()

    def settle(self) -> None:
        """Let all that was promised arrive: everything works from now on."""
        self.chance = Certain()
        self.away.clear()
        for _ in range(QUIET):
            for _ in range(4):
                for person in self.people.values():
                    self.collect(person)
                    self.hear(person)
                    self.deliver(person)
            if self.is_quiet():  # nothing would happen on the days that are left
                return
            self.now += DAY + MINUTE

    def is_quiet(self) -> bool:
        """True if nothing waits anywhere, to be sent, fetched or said."""
        waiting = [each.envelope for box in self.boxes.values() for person in self.people.values()
                   for tray in Tray for each in box.fetch_envelopes(person.key, tray, 0, 1, 1 << 22)]  # fmt: skip
        people = self.people.values()
        due = [each.name for each in people if each.mail.store.next_due() is not None]
        given = [each.name for each in people if each.mail.store.past.load_givings()]
        wanted = [each.name for each in people if each.mail.store.list_wanted_states(self.now + QUIET * DAY)]
        unsaid = any(each.answers or each.repairs for each in people)
        return not (waiting or due or given or wanted or self.spread or unsaid)

    def maybe_kill(self) -> int | None:
        return self.chance.randrange(40) if self.chance.random() < 0.12 else None

    def say(self, person: Person) -> None:
        conversations = [each.key for each in self.people.values() if each is not person]
        if person.key in self.members_for(person):
            conversations += [self.group] * (8 if self.least else 1)
        conversation = self.chance.choice(conversations)
        self.number += 1
        text = f"{person.name}{self.number}"
        self.note_said(person, conversation, text)
        person.do(
            *(person.mail.send_event, conversation, EventKind.TEXT, {"text": text}, self.now),
            kill=self.maybe_kill(),
        )
        person.said.setdefault(conversation, []).append(text)

    def members_for(self, person: Person) -> dict[bytes, Any]:
        """Return who is in the group as far as somebody has heard."""
        group = person.mail.groups.get(self.group)
        return {} if group is None else dict(group.members.roles)

    def note_said(self, person: Person, conversation: bytes, text: str) -> None:
        """Note what somebody is about to say."""

    def mark_read(self, person: Person) -> None:
        for _, _, message in person.mail.store.list_unread()[:2]:
            person.do(person.mail.mark_read, message, self.now, tell=True, kill=self.maybe_kill())
            person.read.add(message)

    def wait(self, person: Person) -> None:
        self.now += self.chance.randrange(self.pause)

    def disturb(self, person: Person) -> None:
        box = self.chance.choice(BOXES)
        match self.chance.randrange(4):
            case 0:
                self.away ^= {box}
            case 1:  # it has lost its disk, and all that it has promised to keep
                self.boxes[box].close()
                self.boxes[box] = self.open_box()
            case 2 if self.seen:  # it gives again what it has given before
                recipient, envelope = self.chance.choice(self.seen)
                self.boxes[box].add_envelopes([Deposit(recipient, envelope, 10_000_000)], self.now // 1000)
            case _:
                raise Killed

    # ---- as `Delivery` does it ---------------------------------------------------------------------------------

    def publish(self, person: Person, box: str) -> None:
        store, desk = self.boxes[box], person.mail.desk
        status = store.device_status(person.key)
        count = 3 if status is None or status.one_time_keys < 2 else 0
        keys, one_time = person.do(desk.keys_to_publish, count, self.now, kill=self.maybe_kill())
        store.publish_keys(person.key, DeviceKeys.parse(keys).sequence, keys, one_time)
        store.set_access(person.key, access_hash(person.mail.access), 0)
        for pieces in person.do(person.mail.group_states.list_pieces, self.now, kill=self.maybe_kill()):
            for piece in pieces:
                told = (person.key, piece, 10_000_000, person.mail.access, self.now // 1000)
                assert not store.put_piece(*told).refusal

    async def try_each(
        self, places: tuple[str, ...], teller: Nearness, ask: Callable[[Any], Awaitable[bool]]
    ) -> bool:
        """As `MailboxPool` does it."""
        for box in self.reached(places):
            if await ask(Pieces(self.boxes[box])):
                return True
        return False

    def fetch(self, person: Person) -> None:
        for wanted in person.do(person.mail.group_states.take_wanted, self.now, kill=self.maybe_kill()):
            size, key, roots = wanted.fields
            places = person.mail.find_route(wanted.device).mailboxes
            file = Attachment("state", size, key, roots, places, self)  # type: ignore[arg-type]
            try:
                state = asyncio.run(file.read(limit=MAX_STATE))
            except AttachmentGone:
                continue
            person.do(
                *(person.mail.group_states.take_fetched, wanted, state, self.now),
                kill=self.maybe_kill(),
            )

    def reached(self, addresses: tuple[str, ...]) -> list[str]:
        found = [each for each in addresses if each not in self.away]
        self.chance.shuffle(found)
        return found

    def begin(self, person: Person, device: bytes) -> bool:
        for box in self.reached(person.mail.find_route(device).mailboxes):
            taken = self.boxes[box].take_keys(device)
            if taken is None:
                continue
            try:
                bundle = KeyBundle.parse(*taken, device=device, now_ms=self.now)
            except KeysForged:  # they have ended: the device wasn't there for long
                continue
            person.do(person.mail.desk.begin_session, device, bundle, kill=self.maybe_kill())
            return True
        return False

    def deposit(self, person: Person, sealed: Outbound) -> bool:
        addresses, access, _ = person.mail.find_route(sealed.device)
        for box in self.reached(addresses):
            luck = self.chance.random()
            if luck < 0.05:  # it says that it keeps that, and doesn't
                return True
            told = Deposit(sealed.device, sealed.envelope, 10_000_000, access)
            (outcome,) = self.boxes[box].add_envelopes([told], self.now // 1000)
            if outcome.refusal:
                continue
            self.seen.append((sealed.device, sealed.envelope))
            if luck < 0.1:  # the connection is cut before it says so
                continue
            return True
        return False

    # ---- as `TopicSpreader` does it ----------------------------------------------------------------------------

    def publish_spread(self, person: Person) -> None:
        for group, _, sealed in person.do(person.mail.spreading.take_unpublished, kill=self.maybe_kill()):
            assert group == self.group
            for other in self.people.values():
                if other is not person and self.chance.random() < 0.8:  # else it isn't there
                    self.spread.append((other.name, person.key, sealed))

    def hear(self, person: Person) -> None:
        here = [each for each in self.spread if each[0] == person.name]
        self.spread = [each for each in self.spread if each[0] != person.name]
        if self.chance.random() < 0.3:
            self.chance.shuffle(here)
        for _, author, sealed in here:
            if self.chance.random() < 0.1:  # by another neighbour
                self.spread.append((person.name, author, sealed))
            person.do(
                *(person.mail.spreading.receive_by_topic, self.group, author, sealed, self.now),
                kill=self.maybe_kill(),
            )
        if self.chance.random() < 0.8:
            for device, payload in sorted(person.mail.spreading.take_answers(self.now)):
                outbound = person.do(
                    person.mail.desk.seal_answer, device, payload=payload, kill=self.maybe_kill()
                )
                if outbound is not None:
                    self.deposit(person, outbound)

    def deliver(self, person: Person) -> None:
        desk = person.mail.desk
        self.fetch(person)
        self.publish_spread(person)
        person.do(person.mail.spreading.hand_over_due, self.now, kill=self.maybe_kill())
        person.do(person.mail.past.give_due, self.now, kill=self.maybe_kill())
        repairs, person.repairs = person.repairs, set()
        for device in sorted(repairs):
            if self.begin(person, device):
                self.answer(person, device, repair=True)
        for device in desk.devices_without_session(self.now):
            if not self.begin(person, device):
                person.do(desk.put_off, device, self.now + MINUTE, kill=self.maybe_kill())
        while sealed := person.do(desk.seal_due, self.now, kill=self.maybe_kill()):
            for each in sealed:
                if not self.deposit(person, each):
                    person.do(desk.not_sent, each, self.now + MINUTE, kill=self.maybe_kill())
        answers, person.answers = person.answers, set()
        for device in sorted(answers):
            self.answer(person, device)

    def answer(self, person: Person, device: bytes, *, repair: bool = False) -> None:
        sealed = person.do(person.mail.desk.seal_answer, device, repair=repair, kill=self.maybe_kill())
        if sealed is not None:
            self.deposit(person, sealed)

    def collect(self, person: Person) -> None:
        for box in self.reached(BOXES):
            self.publish(person, box)
            store = self.boxes[box]
            kept = [
                each for tray in Tray for each in store.fetch_envelopes(person.key, tray, 0, 100, 1 << 22)
            ]
            if self.chance.random() < 0.2:
                self.chance.shuffle(kept)
            envelopes = [each.envelope for each in kept]
            received, _ = person.do(
                person.mail.receive_envelopes, envelopes, self.now, kill=self.maybe_kill()
            )
            person.answers |= received.answers
            person.repairs |= set(received.repairs)
            if self.chance.random() < 0.9:  # else the connection is cut before it is acknowledged
                store.acknowledge_envelopes(person.key, [each.id for each in kept])

    # ---- what was promised -------------------------------------------------------------------------------------

    def check(self) -> None:
        for person in self.people.values():
            for conversation, said in person.said.items():
                own = self.texts(person, conversation, person)
                assert [each for each in own if each in said] == said, (
                    f"{person.name} has lost what it has said"
                )
                for other in self.people.values():
                    if other is person or conversation not in (self.group, other.key):
                        continue
                    if conversation == self.group and not {person.name, other.name} <= set(self.members):
                        continue
                    there = person.key if conversation == other.key else conversation
                    assert self.texts(other, there, person) == own, f"{person.name} to {other.name}"
                    shown = [each.id for each in other.mail.read_history(there)]
                    assert shown == [each.id for each in person.mail.read_history(conversation)]
        for person in self.people.values():
            unread = {message for _, _, message in person.mail.store.list_unread()}
            others = {
                each.id
                for conversation in (
                    self.group,
                    *(each.key for each in self.people.values() if each is not person),
                )
                for each in person.mail.read_history(conversation)
                if each.sender != person.key and self.is_news(person, each)
            }
            assert not unread & person.read
            assert unread | person.read == others

    def is_news(self, person: Person, message: Shown) -> bool:
        return True

    def texts(self, reader: Person, conversation: bytes, sender: Person) -> list[str]:
        return [each.text for each in reader.mail.read_history(conversation) if each.sender == sender.key]


class Certain(random.Random):
    """Nothing goes wrong any more."""

    def random(self) -> float:
        return 0.5


class SpreadHistory(History):
    fetches, least, steps, pace, pause = True, 2, 150, 5_000, 4 * MINUTE


class PastHistory(History):
    """Somebody comes later, and is given what was said before: all of it is there in the end, as it is for others."""

    names = (*NAMES, "dave")
    steps = 80

    def __init__(self, folder: Path, seed: int) -> None:
        #: What was said by who hadn't heard of dave, and what alice had when she added him.
        self.unheard: set[str] = set()
        self.promised: set[str] = set()
        super().__init__(folder, seed)

    @property
    def more_steps(self) -> list[tuple[int, Callable[[Person], None]]]:
        return [(3, self.admit)]

    def admit(self, person: Person) -> None:
        alice, dave = self.people["alice"], self.people["dave"]
        if person is not alice or dave.key in self.members_for(alice):
            return
        had = {each.text for each in alice.mail.read_history(self.group)}
        given: dict[str, Any] = {"subject": dave.key, "text": Past().text}
        alice.do(*(alice.mail.change_group, self.group, Act.ADD, self.now), kill=self.maybe_kill(), **given)
        self.promised = had

    def note_said(self, person: Person, conversation: bytes, text: str) -> None:
        if conversation == self.group and self.people["dave"].key not in self.members_for(person):
            self.unheard.add(text)

    def is_news(self, person: Person, message: Shown) -> bool:
        """True for what has come by itself."""
        return not message.told and (person.name != "dave" or message.text not in self.promised)

    def settle(self) -> None:
        self.chance = Certain()
        self.admit(self.people["alice"])
        super().settle()

    def check(self) -> None:
        super().check()
        alice, dave = self.people["alice"], self.people["dave"]
        theirs, his = (each.mail.read_history(self.group) for each in (alice, dave))
        known = {each.id for each in his}
        assert [each.id for each in theirs if each.id in known] == [each.id for each in his]
        missing = {each.text for each in theirs if each.id not in known}
        assert missing <= self.unheard - self.promised
        said = {each.id: (each.sender, each.text) for each in theirs}
        assert {each.id: (each.sender, each.text) for each in his}.items() <= said.items()


class LargePastHistory(PastHistory):
    fetches, least, steps, pace, pause = True, 2, 150, 5_000, 4 * MINUTE


def live(folder: Path, seed: int, kind: type[History] = History) -> None:
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        # Ids decide who is read first of what is said, or done in a group, at the same time.
        patch.setattr(secrets, "token_bytes", random.Random(seed).randbytes)
        history = kind(folder, seed)
        try:
            history.run()
            history.check()
        finally:
            history.close()
            shutil.rmtree(folder)


def chosen(default: range) -> range:
    first, _, end = os.environ.get("HISTORIES", "").partition(":")
    return range(int(first), int(end)) if first and end else default


def parts(default: range) -> list[range]:
    seeds = chosen(default)
    return [seeds[at : at + TOGETHER] for at in range(0, len(seeds), TOGETHER)]


def live_all(folder: Path, seeds: range, kind: type[History] = History) -> None:
    for seed in seeds:
        try:
            live(folder / str(seed), seed, kind)
        except BaseException:
            print(f"HISTORIES={seed}:{seed + 1}")
            raise


def test_nothing_is_lost_doubled_or_out_of_order(folder: Path) -> None:
    live_all(folder, chosen(range(4)))


def test_nothing_is_lost_doubled_or_out_of_order_where_a_topic_spreads_it(folder: Path) -> None:
    live_all(folder, chosen(range(6)), SpreadHistory)


@pytest.mark.parametrize("kind", [PastHistory, LargePastHistory])
def test_who_comes_later_is_given_what_was_said_before(folder: Path, kind: type[History]) -> None:
    live_all(folder, chosen(range(4)), kind)


@pytest.mark.slow
def test_it_is_noticed_where_nothing_is_sent_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtp.messaging.person.desk.resend_after", lambda tries: 100 * DAY)
    with pytest.raises(AssertionError):
        live_all(folder, range(20))


@pytest.mark.long
@pytest.mark.parametrize("seeds", parts(range(10_000)), ids=str)
def test_nothing_is_lost_doubled_or_out_of_order_in_ten_thousand_histories(
    folder: Path, seeds: range
) -> None:
    live_all(folder, seeds)


@pytest.mark.long
@pytest.mark.parametrize("seeds", parts(range(2_000)), ids=str)
def test_nothing_is_lost_doubled_or_out_of_order_where_a_topic_spreads_it_in_many_histories(
    folder: Path, seeds: range
) -> None:
    live_all(folder, seeds, SpreadHistory)


@pytest.mark.long
@pytest.mark.parametrize("kind", [PastHistory, LargePastHistory])
@pytest.mark.parametrize("seeds", parts(range(1_000)), ids=str)
def test_who_comes_later_is_given_what_was_said_before_in_many_histories(
    folder: Path, seeds: range, kind: type[History]
) -> None:
    live_all(folder, seeds, kind)
