"""The Move binary format as data: opcodes and their operands, tables, types, limits and fault names.

Facts are from `move-binary-format` (`file_format.rs`, `file_format_common.rs`) of the Sui repository,
versions 6 and 7 of the format. Fault names are the names of Sui's status codes where one exists, so that a
refusal here and a refusal by a validator read alike. The reader (`_move_reader`) and the bounds check
(`_move_bounds`) only walk the tables of this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag, StrEnum
from typing import NamedTuple, TypeAlias

from dtp.errors import LocalError

MAGIC = bytes.fromhex("a11ceb0b")
"""First four bytes of every module that may be published."""
UNPUBLISHABLE_MAGIC = bytes.fromhex("deadc0de")
"""First four bytes of a module compiled in test mode; validators refuse it."""
VERSION_MIN = 6
VERSION_MAX = 7
VERSION_ENUMS = 7
"""First version with enums and with the flavor byte."""
SUI_FLAVOR = 0x05
"""Top byte of the version word from version 7 on."""
ADDRESS_LENGTH = 32

U16_MAX = 0xFFFF
TYPE_PARAMETER_INDEX_MAX = 65536  # as upstream has it: one more than fits; the bounds check refuses it
TABLE_INDEX_MAX = U16_MAX
VARIANT_HANDLE_INDEX_MAX = 1024
VARIANT_COUNT_MAX = 127
JUMP_TABLE_INDEX_MAX = VARIANT_COUNT_MAX
SMALL_COUNT_MAX = 255
METADATA_KEY_SIZE_MAX = 1023
SIGNATURE_TOKEN_DEPTH_MAX = 256


class Fault(StrEnum):
    """Why a module was refused; Sui's status code of the same name where there is one."""

    BAD_MAGIC = "BAD_MAGIC"
    UNPUBLISHABLE = "UNPUBLISHABLE"
    UNKNOWN_VERSION = "UNKNOWN_VERSION"
    MALFORMED = "MALFORMED"
    TRUNCATED = "TRUNCATED"
    BAD_ULEB = "BAD_ULEB"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    BAD_HEADER_TABLE = "BAD_HEADER_TABLE"
    DUPLICATE_TABLE = "DUPLICATE_TABLE"
    UNKNOWN_TABLE_TYPE = "UNKNOWN_TABLE_TYPE"
    UNKNOWN_SERIALIZED_TYPE = "UNKNOWN_SERIALIZED_TYPE"
    UNKNOWN_ABILITY = "UNKNOWN_ABILITY"
    UNKNOWN_OPCODE = "UNKNOWN_OPCODE"
    DEPRECATED_BYTECODE_FORMAT = "DEPRECATED_BYTECODE_FORMAT"
    UNKNOWN_NATIVE_STRUCT_FLAG = "UNKNOWN_NATIVE_STRUCT_FLAG"
    UNKNOWN_ENUM_FLAG = "UNKNOWN_ENUM_FLAG"
    UNKNOWN_JUMP_TABLE_FLAG = "UNKNOWN_JUMP_TABLE_FLAG"
    INVALID_FLAG_BITS = "INVALID_FLAG_BITS"
    INVALID_IDENTIFIER = "INVALID_IDENTIFIER"
    TRAILING_BYTES = "TRAILING_BYTES"
    NO_MODULE_HANDLES = "NO_MODULE_HANDLES"
    INDEX_OUT_OF_BOUNDS = "INDEX_OUT_OF_BOUNDS"
    NUMBER_OF_TYPE_ARGUMENTS_MISMATCH = "NUMBER_OF_TYPE_ARGUMENTS_MISMATCH"
    TOO_MANY_LOCALS = "TOO_MANY_LOCALS"
    INVALID_ENUM_SWITCH = "INVALID_ENUM_SWITCH"
    MALFORMED_CONSTANT_DATA = "MALFORMED_CONSTANT_DATA"


class BytecodeError(LocalError):
    """Bytes that are not a well-formed Move module.

    `fault` says what is wrong, `offset` at which byte of the module (None where the fault is in a relation
    between tables rather than at one byte), `detail` what was found and what was expected.
    """

    code = "bytecode"

    def __init__(self, fault: Fault, detail: str, offset: int | None = None) -> None:
        where = "" if offset is None else f" at byte {offset}"
        super().__init__(f"not a valid Move module: {fault}{where}: {detail}")
        self.fault = fault
        self.detail = detail
        self.offset = offset


