"""The protocol of systemd and similar managers: reporting readiness, taking over sockets (sd_notify(3),
sd_listen_fds(3))."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import time
from typing import BinaryIO

from dtp.errors import ConfigError, LocalError

log = logging.getLogger("dtpd")

_FIRST_DESCRIPTOR = 3


class ManagerAway(LocalError):
    """The service manager can't be reached. Trying again may help, so it is not a `ConfigError`."""

    code = "manager-away"


def notify(*lines: str) -> None:
    """Send lines such as `READY=1` to the service manager, if there is one. Raise `ManagerAway`."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            raise ManagerAway(f"$NOTIFY_SOCKET ({address!r}) can't be told: {error.strerror}") from error


def tell(*lines: str) -> None:
    """Do the same for a daemon that already serves: a manager that can't be reached for a moment changes
    nothing."""
    try:
        notify(*lines)
    except ManagerAway as error:
        log.warning("%s", error, extra={"fields": {"event": "manager-away", "why": str(error)}})


def reloading() -> None:
    """Report that a reload has begun; `tell("READY=1")` reports its end."""
    tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


#: The process that a watchdog is for, if not for any process.
WATCHED = "WATCHDOG_PID"


def watchdog_interval() -> float | None:
    """Return the seconds between two `WATCHDOG=1`, which is half of what the manager waits for; None without a
    watchdog."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    wanted = microseconds.isdecimal() and os.environ.get(WATCHED, str(os.getpid())) == str(os.getpid())
    return int(microseconds) / 2e6 if wanted else None


async def tell_alive(interval: float) -> None:
    """Tell the watchdog at this interval that the process is alive, until cancelled."""
    while True:
        tell("WATCHDOG=1")
        await asyncio.sleep(interval)


#: Set for a successor: descriptors with the settings that they were opened for, and the descriptor on which to
#: report readiness.
SOCKETS, READY = "DTPD_SOCKETS", "DTPD_READY"


def listening_sockets() -> list[tuple[str, socket.socket]]:
    """Return the sockets that were opened for this process, by the service manager or by the process that it
    replaces.

    Each comes with the setting that it was opened for, or "" for sockets of the manager, which are told apart by
    their addresses. Children don't inherit them. Raise `ConfigError` for a descriptor that isn't a listening
    socket, and for sockets that another version hands over in another format.
    """
    told = os.environ.pop(SOCKETS, "[]")
    try:
        numbers = [(setting, number) for setting, number in json.loads(told)]
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"another version of dtpd hands sockets over in another way (${SOCKETS}: {told!r}): restart it instead"
        ) from error
    if os.environ.pop("LISTEN_PID", "") == str(os.getpid()):
        count = int(os.environ.pop("LISTEN_FDS", "0"))
        numbers += [("", number) for number in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + count)]
    os.environ.pop("LISTEN_FDNAMES", None)
    return [(setting, _adopt(number)) for setting, number in numbers]


def _adopt(descriptor: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=descriptor)
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ConfigError(
            f"descriptor {descriptor} was handed over and is not a socket: {error.strerror}"
        ) from error
    if sock.type == socket.SOCK_STREAM and not listens:
        sock.close()
        raise ConfigError(f"descriptor {descriptor} was handed over and doesn't listen")
    sock.set_inheritable(False)
    return sock


def replaces() -> bool:
    """True if another process is waiting for this one to be ready, to end then."""
    return READY in os.environ


def say_ready() -> BinaryIO | None:
    """Tell the process that this one replaces, if there is one, that it may end.

    Return the pipe to it, which the caller has to close. Its other end is closed when that process gives way or
    dies.
    """
    descriptor = os.environ.pop(READY, "")
    if not descriptor:
        return None
    pipe = os.fdopen(int(descriptor), "wb", buffering=0)
    pipe.write(b"1")
    return pipe
