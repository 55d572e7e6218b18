"""The listener for peers of a daemon."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from socket import socket

from dtp.daemon.services import Adopted
from dtp.daemon.workers.handover import Handover
from dtp.net.address import Address
from dtp.net.listener import Listener


class PeerListener:
    """A listener, which is made with its first address, and the addresses that each `listen` setting was bound
    to."""

    def __init__(self, make: Callable[[], Awaitable[Listener]], handover: Handover) -> None:
        """`make` makes the listener, without an address; `handover` takes carriers that belong to other
        processes."""
        self.listener: Listener | None = None
        self._make, self.handover = make, handover
        #: Each `listen` setting, and the URLs it was bound to.
        self._bound: dict[str, list[str]] = {}

    async def listen_at(self, urls: Sequence[str], adopted: Adopted) -> Listener:
        """Listen at those of `urls` that aren't bound yet. Raise `ListenError`, after which some may have been
        bound."""
        if self.listener is None:
            self.listener = self.handover.listener = await self._make()
        for url in urls:
            if url in self._bound:
                continue
            before = self.listener.urls
            if url in adopted:
                for sock in adopted[url]:
                    self.listener.add_socket(sock, url)
            else:
                await self.listener.add(url)
            self._bound[url] = [one for one in self.listener.urls if one not in before]
        return self.listener

    async def keep_places(self, urls: Sequence[str]) -> None:
        """Stop listening at all but `urls`."""
        for url in [url for url in self._bound if url not in urls]:
            assert self.listener is not None
            for bound in self._bound.pop(url):
                await self.listener.remove(bound)

    @property
    def addresses(self) -> list[Address]:
        """The addresses at which peers can connect."""
        return [] if self.listener is None else self.listener.addresses

    @property
    def half_open(self) -> int:
        """The number of carriers whose handshake isn't over."""
        return 0 if self.listener is None else len(self.listener.half_open)

    @property
    def sockets(self) -> dict[str, list[socket]]:
        """The listening sockets by setting. They stay owned by the listener."""
        found: dict[str, list[socket]] = {}
        for one in [] if self.listener is None else self.listener.socket_listeners:
            url = next(url for url, bound in self._bound.items() if one.urls[0] in bound)
            found.setdefault(url, []).extend(one.sockets)
        return found

    def has_connection(self, connection_id: bytes) -> bool:
        """Return True if a connection opened by a peer is here, whether open or waiting to be resumed."""
        return self.listener is not None and self.listener.has_connection(connection_id)

    async def hand_over(self) -> None:
        """Stop listening without removing the sockets' files: another process has copies of the sockets."""
        if self.listener is not None:
            for one in self.listener.socket_listeners:
                one.keep_place()
            for url in self.listener.urls:
                await self.listener.remove(url)

    async def close(self) -> None:
        """Stop listening, and close the connections that were accepted."""
        if self.listener is not None:
            await self.listener.close()
