"""Programmable transactions: what each command does, how arguments are used, and every refusal with its kind."""

from __future__ import annotations

import pytest
from node_world import COIN, STD, SUI, Tx, created
from playground import Play

from dtp.localnet.model import TransactionRejected
from dtp.sui.bcs import ADDRESS, STRING, U64, option, vector
from dtp.sui.effects import IdOperation
from dtp.sui.names import TypeTag, parse_type
from dtp.sui.objects import AddressOwner, Immutable, SharedOwner
from dtp.sui.transaction import (
    GasCoin,
    Input,
    MakeMoveVec,
    MergeCoins,
    NestedResult,
    Pure,
    Result,
    SplitCoins,
    TransferObjects,
)

U64_TAG = TypeTag("u64")


# -------------------------------------------------------------------------------------------------- coins


def test_split_merge_and_transfer_move_exactly_the_amounts(play: Play) -> None:
    bob = play.world.wallet("bob")
    tx = play.tx()
    a, b, c = tx.split(GasCoin(), 100, 200, 300)
    tx.merge(a, b, c)
    tx.send(bob.address, a)
    done = play.ok(tx)
    assert [int.from_bytes(r.contents[32:], "little") for r in play.world.coins(bob)] == [600]
    # Two of the three coins lived only inside the transaction: no trace of them.
    assert sum(c.id_operation is IdOperation.CREATED for _, c in done.effects.changed) == 1
    changes = {c.address: c.amount for c in done.transaction.balance_changes}
    assert changes == {bob.address: 600, play.alice.address: -600 - done.effects.gas_used.net}


def test_coins_can_be_merged_into_the_gas_coin_and_it_can_be_sent_away(play: Play) -> None:
    bob = play.world.wallet("bob")
    first, second = play.world.coins(play.alice)
    total = sum(int.from_bytes(r.contents[32:], "little") for r in (first, second))
    tx = play.tx()
    tx.merge(GasCoin(), tx.object(second.id))
    tx.send(bob.address, GasCoin())
    done = play.world.ok(tx, play.alice, payment=(first.ref,))
    (coin,) = play.world.coins(bob)
    assert coin.id == first.id
    assert int.from_bytes(coin.contents[32:], "little") == total - done.effects.gas_used.net
    assert play.world.coins(play.alice) == []


