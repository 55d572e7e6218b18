"""The LAN: a thin driver that sends and receives `HelloNode`'s datagrams on every interface. Nothing here blocks."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Final

from dtp.carriers.errors import ListenError
from dtp.carriers.nearness import Nearness, who_tells
from dtp.identity import PeerId
from dtp.peers.book import PeerBook
from dtp.peers.lan.groups import GROUP, GROUP_V6, MulticastGroup, make_groups
from dtp.peers.lan.hello import HelloLimits, HelloNode
from dtp.peers.lan.interfaces import has_address
from dtp.peers.private import PrivateNetwork
from dtp.peers.record import PeerRecord

log = logging.getLogger("dtp.peers")

#: A port that IANA hasn't assigned.
PORT: Final = 6884
#: Datagrams that are read in one turn of the loop.
_TURN: Final = 64
#: Seconds until an unanswered ask is sent again, since Wi-Fi loses some.
_ASK_AGAIN: Final = 0.25
#: Seconds to wait for an answer, and so the time that looking for an absent peer takes.
PATIENCE: Final = 1.0


class Lan:
    """Sends and receives hellos on the LAN. Received records are added to a book. `async with` opens it.

    It is a finder (see `dtp.peers.resolver`). `interfaces` are names; by default all are used. No hello is sent
    before `publish_record`.
    """

    source: ClassVar[str] = "lan"
    #: The answer may come from anywhere. Each hello is already in the book, with its source.
    teller: ClassVar[Nearness] = Nearness.ANYWHERE

    def __init__(
        self,
        book: PeerBook,
        *,
        network: PrivateNetwork | None = None,
        interfaces: tuple[str, ...] = (),
        groups: tuple[str, ...] = (GROUP, GROUP_V6),
        port: int = PORT,
        limits: HelloLimits | None = None,
    ) -> None:
        self.book = book
        self.hello = HelloNode(random=os.urandom, network=network, limits=limits)
        #: Bytes and datagrams that were sent and received.
        self.sent_bytes = self.sent = self.heard_bytes = self.heard = 0
        self._interfaces = interfaces
        self._groups = make_groups(groups, port)
        self._waiting: dict[PeerId, list[asyncio.Future[PeerRecord]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Lan:
        self._loop = asyncio.get_running_loop()
        faults = []
        for group in list(self._groups):
            try:
                group.open()
            except OSError as fault:  # this machine may have only one address family
                self._groups.remove(group)
                faults.append(f"{group.address} port {group.port}: {fault}")
        if not self._groups:
            raise ListenError(f"the LAN can't be heard at {', '.join(faults)}")
        self._join_groups()
        for group in self._groups:
            for each in group.sockets:
                self._loop.add_reader(each, self._on_readable, group, each)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for group in self._groups:
            for each in group.sockets:
                if self._loop is not None:
                    self._loop.remove_reader(each)
            group.close()
        self._groups.clear()  # connections may outlive the node, and have their peers looked for here

    def _join_groups(self) -> None:
        for group in self._groups:
            group.join(self._interfaces)

    # ---- sending ----------------------------------------------------------------------------------------

    def publish_record(self, record: PeerRecord, *, to_all: bool) -> None:
        """Announce `record` from now on: to everybody, or to those who ask for this peer.

        See `HelloNode.publish_record`.
        """
        self._join_groups()
        self.hello.publish_record(record, self._loop_time(), to_all=to_all)
        self._flush_queue()

    def withdraw_record(self, last: PeerRecord) -> None:
        """Stop announcing, after sending `last`, a record without addresses."""
        self.hello.withdraw_record(last)
        self._flush_queue()

    def ask_everybody(self) -> None:
        """Ask everybody for a hello. Records that come are added to the book."""
        self.hello.send_ask(None)
        self._flush_queue()

    async def find_record(self, peer: PeerId) -> PeerRecord | None:
        """Return the record that `peer` itself has answered with, or None after `PATIENCE` seconds. For peers that
        others or a book have named it sends few asks a second: nodes announce themselves anyway.
        """
        assert self._loop is not None, "the LAN is not open"
        if not self._groups:  # it has been closed
            return None
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

    def _on_readable(self, group: MulticastGroup, sock: socket.socket) -> None:
        for _ in range(_TURN):
            try:
                data, source = group.receive(sock)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as fault:  # a network that was there is gone
                log.info("the LAN: %s", fault)
                break
            self.heard, self.heard_bytes = self.heard + 1, self.heard_bytes + len(data)
            if not group.is_on_link(source[0]):
                self.hello.counters["off-link"] += 1
                continue
            record = self.hello.receive_datagram(data, source, self._loop_time(), time.time())
            if record is not None:
                self.book.learn_record(record, f"{self.source} {source[0]}", _how_near(source[0]))
                for each in self._waiting.get(record.peer, ()):
                    if not each.done():
                        each.set_result(record)
        self._flush_queue()

    def _flush_queue(self) -> None:
        """Send queued datagrams, and set the timer."""
        outgoing, self.hello.outgoing = self.hello.outgoing, []
        for data, to in outgoing:
            for group in self._groups:
                if to is None:
                    for index in group.indexes:
                        self._count_sent(data, partial(group.send_to_all, data, index))
                elif (":" in to[0]) == (group.family == socket.AF_INET6):
                    self._count_sent(data, partial(group.send, data, to))
        at = self.hello.next_time()
        if self._timer is not None:
            self._timer.cancel()
        assert self._loop is not None
        is_due = bool(self._groups) and at < math.inf
        self._timer = self._loop.call_at(at, self._handle_timer) if is_due else None

    def _count_sent(self, data: bytes, send: Callable[[], None]) -> None:
        try:
            send()
        except OSError as fault:  # down, without a route, or its queue is full: hellos are repeated
            self.hello.counters["not-sent"] += 1
            log.debug("the LAN: %s", fault)
            return
        self.sent, self.sent_bytes = self.sent + 1, self.sent_bytes + len(data)

    def _handle_timer(self) -> None:
        self._timer = None
        self._join_groups()
        self.hello.send_due(self._loop_time())
        self._flush_queue()

    def _loop_time(self) -> float:
        assert self._loop is not None, "the LAN is not open"
        return self._loop.time()


def _how_near(host: str) -> Nearness:
    """Return how near the sender of a hello is. A sender on this machine has one of its addresses, whichever
    interface it uses, and the system lets no datagram in from elsewhere with such a source.
    """
    return Nearness.MACHINE if has_address(host) else Nearness.of_host(host)
