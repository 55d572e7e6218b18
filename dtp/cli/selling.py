"""`dtp serve` for money: the options of what a service costs, and serving it under a host object."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dtp.cli.accounts import Account
from dtp.cli.listening import DEFAULT_URL, Listening
from dtp.cli.output import print_line
from dtp.cli.services import Directory, Service

if TYPE_CHECKING:
    from dtp.chain.host import Terms
    from dtp.pay.metered import Metered
    from dtp.pay.settling import Paid

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Sale:
    """What a service is sold for, as the command line has it."""

    price_mib: str | None
    price_request: str | None
    min_deposit: str
    host: str | None
    plans: tuple[str, ...]
    hint: str | None
    pipe: bool
    account: Account

    @property
    def wanted(self) -> bool:
        """Whether anything is to be paid for."""
        return self.price_mib is not None or self.price_request is not None or bool(self.plans)

    def terms(self) -> Terms | None:
        """The terms; None to take those that the host has."""
        from dtp.chain.host import Terms
        from dtp.chain.wallet import parse_amount

        if self.price_mib is None and self.price_request is None:
            return None
        return Terms(
            price_request=parse_amount(self.price_request or "0"),
            price_mib=parse_amount(self.price_mib or "0"),
            min_deposit=parse_amount(self.min_deposit),
        )


def selling_options(command: _Function) -> _Function:
    """Add the options of a sale; the command gets `sale: Sale`."""

    @functools.wraps(command)
    def with_sale(
        *args: Any,
        price_mib: str | None,
        price_request: str | None,
        min_deposit: str,
        host_id: str | None,
        plans: tuple[str, ...],
        hint: str | None,
        pipe: bool,
        network: str | None,
        wallet: str | None,
        **options: Any,
    ) -> Any:
        account = Account(network, wallet, None)
        sale = Sale(price_mib, price_request, min_deposit, host_id, plans, hint, pipe, account)
        return command(*args, sale=sale, **options)

    decorated: Any = with_sale
    for option in (
        click.option("--wallet", envvar="DTP_WALLET", metavar="WALLET",
                     help="Who is paid. [default: $DTP_WALLET, else your identity]"),
        click.option("--network", envvar="DTP_NETWORK", metavar="NETWORK",
                     help="Where it is paid. [default: $DTP_NETWORK, else localnet]"),
        click.option("--pipe", is_flag=True, help="Also serve it through the chain itself: ?via=pipe."),
        click.option("--hint", metavar="URL", help="Where clients dial. [default: the first --listen]"),
        click.option("--plan", "plans", multiple=True, metavar="ID",
                     help="Let holders of a pass of this plan in; may be repeated."),
        click.option("--host", "host_id", metavar="ID",
                     help="The host object. [default: the wallet's only one; made where there is none]"),
        click.option("--min-deposit", default="0", metavar="AMOUNT",
                     help="Least deposit of a channel. [default: 0]"),
        click.option("--price-request", metavar="AMOUNT", help="Be paid: the price of a request (a stream)."),
        click.option("--price-mib", metavar="AMOUNT", help="Be paid: the price of a MiB, such as 0.002SUI."),
    ):  # fmt: skip
        decorated = option(decorated)
    result: _Function = decorated
    return result


async def serve_for_money(
    directory: Directory,
    service: Service,
    listening: Listening,
    sale: Sale,
    stop: asyncio.Event,
    grace: float,
) -> None:
    """Serve one service to those who pay, until `stop`; then claim what is worth its gas."""
    from dtp.pay.serving import serve

    async def handle(connection: Metered) -> None:
        print_line(
            {
                "event": "connected",
                "peer": str(connection.peer),
                "service": connection.service,
                "source": connection.source,
            },
            f"{connection.peer.short} from {connection.source or 'this machine'}: {connection.service}",
            err=True,
        )
        try:
            await directory.serve(connection)
        finally:
            await connection.close()
            _report(connection)

    serving = await serve(
        service.name,
        handle,
        wallet=sale.account.signer(),
        urls=listening.urls or (DEFAULT_URL,),
        network=sale.account.network,
        host=sale.host,
        terms=sale.terms(),
        identity=listening.identity,
        hint=sale.hint,
        pipe=sale.pipe,
        plans=sale.plans,
        psk=listening.psk,
    )
    async with serving:
        print_line(
            {
                "event": "listening",
                "service": service.name,
                "kind": service.kind,
                "address": str(serving.address),
                "host": serving.host,
            },
            str(serving.address),
        )
        await stop.wait()
        await serving.close(grace=grace)
    for paid in serving.cashier.done:
        _print_claim(paid)


def _report(connection: Metered) -> None:
    from dtp.chain.wallet import format_amount

    used = connection.usage
    print_line(
        {
            "event": "served",
            "peer": str(connection.peer),
            "requests": used.requests,
            "bytes": used.bytes,
            "vouched": connection.paid,
        },
        f"{connection.peer.short}: {used.requests:,} requests, {used.bytes:,} bytes, "
        f"vouched for {format_amount(connection.paid)}",
        err=True,
    )


def _print_claim(paid: Paid) -> None:
    from dtp.chain.wallet import format_amount

    print_line(
        {"event": "claimed", "transaction": paid.digest, "amount": paid.to_server, "gas_mist": paid.gas},
        f"claimed {format_amount(paid.to_server)} for {format_amount(paid.gas)} of gas",
        err=True,
    )
