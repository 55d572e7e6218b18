"""Packages made one program: names in bytecode bound to the functions and datatypes they mean.

A package is linked against exact versions of its dependencies (its linkage), so one stored package can be linked
in several ways; each way is a `LinkedPackage`. Bytecode names a package by its original id; types are known by the id
of the version that introduced them, so they are the same `Datatype` however they are reached.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from dtp.localnet.vm.contract import ExecutionFailure, Package, PackageStore
from dtp.localnet.vm.types import Datatype, Type, TypeTable
from dtp.sui.bytecode import (
    CompiledModule,
    DatatypeType,
    Field,
    FunctionDef,
    FunctionHandle,
    Primitive,
    ReferenceType,
    Signature,
    SignatureToken,
    TypeParameterIndex,
    VectorType,
    deserialize,
)

__all__ = ["LinkedFunction", "LinkedModule", "LinkedPackage", "Linker", "MissingItem"]


class MissingItem(Exception):
    """A package, module, function or datatype that bytecode names does not exist."""

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"{what} {name} does not exist")
        self.what = what
        self.name = name


@dataclass(eq=False)
class LinkedFunction:
    """A function of a linked module. `instances` keeps its translations by type arguments."""

    module: LinkedModule
    index: int
    definition: FunctionDef
    name: str
    handle: FunctionHandle
    parameters: Signature
    returns: Signature
    instances: dict[tuple[Type, ...], Callable[..., Any]] = field(default_factory=dict)
    described: dict[tuple[Type, ...], Any] = field(default_factory=dict)

    @property
    def qualified_name(self) -> str:
        """`0x2::coin::split`, the package by its original id."""
        return f"{short_address(self.module.package.package.original_id)}::{self.module.name}::{self.name}"

    @property
    def type_parameters(self) -> tuple[int, ...]:
        """Constraints of the type parameters."""
        return tuple(int(a) for a in self.handle.type_parameters)


def short_address(address: bytes) -> str:
    """Return an address as Move tools print it: `0x2` for the address 2."""
    return f"0x{address.hex().lstrip('0') or '0'}"


class LinkedModule:
    """One module within one way of linking its package."""

    def __init__(self, package: LinkedPackage, name: str, module: CompiledModule, linker: Linker) -> None:
        self.package = package
        self.name = name
        self.module = module
        self.types = linker.types
        self._linker = linker
        self._handles: dict[int, Datatype] = {}
        self._tokens: dict[SignatureToken, Type] = {}

    @cached_property
    def functions(self) -> dict[str, LinkedFunction]:
        """Functions by name."""
        m = self.module
        found = {}
        for index, definition in enumerate(m.function_defs):
            handle = m.function_handles[definition.handle]
            name = m.identifiers[handle.name]
            found[name] = LinkedFunction(
                self,
                index,
                definition,
                name,
                handle,
                m.signatures[handle.parameters],
                m.signatures[handle.returns],
            )
        return found

    def called_function(self, handle: int) -> LinkedFunction:
        """Return the function that a function handle of this module means. Raises `MissingItem`."""
        entry = self.module.function_handles[handle]
        owner = self._module_of(entry.module)
        name = self.module.identifiers[entry.name]
        found = owner.functions.get(name)
        if found is None:
            raise MissingItem(
                "function", f"{short_address(owner.package.package.original_id)}::{owner.name}::{name}"
            )
        return found

    def _module_of(self, handle: int) -> LinkedModule:
        if handle == self.module.self_handle:
            return self
        address, name = self.module.module_id(handle)
        return self.package.get_dependency(address).get_module(name)

    def datatype_of(self, handle: int) -> Datatype:
        """Return the datatype that a handle of this module means. Raises `MissingItem`."""
        found = self._handles.get(handle)
        if found is None:
            entry = self.module.datatype_handles[handle]
            owner = self._module_of(entry.module)
            found = self._handles[handle] = owner.own_datatype(self.module.identifiers[entry.name])
        return found

    def own_datatype(self, name: str) -> Datatype:
        """Return a datatype that this module declares. Raises `MissingItem`."""
        package = self.package.package
        origin = package.type_origin.get((self.name, name), package.storage_id)
        found = self._linker.datatypes.get((origin, self.name, name))
        if found is None:
            found = self._linker.datatypes[origin, self.name, name] = self._declare_datatype(origin, name)
        return found

    def _declare_datatype(self, origin: bytes, name: str) -> Datatype:
        m = self.module
        struct, enum = m.structs.get(name), m.enums.get(name)
        variants: tuple[tuple[Field, ...], ...]
        if struct is not None:
            handle, variants = struct.handle, (struct.fields or (),)
        elif enum is not None:
            handle, variants = enum.handle, tuple(v.fields for v in enum.variants)
        else:
            owner = short_address(self.package.package.original_id)
            raise MissingItem("datatype", f"{owner}::{self.name}::{name}")
        entry = m.datatype_handles[handle]

        def fields_of(arguments: tuple[Type, ...]) -> tuple[tuple[Type, ...], ...]:
            return tuple(tuple(self.resolve_type(f.type, arguments) for f in fields) for fields in variants)

        return Datatype(
            package=origin,
            module=self.name,
            name=name,
            abilities=int(entry.abilities),
            parameters=tuple(int(p.constraints) for p in entry.type_parameters),
            phantom=tuple(p.is_phantom for p in entry.type_parameters),
            is_enum=enum is not None,
            fields_of=fields_of,
            field_names=tuple(tuple(m.identifiers[f.name] for f in fields) for fields in variants),
            variant_names=tuple(m.identifiers[v.name] for v in enum.variants) if enum else (),
            original_package=self.package.package.original_id,
        )

    def resolve_type(self, token: SignatureToken, arguments: tuple[Type, ...] = ()) -> Type:
        """Return the concrete type of a token under type arguments. Raises `MissingItem`."""
        if arguments:
            return self._make_type(token, arguments)
        found = self._tokens.get(token)
        if found is None:
            found = self._tokens[token] = self._make_type(token, arguments)
        return found

    def _make_type(self, token: SignatureToken, arguments: tuple[Type, ...]) -> Type:
        table = self.types
        match token:
            case Primitive():
                return table.primitives[token.value]
            case TypeParameterIndex(index):
                return arguments[index]
            case VectorType(element):
                return table.make_vector(self.resolve_type(element, arguments))
            case ReferenceType(target, mutable):
                return table.make_reference(self.resolve_type(target, arguments), mutable)
            case DatatypeType(handle, inner):
                return table.make_instance(
                    self.datatype_of(handle), tuple(self.resolve_type(t, arguments) for t in inner)
                )


class LinkedPackage:
    """A package with every dependency bound to one version."""

    def __init__(self, package: Package, dependencies: Mapping[bytes, LinkedPackage], linker: Linker) -> None:
        self.package = package
        self._dependencies = dependencies
        self._linker = linker
        self._modules: dict[str, LinkedModule] = {}

    def get_dependency(self, original_id: bytes) -> LinkedPackage:
        """Return the package that bytecode calls `original_id`. Raises `MissingItem`."""
        if original_id == self.package.original_id:
            return self
        found = self._dependencies.get(original_id)
        if found is None:
            raise MissingItem("package", short_address(original_id))
        return found

    def get_module(self, name: str) -> LinkedModule:
        """Return a module of this package. Raises `MissingItem`."""
        found = self._modules.get(name)
        if found is None:
            data = self.package.modules.get(name)
            if data is None:
                raise MissingItem("module", f"{short_address(self.package.original_id)}::{name}")
            found = self._modules[name] = LinkedModule(
                self, name, self._linker.read_module(data), self._linker
            )
        return found


class Linker:
    """Links packages of one store and keeps the result."""

    def __init__(self, store: PackageStore) -> None:
        self.types = TypeTable()
        self.datatypes: dict[tuple[bytes, str, str], Datatype] = {}
        self._store = store
        self._linked: dict[tuple[bytes, tuple[tuple[bytes, bytes], ...]], LinkedPackage] = {}
        self._known: dict[bytes, Package] = {}
        self._by_package: dict[Package, LinkedPackage] = {}
        self._compiled: dict[bytes, CompiledModule] = {}
        #: Types by their tags, as long as no package changes its place.
        self.named: dict[str, Type] = {}

    def read_module(self, data: bytes) -> CompiledModule:
        """Return the module read from `data`, read once."""
        found = self._compiled.get(data)
        if found is None:
            found = self._compiled[data] = deserialize(data)
        return found

    def get_package(self, storage_id: bytes) -> Package:
        """Return the stored package. Raises `MissingItem`."""
        package = self._store.get_package(storage_id)
        if package is None:
            raise MissingItem("package", short_address(storage_id))
        self._note_package(package)
        return package

    def _note_package(self, package: Package) -> None:
        known = self._known.get(package.storage_id)
        if known is package:
            return
        if known is not None:
            self.forget_package(package.storage_id)
        self._known[package.storage_id] = package

    def forget_package(self, storage_id: bytes) -> None:
        """Drop what was linked and declared under `storage_id`: another package takes its place, or none."""
        self._known.pop(storage_id, None)
        self._by_package.clear()
        self.named.clear()
        self.datatypes = {key: value for key, value in self.datatypes.items() if key[0] != storage_id}
        self._linked = {
            key: value
            for key, value in self._linked.items()
            if key[0] != storage_id and all(used != storage_id for _, used in key[1])
        }

    def link_package(self, package: Package) -> LinkedPackage:
        """Return `package` linked by its own linkage. Raises `MissingItem`."""
        found = self._by_package.get(package)
        if found is None:
            self._note_package(package)
            found = self._by_package[package] = self._link_within(package, package.linkage)
        return found

    def _link_within(self, package: Package, universe: Mapping[bytes, bytes]) -> LinkedPackage:
        used = tuple(
            sorted(
                (original, universe.get(original, default)) for original, default in package.linkage.items()
            )
        )
        key = (package.storage_id, used)
        found = self._linked.get(key)
        if found is None:
            dependencies = {
                original: self._link_within(self.get_package(storage_id), universe)
                for original, storage_id in used
                if original != package.original_id
            }
            found = self._linked[key] = LinkedPackage(package, dependencies, self)
        return found

    def require_package(self, storage_id: bytes) -> LinkedPackage:
        """Return the stored package, linked. Raises `ExecutionFailure` when it or a dependency is absent."""
        try:
            return self.link_package(self.get_package(storage_id))
        except MissingItem as missing:
            raise ExecutionFailure("FunctionNotFound", str(missing), reason="package") from None
