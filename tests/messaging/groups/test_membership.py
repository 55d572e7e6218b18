"""Who is in a group: operations in any order, concurrent ones, and members who mean harm."""

from __future__ import annotations

import cProfile
import itertools
import random
from dataclasses import replace

import pytest
from ends_world import identity
from hypothesis import given
from hypothesis import strategies as st
from second_membership import Group
from variants import slow_after

from dtp.identity import Identity
from dtp.messaging.conversation.members import GroupMembers, Invitation
from dtp.messaging.conversation.membership import (
    MAX_OF_ADMINISTRATOR,
    MAX_OF_MEMBER,
    MAX_OPERATIONS,
    RESERVED,
    Membership,
)
from dtp.messaging.conversation.operations import Act, MemberRole, MembershipError, Operation

PEOPLE = [identity(each) for each in range(1, 7)]
ANN, BEN, CID, DAN = (each.id.key for each in PEOPLE[:4])


def yes(operation: Operation) -> bool:
    return operation.device == operation.author


def make(
    number: int, act: Act, parents: list[bytes], subject: bytes = b"", role: MemberRole = MemberRole.MEMBER
) -> Operation:
    who = PEOPLE[number]
    return Operation.sign(who, who.id.key, act, subject=subject, role=role, text="choir", parents=parents)


def group(*operations: Operation) -> Membership:
    made = Membership(operations[0].id)
    for each in operations:
        made.add_operation(each, yes)
    return made


CREATE = make(0, Act.CREATE, [])
ADD_BEN = make(0, Act.ADD, [CREATE.id], BEN, MemberRole.ADMINISTRATOR)
ADD_CID = make(1, Act.ADD, [ADD_BEN.id], CID)


def test_administrators_add_and_members_do_not() -> None:
    made = group(
        CREATE, ADD_BEN, ADD_CID, make(2, Act.ADD, [ADD_CID.id], DAN), make(3, Act.NAME, [ADD_CID.id])
    )
    assert made.members.roles == {
        ANN: MemberRole.ADMINISTRATOR,
        BEN: MemberRole.ADMINISTRATOR,
        CID: MemberRole.MEMBER,
    }
    assert made.members.name == "choir"


def test_removal_wins_over_an_addition_at_the_same_time_and_one_that_has_seen_it_undoes_it() -> None:
    removes = make(0, Act.REMOVE, [ADD_CID.id], CID)
    adds = make(1, Act.ADD, [ADD_CID.id], CID)
    made = group(CREATE, ADD_BEN, ADD_CID, removes, adds)
    assert CID not in made.members.roles
    made.add_operation(make(1, Act.ADD, made.heads, CID), yes)
    assert CID in made.members.roles


def test_what_a_removed_administrator_did_meanwhile_counts_no_more_nor_what_was_built_on_it() -> None:
    removed = make(0, Act.REMOVE, [ADD_CID.id], BEN)
    puppet = make(
        1, Act.ADD, [ADD_CID.id], DAN, MemberRole.ADMINISTRATOR
    )  # by Ben, pretending not to have seen it
    of_puppet = make(3, Act.REMOVE, [puppet.id], ANN)
    made = group(CREATE, ADD_BEN, ADD_CID, removed, puppet, of_puppet)
    assert made.members.roles == {ANN: MemberRole.ADMINISTRATOR, CID: MemberRole.MEMBER}


def test_of_two_who_remove_each_other_the_older_member_stays() -> None:
    early = make(1, Act.REMOVE, [ADD_BEN.id], ANN)  # seen less, so as to seem earlier
    late = make(0, Act.REMOVE, [ADD_CID.id], BEN)
    made = group(CREATE, ADD_BEN, ADD_CID, early, late)
    assert made.members.roles == {ANN: MemberRole.ADMINISTRATOR, CID: MemberRole.MEMBER}


def test_everybody_may_leave() -> None:
    leaves = make(2, Act.REMOVE, [ADD_CID.id], CID)
    assert CID not in group(CREATE, ADD_BEN, ADD_CID, leaves).members.roles


