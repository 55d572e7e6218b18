"""Limits of running code, at their borders: values on the operand stack, and how deep a value nests."""

from __future__ import annotations

import pytest
from module_maker import Maker, code
from move_writer import write_module
from vm_world import World, address, modules

from dtp.localnet.framework import STD, SUI
from dtp.localnet.vm import ExecutionFailure
from dtp.sui.bytecode import (
    Ability,
    Primitive,
    ReferenceType,
    SignatureToken,
    TypeParameterIndex,
    VectorType,
)

HOME = address(0x77)
U64 = Primitive.U64


def nested(depth: int, home: bytes) -> bytes:
    """`probe` makes a struct in a struct in a ... number, of `depth` in all."""
    maker = Maker(address=home)
    type = maker.struct("S1", U64)
    made: list[tuple[str, int]] = [("LD_U64", 1), ("PACK", 0)]
    for at in range(1, depth - 1):
        type = maker.struct(f"S{at + 1}", type)
        made.append(("PACK", at))
    maker.function("probe", code(*made, "POP", "RET"))
    return write_module(maker.build())


def sum_of(waiting: int, home: bytes) -> bytes:
    """`f(n)` calls itself n times, with so many values waiting on the stack each time."""
    maker = Maker(address=home)
    first = [("COPY_LOC", 0), ("LD_U64", 0), "EQ", ("BR_FALSE", 6), ("LD_U64", 0), "RET"]
    again = [*[("LD_U64", 1)] * waiting, ("COPY_LOC", 0), ("LD_U64", 1), "SUB", ("CALL", 0)]
    maker.function("f", code(*first, *again, *["ADD"] * waiting, "RET"), [U64], [U64])
    return write_module(maker.build())


def run(data: bytes, function: str, *arguments: int) -> str:
    """What the machine says of the call: nothing, or why it failed."""
    world = World()
    world.packages[HOME] = world.vm.build_package([data], HOME, (STD, SUI))
    try:
        world.call(f"m::{function}", *arguments, package=HOME)
    except ExecutionFailure as failure:
        place = failure.location
        code = "" if failure.abort_code is None else f" {failure.abort_code}"
        return f"{failure.reason} {place and place.instruction}{code}"
    return ""


@pytest.mark.parametrize(("depth", "reason"), [(127, ""), (128, ""), (129, "value_depth 128")])
def test_values_nest_128_deep(depth: int, reason: str) -> None:
    assert run(nested(depth, bytes(32)), "probe") == reason


@pytest.mark.parametrize(("waiting", "most", "at"), [(1, 1022, 8), (2, 511, 8), (4, 255, 10)])
def test_1024_values_wait_on_the_stack(waiting: int, most: int, at: int) -> None:
    data = sum_of(waiting, bytes(32))
    assert run(data, "f", most) == ""
    assert run(data, "f", most + 1) == f"operand_stack {at}"


def test_the_genuine_machine_has_the_same_borders() -> None:
    genuine = pytest.importorskip("genuine")

    def answer(data: bytes, function: str, *arguments: bytes) -> tuple[str, int | None]:
        found = genuine.genuine_call("m", function, list(arguments), modules=(data,))
        return found.failure, found.offset

    assert answer(nested(128, HOME), "probe")[0] == ""
    assert answer(nested(129, HOME), "probe")[0] == "VM_MAX_VALUE_DEPTH_REACHED"
    for waiting, most, at in ((1, 1022, 8), (2, 511, 8), (4, 255, 10)):
        data = sum_of(waiting, HOME)
        assert answer(data, "f", most.to_bytes(8, "little"))[0] == ""
        assert answer(data, "f", (most + 1).to_bytes(8, "little")) == ("EXECUTION_STACK_OVERFLOW", at)


