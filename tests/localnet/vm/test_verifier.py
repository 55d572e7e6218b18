"""What the verifier refuses, by name; and that it agrees with the genuine one on thousands of broken modules."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from move_writer import write_module
from vm_world import World, address, modules

from dtp.localnet.framework import STD, SUI, system_packages
from dtp.localnet.vm import PackageRejected
from dtp.localnet.vm.verify import ModuleRefused, verify_move, verify_sui
from dtp.sui.bytecode import (
    OPERANDS,
    Ability,
    BytecodeError,
    CompiledModule,
    FunctionDef,
    Instruction,
    Opcode,
    OperandKind,
    Visibility,
    deserialize,
)

BASICS = {deserialize(data).name: deserialize(data) for data in modules("basics")}
WORLD = World()
FRAMEWORK = {
    (package.original_id, name): deserialize(data)
    for package in system_packages()
    for name, data in package.modules.items()
}


def with_function(
    module: CompiledModule, name: str, change: Callable[[FunctionDef], FunctionDef]
) -> CompiledModule:
    """The module with one function changed."""
    definitions = tuple(
        change(f) if module.function_name(f.handle) == name else f for f in module.function_defs
    )
    return replace(module, function_defs=definitions)


def with_code(
    module: CompiledModule, name: str, change: Callable[[list[Instruction]], list[Instruction]]
) -> CompiledModule:
    """The module with one function's instructions changed."""

    def changed(f: FunctionDef) -> FunctionDef:
        assert f.body is not None
        return replace(f, body=replace(f.body, code=tuple(change(list(f.body.code)))))

    return with_function(module, name, changed)


def op(opcode: Opcode, argument: object = None) -> Instruction:
    """An instruction."""
    return Instruction(opcode, argument)  # type: ignore[arg-type]


def refusal(module: CompiledModule) -> PackageRejected:
    """Publish the module by itself; it must be refused."""
    with pytest.raises(PackageRejected) as caught:
        WORLD.vm.build_package([write_module(module)], address(0x99), (STD, SUI))
    return caught.value


def before(*instructions: Instruction) -> Callable[[list[Instruction]], list[Instruction]]:
    """Put instructions in front of the code (of functions without jumps)."""
    return lambda code: [*instructions, *code]


@pytest.mark.parametrize("name", sorted(BASICS))
def test_writing_is_the_inverse_of_reading(name: str) -> None:
    assert deserialize(write_module(BASICS[name])) == BASICS[name]


@pytest.mark.parametrize(
    ("package", "name"), sorted(FRAMEWORK), ids=lambda v: v if isinstance(v, str) else ""
)
def test_the_framework_passes(package: bytes, name: str) -> None:
    verify_move(FRAMEWORK[package, name], FRAMEWORK, (), is_framework=True)
    verify_sui(FRAMEWORK[package, name])


MOVE = "VMVerificationOrDeserializationError"
SUI_RULE = "SuiMoveVerificationError"


@pytest.mark.parametrize(
    ("reason", "module", "function", "change"),
    [
        ("unbalanced_stack", "places", "point", before(op(Opcode.LD_U64, 1))),
        ("unbalanced_stack", "places", "point", before(op(Opcode.POP))),
        ("type_mismatch", "places", "point", before(op(Opcode.LD_TRUE), op(Opcode.LD_U8, 1), op(Opcode.ADD),
        op(Opcode.POP))), ("control_flow", "places", "point", lambda code: code[:-1]),
        ("empty_local", "places", "point", before(op(Opcode.MOVE_LOC, 0), op(Opcode.POP))),
        # A Thing has no drop: it can't be popped, overwritten or left behind, nor copied.
        ("missing_ability", "things", "freeze_it", before(op(Opcode.COPY_LOC, 0), op(Opcode.POP))),
        ("missing_ability", "things", "freeze_it", before(op(Opcode.MOVE_LOC, 0), op(Opcode.POP))),
        ("missing_ability", "things", "freeze_it", lambda _: [op(Opcode.RET)]),
        ("missing_ability", "things", "value", lambda _: [op(Opcode.MOVE_LOC, 0), op(Opcode.READ_REF), op(Opcode.POP),
        op(Opcode.LD_U64, 1), op(Opcode.RET)]), ("reference_safety", "places", "same", lambda code: code),
    ],
)  # fmt: skip
def test_broken_code_is_refused(
    reason: str, module: str, function: str, change: Callable[[list[Instruction]], list[Instruction]]
) -> None:
    if reason == "reference_safety":
        # The same place, mutably, twice: `larger(&mut a, &mut a)`.
        broken = with_code(BASICS["places"], "raise_larger", lambda code: [code[0], code[0], *code[2:]])
    else:
        broken = with_code(BASICS[module], function, change)
    refused = refusal(broken)
    assert (refused.status, refused.reason) == (MOVE, reason)
    assert refused.module == broken.name
    assert refused.item in (function, "raise_larger")


