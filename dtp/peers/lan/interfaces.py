"""The networks that this machine is in: its interfaces, and the addresses of each."""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from dtp.net.reachable import is_any, own_ip

#: A multicast group for documentation (RFC 6676): a route to it is asked for, and nothing is sent.
_ASKED = ("233.252.0.1", 9)
#: Bytes that are read of a table: a router of a large network has megabytes of neighbours.
_TABLE = 64 * 1024
#: The flag of a neighbour whose hardware address is known (`ATF_COM`).
_IS_COMPLETE = 0x2
#: Flags of an IPv6 address that is temporary (`IFA_F_TEMPORARY`), no longer used (`_DEPRECATED`), or not this
#: machine's (`_DADFAILED`, `_TENTATIVE`).
_NOT_USED: Final = 0x01 | 0x20 | 0x08 | 0x40
#: The scope of a link-local address (`IPV6_ADDR_LINKLOCAL`).
_OF_LINK: Final = 0x20
#: The prefix length of the largest private network, 10.0.0.0/8.
_LARGEST = 8


def multicast_interface(index: int) -> bytes:
    """Return the value that selects an interface in socket options: `struct ip_mreqn` without a group."""
    return struct.pack("=4s4si", bytes(4), bytes(4), index)


def membership(group: str, index: int) -> bytes:
    """Return the value that joins a group on an interface: `struct ip_mreqn`."""
    return struct.pack("=4s4si", socket.inet_aton(group), bytes(4), index)


def own_addresses(names: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the IPv4 address of each interface that has one, by the interface's name; with `names` only of those."""
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
    """Return Linux's tables of routes and of neighbours, `_TABLE` bytes of each; empty ones on other systems. They
    come from the kernel, so this doesn't wait for a disk.
    """
    try:
        return _read_table("/proc/net/route"), _read_table("/proc/net/arp")
    except OSError:
        return "", ""


def _read_table(path: str) -> str:
    with open(path) as file:
        return file.read(_TABLE).rpartition("\n")[0]


def find_routers(routes: str, neighbours: str) -> dict[str, str]:
    """Return the hardware address of each router that leads to other networks, by its IPv4 address, as far as it is
    known.
    """
    gateways = {(row[0], _ip(row[2])) for row in _rows(routes) if int(row[2], 16)}
    found: dict[str, str] = {}
    for row in (line.split() for line in neighbours.splitlines()[1:]):
        if len(row) > 5 and (row[5], row[0]) in gateways and int(row[2], 16) & _IS_COMPLETE:
            found[row[0]] = min(row[3], found.get(row[0], row[3]))
    return found


def find_networks(routes: str, ips: Iterable[str]) -> dict[str, ipaddress.IPv4Network]:
    """Return the local network of each address: the smallest that a route without a gateway names. Networks larger
    than the largest private one are left out, since VPNs have routes for halves of the internet.
    """
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
    """The usable IPv6 addresses of this machine, without loopback."""

    #: Those that others can dial from anywhere, as far as routers lead there.
    routed: list[str]
    #: Link-local addresses (fe80::), by the name of the interface.
    of_links: dict[str, str]


def list_ipv6(table: str) -> Ipv6Addresses:
    """Return the IPv6 addresses in Linux's table, without those that aren't usable yet or any more."""
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
    """Return the IPv6 addresses of this machine; none on systems other than Linux."""
    return list_ipv6(_read_table_of_ipv6())


def own_links(names: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the IPv6 address of its link (fe80::) of each interface that has one, by its name; with `names` only of
    those."""
    return {name: ip for name, ip in own_ipv6().of_links.items() if not names or name in names}


def has_address(host: str) -> bool:
    """True if an IP address, with or without a zone, is one of this machine's."""
    ip = ipaddress.ip_address(host.partition("%")[0])
    if ip.is_loopback:
        return True
    if ip.version == 4:
        return str(ip) in own_addresses().values()
    routed, of_links = own_ipv6()
    return str(ip) in routed or str(ip) in of_links.values()


def _read_table_of_ipv6() -> str:
    """Return Linux's table of IPv6 addresses; "" if there is none."""
    try:
        return _read_table("/proc/net/if_inet6")
    except OSError:
        return ""


def dialled_urls(urls: Iterable[str]) -> list[str]:
    """Return a listener's URLs as others dial them. An unspecified ("any") address is replaced by each address of
    its family that this machine has; link-local ones are used only if there are no others, and loopback only if
    there are none at all. URLs that only this machine can use (unix), and those of the chain, are left out.
    """
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
