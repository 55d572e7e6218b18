"""Devices that were revoked: of what they have signed of groups counts what their person has seen, in any order."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import pytest
from ends_world import identity
from hypothesis import given
from hypothesis import strategies as st
from second_membership import Group, name_of

from dtp.identity import Account, Card, Device, Identity
from dtp.messaging.conversation.membership import Membership
from dtp.messaging.conversation.operations import Act, MemberRole, MembershipError, Operation
from dtp.messaging.conversation.retirements import MAX_READINGS

#: Ann has an old device, which is stolen, and a new one; Ben administers as well, Mal is the thief's accomplice.
OLD, NEW, KEY, RECOVERY, BEN, CID, MAL = (identity(each) for each in range(1, 8))
ADMINISTRATOR = MemberRole.ADMINISTRATOR
BOTH = Account.create(KEY, RECOVERY.id, [Device(each.id.key) for each in (OLD, NEW)], now_ms=1)
REVOKED = BOTH.remove(OLD.id, now_ms=2)
ANN = BOTH.card.account


def sign(device: Identity, act: Act, parents: Iterable[Operation], **fields: object) -> Operation:
    """Return an operation by a device of Ann's, or by somebody who is their own only device."""
    author = ANN if device in (OLD, NEW) else device.id.key
    return Operation.sign(device, author, act, parents=[each.id for each in parents], **fields)  # type: ignore[arg-type]


def retire(
    by: Identity, device: Identity, parents: Iterable[Operation], card: Card = REVOKED.card
) -> Operation:
    return sign(by, Act.RETIRE, parents, subject=device.id.key, card=card)


CREATE = sign(OLD, Act.CREATE, [])
ADD_BEN = sign(OLD, Act.ADD, [CREATE], subject=BEN.id.key, role=ADMINISTRATOR)
ADD_CID = sign(BEN, Act.ADD, [ADD_BEN], subject=CID.id.key)
OF_BEN = sign(BEN, Act.CREATE, [])
#: By the thief, as if long ago: administrators are made by it.
FORGED = sign(OLD, Act.ADD, [CREATE], subject=MAL.id.key, role=ADMINISTRATOR)
RETIRED = retire(NEW, OLD, [ADD_CID])
HONEST = (CREATE, ADD_BEN, ADD_CID)


def read(operations: Iterable[Operation], devices: Iterable[Identity] = (OLD, NEW)) -> Membership:
    """Return the group for a reader to whom these are Ann's devices."""
    known = {each.id.key for each in devices}

    def is_authors(operation: Operation) -> bool:
        return operation.device in (known if operation.author == ANN else {operation.author})

    made = Membership(CREATE.id)
    for each in operations:
        made.add_operation(each, is_authors)
    return made


def people(made: Membership) -> set[bytes]:
    return set(made.members.roles)


@pytest.mark.parametrize("devices", [(OLD,), (OLD, NEW), (NEW,)], ids=["old", "both", "new"])
def test_what_the_retirement_had_seen_counts_whatever_card_a_reader_has(
    devices: tuple[Identity, ...],
) -> None:
    of_accomplice = sign(MAL, Act.REMOVE, [FORGED, ADD_CID], subject=ANN)
    made = read([*HONEST, FORGED, of_accomplice, RETIRED], {*devices, NEW})
    assert people(made) == {ANN, BEN.id.key, CID.id.key}
    assert (ANN, OLD.id.key) in made.retired


def test_a_reader_with_an_old_card_takes_the_forged_one_until_the_retirement_comes() -> None:
    made = read([*HONEST, FORGED], [OLD])
    assert MAL.id.key in people(made)
    made.add_operation(RETIRED, lambda operation: True)
    assert MAL.id.key not in people(made)


def test_a_later_operation_that_has_seen_the_forged_one_does_not_bring_it_back() -> None:
    deceived = sign(BEN, Act.NAME, [ADD_CID, FORGED], text="choir")  # Ben hasn't heard yet
    again = retire(NEW, OLD, [RETIRED, deceived], BOTH.remove(OLD.id, now_ms=3).card)
    made = read([*HONEST, FORGED, deceived, RETIRED, again])
    assert people(made) == {ANN, BEN.id.key, CID.id.key}
    assert made.members.name == "choir"


def test_what_was_refused_counts_once_a_retirement_has_seen_it() -> None:
    late = sign(OLD, Act.NAME, [ADD_CID], text="altos")  # revoked before it came
    built = sign(BEN, Act.ADD, [late], subject=MAL.id.key)
    made = read([CREATE, ADD_BEN, ADD_CID, late, built], [NEW])
    assert people(made) == set()  # nobody vouches yet for what the old device has signed
    assert len(made.refused) == 3
    made.add_operation(retire(NEW, OLD, [late]), lambda operation: True)
    assert people(made) == {ANN, BEN.id.key, CID.id.key, MAL.id.key}
    assert made.members.name == "altos"


