"""Move bytecode to Python: one function, with its type arguments filled in, becomes one Python function.

An interpreter in Python spends most of its time finding out what to do next; here that is found out once. Types are
concrete, so every instruction knows its operands' representation; the operand stack exists only at translation
(`_Operand`) and becomes expressions and temporaries; basic blocks become nested `if`s, and only joins and loop
heads are dispatched by number. Code must have passed the verifier: stack discipline, types and reference safety are
relied on, not tested.

The Python function takes the session's meter `c` and the arguments, and returns None, one value or a tuple. Gas is
counted per basic block in `c`'s counters. A line table tells, from a traceback, which instruction an exception came
from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType
from typing import TYPE_CHECKING, Any, NamedTuple

from dtp.localnet.limits import MAX_STACK
from dtp.localnet.vm import translate_ops
from dtp.localnet.vm.blocks import Block, to_blocks
from dtp.localnet.vm.operand import Operand
from dtp.localnet.vm.signals import Abort, PrimitiveError
from dtp.localnet.vm.sizes import STRUCT_SIZE, packed_element_size, sizer, static_size
from dtp.localnet.vm.types import Type
from dtp.sui.bytecode import Opcode

if TYPE_CHECKING:
    from dtp.localnet.vm.linker import LinkedFunction

__all__ = ["MAX_CALL_DEPTH", "CodeLine", "Translated", "Translation", "translate"]

MAX_CALL_DEPTH = 1025
"""Frames that may exist at once: the protocol's machine stacks 1,024 below the running one."""
_MAX_NESTING = 30
_MAX_EXPRESSION = 160


class CodeLine(NamedTuple):
    """One line of the Python function: how deep it is nested, its text, the instruction it serves."""

    indent: int
    text: str
    pc: int


@dataclass(frozen=True, slots=True)
class Translated:
    """What a code object of translated code stands for: `pcs[line number]` is the instruction."""

    function: LinkedFunction
    pcs: tuple[int, ...]
    source: str


class TooDeep(Exception):
    """A block must get a number of its own because nesting would pass Python's limit."""

    def __init__(self, block: int) -> None:
        super().__init__(block)
        self.block = block


def translate(
    function: LinkedFunction,
    arguments: tuple[Type, ...],
    call: Callable[[LinkedFunction, tuple[Type, ...]], Any],
    native: Callable[[LinkedFunction], Any],
    register: Callable[[CodeType, Translated], None],
) -> Callable[..., Any]:
    """Return the Python function for `function` under type `arguments`.

    `call` gives, for a callee, what to call (translated on first use); `native` the implementation of a native
    function; `register` learns the code object. Raises `MissingItem` if the code names something that is absent.
    """
    forced: set[int] = set()
    while True:
        work = Translation(function, arguments, call, native, forced)
        try:
            lines = work.translate_lines()
            break
        except TooDeep as deep:
            forced.add(deep.block)
    source = "\n".join(" " * line.indent + line.text for line in lines)
    code = compile(source, f"<move {function.qualified_name}>", "exec")
    exec(code, work.names)  # the text is made here, from verified bytecode; names are generated
    made: Callable[..., Any] = work.names["f"]
    register(made.__code__, Translated(function, (0, *(line.pc for line in lines)), source))
    return made


