"""`dtp host`: a host on chain, its services, who may come in, and that it is alive."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dtp.cli.accounts import Account, account_options, executed_record, record_of
from dtp.cli.options import IdentitySource
from dtp.cli.output import json_option, print_line, print_result, wants_json
from dtp.cli.show import amount, moment, plain, table
from dtp.errors import ChainError, ConfigError

if TYPE_CHECKING:
    from dtp.chain import ChainClient, Executed
    from dtp.chain.host import Endpoint, Host, HostCap, OpCap, Service
    from dtp.identity import Identity

_KINDS = ("tcp", "udp", "http", "json-rpc", "grpc", "websocket", "other")
_MODES = ("open", "allow-list", "pass")
_BEARERS = ("split", "client", "server")
_ROLES = ("active", "standby")

_host_option = click.option(
    "--host", "host_id", metavar="ID", help="The host. [default: the only one that the wallet made from here]"
)


_Cap = TypeVar("_Cap")


class NoCap(ChainError):
    """The wallet has no cap for this host."""

    code = "no_cap"


@click.group("host")
def host() -> None:
    """A host on chain: who you are to clients, what your services cost, who may come in."""


@host.command()
@click.option("--ttl", default=60, show_default=True, type=click.IntRange(10, 86400), metavar="SECONDS",
              help="How long a heartbeat keeps an endpoint alive.")  # fmt: skip
@click.option("--operator", metavar="ADDRESS",
              help="Who may send heartbeats and edit the lists. [default: the wallet]")  # fmt: skip
@account_options
@json_option
def create(ttl: int, operator: str | None, account: Account) -> None:
    """Create a host. It has no service yet, and nobody may come in."""

    async def work(chain: ChainClient) -> dict[str, Any]:
        from dtp.chain import Program
        from dtp.chain import host as module
        from dtp.pay.hosting import note_made

        program = Program()
        module.create(program, chain.address, ttl_ms=ttl * 1000, operator=operator or chain.address)
        executed = await chain.execute(program)
        (made,) = chain.events_in(executed, module.SCHEMA, module.HostCreated)
        note_made(chain, made.host)
        caps = {
            name: [change.id for change in executed.created(chain.type_of(module.SCHEMA, cls))]
            for name, cls in (("cap", module.HostCap), ("operator_cap", module.OpCap))
        }
        return {
            "host": made.host,
            "beacon": made.beacon,
            **{name: ids[0] for name, ids in caps.items()},
            **executed_record(executed),
        }

    _print(account.run(work))


def _service_number(ctx: click.Context, param: click.Parameter, text: str) -> int:
    """The number that a service's name, or number, stands for."""
    from dtp.chain.resolver import service_number

    number = service_number(text)
    if text.isdecimal() and str(number) != text:
        raise click.BadParameter(f"{text} is no number of a service: 0 to 65535, without zeros in front")
    return number


@host.command()
@click.argument("number", metavar="SERVICE", callback=_service_number)
@_host_option
@click.option("--kind", type=click.Choice(_KINDS), default="tcp", show_default=True, help="What it speaks.")
@click.option(
    "--mode", type=click.Choice(_MODES), default="open", show_default=True, help="Who may open channels."
)
@click.option("--price-request", default="0", metavar="AMOUNT", help="Price of a request. [default: 0]")
@click.option("--price-mib", default="0", metavar="AMOUNT", help="Price of a MiB. [default: 0]")
@click.option("--min-deposit", default="0", metavar="AMOUNT", help="Least deposit of a channel. [default: 0]")
@click.option(
    "--epoch-cap", metavar="AMOUNT", help="Most that may be claimed in one epoch. [default: no cap]"
)
@click.option("--bearer", type=click.Choice(_BEARERS), default="split", show_default=True,
              help="Who bears transport cost.")  # fmt: skip
@click.option(
    "--credit", default="0", metavar="AMOUNT", help="What a frame of 16 KiB is credited with. [default: 0]"
)
@click.option("--idle", default=86400, show_default=True, metavar="SECONDS",
              help="After this time unused, anyone may ask for a channel's close.")  # fmt: skip
