"""Who is in a group: signed operations that everybody reads alike, in whatever order they came. Removal wins.

Source: docs/messaging.md, "Groups". An operation names those it has seen (`parents`), so that all know what came
before it. It counts when its author was an administrator by what it had seen, and was not removed meanwhile; a
removal is undone only by an addition that has seen it. Of a device that its person has retired counts what the
retirement had seen, whatever card a reader has.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property
from typing import ClassVar, Final, NamedTuple

from dtp.errors import PeerError
from dtp.identity import Card, CardError, Identity, PeerId, PeerIdError
from dtp.identity.card import MAX_BYTES as MAX_CARD_BYTES
from dtp.identity.keys import SIGNATURE_SIZE
from dtp.messaging.conversation.retirements import MAX_READINGS, Retired, find_retirements
from dtp.messaging.packing import domain_tag, is_number, pack, unpack

MEMBERSHIP_DOMAIN: Final = b"dtp.group.operation.v1"
VERSION: Final = 1
MAX_PARENTS: Final = 64
MAX_BYTES: Final = 4096
#: Members of a group, and operations of it, at most.
MAX_MEMBERS: Final = 1000
MAX_OPERATIONS: Final = 4096
MAX_NAME_BYTES: Final = 128
#: Messages of each conversation that a new member is given of what was said before, at most.
MAX_PAST: Final = 10_000
#: Rooms of a group, and invitations that aren't revoked, at most.
MAX_ROOMS: Final = 64
MAX_INVITATIONS: Final = 64
#: Judgements that are remembered of each operation, for as many of what was void, at most.
_JUDGED: Final = 4
_HASH: Final = 32


class MembershipError(PeerError):
    """An operation on a group is malformed, or not signed by the device it names."""

    code: ClassVar[str] = "group-operation"


class Act(IntEnum):
    """What an operation does. A group is called by the hash of the operation that creates it."""

    CREATE = 1
    ADD = 2
    REMOVE = 3
    NAME = 4
    #: Open a room, which is called by the operation's hash, and close one.
    ROOM = 5
    CLOSE = 6
    #: Offer a place to whoever has a key, and take that back.
    INVITE = 7
    REVOKE = 8
    #: Say of a device that it is its person's no more, or is again, by the card in the operation.
    RETIRE = 9


class MemberRole(IntEnum):
    """What a member may."""

    MEMBER = 0
    ADMINISTRATOR = 1
    #: Adds and removes members, invites, and deletes what others have written.
    MODERATOR = 2


@dataclass(frozen=True, slots=True)
class Past:
    """How much a new member is given of what was said before: what was sent within `span_ms` before that, and the
    `last` messages of each conversation; 0 for no such bound."""

    span_ms: int = 0
    last: int = 0

    @property
    def text(self) -> str:
        """What an operation says of it."""
        return f"{_PAST} {self.text_fields}"

    @property
    def text_fields(self) -> str:
        """The same as two numbers."""
        return f"{self.span_ms} {self.last}"

    @classmethod
    def parse(cls, words: list[str]) -> Past | None:
        """Return what two numbers say, None for anything else."""
        if len(words) != 2 or not all(map(_is_count, words)) or int(words[1]) > MAX_PAST:
            return None
        return cls(*map(int, words))


#: Before what an addition gives of the past.
_PAST: Final = "past"


def operation_id(encoded: bytes) -> bytes:
    """Return what others name an operation by."""
    return hashlib.blake2b(encoded, digest_size=_HASH).digest()


@dataclass(frozen=True)
class Operation:
    """One operation. `subject` is whom it adds or removes, `text` the group's name; `nonce` makes each another.

    `card` is the author's, in a RETIRE alone: it names the device that signs, and says whether `subject` is retired.
    """

    act: Act
    author: bytes
    device: bytes
    subject: bytes
    role: MemberRole
    text: str
    parents: tuple[bytes, ...]
    nonce: bytes
    encoded: bytes = b""
    card: Card | None = None

    @cached_property
    def id(self) -> bytes:
        """Its hash, which others name it by."""
        return operation_id(self.encoded)

    @property
    def brings_in(self) -> bytes | None:
        """Whom it brings into the group, None for nobody."""
        if self.act is Act.CREATE:
            return self.author
        return self.subject if self.act is Act.ADD else None

    @property
    def invitation(self) -> bytes | None:
        """The invitation by which somebody is added, or None."""
        told = self.text
        if self.act is not Act.ADD or len(told) != 2 * _HASH or set(told) - set("0123456789abcdef"):
            return None
        return bytes.fromhex(told)

    @property
    def past(self) -> Past | None:
        """What is given of the past to whom it adds; None for nothing, and where an invitation says it."""
        kind, *words = self.text.split(" ")
        return Past.parse(words) if self.act is Act.ADD and kind == _PAST else None

    @classmethod
    def sign(
        cls,
        identity: Identity,
        author: bytes,
        act: Act,
        *,
        subject: bytes = b"",
        role: MemberRole = MemberRole.MEMBER,
        text: str = "",
        parents: Iterable[bytes] = (),
        card: Card | None = None,
    ) -> Operation:
        """Return an operation of the person `author`, signed by its device with this identity."""
        fields = (author, identity.id.key, subject, int(role), text, sorted(parents), secrets.token_bytes(8))
        body = pack([VERSION, int(act), *fields, *([card.encode()] if card else [])])
        return cls.parse(pack([body, identity.sign(domain_tag(MEMBERSHIP_DOMAIN) + body)]))

    @classmethod
    def parse(cls, data: bytes) -> Operation:
        """Return the operation that these bytes are. Raise `MembershipError` unless its device has signed it."""
        if len(data) > MAX_BYTES + MAX_CARD_BYTES:
            raise MembershipError(
                f"an operation of {len(data)} bytes; {MAX_BYTES} are the most, and its card's"
            )
        match unpack(data, MembershipError, "an operation on a group"):
            case [bytes(body), bytes(signature)] if len(signature) == SIGNATURE_SIZE:
                operation = cls._read(body, data)
            case _:
                raise MembershipError("an operation on a group is malformed")
        try:
            peer = PeerId(operation.device)
        except PeerIdError:
            raise MembershipError("an operation on a group is of a device that can't be") from None
        if not peer.verify(signature, domain_tag(MEMBERSHIP_DOMAIN) + body):
            raise MembershipError("the operation isn't signed by the device that it names")
        return operation

    @classmethod
    def _read(cls, body: bytes, data: bytes) -> Operation:
        match unpack(body, MembershipError, "an operation on a group"):
            case [
                1,
                act,
                bytes(author),
                bytes(device),
                bytes(subject),
                role,
                str(text),
                [*parents],
                bytes(nonce),
                *rest,
            ]:
                pass
            case _:
                raise MembershipError("an operation on a group is malformed, or of another version")
        if not is_number(act, max(Act)) or not act or not is_number(role, max(MemberRole)):
            raise MembershipError("an operation on a group does something impossible")
        hashes = all(isinstance(each, bytes) and len(each) == _HASH for each in parents)
        if not hashes or len(parents) > MAX_PARENTS or bool(parents) == (act == Act.CREATE):
            raise MembershipError("an operation on a group says that it has seen operations that can't exist")
        if len(author) != _HASH or len(subject) not in (0, _HASH) or len(text.encode()) > MAX_NAME_BYTES:
            raise MembershipError("an operation on a group is malformed")
        read = cls(Act(act), author, device, subject, MemberRole(role), text, tuple(parents), nonce, data)
        return read._with_card(rest)

    def _with_card(self, rest: list[object]) -> Operation:
        """Return the operation with what follows its other fields: the author's card, in a RETIRE alone."""
        match rest:
            case [bytes(encoded)] if self.act is Act.RETIRE:
                pass
            case [] if self.act is not Act.RETIRE and len(self.encoded) <= MAX_BYTES:
                return self
            case _:
                raise MembershipError("an operation on a group is malformed")
        try:
            card = Card.parse(encoded)
        except CardError as fault:
            raise MembershipError(f"the card in an operation on a group: {fault}") from None
        if card.account != self.author or not card.names(self.device) or len(self.subject) != _HASH:
            raise MembershipError("a device is retired by a card of its person that names who says so")
        return replace(self, card=card)


