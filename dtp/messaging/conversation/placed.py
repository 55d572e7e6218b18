"""The operations of a group that have their place, and what each has seen. A value.

What somebody who means harm may make is thousands of operations that all have to do with each other, so nothing here
compares each with each: sets of operations are the bits of a number.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from dtp.messaging.conversation.operations import Act, Operation


class PlacedOperation(NamedTuple):
    """An operation that has its place; `past` are the bits of those that it has seen, `about` of those among them
    that say what its author and its subject may do. Sorted as operations are read."""

    seen: int
    id: bytes
    bit: int
    past: int
    about: int
    operation: Operation


class PlacedOperations:
    """The operations of one group that have their place. `place` adds one, after all that it has seen."""

    def __init__(self) -> None:
        self.by_id: dict[bytes, PlacedOperation] = {}
        #: All of them, in an order that agrees with what was seen, the same for everybody.
        self.in_order: list[PlacedOperation] = []
        #: By person, what brings them in, in that order, and the bits of it: whether or not it counts.
        self._arrivals: dict[bytes, list[PlacedOperation]] = {}
        self._arrival_bits: dict[bytes, int] = {}
        #: By person, the bits of removals of them, and of what they have done.
        self._removal_bits: dict[bytes, int] = {}
        self._author_bits: dict[bytes, int] = {}
        #: By removal by somebody else, the bits of what the removed one did without having seen it, nor it that; and
        #: by person the removals.
        self._meanwhile: dict[bytes, int] = {}
        self._removals: dict[bytes, list[PlacedOperation]] = {}
        #: The bits of invitations, of what takes them back, and of who is let in by them.
        self.invitation_bits = 0
        #: By those who are let in by an invitation, that invitation.
        self.admissions: dict[bytes, bytes] = {}
        self.gives_past = False

    def __contains__(self, operation: bytes) -> bool:
        return operation in self.by_id

    def __len__(self) -> int:
        return len(self.by_id)

    def bits_of(self, operation: bytes) -> int:
        """Return the bit of an operation."""
        return self.by_id[operation].bit

    def past_of(self, operation: bytes) -> int:
        """Return the bits of what an operation has seen."""
        return self.by_id[operation].past

    def has_seen(self, operation: bytes, other: bytes) -> bool:
        """True if the author of the one knew of the other."""
        return bool(self.by_id[operation].past & self.by_id[other].bit)

    def done_by(self, person: bytes) -> int:
        """Return the bits of what a person has done."""
        return self._author_bits.get(person, 0)

    def removals_of(self, person: bytes) -> int:
        """Return the bits of removals of a person."""
        return self._removal_bits.get(person, 0)

    def arrivals_of(self, person: bytes) -> list[PlacedOperation]:
        """Return what brings a person in, in order."""
        return self._arrivals.get(person, [])

    def list_removals(self, valid: int) -> Iterator[tuple[PlacedOperation, int]]:
        """Yield removals by somebody else that are among the valid ones, with the bits of what of these the removed
        one did meanwhile, where there is any."""
        for called, meanwhile in self._meanwhile.items():
            removal = self.by_id[called]
            if removal.bit & valid and meanwhile & valid:
                yield removal, meanwhile & valid

    def list_removals_of(self, persons: Iterable[bytes], valid: int) -> Iterator[PlacedOperation]:
        """Yield removals of these persons by somebody else that are among the valid ones."""
        for person in persons:
            yield from (each for each in self._removals.get(person, ()) if each.bit & valid)

    def is_meanwhile(self, removal: bytes, operation: bytes) -> bool:
        """True if the removed person did that without having seen the removal, and the removal hadn't seen that."""
        return bool(self._meanwhile.get(removal, 0) & self.by_id[operation].bit)

    def list_invitation_operations(self, view: int) -> list[Operation]:
        """Return, of the operations in a view, those about invitations, in order."""
        bits = view & self.invitation_bits
        return [each.operation for each in self.in_order if each.bit & bits]

    def place(self, operation: Operation) -> bool:
        """Give an operation its place. Return False for one by nobody who was ever in the group: it takes none,
        whatever counts."""
        past = 0
        for parent in operation.parents:
            seen = self.by_id[parent]
            past |= seen.past | seen.bit
        is_first = operation.act is Act.CREATE
        if not is_first and not past & self._arrival_bits.get(operation.author, 0):
            return False
        about = past & (self._bits_about(operation.author, past) | self._bits_about(operation.subject, past))
        bit = 1 << len(self.by_id)
        placed = PlacedOperation(past.bit_count(), operation.id, bit, past, about, operation)
        self.by_id[operation.id] = placed
        bisect.insort(self.in_order, placed)
        self._note_author(placed)
        self._note_act(placed)
        return True

    def _bits_about(self, person: bytes, past: int) -> int:
        arrivals = self._arrival_bits.get(person, 0)
        bits = arrivals | self._removal_bits.get(person, 0)
        by_invitation = self.invitation_bits and any(
            each.bit & past and each.id in self.admissions for each in self.arrivals_of(person)
        )
        return bits | self.invitation_bits if by_invitation else bits

    def _note_author(self, placed: PlacedOperation) -> None:
        author = placed.operation.author
        for removal in self._removals.get(author, ()):
            if not placed.past & removal.bit:
                self._meanwhile[removal.id] |= placed.bit
        self._author_bits[author] = self._author_bits.get(author, 0) | placed.bit

    def _note_act(self, placed: PlacedOperation) -> None:
        operation, bit = placed.operation, placed.bit
        if (person := operation.brings_in) is not None:
            bisect.insort(self._arrivals.setdefault(person, []), placed)
            self._arrival_bits[person] = self._arrival_bits.get(person, 0) | bit
        if operation.act is Act.REMOVE:
            subject = operation.subject
            self._removal_bits[subject] = self._removal_bits.get(subject, 0) | bit
            if subject != operation.author:
                self._removals.setdefault(subject, []).append(placed)
                self._meanwhile[operation.id] = self.done_by(subject) & ~placed.past
        self.gives_past |= operation.past is not None
        if (told := operation.invitation) is not None:
            self.admissions[operation.id] = told
        if told is not None or operation.act in (Act.INVITE, Act.REVOKE):
            self.invitation_bits |= bit