@click.option("--claim", default=3600, show_default=True, metavar="SECONDS",
              help="How long claims count after a close was asked for.")  # fmt: skip
@click.option(
    "--window", default=0, show_default=True, help="Frames that a pipe may be ahead; 0 is no limit."
)
@click.option("--post-fee", default="0", metavar="AMOUNT", help="Least fee of a message. [default: 0]")
@click.option(
    "--open/--closed", "is_open", default=True, show_default=True, help="Whether it takes channels."
)
@account_options
@json_option
def service(number: int, host_id: str | None, account: Account, is_open: bool, **terms: Any) -> None:
    """Add a service to a host, or change it: its terms are replaced, open channels keep theirs.

    Except for those from when it was free: once it has a price, they aren't served any more.

    SERVICE is its name, as addresses have it (dtp://0x.../files), or its number on chain.

    An AMOUNT is 0.001SUI or 1000000MIST, or a number of MIST.
    """

    async def work(chain: ChainClient) -> dict[str, Any]:
        found, cap = await _owned_host(chain, host_id)
        executed = await chain.execute(_service_program(found, cap, number, is_open, terms))
        return {"host": found.id, "service": number, "open": is_open, **executed_record(executed)}

    _print(account.run(work))


def _service_program(found: Host, cap: str, number: int, is_open: bool, options: dict[str, Any]) -> Any:
    from dtp.chain import Program
    from dtp.chain import host as module
    from dtp.chain.wallet import parse_amount

    cap_text = options["epoch_cap"]
    terms = module.Terms(
        price_request=parse_amount(options["price_request"]),
        price_mib=parse_amount(options["price_mib"]),
        min_deposit=parse_amount(options["min_deposit"]),
        epoch_cap=parse_amount(cap_text) if cap_text is not None else module.NO_CAP,
        bearer=_BEARERS.index(options["bearer"]),
        credit=parse_amount(options["credit"]),
        idle_ms=options["idle"] * 1000,
        claim_ms=options["claim"] * 1000,
    )
    mode, fee, window = _MODES.index(options["mode"]), parse_amount(options["post_fee"]), options["window"]
    kind = module.Kind(_kind_numbers()[options["kind"]])
    program = Program()
    known = found.services.get(number)
    if known is None:
        module.add_service(
            program, found.id, cap, number, terms, kind=kind, mode=mode, window=window, post_fee=fee
        )
    elif known.kind != kind:
        raise ConfigError(
            f"service {number} speaks {module.Kind(known.kind).name.lower()}, and a service's kind stays: "
            "use another number"
        )
    else:
        module.set_terms(program, found.id, cap, number, terms, known.terms_hash)
        module.set_mode(program, found.id, cap, number, mode)
        module.set_limits(program, found.id, cap, number, known.rate, window, fee)
    module.set_open(program, found.id, cap, number, is_open)
    return program


_PERIOD = re.compile(r"(?P<number>[1-9][0-9]{0,8})(?P<unit>[smhd])")
_PERIOD_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
#: Passes whose periods one transaction draws.
_DRAWN_AT_ONCE = 500


def _period_ms(ctx: click.Context, param: click.Parameter, text: str) -> int:
    """A period as ms; an epoch is 0."""
    match = _PERIOD.fullmatch(text)
    if text != "epoch" and match is None:
        raise click.BadParameter(f"{text!r} is no period: write 30d, 12h, 10m, 60s or epoch")
    return int(match["number"]) * _PERIOD_MS[match["unit"]] if match is not None else 0


@host.command()
@click.argument("number", metavar="SERVICE", callback=_service_number)
@click.option("--price", required=True, metavar="AMOUNT", help="What a period costs.")
@click.option("--period", "period_ms", default="30d", show_default=True, callback=_period_ms,
              metavar="TIME", help="How long it is: 30d, 12h, 10m, 60s, or epoch.")  # fmt: skip
@click.option("--requests", default=0, type=click.IntRange(0), help="Quota of a period. [default: none]")
@click.option("--bytes", "size", default=0, type=click.IntRange(0), help="Quota of a period. [default: none]")
@click.option("--keep-mode", is_flag=True,
              help="Leave the service's mode. [default: it is for subscribers from now on]")  # fmt: skip
