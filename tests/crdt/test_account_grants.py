"""Grants to accounts: each device writes under them, a lost one doesn't any more; alike on all replicas."""

from __future__ import annotations

import random
from typing import Any

import pytest
from crdt_replicas import Wall
from hypothesis import given
from hypothesis import strategies as st
from test_account_frames import FIRST, NEXT, NEXT_RECOVERY, RECOVERY, cuts, show
from test_rules import IDENTITIES, KEYS, NAMES, forger, frame, orders, rebuilt, replica, take

from dtp.core.errors import NotOwner
from dtp.crdt import Replica
from dtp.crdt.permission.access import ACCESS, OFFER, REVOKE, USE
from dtp.crdt.permission.accounts import CARD, CUTS, FOREVER, read_cuts
from dtp.crdt.permission.grants import (
    Grant,
    GrantError,
    Revocation,
    make_grant,
    read_grant,
    read_revocation,
)
from dtp.crdt.permission.owners import owned_soul
from dtp.crdt.replica import Frame
from dtp.identity import Account, Device

#: The owner is none of the account's devices, which are the first two.
OWNER = 3
BOARD = owned_soul(KEYS[OWNER], "board")
GRANT = make_grant(IDENTITIES[OWNER], "test", FIRST.card.account, "board", 0, to_account=True)
OFFERED = (f"{ACCESS}/{NAMES[OWNER]}", f"{OFFER}{GRANT.id}", GRANT.encode())


def use(who: int) -> tuple[str, str, bytes]:
    return f"{ACCESS}/{NAMES[who]}", f"{USE}{GRANT.id}", GRANT.encode()


def revoke(told: Revocation) -> tuple[str, str, Any]:
    return f"{ACCESS}/{NAMES[OWNER]}", f"{REVOKE}{GRANT.id}", told.to_value()


def test_each_device_of_an_account_writes_under_its_grant() -> None:
    owner, laptop, phone, stranger = replica(OWNER), replica(0), replica(1), replica(2)
    owner.put(*OFFERED)
    frames = owner.commit()
    for one in (laptop, phone, stranger):
        take(one, frames)
    with pytest.raises(NotOwner):
        laptop.put(BOARD, "k", 1)  # whose device it is, is not known here
    laptop.permits.cards[FIRST.card.name] = FIRST.card
    laptop.put(f"{ACCESS}/{NAMES[0]}", f"{CARD}{FIRST.card.name}", FIRST.card.encode())
    laptop.put(BOARD, "k", "laptop")
    laptop.list(BOARD).append("laptop")
    made = laptop.commit()
    take(phone, made)
    phone.put(f"{BOARD}/below", "k", "phone")  # the card that came names it
    phone.text(BOARD).insert(0, "phone")
    phone.set(BOARD, "tags").add("x")
    made += phone.commit()
    for one in (laptop, owner, stranger):
        take(one, made)
    assert (owner.get(BOARD, "k"), str(owner.text(BOARD)), list(owner.list(BOARD))) == (
        "laptop",
        "phone",
        ["laptop"],
    )
    for soul in (
        owned_soul(KEYS[OWNER]),
        owned_soul(KEYS[OWNER], "boards"),
        owned_soul(KEYS[OWNER], ".bans"),
        owned_soul(KEYS[OWNER], ".agreed"),
    ):
        with pytest.raises(NotOwner):
            phone.put(soul, "k", 1)
    with pytest.raises(NotOwner):
        stranger.put(BOARD, "k", 1)
    assert laptop.save() == phone.save() == owner.save() == stranger.save()
    again = Replica.load(KEYS[2], stranger.save(), clock=stranger.clock, graph="test")
    assert again.save() == stranger.save()


def test_who_is_no_device_uses_it_in_vain() -> None:
    judge, maker = replica(2, Wall(2_000.0)), forger(2)
    take(judge, [frame(forger(OWNER), [OFFERED])])
    take(judge, [frame(maker, [use(2), show(2, FIRST), (BOARD, "k", "forged")])])
    assert judge.get(BOARD, "k") is None
    device = forger(0)
    take(judge, [frame(device, [use(0), (BOARD, "k", "before the card")])])
    assert judge.get(BOARD, "k") is None
    take(judge, [frame(device, [show(0, FIRST), (BOARD, "k", "behind it")], 1_001.0)])
    assert judge.get(BOARD, "k") == "behind it"


