"""Rules of Move's verifier one by one, at their borders: what is just allowed, what is just not, Sui's status.

The wheel `sui-sandbox` answers too where it is installed; it runs without the protocol's limits, so it has no word on
those.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from module_maker import NONE, Maker, code
from move_writer import write_module
from vm_world import World, address

from dtp.localnet import limits
from dtp.localnet.framework import STD, SUI
from dtp.localnet.vm import PackageRejected
from dtp.sui.bytecode import (
    Ability,
    CompiledModule,
    Constant,
    FieldHandle,
    Instruction,
    JumpTable,
    Primitive,
    ReferenceType,
    SignatureToken,
    VariantHandle,
    VectorType,
)

WORLD = World()
RET = code("RET")
U8 = Primitive.U8
HOME = address(0x77)


def fresh(home: bytes = bytes(32)) -> Maker:
    """A module with one function, `probe`."""
    maker = Maker(address=home)
    maker.function("probe", RET)
    return maker


def nested_loops(depth: int) -> tuple[Instruction, ...]:
    """Loops inside each other."""
    made: list[tuple[str, int | None]] = []

    def nest(left: int) -> None:
        head = len(made)
        made.extend([("LD_TRUE", None), ("BR_FALSE", None)])
        leave = len(made) - 1
        if left > 1:
            nest(left - 1)
        made.append(("BRANCH", head))
        made[leave] = ("BR_FALSE", len(made))

    nest(depth)
    return code(*made, "RET")


def unused_vectors(depth: int) -> Callable[[Maker], CompiledModule]:
    """A module with an unused signature of vectors of vectors of ... of a struct, which weighs 4."""

    def make(maker: Maker) -> CompiledModule:
        token: SignatureToken = maker.struct("S", U8)
        for _ in range(depth):
            token = VectorType(token)
        maker.signature(token)
        return maker.build()

    return make


def with_code(instructions: tuple[Instruction, ...]) -> Callable[[Maker], CompiledModule]:
    """A module with a function of this code."""

    def make(maker: Maker) -> CompiledModule:
        maker.function("f", instructions)
        return maker.build()

    return make


def with_twice(
    table: str, *entries: object, prepare: Callable[[Maker], object] | None = None
) -> Callable[[Maker], CompiledModule]:
    """A module whose table has its entries (or these) twice."""

    def make(maker: Maker) -> CompiledModule:
        if prepare:
            prepare(maker)
        return maker.build(**{table: (entries or tuple(getattr(maker, table))) * 2})

    return make


def function_of(
    parameters: Sequence[SignatureToken] = (), type_parameters: int = 0, name: str = "f"
) -> Callable[[Maker], CompiledModule]:
    """A module with a function of this signature."""

    def make(maker: Maker) -> CompiledModule:
        maker.function(name, RET, parameters, type_parameters=[NONE] * type_parameters)
        return maker.build()

    return make


def switch(mutable: bool) -> Callable[[Maker], CompiledModule]:
    """A switch over a reference to an enum."""

    def make(maker: Maker) -> CompiledModule:
        enum = maker.enum("E", "A", "B")
        instructions = code(("MOVE_LOC", 0), ("VARIANT_SWITCH", 0), "RET", "RET")
        maker.function("f", instructions, [ReferenceType(enum, mutable)], tables=[JumpTable(0, (2, 3))])
        return maker.build()

    return make


def struct_of(*fields: SignatureToken) -> Callable[[Maker], CompiledModule]:
    """A module with a struct."""

    def make(maker: Maker) -> CompiledModule:
        maker.struct("S", *fields)
        return maker.build()

    return make


def variants_of(count: int) -> Callable[[Maker], CompiledModule]:
    """A module with an enum."""

    def make(maker: Maker) -> CompiledModule:
        maker.enum("E", *(f"V{at}" for at in range(count)))
        return maker.build()

    return make


def unused(*tokens: SignatureToken) -> Callable[[Maker], CompiledModule]:
    """A module with a signature that nothing uses."""

    def make(maker: Maker) -> CompiledModule:
        maker.signature(*tokens)
        return maker.build()

    return make


def constant_of(token: SignatureToken, data: bytes) -> Callable[[Maker], CompiledModule]:
    """A module with a constant."""
    return lambda maker: maker.build(constants=[Constant(token, data)])


def constant_of_struct(maker: Maker) -> CompiledModule:
    """A module with an empty vector of structs as a constant."""
    return maker.build(constants=[Constant(VectorType(maker.struct("S", U8)), b"\0")])


def signatures(count: int) -> Callable[[Maker], CompiledModule]:
    """A module with so many signatures."""
    tokens = (U8, Primitive.U16, Primitive.U32, Primitive.U64)

    def make(maker: Maker) -> CompiledModule:
        every = (made for size in range(1, 7) for made in itertools.product(tokens, repeat=size))
        maker.signatures.extend(itertools.islice(every, count - len(maker.signatures)))
        return maker.build()

    return make


def friend_of(*names: str) -> Callable[[Maker], CompiledModule]:
    """A module with friends of its own package."""

    def make(maker: Maker) -> CompiledModule:
        handles = [maker.module_handles[maker.module(maker.address, name)] for name in names]
        return maker.build(friend_decls=handles, module_handles=maker.module_handles[:1])

    return make


def generic_call(maker: Maker) -> None:
    """A function instantiation."""
    maker.instance(maker.function("g", RET, type_parameters=[NONE]), U8)


def struct(maker: Maker) -> None:
    """A struct."""
    maker.struct("S", U8)


def enum(maker: Maker) -> None:
    """An enum."""
    maker.enum("E", "A")


def chain(blocks: int) -> tuple[Instruction, ...]:
    """Code of so many basic blocks."""
    return code(*(("BRANCH", at + 1) for at in range(blocks - 1)), "RET")


def pile(height: int) -> tuple[Instruction, ...]:
    """Code that puts so many values on the stack."""
    return code(*[("LD_U8", 1)] * height, *["POP"] * height, "RET")


def busy(pushes: int) -> tuple[Instruction, ...]:
    """A block that pushes so many values, one at a time."""
    return code(*[("LD_U8", 1), "POP"] * pushes, "RET")


@dataclass(frozen=True)
class Rule:
    """What Sui's status code is, our reason, a module that breaks the rule and one that just keeps it.

    `oracle`: the wheel knows the rule.
    """

    status: str
    reason: str
    broken: Callable[[Maker], CompiledModule]
    kept: Callable[[Maker], CompiledModule] = Maker.build
    oracle: bool = True


REF = ReferenceType(U8, False)
RULES = {
    "loops": Rule(
        "LOOP_MAX_DEPTH_REACHED",
        "loop_max_depth_reached",
        with_code(nested_loops(6)),
        with_code(nested_loops(5)),
        False,
    ),
    "blocks": Rule(
        "TOO_MANY_BASIC_BLOCKS",
        "too_many_basic_blocks",
        with_code(chain(1025)),
        with_code(chain(1024)),
        False,
    ),
    "stack": Rule(
        "VALUE_STACK_OVERFLOW", "value_stack_overflow", with_code(pile(1025)), with_code(pile(1024))
    ),
    "pushes": Rule(
        "VALUE_STACK_PUSH_OVERFLOW",
        "value_stack_push_overflow",
        with_code(busy(10_001)),
        with_code(busy(10_000)),
        False,
    ),
    "identifier": Rule(
        "IDENTIFIER_TOO_LONG", "identifier_too_long", function_of(name="f" * 129), function_of(name="f" * 128)
    ),
    "type parameters": Rule(
        "TOO_MANY_TYPE_PARAMETERS",
        "too_many_type_parameters",
        function_of(type_parameters=33),
        function_of(type_parameters=32),
        False,
    ),
    "parameters": Rule(
        "TOO_MANY_PARAMETERS", "too_many_parameters", function_of([U8] * 129), function_of([U8] * 128), False
    ),
    "type nodes": Rule(
        "TOO_MANY_TYPE_NODES", "too_many_type_nodes", unused_vectors(253), unused_vectors(252), False
    ),
    "fields": Rule(
        "MAX_FIELD_DEFINITIONS_REACHED",
        "max_field_definitions_reached",
        struct_of(*[U8] * 33),
        struct_of(*[U8] * 32),
        False,
    ),
    "signatures": Rule("MALFORMED", "limit_exceeded", signatures(1001), signatures(1000), False),
    "mutable switch": Rule("ENUM_SWITCH_BAD_OPERAND", "type_mismatch", switch(True), switch(False)),
    "empty struct": Rule("ZERO_SIZED_STRUCT", "zero_sized_struct", struct_of(), struct_of(U8)),
    "a friend twice": Rule("DUPLICATE_ELEMENT", "duplicate", friend_of("n", "n"), friend_of("n")),
    "itself as friend": Rule(
        "INVALID_FRIEND_DECL_WITH_SELF", "invalid_friend_decl_with_self", friend_of("m"), friend_of("n")
    ),
    "constants": Rule(
        "DUPLICATE_ELEMENT", "duplicate", with_twice("constants", Constant(U8, b"\1")), constant_of(U8, b"\1")
    ),
    "signatures twice": Rule("DUPLICATE_ELEMENT", "duplicate", with_twice("signatures")),
    "identifiers twice": Rule("DUPLICATE_ELEMENT", "duplicate", with_twice("identifiers")),
    "module handles twice": Rule("DUPLICATE_ELEMENT", "duplicate", with_twice("module_handles")),
    "function instantiations twice": Rule(
        "DUPLICATE_ELEMENT", "duplicate", with_twice("function_instantiations", prepare=generic_call)
    ),
    "field handles twice": Rule(
        "DUPLICATE_ELEMENT", "duplicate", with_twice("field_handles", FieldHandle(0, 0), prepare=struct)
    ),
    "variant handles twice": Rule(
        "DUPLICATE_ELEMENT", "duplicate", with_twice("variant_handles", VariantHandle(0, 0), prepare=enum)
    ),
    "a vector of references": Rule(
        "INVALID_SIGNATURE_TOKEN", "reference", unused(VectorType(REF)), unused(REF)
    ),
    "a reference to a reference": Rule(
        "INVALID_SIGNATURE_TOKEN", "reference", unused(ReferenceType(REF, False)), unused(REF)
    ),
    "a constant of signers": Rule(
        "INVALID_CONSTANT_TYPE",
        "invalid_constant_type",
        constant_of(VectorType(Primitive.SIGNER), b"\0"),
        constant_of(VectorType(U8), b"\0"),
    ),
    "a constant of structs": Rule("MALFORMED_CONSTANT_DATA", "invalid_constant_type", constant_of_struct),
}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_at_its_border(name: str) -> None:
    rule = RULES[name]
    WORLD.vm.build_package([write_module(rule.kept(fresh()))], address(0x99), (STD, SUI))
    with pytest.raises(PackageRejected) as caught:
        WORLD.vm.build_package([write_module(rule.broken(fresh()))], address(0x99), (STD, SUI))
    assert (caught.value.status, caught.value.reason) == ("VMVerificationOrDeserializationError", rule.reason)


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if rule.oracle])
def test_the_genuine_verifier_has_the_same_rule(name: str) -> None:
    genuine = pytest.importorskip("genuine")
    rule = RULES[name]
    kept, broken = (write_module(make(fresh(HOME))) for make in (rule.kept, rule.broken))
    assert genuine.genuine_call("m", "probe", [], modules=(kept,)).failure == ""
    assert genuine.genuine_call("m", "probe", [], modules=(broken,)).failure == rule.status


@pytest.mark.parametrize("table", limits.TABLE_SIZES)
def test_limits_name_tables_of_a_module(table: str) -> None:
    assert isinstance(getattr(fresh().build(), table), tuple)


@pytest.mark.parametrize("reverse", [False, True])
def test_rules_of_move_come_before_those_of_sui_in_the_whole_package(reverse: bool) -> None:
    """One module breaks a rule of Sui, another one of Move: Move's verdict is the package's."""
    breaks_sui, breaks_move = fresh(), Maker("n")
    breaks_sui.function("init", RET)
    modules = [write_module(breaks_sui.build()), write_module(struct_of()(breaks_move))]
    with pytest.raises(PackageRejected) as caught:
        WORLD.vm.build_package(modules[::-1] if reverse else modules, address(0x99), (STD, SUI))
    assert caught.value.status == "VMVerificationOrDeserializationError"
    with pytest.raises(PackageRejected) as caught:
        WORLD.vm.build_package(modules[:1], address(0x99), (STD, SUI))
    assert caught.value.status == "SuiMoveVerificationError"


@pytest.mark.parametrize(
    ("module", "name", "by", "allowed"),
    [
        ("clock", "Clock", "&", True),
        ("clock", "Clock", "&mut", False),
        ("clock", "Clock", "value", False),
        ("random", "Random", "&", True),
        ("random", "Random", "&mut", False),
        ("random", "Random", "value", False),
    ],
)
def test_entry_functions_only_read_the_clock_and_randomness(
    module: str, name: str, by: str, allowed: bool
) -> None:
    maker = fresh()
    taken: SignatureToken = maker.datatype(name, Ability.KEY, module=maker.module(SUI, module))
    if by != "value":
        taken = ReferenceType(taken, by == "&mut")
    body = code("POP", "RET") if by != "value" else code(("LD_U64", 1), "ABORT")
    maker.function("f", code(("MOVE_LOC", 0)) + body if by != "value" else body, [taken], is_entry=True)
    data = write_module(maker.build())
    if allowed:
        WORLD.vm.build_package([data], address(0x99), (STD, SUI))
        return
    with pytest.raises(PackageRejected) as caught:
        WORLD.vm.build_package([data], address(0x99), (STD, SUI))
    assert (caught.value.status, caught.value.reason) == ("SuiMoveVerificationError", "entry")
