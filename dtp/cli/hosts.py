"""`dtp host`: a host on chain, its services, its lists and its heartbeats."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import click

from dtp.cli import host_owner, host_plans, host_services
from dtp.cli.accounts import WalletOptions, account_options, executed_record, record_of
from dtp.cli.durations import duration
from dtp.cli.groups import CommandGroup
from dtp.cli.host_caps import host_option, only_host, operator_cap, print_record
from dtp.cli.options import IdentitySource
from dtp.cli.output import print_line, print_result
from dtp.cli.show import amount, moment, money, plain
from dtp.cli.terms import known_name, named, rate_text, service_record, service_text
from dtp.errors import ConfigError
from dtp.identity import PeerId, PeerIdError
from dtp.net.reachable import is_any_url

if TYPE_CHECKING:
    from dtp.chain import ChainClient, Executed
    from dtp.chain.host import Endpoint
    from dtp.identity import Identity

_ROLES = ("active", "standby")


@click.group("host", cls=CommandGroup)
def host() -> None:
    """A host on chain: your name for clients, the prices of your services, and who may connect."""


@host.command()
@click.option("--ttl", default="12h", show_default=True, type=duration(10, 86_400, whole=True),
              help="How long a heartbeat keeps an endpoint alive.")  # fmt: skip
@click.option("--operator", metavar="ADDRESS",
              help="Who may send heartbeats and edit the lists. [default: the wallet]")  # fmt: skip
@account_options
def create(ttl: int, operator: str | None, account: WalletOptions) -> None:
    """Create a host. It has no services yet, and nobody may connect."""

    async def work(chain: ChainClient) -> dict[str, Any]:
        from dtp.chain import Program
        from dtp.chain import host as module
        from dtp.chain.node.made import check_made, object_made
        from dtp.pay.hosting import note_made

        program = Program()
        module.create(program, chain.address, ttl_ms=ttl * 1000, operator=operator or chain.address)
        executed = await chain.execute(program)
        made = chain.event_in(executed, module.SCHEMA, module.HostCreated)
        check_made(executed, made.host)
        note_made(chain, made.host)
        caps = {
            name: object_made(executed, chain.type_of(module.SCHEMA, cls))
            for name, cls in (("cap", module.HostCap), ("operator_cap", module.OpCap))
        }
        return {
            "host": made.host,
            "beacon": made.beacon,
            **caps,
            **executed_record(executed),
        }

    print_record(account.run_connected(work))


@host.command()
@host_option
@account_options
def show(host_id: str | None, account: WalletOptions) -> None:
    """Show a host: its services, its endpoints, its lists."""
    address = "" if host_id else account.read_address()

    async def work(chain: ChainClient) -> dict[str, Any]:
        from dtp.chain import host as module

        wanted = host_id or (await only_host(chain, address)).host
        found = await chain.read(module.SCHEMA, module.Host, wanted)
        beacon = await chain.read(module.SCHEMA, module.Beacon, found.beacon)
        lists = {
            name: module.listed_addresses([each async for each in chain.dynamic_fields(table.id)])
            for name, table in (("allow", found.allow), ("deny", found.deny))
        }
        # The chain's time counts; where nothing happens its newest checkpoint is old.
        now = max(int(time.time() * 1000), (await chain.service_info()).timestamp_ms or 0)
        fresh = {each.key for each in beacon.live_endpoints(now)}
        endpoints = [{**_endpoint_record(each), "fresh": each.key in fresh} for each in beacon.endpoints]
        services = {
            str(number): {"name": known_name(chain, number), **service_record(each)}
            for number, each in found.services.items()
        }
        return {
            **record_of(found),
            "services": services,
            **record_of(lists),
            "ttl_ms": beacon.ttl_ms,
            "endpoints": endpoints,
        }

    record = account.run_connected(work, signing=False)
    print_result(record, _host_text(record))


def _endpoint_record(endpoint: Endpoint) -> dict[str, Any]:
    """Return an endpoint as JSON, with the identity that its key is, and the hint as text where it is one."""
    try:
        identity = str(PeerId(endpoint.key))
    except PeerIdError:  # the chain takes any 32 bytes
        identity = None
    hint = endpoint.hint.decode("utf-8", "replace")
    return {
        **record_of(endpoint),
        "identity": identity,
        "role": named(_ROLES, endpoint.role),
        "hint_text": hint if "\ufffd" not in hint else None,
    }


def _host_text(record: dict[str, Any]) -> str:
    lines = [f"host      {record['id']}", f"paid to   {record['owner']}", f"beacon    {record['beacon']}"]
    for number, each in record["services"].items():
        terms = each["terms"]
        state = f"open, mode {each['mode']}" if each["open"] else "closed"
        request, mib, deposit = (
            money(terms[name], terms["coin"]) for name in ("price_request", "price_mib", "min_deposit")
        )
        rates = [f"{rate_text(rate)} ({name})" for name, rate in each["rate"].items() if rate["interval_ns"]]
        name = service_text(number, each["name"])
        lines.append(
            f"service   {name} ({each['kind']}): {state}; {request} a request, {mib} a MiB, "
            f"deposit from {deposit}, {''.join(f'{each}, ' for each in rates)}terms revision {terms['revision']}"
        )
    if not record["services"]:
        lines.append("service   none yet: 'dtp host service NAME' adds one")
    for each in record["endpoints"]:
        silent = f"silent since {moment(each['seen_ms'])}" if each["seen_ms"] else "never heard of"
        alive = "alive" if each["fresh"] else silent
        hint = plain(each["hint_text"] or (f"0x{each['hint']}" if each["hint"] else "no hint"))
        lines.append(f"endpoint  {each['identity'] or each['key']}: {each['role']}, {alive}, {hint}")
    if not record["endpoints"]:
        lines.append("endpoint  none yet: 'dtp host heartbeat' enrolls one")
    lines += [f"allowed   {each}" for each in record["allow"]]
    lines += [f"denied    {each}" for each in record["deny"]]
    return "\n".join(lines)


def _list_command(name: str, help_text: str, add: str, remove: str) -> click.Command:
    @click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS...")
    @click.option("--remove", "removing", is_flag=True, help="Take them off the list.")
    @host_option
    @account_options
    def command(
        addresses: tuple[str, ...], removing: bool, host_id: str | None, account: WalletOptions
    ) -> None:
        async def work(chain: ChainClient) -> dict[str, Any]:
            from dtp.chain import Program
            from dtp.chain import host as module

            cap = await operator_cap(chain, host_id, module.Rights.FIREWALL)
            program = Program()
            getattr(module, remove if removing else add)(program, cap.host, cap.id, addresses)
            return {
                "host": cap.host,
                "addresses": list(addresses),
                **executed_record(await chain.execute(program)),
            }

        print_record(account.run_connected(work))

    command.__doc__ = help_text
    return click.command(name)(command)


host.add_command(
    _list_command("allow", "Put addresses on a host's allow-list (mode allow-list).", "allow", "disallow")
)
host.add_command(
    _list_command(
        "deny", "Put addresses on a host's deny-list, which overrides all other lists.", "deny", "undeny"
    )
)


@host.command()
@click.option("--key", metavar="DTP1...", help="The endpoint's identity. [default: the wallet's key]")
@click.option(
    "--hint", metavar="URL", help="Where it is reached; written when the endpoint is new or changes."
)
@click.option(
    "--weight",
    type=click.IntRange(0, 65535),
    help="Its share of traffic. [default: as it is; 1 of a new one]",
)
@click.option(
    "--standby/--active",
    default=None,
    help="Take traffic only when no active endpoint is alive. [default: as it is; a new one is active]",
)
@click.option(
    "--generation",
    type=click.IntRange(0),
    help="Fencing number; a higher one takes over. [default: the last]",
)
@click.option(
    "--load", default=0, show_default=True, type=click.IntRange(0, 65535), help="0 idle to 65535 full."
)
@click.option(
    "--sealed",
    is_flag=True,
    help="Publish the static key of the wallet's identity, which 'dtp post' seals to.",
)
@click.option("--every", type=duration(1), help="Go on until interrupted.")
@host_option
@account_options
def heartbeat(
    sealed: bool, every: float | None, host_id: str | None, account: WalletOptions, **options: Any
) -> None:
    """Say that an endpoint of the host is alive; enroll it first if it is new."""
    if options["hint"] is not None and is_any_url(options["hint"].removeprefix("dtp+")):
        raise click.BadParameter(
            "nobody can dial that: say where others reach the endpoint", param_hint="--hint"
        )
    options["identity"] = _identity_of(account) if sealed else None

    async def work(chain: ChainClient) -> None:
        from dtp.chain import host as module
        from dtp.chain.errors import NodeUnavailable, OutcomeUnknown, StaleObject

        rights = module.Rights.HEARTBEAT | module.Rights.ENDPOINTS
        cap = await operator_cap(chain, host_id, rights)
        while True:
            try:
                executed = await _beat(chain, cap.host, cap.id, options)
            except (NodeUnavailable, OutcomeUnknown, StaleObject) as error:
                if every is None:
                    raise
                # An outage of the network mustn't end what keeps the host alive after it.
                missed = {"event": "missed", "host": cap.host, "code": error.code, "message": str(error)}
                print_line(missed, f"missed: {error}", err=True)
            else:
                record = {"event": "heartbeat", "host": cap.host, **executed_record(executed)}
                print_line(record, f"alive; {amount(executed.gas.net)}")
            if every is None:
                return
            await asyncio.sleep(every)

    account.run_connected(work)


def _identity_of(account: WalletOptions) -> Identity:
    """Return the identity that is the wallet, with its static key. Raises `ConfigError`, `IdentityFileError`."""
    path = account.wallet_path()
    if path is None:
        raise ConfigError(
            "a key of the Sui command line is not an identity and has no static key; give an identity file"
        )
    return IdentitySource(path, account.passphrase_file).load_identity()


async def _beat(chain: ChainClient, host_id: str, cap: str, options: dict[str, Any]) -> Executed:
    from dtp.chain import Program
    from dtp.chain import host as module
    from dtp.chain.pipes.posts import hint_with_key

    key = _endpoint_key(chain, options["key"])
    found = await chain.read(module.SCHEMA, module.Host, host_id)
    beacon = await chain.read(module.SCHEMA, module.Beacon, found.beacon)
    known = next((each for each in beacon.endpoints if each.key == key), None)
    weight, role = (1, int(module.Role.ACTIVE)) if known is None else (known.weight, known.role)
    if options["weight"] is not None:
        weight = options["weight"]
    if options["standby"] is not None:
        role = module.Role.STANDBY if options["standby"] else module.Role.ACTIVE
    hint = options["hint"].encode() if options["hint"] is not None else (known.hint if known else b"")
    identity = options["identity"]
    if identity is not None:
        if identity.id.key != key:
            raise ConfigError(
                f"--sealed publishes the static key of {identity.id}, and --key is another identity"
            )
        hint = hint_with_key(hint.decode("ascii", "replace").partition("#")[0], identity)
    generation = options["generation"]
    if generation is None:
        generation = known.generation if known else 0
    program = Program()
    if known is None:
        module.enroll(
            program,
            beacon.id,
            cap,
            key,
            weight=weight,
            role=role,
            generation=generation,
            hint=hint,
        )
    elif (known.weight, known.role, known.hint) != (weight, role, hint):
        module.configure(program, beacon.id, cap, key, weight=weight, role=role, hint=hint)
    module.heartbeat(program, beacon.id, cap, key, generation, options["load"])
    return await chain.execute(program)


def _endpoint_key(chain: ChainClient, text: str | None) -> bytes:
    from dtp.chain import KeySigner, Scheme

    if text is not None:
        return PeerId.parse(text).key
    signer = chain.signer
    if isinstance(signer, KeySigner) and signer.scheme is Scheme.ED25519:
        return signer.public_key
    raise ConfigError("the wallet's key is not an identity: name the endpoint's with --key dtp1...")


for _command in (
    host_owner.change,
    host_owner.operator,
    host_owner.withdraw,
    host_services.service,
    host_services.remove,
    host_plans.plan,
    host_plans.sale,
    host_plans.draw,
    host_plans.revoke,
    host_plans.retire,
):
    host.add_command(_command)
