"""What each instruction becomes in Python: one small function per instruction, in the table `_EMITTERS`.

An emitter pops operands off the translation's stack, writes the lines that must run now and pushes the result as an
expression. What can fail is written as a line of its own, in the order of the bytecode; what can't (comparisons,
borrows of fields, reads of locals) stays an expression until it is used. Reads through references happen now,
because memory may change before the value is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dtp.localnet.limits import MAX_VALUE_DEPTH, MAX_VECTOR_LENGTH
from dtp.localnet.vm.operand import Operand
from dtp.localnet.vm.signals import (
    VECTOR_INDEX_OUT_OF_BOUNDS,
    VECTOR_POP_EMPTY,
    VECTOR_TOO_LONG,
    VECTOR_UNPACK_PARITY,
)
from dtp.localnet.vm.sizes import (
    PRIMITIVE_SIZE,
    REFERENCE_SIZE,
    STRUCT_SIZE,
    VECTOR_SIZE,
    static_size,
)
from dtp.localnet.vm.types import INTEGER_BITS, Type
from dtp.localnet.vm.values import copier, decode
from dtp.sui.bytecode import Instruction, Opcode

if TYPE_CHECKING:
    from dtp.localnet.vm.translate import Translation

__all__ = ["emit"]

_MAXIMA = {name: str((1 << bits) - 1) for name, bits in INTEGER_BITS.items()}


def emit(t: Translation, instruction: Instruction) -> bool:
    """Translate one instruction; True if it ends the function."""
    return bool(_EMITTERS[instruction.op](t, instruction.arg))


def _operand(text: str, type: Type, *sources: Operand) -> Operand:
    locals: frozenset[int] = frozenset().union(*(s.locals for s in sources)) if sources else frozenset()
    return Operand(text, type, locals)


def _primitive(t: Translation, name: str) -> Type:
    return t.module.types.primitives[name]


# ------------------------------------------------------------------------------------------------- control


def _pop(t: Translation, _: Any) -> None:
    # An expression that waits has no effect, so it need not be evaluated to be dropped.
    operand = t.pop_operand()
    del operand


def _ret(t: Translation, _: Any) -> bool:
    values = [operand.text for operand in t.pop_many(len(t.returns))]
    t.emit_line("c.depth -= 1")
    t.emit_line(f"return {'(' + ', '.join(values) + ')' if len(values) > 1 else ''.join(values)}".rstrip())
    return True


def _abort(t: Translation, _: Any) -> bool:
    t.emit_line(f"raise Abort({t.pop_operand().text})")
    return True


def _nop(t: Translation, _: Any) -> None:
    return


def _call(t: Translation, handle: int, type_arguments: tuple[Type, ...] = ()) -> None:
    callee = t.module.called_function(handle)
    returns = [callee.module.resolve_type(token, type_arguments) for token in callee.returns]
    arguments = ["c"]
    if callee.definition.is_native:
        name = t.name_global("native", t.native(callee))
        arguments.append(t.name_global("types", type_arguments))
    else:
        name = t.name_callee(callee, type_arguments)
    arguments += [operand.text for operand in t.pop_many(len(callee.parameters))]
    # A call may change what a waiting expression reads only through references it was given, and then no
    # reference to that place waits here: reference safety. Locals themselves can't be changed by a call.
    results = [t.new_temporary() for _ in returns]
    call = f"{', '.join(results)}{' = ' if results else ''}{name}({', '.join(arguments)})"
    waiting = len(t.stack)
    if waiting and not callee.definition.is_native:
        call = f"c.stack += {waiting}; {call}; c.stack -= {waiting}"
    t.emit_line(call)
    for variable, type in zip(results, returns, strict=True):
        t.push_operand(t.variable_operand(variable, type))
    if callee.definition.is_native:
        t.charge_native()
        for variable, type in zip(results, returns, strict=True):
            t.charge_value(type, variable)
    else:
        t.charge_pushes(-len(returns))


def _call_generic(t: Translation, index: int) -> None:
    entry = t.module.module.function_instantiations[index]
    _call(t, entry.target, _types(t, entry.type_arguments))


def _types(t: Translation, signature: int) -> tuple[Type, ...]:
    return tuple(t.resolve_type(token) for token in t.module.module.signatures[signature])


# ------------------------------------------------------------------------------------- constants and locals


def _load_integer(name: str) -> Callable[[Translation, int], None]:
    def load(t: Translation, value: int) -> None:
        t.push_operand(_operand(str(value), _primitive(t, name)))
        t.charge_size(PRIMITIVE_SIZE)

    return load


def _load_bool(value: bool) -> Callable[[Translation, Any], None]:
    def load(t: Translation, _: Any) -> None:
        t.push_operand(_operand(str(value), _primitive(t, "bool")))
        t.charge_size(PRIMITIVE_SIZE)

    return load


def _load_constant(t: Translation, index: int) -> None:
    constant = t.module.module.constants[index]
    type = t.resolve_type(constant.type)
    value = decode(type, constant.data)
    t.charge_size(len(constant.data))
    copy = copier(type)
    if copy is None:
        t.push_operand(
            _operand(str(value) if isinstance(value, int) else t.name_global("constant", value), type)
        )
        return
    t.push_result(f"{t.name_global('copy', copy)}({t.name_global('constant', value)})", type)


def _copy_local(t: Translation, local: int) -> None:
    type = t.local_types[local]
    variable = f"l{local}"
    copy = copier(type)
    if local in t.boxed:
        t.charge_value(type, variable)
        t.push_result(f"{variable}[0]", type)
    elif copy is not None:
        t.charge_value(type, variable)
        t.push_result(f"{t.name_global('copy', copy)}({variable})", type)
    else:
        t.charge_value(type, variable)
        t.push_operand(t.variable_operand(variable, type, frozenset((local,))))


def _move_local(t: Translation, local: int) -> None:
    type = t.local_types[local]
    variable = f"l{local}"
    t.charge_size(REFERENCE_SIZE)  # whatever is moved
    if local in t.boxed:
        t.push_result(f"{variable}[0]", type)
    else:
        t.push_operand(t.variable_operand(variable, type, frozenset((local,))))


def _store_local(t: Translation, local: int) -> None:
    value = t.pop_operand()
    t.spill_readers(local)
    t.emit_line(f"l{local} = [{value.text}]" if local in t.boxed else f"l{local} = {value.text}")


def _borrow_local(mutable: bool) -> Callable[[Translation, int], None]:
    def borrow(t: Translation, local: int) -> None:
        type = t.module.types.make_reference(t.local_types[local], mutable)
        t.charge_size(REFERENCE_SIZE)
        variable, reads = f"l{local}", frozenset((local,))
        if local in t.boxed:
            t.push_operand(t.reference_operand(variable, "0", type, reads))
        else:
            t.push_operand(t.variable_operand(variable, type, reads))

    return borrow


# ---------------------------------------------------------------------------------------------- references


def _borrow_field(mutable: bool) -> Callable[[Translation, int], None]:
    def borrow(t: Translation, handle: int) -> None:
        _field_of(t, handle, (), mutable)

    return borrow


def _borrow_field_generic(mutable: bool) -> Callable[[Translation, int], None]:
    def borrow(t: Translation, index: int) -> None:
        entry = t.module.module.field_instantiations[index]
        _field_of(t, entry.target, _types(t, entry.type_arguments), mutable)

    return borrow


def _field_of(t: Translation, handle: int, arguments: tuple[Type, ...], mutable: bool) -> None:
    entry = t.module.module.field_handles[handle]
    struct = _struct(t, entry.owner, arguments)
    reference = t.module.types.make_reference(struct.fields[entry.field], mutable)
    owner = t.pop_operand()
    t.push_operand(t.reference_operand(owner.text, str(entry.field), reference, owner.locals))
    t.charge_size(REFERENCE_SIZE)


def _read_ref(t: Translation, _: Any) -> None:
    reference = t.pop_operand()
    type = reference.type.element
    copy = copier(type)
    t.charge_size(REFERENCE_SIZE)  # and what it refers to
    if copy is None:
        t.charge_value(type, "")
        t.push_result(t.read_target(reference), type)
        return
    if not reference.is_atom:
        reference = t.evaluate_now(reference)
    t.charge_value(type, reference.text)
    t.push_result(f"{t.name_global('copy', copy)}({reference.text})", type)


def _write_ref(t: Translation, _: Any) -> None:
    reference = t.pop_operand()
    value = t.pop_operand()
    type = reference.type.element
    if type.is_container:
        value = t.to_atom(value)
        t.charge_value(type, value.text)
        t.emit_line(f"{reference.text}[:] = {value.text}")
        return
    t.charge_size(static_size(type) or 0)
    t.emit_line(f"{t.read_target(reference)} = {value.text}")


def _freeze(t: Translation, _: Any) -> None:
    operand = t.pop_operand()
    operand.type = t.module.types.make_reference(operand.type.element, False)
    t.push_operand(operand)
    t.charge_size(REFERENCE_SIZE)


# ---------------------------------------------------------------------------------------------- arithmetic


def _checked(operator: str, check: str) -> Callable[[Translation, Any], None]:
    """Return code that computes and checks; `check` is the failing condition on the result `{r}` of a type whose
    largest value is `{m}`."""

    def compute(t: Translation, _: Any) -> None:
        right, left = t.pop_operand(), t.pop_operand()
        result = t.new_temporary()
        t.emit_line(f"{result} = {left.text} {operator} {right.text}")
        t.emit_line(
            f"if {check.format(r=result, m=_MAXIMA[left.type.kind])}: raise PrimitiveError('arithmetic')"
        )
        t.push_operand(t.variable_operand(result, left.type))
        t.charge_size(PRIMITIVE_SIZE)

    return compute


def _divide(operator: str) -> Callable[[Translation, Any], None]:
    def compute(t: Translation, _: Any) -> None:
        right, left = t.pop_atom(), t.pop_operand()
        if not right.text.isdigit() or right.text == "0":
            # A divisor that is zero stops the program before anything that still waits is evaluated.
            t.emit_line(f"if {right.text} == 0: raise PrimitiveError('arithmetic')")
        t.push_result(f"{left.text} {operator} {right.text}", left.type)
        t.charge_size(PRIMITIVE_SIZE)

    return compute


def _bitwise(operator: str) -> Callable[[Translation, Any], None]:
    def compute(t: Translation, _: Any) -> None:
        right, left = t.pop_operand(), t.pop_operand()
        t.push_operand(_operand(f"({left.text} {operator} {right.text})", left.type, left, right))
        t.charge_size(PRIMITIVE_SIZE)

    return compute


def _shift(left_shift: bool) -> Callable[[Translation, Any], None]:
    def compute(t: Translation, _: Any) -> None:
        amount, value = t.pop_atom(), t.pop_operand()
        bits = INTEGER_BITS[value.type.kind]
        if bits < 256:
            t.emit_line(f"if {amount.text} >= {bits}: raise PrimitiveError('arithmetic')")
        text = (
            f"({value.text} << {amount.text}) & {_MAXIMA[value.type.kind]}"
            if left_shift
            else (f"{value.text} >> {amount.text}")
        )
        t.push_result(text, value.type)
        t.charge_size(PRIMITIVE_SIZE)

    return compute


def _cast(name: str) -> Callable[[Translation, Any], None]:
    def convert(t: Translation, _: Any) -> None:
        value = t.pop_operand()
        type = _primitive(t, name)
        if INTEGER_BITS[value.type.kind] > INTEGER_BITS[name]:
            value = t.to_atom(value)
            t.emit_line(f"if {value.text} > {_MAXIMA[name]}: raise PrimitiveError('arithmetic')")
        t.push_operand(_operand(value.text, type, value))
        t.charge_size(PRIMITIVE_SIZE)

    return convert


def _compare(operator: str) -> Callable[[Translation, Any], None]:
    def compute(t: Translation, _: Any) -> None:
        right, left = t.pop_operand(), t.pop_operand()
        t.push_operand(_operand(f"({left.text} {operator} {right.text})", _primitive(t, "bool"), left, right))
        t.charge_size(PRIMITIVE_SIZE)

    return compute


def _equality(operator: str) -> Callable[[Translation, Any], None]:
    def compute(t: Translation, _: Any) -> None:
        right, left = t.pop_operand(), t.pop_operand()
        reference = left.type.is_reference
        type = left.type.element if reference else left.type
        t.charge_size(PRIMITIVE_SIZE + (2 * REFERENCE_SIZE if reference else 0))
        if type.is_container:
            left, right = t.to_atom(left), t.to_atom(right)
            t.charge_value(type, left.text)
            t.charge_value(type, right.text)
        else:
            t.charge_size(2 * (static_size(type) or 0))
        if reference:
            # Read now: memory may change before the result is used.
            t.push_result(f"{t.read_target(left)} {operator} {t.read_target(right)}", _primitive(t, "bool"))
        else:
            t.push_operand(
                _operand(f"({left.text} {operator} {right.text})", _primitive(t, "bool"), left, right)
            )

    return compute


def _not(t: Translation, _: Any) -> None:
    value = t.pop_operand()
    t.push_operand(_operand(f"(not {value.text})", value.type, value))
    t.charge_size(PRIMITIVE_SIZE)


# --------------------------------------------------------------------------------------- structs and enums


def _struct(t: Translation, definition: int, arguments: tuple[Type, ...]) -> Type:
    handle = t.module.module.struct_defs[definition].handle
    return t.module.types.make_instance(t.module.datatype_of(handle), arguments)


def _struct_instance(t: Translation, index: int) -> Type:
    entry = t.module.module.struct_instantiations[index]
    return _struct(t, entry.target, _types(t, entry.type_arguments))


def _pack(t: Translation, definition: int) -> None:
    _pack_struct(t, _struct(t, definition, ()))


def _pack_generic(t: Translation, index: int) -> None:
    _pack_struct(t, _struct_instance(t, index))


def _check_depth(t: Translation, type: Type) -> None:
    """Raise where values that are made nest too deep."""
    if type.value_depth > MAX_VALUE_DEPTH:
        t.emit_line("raise PrimitiveError('value_depth')")


def _pack_struct(t: Translation, struct: Type) -> None:
    _check_depth(t, struct)
    fields = t.pop_many(len(struct.fields))
    t.push_result(f"[{', '.join(f.text for f in fields)}]", struct)
    t.charge_size(STRUCT_SIZE)


def _unpack(t: Translation, definition: int) -> None:
    _unpack_struct(t, _struct(t, definition, ()))


def _unpack_generic(t: Translation, index: int) -> None:
    _unpack_struct(t, _struct_instance(t, index))


def _unpack_struct(t: Translation, struct: Type) -> None:
    _push_fields(t, t.pop_operand(), struct.fields)


def _push_fields(t: Translation, value: Operand, fields: tuple[Type, ...], skip: int = 0) -> None:
    if not fields:
        return
    variables = [t.new_temporary() for _ in fields]
    source = f"{value.text}[{skip}:]" if skip else value.text
    t.emit_line(f"{', '.join(variables)}, = {source}")
    for variable, type in zip(variables, fields, strict=True):
        t.push_operand(t.variable_operand(variable, type))


def _variant(t: Translation, handle: int, generic: bool) -> tuple[Type, int]:
    module = t.module.module
    if generic:
        entry = module.variant_instantiations[handle]
        instance = module.enum_instantiations[entry.enum]
        definition, arguments = instance.target, _types(t, instance.type_arguments)
    else:
        entry = module.variant_handles[handle]
        definition, arguments = entry.enum, ()
    datatype = t.module.datatype_of(module.enum_defs[definition].handle)
    return t.module.types.make_instance(datatype, arguments), entry.variant


def _pack_variant(generic: bool) -> Callable[[Translation, int], None]:
    def pack(t: Translation, handle: int) -> None:
        enum, variant = _variant(t, handle, generic)
        _check_depth(t, enum)
        fields = t.pop_many(len(enum.variants[variant]))
        t.push_result(f"[{', '.join([str(variant), *(f.text for f in fields)])}]", enum)
        t.charge_size(STRUCT_SIZE)

    return pack


def _check_variant(t: Translation, value: Operand, variant: int) -> None:
    t.emit_line(f"if {value.text}[0] != {variant}: raise PrimitiveError('variant')")


def _unpack_variant(generic: bool) -> Callable[[Translation, int], None]:
    def unpack(t: Translation, handle: int) -> None:
        enum, variant = _variant(t, handle, generic)
        value = t.pop_atom()
        _check_variant(t, value, variant)
        _push_fields(t, value, enum.variants[variant], skip=1)

    return unpack


def _unpack_variant_reference(generic: bool, mutable: bool) -> Callable[[Translation, int], None]:
    def unpack(t: Translation, handle: int) -> None:
        enum, variant = _variant(t, handle, generic)
        value = t.pop_atom()
        _check_variant(t, value, variant)
        for at, type in enumerate(enum.variants[variant], 1):
            reference = t.module.types.make_reference(type, mutable)
            t.push_operand(t.reference_operand(value.text, str(at), reference, value.locals))

    return unpack


# ------------------------------------------------------------------------------------------------- vectors


def _element(t: Translation, signature: int) -> Type:
    return t.resolve_type(t.module.module.signatures[signature][0])


def _vector_pack(t: Translation, argument: tuple[int, int]) -> None:
    element = _element(t, argument[0])
    _check_depth(t, element)
    items = ", ".join(item.text for item in t.pop_many(argument[1]))
    vector = t.module.types.make_vector(element)
    if element.kind == "u8":
        t.push_result(f"bytearray(({items},))" if items else "bytearray()", vector)
    else:
        t.push_result(f"[{items}]", vector)
    t.charge_size(VECTOR_SIZE)


def _vector_unpack(t: Translation, argument: tuple[int, int]) -> None:
    element = _element(t, argument[0])
    vector = t.pop_atom()
    t.emit_line(
        f"if len({vector.text}) != {argument[1]}: raise PrimitiveError('vector', {VECTOR_UNPACK_PARITY})"
    )
    _push_fields(t, vector, (element,) * argument[1])


def _vector_length(t: Translation, _: int) -> None:
    t.push_result(f"len({t.pop_operand().text})", _primitive(t, "u64"))
    t.charge_size(PRIMITIVE_SIZE)


def _vector_borrow(mutable: bool) -> Callable[[Translation, int], None]:
    def borrow(t: Translation, signature: int) -> None:
        index, vector = t.pop_atom(), t.pop_atom()
        t.emit_line(
            f"if {index.text} >= len({vector.text}): raise PrimitiveError('vector', {VECTOR_INDEX_OUT_OF_BOUNDS})"
        )
        reference = t.module.types.make_reference(_element(t, signature), mutable)
        t.push_operand(t.reference_operand(vector.text, index.text, reference, vector.locals | index.locals))
        t.charge_size(REFERENCE_SIZE)

    return borrow


def _vector_push(t: Translation, _: int) -> None:
    value, vector = t.pop_operand(), t.pop_atom()
    t.emit_line(
        f"if len({vector.text}) >= {MAX_VECTOR_LENGTH}: raise PrimitiveError('vector', {VECTOR_TOO_LONG})"
    )
    t.emit_line(f"{vector.text}.append({value.text})")


def _vector_pop(t: Translation, signature: int) -> None:
    vector = t.pop_atom()
    t.emit_line(f"if not {vector.text}: raise PrimitiveError('vector', {VECTOR_POP_EMPTY})")
    t.push_result(f"{vector.text}.pop()", _element(t, signature))


def _vector_swap(t: Translation, _: int) -> None:
    second, first, vector = t.pop_atom(), t.pop_atom(), t.pop_atom()
    v, i, j = vector.text, first.text, second.text
    t.emit_line(
        f"if {i} >= len({v}) or {j} >= len({v}): raise PrimitiveError('vector', {VECTOR_INDEX_OUT_OF_BOUNDS})"
    )
    t.emit_line(f"{v}[{i}], {v}[{j}] = {v}[{j}], {v}[{i}]")


_EMITTERS: dict[Opcode, Callable[[Translation, Any], bool | None]] = {
    Opcode.POP: _pop,
    Opcode.RET: _ret,
    Opcode.ABORT: _abort,
    Opcode.NOP: _nop,
    Opcode.CALL: _call,
    Opcode.CALL_GENERIC: _call_generic,
    Opcode.LD_U8: _load_integer("u8"),
    Opcode.LD_U16: _load_integer("u16"),
    Opcode.LD_U32: _load_integer("u32"),
    Opcode.LD_U64: _load_integer("u64"),
    Opcode.LD_U128: _load_integer("u128"),
    Opcode.LD_U256: _load_integer("u256"),
    Opcode.LD_TRUE: _load_bool(True),
    Opcode.LD_FALSE: _load_bool(False),
    Opcode.LD_CONST: _load_constant,
    Opcode.COPY_LOC: _copy_local,
    Opcode.MOVE_LOC: _move_local,
    Opcode.ST_LOC: _store_local,
    Opcode.MUT_BORROW_LOC: _borrow_local(True),
    Opcode.IMM_BORROW_LOC: _borrow_local(False),
    Opcode.MUT_BORROW_FIELD: _borrow_field(True),
    Opcode.IMM_BORROW_FIELD: _borrow_field(False),
    Opcode.MUT_BORROW_FIELD_GENERIC: _borrow_field_generic(True),
    Opcode.IMM_BORROW_FIELD_GENERIC: _borrow_field_generic(False),
    Opcode.READ_REF: _read_ref,
    Opcode.WRITE_REF: _write_ref,
    Opcode.FREEZE_REF: _freeze,
    Opcode.ADD: _checked("+", "{r} > {m}"),
    Opcode.SUB: _checked("-", "{r} < 0"),
    Opcode.MUL: _checked("*", "{r} > {m}"),
    Opcode.DIV: _divide("//"),
    Opcode.MOD: _divide("%"),
    Opcode.BIT_OR: _bitwise("|"),
    Opcode.BIT_AND: _bitwise("&"),
    Opcode.XOR: _bitwise("^"),
    Opcode.SHL: _shift(True),
    Opcode.SHR: _shift(False),
    # Both operands of `Or` and `And` are evaluated already: nothing that could fail waits in an expression.
    Opcode.OR: _compare("or"),
    Opcode.AND: _compare("and"),
    Opcode.NOT: _not,
    Opcode.LT: _compare("<"),
    Opcode.GT: _compare(">"),
    Opcode.LE: _compare("<="),
    Opcode.GE: _compare(">="),
    Opcode.EQ: _equality("=="),
    Opcode.NEQ: _equality("!="),
    Opcode.CAST_U8: _cast("u8"),
    Opcode.CAST_U16: _cast("u16"),
    Opcode.CAST_U32: _cast("u32"),
    Opcode.CAST_U64: _cast("u64"),
    Opcode.CAST_U128: _cast("u128"),
    Opcode.CAST_U256: _cast("u256"),
    Opcode.PACK: _pack,
    Opcode.PACK_GENERIC: _pack_generic,
    Opcode.UNPACK: _unpack,
    Opcode.UNPACK_GENERIC: _unpack_generic,
    Opcode.PACK_VARIANT: _pack_variant(False),
    Opcode.PACK_VARIANT_GENERIC: _pack_variant(True),
    Opcode.UNPACK_VARIANT: _unpack_variant(False),
    Opcode.UNPACK_VARIANT_GENERIC: _unpack_variant(True),
    Opcode.UNPACK_VARIANT_IMM_REF: _unpack_variant_reference(False, False),
    Opcode.UNPACK_VARIANT_MUT_REF: _unpack_variant_reference(False, True),
    Opcode.UNPACK_VARIANT_GENERIC_IMM_REF: _unpack_variant_reference(True, False),
    Opcode.UNPACK_VARIANT_GENERIC_MUT_REF: _unpack_variant_reference(True, True),
    Opcode.VEC_PACK: _vector_pack,
    Opcode.VEC_UNPACK: _vector_unpack,
    Opcode.VEC_LEN: _vector_length,
    Opcode.VEC_IMM_BORROW: _vector_borrow(False),
    Opcode.VEC_MUT_BORROW: _vector_borrow(True),
    Opcode.VEC_PUSH_BACK: _vector_push,
    Opcode.VEC_POP_BACK: _vector_pop,
    Opcode.VEC_SWAP: _vector_swap,
}
