"""`dtp peers` and `dtp find`: who is on the network, and where one peer is."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import click

from dtp.cli.durations import duration
from dtp.cli.options import verbose_option
from dtp.cli.output import json_option, print_line, print_result, printable, wants_json
from dtp.cli.run import run
from dtp.identity import Identity, PeerId
from dtp.net.address import Address, AddressError, check_service
from dtp.net.resolver import NotResolved
from dtp.peers.book import Known, PeerBook, look_up
from dtp.peers.lan.multicast import Lan
from dtp.peers.links import NODE_SERVICE
from dtp.peers.nearby import book_path
from dtp.peers.private import PrivateNetwork, read_key_file

#: Sources of peers that may be far away, whose private networks mean nothing here.
_AFAR: Final = ("dht", "cache")

_Function = TypeVar("_Function", bound=Callable[..., Any])


def named_network_option(name: str) -> Callable[[_Function], _Function]:
    """Add `--network-file`; the command gets `name`, the text of a network's key or None."""
    return click.option(
        "--network-file",
        name,
        metavar="FILE",
        envvar="DTP_NETWORK_FILE",
        callback=lambda ctx, param, file: None if file is None else read_key_file(file),
        help="The key of a private network, as 'dtp node --new-network' prints it, or a passphrase of at least 12 "
        "characters. [default: $DTP_NETWORK_FILE]",
    )


#: Add `--network-file`; the command gets `network`.
network_option = named_network_option("network")


def _parse(network: str | None) -> PrivateNetwork | None:
    return None if network is None else PrivateNetwork.parse(network)


@click.command()
@click.option("--wait", type=duration(0.1, 60), default="1s", show_default=True,
              help="How long to listen for answers.")  # fmt: skip
@network_option
@verbose_option
@json_option
def peers(wait: float, network: str | None) -> None:
    """List who says on this network that they are here.

    Servers that tell only those who know their name are not listed; 'dtp find' asks for one.

    \b
    Examples:
      dtp peers
      dtp peers --wait 5 --json
    """
    run(_peers(wait, _parse(network)))


async def _peers(wait: float, network: PrivateNetwork | None) -> None:
    book, began = PeerBook(), time.monotonic()

    def told(known: Known) -> None:
        print_line(_fields(known, began), None)

    if wants_json():
        book.on_change(lambda record: told(Known(record, _source(book, record.peer))))
    async with Lan(book, network=network) as lan:
        lan.ask_everybody()
        with _spinner(f"listening for {wait:g} s"):
            await asyncio.sleep(wait / 2)
            lan.ask_everybody()  # the first may have been lost, or come within a second of another
            await asyncio.sleep(wait / 2)
    if wants_json():
        return
    found = [each for each in book if each.record.addresses]
    if not found:
        click.echo("nobody says that they are here; start 'dtp node' on another machine, or --wait longer")
        return
    _print_peers(found)


def _source(book: PeerBook, peer: PeerId) -> str:
    known = book.get_known(peer)
    return known.source if known is not None else ""


def _fields(known: Known, began: float) -> dict[str, Any]:
    record = known.record
    return {
        "event": "found" if record.addresses else "gone",
        "peer": str(record.peer),
        "addresses": list(record.addresses),
        "services": list(record.services),
        "source": known.source,
        "expires": record.expires,
        "after": round(time.monotonic() - began, 4),
    }


def _print_peers(found: list[Known]) -> None:
    """Print a line for each peer: its identity, its announced services, and its addresses."""
    rows = [
        (each.record, " ".join(name for name in each.record.services if name != NODE_SERVICE) or "-")
        for each in sorted(found, key=lambda known: known.record.peer)
    ]
    width = max(len(services) for _, services in rows)
    for record, services in rows:
        click.echo(printable(f"{record.peer}  {services:<{width}}  {' '.join(record.addresses)}"))


@click.command()
@click.argument("where", metavar="DTP1...[/SERVICE]")
@click.option("--bootstrap", "-b", multiple=True, metavar="HOST:PORT",
              help="Ask the DHT as well, beginning with this node of it; may be repeated.")  # fmt: skip
@network_option
@verbose_option
@json_option
def find(where: str, bootstrap: tuple[str, ...], network: str | None) -> None:
    """Look for a peer on this network, and print where it is, or where its service is. Those who don't know it can't
    tell whom you look for.

    With --bootstrap it is looked for in the DHT where the LAN doesn't have it: there the nodes that keep such records
    see that somebody looks for it, though not who. Of what comes from there, addresses that lead somewhere from
    everywhere are printed first, such as those at relays, and then those of its own networks.

    \b
    Examples:
      dtp find dtp1qqq...
      dtp find -b seed.example.net:4000 dtp1qqq...
      dtp cat "$(dtp find -b seed.example.net:4000 dtp1qqq.../echo | head -1)"
    """
    peer, _, service = where.strip().partition("/")
    check_service(service)
    run(_find(PeerId.parse(peer), service, _parse(network), bootstrap))


async def _find(
    peer: PeerId, service: str, network: PrivateNetwork | None, bootstrap: tuple[str, ...]
) -> None:
    began = time.monotonic()
    known, clock_advice = await _find_on_lan(peer, network)
    if known is None and bootstrap:
        known = await _find_in_dht(peer, network, bootstrap)
    if known is None and network is None:
        cached = await asyncio.to_thread(look_up, book_path(), peer)
        known = None if cached is None else Known(cached, "cache")
    if known is None or not known.record.addresses:
        where = "here or in the DHT" if bootstrap else "here"
        more = "" if bootstrap else "; with --bootstrap HOST:PORT the DHT is asked as well"
        raise NotResolved(
            f"nobody {where} knows {peer}. It is found while it serves on this network ('dtp node', or "
            f"'dtp serve --listen tcp://:0'){more}" + (f". {clock_advice}" if clock_advice else "")
        )
    found = []
    for url in known.record.addresses:
        with contextlib.suppress(AddressError):  # this version doesn't dial it
            found.append(Address.direct(peer, url, service))
    if known.source in _AFAR:
        found.sort(key=lambda address: address.nearness, reverse=True)
    addresses = list(map(str, found))
    took = f"{(time.monotonic() - began) * 1000:.1f} ms, {known.source}"
    print_result({**_fields(known, began), "addresses": addresses}, "\n".join(addresses))
    if sys.stderr.isatty() and not wants_json():
        services = " ".join(name for name in known.record.services if name != NODE_SERVICE)
        click.echo(printable(f"found in {took}" + (f"; services: {services}" if services else "")), err=True)


async def _find_on_lan(peer: PeerId, network: PrivateNetwork | None) -> tuple[Known | None, str]:
    """Return the peer if it answers, and a hint if clocks may be wrong."""
    book = PeerBook()
    async with Lan(book, network=network) as lan:
        with _spinner(f"looking for {peer.short} on the LAN"):
            found = await lan.find_record(peer)
        return None if found is None else book.get_known(peer), lan.hello.clock_advice


async def _find_in_dht(
    peer: PeerId, network: PrivateNetwork | None, bootstrap: tuple[str, ...]
) -> Known | None:
    from dtp.peers.dht import Dht

    # A temporary identity, so that those who are asked don't learn who asks.
    async with Dht(Identity.generate(), client=True, bootstrap=bootstrap, network=network) as dht:
        with _spinner(f"looking for {peer.short} in the DHT"):
            record = await dht.find(peer)
    return None if record is None else Known(record, "dht")


@contextlib.contextmanager
def _spinner(words: str) -> Iterator[None]:
    """Show on a terminal what is being waited for."""
    if not sys.stderr.isatty() or wants_json():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(words):
        yield
