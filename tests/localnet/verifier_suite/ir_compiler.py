"""A tree of `ir_parser` as a compiled module: one instruction for each thing that is said, checked by nobody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ir_parser import Function, IrError, Module, Struct, Tree
from module_maker import Maker

from dtp.sui.bytecode import (
    Ability,
    CodeUnit,
    CompiledModule,
    Constant,
    DatatypeHandle,
    DatatypeType,
    DatatypeTypeParameter,
    Field,
    FieldHandle,
    FunctionDef,
    Instantiation,
    Instruction,
    Opcode,
    Primitive,
    ReferenceType,
    SignatureToken,
    StructDef,
    TypeParameterIndex,
    VectorType,
    Visibility,
)

ModuleId = tuple[bytes, str]
_SIGNS = {
    "+": Opcode.ADD, "-": Opcode.SUB, "*": Opcode.MUL, "/": Opcode.DIV, "%": Opcode.MOD, "|": Opcode.BIT_OR,
    "&": Opcode.BIT_AND, "^": Opcode.XOR, "<<": Opcode.SHL, ">>": Opcode.SHR, "||": Opcode.OR, "&&": Opcode.AND,
    "==": Opcode.EQ, "!=": Opcode.NEQ, "<": Opcode.LT, ">": Opcode.GT, "<=": Opcode.LE, ">=": Opcode.GE,
}  # fmt: skip
_VISIBLE = {"private": Visibility.PRIVATE, "public": Visibility.PUBLIC, "friend": Visibility.FRIEND}
_MOST_LOCALS = 256


def address(number: int) -> bytes:
    """An address of 32 bytes."""
    return number.to_bytes(32, "big")


def _abilities(names: list[str]) -> Ability:
    made = Ability.NONE
    for name in names:
        made |= Ability[name.upper()]
    return made


@dataclass
class _Scope:
    """What a function names: type parameters, locals, labels; and its code, whose jumps name labels by number."""

    parameters: list[str]
    locals: list[str] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    code: list[Instruction] = field(default_factory=list)
    jumps: list[tuple[int, str]] = field(default_factory=list)

    def local(self, name: str) -> int:
        if name not in self.locals:
            raise IrError(f"no local {name}")
        return self.locals.index(name)

    def emit(self, name: str | Opcode, argument: Any = None) -> None:
        self.code.append(Instruction(Opcode[name] if isinstance(name, str) else name, argument))

    def jump(self, name: str, label: str) -> None:
        self.jumps.append((len(self.code), label))
        self.emit(name, 0)


class _Compiler:
    def __init__(self, module: Module, others: Mapping[ModuleId, CompiledModule]) -> None:
        self._module, self._others = module, others
        self._made = Maker(module.name, address(module.address))
        self._modules: dict[str, ModuleId] = {"Self": (address(module.address), module.name)}
        self._structs: dict[str, Struct] = {each.name: each for each in module.structs}
        self._functions: dict[str, Function] = {each.name: each for each in module.functions}
        self._field_handles: list[FieldHandle] = []
        self._struct_instances: list[Instantiation] = []
        self._field_instances: list[Instantiation] = []

    def compile(self) -> CompiledModule:
        made, module = self._made, self._module
        for number, name, alias in module.imports:
            made.module(address(number), name)
            self._modules[alias] = address(number), name
        friends = [(made.module(address(number), name)) for number, name in module.friends]
        made.friend_decls = [made.module_handles[at] for at in friends]
        for struct in module.structs:
            self._own_handle(struct)
        for struct in module.structs:
            names = [name for name, _, _ in struct.parameters]
            fields = None
            if struct.fields is not None:
                fields = tuple(Field(made.identifier(n), self._type(t, names)) for n, t in struct.fields)
            made.struct_defs.append(StructDef(self._own_handle(struct), fields))
        for function in module.functions:
            self._function_handle("Self", function.name)
        for function in module.functions:
            self._define(function)
        return made.build(
            field_handles=self._field_handles,
            struct_instantiations=self._struct_instances,
            field_instantiations=self._field_instances,
        )

    # ---- tables

    def _own_handle(self, struct: Struct) -> int:
        parameters = tuple(
            DatatypeTypeParameter(_abilities(a), phantom) for _, phantom, a in struct.parameters
        )
        name = self._made.identifier(struct.name)
        return self._handle(DatatypeHandle(0, name, _abilities(struct.abilities), parameters))

    def _handle(self, handle: DatatypeHandle) -> int:
        if handle not in self._made.datatype_handles:
            self._made.datatype_handles.append(handle)
        return self._made.datatype_handles.index(handle)

    def _struct_handle(self, module: str, name: str) -> int:
        if module == "Self":
            return self._own_handle(self._own(name))
        other = self._other(module)
        for found in other.datatype_handles:
            if found.module == other.self_handle and other.identifiers[found.name] == name:
                return self._foreign(other, found)
        raise IrError(f"no struct {module}.{name}")

    def _foreign(self, other: CompiledModule, found: DatatypeHandle) -> int:
        made = self._made
        place, name = other.module_id(found.module), other.identifiers[found.name]
        return self._handle(
            DatatypeHandle(made.module(*place), made.identifier(name), found.abilities, found.type_parameters)
        )

    def _other(self, module: str) -> CompiledModule:
        if module not in self._modules or self._modules[module] not in self._others:
            raise IrError(f"no module {module}")
        return self._others[self._modules[module]]

    def _own(self, name: str) -> Struct:
        if name not in self._structs:
            raise IrError(f"no struct {name}")
        return self._structs[name]

    def _definition(self, name: str) -> int:
        self._own(name)
        return [each.name for each in self._module.structs].index(name)

    def _type(self, tree: Tree, parameters: list[str]) -> SignatureToken:
        match tree:
            case ("vector", inner):
                return VectorType(self._type(inner, parameters))
            case ("&", is_mutable, inner):
                return ReferenceType(self._type(inner, parameters), is_mutable)
            case ("param", name):
                if name not in parameters:
                    raise IrError(f"no type {name}")
                return TypeParameterIndex(parameters.index(name))
            case ("struct", module, name, types):
                made = tuple(self._type(each, parameters) for each in types)
                return DatatypeType(self._struct_handle(module, name), made)
            case _:
                return Primitive(tree[0])

    def _signature(self, types: list[Tree], parameters: list[str]) -> int:
        return self._made.signature(*(self._type(each, parameters) for each in types))

    def _function_handle(self, module: str, name: str) -> int:
        if module == "Self":
            if name not in self._functions:
                raise IrError(f"no function {name}")
            function = self._functions[name]
            names = [each for each, _, _ in function.parameters]
            return self._made.handle(
                name,
                [self._type(each, names) for _, each in function.arguments],
                [self._type(each, names) for each in function.returns],
                [_abilities(each) for _, _, each in function.parameters],
            )
        other = self._other(module)
        for found in other.function_handles:
            if found.module == other.self_handle and other.identifiers[found.name] == name:
                break
        else:
            raise IrError(f"no function {module}.{name}")

        def brought(at: int) -> list[SignatureToken]:
            return [self._brought(other, each) for each in other.signatures[at]]

        place = self._made.module(*other.module_id(found.module))
        types = brought(found.parameters), brought(found.returns), found.type_parameters
        return self._made.handle(name, *types, module=place)

    def _brought(self, other: CompiledModule, token: SignatureToken) -> SignatureToken:
        """A type of another module's tables in ours."""
        match token:
            case VectorType(inner):
                return VectorType(self._brought(other, inner))
            case ReferenceType(inner, is_mutable):
                return ReferenceType(self._brought(other, inner), is_mutable)
            case DatatypeType(handle, types):
                made = tuple(self._brought(other, each) for each in types)
                return DatatypeType(self._foreign(other, other.datatype_handles[handle]), made)
            case _:
                return token

    # ---- functions

    def _define(self, function: Function) -> None:
        names = [each for each, _, _ in function.parameters]
        handle, body = self._function_handle("Self", function.name), None
        if function.blocks is not None:
            scope = _Scope(names, [name for name, _ in [*function.arguments, *function.locals]])
            if len(scope.locals) > _MOST_LOCALS:
                raise IrError(f"{len(scope.locals)} locals")
            locals = self._signature([each for _, each in function.locals], names)
            for label, statements in function.blocks:
                scope.labels[label] = len(scope.code)
                for each in statements:
                    self._statement(scope, each)
            for at, label in scope.jumps:
                if label not in scope.labels:
                    raise IrError(f"no label {label}")
                scope.code[at] = Instruction(scope.code[at].op, scope.labels[label])
            body = CodeUnit(locals, tuple(scope.code), ())
        visible = _VISIBLE[function.visibility]
        self._made.function_defs.append(FunctionDef(handle, visible, function.is_entry, body))

    def _statement(self, scope: _Scope, tree: Tree) -> None:
        match tree:
            case ("abort", value):
                if value is not None:
                    self._expression(scope, value)
                scope.emit("ABORT")
            case ("assert", condition, error):
                self._expression(scope, ("not", condition))
                label = f"assert {len(scope.code)}"
                scope.jump("BR_FALSE", label)
                self._expression(scope, error)
                scope.emit("ABORT")
                scope.labels[label] = len(scope.code)
            case ("jump", label):
                scope.jump("BRANCH", label)
            case ("jump_if" | "jump_if_false" as what, condition, label):
                self._expression(scope, condition)
                scope.jump("BR_TRUE" if what == "jump_if" else "BR_FALSE", label)
            case ("return", values):
                self._expression(scope, ("list", values))
                scope.emit("RET")
            case ("expression", value):
                self._expression(scope, value)
            case ("unpack", name, types, variables, value):
                self._expression(scope, value)
                self._use_struct(scope, "UNPACK", name, types)
                for each in reversed(variables):
                    scope.emit("ST_LOC", scope.local(each))
            case ("assign", places, value):
                self._expression(scope, value)
                for place in reversed(places):
                    self._assign(scope, place)

    def _assign(self, scope: _Scope, place: Tree) -> None:
        match place:
            case ("store", name):
                scope.emit("ST_LOC", scope.local(name))
            case ("write", value):
                self._expression(scope, value)
                scope.emit("WRITE_REF")
            case _:
                scope.emit("POP")

    def _use_struct(self, scope: _Scope, name: str, struct: str, types: list[Tree]) -> None:
        definition = self._definition(struct)
        if not types:
            scope.emit(name, definition)
            return
        entry = Instantiation(definition, self._signature(types, scope.parameters))
        scope.emit(f"{name}_GENERIC", _interned(self._struct_instances, entry))

    def _expression(self, scope: _Scope, tree: Tree) -> None:
        match tree:
            case ("move", name):
                scope.emit("MOVE_LOC", scope.local(name))
            case ("copy", name):
                scope.emit("COPY_LOC", scope.local(name))
            case ("borrow", is_mutable, name):
                scope.emit("MUT_BORROW_LOC" if is_mutable else "IMM_BORROW_LOC", scope.local(name))
            case ("value", kind, text):
                self._value(scope, kind, text)
            case ("list", values):
                for each in values:
                    self._expression(scope, each)
            case ("not", value):
                self._expression(scope, value)
                scope.emit("NOT")
            case ("read", value):
                self._expression(scope, value)
                scope.emit("READ_REF")
            case ("binary", sign, left, right):
                self._expression(scope, left)
                self._expression(scope, right)
                scope.emit(_SIGNS[sign])
            case ("pack", name, types, values):
                wanted = self._own(name).fields or []
                if [each for each, _ in values] != [each for each, _ in wanted][: len(values)]:
                    raise IrError(f"fields of {name} out of order")
                for _, each in values:
                    self._expression(scope, each)
                self._use_struct(scope, "PACK", name, types)
            case ("borrow field", is_mutable, value, owner, types, name):
                self._expression(scope, value)
                self._borrow_field(scope, "MUT" if is_mutable else "IMM", owner, types, name)
            case ("call", name, types, values):
                self._expression(scope, values)
                self._call(scope, name, types)

    def _borrow_field(self, scope: _Scope, how: str, owner: str, types: list[Tree], name: str) -> None:
        fields = [each for each, _ in self._own(owner).fields or []]
        if name not in fields:
            raise IrError(f"no field {owner}::{name}")
        handle = _interned(self._field_handles, FieldHandle(self._definition(owner), fields.index(name)))
        if not types:
            scope.emit(f"{how}_BORROW_FIELD", handle)
            return
        entry = Instantiation(handle, self._signature(types, scope.parameters))
        scope.emit(f"{how}_BORROW_FIELD_GENERIC", _interned(self._field_instances, entry))

    def _call(self, scope: _Scope, name: str, types: list[Tree]) -> None:
        if name == "freeze":
            scope.emit("FREEZE_REF")
        elif name.startswith("to_u"):
            scope.emit(f"CAST_U{name[4:]}")
        elif name.startswith("vec_"):
            what, _, count = name.rpartition("_")
            element = self._signature(types, scope.parameters)
            if count.isdecimal():
                scope.emit(what.upper(), (element, int(count)))
            else:
                scope.emit(name.upper(), element)
        else:
            module, _, function = name.partition(".")
            handle = self._function_handle(module, function)
            if not types:
                scope.emit("CALL", handle)
                return
            made = self._made
            entry = Instantiation(handle, self._signature(types, scope.parameters))
            scope.emit("CALL_GENERIC", _interned(made.function_instantiations, entry))

    def _value(self, scope: _Scope, kind: str, text: str) -> None:
        match kind:
            case "name":
                scope.emit("LD_TRUE" if text == "true" else "LD_FALSE")
            case "number":
                digits, _, width = text.partition("u")
                if int(digits) >> int(width or 64):
                    raise IrError(f"{text} is too large")
                scope.emit(f"LD_U{width or 64}", int(digits))
            case "address":
                data = address(int(text.removeprefix("@"), 16))
                scope.emit("LD_CONST", _interned(self._made.constants, Constant(Primitive.ADDRESS, data)))
            case _:
                data = bytes.fromhex(text[2:-1])
                if len(data) > 127:
                    raise IrError("a byte string of so many bytes")
                constant = Constant(VectorType(Primitive.U8), bytes([len(data)]) + data)
                scope.emit("LD_CONST", _interned(self._made.constants, constant))


def _interned(table: list[Any], entry: object) -> int:
    if entry not in table:
        table.append(entry)
    return table.index(entry)


def compile_module(module: Module, others: Mapping[ModuleId, CompiledModule]) -> CompiledModule:
    """The module; `others` are those that it may name. Raises `IrError` where something isn't there."""
    return _Compiler(module, others).compile()
