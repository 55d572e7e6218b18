"""Packages from modules: read, addressed, linked, verified; and what an upgrade may change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dtp.localnet.limits import MAX_DEPENDENCIES, MAX_PACKAGE_SIZE
from dtp.localnet.vm import upgrade
from dtp.localnet.vm.contract import Package, PackageRejected, UpgradePolicy
from dtp.localnet.vm.linker import Linker, MissingItem, short_address
from dtp.localnet.vm.natives import Native
from dtp.localnet.vm.verify import ModuleRefused, verify_move, verify_sui
from dtp.localnet.vm.verify.link import ModuleId, check_cycles, check_depth
from dtp.sui.bytecode import BytecodeError, CompiledModule, deserialize

__all__ = ["PackageBuilder", "with_address"]

_ZERO = bytes(32)
_MALFORMED = "VMVerificationOrDeserializationError"


class PackageBuilder:
    """Makes packages against one linker's store. `natives` are those that the machine has."""

    def __init__(self, linker: Linker, natives: Mapping[tuple[int, str, str], Native]) -> None:
        self._linker = linker
        self._natives = natives

    def build_package(
        self,
        modules: Sequence[bytes],
        storage_id: bytes,
        dependencies: Sequence[bytes],
        previous: Package | None,
    ) -> Package:
        """Return a verified package. Raises `PackageRejected`."""
        original_id = storage_id if previous is None else previous.original_id
        addressed = [with_address(data, original_id) for data in modules]
        named: dict[str, bytes] = {}
        for data, module in addressed:
            if module.name in named:
                raise PackageRejected(_MALFORMED, "duplicate", f"two modules are named {module.name}")
            named[module.name] = data
        if not named:
            raise PackageRejected(_MALFORMED, "empty", "a package has at least one module")
        size = sum(len(name) + len(data) for name, data in named.items())
        if size > MAX_PACKAGE_SIZE:
            raise PackageRejected(
                "MovePackageTooBig", "too_big", f"{size} bytes of modules, {MAX_PACKAGE_SIZE} at most"
            )
        compiled = {module.name: module for _, module in addressed}
        used = self._load_dependencies(dependencies)
        self._verify_modules(compiled, used, original_id)
        return Package(
            storage_id,
            original_id,
            1 if previous is None else previous.version + 1,
            dict(sorted(named.items())),
            {original: package.storage_id for original, package in used.items()},
            _origins(compiled, storage_id, previous),
        )

    def _load_dependencies(self, ids: Sequence[bytes]) -> dict[bytes, Package]:
        """Return packages by original id. Every dependency of a dependency must be named too, not in an older
        version."""
        if len(ids) > MAX_DEPENDENCIES:
            raise PackageRejected(
                _MALFORMED, "too_many", f"{len(ids)} dependencies, {MAX_DEPENDENCIES} at most"
            )
        used: dict[bytes, Package] = {}
        for id in ids:
            try:
                package = self._linker.get_package(id)
            except MissingItem as missing:
                raise PackageRejected(
                    "PublishUpgradeMissingDependency", "missing_package", str(missing)
                ) from None
            if used.setdefault(package.original_id, package) is not package:
                raise PackageRejected(
                    "InvalidLinkage",
                    "two_versions",
                    f"two versions of package {short_address(package.original_id)}",
                )
        for package in tuple(used.values()):
            for original, stored in package.linkage.items():
                if original not in used:
                    raise PackageRejected(
                        "PublishUpgradeMissingDependency",
                        "missing_package",
                        f"{short_address(package.storage_id)} needs {short_address(original)}, not among them",
                    )
                if used[original].version < self._linker.get_package(stored).version:
                    raise PackageRejected(
                        "PublishUpgradeDependencyDowngrade",
                        "downgrade",
                        f"{short_address(package.storage_id)} needs a later version of {short_address(original)}",
                    )
        return used

    def _verify_modules(
        self, compiled: dict[str, CompiledModule], used: dict[bytes, Package], original_id: bytes
    ) -> None:
        own: dict[ModuleId, CompiledModule] = {
            (original_id, name): module for name, module in compiled.items()
        }
        others = dict(own)
        for original, package in used.items():
            for name, data in package.modules.items():
                others[original, name] = self._linker.read_module(data)
        absent = self._missing_natives(others)
        for name, module in compiled.items():
            self._check_packages(module, used, original_id)
            try:
                verify_move(module, others, absent)
            except ModuleRefused as refused:
                raise _rejected(refused, name) from None
        try:
            check_cycles(own)
            check_depth(own, others)
        except ModuleRefused as refused:
            raise _rejected(refused, "") from None
        for name, module in compiled.items():
            try:
                verify_sui(module)
            except ModuleRefused as refused:
                raise _rejected(refused, name) from None

    def _check_packages(self, module: CompiledModule, used: dict[bytes, Package], original_id: bytes) -> None:
        for address, name in module.dependencies:
            if address != original_id and address not in used:
                raise PackageRejected(
                    "PublishUpgradeMissingDependency",
                    "missing_package",
                    f"uses {short_address(address)}::{name}, whose package is not among the dependencies",
                    module=module.name,
                )

    def _missing_natives(self, modules: Mapping[ModuleId, CompiledModule]) -> list[str]:
        return [
            f"{short_address(address)}::{name}::{module.function_name(function.handle)}"
            for (address, name), module in modules.items()
            for function in module.function_defs
            if function.is_native
            and (int.from_bytes(address, "big"), name, module.function_name(function.handle))
            not in self._natives
        ]

    def check_upgrade(self, previous: Package, new: Package, policy: UpgradePolicy) -> None:
        """Raise `PackageRejected` unless `new` keeps what `policy` says of `previous`."""
        for name, data in previous.modules.items():
            fresh = new.modules.get(name)
            problem = "the module is gone"
            if fresh is not None:
                problem = upgrade.problem(
                    self._linker.read_module(data), self._linker.read_module(fresh), policy
                )
            if problem:
                raise PackageRejected(
                    "PackageUpgradeError", "incompatible", problem, module=name, detail="IncompatibleUpgrade"
                )
        added = [name for name in new.modules if name not in previous.modules]
        if policy is UpgradePolicy.DEPENDENCY_ONLY and added:
            raise PackageRejected(
                "PackageUpgradeError",
                "incompatible",
                "a new module",
                module=added[0],
                detail="IncompatibleUpgrade",
            )


