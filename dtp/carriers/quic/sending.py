"""Packets that leave by a UDP socket, as many at once as the kernel cuts up itself.

A system call for each packet is a third of what sending it takes. Linux takes a row of packets in one, all as long as
the first but the last, which may be shorter (UDP_SEGMENT, since 4.18), and does so below what the network sees.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Container, Iterable, Iterator
from typing import Final

from dtp.bounded import BoundedDict
from dtp.carriers.quic.carrier import Address

#: Of `udp(7)`; Python has no names for them.
_SOL_UDP: Final = 17
_UDP_SEGMENT: Final = 103
_SIZE: Final = struct.Struct("=H")
#: Packets and bytes of a row: what the kernel takes at most (UDP_MAX_SEGMENTS, and an IP packet).
MOST_SEGMENTS: Final = 64
MOST_BYTES: Final = 65_000
#: What the kernel answers where the way to an address can't do it: its packets are longer than the way has, or are
#: encrypted on it, or its network device lacks what is needed.
_CANT: Final = frozenset({errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.EOPNOTSUPP})
#: Packets that go one by one to a host whose way can't do it, until it is tried again: ways change. And so many such
#: hosts are known, the latest.
ALONE_FOR: Final = 4096
MOST_ALONE: Final = 1024


class PacketRow:
    """Packets to one address, all as long as the first but the last, which may be shorter."""

    __slots__ = ("address", "packets")

    def __init__(self, packets: list[bytes], address: Address) -> None:
        self.packets, self.address = packets, address


def group_packets(
    packets: Iterable[tuple[bytes, Address]], most: int = MOST_SEGMENTS, alone: Container[object] = ()
) -> Iterator[PacketRow]:
    """Yield the packets in rows of at most so many, in their order; to hosts that are `alone`, one in each."""
    row, length, size = None, 0, 0
    for data, address in packets:
        if (
            row is not None
            and address == row.address
            and len(row.packets) < most
            and len(row.packets[-1]) == length >= len(data)
            and size + len(data) <= MOST_BYTES
            and address[0] not in alone
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
        #: Hosts the way to which can't do it, each with how many packets go there one by one.
        self._alone: BoundedDict[object, int] = BoundedDict(MOST_ALONE)

    def group(self, packets: Iterable[tuple[bytes, Address]]) -> Iterator[PacketRow]:
        """Yield the packets in rows as this system takes them, in their order."""
        return group_packets(packets, self.most, self._alone)

    def send_row(self, row: PacketRow) -> None:
        """Send a row; what fails is lost. `OSError` for what the system doesn't take."""
        host = row.address[0]
        if len(row.packets) > 1:
            try:
                self._send_at_once(row)
            except OSError as error:
                if error.errno not in _CANT:
                    raise
                self._note_alone(host)
            else:
                return
        elif host in self._alone:
            self._count_alone(host)
        for data in row.packets:
            try:
                self._send_one(data, row.address)
            except OSError as error:
                if error.errno != errno.EMSGSIZE:  # those behind it may be shorter
                    raise

    def _note_alone(self, host: object) -> None:
        """Have packets to a host go one by one for a while."""
        self._alone[host] = ALONE_FOR

    def _count_alone(self, host: object) -> None:
        self._alone[host] -= 1
        if not self._alone[host]:
            del self._alone[host]

    def _send_one(self, data: bytes, address: Address) -> None:
        if self._connected:
            self._sock.send(data)
        else:
            self._sock.sendto(data, address)

    def _send_at_once(self, row: PacketRow) -> None:
        how = [(_SOL_UDP, _UDP_SEGMENT, _SIZE.pack(len(row.packets[0])))]
        if self._connected:
            self._sock.sendmsg(row.packets, how)
        else:
            self._sock.sendmsg(row.packets, how, 0, row.address)
