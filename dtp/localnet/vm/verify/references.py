"""Pass 7: references. A borrow graph tells, at each instruction, which references may point into which.

Nodes are references and the frame (whose fields are the locals). An edge says that its end was borrowed from its
start, along a path of fields; a weak edge may lead anywhere below. A value may be moved, overwritten or read only
when no borrow that is still alive stands in the way. The rules are those of Move's reference safety analysis.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any, TypeAlias

from dtp.localnet.vm.blocks import Block, to_blocks
from dtp.localnet.vm.verify.common import ModuleRefused
from dtp.localnet.vm.verify.shapes import variant_of
from dtp.sui.bytecode import CompiledModule, FunctionDef, Opcode, ReferenceType, SignatureToken

__all__ = ["check"]

_FRAME = -1
_MAX_EDGES = 5_000
_MAX_STEPS = 200_000

Label: TypeAlias = tuple[Any, ...]
Edge: TypeAlias = tuple[tuple[Label, ...], bool]  # path, and whether it is exact
Slot: TypeAlias = int | None  # a reference's node, or None for a value


class _Graph:
    """Borrow edges between nodes. `mutable` has the kind of each live node."""

    def __init__(self) -> None:
        self.mutable: dict[int, bool] = {_FRAME: True}
        self.out: dict[int, dict[int, set[Edge]]] = {_FRAME: {}}
        self.into: dict[int, set[int]] = {_FRAME: set()}

    def clone(self) -> _Graph:
        new = _Graph()
        new.mutable = dict(self.mutable)
        new.out = {n: {c: set(e) for c, e in children.items()} for n, children in self.out.items()}
        new.into = {n: set(p) for n, p in self.into.items()}
        return new

    def add_node(self, node: int, mutable: bool) -> None:
        self.mutable[node] = mutable
        self.out[node] = {}
        self.into[node] = set()

    def add_edge(self, parent: int, child: int, path: tuple[Label, ...], exact: bool) -> None:
        edges = self.out[parent].setdefault(child, set())
        # A weak edge along a prefix already says it all.
        if any(not strong and path[: len(known)] == known for known, strong in edges):
            return
        edges.add((path, exact))
        self.into[child].add(parent)

    def add_borrow(self, parent: int, child: int, path: tuple[Label, ...]) -> None:
        """Note that `child` is exactly `path` below `parent`; what was borrowed there before is borrowed from `child`
        now."""
        for other, edges in tuple(self.out[parent].items()):
            below = {edge for edge in edges if edge[0][: len(path)] == path}
            if not below:
                continue
            edges -= below
            if not edges:
                del self.out[parent][other]
                self.into[other].discard(parent)
            for known, exact in below:
                self.add_edge(child, other, known[len(path) :], exact)
        self.add_edge(parent, child, path, True)

    def release_node(self, node: int) -> None:
        """Drop a node; what was borrowed from it is borrowed from its parents now."""
        children = self.out.pop(node)
        for parent in self.into.pop(node):
            for path, exact in self.out[parent].pop(node):
                for child, edges in children.items():
                    if child == parent:
                        # Two ways joined can borrow from each other; what leads back to its start says nothing.
                        continue
                    for below, below_exact in edges:
                        if exact:
                            self.add_edge(parent, child, path + below, below_exact)
                        else:
                            self.add_edge(parent, child, path, False)
        for child in children:
            self.into[child].discard(node)
        del self.mutable[node]

    def rename_node(self, old: int, new: int) -> None:
        self.mutable[new] = self.mutable.pop(old)
        self.out[new] = self.out.pop(old)
        self.into[new] = self.into.pop(old)
        for parent in self.into[new]:
            self.out[parent][new] = self.out[parent].pop(old)
        for child in self.out[new]:
            self.into[child].discard(old)
            self.into[child].add(new)

    def is_borrowed(self, node: int, label: Label | None = None, only_mutable: bool = False) -> bool:
        """True if something alive was borrowed from `node`: anywhere, or in the way of its field `label`."""
        for child, edges in self.out[node].items():
            if only_mutable and not self.mutable[child]:
                continue
            if any(not path or label is None or path[0] == label for path, _ in edges):
                return True
        return False

    def has_full_borrow(self, node: int) -> bool:
        """True if something was borrowed from `node` itself, not from a field."""
        return any(not path for edges in self.out[node].values() for path, _ in edges)

    @property
    def size(self) -> int:
        return sum(len(e) for children in self.out.values() for e in children.values())

    def absorb_edges(self, other: _Graph) -> bool:
        """Add the other graph's edges (same nodes). True if there were new ones."""
        changed = False
        for parent, children in other.out.items():
            for child, edges in children.items():
                known = self.out[parent].setdefault(child, set())
                if not edges <= known:
                    known |= edges
                    self.into[child].add(parent)
                    changed = True
        return changed


