"""The networks that a machine is in, as texts that a book can keep, and which of them it has left.

Each text is one of its own IPv4 addresses with the length of the network's prefix, such as "10.1.0.5/16" (24 if it
is missing), or a router: "hardware address@address".
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Collection, Iterable

from dtp.carriers.nearness import Nearness

_PREFIX = 24


def without_routers(texts: Iterable[str]) -> frozenset[str]:
    """Return the texts that are addresses of the machine."""
    return frozenset(each for each in texts if "@" not in each)


def keep_routers(before: Collection[str], now: Collection[str]) -> frozenset[str]:
    """Return the present texts of a machine, together with those of former routers that it may still have: a router
    that it hasn't communicated with for a while isn't listed.
    """
    known, networks = _routers_by_address(now), _local_networks(without_routers(now))
    kept = {
        f"{router}@{ip}"
        for ip, router in _routers_by_address(before).items()
        if ip not in known and is_in(ip, networks)
    }
    return frozenset({*now, *kept})


def has_left(before: Collection[str], now: Collection[str]) -> bool:
    """Return True if a machine has left a network: one of its addresses is gone, or a router was replaced."""
    return not without_routers(before) <= without_routers(now) or bool(_replaced_routers(before, now))


def list_kept(before: Collection[str], now: Collection[str]) -> list[ipaddress.IPv4Network]:
    """Return the networks, other than the internet, in which a machine was and still is."""
    replaced = _replaced_routers(before, now)
    stays = _local_networks(without_routers(before) & without_routers(now))
    return [each for each in stays if not any(is_in(router, [each]) for router in replaced)]


def is_in(host: str, networks: Iterable[ipaddress.IPv4Network]) -> bool:
    """Return True if a host is an IPv4 address in one of the networks."""
    try:
        address = ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return any(address in each for each in networks)


def _local_networks(texts: Iterable[str]) -> list[ipaddress.IPv4Network]:
    found = []
    for each in texts:
        host, _, prefix = each.partition("/")
        if Nearness.of_host(host) is Nearness.NETWORK:
            with contextlib.suppress(ValueError):  # IPv6, or something else that the book's file has
                found.append(ipaddress.IPv4Network((host, int(prefix or _PREFIX)), strict=False))
    return found


def _replaced_routers(before: Collection[str], now: Collection[str]) -> list[str]:
    routers = _routers_by_address(now)
    return [ip for ip, each in _routers_by_address(before).items() if routers.get(ip, each) != each]


def _routers_by_address(texts: Iterable[str]) -> dict[str, str]:
    return {ip: router for router, at, ip in (each.partition("@") for each in texts) if at}