@_host_option
@account_options
@json_option
def plan(
    number: int,
    price: str,
    period_ms: int,
    requests: int,
    size: int,
    keep_mode: bool,
    host_id: str | None,
    account: Account,
) -> None:
    """Sell subscriptions for a service.

    'dtp pass buy' buys periods of the plan, and 'dtp serve --plan' lets holders in.
    """

    async def work(chain: ChainClient) -> dict[str, Any]:
        from dtp.chain import Program, pass_
        from dtp.chain import host as module
        from dtp.chain.wallet import parse_amount

        found, cap = await _owned_host(chain, host_id)
        if number not in found.services:
            raise ConfigError(
                f"host {found.id} has no service {number}: 'dtp host service' or 'dtp serve' makes it"
            )
        program, coin = Program(), found.services[number].terms.coin
        made = pass_.new_plan(
            program,
            found.id,
            cap,
            number,
            price=parse_amount(price),
            period_ms=period_ms,
            quota_requests=requests,
            quota_bytes=size,
            coin=coin,
        )
        pass_.share(program, made, coin=coin)
        if not keep_mode:
            module.set_mode(program, found.id, cap, number, module.Mode.PASS)
        executed = await chain.execute(program)
        (created,) = chain.events_in(executed, pass_.SCHEMA, pass_.PlanCreated)
        return {"plan": created.plan, "host": found.id, "service": number, **executed_record(executed)}

    _print(account.run(work))


@host.command()
@click.argument("plan_id", metavar="PLAN")
@account_options
@json_option
def draw(plan_id: str, account: Account) -> None:
    """Draw what subscribers of PLAN have paid for periods that are over."""

    async def work(chain: ChainClient) -> dict[str, Any]:
        from dtp.chain import Program, pass_
        from dtp.chain.values import codec
        from dtp.pay.passes import read_plan

        found, coin = await read_plan(chain, plan_id)
        _, cap = await _owned_host(chain, found.host)
        name = codec("address")
        passes = [name.decode(each.name) async for each in chain.dynamic_fields(found.accounts.id)]
        drawn = gas = 0
        for at in range(0, len(passes), _DRAWN_AT_ONCE):
            program = Program()
            money = pass_.draw(program, found.id, cap, passes[at : at + _DRAWN_AT_ONCE], coin=coin)
            program.transfer([money], chain.address)
            executed = await chain.execute(program)
            drawn += sum(each.amount for each in chain.events_in(executed, pass_.SCHEMA, pass_.PlanDrawn))
            gas += executed.gas.net
        return {"plan": found.id, "passes": len(passes), "drawn": drawn, "coin": coin, "gas_mist": gas}

    _print(account.run(work))


@host.command()
@click.argument("host_id", metavar="[HOST]", required=False)
@account_options
@json_option
def show(host_id: str | None, account: Account) -> None:
    """Show a host: its services, its endpoints, its lists."""
    address = "" if host_id else account.address()

    async def work(chain: ChainClient) -> dict[str, Any]:
        from dtp.chain import host as module

        wanted = host_id or (await _only_host(chain, address)).host
        found = await chain.read(module.SCHEMA, module.Host, wanted)
        beacon = await chain.read(module.SCHEMA, module.Beacon, found.beacon)
        lists = {
            name: module.listed_addresses([each async for each in chain.dynamic_fields(table.id)])
            for name, table in (("allow", found.allow), ("deny", found.deny))
        }
        # The chain's time counts; where nothing happens its newest checkpoint is old.
        now = max(int(time.time() * 1000), (await chain.service_info()).timestamp_ms or 0)
        fresh = {each.key for each in beacon.fresh(now)}
        endpoints = [{**_endpoint_record(each), "fresh": each.key in fresh} for each in beacon.endpoints]
        services = {str(number): _service_record(each) for number, each in found.services.items()}
        return {
            **record_of(found),
            "services": services,
            **record_of(lists),
            "ttl_ms": beacon.ttl_ms,
            "endpoints": endpoints,
        }

    record = account.run(work, signing=False)
    print_result(record, None if wants_json() else _host_text(record))


