"""What the operations of a group come to: who is in it, and which of them count. The same for everybody.

Source: docs/messaging.md, "Operations of groups". An operation counts when its author was an administrator by what it
had seen, and wasn't removed meanwhile; a removal is undone only by an addition that has seen it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import replace
from typing import Final, NamedTuple

from dtp.messaging.conversation.heard import UNTOLD, LastHeard
from dtp.messaging.conversation.members import MAX_MEMBERS, MAX_ROOMS, GroupMembers, Invitation
from dtp.messaging.conversation.operations import Act, MemberRole, Operation, Past
from dtp.messaging.conversation.placed import PlacedOperation, PlacedOperations
from dtp.messaging.conversation.retirements import MAX_READINGS, Retired, find_retirements

#: Removals after each of which all is read again, at most; then those that are left are taken together. Somebody with
#: many identities can make as many of them as there is room for.
MAX_ROUNDS: Final = 16
#: Judgements that are remembered of each operation, by what of its past counts, at most.
_JUDGED: Final = 4
#: ... and who was let in by invitations.
_ADMITTED: Final = 64


class GroupReading(NamedTuple):
    """What the operations that have their place come to: `valid` are those that count, in order."""

    members: GroupMembers
    retired: Retired
    valid: list[Operation]


class GroupReader:
    """Reads the placed operations of one group, again and again: what was judged before is remembered."""

    def __init__(self, placed: PlacedOperations) -> None:
        self._placed = placed
        #: Whether an operation was allowed, by the bits of what counts of its past and is about who does it to whom.
        self._judged: dict[tuple[bytes, int], bool] = {}
        self._admitted: dict[int, dict[bytes, set[bytes]]] = {}

    def read(self, doubted: Container[bytes]) -> GroupReading:
        """Return what the operations come to; those `doubted` aren't accepted."""
        placed, statements = self._placed, _Statements(self._placed, doubted)
        for _ in range(MAX_READINGS):
            retired, void = statements.find_retired()
            valid = self._resolve_removals(void)
            if not statements.widen(retired, valid):
                break
        counting = [each.operation for each in placed.in_order if each.bit & valid]
        invitations = self._find_invitations(counting)
        roles = self._find_roles(counting, valid, invitations)
        past = self._find_past(counting, valid, invitations, roles)
        removed = self._find_removed(valid, roles)
        rooms = _find_rooms(counting)
        members = GroupMembers(_find_name(counting), roles, rooms, invitations, past, removed)
        return GroupReading(members, retired, counting)

    # ---- which of them count -----------------------------------------------------------------------------------

    def _resolve_removals(self, void: int) -> int:
        """Return the bits of the operations that count, without what the removed did meanwhile."""
        for _ in range(MAX_ROUNDS):
            valid = self._find_allowed(~void)
            removals = self._list_by_seniority(valid)
            if not removals:
                return valid
            void |= removals[0][1]  # and what was built on those counts no more, either
        valid = self._find_allowed(~void)
        for removal, meanwhile in self._list_by_seniority(valid):
            if not void & removal.bit:
                void |= meanwhile
        return self._find_allowed(valid & ~void)

    def _find_allowed(self, of: int) -> int:
        """Return the bits of those that were allowed by the ones of them that they had seen."""
        if len(self._judged) > _JUDGED * len(self._placed):
            self._judged.clear()
        valid, judged = 0, self._judged
        for each in self._placed.in_order:
            if of & each.bit:
                key = each.id, valid & each.about
                allowed = judged.get(key)
                if allowed is None:
                    allowed = judged[key] = self._was_allowed(each.operation, key[1])
                if allowed:
                    valid |= each.bit
        return valid

    def _was_allowed(self, operation: Operation, view: int) -> bool:
        """True if its author was an administrator by what it had seen, or removes itself."""
        if operation.act in (Act.CREATE, Act.RETIRE):  # everybody may say what they like of their own devices
            return True
        roles = {}
        for person in (operation.author, operation.subject):
            if (role := self._find_role(person, view)) is not None:
                roles[person] = role
        seen = GroupMembers("", roles)
        return seen.may_do(operation.author, operation.act, operation.subject, operation.role)

    def _find_role(self, person: bytes, view: int) -> MemberRole | None:
        """Return the role that a person has by what is in a view: by the last arrival that no removal has undone."""
        removals = view & self._placed.removals_of(person)
        for each in reversed(self._placed.arrivals_of(person)):
            if each.bit & view and not removals & ~each.past and self._is_let_in(each, view):
                return _role_of(each.operation)
        return None

    def _is_let_in(self, arrival: PlacedOperation, view: int) -> bool:
        told = self._placed.admissions.get(arrival.id)
        return told is None or arrival.operation.subject in self._find_admitted_in(view).get(told, ())

    def _find_admitted_in(self, view: int) -> dict[bytes, set[bytes]]:
        key = view & self._placed.invitation_bits
        if key not in self._admitted:
            if len(self._admitted) >= _ADMITTED:
                self._admitted.clear()
            seen = self._placed.list_invitation_operations(view)
            self._admitted[key] = self._find_admitted(seen, self._find_invitations(seen))
        return self._admitted[key]

    def _list_by_seniority(self, valid: int) -> list[tuple[PlacedOperation, int]]:
        """Return removals by somebody else that count, each with the bits of what the removed one did without having
        seen it, nor it that; none without.

        Of two who remove each other the one who has been in the group for longer stays: else whoever is removed could
        pretend to have been faster.
        """
        removals = list(self._placed.list_removals(valid))
        since = {}
        for person in {removal.operation.author for removal, _ in removals}:
            arrivals = (each for each in self._placed.arrivals_of(person) if each.bit & valid)
            since[person] = next(arrivals)[:2]
        return sorted(removals, key=lambda each: (since[each[0].operation.author], each[0][:2]))

    # ---- what they say -----------------------------------------------------------------------------------------

    def _find_invitations(self, counting: list[Operation]) -> dict[bytes, Invitation]:
        """Return the invitations, with how many were let in by each: in one order for all, and no more than it says.

        Revoking wins over admissions at the same time.
        """
        made: dict[bytes, Invitation] = {}
        for each in counting:
            if each.act is Act.INVITE and (invitation := Invitation.from_operation(each)) is not None:
                made[each.id] = invitation
        for each in counting if made else ():
            if each.act is Act.REVOKE and each.subject in made:
                made[each.subject] = replace(made[each.subject], revoked=True)
        for called, subjects in self._find_admitted(counting, made).items():
            made[called] = replace(made[called], admitted=len(subjects))
        return made

    def _find_admitted(
        self, counting: list[Operation], invitations: dict[bytes, Invitation]
    ) -> dict[bytes, set[bytes]]:
        """Return who was let in by each invitation."""
        admissions, has_seen = self._placed.admissions, self._placed.has_seen
        if not admissions or not invitations:
            return {}
        revoked = {each.subject: each.id for each in reversed(counting) if each.act is Act.REVOKE}
        admitted: dict[bytes, set[bytes]] = {}
        for each in counting:
            told = admissions.get(each.id)
            if told is None or told not in invitations or not has_seen(each.id, told):
                continue
            people = admitted.setdefault(told, set())
            in_time = told not in revoked or has_seen(revoked[told], each.id)
            if in_time and (each.subject in people or len(people) < invitations[told].uses):
                people.add(each.subject)
        return admitted

    def _find_roles(
        self, counting: list[Operation], valid: int, invitations: dict[bytes, Invitation]
    ) -> dict[bytes, MemberRole]:
        roles: dict[bytes, MemberRole] = {}
        for subject, each in self._list_standing(counting, valid, invitations):
            if subject in roles or len(roles) < MAX_MEMBERS:
                roles[subject] = _role_of(each)
        return roles

    def _find_past(
        self,
        counting: list[Operation],
        valid: int,
        invitations: dict[bytes, Invitation],
        roles: dict[bytes, MemberRole],
    ) -> dict[bytes, dict[bytes, Past]]:
        """Return, by member, who has added it and how much of the past they give it: the last addition by each says
        that, where one does."""
        found: dict[bytes, dict[bytes, Past]] = {}
        if not self._placed.gives_past and not any(each.past for each in invitations.values()):
            return found
        for subject, each in self._list_standing(counting, valid, invitations):
            past = each.past
            if (told := self._placed.admissions.get(each.id)) is not None:
                past = invitations[told].past
            if past is not None and subject in roles:
                found.setdefault(subject, {})[each.author] = past
        return found

    def _find_removed(self, valid: int, roles: dict[bytes, MemberRole]) -> dict[bytes, tuple[LastHeard, ...]]:
        """Return, by person who was removed and isn't in the group, what removals have seen of what they said: those
        that no other removal of them has seen."""
        found: dict[bytes, tuple[LastHeard, ...]] = {}
        seen: dict[bytes, int] = {}
        for each in reversed(self._placed.in_order):
            operation, person = each.operation, each.operation.subject
            if operation.act is not Act.REMOVE or not each.bit & valid or person in roles:
                continue
            if not seen.get(person, 0) & each.bit:
                found[person] = (operation.heard or UNTOLD, *found.get(person, ()))
            seen[person] = seen.get(person, 0) | each.past
        return found

    def _list_standing(
        self, counting: list[Operation], valid: int, invitations: dict[bytes, Invitation]
    ) -> list[tuple[bytes, Operation]]:
        """Return whom operations bring in that no removal has undone, in order."""
        admitted = self._find_admitted(counting, invitations)
        standing: list[tuple[bytes, Operation]] = []
        for each in counting:
            if (subject := each.brings_in) is None:
                continue
            told = self._placed.admissions.get(each.id)
            if told is not None and subject not in admitted.get(told, ()):
                continue
            if not self._placed.removals_of(subject) & valid & ~self._placed.past_of(each.id):
                standing.append((subject, each))
        return standing


