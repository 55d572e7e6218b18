"""All passes over one module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dtp.localnet.limits import MAX_BACK_EDGES
from dtp.localnet.vm.verify import flow, link, locals, references, stack, structure, sui, tables
from dtp.localnet.vm.verify.common import ModuleRefused
from dtp.sui.bytecode import CompiledModule

__all__ = ["verify_move", "verify_sui"]


def verify_move(
    module: CompiledModule,
    others: Mapping[link.ModuleId, CompiledModule],
    missing_natives: Iterable[str] = (),
    is_framework: bool = False,
) -> None:
    """Raise `ModuleRefused` for the first of Move's rules that `module` breaks.

    `others`: every module that may be named, by address and name. `is_framework`: natives are allowed.
    """
    tables.check(module)
    structure.check(module, is_framework)
    link.check(module, others, missing_natives)
    back_edges = 0
    for function in module.function_defs:
        if function.body is not None:
            back_edges += flow.check(module, function)
            if back_edges > MAX_BACK_EDGES:
                raise ModuleRefused(
                    "too_many_back_edges", f"over {MAX_BACK_EDGES} backward jumps in the module"
                )
            stack.check(module, function)
            locals.check(module, function)
            references.check(module, function)


def verify_sui(module: CompiledModule) -> None:
    """Raise `ModuleRefused` for the first of Sui's own rules that `module`, which keeps Move's, breaks."""
    sui.check(module)