class TableKind(IntEnum):
    """Kind byte of a table in the header."""

    MODULE_HANDLES = 0x1
    DATATYPE_HANDLES = 0x2
    FUNCTION_HANDLES = 0x3
    FUNCTION_INST = 0x4
    SIGNATURES = 0x5
    CONSTANT_POOL = 0x6
    IDENTIFIERS = 0x7
    ADDRESS_IDENTIFIERS = 0x8
    STRUCT_DEFS = 0xA
    STRUCT_DEF_INST = 0xB
    FUNCTION_DEFS = 0xC
    FIELD_HANDLES = 0xD
    FIELD_INST = 0xE
    FRIEND_DECLS = 0xF
    METADATA = 0x10
    ENUM_DEFS = 0x11
    ENUM_DEF_INST = 0x12
    VARIANT_HANDLES = 0x13
    VARIANT_INST_HANDLES = 0x14


ENUM_TABLES = frozenset(
    {
        TableKind.ENUM_DEFS,
        TableKind.ENUM_DEF_INST,
        TableKind.VARIANT_HANDLES,
        TableKind.VARIANT_INST_HANDLES,
    }
)


class Ability(IntFlag):
    """Abilities of a datatype or constraints of a type parameter, as the bit set of the binary format."""

    NONE = 0x0
    COPY = 0x1
    DROP = 0x2
    STORE = 0x4
    KEY = 0x8

    def list_names(self) -> tuple[str, ...]:
        """Return the abilities in the order in which Move prints them."""
        return tuple(str(a.name).lower() for a in _ABILITY_ORDER if a in self)


ABILITY_ALL = 0xF
_ABILITY_ORDER = (Ability.COPY, Ability.DROP, Ability.STORE, Ability.KEY)


class Visibility(IntEnum):
    """Who may call a function; `FRIEND` is what `public(package)` compiles to."""

    PRIVATE = 0x0
    PUBLIC = 0x1
    FRIEND = 0x3


class Primitive(Enum):
    """Types without parts. The value is the name in Move source."""

    BOOL = "bool"
    U8 = "u8"
    U16 = "u16"
    U32 = "u32"
    U64 = "u64"
    U128 = "u128"
    U256 = "u256"
    ADDRESS = "address"
    SIGNER = "signer"


@dataclass(frozen=True, slots=True)
class VectorType:
    """`vector<element>`."""

    element: SignatureToken


@dataclass(frozen=True, slots=True)
class ReferenceType:
    """`&target` or `&mut target`."""

    target: SignatureToken
    mutable: bool


@dataclass(frozen=True, slots=True)
class DatatypeType:
    """A struct or enum, by index into `datatype_handles`, with its type arguments."""

    handle: int
    arguments: tuple[SignatureToken, ...] = ()


@dataclass(frozen=True, slots=True)
class TypeParameterIndex:
    """The type parameter of that index of the function or datatype at hand."""

    index: int


SignatureToken: TypeAlias = Primitive | VectorType | ReferenceType | DatatypeType | TypeParameterIndex
"""One type in a signature."""

Signature: TypeAlias = tuple[SignatureToken, ...]
"""A list of types: parameters, results, locals or type arguments."""

PRIMITIVE_TYPES: dict[int, Primitive] = {
    0x1: Primitive.BOOL,
    0x2: Primitive.U8,
    0x3: Primitive.U64,
    0x4: Primitive.U128,
    0x5: Primitive.ADDRESS,
    0xC: Primitive.SIGNER,
    0xD: Primitive.U16,
    0xE: Primitive.U32,
    0xF: Primitive.U256,
}
TYPE_REFERENCE = 0x6
TYPE_MUT_REFERENCE = 0x7
TYPE_DATATYPE = 0x8
TYPE_PARAMETER = 0x9
TYPE_VECTOR = 0xA
TYPE_DATATYPE_INST = 0xB