class _State:
    """Locals (a node or a value each) and the graph, at the start of a block: node numbers are the locals'."""

    def __init__(self, locals: list[Slot], graph: _Graph) -> None:
        self.locals = locals
        self.graph = graph

    def clone(self) -> _State:
        return _State(list(self.locals), self.graph.clone())

    def number_nodes(self) -> None:
        """Number the nodes by the locals that hold them."""
        count = len(self.locals)
        held = [(at, node) for at, node in enumerate(self.locals) if node is not None]
        for _, node in held:
            self.graph.rename_node(node, node + 1_000_000)
        for at, node in held:
            self.graph.rename_node(node + 1_000_000, at)
            self.locals[at] = at
        assert all(-1 <= node < count for node in self.graph.mutable)

    def join_state(self, other: _State) -> bool:
        """Take in what may also be. True if that says more."""
        changed = False
        for at in range(len(self.locals)):
            if self.locals[at] is not None and other.locals[at] is None:
                self.graph.release_node(at)
                self.locals[at] = None
                changed = True
            elif self.locals[at] is None and other.locals[at] is not None:
                other.graph.release_node(at)
                other.locals[at] = None
        return self.graph.absorb_edges(other.graph) or changed


def check(module: CompiledModule, function: FunctionDef) -> None:
    """Raise `ModuleRefused` for the first use of a reference that may dangle or alias."""
    body = function.body
    assert body is not None
    handle = module.function_handles[function.handle]
    parameters = module.signatures[handle.parameters]
    types = (*parameters, *module.signatures[body.locals])
    if not any(isinstance(t, ReferenceType) for t in types) and not _borrows(function):
        return
    blocks = to_blocks(body)
    graph = _Graph()
    locals: list[Slot] = [None] * len(types)
    for at, token in enumerate(parameters):
        if isinstance(token, ReferenceType):
            graph.add_node(at, token.mutable)
            locals[at] = at
    states = {0: _State(locals, graph)}
    work = [0]
    analysis = _Analysis(module, function)
    while work:
        # In the order of the code: a join knows all its forward ways before it is walked, so a reference that one of
        # them doesn't have is gone there.
        start = heappop(work)
        state = states[start].clone()
        analysis.run_block(state, blocks[start])
        if not blocks[start].targets:
            continue
        state.number_nodes()
        for target in blocks[start].targets:
            known = states.get(target)
            if known is None:
                states[target] = state.clone()
                heappush(work, target)
            elif known.join_state(state.clone()) and target not in work:
                heappush(work, target)


def _borrows(function: FunctionDef) -> bool:
    assert function.body is not None
    return any(op in (Opcode.MUT_BORROW_LOC, Opcode.IMM_BORROW_LOC) for op, _ in function.body.code)


