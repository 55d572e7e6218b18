"""Who is in a group, by a second reader: written from docs/messaging.md alone, with sets, and nothing of `dtp`.

It knows neither invitations nor bounds of size, and checks no signatures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgpack

CREATE, ADD, REMOVE, INVITE, REVOKE, RETIRE = 1, 2, 3, 7, 8, 9
MEMBER, ADMINISTRATOR, MODERATOR = 0, 1, 2


class Read(NamedTuple):
    """An operation's fields; of a card its order, and the devices that it names."""

    act: int
    author: bytes
    device: bytes
    subject: bytes
    role: int
    parents: list[bytes]
    card_order: tuple[int, int, bytes] = (0, 0, b"")
    card_devices: tuple[bytes, ...] = ()


def name_of(operation: bytes) -> bytes:
    return hashlib.blake2b(operation, digest_size=32).digest()


def _read(operation: bytes) -> Read:
    body, _ = msgpack.unpackb(operation)
    _, act, author, device, subject, role, _, parents, _, *card = msgpack.unpackb(body)
    if act != RETIRE:
        return Read(act, author, device, subject, role, parents)
    signed, signature = msgpack.unpackb(card[0])
    _, _, _, rotations, sequence, _, _, devices = msgpack.unpackb(signed)
    order = len(rotations) + 1, sequence, signature
    return Read(act, author, device, subject, role, parents, order, tuple(key for key, _ in devices))


