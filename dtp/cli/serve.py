"""`dtp serve`: an echo, files, programs and other sockets as services of an identity."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator

import click

from dtp.cli.listening import Listening, addresses, listening_options, print_notes
from dtp.cli.options import verbose_option
from dtp.cli.output import json_option, print_line
from dtp.cli.run import run, serve_for_long, when_stdin_ends
from dtp.cli.selling import Sale, maker_of_hosts, selling_options, serve_for_money, tell_if_sold
from dtp.cli.services import KINDS, NamedService, ServiceDirectory, make
from dtp.net.connection import Connection
from dtp.net.listener import Listener, Refuse, Request
from dtp.peers.nearby import answering, wants_lan
from dtp.session.codes import CloseCode
from dtp.tasks import start_task

#: Seconds for connections to finish when the server is asked to end.
_GRACE = 2.0


@click.command()
@click.option("--echo", is_flag=True, help="Send back what comes, as the service 'echo'.")
@click.option("--file", "files", multiple=True, metavar="[NAME=]PATH",
              help="Give the files in a folder, or one file, as the service 'files' (or NAME). "
              "Hidden files and symbolic links in the folder are left out.")  # fmt: skip
@click.option("--exec", "programs", multiple=True, metavar="[NAME=]COMMAND",
              help="Run a program for each stream, as the service 'exec'. No shell is between; "
              "$DTP_PEER is who is calling.")  # fmt: skip
@click.option("--forward", "forwards", multiple=True, metavar="[NAME=]TARGET",
              help="Pass each stream on to HOST:PORT or unix:/PATH, as the service 'forward'.")  # fmt: skip
@click.option("--http", "sites", multiple=True, metavar="[NAME=]FOLDER",
              help="Serve a folder as a website, and its files for 'dtp recv', as the service 'site'.")  # fmt: skip
@click.option("--relay", is_flag=True, help="Let peers that can't be dialled be reached here, as the service "
              "'dtp.relay': within limits, and sealed between them.")  # fmt: skip
@click.option("--service", "name", metavar="NAME", help="The name of the only service that is given.")
@click.option("--announce", is_flag=True, help="Tell the LAN that you are here, and the services' names. "
              "[default: only those who ask for your identity are told where it is]")  # fmt: skip
@click.option("--no-lan", is_flag=True, help="Tell the LAN nothing, not even those who know your identity.")
@selling_options
@listening_options
@verbose_option
@json_option
def serve(
    echo: bool,
    files: tuple[str, ...],
    programs: tuple[str, ...],
    forwards: tuple[str, ...],
    sites: tuple[str, ...],
    relay: bool,
    name: str | None,
    announce: bool,
    no_lan: bool,
    sale: Sale,
    listening: Listening,
) -> None:
    """Serve, and print the addresses to copy. Ctrl-C ends it.

    Several services may be given; the first one is also reached by an address without a service. With a price one
    service is sold under a host object on Sui, to whoever pays: 'dtp recv ... --budget'.

    \b
    Examples:
      dtp serve --echo
      dtp serve --file ~/public --listen tcp://0.0.0.0:9700
      dtp serve --exec date=date --forward web=127.0.0.1:80 --allow dtp1...
      dtp serve --relay --listen quic://0.0.0.0:9700 --listen tcp://0.0.0.0:9700
      dtp serve --http ./site --service files --price-mib 2000000 --network localnet
    """
    given = {"echo": ("echo=",) if echo else (), "file": files, "exec": programs, "forward": forwards}
    given |= {"http": sites, "relay": ("dtp.relay=",) if relay else ()}
    services = [make(kind, text) for kind in KINDS for text in given[kind]]
    for service in services:
        service.check_options()
    if not services:
        raise click.UsageError("nothing to serve; give --echo, --file, --exec, --forward, --http or --relay")
    if (name is not None or sale.wanted) and len(services) > 1:
        raise click.UsageError("--service and prices are for one service; give one")
    if name is not None:
        services[0].name = name
    sale.check_options(listening)
    if announce and (no_lan or listening.psk is not None):
        raise click.UsageError("--announce is for everybody: give it without --no-lan and --psk-file")
    lan = None if no_lan or listening.psk is not None else announce
    serve_for_long()
    run(serve_services(ServiceDirectory(services), services, sale, listening, lan))


async def serve_services(
    directory: ServiceDirectory,
    services: list[NamedService],
    sale: Sale,
    listening: Listening,
    announce: bool | None,
) -> None:
    """Serve until SIGTERM. `announce` says what the LAN is told: True for everything, False to only answer those
    who ask for the identity, None for nothing."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    if listening.until_eof:
        when_stdin_ends(stop.set)
    if sale.wanted:
        await serve_for_money(directory, services[0], listening, sale, stop, _GRACE)
        return

    def check(request: Request) -> None:
        if directory.find_service(request.service) is None:
            raise Refuse(CloseCode.UNKNOWN_SERVICE, f"no service {request.service!r} here")

    async def handle(connection: Connection) -> None:
        print_line(
            {
                "event": "connected",
                "peer": str(connection.peer),
                "service": connection.service,
                "source": connection.source,
            },
            f"{connection.peer.short} from {connection.source or 'this machine'}: {connection.service or 'default'}",
            err=True,
        )
        await directory.serve_connection(connection)

    maker = maker_of_hosts(listening, sale)
    async with await listening.listen(handle, check) as listener:
        print_notes(listening)
        for service in services:
            for address in addresses(listener, service.name):
                print_line(
                    {
                        "event": "listening",
                        "service": service.name,
                        "kind": service.kind,
                        "address": str(address),
                    },
                    str(address),
                )
        async with _on_lan(listening, listener, services, announce), _looking(services, maker, sale):
            await stop.wait()
            await listener.close(grace=_GRACE)


@contextlib.asynccontextmanager
async def _looking(services: list[NamedService], maker: str | None, sale: Sale) -> AsyncIterator[None]:
    """Check in the background whether `maker` sells what is given away for free: an unavailable chain must not
    delay anybody.

    At a regular end it is awaited for a few seconds, or somebody who serves only briefly would never be told.
    """
    if maker is None:
        yield
        return
    looking = start_task(tell_if_sold(services, maker, sale), name="dtp-sold")
    try:
        yield
        await looking
    finally:
        looking.cancel()


@contextlib.asynccontextmanager
async def _on_lan(
    listening: Listening, listener: Listener, services: list[NamedService], announce: bool | None
) -> AsyncIterator[None]:
    if announce is None or not wants_lan():
        yield
        return
    names = [each.name for each in services]
    async with answering(listening.identity, listener.urls, services=names, to_all=announce):
        yield
