"""The LAN: a thin driver that sends and hears `HelloNode`'s datagrams on every interface. Nothing waits here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import socket
import time
from typing import ClassVar, Final

from dtp.carriers.errors import ListenError
from dtp.carriers.nearness import Nearness, who_tells
from dtp.identity import PeerId
from dtp.peers.book import PeerBook
from dtp.peers.lan.hello import SEALED_SIZE, HelloLimits, HelloNode
from dtp.peers.lan.interfaces import membership, multicast_interface, own_addresses
from dtp.peers.private import PrivateNetwork
from dtp.peers.record import PeerRecord

log = logging.getLogger("dtp.peers")

#: An address of the range for one organisation's own use (RFC 2365), and a port of nobody's (IANA).
GROUP: Final = "239.255.68.84"
PORT: Final = 6884
#: Datagrams that are read in one turn of the loop.
_TURN: Final = 64
#: Seconds until an ask that nobody has answered is sent again: Wi-Fi loses some.
_ASK_AGAIN: Final = 0.25
#: Seconds that an answer may take, and so how long it takes to look for a peer that isn't here.
PATIENCE: Final = 1.0


class Lan:
    """Sends and receives hellos on the LAN; records that it receives are added to a book. `async with` opens it.

    It is a finder (see `dtp.peers.resolver`). `interfaces` are names; by default all. Nothing is sent before
    `publish_record`.
    """

    source: ClassVar[str] = "lan"
    #: Those that answer may be anywhere: each hello is in the book already, with its source.
    teller: ClassVar[Nearness] = Nearness.ANYWHERE

    def __init__(
        self,
        book: PeerBook,
        *,
        network: PrivateNetwork | None = None,
        interfaces: tuple[str, ...] = (),
        group: str = GROUP,
        port: int = PORT,
        limits: HelloLimits | None = None,
    ) -> None:
        self.book = book
        self.hello = HelloNode(random=os.urandom, network=network, limits=limits)
        #: Bytes and datagrams that were sent and heard.
        self.sent_bytes = self.sent = self.heard_bytes = self.heard = 0
        self._interfaces, self._group, self._port = interfaces, group, port
        self._sockets: list[socket.socket] = []
        self._indexes: list[int] = []
        self._waiting: dict[PeerId, list[asyncio.Future[PeerRecord]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Lan:
        self._loop = asyncio.get_running_loop()
        try:
            self._open_sockets()
        except OSError as fault:
            self._close_sockets()
            raise ListenError(f"the LAN can't be heard at {self._group}:{self._port}: {fault}") from fault
        for each in self._sockets:
            self._loop.add_reader(each, self._on_readable, each)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close_sockets()

    def _open_sockets(self) -> None:
        hears = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sockets.append(hears)
        hears.setblocking(False)
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):  # every node of a machine hears the group
            hears.setsockopt(socket.SOL_SOCKET, option, 1)
        hears.bind((self._group, self._port))
        says = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sockets.append(says)
        says.setblocking(False)
        says.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
        says.bind(("", 0))
        self._join_group()

    def _join_group(self) -> None:
        """Join the group wherever it is not joined yet: interfaces come and go."""
        for index, name in socket.if_nameindex():
            if index in self._indexes or (self._interfaces and name not in self._interfaces):
                continue
            with contextlib.suppress(OSError):  # it is down, or is none for IPv4
                self._sockets[0].setsockopt(
                    socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership(self._group, index)
                )
                self._indexes.append(index)

    # ---- what is said and asked -------------------------------------------------------------------------

    def publish_record(self, record: PeerRecord, *, to_all: bool) -> None:
        """Announce `record` from now on: to everybody, or to those who ask for this peer.

        See `HelloNode.publish_record`.
        """
        self._join_group()
        self.hello.publish_record(record, self._loop_time(), to_all=to_all)
        self._flush_queue()

    def withdraw_record(self, last: PeerRecord) -> None:
        """Announce nothing from now on, after `last`: a record without addresses."""
        self.hello.withdraw_record(last)
        self._flush_queue()

    def ask_everybody(self) -> None:
        """Ask everybody for a hello; records that come are added to the book."""
        self.hello.send_ask(None)
        self._flush_queue()

    async def find_record(self, peer: PeerId) -> PeerRecord | None:
        """Return the record with which `peer` itself has answered; None after `PATIENCE` seconds. For peers of which
        others have told, or a book, it sends few asks a second: nodes say by themselves that they are here."""
        assert self._loop is not None, "the LAN is not open"
        is_told = who_tells() is not None
        answer: asyncio.Future[PeerRecord] = self._loop.create_future()
        self._waiting.setdefault(peer, []).append(answer)
        try:
            for _ in range(round(PATIENCE / _ASK_AGAIN)):
                if not is_told or self.hello.try_take_ask(self._loop_time()):
                    self.hello.send_ask(peer)
                    self._flush_queue()
                done, _pending = await asyncio.wait([answer], timeout=_ASK_AGAIN)
                if done:
                    return answer.result()
            return None
        finally:
            waiting = self._waiting[peer]
            waiting.remove(answer)
            if not waiting:
                del self._waiting[peer]

    # ---- datagrams --------------------------------------------------------------------------------------

    def _on_readable(self, sock: socket.socket) -> None:
        for _ in range(_TURN):
            try:
                data, source = sock.recvfrom(SEALED_SIZE + 1)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as fault:  # a network that was there is gone
                log.info("the LAN: %s", fault)
                break
            self.heard, self.heard_bytes = self.heard + 1, self.heard_bytes + len(data)
            record = self.hello.receive_datagram(data, source[:2], self._loop_time(), time.time())
            if record is not None:
                self.book.learn_record(record, f"{self.source} {source[0]}", _how_near(str(source[0])))
                for each in self._waiting.get(record.peer, ()):
                    if not each.done():
                        each.set_result(record)
        self._flush_queue()

    def _flush_queue(self) -> None:
        """Send queued datagrams, and set the timer."""
        outgoing, self.hello.outgoing = self.hello.outgoing, []
        for data, to in outgoing:
            if to is not None:
                self._send_datagram(data, to)
                continue
            for index in self._indexes:
                self._send_datagram(data, (self._group, self._port), index)
        at = self.hello.next_time()
        if self._timer is not None:
            self._timer.cancel()
        assert self._loop is not None
        self._timer = None if at == math.inf else self._loop.call_at(at, self._handle_timer)

    def _send_datagram(self, data: bytes, to: tuple[str, int], index: int | None = None) -> None:
        says = self._sockets[1]
        try:
            if index is not None:
                says.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, multicast_interface(index))
            says.sendto(data, to)
        except OSError as fault:  # down, without a route, or its queue is full: hellos are said again
            self.hello.counters["not-sent"] += 1
            log.debug("the LAN: %s: %s", to, fault)
            return
        self.sent, self.sent_bytes = self.sent + 1, self.sent_bytes + len(data)

    def _handle_timer(self) -> None:
        self._timer = None
        self._join_group()
        self.hello.send_due(self._loop_time())
        self._flush_queue()

    def _loop_time(self) -> float:
        assert self._loop is not None, "the LAN is not open"
        return self._loop.time()

    def _close_sockets(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for each in self._sockets:
            if self._loop is not None:
                self._loop.remove_reader(each)
            each.close()
        self._sockets.clear()


def _how_near(host: str) -> Nearness:
    """Return how near whoever sent a hello from `host` is: one from this machine has an address of this machine, by
    whichever interface it goes, and the system lets in none from elsewhere that has."""
    return Nearness.MACHINE if host in own_addresses().values() else Nearness.of_host(host)
