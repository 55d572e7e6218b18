"""Sockets that are already open when the daemon starts, matched with settings."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable

from dtp.daemon.config import values
from dtp.daemon.config.model import Config
from dtp.daemon.process import systemd
from dtp.daemon.relays.sockets import name_of
from dtp.errors import ConfigError

log = logging.getLogger("dtpd")


def page_setting(config: Config) -> str:
    """Return the web page's setting as `by_setting` names it, since a forward may have the same place."""
    return f"web {config.web}"


def by_setting(
    config: Config, control: str, socks: Iterable[tuple[str, socket.socket]]
) -> dict[str, list[socket.socket]]:
    """Return the sockets that are already open by setting: the setting that a socket was opened for (its port may
    have been chosen by the kernel, or its address by a name), otherwise the one with its place.

    Raise `ConfigError` for a socket without a setting. From a process that is replaced, it may be of a setting that
    was removed.
    """
    places = {forward.name: forward.name for forward in config.forward}
    places |= {url: values.place_of(url) for url in config.listen}
    places[control] = control
    if config.web is not None:
        places[page_setting(config)] = str(config.web)
    wanted = {place: setting for setting, place in places.items()}
    found: dict[str, list[socket.socket]] = {}
    for setting, sock in socks:
        name = f"udp:{name_of(sock)}" if sock.type == socket.SOCK_DGRAM else name_of(sock)
        meant = setting if setting in places else wanted.get(name)
        if meant is not None:
            found.setdefault(meant, []).append(sock)
        elif systemd.replaces():
            log.warning("%s is in the file no more: this process does not listen there", name)
            sock.close()
        else:
            known = ", ".join(wanted)
            raise ConfigError(f"a socket at {name} was handed over, and the configuration has {known}")
    return found