def _function_named(module: CompiledModule, old: str, new: str) -> CompiledModule:
    return replace(module, identifiers=tuple(new if i == old else i for i in module.identifiers))


def test_a_missing_framework_function_is_named() -> None:
    refused = refusal(_function_named(BASICS["generic"], "priority_queue", "priority_heap"))
    assert refused.reason == "missing_module"
    assert "0x2::priority_heap" in str(refused)
    broken = _function_named(BASICS["generic"], "pop_max", "pop_min")
    refused = refusal(broken)
    assert refused.reason == "missing_function"
    assert "0x2::priority_queue::pop_min" in str(refused)
    refused = refusal(_function_named(BASICS["generic"], "PriorityQueue", "PriorityHeap"))
    assert refused.reason == "missing_datatype"
    assert "0x2::priority_queue::PriorityHeap" in str(refused)


def test_private_and_package_functions_are_not_visible() -> None:
    # `u64::to_string` renamed to a private function of another module's, of the same shape.
    for old, new in (("pop_max", "max_heapify_recursive"),):
        assert refusal(_function_named(BASICS["generic"], old, new)).reason == "not_visible"


def test_a_wrong_signature_is_refused() -> None:
    refused = refusal(_function_named(BASICS["generic"], "pop_max", "priorities"))
    assert refused.reason == "function_mismatch"


def test_abilities_must_match_the_declaration() -> None:
    module = BASICS["generic"]
    handles = list(module.datatype_handles)
    at = next(i for i in range(len(handles)) if module.datatype_name(i) == "PriorityQueue")
    handles[at] = replace(handles[at], abilities=handles[at].abilities | Ability.COPY)
    assert refusal(replace(module, datatype_handles=tuple(handles))).reason == "datatype_mismatch"


def test_a_struct_may_not_have_more_abilities_than_its_fields() -> None:
    module = BASICS["things"]
    handles = list(module.datatype_handles)
    at = next(i for i in range(len(handles)) if module.datatype_name(i) == "Thing")
    handles[at] = replace(handles[at], abilities=handles[at].abilities | Ability.DROP)
    assert refusal(replace(module, datatype_handles=tuple(handles))).reason == "field_abilities"


def _struct_field(module: CompiledModule, struct: str, change: Callable[..., Any]) -> CompiledModule:
    definitions = tuple(
        replace(s, fields=change(s.fields)) if module.datatype_name(s.handle) == struct else s
        for s in module.struct_defs
    )
    return replace(module, struct_defs=definitions)


def test_an_object_starts_with_its_id() -> None:
    refused = refusal(_struct_field(BASICS["things"], "Thing", lambda fields: fields[::-1]))
    assert refused.status in (SUI_RULE, MOVE)
    refused = refusal(
        _struct_field(
            BASICS["things"], "Thing", lambda fields: (replace(fields[0], name=fields[1].name), fields[1])
        )
    )
    assert refused.reason == "duplicate"