def test_a_member_who_signs_two_histories_is_read_alike_by_all() -> None:
    one = make(1, Act.ADD, [ADD_CID.id], DAN)
    other = make(1, Act.REMOVE, [ADD_CID.id], DAN)
    first, second = group(CREATE, ADD_BEN, ADD_CID, one, other), group(CREATE, ADD_BEN, ADD_CID, other, one)
    assert first.members == second.members
    assert DAN not in first.members.roles


def test_operations_of_others_and_forged_ones_are_refused() -> None:
    made = group(CREATE)
    with pytest.raises(MembershipError, match="another group"):
        made.add_operation(make(0, Act.CREATE, []), yes)
    forged = Operation.sign(PEOPLE[1], ANN, Act.NAME, text="mine", parents=[CREATE.id])
    assert not made.add_operation(forged, yes)
    assert (made.members.name, made.heads, made.refused) == ("choir", [CREATE.id], [forged.encoded])
    for at in range(0, len(CREATE.encoded), 5):
        spoiled = bytearray(CREATE.encoded)
        spoiled[at] ^= 1
        with pytest.raises(MembershipError):
            Operation.parse(bytes(spoiled))


@given(st.binary(max_size=200))
def test_operations_of_anything(data: bytes) -> None:
    with pytest.raises(MembershipError):
        Operation.parse(data)


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from([Act.ADD, Act.REMOVE, Act.NAME]), st.integers(0, 5),
                  st.booleans(), st.integers(0, 2**20)),
        max_size=14,
    ),
    st.randoms(use_true_random=False),
)  # fmt: skip
def test_everybody_who_has_the_same_operations_sees_the_same_members(
    drawn: list[tuple[int, Act, int, bool, int]], chance: random.Random
) -> None:
    operations = [CREATE]
    for author, act, subject, is_admin, seen in drawn:
        parents = [each.id for at, each in enumerate(operations) if seen >> at & 1][-3:] or [CREATE.id]
        role = MemberRole.ADMINISTRATOR if is_admin else MemberRole.MEMBER
        who = b"" if act is Act.NAME else PEOPLE[subject].id.key
        operations.append(make(author, act, parents, who, role))
    first, second = Membership(CREATE.id), Membership(CREATE.id)
    shuffled = list(operations)
    chance.shuffle(shuffled)
    for each in operations:
        first.add_operation(each, yes)
    for each in shuffled:
        second.add_operation(each, yes)
    assert first.members == second.members
    assert first.operations.keys() == second.operations.keys()
    assert first.heads == second.heads
    # Removal wins: whoever is in was added by an operation that has seen every removal that counts.
    assert all(second.members.roles[who] in tuple(MemberRole) for who in second.members.roles)


# ---- rooms, moderators, invitations -------------------------------------------------------------------------------


def do(number: int, act: Act, parents: list[bytes], **fields: object) -> Operation:
    who = PEOPLE[number]
    return Operation.sign(who, who.id.key, act, parents=parents, **fields)  # type: ignore[arg-type]


LINK = identity(9).id.key
#: What members do to a group; devices are retired in `test_retirements`.
_ACTS = [each for each in Act if each not in (Act.CREATE, Act.RETIRE)]


def invite(number: int, parents: list[bytes], uses: int = 1) -> Operation:
    return do(number, Act.INVITE, parents, subject=LINK, text=Invitation(LINK, 1000, uses).text)


def admit(number: int, parents: list[bytes], subject: bytes, invitation: Operation) -> Operation:
    return do(number, Act.ADD, parents, subject=subject, text=invitation.id.hex())


