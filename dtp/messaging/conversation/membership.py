"""The operations of one group that a device has: taken in any order, placed once all that they have seen is there.

Source: docs/messaging.md, "Operations of groups". An operation names those it has seen (`parents`), so that all know
what came before it. What the placed ones come to is read in `reading`.
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

#: Operations of a group, at most; and of one account, where it has a say there, and where it hasn't.
MAX_OPERATIONS: Final = 4096
MAX_OF_ADMINISTRATOR: Final = MAX_OPERATIONS // 2
MAX_OF_MEMBER: Final = 128
#: The last places are for those who have administered the group for longest, so many for each: whoever else fills a
#: group can be removed.
RESERVED: Final = 512
_SENIORS: Final = 8


class Membership:
    """The operations of one group. `add_operation` takes them in any order.

    An operation has its place once all that it has seen have theirs, one of which brings its author in, and it was
    accepted, or one that was has seen it. Others wait, also those of devices that aren't their author's, as far as
    is known: that may change later.
    """

    def __init__(self, group: bytes) -> None:
        self.group = group
        self._placed = PlacedOperations()
        self._reader = GroupReader(self._placed)
        self.operations: dict[bytes, Operation] = {}
        self._waiting: dict[bytes, Operation] = {}
        #: Those whose device wasn't their author's when they came, and hasn't become so.
        self._doubted: dict[bytes, Operation] = {}
        #: Those without a place that were accepted, or that such a one has seen; some of them haven't come yet.
        self._due: dict[bytes, None] = {}
        #: By an operation that has no place yet, those that wait for it.
        self._behind: dict[bytes, dict[bytes, None]] = {}
        #: Those that may have their place now.
        self._ready: list[bytes] = []
        #: How many accepted operations there are of each account, and how many others of each device.
        self._count_of = Counter[bytes]()
        #: Who is in the group by what was read last.
        self._roles: dict[bytes, MemberRole] = {}
        self._found: GroupReading | None = None

    def _list_known(self) -> list[Operation]:
        return [*self.operations.values(), *self._waiting.values()]

    @property
    def encoded_operations(self) -> list[bytes]:
        """All operations that were accepted as bytes, those that wait among them."""
        return [each.encoded for each in self._list_known() if each.id not in self._doubted]

    @property
    def accepted(self) -> list[Operation]:
        """The operations that have their place and were accepted: others have one where somebody has built on them,
        and may be signed in another's name."""
        return [each for each in list(self.operations.values()) if each.id not in self._doubted]

    @property
    def refused(self) -> list[bytes]:
        """All other operations as bytes."""
        return [each.encoded for each in self._doubted.values()]

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many operations have their place, wait for it, and weren't accepted: others once something is kept."""
        return len(self.operations), len(self._waiting), len(self._doubted)

    @property
    def heads(self) -> list[bytes]:
        """The operations that count and that no other one of these has seen yet: the parents of the next one. If
        there are too many, those that have seen most: so nobody hides others by making lots of them."""
        return self.list_heads()

    def list_heads(self, own: bytes = b"") -> list[bytes]:
        """Return `heads`, and those of a person's operations that don't count: who says which of their devices are
        gone has seen what these did.

        What a member does that they may not is built on by nobody: whoever hasn't heard of it misses nothing.
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
        """Take an operation. Return whether something counts or has its place that didn't before.

        `is_authors` says whether its device is its author's; one that is `kept` had room before. Raise
        `MembershipError` for one of another group.
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
        """Accept operations whose device turns out to be their author's. Return what `add_operation` does."""
        return self._accept_authors_own(list(self._doubted.values()), is_authors)

    def withdraw(self, person: bytes, devices: Container[bytes]) -> None:
        """Accept no longer what devices have signed that turned out not to be their person's."""
        signed = [each for each in self._list_known() if each.author == person and each.device in devices]
        for each in signed:
            if each.id not in self._doubted:
                self._doubted[each.id] = each
                self._count_of[each.author] -= 1
                self._count_of[each.device] += 1
        self._found = None

    def _has_share(self, operation: Operation, accepted: bool) -> bool:
        """True if one more operation of its author is taken, or of its device while that isn't its author's: no
        member stops a group by what they do there. Where somebody else with a say has built on one, it is taken."""
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
        """Return how many operations of an account are taken, by what was read last.

        Operations that count, and that somebody made while they had a say, aren't held against them once they have
        none: they may leave, and retire their devices. Nobody can remove whoever has administered the group for
        longest.
        """
        if self._has_say(author):
            first = next(iter(self._list_seniors(self._roles)), None)
            return MAX_OPERATIONS if author == first else MAX_OF_ADMINISTRATOR
        done = sum(each.author == author and each.act is not Act.RETIRE for each in self._read().valid)
        return min(MAX_OF_MEMBER + done, MAX_OF_ADMINISTRATOR)

    def _has_say(self, person: bytes) -> bool:
        """True for an administrator or moderator, by what was read last."""
        return self._roles.get(person, MemberRole.MEMBER) is not MemberRole.MEMBER

    @staticmethod
    def _list_seniors(roles: Mapping[bytes, MemberRole]) -> list[bytes]:
        """Return those who have administered the group for longest, in that order."""
        return [each for each, role in roles.items() if role is MemberRole.ADMINISTRATOR][:_SENIORS]

    def _is_built_on(self, operation: bytes) -> bool:
        """True if somebody with a say has done something that has seen an operation, and waits for it."""
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
        """True if one more operation is taken. For an accepted one a place is made, where one has none that wasn't
        accepted, or is by nobody of the group."""
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
        """True for an operation that was taken, whether or not it has its place."""
        return operation in self.operations or operation in self._waiting

    def is_waiting(self, operation: bytes) -> bool:
        """True if an operation would have its place, but for some that it has seen and that haven't come."""
        return operation in self._waiting and operation in self._due

    def _accept_authors_own(self, doubted: list[Operation], is_authors: Callable[[Operation], bool]) -> bool:
        """Accept those of some operations that are their authors', and give all a place that can have one."""
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
        """Note that an operation is to have its place, and all that it has seen."""
        marked = [operation]
        while marked:
            each = marked.pop()
            if each not in self.operations:
                self._due[each] = None
                self._ready.append(each)
                known = self._waiting.get(each)
                marked += [parent for parent in known.parents if parent not in self._due] if known else ()

    def _place_operation(self, operation: bytes) -> bool:
        """Give an operation its place if it is there, and all that it has seen have theirs. Return whether it has."""
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
        """Who is in the group by all operations that have their place."""
        return self._read().members

    @property
    def retired(self) -> Retired:
        """By person and device, the operations by which people have retired devices."""
        return self._read().retired

    def _read(self) -> GroupReading:
        if self._found is None:
            self._found = self._reader.read(self._doubted)
            self._roles = self._found.members.roles
        return self._found

    def list_seen_by_additions_of(self, person: bytes) -> set[bytes]:
        """Return the operations that were seen by accepted ones which add a person."""
        past = 0
        for each in self.operations.values():
            if each.act is Act.ADD and each.subject == person and each.id not in self._doubted:
                past |= self._placed.past_of(each.id)
        return {each for each in self.operations if self._placed.bits_of(each) & past}

    def past_of(self, operation: Operation) -> Past | None:
        """Return how much of the past an operation gives to whom it adds, itself or by its invitation."""
        if (told := operation.invitation) is None:
            return operation.past
        invitation = self.members.invitations.get(told)
        return None if invitation is None else invitation.past

    def was_removed(self, person: bytes) -> bool:
        """True if somebody else has removed a person, whether or not they were added again."""
        return any(
            each.act is Act.REMOVE and each.subject == person != each.author for each in self._read().valid
        )