def test_an_object_needs_a_fresh_id() -> None:
    # `destroy` unpacks a Thing; packing the same id again would make two lives of one object.
    def reuse(code: list[Instruction]) -> list[Instruction]:
        unpack = next(i for i in code if i.op is Opcode.UNPACK)
        share = next(
            i for i in _code(BASICS["things"], "share_it") if i.op in (Opcode.CALL_GENERIC, Opcode.CALL)
        )
        return [
            op(Opcode.MOVE_LOC, 0),
            unpack,
            op(Opcode.PACK, unpack.arg),
            share,
            op(Opcode.LD_U64, 0),
            op(Opcode.RET),
        ]

    refused = refusal(with_code(BASICS["things"], "destroy", reuse))
    assert (refused.status, refused.reason) == (SUI_RULE, "object_id")


def _code(module: CompiledModule, name: str) -> tuple[Instruction, ...]:
    body = module.functions[name].body
    assert body is not None
    return body.code


def test_only_the_module_of_a_type_transfers_it() -> None:
    # `sui::transfer::public_transfer<Coin<TOKEN>>` becomes `transfer`.
    module = BASICS["token"]
    handles = tuple(
        replace(handle, name=module.identifiers.index("transfer"))
        if module.identifiers[handle.name] == "public_transfer"
        else handle
        for handle in module.function_handles
    )
    refused = refusal(replace(module, function_handles=handles))
    assert (refused.status, refused.reason) == (SUI_RULE, "private_generic")


def test_the_witness_is_never_made_by_hand() -> None:
    module = BASICS["token"]
    witness = next(i for i, s in enumerate(module.struct_defs) if module.datatype_name(s.handle) == "TOKEN")
    broken = with_code(
        module,
        "mint_twice",
        before(op(Opcode.LD_TRUE), op(Opcode.PACK, witness), op(Opcode.POP)),
    )
    assert refusal(broken).reason == "witness"


def test_init_is_private_and_takes_the_witness() -> None:
    public = with_function(BASICS["token"], "init", lambda f: replace(f, visibility=Visibility.PUBLIC))
    assert refusal(public).reason == "init"
    entry = with_function(BASICS["token"], "init", lambda f: replace(f, is_entry=True))
    assert refusal(entry).reason == "init"
    renamed = _function_named(BASICS["token"], "TOKEN", "COIN")
    assert refusal(renamed).reason == "init"


def test_init_is_never_called() -> None:
    module = BASICS["token"]
    init = next(i for i in range(len(module.function_handles)) if module.function_name(i) == "init")
    called = with_code(module, "mint_twice", lambda code: [op(Opcode.CALL, init), *code])
    assert refusal(called).reason in ("unbalanced_stack", "init_called")


def test_entry_functions_take_what_a_transaction_can_give() -> None:
    # `open_shop` takes the clock immutably; a mutable clock would be the system's alone.
    entry = with_function(BASICS["places"], "same", lambda f: replace(f, is_entry=True))
    refused = refusal(entry)
    assert (refused.status, refused.reason, refused.item) == (SUI_RULE, "entry", "same")
    returning = with_function(BASICS["things"], "make", lambda f: replace(f, is_entry=True))
    assert refusal(returning).reason == "entry"


def test_natives_belong_to_the_framework() -> None:
    native = with_function(BASICS["places"], "point", lambda f: replace(f, body=None))
    assert refusal(native).reason == "native_function"


def test_malformed_bytes_are_refused() -> None:
    data = modules("basics")[0]
    for broken in (b"", b"\xa1\x1c\xeb\x0b", data[:-1], data + b"\0", bytes(40)):
        with pytest.raises(PackageRejected) as caught:
            WORLD.vm.build_package([broken], address(0x98), (STD, SUI))
        assert caught.value.status == MOVE


# ------------------------------------------------------------------------------------- against the genuine