def test_moderators_do_what_concerns_members_and_nothing_else() -> None:
    moderator = do(0, Act.ADD, [ADD_CID.id], subject=CID, role=MemberRole.MODERATOR)
    made = group(CREATE, ADD_BEN, ADD_CID, moderator)
    seen = made.heads
    for operation in (
        do(2, Act.REMOVE, seen, subject=BEN),  # an administrator
        do(2, Act.ADD, seen, subject=BEN),  # which would make him a member
        do(2, Act.ADD, seen, subject=DAN, role=MemberRole.MODERATOR),
        do(2, Act.ADD, seen, subject=CID, role=MemberRole.ADMINISTRATOR),
        do(2, Act.NAME, seen, text="mine"),
        do(2, Act.ROOM, seen, text="mine"),
    ):
        made.add_operation(operation, yes)
    assert made.members.roles == {
        ANN: MemberRole.ADMINISTRATOR,
        BEN: MemberRole.ADMINISTRATOR,
        CID: MemberRole.MODERATOR,
    }
    assert (made.members.name, made.members.rooms) == ("choir", {})
    assert made.members.moderators == {ANN, BEN, CID}
    made.add_operation(do(2, Act.ADD, made.heads, subject=DAN), yes)
    assert made.members.roles[DAN] is MemberRole.MEMBER
    made.add_operation(do(2, Act.REMOVE, made.heads, subject=DAN), yes)
    assert DAN not in made.members.roles
    assert made.was_removed(DAN)


def test_a_removal_that_does_not_count_keeps_nobody_out() -> None:
    forbidden = do(
        2, Act.REMOVE, [ADD_CID.id], subject=DAN
    )  # by a member, who could keep out whoever has a link
    assert not group(CREATE, ADD_BEN, ADD_CID, forbidden).was_removed(DAN)


@pytest.mark.slow
def test_nobody_from_outside_fills_a_group() -> None:
    """Whoever had a link knew enough to sign so many operations that no other had room."""
    made = group(CREATE, ADD_BEN)
    for at in range(MAX_OPERATIONS):
        parents = [CREATE.id] if at % 2 else [at.to_bytes(32, "big")]
        made.add_operation(sparse(5, parents, at), yes)
    assert made.operations.keys() == {CREATE.id, ADD_BEN.id}
    assert made.add_operation(ADD_CID, yes)
    assert CID in made.members.roles


def sparse(number: int, parents: list[bytes], at: int) -> Operation:
    """Return an operation whose signature nobody looks at any more."""
    who = PEOPLE[number].id.key
    fields = (who, who, b"", MemberRole.MEMBER, str(at), tuple(parents), bytes(8))
    return Operation(Act.NAME, *fields, encoded=at.to_bytes(4, "big"))


@pytest.mark.parametrize("subject", [b"", BEN, DAN], ids=["nobody", "member", "stranger"])
def test_operations_about_nobody_or_somebody_else_are_read(subject: bytes) -> None:
    """A group whose creation was about somebody else stopped all that came, at everybody who was told of it."""
    created = do(0, Act.CREATE, [], subject=subject, text="choir")
    added = do(0, Act.ADD, [created.id], subject=BEN)
    removed = do(0, Act.REMOVE, [added.id], subject=BEN)
    nobody = do(0, Act.REMOVE, [removed.id])
    made = group(created, added, removed, nobody)
    assert made.members.roles == {ANN: MemberRole.ADMINISTRATOR}


def test_rooms_are_opened_and_closed_by_administrators() -> None:
    opened = do(1, Act.ROOM, [ADD_CID.id], text="sopranos")
    made = group(CREATE, ADD_BEN, ADD_CID, opened, do(2, Act.CLOSE, [opened.id], subject=opened.id))
    assert made.members.rooms == {opened.id: "sopranos"}
    made.add_operation(do(0, Act.CLOSE, made.heads, subject=opened.id), yes)
    assert made.members.rooms == {}


def test_an_invitation_lets_in_so_many_and_the_same_ones_for_all() -> None:
    link = invite(0, [ADD_CID.id])
    one, other = admit(0, [link.id], DAN, link), admit(1, [link.id], PEOPLE[4].id.key, link)
    first, second = (group(CREATE, ADD_BEN, ADD_CID, link, *each) for each in ((one, other), (other, one)))
    assert first.members == second.members
    assert len(first.members.roles) == 4
    assert first.members.invitations[link.id].admitted == 1


