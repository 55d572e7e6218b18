"""The backends of a service: which one has the next stream, and whether they can be reached."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from dtp.carriers.errors import DialError
from dtp.daemon.config.model import Expose
from dtp.daemon.policies import Caller
from dtp.daemon.relays.backends import health, proxy_protocol
from dtp.daemon.relays.backends.balancing import Backend, Balancer
from dtp.daemon.relays.backends.dialer import BackendDialer
from dtp.daemon.relays.sockets import BackendLink
from dtp.tasks import SupervisedTask

log = logging.getLogger("dtpd")

#: A backend, the socket to it, and what goes in front of its bytes.
Dialled = tuple[Backend, socket.socket, bytes]


class ServiceBackends:
    """Dials backends, and marks those that can't be reached."""

    def __init__(
        self, config: Expose, dialer: BackendDialer, with_logins: Callable[[Caller], Caller], flush: float
    ) -> None:
        """`with_logins` says of a caller what it is logged in to, for a PROXY header; `flush` is of `BackendLink`."""
        self.balancer = Balancer(config.backends, config.balance, config.slow_start)
        self._config, self._dialer, self._with_logins, self._flush = config, dialer, with_logins, flush
        self._watch: SupervisedTask | None = None

    def start_checks(self) -> None:
        """Begin to look at the backends, if that is wanted."""
        if self._config.health is not None and self._watch is None:
            first = proxy_protocol.LOCAL if self._config.proxy_protocol else b""
            self._watch = SupervisedTask(
                partial(health.watch, self._config.service, self.balancer, self._config.health, first),
                name="dtpd-health",
            )
            self._watch.start()

    def stop_checks(self) -> None:
        """Look at the backends no more. Idempotent."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def get_status(self, now: float) -> list[dict[str, Any]]:
        """Return how each stands, by the steady clock."""
        return [
            {
                "place": str(backend.place),
                "up": backend.is_usable(now),
                "active": backend.active,
                "failures": backend.failures,
            }
            for backend in self.balancer.backends
        ]

    def dial_now(
        self, caller: Caller, began: float, tried: list[Backend]
    ) -> tuple[Dialled | None, Backend | None]:
        """Return a backend that is there at once, counted as active; else the one that has to be waited for, None
        where all were `tried`, to which those are added that failed. Raises `NoDescriptors`."""
        while (backend := self.balancer.choose_backend(caller.peer, began, tried)) is not None:
            try:
                sock = self._dialer.connect_now(backend.place)
            except DialError as error:
                tried.append(backend)
                self._note_unreachable(backend, str(error))
                continue
            if sock is None:
                return None, backend
            if (dialled := self._count_connected(caller, backend, sock)) is not None:
                return dialled, None
            tried.append(backend)
        return None, None

    def dial_udp(self, caller: Caller, began: float) -> tuple[Backend, socket.socket] | None:
        """Return a backend, counted as active, and a socket to it; None when it can't be. Raises `NoDescriptors`."""
        backend = self.balancer.choose_backend(caller.peer, began)
        assert backend is not None
        try:
            sock = self._dialer.connect_udp(backend.place)
        except DialError as error:
            self._note_unreachable(backend, str(error))
            return None
        backend.active += 1
        return backend, sock

    async def dial_streams(self, caller: Caller) -> BackendLink | None:
        """Return a backend by asyncio's streams; None where there is none. Raises `NoDescriptors`."""
        dialled = await self.dial_backend(caller)
        if dialled is None:
            return None
        backend, sock, first = dialled
        try:
            reader, writer = await asyncio.open_connection(sock=sock)
        except BaseException:
            backend.active -= 1
            sock.close()
            raise
        if first:
            writer.write(first)
        return BackendLink(reader, writer, backend, self._flush)

    async def dial_backend(
        self, caller: Caller, tried: Collection[Backend] = (), chosen: Backend | None = None
    ) -> Dialled | None:
        """Return a backend that answers, counted as active, and what goes in front of its bytes: `chosen`, if given.

        Nothing was sent yet, so any backend may still have the stream: they are tried in turn, each once. Raises
        `NoDescriptors`: none of them could be.
        """
        tried = list(tried)
        while True:
            backend = chosen or self.balancer.choose_backend(caller.peer, time.monotonic(), tried)
            if backend is None:
                return None
            chosen = None
            tried.append(backend)
            sock = await self._connect_backend(backend)
            if sock is not None and (dialled := self._count_connected(caller, backend, sock)) is not None:
                return dialled

    def _count_connected(self, caller: Caller, backend: Backend, sock: socket.socket) -> Dialled | None:
        """Count the backend from now on; return None, and mark it, when it has broken off already."""
        first = b""
        if self._config.proxy_protocol:
            try:
                first = self._proxy_header(caller, sock)
            except OSError as error:
                sock.close()
                self._note_unreachable(backend, str(error))
                return None
        if backend.failures:
            self.balancer.note_connected(backend, time.monotonic())
        backend.active += 1
        return backend, sock, first

    def _proxy_header(self, caller: Caller, sock: socket.socket) -> bytes:
        place = sock.getpeername()
        return proxy_protocol.header(
            self._with_logins(caller), self._config.service, place[:2] if isinstance(place, tuple) else None
        )

    async def _connect_backend(self, backend: Backend) -> socket.socket | None:
        """Return a socket to the backend; None, and a mark on it, when it can't be reached. Raises
        `NoDescriptors`."""
        try:
            async with asyncio.timeout(self._config.connect_timeout):
                sock = await self._dialer.connect(backend.place)
        except (DialError, TimeoutError) as error:
            self._note_unreachable(backend, str(error) or f"no answer in {self._config.connect_timeout:g} s")
            return None
        return sock

    def _note_unreachable(self, backend: Backend, why: str) -> None:
        self.balancer.note_failed(backend, time.monotonic())
        service, place = self._config.service, str(backend.place)
        fields = {"event": "unreachable", "service": service, "backend": place, "why": why}
        log.warning("%s: backend %s: %s", service, place, why, extra={"fields": fields})
