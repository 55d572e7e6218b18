"""The multicast groups of hellos, for IPv4 and IPv6: their sockets, on which interfaces they are joined, and how
datagrams are sent.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from abc import ABC, abstractmethod
from typing import ClassVar, Final

from dtp.peers.lan.hello import SEALED_SIZE, Source
from dtp.peers.lan.interfaces import membership, multicast_interface

#: An address of the organization-local scope (RFC 2365).
GROUP: Final = "239.255.68.84"
#: A transient address of link-local scope (RFC 4291, 2.7, and RFC 3307, 4.3). Its last four digits are the port.
GROUP_V6: Final = "ff12::8000:1ae4"


class MulticastGroup(ABC):
    """A group that is received from and sent to on some interfaces. Call `open` first and `close` at the end."""

    family: ClassVar[socket.AddressFamily]
    #: Interfaces on which the group can't be used, by name.
    without: ClassVar[tuple[str, ...]] = ()

    def __init__(self, address: str, port: int) -> None:
        self.address, self.port = address, port
        #: The interfaces on which it is joined, by index.
        self.indexes: list[int] = []
        #: The socket that receives from the group, and the one that sends and receives answers.
        self.sockets: list[socket.socket] = []

    def open(self) -> None:
        """Open the sockets. Raise `OSError` with none of them open, for example on a machine without the address
        family.
        """
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            hears, says = self._add_socket(), self._add_socket()
            for option in (
                socket.SO_REUSEADDR,
                socket.SO_REUSEPORT,
            ):  # every node of a machine receives from the group
                hears.setsockopt(socket.SOL_SOCKET, option, 1)
            self._bind(hears, says)
            undo.pop_all()

    def close(self) -> None:
        """Close the sockets. Idempotent."""
        for each in self.sockets:
            each.close()
        self.sockets.clear()

    def join(self, names: tuple[str, ...]) -> None:
        """Join the group on all interfaces, or those named, where it isn't joined yet: interfaces come and go."""
        for index, name in socket.if_nameindex():
            if index in self.indexes or name in self.without or (names and name not in names):
                continue
            with contextlib.suppress(OSError):  # it is down, or hasn't this address family
                self._join(self.sockets[0], index)
                self.indexes.append(index)

    def receive(self, sock: socket.socket) -> tuple[bytes, Source]:
        """Return the next datagram and its source. Raise `OSError`, also if there is none."""
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
        """True unless `host` is certainly not on a network of this machine."""

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
        """True, since IPv4 addresses don't show it."""
        return True

    def _bind(self, hears: socket.socket, says: socket.socket) -> None:
        hears.bind((self.address, self.port))
        says.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
        says.bind(("", 0))

    def _join(self, hears: socket.socket, index: int) -> None:
        hears.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership(self.address, index))


class Ipv6Group(MulticastGroup):
    """A link-local group of IPv6. Those who send to it, and those who answer, use link-local addresses, which no
    router forwards.
    """

    family = socket.AF_INET6
    #: Linux has no route for multicast on loopback. Nodes of the same machine reach each other by IPv4, or through
    #: any other interface.
    without = ("lo",)

    def send(self, data: bytes, to: Source) -> None:
        """Send a datagram to one address. Raise `OSError`."""
        host, _, zone = to[0].partition("%")
        self.sockets[1].sendto(data, (host, to[1], 0, socket.if_nametoindex(zone) if zone else 0))

    def send_to_all(self, data: bytes, index: int) -> None:
        """Send a datagram to the group on one interface. Raise `OSError`."""
        self.sockets[1].sendto(data, (self.address, self.port, 0, index))

    def is_on_link(self, host: str) -> bool:
        """True for a link-local address, and for one of loopback."""
        address = ipaddress.IPv6Address(host.partition("%")[0])
        return address.is_link_local or address.is_loopback

    def _bind(self, hears: socket.socket, says: socket.socket) -> None:
        for each in (hears, says):
            each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Binding to the group's own address would need one socket for each interface.
        hears.bind(("::", self.port))
        says.bind(("::", 0))

    def _join(self, hears: socket.socket, index: int) -> None:
        joined = struct.pack("=16sI", socket.inet_pton(socket.AF_INET6, self.address), index)
        hears.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, joined)


def make_groups(addresses: tuple[str, ...], port: int) -> list[MulticastGroup]:
    """Return a group for each address, of its address family."""
    return [(Ipv6Group if ":" in each else Ipv4Group)(each, port) for each in addresses]
