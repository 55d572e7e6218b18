"""Pass 6: locals are used only when they hold a value, and nothing that can't be dropped is left behind."""

from __future__ import annotations

from enum import IntFlag

from dtp.localnet.vm.blocks import to_blocks
from dtp.localnet.vm.types import DROP
from dtp.localnet.vm.verify.common import ModuleRefused, abilities
from dtp.sui.bytecode import CompiledModule, FunctionDef, Opcode

__all__ = ["check"]


class _State(IntFlag):
    """What a local may be, over all ways to a point."""

    EMPTY = 1
    FULL = 2


_READS = frozenset({Opcode.COPY_LOC, Opcode.MOVE_LOC, Opcode.MUT_BORROW_LOC, Opcode.IMM_BORROW_LOC})


def check(module: CompiledModule, function: FunctionDef) -> None:
    """Raise `ModuleRefused` for a local that may be empty where it is read, or full where it is lost."""
    body = function.body
    assert body is not None
    handle = module.function_handles[function.handle]
    constraints = [int(a) for a in handle.type_parameters]
    parameters = module.signatures[handle.parameters]
    types = (*parameters, *module.signatures[body.locals])
    droppable = [bool(abilities(module, t, constraints) & DROP) for t in types]
    name = module.function_name(function.handle)
    blocks = to_blocks(body)
    start = [_State.FULL] * len(parameters) + [_State.EMPTY] * (len(types) - len(parameters))
    states = {0: start}
    work = [0]
    while work:
        at = work.pop()
        state = list(states[at])
        block = blocks[at]
        for offset in range(block.start, block.end):
            op, argument = body.code[offset]
            if op in _READS:
                local = int(argument)  # type: ignore[arg-type]
                if state[local] != _State.FULL:
                    raise ModuleRefused(
                        "empty_local", f"local {local} may hold nothing", item=name, offset=offset
                    )
                if op is Opcode.MOVE_LOC:
                    state[local] = _State.EMPTY
            elif op is Opcode.ST_LOC:
                local = int(argument)  # type: ignore[arg-type]
                if state[local] & _State.FULL and not droppable[local]:
                    raise ModuleRefused(
                        "missing_ability",
                        f"local {local} is overwritten but can't be dropped",
                        item=name,
                        offset=offset,
                    )
                state[local] = _State.FULL
            elif op is Opcode.RET:
                for local, left in enumerate(state):
                    if left & _State.FULL and not droppable[local]:
                        raise ModuleRefused(
                            "missing_ability",
                            f"local {local} is left but can't be dropped",
                            item=name,
                            offset=offset,
                        )
        for target in block.targets:
            known = states.get(target)
            joined = state if known is None else [a | b for a, b in zip(known, state, strict=True)]
            if joined != known:
                states[target] = joined
                work.append(target)
