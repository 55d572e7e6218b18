"""All passes over one module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dtp.localnet.vm.verify import link, locals, references, stack, structure, sui
from dtp.sui.bytecode import CompiledModule

__all__ = ["verify_module"]


def verify_module(
    module: CompiledModule,
    others: Mapping[link.ModuleId, CompiledModule],
    missing_natives: Iterable[str] = (),
    is_framework: bool = False,
) -> None:
    """Raise `Refused` for the first rule that `module` breaks.

    `others`: every module that may be named, by address and name. `is_framework`: natives are allowed.
    """
    structure.check(module, is_framework)
    link.check(module, others, missing_natives)
    for function in module.function_defs:
        if function.body is not None:
            stack.check(module, function)
            locals.check(module, function)
            references.check(module, function)
    sui.check(module)