def test_revoking_wins_over_who_is_let_in_meanwhile_and_leaves_who_was_before() -> None:
    link = invite(0, [ADD_CID.id], uses=9)
    before = admit(0, [link.id], DAN, link)
    revoked = do(1, Act.REVOKE, [before.id], subject=link.id)
    meanwhile = admit(0, [before.id], PEOPLE[4].id.key, link)
    after = admit(0, [revoked.id], PEOPLE[5].id.key, link)
    made = group(CREATE, ADD_BEN, ADD_CID, link, before, revoked, meanwhile, after)
    assert made.members.roles.keys() == {ANN, BEN, CID, DAN}
    assert made.members.invitations[link.id].revoked


def test_members_invite_nobody_and_an_invitation_that_says_nonsense_is_none() -> None:
    of_member = invite(2, [ADD_CID.id])
    nonsense = [
        do(0, Act.INVITE, [ADD_CID.id], subject=LINK, text=each)
        for each in ("", "1", "1 0", "x 1", "1 -1", "1 ²")
    ]
    made = group(CREATE, ADD_BEN, ADD_CID, of_member, *nonsense)
    assert made.members.invitations == {}
    made.add_operation(admit(0, made.heads, DAN, of_member), yes)
    assert DAN not in made.members.roles


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(_ACTS), st.integers(0, 5), st.sampled_from(MemberRole),
                  st.integers(0, 2**20)),
        max_size=16,
    ),
    st.randoms(use_true_random=False),
)  # fmt: skip
def test_everybody_sees_the_same_community(
    drawn: list[tuple[int, Act, int, MemberRole, int]], chance: random.Random
) -> None:
    link = invite(0, [CREATE.id], uses=2)
    operations = [CREATE, link]
    for author, act, subject, role, seen in drawn:
        parents = [each.id for at, each in enumerate(operations) if seen >> at & 1][-3:] or [link.id]
        fields: dict[str, object] = {"subject": PEOPLE[subject].id.key, "role": role, "text": "choir"}
        if act is Act.ADD and seen % 3:
            fields |= {"text": link.id.hex(), "role": MemberRole.MEMBER}
        if act in (Act.REVOKE, Act.CLOSE):
            fields["subject"] = operations[seen % len(operations)].id
        if act is Act.INVITE:
            fields |= {"subject": LINK, "text": f"1000 {1 + seen % 3}"}
        operations.append(do(author, act, parents, **fields))
    shuffled = list(operations)
    chance.shuffle(shuffled)
    first, second = Membership(CREATE.id), Membership(CREATE.id)
    for each in operations:
        first.add_operation(each, yes)
    for each in shuffled:
        second.add_operation(each, yes)
    assert first.members == second.members
    for invitation in first.members.invitations.values():
        assert invitation.admitted <= invitation.uses


def test_what_was_allowed_is_judged_once_however_large_a_group_grows() -> None:
    made, people = group(CREATE), [bytes([each]) * 32 for each in range(100)]
    with cProfile.Profile() as profile:
        for each in people:
            made.add_operation(make(0, Act.ADD, made.heads, each), yes)
            assert each in made.members.roles
    calls = {each.code: each.callcount for each in profile.getstats()}
    assert calls[GroupMembers.may_do.__code__] == len(people)


def let_puppets_remove_each_other(count: int) -> list[Operation]:
    """Return the operations of a group whose administrator adds that many more, each of whom does something while
    the one before removes them."""
    seeds = [each.to_bytes(32, "big") for each in range(1, count + 1)]
    operations, puppets = [CREATE], [Identity(each, each) for each in seeds]
    for puppet in puppets:
        seen = [operations[-1].id]
        operations.append(make(0, Act.ADD, seen, puppet.id.key, MemberRole.ADMINISTRATOR))
    seen = [operations[-1].id]
    for one, other in itertools.pairwise(puppets):
        removal = Operation.sign(one, one.id.key, Act.REMOVE, subject=other.id.key, parents=seen)
        meanwhile = Operation.sign(other, other.id.key, Act.NAME, text="choir", parents=seen)
        operations += [removal, meanwhile]
    return operations


@pytest.mark.parametrize("count", [4, 32, 33, 34, 44])
def test_what_puppets_do_to_each_other_is_read_as_it_is_written_down(count: int) -> None:
    """Beyond so many removals those that are left are taken together."""
    operations = let_puppets_remove_each_other(count)
    read = Group([each.encoded for each in operations], {each.id for each in operations})
    assert group(*operations).members.roles == read.members()


