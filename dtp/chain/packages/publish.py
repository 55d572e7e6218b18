"""Publishing the packages that ship, or using what somebody else has published; remembering where they are."""

from __future__ import annotations

from collections.abc import Iterable

from dtp.chain import packages
from dtp.chain.errors import MALFORMED, ForeignPackage, NodeRefused, NotFound
from dtp.chain.model import Executed, Id, id_bytes
from dtp.chain.node.client import ChainClient
from dtp.chain.node.commands import Program
from dtp.chain.node.made import check_made
from dtp.chain.packages.deployments import Deployment
from dtp.chain.packages.upgrades import UPGRADE_CAP, UpgradePolicy, give_up, read_upgrades


async def publish(
    chain: ChainClient, name: str, *, again: bool = False, immutable: bool = False
) -> tuple[Deployment, Executed | None]:
    """Publish a package that ships; its upgrade cap goes to the sender, or is given up at once (`immutable`).

    Whoever has the cap can take what the package's objects hold: publish immutable what others are to use.

    What is already there with the same bytecode isn't published a second time, unless `again`: then the
    transaction is None. Raises `PackageError` for an unknown name, and what `ChainClient.execute` raises.
    """
    package = packages.load(name)
    await chain.connect()
    known = chain.deployments.get(name)
    if not again and known is not None and known.digest == package.digest.hex():
        try:
            await chain.package(known.id)
        except NotFound:
            pass  # a network that was set up anew under the same id
        else:
            return known, None
    id, cap, executed = await publish_modules(
        chain, package.modules.values(), package.dependencies, immutable=immutable
    )
    deployment = Deployment(
        package=name,
        id=id,
        original_id=id,
        digest=package.digest.hex(),
        upgrade_cap=cap,
        transaction=executed.digest,
        policy=UpgradePolicy.IMMUTABLE if immutable else UpgradePolicy.COMPATIBLE,
    )
    chain.deployments.save(deployment)
    return deployment, executed


async def publish_modules(
    chain: ChainClient,
    modules: Iterable[bytes],
    dependencies: Iterable[Id | bytes],
    *,
    immutable: bool = False,
) -> tuple[str, str, Executed]:
    """Publish compiled modules as one package.

    Return its id, its upgrade cap, which goes to the sender ("" if it was given up: `immutable`), and what was
    executed. Raises what `ChainClient.execute` raises.
    """
    program = Program()
    cap = program.publish(modules, dependencies)
    if immutable:
        give_up(program, cap)
    else:
        program.transfer([cap], chain.address)
    executed = await chain.execute(program)
    made = [
        change.id for change in executed.changes if change.type == "package" and change.output is not None
    ]
    caps = executed.created_objects(UPGRADE_CAP)
    check_made(executed, *(each.id for each in caps))
    if len(made) != 1:
        raise NodeRefused(f"transaction {executed.digest} tells of {len(made)} packages", MALFORMED)
    return made[0], caps[0].id if caps else "", executed


async def adopt(chain: ChainClient, name: str, id: Id) -> Deployment:
    """Use the package that somebody else has published at `id`, and remember it.

    Its bytecode has to be what ships here, byte for byte: terms and refusals are what this dtp knows of them. Raises
    `ForeignPackage` when it isn't, `NotFound` when there is no package, `PackageError` for an unknown name.
    """
    package = packages.load(name)
    found = await chain.package(id)
    # Modules are compiled for address 0, and published with the package's own in its place.
    own, zero = id_bytes(found.original_id), bytes(32)
    published = {module: code.replace(own, zero) for module, code in found.modules.items()}
    if published != dict(package.modules):
        differ = sorted(
            module
            for module in published.keys() | package.modules.keys()
            if published.get(module) != package.modules.get(module)
        )
        raise ForeignPackage(
            f"{found.id} is not the {name!r} of this dtp: {', '.join(differ)} differ; "
            "ask for the id, or for the release that it was published from"
        )
    upgrades = await read_upgrades(chain, found.id)
    deployment = Deployment(
        package=name,
        id=found.id,
        original_id=found.original_id,
        digest=package.digest.hex(),
        policy=upgrades.policy,
    )
    chain.deployments.save(deployment)
    return deployment
