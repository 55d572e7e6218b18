"""Options of commands that are a node for as long as they run: how to find others, where to listen, which keys."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from dtp.cli.options import IdentitySource, identity_options
from dtp.cli.peers import network_option
from dtp.node.finding import WAYS
from dtp.node.node import ANYWHERE, Node
from dtp.peers.private import read_key_file

_Function = TypeVar("_Function", bound=Callable[..., Any])

#: `--listen`, `--bootstrap`, `--discover` and `--dht-bind`, as all nodes have them.
listen_option = click.option(
    "--listen", "-l", multiple=True, metavar="URL", default=(ANYWHERE,), show_default=True,
    help="Where to listen: tcp://HOST:PORT, quic://HOST:PORT, ws://HOST:PORT/PATH, or at a relay, "
    "relay://HOST:PORT?relay=dtp1...; may be repeated.",
)  # fmt: skip
bootstrap_option = click.option(
    "--bootstrap", "-b", multiple=True, metavar="ADDRESS",
    help="A node to begin with: dtp+tcp://dtp1...@HOST:PORT, or HOST:PORT of the DHT; may be repeated.",
)  # fmt: skip
discover_option = click.option(
    "--discover", "-d", multiple=True, type=click.Choice([*WAYS, "none"]), metavar="WAY",
    help="How to find others and be found: lan, mdns, dht, none; may be repeated. [default: lan]",
)  # fmt: skip
dht_bind_option = click.option(
    "--dht-bind", metavar="ADDRESS:PORT",
    help="The address and port of the DHT's socket. [default: the address that it listens at, any port]",
)  # fmt: skip


def ways(discover: tuple[str, ...]) -> list[str]:
    """Return the ways to find others that `--discover` names."""
    return [way for way in discover or ("lan",) if way != "none"]


def dht_options(discover: tuple[str, ...], dht_bind: str | None) -> dict[str, object]:
    """Return what `--dht-bind` says for a node's `dht`. Raise `click.UsageError` where the node has no DHT."""
    if dht_bind is None:
        return {}
    if "dht" not in discover:
        raise click.UsageError("--dht-bind is for the DHT: give --discover dht as well")
    from dtp.peers.dht.driver import parse_bind

    return {"bind": parse_bind(dht_bind)}


def joining_options(command: _Function) -> _Function:
    """Add the options of a node that is there to join something; the command gets `make_node` and `key`.

    `make_node()` returns the `Node`, with the identity of the options; `key` is what `--key-file` has, or None.
    """

    @functools.wraps(command)
    def run(
        *args: Any,
        discover: tuple[str, ...],
        listen: tuple[str, ...],
        bootstrap: tuple[str, ...],
        dht_bind: str | None,
        network: str | None,
        identity: IdentitySource,
        key_file: str | None,
        **options: Any,
    ) -> Any:
        def make_node() -> Node:
            return Node(
                identity=identity.load_or_make(),
                listen=listen,
                discover=ways(discover),
                bootstrap=bootstrap,
                private=network,
                dht=dht_options(discover, dht_bind),
            )

        key = None if key_file is None else read_key_file(key_file)
        return command(*args, make_node=make_node, key=key, **options)

    decorated: Any = run
    for option in (
        identity_options("--identity", "-i"),
        network_option,
        click.option("--key-file", metavar="FILE",
                     help="The key of a private topic: 16 bytes of text at least, in a file for your eyes only."),
        dht_bind_option,
        bootstrap_option,
        listen_option,
        discover_option,
    ):  # fmt: skip
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]