def test_what_puppets_do_to_each_other_costs_others_little() -> None:
    """1,200 operations took 23 seconds to read: each removal had all of them judged again."""
    made = group(*let_puppets_remove_each_other(300))
    with cProfile.Profile() as profile:
        assert 1 < len(made.members.roles) < 300
    calls = {each.code: each.callcount for each in profile.getstats()}
    assert calls[GroupMembers.may_do.__code__] < 2 * len(made.operations)
    assert sum(calls.values()) < 200 * len(made.operations)


def test_operations_that_come_in_the_wrong_order_are_placed_one_by_one() -> None:
    """What came last first was looked at again with each that came: for 4,000 that was 16 million times."""
    operations = [CREATE, ADD_BEN]
    for at in range(500):
        operations.append(sparse(1, [operations[-1].id], at))
    made = Membership(CREATE.id)
    with cProfile.Profile() as profile:
        for each in reversed(operations):
            made.add_operation(each, yes)
    assert made.operations.keys() == {each.id for each in operations}
    assert sum(each.callcount for each in profile.getstats()) < 100 * len(operations)


# ---- members who fill a group -------------------------------------------------------------------------------------


_NUMBERS = itertools.count(MAX_OPERATIONS)
#: More than an administrator may do.
MORE = MAX_OF_ADMINISTRATOR + MAX_OF_MEMBER


def flood(made: Membership, number: int, count: int, of: bytes) -> list[Operation]:
    """Have somebody do nothing much as often as that, and return what was told."""
    done = [sparse(number, [of], next(_NUMBERS)) for _ in range(count)]
    for each in done:
        made.add_operation(each, yes)
    return done


def test_a_member_who_may_nothing_fills_no_group_and_is_built_on_by_nobody() -> None:
    """Any member could do 4,096 things that don't count, and nobody could be added or removed any more."""
    made, other = group(CREATE, ADD_BEN, ADD_CID), group(CREATE, ADD_BEN, ADD_CID)
    flood(made, 2, 4 * MAX_OF_MEMBER, ADD_CID.id)
    flood(other, 2, 4 * MAX_OF_MEMBER, ADD_CID.id)  # another one hears of other ones
    assert len(made.operations) == len(other.operations) == 3 + MAX_OF_MEMBER
    assert made.heads == [ADD_CID.id]
    removes = make(0, Act.REMOVE, made.heads, CID)
    for each in (made, other):
        assert each.add_operation(removes, yes)
        assert each.members.roles.keys() == {ANN, BEN}
        assert flood(each, 2, 1, removes.id)[0].id not in each.operations


def test_what_others_sign_in_somebodys_name_takes_none_of_their_places() -> None:
    made = group(CREATE, ADD_BEN, ADD_CID)
    for at in range(2 * MAX_OF_MEMBER):
        forged = replace(sparse(1, [ADD_CID.id], at), device=DAN)
        made.add_operation(forged, yes)
    assert len(made.refused) == MAX_OF_MEMBER
    assert made.add_operation(make(1, Act.NAME, made.heads), yes)


@pytest.mark.slow
def test_one_administrator_fills_half_of_a_group_and_two_leave_room_to_remove_them() -> None:
    add_cid = make(0, Act.ADD, [ADD_BEN.id], CID, MemberRole.ADMINISTRATOR)
    begun = (CREATE, ADD_BEN, add_cid)
    made = group(*begun)
    flood(made, 1, MORE, add_cid.id)
    assert len(made.operations) == MAX_OF_ADMINISTRATOR + 3  # with what Ann has done
    assert made.add_operation(make(2, Act.ADD, [add_cid.id], DAN), yes)
    flood(made, 2, MORE, add_cid.id)
    assert MAX_OPERATIONS - RESERVED <= len(made.operations) < MAX_OPERATIONS
    assert not made.add_operation(make(3, Act.REMOVE, made.heads, DAN), yes)
    for subject in (BEN, CID):
        assert made.add_operation(make(0, Act.REMOVE, made.heads, subject), yes)
    # Of so much that Cid did the removal names 64: whether that he added Dan is among them is chance.
    assert made.members.roles.keys() - {DAN} == {ANN}
    assert made.add_operation(make(0, Act.ADD, made.heads, PEOPLE[4].id.key), yes)
    for _ in range(RESERVED):
        made.add_operation(make(0, Act.NAME, made.heads), yes)
    assert len(made.operations) < MAX_OPERATIONS


