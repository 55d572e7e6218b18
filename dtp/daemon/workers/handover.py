"""Carriers that arrive at the wrong worker, and how they get to the right one (docs/decisions/0086).

The kernel distributes carriers over the workers, so one that should resume a connection may arrive at a worker that
doesn't have it. That worker completes the handshake, asks the parent where the connection is, and passes on the
socket with the result of the handshake. A carrier that is more than a socket (TLS, WebSocket) stays, and its bytes
are forwarded over a socket pair. After an upgrade the same happens with connections of the previous process
(docs/decisions/0085).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from dtp.carriers.stream_socket import StreamSocketCarrier
from dtp.carriers.tcp import TcpCarrier
from dtp.carriers.unix import UnixCarrier
from dtp.carriers.watch import socket_watcher
from dtp.core import Buffer
from dtp.daemon.workers.channel import ChannelLost, WorkerChannel
from dtp.errors import CarrierError
from dtp.net.driver import LinkDriver
from dtp.net.held import BudgetHolder, HeldBudget
from dtp.net.listener import Listener
from dtp.session.codes import HandshakeError
from dtp.session.handshake import Established
from dtp.tasks import TaskSet

log = logging.getLogger("dtpd")

_READ = 256 * 1024


class Way(Protocol):
    """How to reach the other processes of a daemon, which have numbers."""

    def note_opened(self, connection_id: bytes) -> None:
        """Report that a connection with this id is here."""

    def note_closed(self, connection_id: bytes) -> None:
        """Report that it is over."""

    async def find_owner(self, connection_id: bytes) -> int | None:
        """Return which process has this connection; None if that isn't known."""

    def give_carrier(self, owner: int, descriptors: Sequence[int], fields: Mapping[str, Any]) -> None:
        """Send `fields` and descriptors to a process, whose `take_carrier` receives them."""


class ParentWay:
    """A worker's way, through its parent."""

    def __init__(self, channel: WorkerChannel) -> None:
        self._channel = channel

    def note_opened(self, connection_id: bytes) -> None:
        self._channel.send_message("opened", connection=connection_id)

    def note_closed(self, connection_id: bytes) -> None:
        self._channel.send_message("closed", connection=connection_id)

    async def find_owner(self, connection_id: bytes) -> int | None:
        try:
            owner: int | None = await self._channel.send_request("where", connection=connection_id)
        except ChannelLost:
            return None
        return owner

    def give_carrier(self, owner: int, descriptors: Sequence[int], fields: Mapping[str, Any]) -> None:
        self._channel.send_message("carrier", descriptors, to=owner, **fields)


class Handover:
    """The `Neighbours` of a listener: connections of other processes are passed on by `way`.

    `home` returns the worker that has to have a new connection; None if any may.
    """

    def __init__(
        self, way: Way, me: int = 0, home: Callable[[Established], int | None] = lambda _: None
    ) -> None:
        self._way = way
        self._me = me
        self._home = home
        self._tasks = TaskSet()
        #: Set once it listens.
        self.listener: Listener | None = None
        #: The number of carriers that were passed on, and taken.
        self.given = self.taken = 0

    def note_opened(self, connection_id: bytes) -> None:
        self._way.note_opened(connection_id)

    def note_closed(self, connection_id: bytes) -> None:
        self._way.note_closed(connection_id)

    def takes_over(self, driver: LinkDriver, established: Established) -> bool:
        """Return True if the connection may be another worker's, in which case this object takes care of the
        carrier."""
        if established.payload.resume:
            self._start_task(self._find_owner(driver, established))
            return True
        home = self._home(established)
        if home is None or home == self._me:
            return False
        # Later: bytes that followed the handshake only belong to the driver once this has returned.
        asyncio.get_running_loop().call_soon(self._give_carrier, driver, established, home)
        return True

    async def _find_owner(self, driver: LinkDriver, established: Established) -> None:
        owner = await self._way.find_owner(established.payload.resume)
        if driver.closed:
            return
        if owner is None or owner == self._me:
            assert self.listener is not None
            self.listener.give_back(driver, established)
        else:
            self._give_carrier(driver, established, owner)

    def _give_carrier(self, driver: LinkDriver, established: Established, owner: int) -> None:
        if driver.closed:
            return
        carrier = driver.carrier
        about: dict[str, Any] = {
            "connection": established.payload.resume,
            "established": established.to_message(),
            "source": carrier.source,
            "remote": carrier.remote,
            "scheme": carrier.scheme,
        }
        found = driver.detach_carrier()
        if found is None:
            sock, there = socket.socketpair()
            received = driver.take_tail()
            CarrierBridge(driver, sock, None if self.listener is None else self.listener.held)
            about |= {"scheme": UnixCarrier.scheme, "unsent": b"", "received": received}
        else:
            there, unsent, received = found
            about |= {"unsent": unsent, "received": received}
        with there:
            self._way.give_carrier(owner, [there.fileno()], about)
        self.given += 1

    def take_carrier(self, fields: Mapping[str, Any], descriptors: list[int]) -> None:
        """Take a carrier that another process passes on. One that can't be understood is closed, which is
        logged."""
        (descriptor,) = descriptors
        sock = socket.socket(fileno=descriptor)
        if self.listener is None:
            sock.close()
            return
        try:
            established = Established.from_message(fields["established"])
        except HandshakeError as error:
            log.warning("a carrier of another process is closed: %s", error)
            sock.close()
            return
        kind: type[StreamSocketCarrier] = TcpCarrier if fields["scheme"] == TcpCarrier.scheme else UnixCarrier
        carrier = kind(sock, source=fields["source"], remote=fields["remote"])
        self.taken += 1
        self.listener.adopt_carrier(carrier, established, fields["unsent"], fields["received"])

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.start(work, name="dtpd-handover")

    async def close(self) -> None:
        """Stop looking for owners. Idempotent."""
        await self._tasks.stop()


