"""What the kinds of services are given that the daemon answers itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dtp.identity import Identity
from dtp.net.address import Address
from dtp.net.connection import Connection

if TYPE_CHECKING:
    from dtp.chain.model import Id
    from dtp.chain.node.client import ChainClient
    from dtp.node.node import Node
    from dtp.peers.dht import Dht


@dataclass(frozen=True)
class Studio:
    """What a daemon provides for shows, and for selling. The functions are called when a show or a sale begins."""

    identity: Identity
    #: The host object of `[chain]`; None for the one that the wallet has made.
    host: Id | None
    #: The addresses at which others reach the daemon.
    addresses: Callable[[], Sequence[Address]]
    dial: Callable[[Address], Awaitable[Connection]]
    #: The client of `[chain]`; None without it.
    chain: Callable[[], ChainClient | None]
    #: Whether the daemon is a node; that node while it is open; and its DHT, if it has one.
    is_node: Callable[[], bool]
    node: Callable[[], Node | None]
    dht: Callable[[], Dht | None]
