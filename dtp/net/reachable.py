"""Where others dial what listens at "any" address of this machine."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

#: Families with an address that is nobody's (RFC 5737, RFC 3849), to ask for the way there, and the loopback one.
_ELSEWHERE: Final = {
    4: (socket.AF_INET, "192.0.2.1", "127.0.0.1"),
    6: (socket.AF_INET6, "2001:db8::1", "::1"),
}


def is_any(host: str) -> bool:
    """True if a host stands for all addresses of a machine (0.0.0.0, ::), which nobody can dial."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:  # a name
        return False


def is_any_url(url: str) -> bool:
    """True if a carrier URL has such a host."""
    return is_any(urlsplit(url).hostname or "")


def own_ip(host: str) -> str:
    """Return the address that this machine would use towards the internet, for "any" of a family; others as they are.

    Without a network it is the loopback one.
    """
    if not is_any(host):
        return host
    family, elsewhere, loopback = _ELSEWHERE[ipaddress.ip_address(host).version]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((elsewhere, 9))  # UDP: chooses a route and sends nothing
        except OSError:
            return loopback
        own: str = probe.getsockname()[0]
        return own


def own_url(url: str, own_ip: Callable[[str], str] = own_ip) -> str:
    """Return the carrier URL of a listener as others dial it: with `own_ip` for "any"."""
    parts = urlsplit(url)
    if not is_any_url(url):
        return url
    ip = own_ip(parts.hostname or "")
    return parts._replace(netloc=f"{f'[{ip}]' if ':' in ip else ip}:{parts.port}").geturl()
