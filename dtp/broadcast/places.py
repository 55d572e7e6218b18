"""The node of a show: where it is served, and how others are dialled."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from dtp.broadcast.receiving import SHOW_LIMITS
from dtp.errors import DtpError
from dtp.identity import Identity
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.listener import Handler
from dtp.node.node import ANYWHERE, Node, NodeLimits

#: The default name of a show's service.
SERVICE: Final = "show"
#: Seconds for an address to answer whether its node is there.
_ANSWER: Final = 5.0


class ShowNode(Protocol):
    """What a show needs of a node: a `Node`, or a daemon that has a listener already."""

    @property
    def addresses(self) -> Sequence[Address]:
        """The addresses at which others reach it."""

    def connect(self, address: str) -> AbstractAsyncContextManager[Connection]:
        """Connect to a service of another node."""

    async def __aenter__(self) -> object: ...

    async def __aexit__(self, *_: Any) -> bool | None: ...


class ShowPlace(Protocol):
    """Where a producer or a listener serves from, such as a `Place`."""

    @property
    def listen(self) -> Sequence[str]:
        """The addresses or URLs at which it serves others; empty for one that serves nobody."""

    def node(self, identity: Identity, services: Mapping[str, Handler]) -> ShowNode:
        """Return a node that serves these services there."""


@dataclass(frozen=True, slots=True)
class Place:
    """The arguments of the `Node` that serves a show. Without `listen` it serves nobody."""

    listen: Sequence[str] = (ANYWHERE,)
    discover: Collection[str] = ()
    bootstrap: Sequence[str | Address] = ()
    private: bytes | str | None = None

    def node(self, identity: Identity, services: Mapping[str, Handler]) -> Node:
        """Return a node that serves a show, and notices within seconds when a peer is gone."""
        return Node(
            identity=identity,
            listen=self.listen or None,
            discover=self.discover,
            bootstrap=self.bootstrap,
            private=self.private,
            services=services,
            limits=NodeLimits(connection=SHOW_LIMITS),
        )


def addresses_of(node: ShowNode, service: str) -> tuple[str, ...]:
    """Return the addresses of a node's service, as strings."""
    return tuple(str(each.with_service(service)) for each in node.addresses)


async def is_heard_at(address: str) -> bool:
    """Return True if the node of an address, such as a producer, is there."""
    try:
        async with (
            asyncio.timeout(_ANSWER),
            Place(listen=()).node(Identity.generate(), {}) as node,
            node.connect(address),
        ):
            return True
    except (DtpError, OSError, TimeoutError):
        return False
