"""The networks that this machine is on: interfaces, and the address that each has."""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from dtp.net.reachable import is_any, own_ip

#: Documentation's multicast group (RFC 6676): a route to it is asked for, and nothing is sent.
_ASKED = ("233.252.0.1", 9)
#: What is read of a table: a router of a large network has megabytes of neighbours.
_TABLE = 64 * 1024
#: The flag of a neighbour whose hardware address is known (`ATF_COM`).
_IS_COMPLETE = 0x2
#: Flags of an IPv6 address that changes (`IFA_F_TEMPORARY`), is given up (`_DEPRECATED`), or another one's
#: (`_DADFAILED`, `_TENTATIVE`).
_NOT_USED: Final = 0x01 | 0x20 | 0x08 | 0x40
#: The scope of an address of one link (`IPV6_ADDR_LINKLOCAL`).
_OF_LINK: Final = 0x20
#: The bits that all addresses of the largest private network share, 10.0.0.0/8.
_LARGEST = 8


def multicast_interface(index: int) -> bytes:
    """Return what chooses an interface in socket options: `struct ip_mreqn` without a group."""
    return struct.pack("=4s4si", bytes(4), bytes(4), index)


def membership(group: str, index: int) -> bytes:
    """Return what joins a group on an interface: `struct ip_mreqn`."""
    return struct.pack("=4s4si", socket.inet_aton(group), bytes(4), index)


def own_addresses(names: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the IPv4 address of each interface that has one, by its name; with `names` only of those."""
    found = {}
    for index, name in socket.if_nameindex():
        if names and name not in names:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, multicast_interface(index))
                probe.connect(_ASKED)  # UDP: chooses the address to send from, and sends nothing
            except OSError:
                continue  # it is down, or has no address
            found[name] = str(probe.getsockname()[0])
    return {name: ip for name, ip in found.items() if not is_any(ip)}


def read_tables() -> tuple[str, str]:
    """Return Linux' tables of routes and of neighbours, `_TABLE` bytes of each; empty ones where the system isn't
    Linux. They are the kernel's: no disk is waited for."""
    try:
        return _read_table("/proc/net/route"), _read_table("/proc/net/arp")
    except OSError:
        return "", ""


def _read_table(path: str) -> str:
    with open(path) as file:
        return file.read(_TABLE).rpartition("\n")[0]


def find_routers(routes: str, neighbours: str) -> dict[str, str]:
    """Return the hardware address of each router through which other networks are reached, by its IPv4 address, as
    far as it has been spoken with."""
    gateways = {(row[0], _ip(row[2])) for row in _rows(routes) if int(row[2], 16)}
    found: dict[str, str] = {}
    for row in (line.split() for line in neighbours.splitlines()[1:]):
        if len(row) > 5 and (row[5], row[0]) in gateways and int(row[2], 16) & _IS_COMPLETE:
            found[row[0]] = min(row[3], found.get(row[0], row[3]))
    return found


def find_networks(routes: str, ips: Iterable[str]) -> dict[str, ipaddress.IPv4Network]:
    """Return the network that each address is in without a router between: the smallest that a route names. One that
    is larger than the largest private network is left out: VPNs have routes to halves of the internet."""
    local = [
        (int(row[7], 16), int(row[1], 16))
        for row in _rows(routes)
        if not int(row[2], 16) and int(row[7], 16).bit_count() >= _LARGEST
    ]
    found = {}
    for ip in set(ips):
        word = int.from_bytes(socket.inet_aton(ip), sys.byteorder)
        mask = max((mask for mask, network in local if word & mask == network), key=int.bit_count, default=0)
        if mask:
            found[ip] = ipaddress.IPv4Network((ip, mask.bit_count()), strict=False)
    return found


def _rows(routes: str) -> list[list[str]]:
    rows = [line.split() for line in routes.splitlines()[1:]]
    return [row for row in rows if len(row) > 7]


def _ip(word: str) -> str:
    return socket.inet_ntoa(int(word, 16).to_bytes(4, sys.byteorder))


class Ipv6Addresses(NamedTuple):
    """The IPv6 addresses of this machine that are to be used, without loopback ones."""

    #: Those that others can dial wherever they are, as far as routers lead there.
    routed: list[str]
    #: Those of one link (fe80::), by the name of their interface.
    of_links: dict[str, str]


def list_ipv6(table: str) -> Ipv6Addresses:
    """Return the IPv6 addresses of Linux' table; those that are no longer or not yet to be used are left out."""
    found = Ipv6Addresses([], {})
    for number, _, _, scope, flags, name, *_ in (line.split() for line in table.splitlines()):
        if int(flags, 16) & _NOT_USED:
            continue
        ip = str(ipaddress.IPv6Address(int(number, 16)))
        if int(scope, 16) == 0:
            found.routed.append(ip)
        elif int(scope, 16) == _OF_LINK:
            found.of_links.setdefault(name, ip)
    return found


def own_ipv6() -> Ipv6Addresses:
    """Return the IPv6 addresses of this machine; none where the system isn't Linux."""
    return list_ipv6(_read_table_of_ipv6())


def has_address(host: str) -> bool:
    """True if an IP address, also one with a zone, is one of this machine's."""
    ip = ipaddress.ip_address(host.partition("%")[0])
    if ip.is_loopback:
        return True
    if ip.version == 4:
        return str(ip) in own_addresses().values()
    routed, of_links = own_ipv6()
    return str(ip) in routed or str(ip) in of_links.values()


def _read_table_of_ipv6() -> str:
    """Return Linux' table of IPv6 addresses; "" where there is none."""
    try:
        return _read_table("/proc/net/if_inet6")
    except OSError:
        return ""


def dialled_urls(urls: Iterable[str]) -> list[str]:
    """Return a listener's URLs as others dial them: for "any" with each address of its family (IPv4 or IPv6) that
    this machine has; those of a link only where there is no other, and loopback ones only where there are none of
    these. Those that only this machine has (unix), and the chain's, are left out."""
    routed, of_links = own_ipv6()
    ips = {
        4: [ip for ip in own_addresses().values() if not ipaddress.ip_address(ip).is_loopback],
        6: routed or list(dict.fromkeys(of_links.values())),
    }
    found: dict[str, None] = {}
    of_loopback: dict[str, None] = {}
    for url in urls:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme in ("unix", "pipe"):
            continue
        if not is_any(host):
            found[url] = None
            continue
        others = ips[ipaddress.ip_address(host).version]
        for ip in others or [own_ip(host)]:
            bracketed = f"[{ip}]" if ":" in ip else ip
            port = "" if parts.port is None else f":{parts.port}"
            is_other = others or not ipaddress.ip_address(ip).is_loopback
            (found if is_other else of_loopback)[parts._replace(netloc=bracketed + port).geturl()] = None
    return list(found or of_loopback)
