"""Devices write on the souls of their account, and are put out: alike on all replicas, whatever comes first."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import msgpack
import pytest
from crdt_replicas import Wall
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey
from test_rules import IDENTITIES, KEYS, NAMES, forger, frame, orders, rebuilt, replica, take

from dtp.core.errors import NotOwner
from dtp.crdt import Replica
from dtp.crdt.permission.access import ACCESS
from dtp.crdt.permission.accounts import CARD, CUTS, FOREVER, CutsError, make_cuts, read_cuts
from dtp.crdt.replica import Frame
from dtp.identity import Account, CardError, Device, Identity

#: The account's keys, and those of who has stolen the first one; devices are `IDENTITIES`.
KEY, RECOVERY, NEXT, NEXT_RECOVERY = (Identity(bytes((n,)) * 32, bytes((n,)) * 32) for n in range(50, 54))
FIRST = Account.create(KEY, RECOVERY.id, [Device(KEYS[0]), Device(KEYS[1])], now_ms=1)
MINE = f"~{FIRST.card.name}/notes"


def show(who: int, account: Account) -> tuple[str, str, bytes]:
    return f"{ACCESS}/{NAMES[who]}", f"{CARD}{account.card.name}", account.card.encode()


def cuts(who: int, account: Account, clocks: dict[int, int]) -> tuple[str, str, bytes]:
    told = make_cuts(account.identity, "test", account.card, {KEYS[each]: at for each, at in clocks.items()})
    return f"{ACCESS}/{NAMES[who]}", f"{CUTS}{account.card.name}", told.encode()


def test_devices_write_on_the_souls_of_their_account() -> None:
    laptop, phone, other = replica(0), replica(1), replica(2)
    with pytest.raises(NotOwner, match="account"):
        laptop.put(MINE, "k", 0)
    laptop.permits.cards[FIRST.card.name] = FIRST.card
    laptop.put(MINE, "k", "laptop")
    frames = laptop.commit()
    take(phone, frames)
    phone.put(MINE, "k", "phone")  # by the card that came with them
    phone.text(MINE).insert(0, "both")
    phone.set(f"~{FIRST.card.name}", "tags").add("x")
    phone.counter(MINE, "n").add(2)
    phone.list(MINE, "l").append(1)
    frames += phone.commit()
    take(other, frames[::-1])
    take(laptop, frames)
    take(phone, frames)
    assert (other.get(MINE, "k"), str(other.text(MINE))) == ("phone", "both")
    with pytest.raises(NotOwner):
        other.put(MINE, "k", "stranger")
    with pytest.raises(NotOwner):
        phone.put(f"~{FIRST.card.name}x/notes", "k", 1)
    assert laptop.save() == phone.save() == other.save()
    again = Replica.load(KEYS[2], other.save(), clock=other.clock, graph="test")
    assert again.save() == other.save()


def test_who_is_no_device_writes_in_vain() -> None:
    judge = replica(3, Wall(2_000.0))
    rows = [show(2, FIRST), (MINE, "k", "forged"), ("free", "k", 1)]
    take(judge, [frame(forger(2), rows)])
    assert (judge.get(MINE, "k"), judge.get("free", "k")) == (None, 1)
    fresh = forger(0)
    take(judge, [frame(fresh, [(MINE, "k", "before the card"), show(0, FIRST)])])
    assert judge.get(MINE, "k") is None
    take(judge, [frame(fresh, [(MINE, "k", "behind it")], 1_001.0)])
    assert judge.get(MINE, "k") == "behind it"


def test_a_card_ends() -> None:
    wall = Wall(1_000.0)
    phone, judge = replica(1, wall), replica(2, Wall(5_000.0))
    phone.permits.cards[FIRST.card.name] = FIRST.renew(1_100_000, now_ms=1_000_000).card
    phone.put(MINE, "k", 1)
    frames = phone.commit()
    wall.seconds = 1_101.0
    with pytest.raises(NotOwner):
        phone.put(MINE, "k", 2)
    phone.permits.cards[FIRST.card.name] = FIRST.renew(0, now_ms=1_101_000).card
    phone.put(MINE, "k", 3)
    take(judge, frames + phone.commit())
    assert judge.get(MINE, "k") == 3


def test_what_a_lost_device_wrote_up_to_where_it_was_seen_stays() -> None:
    laptop, phone, judge = (replica(n, Wall(1_000.0)) for n in range(3))
    for one in (laptop, phone):
        one.permits.cards[FIRST.card.name] = FIRST.card
    phone.put(MINE, "k", "seen")
    seen = phone.commit()
    phone.put(MINE, "k", "not seen")
    phone.text(MINE).insert(0, "not seen")
    unseen = phone.commit()
    take(judge, seen + unseen)
    assert judge.get(MINE, "k") == "not seen"
    take(laptop, seen)
    less = FIRST.remove(IDENTITIES[1].id, now_ms=2)
    laptop.put(*cuts(0, less, {1: seen[-1].last}))
    laptop.put(MINE, "mine", 1)
    every = seen + unseen + laptop.commit()
    take(judge, every)
    assert judge.must_rebuild
    rebuilt(judge, every)
    assert (judge.get(MINE, "k"), str(judge.text(MINE)), judge.get(MINE, "mine")) == ("seen", "", 1)
    late = replica(2, Wall(1_000.0))
    take(late, every[2:] + every[:2])
    assert rebuilt(late, every).save() == judge.save()
    take(phone, every)
    with pytest.raises(NotOwner):
        rebuilt(phone, every).put(MINE, "k", "again")


def test_a_stolen_key_s_words_end_with_the_rotation() -> None:
    """The thief adds a device of his own and puts out the owner's; the recovery key takes both back."""
    thief = FIRST.add(IDENTITIES[2].id, now_ms=2)
    rows = [show(2, thief), cuts(2, thief, {0: 0, 1: 0}), (MINE, "theirs", 1)]
    stolen = frame(forger(2), rows, 1_010.0)
    maker = forger(0)
    before = frame(maker, [show(0, FIRST), (MINE, "mine", 1)], 1_001.0)
    during = frame(maker, [(MINE, "mine", 2)], 1_020.0)
    every = [before, stolen, during]
    judge = replica(3, Wall(2_000.0))
    take(judge, every)
    rebuilt(judge, every)
    assert (judge.get(MINE, "mine"), judge.get(MINE, "theirs")) == (None, 1)
    turned = Account.rotate(
        FIRST.card, RECOVERY, NEXT, NEXT_RECOVERY.id, [Device(KEYS[0]), Device(KEYS[1])], now_ms=3
    )
    every.append(frame(maker, [show(0, turned), cuts(0, turned, {2: 0})], 1_030.0))
    take(judge, every)
    assert judge.must_rebuild
    rebuilt(judge, every)
    assert (judge.get(MINE, "mine"), judge.get(MINE, "theirs")) == (2, None)
    take(judge, [frame(maker, [(MINE, "mine", 3)], 1_050.0)])
    assert judge.get(MINE, "mine") == 3