class Opcode(IntEnum):
    """Instructions, by their byte. The names are those of the Move binary format."""

    POP = 0x01
    RET = 0x02
    BR_TRUE = 0x03
    BR_FALSE = 0x04
    BRANCH = 0x05
    LD_U64 = 0x06
    LD_CONST = 0x07
    LD_TRUE = 0x08
    LD_FALSE = 0x09
    COPY_LOC = 0x0A
    MOVE_LOC = 0x0B
    ST_LOC = 0x0C
    MUT_BORROW_LOC = 0x0D
    IMM_BORROW_LOC = 0x0E
    MUT_BORROW_FIELD = 0x0F
    IMM_BORROW_FIELD = 0x10
    CALL = 0x11
    PACK = 0x12
    UNPACK = 0x13
    READ_REF = 0x14
    WRITE_REF = 0x15
    ADD = 0x16
    SUB = 0x17
    MUL = 0x18
    MOD = 0x19
    DIV = 0x1A
    BIT_OR = 0x1B
    BIT_AND = 0x1C
    XOR = 0x1D
    OR = 0x1E
    AND = 0x1F
    NOT = 0x20
    EQ = 0x21
    NEQ = 0x22
    LT = 0x23
    GT = 0x24
    LE = 0x25
    GE = 0x26
    ABORT = 0x27
    NOP = 0x28
    FREEZE_REF = 0x2E
    SHL = 0x2F
    SHR = 0x30
    LD_U8 = 0x31
    LD_U128 = 0x32
    CAST_U8 = 0x33
    CAST_U64 = 0x34
    CAST_U128 = 0x35
    MUT_BORROW_FIELD_GENERIC = 0x36
    IMM_BORROW_FIELD_GENERIC = 0x37
    CALL_GENERIC = 0x38
    PACK_GENERIC = 0x39
    UNPACK_GENERIC = 0x3A
    VEC_PACK = 0x40
    VEC_LEN = 0x41
    VEC_IMM_BORROW = 0x42
    VEC_MUT_BORROW = 0x43
    VEC_PUSH_BACK = 0x44
    VEC_POP_BACK = 0x45
    VEC_UNPACK = 0x46
    VEC_SWAP = 0x47
    LD_U16 = 0x48
    LD_U32 = 0x49
    LD_U256 = 0x4A
    CAST_U16 = 0x4B
    CAST_U32 = 0x4C
    CAST_U256 = 0x4D
    PACK_VARIANT = 0x4E
    PACK_VARIANT_GENERIC = 0x4F
    UNPACK_VARIANT = 0x50
    UNPACK_VARIANT_IMM_REF = 0x51
    UNPACK_VARIANT_MUT_REF = 0x52
    UNPACK_VARIANT_GENERIC = 0x53
    UNPACK_VARIANT_GENERIC_IMM_REF = 0x54
    UNPACK_VARIANT_GENERIC_MUT_REF = 0x55
    VARIANT_SWITCH = 0x56


DEPRECATED_OPCODES = frozenset({*range(0x29, 0x2E), *range(0x3B, 0x40)})
"""Global storage instructions; Sui's verifier never allowed them and the reader no longer does."""


class OperandKind(Enum):
    """What follows an opcode, hence what `Instruction.arg` is."""

    NONE = "none"
    U8 = "u8"
    U16 = "u16"
    U32 = "u32"
    U64 = "u64"
    U128 = "u128"
    U256 = "u256"
    CODE_OFFSET = "index of an instruction of this function"
    LOCAL = "index of a local (parameters first)"
    CONSTANT = "index into constants"
    FIELD_HANDLE = "index into field_handles"
    FIELD_INST = "index into field_instantiations"
    FUNCTION_HANDLE = "index into function_handles"
    FUNCTION_INST = "index into function_instantiations"
    STRUCT_DEF = "index into struct_defs"
    STRUCT_INST = "index into struct_instantiations"
    SIGNATURE = "index into signatures: one type, the element"
    SIGNATURE_COUNT = "(index into signatures, number of elements)"
    VARIANT_HANDLE = "index into variant_handles"
    VARIANT_INST = "index into variant_instantiations"
    JUMP_TABLE = "index into the function's jump_tables"