def _service_record(service: Service) -> dict[str, Any]:
    """A service as JSON, with names for the numbers of kinds, modes and bearers."""
    record = record_of(service)
    terms = {**record["terms"], "bearer": _named(_BEARERS, service.terms.bearer)}
    kinds = {number: name for name, number in _kind_numbers().items()}
    return {
        **record,
        "kind": kinds.get(service.kind, str(service.kind)),
        "mode": _named(_MODES, service.mode),
        "terms": terms,
    }


def _endpoint_record(endpoint: Endpoint) -> dict[str, Any]:
    """An endpoint as JSON, with the identity that its key is, and the hint as text where it is one."""
    from dtp.identity import PeerId, PeerIdError

    try:
        identity = str(PeerId(endpoint.key))
    except PeerIdError:  # the chain takes any 32 bytes
        identity = None
    hint = endpoint.hint.decode("utf-8", "replace")
    return {
        **record_of(endpoint),
        "identity": identity,
        "role": _named(_ROLES, endpoint.role),
        "hint_text": hint if "\ufffd" not in hint else None,
    }


def _named(names: tuple[str, ...], number: int) -> str:
    return names[number] if number < len(names) else str(number)


def _kind_numbers() -> dict[str, int]:
    from dtp.chain.host import Kind

    return {name: Kind[name.upper().replace("-", "_")].value for name in _KINDS}


def _host_text(record: dict[str, Any]) -> str:
    lines = [f"host      {record['id']}", f"paid to   {record['owner']}", f"beacon    {record['beacon']}"]
    for number, each in record["services"].items():
        terms = each["terms"]
        state = f"open, mode {each['mode']}" if each["open"] else "closed"
        lines.append(
            f"service   {number} ({each['kind']}): {state}; {amount(terms['price_request'])} a request, "
            f"{amount(terms['price_mib'])} a MiB, deposit from {amount(terms['min_deposit'])}, "
            f"terms revision {terms['revision']}"
        )
    if not record["services"]:
        lines.append("service   none yet: 'dtp host service NUMBER' adds one")
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
    @_host_option
    @account_options
    @json_option
    def command(addresses: tuple[str, ...], removing: bool, host_id: str | None, account: Account) -> None:
        async def work(chain: ChainClient) -> dict[str, Any]:
            from dtp.chain import Program
            from dtp.chain import host as module

            cap = await _operator_cap(chain, host_id, module.Rights.FIREWALL)
            program = Program()
            getattr(module, remove if removing else add)(program, cap.host, cap.id, addresses)
            return {
                "host": cap.host,
                "addresses": list(addresses),
                **executed_record(await chain.execute(program)),
            }

        _print(account.run(work))

    command.__doc__ = help_text
    return click.command(name)(command)


host.add_command(
    _list_command("allow", "Put addresses on a host's allow-list (mode allow-list).", "allow", "disallow")
)
host.add_command(
    _list_command("deny", "Put addresses on a host's deny-list: it wins over all.", "deny", "undeny")
)


@host.command()
@click.option("--key", metavar="DTP1...", help="The endpoint's identity. [default: the wallet's key]")
@click.option(
    "--hint", metavar="URL", help="Where it is reached; written when the endpoint is new or changes."
)
@click.option(
    "--weight", default=1, show_default=True, type=click.IntRange(0, 65535), help="Its share of traffic."
)
@click.option("--standby", is_flag=True, help="Take traffic only when no active endpoint is alive.")
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
@click.option("--every", type=click.FloatRange(min=1), metavar="SECONDS", help="Go on until interrupted.")
@_host_option
@account_options
@json_option
def heartbeat(
    sealed: bool, every: float | None, host_id: str | None, account: Account, **options: Any
) -> None:
    """Say that an endpoint of the host is alive; enroll it first if it is new."""
    options["identity"] = _identity_of(account) if sealed else None

    async def work(chain: ChainClient) -> None:
        from dtp.chain import host as module
        from dtp.chain.errors import NodeUnavailable, OutcomeUnknown, StaleObject

        rights = module.Rights.HEARTBEAT | module.Rights.ENDPOINTS
        cap = await _operator_cap(chain, host_id, rights)
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

    account.run(work)


