"""How near a place is: what somebody tells leads no nearer than where they are themselves."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator
from contextvars import Context, ContextVar, copy_context
from enum import IntEnum
from functools import lru_cache
from typing import Final


class Nearness(IntEnum):
    """How near a place is, the nearest first: whoever is there can reach what is at least as far."""

    #: This process.
    PROCESS = 0
    #: This machine: loopback, Unix sockets, and what is not a place of one machine.
    MACHINE = 1
    #: A network that isn't the internet: private and link-local addresses.
    NETWORK = 2
    #: Everywhere; also where it isn't known.
    ANYWHERE = 3

    @classmethod
    def of_host(cls, host: str) -> Nearness:
        """Return how near an IP address is. A name is anywhere until it is looked up, but for `localhost`."""
        return _of_host(host)

    @classmethod
    def of_source(cls, source: str) -> Nearness:
        """Return how near somebody is whose carrier has this `source`."""
        if source == "memory":
            return cls.PROCESS
        return cls.MACHINE if source.partition(":")[0] == "unix" else _of_host(source)


class _Telling:
    """Who has told of what is dialled in a block. `is_over` after the block: tasks that it has started go on, and
    dial for others as well."""

    __slots__ = ("is_over", "teller")

    def __init__(self, teller: Nearness | None) -> None:
        self.teller, self.is_over = teller, False


#: How many times as much as one source a network on the internet may have in all: its addresses may be several
#: people's, and whoever has a /48 of IPv6 has 65,536 sources.
OF_NETWORK: Final = 4

#: Tasks and callbacks inherit it.
_telling: ContextVar[_Telling | None] = ContextVar("dtp_telling", default=None)

#: The last four bytes are an IPv4 address: RFC 6052, RFC 2765 (2.1), and RFC 4291 (2.5.5.1), but for `::1`.
_HAVE_IPV4: Final = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "::ffff:0:0:0/96", "::/96")))
#: Those of one site (RFC 3879, RFC 8215, RFC 9602), which not every Python knows: the second leads to IPv4 addresses
#: there.
_OF_SITES: Final = tuple(map(ipaddress.IPv6Network, ("fec0::/10", "64:ff9b:1::/48", "5f00::/16")))


@contextlib.contextmanager
def dialled_as_told(teller: Nearness | None) -> Iterator[None]:
    """Treat what is dialled within the block as an address that somebody this near has told us; None for one that
    nobody else has told."""
    telling = _Telling(teller)
    mark = _telling.set(telling)
    try:
        yield
    finally:
        telling.is_over = True
        # What is left of a loop that has ended is closed by whoever collects it, in another context.
        with contextlib.suppress(ValueError):
            _telling.reset(mark)


def who_tells() -> Nearness | None:
    """Return how near somebody is who has told of what is dialled now; None where nobody else has."""
    telling = _telling.get()
    return None if telling is None or telling.is_over else telling.teller


def context_for_all() -> Context | None:
    """Return the context for a callback that also works for others, who weren't told of what is dialled now; None
    where the present one will do."""
    if who_tells() is None:
        return None
    context = copy_context()
    context.run(_telling.set, None)
    return context


@lru_cache(maxsize=4096)
def network_of_host(host: str) -> str:
    """Return the network on the internet that an IP address is in, IPv4 /24 or IPv6 /48: as far as anybody can tell
    it has one owner. Empty for names, and for all other addresses, of which everybody has as many as they like."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return ""
    if _of_host(host) is not Nearness.ANYWHERE:
        return ""
    return str(ipaddress.ip_network((address, 24 if address.version == 4 else 48), strict=False))


def network_of_source(source: str) -> str:
    """Return the network on the internet of a peer whose carrier has this `source`; the source itself for one that
    isn't on the internet."""
    return network_of_host(source.partition("/")[0]) or source


@lru_cache(maxsize=4096)
def _of_host(host: str) -> Nearness:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        name = host.lower().removesuffix(".")
        is_here = name == "localhost" or name.endswith(".localhost")  # RFC 6761
        return Nearness.MACHINE if is_here else Nearness.ANYWHERE
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and not address.is_loopback and any(address in each for each in _HAVE_IPV4):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        address = inner or address
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        return Nearness.MACHINE
    is_of_site = any(address in each for each in _OF_SITES)
    return Nearness.ANYWHERE if address.is_global and not is_of_site else Nearness.NETWORK
