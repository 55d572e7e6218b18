"""`dtp host change`, `operator` and `withdraw`: who is paid, how long a heartbeat counts, who acts for the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dtp.cli.accounts import WalletOptions, account_options, executed_record
from dtp.cli.durations import duration
from dtp.cli.host_caps import host_option, operator_cap, owned_host, print_record
from dtp.identity import PeerId

if TYPE_CHECKING:
    from dtp.chain import ChainClient

RIGHTS = ("heartbeat", "endpoints", "firewall", "passes")


@click.command()
@click.option("--ttl", type=duration(10, 86_400, whole=True),
              help="How long a heartbeat keeps an endpoint alive. [default: as it is]")  # fmt: skip
@click.option("--paid-to", metavar="ADDRESS",
              help="Who is paid by channels that are opened from now on. [default: as it is]")  # fmt: skip
@host_option
@account_options
def change(ttl: int | None, paid_to: str | None, host_id: str | None, account: WalletOptions) -> None:
    """Change how long heartbeats count, and who is paid. What isn't named stays."""
    if ttl is None and paid_to is None:
        raise click.UsageError("nothing to change; give --ttl or --paid-to")

    async def work(chain: ChainClient) -> dict[str, Any]:
        from dtp.chain import Program
        from dtp.chain import host as module
        from dtp.chain.model import full_address

        owner = None if paid_to is None else full_address(paid_to)
        found, cap = await owned_host(chain, host_id)
        beacon = await chain.read(module.SCHEMA, module.Beacon, found.beacon)
        program = Program()
        changes: dict[str, Any] = {}
        if ttl is not None and beacon.ttl_ms != ttl * 1000:
            module.set_ttl(program, found.beacon, cap, ttl * 1000)
            changes["ttl_ms"] = {"old": beacon.ttl_ms, "new": ttl * 1000}
        if owner is not None and found.owner != owner:
            module.set_owner(program, found.id, cap, owner)
            changes["owner"] = {"old": found.owner, "new": owner}
        record = {"host": found.id, "changes": changes}
        return {**record, **executed_record(await chain.execute(program))} if changes else record

    print_record(account.run_connected(work))


@click.command()
@click.argument("address", metavar="[ADDRESS]", required=False)
@click.option("--rights", default=",".join(RIGHTS), show_default=True, metavar="LIST", help="What it may do.")
@click.option("--revoke-others", is_flag=True, help="Void all operator caps that there are.")
@host_option
@account_options
def operator(
    address: str | None, rights: str, revoke_others: bool, host_id: str | None, account: WalletOptions
) -> None:
    """Give ADDRESS, or the wallet, an operator cap: what a daemon's key may do for the host.

    With --revoke-others it is the only one afterwards: whoever serves by another is announced no longer.
    """
    named = rights.split(",")
    unknown = sorted({*named} - {*RIGHTS})
    if unknown:
        raise click.BadParameter(f"{', '.join(unknown)}: there is {', '.join(RIGHTS)}", param_hint="--rights")

    async def work(chain: ChainClient) -> dict[str, Any]:
        from dtp.chain import Program
        from dtp.chain import host as module
        from dtp.chain.node.made import object_made

        found, cap = await owned_host(chain, host_id)
        program, whom = Program(), address or chain.address
        if revoke_others:
            module.revoke_operators(program, found.id, found.beacon, cap)
        sum_of = module.Rights(0)
        for each in named:
            sum_of |= module.Rights[each.upper()]
        program.transfer([module.new_operator(program, found.id, cap, sum_of)], whom)
        executed = await chain.execute(program)
        made = object_made(executed, chain.type_of(module.SCHEMA, module.OpCap))
        record = {"host": found.id, "operator": whom, "operator_cap": made, "rights": sorted({*named})}
        return {**record, "revoked_others": revoke_others, **executed_record(executed)}

    print_record(account.run_connected(work))


@click.command()
@click.argument("key", metavar="DTP1...")
@host_option
@account_options
def withdraw(key: str, host_id: str | None, account: WalletOptions) -> None:
    """Remove an endpoint, by its identity: nobody is sent there any more."""

    async def work(chain: ChainClient) -> dict[str, Any]:
        from dtp.chain import Program
        from dtp.chain import host as module

        cap = await operator_cap(chain, host_id, module.Rights.ENDPOINTS)
        found = await chain.read(module.SCHEMA, module.Host, cap.host)
        program = Program()
        module.withdraw(program, found.beacon, cap.id, PeerId.parse(key).key)
        return {"host": found.id, "endpoint": key, **executed_record(await chain.execute(program))}

    print_record(account.run_connected(work))
