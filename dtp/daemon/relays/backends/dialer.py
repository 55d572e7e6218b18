"""How a daemon reaches the backends of what it exposes."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from dtp.daemon.config.values import LocalPlace
from dtp.daemon.relays import sockets, udp
from dtp.daemon.relays.backends import direct


@dataclass(frozen=True)
class BackendDialer:
    """Functions that return a non-blocking socket connected to a place.

    Each raises `DialError` where nobody is there, and `NoDescriptors` where this process may open no more.
    """

    #: At once; None where that takes time.
    connect_now: Callable[[LocalPlace], socket.socket | None] = direct.connect_now
    #: Without a time limit of its own.
    connect: Callable[[LocalPlace], Awaitable[socket.socket]] = sockets.connect
    #: For datagrams.
    connect_udp: Callable[[LocalPlace], socket.socket] = udp.connect


#: By the sockets of this machine.
DIALER: Final = BackendDialer()
