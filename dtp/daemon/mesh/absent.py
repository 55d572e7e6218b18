"""The membership of a daemon that isn't a node."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from dtp.daemon.config.model import Config
from dtp.net.connection import Connection
from dtp.net.listener import Listener

if TYPE_CHECKING:
    from dtp.daemon.relays.pool import Dial
    from dtp.node.node import Node
    from dtp.peers.dht import Dht
    from dtp.peers.links import PeerLink


class Member:
    """The daemon's membership of a network of nodes: here, none. `dtp.daemon.mesh.member` has that of a node.

    The methods are called in this order: `open`, `change_config`, `leave_network`, `close`. `open` does nothing if
    it is open.
    """

    #: How forwards that don't pay connect; None for the usual way.
    dial: Dial | None = None
    #: True where the daemon is a node, even while it starts or ends.
    is_node = False
    #: True while other nodes may connect.
    takes_links = False

    async def open(self, listener: Listener, config: Config) -> None:
        """Be found where `listener` listens. Raise `ListenError` or `TopicError`."""

    async def change_config(self, config: Config) -> None:
        """Apply a configuration that was read again: announced services, addresses and topics. Raise
        `TopicError`."""

    async def leave_network(self, *, goodbye: bool = True) -> None:
        """Stop being found, and end the links; connections of forwards go on. Idempotent."""

    async def close(self) -> None:
        """Close everything. Idempotent."""

    async def serve_connection(self, connection: Connection) -> None:
        """Serve a connection of another node until it ends."""

    @property
    def links(self) -> Iterable[PeerLink]:
        """The open links to other nodes."""
        return ()

    @property
    def node(self) -> Node | None:
        """The node, while it is open."""
        return None

    @property
    def dht(self) -> Dht | None:
        """The DHT of the open node, if it uses one."""
        return None

    def get_status(self) -> dict[str, Any]:
        """Return what this adds to the daemon's status."""
        return {}