class _Analysis:
    """Walks blocks, changing a state by each instruction."""

    def __init__(self, module: CompiledModule, function: FunctionDef) -> None:
        assert function.body is not None
        self.module = module
        self.body = function.body
        self.name = module.function_name(function.handle)
        self.steps = 0
        self.at = 0
        self.state: _State
        self.graph: _Graph
        self.stack: list[Slot] = []
        self.next = 0

    def make_refusal(self, message: str) -> ModuleRefused:
        return ModuleRefused("reference_safety", message, item=self.name, offset=self.at)

    def run_block(self, state: _State, block: Block) -> None:
        """Run one block, from the state at its start to that at its end."""
        self.state, self.graph = state, state.graph
        self.stack = []
        self.next = len(state.locals)
        for at in range(block.start, block.end):
            self.at = at
            self.steps += 1
            if self.steps > _MAX_STEPS or (at & 15 == 0 and self.graph.size > _MAX_EDGES):
                raise ModuleRefused(
                    "too_complex", "references are too entangled to verify", item=self.name, offset=at
                )
            op, argument = self.body.code[at]
            self.run_instruction(op, argument)

    # ------------------------------------------------------------------------------------------------ nodes

    def new_node(self, mutable: bool) -> int:
        node = self.next
        self.next += 1
        self.graph.add_node(node, mutable)
        return node

    def release_slot(self, slot: Slot) -> None:
        if slot is not None:
            self.graph.release_node(slot)

    def is_readable(self, node: int, label: Label | None = None) -> bool:
        return not self.graph.mutable[node] or not self.graph.is_borrowed(node, label, only_mutable=True)

    def is_writable(self, node: int) -> bool:
        return not self.graph.is_borrowed(node)

    def pop_slot(self) -> Slot:
        return self.stack.pop()

    def pop_node(self) -> int:
        node = self.stack.pop()
        if node is None:
            raise self.make_refusal("a reference is needed")
        return node

    # ----------------------------------------------------------------------------------------- instructions

    def run_instruction(self, op: Opcode, argument: Any) -> None:
        """Run one instruction."""
        special = _STEPS.get(op)
        if special is not None:
            special(self, argument)
            return
        pops, pushes = _PLAIN[op]
        if pops:
            del self.stack[-pops:]
        self.stack.extend([None] * pushes)

    def _run_pop(self, _: None) -> None:
        self.release_slot(self.pop_slot())

    def _copy_local(self, local: int) -> None:
        node = self.state.locals[local]
        if node is None:
            if self.graph.is_borrowed(_FRAME, (local,), only_mutable=True):
                raise self.make_refusal(f"local {local} is copied while it is borrowed mutably")
            self.stack.append(None)
            return
        copy = self.new_node(self.graph.mutable[node])
        self.graph.add_borrow(node, copy, ())
        self.stack.append(copy)

    def _move_local(self, local: int) -> None:
        node = self.state.locals[local]
        if node is None and self.graph.is_borrowed(_FRAME, (local,)):
            raise self.make_refusal(f"local {local} is moved while it is borrowed")
        self.state.locals[local] = None
        self.stack.append(node)

    def _store_local(self, local: int) -> None:
        old = self.state.locals[local]
        if old is None and self.graph.is_borrowed(_FRAME, (local,)):
            raise self.make_refusal(f"local {local} is overwritten while it is borrowed")
        self.release_slot(old)
        self.state.locals[local] = self.pop_slot()

    def _borrow_local(self, local: int, mutable: bool) -> None:
        if not mutable and self.graph.is_borrowed(_FRAME, (local,), only_mutable=True):
            raise self.make_refusal(f"local {local} is borrowed while it is borrowed mutably")
        node = self.new_node(mutable)
        self.graph.add_borrow(_FRAME, node, ((local,),))
        self.stack.append(node)

    def _run_read(self, _: None) -> None:
        node = self.pop_node()
        if not self.is_readable(node):
            raise self.make_refusal("a reference is read while its target is borrowed mutably")
        self.release_slot(node)
        self.stack.append(None)

    def _run_write(self, _: None) -> None:
        node = self.pop_node()
        self.pop_slot()
        if not self.is_writable(node):
            raise self.make_refusal("a reference is written while its target is borrowed")
        self.release_slot(node)

    def _run_freeze(self, _: None) -> None:
        node = self.pop_node()
        if self.graph.is_borrowed(node, only_mutable=True):
            raise self.make_refusal("a reference is frozen while its target is borrowed mutably")
        frozen = self.new_node(False)
        self.graph.add_borrow(node, frozen, ())
        self.release_slot(node)
        self.stack.append(frozen)

    def _run_equal(self, _: None) -> None:
        for node in (self.pop_slot(), self.pop_slot()):
            if node is not None:
                if not self.is_readable(node):
                    raise self.make_refusal("a reference is compared while its target is borrowed mutably")
                self.release_slot(node)
        self.stack.append(None)

    def _borrow_fields(self, labels: list[Label], mutable: bool) -> None:
        node = self.pop_node()
        if mutable and self.graph.has_full_borrow(node):
            raise self.make_refusal("a field is borrowed mutably while its owner is borrowed")
        fields = []
        for label in labels:
            if not mutable and not self.is_readable(node, label):
                raise self.make_refusal("a field is borrowed while it is borrowed mutably")
            field = self.new_node(mutable)
            self.graph.add_borrow(node, field, (label,))
            fields.append(field)
        self.release_slot(node)
        self.stack.extend(fields)

    def _borrow_field(self, handle: int, mutable: bool) -> None:
        entry = self.module.field_handles[handle]
        self._borrow_fields([("field", entry.owner, entry.field)], mutable)

    def _borrow_field_generic(self, index: int, mutable: bool) -> None:
        self._borrow_field(self.module.field_instantiations[index].target, mutable)

    def _unpack_variant_reference(self, handle: int, generic: bool, mutable: bool) -> None:
        definition, variant, _, fields, _ = variant_of(self.module, handle, generic)
        self._borrow_fields([("variant", definition, variant, at) for at in range(len(fields))], mutable)

    def _run_switch(self, _: int) -> None:
        node = self.pop_node()
        if not self.is_readable(node):
            raise self.make_refusal("an enum is looked at while it is borrowed mutably")
        self.release_slot(node)

    def _run_call(self, handle: int) -> None:
        entry = self.module.function_handles[handle]
        count = len(self.module.signatures[entry.parameters])
        arguments = [n for n in self.stack[len(self.stack) - count :] if n is not None]
        del self.stack[len(self.stack) - count :]
        for node in arguments:
            if self.graph.mutable[node] and not self.is_writable(node):
                raise self.make_refusal("a mutable reference is passed on while its target is borrowed")
        for token in self.module.signatures[entry.returns]:
            self.stack.append(self._make_result(token, arguments))
        for node in arguments:
            self.release_slot(node)

    def _make_result(self, token: SignatureToken, arguments: list[int]) -> Slot:
        if not isinstance(token, ReferenceType):
            return None
        node = self.new_node(token.mutable)
        for source in arguments:
            if self.graph.mutable[source] or not token.mutable:
                self.graph.add_edge(source, node, (), False)
        return node

    def _call_generic(self, index: int) -> None:
        self._run_call(self.module.function_instantiations[index].target)

    def _run_return(self, _: None) -> None:
        for local, node in enumerate(self.state.locals):
            self.release_slot(node)
            self.state.locals[local] = None
        if self.graph.is_borrowed(_FRAME):
            raise self.make_refusal("a reference to a local is returned")
        for returned in self.stack:
            if returned is not None and self.graph.mutable[returned] and not self.is_writable(returned):
                raise self.make_refusal("a mutable reference is returned while its target is borrowed")
        self.stack.clear()

    def _run_abort(self, _: None) -> None:
        self.stack.clear()

    def _run_pack(self, count: int) -> None:
        del self.stack[len(self.stack) - count :]
        self.stack.append(None)

    def _run_unpack(self, count: int) -> None:
        self.pop_slot()
        self.stack.extend([None] * count)

    def _count_fields(self, definition: int) -> int:
        return len(self.module.struct_defs[definition].fields or ())

    def _generic_fields(self, index: int) -> int:
        return self._count_fields(self.module.struct_instantiations[index].target)

    def _variant_fields(self, handle: int, generic: bool) -> int:
        return len(variant_of(self.module, handle, generic)[3])

    def _vector_borrow(self, _: int, mutable: bool) -> None:
        self.pop_slot()
        node = self.pop_node()
        if mutable and not self.is_writable(node):
            raise self.make_refusal("an element is borrowed mutably while its vector is borrowed")
        if not mutable and not self.is_readable(node):
            raise self.make_refusal("an element is borrowed while its vector is borrowed mutably")
        element = self.new_node(mutable)
        self.graph.add_edge(node, element, (), False)
        self.release_slot(node)
        self.stack.append(element)

    def _vector_use(self, pops: int, changes: bool, pushes: int) -> None:
        for _ in range(pops):
            self.pop_slot()
        node = self.pop_node()
        if changes and not self.is_writable(node):
            raise self.make_refusal("a vector is changed while it is borrowed")
        if not changes and not self.is_readable(node):
            raise self.make_refusal("a vector is read while it is borrowed mutably")
        self.release_slot(node)
        self.stack.extend([None] * pushes)


