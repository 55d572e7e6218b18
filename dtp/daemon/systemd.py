"""What systemd and its like want of a daemon: readiness told, sockets taken over (sd_notify(3), sd_listen_fds(3))."""

from __future__ import annotations

import os
import socket
import time

from dtp.errors import ConfigError

_FIRST_DESCRIPTOR = 3


def notify(*lines: str) -> None:
    """Tell the service manager, if there is one, such as `READY=1`."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            raise ConfigError(f"$NOTIFY_SOCKET ({address!r}) can't be told: {error.strerror}") from error


def reloading() -> None:
    """Tell that a reload has begun; `notify("READY=1")` ends it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def watchdog_interval() -> float | None:
    """How often `WATCHDOG=1` is to be told, seconds: half of what the manager waits for; None if it doesn't."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    wanted = microseconds.isdecimal() and os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(microseconds) / 2e6 if wanted else None


def listening_sockets() -> list[socket.socket]:
    """The sockets that the service manager has opened for this process; they are told apart by where they are bound.

    Children don't inherit them. `ConfigError` for a descriptor that is no listening stream socket.
    """
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()):
        return []
    count = os.environ.pop("LISTEN_FDS", "0")
    os.environ.pop("LISTEN_FDNAMES", None)
    found = []
    for descriptor in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(count)):
        try:
            sock = socket.socket(fileno=descriptor)
            listens = sock.type == socket.SOCK_STREAM and sock.getsockopt(
                socket.SOL_SOCKET, socket.SO_ACCEPTCONN
            )
        except OSError as error:
            raise ConfigError(
                f"descriptor {descriptor} of $LISTEN_FDS is no socket: {error.strerror}"
            ) from error
        if not listens:
            raise ConfigError(f"descriptor {descriptor} of $LISTEN_FDS is not a stream socket that listens")
        sock.set_inheritable(False)
        found.append(sock)
    return found
