"""Simulation: nothing is kept, gas is chosen, what a client leaves out is filled in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from node_world import BUDGET, CLOCK, STD, SUI, World, fixture_modules
from playground import Play

from dtp.localnet.model import (
    LiteralInput,
    ObjectInput,
    PureInput,
    TransactionRejected,
    UnresolvedTransaction,
)
from dtp.localnet.node import LocalNode
from dtp.sui.bcs import STRING, U64
from dtp.sui.objects import SUI_TYPE
from dtp.sui.transaction import (
    Command,
    GasCoin,
    Input,
    MoveCall,
    Mutability,
    OwnedInput,
    Publish,
    Pure,
    ReceivingInput,
    SharedInput,
    SplitCoins,
    TransferObjects,
)


def unresolved(play: Play, inputs: tuple[Any, ...], *commands: Command, **gas: Any) -> UnresolvedTransaction:
    return UnresolvedTransaction(play.alice.address, inputs, commands, **gas)


def call(play: Play, name: str, count: int) -> MoveCall:
    return MoveCall(play.package, "things", name, (), tuple(Input(at) for at in range(count)))


def test_nothing_is_kept_and_the_same_happens_then(play: Play) -> None:
    node = play.world.node
    tx = play.tx()
    play.call(tx, "keep", tx.u64(1))
    play.call(tx, "shout", tx.u64(2))
    data = play.world.data(tx, play.alice)
    before = node.service_info(), node.get_balance(play.alice.address, SUI_TYPE)
    found = node.simulate(data)
    assert (node.service_info(), node.get_balance(play.alice.address, SUI_TYPE)) == before
    assert found.executed.transaction.checkpoint is None
    raw = data.encode()
    done = node.execute(raw, [play.alice.sign(raw)])
    assert done.effects == found.effects
    assert done.transaction.effects_bcs == found.executed.transaction.effects_bcs
    assert [e.json for e in done.events] == [e.json for e in found.executed.events]
    assert [r.ref for r in done.outputs] == [r.ref for r in found.executed.outputs]


def test_a_simulated_publish_does_not_last(play: Play) -> None:
    node = play.world.node
    tx = play.tx()
    tx.send(play.alice.address, tx.command(Publish(fixture_modules("playground_later"), (STD, SUI))))
    data = play.world.data(tx, play.alice)
    for _ in range(2):
        found = node.simulate(data)
        assert found.effects.ok
    (package,) = [r.id for r in found.executed.outputs if r.package is not None]
    assert node.find_package(package) is None
    raw = data.encode()
    done = node.execute(raw, [play.alice.sign(raw)])
    assert done.effects == found.effects
    tx = play.tx()
    tx.call(package, "things::number")
    assert node.simulate(play.world.data(tx, play.alice)).commands[0].returned[0].json == "6"


def test_gas_is_estimated_and_coins_are_chosen(play: Play) -> None:
    node = play.world.node
    transaction = unresolved(play, (PureInput(U64.encode(9)),), call(play, "keep", 1))
    found = node.simulate(transaction, select_gas=True)
    gas = found.data.gas_data
    assert found.effects.ok
    assert len(gas.payment) == 1
    assert found.effects.gas_used.net <= gas.budget < BUDGET
    assert (gas.owner, gas.price) == (play.alice.address, 1000)
    raw = found.data.encode()
    assert node.execute(raw, [play.alice.sign(raw)]).effects.ok


def test_many_small_coins_pay_together(world: World) -> None:
    poor = world.wallet("poor", *[700_000] * 12)
    transaction = UnresolvedTransaction(
        poor.address,
        (LiteralInput(5), LiteralInput("0x" + poor.address.hex())),
        (SplitCoins(GasCoin(), (Input(0),)), TransferObjects((Input(0),), Input(1))),
    )
    with pytest.raises(TransactionRejected):
        world.node.simulate(transaction, select_gas=True)  # input 0 is used as two types
    transaction = replace(
        transaction, commands=(SplitCoins(GasCoin(), (Input(0),)),), inputs=(LiteralInput(5),)
    )
    found = world.node.simulate(transaction, select_gas=True)
    assert not found.effects.ok  # the coin that was split off goes nowhere
    assert len(found.data.gas_data.payment) > 1


def test_coins_that_are_inputs_do_not_pay(play: Play) -> None:
    first, second = play.world.coins(play.alice)
    transaction = unresolved(
        play,
        (ObjectInput(first.id), LiteralInput("0x5")),
        TransferObjects((Input(0),), Input(1)),
    )
    found = play.world.node.simulate(transaction, select_gas=True)
    assert [ref.id for ref in found.data.gas_data.payment] == [second.id]
    poor = play.world.wallet("poor", 1000)
    transaction = replace(transaction, sender=poor.address, inputs=(), commands=(call(play, "nothing", 0),))
    with pytest.raises(TransactionRejected) as refused:
        play.world.node.simulate(transaction, select_gas=True)
    assert refused.value.kind == "GasBalanceTooLow"


def test_without_a_coin_a_mock_pays(play: Play) -> None:
    nobody = bytes([3]) * 32
    transaction = replace(unresolved(play, (LiteralInput(9),), call(play, "entry_number", 1)), sender=nobody)
    found = play.world.node.simulate(transaction)
    assert found.effects.ok
    assert found.commands[0].returned[0].json == "9"


def test_without_checks_everything_can_be_called_and_anyones_objects_read(play: Play) -> None:
    thing = play.thing(5)
    transaction = replace(
        unresolved(play, (ObjectInput(thing),), call(play, "lend", 1), call(play, "value", 1)),
        sender=bytes([3]) * 32,
    )
    with pytest.raises(TransactionRejected):
        play.world.node.simulate(transaction)
    found = play.world.node.simulate(transaction, checks=False)
    assert [o.returned[0].json for o in found.commands] == ["5", "5"]
    hidden = unresolved(play, (), call(play, "hidden", 0))
    assert play.world.node.simulate(hidden, checks=False).effects.ok
    error = play.world.node.simulate(hidden).effects.error
    assert error is not None
    assert error.kind == "NonEntryFunctionInvoked"


def test_objects_are_resolved_by_how_they_are_used(play: Play) -> None:
    node = play.world.node
    counter, thing, gift = play.shared(), play.thing(1), play.thing(2)
    tx = play.tx()
    tx.send(thing, tx.object(gift))
    play.ok(tx)

    def inputs(*objects: ObjectInput, name: str) -> tuple[object, ...]:
        data = node.resolve(unresolved(play, objects, call(play, name, len(objects))))
        return data.kind.inputs

    (arg,) = inputs(ObjectInput(counter), name="count")
    assert isinstance(arg, SharedInput)
    assert arg.mutability is Mutability.IMMUTABLE
    for name in ("bump", "stop"):
        (arg,) = inputs(ObjectInput(counter), name=name)
        assert isinstance(arg, SharedInput)
        assert arg.mutability is Mutability.MUTABLE
    (arg,) = inputs(ObjectInput(counter, mutable=False), name="bump")
    assert isinstance(arg, SharedInput)
    assert arg.mutability is Mutability.IMMUTABLE
    parent, ticket = inputs(ObjectInput(thing), ObjectInput(gift), name="receive")
    assert parent == OwnedInput(play.record(thing).ref)
    assert ticket == ReceivingInput(play.record(gift).ref)
    (clock,) = inputs(ObjectInput(CLOCK), name="count")
    assert isinstance(clock, SharedInput)


@pytest.mark.parametrize(
    ("function", "value", "bcs"),
    [
        ("entry_number", 7, bytes([7]) + bytes(7)),
        ("entry_number", 7.0, bytes([7]) + bytes(7)),
        ("entry_number", "7", bytes([7]) + bytes(7)),
        ("entry_number", "0x10", bytes([16]) + bytes(7)),
        ("sum", [1, "2"], b"\2\1" + bytes(7) + b"\2" + bytes(7)),
        ("maybe", None, b"\0"),
        ("maybe", 1, b"\1\1" + bytes(7)),
    ],
)
def test_literals(play: Play, function: str, value: Any, bcs: bytes) -> None:
    data = play.world.node.resolve(unresolved(play, (LiteralInput(value),), call(play, function, 1)))
    assert data.kind.inputs == (Pure(bcs),)


@pytest.mark.parametrize(
    ("function", "value"),
    [
        ("entry_number", -1),
        ("entry_number", 1 << 64),
        ("entry_number", 1.5),
        ("entry_number", float("inf")),
        ("entry_number", float("nan")),
        ("entry_number", True),
        ("entry_number", None),
        ("entry_number", "seven"),
        ("sum", 5),
        ("sum", [[1]]),
        ("maybe", "x"),
        ("burn", 5),
    ],
)
def test_literals_that_do_not_fit(play: Play, function: str, value: Any) -> None:
    with pytest.raises(TransactionRejected):
        play.world.node.resolve(unresolved(play, (LiteralInput(value),), call(play, function, 1)))


def test_text_literals(play: Play) -> None:
    inputs = (LiteralInput("grüße"), LiteralInput("abc"))
    data = play.world.node.resolve(unresolved(play, inputs, call(play, "letters", 2)))
    assert data.kind.inputs == (Pure(STRING.encode("grüße")), Pure(STRING.encode("abc")))
    with pytest.raises(TransactionRejected):
        play.world.node.resolve(unresolved(play, inputs[::-1], call(play, "letters", 2)))


def test_what_can_not_be_resolved(play: Play) -> None:
    node, thing = play.world.node, play.thing()
    record = play.record(thing)
    cases = (
        (unresolved(play, (ObjectInput(bytes(32)),), call(play, "burn", 1)), "ObjectNotFound"),
        (unresolved(play, (ObjectInput(play.package),), call(play, "burn", 1)), "MovePackageAsObject"),
        (
            unresolved(play, (ObjectInput(thing, version=record.version + 1),), call(play, "burn", 1)),
            "ObjectVersionUnavailableForConsumption",
        ),
        (
            unresolved(play, (ObjectInput(thing, digest=bytes(32)),), call(play, "burn", 1)),
            "InvalidObjectDigest",
        ),
        (unresolved(play, (), call(play, "missing", 0)), "FunctionNotFound"),
        (unresolved(play, (), call(play, "burn", 1)), "InvalidInput"),
        (unresolved(play, (LiteralInput(1),), call(play, "nothing", 0)), "InvalidInput"),
    )
    for transaction, kind in cases:
        with pytest.raises(TransactionRejected) as refused:
            node.simulate(transaction)
        assert refused.value.kind == kind


def test_time_has_passed_since_the_last_transaction() -> None:
    """A clock that moves with transactions only would show a simulation the time before a pause."""
    clock = [1_700_000_000_000]
    with LocalNode.open(now=lambda: clock[0]) as node:
        world = World(node)
        alice = world.wallet("alice", 10**10)
        tx = world.tx()
        tx.call(SUI, "clock::timestamp_ms", tx.clock())

        def seen() -> int:
            (value,) = node.simulate(world.data(tx, alice)).commands[0].returned
            return int.from_bytes(value.bcs, "little")

        clock[0] += 3_600_000
        assert seen() == clock[0]
        before = node.service_info().checkpoint
        clock[0] += 100  # too little to matter
        assert seen() == clock[0] - 100
        assert node.service_info().checkpoint == before
