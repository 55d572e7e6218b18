"""Connecting to a backend of this machine without waiting: no task, no future, no turn of the loop.

A connection over loopback is there when `connect` has returned, and one that nobody listens for is refused; only the
first answer of a non-blocking socket doesn't say so. A task that waits for it takes 1.9 times the processor time.
"""

from __future__ import annotations

import ipaddress
import socket
from functools import lru_cache

from dtp.core import dial, sockets_supported
from dtp.daemon.config.values import LocalPlace
from dtp.daemon.relays.sockets import bound_unsent, local_congestion, undialled


@lru_cache(maxsize=1024)
def loopback(host: str) -> bytes | None:
    """Return the address `host` in network order; None when it is a name, not on loopback, or not to be had at
    once."""
    if not sockets_supported():
        return None
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return address.packed if address.is_loopback else None


def connect_now(place: LocalPlace) -> socket.socket | None:
    """Return a non-blocking socket connected to `place`; None when it is not on `loopback`, or takes time after all.

    Raises `DialError` when it is refused, `NoDescriptors`.
    """
    address = loopback(place.host)
    if address is None:
        return None
    try:
        sock = dial(address, place.port, local_congestion())
        if sock is not None:
            bound_unsent(sock)
    except OSError as error:  # nobody listens, no descriptors, or an address of nobody
        raise undialled(str(place), error) from error
    return sock
