"""Packets that leave by a UDP socket, as many at once as the kernel cuts up itself.

A system call for each packet is a third of what sending it takes. Linux takes a row of packets in one, all as long as
the first but the last, which may be shorter (UDP_SEGMENT, since 4.18), and does so below what the network sees.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from typing import Final

from dtp.carriers.quic.carrier import Address

#: Of `udp(7)`; Python has no names for them.
_SOL_UDP: Final = 17
_UDP_SEGMENT: Final = 103
_SIZE: Final = struct.Struct("=H")
#: Packets and bytes of a row: what the kernel takes at most (UDP_MAX_SEGMENTS, and an IP packet).
MOST_SEGMENTS: Final = 64
MOST_BYTES: Final = 65_000
#: What the kernel answers where a network device, or itself, can't do it.
_CANT: Final = frozenset({errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.EOPNOTSUPP})


class PacketRow:
    """Packets to one address, all as long as the first but the last, which may be shorter."""

    __slots__ = ("address", "packets")

    def __init__(self, packets: list[bytes], address: Address) -> None:
        self.packets, self.address = packets, address


def group_packets(packets: Iterable[tuple[bytes, Address]], most: int = MOST_SEGMENTS) -> Iterator[PacketRow]:
    """Yield the packets in rows of at most so many, in their order."""
    row, length, size = None, 0, 0
    for data, address in packets:
        if (
            row is not None
            and address == row.address
            and len(row.packets) < most
            and len(row.packets[-1]) == length >= len(data)
            and size + len(data) <= MOST_BYTES
        ):
            row.packets.append(data)
            size += len(data)
            continue
        if row is not None:
            yield row
        row, length, size = PacketRow([data], address), len(data), len(data)
    if row is not None:
        yield row


def _knows_rows(sock: socket.socket) -> bool:
    """True if the kernel knows what a row is: one that doesn't sends it as a single packet, and says nothing."""
    if sys.platform != "linux":
        return False
    try:
        sock.getsockopt(_SOL_UDP, _UDP_SEGMENT)
    except OSError:
        return False
    return True


class RowSender:
    """Sends rows by a socket, which stays its owner's."""

    def __init__(self, sock: socket.socket, *, connected: bool) -> None:
        self._sock, self._connected = sock, connected
        #: Packets that a row may have: 1 where the kernel can't cut rows up.
        self.most = MOST_SEGMENTS if _knows_rows(sock) else 1

    def group(self, packets: Iterable[tuple[bytes, Address]]) -> Iterator[PacketRow]:
        """Yield the packets in rows as this system takes them, in their order."""
        return group_packets(packets, self.most)

    def send_row(self, row: PacketRow) -> None:
        """Send a row; what fails is lost. `OSError` for the packet that the system doesn't take."""
        if len(row.packets) > 1:
            try:
                self._send_at_once(row)
            except OSError as error:
                if error.errno not in _CANT:
                    raise
                self.most = 1
            else:
                return
        for data in row.packets:
            if self._connected:
                self._sock.send(data)
            else:
                self._sock.sendto(data, row.address)

    def _send_at_once(self, row: PacketRow) -> None:
        how = [(_SOL_UDP, _UDP_SEGMENT, _SIZE.pack(len(row.packets[0])))]
        if self._connected:
            self._sock.sendmsg(row.packets, how)
        else:
            self._sock.sendmsg(row.packets, how, 0, row.address)
