"""What the commands of `dtp host` share: which host is meant, the wallet's caps for it, and which service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from dtp.cli.output import print_result
from dtp.cli.show import in_coin, table
from dtp.errors import ChainError

if TYPE_CHECKING:
    from dtp.chain import ChainClient
    from dtp.chain.host import Host, HostCap, OpCap

_Cap = TypeVar("_Cap")

host_option = click.option(
    "--host", "host_id", metavar="ID", help="The host. [default: the only one that the wallet made from here]"
)


class NoCap(ChainError):
    """The wallet has no cap for this host."""

    code = "no-cap"


class ServiceNumber(int):
    """The number that a service has on chain, with the name that was given for it, or that number as text."""

    name: str


def _service_number(ctx: click.Context, param: click.Parameter, text: str) -> ServiceNumber:
    """Return the number that a service's name, or number, stands for."""
    from dtp.chain.host_state import service_number

    number = ServiceNumber(service_number(text))
    number.name = text
    if text.isdecimal() and str(number) != text:
        raise click.BadParameter(f"{text} is not a number of a service: 0 to 65535, without zeros in front")
    return number


service_argument = click.argument("number", metavar="SERVICE", callback=_service_number)


def print_record(record: dict[str, Any]) -> None:
    """Print a result: as JSON where that is wanted, else as a table."""
    print_result(record, table(in_coin(record)))


async def only_host(chain: ChainClient, owner: str) -> HostCap:
    """Return the cap of the host that is meant where none is named. Raises `NoCap`, `ChainError`."""
    from dtp.chain import host as module

    caps = await chain.owned(module.SCHEMA, module.HostCap, owner)
    return _of_made(chain, owner, {each.host: each for each in caps})


def _of_made(chain: ChainClient, owner: str, caps: dict[str, _Cap]) -> _Cap:
    """Return the cap of the only host that the wallet made from here, of caps by their hosts. Raises `NoCap`."""
    from dtp.pay.hosting import only_made

    if not caps:
        raise NoCap(f"{owner} has no cap of a host with the rights for this: 'dtp host create' makes one")
    chosen, why = only_made(chain, owner, caps)
    if chosen is None:
        raise NoCap(why)
    return caps[chosen]


async def owned_host(chain: ChainClient, host_id: str | None) -> tuple[Host, str]:
    """Return the host that is named, or meant, and its owner's cap. Raises `NoCap`, `ChainError`."""
    from dtp.chain import host as module

    cap = await (only_host(chain, chain.address) if host_id is None else _owner_cap(chain, host_id))
    return await chain.read(module.SCHEMA, module.Host, cap.host), cap.id


async def owner_cap(chain: ChainClient, host_id: str) -> str:
    """Return the owner's cap of a host, which may be deleted: its plans outlive it. Raises as `owned_host`."""
    return (await _owner_cap(chain, host_id)).id


async def _owner_cap(chain: ChainClient, host_id: str) -> HostCap:
    from dtp.chain import host as module
    from dtp.chain.model import canonical_id

    wanted = canonical_id(host_id)
    for each in await chain.owned(module.SCHEMA, module.HostCap, chain.address):
        if each.host == wanted:
            return each
    raise NoCap(f"{chain.address} doesn't own host {wanted}")


async def operator_cap(chain: ChainClient, host_id: str | None, rights: int) -> OpCap:
    """Return the newest operator's cap with these rights, of the host that is named, or meant. Raises as
    `owned_host`."""
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
