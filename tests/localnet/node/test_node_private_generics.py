"""Functions that only the module of a type may call for it: no transaction calls them, whatever the type."""

from __future__ import annotations

import pytest
from node_world import COIN, SUI, Wallet, created
from playground import Play
from transport_life import Transport

from dtp.localnet.vm.verify import internal_parameters
from dtp.sui.transaction import Argument

STD = (1).to_bytes(32, "big")
CLOSED = (
    (SUI, "transfer", ("transfer", "share_object", "freeze_object", "receive", "party_transfer")),
    (SUI, "event", ("emit", "emit_authenticated")),
    (SUI, "coin_registry", ("new_currency",)),
    (STD, "internal", ("permit",)),
)
OPEN = (
    "public_transfer",
    "public_share_object",
    "public_freeze_object",
    "public_receive",
    "public_party_transfer",
)


def test_the_table_has_the_closed_functions_and_no_public_ones() -> None:
    for package, module, functions in CLOSED:
        assert all(internal_parameters(package, module, name) == (0,) for name in functions)
    assert not any(internal_parameters(SUI, "transfer", name) for name in (*OPEN, "receiving_object_id"))
    assert internal_parameters(SUI, "event", "num_events") == ()
    assert internal_parameters(STD, "transfer", "transfer") == ()


def buy_pass(transport: Transport) -> bytes:
    """A pass of the client's."""
    world, package = transport.world, transport.package
    tx = world.tx()
    numbers = [tx.u64(n) for n in (100, 0, 1000, 1 << 20)]
    terms = (tx.read(transport.host), tx.object(transport.cap), tx.u16(1), *numbers)
    tx.call(package, "pass::share", tx.call(package, "pass::new_plan", *terms, types=(COIN,)), types=(COIN,))
    plan = created(world.ok(tx, transport.server), "::pass::Plan")
    tx = world.tx()
    payment = tx.pay(100)
    bought = tx.call(
        package,
        "pass::buy",
        tx.object(plan),
        tx.read(transport.host),
        payment,
        tx.u64(1),
        tx.clock(),
        types=(COIN,),
    )
    tx.call(package, "pass::keep", bought)
    return created(world.ok(tx, transport.client), "::pass::Pass")


@pytest.mark.parametrize("function", ["transfer", "share_object", "freeze_object", "party_transfer"])
def test_a_pass_that_is_bound_to_its_buyer_stays_there(transport: Transport, function: str) -> None:
    held = buy_pass(transport)
    world, thief = transport.world, Wallet("thief")
    before = world.node.find_object(held)
    assert before is not None
    tx = world.tx()
    arguments: list[Argument] = [tx.object(held)]
    if function == "transfer":
        arguments.append(tx.address(thief.address))
    elif function == "party_transfer":
        arguments.append(tx.call(SUI, "party::single_owner", tx.address(thief.address)))
    name = f"0x{transport.package.hex()}::pass::Pass"
    tx.call(SUI, f"transfer::{function}", *arguments, types=(name,))
    world.fails(tx, transport.client, "NonEntryFunctionInvoked", len(tx.commands) - 1)
    after = world.node.find_object(held)
    assert after is not None
    assert (after.owner, after.contents) == (before.owner, before.contents)


@pytest.mark.parametrize("function", ["transfer", "share_object", "freeze_object"])
def test_objects_with_store_go_the_public_way_only(play: Play, function: str) -> None:
    thing, name = play.thing(), str(play.tag("things::Thing"))
    for variant, fails in ((function, True), (f"public_{function}", False)):
        tx = play.tx()
        arguments: list[Argument] = [tx.object(thing)]
        if function == "transfer":
            arguments.append(tx.address(play.alice.address))
        tx.call(SUI, f"transfer::{variant}", *arguments, types=(name,))
        if fails:
            play.fails(tx, "NonEntryFunctionInvoked")
        elif function == "share_object":
            play.fails(tx, "MoveAbort")  # the call is allowed, but the thing had an owner before
        else:
            play.ok(tx)


def test_objects_are_received_the_public_way_only(play: Play) -> None:
    parent, thing = play.thing(), play.thing()
    tx = play.tx()
    tx.send(parent, tx.object(thing))
    play.ok(tx)
    # The parent's UID is its module's to lend; the refusal comes before any look at the arguments' values.
    tx = play.tx()
    tx.call(
        SUI,
        "transfer::receive",
        tx.object(parent),
        tx.receiving(thing),
        types=(str(play.tag("things::Thing")),),
    )
    play.fails(tx, "NonEntryFunctionInvoked")


@pytest.mark.parametrize("type", ["u64", "0x2::object::ID"])
def test_transactions_emit_no_events(play: Play, type: str) -> None:
    tx = play.tx()
    value = tx.u64(1) if type == "u64" else tx.address(play.alice.address)
    tx.call(SUI, "event::emit", value, types=(type,))
    play.fails(tx, "NonEntryFunctionInvoked")


def test_simulations_may_not_either(play: Play) -> None:
    """Without checks any function may be called, but for these."""
    tx = play.tx()
    tx.call(SUI, "event::emit", tx.u64(1), types=("u64",))
    simulated = play.world.node.simulate(play.world.data(tx, play.alice), checks=False)
    error = simulated.executed.effects.error
    assert error is not None
    assert error.kind == "NonEntryFunctionInvoked"


def test_permits_are_for_modules(play: Play) -> None:
    tx = play.tx()
    tx.call(STD, "internal::permit", types=(COIN,))
    play.fails(tx, "NonEntryFunctionInvoked")
