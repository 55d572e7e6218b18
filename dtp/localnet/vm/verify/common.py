"""What all passes share: the refusal, abilities of a type token, names of places."""

from __future__ import annotations

from collections.abc import Sequence

from dtp.localnet.vm.types import COPY, DROP, KEY, STORE
from dtp.sui.bytecode import (
    CompiledModule,
    DatatypeType,
    FunctionDef,
    Primitive,
    ReferenceType,
    SignatureToken,
    TypeParameterIndex,
    VectorType,
)

__all__ = ["ModuleRefused", "abilities", "function_name", "subsumes"]

_VALUE = COPY | DROP | STORE


class ModuleRefused(Exception):
    """A module breaks a rule. `sui` tells Sui's own rules from those of Move."""

    def __init__(
        self, reason: str, message: str, *, item: str = "", offset: int | None = None, sui: bool = False
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.item = item
        self.offset = offset
        self.sui = sui


def abilities(module: CompiledModule, token: SignatureToken, constraints: Sequence[int]) -> int:
    """Return abilities of a type whose type parameters have `constraints`."""
    match token:
        case Primitive.SIGNER:
            return DROP
        case Primitive():
            return _VALUE
        case ReferenceType():
            return COPY | DROP
        case TypeParameterIndex(index):
            return int(constraints[index])
        case VectorType(element):
            return abilities(module, element, constraints) & _VALUE
        case DatatypeType(handle, arguments):
            declared = module.datatype_handles[handle]
            mask = int(declared.abilities)
            for argument, parameter in zip(arguments, declared.type_parameters, strict=True):
                if not parameter.is_phantom:
                    has = abilities(module, argument, constraints)
                    mask &= has | (KEY if has & STORE else 0)
            return mask


def subsumes(has: int, needs: int) -> bool:
    """True if abilities `has` include all that `needs` names."""
    return needs & ~has == 0


def function_name(module: CompiledModule, function: FunctionDef) -> str:
    """Name of a function of the module."""
    return module.function_name(function.handle)