def _rejected(refused: ModuleRefused, module: str) -> PackageRejected:
    status = "SuiMoveVerificationError" if refused.sui else _MALFORMED
    return PackageRejected(
        status, refused.reason, str(refused), module=module, item=refused.item, offset=refused.offset
    )


def with_address(data: bytes, address: bytes) -> tuple[bytes, CompiledModule]:
    """Return a module that names itself 0x0, under its real address."""
    try:
        module = deserialize(data)
        if module.address != _ZERO:
            raise PackageRejected(
                "PublishErrorNonZeroAddress",
                "non_zero_address",
                f"names itself {short_address(module.address)}, a module to publish is compiled for 0x0",
                module=module.name,
            )
        entry = module.module_handles[module.self_handle].address
        if address in module.addresses:
            raise PackageRejected(_MALFORMED, "duplicate", "names its own package twice", module=module.name)
        at = _address_table(data) + 32 * entry
        placed = data[:at] + address + data[at + 32 :]
        return placed, deserialize(placed)
    except BytecodeError as error:
        raise PackageRejected(_MALFORMED, error.fault.value.lower(), str(error), offset=None) from None


def _address_table(data: bytes) -> int:
    """Return where the table of addresses starts, by the module's header (the reader has checked it)."""
    address_identifiers = 0x8
    count, at = _uleb(data, 8)
    start = None
    for _ in range(count):
        kind = data[at]
        offset, at = _uleb(data, at + 1)
        _, at = _uleb(data, at)
        if kind == address_identifiers:
            start = offset
    assert start is not None, "every module has its own address"
    return at + start


def _uleb(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _origins(
    compiled: Mapping[str, CompiledModule], storage_id: bytes, previous: Package | None
) -> dict[tuple[str, str], bytes]:
    known = previous.type_origin if previous is not None else {}
    return {
        (name, datatype): known.get((name, datatype), storage_id)
        for name, module in sorted(compiled.items())
        for datatype in (*module.structs, *module.enums)
    }
