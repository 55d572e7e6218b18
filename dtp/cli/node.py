"""`dtp node`: a node that stays: it is found, links to others, and serves what is configured."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from dtp import config
from dtp.cli.joining import (
    bootstrap_option,
    dht_bind_option,
    dht_options,
    discover_option,
    listen_option,
    ways,
)
from dtp.cli.options import IdentitySource, identity_options, verbose_option
from dtp.cli.output import console, json_option, print_line, print_result, printable, wants_json
from dtp.cli.peers import network_option
from dtp.cli.run import run, serve_for_long, when_stdin_ends
from dtp.cli.services import KINDS, NamedService, ServiceDirectory, make
from dtp.net.connection import Connection
from dtp.net.listener import Handler
from dtp.node.node import Node
from dtp.peers.links import PeerLink
from dtp.peers.private import PrivateNetwork
from dtp.peers.record import PeerRecord
from dtp.plurals import count_of
from dtp.session.codes import CloseCode

if TYPE_CHECKING:
    from rich.console import Group

#: The most peers that are shown on a terminal.
_ROWS = 20
#: Seconds between two updates of the terminal.
_REFRESH = 1.0


@click.command()
@discover_option
@listen_option
@bootstrap_option
@dht_bind_option
@click.option("--echo", is_flag=True, help="Send back what comes, as the service 'echo'.")
@click.option("--file", "files", multiple=True, metavar="[NAME=]PATH",
              help="Give the files in a folder, or one file, as the service 'files' (or NAME).")  # fmt: skip
@click.option("--forward", "forwards", multiple=True, metavar="[NAME=]TARGET",
              help="Pass each stream on to HOST:PORT or unix:/PATH, as the service 'forward'.")  # fmt: skip
@click.option("--relay", is_flag=True, help="Let peers that can't be dialled be reached here.")
@click.option("--announce", "-a", multiple=True, metavar="NAME",
              help="Name this service to everybody; may be repeated. [default: none is named]")  # fmt: skip
@network_option
@click.option("--new-network", is_flag=True, help="Print the key of a new private network, and end.")
@click.option("--until-eof", is_flag=True, help="End when standard input ends.")
@identity_options("--identity", "-i")
@verbose_option
@json_option
def node(
    discover: tuple[str, ...],
    listen: tuple[str, ...],
    bootstrap: tuple[str, ...],
    dht_bind: str | None,
    echo: bool,
    files: tuple[str, ...],
    forwards: tuple[str, ...],
    relay: bool,
    announce: tuple[str, ...],
    network: str | None,
    new_network: bool,
    until_eof: bool,
    identity: IdentitySource,
) -> None:
    """Be a node: tell the LAN where you are, link to the nodes there, and serve by name. Ctrl-C ends it.

    At a terminal it shows who is there. Others reach what it serves by dtp://dtp1.../NAME.

    \b
    Examples:
      dtp node --echo
      dtp node --file ~/public --announce files --listen tcp://0.0.0.0:9000
      (umask 077; dtp node --new-network > family.key)
      dtp node --network-file family.key
    """
    if new_network:
        print_result({"network": (key := PrivateNetwork.generate().text)}, key)
        return
    given = {"echo": ("echo=",) if echo else (), "file": files, "forward": forwards}
    services = [make(kind, text) for kind in KINDS for text in given.get(kind, ())]
    for service in services:
        service.check_options()
    handlers = _handlers(services)
    for name in announce:
        if name not in handlers:
            raise click.UsageError(
                f"--announce {name}: there is no such service; {', '.join(filter(None, handlers)) or 'none'}"
            )
    if not identity.named and not identity.path.exists():
        note = "dtp: no identity yet, so this one is for this run only; 'dtp keygen' makes one to keep"
        click.echo(note, err=True)
    made = Node(
        identity=identity.load_or_make(),
        listen=listen,
        discover=ways(discover),
        bootstrap=bootstrap,
        private=network,
        services=handlers,
        announce=announce,
        relay=relay,
        store=config.data_dir(),
        dht=dht_options(discover, dht_bind),
    )
    serve_for_long()
    run(_stay(made, services, until_eof))


def _handlers(services: list[NamedService]) -> dict[str, Handler]:
    """Return the handler for each service name; or one for any name, if a service has names below its own."""
    if not services:
        return {}
    directory = ServiceDirectory(services)

    async def serve(connection: Connection) -> None:
        if directory.find_service(connection.service) is None:
            connection.abort(CloseCode.UNKNOWN_SERVICE, f"no service {connection.service!r} here")
            return
        await directory.serve_connection(connection)

    names = ["", *(each.name for each in services), *("*" for each in services if each.has_below)]
    return dict.fromkeys(names, serve)


async def _stay(node: Node, services: list[NamedService], until_eof: bool) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    if until_eof:
        when_stdin_ends(stop.set)
    began = time.monotonic()
    async with node:
        for address in node.addresses:
            print_line({"event": "listening", "address": str(address)}, str(address))
        for service in services:
            where = f"dtp://{node.identity.id}/{service.name}"
            print_line({"event": "serving", "service": service.name, "address": where}, where)
        with shown(node, began) as shows:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_REFRESH if shows else None):
                        await stop.wait()
                shows()


class _Shown:
    """What a person or a program sees: a table that is redrawn, or a line for each event."""

    def __init__(self, node: Node, began: float, live: object) -> None:
        self._node, self._began, self._live = node, began, live

    def __bool__(self) -> bool:
        """True if it has to be redrawn repeatedly."""
        return self._live is not None

    def __call__(self) -> None:
        if self._live is not None:
            self._live.update(node_screen(self._node, self._began), refresh=True)  # type: ignore[attr-defined]


@contextlib.contextmanager
def shown(node: Node, began: float) -> Iterator[_Shown]:
    """Show on a terminal, or print line by line, whom a node finds and is linked to, within a `with` statement."""
    if sys.stdout.isatty() and not wants_json():  # rich, which draws, takes 3 MB
        from rich.live import Live

        with Live(node_screen(node, began), console=console(), auto_refresh=False) as live:
            yield _Shown(node, began, live)
        return
    end = node.links.listen(lambda link: _tell_link("linked", link), lambda link: _tell_link("lost", link))
    me = node.identity.id
    end_book = node.book.on_change(lambda record: None if record.peer == me else _tell_peer(record))
    for known in node.peers():
        _tell_peer(known.record)
    yield _Shown(node, began, None)
    end()
    end_book()


def _tell_link(event: str, link: PeerLink) -> None:
    record = {"event": event, "peer": str(link.peer), "source": link.source, "outgoing": link.outgoing}
    print_line(record, f"{event}: {link.peer} {link.source}".rstrip())


def _tell_peer(record: PeerRecord) -> None:
    event = "found" if record.addresses else "gone"
    print_line(
        {
            "event": event,
            "peer": str(record.peer),
            "addresses": list(record.addresses),
            "services": list(record.services),
        },
        f"{event}: {record.peer} {' '.join(record.addresses)}".rstrip(),
    )


def node_screen(node: Node, began: float) -> Group:
    """Return what a person sees of a node that started at that time (`time.monotonic`)."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    known = node.peers()
    lan = node.lan
    up = time.monotonic() - began
    heard = f"   hellos {lan.sent} sent, {lan.heard} heard" if lan is not None else ""
    head = Text(
        f"{node.identity.id.short}   up {up // 60:.0f}:{up % 60:02.0f}   {count_of(len(known), 'peer')}, "
        f"{count_of(len(node.links), 'link')}{heard}",
        style="bold",
    )
    difference = node.clock_difference
    heads = [head] if difference is None else [head, Text(str(difference), style="yellow")]
    table = Table(box=None, pad_edge=False)
    for name in ("peer", "link", "services", "address", "from"):
        table.add_column(name, no_wrap=name != "address")
    for each in known[:_ROWS]:
        link = node.links.get(each.record.peer)
        table.add_row(
            each.record.peer.short,
            "" if link is None else "to" if link.outgoing else "from",
            printable(" ".join(name for name in each.record.services if name != "dtp.node")),
            printable(each.record.addresses[0]),
            printable(each.source),
        )
    said = {each.record.peer for each in known}
    unsaid = [link for link in node.links if link.peer not in said]
    for link in unsaid[: max(0, _ROWS - len(known))]:  # linked peers without addresses, which nobody can dial
        table.add_row(link.peer.short, "to" if link.outgoing else "from", "", "", link.source)
    if not known and not unsaid:
        return Group(
            *heads, Text("nobody yet; another 'dtp node' on this network shows up here", style="dim")
        )
    more = len(known) + len(unsaid) - _ROWS
    return Group(*heads, table, *([Text(f"and {more} more")] if more > 0 else []))
