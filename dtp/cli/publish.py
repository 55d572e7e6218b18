"""`dtp move publish` and `use`: put the packages that ship on a network, or use those that are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dtp.cli.accounts import Account, account_options
from dtp.cli.output import json_option, print_result, wants_json
from dtp.cli.show import amount

if TYPE_CHECKING:
    from dtp.chain import ChainClient


@click.command("publish")
@click.argument("names", nargs=-1, metavar="[PACKAGE]...")
@click.option("--again", is_flag=True, help="Publish also what is there already.")
@account_options
@json_option
def publish(names: tuple[str, ...], again: bool, account: Account) -> None:
    """Publish packages (default: all) on a network, and remember where they are.

    What is there with the same bytecode is left as it is. The upgrade caps go to the wallet.
    """
    from dtp.chain import packages

    chosen = names or packages.available()
    for name in chosen:
        packages.load(name)  # an unknown name is told before anything is sent
    published = account.run(lambda chain: _publish(chain, chosen, again))
    width = max(map(len, chosen))
    lines = [
        f"{record['package']:<{width}}  {record['id']}  "
        + (f"published for {amount(record['gas_mist'])}" if record["transaction"] else "was there already")
        for record in published
    ]
    print_result({"packages": published}, None if wants_json() else "\n".join(lines))


async def _publish(chain: ChainClient, names: tuple[str, ...], again: bool) -> list[dict[str, Any]]:
    from dtp.chain.publish import publish as publish_package

    records = []
    for name in names:
        deployment, executed = await publish_package(chain, name, again=again)
        records.append(
            {
                "package": name,
                "id": deployment.id,
                "digest": deployment.digest,
                "upgrade_cap": deployment.upgrade_cap,
                "chain_id": chain.chain_id,
                "transaction": executed.digest if executed is not None else None,
                "gas_mist": executed.gas.net if executed is not None else 0,
            }
        )
    return records


@click.command("use")
@click.argument("name", metavar="PACKAGE")
@click.argument("id")
@account_options
@json_option
def use(name: str, id: str, account: Account) -> None:
    """Use the PACKAGE that somebody has published at ID on a network, and remember it.

    Its bytecode is compared with what ships here: only the same is used.
    """

    async def work(chain: ChainClient) -> dict[str, Any]:
        from dtp.chain.publish import adopt

        found = await adopt(chain, name, id)
        return {"package": name, "id": found.id, "digest": found.digest, "chain_id": chain.chain_id}

    record = account.run(work, signing=False)
    print_result(record, None if wants_json() else f"{name}  {record['id']}  is what ships here")
