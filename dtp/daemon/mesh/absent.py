"""What a daemon that isn't a node is among nodes."""

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
    """What a daemon is among nodes: here, nothing. `dtp.daemon.mesh.member` has one that is a node.

    Called in this order: `open`, `change_config`, `leave_network`, `close`; `open` does nothing where it is open.
    """

    #: How connections of forwards that don't pay come about; None: plainly.
    dial: Dial | None = None
    #: True where it is a node, also one that begins or ends.
    is_node = False
    #: True while other nodes may come in.
    takes_links = False

    async def open(self, listener: Listener, config: Config) -> None:
        """Be found where `listener` listens. Raise `ListenError`, `TopicError`."""

    async def change_config(self, config: Config) -> None:
        """Go by a file that was read anew: what is announced, where it listens, and topics. Raise `TopicError`."""

    async def leave_network(self, *, goodbye: bool = True) -> None:
        """Be found no more, and end the links; connections that forwards have go on. Idempotent."""

    async def close(self) -> None:
        """End all of it. Idempotent."""

    async def serve_connection(self, connection: Connection) -> None:
        """Serve a connection of another node until it ends."""

    @property
    def links(self) -> Iterable[PeerLink]:
        """Those that are open."""
        return ()

    @property
    def node(self) -> Node | None:
        """The node, while it is open."""
        return None

    @property
    def dht(self) -> Dht | None:
        """The DHT, of a node that finds others by it and is open."""
        return None

    def get_status(self) -> dict[str, Any]:
        """Return what the status of the daemon says besides."""
        return {}
