"""The reader of compiled modules, against a module that Sui's compiler made of `probe/` and against damage to it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.chain import packages
from dtp.sui.bytecode import (
    MAGIC,
    OPERANDS,
    UNPUBLISHABLE_MAGIC,
    Ability,
    AbortCode,
    BytecodeError,
    CompiledModule,
    Constant,
    DatatypeType,
    Fault,
    Opcode,
    OperandKind,
    Primitive,
    ReferenceType,
    TypeParameterIndex,
    VectorType,
    Visibility,
    constant_value,
    deserialize,
    package_digest,
)

SHAPES = (Path(__file__).parent / "probe/shapes.mv").read_bytes()
#: What the compiler said of the probe: `sui move build --dump` gives the same number.
SHAPES_DIGEST = "a98edd5781a0bfba71fe6c87f2c3df93f4123209ea0307020e38adcb37874754"


def refused(data: bytes) -> BytecodeError:
    """The refusal of these bytes."""
    with pytest.raises(BytecodeError) as caught:
        deserialize(data)
    return caught.value


def read(data: bytes) -> CompiledModule | BytecodeError:
    """The module, or why it was refused."""
    try:
        return deserialize(data)
    except BytecodeError as fault:
        return fault


def patched(offset: int, value: bytes, data: bytes = SHAPES) -> bytes:
    """The module with some bytes replaced."""
    return data[:offset] + value + data[offset + len(value) :]


def header(*tables: tuple[int, int, int], content: bytes = b"", tail: bytes = b"\x00") -> bytes:
    """A version 6 module of these (kind, offset, size) headers; every number below 128."""
    entries = b"".join(bytes(entry) for entry in tables)
    return MAGIC + (6).to_bytes(4, "little") + bytes([len(tables)]) + entries + content + tail


def single(kind: int, content: bytes) -> bytes:
    """A module with one table."""
    return header((kind, 0, len(content)), content=content)


# ---- what is in the probe


def test_names_and_version() -> None:
    module = deserialize(SHAPES)
    assert (module.version, module.name, module.address) == (7, "shapes", bytes(32))
    assert module.publishable
    assert list(module.structs) == ["Pair"]
    assert list(module.enums) == ["Shape", "Maybe"]
    assert module.dependencies == ((bytes(31) + b"\x01", "bcs"),)
    expected = "area grow box or some nothing pair swap check constants numbers hidden loops"
    assert list(module.functions) == expected.split()


def test_visibility_entry_and_signatures() -> None:
    module = deserialize(SHAPES)
    visibility = {name: function.visibility for name, function in module.functions.items()}
    assert visibility["area"] is Visibility.PUBLIC
    assert visibility["numbers"] is Visibility.FRIEND
    assert visibility["hidden"] is visibility["check"] is Visibility.PRIVATE
    assert [name for name, function in module.functions.items() if function.is_entry] == ["check"]
    assert not any(function.is_native for function in module.functions.values())
    area = module.functions["area"]
    (parameter,) = module.parameter_types(area)
    assert isinstance(parameter, ReferenceType)
    assert not parameter.mutable
    assert [module.type_name(t) for t in module.parameter_types(area)] == ["&0x0::shapes::Shape"]
    swap = module.parameter_types(module.functions["swap"])
    assert [module.type_name(t) for t in swap] == ["&mut 0x0::shapes::Pair<T0, T1>"]
    constants = module.return_types(module.functions["constants"])
    expected = ["vector<vector<u8>>", "vector<u16>", "bool", "address", "u256"]
    assert [module.type_name(t) for t in constants] == expected


def test_abilities_phantoms_and_fields() -> None:
    module = deserialize(SHAPES)
    handle = module.datatype_handles[module.structs["Pair"].handle]
    assert handle.abilities == Ability.COPY | Ability.DROP | Ability.STORE
    assert handle.abilities.list_names() == ("copy", "drop", "store")
    assert [p.is_phantom for p in handle.type_parameters] == [True, False]
    assert handle.type_parameters[1].constraints == Ability.COPY | Ability.DROP
    fields = module.structs["Pair"].fields
    assert fields is not None
    assert [module.identifiers[f.name] for f in fields] == ["first", "second"]
    assert [f.type for f in fields] == [VectorType(TypeParameterIndex(1)), TypeParameterIndex(1)]


def test_enums_and_jump_tables() -> None:
    module = deserialize(SHAPES)
    variants = module.enums["Shape"].variants
    assert [module.identifiers[v.name] for v in variants] == ["Dot", "Circle", "Box"]
    assert [[f.type for f in v.fields] for v in variants] == [
        [],
        [Primitive.U64],
        [Primitive.U32, Primitive.U32],
    ]
    body = module.functions["area"].body
    assert body is not None
    (table,) = body.jump_tables
    assert len(table.offsets) == 3
    switches = [i for i in body.code if i.op is Opcode.VARIANT_SWITCH]
    assert [i.arg for i in switches] == [0]
    unpacked = [
        module.variant_handles[cast(int, i.arg)] for i in body.code if i.op is Opcode.UNPACK_VARIANT_IMM_REF
    ]
    assert sorted(handle.variant for handle in unpacked) == [0, 1, 1, 2, 2]
    generic = module.functions["some"].body
    assert generic is not None
    assert [i.op for i in generic.code] == [Opcode.MOVE_LOC, Opcode.PACK_VARIANT_GENERIC, Opcode.RET]


def test_instructions_of_a_function() -> None:
    body = deserialize(SHAPES).functions["box"].body
    assert body is not None
    assert [(i.op.name, i.arg) for i in body.code] == [
        ("MOVE_LOC", 0),
        ("MOVE_LOC", 1),
        ("PACK_VARIANT", body.code[2].arg),
        ("RET", None),
    ]


def test_every_operand_is_of_its_kind() -> None:
    module = deserialize(SHAPES)
    seen = set()
    for function in module.function_defs:
        assert function.body is not None
        for instruction in function.body.code:
            operand = OPERANDS[instruction.op]
            seen.add(operand)
            if operand is OperandKind.NONE:
                assert instruction.arg is None
            elif operand is OperandKind.SIGNATURE_COUNT:
                assert isinstance(instruction.arg, tuple)
            else:
                assert isinstance(instruction.arg, int)
    assert {
        OperandKind.SIGNATURE_COUNT,
        OperandKind.JUMP_TABLE,
        OperandKind.VARIANT_INST,
        OperandKind.U256,
    } <= seen


def test_constants() -> None:
    module = deserialize(SHAPES)
    values = [constant_value(constant) for constant in module.constants]
    assert values[:2] == [b"ETooLarge", b"too large"]
    assert 77 in values
    assert (b"ab", b"") in values
    assert (1, 515) in values
    assert True in values
    assert bytes(29) + bytes.fromhex("0a11ce") in values
    assert (1 << 256) - 1 in values


def test_abort_codes_say_name_line_and_number() -> None:
    module = deserialize(SHAPES)
    body = module.functions["check"].body
    assert body is not None
    raw = [i.arg for i in body.code if i.op is Opcode.LD_U64 and isinstance(i.arg, int) and i.arg >> 60]
    source = (Path(__file__).parent / "probe/sources/shapes.move").read_text().splitlines()
    first, second = (module.describe_abort(code) for code in raw)
    assert (first.name, first.message, first.number) == ("ETooLarge", "too large", 200)
    assert (second.name, second.message, second.number) == ("EUncoded", "no number", None)
    for abort in (first, second):
        assert abort.line is not None
        assert str(abort.name) in source[abort.line - 1]


def test_plain_abort_codes_stay_numbers() -> None:
    module = deserialize(SHAPES)
    assert module.describe_abort(77) == AbortCode(77)
    # A code of this form from another module: the constants it names aren't here, or aren't text.
    foreign = module.describe_abort(0xC0_07_0009_FFF0_FFF0)
    assert (foreign.line, foreign.number, foreign.name, foreign.message) == (9, 7, None, None)
    numbers = next(i for i, c in enumerate(module.constants) if c.type == VectorType(Primitive.U16))
    assert module.describe_abort(0xC0_07_0009_0000_0000 | numbers).message is None
    with pytest.raises(BytecodeError, match="u64"):
        module.describe_abort(1 << 64)


def test_digest_is_the_compilers() -> None:
    assert package_digest([SHAPES], [bytes(31) + b"\x01", bytes(31) + b"\x02"]).hex() == SHAPES_DIGEST


def test_every_shipped_module_can_be_read() -> None:
    for name in packages.available():
        package = packages.load(name)
        assert [module.name for module in package.compiled.values()] == list(package.modules)


# ---- refusals, each with its fault and its offset


def test_every_truncation_is_refused() -> None:
    for size in range(len(SHAPES)):
        refused(SHAPES[:size])


def test_trailing_bytes() -> None:
    fault = refused(SHAPES + b"\x00")
    assert (fault.fault, fault.offset) == (Fault.TRAILING_BYTES, len(SHAPES))


def test_magic_version_and_flavor() -> None:
    assert refused(b"").fault is Fault.TRUNCATED
    assert (refused(patched(0, b"\x00")).fault, refused(patched(0, b"\x00")).offset) == (Fault.BAD_MAGIC, 0)
    for version in (0, 5, 8):
        word = (version | (5 << 24 if version > 6 else 0)).to_bytes(4, "little")
        assert (refused(patched(4, word)).fault, refused(patched(4, word)).offset) == (
            Fault.UNKNOWN_VERSION,
            4,
        )
    unflavored = refused(patched(4, (7).to_bytes(4, "little")))
    assert (unflavored.fault, unflavored.offset) == (Fault.UNKNOWN_VERSION, 7)


def test_test_mode_modules_only_when_asked_for() -> None:
    data = patched(0, UNPUBLISHABLE_MAGIC)
    assert refused(data).fault is Fault.UNPUBLISHABLE
    module = deserialize(data, allow_unpublishable=True)
    assert not module.publishable
    assert module.name == "shapes"


def test_enums_need_version_7() -> None:
    fault = refused(patched(4, (6).to_bytes(4, "little")))
    assert fault.fault is Fault.MALFORMED
    assert "version 7" in fault.detail


@pytest.mark.parametrize(
    ("data", "fault", "offset"),
    [
        (header((1, 1, 2), content=b"\0\0\0"), Fault.BAD_HEADER_TABLE, 9),
        (header((1, 0, 0)), Fault.BAD_HEADER_TABLE, 9),
        (header((1, 0, 100), content=b"\0\0"), Fault.BAD_HEADER_TABLE, 9),
        (header((1, 0, 2), (1, 2, 2), content=bytes(4)), Fault.DUPLICATE_TABLE, 12),
        (header((9, 0, 2), content=bytes(2)), Fault.UNKNOWN_TABLE_TYPE, 9),
        (header((0x11, 0, 2), content=bytes(2)), Fault.MALFORMED, 9),
        (single(1, b"\x80\x00\x00"), Fault.BAD_ULEB, 12),
        (single(1, b"\xff" * 10 + b"\x01"), Fault.BAD_ULEB, 12),
        (single(1, b"\x80\x80\x04\x00"), Fault.LIMIT_EXCEEDED, 12),
        (single(1, b"\x00"), Fault.TRUNCATED, 13),
        (single(7, b"\x029a"), Fault.INVALID_IDENTIFIER, 13),
        (single(7, b"\x01_"), Fault.INVALID_IDENTIFIER, 13),
        (single(7, b"\x00"), Fault.INVALID_IDENTIFIER, 13),
        (single(7, b"\x02a\n"), Fault.INVALID_IDENTIFIER, 13),
        (single(7, b"\x02\xc3\xa4"), Fault.INVALID_IDENTIFIER, 13),
        (single(8, bytes(31)), Fault.TRUNCATED, 12),
        (single(5, b"\x01\x10"), Fault.UNKNOWN_SERIALIZED_TYPE, 13),
        (single(5, b"\x01\x0b\x00\x00"), Fault.MALFORMED, 13),
        (single(5, b"\x01\x0a"), Fault.TRUNCATED, 14),
        (single(2, b"\x00\x00\x10\x00"), Fault.UNKNOWN_ABILITY, 14),
        (single(2, b"\x00\x00\x0f\x01\x00\x02"), Fault.LIMIT_EXCEEDED, 17),
        (single(0xA, b"\x00\x03"), Fault.UNKNOWN_NATIVE_STRUCT_FLAG, 13),
        (single(0xC, b"\x00\x02\x00\x00"), Fault.MALFORMED, 13),
        (single(0xC, b"\x00\x01\x01\x00"), Fault.INVALID_FLAG_BITS, 14),
        (single(0xC, b"\x00\x01\x00\x01\x00"), Fault.DEPRECATED_BYTECODE_FORMAT, 15),
        (single(0xC, b"\x00\x01\x00\x00\x00\x01\x2a\x00"), Fault.DEPRECATED_BYTECODE_FORMAT, 18),
        (single(0xC, b"\x00\x01\x00\x00\x00\x01\x57"), Fault.UNKNOWN_OPCODE, 18),
        (single(0xC, b"\x00\x01\x00\x00\x00\x01\x00"), Fault.UNKNOWN_OPCODE, 18),
        (single(0xC, b"\x00\x01\x00\x00\x00\x01\x56\x00"), Fault.MALFORMED, 18),
        (single(0xC, b"\x00\x01\x00\x00\x00\x01\x06\x00\x00"), Fault.TRUNCATED, 19),
        (header(), Fault.NO_MODULE_HANDLES, None),
        (single(1, b"\x00\x00"), Fault.INDEX_OUT_OF_BOUNDS, None),
    ],
)
def test_damaged_tables(data: bytes, fault: Fault, offset: int | None) -> None:
    caught = refused(data)
    assert (caught.fault, caught.offset) == (fault, offset), caught


def test_a_type_that_nests_too_deep() -> None:
    content = b"\x01" + b"\x0a" * 126
    data = MAGIC + (6).to_bytes(4, "little") + b"\x01\x05\x00" + b"\xac\x02" + b"\x01" + b"\x0a" * 299 + b"\0"
    assert refused(data).fault is Fault.LIMIT_EXCEEDED
    assert refused(single(5, content)).fault is Fault.TRUNCATED


@pytest.mark.parametrize(
    "constant",
    [
        Constant(Primitive.BOOL, b"\x02"),
        Constant(Primitive.U64, bytes(7)),
        Constant(Primitive.U64, bytes(9)),
        Constant(Primitive.SIGNER, bytes(32)),
        Constant(DatatypeType(0), b""),
        Constant(VectorType(Primitive.U8), b"\x02a"),
        Constant(VectorType(Primitive.U8), b"\x80\x00"),
        Constant(VectorType(Primitive.U8), b"\xff\xff\xff\xff\xff\x01"),
        Constant(VectorType(VectorType(Primitive.U16)), b"\x01\x01\x00"),
    ],
)
def test_damaged_constants(constant: Constant) -> None:
    with pytest.raises(BytecodeError) as caught:
        constant_value(constant)
    assert caught.value.fault is Fault.MALFORMED_CONSTANT_DATA


@given(st.integers(0, len(SHAPES) - 1), st.integers(1, 255))
def test_a_changed_byte_is_read_or_refused_by_name(offset: int, change: int) -> None:
    data = patched(offset, bytes([SHAPES[offset] ^ change]))
    outcome = read(data)
    if isinstance(outcome, BytecodeError):
        assert outcome.offset is None or 0 <= outcome.offset <= len(data)
    else:
        # What is read can be walked without running out of any table.
        for function in outcome.function_defs:
            assert all(isinstance(outcome.type_name(t), str) for t in outcome.parameter_types(function))


@given(st.binary(max_size=200))
def test_anything_is_read_or_refused_by_name(data: bytes) -> None:
    for start in (b"", MAGIC, MAGIC + b"\x06\0\0\0", MAGIC + b"\x07\0\0\x05"):
        assert refused(start + data).fault in Fault
