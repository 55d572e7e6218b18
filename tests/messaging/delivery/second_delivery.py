"""What each device shows of a conversation, by a second reader: written from docs/messaging.md alone, and nothing of
`dtp`.

It is told what was said on which device, to which others, and what devices showed meanwhile. A device has an event
for sure, perhaps, or not at all. Perhaps: where a device was restored to a backup or revoked, where somebody was
taken out of a group, or doesn't tell the past any more.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import NamedTuple

DAY = 86_400_000
#: Ms for which a device that is away is given what is written later, beside the first day.
PATIENCE = 30 * DAY


class Said(NamedTuple):
    """What was said: a `text`, `edit`, `delete` or `react`."""

    id: bytes
    kind: str
    person: bytes
    device: str
    conversation: object
    clock: int
    at: int
    target: bytes = b""
    word: str = ""
    #: Ms after which it disappears, 0 for never.
    disappears: int = 0

    @property
    def order(self) -> tuple[int, bytes, bytes]:
        return self.clock, self.person, self.id


class Seen(NamedTuple):
    """A message as a device shows it."""

    id: bytes
    person: bytes
    text: str
    deleted: bool
    reactions: dict[bytes, str]
    told_by: bytes = b""


class Giving(NamedTuple):
    """Somebody was added, and is given what was said before by the device that did so."""

    teller: str
    person: bytes
    devices: tuple[str, ...]
    conversation: object
    at: int
    #: True if all of the past is given, whenever it was sent.
    everything: bool


@dataclass
class Holding:
    """What a device has, and has done."""

    person: bytes
    #: Events that came by themselves: for sure, and perhaps.
    came: set[bytes] = field(default_factory=set)
    may_have_come: set[bytes] = field(default_factory=set)
    #: Events that were told, and who has told them: for sure, and perhaps.
    told: dict[bytes, set[bytes]] = field(default_factory=dict)
    may_be_told: dict[bytes, set[bytes]] = field(default_factory=dict)
    #: When it showed a message first.
    shown: dict[bytes, int] = field(default_factory=dict)
    #: What it has marked as read itself; what its person has, as it hears for sure, and perhaps.
    marked: set[bytes] = field(default_factory=set)
    read: set[bytes] = field(default_factory=set)
    may_be_read: set[bytes] = field(default_factory=set)
    #: Of which messages it hears that these people have read them: for sure, and perhaps.
    receipts: set[tuple[bytes, bytes]] = field(default_factory=set)
    may_have_receipts: set[tuple[bytes, bytes]] = field(default_factory=set)


class SecondDelivery:
    """What was said, and what each device makes of it."""

    def __init__(self) -> None:
        self.said: dict[bytes, Said] = {}
        self.held: dict[str, Holding] = {}
        #: Devices that there are, or were.
        self.ever: set[str] = set()
        self.givings: list[Giving] = []
        #: Those of them that may not go on.
        self.doubted: list[Giving] = []
        #: By new device the one that has approved it, which passes on what it gets in the next week.
        self.approved_by: dict[str, str] = {}
        #: Texts of a conversation in the order in which they went from one device to another, in which they come.
        self.lines: dict[tuple[str, str, object], list[bytes]] = {}

    # ---- what happens ------------------------------------------------------------------------------------------

    def begin_device(self, device: str, person: bytes) -> None:
        self.held[device] = Holding(person)
        self.ever.add(device)

    def end_device(self, device: str) -> None:
        """A device is revoked: what it has said, and hasn't come yet, comes perhaps."""
        own = self.held.pop(device)
        self._doubt_marks(own.person, own.marked)
        self.doubt_said({each.id for each in self.said.values() if each.device == device})
        self.doubt_told(teller=device)

    def doubt_said(self, events: set[bytes]) -> None:
        for each in self.held.values():
            doubted = each.came & (events - each.shown.keys())
            each.came -= doubted
            each.may_have_come |= doubted

    def doubt_removed(self, person: bytes, conversation: object) -> None:
        """Of what somebody has said whom others remove counts what the removal has seen: it comes, stays or goes
        perhaps, but where they said it."""
        events = {
            each.id
            for each in self.said.values()
            if (each.person, each.conversation) == (person, conversation)
        }
        for each in self.held.values():
            if each.person != person:
                each.may_have_come |= each.came & events
                each.came -= events

    def doubt_received(self, person: bytes, conversation: object) -> None:
        """What hasn't come yet to somebody who was taken out of a group comes perhaps."""
        for each in self.held.values():
            if each.person == person:
                doubted = {
                    event
                    for event in each.came - each.shown.keys()
                    if self.said[event].conversation == conversation and self.said[event].person != person
                }
                each.came -= doubted
                each.may_have_come |= doubted

    def doubt_told(self, *, teller: str = "", person: bytes = b"") -> None:
        """A device tells nothing any more, or nobody tells a person: what isn't there comes perhaps."""
        over = [
            each
            for each in self.givings
            if each.teller == teller or any(self._is_of(device, person) for device in each.devices)
        ]
        self.doubted += over
        for device in {device for each in over for device in each.devices} & self.held.keys():
            own = self.held[device]
            for event in [each for each in own.told if each not in own.shown]:
                own.may_be_told.setdefault(event, set()).update(own.told.pop(event))

    def _is_of(self, device: str, person: bytes) -> bool:
        return device in self.held and self.held[device].person == person

    def say(self, said: Said, to: Iterable[str]) -> None:
        """A device says something to others."""
        own = self.held[said.device]
        known = [each for each in self.said.values() if each.conversation == said.conversation]
        had = [each.clock for each in known if each.id in own.shown]
        assert said.id not in self.said, "two events have one id"
        assert said.clock > max(had, default=-1), "it is before what its device had"
        highest = max((each.clock for each in known), default=0)
        assert said.clock == max(said.at, max(had, default=-1) + 1) or said.clock <= highest + 1, (
            "it is far above all"
        )
        self.said[said.id] = said
        own.came.add(said.id)
        if said.kind == "text":
            own.shown[said.id] = said.at
        for device in {*to} & self.held.keys():
            self.held[device].came.add(said.id)
            if said.kind == "text" and not said.disappears:
                self.lines.setdefault((said.device, device, said.conversation), []).append(said.id)

    def show(self, device: str, seen: Iterable[Seen], now: int) -> None:
        """A device shows a conversation: each message once, in order, and nothing of another device before what that
        said earlier."""
        own, ids = self.held[device], [each.id for each in seen]
        assert len(ids) == len({*ids}), f"{device} shows something twice"
        order = [self.said[each].order for each in ids]
        assert order == sorted(order), f"{device} shows them out of order"
        for each in ids:
            own.shown.setdefault(each, now)
        for (sayer, to, _), line in self.lines.items():
            here = [
                each in own.shown
                for each in line
                if each in own.came - own.told.keys() - own.may_be_told.keys()
            ]
            assert to != device or here == sorted(here, reverse=True), (
                f"{sayer}'s came to {device} out of order"
            )

    def mark_read(self, device: str, message: bytes, told: Iterable[str]) -> None:
        """A device marks a message as read, and says so to these devices."""
        own = self.held[device]
        assert message not in own.marked, f"{device} gave something again that was read"
        own.marked.add(message)
        for each in {*told} & self.held.keys():
            if self.held[each].person == own.person:
                self.held[each].read.add(message)
            else:
                self.held[each].receipts.add((message, own.person))

    def _doubt_marks(self, person: bytes, messages: set[bytes]) -> None:
        receipts = {(each, person) for each in messages}
        for each in self.held.values():
            if each.person == person:
                each.may_be_read |= each.read & messages
                each.read -= messages
            each.may_have_receipts |= each.receipts & receipts
            each.receipts -= receipts

    def give_past(self, giving: Giving, had: list[Seen], span: int, last: int, *, counts: bool) -> None:
        """Somebody gives what they have of a conversation: the `last` messages, and what was sent within `span`.

        Unless that is sure to count, what is given comes perhaps.
        """
        self.givings.append(giving)
        if not counts:
            self.doubted.append(giving)
        teller = giving.person
        recent = [each for each in had if not span or self.said[each.id].at >= giving.at - span]
        given = [each for each in recent if not each.deleted and not self.said[each.id].disappears]
        sure = {each.id for each in given if each in recent[-last:] and counts}
        for device in {*giving.devices} & self.held.keys():
            own = self.held[device]
            for message in given[-last:]:
                own.may_be_told.setdefault(message.id, set()).add(teller)
                if message.id not in sure:
                    continue
                own.told.setdefault(message.id, set()).add(teller)
                for each in self._about(message.id):
                    if _is_seen(each, message):
                        own.told.setdefault(each.id, set()).add(teller)

    def copy_history(self, to: str, of: str, had: Iterable[Seen], since: int) -> None:
        """A person's new device is given what was said since then, as another one shows it."""
        own, self.approved_by[to] = self.held[to], of
        for message in had:
            if self.said[message.id].at < since:
                continue
            own.may_be_read.add(message.id)
            if self.said[message.id].disappears:
                own.may_have_come.add(message.id)
            elif message.told_by:
                own.told.setdefault(message.id, set()).add(message.told_by)
            else:
                own.came.add(message.id)
            about = self._about(message.id)
            own.may_have_come |= {each.id for each in about}
            own.came |= {each.id for each in about if _is_seen(each, message) and not message.told_by}

    def keep_backup(self, device: str) -> Holding:
        """Return what a device has now, to be restored to."""
        return deepcopy(self.held[device])

    def restore(self, device: str, backup: Holding) -> None:
        """A device is put back to a backup: what it hadn't acknowledged comes again, and what it has said since is
        perhaps at others."""
        own = self.held[device]
        lost = {each.id for each in self.said.values() if each.device == device} - backup.came
        texts = {each for each in own.came if self.said[each].kind == "text"}
        kept = {each for each in texts if each in backup.shown or each not in own.shown} - lost
        self.doubt_said(lost)
        self._doubt_marks(own.person, own.marked - backup.marked)
        self.doubt_told(teller=device)
        restored = Holding(own.person, kept, own.may_have_come | own.came - kept, shown=backup.shown)
        restored.told = {each: by for each, by in backup.told.items() if each in backup.shown}
        for told in (own.told, own.may_be_told, backup.told, backup.may_be_told):
            for each, by in told.items():
                restored.may_be_told.setdefault(each, set()).update(by)
        restored.marked = backup.marked
        restored.may_be_read = own.read | own.may_be_read
        restored.may_have_receipts = own.receipts | own.may_have_receipts
        self.held[device] = restored
        self.lines = {place: [] if device in place[:2] else line for place, line in self.lines.items()}

    # ---- what is there in the end ------------------------------------------------------------------------------

    def check(self, device: str, conversation: object, seen: list[Seen]) -> None:
        """Raise `AssertionError` if a device shows something else in a conversation than it should, a long time after
        everything else."""
        own = self.held[device]
        told, may_be_told = self._told_to(device)
        sure = own.came | told.keys()
        possible = sure | self._may_have(device) | may_be_told.keys()
        there = {each.id: each for each in seen}
        for each in self._texts(conversation):
            if each.id not in there:
                assert each.id not in sure or self._is_gone(own, each, told), f"{device} lacks {each.word}"
        for message in seen:
            said = self.said[message.id]
            assert said.id in possible, f"{device} shows {said.word}, which isn't for it"
            assert said.conversation == conversation
            assert message.person == said.person
            assert not self._has_vanished(own, said), f"{device} still shows {said.word}"
            self._check_teller(device, message, told, may_be_told)
            self._check_look(device, message, told, may_be_told)

    def check_unread(self, device: str, unread: set[bytes]) -> None:
        own = self.held[device]
        told, may_be_told = self._told_to(device)
        due = {
            each.id
            for each in self.said.values()
            if each.kind == "text" and each.person != own.person and each.id in own.shown
            if each.id not in own.read | own.marked
        }
        sure = {
            each
            for each in due
            if each in own.came - own.may_be_read and each not in told.keys() | may_be_told.keys()
        }
        assert not unread & own.marked, f"{device} gives again what it has read"
        assert unread <= due & (own.came | self._may_have(device)), (
            f"{device} doesn't know that something was read"
        )
        lacking = [self.said[each].word for each in sure - unread]
        assert not lacking, f"{device} doesn't give {lacking} as unread"

    def check_receipts(self, device: str, receipts: set[tuple[bytes, bytes]]) -> None:
        """Compare who has read what this device's person has said, by message and reader."""
        own = self.held[device]
        mine = {
            each.id
            for each in self.said.values()
            if each.person == own.person and each.id in own.came and not each.disappears
        }
        assert receipts <= own.receipts | own.may_have_receipts
        lacking = {each for each in own.receipts if each[0] in mine} - receipts
        assert not lacking, (
            f"{device} doesn't hear who has read {[self.said[each].word for each, _ in lacking]}"
        )

    # ---- what that is made of ----------------------------------------------------------------------------------

    def _texts(self, conversation: object) -> list[Said]:
        return [
            each for each in self.said.values() if each.kind == "text" and each.conversation == conversation
        ]

    def _may_have(self, device: str) -> set[bytes]:
        """Return what has perhaps come: with what was passed on by the device that has approved this one."""
        by = self.held.get(self.approved_by.get(device, ""))
        return self.held[device].may_have_come | (by.came | by.may_have_come if by else set())

    def _about(self, message: bytes) -> list[Said]:
        return [each for each in self.said.values() if each.target == message]

    def _told_to(self, device: str) -> tuple[dict[bytes, set[bytes]], dict[bytes, set[bytes]]]:
        """Return what was told for sure and perhaps, with that which came to its teller later."""
        own = self.held[device]
        told = {each: {*by} for each, by in own.told.items()}
        perhaps = {each: {*by} for each, by in own.may_be_told.items()}
        for giving in self.givings:
            if device not in giving.devices:
                continue
            for each in self.said.values():
                if (
                    each.conversation == giving.conversation
                    and each.id not in own.came
                    and not each.disappears
                ):
                    if each.at <= giving.at + DAY + PATIENCE or each.target in {*told, *perhaps}:
                        perhaps.setdefault(each.id, set()).add(giving.person)
                    if giving not in self.doubted and self._is_passed_on(giving, each):
                        told.setdefault(each.id, set()).add(giving.person)
        return told, perhaps

    def _is_passed_on(self, giving: Giving, said: Said) -> bool:
        """True for what came to its teller within a day, by somebody who hadn't heard of the new member."""
        when = self.held[giving.teller].shown.get(said.id, 0)
        is_late = giving.everything or said.at > giving.at
        return said.kind == "text" and is_late and giving.at < when <= giving.at + DAY

    def _has_vanished(self, own: Holding, said: Said) -> bool:
        return bool(said.disappears) and (said.person == own.person or said.id in own.read | own.marked)

    def _is_gone(self, own: Holding, said: Said, told: dict[bytes, set[bytes]]) -> bool:
        if said.disappears:
            return self._has_vanished(own, said) or said.id in own.may_be_read
        deleted = any(each.kind == "delete" for each in self._about(said.id))
        return deleted and said.id in told and said.id not in own.came

    def _check_teller(
        self, device: str, message: Seen, told: dict[bytes, set[bytes]], may_be_told: dict[bytes, set[bytes]]
    ) -> None:
        own = self.held[device]
        tellers = told.get(message.id, set()) | may_be_told.get(message.id, set())
        by_itself = (
            {b""} if message.id in own.came | self._may_have(device) or message.person in tellers else set()
        )
        possible = {b""} if message.id in own.came else tellers - {message.person} | by_itself
        assert message.told_by in possible, f"{device} has {self.said[message.id].word} from somebody else"

    def _check_look(
        self, device: str, message: Seen, told: dict[bytes, set[bytes]], may_be_told: dict[bytes, set[bytes]]
    ) -> None:
        own, said = self.held[device], self.said[message.id]
        about = [each for each in self._about(said.id) if each.kind == "react" or each.person == said.person]
        by_word = message.id not in own.came  # what is told says nothing of what has come by itself
        sure = {each for each in about if each.id in own.came or (by_word and each.id in told)}
        perhaps = sure | {
            each
            for each in about
            if each.id in self._may_have(device) or (by_word and each.id in may_be_told)
        }
        deletions = {each for each in perhaps if each.kind == "delete"}
        assert message.deleted <= bool(deletions), f"{device} has deleted {said.word}"
        assert message.deleted >= bool(deletions & sure), f"{device} hasn't deleted {said.word}"
        if not message.deleted:
            edits = _last_words(sure, perhaps, "edit") or {said.word}
            assert message.text in edits | ({said.word} if not _sure_of(sure, "edit") else set()), (
                f"{device}: {said.word}"
            )
        for person in {each.person for each in perhaps} | message.reactions.keys():
            here = (
                {each for each in sure if each.person == person},
                {each for each in perhaps if each.person == person},
            )
            words = _last_words(*here, "react") | (set() if _sure_of(here[0], "react") else {""})
            assert message.reactions.get(person, "") in words, f"{device}: a reaction to {said.word}"


def _is_seen(about: Said, message: Seen) -> bool:
    """True for an event by which a message looks as it does."""
    if about.kind == "edit":
        return about.person == message.person and about.word == message.text
    return about.kind == "react" and about.word != "" and message.reactions.get(about.person) == about.word


def _sure_of(sure: Iterable[Said], kind: str) -> list[Said]:
    return sorted((each for each in sure if each.kind == kind), key=lambda each: each.order)


def _last_words(sure: Iterable[Said], perhaps: Iterable[Said], kind: str) -> set[str]:
    """Return what may be the last word: that of what is there, or of what is perhaps there, and later."""
    last = _sure_of(sure, kind)[-1:]
    return {each.word for each in _sure_of(perhaps, kind) if not last or each.order >= last[0].order}
