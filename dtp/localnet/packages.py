"""Packages between their two forms: the stored object, and what the Move machine links."""

from __future__ import annotations

from collections.abc import Callable

from dtp.localnet.model import ObjectRecord
from dtp.localnet.vm import Package
from dtp.sui.bytecode import deserialize
from dtp.sui.objects import MovePackageData, TypeOrigin, UpgradeInfo

__all__ = ["PackageCatalog", "package_data"]


def package_data(package: Package, version_of: Callable[[bytes], int]) -> MovePackageData:
    """Return the object that stores `package`. `version_of` tells the version of a dependency by storage id."""
    return MovePackageData(
        package.storage_id,
        package.version,
        dict(package.modules),
        tuple(TypeOrigin(module, name, origin) for (module, name), origin in package.type_origin.items()),
        {original: UpgradeInfo(used, version_of(used)) for original, used in package.linkage.items()},
    )


class PackageCatalog:
    """The machine's package store: packages of the chain, and those of the transaction that is running.

    `load` reads an object by id. The same package is always the same `Package`, which the machine needs.
    """

    def __init__(self, load: Callable[[bytes], ObjectRecord | None]) -> None:
        self._load = load
        self._known: dict[bytes, Package] = {}
        self.pending: dict[bytes, Package] = {}

    def get_package(self, storage_id: bytes) -> Package | None:
        """Return a package by storage id, None if there is none."""
        found = self.pending.get(storage_id) or self._known.get(storage_id)
        if found is None:
            record = self._load(storage_id)
            if record is None or record.package is None:
                return None
            found = self._known[storage_id] = self._make_package(record.package)
        return found

    def is_object(self, id: bytes) -> bool:
        """True if an object that is not a package has this id."""
        record = self._load(id)
        return record is not None and record.package is None

    def add_package(self, package: Package) -> None:
        """Add a package that the running transaction published."""
        self.pending[package.storage_id] = package

    def keep_packages(self) -> None:
        """Keep the packages of the running transaction, which is stored."""
        self._known.update(self.pending)
        self.pending.clear()

    def _make_package(self, data: MovePackageData) -> Package:
        return Package(
            data.id,
            self.original_id(data),
            data.version,
            dict(data.modules),
            {original: info.upgraded_id for original, info in data.linkage.items()},
            {(origin.module, origin.datatype): origin.package for origin in data.type_origins},
        )

    @staticmethod
    def original_id(data: MovePackageData) -> bytes:
        """Return where version 1 lives: it is the address that the modules name as their own."""
        return data.id if data.version == 1 else deserialize(next(iter(data.modules.values()))).address