def test_a_thief_retires_nobody() -> None:
    """Neither by the card in which the new device wasn't named yet, nor before or after that."""
    first = Account.create(KEY, RECOVERY.id, [Device(OLD.id.key)], now_ms=1)
    room = sign(NEW, Act.ROOM, [ADD_CID], text="altos")
    of_thief = retire(OLD, NEW, [CREATE], first.card)
    seen = retire(OLD, NEW, [ADD_CID], first.card)
    honest = retire(NEW, OLD, [room, seen])
    made = read([*HONEST, room, of_thief, seen, honest])
    assert list(made.members.rooms.values()) == ["altos"]
    assert made.retired.keys() == {(ANN, OLD.id.key)}


def test_a_card_by_the_recovery_key_ends_what_the_thief_says_by_the_account_key() -> None:
    stolen = BOTH.remove(NEW.id, now_ms=9).renew(0).renew(0)
    of_thief = retire(OLD, NEW, [CREATE], stolen.card)
    devices = [Device(NEW.id.key)]
    recovered = Account.rotate(BOTH.card, RECOVERY, identity(20), identity(21).id, devices, now_ms=10)
    room = sign(NEW, Act.ROOM, [ADD_CID], text="altos")
    made = read([*HONEST, room, of_thief, FORGED])
    assert made.members.rooms == {}
    made.add_operation(retire(NEW, OLD, [room], recovered.card), lambda operation: True)
    assert list(made.members.rooms.values()) == ["altos"]
    assert people(made) == {ANN, BEN.id.key, CID.id.key}


def test_who_was_removed_undoes_nothing_by_retiring_a_device_unless_nobody_else_could_remove_them() -> None:
    add_ann = sign(BEN, Act.ADD, [OF_BEN], subject=ANN, role=ADMINISTRATOR)
    add_cid = sign(OLD, Act.ADD, [add_ann], subject=CID.id.key)
    removed = sign(BEN, Act.REMOVE, [add_cid], subject=ANN)
    undoes = retire(NEW, OLD, [add_ann])  # as if she hadn't added anybody
    made = Membership(OF_BEN.id)
    for each in (OF_BEN, add_ann, add_cid, removed, undoes):
        made.add_operation(each, lambda operation: True)
    assert people(made) == {BEN.id.key, CID.id.key}
    promoted = sign(OLD, Act.ADD, [OF_BEN, add_ann], subject=MAL.id.key, role=ADMINISTRATOR)
    made.add_operation(promoted, lambda operation: True)
    assert MAL.id.key not in people(made)  # Ben's removal hadn't seen it


def test_retirements_of_people_who_remove_each_other_are_read_again_so_often_and_no_more() -> None:
    """A chain of hundreds, which a stranger makes in a minute, took hours to read, at each start again."""
    keys = [Identity.generate() for _ in range(3 * (MAX_READINGS + 4))]
    chain = list(zip(keys[::3], keys[1::3], keys[2::3], strict=True))
    accounts = [
        Account.create(key, RECOVERY.id, [Device(new.id.key), Device(old.id.key)]) for key, new, old in chain
    ]
    told = [OF_BEN]
    for each in accounts:
        told.append(sign(BEN, Act.ADD, told[-1:], subject=each.card.account, role=ADMINISTRATOR))
    joined, last = told[-1], told[-1]
    removed = b""
    for account, (_, new, old) in reversed(list(zip(accounts, chain, strict=True))):
        person, said = account.card.account, account.remove(old.id).card
        told.append(
            Operation.sign(new, person, Act.RETIRE, subject=old.id.key, card=said, parents=[joined.id])
        )
        if removed:  # by a retired device, and whoever removes its person has seen that
            last = Operation.sign(old, person, Act.REMOVE, subject=removed, parents=[last.id])
            told.append(last)
        removed = person
    told.append(sign(BEN, Act.REMOVE, [last], subject=removed))
    made = Membership(OF_BEN.id)
    for operation in told:
        made.add_operation(operation, lambda _: True)
    stayed = {each.card.account for each in accounts[MAX_READINGS:]}
    assert people(made) == {BEN.id.key} | stayed
    encoded = made.encoded_operations
    assert made.members.roles == Group(encoded, set(map(name_of, encoded))).members()


