"""Where peers come in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from socket import socket

from dtp.daemon.services import Adopted
from dtp.daemon.workers.handover import Handover
from dtp.net.address import Address
from dtp.net.listener import Listener


class PeerListener:
    """A listener, once there is a place to listen at, and where each setting of `listen` is."""

    def __init__(self, make: Callable[[], Awaitable[Listener]], handover: Handover) -> None:
        """`make` makes the listener, without a place; `handover` is for carriers that belong to other processes."""
        self.listener: Listener | None = None
        self._make, self.handover = make, handover
        #: Settings of `listen` -> where that is.
        self._bound: dict[str, list[str]] = {}

    async def listen_at(self, urls: Sequence[str], adopted: Adopted) -> Listener:
        """Listen at those of `urls` where it doesn't yet. Raises `ListenError`; some may have been added then."""
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
        """Listen no more where `urls` don't say so."""
        for url in [url for url in self._bound if url not in urls]:
            assert self.listener is not None
            for bound in self._bound.pop(url):
                await self.listener.remove(bound)

    @property
    def addresses(self) -> list[Address]:
        """Where peers come in."""
        return [] if self.listener is None else self.listener.addresses

    @property
    def half_open(self) -> int:
        """How many carriers have come whose handshake isn't over."""
        return 0 if self.listener is None else len(self.listener.half_open)

    @property
    def sockets(self) -> dict[str, list[socket]]:
        """What it listens on, by the setting; still its own."""
        found: dict[str, list[socket]] = {}
        for one in [] if self.listener is None else self.listener.socket_listeners:
            url = next(url for url, bound in self._bound.items() if one.urls[0] in bound)
            found.setdefault(url, []).extend(one.sockets)
        return found

    def has_connection(self, connection_id: bytes) -> bool:
        """Return whether a connection that came from a peer is here, open or waiting to be resumed."""
        return self.listener is not None and self.listener.has_connection(connection_id)

    async def hand_over(self) -> None:
        """Listen no more, and leave the places as they are: another process has copies of the sockets."""
        if self.listener is not None:
            for one in self.listener.socket_listeners:
                one.keep_place()
            for url in self.listener.urls:
                await self.listener.remove(url)

    async def close(self) -> None:
        """Listen no more, and end what has come in."""
        if self.listener is not None:
            await self.listener.close()
