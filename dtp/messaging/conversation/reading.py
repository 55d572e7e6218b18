"""What the operations of a group result in: which of them are valid, and who is a member. It is the same for
everybody.

Source: docs/messaging.md, "Operations of groups". An operation is valid if its author's role allowed it by what it
had seen, and the author wasn't removed concurrently. A removal is undone only by an addition that has seen it.
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

#: Removals that are applied one after the other, with all operations read again after each, at most; those left are
#: applied together. An attacker with many identities can make as many removals as there is room for.
MAX_ROUNDS: Final = 16
#: Remembered judgements for each operation, by which part of its past is valid, on average at most.
_JUDGED: Final = 4
#: Views for which it is remembered who was admitted by invitations, at most.
_ADMITTED: Final = 64


class GroupReading(NamedTuple):
    """What the placed operations result in. `valid` are those that count, in order."""

    members: GroupMembers
    retired: Retired
    valid: list[Operation]


class GroupReader:
    """Reads the placed operations of one group. It remembers earlier judgements, so that reading again is fast."""

    def __init__(self, placed: PlacedOperations) -> None:
        self._placed = placed
        #: Whether an operation was allowed, by the bits of the valid operations in its past that concern its author
        #: and its subject.
        self._judged: dict[tuple[bytes, int], bool] = {}
        self._admitted: dict[int, dict[bytes, set[bytes]]] = {}

    def read(self, doubted: Container[bytes]) -> GroupReading:
        """Return what the operations result in. Those in `doubted` weren't accepted."""
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

    # ---- which operations are valid ----------------------------------------------------------------------------

    def _resolve_removals(self, void: int) -> int:
        """Return the bits of the valid operations, without those that removed people have made concurrently. `void`
        are the bits of operations that don't count anyway.
        """
        for _ in range(MAX_ROUNDS):
            valid = self._find_allowed(~void)
            removals = self._list_by_seniority(valid)
            if not removals:
                return valid
            void |= removals[0][1]  # and what was built on those isn't valid any more, either
        valid = self._find_allowed(~void)
        for removal, meanwhile in self._list_by_seniority(valid):
            if not void & removal.bit:
                void |= meanwhile
        return self._find_allowed(valid & ~void)

    def _find_allowed(self, of: int) -> int:
        """Return the bits of those among `of` that were allowed by the valid ones that they had seen."""
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
        """True if the role of the operation's author allowed it, by the operations in `view`."""
        if operation.act in (Act.CREATE, Act.RETIRE):  # everybody may say what they like of their own devices
            return True
        roles = {}
        for person in (operation.author, operation.subject):
            if (role := self._find_role(person, view)) is not None:
                roles[person] = role
        seen = GroupMembers("", roles)
        return seen.may_do(operation.author, operation.act, operation.subject, operation.role)

    def _find_role(self, person: bytes, view: int) -> MemberRole | None:
        """Return the role that a person has in a view: by the last arrival that no removal has undone."""
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
        """Return the valid removals of somebody by another, each with the bits of the removed person's concurrent
        operations; those without any are left out.

        Of two people who remove each other the one who has been in the group for longer stays. Otherwise somebody
        who was removed could pretend to have been faster.
        """
        removals = list(self._placed.list_removals(valid))
        since = {}
        for person in {removal.operation.author for removal, _ in removals}:
            arrivals = (each for each in self._placed.arrivals_of(person) if each.bit & valid)
            since[person] = next(arrivals)[:2]
        return sorted(removals, key=lambda each: (since[each[0].operation.author], each[0][:2]))

    # ---- what they result in -----------------------------------------------------------------------------------

    def _find_invitations(self, counting: list[Operation]) -> dict[bytes, Invitation]:
        """Return the invitations, with the number of people whom each has admitted: in the same order for
        everybody, and never more than it allows.

        A revocation wins over concurrent admissions.
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
        """Return the people whom each invitation has admitted."""
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
        """Return, by member and by who has added it, how much of the past it is given. If somebody has added it
        more than once, their last addition that says so decides.
        """
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
        """Return, by person who was removed and isn't in the group, what their removals had seen of their messages.
        A removal that another one has seen isn't counted.
        """
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
        """Return the people whom operations bring in that no removal has undone, with these operations, in order."""
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
    """What people say about their own devices in a group, and which operations of these devices are disowned by
    that.
    """

    def __init__(self, placed: PlacedOperations, doubted: Container[bytes]) -> None:
        self._placed, self._doubted = placed, doubted
        self._statements = [each.operation for each in placed.by_id.values() if each.operation.card]
        #: By retirement, the bits of what it had seen, and of what `widen` has added.
        self._covers = {each.id: placed.past_of(each.id) for each in self._statements}
        #: By person and device, the bits that all of its retirements cover, and how many of these were counted in.
        self._common: dict[tuple[bytes, bytes], tuple[int, int]] = {}

    def find_retired(self) -> tuple[Retired, int]:
        """Return the retired devices, and the bits of the operations that aren't valid because of that, or because
        they weren't accepted.
        """
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
        """Add to what a retirement has seen what concurrent removals of its author had seen, if these are still
        valid: a person who was removed can't undo anything by retiring a device. Return True if that has added
        something.
        """
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
