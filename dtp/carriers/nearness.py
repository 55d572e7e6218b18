"""How near a place is: what somebody tells leads no nearer than where they are themselves."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator
from contextvars import ContextVar
from enum import IntEnum
from functools import lru_cache
from typing import Final


class Nearness(IntEnum):
    """How near a place is, the nearest first: whoever is there can reach what is at least as far."""

    #: This process.
    PROCESS = 0
    #: This machine: loopback, Unix sockets, and what is no place of one machine.
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


#: Who tells of the place that is dialled; None where nobody else does. What is dialled meanwhile inherits it, and so
#: does a connection that dials again.
_teller: ContextVar[Nearness | None] = ContextVar("dtp_teller", default=None)

#: RFC 6052: the last four bytes are an IPv4 address.
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


@contextlib.contextmanager
def dialled_as_told(teller: Nearness | None) -> Iterator[None]:
    """Have what is dialled within count as told by somebody so near; by nobody else where that is None."""
    mark = _teller.set(teller)
    try:
        yield
    finally:
        _teller.reset(mark)


def who_tells() -> Nearness | None:
    """Return how near they are who tell of the place that is dialled now; None where nobody else does."""
    return _teller.get()


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
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        address = inner or address
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        return Nearness.MACHINE
    return Nearness.ANYWHERE if address.is_global else Nearness.NETWORK
