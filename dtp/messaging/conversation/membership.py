"""The operations of one group that a device has received. They are accepted in any order, and each is placed once
all that it has seen are there.

Source: docs/messaging.md, "Operations of groups". An operation names those that its author had seen (`parents`), so
everybody knows what came before it. `reading` says what the placed operations result in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Mapping
from itertools import islice
from typing import Final

from dtp.messaging.conversation.members import GroupMembers
from dtp.messaging.conversation.operations import (
    MAX_PARENTS,
    Act,
    MemberRole,
    MembershipError,
    Operation,
    Past,
)
from dtp.messaging.conversation.placed import PlacedOperations
from dtp.messaging.conversation.reading import GroupReader, GroupReading
from dtp.messaging.conversation.retirements import Retired

#: Operations of a group, at most; then those of one account that is an administrator or moderator, and of one that
#: isn't.
MAX_OPERATIONS: Final = 4096
MAX_OF_ADMINISTRATOR: Final = MAX_OPERATIONS // 2
MAX_OF_MEMBER: Final = 128
#: The last places of a group are reserved for its most senior administrators, so many for each: so they can remove
#: anybody else who fills the group with operations.
RESERVED: Final = 512
_SENIORS: Final = 8


class Membership:
    """The operations of one group. `add_operation` accepts them in any order.

    An operation is placed once everything that it has seen is placed, one of those operations has brought its
    author in, and it was accepted, or an accepted one has seen it. Others wait, including those whose device isn't
    known to be their author's: it may turn out to be.
    """

    def __init__(self, group: bytes) -> None:
        self.group = group
        self._placed = PlacedOperations()
        self._reader = GroupReader(self._placed)
        self.operations: dict[bytes, Operation] = {}
        self._waiting: dict[bytes, Operation] = {}
        #: Operations whose device wasn't known to be their author's when they came, and still isn't.
        self._doubted: dict[bytes, Operation] = {}
        #: Operations that aren't placed, but were accepted or are seen by an accepted one. Some of them haven't
        #: come yet.
        self._due: dict[bytes, None] = {}
        #: By operation that isn't placed, those that wait for it.
        self._behind: dict[bytes, dict[bytes, None]] = {}
        #: Operations that can perhaps be placed now.
        self._ready: list[bytes] = []
        #: The number of accepted operations of each account, and of others of each device.
        self._count_of = Counter[bytes]()
        #: The members at the last reading.
        self._roles: dict[bytes, MemberRole] = {}
        self._found: GroupReading | None = None

    def _list_known(self) -> list[Operation]:
        return [*self.operations.values(), *self._waiting.values()]

    @property
    def encoded_operations(self) -> list[bytes]:
        """All accepted operations as bytes, also those that wait."""
        return [each.encoded for each in self._list_known() if each.id not in self._doubted]

    @property
    def accepted(self) -> list[Operation]:
        """The operations that are placed and were accepted. Others are placed because somebody has built on them,
        and may be signed in another person's name.
        """
        return [each for each in list(self.operations.values()) if each.id not in self._doubted]

    @property
    def refused(self) -> list[bytes]:
        """All operations that weren't accepted, as bytes."""
        return [each.encoded for each in self._doubted.values()]

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many operations are placed, wait, and aren't accepted. It differs whenever something new is kept."""
        return len(self.operations), len(self._waiting), len(self._doubted)

    @property
    def heads(self) -> list[bytes]:
        """The valid operations that no other valid one has seen: the parents of the next operation. If they are too
        many, those that have seen most, so that nobody can hide others by making lots of operations.
        """
        return self.list_heads()

    def list_heads(self, own: bytes = b"") -> list[bytes]:
        """Return `heads`, together with the latest of a person's operations that aren't valid: a person who says
        which of their devices are retired has seen what those devices did.

        Nobody else builds on an operation that its author wasn't allowed to make, so whoever hasn't received it
        misses nothing.
        """
        signers = {
            (each.author, each.device) for each in self.operations.values() if each.act is not Act.RETIRE
        }
        seen, heads = 0, []
        valid = {each.id for each in self._read().valid}
        for each in reversed(self._placed.in_order):
            operation = each.operation
            says_nothing = (
                operation.act is Act.RETIRE and (operation.author, operation.subject) not in signers
            )
            is_named = operation.author == own or (each.id in valid and not says_nothing)
            if is_named and not seen & each.bit:
                heads.append(each.id)
                seen |= each.past
        return sorted(heads[:MAX_PARENTS])

    def add_operation(
        self, operation: Operation, is_authors: Callable[[Operation], bool], *, kept: bool = False
    ) -> bool:
        """Add an operation. Return True if something is valid or placed now that wasn't before.

        `is_authors` says whether the operation's device is its author's. An operation that was `kept` before isn't
        held against the limits. Raise `MembershipError` for an operation of another group.
        """
        if operation.act is Act.CREATE and operation.id != self.group:
            raise MembershipError("an operation creates another group than the one it came for")
        if operation.id in self:
            known = self._doubted.get(operation.id)
            return known is not None and self._accept_authors_own([known], is_authors)
        accepted = is_authors(operation)
        if not kept and not (self._has_share(operation, accepted) and self._make_room(operation, accepted)):
            return False
        self._waiting[operation.id] = self._doubted[operation.id] = operation
        self._count_of[operation.device] += 1
        for parent in operation.parents:
            if parent not in self.operations:
                self._behind.setdefault(parent, {})[operation.id] = None
        if operation.id in self._due:
            self._mark_due(operation.id)
        return self._accept_authors_own([operation], is_authors)

    def reconsider(self, is_authors: Callable[[Operation], bool]) -> bool:
        """Accept operations whose device turns out to be their author's. Return the same as `add_operation`."""
        return self._accept_authors_own(list(self._doubted.values()), is_authors)

    def withdraw(self, person: bytes, devices: Container[bytes]) -> None:
        """Withdraw the acceptance of operations by devices that turned out not to be their person's."""
        signed = [each for each in self._list_known() if each.author == person and each.device in devices]
        for each in signed:
            if each.id not in self._doubted:
                self._doubted[each.id] = each
                self._count_of[each.author] -= 1
                self._count_of[each.device] += 1
        self._found = None

    def _has_share(self, operation: Operation, accepted: bool) -> bool:
        """True if the author may add one more operation, or the device while it isn't known to be the author's: so
        no member can stop a group with lots of operations. One that another administrator or moderator has built on
        is always added.
        """
        count = self._count_of[operation.author if accepted else operation.device]
        if count < MAX_OF_MEMBER or not self.operations or self._is_built_on(operation.id):
            return True
        if not accepted:
            return False
        if count < self._limit_of(operation.author):
            return True
        self._read()  # it may have changed
        return count < self._limit_of(operation.author)

    def _limit_of(self, author: bytes) -> int:
        """Return how many operations of an account are accepted, by the last reading.

        Those who have lost their role are still allowed the valid operations that they made while they had it, so
        that they can leave and retire their devices. The most senior administrator can't be removed by anybody.
        """
        if self._has_say(author):
            first = next(iter(self._list_seniors(self._roles)), None)
            return MAX_OPERATIONS if author == first else MAX_OF_ADMINISTRATOR
        done = sum(each.author == author and each.act is not Act.RETIRE for each in self._read().valid)
        return min(MAX_OF_MEMBER + done, MAX_OF_ADMINISTRATOR)

    def _has_say(self, person: bytes) -> bool:
        """True for an administrator or moderator, by the last reading."""
        return self._roles.get(person, MemberRole.MEMBER) is not MemberRole.MEMBER

    @staticmethod
    def _list_seniors(roles: Mapping[bytes, MemberRole]) -> list[bytes]:
        """Return the most senior administrators, the longest serving first."""
        return [each for each, role in roles.items() if role is MemberRole.ADMINISTRATOR][:_SENIORS]

    def _is_built_on(self, operation: bytes) -> bool:
        """True if an administrator or moderator has made an operation that has seen this one, and that waits for
        it.
        """
        if operation not in self._behind:
            return False
        self._read()
        found, later = {operation}, [operation]
        while later:
            for each in self._behind.get(later.pop(), {}).keys() - found:
                if each not in self._doubted and self._has_say(self._waiting[each].author):
                    return True
                found.add(each)
                later.append(each)
        return False

    def _make_room(self, operation: Operation, accepted: bool) -> bool:
        """True if there is room for one more operation. For an accepted one, a waiting one is dropped that nothing
        accepted depends on, or whose author isn't in the group.
        """
        count = len(self.operations) + len(self._waiting)
        if count < MAX_OPERATIONS - RESERVED:
            return True
        if self._is_built_on(operation.id):
            return count < 2 * MAX_OPERATIONS
        if not accepted:
            return False
        roles = self.members.roles
        for name, each in self._waiting.items():
            if each.author not in roles or (name in self._doubted and name not in self._due):
                self._forget_waiting(each)
                return True
        late = [each.author for each in islice(self.operations.values(), MAX_OPERATIONS - RESERVED, None)]
        is_senior = (
            operation.author in self._list_seniors(roles)
            and late.count(operation.author) < RESERVED // _SENIORS
        )
        return is_senior and count < MAX_OPERATIONS

    def _forget_waiting(self, operation: Operation) -> None:
        del self._waiting[operation.id]
        is_doubted = self._doubted.pop(operation.id, None) is not None
        self._count_of[operation.device if is_doubted else operation.author] -= 1
        self._due.pop(operation.id, None)
        for parent in operation.parents:
            if (behind := self._behind.get(parent)) is not None:
                behind.pop(operation.id, None)
                if not behind:
                    del self._behind[parent]

    def __contains__(self, operation: bytes) -> bool:
        """True for an operation that was added, whether or not it is placed."""
        return operation in self.operations or operation in self._waiting

    def is_waiting(self, operation: bytes) -> bool:
        """True if an operation could be placed, but for some that it has seen and that haven't come."""
        return operation in self._waiting and operation in self._due

    def _accept_authors_own(self, doubted: list[Operation], is_authors: Callable[[Operation], bool]) -> bool:
        """Accept those of the doubted operations that turn out to be their authors', and place every operation that
        can be.
        """
        changed = False
        for operation in filter(is_authors, doubted):
            del self._doubted[operation.id]
            self._count_of[operation.device] -= 1
            self._count_of[operation.author] += 1
            changed |= operation.id in self.operations
            self._mark_due(operation.id)
        before = len(self.operations)
        while self._ready:
            each = self._ready.pop()
            if each in self._due and self._place_operation(each):
                del self._due[each]
                self._ready += self._behind.pop(each, ())
        changed |= len(self.operations) > before
        if changed:
            self._found = None
        return changed

    def _mark_due(self, operation: bytes) -> None:
        """Note that an operation is to be placed, with all that it has seen."""
        marked = [operation]
        while marked:
            each = marked.pop()
            if each not in self.operations:
                self._due[each] = None
                self._ready.append(each)
                known = self._waiting.get(each)
                marked += [parent for parent in known.parents if parent not in self._due] if known else ()

    def _place_operation(self, operation: bytes) -> bool:
        """Place an operation if it has come, and all that it has seen are placed. Return True if it is placed."""
        each = self._waiting.get(operation)
        if each is None or not self._has_parents(each) or not self._placed.place(each):
            return False
        del self._waiting[each.id]
        self.operations[each.id] = each
        return True

    def _has_parents(self, operation: Operation) -> bool:
        return all(each in self.operations for each in operation.parents)

    @property
    def members(self) -> GroupMembers:
        """The members of the group by all placed operations."""
        return self._read().members

    @property
    def retired(self) -> Retired:
        """By person and device, the operations with which people have retired devices."""
        return self._read().retired

    def _read(self) -> GroupReading:
        if self._found is None:
            self._found = self._reader.read(self._doubted)
            self._roles = self._found.members.roles
        return self._found

    def list_seen_by_additions_of(self, person: bytes) -> set[bytes]:
        """Return the operations that were seen by accepted additions of a person."""
        past = 0
        for each in self.operations.values():
            if each.act is Act.ADD and each.subject == person and each.id not in self._doubted:
                past |= self._placed.past_of(each.id)
        return {each for each in self.operations if self._placed.bits_of(each) & past}

    def past_of(self, operation: Operation) -> Past | None:
        """Return how much of the past an operation, or the invitation that it uses, gives to the person whom it
        adds.
        """
        if (told := operation.invitation) is None:
            return operation.past
        invitation = self.members.invitations.get(told)
        return None if invitation is None else invitation.past

    def was_removed(self, person: bytes) -> bool:
        """True if a person was removed by another, whether or not they were added again."""
        return any(
            each.act is Act.REMOVE and each.subject == person != each.author for each in self._read().valid
        )
