"""Abort codes that name themselves: what a module's constants say about a code (`#[error]`, bare `assert!`)."""

from __future__ import annotations

from dtp.localnet.vm.contract import CleverError
from dtp.sui.bytecode import AbortCode, BytecodeError, CompiledModule, constant_value

__all__ = ["clever_error"]

_NO_CONSTANT = 0xFFFF


def clever_error(module: CompiledModule, raw: int) -> CleverError | None:
    """Return what `raw` says, aborted by `module`; None for a plain number."""
    code: AbortCode = module.describe_abort(raw)
    if code.line is None and code.name is None:
        return None
    index = raw & 0xFFFF
    if code.name is None or index == _NO_CONSTANT or index >= len(module.constants):
        return CleverError(code.line or 0, code.name or "", code=code.number)
    constant = module.constants[index]
    text = code.message
    if text is None:
        try:
            value = constant_value(constant)
        except BytecodeError:
            return CleverError(code.line or 0, code.name, code=code.number)
        text = f"0x{value.hex()}" if isinstance(value, bytes) else str(value)
    return CleverError(
        code.line or 0, code.name, module.type_name(constant.type), constant.data, text, code.number
    )