def test_a_lost_device_writes_no_more_and_what_was_seen_of_it_stays() -> None:
    laptop, phone, judge = (replica(n, Wall(1_000.0)) for n in (0, 1, 2))
    offered = [frame(forger(OWNER), [OFFERED])]
    for one in (laptop, phone, judge):
        take(one, offered)
        one.permits.cards[FIRST.card.name] = FIRST.card
    laptop.put(f"{ACCESS}/{NAMES[0]}", f"{CARD}{FIRST.card.name}", FIRST.card.encode())
    shown = laptop.commit()
    take(phone, shown)
    phone.put(BOARD, "k", "seen")
    seen = phone.commit()
    phone.put(BOARD, "k", "not seen")
    unseen = phone.commit()
    every = offered + shown + seen + unseen
    take(judge, every)
    assert judge.get(BOARD, "k") == "not seen"
    take(laptop, seen)
    laptop.put(*cuts(0, FIRST.remove(IDENTITIES[1].id, now_ms=2), {1: seen[-1].last}))
    laptop.put(BOARD, "mine", 1)
    every += laptop.commit()
    take(judge, every)
    assert judge.must_rebuild
    rebuilt(judge, every)
    assert (judge.get(BOARD, "k"), judge.get(BOARD, "mine")) == ("seen", 1)
    late = replica(2, Wall(1_000.0))
    take(late, offered + shown + every[4:] + seen + unseen)  # of the cuts it hears first
    assert rebuilt(late, every).save() == judge.save()
    take(phone, every)
    with pytest.raises(NotOwner):
        rebuilt(phone, every).put(BOARD, "k", "again")


def test_an_owner_takes_it_back_from_each_device_where_it_was_seen() -> None:
    owner, laptop, phone = forger(OWNER), forger(0), forger(1)
    offered = frame(owner, [OFFERED])
    made = {
        0: [frame(laptop, [show(0, FIRST), use(0), (BOARD, "laptop", n)], 1_001.0 + n) for n in range(3)],
        1: [frame(phone, [show(1, FIRST), use(1), (BOARD, "phone", n)], 1_001.0 + n) for n in range(3)],
    }
    back = frame(owner, [revoke(Revocation(0, {KEYS[0]: made[0][1].last}))], 1_010.0)
    every = [offered, *made[0], *made[1], back]
    states = set()
    for seed in range(6):
        judge = replica(2, Wall(2_000.0))
        order = orders(every, seed)
        take(judge, order)
        rebuilt(judge, order)
        assert judge.node(BOARD).to_dict() == {"laptop": 1}  # of the phone the owner had seen nothing
        states.add(judge.save())
    assert len(states) == 1


CLOCKS = st.one_of(st.just(0), st.just(FOREVER), st.integers(0, 1 << 50))
REVOCATIONS = st.builds(Revocation, CLOCKS, st.dictionaries(st.sampled_from(KEYS), CLOCKS, max_size=4))


@given(REVOCATIONS, REVOCATIONS, REVOCATIONS)
def test_revocations_join_in_any_order(one: Revocation, two: Revocation, three: Revocation) -> None:
    assert one.merged_with(two) == two.merged_with(one)
    assert one.merged_with(two).merged_with(three) == one.merged_with(two.merged_with(three))
    assert one.merged_with(one) == one
    for author in KEYS:
        assert one.merged_with(two).last_clock(author) == min(one.last_clock(author), two.last_clock(author))
    assert read_revocation(one.to_value()) == one


