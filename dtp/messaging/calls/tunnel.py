"""Carries a call's packets through a relay: what is sent to a local UDP socket comes out of one at the other end.

ICE sends to addresses, so each end gets a local address at which the other seems to be. Packets sent there travel
as datagrams of a connection between both ends, which a relay joins. ICE uses this way if no other works.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
from typing import Final

from dtp.carriers.nearness import Nearness, dialled_as_told
from dtp.errors import DtpError
from dtp.identity import Identity
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.dial import connect
from dtp.net.listener import Listener, listen
from dtp.peers.reach.relay_client import relay_kind
from dtp.tasks import TaskSet

#: Seconds that the answering end waits for the relay.
_PATIENCE: Final = 10.0
#: Bytes of the longest packet that is passed on. WebRTC's have 1,200.
_MAX_PACKET: Final = 2048
#: Devices that may be connected before it is decided which one has the call.
_MAX_CONNECTIONS: Final = 16
#: Random bytes in the service's name, which only the sealed offer tells.
_NAME_SIZE: Final = 10
#: The priority of this way in ICE: below all others.
_PRIORITY: Final = 1


class PacketTunnel(asyncio.DatagramProtocol):
    """One end of a tunnel. Call `open_port` first, then `listen_at` or `dial`. `close` it in any case."""

    def __init__(self) -> None:
        self._transport: asyncio.DatagramTransport | None = None
        self._agent: tuple[str, int] | None = None
        self._connections: list[Connection] = []
        self._listener: Listener | None = None
        self._tasks = TaskSet(lambda task, fault: None)  # it ends with its connection
        #: Packets that were sent and received through the tunnel.
        self.sent = self.received = 0

    async def open_port(self) -> None:
        """Open a UDP port that only this machine can reach."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))

    @property
    def port(self) -> int:
        """The local port at which the other end seems to be."""
        assert self._transport is not None
        return int(self._transport.get_extra_info("sockname")[1])

    def add_candidate(self, description: str) -> str:
        """Return the other end's description with the tunnel as a further address."""
        way = f"a=candidate:tunnel 1 udp {_PRIORITY} 127.0.0.1 {self.port} typ host\r\n"
        lines = description.splitlines(keepends=True)
        return "".join(each + way if each.startswith("m=") else each for each in lines)

    async def listen_at(self, url: str) -> str:
        """Reserve a place at a relay, or listen at another URL. Return the address to tell the other end."""
        identity = Identity.generate()
        name = f"call-{base64.b32encode(os.urandom(_NAME_SIZE)).decode().lower()}"
        self._listener = await listen([], {name: self._accept_end}, identity=identity)
        await self._listener.add(url, relay_kind(identity) if url.startswith("relay:") else None)
        return str(self._listener.addresses[0].with_service(name))

    async def _accept_end(self, connection: Connection) -> None:
        """Accept the other end of the tunnel. Several devices may connect; ICE and DTLS find out which one has the
        call.
        """
        if len(self._connections) < _MAX_CONNECTIONS:
            self._connections.append(connection)
            await self._pass_on(connection)

    async def dial(self, address: str, teller: Nearness) -> None:
        """Connect to the address that the other end has told; `teller` is how near that end is. Raise as `connect`,
        and `TimeoutError`.
        """
        async with asyncio.timeout(_PATIENCE):
            with dialled_as_told(teller):
                connection = await connect(Address.parse(address))
        self._connections.append(connection)
        self._tasks.start(self._pass_on(connection), name="dtp-calls-tunnel")

    async def _pass_on(self, connection: Connection) -> None:
        with contextlib.suppress(DtpError):
            while True:
                packet = await connection.recv_datagram()
                if self._agent is not None and self._transport is not None and len(packet) <= _MAX_PACKET:
                    self.received += 1
                    self._transport.sendto(packet, self._agent)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Pass on a packet from our own ICE. ICE has a socket for each network; the first one that sends here is
        used.
        """
        if self._agent is None:
            self._agent = addr[:2]
        if addr[:2] != self._agent:
            return
        for connection in self._connections:
            if not connection.closed:
                self.sent += 1
                with contextlib.suppress(DtpError):
                    connection.send_datagram(data)

    async def close(self) -> None:
        """Close the tunnel. Idempotent."""
        await self._tasks.stop()
        if self._transport is not None:
            self._transport.close()
            self._transport = None
        for connection in self._connections:
            await connection.close()
        if self._listener is not None:
            await self._listener.close()