def serialized(nodes: int, variants: int, home: bytes) -> bytes:
    """`probe` serializes an empty vector whose layout has so many nodes, with an enum of so many variants in it."""
    maker = Maker(address=home)
    inner = maker.struct("A", *[U64] * 31)  # 32 nodes
    fields: list[SignatureToken] = (
        [maker.enum("E", *(f"V{at}" for at in range(variants)))] if variants else []
    )
    left = nodes - 2 - (variants + 1 if variants else 0)
    fields += [inner] * (left // 32)
    left %= 32
    if left:
        fields.append(maker.struct("C", *[U64] * (left - 1)) if left > 1 else U64)
    outer = maker.struct("B", *fields)
    vector = VectorType(outer)
    bcs = maker.module(STD, "bcs")
    signature = [ReferenceType(TypeParameterIndex(0), False)], [VectorType(Primitive.U8)], [Ability(0)]
    to_bytes = maker.instance(maker.handle("to_bytes", *signature, module=bcs), vector)
    made = [("VEC_PACK", (maker.signature(outer), 0)), ("ST_LOC", 0), ("IMM_BORROW_LOC", 0)]
    maker.function("probe", code(*made, ("CALL_GENERIC", to_bytes), "POP", "RET"), [], [], [vector])
    return write_module(maker.build())


@pytest.mark.parametrize("variants", [0, 1, 7, 100])
def test_layouts_have_512_nodes(variants: int) -> None:
    assert run(serialized(512, variants, bytes(32)), "probe") == ""
    assert run(serialized(513, variants, bytes(32)), "probe") == " 0 453"


@pytest.mark.parametrize("variants", [0, 1, 7, 100])
def test_the_genuine_machine_counts_layouts_so(variants: int) -> None:
    genuine = pytest.importorskip("genuine")
    for nodes, code_ in ((512, None), (513, 453)):
        data = serialized(nodes, variants, HOME)
        assert genuine.genuine_call("m", "probe", [], modules=(data,)).code == code_


def generic(depth: int, home: bytes) -> bytes:
    """`probe` calls a function with a vector of a vector of a ... byte, of `depth` in all, as type argument."""
    maker, token = Maker(address=home), Primitive.U8
    for _ in range(depth - 1):
        token = VectorType(token)
    called = maker.instance(maker.function("g", code("RET"), type_parameters=[Ability(0)]), token)
    maker.function("probe", code(("CALL_GENERIC", called), "RET"))
    return write_module(maker.build())


@pytest.mark.parametrize("depth", [16, 17, 127])
def test_type_arguments_within_code_have_127_parts(depth: int) -> None:
    assert run(generic(depth, bytes(32)), "probe") == ""


def test_type_arguments_within_code_have_no_more_parts() -> None:
    world = World()
    world.packages[HOME] = world.vm.build_package([generic(128, bytes(32))], HOME, (STD, SUI))
    with pytest.raises(ExecutionFailure) as failed:
        world.call("m::probe", package=HOME)
    assert failed.value.status == "VMVerificationOrDeserializationError"


@pytest.mark.parametrize(("depth", "failure"), [(127, ""), (128, "TOO_MANY_TYPE_NODES")])
def test_the_genuine_machine_counts_type_arguments_so(depth: int, failure: str) -> None:
    genuine = pytest.importorskip("genuine")
    assert genuine.genuine_call("m", "probe", [], modules=(generic(depth, HOME),)).failure == failure


def growing(home: bytes) -> bytes:
    """`f(n)` pushes n bytes to a vector."""
    maker = Maker(address=home)
    bytes_ = maker.signature(Primitive.U8)
    loop = [("COPY_LOC", 0), ("LD_U64", 0), "EQ", ("BR_FALSE", 7), "RET"]
    turn = [("MUT_BORROW_LOC", 1), ("LD_U8", 7), ("VEC_PUSH_BACK", bytes_)]
    less = [("MOVE_LOC", 0), ("LD_U64", 1), "SUB", ("ST_LOC", 0), ("BRANCH", 2)]
    made = code(("VEC_PACK", (bytes_, 0)), ("ST_LOC", 1), *loop, *turn, *less)
    maker.function("f", made, [U64], [], [VectorType(Primitive.U8)])
    return write_module(maker.build())


def test_vectors_grow_to_262144_elements() -> None:
    data = growing(bytes(32))
    assert run(data, "f", 262_144) == ""
    assert run(data, "f", 262_145) == "vector 9"


def test_an_event_counts_with_the_name_of_its_type() -> None:
    """`counted::fill(n)` makes one of n: 32 for the address, 7 and 6 for two names, 2 each for struct and vector."""
    world = World()
    home = world.publish(modules("basics"))
    assert world.call("counted::fill", 256_000, package=home).events
    with pytest.raises(ExecutionFailure) as caught:
        world.call("counted::fill", 256_001, package=home)
    where = caught.value.location
    assert where is not None
    assert (caught.value.reason, caught.value.sub_status, where.function_name) == ("memory_limit", 1, "emit")
