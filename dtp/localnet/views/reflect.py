"""What packages declare, for clients that ask: modules, datatypes, functions with their signatures."""

from __future__ import annotations

from collections.abc import Callable

from dtp.localnet.model import (
    DatatypeInfo,
    FieldInfo,
    FunctionInfo,
    ModuleInfo,
    OpenSignature,
    OpenType,
    PackageInfo,
    TypeParameter,
    VariantInfo,
)
from dtp.localnet.packages import PackageCatalog
from dtp.sui.bytecode import (
    Ability,
    CompiledModule,
    DatatypeType,
    Field,
    Primitive,
    ReferenceType,
    SignatureToken,
    VectorType,
    Visibility,
    deserialize,
)
from dtp.sui.bytecode import TypeParameterIndex as TokenParameter
from dtp.sui.objects import MovePackageData

__all__ = ["Reflection"]

_ABILITIES = ((Ability.COPY, "copy"), (Ability.DROP, "drop"), (Ability.STORE, "store"), (Ability.KEY, "key"))
_VISIBILITY = {Visibility.PRIVATE: "private", Visibility.FRIEND: "friend", Visibility.PUBLIC: "public"}


def _abilities(mask: Ability) -> tuple[str, ...]:
    return tuple(name for bit, name in _ABILITIES if bit in mask)


class Reflection:
    """One package read. `package` gives other packages by storage id, for the addresses of their types."""

    def __init__(self, data: MovePackageData, package: Callable[[bytes], MovePackageData | None]) -> None:
        self.data = data
        self.original_id = PackageCatalog.original_id(data)
        self._package = package
        self._modules = {name: deserialize(code) for name, code in data.modules.items()}
        self._origins = {(o.module, o.datatype): o.package for o in data.type_origins}

    def package_info(self) -> PackageInfo:
        """Return the whole package."""
        modules = tuple(self._module_info(name) for name in self._modules)
        return PackageInfo(self.data.id, self.original_id, self.data.version, modules, self.data)

    def _module_info(self, name: str) -> ModuleInfo:
        module = self._modules[name]
        datatypes = tuple(
            found
            for n in (*module.structs, *module.enums)
            if (found := self.find_datatype(name, n)) is not None
        )
        functions = [self.find_function(name, module.function_name(d.handle)) for d in module.function_defs]
        return ModuleInfo(
            name, self.data.modules[name], datatypes, tuple(f for f in functions if f is not None)
        )

    # ------------------------------------------------------------------------------------------- types

    def _defining_id(self, original: bytes, module: str, name: str) -> bytes:
        """Return where a datatype was defined first, which is what type tags show."""
        if original == self.original_id:
            return self._origins.get((module, name), self.data.id)
        linked = self.data.linkage.get(original)
        package = None if linked is None else self._package(linked.upgraded_id)
        if package is not None:
            for origin in package.type_origins:
                if (origin.module, origin.datatype) == (module, name):
                    return origin.package
        return original

    def _open_type(self, module: CompiledModule, token: SignatureToken) -> OpenType:
        match token:
            case Primitive():
                return OpenType(token.value)
            case VectorType(element):
                return OpenType("vector", (self._open_type(module, element),))
            case TokenParameter(index):
                return OpenType("parameter", index=index)
            case DatatypeType(handle, arguments):
                entry = module.datatype_handles[handle]
                address, owner = module.module_id(entry.module)
                name = module.identifiers[entry.name]
                package = self._defining_id(address, owner, name)
                return OpenType(
                    "datatype",
                    tuple(self._open_type(module, a) for a in arguments),
                    f"0x{package.hex()}::{owner}::{name}",
                )
            case ReferenceType():
                raise AssertionError("the reader allows references at the top only")

    def _open_signature(self, module: CompiledModule, token: SignatureToken) -> OpenSignature:
        if isinstance(token, ReferenceType):
            return OpenSignature("&mut" if token.mutable else "&", self._open_type(module, token.target))
        return OpenSignature("", self._open_type(module, token))

    def _field_infos(self, module: CompiledModule, fields: tuple[Field, ...]) -> tuple[FieldInfo, ...]:
        return tuple(
            FieldInfo(module.identifiers[f.name], at, self._open_type(module, f.type))
            for at, f in enumerate(fields)
        )

    # ------------------------------------------------------------------------------------------ look-ups

    def find_datatype(self, module_name: str, name: str) -> DatatypeInfo | None:
        """Return a struct or enum, None if the module has none of that name."""
        module = self._modules.get(module_name)
        if module is None:
            return None
        struct, enum = module.structs.get(name), module.enums.get(name)
        definition = struct or enum
        if definition is None:
            return None
        entry = module.datatype_handles[definition.handle]
        defining = self._defining_id(self.original_id, module_name, name)
        fields = () if struct is None else self._field_infos(module, struct.fields or ())
        variants = () if enum is None else enum.variants
        return DatatypeInfo(
            f"0x{defining.hex()}::{module_name}::{name}",
            defining,
            module_name,
            name,
            _abilities(entry.abilities),
            tuple(TypeParameter(_abilities(p.constraints), p.is_phantom) for p in entry.type_parameters),
            enum is not None,
            fields,
            tuple(
                VariantInfo(module.identifiers[v.name], at, self._field_infos(module, v.fields))
                for at, v in enumerate(variants)
            ),
        )

    def find_function(self, module_name: str, name: str) -> FunctionInfo | None:
        """Return a function, None if the module has none of that name."""
        module = self._modules.get(module_name)
        if module is None:
            return None
        for definition in module.function_defs:
            handle = module.function_handles[definition.handle]
            if module.identifiers[handle.name] != name:
                continue
            return FunctionInfo(
                module_name,
                name,
                _VISIBILITY[definition.visibility],
                definition.is_entry,
                tuple(TypeParameter(_abilities(a)) for a in handle.type_parameters),
                tuple(self._open_signature(module, t) for t in module.signatures[handle.parameters]),
                tuple(self._open_signature(module, t) for t in module.signatures[handle.returns]),
            )
        return None
