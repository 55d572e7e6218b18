"""Publishing whatever bytes: the node answers with a status of the chain, nothing else ever leaves it."""

from __future__ import annotations

import functools

from hypothesis import given, settings
from hypothesis import strategies as st
from node_world import STD, SUI, World, fixture_modules

from dtp.localnet.node import LocalNode
from dtp.sui.transaction import Publish

MODULES = fixture_modules("playground")
REFUSALS = {
    "VMVerificationOrDeserializationError",
    "SuiMoveVerificationError",
    "PublishErrorNonZeroAddress",
    "PublishUpgradeMissingDependency",
    "MovePackageTooBig",
    # What `init` of a changed module comes to.
    "MoveAbort",
    "MovePrimitiveRuntimeError",
    "InsufficientGas",
}


@functools.cache
def world() -> World:
    """One node for all examples: nothing that fails changes it but by gas."""
    return World(LocalNode.open(now=None))


CHANGES = st.lists(
    st.tuples(
        st.integers(0, 1 << 16), st.integers(0, 255), st.sampled_from(("set", "insert", "delete", "copy"))
    ),
    max_size=4,
)


def changed(data: bytes, changes: list[tuple[int, int, str]]) -> bytes:
    """The bytes with some of them set, inserted, deleted, or copied from elsewhere."""
    out = bytearray(data)
    for at, value, kind in changes:
        at %= max(1, len(out))
        if kind == "set":
            out[at : at + 1] = bytes((value,))
        elif kind == "insert":
            out.insert(at, value)
        elif kind == "delete":
            del out[at : at + 1]
        else:
            out[at : at + 1] = out[value : value + 4]
    return bytes(out)


@settings(max_examples=150)
@given(st.integers(0, len(MODULES) - 1), CHANGES)
def test_a_publish_ends_with_a_status(which: int, changes: list[tuple[int, int, str]]) -> None:
    modules = list(MODULES)
    modules[which] = changed(modules[which], changes)
    publisher = world().wallet("publisher")
    if not world().coins(publisher):
        world().wallet("publisher", 5_000_000_000_000)
    tx = world().tx()
    tx.send(publisher.address, tx.command(Publish(tuple(modules), (STD, SUI))))
    effects = world().run(tx, publisher).effects
    if changes:
        assert effects.error is None or effects.error.kind in REFUSALS
    else:
        assert effects.ok


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=3))
def test_bytes_that_are_no_modules(modules: list[bytes]) -> None:
    publisher = world().wallet("publisher")
    if not world().coins(publisher):
        world().wallet("publisher", 5_000_000_000_000)
    tx = world().tx()
    tx.send(publisher.address, tx.command(Publish(tuple(modules), (STD, SUI))))
    world().fails(tx, publisher, "VMVerificationOrDeserializationError")