class Group:
    """The operations of a group, of which a reader has accepted some."""

    def __init__(self, operations: Iterable[bytes], accepted: set[bytes]) -> None:
        known = {name_of(each): _read(each) for each in operations}
        self.accepted = accepted
        due = set(accepted)
        while more := {parent for each in due & known.keys() for parent in known[each].parents} - due:
            due |= more
        self.seen: dict[bytes, set[bytes]] = {}
        self.known = known
        while ready := [
            each for each in due & known.keys() - self.seen.keys() if self._is_ready(known[each])
        ]:
            for each in ready:
                self.seen[each] = self._before(known[each])
        self.placed = {each: known[each] for each in self.seen}
        self.order = sorted(self.placed, key=lambda each: (len(self.seen[each]), each))

    def _before(self, operation: Read) -> set[bytes]:
        return set(operation.parents).union(*(self.seen[each] for each in operation.parents))

    def _is_ready(self, operation: Read) -> bool:
        if not all(each in self.seen for each in operation.parents):
            return False
        before = [self._brought_in(self.known[each]) for each in self._before(operation)]
        return operation.act == CREATE or operation.author in before

    def members(self) -> dict[bytes, int]:
        """Return who is in it, with which role."""
        return self._roles(self._find_counting())

    def _find_counting(self) -> list[bytes]:
        covers = {name: set(self.seen[name]) for name, each in self.placed.items() if each.act == RETIRE}
        valid: list[bytes] = []
        for _ in range(8):
            retired = self._find_retired(covers)
            void = {each for each in self.order if not self._counts(each, retired, covers)}
            valid = self._find_valid(void)
            if not self._widen(covers, retired, valid):
                break
        return valid

    def last_removals(self) -> dict[bytes, list[bytes]]:
        """Return by person who was removed the removals that count and that no other one of these has seen."""
        valid = self._find_counting()
        found: dict[bytes, list[bytes]] = {}
        for each in valid:
            if self.placed[each].act == REMOVE:
                found.setdefault(self.placed[each].subject, []).append(each)
        return {
            person: [each for each in removals if not any(each in self.seen[other] for other in removals)]
            for person, removals in found.items()
        }

    def _find_retired(self, covers: dict[bytes, set[bytes]]) -> dict[Any, list[bytes]]:
        retired: dict[Any, list[bytes]] = {}
        for name in sorted(covers, key=lambda each: (self.placed[each].card_order, each), reverse=True):
            told = self.placed[name]
            cards = [self.placed[each] for each in covers if self.placed[each].author == told.author]
            naming = [each.card_order for each in cards if told.subject in each.card_devices]
            if told.card_order > max(naming, default=(0, 0, b"")) and self._counts(name, retired, covers):
                retired.setdefault((told.author, told.subject), []).append(name)
        return retired

    def _counts(self, name: bytes, retired: dict[Any, list[bytes]], covers: dict[bytes, set[bytes]]) -> bool:
        signer = self.placed[name].author, self.placed[name].device
        if signer in retired:
            return all(name in covers[each] or name == each for each in retired[signer])
        return name in self.accepted

    def _find_valid(self, void: set[bytes]) -> list[bytes]:
        void = set(void)
        for _ in range(16):
            valid = self._find_allowed([each for each in self.order if each not in void])
            further = self._of_removed(valid)
            if not further:
                return valid
            void |= further[0][1]
        valid, last = self._find_allowed([each for each in self.order if each not in void]), set[bytes]()
        for removal, done in self._of_removed(valid):
            if removal not in last:
                last |= done
        return self._find_allowed([each for each in valid if each not in last])

    def _find_allowed(self, names: list[bytes]) -> list[bytes]:
        valid: list[bytes] = []
        for name in names:
            if self._is_allowed(name, [each for each in valid if each in self.seen[name]]):
                valid.append(name)
        return valid

    def _is_allowed(self, name: bytes, before: list[bytes]) -> bool:
        told, roles = self.placed[name], self._roles(before)
        own = roles.get(told.author)
        if told.act in (CREATE, RETIRE) or own == ADMINISTRATOR:
            return True
        if told.act == REMOVE and told.subject == told.author:
            return own is not None
        about_member = told.role == MEMBER and roles.get(told.subject, MEMBER) == MEMBER
        may = about_member if told.act in (ADD, REMOVE) else told.act in (INVITE, REVOKE)
        return own == MODERATOR and may

    def _apart(self, one: bytes, other: bytes) -> bool:
        return one not in self.seen[other] and other not in self.seen[one]

    def _removals(self, valid: list[bytes]) -> list[bytes]:
        placed = self.placed
        return [
            each
            for each in valid
            if placed[each].act == REMOVE and placed[each].subject != placed[each].author
        ]

    def _of_removed(self, valid: list[bytes]) -> list[tuple[bytes, set[bytes]]]:
        """Return removals with what those removed did meanwhile, where they did something, by who is in for longest
        first."""
        arrived = [self._brought_in(self.placed[each]) for each in valid]

        def since(removal: bytes) -> int:
            return arrived.index(self.placed[removal].author)

        found = []
        removals = self._removals(valid)
        for removal in sorted(removals, key=lambda each: (since(each), self.order.index(each))):
            subject = self.placed[removal].subject
            theirs = [each for each in valid if self.placed[each].author == subject]
            if void := {each for each in theirs if self._apart(each, removal)}:
                found.append((removal, void))
        return found

    def _brought_in(self, told: Read) -> bytes:
        return {CREATE: told.author, ADD: told.subject}.get(told.act, b"")

    def _widen(
        self, covers: dict[bytes, set[bytes]], retired: dict[Any, list[bytes]], valid: list[bytes]
    ) -> bool:
        before = sum(map(len, covers.values()))
        for (person, _), retirements in retired.items():
            for removal in [each for each in self._removals(valid) if self.placed[each].subject == person]:
                for each in retirements:
                    if self._apart(each, removal):
                        covers[each] |= self.seen[removal]
        return sum(map(len, covers.values())) > before

    def _roles(self, valid: list[bytes]) -> dict[bytes, int]:
        roles = {}
        removals = [each for each in valid if self.placed[each].act == REMOVE]
        for name in valid:
            told = self.placed[name]
            subject = told.author if told.act == CREATE else told.subject
            about = {each for each in removals if self.placed[each].subject == subject}
            if told.act in (CREATE, ADD) and about <= self.seen[name]:
                roles[subject] = ADMINISTRATOR if told.act == CREATE else told.role
        return roles
