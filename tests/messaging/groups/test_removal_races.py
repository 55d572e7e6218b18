"""Members are removed, leave and come back while everybody writes: all who stay show the same in the end.

A history is its seed: HISTORIES=4711:4712 runs one. Compared with a second reader of the documents: of what somebody
wrote whose removal stands counts what the remover's device showed of each of their devices, and what these had said
before.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from second_membership import Group
from test_message_histories import chosen, parts
from village import Village, villages

from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.conversation.heard import MAX_HEARD
from dtp.messaging.conversation.operations import Act, MemberRole, MembershipError, Operation
from dtp.messaging.errors import MessageError
from dtp.messaging.person.correspondence import Correspondence

MINUTE = 60_000
#: Devices: those who stay, and those who are removed, one of whom has two.
STAYING, LEAVING = ("alice", "carol", "dave"), ("bob", "tablet", "erin")


class Race:
    def __init__(self, make: Callable[..., Village], seed: int, least: int) -> None:
        self.chance = random.Random(seed)
        self.at = at = make(*STAYING, *LEAVING, least=least)
        at.share_account("bob", "tablet")
        self.group = at.group("alice", "carol", "dave", "bob", "erin")
        carol = at.people["carol"].person
        at.people["alice"].change_group(
            self.group, Act.ADD, at.now, subject=carol, role=MemberRole.ADMINISTRATOR
        )
        at.deliver()
        #: What each device has said, in order, and what removals have seen of that, by device how many.
        self.said: dict[str, list[bytes]] = {each: [] for each in at.people}
        self.seen: dict[bytes, dict[str, int]] = {}

    def run(self, steps: int) -> None:
        kinds = [
            (8, self.say),
            (2, self.edit),
            (2, self.remove),
            (2, self.bring_back),
            (1, self.leave),
            (12, self.move),
        ]
        for _ in range(steps):
            (kind,) = self.chance.choices([each for _, each in kinds], [weight for weight, _ in kinds])
            self.at.now += self.chance.randrange(MINUTE)
            kind(self.chance.choice([*self.at.people]))
        for _ in range(8):  # all that waits is sent again, and what was sent arrives
            self.at.now += 30 * MINUTE
            self.at.deliver()

    def say(self, name: str) -> None:
        if self.at.is_member(name, self.group):
            text = f"{name}{len(self.said[name])}"
            told = self.at.people[name].send_event(self.group, EventKind.TEXT, {"text": text}, self.at.now)
            self.said[name].append(told.event.id)

    def edit(self, name: str) -> None:
        mine = [each for each in self.said[name] if each in self.shown(name)]
        if mine and self.at.is_member(name, self.group):
            fields = {"target": self.chance.choice(mine), "text": f"{name} edits"}
            told = self.at.people[name].send_event(self.group, EventKind.EDIT, fields, self.at.now)
            self.said[name].append(told.event.id)

    def remove(self, name: str) -> None:
        if name in ("alice", "carol"):
            self.end(name, self.at.people[self.chance.choice(LEAVING)].person)

    def leave(self, name: str) -> None:
        if name in LEAVING and self.at.is_member(name, self.group):
            self.end(name, self.at.people[name].person)

    def end(self, name: str, person: bytes) -> None:
        mail = self.at.people[name]
        if person not in mail.groups[self.group].members.roles:
            return
        events = {each.event.id for each in mail.store.read_events(self.group)}
        devices = [each for each, other in self.at.people.items() if other.person == person]
        removal = mail.change_group(self.group, Act.REMOVE, self.at.now, subject=person)
        self.seen[removal.id] = {
            each: max((1 + place for place, said in enumerate(self.said[each]) if said in events), default=0)
            for each in devices
        }

    def bring_back(self, name: str) -> None:
        mail, person = self.at.people[name], self.at.people[self.chance.choice(LEAVING)].person
        if name in ("alice", "carol") and person not in mail.groups[self.group].members.roles:
            mail.change_group(self.group, Act.ADD, self.at.now, subject=person)

    def move(self, name: str) -> None:
        """Some letters arrive, of those that wait, in another order; the others later."""
        at, mail = self.at, self.at.people[name]
        if self.chance.random() < 0.7:
            at.send(name)
        device = mail.identity.id.key
        waiting = at.boxes.pop(device, [])
        self.chance.shuffle(waiting)
        arriving = [each for each in waiting if self.chance.random() < 0.6]
        if len(arriving) < len(waiting):
            at.boxes[device] = [each for each in waiting if each not in arriving]
        at.receive(name, arriving)

    def shown(self, name: str) -> list[bytes]:
        return [each.event.id for each in self.at.people[name].store.read_events(self.group)]

    def check(self) -> None:
        alice = self.at.people["alice"].groups[self.group]
        read = Group(
            [each.encoded for each in alice.operations.values()], {each.id for each in alice.accepted}
        )
        removals = read.last_removals()
        for name in STAYING:
            members = self.at.people[name].groups[self.group].members
            assert members.roles.keys() == read.members().keys(), name
        expected = set()
        for name, said in self.said.items():
            person = self.at.people[name].person
            counts = len(said)
            if person not in read.members():
                counts = max(self.seen[each][name] for each in removals[person])
            expected |= {*said[:counts]}
        for name in STAYING:
            shown = self.shown(name)
            assert len(shown) == len({*shown})
            assert {*shown} == expected, f"{name}: {self.differ(shown, expected)}"
        looks = [
            [(each.id, each.text, each.edited) for each in self.at.people[name].read_history(self.group)]
            for name in STAYING
        ]
        assert looks[1:] == looks[:-1]

    def differ(self, shown: list[bytes], expected: set[bytes]) -> list[tuple[str, int]]:
        ids = {*shown} ^ expected
        return [
            (name, place)
            for name, said in self.said.items()
            for place, each in enumerate(said)
            if each in ids
        ]


def live(folder: Path, seed: int) -> None:
    with villages(folder) as make, pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "token_bytes", random.Random(seed).randbytes)
        race = Race(make, seed, least=[2, 100][seed % 2])
        race.run(60)
        race.check()


def live_all(folder: Path, seeds: range) -> None:
    for seed in seeds:
        try:
            (folder / str(seed)).mkdir()
            live(folder / str(seed), seed)
        except BaseException:
            print(f"HISTORIES={seed}:{seed + 1}")
            raise


@pytest.mark.slow
def test_who_stays_shows_the_same_whoever_is_removed_meanwhile(folder: Path) -> None:
    live_all(folder, chosen(range(2)))


@pytest.mark.slow
def test_it_is_noticed_where_what_was_shown_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtp.messaging.person.groups.removals.Removals.show_counting", lambda *told: [])
    with pytest.raises(AssertionError):
        live_all(folder, range(20))


@pytest.mark.long
@pytest.mark.parametrize("seeds", parts(range(1_000)), ids=str)
def test_who_stays_shows_the_same_in_many_histories(folder: Path, seeds: range) -> None:
    live_all(folder, seeds)


def removed_meanwhile(at: Village) -> tuple[bytes, Correspondence, Correspondence]:
    """Have Carol write while Alice removes her, and Bob and Dave get one of that first each."""
    alice, carol = at.people["alice"], at.people["carol"]
    group = at.group("alice", "bob", "carol", "dave")
    at.say("carol", group, "hello")
    at.deliver()
    at.say("carol", group, "meanwhile")
    at.send("carol")
    at.receive("bob", at.boxes.pop(at.people["bob"].identity.id.key))
    alice.change_group(group, Act.REMOVE, at.now, subject=carol.person)
    late = at.boxes.pop(at.people["dave"].identity.id.key)
    at.send("alice")
    at.receive("dave", at.boxes.pop(at.people["dave"].identity.id.key))
    at.boxes.setdefault(at.people["dave"].identity.id.key, []).extend(late)
    return group, alice, carol


def test_what_a_removal_has_not_seen_is_shown_to_nobody_whichever_came_first(
    village: Callable[..., Village],
) -> None:
    at = village("alice", "bob", "carol", "dave", least=100)
    group, alice, carol = removed_meanwhile(at)
    assert at.texts("bob", group) == ["hello", "meanwhile"]
    at.deliver()
    assert [at.texts(each, group) for each in ("alice", "bob", "dave")] == [["hello"]] * 3
    assert [len(at.people[each].store.list_unread()) for each in ("alice", "bob", "dave")] == [1] * 3
    alice.change_group(group, Act.ADD, at.now, subject=carol.person)
    at.deliver()
    assert [at.texts(each, group) for each in ("alice", "bob", "dave")] == [["hello", "meanwhile"]] * 3


def test_what_somebody_wrote_before_leaving_is_shown_where_it_comes_later(
    village: Callable[..., Village],
) -> None:
    at = village("alice", "bob", "carol", least=100)
    alice, bob, carol = (at.people[each] for each in ("alice", "bob", "carol"))
    group = at.group("alice", "bob", "carol")
    at.say("carol", group, "goodbye")
    left = carol.change_group(group, Act.REMOVE, at.now, subject=carol.person)
    at.send("carol")
    late = at.boxes.pop(bob.identity.id.key)
    at.receive("alice", at.boxes.pop(alice.identity.id.key))
    with alice.transaction():
        alice.group_states.send_some(group, [bob.identity.id.key], [left], [], at.now)
    at.send("alice")
    at.receive("bob", at.boxes.pop(bob.identity.id.key))
    assert carol.person not in bob.groups[group].members.roles
    assert at.texts("bob", group) == []
    at.receive("bob", late)
    assert at.texts("bob", group) == ["goodbye"] == at.texts("alice", group)
    assert len(bob.store.list_unread()) == 1


def test_a_removed_member_writes_nothing_that_pretends_to_be_from_before(
    village: Callable[..., Village],
) -> None:
    at = village("alice", "bob", "carol", least=100)
    alice, bob, carol = (at.people[each] for each in ("alice", "bob", "carol"))
    group = at.group("alice", "bob", "carol")
    at.now += MINUTE
    at.say("carol", group, "hello")
    at.deliver()
    alice.change_group(group, Act.REMOVE, at.now, subject=carol.person)
    at.deliver()
    early = Event(EventKind.TEXT, group, at.now - MINUTE, at.now - MINUTE, {"text": "earlier"})
    with carol.transaction():
        carol.enqueue_event([each.identity.id.key for each in (alice, bob)], early, at.now)
    at.deliver()
    alice.change_group(group, Act.REMOVE, at.now, subject=carol.person)  # once more: it has seen no more
    at.deliver()
    assert [at.texts(each, group) for each in ("alice", "bob")] == [["hello"]] * 2


def test_who_came_later_hides_nothing_that_was_said_before(village: Callable[..., Village]) -> None:
    at = village("alice", "bob", "carol", "dave", least=100)
    group = at.group("alice", "bob", "carol")
    at.say("carol", group, "hello")
    at.deliver()
    at.now += MINUTE
    dave, carol = at.people["dave"], at.people["carol"]
    subject, role = dave.person, MemberRole.ADMINISTRATOR
    at.people["alice"].change_group(group, Act.ADD, at.now, subject=subject, role=role)
    at.deliver()
    dave.change_group(group, Act.REMOVE, at.now, subject=carol.person)
    at.deliver()
    assert [at.texts(each, group) for each in ("alice", "bob")] == [["hello"]] * 2


@pytest.mark.parametrize(
    "told",
    [
        [],
        [0],
        [-1, []],
        [0, [[b"m" * 15, 1]]],
        [0, [[b"m" * 16]]],
        [0, [[b"m" * 16, 1]] * (MAX_HEARD + 1)],
        b"",
    ],
    ids=str,
)
def test_a_removal_that_has_seen_something_impossible_is_refused(
    village: Callable[..., Village], told: object
) -> None:
    class Told:
        fields = told

    at = village("alice", "bob")
    alice, group = at.people["alice"], at.group("alice", "bob")
    with pytest.raises(MembershipError, match="has seen"):
        Operation.sign(
            *(alice.identity, alice.person, Act.REMOVE),
            subject=at.people["bob"].person,
            parents=[group],
            heard=Told(),  # type: ignore[arg-type]
        )


def test_who_was_removed_cannot_write(village: Callable[..., Village]) -> None:
    at = village("alice", "bob", "carol", "dave", least=100)
    group, _, _ = removed_meanwhile(at)
    at.deliver()
    with pytest.raises(MessageError, match="aren't in this group"):
        at.say("carol", group, "hello?")


def test_what_another_device_of_ours_shows_is_shown_in_order_before_the_group_is_known(
    village: Callable[..., Village],
) -> None:
    """What had come by itself stayed hidden, behind later messages that were passed on."""
    at = village("laptop", "tablet", "bob", least=100)
    laptop, tablet, bob = (at.people[each] for each in ("laptop", "tablet", "bob"))
    at.share_account("laptop")
    group = at.group("laptop", "bob")
    assert laptop.account is not None
    laptop.change_account(laptop.account.add(tablet.identity.id, "", now_ms=at.now), at.now)
    laptop.group_states.most_sent = 0  # it is to be fetched, which nobody does here
    laptop.missed.send_history(tablet.identity.id.key, at.now, at.now)
    tablet.join_account(laptop.card, at.now)
    at.send("laptop")
    at.receive("bob", at.boxes.pop(bob.identity.id.key))
    at.say("bob", group, "one")
    at.send("bob")
    at.receive("tablet", at.boxes.pop(tablet.identity.id.key))
    assert group not in tablet.groups
    assert at.texts("tablet", group) == []
    at.say("bob", group, "two")
    at.deliver()
    assert at.texts("tablet", group) == ["one", "two"] == at.texts("laptop", group)
    assert len(tablet.store.list_unread()) == 2
