"""The Move virtual machine of the embedded node: bytecode in, values, objects and events out. No IO, no clock.

Read `contract.py` for the seam to the node; `VM`, `VmSession`, `ObjectRuntime` and `GasMeter` are what a node uses.
"""

from dtp.localnet.vm.contract import (
    ArgumentSlot,
    ChildStore,
    CleverError,
    EmittedEvent,
    ExecutionFailure,
    FunctionInstance,
    MoveLocation,
    OwnerKind,
    Package,
    PackageRejected,
    PackageStore,
    RuntimeEffects,
    StoredObject,
    Transfer,
    TxData,
    UpgradePolicy,
    Value,
    VmOwner,
)
from dtp.localnet.vm.gas import GasMeter
from dtp.localnet.vm.machine import VM, VmSession
from dtp.localnet.vm.objects import ObjectRuntime
from dtp.localnet.vm.types import Type

__all__ = [
    "VM",
    "ArgumentSlot",
    "ChildStore",
    "CleverError",
    "EmittedEvent",
    "ExecutionFailure",
    "FunctionInstance",
    "GasMeter",
    "MoveLocation",
    "ObjectRuntime",
    "OwnerKind",
    "Package",
    "PackageRejected",
    "PackageStore",
    "RuntimeEffects",
    "StoredObject",
    "Transfer",
    "TxData",
    "Type",
    "UpgradePolicy",
    "Value",
    "VmOwner",
    "VmSession",
]