@dataclass(frozen=True, slots=True)
class Invitation:
    """A place in a group for whoever has `key`: until `expires_ms`, for so many people, who are given `past`;
    `admitted` were let in."""

    key: bytes
    expires_ms: int
    uses: int
    admitted: int = 0
    revoked: bool = False
    past: Past | None = None

    @property
    def text(self) -> str:
        """What an operation says of it."""
        return f"{self.expires_ms} {self.uses}" + (f" {self.past.text_fields}" if self.past else "")

    @classmethod
    def from_operation(cls, operation: Operation) -> Invitation | None:
        """Return the invitation that an operation makes, None for one that says it wrongly."""
        match operation.text.split(" "):
            case [expires, uses, *words] if _is_count(expires) and _is_count(uses):
                past = Past.parse(words)
            case _:
                return None
        if not 1 <= int(uses) <= MAX_MEMBERS or bool(words) != (past is not None):
            return None
        return cls(operation.subject, int(expires), int(uses), past=past)


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 15


@dataclass(frozen=True)
class GroupMembers:
    """Who is in a group, with which role, what it is called, its rooms and invitations by their operations; and by
    member who may give them how much of what was said before they came."""

    name: str
    roles: dict[bytes, MemberRole]
    rooms: dict[bytes, str] = field(default_factory=dict)
    invitations: dict[bytes, Invitation] = field(default_factory=dict)
    past: dict[bytes, dict[bytes, Past]] = field(default_factory=dict)

    def is_administrator(self, person: bytes) -> bool:
        """True if the person may do everything."""
        return self.roles.get(person) is MemberRole.ADMINISTRATOR

    @property
    def moderators(self) -> frozenset[bytes]:
        """Who may delete what others have written: moderators, and administrators."""
        return frozenset(person for person, role in self.roles.items() if role is not MemberRole.MEMBER)

    def may_do(self, person: bytes, act: Act, subject: bytes, role: MemberRole) -> bool:
        """True if a person may do that: administrators everything, moderators what concerns members alone."""
        own = self.roles.get(person)
        if own is MemberRole.ADMINISTRATOR:
            return True
        if act is Act.REMOVE and subject == person:
            return own is not None
        if own is not MemberRole.MODERATOR:
            return False
        if act in (Act.ADD, Act.REMOVE):
            return (
                role is MemberRole.MEMBER and self.roles.get(subject, MemberRole.MEMBER) is MemberRole.MEMBER
            )
        return act in (Act.INVITE, Act.REVOKE)


