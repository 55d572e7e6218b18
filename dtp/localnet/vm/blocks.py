"""Control flow of one function: basic blocks, their edges, and which of them need a number to be jumped to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dtp.sui.bytecode import CodeUnit, Instruction, Opcode

__all__ = ["Block", "block_starts", "irreducible", "loop_depths", "successors", "to_blocks"]

CONDITIONAL = (Opcode.BR_TRUE, Opcode.BR_FALSE)
_ENDS = frozenset({Opcode.BRANCH, Opcode.RET, Opcode.ABORT, Opcode.VARIANT_SWITCH, *CONDITIONAL})


@dataclass(slots=True)
class Block:
    """Instructions `start` to `end` (exclusive); control enters at the first and leaves after the last."""

    start: int
    end: int
    targets: tuple[int, ...]
    sources: list[int] = field(default_factory=list)
    is_loop_head: bool = False


def successors(code: Sequence[Instruction], unit: CodeUnit, at: int) -> tuple[int, ...]:
    """Return where control may go after instruction `at`: for a conditional branch the target, then the next one."""
    op, arg = code[at]
    if op is Opcode.BRANCH:
        return (int(arg),)  # type: ignore[arg-type]
    if op in CONDITIONAL:
        return (int(arg), at + 1)  # type: ignore[arg-type]
    if op in (Opcode.RET, Opcode.ABORT):
        return ()
    if op is Opcode.VARIANT_SWITCH:
        return unit.jump_tables[arg].offsets  # type: ignore[index]
    return (at + 1,)


def block_starts(unit: CodeUnit) -> list[int]:
    """Return the first instructions of all blocks, in order of the code."""
    code = unit.code
    leaders = {0}
    for at, (op, _) in enumerate(code):
        if op in _ENDS:
            leaders.update(successors(code, unit, at))
            leaders.add(at + 1)
    return sorted(s for s in leaders if s < len(code))


def to_blocks(unit: CodeUnit) -> dict[int, Block]:
    """Return blocks by their first instruction, in order of the code; only those that can be reached."""
    code = unit.code
    starts = block_starts(unit)
    blocks = {}
    for start, end in zip(starts, [*starts[1:], len(code)], strict=True):
        blocks[start] = Block(start, end, successors(code, unit, end - 1))
    reached = _reach(blocks)
    return {start: block for start, block in blocks.items() if start in reached}


def _reach(blocks: dict[int, Block]) -> set[int]:
    """Return blocks reachable from the first; fills in `sources` and marks targets of backward jumps."""
    reached, work = {0}, [0]
    while work:
        start = work.pop()
        for target in blocks[start].targets:
            block = blocks[target]
            block.sources.append(start)
            if target <= start:
                block.is_loop_head = True
            if target not in reached:
                reached.add(target)
                work.append(target)
    return reached


def irreducible(blocks: dict[int, Block]) -> int | None:
    """Return the first block that is entered by a backward jump from where it need not have been passed, or None.

    Such a loop has two heads; Move's verifier refuses it.
    """
    dominators: dict[int, set[int]] = {0: {0}}
    changed = True
    while changed:
        changed = False
        for start, block in blocks.items():
            if not start:
                continue
            known = [dominators[s] for s in block.sources if s in dominators]
            new = {start}.union(set.intersection(*known)) if known else {start}
            if dominators.get(start) != new:
                dominators[start] = new
                changed = True
    for start, target in _retreating(blocks):
        if target not in dominators[start]:
            return target
    return None


def loop_depths(blocks: dict[int, Block]) -> dict[int, int]:
    """Return how deep loops nest at and inside each loop's head, by its head; 1 holds no other. Needs loops with one
    head each."""
    bodies: dict[int, set[int]] = {}
    for start, head in _retreating(blocks):
        body = bodies.setdefault(head, {head})
        work = [start]
        while work:
            at = work.pop()
            if at not in body:
                body.add(at)
                work.extend(blocks[at].sources)
    depths: dict[int, int] = {}
    # A loop inside another has fewer blocks.
    for head, body in sorted(bodies.items(), key=lambda entry: len(entry[1])):
        depths[head] = 1 + max((depths[inner] for inner in body if inner in depths), default=0)
    return depths


def _retreating(blocks: dict[int, Block]) -> list[tuple[int, int]]:
    """Return edges to a block that is being visited, in a walk in depth."""
    found: list[tuple[int, int]] = []
    open_blocks, seen = {0}, {0}
    path = [(0, iter(blocks[0].targets))]
    while path:
        start, targets = path[-1]
        for target in targets:
            if target in open_blocks:
                found.append((start, target))
            elif target not in seen:
                seen.add(target)
                open_blocks.add(target)
                path.append((target, iter(blocks[target].targets)))
                break
        else:
            open_blocks.discard(start)
            path.pop()
    return found