_A = _Analysis
_STEPS: dict[Opcode, Any] = {
    Opcode.POP: _A._run_pop,
    Opcode.COPY_LOC: _A._copy_local,
    Opcode.MOVE_LOC: _A._move_local,
    Opcode.ST_LOC: _A._store_local,
    Opcode.MUT_BORROW_LOC: lambda a, x: a._borrow_local(x, True),
    Opcode.IMM_BORROW_LOC: lambda a, x: a._borrow_local(x, False),
    Opcode.MUT_BORROW_FIELD: lambda a, x: a._borrow_field(x, True),
    Opcode.IMM_BORROW_FIELD: lambda a, x: a._borrow_field(x, False),
    Opcode.MUT_BORROW_FIELD_GENERIC: lambda a, x: a._borrow_field_generic(x, True),
    Opcode.IMM_BORROW_FIELD_GENERIC: lambda a, x: a._borrow_field_generic(x, False),
    Opcode.READ_REF: _A._run_read,
    Opcode.WRITE_REF: _A._run_write,
    Opcode.FREEZE_REF: _A._run_freeze,
    Opcode.EQ: _A._run_equal,
    Opcode.NEQ: _A._run_equal,
    Opcode.CALL: _A._run_call,
    Opcode.CALL_GENERIC: _A._call_generic,
    Opcode.RET: _A._run_return,
    Opcode.ABORT: _A._run_abort,
    Opcode.PACK: lambda a, x: a._run_pack(a._count_fields(x)),
    Opcode.PACK_GENERIC: lambda a, x: a._run_pack(a._generic_fields(x)),
    Opcode.UNPACK: lambda a, x: a._run_unpack(a._count_fields(x)),
    Opcode.UNPACK_GENERIC: lambda a, x: a._run_unpack(a._generic_fields(x)),
    Opcode.PACK_VARIANT: lambda a, x: a._run_pack(a._variant_fields(x, False)),
    Opcode.PACK_VARIANT_GENERIC: lambda a, x: a._run_pack(a._variant_fields(x, True)),
    Opcode.UNPACK_VARIANT: lambda a, x: a._run_unpack(a._variant_fields(x, False)),
    Opcode.UNPACK_VARIANT_GENERIC: lambda a, x: a._run_unpack(a._variant_fields(x, True)),
    Opcode.UNPACK_VARIANT_IMM_REF: lambda a, x: a._unpack_variant_reference(x, False, False),
    Opcode.UNPACK_VARIANT_MUT_REF: lambda a, x: a._unpack_variant_reference(x, False, True),
    Opcode.UNPACK_VARIANT_GENERIC_IMM_REF: lambda a, x: a._unpack_variant_reference(x, True, False),
    Opcode.UNPACK_VARIANT_GENERIC_MUT_REF: lambda a, x: a._unpack_variant_reference(x, True, True),
    Opcode.VARIANT_SWITCH: _A._run_switch,
    Opcode.VEC_PACK: lambda a, x: a._run_pack(x[1]),
    Opcode.VEC_UNPACK: lambda a, x: a._run_unpack(x[1]),
    Opcode.VEC_IMM_BORROW: lambda a, x: a._vector_borrow(x, False),
    Opcode.VEC_MUT_BORROW: lambda a, x: a._vector_borrow(x, True),
    Opcode.VEC_LEN: lambda a, _: a._vector_use(0, False, 1),
    Opcode.VEC_PUSH_BACK: lambda a, _: a._vector_use(1, True, 0),
    Opcode.VEC_POP_BACK: lambda a, _: a._vector_use(0, True, 1),
    Opcode.VEC_SWAP: lambda a, _: a._vector_use(2, True, 0),
}
_BINARY = (2, 1)
_UNARY = (1, 1)
_LOAD = (0, 1)
_PLAIN: dict[Opcode, tuple[int, int]] = {
    **dict.fromkeys(
        (
            Opcode.ADD,
            Opcode.SUB,
            Opcode.MUL,
            Opcode.DIV,
            Opcode.MOD,
            Opcode.BIT_AND,
            Opcode.BIT_OR,
            Opcode.XOR,
        ),
        _BINARY,
    ),
    **dict.fromkeys(
        (Opcode.SHL, Opcode.SHR, Opcode.OR, Opcode.AND, Opcode.LT, Opcode.GT, Opcode.LE, Opcode.GE), _BINARY
    ),
    **dict.fromkeys((Opcode.NOT, Opcode.CAST_U8, Opcode.CAST_U16, Opcode.CAST_U32, Opcode.CAST_U64), _UNARY),
    **dict.fromkeys((Opcode.CAST_U128, Opcode.CAST_U256), _UNARY),
    **dict.fromkeys(
        (Opcode.LD_U8, Opcode.LD_U16, Opcode.LD_U32, Opcode.LD_U64, Opcode.LD_U128, Opcode.LD_U256), _LOAD
    ),
    **dict.fromkeys((Opcode.LD_CONST, Opcode.LD_TRUE, Opcode.LD_FALSE), _LOAD),
    Opcode.BR_TRUE: (1, 0),
    Opcode.BR_FALSE: (1, 0),
    Opcode.BRANCH: (0, 0),
    Opcode.NOP: (0, 0),
}