def test_who_was_an_administrator_may_leave_and_retire_devices_whatever_they_have_done() -> None:
    """Whoever had done more than a member may do could do nothing any more, not even leave."""
    made = group(CREATE, ADD_BEN, ADD_CID)
    done = flood(made, 1, 2 * MAX_OF_MEMBER, ADD_CID.id)
    assert done[-1].id in made.operations
    assert made.add_operation(make(0, Act.ADD, made.heads, BEN, MemberRole.MEMBER), yes)
    flood(made, 1, MAX_OF_MEMBER // 2, ADD_CID.id)
    assert made.add_operation(make(1, Act.REMOVE, made.heads, BEN), yes)
    assert BEN not in made.members.roles
    before = len(made.operations)
    (left,) = [each.id for each in made.operations.values() if each.act is Act.REMOVE]
    flood(made, 1, 2 * MAX_OF_MEMBER, left)
    assert len(made.operations) <= before + MAX_OF_MEMBER


@pytest.mark.slow
def test_who_was_an_administrator_takes_no_more_places_by_not_having_seen_that() -> None:
    made = group(CREATE, ADD_BEN, ADD_CID, make(0, Act.ADD, [ADD_CID.id], BEN, MemberRole.MEMBER))
    flood(made, 1, MAX_OPERATIONS, ADD_CID.id)
    assert len(made.operations) == 3 + MAX_OF_ADMINISTRATOR


def test_who_has_administered_a_group_for_longest_is_not_locked_out() -> None:
    """A group of one administrator came to nothing with half of what there is room for."""
    made = group(CREATE, ADD_BEN, ADD_CID)
    flood(made, 0, MAX_OF_ADMINISTRATOR, ADD_CID.id)
    removal = make(0, Act.REMOVE, [ADD_CID.id], CID)
    assert made.add_operation(removal, yes)
    assert CID not in made.members.roles
    flood(made, 0, MORE, removal.id)
    assert MAX_OPERATIONS - RESERVED <= len(made.operations) < MAX_OPERATIONS


@pytest.mark.parametrize("restarted", slow_after(1, [True, False]))
def test_what_an_administrator_has_built_on_is_taken_by_who_was_told_others(restarted: bool) -> None:
    """Two administrators tell each member other things, so that each has no more room for those of others."""
    add_cid = make(0, Act.ADD, [ADD_BEN.id], CID, MemberRole.ADMINISTRATOR)
    begun = (CREATE, ADD_BEN, add_cid)
    made, other = group(*begun), group(*begun)
    told = flood(made, 1, MORE, add_cid.id)
    flood(other, 1, MORE, add_cid.id)
    flood(other, 2, MORE, add_cid.id)
    removal = make(0, Act.REMOVE, made.heads, BEN)
    assert made.add_operation(removal, yes)
    other.add_operation(removal, yes)
    assert other.is_waiting(removal.id)
    if restarted:
        kept = [*other.operations.values(), removal]
        other = Membership(CREATE.id)
        for each in kept:
            other.add_operation(each, yes, kept=True)
    for each in told:  # as who is asked for it gives it
        other.add_operation(each, yes)
    assert removal.id in other.operations
    assert BEN not in other.members.roles


def test_a_group_that_was_kept_has_room_for_all_of_it() -> None:
    made = group(CREATE, ADD_BEN, ADD_CID)
    flood(made, 1, 2 * MAX_OF_MEMBER, ADD_CID.id)
    made.add_operation(make(0, Act.REMOVE, made.heads, BEN), yes)
    read = Membership(CREATE.id)
    for each in made.operations.values():
        read.add_operation(each, yes, kept=True)
    assert read.operations.keys() == made.operations.keys()