TURNED = Account.rotate(
    FIRST.card, RECOVERY, NEXT, NEXT_RECOVERY.id, [Device(KEYS[0]), Device(KEYS[2])], now_ms=9
)
ACCOUNTS = [FIRST, FIRST.add(IDENTITIES[2].id, now_ms=2), TURNED, TURNED.remove(IDENTITIES[2].id, now_ms=10)]
BY_CARD = {account.card.encode(): account.card for account in ACCOUNTS}


def scene(rng: random.Random) -> list[tuple[int, list[tuple[Any, ...]]]]:
    """What devices and strangers sign, in the order of their clocks: (who, rows)."""
    made: list[tuple[int, list[tuple[Any, ...]]]] = []
    for step in range(rng.randint(3, 12)):
        who = rng.randrange(3)
        rows: list[tuple[Any, ...]] = []
        for part in range(rng.randint(1, 3)):
            account, choice = rng.choice(ACCOUNTS), rng.random()
            end = rng.choice([0, FOREVER, (1_000_000 + rng.randint(0, 12) * 1_000) << 16])
            if choice < 0.35:
                rows.append(show(who, account))
            elif choice < 0.5:
                rows.append(cuts(who, account, {rng.randrange(3): end}))
            else:
                rows.append((MINE, f"{who}.{step}.{part}", step))
        made.append((who, rows))
    return made


