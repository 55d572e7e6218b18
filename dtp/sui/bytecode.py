"""Compiled Move modules (`.mv`), versions 6 and 7 of the format, read into frozen dataclasses.

The door to the reader: `deserialize` gives a `CompiledModule` whose every index is known to be in bounds, or
raises `BytecodeError` with the fault's name and the byte's offset. `package_digest` is the digest that Sui
gives a package. The chain client reads names and abort codes from it, the embedded node executes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b

from dtp.sui import _move_bounds, _move_reader
from dtp.sui._move_format import (
    DEPRECATED_OPCODES,
    MAGIC,
    OPERANDS,
    UNPUBLISHABLE_MAGIC,
    Ability,
    BytecodeError,
    DatatypeType,
    Fault,
    Instruction,
    Opcode,
    OperandKind,
    Primitive,
    ReferenceType,
    Signature,
    SignatureToken,
    TableKind,
    TypeParameterIndex,
    VectorType,
    Visibility,
)
from dtp.sui._move_module import (
    AbortCode,
    CodeUnit,
    CompiledModule,
    Constant,
    ConstantValue,
    DatatypeHandle,
    DatatypeTypeParameter,
    EnumDef,
    Field,
    FieldHandle,
    FunctionDef,
    FunctionHandle,
    Instantiation,
    JumpTable,
    Metadata,
    ModuleHandle,
    StructDef,
    Variant,
    VariantHandle,
    constant_value,
)

__all__ = [
    "DEPRECATED_OPCODES",
    "MAGIC",
    "OPERANDS",
    "UNPUBLISHABLE_MAGIC",
    "Ability",
    "AbortCode",
    "BytecodeError",
    "CodeUnit",
    "CompiledModule",
    "Constant",
    "ConstantValue",
    "DatatypeHandle",
    "DatatypeType",
    "DatatypeTypeParameter",
    "EnumDef",
    "Fault",
    "Field",
    "FieldHandle",
    "FunctionDef",
    "FunctionHandle",
    "Instantiation",
    "Instruction",
    "JumpTable",
    "Metadata",
    "ModuleHandle",
    "Opcode",
    "OperandKind",
    "Primitive",
    "ReferenceType",
    "Signature",
    "SignatureToken",
    "StructDef",
    "TableKind",
    "TypeParameterIndex",
    "Variant",
    "VariantHandle",
    "VectorType",
    "Visibility",
    "constant_value",
    "deserialize",
    "package_digest",
]


def deserialize(data: bytes, *, allow_unpublishable: bool = False) -> CompiledModule:
    """Read one module.

    `allow_unpublishable` also reads modules that were compiled in test mode (`CompiledModule.publishable`
    is then False). Raises `BytecodeError`; nothing of a refused module is kept.
    """
    return _deserialize(bytes(data), allow_unpublishable)


@lru_cache(maxsize=256)  # each node reads all of Sui's framework, and a publish what it publishes three times
def _deserialize(data: bytes, allow_unpublishable: bool) -> CompiledModule:
    module = _move_reader.read_module(data, allow_unpublishable=allow_unpublishable)
    _move_bounds.check(module)
    return module


def package_digest(modules: Iterable[bytes], dependencies: Iterable[bytes]) -> bytes:
    """Return the 32-byte digest of a package, as an upgrade ticket and `sui move build --dump` give it.

    Blake2b-256 over the sorted list of the modules' Blake2b-256 hashes and the dependencies' 32-byte ids
    (`MovePackage::compute_digest_for_modules_and_deps` upstream, with modules hashed first).
    """
    parts = [blake2b(module, digest_size=32).digest() for module in modules]
    parts += [bytes(dependency) for dependency in dependencies]
    return blake2b(b"".join(sorted(parts)), digest_size=32).digest()
