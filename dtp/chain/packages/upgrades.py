"""Who may change a package that is in use, and what: its `UpgradeCap`, read, restricted, given up, used.

Whoever holds the cap of a package can empty every object of it by a compatible upgrade. So a program says which
packages can be upgraded, and deployments that others use give the cap up (`UpgradePolicy.IMMUTABLE`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from dtp.chain import channel as channel_module
from dtp.chain import host as host_module
from dtp.chain import packages, pass_
from dtp.chain.channel import Channel
from dtp.chain.errors import MALFORMED, NodeRefused, NotFound
from dtp.chain.host import Host, HostCap
from dtp.chain.model import Executed, Id, ObjectData, canonical_id, canonical_type
from dtp.chain.node.client import ChainClient
from dtp.chain.node.commands import Argument, Program
from dtp.chain.packages import MovePackage
from dtp.chain.packages.deployments import Deployment
from dtp.chain.pass_ import Plan
from dtp.errors import ChainError, LocalError
from dtp.sui.bcs import BcsError
from dtp.sui.names import format_address
from dtp.sui.transaction import (
    TRANSACTION_DATA,
    MoveCall,
    NestedResult,
    ProgrammableTransaction,
    Publish,
    Result,
)

__all__ = [
    "UPGRADE_CAP",
    "NotMigratable",
    "NotUpgradable",
    "UpgradePolicy",
    "Upgrades",
    "give_up",
    "migrate",
    "read_upgrades",
    "restrict",
    "upgrade",
]

UPGRADE_CAP: Final = canonical_type("0x2::package::UpgradeCap")
_FRAMEWORK: Final = canonical_id("0x2")
_PACKAGE_MODULE: Final = "package"
_MAKE_IMMUTABLE: Final = "make_immutable"
#: BCS of an `UpgradeCap`: id, package, version (u64), policy (u8).
_CAP_BYTES: Final = 73


class NotUpgradable(LocalError):
    """There is no upgrade cap of the package to do this with."""

    code = "not-upgradable"


class NotMigratable(ChainError):
    """The object isn't one that is moved from one version of the package to the next."""

    code = "not-migratable"


class UpgradePolicy(StrEnum):
    """What upgrades may change in a package."""

    COMPATIBLE = "compatible"
    """Any code of it, so whoever holds the cap can take what its objects hold."""
    ADDITIVE = "additive"
    """New functions may come, which can take what its objects hold as well."""
    DEPENDENCIES = "dependencies"
    """Only what it depends on."""
    IMMUTABLE = "immutable"
    """Nothing: its cap was given up."""
    UNKNOWN = "unknown"
    """The node can't tell: the cap is inside another object, or was given up in a later transaction."""


_POLICY_BYTES: Final = {
    0: UpgradePolicy.COMPATIBLE,
    128: UpgradePolicy.ADDITIVE,
    192: UpgradePolicy.DEPENDENCIES,
}
_RESTRICTIONS: Final = {
    UpgradePolicy.ADDITIVE: "only_additive_upgrades",
    UpgradePolicy.DEPENDENCIES: "only_dep_upgrades",
    UpgradePolicy.IMMUTABLE: _MAKE_IMMUTABLE,
}


@dataclass(frozen=True)
class Upgrades:
    """What may be upgraded in a package: `policy`, by the holder of `cap`, which is empty if none is known."""

    policy: UpgradePolicy
    cap: str = ""
    holder: str = ""

    @property
    def text(self) -> str:
        """What to tell a user."""
        match self.policy:
            case UpgradePolicy.IMMUTABLE:
                return "immutable: nobody can change it"
            case UpgradePolicy.UNKNOWN:
                return (
                    "whether it can be upgraded isn't known: its upgrade cap is not where this node sees it"
                )
            case UpgradePolicy.DEPENDENCIES:
                return f"only its dependencies can be upgraded, by {self.holder}"
        return f"can be upgraded ({self.policy}) by {self.holder}, who could take what its objects hold"


async def read_upgrades(chain: ChainClient, package: Id) -> Upgrades:
    """Return who may upgrade a package and how, as far as the node can tell. Raise `NotFound`, `NodeUnavailable`.

    Its first version's transaction made the cap: one that gave it up at once says so for good. A cap that is gone
    since may have been given up or be inside another object, and that is told as unknown.
    """
    info = await chain.package(package)
    digest = (await chain.object(info.original_id)).previous_transaction
    executed = await chain.transaction(digest) if digest else None
    if executed is None:
        return Upgrades(UpgradePolicy.UNKNOWN)
    made = [each.id for each in executed.created_objects(UPGRADE_CAP)]
    for cap, data in (await chain.objects(made)).items():
        found = _read_cap(data)
        if found is not None and (len(made) == 1 or found[0] in (info.id, info.original_id)):
            return Upgrades(found[1], cap, data.owner.address or str(data.owner.kind))
    if not made and _gave_up(await chain.transaction_data(digest)):
        return Upgrades(UpgradePolicy.IMMUTABLE)
    return Upgrades(UpgradePolicy.UNKNOWN)


def _read_cap(data: ObjectData) -> tuple[str, UpgradePolicy] | None:
    """Return the newest package of a cap, and its policy; None if it is not a cap that we know."""
    contents = data.contents
    if len(contents) != _CAP_BYTES or contents[-1] not in _POLICY_BYTES:
        return None
    return format_address(contents[32:64]), _POLICY_BYTES[contents[-1]]


