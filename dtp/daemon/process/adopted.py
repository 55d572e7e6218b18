"""Sockets that are open already when the daemon starts: which setting means which."""

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
    """Return the page's setting, as `by_setting` names it: a forward may have the same place."""
    return f"web {config.web}"


def by_setting(
    config: Config, control: str, socks: Iterable[tuple[str, socket.socket]]
) -> dict[str, list[socket.socket]]:
    """Return the sockets that are open already by the setting that means them: the one that they were opened for (the
    kernel chose the port, or a name stands for the address), else the one with their place.

    `ConfigError` for one that none means; those of a process that is replaced may be of what was in the file before.
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
