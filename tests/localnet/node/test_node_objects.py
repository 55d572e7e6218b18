"""Objects over their lives: versions, digests, wrapping, receiving, dynamic fields, party objects."""

from __future__ import annotations

import pytest
from node_world import created
from playground import Play

from dtp.localnet.model import TransactionRejected
from dtp.sui.effects import IdOperation, InAbsent, InExisting, OutAbsent, OutObject
from dtp.sui.objects import (
    OBJECT,
    AddressOwner,
    ConsensusAddressOwner,
    MoveObject,
    ObjectOwner,
    object_digest,
)
from dtp.sui.transaction import Mutability, SharedInput


def test_everything_written_gets_one_version_above_all_inputs(play: Play) -> None:
    thing, counter = play.thing(), play.shared()
    for _ in range(3):
        tx = play.tx()
        play.call(tx, "bump", tx.object(counter))
        play.ok(tx)
    tx = play.tx()
    play.call(tx, "set", tx.object(thing), tx.u64(2))
    play.call(tx, "count", tx.read(counter))
    done = play.ok(tx)
    highest = max(record.version for record in done.inputs)
    assert done.effects.lamport_version == highest + 1
    assert {r.version for r in done.outputs} == {highest + 1}
    assert play.record(thing).version == highest + 1
    assert play.record(counter).version <= highest


def test_digests_are_those_of_the_bytes_and_references_chain(play: Play) -> None:
    thing = play.thing()
    first = play.record(thing)
    assert first.digest == object_digest(first.bcs) == object_digest(OBJECT.encode(first.value))
    tx = play.tx()
    play.call(tx, "set", tx.object(thing), tx.u64(2))
    done = play.ok(tx)
    change = dict(done.effects.changed)[thing]
    second = play.record(thing)
    assert change.before == InExisting(first.version, first.digest, first.owner)
    assert change.after == OutObject(second.digest, second.owner)
    assert second.previous_transaction == done.transaction.digest
    assert first.previous_transaction in done.effects.dependencies
    # Both versions can be read.
    assert play.world.node.find_object(thing, first.version) == first
    assert play.world.node.find_object(thing, second.version) == second


def test_public_transfer_is_what_store_says(play: Play) -> None:
    tx = play.tx()
    play.call(tx, "bind_to_sender")
    bound = play.record(created(play.ok(tx), "::Bound")).value.data
    thing = play.record(play.thing()).value.data
    assert isinstance(bound, MoveObject)
    assert isinstance(thing, MoveObject)
    assert (bound.has_public_transfer, thing.has_public_transfer) == (False, True)


def test_wrapping_and_unwrapping(play: Play) -> None:
    thing = play.thing(8)
    tx = play.tx()
    tx.send(play.alice.address, play.call(tx, "wrap", tx.object(thing)))
    done = play.ok(tx)
    box = created(done, "::things::Box")
    change = dict(done.effects.changed)[thing]
    assert (change.after, change.id_operation) == (OutAbsent(), IdOperation.NONE)
    assert play.world.node.find_object(thing) is None
    tx = play.tx()
    tx.send(play.alice.address, play.call(tx, "unwrap", tx.object(box)))
    done = play.ok(tx)
    changes = dict(done.effects.changed)
    assert changes[thing].before == InAbsent()
    assert changes[thing].id_operation is IdOperation.NONE
    assert changes[box].id_operation is IdOperation.DELETED
    assert play.value(thing) == 8


def test_deleting_what_was_wrapped(play: Play) -> None:
    thing = play.thing()
    tx = play.tx()
    tx.send(play.alice.address, play.call(tx, "wrap", tx.object(thing)))
    box = created(play.ok(tx), "::things::Box")
    tx = play.tx()
    play.call(tx, "smash", tx.object(box))
    change = dict(play.ok(tx).effects.changed)[thing]
    assert (change.before, change.after, change.id_operation) == (
        InAbsent(),
        OutAbsent(),
        IdOperation.DELETED,
    )


def test_what_is_born_and_dies_in_one_transaction_leaves_no_trace(play: Play) -> None:
    tx = play.tx()
    play.call(tx, "burn", play.call(tx, "new", tx.u64(1)))
    play.call(tx, "smash", play.call(tx, "wrap_new"))
    done = play.ok(tx)
    assert len(done.effects.changed) == 1  # the gas coin


def test_receiving(play: Play) -> None:
    parent, gift = play.thing(1), play.thing(2)
    tx = play.tx()
    tx.send(parent, tx.object(gift))
    play.ok(tx)
    assert play.record(gift).owner == AddressOwner(parent)
    tx = play.tx()
    taken = play.call(tx, "receive", tx.object(parent), tx.receiving(gift))
    tx.send(play.alice.address, taken)
    done = play.ok(tx)
    assert play.record(gift).owner == AddressOwner(play.alice.address)
    assert dict(done.effects.changed)[gift].id_operation is IdOperation.NONE


def test_receiving_what_is_not_for_the_parent(play: Play) -> None:
    parent, other, gift = play.thing(1), play.thing(2), play.thing(3)
    tx = play.tx()
    tx.send(other, tx.object(gift))
    play.ok(tx)
    tx = play.tx()
    tx.send(play.alice.address, play.call(tx, "receive", tx.object(parent), tx.receiving(gift)))
    error = play.fails(tx, "MoveAbort").effects.error
    assert error is not None
    assert error.content["location"].module == "transfer"
    # A ticket that nobody uses, or only looks at, leaves the object where it is.
    tx = play.tx()
    play.call(tx, "look", tx.receiving(gift))
    play.ok(tx)
    assert play.record(gift).owner == AddressOwner(other)
    tx = play.tx()
    play.call(tx, "burn", tx.receiving(gift))
    play.argument_fails(tx, 0, "TypeMismatch")


