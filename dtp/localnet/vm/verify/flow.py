"""Pass 4: control flow of a function: it ends, its loops have one head each, and are not nested too deep."""

from __future__ import annotations

from dtp.localnet.limits import MAX_BLOCKS, MAX_LOOP_DEPTH
from dtp.localnet.vm.blocks import block_starts, irreducible, loop_depths, to_blocks
from dtp.localnet.vm.verify.common import ModuleRefused
from dtp.sui.bytecode import CompiledModule, FunctionDef, Opcode

__all__ = ["check"]

_UNCONDITIONAL = frozenset({Opcode.BRANCH, Opcode.RET, Opcode.ABORT, Opcode.VARIANT_SWITCH})


def check(module: CompiledModule, function: FunctionDef) -> int:
    """Return the number of backward jumps. Raise `ModuleRefused` for control flow that is not Move's."""
    body = function.body
    assert body is not None
    name = module.function_name(function.handle)
    code = body.code
    if not code or code[-1].op not in _UNCONDITIONAL:
        raise ModuleRefused("control_flow", "code runs past its end", item=name, offset=max(0, len(code) - 1))
    count = len(block_starts(body))
    if count > MAX_BLOCKS:
        raise ModuleRefused("too_many_basic_blocks", f"{count} basic blocks, {MAX_BLOCKS} at most", item=name)
    blocks = to_blocks(body)
    head = irreducible(blocks)
    if head is not None:
        raise ModuleRefused(
            "control_flow", "a loop is entered elsewhere than at its head", item=name, offset=head
        )
    for start, depth in loop_depths(blocks).items():
        if depth > MAX_LOOP_DEPTH:
            message = f"loops nested {depth} deep, {MAX_LOOP_DEPTH} at most"
            raise ModuleRefused("loop_max_depth_reached", message, item=name, offset=start)
    return sum(target <= start for start, block in blocks.items() for target in block.targets)
