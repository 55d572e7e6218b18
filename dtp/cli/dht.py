"""`dtp dht`: put and find public facts in the DHT."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from dtp.cli.options import IdentitySource, identity_options, verbose_option
from dtp.cli.output import json_option, print_line, print_result
from dtp.cli.peers import network_option
from dtp.cli.run import run
from dtp.errors import LocalError
from dtp.identity import Identity, PeerId
from dtp.peers.dht import Dht
from dtp.peers.dht.driver import parse_bind
from dtp.peers.private import PrivateNetwork
from dtp.peers.record import PeerRecord
from dtp.plurals import count_of

_Function = TypeVar("_Function", bound=Callable[..., Any])


class RecordNotFound(LocalError):
    """Nobody in the DHT knows of it."""

    code = "not-found"


@click.group()
def dht() -> None:
    """Public facts among peers, without a server: where peers are, values by name, who has a content.

    Values are signed, and everybody may read them. Values are kept for a day, and addresses of peers for an hour, or
    for as long as the command that put them runs (--stay).
    """


def _network_options(command: _Function) -> _Function:
    """Add the options that every command has; it gets `open_dht`, which makes a `Dht` of an identity."""

    @wraps(command)
    def with_dht(
        *args: Any, bootstrap: tuple[str, ...], bind: str | None, network: str | None, **options: Any
    ) -> Any:
        key = None if network is None else PrivateNetwork.parse(network)
        place = None if bind is None else parse_bind(bind)

        def open_dht(author: Identity, *, serves: bool = False) -> Dht:
            node = author if serves else Identity.generate()  # nobody needs to know who asks
            return Dht(author, node=node, client=not serves, bind=place, bootstrap=bootstrap, network=key)

        return command(*args, open_dht=open_dht, **options)

    for option in (
        click.option("--bootstrap", "-b", multiple=True, metavar="HOST:PORT",
                     help="A node of the DHT to begin with; may be repeated."),
        click.option("--bind", metavar="ADDRESS:PORT",
                     help="The address and port of this node's socket. [default: any]"),
        network_option,
    ):  # fmt: skip
        with_dht = option(with_dht)
    return with_dht  # type: ignore[return-value]


_stay_option = click.option(
    "--stay",
    is_flag=True,
    help="Go on announcing it until interrupted; without this it is forgotten within a day.",
)


@dht.command()
@click.argument("name")
@click.argument("value", required=False)
@click.option("--file", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
              help="Put what is in FILE instead of VALUE.")  # fmt: skip
@click.option("--sequence", type=click.IntRange(min=0), help="The number of this value; a higher one replaces it. "
              "[default: the time in ms]")  # fmt: skip
@_stay_option
@_network_options
@identity_options("--identity", "-i")
@verbose_option
@json_option
def put(
    name: str,
    value: str | None,
    file: Path | None,
    sequence: int | None,
    stay: bool,
    open_dht: Callable[..., Dht],
    identity: IdentitySource,
) -> None:
    """Put VALUE under NAME, signed by you; others get it by your identity and NAME. At most 800 bytes.

    \b
    Examples:
      dtp dht put -b seed.example.net:4000 status "out to lunch"
      dtp dht put -b 127.0.0.1:4000 --file motd.txt --stay motd
    """
    if (value is None) == (file is None):
        raise click.UsageError("give a VALUE or --file")
    data = file.read_bytes() if file is not None else (value or "").encode()
    number = int(time.time() * 1000) if sequence is None else sequence
    run(_put(open_dht(identity.load_identity()), name, data, number, stay))


async def _put(dht: Dht, name: str, data: bytes, sequence: int, stay: bool) -> None:
    async with dht:
        stored = await dht.put(data, name=name, sequence=sequence)
        record = {
            "event": "stored",
            "peer": str(dht.identity.id),
            "name": name,
            "sequence": sequence,
            "nodes": stored,
        }
        print_line(
            record, f"stored by {count_of(stored, 'node')}; others read it by: {dht.identity.id} {name}"
        )
        await _stay(stay)


async def _stay(stay: bool) -> None:
    if stay:
        await asyncio.Event().wait()


@dht.command()
@click.argument("peer", metavar="DTP1...")
@click.argument("name")
@_network_options
@identity_options("--identity", "-i")
@verbose_option
@json_option
def get(peer: str, name: str, open_dht: Callable[..., Dht], identity: IdentitySource) -> None:
    """Print the newest value that a peer has put under NAME.

    \b
    Example:
      dtp dht get -b seed.example.net:4000 dtp1... status
    """
    run(_get(open_dht(identity.load_or_make()), PeerId.parse(peer), name))


async def _get(dht: Dht, peer: PeerId, name: str) -> None:
    async with dht:
        found = await dht.get(peer, name)
        if found is None:
            raise RecordNotFound(f"nobody in the DHT knows of {name!r} of {peer}")
        value = found.value.decode(errors="replace")
        record = {"peer": str(peer), "name": name, "sequence": found.sequence, "expires": found.expires}
        print_result(record | {"value": value, "hex": found.value.hex()}, value)


@dht.command()
@click.argument("content", metavar="HASH")
@click.option("--address", "addresses", multiple=True, required=True, metavar="URL",
              help="Where you serve it, such as tcp://192.0.2.7:9000; may be repeated.")  # fmt: skip
@_stay_option
@_network_options
@identity_options("--identity", "-i")
@verbose_option
@json_option
def provide(
    content: str,
    addresses: tuple[str, ...],
    stay: bool,
    open_dht: Callable[..., Dht],
    identity: IdentitySource,
) -> None:
    """Announce that you have the content with this hash (64 hex digits), and where you are.

    \b
    Example:
      dtp dht provide --address tcp://192.0.2.7:9000 --stay $(b3sum < film.mp4 | cut -c1-64)
    """
    run(_provide(open_dht(identity.load_identity()), _hash(content), addresses, stay))


def _hash(text: str) -> bytes:
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if len(data) != 32:
        raise click.UsageError("HASH has to be 64 hex digits")
    return data


async def _provide(dht: Dht, content: bytes, addresses: tuple[str, ...], stay: bool) -> None:
    async with dht:
        await dht.wait_joined()
        await dht.publish(
            PeerRecord.sign(dht.identity, now=time.time(), addresses=addresses, dht=dht.endpoint)
        )
        stored = await dht.provide(content)
        record = {"event": "provided", "hash": content.hex(), "peer": str(dht.identity.id), "nodes": stored}
        print_line(record, f"{count_of(stored, 'node')} will tell that {dht.identity.id} has it")
        await _stay(stay)


@dht.command()
@click.argument("what", metavar="DTP1...|HASH")
@_network_options
@identity_options("--identity", "-i")
@verbose_option
@json_option
def find(what: str, open_dht: Callable[..., Dht], identity: IdentitySource) -> None:
    """Print where a peer is, or the peers that have the content with this hash.

    \b
    Examples:
      dtp dht find -b seed.example.net:4000 dtp1...
      dtp dht find -b seed.example.net:4000 $(b3sum < film.mp4 | cut -c1-64)
    """
    dht = open_dht(identity.load_or_make())
    run(
        _find_peer(dht, PeerId.parse(what))
        if what.lower().startswith("dtp1")
        else _find_content(dht, _hash(what))
    )


async def _find_peer(dht: Dht, peer: PeerId) -> None:
    async with dht:
        found = await dht.find(peer)
        if found is None:
            raise RecordNotFound(f"nobody in the DHT knows where {peer} is")
        _print_record(found)


async def _find_content(dht: Dht, content: bytes) -> None:
    async with dht:
        found = await dht.providers(content)
        if not found:
            raise RecordNotFound("nobody in the DHT is known to have it")
        for each in found:
            _print_record(each)


def _print_record(record: PeerRecord) -> None:
    fields = {
        "peer": str(record.peer),
        "addresses": list(record.addresses),
        "services": list(record.services),
    }
    places = " ".join(record.addresses) or "without addresses"
    print_line(fields | {"dht": record.dht, "expires": record.expires}, f"{record.peer}  {places}")


@dht.command()
@_network_options
@identity_options("--identity", "-i")
@verbose_option
@json_option
def serve(open_dht: Callable[..., Dht], identity: IdentitySource) -> None:
    """Run a node of the DHT until interrupted: keep what others put there, and answer their requests.

    The first node of a DHT needs no other node; the others begin with it.

    \b
    Example:
      dtp dht serve --bind 0.0.0.0:4000
    """
    run(_serve(open_dht(identity.load_or_make(), serves=True)))


async def _serve(dht: Dht) -> None:
    async with dht:
        record = {"event": "listening", "endpoint": dht.endpoint, "peer": str(dht.identity.id)}
        print_line(record, f"a node of the DHT at {dht.endpoint}")
        await _stay(True)