def test_a_ticket_is_used_once(play: Play) -> None:
    parent, gift = play.thing(1), play.thing(2)
    tx = play.tx()
    tx.send(parent, tx.object(gift))
    play.ok(tx)
    tx = play.tx()
    ticket = tx.receiving(gift)
    play.call(tx, "burn", play.call(tx, "receive", tx.object(parent), ticket))
    play.call(tx, "receive", tx.object(parent), ticket)
    play.argument_fails(tx, 1, "ArgumentWithoutValue", command=2)


def test_dynamic_fields(play: Play) -> None:
    thing = play.thing()
    tx = play.tx()
    for key in (1, 2, 3):
        play.call(tx, "add_field", tx.object(thing), tx.u64(key), tx.u64(10 * key))
    play.ok(tx)
    fields = play.world.node.dynamic_fields(thing)
    assert sorted(
        (int.from_bytes(f.name, "little"), int.from_bytes(f.value or b"", "little")) for f in fields.items
    ) == [(1, 10), (2, 20), (3, 30)]
    by_key = {int.from_bytes(f.name, "little"): f for f in fields.items}
    assert play.record(by_key[2].field_id).owner == ObjectOwner(thing)
    tx = play.tx()
    play.call(tx, "change_field", tx.object(thing), tx.u64(2), tx.u64(99))
    play.call(tx, "drop_field", tx.object(thing), tx.u64(3))
    play.call(tx, "read_field", tx.object(thing), tx.u64(1))
    changes = dict(play.ok(tx).effects.changed)
    assert changes[by_key[3].field_id].id_operation is IdOperation.DELETED
    assert by_key[2].field_id in changes
    assert by_key[1].field_id not in changes
    values = [int.from_bytes(f.value or b"", "little") for f in play.world.node.dynamic_fields(thing).items]
    assert sorted(values) == [10, 99]
    tx = play.tx()
    play.call(tx, "read_field", tx.object(thing), tx.u64(3))
    play.fails(tx, "MoveAbort")


def test_children_can_not_be_inputs(play: Play) -> None:
    thing = play.thing()
    tx = play.tx()
    play.call(tx, "add_field", tx.object(thing), tx.u64(1), tx.u64(1))
    play.ok(tx)
    (field,) = play.world.node.dynamic_fields(thing).items
    tx = play.tx()
    play.call(tx, "burn", tx.object(field.field_id))
    with pytest.raises(TransactionRejected) as refused:
        play.ok(tx)
    assert (refused.value.kind, refused.value.object_id) == ("InvalidChildObjectArgument", field.field_id)


def test_dynamic_object_fields(play: Play) -> None:
    parent, child = play.thing(1), play.thing(2)
    tx = play.tx()
    play.call(tx, "attach", tx.object(parent), tx.bytes(b"left"), tx.object(child))
    play.ok(tx)
    (field,) = play.world.node.dynamic_fields(parent).items
    assert (field.child_id, field.value, field.name) == (child, None, b"\4left")
    assert str(field.value_type).endswith("::things::Thing")
    assert play.record(child).owner == ObjectOwner(field.field_id)
    tx = play.tx()
    taken = play.call(tx, "detach", tx.object(parent), tx.bytes(b"left"))
    tx.send(play.alice.address, taken)
    play.ok(tx)
    assert play.record(child).owner == AddressOwner(play.alice.address)
    assert play.world.node.dynamic_fields(parent).items == ()


def test_a_table_is_wrapped_and_its_rows_are_children_of_its_id(play: Play) -> None:
    tx = play.tx()
    shelf = play.call(tx, "shelf")
    for key in range(5):
        play.call(tx, "put", shelf, tx.u64(key), tx.u64(key))
    tx.send(play.alice.address, shelf)
    id = created(play.ok(tx), "::things::Shelf")
    table = play.record(id).contents[32:64]
    assert len(play.world.node.dynamic_fields(table).items) == 5
    tx = play.tx()
    play.call(tx, "put", tx.object(id), tx.u64(3), tx.u64(0))
    play.fails(tx, "MoveAbort")


def test_party_objects_are_sequenced_and_used_by_their_owner_only(play: Play) -> None:
    tx = play.tx()
    play.call(tx, "party", play.call(tx, "new", tx.u64(4)))
    done = play.ok(tx)
    thing = created(done, "::things::Thing")
    owner = play.record(thing).owner
    assert owner == ConsensusAddressOwner(done.effects.lamport_version, play.alice.address)
    assert thing in {r.id for r in play.world.node.objects_owned_by(play.alice.address).items}
    start = SharedInput(thing, done.effects.lamport_version, Mutability.MUTABLE)
    tx = play.tx()
    play.call(tx, "set", tx.add(start), tx.u64(5))
    play.ok(tx)
    assert (play.value(thing), play.record(thing).owner) == (5, owner)
    bob = play.world.wallet("bob", 1_000_000_000)
    with pytest.raises(TransactionRejected) as refused:
        play.world.ok(tx, bob)
    assert refused.value.kind == "IncorrectUserSignature"
    # The owner may make it an ordinary object again.
    tx = play.tx()
    tx.send(bob.address, tx.add(start))
    play.ok(tx)
    assert play.record(thing).owner == AddressOwner(bob.address)


def test_objects_have_a_largest_size(play: Play) -> None:
    tx = play.tx()
    play.call(tx, "blob", tx.u64(10))
    play.ok(tx)
    error = None
    tx = play.tx()
    play.call(tx, "blob", tx.u64(250 * 1024))
    done = play.world.run(tx, play.alice, budget=9_000_000_000)
    error = done.effects.error
    assert error is not None
    assert error.kind in ("MoveObjectTooBig", "InsufficientGas")
