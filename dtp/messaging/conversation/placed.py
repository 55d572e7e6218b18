"""The placed operations of a group, and what each of them has seen. A value.

An attacker may make thousands of operations that all refer to each other, so nothing here compares every pair: a
set of operations is an integer with one bit for each.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from dtp.messaging.conversation.operations import Act, Operation


class PlacedOperation(NamedTuple):
    """A placed operation. `past` has the bits of the operations that it has seen, and `about` of those among them
    that decide what its author and its subject may do. Sorts in the order of reading.
    """

    seen: int
    id: bytes
    bit: int
    past: int
    about: int
    operation: Operation


class PlacedOperations:
    """The placed operations of one group. `place` adds one, after all that it has seen."""

    def __init__(self) -> None:
        self.by_id: dict[bytes, PlacedOperation] = {}
        #: All of them, in an order that is the same for everybody and puts each after all that it has seen.
        self.in_order: list[PlacedOperation] = []
        #: By person, the operations that bring them in, in order, and their bits, whether or not they are valid.
        self._arrivals: dict[bytes, list[PlacedOperation]] = {}
        self._arrival_bits: dict[bytes, int] = {}
        #: By person, the bits of removals of them, and of operations by them.
        self._removal_bits: dict[bytes, int] = {}
        self._author_bits: dict[bytes, int] = {}
        #: By removal of somebody by another, the bits of the removed person's operations that are concurrent with
        #: it: neither has seen the other. And by person, the removals.
        self._meanwhile: dict[bytes, int] = {}
        self._removals: dict[bytes, list[PlacedOperation]] = {}
        #: The bits of invitations, of revocations, and of additions by invitation.
        self.invitation_bits = 0
        #: By addition, the invitation that it uses.
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
        """Return the bits of the operations that an operation has seen."""
        return self.by_id[operation].past

    def has_seen(self, operation: bytes, other: bytes) -> bool:
        """True if an operation has seen the other one."""
        return bool(self.by_id[operation].past & self.by_id[other].bit)

    def done_by(self, person: bytes) -> int:
        """Return the bits of a person's operations."""
        return self._author_bits.get(person, 0)

    def removals_of(self, person: bytes) -> int:
        """Return the bits of removals of a person."""
        return self._removal_bits.get(person, 0)

    def arrivals_of(self, person: bytes) -> list[PlacedOperation]:
        """Return the operations that bring a person in, in order."""
        return self._arrivals.get(person, [])

    def list_removals(self, valid: int) -> Iterator[tuple[PlacedOperation, int]]:
        """Yield the valid removals of somebody by another that have valid concurrent operations of the removed
        person, each with the bits of these.
        """
        for called, meanwhile in self._meanwhile.items():
            removal = self.by_id[called]
            if removal.bit & valid and meanwhile & valid:
                yield removal, meanwhile & valid

    def list_removals_of(self, persons: Iterable[bytes], valid: int) -> Iterator[PlacedOperation]:
        """Yield the valid removals of these persons by others."""
        for person in persons:
            yield from (each for each in self._removals.get(person, ()) if each.bit & valid)

    def is_meanwhile(self, removal: bytes, operation: bytes) -> bool:
        """True if an operation of the removed person is concurrent with the removal: neither has seen the other."""
        return bool(self._meanwhile.get(removal, 0) & self.by_id[operation].bit)

    def list_invitation_operations(self, view: int) -> list[Operation]:
        """Return the operations in a view that are about invitations, in order."""
        bits = view & self.invitation_bits
        return [each.operation for each in self.in_order if each.bit & bits]

    def place(self, operation: Operation) -> bool:
        """Place an operation. Return False for one whose author no operation that it has seen brings into the
        group: it isn't placed, whatever is valid.
        """
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
