"""`dtp move publish`, `use`, `restrict`, `upgrade`, `migrate`: packages on a network, and who may change them."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dtp.chain import packages
from dtp.chain.packages.publish import adopt, publish_modules
from dtp.chain.packages.publish import publish as publish_package
from dtp.chain.packages.upgrades import UpgradePolicy, read_upgrades
from dtp.chain.packages.upgrades import migrate as migrate_objects
from dtp.chain.packages.upgrades import restrict as restrict_upgrades
from dtp.chain.packages.upgrades import upgrade as upgrade_package
from dtp.cli import move_build
from dtp.cli.accounts import WalletOptions, account_options, executed_record
from dtp.cli.move_build import install_option, source_option
from dtp.cli.output import print_result, wants_json
from dtp.cli.show import amount, table
from dtp.errors import ConfigError
from dtp.sui.bytecode import deserialize

if TYPE_CHECKING:
    from dtp.chain import ChainClient


@click.command("publish")
@click.argument("names", nargs=-1, metavar="[PACKAGE]...")
@click.option("--again", is_flag=True, help="Publish also what is there already.")
@click.option("--immutable/--upgradable", default=None,
              help="Give up the upgrade caps, or keep them. [default: asks, keeps where SUI is free]")  # fmt: skip
@account_options
def publish(names: tuple[str, ...], again: bool, immutable: bool | None, account: WalletOptions) -> None:
    """Publish packages (default: all) on a network, and remember where they are.

    What is there with the same bytecode is left as it is. Whoever has a package's upgrade cap can take the money of
    all who use it: publish --immutable what others are to use. Without a terminal to ask on, say --immutable or
    --upgradable; on networks with a faucet the caps are kept unasked.
    """
    chosen = names or packages.available()
    for name in chosen:
        packages.load(name)  # an unknown name is told before anything is sent
    published = account.run_connected(lambda chain: _publish(chain, chosen, again, immutable))
    width = max(map(len, chosen))
    lines = [
        f"{record['package']:<{width}}  {record['id']}  "
        + (f"published for {amount(record['gas_mist'])}" if record["transaction"] else "was there already")
        + (", immutable" if record["policy"] == "immutable" else "")
        + _not_done(record, immutable)
        for record in published
    ]
    print_result({"packages": published}, "\n".join(lines))


def _not_done(record: dict[str, Any], immutable: bool | None) -> str:
    """Say of a package that was there already what --immutable didn't do."""
    if not immutable or record["transaction"] or record["policy"] == "immutable":
        return ""
    return (
        ", and is NOT immutable: who has its upgrade cap can still change it. 'dtp move restrict "
        f"{record['package']} --immutable' gives that up, --again publishes another one"
    )


def _gives_up(chain: ChainClient, immutable: bool | None) -> bool:
    """Return whether upgrade caps are given up; ask where nothing was said. Raise `ConfigError` if nobody can say."""
    if immutable is not None:
        return immutable
    if chain.network.faucet:
        return False
    if not sys.stdin.isatty() or wants_json():
        raise ConfigError(
            f"say --immutable or --upgradable: who has an upgrade cap on {chain.network.name} can take the money of "
            "all who use the package"
        )
    return click.confirm(
        "Make the packages immutable? Recommended for what others are to use: nobody can change them then"
    )


async def _publish(
    chain: ChainClient, names: tuple[str, ...], again: bool, immutable: bool | None
) -> list[dict[str, Any]]:
    gives_up = _gives_up(chain, immutable)
    records = []
    for name in names:
        deployment, executed = await publish_package(chain, name, again=again, immutable=gives_up)
        records.append(
            {
                "package": name,
                "id": deployment.id,
                "digest": deployment.digest,
                "upgrade_cap": deployment.upgrade_cap,
                "policy": deployment.policy,
                "chain_id": chain.chain_id,
                "transaction": executed.digest if executed is not None else None,
                "gas_mist": executed.gas.net if executed is not None else 0,
            }
        )
    return records


@click.command("deploy")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@source_option
@install_option
@click.option("--immutable/--upgradable", default=None,
              help="Give up the upgrade cap, or keep it. [default: asks, keeps where SUI is free]")  # fmt: skip