class Translation:
    """The translation of one function; `translate_ops` has one method-like function per instruction."""

    def __init__(
        self,
        function: LinkedFunction,
        arguments: tuple[Type, ...],
        call: Callable[[LinkedFunction, tuple[Type, ...]], Any],
        native: Callable[[LinkedFunction], Any],
        forced: set[int],
    ) -> None:
        assert function.definition.body is not None
        self.function = function
        self.module = function.module
        self.arguments = arguments
        self.call = call
        self.native = native
        self.forced = forced
        self.unit = function.definition.body
        signature = (*function.parameters, *self.module.module.signatures[self.unit.locals])
        self.local_types = [self.resolve_type(t) for t in signature]
        self.returns = [self.resolve_type(t) for t in function.returns]
        self.names: dict[str, Any] = {"Abort": Abort, "PrimitiveError": PrimitiveError}
        self.stack: list[Operand] = []
        self.out: list[CodeLine] = []
        self.pc = 0
        self.indent = 1
        self._temporaries = 0
        self._constants: dict[int, str] = {}
        self._callees: dict[tuple[LinkedFunction, tuple[Type, ...]], str] = {}
        self._dynamic_sizes: list[str] = []
        self._static_size = 0
        self._pushes = self._natives = 0
        self.boxed = self._boxed_locals()
        self.blocks = to_blocks(self.unit)
        self.numbered = {
            start
            for start, block in self.blocks.items()
            if start == 0 or block.is_loop_head or len(block.sources) > 1 or start in forced
        }

    def resolve_type(self, token: Any) -> Type:
        """Return the concrete type of a token of this function's module."""
        return self.module.resolve_type(token, self.arguments)

    def _boxed_locals(self) -> frozenset[int]:
        """Return locals that hold no container and are borrowed: they live in a list of one, so a reference has a
        place."""
        borrows = (Opcode.MUT_BORROW_LOC, Opcode.IMM_BORROW_LOC)
        return frozenset(
            int(arg)  # type: ignore[arg-type]
            for op, arg in self.unit.code
            if op in borrows and not self.local_types[arg].is_container  # type: ignore[index]
        )

    # ------------------------------------------------------------------------------------ text and operands

    def emit_line(self, text: str) -> None:
        """Append a line at the current nesting, serving the current instruction."""
        self.out.append(CodeLine(self.indent, text, self.pc))

    def new_temporary(self) -> str:
        """Return a fresh Python variable."""
        self._temporaries += 1
        return f"t{self._temporaries}"

    def name_global(self, kind: str, value: Any) -> str:
        """Return a global of the translated function that holds `value`."""
        key = id(value)
        found = self._constants.get(key)
        if found is None or self.names[found] is not value:
            found = self._constants[key] = f"{kind}{len(self.names)}"
            self.names[found] = value
        return found

    def name_callee(self, function: LinkedFunction, arguments: tuple[Type, ...]) -> str:
        """Return the global that holds what a call of `function` calls: itself once it is translated, until then a
        stub."""
        key = (function, arguments)
        found = self._callees.get(key)
        if found is None:
            found = self._callees[key] = f"call{len(self.names)}"
            names = self.names

            def first_call(c: Any, *values: Any) -> Any:
                made = names[found] = self.call(function, arguments)
                return made(c, *values)

            self.names[found] = function.instances.get(arguments, first_call)
        return found

    def push_operand(self, operand: Operand) -> None:
        """Push; very long expressions become temporaries."""
        if len(operand.text) + len(operand.base) > _MAX_EXPRESSION:
            operand = self.evaluate_now(operand)
        self.stack.append(operand)
        self._pushes += 1

    def push_result(self, text: str, type: Type) -> None:
        """Evaluate `text` now and push the temporary."""
        variable = self.new_temporary()
        self.emit_line(f"{variable} = {text}")
        self.push_operand(self.variable_operand(variable, type))

    def variable_operand(self, variable: str, type: Type, locals: frozenset[int] = frozenset()) -> Operand:
        """Return the operand that a variable holding data of `type` is."""
        if type.is_reference and not type.element.is_container:
            return Operand(variable, type, locals, f"{variable}[0]", f"{variable}[1]")
        return Operand(variable, type, locals)

    def reference_operand(self, base: str, index: str, type: Type, locals: frozenset[int]) -> Operand:
        """Return a reference of `type` to place `index` of container `base`."""
        if type.element.is_container:
            return Operand(f"{base}[{index}]", type, locals)
        return Operand(f"({base}, {index})", type, locals, base, index)

    def pop_operand(self) -> Operand:
        """Pop the top operand, unevaluated."""
        return self.stack.pop()

    def pop_many(self, count: int) -> list[Operand]:
        """Pop the top `count`, in the order they were pushed."""
        if not count:
            return []
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def pop_atom(self) -> Operand:
        """Pop the top operand with a text that can be written twice."""
        return self.to_atom(self.stack.pop())

    def to_atom(self, operand: Operand) -> Operand:
        """Return the operand, in a temporary if its text is more than a name."""
        return operand if operand.is_atom else self.evaluate_now(operand)

    def evaluate_now(self, operand: Operand) -> Operand:
        """Evaluate an operand into a temporary now."""
        variable = self.new_temporary()
        self.emit_line(f"{variable} = {operand.text}")
        return self.variable_operand(variable, operand.type)

    def spill_readers(self, local: int) -> None:
        """Evaluate what waits on the stack and reads `local`, which is about to change."""
        for at, operand in enumerate(self.stack):
            if local in operand.locals:
                self.stack[at] = self.evaluate_now(operand)

    def read_target(self, reference: Operand) -> str:
        """Return what a reference's target holds, without a copy."""
        if reference.type.element.is_container:
            return reference.text
        return f"{reference.base}[{reference.index}]"

    # ------------------------------------------------------------------------------------------------- gas

    def charge_size(self, units: int) -> None:
        """Count abstract bytes that an instruction pushes."""
        self._static_size += units

    def charge_pushes(self, count: int) -> None:
        """Count pushes that `push_operand` doesn't see (or, negative, that the schedule doesn't count)."""
        self._pushes += count

    def charge_native(self) -> None:
        """Count the call of a native: the schedule takes it for an instruction of its own, beside the call."""
        self._natives += 1

    def charge_value(self, type: Type, text: str) -> None:
        """Count the abstract size of a value; `text` must be a name when its size varies."""
        fixed = static_size(type)
        if fixed is not None:
            self._static_size += fixed
            return
        packed = packed_element_size(type.element) if type.kind == "vector" else None
        if packed is not None:
            self._static_size += STRUCT_SIZE
            self._dynamic_sizes.append(f"len({text})" if packed == 1 else f"{packed} * len({text})")
        else:
            self._dynamic_sizes.append(f"{self.name_global('size', sizer(type))}({text})")
        # Measured now: the value may change or go before the block ends.
        self.emit_line(f"c.size += {' + '.join(self._dynamic_sizes)}")
        self._dynamic_sizes.clear()

    # ---------------------------------------------------------------------------------------------- blocks

    def translate_lines(self) -> list[CodeLine]:
        """Return the whole Python function."""
        order = [start for start in self.blocks if start in self.numbered]
        parameters = len(self.function.parameters)
        arguments = "".join(f", l{i}" for i in range(parameters))
        # Names of callees and constants are globals of the function: the fastest look-up that can be bound late.
        head = [CodeLine(0, f"def f(c{arguments}):", 0), CodeLine(1, "c.depth += 1", 0)]
        head.append(CodeLine(1, f"if c.depth > {MAX_CALL_DEPTH}: raise PrimitiveError('call_depth')", 0))
        head += [CodeLine(1, f"l{i} = [l{i}]", 0) for i in sorted(self.boxed) if i < parameters]
        loops = any(self.blocks[s].is_loop_head for s in self.blocks)
        if len(order) == 1 and not loops:
            return head + self._emit_segment(0, 1)
        body: list[CodeLine] = []
        if not self.blocks[0].is_loop_head:
            body += self._emit_segment(0, 1)
            order = order[1:]
        else:
            head.append(CodeLine(1, "b = 0", 0))
        self.in_loop = loops
        inner = 1
        if loops:
            body.append(CodeLine(1, "while True:", 0))
            inner = 2
        for start in order:
            body.append(CodeLine(inner, f"if b == {start}:", start))
            body += self._emit_segment(start, inner + 1)
        return head + body

    in_loop = False
    _segment_start = 0
    _outside_loop = False

    def _emit_segment(self, start: int, indent: int) -> list[CodeLine]:
        self._segment_start = start
        # The first block's code stands before the loop, so it can't `continue`: it falls into it.
        self._outside_loop = start == 0 and not self.blocks[0].is_loop_head
        self.out = []
        self._emit_block(start, indent, 0)
        return self.out

    def _emit_block(self, start: int, indent: int, nesting: int) -> bool:
        """Emit a block and those inlined after it. True if control never falls out of the emitted text."""
        while True:
            block = self.blocks[start]
            self.indent = indent
            outcome = self._emit_straight(block, check=start == 0 or block.is_loop_head)
            if outcome is None:
                return True
            if isinstance(outcome, str):
                following = self._emit_branch(block, outcome, indent, nesting)
            elif len(outcome) == 1:
                following = outcome[0]
            else:
                return self._emit_switch(block, outcome, indent, nesting)
            if following is None:
                return True
            if following < 0:
                return False
            if following in self.numbered:
                return self._emit_jump(following, indent)
            start = following

    def _emit_straight(self, block: Block, check: bool) -> str | tuple[int, ...] | None:
        """Emit a block's own instructions.

        Returns the condition of a final conditional branch, the targets of another end, or None if it returned
        or aborted.
        """
        self.stack.clear()
        marker = len(self.out)
        self._pushes = self._static_size = self._natives = 0
        condition: str | None = None
        ended = False
        height = 0
        code = self.unit.code
        for at in range(block.start, block.end):
            self.pc = at
            instruction = code[at]
            if instruction.op in (Opcode.BR_TRUE, Opcode.BR_FALSE):
                text = self.pop_operand().text
                condition = text if instruction.op is Opcode.BR_TRUE else f"not {text}"
            elif instruction.op is Opcode.VARIANT_SWITCH:
                condition = self.read_target(self.pop_atom())
            elif instruction.op is Opcode.BRANCH:
                pass
            else:
                ended = translate_ops.emit(self, instruction)
            height = max(height, len(self.stack))
        self._insert_gas(block, marker, check)
        self._insert_bound(block, marker, height)
        if ended:
            return None
        if code[block.end - 1].op is Opcode.VARIANT_SWITCH:
            self._switched = condition or ""
            return block.targets
        return condition if condition is not None else block.targets

    _switched = ""

    def _insert_gas(self, block: Block, marker: int, check: bool) -> None:
        """Insert the gas lines at `marker`, the start of the block's text."""
        text = f"c.instructions += {block.end - block.start + self._natives}"
        if self._pushes > 0:
            text += f"; c.pushes += {self._pushes}"
        if self._static_size:
            text += f"; c.size += {self._static_size}"
        gas = [CodeLine(self.indent, text, block.start)]
        if check:
            condition = "c.instructions > c.mark_instructions or c.size > c.mark_size"
            gas.append(CodeLine(self.indent, f"if {condition}: c.settle_counters()", block.start))
        self.out[marker:marker] = gas

    def _insert_bound(self, block: Block, marker: int, height: int) -> None:
        """Insert the check of the operand stack at `marker`, unless the first block's has covered it."""
        if block.start and height <= self._first_height:
            return
        if not block.start:
            self._first_height = height
        text = f"if c.stack > {MAX_STACK - height}: raise PrimitiveError('operand_stack')"
        self.out.insert(marker, CodeLine(self.indent, text, block.start))

    _first_height = 0

    def _emit_branch(self, block: Block, condition: str, indent: int, nesting: int) -> int | None:
        """Emit a conditional branch.

        Returns the block to go on with at this nesting, None if neither arm falls out, -1 if one does.
        """
        taken, fallen = block.targets
        first, second = taken, fallen
        if self._is_short(fallen) and not self._is_short(taken):
            first, second, condition = fallen, taken, _negated(condition)
        self.emit_line(f"if {condition}:")
        self.pc = block.end - 1
        if self._emit_arm(first, indent + 1, nesting + 1):
            return second
        self.indent = indent
        self.emit_line("else:")
        self._emit_arm(second, indent + 1, nesting + 1)
        return -1

    def _is_short(self, start: int) -> bool:
        """True if a block just ends the function: then it goes first, and the rest needs no `else`."""
        return start not in self.numbered and not self.blocks[start].targets

    def _emit_arm(self, start: int, indent: int, nesting: int) -> bool:
        if start in self.numbered:
            return self._emit_jump(start, indent)
        if nesting > _MAX_NESTING:
            raise TooDeep(start)
        return self._emit_block(start, indent, nesting)

    def _emit_switch(self, block: Block, targets: tuple[int, ...], indent: int, nesting: int) -> bool:
        subject = self._switched
        all_end = True
        if nesting + 1 > _MAX_NESTING:
            raise TooDeep(block.start)
        for tag, target in enumerate(targets):
            self.indent = indent
            self.pc = block.end - 1
            self.emit_line(f"{'if' if not tag else 'elif'} {subject}[0] == {tag}:")
            all_end &= self._emit_arm(target, indent + 1, nesting + 1)
        # Variants are exhausted, but Python doesn't know: an arm always ran.
        return all_end

    def _emit_jump(self, target: int, indent: int) -> bool:
        self.indent = indent
        backward = target <= self._segment_start and not self._outside_loop
        if target != self._segment_start or self._outside_loop:
            self.emit_line(f"b = {target}")
        if backward:
            self.emit_line("continue")
        elif target == self._segment_start:
            self.emit_line("pass")
        return backward


def _negated(condition: str) -> str:
    return condition[4:] if condition.startswith("not ") else f"not {condition}"