OPERANDS: dict[Opcode, OperandKind] = dict.fromkeys(Opcode, OperandKind.NONE) | {
    Opcode.BR_TRUE: OperandKind.CODE_OFFSET,
    Opcode.BR_FALSE: OperandKind.CODE_OFFSET,
    Opcode.BRANCH: OperandKind.CODE_OFFSET,
    Opcode.LD_U8: OperandKind.U8,
    Opcode.LD_U16: OperandKind.U16,
    Opcode.LD_U32: OperandKind.U32,
    Opcode.LD_U64: OperandKind.U64,
    Opcode.LD_U128: OperandKind.U128,
    Opcode.LD_U256: OperandKind.U256,
    Opcode.LD_CONST: OperandKind.CONSTANT,
    Opcode.COPY_LOC: OperandKind.LOCAL,
    Opcode.MOVE_LOC: OperandKind.LOCAL,
    Opcode.ST_LOC: OperandKind.LOCAL,
    Opcode.MUT_BORROW_LOC: OperandKind.LOCAL,
    Opcode.IMM_BORROW_LOC: OperandKind.LOCAL,
    Opcode.MUT_BORROW_FIELD: OperandKind.FIELD_HANDLE,
    Opcode.IMM_BORROW_FIELD: OperandKind.FIELD_HANDLE,
    Opcode.MUT_BORROW_FIELD_GENERIC: OperandKind.FIELD_INST,
    Opcode.IMM_BORROW_FIELD_GENERIC: OperandKind.FIELD_INST,
    Opcode.CALL: OperandKind.FUNCTION_HANDLE,
    Opcode.CALL_GENERIC: OperandKind.FUNCTION_INST,
    Opcode.PACK: OperandKind.STRUCT_DEF,
    Opcode.PACK_GENERIC: OperandKind.STRUCT_INST,
    Opcode.UNPACK: OperandKind.STRUCT_DEF,
    Opcode.UNPACK_GENERIC: OperandKind.STRUCT_INST,
    Opcode.VEC_PACK: OperandKind.SIGNATURE_COUNT,
    Opcode.VEC_LEN: OperandKind.SIGNATURE,
    Opcode.VEC_IMM_BORROW: OperandKind.SIGNATURE,
    Opcode.VEC_MUT_BORROW: OperandKind.SIGNATURE,
    Opcode.VEC_PUSH_BACK: OperandKind.SIGNATURE,
    Opcode.VEC_POP_BACK: OperandKind.SIGNATURE,
    Opcode.VEC_UNPACK: OperandKind.SIGNATURE_COUNT,
    Opcode.VEC_SWAP: OperandKind.SIGNATURE,
    Opcode.PACK_VARIANT: OperandKind.VARIANT_HANDLE,
    Opcode.PACK_VARIANT_GENERIC: OperandKind.VARIANT_INST,
    Opcode.UNPACK_VARIANT: OperandKind.VARIANT_HANDLE,
    Opcode.UNPACK_VARIANT_IMM_REF: OperandKind.VARIANT_HANDLE,
    Opcode.UNPACK_VARIANT_MUT_REF: OperandKind.VARIANT_HANDLE,
    Opcode.UNPACK_VARIANT_GENERIC: OperandKind.VARIANT_INST,
    Opcode.UNPACK_VARIANT_GENERIC_IMM_REF: OperandKind.VARIANT_INST,
    Opcode.UNPACK_VARIANT_GENERIC_MUT_REF: OperandKind.VARIANT_INST,
    Opcode.VARIANT_SWITCH: OperandKind.JUMP_TABLE,
}
"""The kind of operand of every opcode: the reader, the bounds check and a VM's decoder all walk this."""

LITERAL_SIZES: dict[OperandKind, int] = {
    OperandKind.U8: 1,
    OperandKind.U16: 2,
    OperandKind.U32: 4,
    OperandKind.U64: 8,
    OperandKind.U128: 16,
    OperandKind.U256: 32,
}
"""Bytes of an inline little-endian number."""

INDEX_LIMITS: dict[OperandKind, int] = {
    OperandKind.CODE_OFFSET: U16_MAX,
    OperandKind.LOCAL: SMALL_COUNT_MAX,
    OperandKind.CONSTANT: TABLE_INDEX_MAX,
    OperandKind.FIELD_HANDLE: TABLE_INDEX_MAX,
    OperandKind.FIELD_INST: TABLE_INDEX_MAX,
    OperandKind.FUNCTION_HANDLE: TABLE_INDEX_MAX,
    OperandKind.FUNCTION_INST: TABLE_INDEX_MAX,
    OperandKind.STRUCT_DEF: TABLE_INDEX_MAX,
    OperandKind.STRUCT_INST: TABLE_INDEX_MAX,
    OperandKind.SIGNATURE: TABLE_INDEX_MAX,
    OperandKind.SIGNATURE_COUNT: TABLE_INDEX_MAX,
    OperandKind.VARIANT_HANDLE: VARIANT_HANDLE_INDEX_MAX,
    OperandKind.VARIANT_INST: VARIANT_HANDLE_INDEX_MAX,
    OperandKind.JUMP_TABLE: JUMP_TABLE_INDEX_MAX,
}
"""Largest ULEB128 index by operand."""


class Instruction(NamedTuple):
    """One instruction: `arg` is what `OPERANDS[op]` says, None where there is no operand."""

    op: Opcode
    arg: int | tuple[int, int] | None
