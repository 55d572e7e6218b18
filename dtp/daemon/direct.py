"""Connecting to a backend of this machine without waiting: no task, no future, no turn of the loop.

A connection over loopback is there when `connect` has returned, and one that nobody listens for is refused; only the
first answer of a non-blocking socket doesn't say so.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket

from dtp.carriers.errors import DialError
from dtp.daemon.config.values import Place

#: Not yet.
_UNDER_WAY = {errno.EINPROGRESS, errno.EALREADY, errno.EWOULDBLOCK, errno.EINTR}


def connect_now(place: Place) -> socket.socket | None:
    """A non-blocking socket connected to `place`; None when that is not on loopback, or takes time after all.

    Raises `DialError` when it is refused.
    """
    if not (place.host.startswith("127.") or place.host == "::1"):
        return None
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    with contextlib.ExitStack() as undo:
        try:
            sock = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = sock.connect_ex((place.host, place.port))
            if code in _UNDER_WAY:
                code = sock.connect_ex((place.host, place.port))
        except OSError as error:  # no descriptors, or an address of nobody
            raise DialError(f"{place}: {error.strerror or error}") from error
        if code in _UNDER_WAY:
            return None
        if code not in (0, errno.EISCONN):
            raise DialError(f"{place}: {os.strerror(code)}")
        undo.pop_all()
    return sock