@pytest.mark.parametrize(
    "value",
    [
        None,
        -1,
        1 << 63,
        True,
        "0",
        [],
        [0],
        [0, []],
        [0, [[KEYS[0][:31], 1]]],
        [0, [[KEYS[0], -1]]],
        [0, [[KEYS[0], 1], [KEYS[0], 1]]],
        [0, [[max(KEYS), 1], [min(KEYS), 1]]],
        [0, [[bytes(31) + bytes([n % 256, n // 256])[1:], 1] for n in range(1025)]],
    ],
)
def test_what_is_no_revocation(value: Any) -> None:
    with pytest.raises(GrantError):
        read_revocation(value)


@given(st.data())
def test_a_changed_grant_is_none(data: st.DataObject) -> None:
    whole = GRANT.encode()
    assert read_grant("test", whole) == GRANT
    assert GRANT.grantee_name == FIRST.card.name
    as_identity = Grant("test", GRANT.owner, GRANT.grantee, "board", 0, GRANT.nonce, False, GRANT.signature)
    with pytest.raises(GrantError):
        read_grant("test", as_identity.encode())  # whom it is for is signed
    changed = bytearray(whole)
    place = data.draw(st.integers(0, len(changed) - 1))
    changed[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(GrantError):
        read_grant("test", bytes(changed))


# ---- random histories beside a model ------------------------------------------------------------------------------

TURNED = Account.rotate(
    FIRST.card, RECOVERY, NEXT, NEXT_RECOVERY.id, [Device(KEYS[0]), Device(KEYS[2])], now_ms=9
)
ACCOUNTS = [FIRST, FIRST.add(IDENTITIES[2].id, now_ms=2), TURNED, TURNED.remove(IDENTITIES[2].id, now_ms=10)]
BY_CARD = {account.card.encode(): account.card for account in ACCOUNTS}

Rows = list[tuple[Any, ...]]


def scene(rng: random.Random) -> list[tuple[int, Rows]]:
    """What the owner, devices and strangers sign, in the order of their clocks: (who, rows)."""

    def clock() -> int:
        return rng.choice([0, FOREVER, (1_000_000 + rng.randint(0, 12) * 1_000) << 16])

    made: list[tuple[int, Rows]] = []
    for step in range(rng.randint(3, 14)):
        who = rng.randrange(4)
        rows: Rows = []
        for part in range(rng.randint(1, 3)):
            account, choice = rng.choice(ACCOUNTS), rng.random()
            if who == OWNER:
                told = Revocation(clock(), {KEYS[n]: clock() for n in range(3) if rng.random() < 0.5})
                rows.append(revoke(told) if choice < 0.4 else OFFERED)
            elif choice < 0.3:
                rows.append(show(who, account))
            elif choice < 0.45:
                rows.append(use(who))
            elif choice < 0.55:
                rows.append(cuts(who, account, {rng.randrange(3): clock()}))
            else:
                rows.append((BOARD, f"{who}.{step}.{part}", step))
        made.append((who, rows))
    return made


def expected(told: list[tuple[int, Rows]], frames: list[Frame]) -> set[str]:
    """The keys whose ops count, worked out from all that was ever signed: a model."""
    every = [(who, key, value) for who, rows in told for _, key, value in rows]
    words = [read_cuts("test", value) for who, key, value in every if key.startswith(CUTS)]
    signers = [who for who, key, _ in every if key.startswith(CUTS)]
    words = [word for word, who in zip(words, signers, strict=True) if word.card.names(KEYS[who])]
    newest = max((word.card.generation for word in words), default=0)
    words = [word for word in words if word.card.generation == newest]
    named = {device.key for word in words for device in word.card.devices}
    backs = [value for who, key, value in every if who == OWNER and key.startswith(REVOKE)]
    found: set[str] = set()
    shown: dict[int, set[int]] = {n: set() for n in range(4)}
    using: set[int] = set()
    for (who, rows), made in zip(told, frames, strict=True):
        for clock, (soul, key, value) in enumerate(rows, made.last - len(rows) + 1):
            if key.startswith(CARD) and BY_CARD[value].names(KEYS[who]):
                shown[who].add(BY_CARD[value].generation)
            elif key.startswith(USE):
                using.add(who)
            elif soul == BOARD and who in using:
                found |= {key for one in shown[who] if counts(who, one, clock, newest, named, words, backs)}
    return found


def counts(
    who: int, generation: int, clock: int, newest: int, named: set[bytes], words: Any, backs: Any
) -> bool:
    """Whether an op of a device counts by a card of this generation."""
    for back in backs:
        rest, clocks = back if isinstance(back, list) else (back, [])
        if clock > {bytes(author): at for author, at in clocks}.get(KEYS[who], rest):
            return False
    if generation > newest:
        return True
    told = [word.clocks[KEYS[who]] for word in words if KEYS[who] in word.clocks]
    if told:
        return clock <= min(told)
    return generation == newest or KEYS[who] in named


@given(st.integers(0, 1 << 32))
def test_all_replicas_come_to_what_a_model_says_in_whatever_order(seed: int) -> None:
    rng = random.Random(seed)
    told = scene(rng)
    makers = [forger(n) for n in range(4)]
    frames = [frame(makers[who], rows, 1_000.0 + step) for step, (who, rows) in enumerate(told)]
    states = set()
    for number in range(3):
        one = replica(2, Wall(3_000.0))
        order = orders(frames, seed + number)
        for count, each in enumerate(order):
            one.merge(each.author, each.body)
            if count % (number + 1) == 0:
                rebuilt(one, order[: count + 1])
        rebuilt(one, order)
        assert set(one.node(BOARD).keys()) == expected(told, frames)
        states.add(one.save())
        assert Replica.load(KEYS[2], one.save(), clock=one.clock, graph="test").save() == one.save()
    assert len(states) == 1