_SWAPS = {
    Opcode.COPY_LOC: Opcode.MOVE_LOC,
    Opcode.MOVE_LOC: Opcode.COPY_LOC,
    Opcode.MUT_BORROW_LOC: Opcode.IMM_BORROW_LOC,
    Opcode.IMM_BORROW_LOC: Opcode.MUT_BORROW_LOC,
    Opcode.MUT_BORROW_FIELD: Opcode.IMM_BORROW_FIELD,
    Opcode.IMM_BORROW_FIELD: Opcode.MUT_BORROW_FIELD,
    Opcode.VEC_IMM_BORROW: Opcode.VEC_MUT_BORROW,
    Opcode.VEC_MUT_BORROW: Opcode.VEC_IMM_BORROW,
    Opcode.BR_TRUE: Opcode.BR_FALSE,
    Opcode.BR_FALSE: Opcode.BRANCH,
}
_EXTRAS = (op(Opcode.POP), op(Opcode.READ_REF), op(Opcode.FREEZE_REF), op(Opcode.LD_U64, 5), op(Opcode.RET))


def mutate(module: CompiledModule, chance: random.Random) -> CompiledModule:
    """One instruction of one function lost, doubled, swapped, weakened, or given another local or target."""
    function = chance.choice([f for f in module.function_defs if f.body is not None])
    assert function.body is not None
    code = list(function.body.code)
    at = chance.randrange(len(code))

    def pick(test: Callable[[Instruction], bool]) -> int:
        return chance.choice([i for i, instruction in enumerate(code) if test(instruction)] or [at])

    match chance.randrange(7):
        case 0:
            del code[at]
        case 1:
            code.insert(at, chance.choice(code))
        case 2:
            other = chance.randrange(len(code))
            code[at], code[other] = code[other], code[at]
        case 3:
            at = pick(lambda i: i.op in _SWAPS)
            code[at] = Instruction(_SWAPS.get(code[at].op, code[at].op), code[at].arg)
        case 4:
            at = pick(lambda i: OPERANDS[i.op] is OperandKind.LOCAL)
            if OPERANDS[code[at].op] is OperandKind.LOCAL:
                count = len(module.parameter_types(function)) + len(module.signatures[function.body.locals])
                code[at] = op(code[at].op, chance.randrange(count))
        case 5:
            at = pick(lambda i: OPERANDS[i.op] is OperandKind.CODE_OFFSET)
            if OPERANDS[code[at].op] is OperandKind.CODE_OFFSET:
                code[at] = op(code[at].op, chance.randrange(len(code)))
        case _:
            code.insert(at, chance.choice(_EXTRAS))
    code = [
        op(i.op, min(int(i.arg), len(code) - 1)) if OPERANDS[i.op] is OperandKind.CODE_OFFSET else i  # type: ignore[arg-type]
        for i in code
    ]
    return with_code(module, module.function_name(function.handle), lambda _: code)


_PROBES = {"places": "pop_empty", "shapes": "nothing", "generic": "names", "flow": "fail_plain"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_mutants_are_judged_as_by_the_genuine_verifier(seed: int) -> None:
    """The wheel's machine verifies a module before it calls into it; its verdict and ours are the same."""
    genuine = pytest.importorskip("genuine")
    others = {
        (package.original_id, name): deserialize(data)
        for package in genuine.genuine_packages()
        for name, data in package.modules.items()
    }
    originals = [deserialize(d) for d in genuine.placed(modules("basics")) if deserialize(d).name in _PROBES]
    chance = random.Random(seed)
    verdicts = []
    for turn in range(150):
        mutant = mutate(chance.choice(originals), chance)
        if chance.random() < 0.3:
            mutant = mutate(mutant, chance)
        data = write_module(mutant)
        try:
            deserialize(data)
        except BytecodeError:
            continue
        refused = ""
        try:
            verify_move(mutant, {**others, (mutant.address, mutant.name): mutant})
        except ModuleRefused as reason:
            refused = f"{reason.item}: {reason}"
        answer = genuine.genuine_call(mutant.name, _PROBES[mutant.name], [], modules=(data,))
        theirs = answer.failure not in ("", "ABORTED", "VECTOR_OPERATION_ERROR", "ARITHMETIC_ERROR")
        assert bool(refused) == theirs, f"seed {seed}, turn {turn}: ours {refused!r}, genuine {answer}"
        verdicts.append(theirs)
    assert 20 < sum(verdicts) < len(verdicts)