def test_a_device_that_is_approved_again_counts_again() -> None:
    again = REVOKED.add(OLD.id, now_ms=3)
    back = retire(NEW, OLD, [RETIRED], again.card)
    made = read([*HONEST, RETIRED, sign(OLD, Act.NAME, [RETIRED], text="altos")])
    assert made.members.name == ""
    made.add_operation(back, lambda operation: True)
    assert made.retired == {}
    assert made.members.name == "altos"
    made.add_operation(retire(NEW, OLD, [back], again.remove(OLD.id, now_ms=4).card), lambda operation: True)
    assert made.members.name == ""


def test_a_retirement_needs_a_card_of_its_author_that_names_who_signs() -> None:
    other = Account.create(BEN, RECOVERY.id, [Device(NEW.id.key)], now_ms=1)
    old, revoked = OLD.id.key, REVOKED.card
    with pytest.raises(MembershipError, match="names who says so"):
        retire(OLD, OLD, [CREATE])  # which is revoked itself
    with pytest.raises(MembershipError, match="names who says so"):
        retire(NEW, OLD, [CREATE], other.card)
    with pytest.raises(MembershipError, match="names who says so"):
        sign(NEW, Act.RETIRE, [CREATE], card=revoked)
    with pytest.raises(MembershipError, match="malformed"):
        sign(NEW, Act.RETIRE, [CREATE], subject=old)
    with pytest.raises(MembershipError, match="malformed"):
        sign(NEW, Act.NAME, [CREATE], subject=old, card=revoked)


_DRAWN = st.tuples(
    st.sampled_from([OLD, NEW, BEN, CID, MAL]),
    st.sampled_from([Act.ADD, Act.ADD, Act.REMOVE, Act.NAME, Act.RETIRE]),
    st.sampled_from([ANN, BEN.id.key, CID.id.key, MAL.id.key]),
    st.sampled_from(MemberRole),
    st.integers(0, 2**20),
)


#: A group that Ann has made, and one that Ben has.
_BEGUN = [
    (CREATE, ADD_BEN),
    (OF_BEN, sign(BEN, Act.ADD, [OF_BEN], subject=ANN, role=ADMINISTRATOR)),
]


@given(
    st.sampled_from(_BEGUN),
    st.lists(_DRAWN, max_size=14),
    st.integers(0, 2**20),
    st.randoms(use_true_random=False),
)
def test_everybody_reads_alike_in_whatever_order_cards_and_operations_come(
    begun: tuple[Operation, ...],
    drawn: list[tuple[Identity, Act, bytes, MemberRole, int]],
    seen: int,
    chance: random.Random,
) -> None:
    """Ann revokes the old device, in the end at least, and everybody hears of that sometime."""
    again = REVOKED.add(OLD.id, now_ms=3)
    cards = [BOTH.card, REVOKED.card, again.card, again.remove(OLD.id, now_ms=4).card]
    operations = list(begun)
    for who, act, subject, role, number in drawn:
        parents = [each for at, each in enumerate(operations) if number >> at & 1][-3:] or begun[:1]
        if act is Act.RETIRE:
            device = (OLD, NEW)[number % 2]
            signer = NEW if number % 3 else OLD
            named = [each for each in cards if each.names(signer.id.key)]
            operations.append(retire(signer, device, parents, named[number % len(named)]))
        else:
            fields = {} if act is Act.NAME else {"subject": subject, "role": role}
            operations.append(
                sign(who, act, parents, text=f"name {number}" if act is Act.NAME else "", **fields)
            )
    placed = _hear(begun[0].id, operations, iter(cards)).operations  # nobody builds on others
    last = [each for at, each in enumerate(placed.values()) if seen >> at & 1][-3:] or begun[1:]
    joined = begun[begun[0] is OF_BEN]  # Ann has seen that she is in the group
    operations.append(
        retire(NEW, OLD, {joined.id: joined, **{each.id: each for each in last}}.values(), cards[-1])
    )
    found = []
    for _ in range(2):
        told: list[Operation | None] = [*operations, *[None] * (len(cards) - 1)]
        chance.shuffle(told)
        found.append(_hear(begun[0].id, told, iter(cards)))
    assert found[0].members == found[1].members
    assert found[0].retired == found[1].retired
    for each in found:
        accepted = {name_of(operation) for operation in each.encoded_operations}
        assert each.members.roles == Group([*each.encoded_operations, *each.refused], accepted).members()


def _hear(group: bytes, told: Iterable[Operation | None], cards: Iterator[Card]) -> Membership:
    """Return the group for who hears of operations, and for None of Ann's next card, in this order."""
    made, card = Membership(group), next(cards)

    def is_authors(operation: Operation) -> bool:
        if operation.author != ANN:
            return operation.author == operation.device
        is_newer = operation.card is not None and operation.card.supersedes(card)
        return is_newer or card.names(operation.device)

    for each in told:
        if each is None:
            card = next(cards)
            made.reconsider(is_authors)
        else:
            made.add_operation(each, is_authors)
    return made
