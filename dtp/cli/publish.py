"""`dtp move publish`: put the packages that ship on a network."""

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