@account_options
def deploy(
    folder: Path, source: Path | None, install: bool, immutable: bool | None, account: WalletOptions
) -> None:
    """Compile a package of your own, in FOLDER, and publish it on a network.

    Its Move.toml may name packages that ship here, as move/examples/stamps does; those have to be published there
    ('dtp move publish'), or in use ('dtp move use'). The compiler takes Node and a source tree of dtp.
    """
    checkout = move_build.checkout_of(source, install)

    async def work(chain: ChainClient) -> dict[str, Any]:
        name, needed = move_build.needs_of(folder)
        published = {each: chain.deployments.find(each) for each in needed}
        code, linked, warnings = await asyncio.to_thread(
            move_build.compile_folder, checkout, folder, published
        )
        made, cap, executed = await publish_modules(
            chain, code, linked, immutable=_gives_up(chain, immutable)
        )
        modules = sorted(deserialize(each).name for each in code)
        record = {"package": name, "id": made, "upgrade_cap": cap, "modules": modules, "warnings": warnings}
        return {**record, **executed_record(executed)}

    record = account.run_connected(work)
    print_result(record, table(record))


@click.command("use")
@click.argument("name", metavar="PACKAGE")
@click.argument("id")
@account_options
def use(name: str, id: str, account: WalletOptions) -> None:
    """Use the PACKAGE that somebody has published at ID on a network, and remember it.

    Its bytecode is compared with what ships here: only the same is used. This says who may upgrade it; calls go to ID
    until another is told.
    """

    async def work(chain: ChainClient) -> dict[str, Any]:
        found = await adopt(chain, name, id)
        upgrades = await read_upgrades(chain, found.id)
        return {
            "package": name,
            "id": found.id,
            "digest": found.digest,
            "chain_id": chain.chain_id,
            "policy": str(upgrades.policy),
            "upgrade_cap": upgrades.cap,
            "holder": upgrades.holder,
            "text": upgrades.text,
        }

    record = account.run_connected(work, signing=False)
    text = record.pop("text")
    print_result(record, f"{name}  {record['id']}  is what ships here; {text}")


@click.command("restrict")
@click.argument("name", metavar="PACKAGE")
@click.option(
    "--immutable", "policy", flag_value="immutable", help="No upgrades any more: the cap is given up."
)
@click.option("--dependencies-only", "policy", flag_value="dependencies", help="Only of what it depends on.")
@click.option("--additive", "policy", flag_value="additive", help="Only new functions.")
@account_options
def restrict(name: str, policy: str | None, account: WalletOptions) -> None:
    """Allow fewer upgrades of PACKAGE from now on. There is no way back.

    A new function can still take what others' objects hold: only --dependencies-only and --immutable protect them.
    """
    if policy is None:
        raise click.UsageError("say --immutable, --dependencies-only or --additive")

    async def work(chain: ChainClient) -> dict[str, Any]:
        deployment = chain.deployments.find(name)
        executed = await restrict_upgrades(chain, deployment, UpgradePolicy(policy))
        return {"package": name, "id": deployment.id, "policy": policy, **executed_record(executed)}

    record = account.run_connected(work)
    print_result(record, f"{name}  {record['id']}  {policy}")


@click.command("upgrade")
@click.argument("name", metavar="PACKAGE")
@account_options
def upgrade(name: str, account: WalletOptions) -> None:
    """Publish the PACKAGE that ships here as the next version of the one in use, with the wallet's upgrade cap.

    Objects stay with their version until 'dtp move migrate' moves them. Others go on with the version that they were
    told: tell them the new id.
    """

    async def work(chain: ChainClient) -> dict[str, Any]:
        before = chain.deployments.find(name)
        newer, executed = await upgrade_package(chain, before)
        return {"package": name, "id": newer.id, "before": before.id, **executed_record(executed)}

    record = account.run_connected(work)
    print_result(record, f"{name}  {record['id']}  took the place of {record['before']}")


@click.command("migrate")
@click.argument("objects", nargs=-1, required=True, metavar="OBJECT...")
@account_options
def migrate(objects: tuple[str, ...], account: WalletOptions) -> None:
    """Move hosts (with their beacons), plans and channels to the version of the package in use.

    The version before refuses them from then on. Hosts and plans need their owner's wallet, channels their server's.
    """

    async def work(chain: ChainClient) -> dict[str, Any]:
        return {"objects": list(objects), **executed_record(await migrate_objects(chain, objects))}

    record = account.run_connected(work)
    print_result(record, f"migrated {len(objects)}")