class _Statements:
    """What people say of their own devices in a group, and what of these devices' work counts by that."""

    def __init__(self, placed: PlacedOperations, doubted: Container[bytes]) -> None:
        self._placed, self._doubted = placed, doubted
        self._statements = [each.operation for each in placed.by_id.values() if each.operation.card]
        #: By retirement the bits of what it had seen, and more: see `widen`.
        self._covers = {each.id: placed.past_of(each.id) for each in self._statements}
        #: By person and device the bits that all its retirements cover, and how many of these were looked at.
        self._common: dict[tuple[bytes, bytes], tuple[int, int]] = {}

    def find_retired(self) -> tuple[Retired, int]:
        """Return which devices are retired, and the bits of the operations that don't count because of that, or
        since they weren't accepted."""
        self._common.clear()
        retired, void = find_retirements(self._statements, self._is_disowned), 0
        for each in self._placed.in_order:
            if self._is_disowned(each.operation, retired):
                void |= each.bit
        return retired, void

    def _is_disowned(self, operation: Operation, retired: Retired) -> bool:
        key = operation.author, operation.device
        if not (retirements := retired.get(key)):
            return operation.id in self._doubted
        common, count = self._common.get(key, (-1, 0))
        for each in retirements[count:]:
            common &= self._covers[each] | self._placed.bits_of(each)
        self._common[key] = common, len(retirements)
        return not common & self._placed.bits_of(operation.id)

    def widen(self, retired: Retired, valid: int) -> bool:
        """Add to what retirements have seen what removals of their author had that were made meanwhile, and stand by
        what the retirements leave: who was removed takes nothing back by retiring a device. Return whether that is
        more."""
        changed, placed = False, self._placed
        by_person: dict[bytes, list[bytes]] = {}
        for (person, _), retirements in retired.items():
            by_person.setdefault(person, []).extend(retirements)
        for removal in placed.list_removals_of(by_person, valid):
            for each in by_person[removal.operation.subject]:
                more = placed.is_meanwhile(removal.id, each) and removal.past & ~self._covers[each]
                if more:
                    self._covers[each], changed = self._covers[each] | removal.past, True
        return changed


def _role_of(arrival: Operation) -> MemberRole:
    return MemberRole.ADMINISTRATOR if arrival.act is Act.CREATE else arrival.role


def _find_rooms(counting: list[Operation]) -> dict[bytes, str]:
    closed = {each.subject for each in counting if each.act is Act.CLOSE}
    opened = [each for each in counting if each.act is Act.ROOM and each.id not in closed]
    return {each.id: each.text for each in opened[:MAX_ROOMS]}


def _find_name(counting: Iterable[Operation]) -> str:
    named = [each.text for each in counting if each.act in (Act.CREATE, Act.NAME)]
    return named[-1] if named else ""