def test_the_budget_can_not_be_spent_by_commands(play: Play) -> None:
    coin = play.world.coins(play.alice)[0]
    balance = int.from_bytes(coin.contents[32:], "little")
    tx = play.tx()
    tx.send(play.alice.address, tx.pay(balance - 500_000_000 + 1))
    play.fails(tx, "InsufficientCoinBalance")
    tx = play.tx()
    tx.send(play.alice.address, tx.pay(balance // 2))
    play.ok(tx)


def test_the_gas_coin_is_taken_by_value_in_transfers_only(play: Play) -> None:
    other = play.world.coins(play.alice)[1]
    tx = play.tx()
    tx.merge(tx.object(other.id), GasCoin())
    play.argument_fails(tx, 1, "InvalidGasCoinUsage")
    tx = play.tx()
    tx.command(MakeMoveVec(None, (GasCoin(),)))
    play.argument_fails(tx, 0, "InvalidGasCoinUsage")
    tx = play.tx()
    play.call(tx, "generic", GasCoin(), types=(f"0x2::coin::Coin<{COIN}>",))
    play.argument_fails(tx, 0, "InvalidGasCoinUsage")


def test_things_are_no_coins(play: Play) -> None:
    thing = play.thing()
    tx = play.tx()
    tx.command(SplitCoins(tx.object(thing), (tx.u64(1),)))
    play.argument_fails(tx, 0, "TypeMismatch")
    tx = play.tx()
    tx.merge(GasCoin(), tx.object(thing))
    play.argument_fails(tx, 1, "TypeMismatch")
    tx = play.tx()
    tx.command(SplitCoins(tx.u64(1), (tx.u64(1),)))
    play.argument_fails(tx, 0, "TypeMismatch")


def test_coins_of_different_types_do_not_merge(play: Play) -> None:
    cap = play.treasury_cap()
    tx = play.tx()
    gold = tx.call(play.package, "gold::mint", tx.object(cap), tx.u64(5))
    tx.merge(gold, tx.pay(1))
    play.argument_fails(tx, 1, "TypeMismatch", command=2)


def test_splitting_more_than_there_is(play: Play) -> None:
    tx = play.tx()
    (part,) = tx.split(GasCoin(), 10)
    tx.split(part, 6, 5)
    play.fails(tx, "InsufficientCoinBalance", 1)
    tx = play.tx()
    tx.split(GasCoin(), (1 << 64) - 1, (1 << 64) - 1)
    play.fails(tx, "InsufficientCoinBalance")


def test_no_coin_type_exceeds_64_bits(play: Play) -> None:
    cap = play.treasury_cap()
    most = (1 << 64) - 2

    def mint(tx: Tx, amount: int) -> Result:
        return tx.call(play.package, "gold::mint", tx.object(cap), tx.u64(amount))

    tx = play.tx()
    tx.send(play.alice.address, mint(tx, most))
    play.ok(tx)
    tx = play.tx()
    tx.send(play.alice.address, mint(tx, 2))
    # The supply is a u64 itself: what would overflow a merge can't be made.
    play.fails(tx, "MoveAbort")
    assert play.world.node.get_balance(play.alice.address, play.tag("gold::GOLD")).amount == most


# ---------------------------------------------------------------------------------------------- arguments


def test_arguments_that_are_not_there(play: Play) -> None:
    tx = play.tx()
    play.call(tx, "set", Input(7), tx.u64(1))
    play.argument_fails(tx, 0, "IndexOutOfBounds", 7)
    tx = play.tx()
    play.call(tx, "burn", Result(0))
    play.argument_fails(tx, 0, "IndexOutOfBounds", 0)
    tx = play.tx()
    play.call(tx, "pair")
    play.call(tx, "entry_number", Result(0))
    play.argument_fails(tx, 0, "InvalidResultArity", 0, command=1)
    tx = play.tx()
    play.call(tx, "nothing")
    play.call(tx, "entry_number", Result(0))
    play.argument_fails(tx, 0, "InvalidResultArity", 0, command=1)
    tx = play.tx()
    play.call(tx, "pair")
    play.call(tx, "divide", NestedResult(0, 0), NestedResult(0, 2))
    play.argument_fails(tx, 1, "SecondaryIndexOutOfBounds", 0, 2, command=1)


def test_nested_results_and_pure_values_reach_functions(play: Play) -> None:
    tx = play.tx()
    pair = play.call(tx, "pair")
    play.call(tx, "divide", NestedResult(pair.command, 1), NestedResult(pair.command, 0))
    play.call(tx, "sum", tx.pure(vector(U64), (1, 2, 3)))
    play.call(tx, "maybe", tx.pure(option(U64), 4))
    play.call(tx, "letters", tx.pure(STRING, "grüße"), tx.pure(STRING, "abc"))
    found = play.world.node.simulate(play.world.data(tx, play.alice))
    numbers = [int.from_bytes(o.returned[0].bcs, "little") for o in found.commands[1:]]
    assert numbers == [2, 6, 4, 10]
    assert [o.json for o in found.commands[0].returned] == ["1", "2"]


@pytest.mark.parametrize(
    ("function", "raw"),
    [
        ("entry_number", b"\1"),
        ("entry_number", bytes(9)),
        ("sum", b"\2" + bytes(8)),
        ("maybe", b"\2" + bytes(16)),
        ("maybe", b"\1"),
    ],
)
def test_bytes_that_are_no_value_of_the_type(play: Play, function: str, raw: bytes) -> None:
    tx = play.tx()
    play.call(tx, function, tx.add(Pure(raw)))
    play.argument_fails(tx, 0, "InvalidBCSBytes")


def test_text_must_be_text(play: Play) -> None:
    tx = play.tx()
    play.call(tx, "letters", tx.bytes(b"\xff\xfe"), tx.pure(STRING, "a"))
    play.argument_fails(tx, 0, "InvalidBCSBytes")
    tx = play.tx()
    play.call(tx, "letters", tx.pure(STRING, "a"), tx.pure(STRING, "ü"))
    play.argument_fails(tx, 1, "InvalidBCSBytes")


def test_structs_are_not_made_from_bytes(play: Play) -> None:
    tx = play.tx()
    play.call(tx, "use_mark", tx.u64(1))
    play.argument_fails(tx, 0, "InvalidUsageOfPureArg")
    tx = play.tx()
    play.call(tx, "burn", tx.bytes(bytes(40)))
    play.argument_fails(tx, 0, "InvalidUsageOfPureArg")


def test_a_pure_input_changed_by_reference_keeps_the_change(play: Play) -> None:
    tx = play.tx()
    number = tx.u64(5)
    play.call(tx, "grow", number)
    play.call(tx, "grow", number)
    play.call(tx, "entry_number", number)
    data = play.world.data(tx, play.alice)
    found = play.world.node.simulate(data, checks=False)
    assert int.from_bytes(found.commands[2].returned[0].bcs, "little") == 7
    assert found.commands[0].mutated[0].argument == number


def test_a_pure_input_is_taken_beside_a_borrow_of_it(play: Play) -> None:
    for type, raw in (("u8", b"\2ab"), ("u64", b"\1" + bytes(8))):
        tx = play.tx()
        values = tx.add(Pure(raw))
        tx.call(STD, "vector::append", values, values, types=(type,))
        tx.call(STD, "vector::length", values, types=(type,))
        simulated = play.world.node.simulate(play.world.data(tx, play.alice))
        assert simulated.commands[1].returned[0].json == str(2 * raw[0])


def test_wrong_types_and_counts(play: Play) -> None:
    thing, counter = play.thing(), play.shared()
    tx = play.tx()
    play.call(tx, "set", tx.object(counter), tx.u64(1))
    play.argument_fails(tx, 0, "TypeMismatch")
    tx = play.tx()
    play.call(tx, "set", tx.object(thing))
    play.fails(tx, "ArityMismatch")
    tx = play.tx()
    play.call(tx, "generic", tx.object(thing))
    play.fails(tx, "TypeArityMismatch")
    tx = play.tx()
    play.call(tx, "weigh", tx.object(thing), types=(str(play.record(thing).type),))
    error = play.fails(tx, "TypeArgumentError").effects.error
    assert error is not None
    assert error.content == {"argument": 0, "problem": "ConstraintNotSatisfied"}
    tx = play.tx()
    play.call(tx, "generic", tx.object(thing), types=(f"0x{play.package.hex()}::things::Nothing",))
    error = play.fails(tx, "TypeArgumentError").effects.error
    assert error is not None
    assert error.content == {"argument": 0, "problem": "TypeNotFound"}


def test_values_are_used_once_unless_they_copy(play: Play) -> None:
    thing = play.thing()
    tx = play.tx()
    play.call(tx, "burn", tx.object(thing))
    play.call(tx, "burn", tx.object(thing))
    play.argument_fails(tx, 0, "ArgumentWithoutValue", command=1)
    tx = play.tx()
    made = play.call(tx, "new", tx.u64(1))
    play.call(tx, "burn", made)
    play.call(tx, "value", made)
    play.argument_fails(tx, 0, "ArgumentWithoutValue", command=2)
    tx = play.tx()
    mark = play.call(tx, "mark", tx.u64(1))
    play.call(tx, "use_mark", mark)
    play.call(tx, "use_mark", mark)
    play.ok(tx)


def test_borrows_of_one_command_do_not_conflict(play: Play) -> None:
    thing = play.thing()
    tx = play.tx()
    play.call(tx, "swap", tx.object(thing), tx.object(thing))
    play.argument_fails(tx, 1, "InvalidReferenceArgument")
    tx = play.tx()
    play.call(tx, "change_beside", tx.object(thing), tx.object(thing))
    play.argument_fails(tx, 1, "InvalidReferenceArgument")
    tx = play.tx()
    play.call(tx, "compare", tx.object(thing), tx.object(thing))
    play.ok(tx)


# ------------------------------------------------------------------------------------- results left behind


def test_unused_values(play: Play) -> None:
    tx = play.tx()
    play.call(tx, "potato")
    error = play.fails(tx, "UnusedValueWithoutDrop", None).effects.error
    assert error is not None
    assert error.content == {"result": 0, "secondary": 0}
    tx = play.tx()
    play.call(tx, "new", tx.u64(1))
    play.fails(tx, "UnusedValueWithoutDrop", None)
    tx = play.tx()
    play.call(tx, "mark", tx.u64(1))
    play.fails(tx, "UnusedValueWithoutDrop", None)
    tx = play.tx()
    mark = play.call(tx, "mark", tx.u64(1))
    play.call(tx, "use_mark", mark)
    play.call(tx, "see_mark", mark)  # the last use only looked
    play.fails(tx, "UnusedValueWithoutDrop", None)
    tx = play.tx()
    mark = play.call(tx, "mark", tx.u64(1))
    play.call(tx, "see_mark", mark)
    play.call(tx, "use_mark", mark)  # the last use took it
    play.ok(tx)
    tx = play.tx()
    play.call(tx, "cool", play.call(tx, "potato"))
    play.call(tx, "number")
    play.ok(tx)


def test_a_value_taken_while_it_is_borrowed_is_a_copy_and_stays_behind(play: Play) -> None:
    tx = play.tx()
    mark = play.call(tx, "mark", tx.u64(1))
    play.call(tx, "see_and_use_mark", mark, mark)
    play.fails(tx, "UnusedValueWithoutDrop", None)


def test_a_simulation_without_checks_may_leave_values_unused(play: Play) -> None:
    tx = play.tx()
    play.call(tx, "new", tx.u64(1))
    data = play.world.data(tx, play.alice)
    assert play.world.node.simulate(data, checks=False).effects.ok
    refused = play.world.node.simulate(data, checks=True).effects.error
    assert refused is not None
    assert refused.kind == "UnusedValueWithoutDrop"


@pytest.mark.parametrize(
    ("function", "numbers", "code"),
    [
        ("borrow", (2,), 1),
        ("borrow_mut", (2,), 1),
        ("swap", (0, 2), 1),
        ("pop_back", (), 2),
        ("destroy_empty", (), 3),
    ],
)
def test_natives_of_vectors_abort_when_a_transaction_calls_them(
    play: Play, function: str, numbers: tuple[int, ...], code: int
) -> None:
    tx = play.tx()
    items = () if function == "pop_back" else (tx.u64(1), tx.u64(2))
    vector_of = tx.command(MakeMoveVec(U64_TAG, items))
    tx.call(STD, f"vector::{function}", vector_of, *map(tx.u64, numbers), types=("u64",))
    data = play.world.data(tx, play.alice)
    error = play.world.node.simulate(data, checks=False).effects.error
    assert error is not None
    assert (error.kind, error.command, error.content.get("code")) == ("MoveAbort", 1, code)
    location = error.content["location"]
    assert (location.package, location.module, location.function_name) == (STD, "vector", function)


def test_vectors(play: Play) -> None:
    one, two = play.thing(), play.thing()
    tx = play.tx()
    things = tx.command(MakeMoveVec(None, (tx.object(one), tx.object(two))))
    play.call(tx, "burn_all", things)
    done = play.ok(tx)
    gone = {id for id, c in done.effects.changed if c.id_operation is IdOperation.DELETED}
    assert {one, two} <= gone
    tx = play.tx()
    numbers = tx.command(MakeMoveVec(U64_TAG, (tx.u64(1), tx.u64(2))))
    play.call(tx, "sum", numbers)
    play.ok(tx)
    tx = play.tx()
    tx.command(MakeMoveVec(None, (tx.u64(1),)))
    play.argument_fails(tx, 0, "InvalidMakeMoveVecNonObjectArgument")
    tx = play.tx()
    tx.command(MakeMoveVec(None, (play.call(tx, "number"),)))
    play.argument_fails(tx, 0, "InvalidMakeMoveVecNonObjectArgument", command=1)
    three, counter = play.thing(), play.shared()
    tx = play.tx()
    tx.command(MakeMoveVec(None, (tx.object(three), tx.object(counter))))
    play.argument_fails(tx, 1, "TypeMismatch")


def test_an_empty_vector_of_a_given_type(play: Play) -> None:
    tx = play.tx()
    play.call(tx, "sum", tx.command(MakeMoveVec(U64_TAG, ())))
    play.ok(tx)


# ------------------------------------------------------------------------------------------- visibility


def test_who_may_call_what(play: Play) -> None:
    thing = play.thing(1)
    for name in ("friendly", "hidden"):
        tx = play.tx()
        play.call(tx, name)
        play.fails(tx, "NonEntryFunctionInvoked")
    tx = play.tx()
    play.call(tx, "only_entry", tx.object(thing))
    play.call(tx, "open_entry", tx.object(thing))
    play.call(tx, "only_entry", tx.object(thing))
    play.ok(tx)
    assert play.value(thing) == 211
    tx = play.tx()
    play.call(tx, "missing")
    play.fails(tx, "FunctionNotFound")
    tx = play.tx()
    tx.call(play.package, "nowhere::missing")
    play.fails(tx, "FunctionNotFound")
    tx = play.tx()
    tx.call(play.package, "gold::init")
    assert not play.world.run(tx, play.alice).effects.ok


def test_private_entry_functions_take_nothing_that_others_touched(play: Play) -> None:
    thing = play.thing()
    tx = play.tx()
    play.call(tx, "set", tx.object(thing), tx.u64(5))
    play.call(tx, "only_entry", tx.object(thing))
    play.argument_fails(tx, 0, "InvalidArgumentToPrivateEntryFunction", command=1)
    tx = play.tx()
    play.call(tx, "entry_number", play.call(tx, "number"))
    play.argument_fails(tx, 0, "InvalidArgumentToPrivateEntryFunction", command=1)
    tx = play.tx()
    play.call(tx, "entry_number", play.call(tx, "entry_number", tx.u64(4)))
    play.ok(tx)


def test_references_are_not_returned_to_transactions(play: Play) -> None:
    tx = play.tx()
    play.call(tx, "lend", tx.object(play.thing()))
    error = play.fails(tx, "InvalidPublicFunctionReturnType").effects.error
    assert error is not None
    assert error.content == {"index": 0}


# -------------------------------------------------------------------------------------- ownership in use


def test_transfer_needs_key_and_store(play: Play) -> None:
    tx = play.tx()
    tx.send(play.alice.address, play.call(tx, "bind"))
    play.argument_fails(tx, 0, "InvalidTransferObject", command=1)
    tx = play.tx()
    tx.send(play.alice.address, play.call(tx, "number"))
    play.argument_fails(tx, 0, "InvalidTransferObject", command=1)
    tx = play.tx()
    tx.command(TransferObjects((play.call(tx, "new", tx.u64(1)),), tx.u64(1)))
    play.argument_fails(tx, 1, "InvalidBCSBytes", command=1)


def test_frozen_objects_can_be_read_only(play: Play) -> None:
    thing = play.thing()
    tx = play.tx()
    play.call(tx, "freeze_it", tx.object(thing))
    play.ok(tx)
    assert play.record(thing).owner == Immutable()
    tx = play.tx()
    play.call(tx, "value", tx.object(thing))
    done = play.ok(tx)
    assert thing not in dict(done.effects.changed)
    tx = play.tx()
    play.call(tx, "set", tx.object(thing), tx.u64(1))
    play.argument_fails(tx, 0, "InvalidObjectByMutRef")
    tx = play.tx()
    play.call(tx, "burn", tx.object(thing))
    play.argument_fails(tx, 0, "InvalidObjectByValue")


def test_shared_objects(play: Play) -> None:
    counter = play.shared()
    owner = play.record(counter).owner
    bob = play.world.wallet("bob", 10_000_000_000)
    tx = play.tx()
    play.call(tx, "bump", tx.object(counter))
    play.world.ok(tx, bob)
    assert (play.value(counter), play.record(counter).owner) == (1, owner)
    tx = play.tx()
    play.call(tx, "count", tx.read(counter))
    done = play.ok(tx)
    assert counter in dict(done.effects.unchanged)
    tx = play.tx()
    play.call(tx, "bump", tx.read(counter))
    play.argument_fails(tx, 0, "InvalidObjectByMutRef")
    tx = play.tx()
    play.call(tx, "stop", tx.read(counter))
    play.argument_fails(tx, 0, "InvalidObjectByValue")


def test_shared_objects_by_value_end_or_stay_shared(play: Play) -> None:
    counter = play.shared()
    owner = play.record(counter).owner
    tx = play.tx()
    play.call(tx, "share_again", tx.object(counter))
    play.ok(tx)
    assert play.record(counter).owner == owner
    tx = play.tx()
    play.call(tx, "steal", tx.object(counter))
    play.fails(tx, "SharedObjectOperationNotAllowed", None)
    tx = play.tx()
    tx.send(play.alice.address, tx.object(counter))
    play.fails(tx, "SharedObjectOperationNotAllowed", None)
    assert play.record(counter).owner == owner
    tx = play.tx()
    play.call(tx, "stop", tx.object(counter))
    tx_late = play.tx()
    play.call(tx_late, "bump", tx_late.object(counter))
    play.ok(tx)
    # Whoever named it before is told by the effects, and pays.
    late = play.fails(tx_late, "InputObjectDeleted", None)
    assert counter in dict(late.effects.unchanged)


def test_an_object_that_had_an_owner_is_not_shared(play: Play) -> None:
    thing = play.thing()
    tx = play.tx()
    play.call(tx, "share_it", tx.object(thing))
    error = play.fails(tx, "MoveAbort").effects.error
    assert error is not None
    assert error.content["code"] == 0
    tx = play.tx()
    play.call(tx, "share_it", play.call(tx, "new", tx.u64(3)))
    done = play.ok(tx)
    shared = play.record(created(done, "::things::Thing"))
    assert shared.owner == SharedOwner(done.effects.lamport_version)


def test_bound_objects_move_by_their_module_only(play: Play) -> None:
    tx = play.tx()
    play.call(tx, "bind_to_sender")
    bound = created(play.ok(tx), "::things::Bound")
    assert play.record(bound).owner == AddressOwner(play.alice.address)
    tx = play.tx()
    tx.send(play.alice.address, tx.object(bound))
    play.argument_fails(tx, 0, "InvalidTransferObject")
    tx = play.tx()
    play.call(tx, "unbind", tx.object(bound))
    play.ok(tx)
    assert play.world.node.find_object(bound) is None


# --------------------------------------------------------------------------------------- Move's failures


def test_aborts_name_their_place(play: Play) -> None:
    tx = play.tx()
    play.call(tx, "nothing")
    play.call(tx, "fail")
    error = play.fails(tx, "MoveAbort", 1).effects.error
    assert error is not None
    location = error.content["location"]
    assert (error.content["code"], location.module, location.function_name) == (7, "things", "fail")
    assert location.package == play.package


def test_arithmetic_fails_with_its_place(play: Play) -> None:
    tx = play.tx()
    play.call(tx, "divide", tx.u64(1), tx.u64(0))
    error = play.fails(tx, "MovePrimitiveRuntimeError").effects.error
    assert error is not None
    assert error.content["location"].function_name == "divide"


def test_a_transaction_that_fails_changes_nothing_but_gas(play: Play) -> None:
    thing, counter = play.thing(1), play.shared()
    before = {id: play.record(id).contents for id in (thing, counter)}
    owned = {r.id for r in play.world.node.objects_owned_by(play.alice.address).items}
    tx = play.tx()
    play.call(tx, "set", tx.object(thing), tx.u64(9))
    play.call(tx, "bump", tx.object(counter))
    play.call(tx, "keep", tx.u64(4))
    play.call(tx, "shout", tx.u64(3))
    tx.send(play.world.wallet("bob").address, tx.pay(5))
    play.call(tx, "fail")
    done = play.fails(tx, "MoveAbort", 6)
    assert {id: play.record(id).contents for id in before} == before
    assert {r.id for r in play.world.node.objects_owned_by(play.alice.address).items} == owned
    assert done.events == ()
    assert done.effects.events_digest is None
    changes = {c.address: c.amount for c in done.transaction.balance_changes}
    assert changes == {play.alice.address: -done.effects.gas_used.net}
    # Inputs that could have been changed move to the new version all the same.
    assert {thing, counter} <= dict(done.effects.changed).keys()


def test_context(play: Play) -> None:
    sponsor = play.world.wallet("sponsor", 10_000_000_000)
    tx = play.tx()
    play.call(tx, "sponsor")
    play.call(tx, "prices")
    play.call(tx, "epoch")
    data = play.world.data(tx, play.alice, sponsor=sponsor, price=1500)
    values = [o.returned for o in play.world.node.simulate(data).commands]
    assert values[0][0].json == f"0x{sponsor.address.hex()}"
    assert [v.json for v in values[1]] == ["1500", "1000"]
    assert values[2][0].json == "0"


def test_merge_targets_and_addresses_of_inputs(play: Play) -> None:
    tx = play.tx()
    tx.command(MergeCoins(GasCoin(), (GasCoin(),)))
    play.argument_fails(tx, 1, "InvalidGasCoinUsage")
    coin = play.world.coins(play.alice)[1]
    tx = play.tx()
    tx.command(MergeCoins(tx.object(coin.id), (tx.object(coin.id),)))
    play.argument_fails(tx, 1, "InvalidReferenceArgument")
    tx = play.tx()
    tx.command(TransferObjects((tx.object(coin.id),), tx.pure(ADDRESS, bytes(32))))
    play.ok(tx)
    assert play.record(coin.id).owner == AddressOwner(bytes(32))


def test_commands_make_2048_ids_at_most(play: Play) -> None:
    """The coins of the fifth command are too many: the transaction fails there, and so does the node not."""
    tx = play.tx()
    for _ in range(5):
        tx.send(play.alice.address, *tx.split(GasCoin(), *[1] * 511))
    error = play.world.fails(
        tx, play.alice, "MovePrimitiveRuntimeError", 8, budget=9_000_000_000
    ).effects.error
    assert error is not None
    assert error.content == {"location": None}


def test_vectors_of_vectors_may_be_of_any_size(play: Play) -> None:
    """A limit of 1 MiB on values between commands ended with version 104."""
    tx = play.tx()
    level, type = tx.u64(0), "u64"
    for _ in range(6):
        level = tx.command(MakeMoveVec(parse_type(type), (level,) * 8))
        type = f"vector<{type}>"
    play.ok(tx)


def test_all_of_64_bits_may_be_minted_and_no_more(play: Play) -> None:
    tx, gold = play.tx(), str(play.tag("gold::GOLD"))
    cap = tx.object(play.treasury_cap())
    tx.send(play.alice.address, tx.call(SUI, "coin::mint", cap, tx.u64(2**64 - 1), types=(gold,)))
    play.ok(tx)
    tx = play.tx()
    made = tx.call(SUI, "coin::mint", tx.object(play.treasury_cap()), tx.u64(1), types=(gold,))
    tx.send(play.alice.address, made)
    play.fails(tx, "MoveAbort")


NESTED = "vector<" * 15 + "u8" + ">" * 15


def test_types_of_objects_nest_deeper_than_type_arguments_may(play: Play) -> None:
    """The node crashed: a table of such keys has a type that it couldn't name."""
    tx = play.tx()
    table = tx.call(SUI, "table::new", types=(NESTED, NESTED))
    tx.send(play.alice.address, table)
    made = created(play.ok(tx), "::table::Table")
    assert str(play.record(made).type).endswith(f"::table::Table<{NESTED},{NESTED}>")
    tx = play.tx()
    tx.call(SUI, "table::destroy_empty", tx.object(made), types=(NESTED, NESTED))
    play.ok(tx)


def test_type_arguments_nest_16_deep(play: Play) -> None:
    for deeper in (f"vector<{NESTED}>", f"0x2::table::Table<{NESTED},u8>"):
        tx = play.tx()
        tx.call(SUI, "table::new", types=(deeper, "u8"))
        with pytest.raises(TransactionRejected) as refused:
            play.ok(tx)
        assert refused.value.kind == "SizeLimitExceeded"
        tx = play.tx()
        tx.command(MakeMoveVec(parse_type(deeper), ()))
        with pytest.raises(TransactionRejected) as refused:
            play.ok(tx)
        assert refused.value.kind == "SizeLimitExceeded"
