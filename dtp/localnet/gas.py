"""What a transaction costs: computation, storage, rebates; in MIST.

Exact by the protocol: the size that is metered, the price of storage, rebate and the part that is kept, rounding of
computation, the rule when gas runs out (charge what the inputs cost, or else the whole budget). An estimate is the
number of computation units behind it (see docs/decisions/0120).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dtp.localnet.limits import REBATE_BASIS_POINTS, STORAGE_GAS_PRICE, STORAGE_UNITS_PER_BYTE
from dtp.localnet.vm.gas import round_units
from dtp.sui.effects import GasCost
from dtp.sui.names import TypeTag
from dtp.sui.objects import OBJECT_TYPE, MoveObject, MovePackageData

__all__ = ["StorageChange", "computation_cost", "object_size", "package_size", "storage_cost", "total_cost"]

# Owner, digest of the previous transaction, rebate: fixed sizes, whatever the owner.
_METADATA = 40 + 32 + 8
_VERSION = 8
_ID = 32

_type_sizes: dict[TypeTag, int] = {}


def _type_size(tag: TypeTag) -> int:
    found = _type_sizes.get(tag)
    if found is None:
        if len(_type_sizes) > 10_000:
            _type_sizes.clear()
        found = _type_sizes[tag] = len(OBJECT_TYPE.encode(tag))
    return found


def package_size(package: MovePackageData) -> int:
    """Return how many bytes of a package are metered when it is read or published."""
    modules = sum(len(name.encode()) + len(code) for name, code in package.modules.items())
    origins = sum(len(o.module.encode()) + len(o.datatype.encode()) + _ID for o in package.type_origins)
    return _VERSION + modules + origins + len(package.linkage) * (2 * _ID + _VERSION)


def object_size(data: MoveObject | MovePackageData) -> int:
    """Return how many bytes of an object are metered: contents, type, public-transfer flag, version, metadata."""
    if isinstance(data, MovePackageData):
        return _METADATA + package_size(data)
    return _METADATA + len(data.contents) + _type_size(data.type) + 1 + _VERSION


def storage_cost(size: int) -> int:
    """Return MIST for keeping `size` metered bytes; it is the object's rebate from then on."""
    return size * STORAGE_UNITS_PER_BYTE * STORAGE_GAS_PRICE


def computation_cost(units: int, price: int) -> int:
    """Return MIST for `units` of computation at `price`, rounded up as the protocol does."""
    return round_units(units) * price


@dataclass(frozen=True)
class StorageChange:
    """One object of a transaction: metered size after (0 when it is gone), and the rebate it had before."""

    new_size: int
    old_rebate: int


def total_cost(computation: int, changes: Iterable[StorageChange], *, free_storage: bool = False) -> GasCost:
    """Return the cost of a transaction. With `free_storage` only rebates count (the inputs could not be paid for)."""
    cost = rebate = 0
    for change in changes:
        cost += storage_cost(change.new_size)
        rebate += change.old_rebate
    if free_storage:
        cost = 0
    # Rounded half up, as the protocol does.
    returned = (rebate * REBATE_BASIS_POINTS + 5000) // 10_000
    return GasCost(computation, cost, returned, rebate - returned)