def _gave_up(data: bytes | None) -> bool:
    """True if every package that a transaction publishes is made immutable by it."""
    if data is None:
        return False
    try:
        kind = TRANSACTION_DATA.decode(data).kind
    except BcsError:
        return False
    if not isinstance(kind, ProgrammableTransaction):
        return False
    made = {place for place, each in enumerate(kind.commands) if isinstance(each, Publish)}
    given = {
        argument.command
        for each in kind.commands
        if isinstance(each, MoveCall)
        and format_address(each.package) == _FRAMEWORK
        and (each.module, each.function) == (_PACKAGE_MODULE, _MAKE_IMMUTABLE)
        for argument in each.arguments
        if isinstance(argument, Result | NestedResult)
    }
    return bool(made) and made <= given


def give_up(program: Program, cap: Argument) -> None:
    """Give an upgrade cap up: nobody can change its package any more."""
    program.call(_FRAMEWORK, _PACKAGE_MODULE, _MAKE_IMMUTABLE, (cap,), (), 0)


async def restrict(chain: ChainClient, deployment: Deployment, policy: UpgradePolicy) -> Executed:
    """Allow upgrades of a package no more than `policy`, for ever, and remember it. The cap must be the account's.

    Raise `NotUpgradable` without a cap, and what `ChainClient.execute` raises.
    """
    cap = await _cap_of(chain, deployment)
    program = Program()
    program.call(_FRAMEWORK, _PACKAGE_MODULE, _RESTRICTIONS[policy], (program.use(cap),), (), 0)
    executed = await chain.execute(program)
    kept = "" if policy is UpgradePolicy.IMMUTABLE else cap
    chain.deployments.save(_changed(deployment, policy=policy, upgrade_cap=kept))
    return executed


async def upgrade(
    chain: ChainClient, deployment: Deployment, package: MovePackage | None = None
) -> tuple[Deployment, Executed]:
    """Publish what ships (or `package`) as the next version of a package, and use it from now on.

    Objects stay with the version that made them until they are migrated. Raise `NotUpgradable` without a cap, and
    what `ChainClient.execute` raises.
    """
    shipped = package if package is not None else packages.load(deployment.package)
    cap = await _cap_of(chain, deployment)
    policy = (await read_upgrades(chain, deployment.id)).policy
    number = next((number for number, each in _POLICY_BYTES.items() if each is policy), 0)
    program = Program()
    held = program.use(cap)
    (ticket,) = program.call(
        _FRAMEWORK,
        _PACKAGE_MODULE,
        "authorize_upgrade",
        (held, program.pure("u8", number), program.pure("vector<u8>", shipped.digest)),
        (),
        1,
    )
    receipt = program.upgrade(deployment.id, shipped.modules.values(), shipped.dependencies, ticket)
    program.call(_FRAMEWORK, _PACKAGE_MODULE, "commit_upgrade", (held, receipt), (), 0)
    executed = await chain.execute(program)
    made = [each.id for each in executed.changes if each.type == "package" and each.output is not None]
    if len(made) != 1:
        raise NodeRefused(f"transaction {executed.digest} tells of {len(made)} packages", MALFORMED)
    newer = _changed(deployment, id=made[0], digest=shipped.digest.hex(), transaction=executed.digest)
    chain.deployments.save(newer)
    return newer, executed


async def migrate(chain: ChainClient, objects: Iterable[Id]) -> Executed:
    """Move objects of ours to the version of the package that is in use, in one transaction.

    A host (with its beacon) and a plan need the host's cap, a channel its server's account. Raise `NotMigratable`
    for other objects, `NotFound`, and what `ChainClient.execute` raises.
    """
    program = Program()
    caps = {each.host: each.id for each in await chain.owned(host_module.SCHEMA, HostCap, chain.address)}
    for id in objects:
        data = await chain.object(id)
        name = data.type.partition("<")[0]
        coin = data.type.partition("<")[2].removesuffix(">")
        if name == chain.type_of(host_module.SCHEMA, Host):
            host = chain.decode(host_module.SCHEMA, Host, data)
            host_module.migrate(program, host.id, host.beacon, _cap(caps, host.id))
        elif name == chain.type_of(pass_.SCHEMA, Plan):
            plan = chain.decode(pass_.SCHEMA, Plan, data)
            pass_.migrate(program, plan.id, _cap(caps, plan.host), coin=coin)
        elif name == chain.type_of(channel_module.SCHEMA, Channel):
            channel_module.migrate(program, data.id, coin=coin)
        else:
            raise NotMigratable(f"{data.id} is a {data.type}: hosts, plans and channels are migrated")
    return await chain.execute(program)


def _cap(caps: dict[str, str], host: str) -> str:
    if host not in caps:
        raise NotMigratable(f"this account doesn't own host {host}: its owner migrates it and its plans")
    return caps[host]


async def _cap_of(chain: ChainClient, deployment: Deployment) -> str:
    """Return the upgrade cap of a deployment: the one that is remembered, else the one that the chain tells of."""
    if deployment.upgrade_cap:
        return deployment.upgrade_cap
    try:
        found = await read_upgrades(chain, deployment.id)
    except NotFound:
        found = Upgrades(UpgradePolicy.UNKNOWN)
    if not found.cap:
        raise NotUpgradable(f"package {deployment.package} at {deployment.id}: {found.text}")
    return found.cap


def _changed(deployment: Deployment, **changes: str) -> Deployment:
    return Deployment(**{**vars(deployment), **changes})
