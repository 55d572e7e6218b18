"""`dtp chain`: look at a network: objects, events, what a node says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dtp.cli.accounts import WalletOptions, account_options, record_of, tell_history
from dtp.cli.groups import CommandGroup
from dtp.cli.output import print_line, print_result
from dtp.cli.show import amount, inline, owner, table

if TYPE_CHECKING:
    from dtp.chain import ChainClient, Followed


@click.group("chain", cls=CommandGroup)
def chain() -> None:
    """Look at a network: objects, events, the node."""


@chain.command()
@account_options
def info(account: WalletOptions) -> None:
    """Show what the node says of itself, and where the packages are."""

    async def work(client: ChainClient) -> dict[str, Any]:
        info = await client.service_info()
        epoch = await client.epoch()
        packages = {each.package: each.id for each in client.deployments.list_all()}
        return {**record_of(info), "gas_price": epoch.gas_price, "packages": packages}

    record = account.run_connected(work, signing=False)
    print_result(record, table(record))


@chain.command("object")
@click.argument("id")
@click.option("--version", type=click.IntRange(0), help="This version instead of the newest.")
@account_options
def show_object(id: str, version: int | None, account: WalletOptions) -> None:
    """Show an object with its fields; those of dtp's packages by the names that Python knows."""

    async def work(client: ChainClient) -> dict[str, Any]:
        from dtp.chain.known import decode_known

        found = await client.object(id, version)
        value = decode_known(client.deployments, found.type, found.contents)
        record = {
            "id": found.id,
            "version": found.version,
            "digest": found.ref.digest,
            "type": found.type,
            "owner": record_of(found.owner),
            "previous_transaction": found.previous_transaction,
            "storage_rebate": found.storage_rebate,
        }
        if found.balance is not None:
            record["balance"] = found.balance
        if value is not None:
            return {**record, "fields": record_of(value)}
        fields = await client.object_json(id, found.version)
        return {**record, "fields": fields} if fields is not None else {**record, "bcs": found.contents.hex()}

    record = account.run_connected(work, signing=False)
    shown = {**record, "owner": owner(**record["owner"]), "storage_rebate": amount(record["storage_rebate"])}
    print_result(record, table(shown))


@chain.command()
@click.option("--follow", is_flag=True, help="Go on with new events until interrupted.")
@click.option("--type", "types", multiple=True, metavar="TYPE",
              help="0xpackage, 0xpackage::module or a type, also by name: transport::channel::Claimed. "
              "May be repeated. [default: all of dtp's packages]")  # fmt: skip
@click.option("--from", "start", type=click.IntRange(0), metavar="CHECKPOINT",
              help="Begin there. [default: with --follow now, else with the oldest that the node has]")  # fmt: skip
@click.option("--cursor", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Keep in FILE how far events were shown, and go on there the next time.")  # fmt: skip
@account_options
def events(
    follow: bool, types: tuple[str, ...], start: int | None, cursor: Path | None, account: WalletOptions
) -> None:
    """Show events: those there were, or with --follow those to come. None is lost or shown twice."""

    async def work(client: ChainClient) -> None:
        from dtp.chain import OLDEST, CursorFile, EventFollower

        store = CursorFile(cursor) if cursor is not None else None
        known = store.load() if store is not None else None
        begin = start if start is not None or follow else OLDEST
        if begin == OLDEST and known is None:
            await tell_history(client)
        follower = EventFollower(client, _filters(client, types), cursor=known, start=begin)
        if store is not None:
            store.save(await follower.begin())
        async for found in follower if follow else follower.past_events():
            _print_event(client, found)
            if store is not None:
                store.save(found.cursor)
        if store is not None and follower.cursor is not None:
            store.save(follower.cursor)

    account.run_connected(work, signing=False)


def _filters(client: ChainClient, types: tuple[str, ...]) -> list[str]:
    """Return types as the node wants them: names of our packages become their ids."""
    from dtp.chain.errors import PackageNotPublished

    if not types:
        known = [each.original_id for each in client.deployments.list_all()]
        if not known:
            raise PackageNotPublished(
                f"no package of dtp is known on {client.network.name}: publish them ('dtp move publish'), "
                "or name what to show with --type"
            )
        return known
    filters = []
    for text in types:
        package, colons, rest = text.partition("::")
        address = package if package.startswith("0x") else client.deployments.original_id(package)
        filters.append(address + colons + rest)
    return filters


def _print_event(client: ChainClient, found: Followed) -> None:
    from dtp.chain.known import decode_known

    event = found.event
    value = decode_known(client.deployments, event.type, event.contents)
    record = {
        "event": "event",
        "type": event.type,
        "checkpoint": event.checkpoint,
        "transaction": event.transaction,
        "index": event.index,
        "sender": event.sender,
        **({"fields": record_of(value)} if value is not None else {"bcs": event.contents.hex()}),
    }
    short = "::".join(event.type.split("::")[1:])
    shown = inline(record["fields"]) if "fields" in record else f"bcs={event.contents.hex()}"
    print_line(record, f"{event.checkpoint}  {event.transaction}:{event.index}  {short}  {shown}")
