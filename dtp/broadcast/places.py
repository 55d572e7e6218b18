"""The node of a show: where it is served, and how others are dialled."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dtp.broadcast.receiving import SHOW_LIMITS
from dtp.identity import Identity
from dtp.net.address import Address
from dtp.net.listener import Handler
from dtp.node.node import ANYWHERE, Node, NodeLimits

#: The service that a show is by default.
SERVICE: Final = "show"


@dataclass(frozen=True, slots=True)
class Place:
    """Where somebody stands among nodes: the arguments of `Node`. With no `listen` it serves nobody."""

    listen: Sequence[str] = (ANYWHERE,)
    discover: Collection[str] = ()
    bootstrap: Sequence[str | Address] = ()
    private: bytes | str | None = None

    def node(self, identity: Identity, services: Mapping[str, Handler]) -> Node:
        """Return a node here that serves a show, and notices within seconds who is gone."""
        return Node(
            identity=identity,
            listen=self.listen or None,
            discover=self.discover,
            bootstrap=self.bootstrap,
            private=self.private,
            services=services,
            limits=NodeLimits(connection=SHOW_LIMITS),
        )


def keys_service(service: str) -> str:
    """Return the service at which the keys of a sealed show are asked for."""
    return f"{service}.keys"


def addresses_of(node: Node, service: str) -> tuple[str, ...]:
    """Return where others reach a service of a node, as text."""
    return tuple(str(each.with_service(service)) for each in node.addresses)