def expected(told: list[tuple[int, list[tuple[Any, ...]]]], frames: list[Frame]) -> set[str]:
    """The keys whose ops count, worked out from all that was ever signed: a model."""
    words = [
        read_cuts("test", value)
        for who, rows in told
        for _, key, value in rows
        if key.startswith(CUTS) and read_cuts("test", value).card.names(KEYS[who])
    ]
    newest = max((word.card.generation for word in words), default=0)
    words = [word for word in words if word.card.generation == newest]
    named = {device.key for word in words for device in word.card.devices}
    found: set[str] = set()
    shown: dict[int, set[int]] = {0: set(), 1: set(), 2: set()}
    for (who, rows), made in zip(told, frames, strict=True):
        ends = [word.clocks[KEYS[who]] for word in words if KEYS[who] in word.clocks]
        for clock, (_, key, value) in enumerate(rows, made.last - len(rows) + 1):
            if key.startswith(CARD) and BY_CARD[value].names(KEYS[who]):
                shown[who].add(BY_CARD[value].generation)
            for generation in shown[who] if not key.startswith((CARD, CUTS)) else ():
                last = min(ends, default=FOREVER if generation == newest or KEYS[who] in named else 0)
                if generation > newest or clock <= last:
                    found.add(key)
    return found


@given(st.integers(0, 1 << 32))
def test_all_replicas_come_to_what_a_model_says_in_whatever_order(seed: int) -> None:
    rng = random.Random(seed)
    told = scene(rng)
    makers = [forger(n) for n in range(3)]
    frames = [frame(makers[who], rows, 1_000.0 + step) for step, (who, rows) in enumerate(told)]
    states = set()
    for number in range(3):
        one = replica(3, Wall(3_000.0))
        order = orders(frames, seed + number)
        for count, each in enumerate(order):
            one.merge(each.author, each.body)
            if count % (number + 1) == 0:
                rebuilt(one, order[: count + 1])
        rebuilt(one, order)
        assert set(one.node(MINE).keys()) == expected(told, frames)
        states.add(one.save())
        assert Replica.load(KEYS[3], one.save(), clock=one.clock, graph="test").save() == one.save()
    assert len(states) == 1


def test_the_vectors_are_what_a_second_implementation_makes() -> None:
    vectors = json.loads((Path(__file__).parents[2] / "docs/vectors/account.json").read_text())
    seeds = {name: SigningKey(bytes.fromhex(seed)) for name, seed in vectors["seeds"].items()}
    for told in vectors["cuts"]:
        clocks = sorted([bytes(seeds[name].verify_key), clock] for name, clock in told["clocks"].items())
        parts = [1, told["graph"], bytes.fromhex(told["card"]), clocks]
        signature = seeds[told["signer"]].sign(b"dtp.graph.cuts.v1" + msgpack.packb(parts)).signature
        assert msgpack.packb([*parts, signature]).hex() == told["cuts"]
        assert dict(read_cuts(told["graph"], bytes.fromhex(told["cuts"])).clocks) == dict(clocks)


@given(st.data())
def test_changed_cuts_are_none(data: st.DataObject) -> None:
    whole = make_cuts(KEY, "test", FIRST.card, {KEYS[1]: 5}).encode()
    assert read_cuts("test", whole).clocks == {KEYS[1]: 5}
    with pytest.raises(CutsError):
        read_cuts("another graph", whole)
    changed = bytearray(whole)
    place = data.draw(st.integers(0, len(changed) - 1))
    changed[place] ^= data.draw(st.integers(1, 255))
    for wrong in (bytes(changed), whole[:place], whole + b"\0"):
        with pytest.raises((CutsError, CardError)):
            read_cuts("test", wrong)