class _Reading(NamedTuple):
    """What the operations that have their place come to: `valid` are those that count, in order."""

    members: GroupMembers
    retired: Retired
    valid: list[Operation]


class Membership:
    """The operations of one group. `add_operation` takes them in any order.

    An operation has its place once all that it has seen have theirs, one of which brings its author in, and it was
    accepted, or one that was has seen it. Others wait, also those of devices that aren't their author's, as far as
    is known: that may change later.
    """

    def __init__(self, group: bytes) -> None:
        self.group = group
        self.operations: dict[bytes, Operation] = {}
        self._waiting: dict[bytes, Operation] = {}
        #: Those whose device wasn't their author's when they came, nor since.
        self._doubted: dict[bytes, Operation] = {}
        #: Those without a place that were accepted, or that such a one has seen; some of them haven't come yet.
        self._due: dict[bytes, None] = {}
        #: The bit of each operation, and of those that it has seen: sets would take megabytes of large groups.
        self._bits: dict[bytes, int] = {}
        self._past: dict[bytes, int] = {}
        #: Whether an operation was allowed, by what it has seen that is void: its past decides that alone.
        self._allowed: dict[tuple[bytes, int], bool] = {}
        #: By person the bits of operations that bring them in, whether or not these count.
        self._brought: dict[bytes, int] = {}
        self._found: _Reading | None = None
        self._invites, self._gives_past = False, False
        #: The invitations by which operations let somebody in: most groups have none, and are read faster then.
        self._by_invitation: dict[bytes, bytes] = {}

    def _list_known(self) -> list[Operation]:
        return [*self.operations.values(), *self._waiting.values()]

    @property
    def encoded_operations(self) -> list[bytes]:
        """All operations that were accepted as bytes, those that wait among them."""
        return [each.encoded for each in self._list_known() if each.id not in self._doubted]

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
        """The operations that no other has seen yet: the parents of the next one. Of too many, those that have seen
        most: who makes lots of them hides nothing else."""
        seen = {parent for each in self.operations.values() for parent in each.parents}
        unseen = sorted(self.operations.keys() - seen, key=lambda each: (-self._past[each].bit_count(), each))
        return sorted(unseen[:MAX_PARENTS])

    def add_operation(self, operation: Operation, is_authors: Callable[[Operation], bool]) -> bool:
        """Take an operation. Return whether something counts or has its place that didn't before.

        `is_authors` says whether its device is its author's. Raise `MembershipError` for one of another group.
        """
        if operation.act is Act.CREATE and operation.id != self.group:
            raise MembershipError("an operation creates another group than the one it came for")
        if operation.id in self.operations or operation.id in self._waiting:
            known = self._doubted.get(operation.id)
            return known is not None and self._accept([known], is_authors)
        if not self._make_room(is_authors(operation)):
            return False
        self._waiting[operation.id] = self._doubted[operation.id] = operation
        if operation.id in self._due:
            self._mark_due(operation.id)
        return self._accept([operation], is_authors)

    def reconsider(self, is_authors: Callable[[Operation], bool]) -> bool:
        """Accept operations whose device turns out to be their author's. Return what `add_operation` does."""
        return self._accept(list(self._doubted.values()), is_authors)

    def withdraw(self, person: bytes, devices: Container[bytes]) -> None:
        """Accept no longer what devices have signed that turned out not to be their person's."""
        signed = [each for each in self._list_known() if each.author == person and each.device in devices]
        self._doubted |= {each.id: each for each in signed}
        self._found = None

    def _make_room(self, accepted: bool) -> bool:
        """True if one more operation is taken. For an accepted one a place is made, where one has none that wasn't
        accepted, or is by nobody of the group."""
        if len(self.operations) + len(self._waiting) < MAX_OPERATIONS:
            return True
        if not accepted:
            return False
        roles = self.members.roles
        for name, each in self._waiting.items():
            if each.author not in roles or (name in self._doubted and name not in self._due):
                del self._waiting[name]
                self._doubted.pop(name, None)
                self._due.pop(name, None)
                return True
        return False

    def is_waiting(self, operation: bytes) -> bool:
        """True if an operation would have its place, but for some that it has seen and that haven't come."""
        return operation in self._waiting and operation in self._due

    def _accept(self, doubted: list[Operation], is_authors: Callable[[Operation], bool]) -> bool:
        """Accept those of some operations that are their authors', and give all a place that can have one."""
        changed = False
        for each in filter(is_authors, doubted):
            del self._doubted[each.id]
            changed |= each.id in self.operations
            self._mark_due(each.id)
        before = len(self.operations)
        while placed := [each for each in self._due if self._place(each)]:
            for called in placed:
                del self._due[called]
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
                known = self._waiting.get(each)
                marked += [parent for parent in known.parents if parent not in self._due] if known else ()

    def _place(self, operation: bytes) -> bool:
        """Give an operation its place if it is there, and all that it has seen have theirs. Return whether it has."""
        each = self._waiting.get(operation)
        if each is None or not self._has_parents(each):
            return False
        past = 0
        for parent in each.parents:
            past |= self._past[parent] | self._bits[parent]
        bit = 1 << len(self._bits)
        if each.act is not Act.CREATE and not past & self._brought.get(each.author, 0):
            return False  # by nobody who was ever in the group: it takes no place, whatever counts
        del self._waiting[each.id]
        self.operations[each.id] = each
        if (person := each.brings_in) is not None:
            self._brought[person] = self._brought.get(person, 0) | bit
        self._invites |= each.act is Act.INVITE
        self._gives_past |= each.past is not None
        if (told := each.invitation) is not None:
            self._by_invitation[each.id] = told
        self._past[each.id], self._bits[each.id] = past, bit
        return True

    def _has_parents(self, operation: Operation) -> bool:
        return all(each in self.operations for each in operation.parents)

    def _has_seen(self, operation: bytes, other: bytes) -> bool:
        """True if who did the one knew of the other."""
        return bool(self._past[operation] & self._bits[other])

    @property
    def members(self) -> GroupMembers:
        """Who is in the group by all operations that have their place."""
        return self._read().members

    @property
    def retired(self) -> Retired:
        """By person and device, the operations by which people have retired devices."""
        return self._read().retired

    def _read(self) -> _Reading:
        if self._found is None:
            self._found = self._evaluate()
        return self._found

    def list_seen_by_additions_of(self, person: bytes) -> set[bytes]:
        """Return the operations that were seen by accepted ones which add a person."""
        past = 0
        for each in self.operations.values():
            if each.act is Act.ADD and each.subject == person and each.id not in self._doubted:
                past |= self._past[each.id]
        return {each for each in self.operations if self._bits[each] & past}

    # ---- how they are read -------------------------------------------------------------------------------------

    def _evaluate(self) -> _Reading:
        rank = sorted(self.operations, key=self._order_key)
        statements = [each for each in self.operations.values() if each.card is not None]
        covers = {each.id: self._past[each.id] for each in statements}

        def is_disowned(operation: Operation, retired: Retired) -> bool:
            if retirements := retired.get((operation.author, operation.device)):
                bit = self._bits[operation.id]
                return not all(each == operation.id or covers[each] & bit for each in retirements)
            return operation.id in self._doubted

        for _ in range(MAX_READINGS):
            retired = find_retirements(statements, is_disowned)
            void = {each for each in rank if is_disowned(self.operations[each], retired)}
            valid = self._resolve_removals(rank, void)
            if not self._widen(covers, retired, valid):
                break
        invitations = self._find_invitations(valid)
        roles = self._find_roles(valid, invitations)
        past = self._find_past(valid, invitations, roles)
        name, rooms = self._find_name(valid), self._find_rooms(valid)
        return _Reading(GroupMembers(name, roles, rooms, invitations, past), retired, valid)

    def _widen(self, covers: dict[bytes, int], retired: Retired, valid: list[Operation]) -> bool:
        """Add to what retirements have seen what removals of their author had that were made meanwhile, and stand by
        what the retirements leave: who was removed takes nothing back by retiring a device. Return whether that is
        more."""
        changed, removals = False, dict[bytes, list[bytes]]()
        for operation in valid if retired else ():
            if operation.act is Act.REMOVE and operation.subject != operation.author:
                removals.setdefault(operation.subject, []).append(operation.id)
        for (person, _), retirements in retired.items():
            for each in retirements:
                for removal in removals.get(person, ()):
                    apart = not self._has_seen(each, removal) and not self._has_seen(removal, each)
                    if apart and self._past[removal] & ~covers[each]:
                        covers[each], changed = covers[each] | self._past[removal], True
        return changed

    def _resolve_removals(self, rank: list[bytes], void: set[bytes]) -> list[Operation]:
        """Return the operations that count, in order, and add to `void` what the removed did meanwhile."""
        while True:
            valid = self._list_allowed(rank, void)
            further = self._of_removed_authors(valid)
            if not further:
                return valid
            void |= further  # and what was built on those counts no more, either

    def _list_allowed(self, rank: list[bytes], void: set[bytes]) -> list[Operation]:
        """Return the operations that aren't void and were allowed by those of them that they had seen."""
        if len(self._allowed) > _JUDGED * len(rank):
            self._allowed.clear()
        hidden = 0
        for each in void:
            hidden |= self._bits[each]
        valid: list[Operation] = []
        for each in rank:
            if each in void:
                continue
            operation, key = self.operations[each], (each, self._past[each] & hidden)
            if key not in self._allowed:
                self._allowed[key] = self._was_allowed(operation, valid)
            if self._allowed[key]:
                valid.append(operation)
        return valid

    def _order_key(self, operation: bytes) -> tuple[int, bytes]:
        """Return the key by which operations are sorted, in an order that agrees with what was seen."""
        return self._past[operation].bit_count(), operation

    def _was_allowed(self, operation: Operation, valid: list[Operation]) -> bool:
        """True if its author was an administrator by what it had seen, or removes itself."""
        if operation.act in (Act.CREATE, Act.RETIRE):  # of one's own devices everybody says what they like
            return True
        past = [each for each in valid if self._has_seen(operation.id, each.id)]
        seen = GroupMembers("", self._find_roles(past, self._find_invitations(past)))
        return seen.may_do(operation.author, operation.act, operation.subject, operation.role)

    def _of_removed_authors(self, valid: list[Operation]) -> set[bytes]:
        """Return those of one author who was removed by another who had not seen them, nor they it; none at the end.

        Of two who remove each other the one stays who has been in the group for longer: whoever is removed could
        otherwise pretend to have been faster.
        """
        since: dict[bytes, tuple[int, bytes]] = {}
        for each in valid:
            if (person := each.brings_in) is not None:
                since.setdefault(person, self._order_key(each.id))
        removals = [each for each in valid if each.act is Act.REMOVE and each.subject != each.author]
        for removal in sorted(removals, key=lambda each: (since[each.author], self._order_key(each.id))):
            void = {
                each.id
                for each in valid
                if each.author == removal.subject
                and not self._has_seen(removal.id, each.id)
                and not self._has_seen(each.id, removal.id)
            }
            if void:
                return void  # without those the next one may not count any more
        return set()

    def _find_invitations(self, valid: list[Operation]) -> dict[bytes, Invitation]:
        """Return the invitations, with how many were let in by each: in one order for all, and no more than it says.

        Revoking wins over who is let in meanwhile.
        """
        made: dict[bytes, Invitation] = {}
        if not self._invites:  # most groups, and then it costs nothing
            return made
        for each in valid:
            if each.act is Act.INVITE and (invitation := Invitation.from_operation(each)) is not None:
                made[each.id] = invitation
        for each in valid:
            if each.act is Act.REVOKE and each.subject in made:
                made[each.subject] = replace(made[each.subject], revoked=True)
        for called, subjects in self._find_admitted(valid, made).items():
            made[called] = replace(made[called], admitted=len(subjects))
        return made

    def _find_admitted(
        self, valid: list[Operation], invitations: dict[bytes, Invitation]
    ) -> dict[bytes, set[bytes]]:
        """Return who was let in by each invitation."""
        if not self._by_invitation or not invitations:
            return {}
        revoked = {each.subject: each.id for each in reversed(valid) if each.act is Act.REVOKE}
        admitted: dict[bytes, set[bytes]] = {}
        for each in valid:
            told = self._by_invitation.get(each.id)
            if told is None or told not in invitations or not self._has_seen(each.id, told):
                continue
            people = admitted.setdefault(told, set())
            in_time = told not in revoked or self._has_seen(revoked[told], each.id)
            if in_time and (each.subject in people or len(people) < invitations[told].uses):
                people.add(each.subject)
        return admitted

    def _find_rooms(self, valid: list[Operation]) -> dict[bytes, str]:
        closed = {each.subject for each in valid if each.act is Act.CLOSE}
        opened = [each for each in valid if each.act is Act.ROOM and each.id not in closed]
        return {each.id: each.text for each in opened[:MAX_ROOMS]}

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

    def _find_roles(
        self, valid: list[Operation], invitations: dict[bytes, Invitation]
    ) -> dict[bytes, MemberRole]:
        roles: dict[bytes, MemberRole] = {}
        for subject, each in self._list_standing(valid, invitations):
            if subject in roles or len(roles) < MAX_MEMBERS:
                roles[subject] = MemberRole.ADMINISTRATOR if each.act is Act.CREATE else each.role
        return roles

    def _find_past(
        self, valid: list[Operation], invitations: dict[bytes, Invitation], roles: dict[bytes, MemberRole]
    ) -> dict[bytes, dict[bytes, Past]]:
        """Return by member who has added it and gives it what of the past: the last addition of each says how much,
        where one says it."""
        found: dict[bytes, dict[bytes, Past]] = {}
        if not self._gives_past and not any(each.past for each in invitations.values()):
            return found
        for subject, each in self._list_standing(valid, invitations):
            past = each.past
            if (told := self._by_invitation.get(each.id)) is not None:
                past = invitations[told].past
            if past is not None and subject in roles:
                found.setdefault(subject, {})[each.author] = past
        return found

    def _list_standing(
        self, valid: list[Operation], invitations: dict[bytes, Invitation]
    ) -> list[tuple[bytes, Operation]]:
        """Return whom operations bring in that no removal has undone, in order."""
        admitted = self._find_admitted(valid, invitations)
        standing: list[tuple[bytes, Operation]] = []
        removed: dict[bytes, list[Operation]] = {}
        for each in valid:
            if each.act is Act.REMOVE:
                removed.setdefault(each.subject, []).append(each)
        for each in valid:
            if (subject := each.brings_in) is None:
                continue
            told = self._by_invitation.get(each.id) if self._by_invitation else None
            if told is not None and subject not in admitted.get(told, ()):
                continue
            if all(self._has_seen(each.id, one.id) for one in removed.get(subject, ())):
                standing.append((subject, each))
        return standing

    def _find_name(self, valid: list[Operation]) -> str:
        named = [each.text for each in valid if each.act in (Act.CREATE, Act.NAME)]
        return named[-1] if named else ""
