"""The addresses behind a host's name."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Final

from dtp.carriers.nearness import Nearness, who_tells

#: Names that somebody else told of which are looked up at the same time. One that nobody answers for takes a thread
#: for some 10 s, and what is told may be any: the threads of the loop, by which the user's own names are looked up,
#: aren't used for it.
TOLD_AT_ONCE: Final = 2
#: Links on which an address of one is sought: a machine that runs containers has many.
_LINKS: Final = 16

_Found = list[tuple[Any, ...]]


async def resolve_host(
    host: str | None, port: int, kind: socket.SocketKind, *, family: int = 0, flags: int = 0
) -> _Found:
    """Return what `socket.getaddrinfo` has for a host's name or IP address; None: any address.

    An IP address is looked up by nobody: neither the loop's threads nor the tables for international names are loaded
    for it. One of a link (fe80::) without a zone is sought on each link of this machine. What is dialled as told is
    no nearer than whoever tells of it (`dialled_as_told`). Raise `OSError` or `UnicodeError`."""
    teller = None if flags & socket.AI_PASSIVE else who_tells()
    found = await _look_up(host, port, kind, family, flags, teller is not None)
    if not flags & socket.AI_PASSIVE:
        found = [there for each in found for there in _on_links(each)]
    if teller is None:
        return found
    if far := [each for each in found if Nearness.of_host(str(each[4][0])) >= teller]:
        return far
    raise OSError("it is nearer than who tells of it")


async def _look_up(
    host: str | None, port: int, kind: socket.SocketKind, family: int, flags: int, is_told: bool
) -> _Found:
    numeric = host.encode() if host is not None and host.isascii() else None
    if host is None or numeric is not None:
        try:
            return socket.getaddrinfo(
                numeric, port, family, kind, flags=flags | socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
            )
        except socket.gaierror:
            pass  # it is a name
    loop = asyncio.get_running_loop()
    if is_told:
        look_up = partial(socket.getaddrinfo, host, port, family, kind, flags=flags)
        return await ToldLookups.of_loop(loop).run(look_up)
    return await loop.getaddrinfo(host, port, family=family, type=kind, flags=flags)


def _on_links(found: tuple[Any, ...]) -> _Found:
    """Return an address with the links of this machine that it may be on: as another machine writes an address of a
    link, it doesn't say which one that is here."""
    family, *rest, address = found
    if family != socket.AF_INET6 or address[3] or not ipaddress.IPv6Address(address[0]).is_link_local:
        return [found]
    links = [index for index, name in socket.if_nameindex() if name != "lo"][:_LINKS]
    return [(family, *rest, (*address[:3], index)) for index in links] or [found]


class ToldLookups:
    """Looks names up that somebody else told: few at once, in threads for which the end of a program doesn't wait."""

    _of_loops: ClassVar[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, ToldLookups]] = (
        weakref.WeakKeyDictionary()
    )

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(TOLD_AT_ONCE)

    @classmethod
    def of_loop(cls, loop: asyncio.AbstractEventLoop) -> ToldLookups:
        """Return those of `loop`."""
        if (lookups := cls._of_loops.get(loop)) is None:
            lookups = cls._of_loops[loop] = cls()
        return lookups

    async def run(self, look_up: Callable[[], _Found]) -> _Found:
        """Return what a lookup gives, when it is its turn. One that is given up has its turn until it has ended.
        Raise as it does: `OSError` or `UnicodeError`."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[_Found] = loop.create_future()

        def end(found: _Found | None, fault: OSError | UnicodeError | None) -> None:
            self._turns.release()
            if ended.done():
                return
            if fault is not None:
                ended.set_exception(fault)
            else:
                ended.set_result(found or [])

        def work() -> None:
            found, why = None, None
            try:
                found = look_up()
            except (OSError, UnicodeError) as fault:
                why = fault
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(end, found, why)

        await self._turns.acquire()
        try:
            threading.Thread(target=work, name="dtp-told-name", daemon=True).start()
        except RuntimeError as fault:  # there are too many threads
            end(None, OSError(str(fault)))
        return await ended


def what_failed(error: OSError | UnicodeError) -> str:
    """Return why a name can't be resolved, in words: without the resolver's number for it."""
    return getattr(error, "strerror", None) or str(error)
