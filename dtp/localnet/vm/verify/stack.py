"""Pass 5: the operand stack: balanced in every block, with the types and abilities that each instruction needs.

Blocks start and end with an empty stack, so each is checked once, in one walk from its start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dtp.localnet.limits import MAX_PUSHES, MAX_STACK
from dtp.localnet.vm.blocks import block_starts
from dtp.localnet.vm.types import COPY, DROP, abilities_text
from dtp.localnet.vm.verify.common import ModuleRefused, abilities, subsumes
from dtp.localnet.vm.verify.shapes import effect, struct_fields, substitute, variant_of
from dtp.localnet.vm.verify.structure import check_arguments, check_token
from dtp.sui.bytecode import (
    CompiledModule,
    DatatypeType,
    FunctionDef,
    Opcode,
    Primitive,
    ReferenceType,
    Signature,
    SignatureToken,
    VectorType,
)

__all__ = ["check"]

_INTEGERS = frozenset(
    {Primitive.U8, Primitive.U16, Primitive.U32, Primitive.U64, Primitive.U128, Primitive.U256}
)
_LITERALS = {
    Opcode.LD_U8: Primitive.U8,
    Opcode.LD_U16: Primitive.U16,
    Opcode.LD_U32: Primitive.U32,
    Opcode.LD_U64: Primitive.U64,
    Opcode.LD_U128: Primitive.U128,
    Opcode.LD_U256: Primitive.U256,
    Opcode.LD_TRUE: Primitive.BOOL,
    Opcode.LD_FALSE: Primitive.BOOL,
}
_CASTS = {
    Opcode.CAST_U8: Primitive.U8,
    Opcode.CAST_U16: Primitive.U16,
    Opcode.CAST_U32: Primitive.U32,
    Opcode.CAST_U64: Primitive.U64,
    Opcode.CAST_U128: Primitive.U128,
    Opcode.CAST_U256: Primitive.U256,
}
_SAME_INTEGERS = frozenset(
    {Opcode.ADD, Opcode.SUB, Opcode.MUL, Opcode.DIV, Opcode.MOD, Opcode.BIT_AND, Opcode.BIT_OR, Opcode.XOR}
)
_ORDERINGS = frozenset({Opcode.LT, Opcode.GT, Opcode.LE, Opcode.GE})


def check(module: CompiledModule, function: FunctionDef) -> None:
    """Raise `ModuleRefused` unless every instruction of the function finds what it needs."""
    assert function.body is not None
    code = function.body.code
    name = module.function_name(function.handle)
    handle = module.function_handles[function.handle]
    constraints = [int(a) for a in handle.type_parameters]
    for token in module.signatures[function.body.locals]:
        check_token(module, token, constraints, name, references=True)
    starts = set(block_starts(function.body))
    checker = _Checker(module, function, name, constraints)
    pushed = 0
    for at, (op, argument) in enumerate(code):
        if at in starts:
            if checker.stack:
                raise ModuleRefused(
                    "unbalanced_stack", "values are left on the stack at a block's end", item=name, offset=at
                )
            pushed = 0
        checker.at = at
        pushed += effect(module, op, argument)[1]
        if pushed > MAX_PUSHES:
            raise checker.make_refusal(
                "value_stack_push_overflow", f"a block pushes over {MAX_PUSHES} values"
            )
        checker.check_instruction(op, argument)
        if len(checker.stack) > MAX_STACK:
            raise checker.make_refusal("value_stack_overflow", f"over {MAX_STACK} values on the stack")
    if checker.stack:
        raise ModuleRefused("unbalanced_stack", "values are left on the stack at a block's end", item=name)


class _Checker:
    """The types on the stack while one function is walked."""

    def __init__(
        self, module: CompiledModule, function: FunctionDef, name: str, constraints: list[int]
    ) -> None:
        assert function.body is not None
        handle = module.function_handles[function.handle]
        self.module = module
        self.body = function.body
        self.name = name
        self.constraints = constraints
        self.locals = (*module.signatures[handle.parameters], *module.signatures[function.body.locals])
        self.returns = module.signatures[handle.returns]
        self.stack: list[SignatureToken] = []
        self.at = 0

    # ---------------------------------------------------------------------------------------------- helpers

    def make_refusal(self, reason: str, message: str) -> ModuleRefused:
        return ModuleRefused(reason, message, item=self.name, offset=self.at)

    def pop_token(self) -> SignatureToken:
        if not self.stack:
            raise self.make_refusal("unbalanced_stack", "the stack is empty")
        return self.stack.pop()

    def pop_wanted(self, wanted: SignatureToken) -> None:
        found = self.pop_token()
        if found != wanted:
            type_name = self.module.type_name
            raise self.make_refusal(
                "type_mismatch", f"{type_name(found)} where {type_name(wanted)} is needed"
            )

    def want_all(self, wanted: list[SignatureToken] | Signature) -> None:
        for token in reversed(wanted):
            self.pop_wanted(token)

    def need_ability(self, token: SignatureToken, ability: int) -> None:
        has = abilities(self.module, token, self.constraints)
        if not subsumes(has, ability):
            raise self.make_refusal(
                "missing_ability",
                f"{self.module.type_name(token)} has not the ability {abilities_text(ability)}",
            )

    def pop_reference(self, mutable: bool = False) -> ReferenceType:
        found = self.pop_token()
        if not isinstance(found, ReferenceType) or (mutable and not found.mutable):
            kind = "mutable reference" if mutable else "reference"
            raise self.make_refusal("type_mismatch", f"{self.module.type_name(found)} is not a {kind}")
        return found

    def pop_integer(self) -> SignatureToken:
        found = self.pop_token()
        if found not in _INTEGERS:
            raise self.make_refusal("type_mismatch", f"{self.module.type_name(found)} is not an integer")
        return found

    def type_arguments(self, signature: int, needed: list[int]) -> Signature:
        arguments = self.module.signatures[signature]
        check_arguments(self.module, arguments, needed, self.constraints, self.name, self.at)
        for token in arguments:
            check_token(self.module, token, self.constraints, self.name, references=False, offset=self.at)
        return arguments

    def datatype_arguments(self, handle: int, signature: int) -> Signature:
        parameters = self.module.datatype_handles[handle].type_parameters
        return self.type_arguments(signature, [int(p.constraints) for p in parameters])

    def not_generic(self, handle: int) -> None:
        if self.module.datatype_handles[handle].type_parameters:
            raise self.make_refusal("type_arity", "a generic datatype without type arguments")

    def vector_element(self, signature: int) -> SignatureToken:
        tokens = self.module.signatures[signature]
        if len(tokens) != 1:
            raise self.make_refusal("type_arity", f"a vector has one element type, got {len(tokens)}")
        check_token(self.module, tokens[0], self.constraints, self.name, references=False, offset=self.at)
        return tokens[0]

    # ----------------------------------------------------------------------------------------- instructions

    def check_instruction(self, op: Opcode, argument: Any) -> None:
        """Check one instruction."""
        if (literal := _LITERALS.get(op)) is not None:
            self.stack.append(literal)
        elif (target := _CASTS.get(op)) is not None:
            self.pop_integer()
            self.stack.append(target)
        elif op in _SAME_INTEGERS:
            right = self.pop_integer()
            self.pop_wanted(right)
            self.stack.append(right)
        elif op in _ORDERINGS:
            self.pop_wanted(self.pop_integer())
            self.stack.append(Primitive.BOOL)
        else:
            _STEPS[op](self, argument)

    def _check_pop(self, _: None) -> None:
        self.need_ability(self.pop_token(), DROP)

    def _check_return(self, _: None) -> None:
        self.want_all(self.returns)

    def _check_condition(self, _: int) -> None:
        self.pop_wanted(Primitive.BOOL)

    def _check_nothing(self, _: Any) -> None:
        return

    def _check_abort(self, _: None) -> None:
        self.pop_wanted(Primitive.U64)
        # What waits below is lost with the program; the stack must still be empty, as at every block's end.

    def _load_constant(self, index: int) -> None:
        self.stack.append(self.module.constants[index].type)

    def _copy_local(self, local: int) -> None:
        self.need_ability(self.locals[local], COPY)
        self.stack.append(self.locals[local])

    def _move_local(self, local: int) -> None:
        self.stack.append(self.locals[local])

    def _store_local(self, local: int) -> None:
        self.pop_wanted(self.locals[local])

    def _borrow_local(self, local: int, mutable: bool) -> None:
        token = self.locals[local]
        if isinstance(token, ReferenceType):
            raise self.make_refusal("type_mismatch", "a reference to a reference")
        self.stack.append(ReferenceType(token, mutable))

    def _borrow_field(self, handle: int, mutable: bool, arguments: Signature = ()) -> None:
        entry = self.module.field_handles[handle]
        struct, fields = struct_fields(self.module, entry.owner, arguments)
        if not arguments:
            self.not_generic(self.module.struct_defs[entry.owner].handle)
        owner = self.pop_reference(mutable)
        if owner.target != struct:
            raise self.make_refusal("type_mismatch", f"{self.module.type_name(owner)} has no such field")
        self.stack.append(ReferenceType(fields[entry.field], mutable))

    def _borrow_field_generic(self, index: int, mutable: bool) -> None:
        entry = self.module.field_instantiations[index]
        definition = self.module.field_handles[entry.target].owner
        arguments = self.datatype_arguments(self.module.struct_defs[definition].handle, entry.type_arguments)
        self._borrow_field(entry.target, mutable, arguments)

    def _check_call(self, handle: int, arguments: Signature | None = None) -> None:
        entry = self.module.function_handles[handle]
        if arguments is None:
            if entry.type_parameters:
                raise self.make_refusal("type_arity", "a generic function without type arguments")
            arguments = ()
        self.want_all([substitute(t, arguments) for t in self.module.signatures[entry.parameters]])
        self.stack.extend(substitute(t, arguments) for t in self.module.signatures[entry.returns])

    def _call_generic(self, index: int) -> None:
        entry = self.module.function_instantiations[index]
        needed = [int(a) for a in self.module.function_handles[entry.target].type_parameters]
        if not needed:
            raise self.make_refusal("type_arity", "type arguments for a function that takes none")
        self._check_call(entry.target, self.type_arguments(entry.type_arguments, needed))

    def _check_pack(self, definition: int, unpack: bool) -> None:
        self.not_generic(self.module.struct_defs[definition].handle)
        self._pack_fields(*struct_fields(self.module, definition, ()), unpack)

    def _pack_generic(self, index: int, unpack: bool) -> None:
        entry = self.module.struct_instantiations[index]
        arguments = self.datatype_arguments(
            self.module.struct_defs[entry.target].handle, entry.type_arguments
        )
        self._pack_fields(*struct_fields(self.module, entry.target, arguments), unpack)

    def _pack_fields(self, owner: SignatureToken, fields: list[SignatureToken], unpack: bool) -> None:
        if unpack:
            self.pop_wanted(owner)
            self.stack.extend(fields)
        else:
            self.want_all(fields)
            self.stack.append(owner)

    def _resolve_variant(self, handle: int, generic: bool) -> tuple[SignatureToken, list[SignatureToken]]:
        definition, _, enum, fields, _ = variant_of(self.module, handle, generic)
        declared = self.module.enum_defs[definition].handle
        if generic:
            instance = self.module.enum_instantiations[self.module.variant_instantiations[handle].enum]
            self.datatype_arguments(declared, instance.type_arguments)
        else:
            self.not_generic(declared)
        return enum, fields

    def _pack_variant(self, handle: int, generic: bool, unpack: bool) -> None:
        self._pack_fields(*self._resolve_variant(handle, generic), unpack)

    def _unpack_variant_reference(self, handle: int, generic: bool, mutable: bool) -> None:
        enum, fields = self._resolve_variant(handle, generic)
        if self.pop_reference(mutable).target != enum:
            raise self.make_refusal(
                "type_mismatch", f"a reference to {self.module.type_name(enum)} is needed"
            )
        self.stack.extend(ReferenceType(f, mutable) for f in fields)

    def _check_switch(self, table: int) -> None:
        reference = self.pop_reference()
        if reference.mutable:
            raise self.make_refusal("type_mismatch", "a switch looks at an enum by an immutable reference")
        found = reference.target
        enum = self.module.enum_defs[self.body.jump_tables[table].enum]
        if not isinstance(found, DatatypeType) or found.handle != enum.handle:
            raise self.make_refusal("type_mismatch", "a switch over another enum")

    def _check_read(self, _: None) -> None:
        target = self.pop_reference().target
        self.need_ability(target, COPY)
        self.stack.append(target)

    def _check_write(self, _: None) -> None:
        target = self.pop_reference(mutable=True).target
        self.need_ability(target, DROP)
        self.pop_wanted(target)

    def _check_freeze(self, _: None) -> None:
        self.stack.append(ReferenceType(self.pop_reference(mutable=True).target, False))

    def _check_shift(self, _: None) -> None:
        self.pop_wanted(Primitive.U8)
        self.stack.append(self.pop_integer())

    def _check_logic(self, _: None) -> None:
        self.pop_wanted(Primitive.BOOL)
        self.pop_wanted(Primitive.BOOL)
        self.stack.append(Primitive.BOOL)

    def _check_not(self, _: None) -> None:
        self.pop_wanted(Primitive.BOOL)
        self.stack.append(Primitive.BOOL)

    def _check_equal(self, _: None) -> None:
        right = self.pop_token()
        self.pop_wanted(right)
        self.need_ability(right, DROP)
        self.stack.append(Primitive.BOOL)

    def _vector_pack(self, argument: tuple[int, int]) -> None:
        element = self.vector_element(argument[0])
        for _ in range(argument[1]):
            self.pop_wanted(element)
        self.stack.append(VectorType(element))

    def _vector_unpack(self, argument: tuple[int, int]) -> None:
        element = self.vector_element(argument[0])
        self.pop_wanted(VectorType(element))
        self.stack.extend([element] * argument[1])

    def _vector_reference(self, signature: int, mutable: bool) -> SignatureToken:
        element = self.vector_element(signature)
        if self.pop_reference(mutable).target != VectorType(element):
            raise self.make_refusal("type_mismatch", "a reference to another vector")
        return element

    def _vector_length(self, signature: int) -> None:
        self._vector_reference(signature, False)
        self.stack.append(Primitive.U64)

    def _vector_borrow(self, signature: int, mutable: bool) -> None:
        self.pop_wanted(Primitive.U64)
        self.stack.append(ReferenceType(self._vector_reference(signature, mutable), mutable))

    def _vector_push(self, signature: int) -> None:
        self.pop_wanted(self.vector_element(signature))
        self._vector_reference(signature, True)

    def _vector_pop(self, signature: int) -> None:
        self.stack.append(self._vector_reference(signature, True))

    def _vector_swap(self, signature: int) -> None:
        self.pop_wanted(Primitive.U64)
        self.pop_wanted(Primitive.U64)
        self._vector_reference(signature, True)


_C = _Checker
_STEPS: dict[Opcode, Callable[[_Checker, Any], None]] = {
    Opcode.POP: _C._check_pop,
    Opcode.RET: _C._check_return,
    Opcode.BR_TRUE: _C._check_condition,
    Opcode.BR_FALSE: _C._check_condition,
    Opcode.BRANCH: _C._check_nothing,
    Opcode.NOP: _C._check_nothing,
    Opcode.ABORT: _C._check_abort,
    Opcode.LD_CONST: _C._load_constant,
    Opcode.COPY_LOC: _C._copy_local,
    Opcode.MOVE_LOC: _C._move_local,
    Opcode.ST_LOC: _C._store_local,
    Opcode.MUT_BORROW_LOC: lambda c, a: c._borrow_local(a, True),
    Opcode.IMM_BORROW_LOC: lambda c, a: c._borrow_local(a, False),
    Opcode.MUT_BORROW_FIELD: lambda c, a: c._borrow_field(a, True),
    Opcode.IMM_BORROW_FIELD: lambda c, a: c._borrow_field(a, False),
    Opcode.MUT_BORROW_FIELD_GENERIC: lambda c, a: c._borrow_field_generic(a, True),
    Opcode.IMM_BORROW_FIELD_GENERIC: lambda c, a: c._borrow_field_generic(a, False),
    Opcode.CALL: lambda c, a: c._check_call(a),
    Opcode.CALL_GENERIC: _C._call_generic,
    Opcode.PACK: lambda c, a: c._check_pack(a, False),
    Opcode.UNPACK: lambda c, a: c._check_pack(a, True),
    Opcode.PACK_GENERIC: lambda c, a: c._pack_generic(a, False),
    Opcode.UNPACK_GENERIC: lambda c, a: c._pack_generic(a, True),
    Opcode.PACK_VARIANT: lambda c, a: c._pack_variant(a, False, False),
    Opcode.PACK_VARIANT_GENERIC: lambda c, a: c._pack_variant(a, True, False),
    Opcode.UNPACK_VARIANT: lambda c, a: c._pack_variant(a, False, True),
    Opcode.UNPACK_VARIANT_GENERIC: lambda c, a: c._pack_variant(a, True, True),
    Opcode.UNPACK_VARIANT_IMM_REF: lambda c, a: c._unpack_variant_reference(a, False, False),
    Opcode.UNPACK_VARIANT_MUT_REF: lambda c, a: c._unpack_variant_reference(a, False, True),
    Opcode.UNPACK_VARIANT_GENERIC_IMM_REF: lambda c, a: c._unpack_variant_reference(a, True, False),
    Opcode.UNPACK_VARIANT_GENERIC_MUT_REF: lambda c, a: c._unpack_variant_reference(a, True, True),
    Opcode.VARIANT_SWITCH: _C._check_switch,
    Opcode.READ_REF: _C._check_read,
    Opcode.WRITE_REF: _C._check_write,
    Opcode.FREEZE_REF: _C._check_freeze,
    Opcode.SHL: _C._check_shift,
    Opcode.SHR: _C._check_shift,
    Opcode.OR: _C._check_logic,
    Opcode.AND: _C._check_logic,
    Opcode.NOT: _C._check_not,
    Opcode.EQ: _C._check_equal,
    Opcode.NEQ: _C._check_equal,
    Opcode.VEC_PACK: _C._vector_pack,
    Opcode.VEC_UNPACK: _C._vector_unpack,
    Opcode.VEC_LEN: _C._vector_length,
    Opcode.VEC_IMM_BORROW: lambda c, a: c._vector_borrow(a, False),
    Opcode.VEC_MUT_BORROW: lambda c, a: c._vector_borrow(a, True),
    Opcode.VEC_PUSH_BACK: _C._vector_push,
    Opcode.VEC_POP_BACK: _C._vector_pop,
    Opcode.VEC_SWAP: _C._vector_swap,
}
