"""Looking at backends: a connect, or a GET that has to give a status below 400."""

from __future__ import annotations

import asyncio
import logging
import re

from dtp.carriers.errors import DialError
from dtp.carriers.socket_io import SocketIO
from dtp.daemon.config.model import Health
from dtp.daemon.config.values import LocalPlace
from dtp.daemon.relays.backends.balancing import Backend, Balancer
from dtp.daemon.relays.sockets import NoDescriptors, connect

log = logging.getLogger("dtpd")

#: An answer's first line is shorter.
_MAX_LINE = 4096
_STATUS = re.compile(rb"[0-9]{3}")


async def watch(service: str, balancer: Balancer, health: Health, first: bytes = b"") -> None:
    """Check all backends of a service, each by itself, until cancelled. `first` goes in front of requests."""
    async with asyncio.TaskGroup() as group:
        for backend in balancer.backends:
            group.create_task(_watch_one(service, balancer, backend, health, first))


async def _watch_one(
    service: str, balancer: Balancer, backend: Backend, health: Health, first: bytes
) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            fault = await check(backend.place, health, first)
        except NoDescriptors as error:  # which says nothing of the backend
            log.warning("%s: backend %s can't be checked: %s", service, backend.place, error)
            await asyncio.sleep(health.every)
            continue
        if balancer.note_checked(backend, fault is None, health, loop.time()):
            fields = {"service": service, "backend": str(backend.place)}
            if fault is None:
                log.info("%s: backend %s is up", service, backend.place, extra={"fields": fields})
            else:
                log.warning(
                    "%s: backend %s is down: %s",
                    service,
                    backend.place,
                    fault,
                    extra={"fields": fields | {"why": fault}},
                )
        await asyncio.sleep(health.every)


async def check(place: LocalPlace, health: Health, first: bytes = b"") -> str | None:
    """Return what is wrong with the backend at `place`; None if nothing is. Raises `NoDescriptors`."""
    try:
        async with asyncio.timeout(health.timeout):
            sock = await connect(place)
            try:
                return None if health.http is None else await _get(SocketIO(sock), place, health.http, first)
            finally:
                sock.close()
    except TimeoutError:
        return f"no answer in {health.timeout:g} s"
    except (DialError, OSError) as error:
        return str(error)


async def _get(io: SocketIO, place: LocalPlace, path: str, first: bytes) -> str | None:
    host = "localhost" if place.path else str(place)
    head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nUser-Agent: dtpd\r\n\r\n"
    await io.write(first + head.encode())
    line = b""
    while b"\r\n" not in line and len(line) < _MAX_LINE:
        data = await io.read()
        if not data:
            break
        line += data
    words = line.partition(b"\r\n")[0].split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not _STATUS.fullmatch(words[1]):
        return "the answer is not HTTP"
    return None if int(words[1]) < 400 else f"status {int(words[1])}"