class CarrierBridge:
    """Owns a driver whose carrier can't leave this process, and forwards its bytes over `sock` in both directions.

    What the other end hasn't read of one read waits here, and nothing more is read meanwhile. That, and what its
    carrier buffers, counts in `budget` like buffers of this process's own connections.
    """

    def __init__(
        self, driver: LinkDriver, sock: socket.socket, budget: HeldBudget[BudgetHolder] | None = None
    ) -> None:
        sock.setblocking(False)
        self._driver = driver
        self._sock = sock
        self._budget = budget
        self.source = driver.carrier.source
        self._watcher = socket_watcher(asyncio.get_running_loop())
        self._out = bytearray()
        self.closed = False
        driver.take_over(self, None)
        driver.mark_settled()
        self._watcher.add_reader(sock.fileno(), self._on_readable)

    def __repr__(self) -> str:
        return f"<carrier {self._driver.carrier.remote} of a connection in another process>"

    def _receive_records(
        self, driver: LinkDriver, buffer: Buffer, start: int, end: int, most: int
    ) -> tuple[int, int]:
        waiting = bool(self._out)
        self._out += buffer.view[start:end]
        if not waiting:
            self._on_writable()
        if self._out:
            driver.carrier.pause_reading()
        self._driver_keeps()
        return end, 0

    def _on_writable(self) -> None:
        try:
            sent = self._sock.send(self._out)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:  # the other process is gone
            self._end_carrier()
            return
        del self._out[:sent]
        if self._out:
            self._watcher.add_writer(self._sock.fileno(), self._on_writable)
        else:
            self._watcher.remove_writer(self._sock.fileno())
            self._driver.carrier.resume_reading()
        self._driver_keeps()

    def _on_readable(self) -> None:
        data = b""
        with contextlib.suppress(OSError):
            try:
                data = self._sock.recv(_READ)
            except (BlockingIOError, InterruptedError):
                return
        if not data:
            self._end_carrier()
            return
        self._driver.writable = self._driver.carrier.write(memoryview(data))
        if not self._driver.writable:
            self._watcher.remove_reader(self._sock.fileno())
        self._driver_keeps()

    def _driver_keeps(self) -> None:
        """Count what is buffered here."""
        if self._budget is not None and not self.closed:
            self._budget.note_kept(self, self.source, len(self._out) + self._driver.held)

    def abort(self, code: int, reason: str) -> None:
        """Abort the carrier, since more is buffered for it than others leave room for.

        No reason can be sent from here, since the keys are where the connection is.
        """
        self._driver.carrier.abort()

    def _flush_writes(self) -> None:
        if not self.closed:
            self._driver_keeps()
            self._watcher.add_reader(self._sock.fileno(), self._on_readable)

    def _received_packet(self, driver: LinkDriver, packet: bytes) -> None:
        """Do nothing: nobody here can take it."""

    def _carrier_lost(self, driver: LinkDriver, error: CarrierError | None) -> None:
        if not self.closed:
            self.closed = True
            if self._budget is not None:
                self._budget.forget_key(self)
            self._watcher.remove_reader(self._sock.fileno())
            self._watcher.remove_writer(self._sock.fileno())
            self._sock.close()

    def _end_carrier(self) -> None:
        """Send what was written, then end the carrier, since the connection gave it up."""
        self._watcher.remove_reader(self._sock.fileno())
        self._watcher.remove_writer(self._sock.fileno())
        self._driver.close_carrier()
