"""`dtp serve` for money: the options of what a service costs, and serving it under a host object."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dtp.cli.accounts import WalletOptions, gas_price_option, refuse_key
from dtp.cli.listening import DEFAULT_URL, Listening, print_notes
from dtp.cli.output import print_line, print_note
from dtp.cli.services import NamedService, ServiceDirectory
from dtp.cli.show import amount, gas_text, money
from dtp.cli.terms import change_lines, changed_terms, changes, terms_record
from dtp.errors import ChainError, ConfigError, LocalError
from dtp.plurals import count_of
from dtp.tasks import start_task

if TYPE_CHECKING:
    from dtp.chain import ChainClient
    from dtp.chain.host import Terms
    from dtp.pay.hosting import Replaced
    from dtp.pay.metered import Metered
    from dtp.pay.serving import Serving
    from dtp.pay.settling import Settlement

#: How long the chain is asked about what isn't sold, seconds.
_LOOK = 5.0
#: Seconds until a node is asked again that didn't answer.
AGAIN = 2.0
_NO_CREDIT = "--credit is what --bearer client or --bearer server credit the other side with"
_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Sale:
    """What a service is sold for, as the command line has it."""

    price_mib: str | None
    price_request: str | None
    min_deposit: str | None
    host: str | None
    plans: tuple[str, ...]
    hint: str | None
    pipe: bool
    bearer: str | None
    credit: str | None
    account: WalletOptions

    @property
    def wanted(self) -> bool:
        """Whether anything is to be paid for."""
        return self.price_mib is not None or self.price_request is not None or bool(self.plans)

    def check_options(self, listening: Listening) -> None:
        """Refuse options that would be without effect. `click.UsageError`, `ProgramError`."""
        from dtp.chain.wallet import parse_amount

        given = {
            "--host": self.host,
            "--hint": self.hint,
            "--pipe": self.pipe,
            "--min-deposit": self.min_deposit,
            "--bearer": self.bearer,
            "--credit": self.credit,
        }
        if not self.wanted:
            useless = [name for name, value in given.items() if value]
            if useless:
                raise click.UsageError(
                    f"{', '.join(useless)}: for a service that is paid; give --price-mib, --price-request or --plan"
                )
        elif listening.allow:
            raise click.UsageError(
                "--allow is for services that are not paid. Who may pay is on chain, before anybody spends money: "
                "'dtp host service NAME --mode allow-list' and 'dtp host allow ADDRESS'"
            )
        if self.credit is not None and self.bearer == "split":
            raise click.UsageError(_NO_CREDIT)
        for text in (self.price_mib, self.price_request, self.min_deposit, self.credit):
            if text is not None:
                parse_amount(text)  # what is not an amount is said before a network is asked

    def terms_for(self, known: Terms | None, gas_price: int) -> Terms | None:
        """Return the terms that the service is to have; None to take those that the host has.

        `known` are those that it has, None of a new one: what isn't named stays. `gas_price` is the network's, MIST a
        unit. Raises `ConfigError`, `ProgramError`.
        """
        from dtp.chain.host import Bearer
        from dtp.chain.pipes.gas import frame_credit

        names = ("price_mib", "price_request", "min_deposit", "bearer", "credit")
        options = {name: getattr(self, name) for name in names}
        if (
            self.price_mib is None
            and self.price_request is None
            and (known is None or not any(options.values()))
        ):
            return None
        bears = known is not None and known.bearer != Bearer.SPLIT
        if self.pipe and self.bearer is None and not bears:
            # A MiB through the chain costs more gas than it is usually sold for: whoever asks for it bears that.
            if known is not None:
                raise ConfigError(
                    "--pipe: by the service's terms each side bears the gas of what it sends through the chain. Give "
                    "--bearer client to have clients bear it, or --bearer split to leave it as it is"
                )
            options["bearer"] = "client"
        terms = changed_terms(known, options)
        if terms.bearer == Bearer.SPLIT and self.credit is not None:
            raise ConfigError(_NO_CREDIT)
        if terms.bearer != Bearer.SPLIT and not bears and self.credit is None:
            terms = replace(terms, credit=frame_credit(gas_price))
        return terms


def selling_options(command: _Function) -> _Function:
    """Add the options of a sale; the command gets `sale: Sale`."""

    @functools.wraps(command)
    def with_sale(
        *args: Any,
        price_mib: str | None,
        price_request: str | None,
        min_deposit: str | None,
        host_id: str | None,
        plans: tuple[str, ...],
        hint: str | None,
        pipe: bool,
        bearer: str | None,
        credit: str | None,
        network: str | None,
        wallet: str | None,
        max_gas_price: int | None,
        **options: Any,
    ) -> Any:
        account = WalletOptions.of_command(network, wallet, max_gas_price)
        sale = Sale(
            price_mib, price_request, min_deposit, host_id, plans, hint, pipe, bearer, credit, account
        )
        return command(*args, sale=sale, **options)

    decorated: Any = with_sale
    for option in (
        gas_price_option,
        click.option("--wallet", callback=refuse_key, envvar="DTP_WALLET", metavar="WALLET",
                     help="Who is paid. [default: $DTP_WALLET, else the --identity]"),
        click.option("--network", envvar="DTP_NETWORK", metavar="NETWORK",
                     help="Where it is paid. [default: $DTP_NETWORK, else localnet]"),
        click.option("--credit", metavar="AMOUNT",
                     help="What 16 KiB through the chain are credited with to the side that does not bear the cost. "
                     "[default: as it is; of a new bearer a little below their gas]"),
        click.option("--bearer", type=click.Choice(["split", "client", "server"]),
                     help="Who bears the gas of what goes through the chain. "
                     "[default: as it is; of a new service with --pipe the client]"),
        click.option("--pipe", is_flag=True, help="Also serve it through the chain itself: ?via=pipe."),
        click.option("--hint", metavar="URL",
                     help="Where clients dial. [default: the first --listen; this machine's address for 0.0.0.0]"),
        click.option("--plan", "plans", multiple=True, metavar="ID",
                     help="Let holders of a pass of this plan in; may be repeated."),
        click.option("--host", "host_id", metavar="ID",
                     help="The host object. [default: the one that the wallet made here; a new one without any]"),
        click.option("--min-deposit", metavar="AMOUNT",
                     help="Least deposit of a channel. [default: as it is; 0]"),
        click.option("--price-request", metavar="AMOUNT",
                     help="Be paid: the price of a request (a stream). [default: as it is; 0]"),
        click.option("--price-mib", metavar="AMOUNT",
                     help="Be paid: the price of a MiB, such as 0.002SUI. [default: as it is; 0]"),
    ):  # fmt: skip
        decorated = option(decorated)
    result: _Function = decorated
    return result


def maker_of_hosts(listening: Listening, sale: Sale) -> str | None:
    """Return our account, if a host was made by it from here: it may sell what is given away. Nobody is asked."""
    from dtp.chain.packages.deployments import has_made_hosts

    account = (
        listening.identity.id.sui_address
        if sale.account.wallet is None
        else sale.account.load_signer().address
    )
    return account if has_made_hosts(account) else None


async def tell_if_sold(services: Sequence[NamedService], account: str, sale: Sale) -> None:
    """Say of services that are given away that a host that `account` has made from here sells them."""
    from dtp.chain import host as module
    from dtp.chain.host_state import service_number

    try:
        async with asyncio.timeout(_LOOK), sale.account.make_client(signing=False) as chain:
            hosts = [
                await chain.read(module.SCHEMA, module.Host, id) for id in chain.deployments.hosts_of(account)
            ]
    except (ChainError, LocalError, TimeoutError) as fault:
        said: dict[str, object] = {"event": "given-away", "reason": str(fault)}
        print_note(said, f"served for free; whether a host of yours sells it can't be asked: {fault}")
        return
    for service in services:
        for host in hosts:
            found = host.services.get(service_number(service.name))
            if found is not None and (found.terms.price_mib or found.terms.price_request):
                print_note(
                    {"event": "given-away", "service": service.name, "host": host.id},
                    f"{service.name} is served for free, to everybody who has its address, and host {host.id} "
                    f"sells it: with a price (--price-mib, --price-request) it is sold as before",
                )


async def serve_for_money(
    directory: ServiceDirectory,
    service: NamedService,
    listening: Listening,
    sale: Sale,
    stop: asyncio.Event,
    grace: float,
) -> None:
    """Serve one service to those who pay, until `stop`; then claim what is worth its gas."""
    from dtp.chain.host_state import service_number
    from dtp.pay.hosting import find_host
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
            await directory.serve_connection(connection)
        finally:
            await connection.close()
            _report(connection)

    async with contextlib.AsyncExitStack() as stack:
        chain = await connect_when_there(stack, sale, stop)
        if chain is None:
            return
        wallet = chain.signer
        assert wallet is not None
        owned = await find_host(chain, sale.host)
        there = None if owned is None else owned.host.services.get(service_number(service.name))
        known = None if there is None else there.terms
        terms = sale.terms_for(known, (await chain.epoch()).gas_price)
        serving = await serve(
            service.name,
            handle,
            wallet=wallet,
            urls=listening.urls or (DEFAULT_URL,),
            network=chain,
            host=sale.host,
            terms=terms,
            identity=listening.identity,
            hint=sale.hint,
            pipe=sale.pipe,
            plans=sale.plans,
            psk=listening.psk,
            on_asked=directory.describe_file,
        )
        try:
            async with serving:
                if known is not None and terms is not None:
                    _print_changes(known, terms)
                elif terms is not None:
                    _print_begun(service.name, serving, terms, made=owned is None)
                print_notes(listening)
                if serving.hint not in (sale.hint, *serving.listener.urls):
                    said = {"event": "announced", "hint": serving.hint}
                    print_note(said, f"clients dial {serving.hint}, which --hint changes")
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
                replaced = await _until(stop, serving)
                await serving.close(grace=grace)
        finally:  # also when it is interrupted
            _print_end(serving)
    if replaced is not None:
        raise replaced


async def connect_when_there(
    stack: contextlib.AsyncExitStack, sale: Sale, stop: asyncio.Event, again: float = AGAIN
) -> ChainClient | None:
    """Return a client, which `stack` closes, as soon as a node answers; None where `stop` comes first.

    A server that begins with its machine may be there before the network is. It is asked for every `again` seconds.
    """
    from dtp.chain.errors import NodeUnavailable

    said = False
    while not stop.is_set():
        try:
            return await stack.enter_async_context(sale.account.make_client(signing=True))
        except NodeUnavailable as fault:
            if not said:
                said = True
                words = f"waiting for the chain, without which nothing can be sold: {fault}"
                print_note({"event": "chain-away", "reason": str(fault)}, words)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(again):
                await stop.wait()
    return None


def _print_end(serving: Serving) -> None:
    """Say what was claimed, and what all of it took."""
    for paid in serving.cashier.done:
        print_claim(paid)
    gas = {"claims": serving.cashier.gas, "presence": serving.presence_gas, "host": serving.host_gas}
    print_line(
        {"event": "gas", **{f"{what}_mist": mist for what, mist in gas.items()}},
        f"gas: {amount(gas['claims'])} for claims, {amount(gas['presence'])} for presence, "
        f"{amount(gas['host'])} for the host and its terms",
        err=True,
    )


def _print_begun(service: str, serving: Serving, terms: Terms, *, made: bool) -> None:
    """Say that a service is sold from now on, for how much, and what that took."""
    prices = {name: getattr(terms, name) for name in ("price_request", "price_mib", "min_deposit")}
    request, mib, deposit = (money(each, terms.coin) for each in prices.values())
    gas = serving.host_gas + serving.presence_gas
    print_note(
        {"event": "sold", "service": service, "host": serving.host, "made": made, **prices, "gas_mist": gas},
        f"host {serving.host} {'was made, and sells' if made else 'sells'} {service} from now on: a request costs "
        f"{request}, a MiB {mib}, a channel's deposit is at least {deposit}; {gas_text(gas)}",
    )


def _print_changes(known: Terms, terms: Terms) -> None:
    changed = changes(terms_record(known), terms_record(terms))
    if changed:
        text = "\n".join(change_lines(changed, known, terms))
        print_note({"event": "terms", "changes": changed}, text)


async def _until(stop: asyncio.Event, serving: Serving) -> Replaced | None:
    """Wait until we are to stop; or why nobody finds us any more."""
    stopping = start_task(stop.wait(), name="dtp-stop")
    replacing = start_task(serving.wait_replaced(), name="dtp-replaced")
    try:
        await asyncio.wait((stopping, replacing), return_when=asyncio.FIRST_COMPLETED)
        return replacing.result() if replacing.done() else None
    finally:
        stopping.cancel()
        replacing.cancel()


def _report(connection: Metered) -> None:
    from dtp.chain.model import format_amount

    used = connection.usage
    print_line(
        {
            "event": "served",
            "peer": str(connection.peer),
            "requests": used.requests,
            "bytes": used.bytes,
            "vouched": connection.paid,
        },
        f"{connection.peer.short}: {count_of(used.requests, 'request')}, "
        f"{count_of(used.bytes, 'byte')}, vouched for {format_amount(connection.paid)}",
        err=True,
    )


def print_claim(paid: Settlement) -> None:
    """Say what a transaction has claimed for the server."""
    record = {"event": "claimed", "transaction": paid.digest, "amount": paid.to_server, "coin": paid.coin}
    print_line(
        {**record, "gas_mist": paid.gas},
        f"claimed {money(paid.to_server, paid.coin)} for {amount(paid.gas)} of gas",
        err=True,
    )