def _identity_of(account: Account) -> Identity:
    """The identity that is the wallet, with its static key. Raises `ConfigError`, `IdentityFileError`."""
    path = account.path()
    if path is None:
        raise ConfigError(
            "a key of the Sui command line is no identity and has no static key; give an identity file"
        )
    return IdentitySource(path, account.passphrase_file).load()


async def _beat(chain: ChainClient, host_id: str, cap: str, options: dict[str, Any]) -> Executed:
    from dtp.chain import Program
    from dtp.chain import host as module
    from dtp.chain.posts import hint_with_key

    key = _endpoint_key(chain, options["key"])
    found = await chain.read(module.SCHEMA, module.Host, host_id)
    beacon = await chain.read(module.SCHEMA, module.Beacon, found.beacon)
    known = next((each for each in beacon.endpoints if each.key == key), None)
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
            weight=options["weight"],
            role=role,
            generation=generation,
            hint=hint,
        )
    elif (known.weight, known.role, known.hint) != (options["weight"], role, hint):
        module.configure(program, beacon.id, cap, key, weight=options["weight"], role=role, hint=hint)
    module.heartbeat(program, beacon.id, cap, key, generation, options["load"])
    return await chain.execute(program)


def _endpoint_key(chain: ChainClient, text: str | None) -> bytes:
    from dtp.chain import KeySigner, Scheme
    from dtp.identity import PeerId

    if text is not None:
        return PeerId.parse(text).key
    signer = chain.signer
    if isinstance(signer, KeySigner) and signer.scheme is Scheme.ED25519:
        return signer.public_key
    raise ConfigError("the wallet's key is no identity: name the endpoint's with --key dtp1...")


def _print(record: dict[str, Any]) -> None:
    print_result(record, None if wants_json() else table(record))


# ---- finding caps


async def _only_host(chain: ChainClient, owner: str) -> HostCap:
    from dtp.chain import host as module

    caps = await chain.owned(module.SCHEMA, module.HostCap, owner)
    return _of_made(chain, owner, {each.host: each for each in caps})


def _of_made(chain: ChainClient, owner: str, caps: dict[str, _Cap]) -> _Cap:
    """The cap of the only host that the wallet made from here, of caps by their hosts. Raises `NoCap`."""
    from dtp.pay.hosting import only_made

    if not caps:
        raise NoCap(f"{owner} has no cap of a host with the rights for this: 'dtp host create' makes one")
    chosen, why = only_made(chain, owner, caps)
    if chosen is None:
        raise NoCap(why)
    return caps[chosen]


async def _owned_host(chain: ChainClient, host_id: str | None) -> tuple[Host, str]:
    from dtp.chain import host as module
    from dtp.chain.model import canonical_id

    if host_id is None:
        cap = await _only_host(chain, chain.address)
    else:
        wanted = canonical_id(host_id)
        caps = await chain.owned(module.SCHEMA, module.HostCap, chain.address)
        named = next((each for each in caps if each.host == wanted), None)
        if named is None:
            raise NoCap(f"{chain.address} doesn't own host {wanted}")
        cap = named
    return await chain.read(module.SCHEMA, module.Host, cap.host), cap.id


async def _operator_cap(chain: ChainClient, host_id: str | None, rights: int) -> OpCap:
    from dtp.chain import host as module
    from dtp.chain.model import canonical_id

    caps: dict[str, OpCap] = {}
    for each in await chain.owned(module.SCHEMA, module.OpCap, chain.address):
        newest = each.host not in caps or each.generation > caps[each.host].generation
        if each.rights & rights == rights and newest:
            caps[each.host] = each
    if host_id is None:
        return _of_made(chain, chain.address, caps)
    wanted = canonical_id(host_id)
    if wanted not in caps:
        raise NoCap(f"{chain.address} has no operator's cap of host {wanted} with the rights for this")
    return caps[wanted]
