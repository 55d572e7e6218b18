"""The multicast groups of hellos, of IPv4 and IPv6: sockets, where they are joined, and how datagrams go there."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from abc import ABC, abstractmethod
from typing import ClassVar, Final

from dtp.peers.lan.hello import SEALED_SIZE, Source
from dtp.peers.lan.interfaces import membership, multicast_interface

#: An address of the range for one organisation's own use (RFC 2365).
GROUP: Final = "239.255.68.84"
#: One that is nobody's for good, on one link (RFC 4291, 2.7, and RFC 3307, 4.3). Its last four digits are the port.
GROUP_V6: Final = "ff12::8000:1ae4"


class MulticastGroup(ABC):
    """A group that is heard and sent to on some interfaces. `open` first, `close` at the end."""

    family: ClassVar[socket.AddressFamily]
    #: Interfaces on which it can't be had, by name.
    without: ClassVar[tuple[str, ...]] = ()

    def __init__(self, address: str, port: int) -> None:
        self.address, self.port = address, port
        #: The interfaces on which it is joined, by index.
        self.indexes: list[int] = []
        #: The socket that hears the group, and the one that sends and gets answers.
        self.sockets: list[socket.socket] = []

    def open(self) -> None:
        """Open the sockets. Raise `OSError` with none of them open, as on a machine without the family."""
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            hears, says = self._add_socket(), self._add_socket()
            for option in (
                socket.SO_REUSEADDR,
                socket.SO_REUSEPORT,
            ):  # every node of a machine hears the group
                hears.setsockopt(socket.SOL_SOCKET, option, 1)
            self._bind(hears, says)
            undo.pop_all()

    def close(self) -> None:
        """Close the sockets. Idempotent."""
        for each in self.sockets:
            each.close()
        self.sockets.clear()

    def join(self, names: tuple[str, ...]) -> None:
        """Join the group wherever it is not joined yet, of these interfaces if there are any: they come and go."""
        for index, name in socket.if_nameindex():
            if index in self.indexes or name in self.without or (names and name not in names):
                continue
            with contextlib.suppress(OSError):  # it is down, or is none for this family
                self._join(self.sockets[0], index)
                self.indexes.append(index)

    def receive(self, sock: socket.socket) -> tuple[bytes, Source]:
        """Return the next datagram, and where it comes from. Raise `OSError`, as where there is none."""
        data, source = sock.recvfrom(SEALED_SIZE + 1)
        return data, source[:2]

    @abstractmethod
    def send(self, data: bytes, to: Source) -> None:
        """Send a datagram to one address. Raise `OSError`."""

    @abstractmethod
    def send_to_all(self, data: bytes, index: int) -> None:
        """Send a datagram to the group on one interface. Raise `OSError`."""

    @abstractmethod
    def is_on_link(self, host: str) -> bool:
        """True unless whoever is at `host` is surely not on a network of this machine."""

    @abstractmethod
    def _bind(self, hears: socket.socket, says: socket.socket) -> None:
        """Bind both sockets."""

    @abstractmethod
    def _join(self, hears: socket.socket, index: int) -> None:
        """Join the group on one interface."""

    def _add_socket(self) -> socket.socket:
        made = socket.socket(self.family, socket.SOCK_DGRAM)
        self.sockets.append(made)
        made.setblocking(False)
        return made


class Ipv4Group(MulticastGroup):
    """A group of IPv4."""

    family = socket.AF_INET

    def send(self, data: bytes, to: Source) -> None:
        """Send a datagram to one address. Raise `OSError`."""
        self.sockets[1].sendto(data, to)

    def send_to_all(self, data: bytes, index: int) -> None:
        """Send a datagram to the group on one interface. Raise `OSError`."""
        self.sockets[1].setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, multicast_interface(index))
        self.send(data, (self.address, self.port))

    def is_on_link(self, host: str) -> bool:
        """True: addresses of IPv4 don't tell."""
        return True

    def _bind(self, hears: socket.socket, says: socket.socket) -> None:
        hears.bind((self.address, self.port))
        says.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
        says.bind(("", 0))

    def _join(self, hears: socket.socket, index: int) -> None:
        hears.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership(self.address, index))


class Ipv6Group(MulticastGroup):
    """A group of IPv6 on one link. Those who send to it do so from an address of that link, which no router passes
    on, as do those who answer them."""

    family = socket.AF_INET6
    #: Linux has no route for groups there; this machine's nodes hear each other by IPv4, or by any other interface.
    without = ("lo",)

    def send(self, data: bytes, to: Source) -> None:
        """Send a datagram to one address. Raise `OSError`."""
        host, _, zone = to[0].partition("%")
        self.sockets[1].sendto(data, (host, to[1], 0, socket.if_nametoindex(zone) if zone else 0))

    def send_to_all(self, data: bytes, index: int) -> None:
        """Send a datagram to the group on one interface. Raise `OSError`."""
        self.sockets[1].sendto(data, (self.address, self.port, 0, index))

    def is_on_link(self, host: str) -> bool:
        """True for an address of a link, and for this machine's on loopback."""
        address = ipaddress.IPv6Address(host.partition("%")[0])
        return address.is_link_local or address.is_loopback

    def _bind(self, hears: socket.socket, says: socket.socket) -> None:
        for each in (hears, says):
            each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # At the group's own address one socket for each interface would be needed.
        hears.bind(("::", self.port))
        says.bind(("::", 0))

    def _join(self, hears: socket.socket, index: int) -> None:
        joined = struct.pack("=16sI", socket.inet_pton(socket.AF_INET6, self.address), index)
        hears.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, joined)


def make_groups(addresses: tuple[str, ...], port: int) -> list[MulticastGroup]:
    """Return a group for each address, by its family."""
    return [(Ipv6Group if ":" in each else Ipv4Group)(each, port) for each in addresses]
